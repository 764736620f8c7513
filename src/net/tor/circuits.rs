//! Streams of an onion service that name their circuit (Tor's `HiddenServiceExportCircuitID
//! haproxy`).
//!
//! Each stream begins with a line of the PROXY protocol (version 1, at most 107 octets). The line's
//! source stands for the circuit, and its destination port is the port of the service: so one
//! listener serves both ports, and no circuit can take more than its share of the listener.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::SMTP_PORT;
use crate::failure::{Failure, FailureKind};
use crate::net::incoming::Arrived;
use crate::net::onion::SWARM_PORT;

/// Streams of one circuit to the swarm: a link, a catch-up, and those about to replace them.
const SWARM_PER_CIRCUIT: usize = 4;
/// Streams of one circuit to SMTP: mail programs send in parallel.
const SMTP_PER_CIRCUIT: usize = 16;
/// Streams in all: more than the swarm and SMTP take together.
pub(crate) const MAX_STREAMS: usize = 1024;
/// Streams that wait to be accepted by the swarm or by SMTP.
const WAITING: usize = 16;
const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Octets of a line, at most (PROXY protocol, section 2.1).
const MAX_LINE: usize = 107;
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// The streams that arrive at an onion service, sorted by its two ports.
pub(super) struct Sorted {
    pub(super) swarm: mpsc::Receiver<Arrived>,
    pub(super) smtp: mpsc::Receiver<Arrived>,
}

/// Listens at an address for streams that name their circuit.
pub(super) async fn listen(address: SocketAddr) -> Result<Sorted, Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::new(FailureKind::Port, format!("tor.listen: {address}: {error}"))
            .remedy("stop what listens there, or choose another port")
    })?;
    let (swarm_in, swarm) = mpsc::channel(WAITING);
    let (smtp_in, smtp) = mpsc::channel(WAITING);
    tokio::spawn(sort(listener, swarm_in, smtp_in));
    Ok(Sorted { swarm, smtp })
}

async fn sort(listener: TcpListener, swarm: mpsc::Sender<Arrived>, smtp: mpsc::Sender<Arrived>) {
    let all = Arc::new(Semaphore::new(MAX_STREAMS));
    let circuits = Arc::new(std::sync::Mutex::new(Circuits::default()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = swarm.closed() => return,
        };
        let Ok((mut stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A stream above the bound is hung up on.
        let Ok(place) = Arc::clone(&all).try_acquire_owned() else { continue };
        let (swarm, smtp, circuits) = (swarm.clone(), smtp.clone(), Arc::clone(&circuits));
        tokio::spawn(async move {
            let Ok(Ok(header)) = timeout(LINE_TIMEOUT, read_header(&mut stream)).await else {
                return;
            };
            // The lock is held for a look into a map; tasks of one listener share it.
            let own = circuits.lock().ok().and_then(|mut circuits| circuits.place(&header));
            let (Some(own), Ok(())) = (own, stream.set_nodelay(true)) else { return };
            let arrived = Arrived::with_places(stream, [place, own]);
            let to = if header.port == SMTP_PORT { smtp } else { swarm };
            // The accepting task may have ended.
            let _ = to.send(arrived).await;
        });
    }
}

#[derive(Default)]
struct Circuits(BTreeMap<(Ipv6Addr, u16), Arc<Semaphore>>);

impl Circuits {
    fn place(&mut self, header: &Header) -> Option<OwnedSemaphorePermit> {
        let most = match header.port {
            SWARM_PORT => SWARM_PER_CIRCUIT,
            SMTP_PORT => SMTP_PER_CIRCUIT,
            _ => return None,
        };
        // Circuits without a stream are forgotten, so there are never more circuits than streams.
        self.0.retain(|_, places| Arc::strong_count(places) > 1);
        let key = (header.circuit, header.port);
        let places = self.0.entry(key).or_insert_with(|| Arc::new(Semaphore::new(most)));
        Arc::clone(places).try_acquire_owned().ok()
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    circuit: Ipv6Addr,
    port: u16,
}

async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Header> {
    let mut line = Vec::with_capacity(MAX_LINE);
    // Read octet by octet: what follows the line belongs to the stream.
    while line.len() < MAX_LINE && !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await?);
    }
    parse(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `PROXY TCP6 fc00:dead:beef:4dad::0:2b ::1 43 9999`. Tor writes its address with `::` and a zero
/// group, which RFC 4291 allows and `Ipv6Addr` reads.
fn parse(line: &[u8]) -> Option<Header> {
    let line = str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let words: Vec<_> = line.split(' ').collect();
    let ["PROXY", "TCP6", source, _, _, port] = words.as_slice() else { return None };
    Some(Header { circuit: source.parse().ok()?, port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpStream;

    use super::*;

    const TORS_OWN: &[u8] = b"PROXY TCP6 fc00:dead:beef:4dad::0:2b ::1 43 9999\r\n";

    #[test]
    fn tors_line_is_read_and_nothing_else() {
        let header = parse(TORS_OWN).unwrap();
        assert_eq!(header.port, SWARM_PORT);
        assert_ne!(parse(&TORS_OWN.replace_2b()).unwrap().circuit, header.circuit);
        for bad in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY TCP4 1.2.3.4 ::1 43 9999\r\n",
            b"PROXY TCP6 fc00::1 ::1 43 99999\r\n",
            b"PROXY TCP6 fc00::1 ::1 43\r\n",
            b"PROXY TCP6 fc00::1 ::1 43 9999",
            b"",
        ] {
            assert_eq!(parse(bad), None);
        }
    }

    trait Replace {
        fn replace_2b(&self) -> Vec<u8>;
    }

    impl Replace for [u8] {
        fn replace_2b(&self) -> Vec<u8> {
            String::from_utf8(self.to_vec()).unwrap().replace("2b", "2c").into_bytes()
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }

    #[tokio::test]
    async fn streams_are_sorted_and_a_circuit_has_its_share() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut sorted = listen(address).await.unwrap();
        let open = async |line: &[u8]| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(line).await.unwrap();
            stream
        };
        let mut kept = Vec::new();
        for _ in 0..SWARM_PER_CIRCUIT {
            kept.push(open(TORS_OWN).await);
        }
        let mut arrived = Vec::new();
        for _ in 0..SWARM_PER_CIRCUIT {
            arrived.push(sorted.swarm.recv().await.unwrap());
        }
        // One more stream of the same circuit is hung up on, a stream of another is not.
        let mut refused = open(TORS_OWN).await;
        assert_eq!(refused.read(&mut [0]).await.unwrap_or(0), 0);
        kept.push(open(&TORS_OWN.replace_2b()).await);
        assert!(sorted.swarm.recv().await.is_some());
        // A place that is released can be taken again.
        drop(arrived.pop());
        kept.push(open(TORS_OWN).await);
        assert!(sorted.swarm.recv().await.is_some());
        let smtp = String::from_utf8(TORS_OWN.to_vec()).unwrap().replace("9999", "2525");
        kept.push(open(smtp.as_bytes()).await);
        assert!(sorted.smtp.recv().await.is_some());
        let mut garbage = open(b"GET / HTTP/1.1\r\n").await;
        assert_eq!(garbage.read(&mut [0]).await.unwrap_or(0), 0);
    }
}

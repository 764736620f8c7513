//! Callers that hold places and bring nothing, against a whole node, with honest ones beside them.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use keys::Identity;
use libp2p::swarm::{Stream, StreamProtocol};
use sphinx::SizeClass;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::hostile::{peers, status};
use super::raw::RawPeer;
use super::world::World;
use crate::control::{DiskTrouble, Warned, Warning};
use crate::files::faults::{FaultKind, inject};

const PACKETS: StreamProtocol = StreamProtocol::new("/fog/packets/1");

fn identity(number: u8) -> Identity {
    let mut seed = [7; 32];
    seed[0] = number;
    Identity::from_seed(&seed)
}

/// Opens a stream of packets and sends a frame; the stream, if the frame gets its receipt.
async fn receipt(peer: &mut RawPeer) -> Option<Stream> {
    let mut stream = peer.open(PACKETS).await?;
    let frame = vec![0; 1 + SizeClass::SMALLEST.packet_len()];
    stream.write_all(&frame).await.ok()?;
    stream.flush().await.ok()?;
    let mut receipt = [0];
    let read = timeout(Duration::from_secs(5), stream.read(&mut receipt)).await;
    matches!(read, Ok(Ok(1))).then_some(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a process that has nothing else to do"]
async fn strangers_that_hold_every_packet_stream_keep_nobody_out() {
    let world = World::new();
    let node = world.node("", None).await;
    let mut honest = RawPeer::dial(&world, &identity(200), &node.onion).await.unwrap();
    assert!(receipt(&mut honest).await.is_some());
    let mut held = Vec::new();
    for number in 0..128 {
        let Some(mut peer) = RawPeer::dial(&world, &identity(number), &node.onion).await else {
            continue;
        };
        let streams = [receipt(&mut peer).await, receipt(&mut peer).await];
        held.push((peer, streams));
    }
    let streams = held.iter().flat_map(|(_, streams)| streams).flatten().count();
    assert!(streams >= 64, "{streams}");
    // A link that was there before them may have gone for one of theirs; it comes back.
    let mut again = RawPeer::dial(&world, &identity(201), &node.onion).await.unwrap();
    let start = Instant::now();
    let mut tries = 0;
    while receipt(&mut again).await.is_none() {
        tries += 1;
        assert!(start.elapsed() < Duration::from_secs(5), "{tries} tries");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    println!("{streams} silent streams; an honest one after {:.1?}", start.elapsed());
    let counts = status(&world.state()).await.counts;
    let counted = counts.keys().filter(|name| name.starts_with("stranger's"));
    assert!(counted.count() > 0, "status shows it: {counts:?}");
    node.stop().await.unwrap();
}

/// Opens a socket and holds it, again when it is closed, until the end.
async fn hold(port: u16, says: &'static [u8], end: Arc<AtomicBool>, opened: Arc<AtomicU32>) {
    while !end.load(Ordering::Relaxed) {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        opened.fetch_add(1, Ordering::Relaxed);
        let _ = AsyncWriteExt::write_all(&mut socket, says).await;
        let mut read = [0; 64];
        while matches!(
            timeout(Duration::from_secs(20), AsyncReadExt::read(&mut socket, &mut read)).await,
            Ok(Ok(1..))
        ) {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a process that has nothing else to do"]
async fn silent_sockets_keep_no_newcomer_out() {
    for says in [&b""[..], b"\x13/multistream/1.0.0\n"] {
        let world = World::new();
        let node = world.node("", None).await;
        let devnet = world.folder.path().join("devnet");
        let port = std::fs::read_to_string(devnet.join(node.onion.to_string())).unwrap();
        let port: u16 = port.trim().parse().unwrap();
        let (end, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        for _ in 0..300 {
            tokio::spawn(hold(port, says, Arc::clone(&end), Arc::clone(&opened)));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        let newcomer = world.node_at("newcomer", &[node.onion]).await;
        let mut progress = newcomer.progress.clone();
        let linked = progress.wait_for(|progress| progress.linked > 0);
        let linked = timeout(Duration::from_secs(20), linked).await.is_ok_and(|up| up.is_ok());
        println!(
            "300 sockets that say {} octets, opened {} times: linked after {:.1?}",
            says.len(),
            opened.load(Ordering::Relaxed),
            start.elapsed()
        );
        assert!(linked, "while the others are still there");
        assert!(peers(&world.state()).await.len() <= 1);
        end.store(true, Ordering::Relaxed);
        node.stop().await.unwrap();
        newcomer.stop().await.unwrap();
    }
}

/// One honest session, with a mail that is refused for want of nodes: what is measured is whether it
/// is served. Returns how long its greeting took.
async fn honest(port: u16) -> Option<Duration> {
    let start = Instant::now();
    let socket = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let (reader, mut writer) = socket.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut line = async || {
        loop {
            let line = timeout(Duration::from_secs(10), lines.next_line()).await.ok()?.ok()??;
            if line.as_bytes().get(3) == Some(&b' ') {
                return Some(line);
            }
        }
    };
    let greeting = line().await?;
    let took = start.elapsed();
    if !greeting.starts_with("220") {
        return None;
    }
    let commands = ["EHLO x\r\n", "MAIL FROM:<a@b.example>\r\n", "RCPT TO:<c@d.example>\r\n"];
    for (command, code) in commands.into_iter().zip(["250", "250", "451"]) {
        writer.write_all(command.as_bytes()).await.ok()?;
        if !line().await?.starts_with(code) {
            return None;
        }
    }
    writer.write_all(b"QUIT\r\n").await.ok()?;
    line().await?.starts_with("221").then_some(took)
}

/// A session that repeats something, and comes back when it is sent away.
async fn attack(port: u16, first: &'static str, again: &'static str, end: Arc<AtomicBool>) {
    while !end.load(Ordering::Relaxed) {
        let session = async {
            let socket = TcpStream::connect(("127.0.0.1", port)).await?;
            let (mut reader, mut writer) = socket.into_split();
            tokio::spawn(async move {
                let mut read = [0; 1024];
                while matches!(reader.read(&mut read).await, Ok(1..)) {}
            });
            writer.write_all(first.as_bytes()).await?;
            while !end.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(700)).await;
                writer.write_all(again.as_bytes()).await?;
            }
            std::io::Result::Ok(())
        };
        // Sent away: the next session begins at once.
        let _ = session.await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a process that has nothing else to do"]
async fn sessions_that_bring_nothing_and_come_back_keep_nobody_waiting() {
    let attacks = [
        ("drip", "EHLO x\r\nMAIL FROM:<>\r\n", "x"),
        (
            "repeat",
            "EHLO x\r\n",
            "RSET\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nRSET\r\n",
        ),
        ("silence", "", ""),
    ];
    for (what, first, again) in attacks {
        let world = World::new();
        let node = world.node("", None).await;
        let end = Arc::new(AtomicBool::new(false));
        for _ in 0..300 {
            tokio::spawn(attack(node.smtp.port(), first, again, Arc::clone(&end)));
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        let mut served = Vec::new();
        const TRIES: usize = 40;
        for _ in 0..TRIES {
            served.extend(honest(node.smtp.port()).await);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let slowest = served.iter().max().copied().unwrap_or_default();
        println!(
            "300 sessions that {what}: {} of {TRIES} served, after {slowest:.1?} at most",
            served.len()
        );
        assert!(served.len() * 100 >= TRIES * 95, "{what}: {} served", served.len());
        assert!(slowest < Duration::from_secs(5), "{what}: {slowest:?}");
        end.store(true, Ordering::Relaxed);
        node.stop().await.unwrap();
    }
}

/// A disk that never answers: a rename that does not return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a process that has nothing else to do"]
async fn a_disk_that_hangs_is_named_and_keeps_no_node_from_answering_or_ending() {
    let world = World::new();
    let node = world.node("", None).await;
    let fault = inject(&world.state(), FaultKind::Hangs, 0, usize::MAX);
    let start = Instant::now();
    let named = async {
        loop {
            let warnings = status(&world.state()).await.warnings;
            let hangs = |warned: &Warned| {
                matches!(warned.warning, Warning::DiskFails { why: DiskTrouble::Hangs, .. })
            };
            if warnings.iter().any(hangs) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    // The first thing that has to be kept hangs; the next look at the disk does not come back.
    timeout(Duration::from_secs(200), named).await.expect("it is named");
    println!("a hanging disk is named after {:.1?}", start.elapsed());
    assert!(honest_greeting(node.smtp.port()).await, "sessions are served");
    let start = Instant::now();
    node.stop().await.unwrap();
    let took = start.elapsed();
    println!("and the node ends after {took:.1?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(fault);
}

async fn honest_greeting(port: u16) -> bool {
    let Ok(socket) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut lines = BufReader::new(socket).lines();
    let line = timeout(Duration::from_secs(5), lines.next_line()).await;
    matches!(line, Ok(Ok(Some(line))) if line.starts_with("220"))
}

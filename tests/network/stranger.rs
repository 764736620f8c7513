//! A peer that nobody lists: it speaks Noise and yamux, opens streams of packets, and then says
//! nothing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::Transport;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::{Config, StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, Swarm, noise, yamux};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

const PACKETS: StreamProtocol = StreamProtocol::new("/fog/packets/1");
/// A frame: the size class, and a packet of the smallest, here of zeros.
const FRAME: usize = 1 + 16 * 1024;

type Dial = Pin<Box<dyn Future<Output = io::Result<Compat<TcpStream>>> + Send>>;

/// Dials one port, whatever address it is given.
struct ToPort(u16);

impl Transport for ToPort {
    type Output = Compat<TcpStream>;
    type Error = io::Error;
    type ListenerUpgrade = Dial;
    type Dial = Dial;

    fn listen_on(
        &mut self,
        _: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, _: Multiaddr, _: DialOpts) -> Result<Dial, TransportError<io::Error>> {
        let port = self.0;
        Ok(Box::pin(async move { Ok(TcpStream::connect(("127.0.0.1", port)).await?.compat()) }))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Dial, io::Error>> {
        Poll::Pending
    }
}

/// Connects, sends one bad packet on each of two streams, and holds all until the node hangs up.
pub(crate) async fn hold(port: u16) {
    let keypair = Keypair::generate_ed25519();
    let upgraded = ToPort(port)
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let config =
        Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3600));
    let behaviour = libp2p_stream::Behaviour::new();
    let mut swarm = Swarm::new(upgraded, behaviour, keypair.public().to_peer_id(), config);
    let control = swarm.behaviour().new_control();
    if swarm.dial("/memory/1".parse::<Multiaddr>().unwrap()).is_err() {
        return;
    }
    loop {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others need nothing done")]
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                for _ in 0..2 {
                    let mut control = control.clone();
                    tokio::spawn(async move {
                        let mut stream = control.open_stream(peer_id, PACKETS).await.ok()?;
                        stream.write_all(&[0; FRAME]).await.ok()?;
                        stream.flush().await.ok()?;
                        let mut read = [0; 8];
                        while matches!(stream.read(&mut read).await, Ok(1..)) {}
                        Some(())
                    });
                }
            }
            SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => {
                return;
            }
            _ => {}
        }
    }
}

//! A peer that speaks Noise and yamux, and anything it likes on top of them.

use std::time::Duration;

use futures::StreamExt as _;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use keys::{Identity, OnionAddress};
use libp2p::swarm::{Config, NetworkBehaviour, Stream, StreamProtocol, SwarmEvent};
use libp2p::{Swarm, ping};
use libp2p_stream::Control;
use tokio::sync::watch;
use tokio::time::timeout;

use super::world::World;
use crate::net::behaviour::Addresses;
use crate::net::connect::Connector;
use crate::net::onion;
use crate::net::tor::socks::DialPurpose;
use crate::net::transport::{OnionTransport, transport};

pub(super) const MESHSUB: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");
const SOON: Duration = Duration::from_secs(20);

#[derive(NetworkBehaviour)]
struct Raw {
    addresses: Addresses,
    streams: libp2p_stream::Behaviour,
    ping: ping::Behaviour,
}

pub(super) struct RawPeer {
    control: Control,
    peer: libp2p::PeerId,
    pub(super) linked: watch::Receiver<bool>,
}

impl RawPeer {
    /// Dials a node, and is linked when this returns; `None` if the node refuses it.
    pub(super) async fn dial(
        world: &World,
        identity: &Identity,
        to: &OnionAddress,
    ) -> Option<Self> {
        let keypair = onion::keypair(identity).unwrap();
        let carrier =
            OnionTransport::dialling(Connector::Devnet(world.devnet()), DialPurpose::Swarm);
        let behaviour = Raw {
            addresses: Addresses::default(),
            streams: libp2p_stream::Behaviour::new(),
            ping: ping::Behaviour::default(),
        };
        let own = keypair.public().to_peer_id();
        let config =
            Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3600));
        let upgraded = transport(&keypair, carrier).unwrap();
        let mut swarm = Swarm::new(upgraded, behaviour, own, config);
        let control = swarm.behaviour().streams.new_control();
        // Everything that the node sends is read and discarded.
        let mut heard = control.clone().accept(MESHSUB).unwrap();
        tokio::spawn(async move {
            while let Some((_, mut stream)) = heard.next().await {
                tokio::spawn(async move {
                    let mut octets = vec![0; 64 * 1024];
                    while matches!(stream.read(&mut octets).await, Ok(1..)) {}
                });
            }
        });
        let peer = onion::peer_id(&to.node()).unwrap();
        swarm.dial(peer).unwrap();
        let (linked_in, mut linked) = watch::channel(false);
        let (failed_in, failed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut failed = Some(failed_in);
            loop {
                #[expect(clippy::wildcard_enum_match_arm, reason = "the others need nothing done")]
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => drop(linked_in.send(true)),
                    SwarmEvent::ConnectionClosed { num_established: 0, .. } => {
                        let _ = linked_in.send(false);
                        return;
                    }
                    SwarmEvent::OutgoingConnectionError { .. } => {
                        let _ = failed.take().map(|failed| failed.send(()));
                        return;
                    }
                    _ => {}
                }
            }
        });
        tokio::select! {
            up = timeout(SOON, linked.wait_for(|linked| *linked)) => { up.unwrap().ok()?; }
            _ = failed => return None,
        }
        Some(Self { control, peer, linked })
    }

    pub(super) async fn open(&mut self, protocol: StreamProtocol) -> Option<Stream> {
        let opened = timeout(SOON, self.control.open_stream(self.peer, protocol)).await;
        opened.ok()?.ok()
    }

    /// Writes frames until they are all written or the node hangs up; returns the number written.
    pub(super) async fn write_all(
        &mut self,
        protocol: StreamProtocol,
        frames: impl Iterator<Item = Vec<u8>>,
    ) -> usize {
        let Some(mut stream) = self.open(protocol).await else { return 0 };
        let mut written = 0;
        for frame in frames {
            match timeout(SOON, stream.write_all(&frame)).await {
                Ok(Ok(())) => written += 1,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        let _ = timeout(SOON, stream.flush()).await;
        written
    }

    pub(super) async fn is_hung_up_on(&mut self) -> bool {
        timeout(SOON, self.linked.wait_for(|linked| !*linked)).await.is_ok()
    }
}

/// The protobuf of gossipsub's `RPC`, field by field.
pub(super) mod rpc {
    pub(crate) fn varint(mut number: u64) -> Vec<u8> {
        let mut octets = Vec::new();
        while number >= 0x80 {
            octets.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
            number >>= 7;
        }
        octets.push(u8::try_from(number).unwrap());
        octets
    }

    pub(crate) fn field(number: u64, octets: &[u8]) -> Vec<u8> {
        [varint(number << 3 | 2), varint(octets.len() as u64), octets.to_vec()].concat()
    }

    fn number(field: u64, number: u64) -> Vec<u8> {
        [varint(field << 3), varint(number)].concat()
    }

    pub(crate) fn frame(rpc: &[u8]) -> Vec<u8> {
        [varint(rpc.len() as u64), rpc.to_vec()].concat()
    }

    pub(crate) fn publish(topic: &str, data: &[u8]) -> Vec<u8> {
        field(2, &[field(2, data), field(4, topic.as_bytes())].concat())
    }

    pub(crate) fn subscribe(topic: &str) -> Vec<u8> {
        field(1, &[number(1, 1), field(2, topic.as_bytes())].concat())
    }

    pub(crate) fn graft(topic: &str) -> Vec<u8> {
        field(3, &field(3, &field(1, topic.as_bytes())))
    }

    pub(crate) fn prune(topic: &str, backoff: u64) -> Vec<u8> {
        field(3, &field(4, &[field(1, topic.as_bytes()), number(3, backoff)].concat()))
    }

    pub(crate) fn ihave(topic: &str, ids: &[[u8; 32]]) -> Vec<u8> {
        let ids: Vec<u8> = ids.iter().flat_map(|id| field(2, id)).collect();
        field(3, &field(1, &[field(1, topic.as_bytes()), ids].concat()))
    }

    pub(crate) fn iwant(ids: &[[u8; 32]]) -> Vec<u8> {
        let ids: Vec<u8> = ids.iter().flat_map(|id| field(1, id)).collect();
        field(3, &field(2, &ids))
    }

    pub(crate) fn idontwant(ids: &[[u8; 32]]) -> Vec<u8> {
        let ids: Vec<u8> = ids.iter().flat_map(|id| field(1, id)).collect();
        field(3, &field(5, &ids))
    }
}

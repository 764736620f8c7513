//! Every octet that a node sends to a peer, as the peer sees it once Noise is taken off.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use directory::{Answer, Request};
use futures::{AsyncRead, AsyncWrite, StreamExt as _};
use keys::Identity;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use libp2p::core::transport::Transport as _;
use libp2p::request_response::{Event, Message};
use libp2p::swarm::{Config, SwarmEvent};
use libp2p::{Multiaddr, Swarm, gossipsub};
use tokio::time::timeout;

use super::world::World;
use crate::exit::Target;
use crate::net::behaviour::{Behaviour, BehaviourEvent};
use crate::net::connect::Connector;
use crate::net::gossip::{Said, topic};
use crate::net::onion;
use crate::net::tor::socks::DialPurpose;
use crate::net::transport::{OnionTransport, transport};

/// Hears all octets that come over a link.
pub(super) type Ear = Arc<dyn Fn(&[u8]) + Send + Sync>;

pub(super) struct Tap {
    pub(super) inner: StreamMuxerBox,
    pub(super) ear: Ear,
}

pub(super) struct TapStream {
    inner: SubstreamBox,
    ear: Ear,
}

impl Tap {
    fn wrap(&self, inner: SubstreamBox) -> TapStream {
        TapStream { inner, ear: Arc::clone(&self.ear) }
    }
}

impl StreamMuxer for Tap {
    type Substream = TapStream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<TapStream>> {
        let stream = std::task::ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(self.wrap(stream)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<TapStream>> {
        let stream = std::task::ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(self.wrap(stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

impl AsyncRead for TapStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, into))?;
        (self.ear)(&into[..read]);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for TapStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

fn contains(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_peer_is_told_nothing_of_the_machine_and_no_address_but_onions() {
    let world = World::new();
    let target = Target::Maildir(world.folder.path().join("mail"));
    let node = world.node("operator@fog.invalid", Some(target)).await;
    let port = world.folder.path().join("devnet").join(node.onion.to_string());
    let port = std::fs::read_to_string(port);
    let (devnet, descriptor) = (world.devnet(), &world.descriptor);

    // A peer that listens to everything.
    let keypair = onion::keypair(&Identity::from_seed(&[2; 32])).unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let tapped = Arc::clone(&log);
    let ear: Ear = Arc::new(move |octets| tapped.lock().unwrap().extend_from_slice(octets));
    let upgraded = transport(
        &keypair,
        OnionTransport::dialling(Connector::Devnet(devnet), DialPurpose::Swarm),
    )
    .unwrap();
    let tap =
        move |(peer, inner), _| (peer, StreamMuxerBox::new(Tap { inner, ear: Arc::clone(&ear) }));
    let transport = libp2p::Transport::map(upgraded, tap).boxed();
    let mut behaviour = Behaviour::new(&descriptor.id(), world.clock).unwrap();
    behaviour.gossip.inner.subscribe(&topic(&descriptor.id())).unwrap();
    let peer = keypair.public().to_peer_id();
    let mut swarm = Swarm::new(transport, behaviour, peer, Config::with_tokio_executor());
    let target = onion::peer_id(&node.onion.node()).unwrap();
    swarm.dial(target).unwrap();
    swarm.behaviour_mut().descriptor.send_request(&target, Vec::new());
    let mut addresses: Vec<Multiaddr> = Vec::new();
    let mut pages = Vec::new();
    let mut heard = false;
    let listen = async {
        while pages.len() < 2 || !heard {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the others say nothing")]
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { endpoint, .. } => {
                    addresses.push(endpoint.get_remote_address().clone());
                }
                SwarmEvent::NewExternalAddrOfPeer { address, .. } => addresses.push(address),
                // The node's record has come, so a catch-up has something to hold.
                SwarmEvent::Behaviour(BehaviourEvent::Gossip(Said::Gossip(
                    gossipsub::Event::Message { message, .. },
                ))) => {
                    heard = true;
                    let name = directory::ItemId::of(&message.data);
                    for question in [Request::Summary, Request::Fetch(vec![name])] {
                        let octets = question.encode().unwrap();
                        swarm.behaviour_mut().sync.send_request(&target, octets);
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Sync(Event::Message {
                    message: Message::Response { response, .. },
                    ..
                })) => pages.push(response),
                _ => {}
            }
        }
    };
    timeout(Duration::from_secs(20), listen).await.unwrap();

    let octets = log.lock().unwrap().clone();
    for spoken in ["/fog/sync/3", "/fog/network/2", "/meshsub/1", "operator@fog.invalid"] {
        assert!(contains(&octets, spoken.as_bytes()), "{spoken} is not in what was heard");
    }
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let (swarm_port, smtp) = (port.unwrap(), node.smtp.port().to_string());
    let secrets =
        [&hostname, &release, &swarm_port, &smtp, "linux", "Linux", "debian", "127.0.0.1"];
    // In some kilobytes of keys and hashes every word of two or three letters is found.
    for secret in secrets.into_iter().filter(|secret| secret.trim().len() > 3) {
        assert!(!contains(&octets, secret.trim().as_bytes()), "{secret} was told");
    }
    // Loopback, and every other address of this machine, as multiaddresses write them.
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let words = table.split_whitespace().filter_map(|word| word.parse().ok());
    for address in words.filter(|address: &std::net::Ipv4Addr| !address.is_unspecified()) {
        let told = [&[4][..], &address.octets()].concat();
        assert!(!contains(&octets, &told), "{address} was told");
    }
    for address in addresses {
        let onion = onion::onion_address(&address);
        assert_eq!(onion, Some(node.onion), "{address}");
    }
    let told = pages.iter().map(|octets| Answer::check(octets, &descriptor.id()).unwrap());
    let mut statements = 0;
    for answer in told {
        if let Answer::Items(items) = answer {
            statements += items.iter().filter(|(_, checked)| checked.is_ok()).count();
        }
    }
    assert_eq!(statements, 1);
    node.stop().await.unwrap();
}

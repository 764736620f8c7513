//! What the swarm speaks, and the bounds on it.

use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use directory::{MAX_PAGE, MAX_REQUEST};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use keys::{NetworkId, OnionAddress};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub::{
    self, IdentTopic, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds,
    TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId, ping};
use record::{MAX_DESCRIPTOR, MAX_STATEMENT};

use super::onion;

const SYNC: StreamProtocol = StreamProtocol::new("/fog/sync/1");
/// Answers an empty request with the network's signed descriptor.
const DESCRIPTOR: StreamProtocol = StreamProtocol::new("/fog/network/1");

/// Links: 64 nodes that everybody keeps a link to, in both directions, and room for joiners.
const MAX_CONNECTIONS: u32 = 256;
/// Two sides may dial each other at the same time.
/// A peer whose Tor has died comes back while its old links have not been missed yet.
const MAX_PER_PEER: u32 = 4;
const MAX_PENDING: u32 = 64;
/// More than a few circuits of callers can fill who say nothing: see the onion service's stream limit.
const MAX_PENDING_INCOMING: u32 = 256;
/// The gossip envelope around a statement: topic and field lengths.
const GOSSIP_OVERHEAD: usize = 512;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // First: what it refuses, no other behaviour hears of.
    limits: connection_limits::Behaviour,
    addresses: Addresses,
    pub(crate) gossip:
        gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>,
    pub(crate) sync: request_response::Behaviour<SyncCodec>,
    pub(crate) descriptor: request_response::Behaviour<DescriptorCodec>,
    ping: ping::Behaviour,
    pub(crate) packets: libp2p_stream::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(network: &NetworkId) -> Result<Self, String> {
        let sync = request_response::Config::default()
            .with_request_timeout(Duration::from_secs(60))
            .with_max_concurrent_streams(4);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits()),
            addresses: Addresses,
            gossip: gossip(network)?,
            sync: request_response::Behaviour::with_codec(
                Framed,
                [(SYNC, ProtocolSupport::Full)],
                sync,
            ),
            descriptor: descriptor_exchange(),
            // A dead tor does not close its streams: only an unanswered ping tells. A round trip over
            // two onion circuits takes a second or two; a frame of 256 KiB before it some more.
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(Duration::from_secs(15))
                    .with_timeout(Duration::from_secs(30)),
            ),
            packets: libp2p_stream::Behaviour::new(),
        })
    }
}

/// Questions for a network's descriptor, and answers.
pub(crate) fn descriptor_exchange() -> request_response::Behaviour<DescriptorCodec> {
    let config = request_response::Config::default()
        .with_request_timeout(Duration::from_secs(30))
        .with_max_concurrent_streams(2);
    let protocol = [(DESCRIPTOR, ProtocolSupport::Full)];
    request_response::Behaviour::with_codec(Framed, protocol, config)
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_pending_outgoing(Some(MAX_PENDING))
        .with_max_established(Some(MAX_CONNECTIONS))
        .with_max_established_incoming(Some(MAX_CONNECTIONS / 4 * 3))
        .with_max_established_per_peer(Some(MAX_PER_PEER))
}

/// The topic on which a network's statements travel.
pub(crate) fn topic(network: &NetworkId) -> IdentTopic {
    IdentTopic::new(format!("fog/1/{network}/statements"))
}

fn gossip(
    network: &NetworkId,
) -> Result<gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>, String>
{
    // Times are for links through Tor, where the defaults give up too early.
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .max_transmit_size(MAX_STATEMENT + GOSSIP_OVERHEAD)
        // Anonymous messages have no author and number: without this they would all have one id.
        .message_id_fn(|message| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(message.topic.as_str().as_bytes());
            hasher.update(&message.data);
            MessageId::new(hasher.finalize().as_bytes())
        })
        .publish_queue_duration(Duration::from_secs(60))
        .forward_queue_duration(Duration::from_secs(30))
        .iwant_followup_time(Duration::from_secs(20))
        .history_length(12)
        .history_gossip(6)
        .duplicate_cache_time(Duration::from_secs(600))
        .build()
        .map_err(|error| error.to_string())?;
    let ours = std::iter::once(topic(network).hash()).collect();
    let mut gossip = gossipsub::Behaviour::new_with_subscription_filter(
        MessageAuthenticity::Anonymous,
        config,
        WhitelistSubscriptionFilter(ours),
    )?;
    gossip.with_peer_score(scores(network), PeerScoreThresholds::default())?;
    Ok(gossip)
}

/// What peers are judged by: statements that are provably bad, and breaches of the protocol. Never by
/// where they come from, for all come from one Tor; nor by how quick they are, for that is their Tor's.
fn scores(network: &NetworkId) -> PeerScoreParams {
    let topic_params = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(60),
        time_in_mesh_cap: 60.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_decay: 0.99,
        first_message_deliveries_cap: 20.0,
        // Peers on slow circuits deliver late, and a quiet network delivers nothing.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // Grows with the square: one bad statement costs 1, ten cost 100.
        invalid_message_deliveries_weight: -1.0,
        invalid_message_deliveries_decay: 0.995,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: [(topic(network).hash(), topic_params)].into(),
        ip_colocation_factor_weight: 0.0,
        slow_peer_weight: 0.0,
        behaviour_penalty_weight: -1.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: 0.99,
        decay_interval: Duration::from_secs(10),
        ..PeerScoreParams::default()
    }
}

/// Gives every dial the one address that its peer id stands for, and refuses peers that have none.
pub(crate) struct Addresses;

impl NetworkBehaviour for Addresses {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        match onion::node_id(&peer) {
            Some(_) => Ok(dummy::ConnectionHandler),
            None => Err(ConnectionDenied::new(io::Error::other("not an ed25519 identity"))),
        }
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let node = peer.as_ref().and_then(onion::node_id);
        let onion = node.and_then(|node| OnionAddress::of(node).ok());
        Ok(onion.iter().map(onion::multiaddr).collect())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// One message each way, of at most so many octets: its length in 4 octets, big-endian, then its octets.
/// The length is checked before anything is read or reserved.
#[derive(Clone, Copy)]
pub(crate) struct Framed<const REQUEST: usize, const RESPONSE: usize>;

pub(crate) type SyncCodec = Framed<MAX_REQUEST, MAX_PAGE>;
pub(crate) type DescriptorCodec = Framed<0, MAX_DESCRIPTOR>;

impl<const REQUEST: usize, const RESPONSE: usize> request_response::Codec
    for Framed<REQUEST, RESPONSE>
{
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_message(io, REQUEST).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_message(io, RESPONSE).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_message(io, &request).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_message(io, &response).await
    }
}

async fn read_message<T: AsyncRead + Unpin>(io: &mut T, max: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut octets = vec![0; length];
    io.read_exact(&mut octets).await?;
    Ok(octets)
}

async fn write_message<T: AsyncWrite + Unpin>(io: &mut T, octets: &[u8]) -> io::Result<()> {
    let length = u32::try_from(octets.len()).map_err(io::Error::other)?;
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(octets).await?;
    io.flush().await
}

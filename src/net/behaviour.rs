//! The protocols of the swarm, and their bounds.

use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use std::collections::BTreeSet;

use directory::{MAX_ANSWER, MAX_REQUEST};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use keys::{NetworkId, OnionAddress};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId, ping};
use record::MAX_DESCRIPTOR;
use remailer::TOKEN_LEN;

use super::gossip::Gossip;
use super::limits::Limits;
use super::{onion, streams};
use crate::clock::Clock;

const SYNC: StreamProtocol = StreamProtocol::new("/fog/sync/3");
/// Answers an empty request with the network's signed descriptor.
const DESCRIPTOR: StreamProtocol = StreamProtocol::new("/fog/network/2");
/// Takes the token of an invite, and answers [`INVITED`] if the token is good.
const INVITE: StreamProtocol = StreamProtocol::new("/fog/invite/1");

/// The answer to a good token: this node now vouches for its bearer.
pub(super) const INVITED: u8 = 1;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // The limits stand first, so that no other behaviour hears of a connection they refuse.
    limits: Limits,
    pub(crate) addresses: Addresses,
    pub(crate) gossip: Gossip,
    pub(crate) sync: request_response::Behaviour<SyncCodec>,
    pub(crate) descriptor: request_response::Behaviour<DescriptorCodec>,
    pub(crate) invite: request_response::Behaviour<InviteCodec>,
    ping: ping::Behaviour,
    pub(crate) streams: streams::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(network: &NetworkId, clock: Clock) -> Result<Self, String> {
        let sync = request_response::Config::default()
            .with_request_timeout(Duration::from_secs(60))
            .with_max_concurrent_streams(4);
        Ok(Self {
            limits: Limits::default(),
            addresses: Addresses::default(),
            gossip: Gossip::new(network, clock)?,
            sync: request_response::Behaviour::with_codec(
                Framed,
                [(SYNC, ProtocolSupport::Full)],
                sync,
            ),
            descriptor: descriptor_exchange(),
            invite: request_response::Behaviour::with_codec(
                Framed,
                [(INVITE, ProtocolSupport::Full)],
                request_response::Config::default()
                    .with_request_timeout(Duration::from_secs(30))
                    .with_max_concurrent_streams(1),
            ),
            // A dead tor does not close its streams: only an unanswered ping tells. A round trip
            // over two onion circuits takes a second or two; a frame of 256 KiB before it some
            // more.
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(Duration::from_secs(15))
                    .with_timeout(Duration::from_secs(30)),
            ),
            streams: streams::Behaviour::new(),
        })
    }
}

/// The exchange that asks for a network's descriptor and answers with it.
pub(crate) fn descriptor_exchange() -> request_response::Behaviour<DescriptorCodec> {
    let config = request_response::Config::default()
        .with_request_timeout(Duration::from_secs(30))
        .with_max_concurrent_streams(2);
    let protocol = [(DESCRIPTOR, ProtocolSupport::Full)];
    request_response::Behaviour::with_codec(Framed, protocol, config)
}

/// Gives every dial the one address that its peer id stands for. Refuses peers without such an
/// address, and peers that were hung up on.
#[derive(Default)]
pub(crate) struct Addresses {
    /// Peers that were hung up on, for a while.
    pub(crate) refused: BTreeSet<PeerId>,
}

impl Addresses {
    fn check(&self, peer: &PeerId) -> Result<(), ConnectionDenied> {
        let why = match onion::node_id(peer) {
            None => "not an ed25519 identity",
            Some(_) if self.refused.contains(peer) => "hung up on a while ago",
            Some(_) => return Ok(()),
        };
        Err(ConnectionDenied::new(io::Error::other(why)))
    }
}

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
        self.check(&peer)?;
        Ok(dummy::ConnectionHandler)
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
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(&peer)?;
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

/// One message each way, of at most `LIMIT` octets: its length in 4 octets, big-endian, then its
/// octets. The length is checked before anything is read or reserved.
#[derive(Clone, Copy)]
pub(crate) struct Framed<const REQUEST: usize, const RESPONSE: usize>;

pub(crate) type SyncCodec = Framed<MAX_REQUEST, MAX_ANSWER>;
pub(crate) type InviteCodec = Framed<TOKEN_LEN, 1>;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_over_its_length_is_not_even_read() {
        for (announced, max) in [(u32::MAX, 4096), (4097, 4096), (1, 0)] {
            let mut octets = announced.to_be_bytes().to_vec();
            octets.resize(8192, 0);
            let mut io = futures::io::Cursor::new(octets);
            assert!(read_message(&mut io, max).await.is_err());
            assert_eq!(io.position(), 4);
        }
    }
}

//! Streams of a protocol of their own between two nodes: opened on the link that is there, or on one
//! that is dialled for it.
//!
//! What is kept for a link goes when the link ends, and what is kept for a peer with its last link: a
//! stranger can come back under a new name as often as it likes.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::task::{Context, Poll};

use futures::future::{Ready, ready};
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError,
    FromSwarm, NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use tokio::sync::{mpsc, oneshot};

/// Requests for streams that wait for the swarm.
const REQUESTS: usize = 64;
/// Streams opened by peers that wait for whoever takes them; more are closed.
const TAKEN: usize = 64;

/// Opens streams to peers.
#[derive(Clone)]
pub(crate) struct Opener(mpsc::Sender<Request>);

/// The streams of one protocol that peers opened.
pub(crate) type Opened = mpsc::Receiver<(PeerId, Stream)>;

/// A stream that somebody waits for.
pub(crate) struct Request {
    peer: PeerId,
    protocol: StreamProtocol,
    answer: oneshot::Sender<io::Result<Stream>>,
}

/// Without the peer: it is the next hop of a packet.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request(..)")
    }
}

impl Opener {
    /// Opens a stream, on a link that is dialled if there is none.
    ///
    /// # Errors
    /// If the dial fails, or the peer does not speak the protocol, or the link ends.
    pub(crate) async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> io::Result<Stream> {
        let (answer, stream) = oneshot::channel();
        let sent = self.0.send(Request { peer, protocol, answer }).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        stream.await.map_err(|_| io::ErrorKind::ConnectionReset)?
    }
}

/// The behaviour of these streams.
pub(crate) struct Behaviour {
    requests: mpsc::Receiver<Request>,
    opener: Opener,
    /// Which protocols are spoken, and who takes the streams that peers open.
    takers: Vec<(StreamProtocol, mpsc::Sender<(PeerId, Stream)>)>,
    links: BTreeMap<PeerId, Vec<ConnectionId>>,
    /// Requests for peers without a link.
    waiting: BTreeMap<PeerId, Vec<Request>>,
    actions: VecDeque<ToSwarm<Infallible, Request>>,
}

impl Behaviour {
    pub(crate) fn new() -> Self {
        let (opener, requests) = mpsc::channel(REQUESTS);
        Self {
            requests,
            opener: Opener(opener),
            takers: Vec::new(),
            links: BTreeMap::new(),
            waiting: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    pub(crate) fn opener(&self) -> Opener {
        self.opener.clone()
    }

    /// Speaks a protocol on the links that are made from now on.
    pub(crate) fn accept(&mut self, protocol: StreamProtocol) -> Opened {
        let (taker, opened) = mpsc::channel(TAKEN);
        self.takers.push((protocol, taker));
        opened
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.waiting.is_empty()
    }

    fn handler(&self) -> Handler {
        let protocols = self.takers.iter().map(|(protocol, _)| protocol.clone()).collect();
        Handler { protocols, wanted: VecDeque::new(), opened: VecDeque::new() }
    }

    fn handle_request(&mut self, request: Request) {
        let peer = request.peer;
        if let Some(link) = self.links.get(&peer).and_then(|links| links.last()) {
            self.actions.push_back(order(*link, request));
            return;
        }
        // Whoever asked may have given up since.
        self.waiting.retain(|_, requests| {
            requests.retain(|request| !request.answer.is_closed());
            !requests.is_empty()
        });
        self.waiting.entry(peer).or_default().push(request);
        let condition = PeerCondition::DisconnectedAndNotDialing;
        let opts = DialOpts::peer_id(peer).condition(condition).build();
        self.actions.push_back(ToSwarm::Dial { opts });
    }
}

fn order(link: ConnectionId, request: Request) -> ToSwarm<Infallible, Request> {
    let peer_id = request.peer;
    ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(link), event: request }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others change no link")]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => {
                self.links.entry(peer_id).or_default().push(connection_id);
                for request in self.waiting.remove(&peer_id).unwrap_or_default() {
                    self.actions.push_back(order(connection_id, request));
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(links) = self.links.get_mut(&peer_id) {
                    links.retain(|link| *link != connection_id);
                    if links.is_empty() {
                        self.links.remove(&peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, .. })
                if !matches!(error, DialError::DialPeerConditionFalse(_)) =>
            {
                for request in self.waiting.remove(&peer).unwrap_or_default() {
                    let _ = request.answer.send(Err(io::Error::other(error.to_string())));
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        (protocol, stream): THandlerOutEvent<Self>,
    ) {
        if let Some((_, taker)) = self.takers.iter().find(|(spoken, _)| *spoken == protocol) {
            // A stream that nobody has time for is closed.
            let _ = taker.try_send((peer, stream));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Poll::Ready(action);
            }
            match std::task::ready!(self.requests.poll_recv(cx)) {
                Some(request) => self.handle_request(request),
                // This behaviour keeps a sender.
                None => return Poll::Pending,
            }
        }
    }
}

/// The streams of one link.
pub(crate) struct Handler {
    protocols: Vec<StreamProtocol>,
    wanted: VecDeque<Request>,
    opened: VecDeque<(StreamProtocol, Stream)>,
}

type Answer = oneshot::Sender<io::Result<Stream>>;

impl ConnectionHandler for Handler {
    type FromBehaviour = Request;
    type ToBehaviour = (StreamProtocol, Stream);
    type InboundProtocol = OneOf;
    type OutboundProtocol = OneOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Answer;

    fn listen_protocol(&self) -> SubstreamProtocol<OneOf> {
        SubstreamProtocol::new(OneOf(self.protocols.clone()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<OneOf, Answer, (StreamProtocol, Stream)>> {
        if let Some(opened) = self.opened.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(opened));
        }
        match self.wanted.pop_front() {
            Some(Request { protocol, answer, .. }) => {
                let protocol = SubstreamProtocol::new(OneOf(vec![protocol]), answer);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            // The connection is polled again after each of its events.
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, request: Request) {
        self.wanted.push_back(request);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others concern no stream")]
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, OneOf, OneOf, (), Answer>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: opened,
                ..
            }) => self.opened.push_back(opened),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (_, stream),
                info: answer,
            }) => {
                // Whoever asked may have given up; the stream is closed then.
                let _ = answer.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: answer }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => io::ErrorKind::TimedOut.into(),
                    StreamUpgradeError::NegotiationFailed => io::ErrorKind::Unsupported.into(),
                    StreamUpgradeError::Io(error) => error,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = answer.send(Err(error));
            }
            _ => {}
        }
    }
}

/// One of these protocols, by its name alone.
pub(crate) struct OneOf(Vec<StreamProtocol>);

impl UpgradeInfo for OneOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for OneOf {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<Stream> for OneOf {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

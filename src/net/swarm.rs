//! The task that owns the swarm.
//!
//! It never waits for the driver: events that find no room are dropped, and what was dropped is asked
//! for again by the next catch-up. The driver may wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use directory::Request;
use futures::StreamExt as _;
use keys::{Identity, NetworkId, NodeId, OnionAddress};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, Transport as _, TransportError};
use libp2p::core::upgrade::Version;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, PublishError};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, OutboundRequestId, ResponseChannel};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{Config, DialError, ListenError, SwarmEvent};
use libp2p::{PeerId, Swarm, noise, yamux};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use record::Descriptor;
use remailer::Judgement;
use sphinx::Packet;
use tokio::sync::{mpsc, watch};

use super::behaviour::{Behaviour, BehaviourEvent, topic};
use super::connect::Connector;
use super::links::WantedLinks;
use super::onion;
use super::packets::{self, PACKETS, PacketQueues, SendFailed};
use super::reach::{Lookout, Reach, changed};
use super::tor::TorState;
use super::tor::circuits::Incoming;
use super::tor::socks::{DialFailed, Purpose, Retry};
use super::transport::OnionTransport;
use crate::clock::Clock;
use crate::failure::{Failure, Kind};

/// A dial with its handshakes. The way through Tor has a bound of its own, and dials wait for each other.
const DIAL_TIMEOUT: Duration = Duration::from_secs(120);
/// For a caller's handshakes: two round trips over two onion circuits.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams on one connection: gossip, packets, pings and catching up need fewer than ten.
const MAX_STREAMS: usize = 32;
const EVENTS: usize = 1024;
const ORDERS: usize = 256;
/// How often the peers' scores are looked at.
const SCORES_EVERY: Duration = Duration::from_secs(5);
/// Who has answered with another key is not asked again before that.
const WRONG_KEY_WAIT: Duration = Duration::from_secs(3600);
/// Packets read and not yet opened: at most 64 of 256 KiB.
const PACKETS_READ: usize = 64;

/// What the driver is told.
pub enum Event {
    /// A gossiped statement waits for its judgement.
    Statement {
        /// The statement.
        octets: Vec<u8>,
        /// Where the judgement goes.
        judged: Judged,
    },
    /// A peer asks for records.
    SyncRequest {
        /// What it asks.
        octets: Vec<u8>,
        /// Where the answer goes.
        answer: ResponseChannel<Vec<u8>>,
    },
    /// A peer answered.
    SyncPage {
        /// Which.
        peer: NodeId,
        /// What was asked.
        asked: Request,
        /// Its page.
        octets: Vec<u8>,
    },
}

/// Names a gossiped message.
pub struct Judged {
    id: MessageId,
    source: PeerId,
}

/// What the driver wants.
pub enum Order {
    /// Publish a statement, now or as soon as there is somebody to tell.
    Announce(Vec<u8>),
    /// Pass a statement on or not.
    Judge(Judged, Judgement),
    /// Answer a peer.
    Answer(ResponseChannel<Vec<u8>>, Vec<u8>),
    /// Ask a peer for records.
    Sync(NodeId, Request),
    /// Hold a link to a node that has just become known.
    Link(NodeId),
    /// Hold links to these, and to the bootstraps.
    Links(Vec<NodeId>),
    /// Do not any more.
    Unlink(NodeId),
}

/// The nodes linked at present.
pub type Links = Arc<BTreeSet<NodeId>>;

/// The gossip score of each linked node: below zero it has misbehaved.
pub type Scores = BTreeMap<NodeId, f64>;

/// The driver's side of the network.
pub struct Handle {
    /// What happened.
    pub events: mpsc::Receiver<Event>,
    /// Packets received, unopened.
    pub packets: mpsc::Receiver<Packet>,
    /// What is wanted.
    pub orders: mpsc::Sender<Order>,
    /// Packets to send.
    pub queues: PacketQueues,
    /// Packets that were not handed over.
    pub failures: mpsc::Receiver<SendFailed>,
    /// The nodes linked at present.
    pub links: watch::Receiver<Links>,
    /// The scores of those.
    pub scores: watch::Receiver<Scores>,
    /// Whether peers can reach this node.
    pub reach: watch::Receiver<Reach>,
    /// Ends when `orders` is dropped; the address is taken back then.
    pub task: tokio::task::JoinHandle<()>,
}

/// Starts the swarm of a node: listens for what arrives at its address and, if there is one, dials the
/// bootstrap.
///
/// # Errors
/// If it cannot listen.
pub fn spawn(
    identity: &Identity,
    descriptor: &Descriptor,
    connector: Connector,
    incoming: Incoming,
    bootstrap: &[OnionAddress],
    clock: Clock,
    mut rng: StdRng,
) -> Result<Handle, Failure> {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(Kind::Network, format!("{what}: {error}"))
    };
    let keypair = onion::keypair(identity).map_err(|error| fail("identity", &error))?;
    let own = OnionAddress::of(identity.node()).map_err(|error| fail("identity", &error))?;
    let network = descriptor.id();
    let carrier = OnionTransport::listening(connector.clone(), incoming);
    let mut swarm = build(&keypair, carrier, &network)
        .map_err(|error| fail("cannot start the swarm", &error))?;

    let topic = topic(&network);
    swarm.behaviour_mut().gossip.subscribe(&topic).map_err(|error| fail("gossip", &error))?;
    let mut control = swarm.behaviour().packets.new_control();
    let incoming = control.accept(PACKETS).map_err(|error| fail("packets", &error))?;
    swarm.listen_on(onion::multiaddr(&own)).map_err(|error| fail("cannot listen", &error))?;

    let (events_in, events) = mpsc::channel(EVENTS);
    let (orders, orders_out) = mpsc::channel(ORDERS);
    let (packets_in, packets) = mpsc::channel(PACKETS_READ);
    let (failures_in, failures) = mpsc::channel(EVENTS);
    let (links_in, links) = watch::channel(Links::default());
    let (scores_in, scores) = watch::channel(Scores::new());
    let (reach_in, reach) = watch::channel(Reach::default());
    let (echoes_in, echoes) = mpsc::channel(1);
    let lookout = Lookout {
        keypair,
        own,
        connector: connector.clone(),
        echoes,
        clock,
        rng: StdRng::from_rng(&mut rng),
        reach: reach_in,
    };
    tokio::spawn(lookout.run());
    tokio::spawn(packets::receive(incoming, packets_in));

    let mut wanted = WantedLinks::default();
    let bootstrap = bootstrap.iter().filter(|onion| **onion != own);
    let bootstrap: Vec<_> = bootstrap.map(OnionAddress::node).collect();
    for node in &bootstrap {
        wanted.want(*node);
    }
    let task = Task {
        swarm,
        topic,
        bootstrap,
        wanted,
        links: links_in,
        scores: scores_in,
        echoes: echoes_in,
        tor: connector.tor_state(),
        published: None,
        descriptor: descriptor.octets().to_vec(),
        events: events_in,
        announcement: None,
        asked: Vec::new(),
        clock,
        rng,
    };
    let task = tokio::spawn(async move {
        task.run(orders_out).await;
        connector.retire(&own);
    });
    let queues = PacketQueues::new(control, clock, failures_in, links.clone());
    Ok(Handle { events, packets, orders, queues, failures, links, scores, reach, task })
}

/// A swarm that speaks what nodes of this network speak, not listening yet.
pub(crate) fn build(
    keypair: &Keypair,
    carrier: OnionTransport,
    network: &NetworkId,
) -> Result<Swarm<Behaviour>, String> {
    let transport = transport(keypair, carrier);
    let transport = transport.map_err(|error| error.to_string())?;
    let config = Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(3600))
        .with_max_negotiating_inbound_streams(MAX_STREAMS);
    let peer = keypair.public().to_peer_id();
    Ok(Swarm::new(transport, Behaviour::new(network)?, peer, config))
}

/// Onion addresses, Noise and yamux.
pub(super) fn transport(
    keypair: &Keypair,
    carrier: OnionTransport,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    let version = match carrier.purpose() {
        // Saves a round trip for each negotiation, which through Tor is most of a dial.
        Purpose::Swarm | Purpose::Join => Version::V1Lazy,
        // Nothing is said on this connection, and a lazy negotiation ends with the first word.
        Purpose::Reach => Version::V1,
    };
    let upgraded =
        carrier.upgrade(version).authenticate(noise::Config::new(keypair)?).multiplex(yamux);
    let outgoing = TransportTimeout::with_outgoing_timeout(upgraded, DIAL_TIMEOUT);
    Ok(TransportTimeout::with_ingoing_timeout(outgoing, ACCEPT_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed())
}

struct Task {
    swarm: Swarm<Behaviour>,
    topic: gossipsub::IdentTopic,
    bootstrap: Vec<NodeId>,
    wanted: WantedLinks,
    links: watch::Sender<Links>,
    scores: watch::Sender<Scores>,
    /// Where it is said that this node was dialled by itself.
    echoes: mpsc::Sender<()>,
    tor: Option<watch::Receiver<TorState>>,
    /// The last publication of the onion service that was seen.
    published: Option<u32>,
    /// For who asks.
    descriptor: Vec<u8>,
    events: mpsc::Sender<Event>,
    /// A statement that nobody was there to hear yet. A newer one replaces it.
    announcement: Option<Vec<u8>>,
    /// Questions under way, one for each peer at most.
    asked: Vec<(OutboundRequestId, PeerId, Request)>,
    clock: Clock,
    rng: StdRng,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let mut look = tokio::time::interval(SCORES_EVERY);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.swarm_event(event),
                _ = tick.tick() => self.dial_due(),
                () = changed(&mut self.tor) => self.tor_changed(),
                _ = look.tick() => self.note_scores(),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Announce(octets) => {
                self.announcement = Some(octets);
                self.announce();
            }
            Order::Judge(Judged { id, source }, judgement) => {
                let acceptance = match judgement {
                    Judgement::Accept => MessageAcceptance::Accept,
                    Judgement::Ignore => MessageAcceptance::Ignore,
                    Judgement::Reject => MessageAcceptance::Reject,
                };
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&id, &source, acceptance);
            }
            Order::Answer(channel, octets) => {
                // The peer may have gone in the meantime.
                let _ = self.swarm.behaviour_mut().sync.send_response(channel, octets);
            }
            Order::Sync(node, request) => self.ask(&node, request),
            Order::Link(node) => {
                self.wanted.want(node);
                self.dial_due();
            }
            Order::Links(nodes) => {
                let bootstrap = &self.bootstrap;
                self.wanted.keep_only(|node| nodes.contains(node) || bootstrap.contains(node));
                for node in self.bootstrap.iter().chain(&nodes) {
                    self.wanted.want(*node);
                }
            }
            // A bootstrap is dialled for as long as it is configured: it may come back.
            Order::Unlink(node) if self.bootstrap.contains(&node) => {}
            Order::Unlink(node) => self.wanted.forget(&node),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others need nothing done")]
    fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.gossip_event(event),
            SwarmEvent::Behaviour(BehaviourEvent::Sync(event)) => self.sync_event(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping)) if ping.result.is_err() => {
                self.swarm.close_connection(ping.connection);
            }
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                if let Some(node) = onion::node_id(&peer_id) {
                    self.wanted.connected(&node, self.clock.elapsed());
                    self.links.send_if_modified(|links| Arc::make_mut(links).insert(node));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                if let Some(node) = onion::node_id(&peer_id) {
                    self.links.send_if_modified(|links| Arc::make_mut(links).remove(&node));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Descriptor(event)) => self.tell_descriptor(event),
            SwarmEvent::IncomingConnectionError {
                error: ListenError::LocalPeerId { .. }, ..
            } => {
                // One that nobody has waited for yet says as much as two.
                let _ = self.echoes.try_send(());
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                self.dial_failed(&peer, &error);
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "cannot accept a connection");
            }
            _ => {}
        }
    }

    fn gossip_event(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source: source, message_id: id, message } => {
                let judged = Judged { id, source };
                let statement = Event::Statement { octets: message.data, judged };
                if let Err(mpsc::error::TrySendError::Full(Event::Statement { judged, .. })) =
                    self.events.try_send(statement)
                {
                    self.obey(Order::Judge(judged, Judgement::Ignore));
                }
            }
            gossipsub::Event::Subscribed { .. } => self.announce(),
            gossipsub::Event::Unsubscribed { .. }
            | gossipsub::Event::GossipsubNotSupported { .. }
            | gossipsub::Event::SlowPeer { .. } => {}
        }
    }

    fn announce(&mut self) {
        let Some(octets) = &self.announcement else { return };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        match gossip.publish(self.topic.clone(), octets.clone()) {
            Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => {}
            Ok(_) | Err(_) => self.announcement = None,
        }
    }

    fn ask(&mut self, node: &NodeId, request: Request) {
        let Some(peer) = onion::peer_id(node) else { return };
        let is_being_asked = self.asked.iter().any(|(_, asked, _)| *asked == peer);
        if is_being_asked || !self.swarm.is_connected(&peer) {
            return;
        }
        if let Ok(octets) = request.encode() {
            let id = self.swarm.behaviour_mut().sync.send_request(&peer, octets);
            self.asked.push((id, peer, request));
        }
    }

    fn sync_event(&mut self, event: request_response::Event<Vec<u8>, Vec<u8>>) {
        use request_response::{Event as Sync, Message};
        match event {
            Sync::Message { message: Message::Request { request, channel, .. }, .. } => {
                let event = Event::SyncRequest { octets: request, answer: channel };
                // A peer that gets no answer asks somebody else.
                let _ = self.events.try_send(event);
            }
            Sync::Message { message: Message::Response { request_id, response }, peer, .. } => {
                if let (Some(asked), Some(peer)) =
                    (self.answered(request_id), onion::node_id(&peer))
                {
                    let _ = self.events.try_send(Event::SyncPage { peer, asked, octets: response });
                }
            }
            Sync::OutboundFailure { request_id, .. } => {
                self.answered(request_id);
            }
            Sync::InboundFailure { .. } | Sync::ResponseSent { .. } => {}
        }
    }

    fn tell_descriptor(&mut self, event: request_response::Event<Vec<u8>, Vec<u8>>) {
        use request_response::{Event, Message};
        if let Event::Message { message: Message::Request { channel, .. }, .. } = event {
            let octets = self.descriptor.clone();
            // The peer may have gone in the meantime.
            let _ = self.swarm.behaviour_mut().descriptor.send_response(channel, octets);
        }
    }

    fn dial_failed(&mut self, peer: &PeerId, error: &DialError) {
        let Some(node) = onion::node_id(peer) else { return };
        let then = match (error, dial_failed(error)) {
            (DialError::WrongPeerId { .. }, _) => self.clock.elapsed() + WRONG_KEY_WAIT,
            (_, Some(failed)) if failed.retry() == Retry::Never => Duration::MAX,
            _ => return,
        };
        self.wanted.not_before(&node, then);
    }

    /// When the onion service is published again Tor was gone, and is back.
    fn tor_changed(&mut self) {
        let Some(tor) = &mut self.tor else { return };
        let Some(published) = tor.borrow_and_update().published else { return };
        if self.published.is_some_and(|before| before < published) {
            self.wanted.renew(self.clock.elapsed(), &mut self.rng);
        }
        self.published = Some(published);
    }

    fn note_scores(&mut self) {
        let gossip = &self.swarm.behaviour().gossip;
        let links = self.links.borrow();
        let score = |node: &NodeId| Some((*node, gossip.peer_score(&onion::peer_id(node)?)?));
        self.scores.send_replace(links.iter().filter_map(score).collect());
    }

    fn answered(&mut self, id: OutboundRequestId) -> Option<Request> {
        let at = self.asked.iter().position(|(asked, ..)| *asked == id)?;
        Some(self.asked.swap_remove(at).2)
    }

    fn dial_due(&mut self) {
        let links = self.links.borrow().clone();
        let now = self.clock.elapsed();
        for node in self.wanted.due(now, |node| links.contains(node), &mut self.rng) {
            let Some(peer) = onion::peer_id(&node) else { continue };
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing);
            // Refused if it is being dialled already or too many are.
            let _ = self.swarm.dial(dial.build());
        }
    }
}

/// Why the transport could not dial.
pub(super) fn dial_failed(error: &DialError) -> Option<DialFailed> {
    let DialError::Transport(errors) = error else { return None };
    errors.iter().find_map(|(_, error)| match error {
        TransportError::Other(error) => DialFailed::find(error),
        TransportError::MultiaddrNotSupported(_) => None,
    })
}

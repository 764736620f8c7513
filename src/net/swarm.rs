//! The task that owns the swarm.
//!
//! It never waits for the driver: events that find no room are dropped, and what was dropped is asked
//! for again by the next catch-up. The driver may wait for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use directory::{Answer, Request};
use futures::StreamExt as _;
use keys::{Identity, NetworkId, NodeId, OnionAddress};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, Transport as _, TransportError};
use libp2p::core::upgrade::Version;
use libp2p::gossipsub::{self, MessageId};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ResponseChannel};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{Config, DialError, ListenError, SwarmEvent};
use libp2p::{PeerId, Swarm, noise, yamux};
use record::{Descriptor, RecordError, Statement};
use remailer::Judgement;
use sphinx::Packet;
use tokio::sync::{mpsc, watch};

use super::behaviour::{Behaviour, BehaviourEvent};
use super::connect::Connector;
use super::gossip::{WORST_SCORE, topic};
use super::links::WantedLinks;
use super::meters::{Blocked, Meters};
use super::onion;
use super::packets::{self, PACKETS, PacketQueues, SendFailed};
use super::reach::{Lookout, Reach, changed};
use super::statements::{self, Work};
use super::tor::TorState;
use super::tor::circuits::Incoming;
use super::tor::socks::{DialFailed, Purpose, Retry};
use super::transport::OnionTransport;
use super::waiting::Waiting;
use crate::clock::Clock;
use crate::entropy::Generator;
use crate::failure::{Failure, Kind};

/// A dial with its handshakes. The way through Tor has a bound of its own, and dials wait for each other.
const DIAL_TIMEOUT: Duration = Duration::from_secs(120);
/// For a caller's handshakes: two round trips over two onion circuits.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams on one connection: gossip, packets, pings and catching up need fewer than ten.
pub(super) const MAX_STREAMS: usize = 32;
const EVENTS: usize = 1024;
const ORDERS: usize = 256;
/// How often the peers' scores are looked at.
const SCORES_EVERY: Duration = Duration::from_secs(5);
/// Who has answered with another key is not asked again before that.
const WRONG_KEY_WAIT: Duration = Duration::from_secs(3600);
/// Statements of one's own that wait for somebody to tell: beyond it the oldest goes.
const MAX_ANNOUNCEMENTS: usize = 64;
/// Nodes that this one dialled itself and keeps dialling, over restarts too, whoever else dials it: who fills
/// all its incoming links does not decide what it hears.
const CHOSEN: usize = 8;
/// Packets read and not yet opened: at most 64 of 256 KiB.
const PACKETS_READ: usize = 64;

/// What the driver is told.
pub enum Event {
    /// A gossiped statement was looked at, and waits for its judgement.
    Statement {
        /// What came of that.
        checked: Result<Statement, RecordError>,
        /// Where the judgement goes.
        judged: Judged,
    },
    /// A peer asks for what it lacks.
    SyncRequest {
        /// What it asks.
        octets: Vec<u8>,
        /// Where the answer goes.
        answer: ResponseChannel<Vec<u8>>,
    },
    /// A peer that was asked has answered.
    SyncAnswer {
        /// Which.
        peer: NodeId,
        /// Its answer, looked at.
        answer: Answer,
    },
    /// A peer that was asked does not answer, or with something else.
    SyncFailed(NodeId),
    /// A peer shows the token of an invite.
    InviteShown {
        /// Who.
        peer: NodeId,
        /// What.
        token: Vec<u8>,
        /// Where the answer goes.
        answer: ResponseChannel<Vec<u8>>,
    },
    /// A peer that was shown a token says whether it is good.
    InviteAnswered {
        /// Who.
        peer: NodeId,
        /// Whether it vouches for this node now.
        answer: Vec<u8>,
    },
}

/// Names a gossiped message.
pub struct Judged {
    pub(super) id: MessageId,
    pub(super) source: PeerId,
}

/// What the driver wants.
pub enum Order {
    /// Publish a statement, now or as soon as there is somebody to tell.
    Announce(Vec<u8>),
    /// Pass a statement on or not.
    Judge(Judged, Judgement),
    /// Answer a peer.
    Answer(ResponseChannel<Vec<u8>>, Vec<u8>),
    /// Ask a peer for what it has.
    Sync(NodeId, Request),
    /// Show a peer the token of an invite.
    ShowInvite(NodeId, Vec<u8>),
    /// Hang up on a peer that does not keep to the protocol, and do not let it in for a while.
    HangUp(NodeId),
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
    /// The nodes that it chose to link to, for the next start.
    pub chosen: watch::Receiver<Vec<NodeId>>,
    /// Ends when `orders` is dropped; the address is taken back then.
    pub task: tokio::task::JoinHandle<()>,
}

/// Whom a node dials first.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// Whom its operator named.
    pub bootstrap: Vec<OnionAddress>,
    /// Whom it had chosen when it ran before.
    pub chosen: Vec<NodeId>,
}

/// Starts the swarm of a node: listens for what arrives at its address, and dials whom it begins with.
///
/// # Errors
/// If it cannot listen.
pub fn spawn(
    identity: &Identity,
    descriptor: &Descriptor,
    connector: Connector,
    incoming: Incoming,
    beginning: Beginning,
    clock: Clock,
    rng: Generator,
) -> Result<Handle, Failure> {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(Kind::Network, format!("{what}: {error}"))
    };
    let keypair = onion::keypair(identity).map_err(|error| fail("identity", &error))?;
    let own = OnionAddress::of(identity.node()).map_err(|error| fail("identity", &error))?;
    let network = descriptor.id();
    let carrier = OnionTransport::listening(connector.clone(), incoming);
    let mut swarm = build(&keypair, carrier, &network, clock)
        .map_err(|error| fail("cannot start the swarm", &error))?;

    let topic = topic(&network);
    swarm.behaviour_mut().gossip.inner.subscribe(&topic).map_err(|error| fail("gossip", &error))?;
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
    let lookout =
        Lookout { keypair, own, connector: connector.clone(), echoes, clock, rng, reach: reach_in };
    tokio::spawn(lookout.run());
    tokio::spawn(packets::receive(incoming, packets_in));

    let mut wanted = WantedLinks::default();
    let bootstrap = beginning.bootstrap.iter().filter(|onion| **onion != own);
    let bootstrap: Vec<_> = bootstrap.map(OnionAddress::node).collect();
    let chosen: Vec<_> = beginning.chosen.into_iter().take(CHOSEN).collect();
    for node in bootstrap.iter().chain(&chosen) {
        wanted.want(*node);
    }
    let (chosen_in, chosen) = watch::channel(chosen);
    let (work, work_out) = mpsc::channel(1);
    tokio::spawn(statements::check(work_out, network, events_in.clone()));
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
        announcements: VecDeque::new(),
        waiting: Waiting::default(),
        answers: VecDeque::new(),
        work,
        meters: Meters::default(),
        blocked: Blocked::default(),
        dialled: BTreeSet::new(),
        chosen: chosen_in,
        clock,
        rng,
    };
    let task = tokio::spawn(async move {
        task.run(orders_out).await;
        connector.retire(&own);
    });
    let queues = PacketQueues::new(control, clock, failures_in, links.clone());
    Ok(Handle { events, packets, orders, queues, failures, links, scores, reach, chosen, task })
}

/// A swarm that speaks what nodes of this network speak, not listening yet.
pub(crate) fn build(
    keypair: &Keypair,
    carrier: OnionTransport,
    network: &NetworkId,
    clock: Clock,
) -> Result<Swarm<Behaviour>, String> {
    let transport = transport(keypair, carrier);
    let transport = transport.map_err(|error| error.to_string())?;
    let config = Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(3600))
        .with_max_negotiating_inbound_streams(MAX_STREAMS);
    let peer = keypair.public().to_peer_id();
    Ok(Swarm::new(transport, Behaviour::new(network, clock)?, peer, config))
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

pub(super) struct Task {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) topic: gossipsub::IdentTopic,
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
    pub(super) events: mpsc::Sender<Event>,
    /// Statements that nobody was there to hear yet.
    pub(super) announcements: VecDeque<Vec<u8>>,
    /// Statements that nobody has verified yet.
    pub(super) waiting: Waiting<Work>,
    /// Answers that nobody has verified yet: one of each peer that is being asked.
    pub(super) answers: VecDeque<Work>,
    work: mpsc::Sender<Work>,
    pub(super) meters: Meters,
    blocked: Blocked,
    /// Linked nodes that this one dialled.
    dialled: BTreeSet<NodeId>,
    /// Those of them that it goes on to dial, whatever happens.
    chosen: watch::Sender<Vec<NodeId>>,
    pub(super) clock: Clock,
    rng: Generator,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let mut look = tokio::time::interval(SCORES_EVERY);
        let work = self.work.clone();
        loop {
            let has_work = !self.waiting.is_empty() || !self.answers.is_empty();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Ok(turn) = work.reserve(), if has_work => {
                    let next = self.answers.pop_front().or_else(|| self.waiting.pop());
                    if let Some(work) = next {
                        turn.send(work);
                    }
                }
                event = self.swarm.select_next_some() => self.swarm_event(event),
                _ = tick.tick() => self.dial_due(),
                () = changed(&mut self.tor) => self.tor_changed(),
                _ = look.tick() => self.note_scores(),
            }
        }
    }

    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::Announce(octets) => {
                if self.announcements.len() >= MAX_ANNOUNCEMENTS {
                    self.announcements.pop_front();
                }
                self.announcements.push_back(octets);
                self.announce();
            }
            Order::Judge(judged, judgement) => self.judge(&judged, judgement),
            Order::Answer(channel, octets) => {
                // The peer may have gone in the meantime.
                let _ = self.swarm.behaviour_mut().sync.send_response(channel, octets);
            }
            Order::Sync(node, request) => self.ask(node, &request),
            Order::ShowInvite(node, token) => {
                if let Some(peer) = onion::peer_id(&node) {
                    self.swarm.behaviour_mut().invite.send_request(&peer, token);
                }
            }
            Order::HangUp(node) => {
                if let Some(peer) = onion::peer_id(&node) {
                    self.hang_up(peer);
                }
            }
            Order::Link(node) => {
                self.wanted.want(node);
                self.dial_due();
            }
            Order::Links(nodes) => {
                let (bootstrap, chosen) = (&self.bootstrap, self.chosen.borrow().clone());
                self.wanted.keep_only(|node| {
                    nodes.contains(node) || bootstrap.contains(node) || chosen.contains(node)
                });
                for node in self.bootstrap.iter().chain(&chosen).chain(&nodes) {
                    self.wanted.want(*node);
                }
                // Of the view only: whoever is heard of first must not be chosen for that.
                let dialled = self.dialled.iter().filter(|node| nodes.contains(node)).copied();
                let dialled: Vec<_> = dialled.collect();
                self.choose(|chosen| {
                    let new = dialled.into_iter().filter(|node| !chosen.contains(node));
                    let new: Vec<_> = new.take(CHOSEN.saturating_sub(chosen.len())).collect();
                    chosen.extend(new);
                });
            }
            // A bootstrap is dialled for as long as it is configured: it may come back.
            Order::Unlink(node) if self.bootstrap.contains(&node) => {}
            Order::Unlink(node) => {
                self.wanted.forget(&node);
                self.choose(|chosen| chosen.retain(|known| *known != node));
            }
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
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                if let Some(node) = onion::node_id(&peer_id) {
                    if endpoint.is_dialer() {
                        self.dialled.insert(node);
                    }
                    self.wanted.connected(&node, self.clock.elapsed());
                    self.links.send_if_modified(|links| Arc::make_mut(links).insert(node));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.meters.forget(&peer_id);
                if let Some(node) = onion::node_id(&peer_id) {
                    self.forget_waiting(&node);
                    self.dialled.remove(&node);
                    self.links.send_if_modified(|links| Arc::make_mut(links).remove(&node));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Descriptor(event)) => self.tell_descriptor(event),
            SwarmEvent::Behaviour(BehaviourEvent::Invite(event)) => self.invite_event(event),
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
        let links = Links::clone(&self.links.borrow());
        let scores: Scores = links.iter().map(|node| (*node, self.score(node))).collect();
        for (node, score) in &scores {
            if *score < WORST_SCORE
                && let Some(peer) = onion::peer_id(node)
            {
                self.hang_up(peer);
            }
        }
        self.scores.send_replace(scores);
        let now = self.clock.elapsed();
        let blocked = &self.blocked;
        let refused = &mut self.swarm.behaviour_mut().addresses.refused;
        refused.retain(|peer| blocked.is_blocked(peer, now));
    }

    /// Ends the links to a peer that does not keep to the protocol.
    pub(super) fn hang_up(&mut self, peer: PeerId) {
        self.blocked.block(peer, self.clock.elapsed());
        self.swarm.behaviour_mut().addresses.refused.insert(peer);
        // It may have gone in the meantime.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn choose(&self, change: impl FnOnce(&mut Vec<NodeId>)) {
        self.chosen.send_if_modified(|chosen| {
            let before = chosen.len();
            change(chosen);
            chosen.len() != before
        });
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

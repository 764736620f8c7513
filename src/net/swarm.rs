//! The task that owns the swarm.
//!
//! This task never waits for the driver: it drops events that find no room, and the next catch-up
//! asks for them again. The driver may wait for this task.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use keys::{Identity, NetworkId, NodeId, OnionAddress};
use libp2p::identity::Keypair;
use libp2p::request_response;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{Config, ListenError, SwarmEvent};
use libp2p::{PeerId, Swarm};
use record::Descriptor;
use remailer::InviteAnswer;
use tokio::sync::{mpsc, watch};

use super::behaviour::{Behaviour, BehaviourEvent, INVITED};
use super::connect::Connector;
use super::dialling::{DialledBy, Dialling};
use super::gossip::WORST_SCORE;
use super::handle::{Beginning, Entrances, Handle, NetEvent, Reception, SwarmOrder};
use super::handover::{self, HANDOVER};
use super::incoming::Incoming;
use super::links::{Links, Scores};
use super::onion;
use super::packets::{self, PACKETS, PacketQueues, StreamPlaces};
use super::reach::{Lookout, changed};
use super::statements::{Broken, Statements, score};
use super::strangers::Strangers;
use super::transport::{self, MAX_STREAMS, OnionTransport, transport};
use super::trial::{Losing, Taps};
use super::turned::Turned;
use crate::clock::Clock;
use crate::failure::{Failure, FailureKind};
use crate::machine::Machine;

const EVENTS: usize = 1024;
const ORDERS: usize = 256;
/// How often links that are due are dialled.
const DIAL_EVERY: Duration = Duration::from_millis(500);
/// How often the peers' scores are looked at.
const SCORES_EVERY: Duration = Duration::from_secs(5);
/// Packets read and not yet opened, of at most 256 KiB each.
const PACKETS_READ: usize = 64;

/// Starts the swarm of a node: it listens for what arrives at its address, and dials its
/// bootstraps.
///
/// # Errors
/// If it cannot listen.
pub fn spawn(
    identity: &Identity,
    descriptor: &Descriptor,
    connector: Connector,
    incoming: Incoming,
    beginning: Beginning,
    machine: Machine,
) -> Result<Handle, Failure> {
    let keypair = onion::keypair(identity).map_err(|error| fail("identity", &error))?;
    let own = OnionAddress::of(identity.node()).map_err(|error| fail("identity", &error))?;
    let network = descriptor.id();
    let handshakes = transport::handshakes(machine.clock);
    let carrier = OnionTransport::listening(connector.clone(), incoming, Arc::clone(&handshakes));
    let mut swarm = build(&keypair, carrier, &network, machine.clock)
        .map_err(|error| fail("cannot start the swarm", &error))?;
    swarm.listen_on(onion::multiaddr(&own)).map_err(|error| fail("cannot listen", &error))?;
    let streams = &mut swarm.behaviour_mut().streams;
    let (opener, opened) = (streams.opener(), streams.accept(PACKETS));
    let presented = streams.accept(HANDOVER);
    let (packets_in, packets) = mpsc::channel(PACKETS_READ);
    let (takes_packets, takes) = watch::channel(true);
    let (listed, is_listed) = watch::channel(BTreeSet::new());
    let stream_places = StreamPlaces::new(machine.clock);
    let strangers = Strangers::new(machine.clock, is_listed.clone());
    let places = [
        handshakes,
        strangers.places(),
        Arc::clone(&stream_places.of_listed),
        Arc::clone(&stream_places.of_strangers),
        handover::places(machine.clock),
    ];
    let trial = connector.trial();
    let taps = Taps::new(own.node(), machine.clock, trial.link_log);
    let losing = Losing::new(trial.loss, &own.node());
    let intake = packets::Intake { packets: packets_in, takes, taps: taps.clone(), losing };
    tokio::spawn(packets::receive(opened, intake, is_listed, stream_places));

    let (events_in, events) = mpsc::channel(EVENTS);
    let [.., of_addressless] = &places;
    tokio::spawn(handover::serve(presented, events_in.clone(), Arc::clone(of_addressless)));
    let (orders, orders_out) = mpsc::channel(ORDERS);
    let (failures_in, failures) = mpsc::channel(EVENTS);
    let (links_in, links) = watch::channel(Links::default());
    let (reach, echoes) = Lookout::start(keypair, own, connector.clone(), &machine);
    let dialling = Dialling::new(beginning, own.node(), &connector);
    let chosen = dialling.chosen();
    let queues = PacketQueues::new(opener, taps, machine.clock, failures_in, links.clone());
    let statements = Statements::new(&network, events_in.clone());
    let turned = statements.turned.clone();
    let task = SwarmTask {
        swarm,
        network,
        descriptor: descriptor.octets().to_vec(),
        dialling,
        statements,
        strangers,
        links: links_in,
        scores: watch::Sender::new(Scores::new()),
        echoes,
        events: events_in,
        machine,
    };
    let scores = task.scores.subscribe();
    let task = task.start(orders_out, move || connector.retire(&own))?;
    Ok(Handle {
        events,
        packets,
        reception: Reception { takes_packets, listed },
        entrances: Entrances { places, turned },
        orders,
        queues,
        failures,
        links,
        scores,
        reach,
        chosen,
        task,
    })
}

fn fail(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Network, format!("{what}: {error}"))
}

/// A swarm with the protocols of this network, not listening yet.
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

struct SwarmTask {
    swarm: Swarm<Behaviour>,
    network: NetworkId,
    /// Served to peers that ask for it.
    descriptor: Vec<u8>,
    dialling: Dialling,
    statements: Statements,
    strangers: Strangers,
    links: watch::Sender<Links>,
    scores: watch::Sender<Scores>,
    /// Takes a report each time that this node is dialled by itself.
    echoes: mpsc::Sender<()>,
    events: mpsc::Sender<NetEvent>,
    machine: Machine,
}

impl SwarmTask {
    /// Subscribes, and runs until the orders end.
    fn start(
        mut self,
        orders: mpsc::Receiver<SwarmOrder>,
        at_the_end: impl FnOnce() + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<()>, Failure> {
        let gossip = &mut self.swarm.behaviour_mut().gossip.inner;
        gossip.subscribe(self.statements.topic()).map_err(|error| fail("gossip", &error))?;
        Ok(tokio::spawn(async move {
            self.run(orders).await;
            at_the_end();
        }))
    }

    async fn run(mut self, mut orders: mpsc::Receiver<SwarmOrder>) {
        let mut tick = tokio::time::interval(DIAL_EVERY);
        let mut look = tokio::time::interval(SCORES_EVERY);
        let verifying = self.machine.workers.lane(1);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some(room) = verifying.room(), if self.can_verify() => {
                    // With its place taken first, no thread waits for the driver.
                    if let Ok(place) = self.events.clone().try_reserve_owned()
                        && let Some(work) = self.statements.next_work()
                    {
                        let network = self.network;
                        room.run(move || drop(place.send(work.check(&network))));
                    }
                }
                event = self.swarm.select_next_some() => self.swarm_event(event),
                _ = tick.tick() => self.dial_due(),
                () = changed(self.dialling.tor()) => {
                    let now = self.now();
                    self.dialling.tor_changed(now, &mut self.machine.rng);
                }
                _ = look.tick() => self.note_scores(),
            }
        }
    }

    fn can_verify(&self) -> bool {
        self.statements.has_work() && self.events.capacity() > 0
    }

    fn now(&self) -> Duration {
        self.machine.clock.elapsed()
    }

    fn obey(&mut self, order: SwarmOrder) {
        match order {
            SwarmOrder::Announce(octets) => self.statements.announce(octets, &mut self.swarm),
            SwarmOrder::Judge(judged, judgement) => {
                self.statements.judge(&judged, judgement, &mut self.swarm);
            }
            SwarmOrder::Answer(channel, octets) => {
                // The peer may have gone in the meantime.
                let _ = self.swarm.behaviour_mut().sync.send_response(channel, octets);
            }
            SwarmOrder::Ask(node, request) => self.statements.ask(node, &request, &mut self.swarm),
            SwarmOrder::ShowInvite(node, token) => {
                if let Some(peer) = onion::peer_id(&node) {
                    let token = token.as_bytes().to_vec();
                    self.swarm.behaviour_mut().invite.send_request(&peer, token);
                }
            }
            SwarmOrder::AnswerInvite(channel, answer) => {
                let octets = match answer {
                    InviteAnswer::Taken => vec![INVITED],
                    InviteAnswer::Refused | InviteAnswer::NotNow => Vec::new(),
                };
                // The peer may have gone in the meantime.
                let _ = self.swarm.behaviour_mut().invite.send_response(channel, octets);
            }
            SwarmOrder::HangUp(node) => {
                if let Some(peer) = onion::peer_id(&node) {
                    self.hang_up(peer);
                }
            }
            SwarmOrder::Link(node) => {
                self.dialling.want(node);
                self.dial_due();
            }
            SwarmOrder::Links(nodes) => self.dialling.want_only(&nodes),
            SwarmOrder::Unlink(node) => self.dialling.forget(&node),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others need nothing done")]
    fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let now = self.now();
        match event {
            SwarmEvent::Behaviour(event) => self.behaviour_event(event, now),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, connection_id, .. } => {
                if let Some(node) = onion::node_id(&peer_id) {
                    let by = if endpoint.is_dialer() { DialledBy::Us } else { DialledBy::Them };
                    if by == DialledBy::Them {
                        for gone in self.strangers.connected(connection_id, node) {
                            self.swarm.close_connection(gone);
                        }
                    }
                    self.dialling.connected(node, by, now);
                    self.links.send_if_modified(|links| Arc::make_mut(links).insert(node));
                }
            }
            SwarmEvent::ConnectionClosed { connection_id, num_established: 1.., .. } => {
                self.strangers.disconnected(connection_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established: 0, .. } => {
                self.strangers.disconnected(connection_id);
                self.statements.forget(&peer_id, &mut self.swarm);
                if let Some(node) = onion::node_id(&peer_id) {
                    self.dialling.disconnected(&node);
                    self.links.send_if_modified(|links| Arc::make_mut(links).remove(&node));
                }
            }
            SwarmEvent::IncomingConnectionError {
                error: ListenError::LocalPeerId { .. }, ..
            } => {
                // A full channel still holds an unread report, which says as much as two.
                let _ = self.echoes.try_send(());
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                self.dialling.failed(&peer, &error, now);
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "cannot accept a connection");
            }
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others need nothing done")]
    fn behaviour_event(&mut self, event: BehaviourEvent, now: Duration) {
        let broken = match event {
            BehaviourEvent::Gossip(event) => {
                self.statements.gossip_event(event, now, &mut self.swarm)
            }
            BehaviourEvent::Sync(event) => self.statements.sync_event(event, now),
            BehaviourEvent::Invite(event) => {
                self.statements.invite_event(event, now);
                None
            }
            BehaviourEvent::Descriptor(event) => {
                self.tell_descriptor(event);
                None
            }
            BehaviourEvent::Ping(ping) if ping.result.is_err() => {
                self.swarm.close_connection(ping.connection);
                None
            }
            _ => None,
        };
        if let Some(Broken(peer)) = broken {
            self.statements.turned.count(Turned::Peer);
            self.hang_up(peer);
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

    fn note_scores(&mut self) {
        let links = Links::clone(&self.links.borrow());
        let scored = |node: &NodeId| (*node, score(node, &self.swarm));
        let scores: Scores = links.iter().map(scored).collect();
        for (node, score) in &scores {
            if *score < WORST_SCORE
                && let Some(peer) = onion::peer_id(node)
            {
                self.hang_up(peer);
            }
        }
        self.scores.send_replace(scores);
        let (now, dialling) = (self.now(), &self.dialling);
        let refused = &mut self.swarm.behaviour_mut().addresses.refused;
        refused.retain(|peer| dialling.is_blocked(peer, now));
    }

    /// Ends the links to a peer that does not keep to the protocol.
    fn hang_up(&mut self, peer: PeerId) {
        let now = self.now();
        self.dialling.block(peer, now);
        self.swarm.behaviour_mut().addresses.refused.insert(peer);
        // The peer may already have disconnected.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn dial_due(&mut self) {
        let links = Links::clone(&self.links.borrow());
        let now = self.now();
        for node in self.dialling.due(now, &links, &mut self.machine.rng) {
            let Some(peer) = onion::peer_id(&node) else { continue };
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing);
            // The swarm refuses if the peer is being dialled already, or too many peers are.
            let _ = self.swarm.dial(dial.build());
        }
    }
}

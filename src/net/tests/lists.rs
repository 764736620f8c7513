//! A hundred swarms with seven voters, and a list every twenty seconds. Twice as many are more than
//! two processors carry: what each does grows with their number, 180 times as fast as in a real
//! network.
#![expect(clippy::print_stdout, reason = "figures of a run")]
#![expect(clippy::wildcard_enum_match_arm, reason = "what a node without a disk leaves undone")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use directory::Answer;
use futures::StreamExt as _;
use keys::{Hour, Time};
use libp2p::core::transport::MemoryTransport;
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::request_response::{self, Message};
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, Swarm};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use record::{Admission, Descriptor, ListHash, Parameters, Statement};
use remailer::{Command, Judgement, Remailer, Setup};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::scale::{MemoryOnions, address, counting_ear, identity, memory_ports, swarm};
use super::world::World;
use crate::clock::Clock;
use crate::net::behaviour::{Behaviour, BehaviourEvent};
use crate::net::gossip::{Said, topic};
use crate::net::onion;

const SWARMS: usize = 100;
const DIALLED: usize = 8;
const VOTERS: usize = 7;
/// Lists after the first.
const HOURS: u64 = 3;
const HOUR: u32 = 180;

/// A list that a node uses from now on: for which hour, which, and how long after the hour began.
type Used = (Hour, ListHash, Duration);

struct Citizen {
    swarm: Swarm<Behaviour>,
    remailer: Remailer,
    world: Arc<World>,
    rng: StdRng,
    used: mpsc::UnboundedSender<Used>,
    last: Option<Hour>,
}

impl Citizen {
    fn now(&self) -> Time {
        self.world.clock.now()
    }

    /// Lives as a node does, without mail and without a disk.
    async fn run(mut self, mut end: watch::Receiver<bool>) {
        loop {
            self.obey();
            let wait = self.remailer.poll_timeout().since(self.now());
            tokio::select! {
                _ = end.changed() => return,
                () = tokio::time::sleep(wait) => {
                    let now = self.now();
                    self.remailer.handle_timeout(now, &mut self.rng);
                }
                event = self.swarm.select_next_some() => self.hear(event),
            }
            self.tell();
        }
    }

    fn tell(&mut self) {
        let now = self.now();
        let Some(list) = self.remailer.directory().list() else { return };
        if self.last.is_none_or(|last| last < list.hour()) {
            self.last = Some(list.hour());
            let late = now.since(self.remailer.schedule().hour_start(list.hour()));
            let _ = self.used.send((list.hour(), list.hash(), late));
        }
    }

    fn obey(&mut self) {
        while let Some(command) = self.remailer.next_command() {
            match command {
                Command::Announce(octets) => {
                    let topic = topic(&self.world.descriptor.id());
                    let _ = self.swarm.behaviour_mut().gossip.inner.publish(topic, octets);
                }
                Command::Ask(node, request) => {
                    let peer = onion::peer_id(&node).filter(|peer| self.swarm.is_connected(peer));
                    match peer {
                        Some(peer) => {
                            let octets = request.encode().unwrap();
                            self.swarm.behaviour_mut().sync.send_request(&peer, octets);
                        }
                        None => {
                            let now = self.now();
                            self.remailer.handle_sync_failed(&node, now, &mut self.rng);
                        }
                    }
                }
                Command::KeepSeed(id, ..) | Command::KeepOwn(id, _) | Command::KeepVote(id, _) => {
                    let now = self.now();
                    self.remailer.handle_kept(id, now, &mut self.rng);
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let (now, network) = (self.now(), self.world.descriptor.id());
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                let node = onion::node_id(&peer_id).unwrap();
                self.remailer.handle_peers_up(&[node], now, &mut self.rng);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(Said::Gossip(
                gossipsub::Event::Message { propagation_source, message_id, message },
            ))) => {
                let checked = Statement::check(&message.data, &network);
                let judged = self.remailer.handle_statement(checked, now, &mut self.rng);
                let acceptance = match judged {
                    Judgement::Accept => MessageAcceptance::Accept,
                    Judgement::Ignore => MessageAcceptance::Ignore,
                    Judgement::Reject => MessageAcceptance::Reject,
                };
                let gossip = &mut self.swarm.behaviour_mut().gossip.inner;
                gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    acceptance,
                );
            }
            SwarmEvent::Behaviour(BehaviourEvent::Sync(event)) => match event {
                request_response::Event::Message { peer, message, .. } => match message {
                    Message::Request { request, channel, .. } => {
                        if let Some(answer) = self.remailer.handle_sync_request(&request, now) {
                            let sync = &mut self.swarm.behaviour_mut().sync;
                            let _ = sync.send_response(channel, answer);
                        }
                    }
                    Message::Response { response, .. } => {
                        let node = onion::node_id(&peer).unwrap();
                        let answer = Answer::check(&response, &network).unwrap();
                        self.remailer.handle_sync_answer(node, answer, now, &mut self.rng);
                    }
                },
                request_response::Event::OutboundFailure { peer, .. } => {
                    let node = onion::node_id(&peer).unwrap();
                    self.remailer.handle_sync_failed(&node, now, &mut self.rng);
                }
                _ => {}
            },
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a process that has nothing else to do"]
async fn a_hundred_swarms_use_the_same_list_soon_after_the_hour() {
    let clock = Clock::start();
    let everybody = u16::try_from(SWARMS).unwrap();
    let parameters = Parameters::scaled(HOUR, everybody).quiet();
    let voters: Vec<_> = (0..VOTERS).map(|number| identity(number).node()).collect();
    let (maker, rule) = (identity(SWARMS), Admission::Open);
    let made = Descriptor::create(&maker, "lists", clock.now(), &parameters, &voters, &rule);
    let world = Arc::new(World::of(made.unwrap(), clock));
    let mut rng = StdRng::seed_from_u64(1);
    let ports = memory_ports(SWARMS);
    let (ear, octets) = counting_ear();
    let (used_in, mut used) = mpsc::unbounded_channel();
    let (end, ended) = watch::channel(false);
    for number in 0..SWARMS {
        let carrier = MemoryOnions { inner: MemoryTransport::new(), ports: Arc::clone(&ports) };
        let mut swarm = swarm(number, &world, carrier, Arc::clone(&ear));
        swarm.listen_on(address(number)).unwrap();
        let topic = topic(&world.descriptor.id());
        swarm.behaviour_mut().gossip.inner.subscribe(&topic).unwrap();
        let peer =
            |number: &usize| -> PeerId { onion::peer_id(&identity(*number).node()).unwrap() };
        let earlier = (0..number).sample(&mut rng, DIALLED);
        earlier.iter().for_each(|other| swarm.dial(peer(other)).unwrap());
        let setup = Setup::new(identity(number), Arc::new(world.descriptor.clone()));
        // Meshes form with the heartbeats before anybody publishes; a hundred nodes of one process
        // do not begin at once.
        let after = Duration::from_millis(5000 + 60 * u64::try_from(number).unwrap());
        let setup = Setup { first_record_after: after, ..setup };
        let mut remailer = Remailer::new(setup, clock.now(), &mut rng);
        remailer.handle_reachable();
        let rng = StdRng::seed_from_u64(u64::try_from(number).unwrap());
        let (world, used) = (Arc::clone(&world), used_in.clone());
        let citizen = Citizen { swarm, remailer, world, rng, used, last: None };
        tokio::spawn(citizen.run(ended.clone()));
    }

    let mut hours: BTreeMap<Hour, (BTreeSet<[u8; 32]>, Vec<Duration>)> = BTreeMap::new();
    let mut begun = None;
    let complete = |hours: &BTreeMap<Hour, (BTreeSet<[u8; 32]>, Vec<Duration>)>| {
        hours.values().filter(|(_, late)| late.len() == SWARMS).count() as u64
    };
    while complete(&hours) < HOURS + 1 {
        let next = timeout(Duration::from_secs(120), used.recv()).await;
        let (hour, hash, late) = next.expect("lists are used").unwrap();
        let (hashes, all) = hours.entry(hour).or_default();
        hashes.insert(*hash.as_bytes());
        all.push(late);
        if all.len() == SWARMS && begun.is_none() {
            begun = Some((hour, octets.load(Ordering::Relaxed)));
        }
    }
    let (first, quiet) = begun.unwrap();
    let total = octets.load(Ordering::Relaxed) - quiet;
    end.send_replace(true);
    let mut delays: Vec<Duration> = Vec::new();
    for (_, (hashes, late)) in
        hours.iter().filter(|(hour, (_, late))| **hour > first && late.len() == SWARMS)
    {
        assert_eq!(hashes.len(), 1, "everybody uses the same list");
        delays.extend(late);
    }
    delays.sort_unstable();
    assert!(delays.last() < Some(&(Duration::from_secs(3600) / HOUR)), "before the hour is over");
    let each = total / (SWARMS as u64 * HOURS);
    println!(
        "{SWARMS} swarms, {VOTERS} voters, {HOURS} lists: used {:.0?} after the hour (p50), {:.0?} (p99), \
         {:.0?} at most; {each} octets per node and hour, records and votes",
        delays[delays.len() / 2],
        delays[delays.len() * 99 / 100],
        delays[delays.len() - 1]
    );
}

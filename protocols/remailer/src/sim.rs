//! Many nodes in virtual time: a discrete-event simulation of a whole network.
//!
//! Every node is the real [`Remailer`], every packet and record the real octets. What is simulated is
//! the world: links with a random latency, a next server that takes everything, and clocks that agree.
//! The caller brings the randomness; the same generator gives the same run.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Identity, NetworkId, NodeId, Time};
use mail::{Delivery, Mailbox, Submission};
use rand::{CryptoRng, RngExt as _};
use record::{
    Admission, Capabilities, Descriptor, Domains, ExitPolicy, Parameters, RecordError, Statement,
};
use sphinx::Packet;

use crate::exit::{DeliveryOutcome, Exit};
use crate::node::{Command, Judgement, Past, Refused, Remailer, Setup};

/// A network in virtual time.
pub struct Simulation<R> {
    network: NetworkId,
    now: Time,
    rng: R,
    nodes: Vec<Remailer>,
    ids: BTreeMap<NodeId, usize>,
    events: BTreeMap<(Time, u64), Event>,
    serial: u64,
    delivered: Vec<Delivered>,
    sent: Vec<Sent>,
    last: Option<(usize, Vec<u8>)>,
}

/// A message that reached the next server of an exit.
pub struct Delivered {
    /// When.
    pub at: Time,
    /// Which node delivered it.
    pub exit: usize,
    /// What it handed over.
    pub delivery: Delivery,
}

/// A packet on a link, as somebody who watches it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When.
    pub at: Time,
    /// From which node.
    pub from: usize,
    /// To which node.
    pub to: usize,
    /// How many octets.
    pub octets: usize,
}

enum Event {
    Packet { to: usize, octets: Vec<u8> },
    Statement { to: usize, octets: Vec<u8> },
}

impl<R: CryptoRng> Simulation<R> {
    /// A network of `count` nodes, all relays and exits, started at `now`.
    ///
    /// # Errors
    /// [`RecordError`] if the parameters make no valid descriptor.
    pub fn new(
        count: u16,
        parameters: &Parameters,
        now: Time,
        mut rng: R,
    ) -> Result<Self, RecordError> {
        let maker = Identity::generate(&mut rng);
        let descriptor =
            Descriptor::create(&maker, "simulation", now, parameters, &Admission::Open)?;
        let descriptor = Arc::new(descriptor);
        let mut simulation = Self {
            network: descriptor.id(),
            now,
            rng,
            nodes: Vec::new(),
            ids: BTreeMap::new(),
            events: BTreeMap::new(),
            serial: 0,
            delivered: Vec::new(),
            sent: Vec::new(),
            last: None,
        };
        for index in 0..usize::from(count) {
            let setup = Setup {
                identity: Identity::generate(&mut simulation.rng),
                descriptor: Arc::clone(&descriptor),
                exit: exit(),
                contact: String::new(),
                family: Vec::new(),
                epochs: Vec::new(),
                statements: Vec::new(),
                past: Past::None,
                banned: Default::default(),
                first_record_after: Duration::ZERO,
            };
            let mut node = Remailer::new(setup, now, &mut simulation.rng);
            node.handle_reachable();
            simulation.ids.insert(node.node(), index);
            simulation.nodes.push(node);
        }
        Ok(simulation)
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Remailer] {
        &self.nodes
    }

    /// What was delivered so far.
    #[must_use]
    pub fn delivered(&self) -> &[Delivered] {
        &self.delivered
    }

    /// What an observer of all links saw so far.
    #[must_use]
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// The octets of the last packet on any link, and the node it goes to.
    #[must_use]
    pub fn last_packet(&self) -> Option<(usize, &[u8])> {
        self.last.as_ref().map(|(to, octets)| (*to, octets.as_slice()))
    }

    /// Hands a message to a node.
    ///
    /// # Errors
    /// [`Refused`]; a node that does not exist has no room.
    pub fn submit(&mut self, node: usize, submission: &Submission) -> Result<[u8; 16], Refused> {
        let remailer = self.nodes.get_mut(node).ok_or(Refused::Full)?;
        let sealing = remailer.handle_submission(submission, self.now, &mut self.rng)?;
        let sealed = sealing.run(&mut self.rng);
        remailer.handle_sealed(sealed, &mut self.rng)
    }

    /// Puts octets on the link to a node, as anybody can.
    pub fn inject(&mut self, to: usize, octets: Vec<u8>) {
        self.later(Event::Packet { to, octets });
    }

    /// Offers a statement to a node and returns what it makes of it.
    pub fn gossip(&mut self, to: usize, octets: &[u8]) -> Judgement {
        let checked = Statement::check(octets, &self.network);
        let node = self.nodes.get_mut(to);
        node.map_or(Judgement::Ignore, |node| node.handle_statement(checked, self.now))
    }

    /// A node passes a statement on to all others, as gossip does with what was accepted.
    pub fn pass_on(&mut self, from: usize, octets: &[u8]) {
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            self.later(Event::Statement { to, octets: octets.to_vec() });
        }
    }

    /// Lets so much time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now.plus(span);
        loop {
            let timer = self.nodes.iter().map(Remailer::poll_timeout).min();
            let event = self.events.keys().next().map(|(at, _)| *at);
            let Some(next) = [timer, event].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        while let Some(first) = self.events.first_entry() {
            if first.key().0 > self.now {
                break;
            }
            match first.remove() {
                Event::Packet { to, octets } => self.receive(to, octets),
                Event::Statement { to, octets } => {
                    self.gossip(to, &octets);
                }
            }
        }
        for index in 0..self.nodes.len() {
            if let Some(node) = self.nodes.get_mut(index)
                && node.poll_timeout() <= self.now
            {
                node.handle_timeout(self.now, &mut self.rng);
            }
            self.carry_out(index);
        }
    }

    fn receive(&mut self, to: usize, octets: Vec<u8>) {
        let Some(node) = self.nodes.get_mut(to) else { return };
        let keys = node.epoch_keys(self.now);
        let peeled = Packet::from_octets(octets).and_then(|packet| sphinx::peel(packet, &keys));
        node.handle_peeled(peeled, self.now);
    }

    fn carry_out(&mut self, index: usize) {
        while let Some(command) = self.nodes.get_mut(index).and_then(Remailer::next_command) {
            match command {
                Command::Send { to, packet, .. } => {
                    let Some(to) = self.ids.get(&to).copied() else { continue };
                    let octets = packet.octets().to_vec();
                    self.sent.push(Sent { at: self.now, from: index, to, octets: octets.len() });
                    self.last = Some((to, octets.clone()));
                    self.later(Event::Packet { to, octets });
                }
                Command::Announce(octets) => self.pass_on(index, &octets),
                Command::Deliver(id, delivery) => {
                    let taken = delivery.recipients.len();
                    self.delivered.push(Delivered { at: self.now, exit: index, delivery });
                    if let Some(node) = self.nodes.get_mut(index) {
                        let outcome = DeliveryOutcome::Done { taken, refused: 0 };
                        node.handle_delivery(id, outcome, self.now);
                    }
                }
                Command::KeepTags(tags) => {
                    if let Some(node) = self.nodes.get_mut(index) {
                        node.handle_tags_kept(tags.batch);
                    }
                }
                // Nothing else is kept, and everybody is linked.
                Command::KeepSeed(..)
                | Command::WithdrawSeed(_)
                | Command::ForgetSeeds(_)
                | Command::KeepOwn(_)
                | Command::KeepStatement(..)
                | Command::ForgetStatements(_)
                | Command::Unlink(_)
                | Command::Link(_)
                | Command::AskAround
                | Command::ViewTaken(_) => {}
            }
        }
    }

    /// After 5 to 50 ms.
    fn later(&mut self, event: Event) {
        let latency = Duration::from_millis(self.rng.random_range(5..=50));
        self.serial += 1;
        self.events.insert((self.now.plus(latency), self.serial), event);
    }
}

fn exit() -> Option<Exit> {
    let anonymous = Mailbox::parse("anonymous@fog.invalid").ok()?;
    let policy = ExitPolicy {
        domains: Domains::Any,
        max_message: 1 << 20,
        offers: Capabilities::EIGHT_BIT | Capabilities::SMTP_UTF8 | Capabilities::KEEP_FROM,
    };
    Some(Exit { policy, anonymous })
}

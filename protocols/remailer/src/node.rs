//! The node: inputs, commands, and the order of things at a timeout.

mod ingress;
mod records;

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use directory::{Directory, Request, View};
use keys::{Epoch, Identity, MixSeed, NodeId, OnionAddress, Schedule, Time};
use mail::{Delivery, Fragment, Needs};
use mix::{Mix, Release, Times};
use rand::{CryptoRng, RngExt as _};
use record::{Descriptor, Parameters, Record};
use sphinx::{EpochKeys, Kind, Packet, Payload, Peeled, Refusal};

use crate::counts::Counts;
use crate::exit::{Deliveries, DeliveryId, DeliveryOutcome, Exit};
use crate::outbox::Outbox;
use crate::publish::Publisher;
use crate::seal::Sealed;
use ingress::ask;
pub use ingress::{Refused, SealedMessage, Sealing, SealingFailed};
use records::Brought;
pub use records::{Judgement, SyncStep};

/// What a node begins with.
pub struct Setup {
    /// Who it is.
    pub identity: Identity,
    /// Which network.
    pub descriptor: Arc<Descriptor>,
    /// What it delivers, if it is an exit.
    pub exit: Option<Exit>,
    /// How to reach the operator.
    pub contact: String,
    /// Other nodes of the same operator.
    pub family: Vec<NodeId>,
    /// Mix keys made before.
    pub seeds: Vec<(Epoch, MixSeed)>,
    /// Statements known before; checked again.
    pub statements: Vec<Vec<u8>>,
    /// How long to wait with the first record for a catch-up, which may bring a newer one of one's own
    /// than this node knows.
    pub first_record_after: Duration,
}

/// What is to be done.
pub enum Command {
    /// Hand a packet to a node; useless after `until`.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        packet: Packet,
        /// When the receiver's key is gone.
        until: Time,
    },
    /// Publish this statement.
    Announce(Vec<u8>),
    /// Hand a message to the next server; [`Remailer::handle_delivery`].
    Deliver(DeliveryId, Delivery),
    /// Keep this key's seed before anything that follows is done.
    KeepSeed(Epoch, MixSeed),
    /// Destroy the seeds of epochs before this one.
    ForgetSeeds(Epoch),
    /// Keep the newest record of a node.
    KeepRecord(Arc<Record>),
    /// Forget the record of a node.
    ForgetRecord(NodeId),
    /// Hold a link to this node: its record has just become known.
    Link(NodeId),
    /// Ask a peer for its records.
    Sync(Request),
    /// The view of a new hour.
    ViewTaken(Arc<View>),
}

/// One node.
pub struct Remailer {
    node: NodeId,
    descriptor: Arc<Descriptor>,
    schedule: Schedule,
    directory: Directory,
    view: Option<Arc<View>>,
    next_view: Time,
    next_sync: Time,
    mix: Mix,
    publisher: Publisher,
    is_reachable: bool,
    /// This node and the others that its operator runs: no route of its own goes through them.
    own: Vec<NodeId>,
    exit: Option<Exit>,
    outbox: Outbox,
    deliveries: Deliveries,
    commands: VecDeque<Command>,
    counts: Counts,
}

impl Remailer {
    /// A node that starts at `now`.
    pub fn new(setup: Setup, now: Time, rng: &mut impl CryptoRng) -> Self {
        let parameters = setup.descriptor.parameters();
        let schedule = parameters.schedule();
        let times = Times { window: parameters.window, max_delay: parameters.max_delay };
        let network = setup.descriptor.id();
        let node = setup.identity.node();
        let own = [node].into_iter().chain(setup.family.iter().copied()).collect();
        let publisher = Publisher::new(setup.identity, network, setup.contact, setup.family, now);
        let mut remailer = Self {
            node,
            schedule,
            directory: Directory::new(schedule),
            view: None,
            next_view: schedule.hour_end(schedule.hour_at(now)),
            next_sync: now.plus(schedule.hour() / 4),
            mix: Mix::new(schedule, times, now, rng),
            publisher,
            is_reachable: false,
            own,
            exit: setup.exit,
            outbox: Outbox::new(parameters.mean_send, now),
            deliveries: Deliveries::new(),
            commands: VecDeque::new(),
            counts: Counts::default(),
            descriptor: setup.descriptor,
        };
        remailer.turn_hour(now);
        remailer.restore(setup.seeds, &setup.statements, now);
        remailer.publisher.not_before(now.plus(setup.first_record_after));
        remailer
    }

    fn restore(&mut self, seeds: Vec<(Epoch, MixSeed)>, statements: &[Vec<u8>], now: Time) {
        let oldest = self.schedule.oldest_held(now);
        for (epoch, seed) in seeds {
            if epoch >= oldest {
                self.mix.insert_key(self.publisher.make_key(epoch, &seed));
            }
        }
        self.commands.push_back(Command::ForgetSeeds(oldest));
        for octets in statements {
            // Records that have lapsed since are no news.
            let _ = self.admit(octets, now, Brought::ByGossip);
        }
    }

    // What is known.

    /// Who this is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// All verified records.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The view that routes come from, if there is one.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// When epochs begin.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// What happened how often.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Packets held in the mix, own packets waiting, and messages being delivered.
    #[must_use]
    pub fn held(&self) -> (usize, usize, usize) {
        (self.mix.held(), self.outbox.len(), self.deliveries.len())
    }

    /// The keys that packets are opened with at `now`, for [`sphinx::peel`].
    #[must_use]
    pub fn epoch_keys(&self, now: Time) -> EpochKeys {
        self.mix.accepting(now)
    }

    // Packets.

    /// Takes what came of peeling a packet.
    pub fn handle_peeled(&mut self, peeled: Result<Peeled, Refusal>, now: Time) {
        self.counts.add("packet received");
        let held = match peeled {
            Ok(peeled) => {
                let known = |node: &NodeId| self.directory.knows(node);
                self.mix.handle_peeled(peeled, now, known).map_err(|why| why.to_string())
            }
            Err(refusal) => Err(refusal.to_string()),
        };
        if let Err(why) = held {
            self.counts.add(&format!("packet dropped: {why}"));
        }
    }

    /// A packet could not be handed over before it became useless.
    pub fn handle_send_failed(&mut self, why: &str) {
        self.counts.add(&format!("packet dropped: {why}"));
    }

    fn release(&mut self, release: Release, now: Time) {
        match release {
            Release::Forward { to, packet } if self.directory.knows(&to) => {
                let until = self.schedule.accepted_until(packet.epoch());
                self.counts.add("packet relayed");
                self.commands.push_back(Command::Send { to, packet, until });
            }
            Release::Forward { .. } => self.counts.add("packet dropped: unknown next hop"),
            Release::End { kind: Kind::Deliver, payload } => match self.deliver(&payload, now) {
                Ok(()) => self.counts.add("message to deliver"),
                Err(why) => self.counts.add(&format!("message dropped: {why}")),
            },
            Release::End { .. } => self.counts.add("packet ended: cover"),
        }
    }

    // Mail out.

    fn deliver(&mut self, payload: &Payload, now: Time) -> Result<(), String> {
        let exit = self.exit.as_ref().ok_or("not an exit")?;
        let content = payload.content().map_err(|why| why.to_string())?;
        let fragment = Fragment::decode(content).map_err(|why| why.to_string())?;
        let delivery = mail::rebuild(&fragment, &exit.anonymous).map_err(|why| why.to_string())?;
        // What the ingress says of size and needs is not asked; From is the one wish that is its own.
        let octets = delivery.message.len();
        let needs = delivery.needs | (fragment.needs() & Needs::KEEP_FROM);
        if !exit.policy.allows(&ask(fragment.envelope().domain().as_str(), octets, needs)) {
            return Err("not in this exit's policy".into());
        }
        let id = self.deliveries.begin(octets, now).map_err(|_| "no room".to_owned())?;
        self.commands.push_back(Command::Deliver(id, delivery));
        Ok(())
    }

    /// Takes what came of an attempt to deliver.
    pub fn handle_delivery(&mut self, id: DeliveryId, outcome: DeliveryOutcome, now: Time) {
        match outcome {
            DeliveryOutcome::Done { taken, refused } => {
                self.deliveries.done(id);
                if taken > 0 {
                    self.counts.add("message delivered");
                }
                if refused > 0 {
                    self.counts.add("message refused by the next server");
                }
                if taken == 0 && refused == 0 {
                    self.counts.add("message dropped: delivery cut short");
                }
            }
            DeliveryOutcome::Later(delivery) => {
                self.counts.add("delivery postponed");
                if self.deliveries.later(id, delivery, now).is_err() {
                    self.counts.add("message dropped: gave up");
                }
            }
        }
    }

    /// What the next server takes has changed: the next record says so.
    pub fn handle_exit_changed(&mut self, exit: Exit, now: Time) {
        self.exit = Some(exit);
        self.publisher.hasten(now);
    }

    /// Peers can reach this node: its records may be published. Before that nobody should be told to
    /// dial it; what cannot be found at its address is not asked for again for minutes.
    pub fn handle_reachable(&mut self) {
        self.is_reachable = true;
    }

    /// Peers cannot reach this node any more: no new record until they can.
    pub fn handle_unreachable(&mut self) {
        self.is_reachable = false;
    }

    // Time.

    /// When [`Remailer::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let others =
            [self.mix.poll_timeout(), self.outbox.poll_timeout(), self.deliveries.poll_timeout()];
        // A past epoch's secret is destroyed when its grace is over, whether anything else happens or not.
        let destroy = self.mix.oldest_key().map(|epoch| self.schedule.accepted_until(epoch));
        let publish = self.is_reachable.then(|| self.publisher.next());
        let own = [self.next_view, self.next_sync].into_iter().chain(publish).chain(destroy);
        others.into_iter().flatten().chain(own).min().unwrap_or(self.next_view)
    }

    /// Does what has fallen due by `now`.
    pub fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.forget_past(now);
        if self.is_reachable && self.publisher.next() <= now {
            self.publish(now, rng);
        }
        if self.next_view <= now {
            self.take_view(now);
        }
        if self.next_sync <= now {
            self.next_sync = now.plus(self.schedule.hour().mul_f64(rng.random_range(0.1..0.3)));
            self.commands.push_back(Command::Sync(Request { after: None }));
        }
        self.mix.handle_timeout(now, rng);
        while let Some(release) = self.mix.next_release(now) {
            self.release(release, now);
        }
        while let Some(Sealed { first, packet, until }) = self.outbox.next_due(now) {
            self.counts.add("packet sent");
            self.commands.push_back(Command::Send { to: first, packet, until });
        }
        while let Some((id, delivery)) = self.deliveries.next_due(now) {
            self.commands.push_back(Command::Deliver(id, delivery));
        }
    }

    /// The next thing to do, in the order in which it must be done.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    fn forget_past(&mut self, now: Time) {
        let oldest = self.schedule.oldest_held(now);
        if !self.mix.forget_before(oldest).is_empty() {
            self.commands.push_back(Command::ForgetSeeds(oldest));
        }
        for node in self.directory.expire(now) {
            self.commands.push_back(Command::ForgetRecord(node));
        }
    }

    fn parameters(&self) -> &Parameters {
        self.descriptor.parameters()
    }

    /// The node's own address.
    #[must_use]
    pub fn onion(&self) -> Option<OnionAddress> {
        OnionAddress::of(self.node).ok()
    }
}

//! The node: inputs, commands, and the order of things at a timeout.

mod catching_up;
mod ingress;
mod outlook;
mod records;

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use directory::{Brought, Clocks, Directory, ItemId, Reconciliation, View};
use keys::{Epoch, Identity, MixSeed, NodeId, OnionAddress, Schedule, Time};
use mail::{Delivery, Fragment, Needs};
use mix::{Mix, Release, Tags, Times};
use rand::{CryptoRng, RngExt as _};
use record::{Descriptor, Parameters, Statement};
use sphinx::{EpochKeys, Kind, Packet, Payload, Peeled, Refusal, ReplayTag};

use crate::counts::Counts;
use crate::exit::{Deliveries, DeliveryId, DeliveryOutcome, Exit};
use crate::outbox::Outbox;
use crate::publish::Publisher;
use crate::seal::Sealed;
use catching_up::{WAIT, WITNESSES, Witnesses};
use ingress::ask;
pub use ingress::{Refused, SealedMessage, Sealing, SealingFailed};
use outlook::{APART_FOR, Outlook};
pub use outlook::{Agreement, Alarm};
pub use records::Judgement;
use records::Rejected;

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
    /// What became of the mix keys made before.
    pub epochs: Vec<(Epoch, Kept)>,
    /// Statements known before; checked again.
    pub statements: Vec<Vec<u8>>,
    /// What it may have published before.
    pub past: Past,
    /// How long a node that has never published waits with its first record for a catch-up.
    pub first_record_after: Duration,
    /// Nodes that its own routes avoid.
    pub banned: BTreeSet<NodeId>,
}

/// What a node knows of its own records.
pub enum Past {
    /// Its identity was made for this network and has published nothing.
    None,
    /// It may have published, and does not know what: the identity was restored by itself.
    Forgotten,
    /// The last record that it published or was about to.
    Known(Vec<u8>),
}

/// What was kept of an epoch.
pub enum Kept {
    /// Its key, and the replay tags of all that it has opened.
    Key {
        /// What the key is made from.
        seed: MixSeed,
        /// The tags.
        seen: BTreeSet<ReplayTag>,
    },
    /// That its key was given up. There is never another.
    Withdrawn,
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
    /// Destroy this epoch's seed and tags, and keep that it has no key, before anything that follows is
    /// done.
    WithdrawSeed(Epoch),
    /// Destroy the seeds and tags of epochs before this one.
    ForgetSeeds(Epoch),
    /// Make these replay tags durable; [`Remailer::handle_tags_kept`].
    KeepTags(Tags),
    /// Keep this record as the last one of this node's own before anything that follows is done.
    KeepOwn(Vec<u8>),
    /// Keep a statement under its name.
    KeepStatement(ItemId, Arc<[u8]>),
    /// Forget statements.
    ForgetStatements(Vec<ItemId>),
    /// Nothing is known of this node any more.
    Unlink(NodeId),
    /// Hold a link to this node: its record has just become known.
    Link(NodeId),
    /// Ask some peers for what they have: [`Remailer::begin_sync`].
    AskAround,
    /// The view of a new hour.
    ViewTaken(Arc<View>),
}

/// What may have to be forgotten after a start.
struct Leftovers {
    /// Statements that were kept and are none at the time that the clock says.
    lapsed: Vec<ItemId>,
    stay_until: Time,
}

/// One node.
pub struct Remailer {
    node: NodeId,
    descriptor: Arc<Descriptor>,
    schedule: Schedule,
    directory: Directory,
    view: Option<Arc<View>>,
    outlook: Outlook,
    next_view: Time,
    next_sync: Time,
    reconciliation: Reconciliation,
    witnesses: Witnesses,
    clocks: Clocks,
    /// Since when the peers' clocks have been too far from ours.
    apart_since: Option<Time>,
    /// What is left over from before the start, until the clock can be trusted to say so.
    leftovers: Option<Leftovers>,
    has_rival: bool,
    banned: BTreeSet<NodeId>,
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
            directory: Directory::new(schedule, setup.descriptor.admission()),
            view: None,
            outlook: Outlook::default(),
            reconciliation: Reconciliation::default(),
            witnesses: Witnesses::new(&schedule, now),
            clocks: Clocks::default(),
            apart_since: None,
            leftovers: None,
            has_rival: false,
            banned: setup.banned,
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
        remailer.publisher.not_before(now.plus(setup.first_record_after));
        let known_before = setup.statements.len();
        remailer.restore_keys(setup.epochs, now);
        let lapsed = remailer.restore(setup.past, setup.statements, now);
        // Peers will say what time it is, where there are enough of them.
        let patience = match known_before {
            0..=WITNESSES => schedule.hour() / WAIT,
            _ => schedule.hour() * 3 * APART_FOR,
        };
        remailer.leftovers = Some(Leftovers { lapsed, stay_until: now.plus(patience) });
        remailer
    }

    fn restore_keys(&mut self, epochs: Vec<(Epoch, Kept)>, now: Time) {
        let oldest = self.schedule.oldest_held(now);
        for (epoch, kept) in epochs {
            match kept {
                Kept::Key { seed, seen } if epoch >= oldest => {
                    self.mix.insert_key(self.publisher.make_key(epoch, &seed), seen);
                }
                Kept::Withdrawn if epoch >= oldest => self.publisher.withdraw(epoch),
                Kept::Key { .. } | Kept::Withdrawn => {}
            }
        }
    }

    /// Returns the names of statements that are none at this time.
    fn restore(&mut self, past: Past, mut statements: Vec<Vec<u8>>, now: Time) -> Vec<ItemId> {
        let network = self.descriptor.id();
        match past {
            Past::None => {}
            Past::Forgotten => self.wait_for_witnesses(),
            Past::Known(own) => {
                self.wait_for_witnesses();
                if let Ok(Statement::Record(own)) = Statement::check(&own, &network)
                    && own.node() == self.node
                {
                    self.publisher.note_published(&own, now, &self.schedule);
                    self.publisher.begin_again();
                    self.give_up_lost_keys(&own, now);
                }
            }
        }
        let all: Vec<_> = statements.iter().map(|octets| ItemId::of(octets)).collect();
        // Records first; words hang on each other, and are tried again while that helps.
        statements.sort_by_key(|octets| octets.first().copied());
        let mut before = usize::MAX;
        while !statements.is_empty() && statements.len() < before {
            before = statements.len();
            statements.retain(|octets| {
                let Ok(statement) = Statement::check(octets, &network) else { return false };
                let taken = self.take(statement, now, Brought::ByCatchUp);
                matches!(taken, Err(Rejected::Unwanted(directory::Unwanted::Idle)))
            });
        }
        all.into_iter().filter(|name| !self.directory.holds(name)).collect()
    }

    // What is known.

    /// Who this is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its network.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// All verified statements.
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

    /// The oldest epoch whose key is not destroyed yet.
    #[must_use]
    pub fn oldest_key(&self) -> Option<Epoch> {
        self.mix.oldest_key()
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

    /// Replay tags are durable: their packets go on.
    pub fn handle_tags_kept(&mut self, batch: u64) {
        self.mix.handle_kept(batch);
    }

    /// Replay tags could not be made durable: their packets go no further.
    pub fn handle_tags_lost(&mut self, batch: u64) {
        for _ in 0..self.mix.handle_keep_failed(batch) {
            self.counts.add(&format!("packet dropped: {}", mix::Dropped::NotKept));
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
        let destroy = self.destroys_at();
        let publish = self.may_publish().then(|| self.publisher.next());
        let own = [self.next_view, self.next_sync].into_iter().chain(publish).chain(destroy);
        let own = own.chain(self.first_view_at());
        others.into_iter().flatten().chain(own).min().unwrap_or(self.next_view)
    }

    /// Does what has fallen due by `now`.
    pub fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.note_clocks(now);
        self.forget_past(now);
        if self.may_publish() && self.publisher.next() <= now {
            self.publish(now, rng);
        }
        if self.next_view <= now {
            self.begin_hour(now);
        }
        self.waited_for_witnesses(now);
        if self.next_sync <= now {
            self.next_sync = now.plus(self.schedule.hour().mul_f64(rng.random_range(0.05..0.15)));
            self.ask_around();
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
        let tags = || self.mix.next_tags().map(Command::KeepTags);
        self.commands.pop_front().or_else(tags)
    }

    /// What nobody can reach is not to be found, a clock that nobody shares dates nothing, and of two
    /// nodes with one identity one has to be silent.
    fn may_publish(&self) -> bool {
        self.is_reachable && self.apart_since.is_none() && !self.has_rival
    }

    fn forget_past(&mut self, now: Time) {
        if self.keys_stay_until().is_some_and(|until| now < until) {
            return;
        }
        let oldest = self.schedule.oldest_held(now);
        let leftovers = self.leftovers.take();
        if !self.mix.forget_before(oldest).is_empty() || leftovers.is_some() {
            self.commands.push_back(Command::ForgetSeeds(oldest));
        }
        if let Some(Leftovers { mut lapsed, .. }) = leftovers {
            lapsed.retain(|name| !self.directory.holds(name));
            self.commands.push_back(Command::ForgetStatements(lapsed));
        }
        self.publisher.forget_before(oldest);
        for node in self.directory.expire(now) {
            self.commands.push_back(Command::Unlink(node));
        }
        self.forget();
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

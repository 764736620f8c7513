//! The node: inputs, commands, and the order of things at a timeout.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use directory::{Admitted, Directory, Page, Request, RouteError, View};
use keys::{Epoch, Identity, MixSeed, NodeId, OnionAddress, Schedule, Time};
use mail::{Delivery, Fragment, Mailbox, MessageError, Needs, Submission};
use mix::{Mix, Release, Times};
use rand::{CryptoRng, RngExt as _};
use record::{Ask, Capabilities, Descriptor, Parameters, Record, RecordError, Unverified};
use sphinx::{EpochKeys, Kind, Packet, Payload, Peeled, Refusal};

use crate::counts::Counts;
use crate::exit::{Deliveries, DeliveryId, DeliveryOutcome, Exit};
use crate::outbox::{Outbox, Tick};
use crate::publish::Publisher;
use crate::seal::{Content, Fitted, Plan, SealError, Sealed, exponential, seal};

/// How long an ingress holds a mail, at most, in means: one in 55 draws is longer.
const LONGEST_HOLD: u32 = 4;
/// A view that no later hour replaced serves so many hours.
const VIEW_HOURS: u32 = 2;
/// What an exit adds to a message, at most: From, Date, Message-ID and the notice.
const REBUILT_OCTETS: usize = 1024;

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

/// What gossip is told about a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// New and good: pass it on.
    Accept,
    /// Not to be passed on; no fault of who sent it.
    Ignore,
    /// No honest peer passes this on.
    Reject,
}

/// How a catch-up goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncStep {
    /// Ask the same peer this.
    Next(Request),
    /// That was all.
    Done,
    /// The peer does not keep to the protocol.
    Bad,
}

/// Why mail is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too few usable nodes; may change.
    #[error("too few nodes")]
    TooFewNodes,
    /// No exit delivers that.
    #[error("no exit")]
    NoExit,
    /// More than the largest packet holds.
    #[error("too big")]
    TooBig,
    /// No room in the outbox; will change.
    #[error("full")]
    Full,
    /// It cannot be carried as it is.
    #[error("{0}")]
    Unfit(MessageError),
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
            exit: setup.exit,
            outbox: Outbox::new(parameters.mean_send, now),
            deliveries: Deliveries::new(),
            commands: VecDeque::new(),
            counts: Counts::default(),
            descriptor: setup.descriptor,
        };
        remailer.restore(setup.seeds, &setup.statements, now);
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
            self.resume_after(octets, now);
            // Records that have lapsed since are no news.
            let _ = self.admit(octets, now);
        }
    }

    /// Numbers go on after one's own record even if that has lapsed.
    fn resume_after(&mut self, octets: &[u8], now: Time) {
        let own = Unverified::parse(octets).ok().filter(|own| own.claimed_node() == self.node);
        if let Some(Ok(own)) = own.map(|own| own.check_signature(&self.descriptor.id())) {
            self.publisher.resume(own.sequence(), own.hash(), own.published_at(), &self.schedule);
            self.publisher.not_before(now);
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

    // Mail in.

    /// Whether there are enough usable nodes for a route to any exit.
    ///
    /// # Errors
    /// [`Refused::TooFewNodes`] or [`Refused::NoExit`].
    pub fn check_routes(&self, now: Time) -> Result<(), Refused> {
        let view = self.usable_view(now).ok_or(Refused::TooFewNodes)?;
        let epoch = self.schedule.epoch_at(now);
        Ok(view.reaches(&self.node, &(epoch..=epoch), |record| record.exit().is_some())?)
    }

    /// Whether mail of so many octets would be taken for this recipient.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check_recipient(
        &self,
        recipient: &Mailbox,
        size: Option<u64>,
        now: Time,
    ) -> Result<(), Refused> {
        let view = self.usable_view(now).ok_or(Refused::TooFewNodes)?;
        let needs =
            if recipient.is_international() { Capabilities::SMTP_UTF8 } else { Capabilities::NONE };
        let size = size.map_or(0, |size| u32::try_from(size).unwrap_or(u32::MAX));
        let ask = Ask { domain: recipient.domain().as_str(), size, needs };
        let epoch = self.schedule.epoch_at(now);
        let allows = |record: &Record| record.exit().is_some_and(|exit| exit.allows(&ask));
        Ok(view.reaches(&self.node, &(epoch..=epoch), allows)?)
    }

    /// Takes a message: scrubbed, cut, sealed, and put on the clock. Returns the name under which it
    /// was taken. On an error nothing of it is kept.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn handle_submission(
        &mut self,
        submission: &Submission,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<[u8; 16], Refused> {
        let taken = self.take(submission, now, rng);
        match &taken {
            Ok(_) => self.counts.add("message taken"),
            Err(Refused::Unfit(_)) => self.counts.add("message refused: unfit"),
            Err(why) => self.counts.add(&format!("message refused: {why}")),
        }
        taken
    }

    fn take(
        &mut self,
        submission: &Submission,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<[u8; 16], Refused> {
        let scrubbed = mail::scrub(submission).map_err(Refused::Unfit)?;
        let view = Arc::clone(self.usable_view(now).ok_or(Refused::TooFewNodes)?);
        let hour = u32::try_from(now.as_millis() / 3_600_000).unwrap_or(u32::MAX);
        let mut message_id = [0; 16];
        rng.fill_bytes(&mut message_id);

        let mut packets: Vec<(Tick, Sealed)> = Vec::with_capacity(scrubbed.len());
        let mut octets = 0;
        for scrubbed in scrubbed {
            let fragment = Fragment::cut(scrubbed, message_id, hour);
            let fitted = Fitted::new(&Content::Mail(&fragment), rng)?;
            octets += fitted.packet_len();
            if !self.outbox.has_room(packets.len() + 1, octets) {
                return Err(Refused::Full);
            }
            let ticks: Vec<_> = packets.iter().map(|(tick, _)| *tick).collect();
            let hold = self.parameters().mean_hold;
            let hold = exponential(hold, rng).min(hold * LONGEST_HOLD);
            let tick = self.outbox.free_tick(now.plus(hold), &ticks, rng);
            let sealed = self.seal_mail(&view, &fragment, &fitted, tick.0, rng)?;
            packets.push((tick, sealed));
        }
        for (tick, sealed) in packets {
            self.outbox.put(tick, sealed);
        }
        let mut name = [0; 16];
        rng.fill_bytes(&mut name);
        Ok(name)
    }

    fn seal_mail(
        &self,
        view: &View,
        fragment: &Fragment,
        fitted: &Fitted,
        send: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<Sealed, Refused> {
        let plan = Plan::draw(send, self.parameters(), rng);
        let epochs = plan.epochs(&self.schedule);
        let octets = fragment.size() + REBUILT_OCTETS;
        let ask = ask(fragment.envelope().domain().as_str(), octets, fragment.needs());
        let allows = |record: &Record| record.exit().is_some_and(|exit| exit.allows(&ask));
        let route = view.route(&self.node, &epochs, rng, allows)?;
        Ok(seal(&route, &plan, fitted, &self.schedule, rng)?)
    }

    // Records.

    /// Takes a gossiped statement and says what is to become of it.
    pub fn handle_statement(&mut self, octets: &[u8], now: Time) -> Judgement {
        match self.judge(octets, now) {
            // What a catch-up brought first is still passed on when gossip brings it, once.
            Judgement::Accept | Judgement::Ignore if self.directory.pass_on(octets) => {
                Judgement::Accept
            }
            Judgement::Accept | Judgement::Ignore => Judgement::Ignore,
            Judgement::Reject => Judgement::Reject,
        }
    }

    fn judge(&mut self, octets: &[u8], now: Time) -> Judgement {
        match self.admit(octets, now) {
            Ok(()) => {
                self.counts.add("record taken");
                Judgement::Accept
            }
            Err(Rejected::Statement(why)) => {
                self.counts.add(&format!("record refused: {why}"));
                match why {
                    // A clock apart from ours, or a later version, is no fault of who passes it on.
                    RecordError::Future | RecordError::Stale | RecordError::Unknown => {
                        Judgement::Ignore
                    }
                    RecordError::TooLong
                    | RecordError::Malformed
                    | RecordError::NotCanonical
                    | RecordError::OtherNetwork
                    | RecordError::BadSignature
                    | RecordError::BadKey => Judgement::Reject,
                }
            }
            Err(Rejected::Unwanted(directory::Unwanted::Known)) => Judgement::Ignore,
            Err(Rejected::Unwanted(why)) => {
                self.counts.add(&format!("record refused: {why}"));
                Judgement::Ignore
            }
        }
    }

    /// Answers a peer that catches up; nothing if its request is malformed.
    #[must_use]
    pub fn handle_sync_request(&self, octets: &[u8], now: Time) -> Option<Vec<u8>> {
        let request = Request::decode(octets).ok()?;
        let hour = self.schedule.hour_start(self.schedule.hour_at(now));
        let settled = hour.minus(self.parameters().settle);
        self.directory.page(&request, settled).encode().ok()
    }

    /// Takes a page of a peer's records, each checked as if it had been gossiped.
    pub fn handle_sync_page(&mut self, octets: &[u8], asked: &Request, now: Time) -> SyncStep {
        let Ok(page) = Page::decode(octets) else {
            return SyncStep::Bad;
        };
        let mut last = asked.after;
        for statement in &page.records {
            match Unverified::parse(statement) {
                Ok(record) => last = last.max(Some(record.claimed_node())),
                Err(_) => return SyncStep::Bad,
            }
            if self.judge(statement, now) == Judgement::Reject {
                return SyncStep::Bad;
            }
        }
        match page.next {
            None => {
                if self.view.is_none() {
                    self.take_view(now);
                }
                SyncStep::Done
            }
            // A page has to get on, and by what it holds: else a peer could be asked for ever.
            Some(next) if asked.after < Some(next) && last == Some(next) => {
                SyncStep::Next(Request { after: Some(next) })
            }
            Some(_) => SyncStep::Bad,
        }
    }

    fn admit(&mut self, octets: &[u8], now: Time) -> Result<(), Rejected> {
        let record = Unverified::parse(octets)?
            .check_signature(&self.descriptor.id())?
            .timely(now, &self.schedule)?;
        let (admitted, record) = self.directory.admit(record)?;
        if admitted == Admitted::Newcomer && record.node() != self.node {
            self.commands.push_back(Command::Link(record.node()));
        }
        self.commands.push_back(Command::KeepRecord(record));
        self.take_first_view(now);
        Ok(())
    }

    // Time.

    /// When [`Remailer::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let others =
            [self.mix.poll_timeout(), self.outbox.poll_timeout(), self.deliveries.poll_timeout()];
        // A past epoch's secret is destroyed when its grace is over, whether anything else happens or not.
        let destroy = self.mix.oldest_key().map(|epoch| self.schedule.accepted_until(epoch));
        let own = [self.publisher.next(), self.next_view, self.next_sync];
        let own = own.into_iter().chain(destroy);
        others.into_iter().flatten().chain(own).min().unwrap_or(self.next_view)
    }

    /// Does what has fallen due by `now`.
    pub fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.forget_past(now);
        if self.publisher.next() <= now {
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

    fn publish(&mut self, now: Time, rng: &mut impl CryptoRng) {
        // Peers may hold a newer one than this node does: after a restored backup, say.
        if let Some(own) = self.directory.newest(&self.node).cloned() {
            self.resume_after(own.octets(), now);
            if self.publisher.next() > now {
                return;
            }
        }
        let mut keys = Vec::new();
        for epoch in Publisher::epochs(&self.schedule, now) {
            if self.mix.key(epoch).is_none() {
                let seed = MixSeed::generate(rng);
                self.mix.insert_key(self.publisher.make_key(epoch, &seed));
                self.commands.push_back(Command::KeepSeed(epoch, seed));
            }
            if let Some(key) = self.mix.key(epoch) {
                keys.push((epoch, key.public().clone()));
            }
        }
        let digest = self.directory.digest();
        let exit = self.exit.as_ref();
        let octets = self.publisher.publish(keys, exit, digest, &self.schedule, now, rng);
        let Some(octets) = octets else { return };
        match self.admit(&octets, now) {
            Ok(()) => {
                self.resume_after(&octets, now);
                self.directory.pass_on(&octets);
                self.counts.add("record published");
                self.commands.push_back(Command::Announce(octets));
            }
            Err(Rejected::Statement(why)) => {
                self.counts.add(&format!("own record refused: {why}"));
            }
            Err(Rejected::Unwanted(why)) => self.counts.add(&format!("own record refused: {why}")),
        }
    }

    fn take_first_view(&mut self, now: Time) {
        let enough = usize::from(self.parameters().first_view);
        if self.view.is_none()
            && enough > 0
            && self.directory.len() >= enough
            && let Ok(view) = self.directory.first_view(now).if_sufficient()
        {
            self.set_view(view);
        }
    }

    fn take_view(&mut self, now: Time) {
        let hour = self.schedule.hour_at(now);
        self.next_view = self.schedule.hour_end(hour);
        let partial = self.directory.partial_view(hour, self.parameters().settle);
        match partial.if_sufficient() {
            Ok(view) => self.set_view(view),
            Err(_) => {
                if self.usable_view(now).is_none() {
                    self.view = None;
                }
            }
        }
    }

    fn set_view(&mut self, view: View) {
        let view = Arc::new(view);
        self.view = Some(Arc::clone(&view));
        self.commands.push_back(Command::ViewTaken(view));
    }

    fn usable_view(&self, now: Time) -> Option<&Arc<View>> {
        let oldest = now.minus(self.schedule.hour() * VIEW_HOURS + Duration::from_secs(1));
        self.view.as_ref().filter(|view| view.taken() >= oldest)
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

enum Rejected {
    Statement(RecordError),
    Unwanted(directory::Unwanted),
}

impl From<RecordError> for Rejected {
    fn from(why: RecordError) -> Self {
        Self::Statement(why)
    }
}

impl From<directory::Unwanted> for Rejected {
    fn from(why: directory::Unwanted) -> Self {
        Self::Unwanted(why)
    }
}

impl From<RouteError> for Refused {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::TooFewNodes => Self::TooFewNodes,
            RouteError::NoExit => Self::NoExit,
        }
    }
}

impl From<SealError> for Refused {
    fn from(error: SealError) -> Self {
        match error {
            SealError::TooBig => Self::TooBig,
            SealError::NoKey | SealError::Wrap(_) => Self::TooFewNodes,
        }
    }
}

fn ask(domain: &str, octets: usize, needed: Needs) -> Ask<'_> {
    let pairs = [
        (Needs::EIGHT_BIT, Capabilities::EIGHT_BIT),
        (Needs::SMTP_UTF8, Capabilities::SMTP_UTF8),
        (Needs::KEEP_FROM, Capabilities::KEEP_FROM),
    ];
    let needs = pairs
        .into_iter()
        .filter(|(need, _)| needed.contains(*need))
        .fold(Capabilities::NONE, |needs, (_, capability)| needs | capability);
    Ask { domain, size: u32::try_from(octets).unwrap_or(u32::MAX), needs }
}

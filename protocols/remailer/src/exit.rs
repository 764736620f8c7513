//! Mail out: from a payload to a delivery, until the next server has taken or refused it.

use core::time::Duration;
use std::collections::BTreeMap;

use keys::{Hour, Schedule, Time};
use mail::{Acknowledgement, Delivery, DeliveryStatus, Domain, Mailbox, Needs, Piece};
use mix::{NoRoom, Shares};
use rand::{CryptoRng, RngExt as _};
use record::{Ask, Domains, ExitPolicy};
use sphinx::{Payload, REPLY_BLOCK_LEN, ReplyBlock};

use crate::answer::DeliveryOutcome;
use crate::assembling::{Assembling, Name, Whole};
use crate::command::{Command, Out};
use crate::content::ContentType;
use crate::count::{Count, NotAnswered, NotDelivered};
use crate::ids::DeliveryId;
use crate::over::{OverIn, Overs};
use crate::sender::ask;
use crate::traffic::DeliveredLately;

/// Octets held for delivery, at most, each message with its recipients and [`OVERHEAD`]. A message
/// above that is dropped and counted.
const MAX_OCTETS: usize = 192 << 20;
/// Octets held for one domain, at most, two of the largest messages and some: one that answers slowly,
/// or never, must not hold up others.
const MAX_SHARE: usize = MAX_OCTETS / 8;
/// Octets that a message costs beside its own: its attempt at delivery is a task with buffers, and
/// what it is answered with is held beside it.
const OVERHEAD: usize = 4096 + REPLY_BLOCK_LEN;
/// Octets that a recipient costs beside its address.
const RECIPIENT: usize = 64;
/// By how much of itself a wait may be longer.
const JITTER: f64 = 0.25;
/// Wait before a second attempt; it doubles up to [`LONGEST_WAIT`]. Times that concern the outside
/// world are never scaled.
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(4000);
/// A message that waits this long for its next attempt is said to be held.
const HELD_AFTER: Duration = Duration::from_secs(480);
/// For how long a message is tried at least, even if it cannot be answered for then.
const LEAST_TRIED: Duration = Duration::from_secs(600);
/// Part of an hour before the end of a reply block in which the exit gives up: 30 minutes.
const ANSWERED_BEFORE: u32 = 2;
/// For how long an exit tries to deliver a message.
const HORIZON: Duration = Duration::from_secs(6 * 3600);

/// What makes a node an exit.
#[derive(Clone, Debug)]
pub struct ExitOffer {
    /// What it delivers, as its record says.
    pub policy: ExitPolicy,
    /// The From of mail whose sender did not ask for another.
    pub anonymous: Mailbox,
}

/// The exit of a node.
pub(crate) struct Exit {
    offer: ExitOffer,
    is_barred: bool,
    deliveries: Deliveries,
    lately: DeliveredLately,
    assembling: Assembling,
    over: Overs,
    schedule: Schedule,
}

impl Exit {
    /// An exit of a network in which a packet carries so many octets of a mail that takes several.
    pub(crate) fn new(offer: ExitOffer, room: usize, schedule: Schedule) -> Self {
        let (deliveries, lately) = (Deliveries::new(), DeliveredLately::default());
        // The fewest pieces of equal length are more than half full.
        let assembling = Assembling::new(room / 2 - room / 16);
        let over = Overs::default();
        Self { offer, is_barred: false, deliveries, lately, assembling, over, schedule }
    }

    /// What was over before a restart.
    pub(crate) fn restore(&mut self, over: Vec<OverIn>) {
        self.over.restore(over);
    }

    /// What the node's record says that it delivers.
    pub(crate) fn published(&self) -> Option<&ExitOffer> {
        (!self.is_barred).then_some(&self.offer)
    }

    pub(crate) fn change(&mut self, offer: ExitOffer) {
        self.offer = offer;
        self.is_barred = false;
    }

    /// Nothing is delivered until the offer changes.
    pub(crate) fn bar(&mut self) {
        self.is_barred = true;
    }

    /// Delivers what a payload carries, or keeps it until the rest has come.
    pub(crate) fn handle_payload(&mut self, payload: &Payload, at: (Time, Time), out: &mut Out) {
        // A message whose reply block is none is delivered all the same.
        let block = payload.reply_block().unwrap_or_else(|_| {
            out.count(Count::NotAnswered(NotAnswered::Malformed));
            None
        });
        // An answer has the size of what asked for it.
        let is_of_class = |block: &ReplyBlock| block.class().payload_len() == payload.len();
        let block = block.filter(|block| {
            let is_of_class = is_of_class(block);
            if !is_of_class {
                out.count(Count::NotAnswered(NotAnswered::Malformed));
            }
            is_of_class
        });
        let whole = match self.assemble(payload, block, at, out) {
            Ok(Some(whole)) => Ok(whole),
            Ok(None) => return,
            Err(dropped) => Err(dropped),
        };
        let begun = whole.and_then(|whole| match self.begin(&whole, at.0, out) {
            Ok(begun) => Ok((begun, whole.block)),
            Err(why) => Err((why, whole.block)),
        });
        match begun {
            Ok(((id, delivery), block)) => {
                self.deliveries.answer_with(id, block.map(|block| self.dated(block)));
                out.push(Command::Deliver(id, delivery));
                out.count(Count::MessageToDeliver);
            }
            Err((why, block)) => {
                out.count(Count::MessageDropped(why));
                // How many it was for is not known of what cannot be read.
                let said = Acknowledgement::of([(DeliveryStatus::RefusedHere, 1)]);
                self.deliveries.answers.extend(block.map(|block| (block, said)));
            }
        }
    }

    /// A message that one payload carries, or that is whole with it.
    fn assemble(
        &mut self,
        payload: &Payload,
        block: Option<ReplyBlock>,
        at: (Time, Time),
        out: &mut Out,
    ) -> Result<Option<Whole>, (NotDelivered, Option<ReplyBlock>)> {
        let Ok(content) = payload.content() else { return Err((NotDelivered::Payload, block)) };
        let Some((ContentType::Fragment, content)) = ContentType::split(content) else {
            return Err((NotDelivered::ContentType, block));
        };
        let piece = match Piece::decode(content) {
            Ok(piece) => piece,
            Err(why) => return Err((NotDelivered::Fragment(why), block)),
        };
        let name = piece.delivery();
        let is_whole = piece.is_whole();
        if !is_whole {
            out.count(Count::PieceTaken);
        }
        let again = if is_whole { Count::MessageAgain } else { Count::PieceSpare };
        // What came again brings a block for the next word.
        if let Some(said) = self.over.find(&name) {
            self.deliveries.answers.extend(block.map(|block| (block, said)));
            out.count(again);
            return Ok(None);
        }
        let block = match self.deliveries.names.get(&name).copied() {
            Some(id) => {
                let block = block.map(|block| self.dated(block));
                self.deliveries.answer_with(id, block);
                out.count(again);
                return Ok(None);
            }
            None => block,
        };
        let taken = self.assembling.take(piece, block, at, out);
        taken.map_err(|(why, block)| (NotDelivered::Fragment(why), block))
    }

    /// A reply block, and until when it is good.
    fn dated(&self, block: ReplyBlock) -> (ReplyBlock, Time) {
        let until = self.schedule.end(block.last_epoch());
        (block, until)
    }

    /// Blocks of messages that are answered for by another, each told once.
    pub(crate) fn take_spare(&mut self) -> Vec<ReplyBlock> {
        self.assembling.take_spare()
    }

    /// What is to be answered, and with what, each told once.
    pub(crate) fn take_answers(&mut self) -> Vec<(ReplyBlock, Acknowledgement)> {
        // How many a message was for of which pieces are missing is not known.
        let said = Acknowledgement::of([(DeliveryStatus::GaveUp, 1)]);
        let given_up = self.assembling.take_given_up().into_iter();
        self.deliveries.answers.extend(given_up.map(|block| (block, said.clone())));
        core::mem::take(&mut self.deliveries.answers)
    }

    fn begin(
        &mut self,
        Whole { fragment, name, .. }: &Whole,
        now: Time,
        out: &mut Out,
    ) -> Result<(DeliveryId, Delivery), NotDelivered> {
        let hour = u32::try_from(now.as_millis() / 3_600_000).unwrap_or(u32::MAX);
        let delivery =
            mail::rebuild(fragment, &self.offer.anonymous, hour).map_err(NotDelivered::Message)?;
        // What the ingress says of size and needs is not asked; From is the one wish that is its
        // own.
        let octets = delivery.message.len();
        let needs = delivery.needs | (fragment.needs() & Needs::KEEP_FROM);
        let asked = ask(fragment.envelope().domain().as_str(), octets, needs);
        if !allows(&self.offer.policy, &asked, &delivery.recipients) {
            return Err(NotDelivered::NotInPolicy);
        }
        let domain = fragment.envelope().domain();
        let begun = self.deliveries.begin(
            (domain, name),
            weight(&delivery),
            delivery.recipients.len(),
            now,
        );
        for _ in 0..self.deliveries.take_dropped() {
            out.count(Count::MessageDropped(NotDelivered::NoRoom));
        }
        Ok((begun.map_err(|NoRoom| NotDelivered::NoRoom)?, delivery))
    }

    /// The clock jumped: what waits goes on waiting for as long.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        self.deliveries.shift(millis);
        self.assembling.shift(millis);
    }

    /// Takes what came of an attempt to deliver.
    pub(crate) fn handle_delivery(
        &mut self,
        id: DeliveryId,
        outcome: DeliveryOutcome,
        (now, hour): (Time, Hour),
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        match outcome {
            DeliveryOutcome::Done { taken, refused, refused_here } => {
                self.deliveries.note(id, [taken, refused, refused_here]);
                let over = self.deliveries.done(id);
                self.note_over(over, now, rng, out);
                if taken > 0 {
                    self.lately.note(hour);
                    out.count(Count::MessageDelivered);
                }
                if refused + refused_here > 0 {
                    out.count(Count::MessageRefusedByServer);
                }
                if taken + refused + refused_here == 0 {
                    out.count(Count::MessageDropped(NotDelivered::CutShort));
                }
            }
            DeliveryOutcome::Later { delivery, taken, refused, refused_here } => {
                out.count(Count::DeliveryPostponed);
                self.deliveries.note(id, [taken, refused, refused_here]);
                let margin = self.schedule.hour() / ANSWERED_BEFORE;
                let tried = self.deliveries.later(id, delivery, (now, margin), rng.random());
                if let Err(GaveUp(over)) = tried {
                    self.note_over(over, now, rng, out);
                    out.count(Count::MessageDropped(NotDelivered::GaveUp));
                }
            }
        }
    }

    /// What was taken or refused for good for at least one recipient is not tried again if it comes again.
    fn note_over(
        &mut self,
        over: Option<(Name, Acknowledgement)>,
        now: Time,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        if let Some((name, said)) = over {
            self.over.note(&name, &said, self.schedule.epoch_at(now), rng, out);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        [self.deliveries.poll_timeout(), self.assembling.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Out) {
        while let Some((id, delivery)) = self.deliveries.next_due(now) {
            out.push(Command::Deliver(id, delivery));
        }
        self.assembling.handle_timeout(now, out);
        self.over.forget_past(self.schedule.epoch_at(now), out);
    }

    /// Messages of which some pieces are here.
    pub(crate) fn assembling(&self) -> usize {
        self.assembling.len()
    }

    /// Messages that were delivered in the last day.
    pub(crate) fn delivered(&mut self, hour: Hour) -> u32 {
        self.lately.of_a_day(hour)
    }

    /// Messages being delivered.
    pub(crate) fn held(&self) -> usize {
        self.deliveries.len()
    }
}

struct Deliveries {
    serial: u64,
    shares: Shares<Domain>,
    /// Messages that have gone for others, until [`Deliveries::take_dropped`].
    dropped: usize,
    /// What is to be answered, until [`Exit::take_answers`].
    answers: Vec<(ReplyBlock, Acknowledgement)>,
    /// Which delivery each message is that is under way or waits.
    names: BTreeMap<Name, DeliveryId>,
    /// What each is answered with, and until when that is good.
    blocks: BTreeMap<DeliveryId, (ReplyBlock, Time)>,
    under_way: BTreeMap<DeliveryId, Tries>,
    waiting: BTreeMap<(Time, DeliveryId), (Tries, Delivery)>,
}

struct Tries {
    name: Name,
    domain: Domain,
    octets: usize,
    begun: Time,
    give_up: Time,
    wait: Duration,
    /// Recipients that nothing is known of yet; that were taken; that were refused; that were refused by
    /// this server.
    recipients: [usize; 4],
    has_said_held: bool,
}

impl Tries {
    /// What is to be answered, if nothing more will be tried.
    fn said(&self) -> Acknowledgement {
        let [open, taken, refused, here] = self.recipients;
        Acknowledgement::of([
            (DeliveryStatus::Delivered, taken),
            (DeliveryStatus::Refused, refused),
            (DeliveryStatus::RefusedHere, here),
            (DeliveryStatus::GaveUp, open),
        ])
    }

    fn held(&self) -> Acknowledgement {
        let [open, ..] = self.recipients;
        Acknowledgement::of([(DeliveryStatus::Held, open)])
    }

    /// Whether another attempt would bring somebody a copy, or a refusal again.
    fn is_over(&self) -> bool {
        let [_, taken, refused, _] = self.recipients;
        taken + refused > 0
    }
}

/// Nothing more is tried; with what is to be remembered.
struct GaveUp(Option<(Name, Acknowledgement)>);

/// What a message costs while it is held, in octets.
fn weight(delivery: &Delivery) -> usize {
    let length = |mailbox: &Mailbox| mailbox.local().len() + mailbox.domain().as_str().len();
    let recipients = delivery.recipients.iter().map(|mailbox| length(mailbox) + RECIPIENT);
    recipients.fold(OVERHEAD + delivery.message.len(), usize::saturating_add)
}

impl Deliveries {
    fn new() -> Self {
        let (under_way, waiting) = (BTreeMap::new(), BTreeMap::new());
        let (names, blocks) = (BTreeMap::new(), BTreeMap::new());
        let shares = Shares::new(MAX_OCTETS, MAX_SHARE);
        let answers = Vec::new();
        Self { serial: 0, shares, dropped: 0, answers, names, blocks, under_way, waiting }
    }

    /// Begins a delivery, for which postponed ones may have to go: of the same domain if that has
    /// its share, or else of those that have more, the oldest first.
    fn begin(
        &mut self,
        (domain, name): (&Domain, &Name),
        octets: usize,
        recipients: usize,
        now: Time,
    ) -> Result<DeliveryId, NoRoom> {
        let Self { waiting, answers, names, blocks, .. } = self;
        let mut drop_oldest = |of: &Domain| {
            let theirs = waiting.iter().filter(|(_, (tries, _))| tries.domain == *of);
            let oldest = theirs.map(|(place, _)| *place).min_by_key(|(_, id)| *id)?;
            self.dropped += 1;
            let (tries, _) = waiting.remove(&oldest)?;
            names.remove(&tries.name);
            let (_, id) = oldest;
            answers.extend(blocks.remove(&id).map(|(block, _)| (block, tries.said())));
            Some(tries.octets)
        };
        while !self.shares.allow(domain, octets) {
            let freed = drop_oldest(domain).ok_or(NoRoom)?;
            self.shares.give_back(domain, freed);
        }
        self.shares.take(domain.clone(), octets, drop_oldest)?;
        self.serial += 1;
        let id = DeliveryId(self.serial);
        let domain = domain.clone();
        let tries = Tries {
            name: *name,
            domain,
            octets,
            begun: now,
            give_up: now.plus(HORIZON),
            wait: FIRST_WAIT,
            recipients: [recipients, 0, 0, 0],
            has_said_held: false,
        };
        self.names.insert(*name, id);
        self.under_way.insert(id, tries);
        Ok(id)
    }

    /// How many messages have gone for others, each told once.
    fn take_dropped(&mut self) -> usize {
        core::mem::take(&mut self.dropped)
    }

    fn shift(&mut self, millis: i64) {
        let waiting = core::mem::take(&mut self.waiting).into_iter();
        self.waiting = waiting.map(|((at, id), held)| ((at.shifted(millis), id), held)).collect();
        let waiting = self.waiting.values_mut().map(|(tries, _)| tries);
        for tries in waiting.chain(self.under_way.values_mut()) {
            tries.begun = tries.begun.shifted(millis);
            tries.give_up = tries.give_up.shifted(millis);
        }
    }

    fn give_back(&mut self, tries: &Tries) {
        self.shares.give_back(&tries.domain, tries.octets);
    }

    /// What is answered with when it is known what became of a message. The block of an earlier attempt
    /// says that it is held.
    fn answer_with(&mut self, id: DeliveryId, block: Option<(ReplyBlock, Time)>) {
        let Some(block) = block else { return };
        if let Some((before, _)) = self.blocks.insert(id, block) {
            let held = Acknowledgement::of([(DeliveryStatus::Held, 1)]);
            self.answers.push((before, held));
        }
    }

    /// For how many recipients an attempt came to what: taken, refused, refused by this server.
    fn note(&mut self, id: DeliveryId, came: [usize; 3]) {
        if let Some(tries) = self.under_way.get_mut(&id) {
            let [open, known @ ..] = &mut tries.recipients;
            for (known, came) in known.iter_mut().zip(came) {
                *open = open.saturating_sub(came);
                *known = known.saturating_add(came);
            }
        }
    }

    /// A message of which nothing remains to be tried, with what is to be remembered of it. One that the
    /// end of the node cut short is not answered for: nobody knows what became of it.
    fn done(&mut self, id: DeliveryId) -> Option<(Name, Acknowledgement)> {
        let tries = self.under_way.remove(&id)?;
        self.finish(id, &tries, matches!(tries.recipients, [0, ..]))
    }

    fn finish(
        &mut self,
        id: DeliveryId,
        tries: &Tries,
        is_answered: bool,
    ) -> Option<(Name, Acknowledgement)> {
        self.give_back(tries);
        self.names.remove(&tries.name);
        let block = self.blocks.remove(&id).filter(|_| is_answered);
        self.answers.extend(block.map(|(block, _)| (block, tries.said())));
        tries.is_over().then(|| (tries.name, tries.said()))
    }

    /// `jitter` is from 0 to 1: attempts at fixed times could be told from first ones. Of what is tried for
    /// so long that its block dies the sender is told in time, `margin` before that.
    fn later(
        &mut self,
        id: DeliveryId,
        delivery: Delivery,
        (now, margin): (Time, Duration),
        jitter: f64,
    ) -> Result<(), GaveUp> {
        let Some(mut tries) = self.under_way.remove(&id) else { return Ok(()) };
        let at = now.plus(tries.wait.mul_f64(jitter.mul_add(JITTER, 1.0)));
        let answered = self.blocks.get(&id).map(|(_, until)| until.minus(margin));
        let answered = answered.map(|until| until.max(tries.begun.plus(LEAST_TRIED)));
        if at > answered.unwrap_or(tries.give_up).min(tries.give_up) {
            return Err(GaveUp(self.finish(id, &tries, true)));
        }
        if tries.wait >= HELD_AFTER
            && !tries.has_said_held
            && let Some((block, _)) = self.blocks.remove(&id)
        {
            tries.has_said_held = true;
            self.answers.push((block, tries.held()));
        }
        tries.wait = (tries.wait * 2).min(LONGEST_WAIT);
        self.waiting.insert((at, id), (tries, delivery));
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    fn next_due(&mut self, now: Time) -> Option<(DeliveryId, Delivery)> {
        let first = self.waiting.first_entry()?;
        let (at, id) = *first.key();
        if at > now {
            return None;
        }
        let (tries, delivery) = first.remove();
        self.under_way.insert(id, tries);
        Some((id, delivery))
    }

    fn len(&self) -> usize {
        self.under_way.len() + self.waiting.len()
    }
}

/// Whether mail is delivered. A server that finds another domain in a local part would deliver past the domains
/// of a policy that names some.
fn allows(policy: &ExitPolicy, asked: &Ask<'_>, recipients: &[Mailbox]) -> bool {
    let may_pass_by = policy.domains != Domains::Any && recipients.iter().any(Mailbox::may_route);
    policy.allows(asked) && !may_pass_by
}

#[cfg(test)]
mod tests {
    use record::Capabilities;

    use super::*;

    #[test]
    fn no_local_part_leads_past_the_domains_of_a_policy() {
        let policy = |domains| ExitPolicy { domains, max_message: 100, offers: Capabilities::NONE };
        let names = || vec!["b.example".to_owned()];
        let allows = |domains, recipient: &str| {
            let recipient = Mailbox::parse(recipient).unwrap();
            let asked = ask(recipient.domain().as_str(), 10, Needs::NONE);
            allows(&policy(domains), &asked, core::slice::from_ref(&recipient))
        };
        for route in ["a%c.example@b.example", "c.example!a@b.example", "\"a@c.example\"@b.example"]
        {
            assert!(!allows(Domains::Only(names()), route), "{route}");
            assert!(!allows(Domains::Except(vec!["c.example".to_owned()]), route), "{route}");
            assert!(allows(Domains::Any, route), "{route}");
        }
        assert!(allows(Domains::Only(names()), "a@b.example"));
        assert!(!allows(Domains::Only(names()), "a@c.example"));
    }

    fn domain(number: usize) -> Domain {
        Domain::parse(&format!("d{number}.example")).unwrap()
    }

    const MARGIN: Duration = Duration::from_secs(1800);

    /// Another at each call.
    fn name() -> Name {
        use core::sync::atomic::{AtomicU64, Ordering};
        static CALLS: AtomicU64 = AtomicU64::new(0);
        u128::from(CALLS.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
    }

    fn delivery() -> Delivery {
        Delivery { recipients: Vec::new(), needs: Needs::default(), message: Vec::new() }
    }

    #[test]
    fn waits_double_to_their_bound_and_end_at_the_horizon() {
        let start = Time::from_millis(1_000_000);
        let mut deliveries = Deliveries::new();
        let id = deliveries.begin((&domain(1), &name()), 100, 1, start).unwrap();
        let (mut now, mut waits) = (start, Vec::new());
        while deliveries.later(id, delivery(), (now, MARGIN), 0.0).is_ok() {
            let due = deliveries.poll_timeout().unwrap();
            assert!(deliveries.next_due(due.minus(Duration::from_millis(1))).is_none());
            waits.push(due.since(now).as_secs());
            now = due;
            assert!(deliveries.next_due(now).is_some_and(|(again, _)| again == id));
        }
        assert_eq!(waits[..8], [60, 120, 240, 480, 960, 1920, 3840, 4000]);
        assert!(now.since(start) <= HORIZON && now.since(start) + LONGEST_WAIT > HORIZON);
        assert_eq!((deliveries.len(), deliveries.shares.taken()), (0, 0));
        assert!(
            deliveries.later(id, delivery(), (now, MARGIN), 0.0).is_ok(),
            "nothing is known of it any more"
        );
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let now = Time::from_millis(0);
        let mut deliveries = Deliveries::new();
        let mut ids = Vec::new();
        for number in 0..8 {
            ids.push(deliveries.begin((&domain(number), &name()), MAX_SHARE, 1, now).unwrap());
            assert!(
                deliveries.begin((&domain(number), &name()), 1, 1, now).is_err(),
                "an eighth for each"
            );
        }
        assert!(deliveries.begin((&domain(8), &name()), 1, 1, now).is_err(), "all is under way");
        deliveries.done(ids[0]);
        deliveries.done(ids[0]);
        assert!(deliveries.begin((&domain(8), &name()), MAX_SHARE, 1, now).is_ok());
        assert!(deliveries.begin((&domain(9), &name()), 1, 1, now).is_err());
        assert_eq!(deliveries.shares.taken(), MAX_OCTETS);
    }

    #[test]
    fn a_domain_that_answers_later_and_later_holds_up_itself_alone() {
        let now = Time::from_millis(0);
        let mut deliveries = Deliveries::new();
        let octets = 240_000;
        let mut ids = Vec::new();
        for _ in 0..1000 {
            let id = deliveries.begin((&domain(1), &name()), octets, 1, now).unwrap();
            assert!(deliveries.later(id, delivery(), (now, MARGIN), 0.0).is_ok());
            ids.push(id);
        }
        let fit = MAX_SHARE / octets;
        assert_eq!((deliveries.take_dropped(), deliveries.len()), (1000 - fit, fit));
        let held: Vec<_> = deliveries.waiting.keys().map(|(_, id)| *id).collect();
        assert_eq!(held, ids[1000 - fit..], "of its own the oldest go");
        // Eight such domains have all the room; another still gets what it needs of theirs.
        for number in 2..=8 {
            for _ in 0..fit {
                let id = deliveries.begin((&domain(number), &name()), octets, 1, now).unwrap();
                assert!(deliveries.later(id, delivery(), (now, MARGIN), 0.0).is_ok());
            }
        }
        for _ in 0..20 {
            assert!(deliveries.begin((&domain(100), &name()), octets, 1, now).is_ok());
        }
        assert!(deliveries.shares.taken() <= MAX_OCTETS && deliveries.take_dropped() > 0);
    }

    #[test]
    fn many_recipients_and_many_small_messages_weigh_what_they_cost() {
        let recipient = Mailbox::parse(&format!("{}@d1.example", "a".repeat(60))).unwrap();
        let mut small = delivery();
        small.recipients = vec![recipient; 100];
        assert!(weight(&small) >= 100 * (60 + 10 + RECIPIENT) + OVERHEAD);
        assert!(weight(&delivery()) >= OVERHEAD);
    }
}

//! Mail out: from a payload to a delivery, until the next server has taken or refused it.

use core::time::Duration;
use std::collections::BTreeMap;

use keys::{Hour, Time};
use mail::{Acknowledgement, Delivery, DeliveryStatus, Domain, Fragment, Mailbox, Needs, Piece};
use mix::{NoRoom, Shares};
use rand::{CryptoRng, RngExt as _};
use record::ExitPolicy;
use sphinx::{Payload, REPLY_BLOCK_LEN, ReplyBlock};

use crate::answer::DeliveryOutcome;
use crate::assembling::{Assembling, Whole};
use crate::command::{Command, Out};
use crate::content::ContentType;
use crate::count::{Count, NotAnswered, NotDelivered};
use crate::ids::DeliveryId;
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
}

impl Exit {
    /// An exit of a network in which a packet carries so many octets of a mail that takes several.
    pub(crate) fn new(offer: ExitOffer, room: usize) -> Self {
        let (deliveries, lately) = (Deliveries::new(), DeliveredLately::default());
        // The fewest pieces of equal length are more than half full.
        let assembling = Assembling::new(room / 2 - room / 16);
        Self { offer, is_barred: false, deliveries, lately, assembling }
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
        let begun = whole.and_then(|whole| match self.begin(&whole.fragment, at.0, out) {
            Ok(begun) => {
                self.assembling.remember(whole.name, whole.until);
                Ok((begun, whole.block))
            }
            Err(why) => Err((why, whole.block)),
        });
        match begun {
            Ok(((id, delivery), block)) => {
                self.deliveries.answer_with(id, block);
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
        if !piece.is_whole() {
            out.count(Count::PieceTaken);
        }
        let taken = self.assembling.take(piece, block, at, out);
        taken.map_err(|(why, block)| (NotDelivered::Fragment(why), block))
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
        fragment: &Fragment,
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
        if !self.offer.policy.allows(&asked) {
            return Err(NotDelivered::NotInPolicy);
        }
        let domain = fragment.envelope().domain();
        let begun =
            self.deliveries.begin(domain, weight(&delivery), delivery.recipients.len(), now);
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
            DeliveryOutcome::Done { taken, refused } => {
                self.deliveries.note(id, taken, refused);
                self.deliveries.done(id);
                if taken > 0 {
                    self.lately.note(hour);
                    out.count(Count::MessageDelivered);
                }
                if refused > 0 {
                    out.count(Count::MessageRefusedByServer);
                }
                if taken == 0 && refused == 0 {
                    out.count(Count::MessageDropped(NotDelivered::CutShort));
                }
            }
            DeliveryOutcome::Later { delivery, taken, refused } => {
                out.count(Count::DeliveryPostponed);
                self.deliveries.note(id, taken, refused);
                if self.deliveries.later(id, delivery, now, rng.random()).is_err() {
                    out.count(Count::MessageDropped(NotDelivered::GaveUp));
                }
            }
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
    under_way: BTreeMap<DeliveryId, Tries>,
    waiting: BTreeMap<(Time, DeliveryId), (Tries, Delivery)>,
}

struct Tries {
    domain: Domain,
    octets: usize,
    give_up: Time,
    wait: Duration,
    /// Recipients that nothing is known of yet; that were taken; that were refused.
    recipients: [usize; 3],
    block: Option<ReplyBlock>,
}

impl Tries {
    /// What is to be answered, if nothing more will be tried.
    fn answer(self) -> Option<(ReplyBlock, Acknowledgement)> {
        let [open, taken, refused] = self.recipients;
        let said = Acknowledgement::of([
            (DeliveryStatus::Delivered, taken),
            (DeliveryStatus::Refused, refused),
            (DeliveryStatus::GaveUp, open),
        ]);
        Some((self.block?, said))
    }
}

struct GaveUp;

/// What a message costs while it is held, in octets.
fn weight(delivery: &Delivery) -> usize {
    let length = |mailbox: &Mailbox| mailbox.local().len() + mailbox.domain().as_str().len();
    let recipients = delivery.recipients.iter().map(|mailbox| length(mailbox) + RECIPIENT);
    recipients.fold(OVERHEAD + delivery.message.len(), usize::saturating_add)
}

impl Deliveries {
    fn new() -> Self {
        let (under_way, waiting) = (BTreeMap::new(), BTreeMap::new());
        let shares = Shares::new(MAX_OCTETS, MAX_SHARE);
        Self { serial: 0, shares, dropped: 0, answers: Vec::new(), under_way, waiting }
    }

    /// Begins a delivery, for which postponed ones may have to go: of the same domain if that has
    /// its share, or else of those that have more, the oldest first.
    fn begin(
        &mut self,
        domain: &Domain,
        octets: usize,
        recipients: usize,
        now: Time,
    ) -> Result<DeliveryId, NoRoom> {
        let (waiting, answers) = (&mut self.waiting, &mut self.answers);
        let mut drop_oldest = |of: &Domain| {
            let theirs = waiting.iter().filter(|(_, (tries, _))| tries.domain == *of);
            let oldest = theirs.map(|(place, _)| *place).min_by_key(|(_, id)| *id)?;
            self.dropped += 1;
            let (tries, _) = waiting.remove(&oldest)?;
            let octets = tries.octets;
            answers.extend(tries.answer());
            Some(octets)
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
            domain,
            octets,
            give_up: now.plus(HORIZON),
            wait: FIRST_WAIT,
            recipients: [recipients, 0, 0],
            block: None,
        };
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
            tries.give_up = tries.give_up.shifted(millis);
        }
    }

    fn give_back(&mut self, tries: &Tries) {
        self.shares.give_back(&tries.domain, tries.octets);
    }

    /// What is answered with when it is known what became of a message.
    fn answer_with(&mut self, id: DeliveryId, block: Option<ReplyBlock>) {
        if let Some(tries) = self.under_way.get_mut(&id) {
            tries.block = block;
        }
    }

    /// What an attempt came to for some recipients.
    fn note(&mut self, id: DeliveryId, taken: usize, refused: usize) {
        if let Some(tries) = self.under_way.get_mut(&id) {
            let [open, before, no] = &mut tries.recipients;
            *open = open.saturating_sub(taken.saturating_add(refused));
            *before = before.saturating_add(taken);
            *no = no.saturating_add(refused);
        }
    }

    /// A message of which nothing remains to be tried. One that the end of the node cut short is not
    /// answered for: nobody knows what became of it.
    fn done(&mut self, id: DeliveryId) {
        if let Some(tries) = self.under_way.remove(&id) {
            self.give_back(&tries);
            if matches!(tries.recipients, [0, _, _]) {
                self.answers.extend(tries.answer());
            }
        }
    }

    /// `jitter` is from 0 to 1: attempts at fixed times could be told from first ones.
    fn later(
        &mut self,
        id: DeliveryId,
        delivery: Delivery,
        now: Time,
        jitter: f64,
    ) -> Result<(), GaveUp> {
        let Some(mut tries) = self.under_way.remove(&id) else { return Ok(()) };
        let at = now.plus(tries.wait.mul_f64(jitter.mul_add(JITTER, 1.0)));
        if at > tries.give_up {
            self.give_back(&tries);
            self.answers.extend(tries.answer());
            return Err(GaveUp);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(number: usize) -> Domain {
        Domain::parse(&format!("d{number}.example")).unwrap()
    }

    fn delivery() -> Delivery {
        Delivery { recipients: Vec::new(), needs: Needs::default(), message: Vec::new() }
    }

    #[test]
    fn waits_double_to_their_bound_and_end_at_the_horizon() {
        let start = Time::from_millis(1_000_000);
        let mut deliveries = Deliveries::new();
        let id = deliveries.begin(&domain(1), 100, 1, start).unwrap();
        let (mut now, mut waits) = (start, Vec::new());
        while deliveries.later(id, delivery(), now, 0.0).is_ok() {
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
            deliveries.later(id, delivery(), now, 0.0).is_ok(),
            "nothing is known of it any more"
        );
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let now = Time::from_millis(0);
        let mut deliveries = Deliveries::new();
        let mut ids = Vec::new();
        for number in 0..8 {
            ids.push(deliveries.begin(&domain(number), MAX_SHARE, 1, now).unwrap());
            assert!(deliveries.begin(&domain(number), 1, 1, now).is_err(), "an eighth for each");
        }
        assert!(deliveries.begin(&domain(8), 1, 1, now).is_err(), "all is under way");
        deliveries.done(ids[0]);
        deliveries.done(ids[0]);
        assert!(deliveries.begin(&domain(8), MAX_SHARE, 1, now).is_ok());
        assert!(deliveries.begin(&domain(9), 1, 1, now).is_err());
        assert_eq!(deliveries.shares.taken(), MAX_OCTETS);
    }

    #[test]
    fn a_domain_that_answers_later_and_later_holds_up_itself_alone() {
        let now = Time::from_millis(0);
        let mut deliveries = Deliveries::new();
        let octets = 240_000;
        let mut ids = Vec::new();
        for _ in 0..1000 {
            let id = deliveries.begin(&domain(1), octets, 1, now).unwrap();
            assert!(deliveries.later(id, delivery(), now, 0.0).is_ok());
            ids.push(id);
        }
        let fit = MAX_SHARE / octets;
        assert_eq!((deliveries.take_dropped(), deliveries.len()), (1000 - fit, fit));
        let held: Vec<_> = deliveries.waiting.keys().map(|(_, id)| *id).collect();
        assert_eq!(held, ids[1000 - fit..], "of its own the oldest go");
        // Eight such domains have all the room; another still gets what it needs of theirs.
        for number in 2..=8 {
            for _ in 0..fit {
                let id = deliveries.begin(&domain(number), octets, 1, now).unwrap();
                assert!(deliveries.later(id, delivery(), now, 0.0).is_ok());
            }
        }
        for _ in 0..20 {
            assert!(deliveries.begin(&domain(100), octets, 1, now).is_ok());
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

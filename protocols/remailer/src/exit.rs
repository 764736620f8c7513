//! Mail out: from a payload to a delivery, until the next server has taken or refused it.

use core::time::Duration;
use std::collections::BTreeMap;

use keys::Time;
use mail::{Delivery, Fragment, Mailbox, Needs};
use record::ExitPolicy;
use sphinx::Payload;

use crate::answer::DeliveryOutcome;
use crate::command::{Command, Out};
use crate::content::ContentType;
use crate::count::{Count, NotDelivered};
use crate::ids::DeliveryId;
use crate::sender::ask;

/// Octets held for delivery, at most. A message above that is dropped and counted.
const MAX_OCTETS: usize = 64 << 20;
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
    deliveries: Deliveries,
}

impl Exit {
    pub(crate) fn new(offer: ExitOffer) -> Self {
        Self { offer, deliveries: Deliveries::new() }
    }

    pub(crate) fn offer(&self) -> &ExitOffer {
        &self.offer
    }

    pub(crate) fn change(&mut self, offer: ExitOffer) {
        self.offer = offer;
    }

    /// Delivers what a payload carries.
    pub(crate) fn handle_payload(&mut self, payload: &Payload, now: Time, out: &mut Out) {
        match self.begin(payload, now) {
            Ok((id, delivery)) => {
                out.push(Command::Deliver(id, delivery));
                out.count(Count::MessageToDeliver);
            }
            Err(why) => out.count(Count::MessageDropped(why)),
        }
    }

    fn begin(
        &mut self,
        payload: &Payload,
        now: Time,
    ) -> Result<(DeliveryId, Delivery), NotDelivered> {
        let content = payload.content().map_err(|_| NotDelivered::Payload)?;
        let Some((ContentType::Fragment, content)) = ContentType::split(content) else {
            return Err(NotDelivered::ContentType);
        };
        let fragment = Fragment::decode(content).map_err(NotDelivered::Fragment)?;
        let hour = u32::try_from(now.as_millis() / 3_600_000).unwrap_or(u32::MAX);
        let delivery =
            mail::rebuild(&fragment, &self.offer.anonymous, hour).map_err(NotDelivered::Message)?;
        // What the ingress says of size and needs is not asked; From is the one wish that is its
        // own.
        let octets = delivery.message.len();
        let needs = delivery.needs | (fragment.needs() & Needs::KEEP_FROM);
        let asked = ask(fragment.envelope().domain().as_str(), octets, needs);
        if !self.offer.policy.allows(&asked) {
            return Err(NotDelivered::NotInPolicy);
        }
        let id = self.deliveries.begin(octets, now).map_err(|Full| NotDelivered::NoRoom)?;
        Ok((id, delivery))
    }

    /// Takes what came of an attempt to deliver.
    pub(crate) fn handle_delivery(
        &mut self,
        id: DeliveryId,
        outcome: DeliveryOutcome,
        now: Time,
        out: &mut Out,
    ) {
        match outcome {
            DeliveryOutcome::Done { taken, refused } => {
                self.deliveries.done(id);
                if taken > 0 {
                    out.count(Count::MessageDelivered);
                }
                if refused > 0 {
                    out.count(Count::MessageRefusedByServer);
                }
                if taken == 0 && refused == 0 {
                    out.count(Count::MessageDropped(NotDelivered::CutShort));
                }
            }
            DeliveryOutcome::Later(delivery) => {
                out.count(Count::DeliveryPostponed);
                if self.deliveries.later(id, delivery, now).is_err() {
                    out.count(Count::MessageDropped(NotDelivered::GaveUp));
                }
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.deliveries.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Out) {
        while let Some((id, delivery)) = self.deliveries.next_due(now) {
            out.push(Command::Deliver(id, delivery));
        }
    }

    /// Messages being delivered.
    pub(crate) fn held(&self) -> usize {
        self.deliveries.len()
    }
}

struct Deliveries {
    serial: u64,
    octets: usize,
    under_way: BTreeMap<DeliveryId, Tries>,
    waiting: BTreeMap<(Time, DeliveryId), (Tries, Delivery)>,
}

struct Tries {
    octets: usize,
    give_up: Time,
    wait: Duration,
}

struct Full;
struct GaveUp;

impl Deliveries {
    fn new() -> Self {
        let (under_way, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self { serial: 0, octets: 0, under_way, waiting }
    }

    fn begin(&mut self, octets: usize, now: Time) -> Result<DeliveryId, Full> {
        if self.octets + octets > MAX_OCTETS {
            return Err(Full);
        }
        self.octets += octets;
        self.serial += 1;
        let id = DeliveryId(self.serial);
        let tries = Tries { octets, give_up: now.plus(HORIZON), wait: FIRST_WAIT };
        self.under_way.insert(id, tries);
        Ok(id)
    }

    fn done(&mut self, id: DeliveryId) {
        if let Some(tries) = self.under_way.remove(&id) {
            self.octets = self.octets.saturating_sub(tries.octets);
        }
    }

    fn later(&mut self, id: DeliveryId, delivery: Delivery, now: Time) -> Result<(), GaveUp> {
        let Some(mut tries) = self.under_way.remove(&id) else { return Ok(()) };
        let at = now.plus(tries.wait);
        if at > tries.give_up {
            self.octets = self.octets.saturating_sub(tries.octets);
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

    fn delivery() -> Delivery {
        Delivery { recipients: Vec::new(), needs: Needs::default(), message: Vec::new() }
    }

    #[test]
    fn waits_double_to_their_bound_and_end_at_the_horizon() {
        let start = Time::from_millis(1_000_000);
        let mut deliveries = Deliveries::new();
        let id = deliveries.begin(100, start).ok().unwrap();
        let (mut now, mut waits) = (start, Vec::new());
        while deliveries.later(id, delivery(), now).is_ok() {
            let due = deliveries.poll_timeout().unwrap();
            assert!(deliveries.next_due(due.minus(Duration::from_millis(1))).is_none());
            waits.push(due.since(now).as_secs());
            now = due;
            assert!(deliveries.next_due(now).is_some_and(|(again, _)| again == id));
        }
        assert_eq!(waits[..8], [60, 120, 240, 480, 960, 1920, 3840, 4000]);
        assert!(now.since(start) <= HORIZON && now.since(start) + LONGEST_WAIT > HORIZON);
        assert_eq!((deliveries.len(), deliveries.octets), (0, 0));
        assert!(deliveries.later(id, delivery(), now).is_ok(), "nothing is known of it any more");
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let now = Time::from_millis(0);
        let mut deliveries = Deliveries::new();
        let half = deliveries.begin(MAX_OCTETS / 2, now).ok().unwrap();
        assert!(deliveries.begin(MAX_OCTETS / 2, now).is_ok());
        assert!(deliveries.begin(1, now).is_err());
        deliveries.done(half);
        deliveries.done(half);
        assert!(deliveries.begin(MAX_OCTETS / 2, now).is_ok());
        assert!(deliveries.begin(1, now).is_err());
    }
}

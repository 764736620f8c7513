//! Messages that this node is to deliver, until the next server has taken or refused them.

use core::time::Duration;
use std::collections::BTreeMap;

use keys::Time;
use mail::{Delivery, Mailbox};
use record::ExitPolicy;

/// Octets held for delivery, at most. Beyond it a message is dropped and counted.
const MAX_OCTETS: usize = 64 << 20;
/// Wait before a second attempt; doubles up to [`LONGEST_WAIT`]. Times towards the world outside are
/// never scaled.
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(4000);
/// After so long an exit gives up.
const HORIZON: Duration = Duration::from_secs(6 * 3600);

/// What makes a node an exit.
#[derive(Clone, Debug)]
pub struct Exit {
    /// What it delivers; stands in its record.
    pub policy: ExitPolicy,
    /// The From of mail whose sender did not ask for another.
    pub anonymous: Mailbox,
}

/// Names a delivery between a command and its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryId(u64);

/// What came of an attempt.
pub enum DeliveryOutcome {
    /// The next server took it for these many recipients, and refused these many for good.
    Done {
        /// Recipients taken.
        taken: usize,
        /// Recipients refused.
        refused: usize,
    },
    /// Recipients remain to be tried again.
    Later(Delivery),
}

pub(crate) struct Deliveries {
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

pub(crate) struct Full;
pub(crate) struct GaveUp;

impl Deliveries {
    pub(crate) fn new() -> Self {
        let (under_way, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self { serial: 0, octets: 0, under_way, waiting }
    }

    pub(crate) fn begin(&mut self, octets: usize, now: Time) -> Result<DeliveryId, Full> {
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

    pub(crate) fn done(&mut self, id: DeliveryId) {
        if let Some(tries) = self.under_way.remove(&id) {
            self.octets = self.octets.saturating_sub(tries.octets);
        }
    }

    pub(crate) fn later(
        &mut self,
        id: DeliveryId,
        delivery: Delivery,
        now: Time,
    ) -> Result<(), GaveUp> {
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

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn next_due(&mut self, now: Time) -> Option<(DeliveryId, Delivery)> {
        let first = self.waiting.first_entry()?;
        let (at, id) = *first.key();
        if at > now {
            return None;
        }
        let (tries, delivery) = first.remove();
        self.under_way.insert(id, tries);
        Some((id, delivery))
    }

    pub(crate) fn len(&self) -> usize {
        self.under_way.len() + self.waiting.len()
    }
}

//! The strategy of the main network: what falls due in a window leaves in the next, shuffled, packets of one
//! class together, and never fewer than the floor if that can be helped.

use std::collections::BTreeMap;

use keys::Time;
use rand::CryptoRng;
use sphinx::SizeClass;

use crate::discipline::{Discipline, Orders, Windows, sort};
use crate::pool::Held;
use crate::{Floor, TopUp};

/// Loops of the largest class for which packets were received and that were not needed, at most: what a
/// flood pays for is not spent for ever.
const MAX_SAVED: u64 = 64;

/// The packets that are due and wait for company.
pub(crate) struct Gathering {
    windows: Windows,
    floor: Floor,
    /// Octets received that no loop was spent for: small packets must not pay for large ones.
    received: u64,
    below: BTreeMap<SizeClass, Below>,
    /// The end of the window after which those below the floor are looked at again.
    until: Option<Time>,
    top_ups: Vec<TopUp>,
    lonely: usize,
}

/// Packets of one class that wait for more of them.
#[derive(Default)]
struct Below {
    windows: u8,
    packets: Vec<Held>,
}

impl Gathering {
    pub(crate) fn new(windows: Windows, floor: Floor) -> Self {
        Self {
            windows,
            floor,
            received: 0,
            below: BTreeMap::new(),
            until: None,
            top_ups: Vec::new(),
            lonely: 0,
        }
    }

    /// Octets that have to be received for a loop of a class.
    fn price(&self, class: SizeClass) -> u64 {
        let octets = u64::try_from(class.packet_len()).unwrap_or(u64::MAX);
        u64::from(self.floor.budget).max(1).saturating_mul(octets)
    }

    /// Orders as many loops as are missing and paid for; returns how many.
    fn fill_up(
        &mut self,
        class: SizeClass,
        missing: usize,
        from: Time,
        rng: &mut dyn CryptoRng,
    ) -> usize {
        let price = self.price(class);
        let mut ordered = 0;
        while ordered < missing && self.received >= price {
            self.received -= price;
            let at = self.windows.within(from, rng);
            self.top_ups.push(TopUp { class, at });
            ordered += 1;
        }
        ordered
    }
}

impl Discipline for Gathering {
    fn next_look(&self, first: Option<Time>) -> Option<Time> {
        let collected = first.map(|first| self.windows.end_of(first));
        [collected, self.until].into_iter().flatten().min()
    }

    /// What leaves is whatever does not go to another node, and every class of which there are enough, or
    /// which has waited as long as it may.
    fn decide(
        &mut self,
        due: Vec<Held>,
        at: Time,
        now: Time,
        rng: &mut dyn CryptoRng,
    ) -> Vec<(Time, Held)> {
        let (forward, mut batch) = sort(due);
        let mut groups = core::mem::take(&mut self.below);
        for (class, held) in forward {
            groups.entry(class).or_default().packets.push(held);
        }
        for (class, mut group) in groups {
            let missing = usize::from(self.floor.packets).saturating_sub(group.packets.len());
            if missing > 0 && group.windows < self.floor.windows {
                group.windows += 1;
                self.below.insert(class, group);
                continue;
            }
            if self.fill_up(class, missing, now, rng) < missing {
                self.lonely += group.packets.len();
            }
            batch.append(&mut group.packets);
        }
        self.until = (!self.below.is_empty()).then(|| at.plus(self.windows.window));
        self.windows.spread(batch, now, rng)
    }

    /// It pays for a part of a loop.
    fn note_received(&mut self, octets: usize) {
        let most = self.price(SizeClass::LARGEST).saturating_mul(MAX_SAVED);
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        self.received = self.received.saturating_add(octets).min(most);
    }

    fn take_orders(&mut self) -> Orders {
        let top_ups = core::mem::take(&mut self.top_ups);
        Orders { top_ups, lonely: core::mem::take(&mut self.lonely) }
    }

    fn kept_back(&self) -> usize {
        self.below.values().map(|below| below.packets.len()).sum()
    }

    fn shift(&mut self, millis: i64) {
        self.windows.phase = self.windows.phase.shifted(millis);
        self.until = self.until.map(|end| end.shifted(millis));
        for top_up in &mut self.top_ups {
            top_up.at = top_up.at.shifted(millis);
        }
    }

    fn windows(&self) -> Option<Windows> {
        Some(self.windows)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn a_flood_pays_for_no_more_than_a_few_loops() {
        let floor = Floor { packets: 9, windows: 0, budget: 10 };
        let windows = Windows { window: Duration::from_secs(30), phase: Time::from_millis(0) };
        let mut gathering = Gathering::new(windows, floor);
        for _ in 0..100_000 {
            gathering.note_received(SizeClass::LARGEST.packet_len());
        }
        let (mut rng, now) = (ChaCha20Rng::seed_from_u64(1), Time::from_millis(0));
        assert_eq!(gathering.fill_up(SizeClass::LARGEST, 1000, now, &mut rng), 64);
        // A packet of 16 KiB pays for a sixteenth of what one of 256 KiB does.
        for _ in 0..10 * 16 - 1 {
            gathering.note_received(SizeClass::SMALLEST.packet_len());
        }
        assert_eq!(gathering.fill_up(SizeClass::LARGEST, 1000, now, &mut rng), 0);
        gathering.note_received(SizeClass::SMALLEST.packet_len());
        assert_eq!(gathering.fill_up(SizeClass::LARGEST, 1000, now, &mut rng), 1);
    }
}

//! What leaves a window together: packets of one class, and never fewer than the floor if that can be
//! helped.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use keys::Time;
use rand::{CryptoRng, RngExt as _};
use sphinx::SizeClass;

use crate::pool::Held;
use crate::{Floor, Release, TopUp};

/// Loops of the largest class for which packets were received and that were not needed, at most: what a
/// flood pays for is not spent for ever.
const MAX_SAVED: u64 = 64;

/// The packets that are due and wait for company.
pub(crate) struct Gathering {
    window: Duration,
    floor: Floor,
    /// Octets received that no loop was spent for: small packets must not pay for large ones.
    received: u64,
    below: BTreeMap<SizeClass, Below>,
    /// The end of the window after which those below the floor are looked at again.
    until: Option<Time>,
    top_ups: VecDeque<TopUp>,
    lonely: usize,
}

/// Packets of one class that wait for more of them.
#[derive(Default)]
struct Below {
    windows: u8,
    packets: Vec<Held>,
}

impl Gathering {
    pub(crate) fn new(window: Duration, floor: Floor) -> Self {
        Self {
            window,
            floor,
            received: 0,
            below: BTreeMap::new(),
            until: None,
            top_ups: VecDeque::new(),
            lonely: 0,
        }
    }

    /// A packet came from another node: it pays for a part of a loop.
    pub(crate) fn note_received(&mut self, octets: usize) {
        let most = self.price(SizeClass::LARGEST).saturating_mul(MAX_SAVED);
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        self.received = self.received.saturating_add(octets).min(most);
    }

    /// Octets that have to be received for a loop of a class.
    fn price(&self, class: SizeClass) -> u64 {
        let octets = u64::try_from(class.packet_len()).unwrap_or(u64::MAX);
        u64::from(self.floor.budget).max(1).saturating_mul(octets)
    }

    /// The next loop that is to leave among too few packets.
    pub(crate) fn next_top_up(&mut self) -> Option<TopUp> {
        self.top_ups.pop_front()
    }

    /// How many packets leave with too few, each told once.
    pub(crate) fn take_lonely(&mut self) -> usize {
        core::mem::take(&mut self.lonely)
    }

    /// The end of the window at which packets that wait are looked at.
    pub(crate) fn until(&self) -> Option<Time> {
        self.until
    }

    /// Packets that wait for company.
    pub(crate) fn len(&self) -> usize {
        self.below.values().map(|below| below.packets.len()).sum()
    }

    /// Moves all times.
    pub(crate) fn shift(&mut self, millis: i64) {
        self.until = self.until.map(|end| end.shifted(millis));
        for top_up in &mut self.top_ups {
            top_up.at = top_up.at.shifted(millis);
        }
    }

    /// What leaves now, of what was due in a window that ended: whatever does not go to another node,
    /// and every class of which there are enough, or which has waited as long as it may. It leaves
    /// within a window from `from` on.
    pub(crate) fn gather(
        &mut self,
        due: Vec<Held>,
        (end, from): (Time, Time),
        rng: &mut impl CryptoRng,
    ) -> Vec<Held> {
        let mut batch = Vec::with_capacity(due.len());
        let mut groups = core::mem::take(&mut self.below);
        for held in due {
            match &held.release {
                Release::Forward { packet, .. } => {
                    groups.entry(packet.class()).or_default().packets.push(held);
                }
                Release::End { .. } | Release::Reply { .. } | Release::Stream { .. } => {
                    batch.push(held);
                }
            }
        }
        for (class, mut group) in groups {
            let missing = usize::from(self.floor.packets).saturating_sub(group.packets.len());
            if missing > 0 && group.windows < self.floor.windows {
                group.windows += 1;
                self.below.insert(class, group);
                continue;
            }
            if self.fill_up(class, missing, from, rng) < missing {
                self.lonely += group.packets.len();
            }
            batch.append(&mut group.packets);
        }
        self.until = (!self.below.is_empty()).then(|| end.plus(self.window));
        batch
    }

    /// Orders as many loops as are missing and paid for; returns how many.
    fn fill_up(
        &mut self,
        class: SizeClass,
        missing: usize,
        from: Time,
        rng: &mut impl CryptoRng,
    ) -> usize {
        let price = self.price(class);
        let mut ordered = 0;
        while ordered < missing && self.received >= price {
            self.received -= price;
            let at = from.plus(self.window.mul_f64(rng.random::<f64>()));
            self.top_ups.push_back(TopUp { class, at });
            ordered += 1;
        }
        ordered
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn a_flood_pays_for_no_more_than_a_few_loops() {
        let floor = Floor { packets: 9, windows: 0, budget: 10 };
        let mut gathering = Gathering::new(Duration::from_secs(30), floor);
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

//! A node's own packets and the one Poisson clock on which they leave.
//!
//! Ticks are drawn ahead, so that a packet's time of leaving is known when it is sealed: the epochs
//! of its hops follow from it. A tick carries at most one packet.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;

use keys::Time;
use rand::CryptoRng;

use crate::seal::{Sealed, Tick, exponential};

/// Packets waiting, at most; 4,096 ticks of 15 s are 17 hours.
const MAX_PACKETS: usize = 4096;
/// Octets waiting, at most. Beyond either bound a submission is refused for now.
const MAX_OCTETS: usize = 64 << 20;

pub(crate) struct Outbox {
    mean: Duration,
    drawn_to: Time,
    serial: u64,
    ticks: BTreeMap<Tick, Slot>,
    packets: usize,
    octets: usize,
}

enum Slot {
    Free,
    /// Its packet is being sealed.
    Reserved,
    Filled(Sealed),
}

impl Outbox {
    pub(crate) fn new(mean: Duration, now: Time) -> Self {
        Self { mean, drawn_to: now, serial: 0, ticks: BTreeMap::new(), packets: 0, octets: 0 }
    }

    /// Reserves the first free tick within a span for a packet of this many octets; `None` if there
    /// is none, or no room.
    pub(crate) fn reserve(
        &mut self,
        within: RangeInclusive<Time>,
        octets: usize,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<Tick> {
        if self.packets >= MAX_PACKETS || self.octets + octets > MAX_OCTETS {
            return None;
        }
        let tick = self.free_tick(*within.start(), rng);
        if !within.contains(&tick.at) {
            self.ticks.insert(tick, Slot::Free);
            return None;
        }
        self.packets += 1;
        self.octets += octets;
        self.ticks.insert(tick, Slot::Reserved);
        Some(tick)
    }

    /// Puts the packet on its reserved tick; if the tick is past already, the packet leaves at
    /// once.
    pub(crate) fn fill(&mut self, tick: Tick, sealed: Sealed) {
        self.ticks.insert(tick, Slot::Filled(sealed));
    }

    /// Gives a reserved tick back.
    pub(crate) fn release(&mut self, tick: Tick, octets: usize) {
        self.packets = self.packets.saturating_sub(1);
        self.octets = self.octets.saturating_sub(octets);
        if let Some(slot) = self.ticks.get_mut(&tick) {
            *slot = Slot::Free;
        }
    }

    fn free_tick(&mut self, earliest: Time, rng: &mut (impl CryptoRng + ?Sized)) -> Tick {
        let mut known = self.ticks.range(Tick { at: earliest, serial: 0 }..);
        if let Some((tick, _)) = known.find(|(_, slot)| matches!(slot, Slot::Free)) {
            return *tick;
        }
        loop {
            let tick = self.draw(rng);
            if tick.at >= earliest {
                return tick;
            }
        }
    }

    /// Moves all ticks: the clock jumped, and what a machine slept through must not leave at once.
    pub(crate) fn shift(&mut self, millis: i64) {
        self.drawn_to = self.drawn_to.shifted(millis);
        let ticks = core::mem::take(&mut self.ticks).into_iter();
        let shifted =
            |(tick, slot): (Tick, Slot)| (Tick { at: tick.at.shifted(millis), ..tick }, slot);
        self.ticks = ticks.map(shifted).collect();
    }

    /// When the next packet leaves.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let mut ticks = self.ticks.iter();
        ticks.find(|(_, slot)| matches!(slot, Slot::Filled(_))).map(|(tick, _)| tick.at)
    }

    /// The next packet whose tick has come.
    pub(crate) fn next_due(&mut self, now: Time) -> Option<Sealed> {
        self.drawn_to = self.drawn_to.max(now);
        while let Some(first) = self.ticks.first_entry() {
            if first.key().at > now {
                return None;
            }
            if let Slot::Filled(sealed) = first.remove() {
                self.packets = self.packets.saturating_sub(1);
                self.octets = self.octets.saturating_sub(sealed.packet.octets().len());
                return Some(sealed);
            }
        }
        None
    }

    pub(crate) fn len(&self) -> usize {
        self.packets
    }

    fn draw(&mut self, rng: &mut (impl CryptoRng + ?Sized)) -> Tick {
        self.drawn_to = self.drawn_to.plus(exponential(self.mean, rng));
        self.serial += 1;
        let tick = Tick { at: self.drawn_to, serial: self.serial };
        self.ticks.insert(tick, Slot::Free);
        tick
    }
}

#[cfg(test)]
mod tests {
    use keys::NodeId;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use sphinx::{Packet, SizeClass};

    use super::*;

    #[test]
    fn gaps_are_exponential_and_ticks_carry_one_packet() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let start = Time::from_millis(1_000_000_000);
        let mean = Duration::from_secs(10);
        let mut outbox = Outbox::new(mean, start);
        let mut taken: Vec<Tick> = Vec::new();
        let late = start.plus(Duration::from_secs(1 << 30));
        for _ in 0..2000 {
            let octets = vec![0; SizeClass::SMALLEST.packet_len()];
            let tick = outbox.reserve(start..=late, octets.len(), &mut rng).unwrap();
            let packet = Packet::from_octets(octets).unwrap();
            outbox
                .fill(tick, Sealed { first: NodeId::from_bytes([0; 32]), packet, until: tick.at });
            assert!(taken.last() < Some(&tick));
            taken.push(tick);
        }
        // Kolmogorov-Smirnov against the exponential distribution; 1.95 / sqrt(n) is the 0.1 %
        // level.
        let mut gaps: Vec<f64> = std::iter::once(start)
            .chain(taken.iter().map(|tick| tick.at))
            .zip(taken.iter())
            .map(|(before, tick)| tick.at.since(before).as_secs_f64())
            .collect();
        gaps.sort_by(f64::total_cmp);
        let n = gaps.len() as f64;
        let distance = gaps
            .iter()
            .enumerate()
            .map(|(rank, gap)| ((rank as f64 + 0.5) / n - (1.0 - (-gap / 10.0).exp())).abs())
            .fold(0.0, f64::max);
        assert!(distance < 1.95 / n.sqrt(), "{distance}");
    }

    #[test]
    fn a_tick_that_passes_while_its_packet_is_sealed_is_made_up_for_at_once() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let start = Time::from_millis(1_000_000_000);
        let mut outbox = Outbox::new(Duration::from_secs(10), start);
        let late = start.plus(Duration::from_secs(1 << 30));
        let octets = SizeClass::SMALLEST.packet_len();
        let (first, second) = (
            outbox.reserve(start..=late, octets, &mut rng).unwrap(),
            outbox.reserve(start..=late, octets, &mut rng).unwrap(),
        );
        assert_eq!(outbox.poll_timeout(), None, "nothing to send yet");
        let later = second.at.plus(Duration::from_secs(60));
        assert!(outbox.next_due(later).is_none());
        let packet = Packet::from_octets(vec![0; octets]).unwrap();
        outbox.fill(first, Sealed { first: NodeId::from_bytes([0; 32]), packet, until: later });
        assert!(outbox.poll_timeout().is_some_and(|at| at <= later));
        assert!(outbox.next_due(later).is_some());
        outbox.release(second, octets);
        assert_eq!((outbox.packets, outbox.octets), (0, 0));
    }
}

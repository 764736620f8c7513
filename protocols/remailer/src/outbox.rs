//! A node's own packets and the one Poisson clock on which they leave.
//!
//! Ticks are drawn ahead, so that a packet's time of leaving is known when it is sealed: the epochs of
//! its hops follow from it. A tick carries at most one packet.

use core::time::Duration;
use std::collections::BTreeMap;

use keys::Time;
use rand::CryptoRng;

use crate::seal::{Sealed, exponential};

/// Packets waiting, at most; 4,096 ticks of 10 s are 11 hours.
const MAX_PACKETS: usize = 4096;
/// Octets waiting, at most. Beyond either bound a submission is refused for now.
const MAX_OCTETS: usize = 64 << 20;

/// A tick, free until something is put there. Two ticks may fall on one millisecond.
pub(crate) type Tick = (Time, u64);

pub(crate) struct Outbox {
    mean: Duration,
    drawn_to: Time,
    serial: u64,
    ticks: BTreeMap<Tick, Option<Sealed>>,
    packets: usize,
    octets: usize,
}

impl Outbox {
    pub(crate) fn new(mean: Duration, now: Time) -> Self {
        Self { mean, drawn_to: now, serial: 0, ticks: BTreeMap::new(), packets: 0, octets: 0 }
    }

    /// Whether packets of together so many octets fit.
    pub(crate) fn has_room(&self, packets: usize, octets: usize) -> bool {
        self.packets + packets <= MAX_PACKETS && self.octets + octets <= MAX_OCTETS
    }

    /// The first free tick at or after `earliest` that is not in `taken`.
    pub(crate) fn free_tick(
        &mut self,
        earliest: Time,
        taken: &[Tick],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Tick {
        let known = self.ticks.range((earliest, 0)..);
        let free = known.filter(|(tick, packet)| packet.is_none() && !taken.contains(tick));
        if let Some((tick, _)) = free.into_iter().next() {
            return *tick;
        }
        loop {
            let tick = self.draw(rng);
            if tick.0 >= earliest {
                return tick;
            }
        }
    }

    pub(crate) fn put(&mut self, tick: Tick, sealed: Sealed) {
        self.packets += 1;
        self.octets += sealed.packet.octets().len();
        self.ticks.insert(tick, Some(sealed));
    }

    /// When the next packet leaves.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.ticks.iter().find(|(_, packet)| packet.is_some()).map(|((at, _), _)| *at)
    }

    /// The next packet whose tick has come.
    pub(crate) fn next_due(&mut self, now: Time) -> Option<Sealed> {
        self.drawn_to = self.drawn_to.max(now);
        while let Some(first) = self.ticks.first_entry() {
            if first.key().0 > now {
                return None;
            }
            if let Some(sealed) = first.remove() {
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
        let tick = (self.drawn_to, self.serial);
        self.ticks.insert(tick, None);
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
        for _ in 0..2000 {
            let tick = outbox.free_tick(start, &[], &mut rng);
            let octets = vec![0; SizeClass::SMALLEST.packet_len()];
            let packet = Packet::from_octets(octets).unwrap();
            outbox.put(tick, Sealed { first: NodeId::from_bytes([0; 32]), packet, until: tick.0 });
            assert!(taken.last() < Some(&tick));
            taken.push(tick);
        }
        // Kolmogorov-Smirnov against the exponential distribution; 1.95 / sqrt(n) is the 0.1 % level.
        let mut gaps: Vec<f64> = std::iter::once(start)
            .chain(taken.iter().map(|(at, _)| *at))
            .zip(taken.iter())
            .map(|(before, (at, _))| at.since(before).as_secs_f64())
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
}

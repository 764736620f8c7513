//! Packets held until their time, and the windows in which they are shuffled.

use core::time::Duration;
use std::collections::BTreeMap;

use keys::{NodeId, Time};
use rand::{CryptoRng, RngExt as _};

use crate::discipline::{Continuous, Discipline, Windows};
use crate::gather::Gathering;
use crate::rounds::{BinomialPool, LockStep};
use crate::shares::{NoRoom, Shares};
use crate::{Release, Strategy, Times};

/// Octets held, at most, from all previous hops and from one. Who fills the pool first must not
/// decide who is dropped: above the first bound the newest packet goes of the previous hop that has
/// most in it.
pub(crate) const MAX_OCTETS: usize = 256 << 20;
pub(crate) const MAX_SHARE: usize = MAX_OCTETS / 8;

pub(crate) struct Pool {
    /// When what is due leaves.
    discipline: Box<dyn Discipline>,
    /// Nothing is decided before.
    kept_until: Option<Time>,
    /// Octets from each previous hop; what waits for its tag counts.
    shares: Shares<NodeId>,
    /// Packets that have gone for those of other hops, until [`Pool::take_displaced`].
    displaced: usize,
    serial: u64,
    /// Waiting out their delay, by when they fall due.
    waiting: BTreeMap<(Time, u64), Held>,
    /// Shuffled, by when they leave.
    leaving: BTreeMap<(Time, u64), Held>,
}

/// A packet, and the previous hop that it came from.
pub(crate) struct Held {
    pub(crate) release: Release,
    pub(crate) from: NodeId,
}

impl Pool {
    pub(crate) fn new(times: &Times, now: Time, rng: &mut impl CryptoRng) -> Self {
        let window = times.window.max(Duration::from_millis(1));
        let phase = now.plus(window.mul_f64(rng.random::<f64>()));
        let windows = Windows { window, phase };
        let discipline: Box<dyn Discipline> = match times.strategy {
            Strategy::Windows => Box::new(Gathering::new(windows, times.floor)),
            Strategy::Continuous => Box::new(Continuous),
            Strategy::BinomialPool => Box::new(BinomialPool::new(windows, times.floor)),
            Strategy::LockStep => {
                let phase = Time::from_millis(0);
                Box::new(LockStep::new(Windows { window, phase }, now))
            }
        };
        Self {
            discipline,
            kept_until: None,
            shares: Shares::new(MAX_OCTETS, MAX_SHARE),
            displaced: 0,
            serial: 0,
            waiting: BTreeMap::new(),
            leaving: BTreeMap::new(),
        }
    }

    /// Keeps what has not been shuffled until then, and to the end of that window.
    pub(crate) fn keep_until(&mut self, until: Time) {
        if !self.discipline.keeps_until(until) {
            let windows = self.discipline.windows();
            self.kept_until = Some(windows.map_or(until, |windows| windows.end_of(until)));
        }
    }

    /// When what is due leaves.
    pub(crate) fn discipline(&mut self) -> &mut dyn Discipline {
        &mut *self.discipline
    }

    /// The end of any one window, if there are windows.
    pub(crate) fn phase(&self) -> Option<Time> {
        self.discipline.windows().map(|windows| windows.phase)
    }

    /// Whether this node's own packets leave with those of others.
    pub(crate) fn takes_own(&self) -> bool {
        self.discipline.takes_own()
    }

    /// Reserves room for a packet of this many octets from a previous hop, for which the newest
    /// packets that have not been shuffled may have to go of hops that have more.
    pub(crate) fn reserve(&mut self, from: NodeId, octets: usize) -> Result<(), NoRoom> {
        let Self { waiting, displaced, discipline, shares, .. } = self;
        shares.take(from, octets, |hop| {
            let theirs = waiting.iter().filter(|(_, held)| held.from == *hop);
            let newest = theirs.map(|(place, _)| *place).max_by_key(|(_, serial)| *serial);
            let held = match newest {
                Some(newest) => waiting.remove(&newest),
                None => discipline.give_up(hop),
            };
            *displaced += usize::from(held.is_some());
            held.map(|held| held.release.octets())
        })
    }

    /// Gives back room that was reserved.
    pub(crate) fn give_back(&mut self, from: &NodeId, octets: usize) {
        self.shares.give_back(from, octets);
    }

    /// How many packets have gone for those of other hops, each told once.
    pub(crate) fn take_displaced(&mut self) -> usize {
        core::mem::take(&mut self.displaced)
    }

    /// Holds a packet for which room was reserved.
    pub(crate) fn hold(&mut self, held: Held, due: Time) {
        self.serial += 1;
        self.waiting.insert((due, self.serial), held);
    }

    /// Moves all times, the phase included.
    pub(crate) fn shift(&mut self, millis: i64) {
        self.discipline.shift(millis);
        self.kept_until = self.kept_until.map(|until| until.shifted(millis));
        for held in [&mut self.waiting, &mut self.leaving] {
            let before = core::mem::take(held).into_iter();
            *held =
                before.map(|((at, serial), held)| ((at.shifted(millis), serial), held)).collect();
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let leaves = self.leaving.keys().next().map(|(at, _)| *at);
        [self.next_look(), leaves].into_iter().flatten().min()
    }

    fn next_look(&self) -> Option<Time> {
        let next = self.discipline.next_look(self.waiting.keys().next().map(|(due, _)| *due))?;
        // What falls due meanwhile is shuffled together.
        Some(self.kept_until.map_or(next, |until| next.max(until)))
    }

    /// Takes one look after the other, so that what fell due in different windows is never shuffled
    /// together, however late this is called.
    pub(crate) fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        while let Some(at) = self.next_look().filter(|at| *at <= now) {
            let after = self.waiting.split_off(&(at.plus(Duration::from_millis(1)), 0));
            let due = core::mem::replace(&mut self.waiting, after).into_values().collect();
            for (leaves, held) in self.discipline.decide(due, at, at.max(now), rng) {
                self.serial += 1;
                self.leaving.insert((leaves, self.serial), held);
            }
        }
    }

    pub(crate) fn next_release(&mut self, now: Time) -> Option<Release> {
        let first = self.leaving.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let held = first.remove();
        self.give_back(&held.from, held.release.octets());
        Some(held.release)
    }

    /// Packets that are shuffled and have not left.
    #[cfg(test)]
    pub(crate) fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// Octets for which room is taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.shares.taken()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.discipline.kept_back() + self.leaving.len()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use sphinx::{Packet, SizeClass};

    use super::*;
    use crate::{Floor, TopUp};

    const WINDOW: Duration = Duration::from_secs(30);
    /// A packet may leave alone.
    const ALONE: Floor = Floor { packets: 1, windows: 2, budget: 10 };

    fn pool_of(floor: Floor, now: Time, rng: &mut ChaCha20Rng) -> Pool {
        let max_delay = WINDOW * 20;
        Pool::new(
            &Times { window: WINDOW, max_delay, floor, strategy: Strategy::Windows },
            now,
            rng,
        )
    }

    fn end_of_window(pool: &Pool, at: Time) -> Time {
        Windows { window: WINDOW, phase: pool.phase().unwrap() }.end_of(at)
    }

    fn numbered(number: u16) -> Release {
        let [high, low] = number.to_be_bytes();
        let mut id = [0; 32];
        id[..2].copy_from_slice(&[high, low]);
        let octets = vec![0; SizeClass::SMALLEST.packet_len()];
        Release::Forward {
            to: NodeId::from_bytes(id),
            packet: Packet::from_octets(octets).unwrap(),
        }
    }

    fn hop(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    /// Holds a packet of previous hop 1.
    fn hold(pool: &mut Pool, release: Release, due: Time) {
        assert_eq!(pool.reserve(hop(1), release.octets()), Ok(()));
        pool.hold(Held { release, from: hop(1) }, due);
    }

    fn number(release: &Release) -> u16 {
        match release {
            Release::Forward { to, .. } => u16::from_be_bytes([to.as_bytes()[0], to.as_bytes()[1]]),
            Release::End { .. } | Release::Reply { .. } | Release::Stream { .. } => {
                panic!("none was held")
            }
        }
    }

    /// Runs the pool dry and returns which packet left when.
    fn run(pool: &mut Pool, rng: &mut ChaCha20Rng) -> Vec<(Time, u16)> {
        let mut left = Vec::new();
        while let Some(now) = pool.poll_timeout() {
            pool.handle_timeout(now, rng);
            while let Some(release) = pool.next_release(now) {
                left.push((now, number(&release)));
            }
        }
        left
    }

    #[test]
    fn a_packet_leaves_in_the_window_after_the_one_it_falls_due_in() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let start = Time::from_millis(1_000_000);
        let mut pool = pool_of(ALONE, start, &mut rng);
        for number in 0..500 {
            let due = start.plus(Duration::from_millis(u64::from(number) * 731));
            hold(&mut pool, numbered(number), due);
        }
        let left = run(&mut pool, &mut rng);
        assert_eq!(left.len(), 500);
        for (at, number) in left {
            let due = start.plus(Duration::from_millis(u64::from(number) * 731));
            let end = end_of_window(&pool, due);
            assert!(end.since(due) < WINDOW);
            assert!(at >= end && at <= end.plus(WINDOW), "{number} left at {at:?}");
        }
        assert_eq!((pool.len(), pool.shares.taken()), (0, 0));
    }

    #[test]
    fn the_order_inside_a_window_is_a_random_permutation() {
        // Four packets, 2,400 windows: each of 24 orders is expected 100 times. 23 degrees of
        // freedom: 99.9 % of uniform samples lie below 49.7.
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let mut counts = BTreeMap::new();
        for _ in 0..2400 {
            let now = Time::from_millis(5_000_000);
            let mut pool = pool_of(ALONE, now, &mut rng);
            for number in 0..4 {
                hold(&mut pool, numbered(number), now);
            }
            let order: Vec<_> = run(&mut pool, &mut rng).into_iter().map(|(_, n)| n).collect();
            *counts.entry(order).or_insert(0.0_f64) += 1.0;
        }
        assert_eq!(counts.len(), 24);
        let chi_square: f64 = counts.values().map(|n| (n - 100.0).powi(2) / 100.0).sum();
        assert!(chi_square < 49.7, "{chi_square}");
    }

    /// Three packets of one previous hop and three of another, which came one after the other or in turn:
    /// each of the 20 patterns in which they can leave is as frequent.
    #[test]
    fn how_packets_came_together_does_not_show_in_how_they_leave() {
        for (seed, came) in [(11, [1, 1, 1, 2, 2, 2]), (12, [1, 2, 1, 2, 1, 2])] {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let mut counts = BTreeMap::new();
            for _ in 0..2000 {
                let now = Time::from_millis(5_000_000);
                let mut pool = pool_of(ALONE, now, &mut rng);
                for (at, from) in came.into_iter().enumerate() {
                    let due = now.plus(Duration::from_millis(u64::try_from(at).unwrap()));
                    let release = numbered(from);
                    assert_eq!(pool.reserve(hop(u8::try_from(from).unwrap()), 16_384), Ok(()));
                    pool.hold(Held { release, from: hop(u8::try_from(from).unwrap()) }, due);
                }
                let left: Vec<_> = run(&mut pool, &mut rng).into_iter().map(|(_, n)| n).collect();
                *counts.entry(left).or_insert(0.0_f64) += 1.0;
            }
            assert_eq!(counts.len(), 20);
            // 19 degrees of freedom: 99.9 % of uniform samples lie below 43.8.
            let chi_square: f64 = counts.values().map(|n| (n - 100.0).powi(2) / 100.0).sum();
            assert!(chi_square < 43.8, "{chi_square}");
        }
    }

    #[test]
    fn the_times_in_a_window_are_uniform_whatever_the_size_of_the_batch() {
        for (seed, size) in [(6, 1_u16), (7, 4), (8, 100)] {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let mut into = Vec::new();
            while into.len() < 4000 {
                let now = Time::from_millis(5_000_000);
                let mut pool = pool_of(ALONE, now, &mut rng);
                for number in 0..size {
                    hold(&mut pool, numbered(number), now);
                }
                let end = end_of_window(&pool, now);
                let left = run(&mut pool, &mut rng);
                assert!(left.is_sorted_by_key(|(at, _)| *at));
                into.extend(left.iter().map(|(at, _)| at.since(end).as_secs_f64() / 30.0));
            }
            into.sort_by(f64::total_cmp);
            let count = f64::from(u32::try_from(into.len()).unwrap());
            let below = (0_u32..).map(|rank| f64::from(rank) / count);
            let distance = into
                .iter()
                .zip(below)
                .map(|(at, below)| (at - below).abs().max((at - below - 1.0 / count).abs()))
                .fold(0.0, f64::max);
            // Kolmogorov-Smirnov: 99.9 % of uniform samples lie below 1.95 / sqrt(n).
            assert!(distance < 1.95 / count.sqrt(), "batches of {size}: {distance}");
        }
    }

    #[test]
    fn nothing_leaves_before_its_time_and_windows_end_at_the_phase() {
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        let start = Time::from_millis(3_000_000);
        let mut pool = pool_of(ALONE, start, &mut rng);
        let phase = pool.phase().unwrap();
        assert_eq!(end_of_window(&pool, phase), phase);
        assert_eq!(end_of_window(&pool, phase.plus(WINDOW * 7)), phase.plus(WINDOW * 7));
        hold(&mut pool, numbered(1), start);
        pool.handle_timeout(end_of_window(&pool, start), &mut rng);
        let at = pool.poll_timeout().unwrap();
        assert!(pool.next_release(at.minus(Duration::from_millis(1))).is_none());
        assert!(pool.next_release(at).is_some());
    }

    #[test]
    fn the_window_does_not_follow_arrivals() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let start = Time::from_millis(9_000_000);
        let pool = pool_of(ALONE, start, &mut rng);
        let ends: std::collections::BTreeSet<_> = (0..1000)
            .map(|step| end_of_window(&pool, start.plus(Duration::from_millis(step * 137))))
            .collect();
        let ends: Vec<_> = ends.into_iter().collect();
        for pair in ends.windows(2) {
            assert_eq!(pair[1].since(pair[0]), WINDOW);
        }
    }

    #[test]
    fn nothing_is_collected_before_its_window_ends_and_all_of_it_when_that_is_noticed_late() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let start = Time::from_millis(7_000_000);
        let mut pool = pool_of(ALONE, start, &mut rng);
        let len = SizeClass::SMALLEST.packet_len();
        for number in 0..3 {
            hold(&mut pool, numbered(number), start);
            assert_eq!(pool.shares.taken(), usize::from(number + 1) * len);
        }
        let end = end_of_window(&pool, start);
        pool.handle_timeout(end.minus(Duration::from_millis(1)), &mut rng);
        assert_eq!((pool.waiting.len(), pool.leaving.len()), (3, 0));
        let late = end.plus(WINDOW * 5);
        pool.handle_timeout(late, &mut rng);
        assert_eq!((pool.waiting.len(), pool.leaving.len()), (0, 3));
        assert!(pool.poll_timeout().is_some_and(|at| at >= late), "they leave after that");
        assert!(pool.next_release(late.plus(WINDOW)).is_some());
        assert_eq!((pool.len(), pool.shares.taken()), (2, 2 * len));
    }

    #[test]
    fn whoever_fills_the_pool_first_does_not_decide_who_is_dropped() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let now = Time::from_millis(0);
        let mut pool = pool_of(ALONE, now, &mut rng);
        let octets = SizeClass::LARGEST.packet_len();
        let packet = |number| {
            let packet = Packet::from_octets(vec![0; octets]).unwrap();
            Release::Forward { to: hop(number), packet }
        };
        // Eight hops of one adversary take what each may have. What one of them sent leaves within
        // a window, and is not dropped any more.
        let each = u8::try_from(MAX_SHARE / octets).unwrap();
        for flooder in 1..=8 {
            for number in 0..each {
                assert_eq!(pool.reserve(hop(flooder), octets), Ok(()));
                pool.hold(Held { release: packet(number), from: hop(flooder) }, now);
            }
            assert_eq!(pool.reserve(hop(flooder), octets), Err(NoRoom));
            if flooder == 1 {
                pool.handle_timeout(end_of_window(&pool, now), &mut rng);
            }
        }
        assert_eq!(pool.shares.taken(), MAX_OCTETS);
        for number in 0..each / 2 {
            assert_eq!(pool.reserve(hop(100), octets), Ok(()), "{number}");
            pool.hold(Held { release: packet(number), from: hop(100) }, now);
            assert_eq!(pool.take_displaced(), 1);
        }
        assert_eq!(pool.shares.taken(), MAX_OCTETS);
        let rest: Vec<_> = (1..=8).map(|flooder| pool.shares.of(&hop(flooder))).collect();
        assert_eq!(rest[0], MAX_SHARE, "nothing of it can be dropped");
        let (least, most) = (rest[1..].iter().min().unwrap(), rest[1..].iter().max().unwrap());
        assert!(most - least <= octets, "each of the others lost as much: {rest:?}");
        for flooder in 2..=8 {
            let theirs = pool.waiting.values().filter(|held| held.from == hop(flooder));
            let numbers: Vec<_> =
                theirs.map(|held| number(&held.release).to_be_bytes()[0]).collect();
            let stays = u8::try_from(numbers.len()).unwrap();
            assert_eq!(numbers, (0..stays).collect::<Vec<_>>(), "the newest went");
        }
    }

    /// A packet of a class that goes to a node of this number.
    fn of_class(class: u8, number: u8) -> Release {
        let class = SizeClass::from_number(class).unwrap();
        let packet = Packet::from_octets(vec![0; class.packet_len()]).unwrap();
        Release::Forward { to: hop(number), packet }
    }

    /// When each packet that is held leaves, and how many loops were ordered for it.
    fn leave(pool: &mut Pool, rng: &mut ChaCha20Rng) -> (Vec<(Time, u8)>, Vec<TopUp>, usize) {
        let left = run(pool, rng).into_iter().map(|(at, to)| (at, to.to_be_bytes()[0])).collect();
        let orders = pool.discipline.take_orders();
        (left, orders.top_ups, orders.lonely)
    }

    #[test]
    fn too_few_of_a_class_wait_for_two_windows_and_then_leave_among_loops_or_counted() {
        const FLOOR: Floor = Floor { packets: 3, windows: 2, budget: 10 };
        let start = Time::from_millis(1_000_000);
        for (received, loops, lonely) in [(0, 0, 1), (9, 0, 1), (19, 1, 1), (20, 2, 0), (999, 2, 0)]
        {
            let mut rng = ChaCha20Rng::seed_from_u64(received);
            let mut pool = pool_of(FLOOR, start, &mut rng);
            for _ in 0..received {
                pool.discipline.note_received(SizeClass::SMALLEST.packet_len());
            }
            hold(&mut pool, of_class(0, 1), start);
            // Another class does not help.
            for number in 2..5 {
                hold(&mut pool, of_class(4, number), start);
            }
            let end = end_of_window(&pool, start);
            let (left, ordered, alone) = leave(&mut pool, &mut rng);
            let at = |to: u8| left.iter().find(|(_, number)| *number == to).unwrap().0;
            for number in 2..5 {
                assert!(at(number) >= end && at(number) <= end.plus(WINDOW));
            }
            let last = end.plus(WINDOW * 2);
            assert!(at(1) >= last && at(1) <= last.plus(WINDOW), "{:?}", at(1).since(end));
            assert_eq!((ordered.len(), alone), (loops, lonely), "{received}");
            let smallest = SizeClass::SMALLEST;
            let in_time = |at: Time| at >= last && at <= last.plus(WINDOW);
            assert!(ordered.iter().all(|one| one.class == smallest && in_time(one.at)));
            assert_eq!((pool.len(), pool.shares.taken()), (0, 0));
        }
    }

    #[test]
    fn what_waits_leaves_as_soon_as_there_are_enough_and_not_later() {
        const FLOOR: Floor = Floor { packets: 2, windows: 2, budget: 10 };
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let start = Time::from_millis(1_000_000);
        let mut pool = pool_of(FLOOR, start, &mut rng);
        let end = end_of_window(&pool, start);
        hold(&mut pool, of_class(0, 1), start);
        hold(&mut pool, of_class(0, 2), end.plus(WINDOW));
        // The end of a route is no packet on a link.
        let payload = || sphinx::Payload::from_octets(vec![0; SizeClass::SMALLEST.payload_len()]);
        let release = Release::End { kind: sphinx::Kind::Deliver, payload: payload().unwrap() };
        hold(&mut pool, release, start);
        pool.handle_timeout(end, &mut rng);
        assert_eq!((pool.discipline.kept_back(), pool.leaving()), (1, 1));
        assert!(matches!(pool.next_release(end.plus(WINDOW)), Some(Release::End { .. })));
        let (left, ordered, alone) = leave(&mut pool, &mut rng);
        assert_eq!((left.len(), ordered.len(), alone), (2, 0, 0));
        let together = end.plus(WINDOW);
        assert!(left.iter().all(|(at, _)| *at >= together && *at <= together.plus(WINDOW)));
    }
}

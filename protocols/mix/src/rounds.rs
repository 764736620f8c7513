//! Two strategies that keep packets back for rounds: the binomial pool, and rounds in lock-step.

use std::collections::BTreeMap;

use keys::{NodeId, Time};
use rand::{CryptoRng, RngExt as _};
use sphinx::SizeClass;

use crate::discipline::{Discipline, Orders, Windows, sort};
use crate::pool::Held;
use crate::{Floor, TopUp};

/// The largest share of a pool that leaves in one round (Mixminion has 0.6).
const MOST: f64 = 0.65;
/// Times as many rounds as a floor waits after which a packet leaves a pool whatever the coin says: keys do
/// not wait.
const LONGEST: u8 = 4;

/// A pool for each size class, of which every packet leaves with the same chance in each round, the greater
/// the more there are, up to [`MOST`]: on average one less than the floor stay (Serjantov, Dingledine and
/// Syverson, "From a Trickle to a Flood", 2002; Díaz and Serjantov, "Generalising Mixes", 2003).
pub(crate) struct BinomialPool {
    windows: Windows,
    floor: Floor,
    /// Packets with the rounds that they have stayed.
    pools: BTreeMap<SizeClass, Vec<(u8, Held)>>,
    lonely: usize,
    /// When the next round ends, while packets are kept back.
    until: Option<Time>,
}

impl BinomialPool {
    pub(crate) fn new(windows: Windows, floor: Floor) -> Self {
        Self { windows, floor, pools: BTreeMap::new(), lonely: 0, until: None }
    }
}

impl Discipline for BinomialPool {
    fn next_look(&self, first: Option<Time>) -> Option<Time> {
        [first.map(|first| self.windows.end_of(first)), self.until].into_iter().flatten().min()
    }

    fn decide(
        &mut self,
        due: Vec<Held>,
        at: Time,
        now: Time,
        rng: &mut dyn CryptoRng,
    ) -> Vec<(Time, Held)> {
        let (forward, mut leaving) = sort(due);
        for (class, held) in forward {
            self.pools.entry(class).or_default().push((0, held));
        }
        let longest = self.floor.windows.saturating_mul(LONGEST).max(1);
        for pool in self.pools.values_mut() {
            let stay = f64::from(self.floor.packets.saturating_sub(1)) / pool.len().max(1) as f64;
            let chance = (1.0 - stay).clamp(0.0, MOST);
            let leaves =
                |(rounds, _): &mut (u8, Held)| *rounds >= longest || rng.random_bool(chance);
            let go: Vec<_> = pool.extract_if(.., leaves).map(|(_, held)| held).collect();
            // One that leaves while others stay is among these all the same.
            self.lonely += usize::from(go.len() == 1 && pool.is_empty() && self.floor.packets > 1);
            pool.iter_mut().for_each(|(rounds, _)| *rounds += 1);
            leaving.extend(go);
        }
        self.pools.retain(|_, pool| !pool.is_empty());
        self.until = (!self.pools.is_empty()).then(|| at.plus(self.windows.window));
        self.windows.spread(leaving, now, rng)
    }

    fn take_orders(&mut self) -> Orders {
        Orders { top_ups: Vec::new(), lonely: core::mem::take(&mut self.lonely) }
    }

    fn kept_back(&self) -> usize {
        self.pools.values().map(Vec::len).sum()
    }

    fn give_up(&mut self, hop: &NodeId) -> Option<Held> {
        self.pools.values_mut().find_map(|pool| {
            let newest = pool.iter().rposition(|(_, held)| held.from == *hop)?;
            Some(pool.remove(newest).1)
        })
    }

    fn shift(&mut self, millis: i64) {
        self.windows.phase = self.windows.phase.shifted(millis);
        self.until = self.until.map(|until| until.shifted(millis));
    }

    fn windows(&self) -> Option<Windows> {
        Some(self.windows)
    }
}

/// Rounds that begin everywhere at the same time, in each of which a node sends as many packets of each
/// class as in every other: previous hops take turns at a round, what is too much waits for the next, and
/// dummies of the node's own make up for what is missing. The clock alone ends a round, so that a node that
/// is missing delays nobody. This node's own packets are among the rest.
pub(crate) struct LockStep {
    windows: Windows,
    /// Packets of each class in a round; none for a class whose packets leave as they come.
    each: [u16; SizeClass::COUNT],
    /// In the order in which they came.
    queues: BTreeMap<SizeClass, Vec<Held>>,
    top_ups: Vec<TopUp>,
    /// When the present round ends.
    until: Time,
    /// Rounds before that are of dummies alone.
    kept_until: Option<Time>,
}

impl LockStep {
    /// In rounds of this length, with none of a class until [`Discipline::set_rounds`].
    pub(crate) fn new(windows: Windows, now: Time) -> Self {
        let (queues, top_ups) = (BTreeMap::new(), Vec::new());
        let until = windows.end_of(now);
        Self { windows, each: [0; SizeClass::COUNT], queues, top_ups, until, kept_until: None }
    }
}

impl Discipline for LockStep {
    /// Rounds end whether or not anything waits.
    fn next_look(&self, _first: Option<Time>) -> Option<Time> {
        Some(self.until)
    }

    fn decide(
        &mut self,
        due: Vec<Held>,
        at: Time,
        now: Time,
        rng: &mut dyn CryptoRng,
    ) -> Vec<(Time, Held)> {
        let (forward, mut leaving) = sort(due);
        for (class, held) in forward {
            self.queues.entry(class).or_default().push(held);
        }
        let is_kept = self.kept_until.is_some_and(|until| at < until);
        // What a machine has slept through is no round.
        let is_in_time = now.since(at) < self.windows.window;
        for (class, each) in SizeClass::all().zip(self.each.map(usize::from)) {
            let queue = self.queues.remove(&class).unwrap_or_default();
            let room = match each {
                _ if is_kept => 0,
                0 => usize::MAX,
                each => each,
            };
            let (round, rest) = in_turn(queue, room);
            if is_in_time {
                let missing = round.len()..each;
                let dummy = |_| TopUp { class, at: self.windows.within(now, rng) };
                self.top_ups.extend(missing.map(dummy));
            }
            leaving.extend(round);
            if !rest.is_empty() {
                self.queues.insert(class, rest);
            }
        }
        self.until = self.windows.end_of(now.plus(core::time::Duration::from_millis(1)));
        self.windows.spread(leaving, now, rng)
    }

    fn take_orders(&mut self) -> Orders {
        Orders { top_ups: core::mem::take(&mut self.top_ups), lonely: 0 }
    }

    fn kept_back(&self) -> usize {
        self.queues.values().map(Vec::len).sum()
    }

    fn give_up(&mut self, hop: &NodeId) -> Option<Held> {
        self.queues.values_mut().find_map(|queue| {
            let newest = queue.iter().rposition(|held| held.from == *hop)?;
            Some(queue.remove(newest))
        })
    }

    fn keeps_until(&mut self, until: Time) -> bool {
        self.kept_until = Some(until);
        true
    }

    fn set_rounds(&mut self, each: [u16; SizeClass::COUNT]) {
        self.each = each;
    }

    /// Rounds keep to the clock, which has jumped.
    fn shift(&mut self, millis: i64) {
        self.until = self.windows.end_of(self.until.shifted(millis));
        self.kept_until = self.kept_until.map(|until| until.shifted(millis));
    }

    fn windows(&self) -> Option<Windows> {
        Some(self.windows)
    }

    fn takes_own(&self) -> bool {
        true
    }
}

/// As many as there is room for, one of each previous hop after the other, and the rest; each in the order
/// in which it came. Who sends most must not keep the others waiting.
fn in_turn(queue: Vec<Held>, room: usize) -> (Vec<Held>, Vec<Held>) {
    if queue.len() <= room {
        return (queue, Vec::new());
    }
    let mut of_hop: BTreeMap<NodeId, usize> = BTreeMap::new();
    let turns = queue.iter().map(|held| {
        let turn = of_hop.entry(held.from).or_default();
        *turn += 1;
        *turn
    });
    let turns: Vec<_> = turns.collect();
    let mut order: Vec<_> = turns.iter().copied().zip(0_usize..).collect();
    order.sort_unstable();
    let last = order.get(room).copied().unwrap_or((usize::MAX, 0));
    let (mut round, mut rest) = (Vec::new(), Vec::new());
    for ((turn, place), held) in turns.into_iter().zip(0_usize..).zip(queue) {
        if (turn, place) < last { round.push(held) } else { rest.push(held) }
    }
    (round, rest)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use keys::NodeId;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use sphinx::Packet;

    use super::*;
    use crate::Release;

    const WINDOW: Duration = Duration::from_secs(30);

    fn held(class: SizeClass, number: u8) -> Held {
        let packet = Packet::from_octets(vec![0; class.packet_len()]).unwrap();
        let node = NodeId::from_bytes([number; 32]);
        Held { release: Release::Forward { to: node, packet }, from: node }
    }

    fn windows() -> Windows {
        Windows { window: WINDOW, phase: Time::from_millis(0) }
    }

    fn of_class_1(count: u16) -> [u16; SizeClass::COUNT] {
        let mut each = [0; SizeClass::COUNT];
        each[1] = count;
        each
    }

    #[test]
    fn of_a_pool_a_share_leaves_that_follows_its_size_and_nothing_stays_for_ever() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let floor = Floor { packets: 2, windows: 2, budget: 10 };
        let mut pool = BinomialPool::new(windows(), floor);
        let class = SizeClass::SMALLEST;
        let (mut at, mut left) = (Time::from_millis(30_000), 0);
        let due: Vec<_> = (0..200).map(|number| held(class, number)).collect();
        left += pool.decide(due, at, at, &mut rng).len();
        assert!((100..160).contains(&left), "{left}");
        // The last one leaves after its longest time.
        let mut rounds = 0;
        while let Some(look) = pool.next_look(None) {
            at = look;
            left += pool.decide(Vec::new(), at, at, &mut rng).len();
            rounds += 1;
            assert!(rounds <= 2 * LONGEST);
        }
        assert_eq!((left, pool.kept_back()), (200, 0));
    }

    #[test]
    fn in_lock_step_each_round_sends_as_many_whatever_came() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let each = of_class_1(5);
        let mut rounds = LockStep::new(windows(), Time::from_millis(30_000));
        rounds.set_rounds(each);
        let class = SizeClass::from_number(1).unwrap();
        let mut number = 0;
        let mut order = Vec::new();
        for came in [0, 3, 5, 12, 0, 0, 1] {
            let at = rounds.next_look(None).unwrap();
            assert_eq!(at.as_millis() % 30_000, 0, "the same everywhere");
            let due = (0..came).map(|_| {
                number += 1;
                held(class, number)
            });
            let due = due.collect();
            let left = rounds.decide(due, at, at, &mut rng);
            let orders = rounds.take_orders();
            assert_eq!(left.len() + orders.top_ups.len(), 5);
            let times = left.iter().map(|(at, _)| *at).chain(orders.top_ups.iter().map(|o| o.at));
            assert!(times.into_iter().all(|time| time >= at && time <= at.plus(WINDOW)));
            let mut of_round: Vec<_> =
                left.iter().map(|(_, held)| held.from.as_bytes()[0]).collect();
            of_round.sort_unstable();
            order.extend(of_round);
        }
        // Nothing overtakes what came in an earlier round.
        assert!(order.is_sorted() && order.len() == 21, "{order:?}");
        // A machine that slept sends one round, and none for those that it missed.
        let late = rounds.next_look(None).unwrap().plus(WINDOW * 20);
        let at = rounds.next_look(None).unwrap();
        assert!(rounds.decide(Vec::new(), at, late, &mut rng).is_empty());
        assert!(rounds.take_orders().top_ups.is_empty());
        assert!(rounds.next_look(None).unwrap() > late);
    }
    #[test]
    fn a_packet_that_need_not_wait_for_company_leaves_a_pool_soon() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let floor = Floor { packets: 1, windows: 2, budget: 10 };
        let mut waited = 0;
        for number in 0..100 {
            let mut pool = BinomialPool::new(windows(), floor);
            let mut at = Time::from_millis(30_000);
            let mut due = vec![held(SizeClass::SMALLEST, number)];
            while pool.decide(core::mem::take(&mut due), at, at, &mut rng).is_empty() {
                at = pool.next_look(None).unwrap();
                waited += 1;
            }
            assert_eq!(pool.take_orders().lonely, 0);
        }
        assert!(waited < 100, "{waited} rounds of a hundred packets");
    }

    #[test]
    fn who_sends_most_keeps_nobody_waiting_and_gives_up_its_newest() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let mut rounds = LockStep::new(windows(), Time::from_millis(30_000));
        rounds.set_rounds(of_class_1(5));
        let class = SizeClass::from_number(1).unwrap();
        let mut due: Vec<_> = (0..200).map(|_| held(class, 99)).collect();
        due.extend((1..=3).map(|number| held(class, number)));
        let at = rounds.next_look(None).unwrap();
        let left = rounds.decide(due, at, at, &mut rng);
        let mut hops: Vec<_> = left.iter().map(|(_, held)| held.from.as_bytes()[0]).collect();
        hops.sort_unstable();
        assert_eq!(hops, [1, 2, 3, 99, 99]);
        assert_eq!(rounds.kept_back(), 198);
        assert!(rounds.give_up(&NodeId::from_bytes([99; 32])).is_some());
        assert!(rounds.give_up(&NodeId::from_bytes([1; 32])).is_none());
        assert_eq!(rounds.kept_back(), 197);
    }

    #[test]
    fn in_lock_step_what_is_kept_back_leaves_rounds_as_they_were() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut rounds = LockStep::new(windows(), Time::from_millis(30_000));
        rounds.set_rounds(of_class_1(5));
        let class = SizeClass::from_number(1).unwrap();
        let until = rounds.next_look(None).unwrap().plus(WINDOW * 3);
        assert!(rounds.keeps_until(until));
        let mut sent = Vec::new();
        for number in 0..5 {
            let at = rounds.next_look(None).unwrap();
            let left = rounds.decide(vec![held(class, number)], at, at, &mut rng).len();
            let dummies = rounds.take_orders().top_ups.len();
            assert_eq!(left + dummies, 5);
            sent.push(left);
        }
        assert_eq!(sent, [0, 0, 0, 4, 1]);
    }
}

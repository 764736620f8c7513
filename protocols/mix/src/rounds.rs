//! Two strategies that keep packets back for rounds: the binomial pool, and rounds in lock-step.

use std::collections::{BTreeMap, VecDeque};

use keys::Time;
use rand::seq::SliceRandom as _;
use rand::{CryptoRng, RngExt as _};
use sphinx::SizeClass;

use crate::discipline::{Discipline, Orders, Windows};
use crate::pool::Held;
use crate::{Release, TopUp};

/// The largest share of a pool that leaves in one round (Mixminion has 0.6).
const MOST: f64 = 0.65;
/// Rounds after which a packet leaves whatever the coin says: keys do not wait.
const LONGEST: u8 = 16;

fn class_of(held: &Held) -> Option<SizeClass> {
    match &held.release {
        Release::Forward { packet, .. } => Some(packet.class()),
        Release::End { .. } | Release::Reply { .. } | Release::Stream { .. } => None,
    }
}

/// A pool for each size class, of which every packet leaves with the same chance in each round, the greater
/// the more there are: one less a floor's part of all, up to [`MOST`] (Serjantov, Dingledine and Syverson,
/// "From a Trickle to a Flood", 2002; Díaz and Serjantov, "Generalising Mixes", 2003).
pub(crate) struct BinomialPool {
    pub(crate) windows: Windows,
    pub(crate) floor: u8,
    pub(crate) pools: BTreeMap<SizeClass, Vec<(u8, Held)>>,
    pub(crate) lonely: usize,
    /// When the next round ends, while packets are kept back.
    pub(crate) until: Option<Time>,
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
        let mut leaving = Vec::new();
        for held in due {
            match class_of(&held) {
                Some(class) => self.pools.entry(class).or_default().push((0, held)),
                None => leaving.push(held),
            }
        }
        for pool in self.pools.values_mut() {
            let share = 1.0 - f64::from(self.floor) / pool.len().max(1) as f64;
            let chance = share.clamp(0.0, MOST);
            let before = leaving.len();
            let (go, stay): (Vec<_>, Vec<_>) = core::mem::take(pool)
                .into_iter()
                .partition(|(rounds, _)| *rounds >= LONGEST || rng.random_bool(chance));
            leaving.extend(go.into_iter().map(|(_, held)| held));
            pool.extend(stay.into_iter().map(|(rounds, held)| (rounds + 1, held)));
            // One that leaves while others stay is among these all the same.
            if leaving.len() == before + 1 && pool.is_empty() {
                self.lonely += 1;
            }
        }
        self.pools.retain(|_, pool| !pool.is_empty());
        self.until = (!self.pools.is_empty()).then(|| at.plus(self.windows.window));
        leaving.shuffle(rng);
        leaving.into_iter().map(|held| (self.windows.within(now, rng), held)).collect()
    }

    fn take_orders(&mut self) -> Orders {
        Orders { top_ups: Vec::new(), lonely: core::mem::take(&mut self.lonely) }
    }

    fn kept_back(&self) -> usize {
        self.pools.values().map(Vec::len).sum()
    }

    fn shift(&mut self, millis: i64) {
        self.windows.phase = self.windows.phase.shifted(millis);
        self.until = self.until.map(|until| until.shifted(millis));
    }

    fn phase(&self) -> Option<Time> {
        Some(self.windows.phase)
    }
}

/// Rounds that begin everywhere at the same time, in each of which a node sends as many packets of each
/// class as in every other: what is too much waits for the next, in the order in which it came, and dummies
/// of the node's own make up for what is missing. The clock alone ends a round, so that a node that is
/// missing delays nobody. This node's own packets are among the rest.
pub(crate) struct LockStep {
    pub(crate) windows: Windows,
    /// Packets of each class in a round; none for a class whose packets leave as they come.
    pub(crate) each: [u8; SizeClass::COUNT],
    pub(crate) queues: BTreeMap<SizeClass, VecDeque<Held>>,
    pub(crate) top_ups: Vec<TopUp>,
    /// When the present round ends.
    pub(crate) until: Time,
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
        let mut leaving = Vec::new();
        for held in due {
            match class_of(&held) {
                Some(class) => self.queues.entry(class).or_default().push_back(held),
                None => leaving.push(held),
            }
        }
        // What a machine has slept through is no round.
        let is_in_time = now.since(at) < self.windows.window;
        for class in SizeClass::all() {
            let each = self.each.get(usize::from(class.number())).copied().unwrap_or_default();
            let mut queue = self.queues.remove(&class).unwrap_or_default();
            let rest = queue.split_off(queue.len().min(match each {
                0 => usize::MAX,
                each => usize::from(each),
            }));
            if is_in_time {
                for _ in queue.len()..usize::from(each) {
                    self.top_ups.push(TopUp { class, at: self.windows.within(now, rng) });
                }
            }
            leaving.extend(queue);
            if !rest.is_empty() {
                self.queues.insert(class, rest);
            }
        }
        self.until = self.windows.end_of(now.plus(core::time::Duration::from_millis(1)));
        leaving.shuffle(rng);
        leaving.into_iter().map(|held| (self.windows.within(now, rng), held)).collect()
    }

    fn take_orders(&mut self) -> Orders {
        Orders { top_ups: core::mem::take(&mut self.top_ups), lonely: 0 }
    }

    fn kept_back(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }

    /// Rounds keep to the clock, which has jumped.
    fn shift(&mut self, millis: i64) {
        self.until = self.windows.end_of(self.until.shifted(millis));
    }

    fn phase(&self) -> Option<Time> {
        Some(self.windows.phase)
    }

    fn takes_own(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use keys::NodeId;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use sphinx::Packet;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn held(class: SizeClass, number: u8) -> Held {
        let packet = Packet::from_octets(vec![0; class.packet_len()]).unwrap();
        let node = NodeId::from_bytes([number; 32]);
        Held { release: Release::Forward { to: node, packet }, from: node }
    }

    fn windows() -> Windows {
        Windows { window: WINDOW, phase: Time::from_millis(0) }
    }

    #[test]
    fn of_a_pool_a_share_leaves_that_follows_its_size_and_nothing_stays_for_ever() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut pool = BinomialPool {
            windows: windows(),
            floor: 2,
            pools: BTreeMap::new(),
            lonely: 0,
            until: None,
        };
        let class = SizeClass::SMALLEST;
        let (mut at, mut left) = (Time::from_millis(30_000), 0);
        let due: Vec<_> = (0..200).map(|number| held(class, number)).collect();
        left += pool.decide(due, at, at, &mut rng).len();
        assert!((100..160).contains(&left), "{left}");
        // Of two nothing leaves before its longest time.
        while pool.kept_back() > 2 {
            at = pool.next_look(None).unwrap();
            left += pool.decide(Vec::new(), at, at, &mut rng).len();
        }
        let mut rounds = 0;
        while let Some(look) = pool.next_look(None) {
            at = look;
            left += pool.decide(Vec::new(), at, at, &mut rng).len();
            rounds += 1;
            assert!(rounds <= LONGEST + 1);
        }
        assert_eq!((left, pool.kept_back()), (200, 0));
    }

    #[test]
    fn in_lock_step_each_round_sends_as_many_whatever_came() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let mut each = [0; SizeClass::COUNT];
        each[1] = 5;
        let mut rounds = LockStep {
            windows: windows(),
            each,
            queues: BTreeMap::new(),
            top_ups: Vec::new(),
            until: Time::from_millis(30_000),
        };
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
}

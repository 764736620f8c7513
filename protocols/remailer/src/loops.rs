//! What became of this node's own loops, and what that says of the nodes on their ways.
//!
//! A loop that does not come back was lost at one of the nodes on its way, or between two of them, and
//! nobody says where. A node is taken to pass on a share of what comes to it, the same whichever side of
//! it loses the rest, so that what is lost between two nodes is charged to both; the shares are those
//! under which what was seen is likeliest (expectation and maximisation: Dempster, Laird and Rubin, 1977).

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use keys::{NodeId, Schedule, Time};

/// Loops that are remembered with their nodes, at most: in a network of little mail those of eight hours.
const MAX_LOOPS: usize = 1024;
/// Nodes that are remembered, at most.
const MAX_NODES: usize = 2048;
/// Hours for which a loop is remembered with its nodes.
const HOURS: u32 = 2;
/// Parts of an hour in which a loop comes to count half.
const HALF_LIFE: u32 = 2;
/// Days of the history of a node.
pub const DAYS: usize = 12;
/// Rounds in which the shares settle.
const ROUNDS: usize = 20;
/// A node never counts as one that passes on nothing, or it could not be seen to come back.
const LEAST: f64 = 0.001;
/// The first octet of what is kept.
const VERSION: u8 = 2;

/// The nodes on the way of a loop, the one that turns it among them, and when it left.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Walk {
    pub(crate) nodes: Box<[NodeId]>,
    pub(crate) left: Time,
}

/// What became of a loop: how long it took, if it came back.
pub(crate) struct Walked {
    pub(crate) walk: Walk,
    pub(crate) took: Option<Duration>,
}

/// The loops of one day through a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayHealth {
    /// How many.
    pub loops: u32,
    /// How many were lost there, in thousandths of a loop.
    pub lost: u32,
    /// How long a packet took for a hop, on average of the loops that came back.
    pub latency: Option<Duration>,
}

struct Loop {
    at: Time,
    nodes: Box<[NodeId]>,
    came_back: bool,
}

/// What is known of one node.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    /// The share of packets that it passes on.
    passes: f64,
    /// What that rests on.
    counts: Counted,
    /// The part of it that is older than the last start, as it counted then.
    before: Counted,
    /// When a link to it was up again after it had been down.
    up_since: Option<Time>,
    days: VecDeque<Day>,
}

/// Loops through a node, times that their packets came to it, and how many of these were lost there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counted {
    loops: f64,
    seen: f64,
    lost: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Day {
    number: u32,
    loops: u32,
    /// Thousandths of loops.
    lost: u32,
    /// Loops that came back, and milliseconds that these took for a hop, in all.
    back: u32,
    millis: u64,
}

/// The loops that are remembered, and what is known of the nodes on their ways.
pub(crate) struct Loops {
    schedule: Schedule,
    loops: VecDeque<Loop>,
    known: BTreeMap<NodeId, Known>,
    /// When what is known of before was kept.
    kept_at: Time,
}

impl Loops {
    pub(crate) fn new(schedule: Schedule, now: Time) -> Self {
        Self { schedule, loops: VecDeque::new(), known: BTreeMap::new(), kept_at: now }
    }

    /// The clock jumped. Loops count for as long as they would have.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        self.kept_at = self.kept_at.shifted(millis);
        let ups = self.known.values_mut().filter_map(|known| known.up_since.as_mut());
        for at in self.loops.iter_mut().map(|one| &mut one.at).chain(ups) {
            *at = at.shifted(millis);
        }
    }

    /// Notes what became of a loop. What was lost on a way on which a node was down says nothing of the
    /// others.
    pub(crate) fn note(&mut self, walked: Walked, is_down: impl Fn(&NodeId) -> bool, now: Time) {
        let Walked { walk: Walk { nodes, left }, took } = walked;
        let number = day(&self.schedule, now);
        let hops = u64::try_from(nodes.len()).unwrap_or(u64::MAX).max(1);
        let millis = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX) / hops);
        let down = nodes.iter().map(|node| is_down(node) || self.was_down(node, left));
        let down: Vec<_> = down.collect();
        let is_explained = took.is_none() && down.contains(&true);
        let shares: Vec<_> = match is_explained {
            true => down.into_iter().map(|is_down| if is_down { 1.0 } else { 0.0 }).collect(),
            false => {
                let passes: Vec<_> = nodes.iter().map(|node| self.passes(node)).collect();
                blame(passes.into_iter()).collect()
            }
        };
        for node in once(&nodes) {
            let of_node = nodes.iter().zip(&shares).filter(|(other, _)| *other == node);
            let share = of_node.map(|(_, share)| share).sum::<f64>().min(1.0);
            if self.known.len() >= MAX_NODES && !self.known.contains_key(node) {
                self.forget_one();
            }
            let known = self.known.entry(*node).or_insert_with(Known::new);
            let Some(day) = known.day(number) else { continue };
            day.loops = day.loops.saturating_add(1);
            match millis {
                Some(millis) => {
                    day.back = day.back.saturating_add(1);
                    day.millis = day.millis.saturating_add(millis);
                }
                None => day.lost = day.lost.saturating_add((share * 1000.0) as u32),
            }
        }
        if is_explained {
            return;
        }
        if self.loops.len() >= MAX_LOOPS {
            self.loops.pop_front();
        }
        self.loops.push_back(Loop { at: now, nodes, came_back: took.is_some() });
    }

    /// Whether a node was down while a loop was under way that left at this time.
    fn was_down(&self, node: &NodeId, left: Time) -> bool {
        let up = self.known.get(node).and_then(|known| known.up_since);
        up.is_some_and(|up| left < up)
    }

    /// The share of packets that a node passes on.
    fn passes(&self, node: &NodeId) -> f64 {
        self.known.get(node).map_or_else(|| share(&Counted::default()), |known| known.passes)
    }

    /// The node of which least was heard lately makes room for another.
    fn forget_one(&mut self) {
        let last = |known: &Known| known.days.front().map_or((0, 0), |day| (day.number, day.loops));
        let first = self.known.iter().min_by_key(|(_, known)| last(known)).map(|(node, _)| *node);
        if let Some(first) = first {
            self.known.remove(&first);
        }
    }

    /// A node that was down from some time on is up again. What was lost there meanwhile counts for nothing:
    /// a node that ends its links to have its losses forgotten has that once in the time for which they are
    /// remembered.
    pub(crate) fn forgive(&mut self, node: &NodeId, since: Time, now: Time) {
        let memory = self.schedule.hour() * HOURS;
        if let Some(known) = self.known.get_mut(node)
            && known.up_since.is_none_or(|up| now.since(up) >= memory)
        {
            known.up_since = Some(now);
            let counts = |one: &Loop| one.came_back || one.at < since || !one.nodes.contains(node);
            self.loops.retain(counts);
        }
    }

    /// Finds the shares under which what became of the loops is likeliest.
    pub(crate) fn settle(&mut self, now: Time) {
        let oldest = now.minus(self.schedule.hour() * HOURS);
        while self.loops.front().is_some_and(|one| one.at < oldest) {
            self.loops.pop_front();
        }
        let half = (self.schedule.hour() / HALF_LIFE).as_secs_f64().max(1e-3);
        let weight = |at: Time| 0.5_f64.powf(now.since(at).as_secs_f64() / half);
        let of_before = weight(self.kept_at);
        let places: BTreeMap<_, _> = self.known.keys().copied().zip(0_usize..).collect();
        let mut passes: Vec<_> = self.known.values().map(|known| known.passes).collect();
        let base = self.known.values().map(|known| known.before.times(of_before));
        let mut base: Vec<_> = base.collect();
        let mut ways = Vec::with_capacity(self.loops.len());
        for one in &self.loops {
            let place = |node: &NodeId| places.get(node).copied();
            for node in once(&one.nodes) {
                if let Some(counted) = place(node).and_then(|place| base.get_mut(place)) {
                    counted.loops += 1.0;
                }
            }
            let way: Vec<_> = one.nodes.iter().filter_map(place).collect();
            ways.push((way, one.came_back, weight(one.at)));
        }
        let mut counts = base.clone();
        for _ in 0..ROUNDS {
            counts.clone_from(&base);
            for (way, came_back, weight) in &ways {
                let of_way = way.iter().map(|place| passes.get(*place).copied().unwrap_or(1.0));
                let mut beyond = 1.0;
                for (place, blame) in way.iter().zip(blame(of_way)) {
                    let Some(counted) = counts.get_mut(*place) else { continue };
                    counted.seen += weight * beyond;
                    if !came_back {
                        counted.lost += weight * blame;
                        beyond -= blame;
                    }
                }
            }
            passes = counts.iter().map(share).collect();
        }
        for ((known, passes), counts) in self.known.values_mut().zip(passes).zip(counts) {
            (known.passes, known.counts) = (passes, counts);
        }
    }

    /// The share of packets that a node loses, and the loops that this rests on, as it was settled last.
    pub(crate) fn loss(&self, node: &NodeId) -> (f64, u32) {
        let known = self.known.get(node).map(|known| (1.0 - known.passes, known.counts.loops));
        known.map_or((0.0, 0), |(loss, loops)| (loss, loops.round() as u32))
    }

    /// Whether a node loses more than `least` of what comes to it even without the loops on which it stood
    /// beside one of those with which most were lost, `share` percent of its neighbours: what they lose of
    /// its packets is charged to it as well.
    pub(crate) fn loses_beside_most(&self, node: &NodeId, share: usize, least: f64) -> bool {
        let mut stood = Vec::new();
        for one in &self.loops {
            let passes: Vec<_> = one.nodes.iter().map(|node| self.passes(node)).collect();
            let places = one.nodes.iter().zip(blame(passes.into_iter())).enumerate();
            for (place, (_, blame)) in places.filter(|(_, (other, _))| *other == node) {
                let before = place.checked_sub(1).and_then(|place| one.nodes.get(place));
                let beside = [before, one.nodes.get(place + 1)];
                stood.push((beside, if one.came_back { 0.0 } else { blame }));
            }
        }
        let mut lost_with: BTreeMap<NodeId, f64> = BTreeMap::new();
        for (beside, lost) in &stood {
            for other in beside.iter().copied().flatten() {
                *lost_with.entry(*other).or_default() += lost;
            }
        }
        let mut worst: Vec<_> = lost_with.into_iter().map(|(other, lost)| (lost, other)).collect();
        worst.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        worst.truncate((worst.len() * share).div_ceil(100));
        let is_left_out = |beside: &[Option<&NodeId>; 2]| {
            worst.iter().any(|(_, other)| beside.contains(&Some(other)))
        };
        let rest = stood.iter().filter(|(beside, _)| !is_left_out(beside));
        let (seen, lost) = rest.fold((0.0, 0.0), |(seen, lost), (_, of)| (seen + 1.0, lost + of));
        // After a start there are sums alone, until the first loop.
        seen == 0.0 || lost > seen * least
    }

    /// The last days of a node, the latest first.
    pub(crate) fn days(&self, node: &NodeId, now: Time) -> [DayHealth; DAYS] {
        let today = day(&self.schedule, now);
        let mut days = [DayHealth::default(); DAYS];
        for day in self.known.get(node).into_iter().flat_map(|known| &known.days) {
            let ago = today.checked_sub(day.number).and_then(|ago| usize::try_from(ago).ok());
            if let Some(of_day) = ago.and_then(|ago| days.get_mut(ago)) {
                *of_day = day.into();
            }
        }
        days
    }

    // What is kept: sums for each node, and not the ways of loops.

    /// A version octet, the time in Unix milliseconds, and for each node 32 octets of its identity, its loops,
    /// how often their packets came to it and how many were lost there, as floating-point numbers of four
    /// octets, the number of days, and 24 octets for each. Numbers are big-endian.
    pub(crate) fn encode(&self, now: Time) -> Vec<u8> {
        let mut octets = vec![VERSION];
        octets.extend_from_slice(&now.as_millis().to_be_bytes());
        for (node, known) in &self.known {
            let Counted { loops, seen, lost } = known.counts;
            octets.extend_from_slice(node.as_bytes());
            for number in [loops, seen, lost] {
                octets.extend_from_slice(&(number as f32).to_be_bytes());
            }
            octets.push(u8::try_from(known.days.len()).unwrap_or(u8::MAX));
            for day in &known.days {
                for number in [day.number, day.loops, day.lost, day.back] {
                    octets.extend_from_slice(&number.to_be_bytes());
                }
                octets.extend_from_slice(&day.millis.to_be_bytes());
            }
        }
        octets
    }

    /// Goes on with what was kept. What cannot be read counts for nothing.
    pub(crate) fn restore(&mut self, octets: &[u8], now: Time) {
        let Some((at, known)) = decode(octets) else { return };
        // A clock that was wrong makes nothing count for longer.
        self.kept_at = at.min(now);
        let today = day(&self.schedule, now);
        self.known = known;
        for known in self.known.values_mut() {
            known.days.retain(|day| day.number <= today);
        }
    }
}

impl Counted {
    fn times(self, factor: f64) -> Self {
        let Self { loops, seen, lost } = self;
        Self { loops: loops * factor, seen: seen * factor, lost: lost * factor }
    }
}

impl Known {
    fn new() -> Self {
        Self::kept(Counted::default(), VecDeque::new())
    }

    fn kept(before: Counted, days: VecDeque<Day>) -> Self {
        Self { passes: share(&before), counts: before, before, up_since: None, days }
    }

    fn day(&mut self, number: u32) -> Option<&mut Day> {
        let empty = Day { number, loops: 0, lost: 0, back: 0, millis: 0 };
        // A clock that went back goes on with the day that it had.
        if self.days.front().is_none_or(|day| day.number < number) {
            self.days.push_front(empty);
            self.days.truncate(DAYS);
        }
        self.days.front_mut()
    }
}

impl From<&Day> for DayHealth {
    fn from(day: &Day) -> Self {
        let latency = day.millis.checked_div(day.back.into()).map(Duration::from_millis);
        Self { loops: day.loops, lost: day.lost, latency }
    }
}

/// The nodes on a way, each once: way out and way back may cross.
fn once(nodes: &[NodeId]) -> impl Iterator<Item = &NodeId> {
    let is_first =
        move |(place, node): &(usize, &NodeId)| !nodes.iter().take(*place).any(|n| n == *node);
    nodes.iter().enumerate().filter(is_first).map(|(_, node)| node)
}

/// The share of packets that a node passes on. One more counts as passed on, for a single loss proves
/// nothing; and a hundredth of it as lost, for a node that has lost nothing yet could never be charged with
/// a loss.
fn share(counted: &Counted) -> f64 {
    (1.0 - (counted.lost + 0.01) / (counted.seen + 1.0)).max(LEAST)
}

/// The number of a day of 24 hours of the network.
fn day(schedule: &Schedule, now: Time) -> u32 {
    u32::try_from(schedule.hour_at(now).number() / 24).unwrap_or(u32::MAX)
}

/// With what chance each of the nodes on a way is the one at which a packet was lost that was lost.
fn blame(passes: impl Iterator<Item = f64> + Clone) -> impl Iterator<Item = f64> {
    let lost = (1.0 - passes.clone().product::<f64>()).max(f64::MIN_POSITIVE);
    let mut reaches = 1.0;
    passes.map(move |passes| {
        let blame = reaches * (1.0 - passes) / lost;
        reaches *= passes;
        blame
    })
}

fn decode(octets: &[u8]) -> Option<(Time, BTreeMap<NodeId, Known>)> {
    let (version, mut octets) = octets.split_first()?;
    if *version != VERSION {
        return None;
    }
    let at = Time::from_millis(u64::from_be_bytes(take(&mut octets)?));
    let mut all = BTreeMap::new();
    while !octets.is_empty() {
        if all.len() >= MAX_NODES {
            return None;
        }
        let node = NodeId::from_bytes(take(&mut octets)?);
        let numbers = [take(&mut octets)?, take(&mut octets)?, take(&mut octets)?];
        let [loops, seen, lost] = numbers.map(|number| f64::from(f32::from_be_bytes(number)));
        let are_sound = [loops, seen].iter().all(|number| number.is_finite() && *number >= 0.0);
        let [count] = take(&mut octets)?;
        if !are_sound || !(0.0..=seen).contains(&lost) || usize::from(count) > DAYS {
            return None;
        }
        let mut days = VecDeque::new();
        for _ in 0..count {
            let mut number = || take(&mut octets).map(u32::from_be_bytes);
            let (number, loops, lost, back) = (number()?, number()?, number()?, number()?);
            let millis = u64::from_be_bytes(take(&mut octets)?);
            days.push_back(Day { number, loops, lost, back, millis });
        }
        if !days.iter().is_sorted_by(|later, earlier| later.number > earlier.number) {
            return None;
        }
        all.insert(node, Known::kept(Counted { loops, seen, lost }, days));
    }
    Some((at, all))
}

fn take<const LEN: usize>(octets: &mut &[u8]) -> Option<[u8; LEN]> {
    let (taken, rest) = octets.split_first_chunk()?;
    *octets = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use keys::Epoch;
    use proptest::prelude::*;
    use record::Parameters;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn world() -> (Loops, Time) {
        let schedule = Parameters::main().schedule();
        let now = schedule.start(Epoch::new(165_000));
        (Loops::new(schedule, now), now)
    }

    fn walked(nodes: &[u8], now: Time, seconds: Option<u64>) -> Walked {
        let nodes = nodes.iter().map(|number| node(*number)).collect();
        Walked { walk: Walk { nodes, left: now }, took: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn a_node_on_both_ways_of_a_loop_counts_once_and_latency_is_that_of_what_came_back() {
        let (mut loops, now) = world();
        for _ in 0..10 {
            loops.note(walked(&[1, 2, 3, 2, 1], now, Some(100)), |_| false, now);
            loops.note(walked(&[1, 2, 3, 2, 1], now, None), |_| false, now);
        }
        loops.settle(now);
        let [today, ..] = loops.days(&node(2), now);
        assert_eq!(loops.loss(&node(2)).1, 20);
        assert_eq!((today.loops, today.latency), (20, Some(Duration::from_secs(20))));
        let lost: u32 = [1, 2, 3].map(|number| loops.days(&node(number), now)[0].lost).iter().sum();
        assert!((9_900..=10_000).contains(&lost), "each of ten is shared out whole: {lost}");
    }

    #[test]
    fn what_was_lost_while_a_node_was_down_is_its_own() {
        let (mut loops, now) = world();
        for _ in 0..30 {
            loops.note(walked(&[1, 2, 3], now, None), |other| *other == node(2), now);
        }
        loops.settle(now);
        assert_eq!(loops.loss(&node(1)), (1.0 - share(&Counted::default()), 0));
        assert_eq!(loops.days(&node(2), now)[0].lost, 30_000);
        // Loops that left before it was back come to light later.
        let back = now.plus(Duration::from_secs(600));
        loops.forgive(&node(2), now, back);
        let later = back.plus(Duration::from_secs(60));
        for _ in 0..30 {
            loops.note(walked(&[1, 2, 3], now, None), |_| false, later);
        }
        loops.settle(later);
        assert_eq!(loops.loss(&node(2)).1, 0);
        loops.note(walked(&[1, 2, 3], back, None), |_| false, later);
        loops.settle(later);
        assert_eq!(loops.loss(&node(2)).1, 1);
    }

    #[test]
    fn no_more_nodes_are_remembered_than_there_is_room_for() {
        let (mut loops, now) = world();
        for number in 0..u16::try_from(MAX_NODES).unwrap() + 9 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            let walk = Walk { nodes: Box::new([NodeId::from_bytes(id), node(77)]), left: now };
            loops.note(Walked { walk, took: None }, |_| false, now);
        }
        assert_eq!((loops.known.len(), loops.loops.len()), (MAX_NODES, MAX_LOOPS));
        assert!(loops.known.contains_key(&node(77)), "of it most was heard");
        assert_eq!(decode(&loops.encode(now)).unwrap().1.len(), MAX_NODES);
    }

    #[test]
    fn what_cannot_be_read_counts_for_nothing() {
        let (mut loops, now) = world();
        loops.note(walked(&[1, 2, 3], now, Some(9)), |_| false, now);
        let kept = loops.encode(now);
        assert!(decode(&kept).is_some());
        let earlier: Vec<_> = [&[1], &kept[1..]].concat();
        for unreadable in [&[][..], &kept[..kept.len() - 1], &earlier] {
            assert!(decode(unreadable).is_none());
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_read_again(ways: Vec<(Vec<u8>, Option<u16>)>) {
            let (mut loops, now) = world();
            for (way, seconds) in ways {
                loops.note(walked(&way, now, seconds.map(u64::from)), |_| false, now);
            }
            loops.settle(now);
            let (mut again, _) = world();
            again.restore(&loops.encode(now), now);
            prop_assert_eq!(again.known.len(), loops.known.len());
            for (node, known) in &loops.known {
                prop_assert_eq!(&again.known[node].days, &known.days);
                prop_assert!((again.known[node].passes - known.passes).abs() < 1e-3);
            }
        }

        #[test]
        fn what_was_not_kept_by_a_node_is_refused_or_bounded(octets: Vec<u8>, rest: [u8; 65]) {
            for octets in [octets.clone(), [&[VERSION][..], &octets, &rest].concat()] {
                if let Some((_, known)) = decode(&octets) {
                    prop_assert!(known.len() * 45 + 9 <= octets.len());
                    for known in known.values() {
                        prop_assert!((LEAST..=1.0).contains(&known.passes));
                        prop_assert!(known.days.len() <= DAYS);
                    }
                }
            }
        }

        #[test]
        fn blame_is_shared_out_whole(passes in proptest::collection::vec(0.001..0.999_f64, 1..12)) {
            let sum: f64 = blame(passes.into_iter()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9);
        }
    }
}

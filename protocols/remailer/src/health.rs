//! Which nodes lose packets, as this node's own loops and links show.
//!
//! A loop that does not come back was lost at one of the nodes on its way, or between two of them, and
//! nobody says where. A node is taken to pass on a share of what comes to it, the same whichever side of
//! it loses the rest, so that what is lost between two nodes is charged to both; the shares are those
//! under which what was seen is likeliest (expectation and maximisation: Dempster, Laird and Rubin, 1977).
//! A node that drops only what goes to one neighbour makes that neighbour look no worse than itself.
//!
//! Health only excludes, and never ranks: routes that prefer the best nodes are routes that an adversary
//! with good nodes can have. At most a share of the list is excluded. What a node finds is its own, and
//! is told to nobody.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use directory::Route;
use keys::{NodeId, Schedule, Time};
use record::Sending;

use crate::links::Links;

/// Loops that are remembered with their nodes, at most: in a network of little mail those of eight hours.
const MAX_LOOPS: usize = 1024;
/// Nodes that are remembered, at most.
const MAX_NODES: usize = 2048;
/// Hours for which a loop is remembered with its nodes.
const LOOP_HOURS: u32 = 2;
/// Parts of an hour in which a loop comes to count half.
const HALF_LIFE: u32 = 2;
/// Parts of an hour between two looks.
const LOOK: u32 = 60;
/// Parts of an hour after which a node to which there is no link counts as down: 150 s.
const DOWN: u32 = 24;
/// Parts of an hour between two times at which what is known is kept.
const KEEP: u32 = 6;
/// Days of the history of a node.
pub const DAYS: usize = 12;
/// Rounds in which the shares settle.
const ROUNDS: usize = 20;
/// A node never counts as one that passes on nothing, or it could not be seen to come back.
const LEAST: f64 = 0.001;
/// The first octet of what is kept.
const VERSION: u8 = 1;
/// Hops of the shortest route, which exclusion must leave.
const HOPS: usize = Route::MIN;

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

/// Why no route of a node's own goes through another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shunned {
    /// There is no link to it.
    Down,
    /// Its loops are lost.
    Losing,
}

/// What a node knows of the health of another.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerHealth {
    /// The share of packets that it loses, from 0 to 1.
    pub loss: f64,
    /// Loops that this rests on.
    pub loops: u32,
    /// How long a packet takes for a hop, on average of the loops through it.
    pub latency: Option<Duration>,
    /// Why routes avoid it, if they do.
    pub shunned: Option<Shunned>,
    /// Its last days, the latest first; a network whose times are scaled has shorter ones.
    pub days: [DayHealth; DAYS],
}

/// The loops of one day through a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayHealth {
    /// How many.
    pub loops: u32,
    /// How many were lost there, in thousandths of a loop.
    pub lost: u32,
    /// How long a packet took for a hop, on average.
    pub latency: Option<Duration>,
}

struct Loop {
    at: Time,
    nodes: Box<[NodeId]>,
    came_back: bool,
}

/// The loops through each node, its visits, and how many of these were lost there.
type Visits = BTreeMap<NodeId, (u32, [f64; 2])>;

/// What is known of one node.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    /// The share of packets that it passes on.
    passes: f64,
    /// What its share rests on beside the loops that are remembered: loops, visits, and how many of these
    /// were lost there, at the time of the last start.
    before: [f64; 3],
    /// When a link to it was up again after it had been down.
    up_since: Option<Time>,
    days: VecDeque<Day>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Day {
    number: u32,
    loops: u32,
    lost: u32,
    /// Milliseconds that loops which came back took for a hop.
    millis: u64,
}

/// The health of the other nodes.
pub(crate) struct Health {
    pub(crate) links: Links,
    schedule: Schedule,
    /// Loops that a node needs before it may be excluded, the loss above which it is, and the share of the
    /// list that may be.
    rule: (u32, f64, usize),
    loops: VecDeque<Loop>,
    known: BTreeMap<NodeId, Known>,
    /// When what is known of before was kept.
    kept_at: Time,
    /// Since when there is no link to a node to which there should be one.
    away: BTreeMap<NodeId, Time>,
    shunned: BTreeMap<NodeId, Shunned>,
    /// Nodes that would be excluded if all could.
    suspects: usize,
    look_at: Time,
    keep_at: Time,
    /// Whether anything was noted that is not kept.
    is_unkept: bool,
}

impl Health {
    pub(crate) fn new(schedule: Schedule, sending: &Sending, now: Time) -> Self {
        let Sending { health_loops, health_loss, health_share, .. } = *sending;
        let share = usize::from(health_share);
        Self {
            links: Links::default(),
            schedule,
            rule: (health_loops.into(), f64::from(health_loss) / 100.0, share),
            loops: VecDeque::new(),
            known: BTreeMap::new(),
            kept_at: now,
            away: BTreeMap::new(),
            shunned: BTreeMap::new(),
            suspects: 0,
            look_at: now,
            keep_at: now.plus(schedule.hour() / KEEP),
            is_unkept: false,
        }
    }

    /// When it is looked at again.
    pub(crate) fn poll_timeout(&self) -> Time {
        self.look_at
    }

    /// The clock jumped. Loops count for as long as they would have, and links are looked at anew.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        for one in &mut self.loops {
            one.at = one.at.shifted(millis);
        }
        for at in [&mut self.kept_at, &mut self.look_at, &mut self.keep_at] {
            *at = at.shifted(millis);
        }
        let ups = self.known.values_mut().filter_map(|known| known.up_since.as_mut());
        ups.for_each(|up| *up = up.shifted(millis));
        self.away.clear();
    }

    /// Notes what became of a loop.
    pub(crate) fn note(&mut self, Walked { walk, took }: Walked, now: Time) {
        let number = day(&self.schedule, now);
        let hops = u32::try_from(walk.nodes.len()).unwrap_or(u32::MAX).max(1);
        let millis = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        // What a node that is down has lost says nothing of the others.
        let down: Vec<_> = walk.nodes.iter().map(|node| self.was_down(node, walk.left)).collect();
        let is_explained = took.is_none() && down.contains(&true);
        let shares: Vec<_> = match is_explained {
            true => down.into_iter().map(|is_down| if is_down { 1.0 } else { 0.0 }).collect(),
            false => {
                let passes: Vec<_> = walk.nodes.iter().map(|node| self.passes(node)).collect();
                blame(passes.into_iter()).collect()
            }
        };
        for (node, share) in walk.nodes.iter().zip(shares) {
            if self.known.len() >= MAX_NODES && !self.known.contains_key(node) {
                self.forget_one();
            }
            let known = self.known.entry(*node).or_insert_with(Known::new);
            let Some(day) = known.day(number) else { continue };
            day.loops = day.loops.saturating_add(1);
            match millis {
                Some(millis) => day.millis = day.millis.saturating_add(millis / u64::from(hops)),
                None => day.lost = day.lost.saturating_add((share * 1000.0) as u32),
            }
        }
        self.is_unkept = true;
        if is_explained {
            return;
        }
        if self.loops.len() >= MAX_LOOPS {
            self.loops.pop_front();
        }
        self.loops.push_back(Loop { at: now, nodes: walk.nodes, came_back: took.is_some() });
    }

    /// Whether a node is down, or was when a loop was under way that left at this time.
    fn was_down(&self, node: &NodeId, left: Time) -> bool {
        let up = self.known.get(node).and_then(|known| known.up_since);
        self.shunned.get(node) == Some(&Shunned::Down) || up.is_some_and(|up| left < up)
    }

    fn passes(&self, node: &NodeId) -> f64 {
        self.known.get(node).map_or(Known::new().passes, |known| known.passes)
    }

    /// The node of which least was heard lately makes room for another.
    fn forget_one(&mut self) {
        let last = |known: &Known| known.days.front().map_or(0, |day| day.number);
        let first = self.known.iter().min_by_key(|(_, known)| last(known)).map(|(node, _)| *node);
        if let Some(first) = first {
            self.known.remove(&first);
        }
    }

    /// A link to a node is up: it is not down any more. Whether it was taken to be. What was lost while it
    /// was down counts for nothing: a node that ends its links to have its losses forgotten has that once
    /// in the time for which they are remembered.
    pub(crate) fn handle_up(&mut self, node: &NodeId, now: Time) -> bool {
        let since = self.away.remove(node);
        let was_down = self.shunned.get(node) == Some(&Shunned::Down);
        if was_down {
            self.shunned.remove(node);
        }
        let memory = self.schedule.hour() * LOOP_HOURS;
        if let Some(since) = since.filter(|_| was_down)
            && let Some(known) = self.known.get_mut(node)
            && known.up_since.is_none_or(|up| now.since(up) >= memory)
        {
            known.up_since = Some(now);
            let counts = |one: &Loop| one.came_back || one.at < since || !one.nodes.contains(node);
            self.loops.retain(counts);
        }
        was_down
    }

    /// Looks at all `listed` other nodes, to which there should be a link if `wanted`; returns what is to be
    /// kept, if it is time for that.
    pub(crate) fn look(
        &mut self,
        listed: &BTreeSet<NodeId>,
        wanted: &BTreeSet<NodeId>,
        now: Time,
    ) -> Option<Vec<u8>> {
        let linked = self.links.linked();
        self.look_at = now.plus(self.schedule.hour() / LOOK);
        self.away.retain(|node, _| wanted.contains(node) && !linked.contains(node));
        for node in wanted.difference(linked) {
            self.away.entry(*node).or_insert(now);
        }
        let oldest = now.minus(self.schedule.hour() * LOOP_HOURS);
        while self.loops.front().is_some_and(|one| one.at < oldest) {
            self.loops.pop_front();
        }
        let visits = self.settle(now);
        let patience = self.schedule.hour() / DOWN;
        let down = self.away.iter().filter(|(_, since)| now.since(**since) >= patience);
        // Without any link it is this node that is down.
        let is_alone = self.links.linked().is_empty();
        let down = down.map(|(node, _)| *node).filter(|node| !is_alone && listed.contains(node));
        let down: Vec<_> = down.collect();
        let (enough, most, share) = self.rule;
        let losing = listed.iter().filter(|node| {
            visits.get(node).is_some_and(|(loops, _)| *loops >= enough)
                && 1.0 - self.passes(node) > most
                && !down.contains(node)
        });
        let mut losing: Vec<_> = losing.copied().collect();
        losing.sort_by(|one, other| self.passes(one).total_cmp(&self.passes(other)));
        self.suspects = down.len() + losing.len();
        // This node is listed as well.
        let may = ((listed.len() + 1) * share / 100).min(listed.len().saturating_sub(HOPS));
        let all = down.into_iter().map(|node| (node, Shunned::Down));
        let all = all.chain(losing.into_iter().map(|node| (node, Shunned::Losing)));
        self.shunned = all.take(may).collect();
        (self.is_unkept && self.keep_at <= now).then(|| {
            self.is_unkept = false;
            self.keep_at = now.plus(self.schedule.hour() / KEEP);
            self.encode(&visits, now)
        })
    }

    /// Finds the shares under which what became of the loops is likeliest. Returns for each node its loops,
    /// and its visits with what was lost there as they count by now.
    fn settle(&mut self, now: Time) -> Visits {
        let half = (self.schedule.hour() / HALF_LIFE).as_secs_f64().max(1e-3);
        let weight = |at: Time| 0.5_f64.powf(now.since(at).as_secs_f64() / half);
        let of_before = weight(self.kept_at);
        let places: BTreeMap<_, _> = self.known.keys().copied().zip(0_usize..).collect();
        let mut passes: Vec<_> = self.known.values().map(|known| known.passes).collect();
        let before = self.known.values().map(|known| known.before.map(|count| count * of_before));
        let (mut loops, before): (Vec<_>, Vec<_>) =
            before.map(|[loops, seen, lost]| (loops.round() as u32, [seen, lost])).unzip();
        let ways = self.loops.iter().map(|one| {
            let way: Vec<_> =
                one.nodes.iter().filter_map(|node| places.get(node).copied()).collect();
            (way, one.came_back, weight(one.at))
        });
        let ways: Vec<_> = ways.collect();
        for place in ways.iter().flat_map(|(way, ..)| way) {
            if let Some(loops) = loops.get_mut(*place) {
                *loops += 1;
            }
        }
        let mut visits = before.clone();
        for _ in 0..ROUNDS {
            visits.clone_from(&before);
            for (way, came_back, weight) in &ways {
                let of_way = way.iter().map(|place| passes.get(*place).copied().unwrap_or(1.0));
                let mut beyond = 1.0;
                for (place, blame) in way.iter().zip(blame(of_way)) {
                    let Some([seen, lost]) = visits.get_mut(*place) else { continue };
                    *seen += weight * beyond;
                    if !came_back {
                        *lost += weight * blame;
                        beyond -= blame;
                    }
                }
            }
            let shares = visits.iter().map(|[seen, lost]| share(*seen, *lost));
            passes = shares.collect();
        }
        for (known, passes) in self.known.values_mut().zip(passes) {
            known.passes = passes;
        }
        let counted = loops.into_iter().zip(visits);
        self.known.keys().copied().zip(counted).collect()
    }

    /// Why routes avoid nodes.
    pub(crate) fn shunned(&self) -> &BTreeMap<NodeId, Shunned> {
        &self.shunned
    }

    /// How many more nodes would be excluded if they could.
    pub(crate) fn beyond(&self) -> usize {
        self.suspects.saturating_sub(self.shunned.len())
    }

    /// How many would be excluded if all could.
    pub(crate) fn suspects(&self) -> usize {
        self.suspects
    }

    /// What is known of a node.
    pub(crate) fn of(&self, node: &NodeId, now: Time) -> PeerHealth {
        let of_node = |one: &&Loop| one.nodes.contains(node);
        let loops = u32::try_from(self.loops.iter().filter(of_node).count()).unwrap_or(u32::MAX);
        let today = day(&self.schedule, now);
        let known = self.known.get(node);
        let mut days = [DayHealth::default(); DAYS];
        for (ago, of_day) in (0..).zip(&mut days) {
            let number = today.checked_sub(ago);
            let day =
                known.and_then(|known| known.days.iter().find(|day| Some(day.number) == number));
            *of_day = day.map(DayHealth::from).unwrap_or_default();
        }
        PeerHealth {
            loss: 1.0 - known.map_or(1.0, |known| known.passes),
            loops,
            latency: days.iter().find_map(|day| day.latency),
            shunned: self.shunned.get(node).copied(),
            days,
        }
    }

    // What is kept.

    /// A version octet, the time in Unix milliseconds, and for each node 32 octets of its identity, its loops,
    /// its visits and what was lost there as floating-point numbers of four octets, the number of days, and
    /// 20 octets for each. Numbers are big-endian.
    fn encode(&self, visits: &Visits, now: Time) -> Vec<u8> {
        let mut octets = vec![VERSION];
        octets.extend_from_slice(&now.as_millis().to_be_bytes());
        for (node, known) in &self.known {
            let (loops, [seen, lost]) = visits.get(node).copied().unwrap_or_default();
            octets.extend_from_slice(node.as_bytes());
            octets.extend_from_slice(&loops.to_be_bytes());
            octets.extend_from_slice(&(seen as f32).to_be_bytes());
            octets.extend_from_slice(&(lost as f32).to_be_bytes());
            octets.push(u8::try_from(known.days.len()).unwrap_or(u8::MAX));
            for day in &known.days {
                for number in [day.number, day.loops, day.lost] {
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

impl Known {
    fn new() -> Self {
        Self { passes: share(0.0, 0.0), before: [0.0; 3], up_since: None, days: VecDeque::new() }
    }

    fn day(&mut self, number: u32) -> Option<&mut Day> {
        let empty = Day { number, loops: 0, lost: 0, millis: 0 };
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
        let back = u64::from(day.loops).saturating_sub(u64::from(day.lost) / 1000);
        let latency = day.millis.checked_div(back).filter(|_| day.millis > 0);
        Self { loops: day.loops, lost: day.lost, latency: latency.map(Duration::from_millis) }
    }
}

/// The share of packets that a node passes on of which so many were seen to come there, and so many of
/// these to be lost. One more counts as passed on, for a single loss proves nothing; and a hundredth of it
/// as lost, for a node that has lost nothing yet could never be charged with a loss.
fn share(seen: f64, lost: f64) -> f64 {
    (1.0 - (lost + 0.01) / (seen + 1.0)).max(LEAST)
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
        let loops = u32::from_be_bytes(take(&mut octets)?);
        let [seen, lost] = [take(&mut octets)?, take(&mut octets)?].map(f32::from_be_bytes);
        let (seen, lost) = (f64::from(seen), f64::from(lost));
        let is_sound = seen.is_finite() && seen >= 0.0 && (0.0..=seen).contains(&lost);
        let [count] = take::<1>(&mut octets)?;
        if !is_sound || usize::from(count) > DAYS {
            return None;
        }
        let mut days = VecDeque::new();
        for _ in 0..count {
            let [number, loops, lost] =
                [take(&mut octets)?, take(&mut octets)?, take(&mut octets)?]
                    .map(u32::from_be_bytes);
            let millis = u64::from_be_bytes(take(&mut octets)?);
            days.push_back(Day { number, loops, lost, millis });
        }
        let is_in_order = days.iter().zip(days.iter().skip(1)).all(|(a, b)| a.number > b.number);
        if !is_in_order {
            return None;
        }
        let passes = share(seen, lost);
        all.insert(
            node,
            Known { passes, before: [f64::from(loops), seen, lost], up_since: None, days },
        );
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
    use rand::seq::SliceRandom as _;
    use rand::{RngExt, SeedableRng as _};
    use rand_chacha::ChaCha20Rng;
    use record::Parameters;

    use super::*;

    const TICK: Duration = Duration::from_secs(30);

    /// Nodes 1 to `count` around this one, and the loops of its clock.
    struct World {
        nodes: Vec<NodeId>,
        health: Health,
        now: Time,
        rng: ChaCha20Rng,
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    impl World {
        fn new(count: u8, seed: u64) -> Self {
            let parameters = Parameters::main();
            let schedule = parameters.schedule();
            let now = schedule.start(Epoch::new(165_000));
            let health = Health::new(schedule, &parameters.sending, now);
            let nodes: Vec<_> = (1..=count).map(node).collect();
            let mut health = health;
            nodes.iter().for_each(|node| health.links.up(*node));
            Self { nodes, health, now, rng: ChaCha20Rng::seed_from_u64(seed) }
        }

        fn all(&self) -> BTreeSet<NodeId> {
            self.nodes.iter().copied().collect()
        }

        /// A loop over routes as they are drawn, out and back, that is lost if `loses` says so of any two
        /// nodes that follow each other.
        fn send(&mut self, loses: impl Fn(NodeId, NodeId, &mut ChaCha20Rng) -> bool) {
            self.now = self.now.plus(TICK);
            let shunned: BTreeSet<_> = self.health.shunned().keys().copied().collect();
            let is_retry = self.rng.random_ratio(1, 4);
            let mut usable = self.nodes.clone();
            usable.retain(|node| is_retry || !shunned.contains(node));
            usable.shuffle(&mut self.rng);
            let out: usize = self.rng.random_range(3..=6);
            let mut way: Vec<_> = usable.iter().copied().take(out).collect();
            let turns = *way.last().unwrap();
            usable.retain(|node| *node != turns);
            usable.shuffle(&mut self.rng);
            way.extend(usable.into_iter().take(self.rng.random_range(2..=5)));
            let mut ends = vec![node(0)];
            ends.extend(&way);
            ends.push(node(0));
            let lost = ends.windows(2).any(|pair| loses(pair[0], pair[1], &mut self.rng));
            let walk = Walk { nodes: way.into(), left: self.now };
            let took = (!lost).then_some(Duration::from_secs(500));
            self.health.note(Walked { walk, took }, self.now);
            let all = self.all();
            if self.health.poll_timeout() <= self.now {
                self.health.look(&all, &all, self.now);
            }
        }
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "a figure")]
    fn a_node_that_drops_most_is_found_among_twenty_and_no_other() {
        let mut needed = Vec::new();
        for seed in 0..6 {
            let mut world = World::new(19, seed);
            let bad = node(7);
            let mut loops = 0;
            while world.health.shunned().is_empty() {
                world.send(|_, to, rng| to == bad && rng.random_bool(0.6));
                loops += 1;
                assert!(loops < 400);
            }
            assert_eq!(world.health.shunned().keys().collect::<Vec<_>>(), [&bad]);
            needed.push(loops);
            // It is tried again, and taken back once it passes on what it gets.
            for _ in 0..300 {
                world.send(|_, _, rng| rng.random_bool(0.002));
                let others = world.health.shunned().keys().filter(|node| **node != bad);
                assert_eq!(others.count(), 0);
            }
            assert!(world.health.shunned().is_empty());
        }
        needed.sort_unstable();
        println!("a node that drops 60 % was found after {needed:?} loops");
        assert!(needed[3] <= 80, "{needed:?}");
    }

    #[test]
    fn a_node_that_drops_what_goes_to_one_neighbour_does_not_get_it_excluded() {
        for seed in 0..10 {
            let mut world = World::new(9, seed);
            let (bad, neighbour) = (node(3), node(5));
            for _ in 0..400 {
                world.send(|from, to, _| from == bad && to == neighbour);
                assert_eq!(world.health.shunned().get(&neighbour), None);
            }
            let of = |node| world.health.of(&node, world.now).loss;
            assert!(of(neighbour) < 0.3, "{} and {}", of(bad), of(neighbour));
        }
    }

    #[test]
    fn no_more_than_a_quarter_is_excluded_and_routes_are_left() {
        for (count, may) in [(3, 0), (4, 1), (7, 2), (19, 5)] {
            let mut world = World::new(count, 1);
            for _ in 0..200 {
                world.send(|_, _, _| true);
                assert!(world.health.shunned().len() <= may, "{count}");
            }
            let all = world.all();
            all.iter().for_each(|node| world.health.links.down(node));
            world.health.links.up(node(0));
            world.health.look(&all, &all, world.now);
            let later = world.now.plus(Duration::from_secs(150));
            world.health.look(&all, &all, later);
            assert_eq!(world.health.shunned().len(), may, "{count}");
            assert_eq!(world.health.beyond(), usize::from(count) - may);
        }
    }

    #[test]
    fn a_node_without_a_link_is_left_out_until_there_is_one() {
        let mut world = World::new(9, 1);
        let all = world.all();
        let others: BTreeSet<_> = all.iter().copied().filter(|other| *other != node(4)).collect();
        world.health.links.down(&node(4));
        let mut at = world.now;
        for step in 0..5 {
            world.health.look(&all, &all, at);
            assert_eq!(world.health.shunned().contains_key(&node(4)), step >= 3, "{step}");
            at = at.plus(Duration::from_secs(60));
        }
        assert!(world.health.handle_up(&node(4), at));
        assert!(world.health.shunned().is_empty());
        // A link that nobody wants, as in a larger network, says nothing.
        for step in 0..5 {
            let at = at.plus(Duration::from_secs(60) * step);
            world.health.look(&all, &others, at);
            assert!(world.health.shunned().is_empty());
        }
    }

    #[test]
    fn what_is_known_outlives_a_restart_and_fades() {
        let mut world = World::new(19, 3);
        let bad = node(7);
        for _ in 0..200 {
            world.send(|_, to, rng| to == bad && rng.random_bool(0.9));
        }
        let all = world.all();
        world.health.keep_at = world.now;
        let kept = world.health.look(&all, &all, world.now).unwrap();
        let days = world.health.of(&bad, world.now).days;
        assert!(days[0].loops > 10 && days[0].lost > 10_000 && days[0].latency.is_some());
        let mut again = World::new(19, 4);
        again.health.restore(&kept, world.now);
        again.health.look(&all, &all, world.now);
        assert!(again.health.shunned().contains_key(&bad));
        assert_eq!(again.health.of(&bad, world.now).days, days);
        let much_later = world.now.plus(Duration::from_secs(6 * 3600));
        again.health.look(&all, &all, much_later);
        assert!(again.health.shunned().is_empty());
        let other_version: Vec<_> = [&[2], &kept[1..]].concat();
        for unreadable in [&[][..], &kept[..kept.len() - 1], &other_version] {
            assert!(decode(unreadable).is_none());
        }
    }

    proptest! {
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

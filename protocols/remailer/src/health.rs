//! Which nodes no route of this node's own goes through: those that are down, and those that lose packets.
//!
//! Health only excludes, and never ranks: routes that prefer the best nodes are routes that an adversary
//! with good nodes can have. At most a share of the list is excluded, half of it for each reason if there
//! are as many. What a node finds is its own, and is told to nobody.
//!
//! A node that drops only what goes to one neighbour makes that neighbour look no worse than itself. Several
//! that do so to the same one cannot have it excluded either, as long as they are no more than a quarter of
//! its neighbours: it has to lose packets beside the others as well.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use directory::Route;
use keys::{NodeId, Schedule, Time};
use record::Sending;

use crate::links::Links;
use crate::loops::{DAYS, DayHealth, Loops, Walked};

/// Parts of an hour between two looks.
const LOOK: u32 = 60;
/// Parts of an hour after which a node to which there is no link counts as down: 150 s.
const DOWN: u32 = 24;
/// Parts of an hour for which an outage is remembered that is over: 20 minutes, in which all loops come back
/// that are to.
const OUTAGE: u32 = 3;
/// Parts of an hour between two times at which what is known is kept.
const KEEP: u32 = 6;
/// Hops of the shortest route, which exclusion must leave.
const HOPS: usize = Route::MIN;

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

/// The health of the other nodes.
pub(crate) struct Health {
    pub(crate) links: Links,
    loops: Loops,
    schedule: Schedule,
    /// Loops that a node needs before it may be excluded, the loss above which it is, and the share of the
    /// list that may be.
    rule: (u32, f64, usize),
    /// Since when there is no link to a node to which there should be one.
    away: BTreeMap<NodeId, Time>,
    /// Until when loops are lost because this node, or one of the others, was without links.
    outage: Option<Time>,
    /// Until when this node had lost most of its own links.
    cut_off: Option<Time>,
    shunned: BTreeMap<NodeId, Shunned>,
    /// Nodes that would be excluded if all could.
    suspects: usize,
    look_at: Time,
    /// When what is known is kept, if anything was noted since it was.
    keep_at: Option<Time>,
}

impl Health {
    pub(crate) fn new(schedule: Schedule, sending: &Sending, now: Time) -> Self {
        let Sending { health_loops, health_loss, health_share, .. } = *sending;
        let share = usize::from(health_share);
        Self {
            links: Links::default(),
            loops: Loops::new(schedule, now),
            schedule,
            rule: (health_loops.into(), f64::from(health_loss) / 100.0, share),
            away: BTreeMap::new(),
            outage: None,
            cut_off: None,
            shunned: BTreeMap::new(),
            suspects: 0,
            look_at: now,
            keep_at: None,
        }
    }

    /// Goes on with what was kept. What cannot be read counts for nothing.
    pub(crate) fn restore(&mut self, octets: &[u8], now: Time) {
        self.loops.restore(octets, now);
    }

    /// When it is looked at again.
    pub(crate) fn poll_timeout(&self) -> Time {
        self.look_at
    }

    /// The clock jumped: links are looked at anew.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        self.loops.handle_clock_jump(millis);
        self.look_at = self.look_at.shifted(millis);
        for at in [&mut self.keep_at, &mut self.outage, &mut self.cut_off] {
            *at = at.map(|at| at.shifted(millis));
        }
        self.away.clear();
    }

    /// Notes what became of a loop. A node that had lost its own links learns nothing of others.
    pub(crate) fn note(&mut self, walked: Walked, now: Time) {
        let left = walked.walk.left;
        if walked.took.is_none() && self.cut_off.is_some_and(|until| left < until) {
            return;
        }
        let patience = self.schedule.hour() / DOWN;
        let away = &self.away;
        let is_down =
            |node: &NodeId| away.get(node).is_some_and(|since| now.since(*since) >= patience);
        self.loops.note(walked, is_down, now);
        self.keep_at = self.keep_at.or(Some(now.plus(self.schedule.hour() / KEEP)));
    }

    /// A link to a node is up: it is not down any more. Whether it was taken to be.
    pub(crate) fn handle_up(&mut self, node: &NodeId, now: Time) -> bool {
        self.links.up(*node);
        let since = self.away.remove(node);
        let was_down = self.shunned.get(node) == Some(&Shunned::Down);
        if was_down {
            self.shunned.remove(node);
        }
        let patience = self.schedule.hour() / DOWN;
        if let Some(since) = since.filter(|since| now.since(*since) >= patience) {
            self.loops.forgive(node, since, now);
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
        self.look_at = now.plus(self.schedule.hour() / LOOK);
        let linked = self.links.linked();
        self.away.retain(|node, _| wanted.contains(node) && !linked.contains(node));
        for node in wanted.difference(linked) {
            self.away.entry(*node).or_insert(now);
        }
        let is_cut_off = self.away.len() * 2 > wanted.len();
        if is_cut_off {
            self.cut_off = Some(now);
        }
        self.loops.settle(now);
        let patience = self.schedule.hour() / DOWN;
        // Without any link it is this node that is down.
        let is_alone = linked.is_empty();
        let is_down = |(node, since): &(&NodeId, &Time)| {
            !is_alone && listed.contains(node) && now.since(**since) >= patience
        };
        let mut down: Vec<_> = self.away.iter().filter(is_down).collect();
        if !down.is_empty() && !is_cut_off {
            self.outage = Some(now.plus(self.schedule.hour() / OUTAGE));
        }
        down.sort_by_key(|(_, since)| **since);
        let down: Vec<_> = down.into_iter().map(|(node, _)| *node).collect();
        let (enough, most, share) = self.rule;
        let losses = listed.iter().map(|node| (self.loops.loss(node), *node));
        let mut losing: Vec<_> = losses
            .filter(|((loss, loops), node)| {
                let is_suspect = *loops >= enough && *loss > most && !down.contains(node);
                is_suspect && self.loops.loses_beside_most(node, share, most / 2.0)
            })
            .collect();
        losing.sort_by(|((one, _), _), ((other, _), _)| other.total_cmp(one));
        self.suspects = down.len() + losing.len();
        // This node is listed as well.
        let may = ((listed.len() + 1) * share / 100).min(listed.len().saturating_sub(HOPS));
        let for_down = down.len().min(may - losing.len().min(may / 2));
        let down = down.into_iter().take(for_down).map(|node| (node, Shunned::Down));
        let losing = losing.into_iter().map(|(_, node)| (node, Shunned::Losing));
        self.shunned = down.chain(losing.take(may - for_down)).collect();
        self.keep_at.take_if(|at| *at <= now).map(|_| self.loops.encode(now))
    }

    /// Why routes avoid nodes.
    pub(crate) fn shunned(&self) -> &BTreeMap<NodeId, Shunned> {
        &self.shunned
    }

    /// Whether loops may be lost because some of the others are, or were until a while ago, without links.
    pub(crate) fn has_outage(&self, now: Time) -> bool {
        self.outage.is_some_and(|until| now < until)
    }

    /// How many nodes would be excluded, if those are more than may be.
    pub(crate) fn too_many(&self) -> Option<usize> {
        Some(self.suspects).filter(|suspects| *suspects > self.shunned.len())
    }

    /// What is known of a node.
    pub(crate) fn of(&self, node: &NodeId, now: Time) -> PeerHealth {
        let (loss, loops) = self.loops.loss(node);
        let days = self.loops.days(node, now);
        let latency = days.iter().find_map(|day| day.latency);
        PeerHealth { loss, loops, latency, shunned: self.shunned.get(node).copied(), days }
    }
}

#[cfg(test)]
mod tests {
    use keys::Epoch;
    use rand::seq::SliceRandom as _;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha20Rng;
    use record::Parameters;

    use super::*;
    use crate::loops::Walk;

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
    fn a_fifth_of_the_nodes_cannot_have_another_excluded_by_dropping_what_is_for_it() {
        for seed in 0..3 {
            let mut world = World::new(19, seed);
            let victim = node(5);
            let is_bad = |node: NodeId| (10..=13).contains(&node.as_bytes()[0]);
            for _ in 0..300 {
                let drops = |one, other| is_bad(one) && other == victim;
                world.send(|from, to, _| drops(from, to) || drops(to, from));
                assert_eq!(world.health.shunned().get(&victim), None);
            }
        }
    }

    #[test]
    fn nodes_that_are_down_leave_room_to_exclude_those_that_lose_packets() {
        let mut world = World::new(19, 1);
        let bad = node(19);
        for _ in 0..150 {
            world.send(|_, to, _| to == bad);
        }
        let all = world.all();
        (1..=8).for_each(|number| world.health.links.down(&node(number)));
        world.health.look(&all, &all, world.now);
        let later = world.now.plus(Duration::from_secs(150));
        world.health.look(&all, &all, later);
        let shunned = world.health.shunned();
        assert_eq!((shunned.len(), shunned.get(&bad)), (5, Some(&Shunned::Losing)));
    }

    #[test]
    fn a_node_that_had_lost_its_links_blames_nobody() {
        let mut world = World::new(9, 1);
        let all = world.all();
        all.iter().for_each(|node| world.health.links.down(node));
        let left = world.now;
        world.health.look(&all, &all, left);
        all.iter().for_each(|node| _ = world.health.handle_up(node, left));
        let later = left.plus(Duration::from_secs(1000));
        for _ in 0..30 {
            let nodes = world.nodes[..5].into();
            let walk = Walk { nodes, left: left.minus(TICK) };
            world.health.note(Walked { walk, took: None }, later);
        }
        world.health.look(&all, &all, later);
        assert!(all.iter().all(|node| world.health.of(node, later).loops == 0));
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
            assert_eq!(world.health.too_many(), Some(usize::from(count)));
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
        let kept = world.health.loops.encode(world.now);
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
    }
}

//! The observer: sees every submission, every packet on every link and every delivery, knows the laws of
//! the network, and says for each delivery which submissions it may have been.
//!
//! A hop takes packets in and lets packets out, one for one: which is which is a matching, of which the
//! laws of delay say how likely each pair is, and the counts that everything has to go somewhere
//! (Danezis, "The Traffic Analysis of Continuous-Time Mixes", 2004; Serjantov and Danezis, "Towards an
//! Information Theoretic Metric for Anonymity", 2002). The chances of pairs are scaled until rows and
//! columns add up (Sinkhorn and Knopp, 1967). From a delivery the observer goes back from hop to hop with
//! them, for routes of each length, to where the packet was wrapped; and from there to the submissions.
//! At last deliveries and submissions are matched one for one in the same way.
//!
//! A node that the observer owns tells which packet became which, and which carried mail; which of these
//! was which mail is told by the time of its delivery. That no route visits a node twice is not used.

use std::collections::BTreeMap;

use crate::law::{Hold, Law, Millis, Spread};
use crate::trace::{Link, Trace};

/// Fewest and most hops of a route.
const HOPS: [usize; 2] = [3, 6];
/// Rounds of scaling; after some ten nothing changes any more.
const ROUNDS: usize = 12;
/// The longest that any hop holds a packet, in mean delays, but for one in a hundred thousand.
const LONGEST: f64 = 12.0;

/// What the observer knows beforehand, and what it looks at.
#[derive(Clone, Debug)]
pub struct Knows {
    pub law: Law,
    /// How long a mail of each class waits at its ingress.
    pub holds: BTreeMap<u8, Hold>,
    /// The first nodes are the observer's, so many.
    pub owned: usize,
    /// Whether the class of a mail is seen when it is submitted and delivered.
    pub sees_class: bool,
    /// Whether it follows the word of a delivery back to the sender.
    pub follows_answers: bool,
}

/// Packets of one class that leave a node in one bin of time: nobody tells them apart.
struct Group {
    /// How many, as a number and as its inverse.
    count: f64,
    /// The chance that any one of them was wrapped there.
    own: f64,
    /// The links on which they leave, as a range of [`Lane::out`].
    first: usize,
}

/// Packets of one class at one node.
struct Lane {
    /// Links that end here, by arrival, and where each one's packet goes.
    inward: Vec<Inward>,
    /// Links that begin here, by time.
    out: Vec<usize>,
    first_bin: i64,
    groups: Vec<Group>,
}

struct Inward {
    link: usize,
    /// The chance that its route ended here.
    ended: f64,
    /// Bins that it may have left in.
    first: usize,
    chances: Vec<f32>,
}

/// Everything that passes a network, with the chances of what became what.
pub struct Watcher<'a> {
    trace: &'a Trace,
    knows: Knows,
    lanes: BTreeMap<(usize, u8), Lane>,
    /// Packets of each class wrapped at a node, per millisecond.
    wrapped: BTreeMap<u8, f64>,
    /// The chance that a packet that comes to a node goes on.
    goes_on: f64,
    lengths: Vec<(usize, f64)>,
}

/// The weight of each link in what an observer believes, for links of one class and time.
struct Belief {
    /// The number of the first link.
    base: usize,
    weights: Vec<f64>,
}

impl Belief {
    fn add(&mut self, link: usize, weight: f64) {
        if let Some(of_link) = link.checked_sub(self.base).and_then(|at| self.weights.get_mut(at)) {
            *of_link += weight;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, f64)> + Clone {
        let all = self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        all.map(|(number, weight)| (self.base + number, *weight))
    }
}

/// What is believed of one delivery.
pub struct Traced {
    /// The submissions that it may have been, and how likely each is.
    pub submissions: Vec<(usize, f64)>,
    /// How many packets it may have been when it was wrapped, as two to the entropy in bits.
    pub packets: f64,
}

impl<'a> Watcher<'a> {
    pub fn new(trace: &'a Trace, knows: Knows) -> Self {
        let most = HOPS[1].min(trace.nodes.saturating_sub(1)).max(HOPS[0]);
        let chance = 1.0 / (most - HOPS[0] + 1) as f64;
        let lengths: Vec<_> = (HOPS[0]..=most).map(|hops| (hops, chance)).collect();
        let mean: f64 = lengths.iter().map(|(hops, chance)| *hops as f64 * chance).sum();
        let mut wrapped = BTreeMap::new();
        let each = 1.0 / (trace.span() * trace.nodes as f64);
        for link in &trace.links {
            *wrapped.entry(link.class).or_insert(0.0) += each / mean;
        }
        let goes_on = 1.0 - 1.0 / mean;
        let lanes = BTreeMap::new();
        let mut watcher = Self { trace, knows, lanes, wrapped, goes_on, lengths };
        watcher.lanes = watcher.match_hops();
        watcher
    }

    fn match_hops(&self) -> BTreeMap<(usize, u8), Lane> {
        let mut inward: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        let mut out: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (number, link) in self.trace.links.iter().enumerate() {
            inward.entry((link.to, link.class)).or_default().push(number);
            out.entry((link.from, link.class)).or_default().push(number);
        }
        let mut became = BTreeMap::new();
        for (number, link) in self.trace.links.iter().enumerate() {
            became.extend(link.after.map(|before| (before, number)));
        }
        let keys: Vec<_> = inward.keys().chain(out.keys()).copied().collect();
        let lanes = keys.into_iter().map(|(node, class)| {
            let of = |links: &BTreeMap<_, Vec<usize>>| {
                links.get(&(node, class)).cloned().unwrap_or_default()
            };
            let lane = if node < self.knows.owned {
                self.known_lane(of(&inward), of(&out), &became)
            } else {
                self.matched_lane((node, class), of(&inward), of(&out))
            };
            ((node, class), lane)
        });
        lanes.collect()
    }

    fn link(&self, number: usize) -> &Link {
        &self.trace.links[number]
    }

    /// A lane of which the observer knows everything: each packet is a group of its own.
    fn known_lane(
        &self,
        mut inward: Vec<usize>,
        out: Vec<usize>,
        became: &BTreeMap<usize, usize>,
    ) -> Lane {
        inward.sort_by_key(|number| self.link(*number).arrives);
        let place: BTreeMap<_, _> =
            out.iter().enumerate().map(|(place, number)| (*number, place)).collect();
        let groups = out.iter().enumerate().map(|(place, number)| {
            let own = if self.link(*number).after.is_none() { 1.0 } else { 0.0 };
            Group { count: 1.0, own, first: place }
        });
        let groups = groups.collect();
        let inward = inward.into_iter().map(|number| {
            match became.get(&number).and_then(|after| place.get(after)) {
                Some(place) => {
                    Inward { link: number, ended: 0.0, first: *place, chances: vec![1.0] }
                }
                None => Inward { link: number, ended: 1.0, first: 0, chances: Vec::new() },
            }
        });
        Lane { inward: inward.collect(), out, first_bin: 0, groups }
    }

    fn matched_lane(
        &self,
        (node, class): (usize, u8),
        mut inward: Vec<usize>,
        out: Vec<usize>,
    ) -> Lane {
        let law = &self.knows.law;
        inward.sort_by_key(|number| self.link(*number).arrives);
        let bins = out.iter().map(|number| law.bin_at(node, self.link(*number).sent));
        let bins: Vec<_> = bins.collect();
        let first_bin = bins.first().copied().unwrap_or(0);
        let last = bins.last().copied().unwrap_or(first_bin);
        let mut groups: Vec<_> =
            (first_bin..=last).map(|_| Group { count: 0.0, own: 0.0, first: 0 }).collect();
        for (place, bin) in bins.iter().enumerate() {
            if let Some(group) = groups.get_mut((bin - first_bin) as usize) {
                if group.count == 0.0 {
                    group.first = place;
                }
                group.count += 1.0;
            }
        }
        let span = self.trace.span() / law.bin();
        let (_, bins_of_window) = law.kept_back(0.0);
        let others = inward.len() as f64 * self.goes_on / span * bins_of_window as f64;
        let (kept_back, step) = law.kept_back(others);
        let inward = inward.into_iter().map(|number| {
            let spread = law.spread(node, self.link(number).arrives);
            let (first, chances) = within(&spread, (&kept_back, step), first_bin, groups.len());
            Inward { link: number, ended: 0.0, first, chances }
        });
        let mut inward: Vec<_> = inward.collect();
        let wrapped = self.wrapped.get(&class).copied().unwrap_or_default() * law.bin();
        scale(&mut inward, &mut groups, self.goes_on, wrapped);
        Lane { inward, out, first_bin, groups }
    }

    /// What the observer believes of every delivery, in their order.
    pub fn trace_all(&self) -> Vec<Traced> {
        let (mut traced, mut packets) = (Vec::new(), Vec::new());
        for delivered in &self.trace.delivered {
            let weights = self.weights(delivered.of);
            let mut submissions = BTreeMap::new();
            let mut entropy = 0.0;
            for (class, weight) in weights {
                let sources = self.go_back(class, delivered.exit, delivered.at);
                let homes = self
                    .knows
                    .follows_answers
                    .then(|| self.go_home(class, delivered.exit, delivered.at));
                entropy += weight * bits(sources.iter().map(|(_, weight)| weight));
                self.spread_over_submissions(class, weight, &sources, homes, &mut submissions);
            }
            traced.push(submissions);
            packets.push(entropy.exp2());
        }
        let traced = match_deliveries(traced);
        let both = traced.into_iter().zip(packets);
        both.map(|(submissions, packets)| Traced { submissions, packets }).collect()
    }

    /// The classes that a delivered mail may have had.
    fn weights(&self, submission: usize) -> Vec<(u8, f64)> {
        let submitted = &self.trace.submitted;
        if self.knows.sees_class {
            return submitted.get(submission).map(|of| (of.class, 1.0)).into_iter().collect();
        }
        let mut classes: BTreeMap<u8, f64> = BTreeMap::new();
        for of in submitted {
            *classes.entry(of.class).or_default() += 1.0 / submitted.len() as f64;
        }
        classes.into_iter().collect()
    }

    fn nothing(&self, at: Millis) -> Belief {
        let links = &self.trace.links;
        let earliest = at.saturating_sub(self.longest() * 3);
        let base = links.partition_point(|link| link.sent < earliest);
        let end = links.partition_point(|link| link.sent <= at);
        Belief { base, weights: vec![0.0; end.saturating_sub(base)] }
    }

    /// From a delivery back to the links on which its packet may have left the node that wrapped it.
    fn go_back(&self, class: u8, exit: usize, at: Millis) -> Belief {
        let (mut sources, mut belief) = (self.nothing(at), self.nothing(at));
        let Some(lane) = self.lanes.get(&(exit, class)) else { return sources };
        let law = &self.knows.law;
        let bin = law.bin_at(exit, at);
        let is_owned = exit < self.knows.owned;
        for inward in self.before(lane, at) {
            let link = self.link(inward.link);
            let chance = chance_of(&law.spread(exit, link.arrives), bin) * inward.ended;
            // Whoever owns the exit tells mail from cover.
            if !is_owned || link.is_mail {
                belief.add(inward.link, chance);
            }
        }
        let longest = self.lengths.iter().map(|(length, _)| *length).max().unwrap_or_default();
        for hops in 1..=longest {
            let ends = self.lengths.iter().find(|(length, _)| *length == hops);
            let mut groups: BTreeMap<(usize, usize), f64> = BTreeMap::new();
            for (number, weight) in belief.iter() {
                let link = self.link(number);
                let Some((lane, place)) = self.leaves_in(link, number) else { continue };
                let group = &lane.groups[place];
                if let Some((_, chance)) = ends {
                    sources.add(number, weight * chance * group.own);
                }
                *groups.entry((link.from, place)).or_default() += weight / group.count;
            }
            belief = self.nothing(at);
            for ((node, place), weight) in groups {
                let Some(lane) = self.lanes.get(&(node, class)) else { continue };
                for inward in self.reaching(lane, place, node) {
                    if let Some(chance) = inward.chance(place) {
                        belief.add(inward.link, weight * chance / self.goes_on);
                    }
                }
            }
        }
        sources
    }

    /// From a delivery on to the nodes at which word of it may have ended.
    fn go_home(&self, class: u8, exit: usize, at: Millis) -> Vec<f64> {
        let mut homes = vec![0.0; self.trace.nodes];
        let law = &self.knows.law;
        let wrapped = self.wrapped.get(&class).copied().unwrap_or_default() * law.bin();
        let Some(lane) = self.lanes.get(&(exit, class)) else { return homes };
        let mut groups: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        if exit < self.knows.owned {
            // It is taken to keep to itself which packet its answer was.
            return vec![1.0; self.trace.nodes];
        }
        let spread = law.spread(exit, at);
        for (number, chance) in spread.chances.iter().enumerate() {
            let bin = spread.first + number as i64 - lane.first_bin;
            let Some(group) = usize::try_from(bin).ok().and_then(|bin| lane.groups.get(bin)) else {
                continue;
            };
            if group.count > 0.0 {
                let weight = chance * group.own / wrapped;
                groups.insert((exit, usize::try_from(bin).unwrap_or_default()), weight);
            }
        }
        for hops in 1..=self.lengths.iter().map(|(length, _)| *length).max().unwrap_or(0) {
            let ends = self.lengths.iter().find(|(length, _)| *length == hops);
            let mut next: BTreeMap<(usize, usize), f64> = BTreeMap::new();
            for ((node, place), weight) in &groups {
                let Some(lane) = self.lanes.get(&(*node, class)) else { continue };
                let group = &lane.groups[*place];
                for number in &lane.out[group.first..group.first + group.count as usize] {
                    let link = self.link(*number);
                    let Some(lane) = self.lanes.get(&(link.to, class)) else { continue };
                    let Some(inward) = lane.find(*number, self.trace) else { continue };
                    if let Some((_, chance)) = ends {
                        let ended = inward.ended / (1.0 - self.goes_on);
                        homes[link.to] += weight * chance * ended;
                    }
                    for (place, chance) in inward.chances.iter().enumerate() {
                        let place = inward.first + place;
                        let count = lane.groups[place].count;
                        if count > 0.0 && *chance > 1e-6 {
                            let chance = f64::from(*chance) / self.goes_on / count;
                            *next.entry((link.to, place)).or_default() += weight * chance;
                        }
                    }
                }
            }
            groups = next;
        }
        homes
    }

    /// The lane and the group in which a packet leaves.
    fn leaves_in(&self, link: &Link, number: usize) -> Option<(&Lane, usize)> {
        let lane = self.lanes.get(&(link.from, link.class))?;
        let place = if link.from < self.knows.owned {
            lane.out.binary_search(&number).ok()?
        } else {
            usize::try_from(self.knows.law.bin_at(link.from, link.sent) - lane.first_bin).ok()?
        };
        (place < lane.groups.len()).then_some((lane, place))
    }

    /// Packets that came to a node in the time in which one must have come that leaves now.
    fn before<'l>(&self, lane: &'l Lane, at: Millis) -> &'l [Inward] {
        let longest = self.longest();
        let from = lane.inward.partition_point(|one| self.link(one.link).arrives + longest < at);
        let to = lane.inward.partition_point(|one| self.link(one.link).arrives <= at);
        &lane.inward[from.min(to)..to]
    }

    fn longest(&self) -> Millis {
        let law = &self.knows.law;
        (law.mean * LONGEST + law.bin() * 36.0) as Millis
    }

    /// Packets that may have become one of a group.
    fn reaching<'l>(&self, lane: &'l Lane, place: usize, node: usize) -> &'l [Inward] {
        let group = &lane.groups[place];
        let Some(number) = lane.out.get(group.first) else { return &[] };
        let sent = self.link(*number).sent;
        if node < self.knows.owned {
            return self.before(lane, sent);
        }
        self.before(lane, sent + self.knows.law.bin().ceil() as Millis)
    }

    /// From links on which a mail may have left its ingress to the submissions that it may have been.
    fn spread_over_submissions(
        &self,
        class: u8,
        weight: f64,
        sources: &Belief,
        homes: Option<Vec<f64>>,
        submissions: &mut BTreeMap<usize, f64>,
    ) {
        let Some(hold) = self.knows.holds.get(&class) else { return };
        let wrapped = self.wrapped.get(&class).copied().unwrap_or_default();
        let mut sum = 0.0;
        let mut found = Vec::new();
        for (number, of_link) in sources.iter() {
            let link = self.link(number);
            let home = homes.as_ref().map_or(1.0, |homes| homes[link.from]);
            let earliest = link.sent.saturating_sub(hold.longest() as Millis);
            let from = self.trace.submitted.partition_point(|one| one.at < earliest);
            for (number, one) in self.trace.submitted.iter().enumerate().skip(from) {
                if one.at >= link.sent {
                    break;
                }
                // Who owns the ingress knows already what became of it.
                let may = one.node == link.from && link.from >= self.knows.owned;
                if may && (!self.knows.sees_class || one.class == class) {
                    let density = hold.density((link.sent - one.at) as f64);
                    let chance = of_link * home * density / wrapped;
                    found.push((number, chance));
                    sum += chance;
                }
            }
        }
        if sum > 0.0 {
            for (number, chance) in found {
                *submissions.entry(number).or_default() += weight * chance / sum;
            }
        }
    }
}

impl Lane {
    fn find(&self, number: usize, trace: &Trace) -> Option<&Inward> {
        let arrives = trace.links[number].arrives;
        let from = self.inward.partition_point(|one| trace.links[one.link].arrives < arrives);
        self.inward[from..].iter().find(|one| one.link == number)
    }
}

impl Inward {
    fn chance(&self, place: usize) -> Option<f64> {
        self.chances.get(place.checked_sub(self.first)?).map(|chance| f64::from(*chance))
    }
}

/// When a packet leaves, as chances of groups, with what the floor adds.
fn within(
    spread: &Spread,
    (kept_back, step): (&[f64], usize),
    first_bin: i64,
    groups: usize,
) -> (usize, Vec<f32>) {
    let begin = spread.first - first_bin;
    let mut chances = vec![0.0; spread.chances.len() + (kept_back.len() - 1) * step];
    for (windows, share) in kept_back.iter().enumerate() {
        for (number, chance) in spread.chances.iter().enumerate() {
            chances[number + windows * step] += (chance * share) as f32;
        }
    }
    let skipped = usize::try_from(-begin).unwrap_or(0).min(chances.len());
    let first = usize::try_from(begin).unwrap_or(0);
    chances.drain(..skipped);
    chances.truncate(groups.saturating_sub(first));
    (first.min(groups), chances)
}

fn chance_of(spread: &Spread, bin: i64) -> f64 {
    let place = usize::try_from(bin - spread.first).ok();
    place.and_then(|place| spread.chances.get(place)).copied().unwrap_or_default()
}

/// Scales chances until each packet that came has gone somewhere, and each that left came from somewhere:
/// `goes_on` of those that come go on, and `wrapped` of those in a bin were wrapped there.
fn scale(inward: &mut [Inward], groups: &mut [Group], goes_on: f64, wrapped: f64) {
    let mut of_groups = vec![1.0; groups.len()];
    let mut of_packets = vec![1.0; inward.len()];
    for _ in 0..ROUNDS {
        for (one, of_packet) in inward.iter().zip(&mut of_packets) {
            let to = one.chances.iter().zip(&of_groups[one.first..]);
            let sum: f64 = to.map(|(chance, scale)| f64::from(*chance) * scale).sum();
            *of_packet = 1.0 / (goes_on * sum + (1.0 - goes_on)).max(1e-12);
        }
        let mut sums = vec![wrapped; groups.len()];
        for (one, of_packet) in inward.iter().zip(&of_packets) {
            for (chance, sum) in one.chances.iter().zip(&mut sums[one.first..]) {
                *sum += f64::from(*chance) * goes_on * of_packet;
            }
        }
        for ((scale, group), sum) in of_groups.iter_mut().zip(groups.iter()).zip(sums) {
            *scale = group.count / sum;
        }
    }
    for (one, of_packet) in inward.iter_mut().zip(of_packets) {
        for (chance, scale) in one.chances.iter_mut().zip(&of_groups[one.first..]) {
            *chance = (f64::from(*chance) * goes_on * of_packet * scale) as f32;
        }
        one.ended = of_packet * (1.0 - goes_on);
    }
    for (group, scale) in groups.iter_mut().zip(of_groups) {
        group.own = if group.count > 0.0 { wrapped * scale / group.count } else { 0.0 };
    }
}

/// Matches deliveries and submissions: each delivery was one submission, and no submission more than one.
fn match_deliveries(traced: Vec<BTreeMap<usize, f64>>) -> Vec<Vec<(usize, f64)>> {
    let mut rows: Vec<Vec<(usize, f64)>> =
        traced.into_iter().map(|row| row.into_iter().collect()).collect();
    for _ in 0..ROUNDS * 3 {
        let mut columns: BTreeMap<usize, f64> = BTreeMap::new();
        for (number, chance) in rows.iter().flatten() {
            *columns.entry(*number).or_default() += chance;
        }
        for row in &mut rows {
            for (number, chance) in row.iter_mut() {
                *chance /= columns.get(number).copied().unwrap_or(1.0).max(1.0);
            }
            let sum: f64 = row.iter().map(|(_, chance)| chance).sum();
            row.iter_mut().for_each(|(_, chance)| *chance /= sum.max(1e-300));
        }
    }
    rows
}

/// Entropy in bits of what these weights are in proportion to.
pub fn bits(weights: impl Iterator<Item = f64> + Clone) -> f64 {
    let sum: f64 = weights.clone().sum();
    let each = weights.filter(|weight| *weight > 0.0).map(|weight| weight / sum);
    each.map(|chance| -chance * chance.log2()).sum()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use rand_distr::{Distribution, Exp1};

    use super::*;
    use crate::law::{Held, Keeps};
    use crate::trace::{Delivered, Submitted};

    /// One mix from which every packet goes on, and all others came from elsewhere: what came when, and
    /// what left when.
    struct Mix {
        came: Vec<f64>,
        left: Vec<f64>,
        /// Which departure each arrival was.
        truth: Vec<usize>,
    }

    impl Mix {
        /// Arrivals a second apart on average, held for an exponential time of this mean.
        fn new(packets: usize, mean: f64, seed: u64) -> Self {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut now = 0.0;
            let mut draw = |mean: f64| mean * Distribution::<f64>::sample(&Exp1, &mut rng);
            let mut came = Vec::new();
            let mut leaves = Vec::new();
            for number in 0..packets {
                now += draw(1.0);
                came.push(now);
                leaves.push((now + draw(mean), number));
            }
            leaves.sort_by(|one, other| one.0.total_cmp(&other.0));
            let mut truth = vec![0; packets];
            for (place, (_, number)) in leaves.iter().enumerate() {
                truth[*number] = place;
            }
            Self { came, left: leaves.into_iter().map(|(at, _)| at).collect(), truth }
        }

        /// For each departure, how likely it was each arrival, as the observer finds it.
        fn matched(&self, mean: f64) -> Vec<Vec<f64>> {
            let group = |first| Group { count: 1.0, own: 0.0, first };
            let mut groups: Vec<_> = (0..self.left.len()).map(group).collect();
            let inward = self.came.iter().enumerate().map(|(link, came)| {
                let chance = |left: &f64| {
                    if left > came { (-(left - came) / mean).exp() as f32 } else { 0.0 }
                };
                Inward {
                    link,
                    ended: 0.0,
                    first: 0,
                    chances: self.left.iter().map(chance).collect(),
                }
            });
            let mut inward: Vec<_> = inward.collect();
            scale(&mut inward, &mut groups, 1.0, 0.0);
            let of =
                |place: usize| inward.iter().map(|one| f64::from(one.chances[place])).collect();
            (0..self.left.len()).map(of).collect()
        }
    }

    #[test]
    fn in_one_batch_each_may_be_any() {
        for count in [1, 2, 17] {
            let mut groups = [Group { count: count as f64, own: 0.0, first: 0 }];
            let one = |link| Inward { link, ended: 0.0, first: 0, chances: vec![0.3] };
            let mut inward: Vec<_> = (0..count).map(one).collect();
            scale(&mut inward, &mut groups, 1.0, 0.0);
            let shares = inward.iter().map(|one| f64::from(one.chances[0]) / groups[0].count);
            assert!((bits(shares).exp2() - count as f64).abs() < 1e-3);
        }
    }

    #[test]
    fn without_mixing_every_packet_is_followed() {
        let mix = Mix::new(300, 0.001, 1);
        let matched = mix.matched(0.001);
        for (number, place) in mix.truth.iter().enumerate() {
            assert!(matched[*place][number] > 0.9);
        }
    }

    #[test]
    fn a_queue_without_end_hides_a_packet_among_those_that_may_still_be_in_it() {
        // M/M/infinity: an exponential time has no memory, so that of n that are inside each is the one
        // that leaves with the same chance.
        let (packets, mean) = (600, 10.0);
        let mix = Mix::new(packets, mean, 2);
        let matched = mix.matched(mean);
        let mut inside = vec![0.0; packets];
        let (mut came, mut exact, mut found, mut hit, mut expected) = (0, 0.0, 0.0, 0.0, 0.0);
        let counts = 100..500;
        for (place, left) in mix.left.iter().enumerate() {
            while came < packets && mix.came[came] < *left {
                inside[came] = 1.0;
                came += 1;
            }
            let count: f64 = inside.iter().sum();
            if counts.contains(&place) {
                exact += bits(inside.iter().copied()) / counts.len() as f64;
                found += bits(matched[place].iter().copied()) / counts.len() as f64;
                let best = matched[place].iter().copied().fold(0.0, f64::max);
                expected += best / counts.len() as f64;
                let truth = mix.truth.iter().position(|of| *of == place).unwrap_or_default();
                // Those that came between the same two departures are alike.
                let alike = best * (1.0 - 1e-6);
                let ties = matched[place].iter().filter(|chance| **chance >= alike).count();
                if matched[place][truth] >= alike {
                    hit += 1.0 / ties as f64 / counts.len() as f64;
                }
            }
            inside.iter_mut().for_each(|share| *share *= 1.0 - 1.0 / count);
        }
        let (exact, found) = (exact.exp2(), found.exp2());
        assert!((found / exact - 1.0).abs() < 0.1, "{found} where {exact} is exact");
        assert!((hit - expected).abs() < 3.0 * (expected / 400.0).sqrt(), "{hit} of {expected}");
    }
    /// A network in which each of these routes was taken by a packet with mail, a window after the other, and
    /// what the observer believes of each delivery.
    fn traced(routes: &[&[usize]], owned: usize) -> Vec<Vec<(usize, f64)>> {
        const WINDOW: Millis = 30_000;
        let mut trace = Trace { nodes: 16, phases: vec![0; 16], ..Trace::default() };
        for (of, route) in routes.iter().enumerate() {
            trace.submitted.push(Submitted { at: WINDOW, node: route[0], class: 1 });
            let mut after = None;
            for (hop, ends) in (2..).zip(route.windows(2)) {
                let sent = WINDOW * hop + 15_000;
                let (from, to) = (ends[0], ends[1]);
                let is_mail = Some(&to) == route.last();
                trace.links.push(Link { sent, arrives: sent, from, to, class: 1, after, is_mail });
                after = Some(trace.links.len() - 1);
            }
            let (exit, hops) = (route[route.len() - 1], route.len() as u64 + 1);
            trace.delivered.push(Delivered { at: WINDOW * hops + 15_000, exit, of });
        }
        // As an observer has them: in the order of time.
        let mut order: Vec<_> = (0..trace.links.len()).collect();
        order.sort_by_key(|number| trace.links[*number].sent);
        let place = |number: usize| order.iter().position(|other| *other == number);
        let links = order.iter().map(|number| {
            let link = trace.links[*number];
            Link { after: link.after.and_then(place), ..link }
        });
        let trace = Trace { links: links.collect(), ..trace.clone() };
        let held = Held::Windows { window: 30_000.0, phases: vec![0; 16], keeps: Keeps::Below(1) };
        let knows = Knows {
            law: Law { mean: 10_000.0, held },
            holds: BTreeMap::from([(1, Hold { hold: 0.0, tick: 50_000.0, lag: 0.0 })]),
            owned,
            sees_class: true,
            follows_answers: false,
        };
        let traced = Watcher::new(&trace, knows).trace_all();
        traced.into_iter().map(|traced| traced.submissions).collect()
    }

    fn chance(believed: &[(usize, f64)], submission: usize) -> f64 {
        let of = believed.iter().find(|(number, _)| *number == submission);
        of.map_or(0.0, |(_, chance)| *chance)
    }

    #[test]
    fn mail_that_meets_no_other_is_traced_and_two_that_meet_may_each_be_the_other() {
        let apart = traced(&[&[0, 1, 2, 3], &[4, 5, 6, 7, 8]], 0);
        for (number, believed) in apart.iter().enumerate() {
            assert!((chance(believed, number) - 1.0).abs() < 1e-6, "{apart:?}");
        }
        let meet = traced(&[&[10, 11, 2, 13], &[4, 5, 2, 6]], 0);
        for believed in &meet {
            assert!((chance(believed, 0) - 0.5).abs() < 1e-3, "{meet:?}");
            assert!((chance(believed, 1) - 0.5).abs() < 1e-3, "{meet:?}");
        }
        // Who owns the node at which they met knows better.
        let owned = traced(&[&[10, 11, 2, 13], &[4, 5, 2, 6]], 3);
        for (number, believed) in owned.iter().enumerate() {
            assert!(chance(believed, number) > 0.999, "{owned:?}");
        }
    }
}

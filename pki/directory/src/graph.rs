//! Who is linked to whom among the nodes of a view, the same for everybody.
//!
//! Few nodes are linked each to every other. In a larger network each node keeps 16 links, and
//! routes walk them: a packet never needs a link that is opened for it, which an observer would see.
//! The graph is the union of eight cycles through all nodes (the permutation model of random
//! regular graphs, of which almost all are good expanders). In cycle `c` the nodes follow each other
//! by BLAKE3 over the list's hash (32), `c` (1) and identity (32), derived with
//! `fog-v1 graph of links`: nobody knows its neighbours before the votes are signed.

use std::collections::BTreeSet;

use keys::NodeId;
use rand::{CryptoRng, RngExt as _};
use record::ListHash;

/// Up to this many nodes, each is linked to every other.
pub const COMPLETE: usize = 64;
/// Cycles, each of which gives a node two neighbours. A neighbour in two cycles counts once.
const CYCLES: u8 = 8;
const CONTEXT: &str = "fog-v1 graph of links";

/// The links of a network in which not everybody is linked to everybody.
#[derive(Clone)]
pub(crate) struct Graph {
    /// Ascending.
    nodes: Vec<NodeId>,
    /// By place in `nodes`: the places of a node's neighbours, ascending.
    neighbours: Vec<Vec<usize>>,
}

impl Graph {
    /// The graph of these nodes, which ascend; `None` if they are so few that all are linked.
    pub(crate) fn of(list: ListHash, nodes: Vec<NodeId>) -> Option<Self> {
        if nodes.len() <= COMPLETE {
            return None;
        }
        let mut neighbours = vec![BTreeSet::new(); nodes.len()];
        for cycle in 0..CYCLES {
            let order = order(list, cycle, &nodes);
            let next = order.iter().cycle().skip(1);
            for (one, other) in order.iter().zip(next) {
                for (from, to) in [(one, other), (other, one)] {
                    if let Some(links) = neighbours.get_mut(*from) {
                        links.insert(*to);
                    }
                }
            }
        }
        let neighbours = neighbours.into_iter().map(|links| links.into_iter().collect()).collect();
        Some(Self { nodes, neighbours })
    }

    /// The neighbours of a node; `None` if it is not in the graph.
    pub(crate) fn neighbours(&self, node: &NodeId) -> Option<impl Iterator<Item = NodeId>> {
        let place = self.place(node)?;
        Some(self.around(place).iter().filter_map(|place| self.nodes.get(*place).copied()))
    }

    fn place(&self, node: &NodeId) -> Option<usize> {
        self.nodes.binary_search(node).ok()
    }

    fn around(&self, place: usize) -> &[usize] {
        self.neighbours.get(place).map_or(&[], Vec::as_slice)
    }

    /// How often a walk of each length ends at each node, where every step goes to a node that
    /// `may_pass`, and the first to a neighbour of `from`, or to any node if that is not in the
    /// graph.
    pub(crate) fn walks(
        &self,
        from: Option<&NodeId>,
        may_pass: impl Fn(&NodeId) -> bool,
    ) -> Walks<'_> {
        let passable: Vec<bool> = self.nodes.iter().map(may_pass).collect();
        let may = |place: usize| passable.get(place).copied().unwrap_or_default();
        let start = from.and_then(|node| self.place(node));
        let first = (0..self.nodes.len()).map(|place| {
            let is_near = start.is_none_or(|start| self.around(start).contains(&place));
            f64::from(u8::from(is_near && may(place)))
        });
        let mut counts: Vec<Vec<f64>> = vec![first.collect()];
        for _ in 1..LONGEST {
            let before = counts.last().map_or(&[][..], Vec::as_slice);
            let ways = |place: usize| match may(place) {
                true => self.around(place).iter().filter_map(|near| before.get(*near)).sum(),
                false => 0.0,
            };
            counts.push((0..self.nodes.len()).map(ways).collect());
        }
        Walks { graph: self, counts }
    }
}

fn order(list: ListHash, cycle: u8, nodes: &[NodeId]) -> Vec<usize> {
    let hash = |node: &NodeId| {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(list.as_bytes()).update(&[cycle]).update(node.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut order: Vec<_> = nodes.iter().map(hash).zip(0..).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, place)| place).collect()
}

/// Steps of the longest walk.
const LONGEST: usize = crate::Route::MAX;

/// Walks from one node, counted.
pub(crate) struct Walks<'a> {
    graph: &'a Graph,
    /// By steps less one, then by the place of the last node.
    counts: Vec<Vec<f64>>,
}

impl Walks<'_> {
    fn count(&self, steps: usize, place: usize) -> f64 {
        let counts = steps.checked_sub(1).and_then(|steps| self.counts.get(steps));
        counts.and_then(|counts| counts.get(place)).copied().unwrap_or_default()
    }

    /// Whether a walk of this many steps ends at a node.
    pub(crate) fn reach(&self, node: &NodeId, steps: usize) -> bool {
        self.graph.place(node).is_some_and(|place| self.count(steps, place) > 0.0)
    }

    /// Draws one of the walks of this many steps to a node, each as likely as any other: the nodes
    /// that it visits, the last one included. It may visit one twice.
    pub(crate) fn draw(
        &self,
        to: &NodeId,
        steps: usize,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<Vec<NodeId>> {
        let mut place = self.graph.place(to).filter(|place| self.count(steps, *place) > 0.0)?;
        let mut places = vec![place];
        for left in (1..steps).rev() {
            let near = self.graph.around(place);
            let all: f64 = near.iter().map(|near| self.count(left, *near)).sum();
            let mut drawn = rng.random::<f64>() * all;
            let may = near.iter().filter(|near| self.count(left, **near) > 0.0);
            // The last is for what rounding leaves.
            let last = may.clone().next_back();
            let mut chosen = may.clone().copied().find(|near| {
                drawn -= self.count(left, *near);
                drawn < 0.0
            });
            chosen = chosen.or(last.copied());
            place = chosen?;
            places.push(place);
        }
        places.iter().rev().map(|place| self.graph.nodes.get(*place).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn nodes(count: u16) -> Vec<NodeId> {
        let node = |number: u16| {
            let mut octets = [0; 32];
            octets[..2].copy_from_slice(&number.to_be_bytes());
            NodeId::from_bytes(octets)
        };
        (0..count).map(node).collect()
    }

    fn graph(list: u8, count: u16) -> Graph {
        Graph::of(ListHash::from_bytes([list; 32]), nodes(count)).unwrap()
    }

    #[test]
    fn sixty_four_are_all_linked_and_of_more_each_has_sixteen_neighbours() {
        assert!(Graph::of(ListHash::from_bytes([1; 32]), nodes(64)).is_none());
        for count in [65, 200, 1000] {
            let graph = graph(1, count);
            let degrees: Vec<_> = graph.neighbours.iter().map(Vec::len).collect();
            let links: usize = degrees.iter().sum();
            assert!(degrees.iter().all(|degree| (8..=16).contains(degree)));
            let mean = links as f64 / f64::from(count);
            assert!(mean > if count == 65 { 13.5 } else { 15.4 }, "{count}: {mean}");
            for (place, links) in graph.neighbours.iter().enumerate() {
                assert!(!links.contains(&place));
                assert!(links.iter().all(|other| graph.around(*other).contains(&place)));
            }
        }
    }

    /// Computed by another implementation of BLAKE3, from the words above.
    #[test]
    fn the_graph_is_that_of_the_specification() {
        let graph = graph(1, 65);
        let near = |place: usize| graph.neighbours[place].clone();
        assert_eq!(near(0), [1, 10, 12, 14, 15, 18, 30, 35, 45, 47, 52, 55, 60, 62, 64]);
        assert_eq!(near(64), [0, 2, 7, 10, 22, 29, 31, 33, 40, 48, 49, 50, 54]);
    }

    #[test]
    fn another_list_makes_another_graph_and_the_same_one_the_same() {
        assert_eq!(graph(1, 200).neighbours, graph(1, 200).neighbours);
        let (one, other) = (graph(1, 200), graph(2, 200));
        let stay = one.neighbours.iter().zip(&other.neighbours);
        let stay = stay.map(|(one, other)| one.iter().filter(|near| other.contains(near)).count());
        assert!(stay.sum::<usize>() < 200 * 4, "of 3,200 ends few stay");
    }

    #[test]
    fn everybody_is_within_a_few_steps_of_everybody() {
        let graph = graph(3, 1000);
        let walks = graph.walks(Some(&graph.nodes[0]), |_| true);
        for (steps, least) in [(1, 0.01), (2, 0.18), (3, 0.95), (4, 1.0)] {
            let reached = graph.nodes.iter().filter(|node| walks.reach(node, steps)).count();
            assert!(reached as f64 / 1000.0 >= least, "{reached} after {steps}");
        }
    }

    #[test]
    fn walks_keep_to_links_and_to_nodes_that_may_be_passed() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let graph = graph(4, 300);
        let gone = |node: &NodeId| node.as_bytes()[1].is_multiple_of(3);
        let (from, to) = (graph.nodes[0], graph.nodes[299]);
        let linked = |one: &NodeId, other: &NodeId| {
            graph.neighbours(one).unwrap().any(|near| near == *other)
        };
        let walks = graph.walks(Some(&from), |node| !gone(node));
        for steps in 3..=6 {
            for _ in 0..50 {
                let walk = walks.draw(&to, steps, &mut rng).unwrap();
                assert_eq!((walk.len(), walk.last()), (steps, Some(&to)));
                assert!(linked(&from, &walk[0]) && !walk.iter().any(gone));
                assert!(walk.windows(2).all(|pair| linked(&pair[0], &pair[1])));
            }
        }
        assert!(walks.draw(&graph.nodes[3], 4, &mut rng).is_none(), "it may not be passed");
        let stranger = NodeId::from_bytes([0xff; 32]);
        let anywhere = graph.walks(Some(&stranger), |_| true);
        assert!(graph.nodes.iter().all(|node| anywhere.reach(node, 1)), "no link binds a stranger");
    }

    /// Against the number that the walks of each first hop are of all, by chi-square.
    #[test]
    fn each_walk_is_as_likely_as_any_other() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let graph = graph(5, 100);
        let (from, to) = (graph.nodes[0], graph.nodes[50]);
        let walks = graph.walks(Some(&from), |node| *node != from);
        let mut all: std::collections::BTreeMap<Vec<NodeId>, u32> = Default::default();
        const DRAWS: u32 = 20_000;
        for _ in 0..DRAWS {
            *all.entry(walks.draw(&to, 3, &mut rng).unwrap()).or_default() += 1;
        }
        let place = graph.place(&to).unwrap();
        let ways = walks.count(3, place);
        assert_eq!(all.len() as f64, ways, "every walk is drawn sooner or later");
        let expected = f64::from(DRAWS) / ways;
        let chi: f64 = all.values().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
        // Mean `ways - 1`, deviation the root of twice that: five deviations above are one in
        // millions.
        assert!(chi < ways + 5.0 * (2.0 * ways).sqrt(), "{chi} of {ways}");
    }
}

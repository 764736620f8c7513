//! Nodes to which links are wanted, and when each is dialled again.

use std::collections::BTreeMap;
use std::time::Duration;

use keys::NodeId;
use rand::{Rng, RngExt as _};
use remailer::MAX_LINKS;

/// Dials begun in one round.
const DIALS_AT_ONCE: usize = 8;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// When Tor is back, all nodes are dialled anew, spread over this time.
const SPREAD: Duration = Duration::from_secs(5);

/// Nodes that are to be linked. Times are monotonic since the start.
#[derive(Default)]
pub(crate) struct WantedLinks(BTreeMap<NodeId, Dialing>);

struct Dialing {
    next: Duration,
    wait: Duration,
}

impl WantedLinks {
    /// Wants a link; the dial is due at once.
    pub(crate) fn want(&mut self, node: NodeId) {
        if self.0.len() < MAX_LINKS {
            self.0.entry(node).or_insert(Dialing { next: Duration::ZERO, wait: FIRST_WAIT });
        }
    }

    /// Drops the other nodes: a node that was heard of first would hold its place for ever.
    pub(crate) fn keep_only(&mut self, wanted: impl Fn(&NodeId) -> bool) {
        self.0.retain(|node, _| wanted(node));
    }

    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.0.remove(node);
    }

    /// Notes that a link is up: should it break, the first dial comes soon.
    pub(crate) fn connected(&mut self, node: &NodeId, now: Duration) {
        if let Some(dialing) = self.0.get_mut(node) {
            *dialing = Dialing { next: now + FIRST_WAIT, wait: FIRST_WAIT };
        }
    }

    /// Puts off dials to a node: they make no sense before `then`.
    pub(crate) fn not_before(&mut self, node: &NodeId, then: Duration) {
        if let Some(dialing) = self.0.get_mut(node) {
            dialing.next = dialing.next.max(then);
        }
    }

    /// Makes all dials due soon, though not all at once: the reason of past failures is gone.
    pub(crate) fn renew(&mut self, now: Duration, rng: &mut impl Rng) {
        for dialing in self.0.values_mut() {
            let soon = now + SPREAD.mul_f64(rng.random_range(0.0..1.0));
            *dialing = Dialing { next: soon, wait: FIRST_WAIT };
        }
    }

    /// Nodes to dial now, of those that are not linked. Each is put off by twice its last
    /// wait, with a random part so that nodes do not dial in step.
    pub(crate) fn due(
        &mut self,
        now: Duration,
        linked: impl Fn(&NodeId) -> bool,
        rng: &mut impl Rng,
    ) -> Vec<NodeId> {
        let mut due = Vec::new();
        for (node, dialing) in &mut self.0 {
            if dialing.next <= now && !linked(node) && due.len() < DIALS_AT_ONCE {
                dialing.next = now + dialing.wait.mul_f64(rng.random_range(0.75..1.5));
                dialing.wait = (dialing.wait * 2).min(LONGEST_WAIT);
                due.push(*node);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn dials_back_off_and_begin_anew_after_a_link() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut wanted = WantedLinks::default();
        let node = NodeId::from_bytes([1; 32]);
        wanted.want(node);
        let mut dials = 0;
        for second in 0..3600 {
            dials += wanted.due(Duration::from_secs(second), |_| false, &mut rng).len();
        }
        assert!((30..60).contains(&dials), "{dials}");
        wanted.connected(&node, Duration::from_secs(3600));
        assert!(wanted.due(Duration::from_secs(3602), |_| true, &mut rng).is_empty());
        assert_eq!(wanted.due(Duration::from_secs(3602), |_| false, &mut rng), [node]);
    }

    #[test]
    fn when_tor_is_back_nobody_waits_long_and_not_all_are_dialled_at_once() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut wanted = WantedLinks::default();
        for number in 0..64 {
            wanted.want(NodeId::from_bytes([number; 32]));
        }
        let second = Duration::from_secs(1);
        for at in 0..1800 {
            wanted.due(second * at, |_| false, &mut rng);
        }
        let never = NodeId::from_bytes([0; 32]);
        wanted.renew(second * 1800, &mut rng);
        wanted.not_before(&never, Duration::MAX);
        let at_once = wanted.due(second * 1800, |_| false, &mut rng).len();
        assert!(at_once < DIALS_AT_ONCE, "{at_once}");
        let mut dialled = std::collections::BTreeSet::new();
        for half in 0..30 {
            dialled.extend(wanted.due(second * 1800 + second * half / 2, |_| false, &mut rng));
        }
        assert_eq!(dialled.len(), 63);
        assert!(!dialled.contains(&never));
    }

    #[test]
    fn a_link_that_was_wanted_stays_wanted_in_a_network_of_more_than_64() {
        let node = |number| NodeId::from_bytes([number; 32]);
        let mut wanted = WantedLinks::default();
        (0..100).map(node).for_each(|node| wanted.want(node));
        let before: Vec<_> = wanted.0.keys().copied().collect();
        // The next hour's view has the same nodes, drawn in another order.
        let view: Vec<_> = (0..100).rev().map(node).collect();
        wanted.keep_only(|node| view.contains(node));
        view.iter().for_each(|node| wanted.want(*node));
        assert!(wanted.0.keys().eq(before.iter()));
    }

    #[test]
    fn at_most_64_links_are_wanted() {
        let mut wanted = WantedLinks::default();
        for number in 0..200 {
            wanted.want(NodeId::from_bytes([number; 32]));
        }
        assert_eq!(wanted.0.len(), MAX_LINKS);
        let last = NodeId::from_bytes([199; 32]);
        wanted.keep_only(|node| *node < NodeId::from_bytes([10; 32]));
        wanted.want(last);
        assert!(wanted.0.contains_key(&last));
    }
}

//! Gossiped statements that wait to be verified.
//!
//! Each peer has a queue of its own and they take turns, so one that floods delays itself. When too
//! many wait in all, the newest statement of the worst peer is dropped: of the peer with the lowest
//! score, and among equals of the one with the most waiting.

use std::collections::{BTreeMap, VecDeque};

use keys::NodeId;

/// Statements waiting, at most: 512 of up to 20 KiB are 10 MiB.
const MAX_WAITING: usize = 512;

/// A queue for each peer.
pub(super) struct Waiting<T> {
    queues: BTreeMap<NodeId, VecDeque<T>>,
    len: usize,
    /// The peer whose turn was last.
    last: Option<NodeId>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), len: 0, last: None }
    }
}

impl<T> Waiting<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a statement at the end of its peer's queue; returns a statement dropped for it.
    #[must_use]
    pub(super) fn push(
        &mut self,
        peer: NodeId,
        statement: T,
        score: impl Fn(&NodeId) -> f64,
    ) -> Option<T> {
        self.queues.entry(peer).or_default().push_back(statement);
        self.len += 1;
        if self.len <= MAX_WAITING {
            return None;
        }
        let worst = self.queues.iter().min_by(|(a, a_queue), (b, b_queue)| {
            score(a).total_cmp(&score(b)).then(b_queue.len().cmp(&a_queue.len()))
        });
        let worst = worst.map(|(peer, _)| *peer)?;
        self.take(worst, VecDeque::pop_back)
    }

    /// The oldest statement of the peer whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.last.map_or(Unbounded, Excluded);
        let mut next = self.queues.range((after, Unbounded)).map(|(peer, _)| *peer);
        let next = next.next().or_else(|| self.queues.keys().next().copied())?;
        self.last = Some(next);
        self.take(next, VecDeque::pop_front)
    }

    /// Removes and returns the waiting statements of a peer that is gone.
    pub(super) fn forget(&mut self, peer: &NodeId) -> VecDeque<T> {
        let gone = self.queues.remove(peer).unwrap_or_default();
        self.len -= gone.len();
        gone
    }

    fn take(&mut self, peer: NodeId, end: impl Fn(&mut VecDeque<T>) -> Option<T>) -> Option<T> {
        let queue = self.queues.get_mut(&peer)?;
        let taken = end(queue);
        self.len -= usize::from(taken.is_some());
        if queue.is_empty() {
            self.queues.remove(&peer);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn who_floods_delays_itself_and_loses_its_newest() {
        let mut waiting = Waiting::default();
        let score = |_: &NodeId| 0.0;
        let mut shed = Vec::new();
        for number in 0..10_000 {
            shed.extend(waiting.push(peer(1), (1, number), score));
        }
        assert_eq!(waiting.len, MAX_WAITING);
        assert!(shed.iter().all(|(_, number)| *number >= MAX_WAITING));
        // The flooder's newest makes room for an honest statement, which comes second at worst.
        assert_eq!(waiting.push(peer(2), (2, 0), score), Some((1, MAX_WAITING - 1)));
        let first = [waiting.pop(), waiting.pop()];
        assert!(first.contains(&Some((2, 0))) && first.contains(&Some((1, 0))), "{first:?}");
    }

    #[test]
    fn the_lowest_score_is_the_worst_however_short_its_queue() {
        let mut waiting = Waiting::default();
        let score = |node: &NodeId| if *node == peer(3) { -1.0 } else { 0.0 };
        assert_eq!(waiting.push(peer(3), 0, score), None);
        for number in 1..MAX_WAITING {
            assert_eq!(waiting.push(peer(1), number, score), None);
        }
        assert_eq!(waiting.push(peer(2), 9999, score), Some(0));
        assert_eq!(waiting.forget(&peer(1)).len(), MAX_WAITING - 1);
        assert_eq!((waiting.pop(), waiting.pop()), (Some(9999), None));
        assert!(waiting.is_empty());
    }
}

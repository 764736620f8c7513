//! Links of nodes that no list names: they have places of their own, and the one that has had its
//! place longest gives it up to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use keys::NodeId;
use libp2p::swarm::ConnectionId;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::places::{Places, Rule, Seat};

/// Half of what is there for callers, or less: the others are for nodes of the list.
const MOST: usize = 96;
/// A joiner has learnt what it came for within this time.
const GRACE: Duration = Duration::from_secs(30);

/// The links of strangers that dialled this node.
pub(super) struct Strangers {
    places: Arc<Places>,
    listed: watch::Receiver<BTreeSet<NodeId>>,
    seats: BTreeMap<ConnectionId, (NodeId, Seat)>,
}

impl Strangers {
    pub(super) fn new(clock: Clock, listed: watch::Receiver<BTreeSet<NodeId>>) -> Self {
        let rule = Rule { most: MOST, grace: GRACE, pace: u64::MAX };
        Self { places: Places::new(rule, clock), listed, seats: BTreeMap::new() }
    }

    pub(super) fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places)
    }

    /// Notes a link that a node dialled. Returns the links that have to end: this one, if there is
    /// no place for it, or another.
    pub(super) fn connected(&mut self, id: ConnectionId, node: NodeId) -> Vec<ConnectionId> {
        let listed = self.listed.borrow();
        // One that the list names by now needs no place here any more.
        self.seats.retain(|_, (node, _)| !listed.contains(node));
        if listed.contains(&node) {
            return Vec::new();
        }
        let Some(seat) = self.places.try_take() else { return vec![id] };
        self.seats.insert(id, (node, seat));
        let gone = self.seats.extract_if(.., |_, (_, seat)| seat.must_go());
        gone.map(|(id, _)| id).collect()
    }

    pub(super) fn disconnected(&mut self, id: ConnectionId) {
        self.seats.remove(&id);
    }
}

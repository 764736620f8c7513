//! What the records say for one hour, and routes from that.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Epoch, Hour, NodeId, Time};
use rand::seq::SliceRandom as _;
use rand::{CryptoRng, RngExt as _};
use record::Record;

use crate::admit::Directory;

/// The records of one hour, however few.
pub struct PartialView {
    taken: Time,
    records: BTreeMap<NodeId, Arc<Record>>,
}

/// The records of one hour, enough to route through. Held behind an `Arc` and replaced whole.
pub struct View {
    taken: Time,
    records: BTreeMap<NodeId, Arc<Record>>,
}

/// Distinct nodes to send through, first to last; the last one is an exit that delivers what was asked.
pub struct Route(Vec<Arc<Record>>);

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Fewer usable nodes than a route needs.
    #[error("too few nodes to route through")]
    TooFewNodes,
    /// No exit delivers that.
    #[error("no exit delivers that")]
    NoExit,
}

impl Directory {
    /// The view of an hour: for each identity the newest record published at least `settle` before the
    /// hour began, if it has a key for that time.
    #[must_use]
    pub fn partial_view(&self, hour: Hour, settle: Duration) -> PartialView {
        let taken = self.schedule().hour_start(hour);
        self.view_of(self.published_by(taken.minus(settle)), taken)
    }

    /// The first view of a network that has just been started, taken at `now` from all that is known.
    #[must_use]
    pub fn first_view(&self, now: Time) -> PartialView {
        self.view_of(self.iter(), now)
    }

    fn view_of<'a>(
        &self,
        records: impl Iterator<Item = &'a Arc<Record>>,
        taken: Time,
    ) -> PartialView {
        let epoch = self.schedule().epoch_at(taken);
        let usable = records.filter(|record| record.key(epoch).is_some());
        PartialView { taken, records: usable.map(|r| (r.node(), Arc::clone(r))).collect() }
    }
}

impl PartialView {
    /// A view, if a route through others can be made from it.
    ///
    /// # Errors
    /// [`RouteError::TooFewNodes`].
    pub fn if_sufficient(self) -> Result<View, RouteError> {
        if self.records.len() > Route::MIN {
            Ok(View { taken: self.taken, records: self.records })
        } else {
            Err(RouteError::TooFewNodes)
        }
    }
}

impl View {
    /// The instant it speaks of.
    #[must_use]
    pub fn taken(&self) -> Time {
        self.taken
    }

    /// How many nodes are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Never: a view has enough nodes for a route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The record of a node in this view.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Arc<Record>> {
        self.records.get(node)
    }

    /// All records, by identity.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values()
    }

    /// Whether [`View::route`] would find a route.
    ///
    /// # Errors
    /// As [`View::route`].
    pub fn reaches(
        &self,
        own: &[NodeId],
        epochs: &RangeInclusive<Epoch>,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<(), RouteError> {
        let (nodes, exits) = self.candidates(own, epochs, allows)?;
        let has_route = |exit: &&Arc<Record>| !strangers(exit, &nodes, Route::MIN - 1).is_empty();
        if exits.iter().any(has_route) { Ok(()) } else { Err(RouteError::TooFewNodes) }
    }

    /// Draws a route for packets that will be under way in `epochs`: the exit uniformly from those that
    /// `allows` takes, the length uniformly from 3 to 6 (or to as many nodes as there are), the others
    /// uniformly from the rest, none twice, never two of one family, and none of `own`: the sender, and
    /// the nodes that its operator runs beside it. Only nodes with a key for each of the epochs take part.
    ///
    /// # Errors
    /// [`RouteError`]; never a shorter route.
    pub fn route(
        &self,
        own: &[NodeId],
        epochs: &RangeInclusive<Epoch>,
        rng: &mut (impl CryptoRng + ?Sized),
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Route, RouteError> {
        let (mut nodes, mut exits) = self.candidates(own, epochs, allows)?;
        exits.shuffle(rng);
        nodes.shuffle(rng);
        for exit in exits {
            let mut hops = strangers(exit, &nodes, Route::MAX - 1);
            if !hops.is_empty() {
                let length = rng.random_range(Route::MIN..=hops.len() + 1);
                hops.truncate(length - 1);
                hops.push(Arc::clone(exit));
                return Ok(Route(hops));
            }
        }
        Err(RouteError::TooFewNodes)
    }

    #[expect(clippy::type_complexity, reason = "all nodes and the exits among them, used once")]
    fn candidates(
        &self,
        own: &[NodeId],
        epochs: &RangeInclusive<Epoch>,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<(Vec<&Arc<Record>>, Vec<&Arc<Record>>), RouteError> {
        let has_keys = |record: &Record| {
            (epochs.start().number()..=epochs.end().number())
                .all(|number| record.key(Epoch::new(number)).is_some())
        };
        let others = self.records.values().filter(|record| !own.contains(&record.node()));
        let nodes: Vec<_> = others.filter(|record| has_keys(record)).collect();
        if nodes.len() < Route::MIN {
            return Err(RouteError::TooFewNodes);
        }
        let exits: Vec<_> = nodes.iter().copied().filter(|record| allows(record)).collect();
        if exits.is_empty() { Err(RouteError::NoExit) } else { Ok((nodes, exits)) }
    }
}

/// The first of these nodes, at most `count`, that are not the exit, nor of one family with it or with each
/// other; none if there are too few for a route.
fn strangers(exit: &Arc<Record>, nodes: &[&Arc<Record>], count: usize) -> Vec<Arc<Record>> {
    let fits = |node: &Record| node.node() != exit.node() && !exit.is_family_of(node);
    let mut taken: Vec<Arc<Record>> = Vec::with_capacity(Route::MAX);
    for node in nodes.iter().filter(|node| fits(node)) {
        if taken.len() == count {
            break;
        }
        if !taken.iter().any(|other| other.is_family_of(node)) {
            taken.push(Arc::clone(node));
        }
    }
    if taken.len() >= Route::MIN - 1 {
        return taken;
    }
    // One that names many who do not name each other stands in its own way. A record names at most 16, so
    // a pair is found among the first few if there is one.
    let mut rest = nodes.iter().filter(|node| fits(node));
    while let Some(first) = rest.next() {
        if let Some(second) = rest.clone().find(|second| !first.is_family_of(second)) {
            return vec![Arc::clone(first), Arc::clone(second)];
        }
    }
    Vec::new()
}

impl Route {
    /// Fewest nodes.
    pub const MIN: usize = 3;
    /// Most nodes.
    pub const MAX: usize = 6;

    /// The nodes, first to last.
    #[must_use]
    pub fn hops(&self) -> &[Arc<Record>] {
        &self.0
    }
}

//! The nodes of a list that may be used, and routes through them.

use core::ops::RangeInclusive;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keys::{Epoch, NodeId, Time};
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{CryptoRng, RngExt as _};
use record::{Breach, ListHash, Record};

use crate::admit::Directory;
use crate::graph::{Graph, Walks};
use crate::item::ItemId;

/// Hops of a route.
const LENGTHS: RangeInclusive<usize> = Route::MIN..=Route::MAX;
/// Walks to one exit that are drawn, at most, until one is a route.
const MAX_DRAWS: usize = 64;

/// The usable nodes of one hour, however few.
pub struct PartialView {
    taken: Time,
    list: ListHash,
    seats: BTreeMap<NodeId, Seat>,
}

/// The usable nodes of one hour, enough to route through. Held behind an `Arc` and replaced whole.
pub struct View {
    taken: Time,
    seats: BTreeMap<NodeId, Seat>,
    /// Mails an hour in the whole network, as its exits say.
    volume: u32,
    /// Nodes in it, those included that the operator avoids.
    listed: usize,
    /// `None` if everybody is linked to everybody.
    graph: Option<Arc<Graph>>,
}

/// A node's place in a view.
#[derive(Clone)]
struct Seat {
    record: Arc<Record>,
    /// Whether routes may end there, if its record says that it delivers.
    use_as: Use,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Relay,
    Exit,
}

/// How a node stands: in the list that is used, or else why the next votes would not name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Routes go through it.
    Routable,
    /// Routes go through it, but end there only from this time on.
    NotYetExit(Time),
    /// It is listed, and relays from this time on.
    Probation(Time),
    /// Nothing speaks against it: the next votes are expected to name it.
    NotListed,
    /// It has no record that is old enough to be voted for.
    Unsettled,
    /// It has no record that holds a key for this time.
    NoKey,
    /// Nobody vouches for it.
    NotVouched,
    /// Its record says something that this version does not understand.
    NotUnderstood,
    /// It is about to leave: the next votes do not name it.
    Leaving,
    /// The voters have retired it.
    Retired,
    /// It broke its word.
    Convicted(Breach),
}

/// Distinct nodes to send through, first to last; the last one is an exit that delivers what was
/// asked.
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
    /// The nodes of the newest list that may be used: those whose probation is over.
    #[must_use]
    pub fn view(&self) -> Option<PartialView> {
        let list = self.lists.newest()?;
        let seats = list.iter().filter_map(|listed| {
            let record = self.lists.pinned(&ItemId::named(listed.record))?;
            let use_as = match self.stands(listed, list.hour()) {
                Standing::Routable if listed.exits => Use::Exit,
                Standing::Routable | Standing::NotYetExit(_) => Use::Relay,
                Standing::Probation(_)
                | Standing::NotListed
                | Standing::Unsettled
                | Standing::NoKey
                | Standing::NotVouched
                | Standing::NotUnderstood
                | Standing::Leaving
                | Standing::Retired
                | Standing::Convicted(_) => return None,
            };
            Some((listed.node, Seat { record: Arc::clone(record), use_as }))
        });
        let seats = seats.collect();
        Some(PartialView { taken: self.schedule.hour_start(list.hour()), list: list.hash(), seats })
    }
}

/// Equal if the instants, the records and their uses are.
impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        let seat = |(_, seat): (_, &Seat)| (seat.record.hash(), seat.use_as);
        self.taken == other.taken && self.seats.iter().map(seat).eq(other.seats.iter().map(seat))
    }
}

/// Equal if the records of the nodes are, in their order.
impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        let hash = |record: &Arc<Record>| record.hash();
        self.0.iter().map(hash).eq(other.0.iter().map(hash))
    }
}

impl PartialView {
    /// A view, if a route through others can be made from it.
    ///
    /// # Errors
    /// [`RouteError::TooFewNodes`].
    pub fn if_sufficient(self) -> Result<View, RouteError> {
        if self.seats.len() <= Route::MIN {
            return Err(RouteError::TooFewNodes);
        }
        let graph = Graph::of(self.list, self.seats.keys().copied().collect());
        let volume = volume(self.seats.values());
        let listed = self.seats.len();
        Ok(View {
            taken: self.taken,
            seats: self.seats,
            volume,
            listed,
            graph: graph.map(Arc::new),
        })
    }
}

impl View {
    /// When the hour began whose list it is of.
    #[must_use]
    pub fn taken(&self) -> Time {
        self.taken
    }

    /// Mails an hour in the whole network: the median of what the list's exits say that they have
    /// delivered in a day, times their number. The same for everybody with the same list, whatever its
    /// operator avoids; less than half of the exits cannot move it beyond what the others say.
    #[must_use]
    pub fn volume(&self) -> u32 {
        self.volume
    }

    /// How many nodes the list has for it, whatever this node's operator avoids.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.listed
    }

    /// How many nodes are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether nobody is in it, which only leaving nodes out can bring about.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// The record of a node in this view.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Arc<Record>> {
        self.seats.get(node).map(|seat| &seat.record)
    }

    /// The same view without these nodes, which an operator avoids.
    #[must_use]
    pub fn without(&self, gone: &BTreeSet<NodeId>) -> Self {
        let seats = self.seats.iter().filter(|(node, _)| !gone.contains(node));
        let seats = seats.map(|(node, seat)| (*node, seat.clone())).collect();
        Self { seats, graph: self.graph.clone(), ..*self }
    }

    /// Whether everybody is linked to everybody.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.graph.is_none()
    }

    /// The nodes that a node of this view keeps links to, by identity; `None` for a node that is
    /// not in it, where not everybody is linked to everybody.
    #[must_use]
    pub fn links_of(&self, node: &NodeId) -> Option<Vec<NodeId>> {
        match &self.graph {
            None => Some(self.seats.keys().filter(|other| *other != node).copied().collect()),
            Some(graph) => {
                let near = graph.neighbours(node)?;
                Some(near.filter(|near| self.seats.contains_key(near)).collect())
            }
        }
    }

    /// All records, by identity.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.seats.values().map(|seat| &seat.record)
    }

    /// The records of those at which routes may end.
    pub fn exits(&self) -> impl Iterator<Item = &Arc<Record>> {
        exits(self.seats.values()).map(|seat| &seat.record)
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
        let is_reached = match &self.graph {
            None => exits.iter().any(has_route),
            Some(graph) => {
                let walks = walks(graph, own, &nodes);
                let mut ends = exits.iter().map(|exit| exit.node());
                ends.any(|exit| LENGTHS.into_iter().any(|hops| walks.reach(&exit, hops)))
            }
        };
        if is_reached { Ok(()) } else { Err(RouteError::TooFewNodes) }
    }

    /// Draws a route for packets that will be under way in `epochs`: the exit uniformly from those
    /// that `allows` takes, the length uniformly from 3 to 6 (or to as many nodes as there are),
    /// the others uniformly from the rest, none twice, never two of one family, and none of `own`:
    /// the sender first, then the nodes that its operator runs beside it. Only nodes with a key for
    /// each of the epochs take part.
    ///
    /// Where not everybody is linked to everybody, the route is a walk over links, from the sender
    /// if that is in the view: uniform among those of its length that end at the exit.
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
        self.draw(None, own, epochs, rng, allows)
    }

    /// Draws another route as [`View::route`] does, of which the first node is this one.
    ///
    /// # Errors
    /// [`RouteError`]; never a shorter route.
    pub fn route_through(
        &self,
        first: &NodeId,
        own: &[NodeId],
        epochs: &RangeInclusive<Epoch>,
        rng: &mut (impl CryptoRng + ?Sized),
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Route, RouteError> {
        self.draw(Some(first), own, epochs, rng, allows)
    }

    fn draw(
        &self,
        first: Option<&NodeId>,
        own: &[NodeId],
        epochs: &RangeInclusive<Epoch>,
        rng: &mut (impl CryptoRng + ?Sized),
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Route, RouteError> {
        let (mut nodes, mut exits) = self.candidates(own, epochs, allows)?;
        let find = |first: &NodeId| nodes.iter().find(|record| record.node() == *first).copied();
        let first = first.map(|first| find(first).cloned().ok_or(RouteError::TooFewNodes));
        let first = first.transpose()?;
        if let Some(first) = &first {
            let is_other = |record: &&Arc<Record>| {
                record.node() != first.node() && !record.is_family_of(first)
            };
            nodes.retain(is_other);
            exits.retain(is_other);
        }
        exits.shuffle(rng);
        if let Some(graph) = &self.graph {
            let from = first.as_ref().map(|first| first.node());
            let walks = walks(graph, from.as_ref().map_or(own, core::slice::from_ref), &nodes);
            let mut walk = |exit| self.walk(&walks, exit, first.as_ref(), rng);
            return exits.into_iter().find_map(&mut walk).ok_or(RouteError::TooFewNodes);
        }
        nodes.shuffle(rng);
        // The exit, and the first node if it is given.
        let ends = 1 + usize::from(first.is_some());
        for exit in exits {
            let between = match &first {
                None => strangers(exit, &nodes, Route::MAX - ends),
                Some(_) => some_strangers(exit, &nodes, Route::MAX - ends),
            };
            if between.len() + ends >= Route::MIN {
                let length = rng.random_range(Route::MIN..=between.len() + ends);
                let between = between.into_iter().take(length - ends);
                let hops = first.into_iter().chain(between);
                return Ok(Route(hops.chain([Arc::clone(exit)]).collect()));
            }
        }
        Err(RouteError::TooFewNodes)
    }

    /// Draws the route of a reply, from the node that answers to this one, which is its last hop: the
    /// length as for [`View::route`], and the others uniformly from those that `allows` takes, without
    /// the node that answers and its family. `own` is as there, `owner` this node's own record.
    ///
    /// Where not everybody is linked to everybody, the route is a walk over links from the node that
    /// answers, and only a node in the view has one.
    ///
    /// # Errors
    /// [`RouteError::TooFewNodes`]; never a shorter route.
    pub fn route_back(
        &self,
        (own, owner): (&[NodeId], &Arc<Record>),
        from: &Record,
        epochs: &RangeInclusive<Epoch>,
        rng: &mut (impl CryptoRng + ?Sized),
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Route, RouteError> {
        let is_other = |node: &Record| node.node() != from.node() && !from.is_family_of(node);
        let others = self.seats.values().map(|seat| &seat.record);
        let others = others.filter(|record| !own.contains(&record.node()) && is_other(record));
        let mut nodes: Vec<_> =
            others.filter(|record| has_keys(record, epochs) && allows(record)).collect();
        if !has_keys(owner, epochs) {
            return Err(RouteError::TooFewNodes);
        }
        if let Some(graph) = &self.graph {
            let mut usable: BTreeSet<_> = nodes.iter().map(|record| record.node()).collect();
            usable.insert(owner.node());
            let walks = graph.walks(Some(&from.node()), |node| usable.contains(node));
            return self.walk(&walks, owner, None, rng).ok_or(RouteError::TooFewNodes);
        }
        nodes.shuffle(rng);
        let mut hops = strangers(owner, &nodes, Route::MAX - 1);
        if hops.is_empty() {
            return Err(RouteError::TooFewNodes);
        }
        let length = rng.random_range(Route::MIN..=hops.len() + 1);
        hops.truncate(length - 1);
        hops.push(Arc::clone(owner));
        Ok(Route(hops))
    }

    /// A walk to an exit that visits nobody twice and no two of one family. Most are such; a network
    /// in which hardly any is has no route. The walks may be those that begin after a first node.
    fn walk(
        &self,
        walks: &Walks<'_>,
        exit: &Arc<Record>,
        first: Option<&Arc<Record>>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<Route> {
        let lengths = LENGTHS.map(|hops| hops - usize::from(first.is_some()));
        let lengths = lengths.filter(|hops| walks.reach(&exit.node(), *hops));
        let lengths: Vec<_> = lengths.collect();
        for _ in 0..MAX_DRAWS {
            let length = lengths.choose(rng)?;
            let visited = walks.draw(&exit.node(), *length, rng)?;
            let record = |node: &NodeId| match *node == exit.node() {
                true => Some(Arc::clone(exit)),
                false => self.get(node).cloned(),
            };
            let hops = visited.iter().map(record);
            let hops: Option<Vec<_>> = first.cloned().map(Some).into_iter().chain(hops).collect();
            let hops = hops?;
            let fits = |(place, hop): (usize, &Arc<Record>)| {
                let mut later = hops.iter().skip(place + 1);
                later.all(|other| other.node() != hop.node() && !other.is_family_of(hop))
            };
            if hops.iter().enumerate().all(fits) {
                return Some(Route(hops));
            }
        }
        None
    }

    #[expect(clippy::type_complexity, reason = "all nodes and the exits among them, used once")]
    fn candidates(
        &self,
        own: &[NodeId],
        epochs: &RangeInclusive<Epoch>,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<(Vec<&Arc<Record>>, Vec<&Arc<Record>>), RouteError> {
        let others = self.seats.iter().filter(|(node, _)| !own.contains(node));
        let usable: Vec<_> =
            others.map(|(_, seat)| seat).filter(|seat| has_keys(&seat.record, epochs)).collect();
        if usable.len() < Route::MIN {
            return Err(RouteError::TooFewNodes);
        }
        let nodes = usable.iter().map(|seat| &seat.record).collect();
        let exits = usable.into_iter().filter(|seat| seat.use_as == Use::Exit);
        let exits: Vec<_> = exits.map(|seat| &seat.record).filter(|exit| allows(exit)).collect();
        if exits.is_empty() { Err(RouteError::NoExit) } else { Ok((nodes, exits)) }
    }
}

/// Hours of the day that exits speak of.
const DAY: u64 = 24;

fn exits<'a>(seats: impl Iterator<Item = &'a Seat>) -> impl Iterator<Item = &'a Seat> {
    seats.filter(|seat| seat.use_as == Use::Exit && seat.record.exit().is_some())
}

fn volume<'a>(seats: impl Iterator<Item = &'a Seat>) -> u32 {
    let mut said: Vec<_> = exits(seats).map(|seat| seat.record.delivered()).collect();
    said.sort_unstable();
    // Of an even number the lower one.
    let median = said.get(said.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    let all = u64::from(median).saturating_mul(said.len() as u64);
    u32::try_from(all / DAY).unwrap_or(u32::MAX)
}

fn has_keys(record: &Record, epochs: &RangeInclusive<Epoch>) -> bool {
    let mut numbers = epochs.start().number()..=epochs.end().number();
    numbers.all(|number| record.key(Epoch::new(number)).is_some())
}

/// The walks from the sender through these nodes.
fn walks<'a>(graph: &'a Graph, own: &[NodeId], nodes: &[&Arc<Record>]) -> Walks<'a> {
    let usable: BTreeSet<_> = nodes.iter().map(|record| record.node()).collect();
    graph.walks(own.first(), |node| usable.contains(node))
}

/// The first of these nodes, at most `count`, that are not the exit, nor of one family with it or
/// with each other; empty if they are too few for a route.
fn strangers(exit: &Arc<Record>, nodes: &[&Arc<Record>], count: usize) -> Vec<Arc<Record>> {
    let fits = |node: &Record| node.node() != exit.node() && !exit.is_family_of(node);
    let taken = some_strangers(exit, nodes, count);
    if taken.len() >= Route::MIN - 1 {
        return taken;
    }
    // A node of one family with many that are strangers to each other blocks the choice above. A
    // record names at most 16, so a pair is found among the first few if there is one.
    let mut rest = nodes.iter().filter(|node| fits(node));
    while let Some(first) = rest.next() {
        if let Some(second) = rest.clone().find(|second| !first.is_family_of(second)) {
            return vec![Arc::clone(first), Arc::clone(second)];
        }
    }
    Vec::new()
}

/// The same, however few they are.
fn some_strangers(exit: &Arc<Record>, nodes: &[&Arc<Record>], count: usize) -> Vec<Arc<Record>> {
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
    taken
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

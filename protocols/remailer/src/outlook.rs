//! What this node makes of its directory: the view of the hour, whether others see the same, and
//! whether its clock is theirs.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use directory::{Clocks, Directory, ItemId, Standing, View};
use keys::{Epoch, Hour, NodeId, Schedule, Time};
use rand::CryptoRng;
use record::{Descriptor, Parameters, SetHash};

use crate::answer::Refused;
use crate::catch_up::{WAIT, WITNESSES};
use crate::command::{Command, Out};
use crate::links;

/// For how many hours a view may be used if none replaces it.
const VIEW_HOURS: u32 = 2;
/// Hours whose set hashes are remembered.
const HASHES: usize = 4;
/// Hours in a row in which more than a third of the others see another directory.
const LASTING: u32 = 2;
/// Hours for which a sudden halving is shown.
const HALVED_FOR: u32 = 3;
/// Epochs after which a node whose clock no peer shares destroys its keys all the same: 6 hours.
const APART_FOR: u32 = 2;
/// Peers whose word about their set is remembered. Beyond it the oldest word goes.
const MAX_TOLD: usize = 64;

/// What this node's operator has to know, and to do something about; the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The median of the peers' clocks is ahead by this many milliseconds.
    ClockApart(i64),
    /// Another node publishes with this identity.
    Rival,
    /// There is a proof that this node broke its word.
    Convicted,
    /// For hours, this many of the others have had another directory, and this many the same.
    AnotherView {
        /// How many differ.
        other: usize,
        /// How many agree.
        same: usize,
    },
    /// From one hour to the next the view lost half of its nodes or more.
    Halved {
        /// Nodes before.
        before: usize,
        /// Nodes after.
        after: usize,
    },
    /// The invite that this node was given was not taken.
    InviteRefused,
}

/// Whether another node's directory is the same as this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// It was the same in the hour that its record speaks of.
    Same,
    /// It was another in the hour that its record speaks of.
    Other,
    /// Its record speaks of an hour that this node does not remember.
    Unknown,
}

/// What a node knows of the others, and what it makes of that.
pub(crate) struct Outlook {
    node: NodeId,
    descriptor: Arc<Descriptor>,
    schedule: Schedule,
    pub(crate) directory: Directory,
    view: Option<Arc<View>>,
    next_view: Time,
    comparison: Comparison,
    banned: BTreeSet<NodeId>,
    clocks: Clocks,
    /// Since when the peers' clocks have been too far from ours.
    apart_since: Option<Time>,
    leftovers: Option<Leftovers>,
}

/// What may have to be forgotten after a start, once the clock can be trusted to say so.
struct Leftovers {
    /// Names of stored statements that were not valid at the time that the clock said.
    lapsed: Vec<ItemId>,
    stay_until: Time,
}

/// What is remembered from hour to hour to compare this node's sets with those of others.
#[derive(Default)]
struct Comparison {
    /// The hashes of this node's own sets.
    hashes: Vec<(Hour, SetHash)>,
    /// What peers said of their own sets when they were last asked.
    told: BTreeMap<NodeId, (Hour, SetHash)>,
    differing: u32,
    last: (usize, usize),
    halved: Option<(Time, usize, usize)>,
}

impl Outlook {
    pub(crate) fn new(
        node: NodeId,
        descriptor: Arc<Descriptor>,
        banned: BTreeSet<NodeId>,
        now: Time,
    ) -> Self {
        let schedule = descriptor.parameters().schedule();
        Self {
            node,
            schedule,
            directory: Directory::new(schedule, descriptor.admission()),
            view: None,
            next_view: schedule.hour_end(schedule.hour_at(now)),
            comparison: Comparison::default(),
            banned,
            clocks: Clocks::default(),
            apart_since: None,
            leftovers: None,
            descriptor,
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        self.descriptor.parameters()
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    // The view.

    pub(crate) fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    pub(crate) fn next_view(&self) -> Time {
        self.next_view
    }

    /// The first view of a network that has just been started, as soon as enough nodes are known.
    pub(crate) fn take_first_view(&mut self, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        let enough = usize::from(self.parameters().views.first_view);
        if self.view.is_none()
            && enough > 0
            && self.directory.len() >= enough
            && let Ok(view) = self.directory.first_view(now).if_sufficient()
        {
            self.set_view(&view, now, rng, out);
        }
    }

    /// A new hour: what was said in the last one is compared, and the view is taken.
    pub(crate) fn begin_hour(&mut self, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        let hour = self.schedule.hour_at(now);
        self.compare(self.schedule.hour_before(hour));
        self.next_view = self.schedule.hour_end(hour);
        self.turn_hour(now, out);
        let before = self.view.as_ref().map_or(0, |view| view.len());
        self.take_view(now, rng, out);
        let after = self.view.as_ref().map_or(0, |view| view.len());
        if after * 2 <= before && after > 0 {
            self.comparison.halved = Some((now, before, after));
        }
    }

    pub(crate) fn take_view(&mut self, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        let hour = self.schedule.hour_at(now);
        let settle = self.parameters().views.settle;
        // Stated once for the hour: what comes late must not make this node differ from itself.
        self.comparison.remember(hour, self.directory.set_hash(hour, settle));
        match self.directory.partial_view(hour, settle).if_sufficient() {
            Ok(view) => self.set_view(&view, now, rng, out),
            Err(_) => {
                if self.usable_view(now).is_none() {
                    self.view = None;
                }
            }
        }
    }

    pub(crate) fn turn_hour(&mut self, now: Time, out: &mut Out) {
        let start = self.schedule.hour_start(self.schedule.hour_at(now));
        self.directory.turn_hour(start.minus(self.parameters().views.settle));
        self.forget(out);
    }

    fn set_view(&mut self, view: &View, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        let view = Arc::new(view.without(&self.unusable(view, now)));
        self.view = Some(Arc::clone(&view));
        out.push(Command::ViewTaken(Arc::clone(&view)));
        links::want(&view, self.node, rng, out);
    }

    /// Leaves out nodes for what cannot wait for the next hour: proofs, and keys given up.
    pub(crate) fn leave_out(&mut self, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        if let Some(view) = self.view.clone()
            && !self.unusable(&view, now).is_empty()
        {
            self.set_view(&view, now, rng, out);
        }
    }

    fn unusable(&self, view: &View, now: Time) -> BTreeSet<NodeId> {
        let epoch = self.schedule.epoch_at(now);
        let is_unusable = |node: &NodeId| {
            self.banned.contains(node)
                || self.directory.conviction(node, now).is_some()
                || self.directory.newest(node).is_some_and(|newest| newest.withdraws(epoch))
        };
        view.iter().map(|record| record.node()).filter(is_unusable).collect()
    }

    fn usable_view(&self, now: Time) -> Option<&Arc<View>> {
        let oldest = now.minus(self.schedule.hour() * VIEW_HOURS + Duration::from_secs(1));
        self.view.as_ref().filter(|view| view.taken() >= oldest && view.is_sufficient())
    }

    /// The view that routes may come from at `now`.
    pub(crate) fn sending_view(&self, now: Time) -> Result<&Arc<View>, Refused> {
        // Epochs are counted by the clock: with a wrong clock, packets would be sealed for the
        // wrong ones and lost.
        if self.clock_apart(now).is_some() {
            return Err(Refused::ClockApart);
        }
        if self.is_divided() {
            return Err(Refused::Divided);
        }
        self.usable_view(now).ok_or(Refused::TooFewNodes)
    }

    pub(crate) fn banned(&self) -> &BTreeSet<NodeId> {
        &self.banned
    }

    /// Makes this node's routes avoid these nodes from now on. An observer of its submissions can
    /// tell it from others by that.
    pub(crate) fn ban(
        &mut self,
        banned: BTreeSet<NodeId>,
        now: Time,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        self.banned = banned;
        self.leave_out(now, rng, out);
    }

    pub(crate) fn standings(&self, now: Time) -> BTreeMap<NodeId, Standing> {
        self.directory.standings(self.schedule.hour_at(now), self.parameters().views.settle)
    }

    // What is kept of the directory.

    /// Keeps a statement that was taken in.
    pub(crate) fn keep(&mut self, octets: &Arc<[u8]>, out: &mut Out) {
        let name = ItemId::of(octets);
        out.push(Command::KeepStatement(name, Arc::clone(octets)));
        self.forget(out);
    }

    /// Lets the disk forget the statements that the directory does not hold any more.
    pub(crate) fn forget(&mut self, out: &mut Out) {
        let names = self.directory.take_forgotten();
        if !names.is_empty() {
            out.push(Command::ForgetStatements(names));
        }
    }

    /// Starts with kept statements that are not valid by the clock: they are forgotten when peers
    /// agree with the clock, or after a wait, which is longer for a node that knows more than a few
    /// others.
    pub(crate) fn begin_with_leftovers(&mut self, lapsed: Vec<ItemId>, known: usize, now: Time) {
        let patience = match known {
            0..=WITNESSES => self.schedule.hour() / WAIT,
            _ => self.schedule.hour() * 3 * APART_FOR,
        };
        self.leftovers = Some(Leftovers { lapsed, stay_until: now.plus(patience) });
    }

    /// Forgets the past that nothing holds back. Returns the oldest epoch that is held from now on,
    /// and whether the start is over with this.
    pub(crate) fn forget_past(&mut self, now: Time) -> Option<Past> {
        if self.keys_stay_until().is_some_and(|until| now < until) {
            return None;
        }
        let leftovers = self.leftovers.take();
        Some(Past {
            oldest: self.schedule.oldest_held(now),
            lapsed: leftovers.map(|mut leftovers| {
                leftovers.lapsed.retain(|name| !self.directory.holds(name));
                leftovers.lapsed
            }),
        })
    }

    /// Forgets statements whose time is over, and wants no link to a node of which nothing is left.
    pub(crate) fn expire(&mut self, now: Time, out: &mut Out) {
        for node in self.directory.expire(now) {
            out.push(Command::Unlink(node));
        }
        self.forget(out);
    }

    /// When the leftovers of the start fall due, and until when nothing is destroyed.
    pub(crate) fn destroys_at(&self, oldest_key: Option<Epoch>) -> Option<Time> {
        let oldest = oldest_key.map(|epoch| self.schedule.accepted_until(epoch));
        let leftovers = self.leftovers.as_ref().map(|leftovers| leftovers.stay_until);
        let first = [oldest, leftovers].into_iter().flatten().min()?;
        Some(self.keys_stay_until().map_or(first, |stay| first.max(stay)))
    }

    /// Until when no key is destroyed, because this node's clock may be the one that is wrong.
    fn keys_stay_until(&self) -> Option<Time> {
        let apart = self.apart_since.map(|since| since.plus(self.schedule.hour() * 3 * APART_FOR));
        apart.max(self.leftovers.as_ref().map(|leftovers| leftovers.stay_until))
    }

    // Whether others see the same.

    /// The hash of the present hour's set, as it was when this node took its view.
    pub(crate) fn set_hash(&self, now: Time) -> SetHash {
        let hour = self.schedule.hour_at(now);
        let taken = self.comparison.hash(hour);
        taken.unwrap_or_else(|| self.directory.set_hash(hour, self.parameters().views.settle))
    }

    /// The hash of the present hour's set with what has come since.
    pub(crate) fn present_set_hash(&self, now: Time) -> SetHash {
        self.directory.set_hash(self.schedule.hour_at(now), self.parameters().views.settle)
    }

    /// Whether a node had the same directory as this one, in the hour of its newest record.
    pub(crate) fn agreement(&self, node: &NodeId, now: Time) -> Agreement {
        let Some((hour, theirs)) = self.last_said(node) else { return Agreement::Unknown };
        let is_present = hour == self.schedule.hour_at(now);
        let live = is_present.then(|| self.present_set_hash(now));
        let own: Vec<_> = self.comparison.hash(hour).into_iter().chain(live).collect();
        match own.contains(&theirs) {
            _ if own.is_empty() => Agreement::Unknown,
            true => Agreement::Same,
            false => Agreement::Other,
        }
    }

    /// What a node last said of its set, to this node or to all.
    fn last_said(&self, node: &NodeId) -> Option<(Hour, SetHash)> {
        let published = self.published(node);
        let told = self.comparison.told.get(node).copied();
        match (published, told) {
            (Some((hour, _)), Some((later, _))) if later >= hour => told,
            (published, told) => published.or(told),
        }
    }

    fn published(&self, node: &NodeId) -> Option<(Hour, SetHash)> {
        let record = self.directory.newest(node)?;
        Some((self.schedule.hour_at(record.published_at()), record.set()))
    }

    /// Takes a peer's word about its set in the present hour.
    pub(crate) fn note_set(&mut self, peer: NodeId, set: SetHash, now: Time) {
        let told = &mut self.comparison.told;
        if told.len() >= MAX_TOLD
            && !told.contains_key(&peer)
            && let Some(oldest) =
                told.iter().min_by_key(|(_, (hour, _))| *hour).map(|(node, _)| *node)
        {
            told.remove(&oldest);
        }
        told.insert(peer, (self.schedule.hour_at(now), set));
    }

    /// Compares an hour's set with what the nodes of this one's view said of theirs, in records of
    /// that hour or when asked. Strangers have no say.
    fn compare(&mut self, hour: Hour) {
        let (Some(own), Some(view)) = (self.comparison.hash(hour), self.view.clone()) else {
            return;
        };
        // Statements that arrived during the hour do not count as disagreement: both the set before
        // and the set after them match.
        let live = self.directory.set_hash(hour, self.parameters().views.settle);
        let others = view.iter().map(|record| record.node());
        let (mut same, mut other) = (0_usize, 0_usize);
        for node in others.filter(|node| *node != self.node) {
            let said = [self.published(&node), self.comparison.told.get(&node).copied()];
            let of_hour = said.into_iter().flatten().filter(|(when, _)| *when == hour);
            let agrees: Vec<_> = of_hour.map(|(_, set)| set == own || set == live).collect();
            same += usize::from(agrees.contains(&true));
            other += usize::from(!agrees.is_empty() && !agrees.contains(&true));
        }
        self.comparison.note(same, other);
    }

    /// Whether somebody may be showing this node only a part of the network: a route through that
    /// part would be known to them.
    fn is_divided(&self) -> bool {
        let (same, other) = self.comparison.last;
        self.comparison.differing >= LASTING && other > same
    }

    fn halved(&self, now: Time) -> Option<(usize, usize)> {
        let (at, before, after) = self.comparison.halved?;
        let is_shown = now.since(at) < self.schedule.hour() * HALVED_FOR;
        is_shown.then_some((before, after))
    }

    /// What the operator has to know of this node's clock, word and view.
    pub(crate) fn alarms(&self, now: Time) -> impl Iterator<Item = Alarm> {
        let convicted = self.directory.conviction(&self.node, now).map(|_| Alarm::Convicted);
        let (same, other) = self.comparison.last;
        let differs = self.comparison.differing >= LASTING;
        let halved = self.halved(now).map(|(before, after)| Alarm::Halved { before, after });
        [
            self.clock_apart(now).map(Alarm::ClockApart),
            convicted,
            differs.then_some(Alarm::AnotherView { other, same }),
            halved,
        ]
        .into_iter()
        .flatten()
    }

    // The clock.

    /// By how many milliseconds the peers' clocks are ahead, if that is more than allowed.
    pub(crate) fn clock_apart(&self, now: Time) -> Option<i64> {
        self.clocks.apart(&self.schedule, now)
    }

    /// Whether this node's clock is the network's, as far as it knows.
    pub(crate) fn shares_the_clock(&self) -> bool {
        self.apart_since.is_none()
    }

    /// Whether a peer's word about its clock and its directory counts. The word of strangers, of
    /// whom anybody can make any number, does not; but a node that knows hardly any others has to
    /// listen to all.
    pub(crate) fn has_a_say(&self, peer: &NodeId) -> bool {
        match &self.view {
            Some(view) => view.get(peer).is_some(),
            None => self.directory.len() <= WITNESSES || self.directory.knows(peer),
        }
    }

    /// Takes a peer's word about its clock.
    pub(crate) fn note_clock(&mut self, peer: NodeId, ahead_ms: i64, now: Time) {
        self.clocks.note(peer, ahead_ms, now);
        self.note_clocks(now);
    }

    /// Compares the clocks, as far as peers have told theirs.
    pub(crate) fn note_clocks(&mut self, now: Time) {
        self.apart_since = match (self.clock_apart(now), self.apart_since) {
            (None, _) => None,
            (Some(_), since) => since.or(Some(now)),
        };
        if let Some(leftovers) = &mut self.leftovers
            && self.clocks.are_known()
        {
            leftovers.stay_until = now;
        }
    }
}

/// What is forgotten at a timeout.
pub(crate) struct Past {
    /// The oldest epoch whose key is held from now on.
    pub(crate) oldest: Epoch,
    /// Once after a start: statements that were kept and are not valid.
    pub(crate) lapsed: Option<Vec<ItemId>>,
}

impl Comparison {
    fn remember(&mut self, hour: Hour, hash: SetHash) {
        self.hashes.retain(|(known, _)| *known != hour);
        self.hashes.push((hour, hash));
        let surplus = self.hashes.len().saturating_sub(HASHES);
        self.hashes.drain(..surplus);
    }

    fn hash(&self, hour: Hour) -> Option<SetHash> {
        self.hashes.iter().find(|(known, _)| *known == hour).map(|(_, hash)| *hash)
    }

    fn note(&mut self, same: usize, other: usize) {
        self.last = (same, other);
        let differs = other * 2 > same;
        self.differing = if differs { self.differing.saturating_add(1) } else { 0 };
    }
}

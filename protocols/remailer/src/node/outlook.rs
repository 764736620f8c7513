//! What this node makes of its directory: the view of the hour, whether others see the same, and whether
//! its clock is theirs.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use directory::{Standing, View};
use keys::{Hour, NodeId, Time};

use super::catching_up::WITNESSES;
use super::{Command, Remailer};

/// A view that no later hour replaced serves so many hours.
const VIEW_HOURS: u32 = 2;
/// Hours whose set hashes are remembered.
const HASHES: usize = 4;
/// Hours in a row in which more than a third of the others see another directory.
const LASTING: u32 = 2;
/// Hours for which a sudden halving is shown.
const HALVED_FOR: u32 = 3;
/// Epochs after which a node whose clock nobody shares destroys its keys all the same: 6 hours.
pub(super) const APART_FOR: u32 = 2;

/// What this node's operator has to know, and to do something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The median of the peers' clocks is ahead by so many milliseconds.
    ClockApart(i64),
    /// Another node publishes with this identity.
    Rival,
    /// There is a proof that this node broke its word.
    Convicted,
    /// For hours, so many of the others have had another directory, and so many the same.
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
}

/// Whether another node's directory is the same as this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// In the hour that its record speaks of.
    Same,
    /// Not then.
    Other,
    /// It speaks of an hour that this node does not remember.
    Unknown,
}

/// Peers whose word about their set is remembered.
const MAX_TOLD: usize = 64;

/// What is remembered from hour to hour.
#[derive(Default)]
pub(super) struct Outlook {
    /// The hashes of this node's own sets.
    hashes: Vec<(Hour, [u8; 32])>,
    /// What peers that were asked said of theirs, the last time.
    told: BTreeMap<NodeId, (Hour, [u8; 32])>,
    differing: u32,
    last: (usize, usize),
    halved: Option<(Time, usize, usize)>,
}

impl Remailer {
    pub(super) fn take_first_view(&mut self, now: Time) {
        let enough = usize::from(self.parameters().first_view);
        if self.view.is_none()
            && enough > 0
            && self.directory.len() >= enough
            && let Ok(view) = self.directory.first_view(now).if_sufficient()
        {
            self.set_view(&view, now);
        }
    }

    /// A new hour: what was said in the last one is compared, and the view is taken.
    pub(super) fn begin_hour(&mut self, now: Time) {
        let hour = self.schedule.hour_at(now);
        self.compare(self.schedule.hour_before(hour));
        self.next_view = self.schedule.hour_end(hour);
        self.turn_hour(now);
        let before = self.view.as_ref().map_or(0, |view| view.len());
        self.take_view(now);
        let after = self.view.as_ref().map_or(0, |view| view.len());
        if after * 2 <= before && after > 0 {
            self.outlook.halved = Some((now, before, after));
        }
    }

    pub(super) fn take_view(&mut self, now: Time) {
        let hour = self.schedule.hour_at(now);
        let settle = self.parameters().settle;
        // Said once and for all: what comes late must not make this node differ from itself.
        self.outlook.remember(hour, self.directory.set_hash(hour, settle));
        match self.directory.partial_view(hour, settle).if_sufficient() {
            Ok(view) => self.set_view(&view, now),
            Err(_) => {
                if self.usable_view(now).is_none() {
                    self.view = None;
                }
            }
        }
    }

    pub(super) fn turn_hour(&mut self, now: Time) {
        let start = self.schedule.hour_start(self.schedule.hour_at(now));
        self.directory.turn_hour(start.minus(self.parameters().settle));
        self.reconciliation.turn_hour();
        self.forget();
    }

    fn set_view(&mut self, view: &View, now: Time) {
        let view = Arc::new(view.without(&self.unusable(view, now)));
        self.view = Some(Arc::clone(&view));
        self.commands.push_back(Command::ViewTaken(view));
    }

    /// What has become known since the hour and cannot wait for the next: proofs, and keys given up.
    pub(super) fn leave_out(&mut self, now: Time) {
        if let Some(view) = self.view.clone()
            && !self.unusable(&view, now).is_empty()
        {
            self.set_view(&view, now);
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

    pub(super) fn usable_view(&self, now: Time) -> Option<&Arc<View>> {
        let oldest = now.minus(self.schedule.hour() * VIEW_HOURS + Duration::from_secs(1));
        self.view.as_ref().filter(|view| view.taken() >= oldest && view.is_sufficient())
    }

    /// This node's routes go through these no more. Who can watch it submit can tell it from others by
    /// that.
    pub fn ban(&mut self, banned: BTreeSet<NodeId>, now: Time) {
        self.banned = banned;
        self.leave_out(now);
    }

    /// How every known node stands in the present hour.
    #[must_use]
    pub fn standings(&self, now: Time) -> BTreeMap<NodeId, Standing> {
        self.directory.standings(self.schedule.hour_at(now), self.parameters().settle)
    }

    // Whether others see the same.

    /// The hash of the present hour's set, as it was when this node took its view.
    #[must_use]
    pub fn set_hash(&self, now: Time) -> [u8; 32] {
        let hour = self.schedule.hour_at(now);
        let taken = self.outlook.hash(hour);
        taken.unwrap_or_else(|| self.directory.set_hash(hour, self.parameters().settle))
    }

    /// The hash of the present hour's set with what has come since.
    pub(super) fn present_set_hash(&self, now: Time) -> [u8; 32] {
        self.directory.set_hash(self.schedule.hour_at(now), self.parameters().settle)
    }

    /// Whether a node had the same directory as this one, in the hour of its newest record.
    #[must_use]
    pub fn agreement(&self, node: &NodeId, now: Time) -> Agreement {
        let Some((hour, theirs)) = self.last_said(node) else { return Agreement::Unknown };
        let is_present = hour == self.schedule.hour_at(now);
        let live = is_present.then(|| self.present_set_hash(now));
        let own: Vec<_> = self.outlook.hash(hour).into_iter().chain(live).collect();
        match own.contains(&theirs) {
            _ if own.is_empty() => Agreement::Unknown,
            true => Agreement::Same,
            false => Agreement::Other,
        }
    }

    /// What a node last said of its set, to us or to all.
    fn last_said(&self, node: &NodeId) -> Option<(Hour, [u8; 32])> {
        let published = self.published(node);
        let told = self.outlook.told.get(node).copied();
        match (published, told) {
            (Some((hour, _)), Some((later, _))) if later >= hour => told,
            (published, told) => published.or(told),
        }
    }

    fn published(&self, node: &NodeId) -> Option<(Hour, [u8; 32])> {
        let record = self.directory.newest(node)?;
        Some((self.schedule.hour_at(record.published_at()), *record.digest()))
    }

    pub(super) fn note_set(&mut self, peer: NodeId, set: [u8; 32], now: Time) {
        let told = &mut self.outlook.told;
        if told.len() >= MAX_TOLD
            && !told.contains_key(&peer)
            && let Some(oldest) =
                told.iter().min_by_key(|(_, (hour, _))| *hour).map(|(node, _)| *node)
        {
            told.remove(&oldest);
        }
        told.insert(peer, (self.schedule.hour_at(now), set));
    }

    /// Compares an hour's set with what the nodes of this one's view said of theirs, in records of that
    /// hour or when asked. Strangers have no say.
    fn compare(&mut self, hour: Hour) {
        let (Some(own), Some(view)) = (self.outlook.hash(hour), self.view.clone()) else { return };
        // What came in the course of the hour heals: who has it and who had it are of one network.
        let live = self.directory.set_hash(hour, self.parameters().settle);
        let others = view.iter().map(|record| record.node());
        let (mut same, mut other) = (0_usize, 0_usize);
        for node in others.filter(|node| *node != self.node) {
            let said = [self.published(&node), self.outlook.told.get(&node).copied()];
            let of_hour = said.into_iter().flatten().filter(|(when, _)| *when == hour);
            let agrees: Vec<_> = of_hour.map(|(_, set)| set == own || set == live).collect();
            same += usize::from(agrees.contains(&true));
            other += usize::from(!agrees.is_empty() && !agrees.contains(&true));
        }
        self.outlook.last = (same, other);
        let differs = other * 2 > same;
        self.outlook.differing = if differs { self.outlook.differing.saturating_add(1) } else { 0 };
    }

    /// Whether this node may be shown a part of the network: a route through that part would be known to
    /// whoever shows it.
    pub(super) fn is_divided(&self) -> bool {
        let (same, other) = self.outlook.last;
        self.outlook.differing >= LASTING && other > same
    }

    fn halved(&self, now: Time) -> Option<(usize, usize)> {
        let (at, before, after) = self.outlook.halved?;
        let is_shown = now.since(at) < self.schedule.hour() * HALVED_FOR;
        is_shown.then_some((before, after))
    }

    /// What the operator has to know.
    #[must_use]
    pub fn alarms(&self, now: Time) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        alarms.extend(self.clock_apart(now).map(Alarm::ClockApart));
        if self.has_rival {
            alarms.push(Alarm::Rival);
        }
        if self.directory.conviction(&self.node, now).is_some() {
            alarms.push(Alarm::Convicted);
        }
        if self.outlook.differing >= LASTING {
            let (same, other) = self.outlook.last;
            alarms.push(Alarm::AnotherView { other, same });
        }
        alarms.extend(self.halved(now).map(|(before, after)| Alarm::Halved { before, after }));
        alarms
    }

    // The clock.

    /// By how many milliseconds the peers' clocks are ahead, if that is too much.
    #[must_use]
    pub fn clock_apart(&self, now: Time) -> Option<i64> {
        self.clocks.apart(&self.schedule, now)
    }

    /// Whether a peer's word about its clock and its directory counts: not that of strangers, who are as
    /// many as anybody likes. Who knows hardly anybody has to listen to everybody.
    pub(super) fn has_a_say(&self, peer: &NodeId) -> bool {
        match &self.view {
            Some(view) => view.get(peer).is_some(),
            None => self.directory.len() <= WITNESSES || self.directory.knows(peer),
        }
    }

    pub(super) fn note_clocks(&mut self, now: Time) {
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

    /// Until when no key is destroyed, because this node's clock may be the one that is wrong.
    pub(super) fn keys_stay_until(&self) -> Option<Time> {
        let apart = self.apart_since.map(|since| since.plus(self.schedule.hour() * 3 * APART_FOR));
        apart.max(self.leftovers.as_ref().map(|leftovers| leftovers.stay_until))
    }

    /// When something of the past falls due to be destroyed.
    pub(super) fn destroys_at(&self) -> Option<Time> {
        let oldest = self.mix.oldest_key().map(|epoch| self.schedule.accepted_until(epoch));
        let leftovers = self.leftovers.as_ref().map(|leftovers| leftovers.stay_until);
        let first = [oldest, leftovers].into_iter().flatten().min()?;
        Some(self.keys_stay_until().map_or(first, |stay| first.max(stay)))
    }
}

impl Outlook {
    fn remember(&mut self, hour: Hour, hash: [u8; 32]) {
        self.hashes.retain(|(known, _)| *known != hour);
        self.hashes.push((hour, hash));
        let surplus = self.hashes.len().saturating_sub(HASHES);
        self.hashes.drain(..surplus);
    }

    fn hash(&self, hour: Hour) -> Option<[u8; 32]> {
        self.hashes.iter().find(|(known, _)| *known == hour).map(|(_, hash)| *hash)
    }
}

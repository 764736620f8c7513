//! What this node makes of its directory: the list of the hour, whether others use the same, and
//! whether its clock is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use directory::{Directory, Heard, ItemId, Standing, Told, View};
use keys::{Epoch, Hour, NodeId, Schedule, Time};
use rand::CryptoRng;
use record::{Descriptor, ListSketch, Parameters};

use crate::answer::Refused;
use crate::catch_up::{Voices, WITNESSES};
use crate::command::{Command, Out};
use crate::links;
use crate::setup::ClockJump;

/// For how long a new node holds back what depends on its clock, as a part of an hour: 10 minutes.
const WAIT: u32 = 6;
/// Hours for which a sudden halving is shown.
const HALVED_FOR: u32 = 3;
/// Epochs after which a node whose clock no peer shares destroys its keys all the same: 6 hours.
const APART_FOR: u32 = 2;

/// What this node's operator has to know, and to do something about; the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The median of the peers' clocks is ahead by this many milliseconds.
    ClockApart(i64),
    /// Nobody's records can be used: all of them are dated later than this clock allows, or all
    /// earlier.
    ClockSuspect(Suspicion),
    /// Another node publishes with this identity.
    Rival,
    /// Within the last hour loops of this node's own stopped coming back while as many packets came as ever:
    /// somebody may be keeping all packets but a few from it, to follow those.
    Besieged,
    /// No loop of this node's own returns: what is in its custody waits.
    Silenced,
    /// There is a proof that this node broke its word.
    Convicted,
    /// There is no list for the present hour. [`crate::Remailer::missing_voters`] says whose votes
    /// are not known.
    NoList {
        /// For how many hours the list in use has been out of date; none if there never was one.
        hours: Option<u64>,
    },
    /// This node has a past and may not publish before voters or nodes of the last list that it
    /// knew have told what they know.
    AwaitsWitnesses {
        /// Those that have.
        heard: usize,
        /// As many as it needs.
        needed: usize,
    },
    /// Of the listed peers that were asked in this hour, this many use another list for it, and
    /// this many the same.
    AnotherList {
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
    /// More nodes lose packets, or cannot be reached, than routes may avoid.
    Losing {
        /// How many do.
        losing: usize,
    },
}

/// What the records of others say of this node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suspicion {
    /// It is behind: they lie in the future.
    Behind,
    /// It is ahead: they lie in the past.
    Ahead,
}

/// Whether another node uses the same list as this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// It uses the same.
    Same,
    /// Of the 32 parts of its list for the same hour, this many differ.
    Apart(usize),
    /// It speaks of an hour whose list this node does not remember.
    Unknown,
}

/// What a node knows of the others, and what it makes of that.
pub(crate) struct Outlook {
    node: NodeId,
    descriptor: Arc<Descriptor>,
    schedule: Schedule,
    pub(crate) directory: Directory,
    view: Option<Arc<View>>,
    next_hour: Time,
    started: Time,
    heard: Heard,
    halved: Option<(Time, usize, usize)>,
    banned: BTreeSet<NodeId>,
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
            directory: Directory::new(&descriptor),
            view: None,
            next_hour: schedule.hour_end(schedule.hour_at(now)),
            started: now,
            heard: Heard::default(),
            halved: None,
            banned,
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

    pub(crate) fn next_hour(&self) -> Time {
        self.next_hour
    }

    /// A new hour begins.
    pub(crate) fn begin_hour(&mut self, now: Time, out: &mut Out) {
        self.next_hour = self.schedule.hour_end(self.schedule.hour_at(now));
        self.directory.turn_hour(now);
        self.forget(out);
    }

    /// Uses the list that was kept, until a newer one is voted.
    pub(crate) fn use_kept_list(&mut self, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        self.directory.take_filled();
        self.take_view(now, rng, out);
    }

    /// Puts the list of the hour together as far as possible, and uses it once it is complete.
    pub(crate) fn assemble(&mut self, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        let assembled = self.directory.assemble(now);
        if self.directory.take_filled() && assembled.is_none() {
            self.take_view(now, rng, out);
        }
        let Some(list) = assembled else { return };
        out.push(Command::KeepList(list.to_octets()));
        self.forget(out);
        let before = self.view.as_ref().map_or(0, |view| view.len());
        self.take_view(now, rng, out);
        let after = self.view.as_ref().map_or(0, |view| view.len());
        if after * 2 <= before && after > 0 {
            self.halved = Some((now, before, after));
        }
    }

    /// Takes the view of the newest list.
    fn take_view(&mut self, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        match self.directory.view().map(directory::PartialView::if_sufficient) {
            Some(Ok(view)) => self.set_view(&view, rng, out),
            Some(Err(_)) | None => {
                if self.usable_view(now).is_err() {
                    self.view = None;
                }
            }
        }
    }

    fn set_view(&mut self, view: &View, rng: &mut impl CryptoRng, out: &mut Out) {
        let view = Arc::new(view.without(&self.banned));
        let before = self.view.replace(Arc::clone(&view));
        out.push(Command::ViewTaken(Arc::clone(&view)));
        links::want(&view, before.as_deref(), self.node, rng, out);
    }

    fn usable_view(&self, now: Time) -> Result<&Arc<View>, Refused> {
        let lists = &self.parameters().lists;
        let view = self.view.as_ref().ok_or(match self.directory.list() {
            Some(_) => Refused::TooFewNodes,
            None => Refused::NoList,
        })?;
        if now.since(view.taken()) >= lists.keep {
            return Err(Refused::NoList);
        }
        // Never fewer than four, but an operator's bans may have left fewer.
        let is_enough = view.len() >= usize::from(lists.fewest);
        if is_enough { Ok(view) } else { Err(Refused::TooFewNodes) }
    }

    /// The view that routes may come from at `now`.
    pub(crate) fn sending_view(&self, now: Time) -> Result<&Arc<View>, Refused> {
        // Epochs are counted by the clock: with a wrong clock, packets would be sealed for the
        // wrong ones and lost.
        if self.clock_apart(now).is_some() {
            return Err(Refused::ClockApart);
        }
        self.usable_view(now)
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
        if self.view.is_some() {
            self.take_view(now, rng, out);
        }
    }

    pub(crate) fn standings(&self, now: Time) -> BTreeMap<NodeId, Standing> {
        self.directory.standings(now)
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

    // Whether others use the same list.

    /// Whether a node uses the same list as this one, by what it last said.
    pub(crate) fn agreement(&self, node: &NodeId) -> Agreement {
        let published = self.directory.newest(node).map(|record| record.list());
        let told = self.heard.list_of(node);
        match (published, told) {
            (Some(published), Some(told)) if published.0 > told.0 => self.compare(published),
            (published, told) => {
                told.or(published).map_or(Agreement::Unknown, |said| self.compare(said))
            }
        }
    }

    fn compare(&self, (hour, sketch): (Hour, ListSketch)) -> Agreement {
        let mut own = self.directory.lists().filter(|list| list.hour() == hour);
        match own.next().map(|list| list.sketch().apart(&sketch)) {
            None => Agreement::Unknown,
            Some(0) => Agreement::Same,
            Some(parts) => Agreement::Apart(parts),
        }
    }

    /// Of the peers that were asked within the last hour: how many use another list, how many the
    /// same.
    fn told_apart(&self, now: Time) -> (usize, usize) {
        let fresh = self.heard.lists(now, self.schedule.hour());
        fresh.fold((0, 0), |(other, same), said| match self.compare(said) {
            Agreement::Same => (other, same + 1),
            Agreement::Apart(_) => (other + 1, same),
            Agreement::Unknown => (other, same),
        })
    }

    /// The voters whose votes for the present hour are not known, if its list is not.
    pub(crate) fn missing_voters(&self, now: Time) -> Vec<NodeId> {
        let hour = self.schedule.hour_at(now);
        match self.directory.list() {
            Some(list) if list.hour() >= hour => Vec::new(),
            Some(_) | None => self.directory.missing_voters(hour),
        }
    }

    fn no_list(&self, now: Time) -> Option<Alarm> {
        let hour = self.schedule.hour_at(now);
        let patience = self.schedule.hour() / WAIT;
        match self.directory.list() {
            Some(list) if list.hour() >= hour => None,
            // Votes and entries may be a little late.
            _ if now.since(self.schedule.hour_start(hour).max(self.started)) < patience => None,
            Some(list) => Some(Alarm::NoList {
                hours: Some(hour.number().saturating_sub(list.hour().number())),
            }),
            None => Some(Alarm::NoList { hours: None }),
        }
    }

    fn halved(&self, now: Time) -> Option<(usize, usize)> {
        let (at, before, after) = self.halved?;
        let is_shown = now.since(at) < self.schedule.hour() * HALVED_FOR;
        is_shown.then_some((before, after))
    }

    /// What the operator has to know of this node's clock, word and list.
    pub(crate) fn alarms(&self, now: Time) -> impl Iterator<Item = Alarm> {
        let convicted = self.directory.conviction(&self.node, now).map(|_| Alarm::Convicted);
        let (other, same) = self.told_apart(now);
        let halved = self.halved(now).map(|(before, after)| Alarm::Halved { before, after });
        [
            self.clock_apart(now).map(Alarm::ClockApart),
            convicted,
            self.no_list(now),
            (other > same).then_some(Alarm::AnotherList { other, same }),
            halved,
        ]
        .into_iter()
        .flatten()
    }

    // The clock.

    /// This node's clock jumped: the next hour begins by the new time, and what peers said of theirs
    /// is compared with it.
    pub(crate) fn handle_clock_jump(&mut self, jump: ClockJump, now: Time) {
        self.heard.handle_clock_jump(jump.millis, jump.slept_ms());
        self.started = self.started.shifted(jump.millis);
        self.apart_since = self.apart_since.map(|since| since.shifted(jump.millis));
        self.halved =
            self.halved.map(|(at, before, after)| (at.shifted(jump.millis), before, after));
        if let Some(leftovers) = &mut self.leftovers {
            leftovers.stay_until = leftovers.stay_until.shifted(jump.millis);
        }
        self.next_hour = now;
        self.note_clocks(now);
    }

    /// By how many milliseconds the peers' clocks are ahead, if that is more than allowed.
    pub(crate) fn clock_apart(&self, now: Time) -> Option<i64> {
        self.heard.clocks_apart(&self.schedule, now)
    }

    /// Whether this node's clock is the network's, as far as it knows.
    pub(crate) fn shares_the_clock(&self) -> bool {
        self.apart_since.is_none()
    }

    /// Whether a peer's word about its clock, its list and this node's own records counts: that of
    /// voters and of the nodes of the last list does. Of strangers anybody can make any number.
    pub(crate) fn has_a_say(&self, peer: &NodeId) -> bool {
        let is_listed = self.directory.list().is_some_and(|list| list.get(peer).is_some());
        is_listed || self.directory.is_voter(peer)
    }

    /// Those whose word counts.
    pub(crate) fn voices(&self) -> Voices {
        let list = self.directory.list();
        let listed = list.into_iter().flat_map(|list| list.iter());
        let voters = self.descriptor.voters().iter().copied();
        let all: BTreeSet<_> = listed.map(|entry| entry.node).chain(voters).collect();
        let others = all.iter().filter(|node| **node != self.node).count();
        Voices { others, has_list: list.is_some() }
    }

    /// Takes the word of a peer that has a say about its clock and the list that it uses.
    pub(crate) fn note_told(&mut self, peer: NodeId, told: Told, now: Time) {
        self.heard.note(peer, told, now);
        self.note_clocks(now);
    }

    /// Compares the clocks, as far as peers have told theirs.
    pub(crate) fn note_clocks(&mut self, now: Time) {
        self.apart_since = match (self.clock_apart(now), self.apart_since) {
            (None, _) => None,
            (Some(_), since) => since.or(Some(now)),
        };
        if let Some(leftovers) = &mut self.leftovers
            && self.heard.are_clocks_known()
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

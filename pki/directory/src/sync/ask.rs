//! The side that asks: one conversation with each peer.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use keys::{Hour, NodeId, Time};
use record::{BucketDigest, ListSketch};

use super::wire::{
    Answer, BUCKETS, DIGEST, MAX_ASKED_BUCKETS, MAX_FETCH, Request, Rest, bucket, contains, insert,
};
use crate::admit::Directory;
use crate::item::ItemId;
use crate::list::digest;

/// Peers asked at once.
const MAX_PEERS: usize = 4;
/// A peer that has not answered for this long never will; a peer that asks this node gives up
/// sooner.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a conversation lasts, at most: 100 MB at 100 KB a second are 17 minutes.
const LONGEST: Duration = Duration::from_secs(1200);
/// For how long a conversation may bring little, and what it must bring afterwards to keep its
/// place when another peer waits: a statement that was taken in every so often, on average.
const SETTLING_IN: Duration = Duration::from_secs(30);
const SLOWEST: Duration = Duration::from_secs(2);
/// Names listed by one peer that are kept: those of 10,000 nodes with 4 statements each, and of
/// 20,000 words. The next conversation asks for the rest.
const MAX_MISSING: usize = 60_000;
/// Names of statements that were fetched and not taken in, which are not fetched again in this
/// hour.
const MAX_REFUSED: usize = 8192;

/// Times that a peer is asked for statements, beside one for each four that it listed.
const LEAST_FETCHES: usize = 16;
/// Times that one peer is asked for entries of a list: an answer holds 1,700 of them.
const ENTRY_ROUNDS: u8 = 8;

/// The conversations with the peers that are being asked.
#[derive(Default)]
pub struct Reconciliation {
    peers: BTreeMap<NodeId, Conversation>,
    refused: BTreeSet<ItemId>,
}

struct Conversation {
    state: State,
    /// When it began, to compare the clock of the answering peer with.
    begun: Time,
    /// When the last question was asked.
    asked: Time,
    /// Names that the peer has and this directory had not.
    missing: BTreeSet<ItemId>,
    /// How many more times it may ask for statements.
    fetches: usize,
    /// How many more times it may ask for entries of a list.
    asks_entries: u8,
    /// Statements that it brought and that were taken in.
    gained: u32,
    told: Option<Told>,
}

enum State {
    Summary,
    List { buckets: [u8; BUCKETS / 8], after: Option<ItemId> },
    Fetch(Vec<ItemId>),
    Entries(Vec<(u8, BucketDigest)>),
}

/// What a peer said of itself at the beginning of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How far its clock was ahead of ours, in milliseconds, give or take half a round trip.
    pub ahead_ms: i64,
    /// The list that it uses, with its hour.
    pub list: (Hour, ListSketch),
    /// The voters whose votes for the present hour it holds.
    pub voted: u32,
}

/// What comes next in a conversation.
#[derive(Debug)]
pub enum Step {
    /// Ask the peer this.
    Ask(Request),
    /// The conversation is over; the peer said this of itself.
    Done(Told),
    /// No conversation waits for this answer any more.
    Late,
    /// The peer does not keep to the protocol.
    Bad,
}

impl Reconciliation {
    /// Begins a conversation with a peer, unless there is one or there are too many. A conversation
    /// that brings next to nothing gives its place up.
    pub fn begin(&mut self, peer: NodeId, now: Time) -> Option<Request> {
        self.end_silent(now);
        if self.peers.contains_key(&peer) {
            return None;
        }
        if self.peers.len() >= MAX_PEERS {
            let idle = |(_, talk): &(&NodeId, &Conversation)| talk.is_idle(now);
            let idlest = self.peers.iter().filter(idle).min_by_key(|(_, talk)| talk.gained);
            let idlest = idlest.map(|(peer, _)| *peer)?;
            self.peers.remove(&idlest);
        }
        let conversation = Conversation {
            state: State::Summary,
            begun: now,
            asked: now,
            missing: BTreeSet::new(),
            fetches: LEAST_FETCHES,
            asks_entries: ENTRY_ROUNDS,
            gained: 0,
            told: None,
        };
        self.peers.insert(peer, conversation);
        Some(Request::Summary)
    }

    /// Whether a peer is being asked.
    pub fn is_asking(&mut self, peer: &NodeId, now: Time) -> bool {
        self.end_silent(now);
        self.peers.contains_key(peer)
    }

    fn end_silent(&mut self, now: Time) {
        self.peers
            .retain(|_, talk| now.since(talk.asked) < PATIENCE && now.since(talk.begun) < LONGEST);
    }

    /// Ends the conversation with a peer that did not answer.
    pub fn fail(&mut self, peer: &NodeId) {
        self.peers.remove(peer);
    }

    /// Lets refused statements be fetched again: another hour may take them.
    pub fn turn_hour(&mut self) {
        self.refused.clear();
    }

    /// Notes that a fetched statement was not taken in: it is not fetched again in this hour.
    pub fn refuse(&mut self, name: ItemId) {
        if self.refused.len() < MAX_REFUSED {
            self.refused.insert(name);
        }
    }

    /// Takes an answer whose statements, if it had any, have been taken in or refused already.
    pub fn handle_answer(
        &mut self,
        peer: &NodeId,
        answer: &Answer,
        directory: &Directory,
        now: Time,
    ) -> Step {
        let Some(mut conversation) = self.peers.remove(peer) else { return Step::Late };
        let step = self.go_on(&mut conversation, answer, directory, now);
        if let Step::Ask(_) = step {
            conversation.asked = now;
            self.peers.insert(*peer, conversation);
        }
        step
    }

    fn go_on(
        &self,
        conversation: &mut Conversation,
        answer: &Answer,
        directory: &Directory,
        now: Time,
    ) -> Step {
        match (&conversation.state, answer) {
            (State::Summary, Answer::Summary(summary)) => {
                let middle = conversation.begun.plus(now.since(conversation.begun) / 2);
                let (theirs, ours) = (summary.now.as_millis(), middle.as_millis());
                let ahead = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
                let ahead_ms = if theirs < ours { -ahead } else { ahead };
                let (list, voted) = (summary.list, summary.voted);
                conversation.told = Some(Told { ahead_ms, list, voted });
                let mut buckets = [0; BUCKETS / 8];
                let ours = directory.bucket_digests();
                for (number, (theirs, ours)) in summary.buckets.iter().zip(ours).enumerate() {
                    // A bucket that is empty there has nothing for us.
                    if theirs != ours && *theirs != [0; DIGEST] {
                        insert(&mut buckets, number);
                    }
                }
                if buckets == [0; BUCKETS / 8] {
                    return self.fetch(conversation, directory);
                }
                conversation.state = State::List { buckets, after: None };
                Step::Ask(Request::List { buckets, after: None })
            }
            (State::List { buckets, after }, Answer::List(names, rest)) => {
                let (buckets, after) = (*buckets, *after);
                let is_asked = |name: &ItemId| {
                    contains(&buckets, bucket(name)) && after.is_none_or(|after| *name > after)
                };
                if !names.iter().all(is_asked) {
                    return Step::Bad;
                }
                let last = names.last().copied();
                let lacks = |name: &&ItemId| {
                    !directory.items.contains(name) && !self.refused.contains(*name)
                };
                let room = MAX_MISSING.saturating_sub(conversation.missing.len());
                conversation.missing.extend(names.iter().filter(lacks).take(room));
                match rest {
                    // A list always advances: names ascend, and each comes after those listed
                    // before.
                    Rest::More => {
                        conversation.state = State::List { buckets, after: last };
                        Step::Ask(Request::List { buckets, after: last })
                    }
                    Rest::Nothing => {
                        // An answer holds 7 of the longest proofs, and 15 of the longest records.
                        conversation.fetches = conversation.missing.len() / 4 + LEAST_FETCHES;
                        self.fetch(conversation, directory)
                    }
                }
            }
            (State::Fetch(asked), Answer::Items(items)) => {
                if items.iter().any(|(name, _)| !asked.contains(name)) {
                    return Step::Bad;
                }
                for (name, _) in items {
                    conversation.missing.remove(name);
                    conversation.gained += u32::from(directory.holds(name));
                }
                if items.is_empty() {
                    // The peer has forgotten these statements since it listed them.
                    for name in asked {
                        conversation.missing.remove(name);
                    }
                }
                self.fetch(conversation, directory)
            }
            (State::Entries(asked), Answer::Entries(buckets)) => {
                let stated = |entries: &[_]| {
                    let first: &crate::ListEntry = entries.first()?;
                    Some((first.bucket(), digest(entries)))
                };
                let is_asked = |entries: &Vec<_>| {
                    stated(entries).is_some_and(|stated| asked.contains(&stated))
                };
                if !buckets.iter().all(is_asked) {
                    return Step::Bad;
                }
                // A peer that has nothing more is not asked again.
                if buckets.is_empty() {
                    conversation.asks_entries = 0;
                }
                self.fetch(conversation, directory)
            }
            (State::Summary | State::List { .. } | State::Fetch(_) | State::Entries(_), _) => {
                Step::Bad
            }
        }
    }

    fn fetch(&self, conversation: &mut Conversation, directory: &Directory) -> Step {
        if let Some(step) = conversation.ask_entries(directory) {
            return step;
        }
        let first = conversation.begun_at();
        let missing = &mut conversation.missing;
        let listed = directory.lists.missing_records().filter(|name| !self.refused.contains(name));
        missing.extend(listed);
        missing.retain(|name| !directory.items.contains(name) && !self.refused.contains(name));
        let is_asked_elsewhere = |name: &&ItemId| {
            self.peers.values().any(|other| match &other.state {
                State::Fetch(asked) => asked.contains(name),
                State::Summary | State::List { .. } | State::Entries(_) => false,
            })
        };
        // Conversations start at different buckets, so that two that lack the same ask in different
        // orders.
        let (before, after): (Vec<_>, Vec<_>) =
            missing.iter().partition(|name| bucket(name) < first);
        let names = after.into_iter().chain(before);
        let mut names: Vec<_> =
            names.filter(|name| !is_asked_elsewhere(name)).take(MAX_FETCH).copied().collect();
        if names.is_empty() {
            // All that is missing is being asked of other peers: one that never answers must not
            // hide it.
            names = missing.iter().take(MAX_FETCH).copied().collect();
        }
        if names.is_empty() {
            return conversation.end();
        }
        // The node gives up on a peer that hands out statements one by one; other peers have the
        // rest.
        let Some(left) = conversation.fetches.checked_sub(1) else { return conversation.end() };
        conversation.fetches = left;
        conversation.state = State::Fetch(names.clone());
        Step::Ask(Request::Fetch(names))
    }
}

impl Conversation {
    /// Whether it has brought so little that another peer may have its place.
    fn is_idle(&self, now: Time) -> bool {
        let lasted = now.since(self.begun);
        lasted > SETTLING_IN && SLOWEST.saturating_mul(self.gained) < lasted
    }

    /// Asks for entries of the coming list, if some are not known.
    fn ask_entries(&mut self, directory: &Directory) -> Option<Step> {
        let mut asked = directory.lists.missing_buckets();
        if asked.is_empty() {
            return None;
        }
        self.asks_entries = self.asks_entries.checked_sub(1)?;
        asked.truncate(MAX_ASKED_BUCKETS);
        self.state = State::Entries(asked.clone());
        Some(Step::Ask(Request::Entries(asked)))
    }

    fn end(&self) -> Step {
        self.told.map_or(Step::Bad, Step::Done)
    }

    /// The bucket to start at, which differs from conversation to conversation.
    fn begun_at(&self) -> usize {
        let hash =
            self.told.map_or(0, |told| told.ahead_ms.unsigned_abs() ^ self.begun.as_millis());
        usize::try_from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).unwrap_or(0)
    }
}

//! Reconciliation: what two directories have to tell each other, in as few octets as may be.
//!
//! ```text
//! Summary  ->  a digest for each of 256 buckets of names
//! List     ->  the names in the buckets that differ
//! Fetch    ->  the statements that are missing here
//! ```
//!
//! One side asks. It asks several peers, so that none of them can hide a statement that another has;
//! what one is being asked for is not asked of another, until that one has failed. Everything that comes is
//! verified as if it had been gossiped. Where it breaks off, the next time goes on by itself: what came is
//! not missing any more.

use core::ops::Bound::{Excluded, Unbounded};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use keys::{NetworkId, NodeId, Time};
use record::canonical::{self, CodecError};
use record::{MAX_STATEMENT, Statement, StatementError};

use crate::admit::{Directory, ItemId};

/// Octets of a request, at most: 128 names and their frame.
pub const MAX_REQUEST: usize = 4 * 1024;
/// Octets of an answer, at most.
pub const MAX_ANSWER: usize = 128 * 1024;

const VERSION: u8 = 2;
const BUCKETS: usize = 256;
/// Octets of a bucket's digest.
const DIGEST: usize = 16;
/// Names asked for at once: 128 × 16 octets. An answer holds some 24 records of 5 KB.
const MAX_FETCH: usize = 128;
/// Names listed in one answer: 4,096 × 16 octets are half of an answer.
const MAX_LISTED: usize = 4096;
/// Statements in one answer: as many as can be asked for.
const MAX_ITEMS: usize = MAX_FETCH;
/// Leaves room for the lengths around the statements.
const MAX_ITEM_OCTETS: usize = MAX_ANSWER - 4096;
/// Peers asked at once.
const MAX_PEERS: usize = 4;
/// A peer that has not answered for so long never will; whoever asks for us gives up before that.
const PATIENCE: Duration = Duration::from_secs(120);
/// A conversation lasts no longer: 100 MB at 100 KB a second are 17 minutes.
const LONGEST: Duration = Duration::from_secs(1200);
/// Names listed by one peer that are kept: those of 10,000 nodes with 4 statements each, and of 20,000 words.
/// What is beyond is asked for by the next conversation.
const MAX_MISSING: usize = 60_000;
/// Names of statements that were fetched and not taken in, which are not fetched again in this hour.
const MAX_REFUSED: usize = 8192;

const _: () = assert!(MAX_FETCH * ItemId::LEN + 64 <= MAX_REQUEST);
const _: () = assert!(BUCKETS * DIGEST + 128 <= MAX_ANSWER);
const _: () = assert!(MAX_LISTED * ItemId::LEN + 64 <= MAX_ANSWER);
const _: () = assert!(MAX_ITEM_OCTETS >= 2 * MAX_STATEMENT);
const _: () = assert!(MAX_ITEMS * 8 + 64 <= MAX_ANSWER - MAX_ITEM_OCTETS);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// What time it is there, and the digests of all buckets.
    Summary,
    /// The names in these buckets, in ascending order, after one that is known.
    List {
        /// A bit for each bucket, the first octet of its names; the lowest bit of the first octet is bucket 0.
        buckets: [u8; BUCKETS / 8],
        /// Where the list before ended.
        after: Option<ItemId>,
    },
    /// The statements of these names, as many as an answer holds.
    Fetch(Vec<ItemId>),
}

/// An answer, of whose statements the signatures were checked.
#[derive(Debug)]
pub enum Answer {
    /// To [`Request::Summary`].
    Summary(Box<Summary>),
    /// To [`Request::List`]: names, ascending, and whether there are more.
    List(Vec<ItemId>, Rest),
    /// To [`Request::Fetch`]: for each statement its name, and what came of checking it.
    Items(Vec<(ItemId, Result<Statement, StatementError>)>),
}

/// Whether a list goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It does.
    More,
    /// That was all.
    Nothing,
}

/// What a peer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The time there.
    pub now: Time,
    /// The hash of the present hour's set: [`Directory::set_hash`].
    pub set: [u8; 32],
    buckets: Vec<[u8; DIGEST]>,
}

impl Directory {
    /// The answer to a peer's question, as octets.
    ///
    /// # Errors
    /// [`CodecError`] for what is no question.
    pub fn answer(
        &self,
        octets: &[u8],
        now: Time,
        set: impl FnOnce() -> [u8; 32],
    ) -> Result<Vec<u8>, CodecError> {
        let body = match Request::decode(octets)? {
            Request::Summary => AnswerBody::Summary {
                now: now.as_millis(),
                set: set(),
                buckets: self.bucket_digests().concat(),
            },
            Request::List { buckets, after } => {
                let from = after.map_or(Unbounded, Excluded);
                let names = self.items.range((from, Unbounded)).map(|(id, _)| id);
                let mut names = names.filter(|id| contains(&buckets, bucket(id)));
                let listed: Vec<_> = names.by_ref().take(MAX_LISTED).copied().collect();
                AnswerBody::List { names: join(&listed), more: names.next().is_some() }
            }
            Request::Fetch(names) => {
                let mut octets = 0;
                let held = names.iter().filter_map(|name| self.items.get(name));
                let fitting = held.take_while(|item| {
                    octets += item.octets.len();
                    octets <= MAX_ITEM_OCTETS
                });
                AnswerBody::Items(fitting.map(|item| item.octets.to_vec()).collect())
            }
        };
        canonical::encode::<MAX_ANSWER>(&Versioned { version: VERSION, body })
    }

    fn bucket_digests(&self) -> &[[u8; DIGEST]] {
        self.digests.get_or_init(|| self.digest_buckets())
    }

    fn digest_buckets(&self) -> Vec<[u8; DIGEST]> {
        let mut digests = vec![[0; DIGEST]; BUCKETS];
        let mut items = self.items.keys().peekable();
        for (number, digest) in digests.iter_mut().enumerate() {
            let mut hasher = blake3::Hasher::new();
            let mut is_empty = true;
            while let Some(id) = items.next_if(|id| bucket(id) == number) {
                hasher.update(id.as_bytes());
                is_empty = false;
            }
            if !is_empty {
                hasher.finalize_xof().fill(digest);
            }
        }
        digests
    }
}

impl Request {
    /// The octets.
    ///
    /// # Errors
    /// None for what [`Reconciliation`] asks.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let body = match self {
            Self::Summary => RequestBody::Summary,
            Self::List { buckets, after } => {
                RequestBody::List { buckets: *buckets, after: after.map(|id| *id.as_bytes()) }
            }
            Self::Fetch(names) => RequestBody::Fetch(join(names)),
        };
        canonical::encode::<MAX_REQUEST>(&Versioned { version: VERSION, body })
    }

    /// Reads a peer's question.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(octets: &[u8]) -> Result<Self, CodecError> {
        let framed: Versioned<RequestBody> = canonical::decode::<_, MAX_REQUEST>(octets)?;
        if framed.version != VERSION {
            return Err(CodecError::Malformed);
        }
        Ok(match framed.body {
            RequestBody::Summary => Self::Summary,
            RequestBody::List { buckets, after } => {
                Self::List { buckets, after: after.map(ItemId::from_bytes) }
            }
            RequestBody::Fetch(names) => Self::Fetch(names_of(&names, MAX_FETCH)?),
        })
    }
}

impl Answer {
    /// Reads an answer and checks what is signed in it: up to some 20 ms, on whatever thread has time.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn check(octets: &[u8], network: &NetworkId) -> Result<Self, CodecError> {
        let framed: Versioned<AnswerBody> = canonical::decode::<_, MAX_ANSWER>(octets)?;
        if framed.version != VERSION {
            return Err(CodecError::Malformed);
        }
        match framed.body {
            AnswerBody::Summary { now, set, buckets } => {
                let (digests, []) = buckets.as_chunks() else { return Err(CodecError::Malformed) };
                if digests.len() != BUCKETS {
                    return Err(CodecError::Malformed);
                }
                let now = Time::from_millis(now);
                Ok(Self::Summary(Box::new(Summary { now, set, buckets: digests.to_vec() })))
            }
            AnswerBody::List { names, more } => {
                let names = names_of(&names, MAX_LISTED)?;
                let ascending = names.iter().zip(names.iter().skip(1)).all(|(a, b)| a < b);
                let rest = if more { Rest::More } else { Rest::Nothing };
                if !ascending || (rest == Rest::More && names.is_empty()) {
                    return Err(CodecError::Malformed);
                }
                Ok(Self::List(names, rest))
            }
            AnswerBody::Items(items) => {
                if items.len() > MAX_ITEMS {
                    return Err(CodecError::Malformed);
                }
                let check =
                    |octets: &Vec<u8>| (ItemId::of(octets), Statement::check(octets, network));
                Ok(Self::Items(items.iter().map(check).collect()))
            }
        }
    }
}

/// The conversations with the peers that are being asked.
#[derive(Default)]
pub struct Reconciliation {
    peers: BTreeMap<NodeId, Conversation>,
    refused: BTreeSet<ItemId>,
}

struct Conversation {
    state: State,
    /// When it began, for the clock of who answers.
    begun: Time,
    /// When the last question was asked.
    asked: Time,
    /// Names that the peer has and this directory had not.
    missing: BTreeSet<ItemId>,
    /// Questions for statements that it may still take.
    fetches: usize,
    told: Option<Told>,
}

enum State {
    Summary,
    List { buckets: [u8; BUCKETS / 8], after: Option<ItemId> },
    Fetch(Vec<ItemId>),
}

/// What a peer said of itself at the beginning of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How far its clock was ahead of ours, in milliseconds, give or take half a round trip.
    pub ahead_ms: i64,
    /// Its hash of the present hour's set.
    pub set: [u8; 32],
}

/// What comes next in a conversation.
#[derive(Debug)]
pub enum Step {
    /// Ask the peer this.
    Ask(Request),
    /// That was all; what the peer said of itself.
    Done(Told),
    /// Nobody waits for this answer any more.
    Late,
    /// The peer does not keep to the protocol.
    Bad,
}

impl Reconciliation {
    /// Begins a conversation with a peer, unless there is one or there are too many.
    pub fn begin(&mut self, peer: NodeId, now: Time) -> Option<Request> {
        self.peers
            .retain(|_, talk| now.since(talk.asked) < PATIENCE && now.since(talk.begun) < LONGEST);
        if self.peers.len() >= MAX_PEERS || self.peers.contains_key(&peer) {
            return None;
        }
        let conversation = Conversation {
            state: State::Summary,
            begun: now,
            asked: now,
            missing: BTreeSet::new(),
            fetches: 0,
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

    /// A peer did not answer.
    pub fn fail(&mut self, peer: &NodeId) {
        self.peers.remove(peer);
    }

    /// What was refused may be taken in another hour.
    pub fn turn_hour(&mut self) {
        self.refused.clear();
    }

    /// A statement that was fetched was not taken in.
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
                conversation.told = Some(Told { ahead_ms, set: summary.set });
                let mut buckets = [0; BUCKETS / 8];
                let ours = directory.bucket_digests();
                for (number, (theirs, ours)) in summary.buckets.iter().zip(ours).enumerate() {
                    // A bucket that is empty there has nothing for us.
                    if theirs != ours && *theirs != [0; DIGEST] {
                        insert(&mut buckets, number);
                    }
                }
                if buckets == [0; BUCKETS / 8] {
                    return conversation.end();
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
                    !directory.items.contains_key(*name) && !self.refused.contains(*name)
                };
                let room = MAX_MISSING.saturating_sub(conversation.missing.len());
                conversation.missing.extend(names.iter().filter(lacks).take(room));
                match rest {
                    // A list gets on: names ascend, and each comes after those before.
                    Rest::More => {
                        conversation.state = State::List { buckets, after: last };
                        Step::Ask(Request::List { buckets, after: last })
                    }
                    Rest::Nothing => {
                        // An answer holds 7 of the longest proofs, and 15 of the longest records.
                        conversation.fetches = conversation.missing.len() / 4 + 16;
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
                }
                if items.is_empty() {
                    // The peer has forgotten them since it listed them.
                    for name in asked {
                        conversation.missing.remove(name);
                    }
                }
                self.fetch(conversation, directory)
            }
            (State::Summary | State::List { .. } | State::Fetch(_), _) => Step::Bad,
        }
    }

    fn fetch(&self, conversation: &mut Conversation, directory: &Directory) -> Step {
        let first = conversation.begun_at();
        let missing = &mut conversation.missing;
        missing.retain(|name| !directory.items.contains_key(name) && !self.refused.contains(name));
        let is_asked_elsewhere = |name: &&ItemId| {
            self.peers.values().any(|other| match &other.state {
                State::Fetch(asked) => asked.contains(name),
                State::Summary | State::List { .. } => false,
            })
        };
        // Each conversation starts elsewhere: two that miss the same do not follow one another.
        let (before, after): (Vec<_>, Vec<_>) =
            missing.iter().partition(|name| bucket(name) < first);
        let names = after.into_iter().chain(before);
        let mut names: Vec<_> =
            names.filter(|name| !is_asked_elsewhere(name)).take(MAX_FETCH).copied().collect();
        if names.is_empty() {
            // Only what somebody else is being asked for: a peer that never answers must not hide it.
            names = missing.iter().take(MAX_FETCH).copied().collect();
        }
        if names.is_empty() {
            return conversation.end();
        }
        // Who hands out one by one is left; the others have the rest.
        let Some(left) = conversation.fetches.checked_sub(1) else { return conversation.end() };
        conversation.fetches = left;
        conversation.state = State::Fetch(names.clone());
        Step::Ask(Request::Fetch(names))
    }
}

impl Conversation {
    fn end(&self) -> Step {
        self.told.map_or(Step::Bad, Step::Done)
    }

    /// A bucket that differs from conversation to conversation.
    fn begun_at(&self) -> usize {
        let hash =
            self.told.map_or(0, |told| told.ahead_ms.unsigned_abs() ^ self.begun.as_millis());
        usize::try_from(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).unwrap_or(0)
    }
}

fn bucket(name: &ItemId) -> usize {
    let [first, ..] = name.as_bytes();
    usize::from(*first)
}

fn contains(buckets: &[u8; BUCKETS / 8], number: usize) -> bool {
    buckets.get(number / 8).is_some_and(|octet| octet >> (number % 8) & 1 == 1)
}

fn insert(buckets: &mut [u8; BUCKETS / 8], number: usize) {
    if let Some(octet) = buckets.get_mut(number / 8) {
        *octet |= 1 << (number % 8);
    }
}

fn join(names: &[ItemId]) -> Vec<u8> {
    names.iter().flat_map(|name| name.as_bytes()).copied().collect()
}

fn names_of(octets: &[u8], most: usize) -> Result<Vec<ItemId>, CodecError> {
    match octets.as_chunks() {
        (names, []) if names.len() <= most => {
            Ok(names.iter().map(|name| ItemId::from_bytes(*name)).collect())
        }
        _ => Err(CodecError::Malformed),
    }
}

#[derive(Encode, Decode)]
struct Versioned<T> {
    version: u8,
    body: T,
}

#[derive(Encode, Decode)]
enum RequestBody {
    Summary,
    List { buckets: [u8; BUCKETS / 8], after: Option<[u8; ItemId::LEN]> },
    Fetch(Vec<u8>),
}

#[derive(Encode, Decode)]
enum AnswerBody {
    Summary { now: u64, set: [u8; 32], buckets: Vec<u8> },
    List { names: Vec<u8>, more: bool },
    Items(Vec<Vec<u8>>),
}

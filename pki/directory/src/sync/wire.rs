//! Questions and answers of reconciliation, as octets.

use bincode::{Decode, Encode};
use keys::{Checked, Hour, NetworkId, Time};
use record::canonical::{self, CodecError};
use record::{BucketDigest, ListSketch, MAX_STATEMENT, Statement, StatementError};

use crate::item::ItemId;
use crate::list::{ListEntry, read_entries};

/// Octets of a request, at most: 192 buckets, or 128 names, and their frame.
pub const MAX_REQUEST: usize = 4 * 1024;
/// Octets of an answer, at most.
pub const MAX_ANSWER: usize = 128 * 1024;

pub(super) const VERSION: u8 = 3;
/// Buckets of names.
pub(super) const BUCKETS: usize = 256;
/// Octets of a bucket's digest.
pub(super) const DIGEST: usize = 16;
/// Names asked for at once: 128 × 16 octets. An answer holds some 24 records of 5 KB.
pub(super) const MAX_FETCH: usize = 128;
/// Names listed in one answer: 4,096 × 16 octets are half of an answer.
pub(super) const MAX_LISTED: usize = 4096;
/// Statements in one answer: as many as can be asked for.
pub(super) const MAX_ITEMS: usize = MAX_FETCH;
/// Octets of the statements in one answer, at most; leaves room for the lengths around them.
pub(super) const MAX_ITEM_OCTETS: usize = MAX_ANSWER - 4096;

/// Buckets of a list asked for at once: 192 × 17 octets.
pub(super) const MAX_ASKED_BUCKETS: usize = 192;

const _: () = assert!(MAX_ASKED_BUCKETS * (1 + BucketDigest::LEN) + 64 <= MAX_REQUEST);
const _: () = assert!(MAX_FETCH * ItemId::LEN + 64 <= MAX_REQUEST);
const _: () = assert!(BUCKETS * DIGEST + 128 <= MAX_ANSWER);
const _: () = assert!(MAX_LISTED * ItemId::LEN + 64 <= MAX_ANSWER);
const _: () = assert!(MAX_ITEM_OCTETS >= 2 * MAX_STATEMENT);
const _: () = assert!(MAX_ITEMS * 8 + 64 <= MAX_ANSWER - MAX_ITEM_OCTETS);

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Asks for the peer's time and the digests of all buckets.
    Summary,
    /// Asks for the names in these buckets, in ascending order, after one that is known.
    List {
        /// A bit for each bucket, a bucket being the first octet of its names; the lowest bit of
        /// the first octet is bucket 0.
        buckets: [u8; BUCKETS / 8],
        /// The last name of the previous list.
        after: Option<ItemId>,
    },
    /// Asks for the statements of these names, as many as an answer holds.
    Fetch(Vec<ItemId>),
    /// Asks for the entries of these buckets of a list, of whatever hour, by number and digest; as
    /// many buckets as an answer holds.
    Entries(Vec<(u8, BucketDigest)>),
}

/// An answer; the signatures of its statements have been checked.
#[derive(Debug)]
pub enum Answer {
    /// To [`Request::Summary`].
    Summary(Box<Summary>),
    /// To [`Request::List`]: names, ascending, and whether there are more.
    List(Vec<ItemId>, Rest),
    /// To [`Request::Fetch`]: for each statement its name, and what came of checking it.
    Items(Vec<(ItemId, Result<Statement, StatementError>)>),
    /// To [`Request::Entries`]: the entries of each bucket that was found, none of them empty.
    Entries(Vec<Vec<ListEntry>>),
}

/// Whether a list goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There are more names.
    More,
    /// There are no more names.
    Nothing,
}

/// What a peer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The peer's time.
    pub now: Time,
    /// The list that it uses, with its hour; hour 0 if it has none.
    pub list: (Hour, ListSketch),
    /// The voters whose votes for the present hour it holds, a bit for each in the descriptor's
    /// order.
    pub voted: u32,
    pub(super) buckets: Vec<[u8; DIGEST]>,
}

impl Request {
    /// The octets.
    ///
    /// # Errors
    /// No request that [`crate::Reconciliation`] makes causes one.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let body = match self {
            Self::Summary => RequestBody::Summary,
            Self::List { buckets, after } => {
                RequestBody::List { buckets: *buckets, after: after.map(|id| *id.as_bytes()) }
            }
            Self::Fetch(names) => RequestBody::Fetch(join(names)),
            Self::Entries(buckets) => RequestBody::Entries(
                buckets.iter().map(|(number, digest)| (*number, *digest.as_bytes())).collect(),
            ),
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
            RequestBody::Entries(buckets) => {
                let is_ascending = buckets.is_sorted_by(|(one, _), (next, _)| one < next);
                if buckets.len() > MAX_ASKED_BUCKETS || !is_ascending {
                    return Err(CodecError::Malformed);
                }
                let digest = |(number, digest)| (number, BucketDigest::from_bytes(digest));
                Self::Entries(buckets.into_iter().map(digest).collect())
            }
        })
    }
}

impl Answer {
    /// Reads an answer and checks what is signed in it: up to some 20 ms, on whatever thread has
    /// time.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn check(octets: &[u8], network: &NetworkId) -> Result<Self, CodecError> {
        Self::check_knowing(octets, network, &mut Checked::default())
    }

    /// The same, without checking again what was checked before.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn check_knowing(
        octets: &[u8],
        network: &NetworkId,
        checked: &mut Checked,
    ) -> Result<Self, CodecError> {
        let framed: Versioned<AnswerBody> = canonical::decode::<_, MAX_ANSWER>(octets)?;
        if framed.version != VERSION {
            return Err(CodecError::Malformed);
        }
        match framed.body {
            AnswerBody::Summary { now, hour, sketch, voted, buckets } => {
                let (digests, []) = buckets.as_chunks() else { return Err(CodecError::Malformed) };
                if digests.len() != BUCKETS {
                    return Err(CodecError::Malformed);
                }
                let now = Time::from_millis(now);
                Ok(Self::Summary(Box::new(Summary {
                    now,
                    list: (Hour::new(hour), ListSketch::from_bytes(sketch)),
                    voted,
                    buckets: digests.to_vec(),
                })))
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
                let check = |octets: &Vec<u8>| {
                    (ItemId::of(octets), Statement::check_knowing(octets, network, checked))
                };
                Ok(Self::Items(items.iter().map(check).collect()))
            }
            AnswerBody::Entries(buckets) => {
                if buckets.len() > MAX_ASKED_BUCKETS || buckets.iter().any(Vec::is_empty) {
                    return Err(CodecError::Malformed);
                }
                let buckets: Option<Vec<_>> =
                    buckets.iter().map(|octets| read_entries(octets)).collect();
                buckets.map(Self::Entries).ok_or(CodecError::Malformed)
            }
        }
    }
}

pub(super) fn bucket(name: &ItemId) -> usize {
    let [first, ..] = name.as_bytes();
    usize::from(*first)
}

pub(super) fn contains(buckets: &[u8; BUCKETS / 8], number: usize) -> bool {
    buckets.get(number / 8).is_some_and(|octet| octet >> (number % 8) & 1 == 1)
}

pub(super) fn insert(buckets: &mut [u8; BUCKETS / 8], number: usize) {
    if let Some(octet) = buckets.get_mut(number / 8) {
        *octet |= 1 << (number % 8);
    }
}

pub(super) fn join(names: &[ItemId]) -> Vec<u8> {
    names.iter().flat_map(|name| name.as_bytes()).copied().collect()
}

pub(super) fn names_of(octets: &[u8], most: usize) -> Result<Vec<ItemId>, CodecError> {
    match octets.as_chunks() {
        (names, []) if names.len() <= most => {
            Ok(names.iter().map(|name| ItemId::from_bytes(*name)).collect())
        }
        _ => Err(CodecError::Malformed),
    }
}

#[derive(Encode, Decode)]
pub(super) struct Versioned<T> {
    pub(super) version: u8,
    pub(super) body: T,
}

#[derive(Encode, Decode)]
pub(super) enum RequestBody {
    Summary,
    List { buckets: [u8; BUCKETS / 8], after: Option<[u8; ItemId::LEN]> },
    Fetch(Vec<u8>),
    Entries(Vec<(u8, [u8; BucketDigest::LEN])>),
}

#[derive(Encode, Decode)]
pub(super) enum AnswerBody {
    Summary { now: u64, hour: u64, sketch: [u8; ListSketch::LEN], voted: u32, buckets: Vec<u8> },
    List { names: Vec<u8>, more: bool },
    Items(Vec<Vec<u8>>),
    Entries(Vec<Vec<u8>>),
}

//! The proof that an identity said two things of which it may say only one: two of its own records.
//!
//! It needs no signature of its own: anybody with both records can make it, and nobody without
//! them.

use std::sync::Arc;

use bincode::{Decode, Encode};
use keys::{Epoch, NetworkId, NodeId, Schedule, Time};

use crate::canonical;
use crate::error::StatementError;
use crate::hash::StatementHash;
use crate::layout::{MAX_RECORD, MAX_STATEMENT, PROOF_TAG};
use crate::record::{Record, Unverified};

const VERSION: u16 = 1;
const MAX_BODY: usize = MAX_STATEMENT - 1;

// Version, two lengths, two records.
const _: () = assert!(2 + 2 * 8 + 2 * MAX_RECORD <= MAX_BODY);

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Two records with one sequence number.
    OneNumber,
    /// Two records that follow the same one.
    Fork,
    /// Two mix keys for one epoch.
    TwoKeys,
}

impl Breach {
    /// The rule that two different records of one identity break, if any.
    #[must_use]
    pub fn between(first: &Record, second: &Record) -> Option<Self> {
        if first.node() != second.node() || first.hash() == second.hash() {
            return None;
        }
        if first.sequence() == second.sequence() {
            return Some(Self::OneNumber);
        }
        let differs = |(epoch, key)| second.key(epoch).is_some_and(|other| other != key);
        if first.keys().any(differs) {
            return Some(Self::TwoKeys);
        }
        // A first record follows no other, and a node that has lost everything begins with one
        // again.
        let follows = first.previous();
        (follows != StatementHash::NONE && follows == second.previous()).then_some(Self::Fork)
    }
}

/// A verified proof.
#[derive(Debug)]
pub struct Proof {
    octets: Arc<[u8]>,
    hash: StatementHash,
    node: NodeId,
    breach: Breach,
    last_epoch: Epoch,
    dated: Time,
    /// Of each record: when it was published, and its first and last epoch.
    spans: [(Time, Epoch, Epoch); 2],
}

impl Proof {
    /// The proof that two records make, if they do.
    #[must_use]
    pub fn of(first: &Record, second: &Record) -> Option<Self> {
        let breach = Breach::between(first, second)?;
        let (first, second) =
            if first.hash() < second.hash() { (first, second) } else { (second, first) };
        let body = Body {
            version: VERSION,
            first: first.octets().to_vec(),
            second: second.octets().to_vec(),
        };
        let mut octets = vec![PROOF_TAG];
        octets.extend(canonical::encode::<MAX_BODY>(&body).ok()?);
        Some(Self::new(octets.into(), breach, first, second))
    }

    pub(crate) fn check(octets: &[u8], network: &NetworkId) -> Result<Self, StatementError> {
        let (_, body) = octets.split_first().ok_or(StatementError::Malformed)?;
        let body: Body = canonical::decode::<_, MAX_BODY>(body)?;
        if body.version != VERSION {
            return Err(StatementError::Unknown);
        }
        let (first, second) = (Unverified::parse(&body.first)?, Unverified::parse(&body.second)?);
        let (first, second) = (first.check_signature(network)?, second.check_signature(network)?);
        let (first, second) = (first.peek(), second.peek());
        // Only one order is valid, or a proof would have two encodings.
        if first.hash() >= second.hash() {
            return Err(StatementError::NotCanonical);
        }
        let breach = Breach::between(first, second).ok_or(StatementError::Malformed)?;
        Ok(Self::new(octets.into(), breach, first, second))
    }

    /// Checks that its records speak only of epochs that they may speak of, as
    /// [`crate::Signed::timely`] does: a proof about the far future would be kept until then.
    ///
    /// # Errors
    /// `Future`.
    pub fn timely(&self, now: Time, schedule: &Schedule) -> Result<(), StatementError> {
        // The same rule as for records: one that could never be taken in proves nothing, and
        // outweighs no other proof.
        let is_ahead = |(published, first, last): (Time, Epoch, Epoch)| {
            let epoch = schedule.epoch_at(published);
            first < epoch || last > epoch.plus(3) || !schedule.may_be_dated(published, now)
        };
        if self.spans.into_iter().any(is_ahead) { Err(StatementError::Future) } else { Ok(()) }
    }

    fn new(octets: Arc<[u8]>, breach: Breach, first: &Record, second: &Record) -> Self {
        let hash = StatementHash::of(&octets);
        let span = |record: &Record| {
            let (first, last) = record.span();
            (record.published_at(), first, last)
        };
        Self {
            octets,
            hash,
            node: first.node(),
            breach,
            last_epoch: first.span().1.max(second.span().1),
            dated: first.published_at().max(second.published_at()),
            spans: [span(first), span(second)],
        }
    }

    /// The statement's octets.
    #[must_use]
    pub fn octets(&self) -> &Arc<[u8]> {
        &self.octets
    }

    /// BLAKE3 of the octets.
    #[must_use]
    pub fn hash(&self) -> StatementHash {
        self.hash
    }

    /// The identity that made both records.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What was broken.
    #[must_use]
    pub fn breach(&self) -> Breach {
        self.breach
    }

    /// The last epoch that it concerns.
    #[must_use]
    pub fn last_epoch(&self) -> Epoch {
        self.last_epoch
    }

    /// The date of its later record: a node that vouches for the identity after that knew of the
    /// breach.
    #[must_use]
    pub fn dated(&self) -> Time {
        self.dated
    }
}

#[derive(Encode, Decode)]
struct Body {
    version: u16,
    first: Vec<u8>,
    second: Vec<u8>,
}

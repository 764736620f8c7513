//! The proof that an identity said two things of which it may say only one: two of its own records,
//! or two of its votes.
//!
//! It needs no signature of its own: anybody with both statements can make it, and nobody without
//! them.

use core::time::Duration;
use std::sync::Arc;

use bincode::{Decode, Encode};
use keys::{Epoch, Hour, NetworkId, NodeId, Schedule, Time};

use crate::canonical;
use crate::error::StatementError;
use crate::hash::StatementHash;
use crate::layout::{MAX_RECORD, MAX_STATEMENT, PROOF_TAG, VOTE_TAG};
use crate::record::{Record, Unverified};
use crate::vote::Vote;

const VERSION: u16 = 2;
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
    /// Two records dated closer to each other than the network allows.
    TooClose,
    /// Two votes for one hour.
    TwoVotes,
}

impl Breach {
    /// The rule that two different records of one identity break, if any, where records are dated
    /// `spacing` apart.
    #[must_use]
    pub fn between(first: &Record, second: &Record, spacing: Duration) -> Option<Self> {
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
        if follows != StatementHash::NONE && follows == second.previous() {
            return Some(Self::Fork);
        }
        (apart(first.published_at(), second.published_at()) < spacing).then_some(Self::TooClose)
    }
}

fn apart(one: Time, other: Time) -> Duration {
    one.since(other).max(other.since(one))
}

/// A verified proof.
#[derive(Debug)]
pub struct Proof {
    octets: Arc<[u8]>,
    hash: StatementHash,
    node: NodeId,
    breach: Breach,
    about: About,
}

/// What the two statements speak of.
#[derive(Clone, Copy, Debug)]
enum About {
    /// Of each record: when it was published, and its first and last epoch.
    Records([(Time, Epoch, Epoch); 2]),
    Votes(Hour),
}

impl Proof {
    /// The proof that two records make, if they do, where records are dated `spacing` apart.
    #[must_use]
    pub fn of(first: &Record, second: &Record, spacing: Duration) -> Option<Self> {
        let breach = Breach::between(first, second, spacing)?;
        let (first, second) =
            if first.hash() < second.hash() { (first, second) } else { (second, first) };
        let octets = encode(first.octets(), second.octets())?;
        Some(Self::new(octets.into(), first.node(), breach, About::of(first, second)))
    }

    /// The proof that two votes make, if they do.
    #[must_use]
    pub fn of_votes(first: &Vote, second: &Vote) -> Option<Self> {
        if !are_rivals(first, second) {
            return None;
        }
        let (first, second) =
            if first.hash() < second.hash() { (first, second) } else { (second, first) };
        let octets = encode(first.octets(), second.octets())?;
        let about = About::Votes(first.hour());
        Some(Self::new(octets.into(), first.voter(), Breach::TwoVotes, about))
    }

    pub(crate) fn check(octets: &[u8], network: &NetworkId) -> Result<Self, StatementError> {
        let (_, body) = octets.split_first().ok_or(StatementError::Malformed)?;
        let body: Body = canonical::decode::<_, MAX_BODY>(body)?;
        if body.version != VERSION {
            return Err(StatementError::Unknown);
        }
        // Only one order is valid, or a proof would have two encodings.
        if StatementHash::of(&body.first) >= StatementHash::of(&body.second) {
            return Err(StatementError::NotCanonical);
        }
        if body.first.first() == Some(&VOTE_TAG) {
            let (first, second) =
                (Vote::check(&body.first, network)?, Vote::check(&body.second, network)?);
            if !are_rivals(&first, &second) {
                return Err(StatementError::Malformed);
            }
            let about = About::Votes(first.hour());
            return Ok(Self::new(octets.into(), first.voter(), Breach::TwoVotes, about));
        }
        let (first, second) = (Unverified::parse(&body.first)?, Unverified::parse(&body.second)?);
        let (first, second) = (first.check_signature(network)?, second.check_signature(network)?);
        let (first, second) = (first.peek(), second.peek());
        // Whether two dates are too close is a matter of the network's parameters: see `timely`.
        let breach =
            Breach::between(first, second, Duration::MAX).ok_or(StatementError::Malformed)?;
        Ok(Self::new(octets.into(), first.node(), breach, About::of(first, second)))
    }

    /// Checks what depends on the network's times: that its records speak only of epochs that they
    /// may speak of, as [`crate::Signed::timely`] does, or its votes of an hour that has come; and
    /// that two records which break no other rule are dated less than `spacing` apart.
    ///
    /// # Errors
    /// `Future`, or `Malformed` for records that break no rule.
    pub fn timely(
        &self,
        now: Time,
        schedule: &Schedule,
        spacing: Duration,
    ) -> Result<(), StatementError> {
        match self.about {
            About::Records(spans) => {
                // The same rule as for records: one that could never be taken in proves nothing,
                // and outweighs no other proof. A proof about the far future would be kept until
                // then.
                let is_ahead = |(published, first, last): (Time, Epoch, Epoch)| {
                    let epoch = schedule.epoch_at(published);
                    first < epoch || last > epoch.plus(3) || !schedule.may_be_dated(published, now)
                };
                let [(first, ..), (second, ..)] = spans;
                if spans.into_iter().any(is_ahead) {
                    return Err(StatementError::Future);
                }
                let is_apart = self.breach == Breach::TooClose && apart(first, second) >= spacing;
                if is_apart { Err(StatementError::Malformed) } else { Ok(()) }
            }
            About::Votes(hour) if hour > schedule.hour_at(now).plus(1) => {
                Err(StatementError::Future)
            }
            About::Votes(_) => Ok(()),
        }
    }

    fn new(octets: Arc<[u8]>, node: NodeId, breach: Breach, about: About) -> Self {
        let hash = StatementHash::of(&octets);
        Self { octets, hash, node, breach, about }
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

    /// The identity that made both statements.
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
    pub fn last_epoch(&self, schedule: &Schedule) -> Epoch {
        match self.about {
            About::Records([(_, _, first), (_, _, second)]) => first.max(second),
            About::Votes(hour) => schedule.epoch_at(schedule.hour_start(hour)),
        }
    }

    /// The date of its later statement: a node that vouches for the identity after that knew of the
    /// breach.
    #[must_use]
    pub fn dated(&self, schedule: &Schedule) -> Time {
        match self.about {
            About::Records([(first, ..), (second, ..)]) => first.max(second),
            About::Votes(hour) => schedule.hour_start(hour),
        }
    }
}

impl About {
    fn of(first: &Record, second: &Record) -> Self {
        let span = |record: &Record| {
            let (first, last) = record.span();
            (record.published_at(), first, last)
        };
        Self::Records([span(first), span(second)])
    }
}

fn are_rivals(first: &Vote, second: &Vote) -> bool {
    first.voter() == second.voter()
        && first.hour() == second.hour()
        && first.hash() != second.hash()
}

fn encode(first: &[u8], second: &[u8]) -> Option<Vec<u8>> {
    let body = Body { version: VERSION, first: first.to_vec(), second: second.to_vec() };
    let mut octets = vec![PROOF_TAG];
    octets.extend(canonical::encode::<MAX_BODY>(&body).ok()?);
    Some(octets)
}

#[derive(Encode, Decode)]
struct Body {
    version: u16,
    first: Vec<u8>,
    second: Vec<u8>,
}

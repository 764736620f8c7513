//! One node's word for another, and that word taken back.
//!
//! Both have the same fields. Of two words of one node about another the one issued later counts;
//! of two issued at the same time the revocation, or else the one with the greater hash.

use core::time::Duration;
use std::sync::Arc;

use bincode::{Decode, Encode};
use keys::{Identity, NetworkId, NodeId, Purpose, Schedule, Signature, Time};

use crate::canonical::{self, CodecError};
use crate::error::StatementError;
use crate::hash::StatementHash;
use crate::layout::{REVOCATION_TAG, VOUCH_TAG};

/// For how many epochs a word holds, at most: 90 days of epochs of 3 hours.
pub const VOUCH_EPOCHS: u32 = 720;

const VERSION: u16 = 1;
/// 2 + 3 × 32 + 3 × 8.
const MAX_BODY: usize = 122;

/// Which word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// The subject may be routed through.
    Vouch,
    /// The subject may not be routed through any more.
    Revocation,
}

impl Word {
    const fn tag(self) -> u8 {
        match self {
            Self::Vouch => VOUCH_TAG,
            Self::Revocation => REVOCATION_TAG,
        }
    }

    const fn purpose(self) -> Purpose {
        match self {
            Self::Vouch => Purpose::Vouch,
            Self::Revocation => Purpose::Revocation,
        }
    }
}

/// A word before it is signed.
#[derive(Clone, Copy, Debug)]
pub struct VouchDraft {
    /// Whether it is a vouch or a revocation.
    pub word: Word,
    /// The node that it is about.
    pub subject: NodeId,
    /// Since when the voucher has vouched for it without a gap: its probation counts from here.
    pub since: Time,
    /// When this is said.
    pub issued_at: Time,
    /// Until when it holds; a revocation may be forgotten then.
    pub expires_at: Time,
}

impl VouchDraft {
    /// Encodes and signs: the statement's octets.
    ///
    /// # Errors
    /// No draft causes one.
    pub fn sign(&self, identity: &Identity, network: &NetworkId) -> Result<Vec<u8>, CodecError> {
        let body = Body {
            version: VERSION,
            network: *network.as_bytes(),
            voucher: *identity.node().as_bytes(),
            subject: *self.subject.as_bytes(),
            since: self.since.as_millis(),
            issued_at: self.issued_at.as_millis(),
            expires_at: self.expires_at.as_millis(),
        };
        let octets = canonical::encode::<MAX_BODY>(&body)?;
        let signature = identity.sign(self.word.purpose(), network, &octets);
        let mut statement = vec![self.word.tag()];
        statement.extend_from_slice(&octets);
        statement.extend_from_slice(signature.as_bytes());
        Ok(statement)
    }
}

/// A word that its voucher signed, whatever its time.
#[derive(Debug)]
pub struct SignedVouch(Vouch);

impl SignedVouch {
    pub(crate) fn check(octets: &[u8], network: &NetworkId) -> Result<Self, StatementError> {
        let (tag, rest) = octets.split_first().ok_or(StatementError::Malformed)?;
        let word = match *tag {
            VOUCH_TAG => Word::Vouch,
            REVOCATION_TAG => Word::Revocation,
            _ => return Err(StatementError::Malformed),
        };
        let (signed, signature) = rest.split_last_chunk().ok_or(StatementError::Malformed)?;
        let body: Body = canonical::decode::<_, MAX_BODY>(signed)?;
        if body.version != VERSION {
            return Err(StatementError::Unknown);
        }
        let (since, issued_at) = (Time::from_millis(body.since), Time::from_millis(body.issued_at));
        let expires_at = Time::from_millis(body.expires_at);
        let (voucher, subject) =
            (NodeId::from_bytes(body.voucher), NodeId::from_bytes(body.subject));
        if since > issued_at || issued_at >= expires_at || voucher == subject {
            return Err(StatementError::Malformed);
        }
        if NetworkId::from_bytes(body.network) != *network {
            return Err(StatementError::OtherNetwork);
        }
        voucher
            .verify(word.purpose(), network, signed, &Signature::from_bytes(*signature))
            .map_err(|_| StatementError::BadSignature)?;
        let hash = StatementHash::of(octets);
        let octets = octets.into();
        Ok(Self(Vouch { octets, hash, word, voucher, subject, since, issued_at, expires_at }))
    }

    /// What it says, for a caller that reads it whatever its time.
    #[must_use]
    pub fn peek(&self) -> &Vouch {
        &self.0
    }

    /// Checks that it is not said ahead of its time, does not hold for longer than
    /// [`VOUCH_EPOCHS`], and still holds.
    ///
    /// # Errors
    /// `Future`, `Malformed` or `Stale`.
    pub fn timely(self, now: Time, schedule: &Schedule) -> Result<Vouch, StatementError> {
        let vouch = self.0;
        if !schedule.may_be_dated(vouch.issued_at, now) {
            return Err(StatementError::Future);
        }
        if vouch.expires_at.since(vouch.issued_at) > longest(schedule) {
            return Err(StatementError::Malformed);
        }
        if vouch.expires_at <= now {
            return Err(StatementError::Stale);
        }
        Ok(vouch)
    }
}

/// For how long a word may hold.
fn longest(schedule: &Schedule) -> Duration {
    (schedule.hour() * 3).saturating_mul(VOUCH_EPOCHS)
}

/// A node's verified word about another, within its time.
#[derive(Debug)]
pub struct Vouch {
    octets: Arc<[u8]>,
    hash: StatementHash,
    word: Word,
    voucher: NodeId,
    subject: NodeId,
    since: Time,
    issued_at: Time,
    expires_at: Time,
}

impl Vouch {
    /// The statement's octets as received.
    #[must_use]
    pub fn octets(&self) -> &Arc<[u8]> {
        &self.octets
    }

    /// BLAKE3 of the octets.
    #[must_use]
    pub fn hash(&self) -> StatementHash {
        self.hash
    }

    /// Which word it is.
    #[must_use]
    pub fn word(&self) -> Word {
        self.word
    }

    /// The node that says it.
    #[must_use]
    pub fn voucher(&self) -> NodeId {
        self.voucher
    }

    /// The node that it is about.
    #[must_use]
    pub fn subject(&self) -> NodeId {
        self.subject
    }

    /// Since when its voucher has vouched for the subject.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// When it was said.
    #[must_use]
    pub fn issued_at(&self) -> Time {
        self.issued_at
    }

    /// Until when it holds.
    #[must_use]
    pub fn expires_at(&self) -> Time {
        self.expires_at
    }

    /// Whether it counts instead of another word of the same voucher about the same subject.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        let order = |vouch: &Self| (vouch.issued_at, vouch.word, vouch.hash);
        order(self) > order(other)
    }
}

#[derive(Encode, Decode)]
struct Body {
    version: u16,
    network: [u8; 32],
    voucher: [u8; 32],
    subject: [u8; 32],
    since: u64,
    issued_at: u64,
    expires_at: u64,
}

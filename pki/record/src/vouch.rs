//! One node's word for another, that word taken back, and a voter's word that another counts no
//! more.
//!
//! All three have the same fields. Of two words of one node about another the one issued later
//! counts; of two issued at the same time the revocation, or else the one with the greater hash.

use std::sync::Arc;

use bincode::{Decode, Encode};
use keys::{Identity, NetworkId, NodeId, Purpose, Schedule, Signature, Time};

use crate::canonical::{self, CodecError};
use crate::error::StatementError;
use crate::extension::{self, Extension};
use crate::hash::StatementHash;
use crate::layout::{RETIREMENT_TAG, REVOCATION_TAG, VOUCH_TAG};

const VERSION: u16 = 2;
const MAX_BODY: usize = 1024;

/// Which word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// The subject may be routed through.
    Vouch,
    /// The subject may not be routed through any more.
    Revocation,
    /// The subject, a voter or root, is to count no more: it is so once more than half of the other
    /// voters have said it. This word is never taken back.
    Retirement,
}

/// What a word is about, 4 octets on the wire. Ascending: an exit is a relay too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum VouchRole {
    /// Packets may go through the subject.
    Relay,
    /// Packets may go through it, and mail may leave there.
    Exit,
}

impl Word {
    const fn tag(self) -> u8 {
        match self {
            Self::Vouch => VOUCH_TAG,
            Self::Revocation => REVOCATION_TAG,
            Self::Retirement => RETIREMENT_TAG,
        }
    }

    const fn purpose(self) -> Purpose {
        match self {
            Self::Vouch => Purpose::Vouch,
            Self::Revocation => Purpose::Revocation,
            Self::Retirement => Purpose::Retirement,
        }
    }
}

/// A word before it is signed.
#[derive(Clone, Debug)]
pub struct VouchDraft {
    /// Which word it is.
    pub word: Word,
    /// The node that it is about.
    pub subject: NodeId,
    /// What the subject may be used as.
    pub role: VouchRole,
    /// Since when the voucher has vouched for it without a gap: of the subjects of one voucher the
    /// first count.
    pub since: Time,
    /// When this is said.
    pub issued_at: Time,
    /// Until when it holds; a revocation may be forgotten then. [`VouchDraft::FOR_EVER`] for a
    /// retirement.
    pub expires_at: Time,
    /// Further typed fields, ascending by kind.
    pub extensions: Vec<Extension>,
}

impl VouchDraft {
    /// Until when a retirement holds.
    pub const FOR_EVER: Time = Time::from_millis(u64::MAX);

    /// Encodes and signs: the statement's octets.
    ///
    /// # Errors
    /// [`CodecError`] for extensions that are too long.
    pub fn sign(&self, identity: &Identity, network: &NetworkId) -> Result<Vec<u8>, CodecError> {
        let body = Body {
            version: VERSION,
            network: *network.as_bytes(),
            voucher: *identity.node().as_bytes(),
            subject: *self.subject.as_bytes(),
            role: self.role,
            since: self.since.as_millis(),
            issued_at: self.issued_at.as_millis(),
            expires_at: self.expires_at.as_millis(),
            extensions: self.extensions.clone(),
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
            RETIREMENT_TAG => Word::Retirement,
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
        let ends = (expires_at == VouchDraft::FOR_EVER) == (word == Word::Retirement);
        if since > issued_at || issued_at >= expires_at || voucher == subject || !ends {
            return Err(StatementError::Malformed);
        }
        if !extension::well_formed(&body.extensions) {
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
        let is_understood = extension::unknown_critical(&body.extensions, &[]).is_none();
        let role = body.role;
        Ok(Self(Vouch {
            octets,
            hash,
            word,
            voucher,
            subject,
            role,
            since,
            issued_at,
            expires_at,
            is_understood,
        }))
    }

    /// What it says, for a caller that reads it whatever its time.
    #[must_use]
    pub fn peek(&self) -> &Vouch {
        &self.0
    }

    /// Checks that it is not said ahead of its time, does not hold for longer than `life` epochs,
    /// and still holds.
    ///
    /// # Errors
    /// `Future`, `Malformed` or `Stale`.
    pub fn timely(
        self,
        now: Time,
        schedule: &Schedule,
        life: u32,
    ) -> Result<Vouch, StatementError> {
        let vouch = self.0;
        if !schedule.may_be_dated(vouch.issued_at, now) {
            return Err(StatementError::Future);
        }
        let longest = (schedule.hour() * 3).saturating_mul(life);
        let is_long = vouch.expires_at.since(vouch.issued_at) > longest;
        if is_long && vouch.word != Word::Retirement {
            return Err(StatementError::Malformed);
        }
        if vouch.expires_at <= now {
            return Err(StatementError::Stale);
        }
        Ok(vouch)
    }
}

/// A node's verified word about another, within its time.
#[derive(Debug)]
pub struct Vouch {
    octets: Arc<[u8]>,
    hash: StatementHash,
    word: Word,
    voucher: NodeId,
    subject: NodeId,
    role: VouchRole,
    since: Time,
    issued_at: Time,
    expires_at: Time,
    is_understood: bool,
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

    /// What the subject may be used as.
    #[must_use]
    pub fn role(&self) -> VouchRole {
        self.role
    }

    /// Whether this node knows every critical field of it: a word that it does not understand makes
    /// nobody routable.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.is_understood
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
    role: VouchRole,
    since: u64,
    issued_at: u64,
    expires_at: u64,
    extensions: Vec<Extension>,
}

//! What travels on the topic: one octet for the kind, then the statement.

use std::sync::Arc;

use keys::{Checked, NetworkId};

use crate::error::StatementError;
use crate::layout::{
    MAX_STATEMENT, PROOF_TAG, RECORD_TAG, RETIREMENT_TAG, REVOCATION_TAG, VOTE_TAG, VOUCH_TAG,
};
use crate::proof::Proof;
use crate::record::{Signed, Unverified};
use crate::vote::Vote;
use crate::vouch::SignedVouch;

/// A statement whose signatures hold, whatever its time.
#[derive(Debug)]
pub enum Statement {
    /// A node's record of itself.
    Record(Box<Signed>),
    /// A node's word about another.
    Vouch(SignedVouch),
    /// The proof that a node broke its own word.
    Proof(Box<Proof>),
    /// A voter's view of an hour.
    Vote(Box<Vote>),
}

impl Statement {
    /// The octets as received.
    #[must_use]
    pub fn octets(&self) -> &Arc<[u8]> {
        match self {
            Self::Record(signed) => signed.peek().octets(),
            Self::Vouch(signed) => signed.peek().octets(),
            Self::Proof(proof) => proof.octets(),
            Self::Vote(vote) => vote.octets(),
        }
    }

    /// Frames, parses and verifies a statement of at most [`MAX_STATEMENT`] octets. A pure function
    /// of some 100 to 300 us, for whatever thread has time.
    ///
    /// # Errors
    /// [`StatementError`]; `Unknown` for what a later version may send.
    pub fn check(octets: &[u8], network: &NetworkId) -> Result<Self, StatementError> {
        Self::check_knowing(octets, network, &mut Checked::default())
    }

    /// The same, without checking again what was checked before: that octets are an identity or a
    /// mix key.
    ///
    /// # Errors
    /// As [`Statement::check`].
    pub fn check_knowing(
        octets: &[u8],
        network: &NetworkId,
        checked: &mut Checked,
    ) -> Result<Self, StatementError> {
        if octets.len() > MAX_STATEMENT {
            return Err(StatementError::TooLong);
        }
        match octets.first() {
            Some(&RECORD_TAG) => {
                let unverified = Unverified::parse(octets)?;
                let signed = unverified.check_signature_knowing(network, checked)?;
                Ok(Self::Record(Box::new(signed)))
            }
            Some(&(VOUCH_TAG | REVOCATION_TAG | RETIREMENT_TAG)) => {
                SignedVouch::check(octets, network).map(Self::Vouch)
            }
            Some(&PROOF_TAG) => Proof::check(octets, network).map(Box::new).map(Self::Proof),
            Some(&VOTE_TAG) => Vote::check(octets, network).map(Box::new).map(Self::Vote),
            Some(_) | None => Err(StatementError::Malformed),
        }
    }
}

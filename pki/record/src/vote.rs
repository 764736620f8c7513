//! A voter's statement of the nodes that it finds routable in one hour.

use core::fmt;
use std::sync::Arc;

use bincode::{Decode, Encode};
use keys::{Hour, Identity, NetworkId, NodeId, Purpose, Signature};

use crate::canonical::{self, CodecError};
use crate::error::StatementError;
use crate::hash::{BucketDigest, ListHash, StatementHash};
use crate::layout::{BUCKETS, VOTE_TAG};

const VERSION: u16 = 1;
/// 2 + 2 × 32 + 8 + 32 + 256 × 16.
const BODY: usize = 4202;

/// A vote before it is signed.
#[derive(Clone)]
pub struct VoteDraft {
    /// The hour that it is for.
    pub hour: Hour,
    /// The list that the voter used when it signed; [`ListHash::NONE`] if there was none.
    pub before: ListHash,
    /// The digest of each bucket of the list that it proposes.
    pub digests: [BucketDigest; BUCKETS],
}

impl VoteDraft {
    /// Encodes and signs: the statement's octets.
    ///
    /// # Errors
    /// No draft causes one.
    pub fn sign(&self, identity: &Identity, network: &NetworkId) -> Result<Vec<u8>, CodecError> {
        let body = Body {
            version: VERSION,
            network: *network.as_bytes(),
            voter: *identity.node().as_bytes(),
            hour: self.hour.number(),
            before: *self.before.as_bytes(),
            digests: self.digests.map(|digest| *digest.as_bytes()),
        };
        let octets = canonical::encode::<BODY>(&body)?;
        let signature = identity.sign(Purpose::Vote, network, &octets);
        let mut statement = vec![VOTE_TAG];
        statement.extend_from_slice(&octets);
        statement.extend_from_slice(signature.as_bytes());
        Ok(statement)
    }
}

/// A voter's verified vote, whatever its hour; 4,267 octets.
pub struct Vote {
    octets: Arc<[u8]>,
    hash: StatementHash,
    voter: NodeId,
    hour: Hour,
    before: ListHash,
    digests: [BucketDigest; BUCKETS],
}

impl Vote {
    pub(crate) fn check(octets: &[u8], network: &NetworkId) -> Result<Self, StatementError> {
        let (tag, rest) = octets.split_first().ok_or(StatementError::Malformed)?;
        if *tag != VOTE_TAG {
            return Err(StatementError::Malformed);
        }
        let (signed, signature) = rest.split_last_chunk().ok_or(StatementError::Malformed)?;
        let body: Body = canonical::decode::<_, BODY>(signed)?;
        if body.version != VERSION {
            return Err(StatementError::Unknown);
        }
        if NetworkId::from_bytes(body.network) != *network {
            return Err(StatementError::OtherNetwork);
        }
        let voter = NodeId::from_bytes(body.voter);
        voter
            .verify(Purpose::Vote, network, signed, &Signature::from_bytes(*signature))
            .map_err(|_| StatementError::BadSignature)?;
        Ok(Self {
            octets: octets.into(),
            hash: StatementHash::of(octets),
            voter,
            hour: Hour::new(body.hour),
            before: ListHash::from_bytes(body.before),
            digests: body.digests.map(BucketDigest::from_bytes),
        })
    }

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

    /// The node that votes.
    #[must_use]
    pub fn voter(&self) -> NodeId {
        self.voter
    }

    /// The hour that it votes for.
    #[must_use]
    pub fn hour(&self) -> Hour {
        self.hour
    }

    /// The list that it used when it voted.
    #[must_use]
    pub fn before(&self) -> ListHash {
        self.before
    }

    /// The digest of each bucket.
    #[must_use]
    pub fn digests(&self) -> &[BucketDigest; BUCKETS] {
        &self.digests
    }
}

impl fmt::Debug for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vote({:?}, hour {})", self.voter, self.hour.number())
    }
}

#[derive(Encode, Decode)]
struct Body {
    version: u16,
    network: [u8; 32],
    voter: [u8; 32],
    hour: u64,
    before: [u8; 32],
    digests: [[u8; BucketDigest::LEN]; BUCKETS],
}

//! Tags and sizes of all statements.

use keys::Signature;

/// First octet of a statement that is a record.
pub(crate) const RECORD_TAG: u8 = 1;
/// First octet of a vouch.
pub(crate) const VOUCH_TAG: u8 = 2;
/// First octet of a revocation.
pub(crate) const REVOCATION_TAG: u8 = 3;
/// First octet of a proof.
pub(crate) const PROOF_TAG: u8 = 4;
/// First octet of a vote.
pub(crate) const VOTE_TAG: u8 = 5;
/// First octet of a retirement.
pub(crate) const RETIREMENT_TAG: u8 = 6;

/// Octets of any statement on the topic, at most: a proof is two records.
pub const MAX_STATEMENT: usize = 20 * 1024;
/// Octets of a record with its tag and signature, at most.
pub const MAX_RECORD: usize = 8192;
pub(crate) const MAX_RECORD_BODY: usize = MAX_RECORD - Signature::LEN - 1;
/// Mix keys in one record: epochs e, e+1, e+2, and e+3 before the last hour of e.
pub const MAX_KEYS: usize = 4;
/// Packet size classes that traffic is reported for.
pub const TRAFFIC_CLASSES: usize = 9;
/// Buckets of an hour's list.
pub const BUCKETS: usize = 256;

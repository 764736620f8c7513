//! Signed statements: a node's record of itself, its word about another, its vote for the list of
//! an hour, the proof that it broke its own word, and the descriptor of a network. Octets in,
//! verified facts out.
//!
//! ```text
//! octets -> Statement::check -> Record(Signed)     -> timely(now) -> Record
//!                               Vouch(SignedVouch) -> timely(now) -> Vouch
//!                               Proof, Vote
//! ```
//!
//! Each arrow consumes what it starts from, so nothing later in the node can hold a record that was
//! not checked. Signatures are over the octets as received, and there is one encoding of each
//! statement only. `README.md` beside this crate gives the layouts.
//!
//! This crate does no I/O and reads no clock. It knows one record at a time; what several say
//! together is the directory's matter.

mod body;
pub mod canonical;
mod descriptor;
mod error;
mod extension;
mod hash;
mod layout;
mod parameters;
mod policy;
mod proof;
mod record;
mod statement;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod vote;
mod vouch;

pub use body::{Capacity, Draft, Features};
pub use descriptor::{Admission, Descriptor, DescriptorError, MAX_DESCRIPTOR, MAX_VOTERS};
pub use error::StatementError;
pub use extension::Extension;
pub use hash::{BucketDigest, ListHash, ListSketch, StatementHash};
pub use layout::{BUCKETS, MAX_KEYS, MAX_RECORD, MAX_STATEMENT, TRAFFIC_CLASSES};
pub use parameters::{
    Bounds, Custody, Lists, Mixing, PACES, Parameters, STAGES, Sending, Stage, Timing,
};
pub use policy::{Ask, Capabilities, Domains, ExitPolicy};
pub use proof::{Breach, Proof};
pub use record::{Record, Signed, Unverified};
pub use statement::Statement;
pub use vote::{Vote, VoteDraft};
pub use vouch::{SignedVouch, Vouch, VouchDraft, VouchRole, Word};

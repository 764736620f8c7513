//! Signed statements: a node's record of itself, its word for another, the proof that it broke its
//! own, and the descriptor of a network. Octets in, verified facts out.
//!
//! ```text
//! octets -> Statement::check -> Record(Signed)     -> timely(now) -> Record
//!                               Vouch(SignedVouch) -> timely(now) -> Vouch
//!                               Proof
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
mod hash;
mod layout;
mod parameters;
mod policy;
mod proof;
mod record;
mod statement;
#[cfg(feature = "testing")]
pub mod testing;
mod vouch;

pub use body::{Draft, Extension};
pub use descriptor::{Admission, Descriptor, MAX_DESCRIPTOR};
pub use error::StatementError;
pub use hash::{SetHash, StatementHash};
pub use layout::{MAX_KEYS, MAX_RECORD, MAX_STATEMENT, TRAFFIC_CLASSES};
pub use parameters::{Mixing, Parameters, Sending, Timing, Views};
pub use policy::{Ask, Capabilities, Domains, ExitPolicy};
pub use proof::{Breach, Proof};
pub use record::{Record, Signed, Unverified};
pub use statement::Statement;
pub use vouch::{SignedVouch, VOUCH_EPOCHS, Vouch, VouchDraft, Word};

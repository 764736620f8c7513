//! Signed statements: a node's record of itself, and the descriptor of a network. Octets in, verified
//! facts out.
//!
//! ```text
//! octets -> Unverified -> check_signature -> Signed -> timely(now) -> Record
//! ```
//!
//! Each arrow consumes what it starts from, so nothing later in the node can hold a record that was
//! not checked. Signatures are over the octets as received, and there is one encoding of each
//! statement only. `README.md` beside this crate gives the layouts.
//!
//! This crate does no I/O and reads no clock. It knows one record at a time; what several say together
//! is the directory's matter.

mod body;
pub mod canonical;
mod descriptor;
mod policy;
mod statement;

pub use body::{Draft, Extension, MAX_KEYS, MAX_RECORD, TRAFFIC_CLASSES};
pub use descriptor::{Admission, Descriptor, MAX_DESCRIPTOR, Parameters};
pub use policy::{Ask, Capabilities, Domains, ExitPolicy};
pub use statement::{MAX_STATEMENT, Record, RecordError, RecordHash, Signed, Unverified};

//! Reconciliation: two directories find out what one of them lacks, in as few octets as possible.
//!
//! ```text
//! Summary  ->  a digest for each of 256 buckets of names
//! List     ->  the names in the buckets that differ
//! Fetch    ->  the statements that are missing here
//! Entries  ->  the entries of buckets of the coming list, by their digests
//! ```
//!
//! One side asks. It asks several peers, so that none of them can hide a statement that another
//! has; what one peer is being asked for is not asked of another while something else is missing.
//! Every statement that arrives is verified as if it had been gossiped. A conversation that breaks off
//! needs no resumption: in the next one, what has arrived is no longer missing.

mod answer;
mod ask;
mod wire;

pub use ask::{Reconciliation, Step, Told};
pub use wire::{Answer, MAX_ANSWER, MAX_REQUEST, Request, Rest, Summary};

//! Reconciliation: what two directories have to tell each other, in as few octets as may be.
//!
//! ```text
//! Summary  ->  a digest for each of 256 buckets of names
//! List     ->  the names in the buckets that differ
//! Fetch    ->  the statements that are missing here
//! ```
//!
//! One side asks. It asks several peers, so that none of them can hide a statement that another has;
//! what one is being asked for is not asked of another, until that one has failed. Everything that comes is
//! verified as if it had been gossiped. Where it breaks off, the next time goes on by itself: what came is
//! not missing any more.

mod answer;
mod ask;
mod wire;

pub use ask::{Reconciliation, Step, Told};
pub use wire::{Answer, MAX_ANSWER, MAX_REQUEST, Request, Rest, Summary};

//! Where statements come from, and what becomes of them.

use std::sync::Arc;

use record::Proof;

/// Where a statement came from. What gossip brings has to be news; a catch-up also fills gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Gossip.
    Gossip,
    /// Reconciliation, or the disk.
    CatchUp,
    /// This node itself, for which there is always room.
    Own,
}

/// A record that was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The first of its identity.
    Newcomer,
    /// It follows one that was known.
    Renewal,
}

/// Why a verified statement is not taken in, and not passed on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unwanted {
    /// It is known already.
    #[error("known")]
    Known,
    /// A later one is known.
    #[error("older")]
    Older,
    /// Dated before the newest one known, or too soon after another.
    #[error("too soon")]
    TooSoon,
    /// It contradicts a known record; the two make this proof.
    #[error("its author broke its word")]
    Broken(Arc<Proof>),
    /// The directory has no room left for it.
    #[error("full")]
    Full,
    /// Too many new identities in this hour.
    #[error("too many newcomers")]
    Crowded,
    /// It is dated too long ago for gossip, which takes seconds: some nodes would have it before
    /// the hour and some after it. Reconciliation brings it.
    #[error("late")]
    Late,
    /// No chain of vouches reaches its author, or the node that it concerns is unknown. Either may
    /// change, so the statement is asked for again.
    #[error("of no consequence")]
    Unreached,
    /// Vouches decide nothing in this network.
    #[error("vouches decide nothing here")]
    Pointless,
    /// Its author is no voter of this network. No honest node passes such a vote on.
    #[error("not from a voter")]
    NoVoter,
    /// It is a vote for an hour that is past, or not to be voted on yet.
    #[error("a vote for another hour")]
    OtherHour,
}

//! Which statements the votes for an hour look at.
//!
//! What counts has to be everywhere when the votes are signed, or they differ. Gossip brings a
//! statement everywhere at once, and takes none that is dated long ago; one that its author held
//! back comes by reconciliation alone, to some voters before they vote and to others after it.

use keys::Time;

/// What the votes for one hour look at.
#[derive(Clone, Copy)]
pub(crate) struct Settled {
    /// What is dated later does not count.
    pub(crate) deadline: Time,
    /// Nor does what reconciliation brought late, and later than this.
    pub(crate) known_by: Time,
}

impl Settled {
    /// Whether a statement counts; `late` is when it was brought, if it was brought late.
    pub(crate) fn counts(self, dated: Time, late: Option<&Time>) -> bool {
        dated <= self.deadline && late.is_none_or(|at| *at <= self.known_by)
    }
}

//! What peers sent that was turned away before anybody looked into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why something was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// A statement above its peer's allowance.
    Statement,
    /// A statement for which there was no room to wait for its verification.
    Unverified,
    /// A question above its peer's allowance, or one more than the node could hear.
    Question,
    /// A peer that was hung up on for too much.
    Peer,
}

impl Turned {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Statement, Self::Unverified, Self::Question, Self::Peer];

    fn index(self) -> usize {
        match self {
            Self::Statement => 0,
            Self::Unverified => 1,
            Self::Question => 2,
            Self::Peer => 3,
        }
    }
}

/// How often each was.
#[derive(Clone, Debug, Default)]
pub struct TurnedAway(Arc<[AtomicU64; Turned::ALL.len()]>);

impl TurnedAway {
    pub(super) fn count(&self, turned: Turned) {
        if let Some(times) = self.0.get(turned.index()) {
            times.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each was, since the start.
    pub fn counts(&self) -> impl Iterator<Item = (Turned, u64)> {
        Turned::ALL.into_iter().zip(self.0.iter().map(|times| times.load(Ordering::Relaxed)))
    }
}

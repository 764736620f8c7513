//! Statements as reconciliation compares them: by name.

use std::sync::Arc;

use record::StatementHash;

/// Names a statement among those held: the first 16 octets of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemId([u8; Self::LEN]);

impl ItemId {
    /// Length in octets.
    pub const LEN: usize = 16;

    /// Takes 16 octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 16 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The name of a statement's octets.
    #[must_use]
    pub fn of(octets: &[u8]) -> Self {
        Self::cut(blake3::hash(octets).as_bytes())
    }

    /// The name of the statement with this hash.
    #[must_use]
    pub fn named(hash: StatementHash) -> Self {
        Self::cut(hash.as_bytes())
    }

    fn cut(hash: &[u8; 32]) -> Self {
        hash.first_chunk().map_or(Self([0; Self::LEN]), |first| Self(*first))
    }
}

pub(crate) struct Item {
    pub(crate) octets: Arc<[u8]>,
    /// Whether gossip has passed it on, or does not need to any more.
    pub(crate) is_passed_on: bool,
}

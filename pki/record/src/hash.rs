//! Hashes: of a statement, and of what a directory holds for an hour.

use core::fmt;

/// BLAKE3 of a statement's octets, 32 octets: what a record's successor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatementHash([u8; 32]);

impl StatementHash {
    /// What the first record of an identity has in the place of a predecessor's hash.
    pub const NONE: Self = Self([0; 32]);

    /// The 32 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes 32 octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn of(octets: &[u8]) -> Self {
        Self(*blake3::hash(octets).as_bytes())
    }
}

/// The hash of what a node's directory holds for an hour, 32 octets: what nodes compare to see
/// whether they see the same network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetHash([u8; 32]);

impl SetHash {
    /// The 32 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes 32 octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for StatementHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

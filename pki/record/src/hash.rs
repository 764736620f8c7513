//! Hashes: of a statement, and of the list of an hour.

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

/// BLAKE3 of an hour's list, 32 octets: what the votes for the next hour name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListHash([u8; 32]);

impl ListHash {
    /// Of no list: what the first votes of a network name.
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
}

/// The digest of one bucket of an hour's list, 16 octets; zero for an empty bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BucketDigest([u8; Self::LEN]);

impl BucketDigest {
    /// Length in octets.
    pub const LEN: usize = 16;
    /// Of a bucket without an entry.
    pub const EMPTY: Self = Self([0; Self::LEN]);

    /// The 16 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Takes 16 octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

/// A list of an hour in 32 octets, one for each eight of its buckets: two sketches tell how much of
/// two lists differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListSketch([u8; Self::LEN]);

impl ListSketch {
    /// Length in octets.
    pub const LEN: usize = 32;

    /// The 32 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Takes 32 octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// How many of the 32 parts differ.
    #[must_use]
    pub fn apart(&self, other: &Self) -> usize {
        self.0.iter().zip(&other.0).filter(|(own, other)| own != other).count()
    }
}

impl fmt::Display for StatementHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

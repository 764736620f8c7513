//! The list of an hour: who may be routed through, the same for everybody.
//!
//! Entries lie in 256 buckets by the first octet of the identity. An entry is identity (32), hash
//! of the record that counts (32), hour since which the identity has been listed (8), and 1 if
//! routes may end there or else 0. A bucket's digest is the first 16 octets of BLAKE3 over its
//! entries in the order of identities, and zero if it has none.

use std::collections::BTreeMap;

use keys::{Hour, NodeId};
use record::{BUCKETS, BucketDigest, ListHash, ListSketch, StatementHash};

/// Octets of an entry.
pub(crate) const ENTRY_LEN: usize = 32 + 32 + 8 + 1;
/// Entries that are read from the disk, at most: more than the identities that a voter holds.
const MAX_ENTRIES: usize = 16_384;
const VERSION: u8 = 1;

/// A node's place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Its identity.
    pub node: NodeId,
    /// The record of it that counts.
    pub record: StatementHash,
    /// Since when it has been listed without a gap; hour 0 for a root, and for the nodes of a
    /// network's first list, which need no probation.
    pub since: Hour,
    /// Whether routes may end there, once its probation is over and if its record says so.
    pub exits: bool,
}

impl ListEntry {
    /// The bucket that it lies in.
    #[must_use]
    pub fn bucket(&self) -> u8 {
        bucket_of(&self.node)
    }

    fn write(&self, octets: &mut Vec<u8>) {
        octets.extend_from_slice(self.node.as_bytes());
        octets.extend_from_slice(self.record.as_bytes());
        octets.extend_from_slice(&self.since.number().to_be_bytes());
        octets.push(u8::from(self.exits));
    }

    fn read(octets: &[u8; ENTRY_LEN]) -> Option<Self> {
        let (node, rest) = octets.split_first_chunk()?;
        let (record, rest) = rest.split_first_chunk()?;
        let (since, rest) = rest.split_first_chunk()?;
        let exits = match rest {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        Some(Self {
            node: NodeId::from_bytes(*node),
            record: StatementHash::from_bytes(*record),
            since: Hour::new(u64::from_be_bytes(*since)),
            exits,
        })
    }
}

pub(crate) fn bucket_of(node: &NodeId) -> u8 {
    let [first, ..] = node.as_bytes();
    *first
}

/// Entries as octets.
pub(crate) fn write_entries<'a>(entries: impl IntoIterator<Item = &'a ListEntry>) -> Vec<u8> {
    let mut octets = Vec::new();
    for entry in entries {
        entry.write(&mut octets);
    }
    octets
}

/// Entries from octets, if they are whole and ascending by identity.
pub(crate) fn read_entries(octets: &[u8]) -> Option<Vec<ListEntry>> {
    let (entries, []) = octets.as_chunks() else { return None };
    let entries: Option<Vec<_>> = entries.iter().map(ListEntry::read).collect();
    entries.filter(|all| all.is_sorted_by(|first, second| first.node < second.node))
}

pub(crate) fn digest(entries: &[ListEntry]) -> BucketDigest {
    if entries.is_empty() {
        return BucketDigest::EMPTY;
    }
    let mut digest = [0; BucketDigest::LEN];
    blake3::Hasher::new().update(&write_entries(entries)).finalize_xof().fill(&mut digest);
    BucketDigest::from_bytes(digest)
}

/// The list of an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourList {
    hour: Hour,
    entries: BTreeMap<NodeId, ListEntry>,
    digests: [BucketDigest; BUCKETS],
    hash: ListHash,
    sketch: ListSketch,
}

impl HourList {
    /// A list of these entries; of two for one identity the later counts.
    #[must_use]
    pub fn new(hour: Hour, entries: impl IntoIterator<Item = ListEntry>) -> Self {
        let entries = entries.into_iter().map(|entry| (entry.node, entry)).collect();
        let mut list = Self {
            hour,
            entries,
            digests: [BucketDigest::EMPTY; BUCKETS],
            hash: ListHash::NONE,
            sketch: ListSketch::default(),
        };
        let digests = core::array::from_fn(|number| {
            u8::try_from(number).map_or(BucketDigest::EMPTY, |bucket| digest(&list.bucket(bucket)))
        });
        list.digests = digests;
        // Compared with what each peer says: computed once.
        list.hash = list.hash_digests();
        list.sketch = list.sketch_digests();
        list
    }

    /// The hour that it is for.
    #[must_use]
    pub fn hour(&self) -> Hour {
        self.hour
    }

    /// The entry of a node.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&ListEntry> {
        self.entries.get(node)
    }

    /// All entries, by identity.
    pub fn iter(&self) -> impl Iterator<Item = &ListEntry> {
        self.entries.values()
    }

    /// How many nodes are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries of one bucket, by identity.
    #[must_use]
    pub fn bucket(&self, bucket: u8) -> Vec<ListEntry> {
        let mut first = [0; NodeId::LEN];
        let mut last = [0xff; NodeId::LEN];
        (first[0], last[0]) = (bucket, bucket);
        let range = NodeId::from_bytes(first)..=NodeId::from_bytes(last);
        self.entries.range(range).map(|(_, entry)| *entry).collect()
    }

    /// The digests of its buckets.
    #[must_use]
    pub fn digests(&self) -> &[BucketDigest; BUCKETS] {
        &self.digests
    }

    /// BLAKE3 over its hour (8) and the digests of its buckets: what the next votes name.
    #[must_use]
    pub fn hash(&self) -> ListHash {
        self.hash
    }

    /// For each eight buckets the first octet of BLAKE3 over their digests.
    #[must_use]
    pub fn sketch(&self) -> ListSketch {
        self.sketch
    }

    fn hash_digests(&self) -> ListHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hour.number().to_be_bytes());
        for digest in &self.digests {
            hasher.update(digest.as_bytes());
        }
        ListHash::from_bytes(*hasher.finalize().as_bytes())
    }

    fn sketch_digests(&self) -> ListSketch {
        let mut sketch = [0; ListSketch::LEN];
        for (part, digests) in sketch.iter_mut().zip(self.digests.chunks(BUCKETS / 32)) {
            let mut hasher = blake3::Hasher::new();
            for digest in digests {
                hasher.update(digest.as_bytes());
            }
            let [first, ..] = *hasher.finalize().as_bytes();
            *part = first;
        }
        ListSketch::from_bytes(sketch)
    }

    /// The octets, for the disk: version (1), hour (8), entries.
    #[must_use]
    pub fn to_octets(&self) -> Vec<u8> {
        let mut octets = vec![VERSION];
        octets.extend_from_slice(&self.hour.number().to_be_bytes());
        octets.extend(write_entries(self.entries.values()));
        octets
    }

    /// What was written before; `None` for anything else.
    #[must_use]
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let (version, rest) = octets.split_first()?;
        let (hour, entries) = rest.split_first_chunk()?;
        if *version != VERSION || entries.len() > MAX_ENTRIES * ENTRY_LEN {
            return None;
        }
        Some(Self::new(Hour::new(u64::from_be_bytes(*hour)), read_entries(entries)?))
    }
}

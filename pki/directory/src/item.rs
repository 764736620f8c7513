//! Statements as reconciliation compares them: by name.

use core::ops::Bound::{Excluded, Unbounded};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

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

/// Everything held, by name.
#[derive(Default)]
pub(crate) struct Items {
    held: BTreeMap<ItemId, Item>,
    /// Names of statements no longer held, until [`Items::take_forgotten`] takes them.
    forgotten: Vec<ItemId>,
    /// The digests of all buckets of names, for as long as nothing changes.
    digests: OnceLock<Vec<[u8; ItemId::LEN]>>,
}

struct Item {
    octets: Arc<[u8]>,
    /// Whether gossip has passed it on, or does not need to any more.
    is_passed_on: bool,
}

impl Items {
    pub(crate) fn hold(&mut self, hash: StatementHash, octets: &Arc<[u8]>) {
        self.digests.take();
        let item = Item { octets: Arc::clone(octets), is_passed_on: false };
        self.held.insert(ItemId::named(hash), item);
    }

    pub(crate) fn release(&mut self, name: ItemId) {
        if self.held.remove(&name).is_some() {
            self.digests.take();
            self.forgotten.push(name);
        }
    }

    /// The names of statements that are no longer held, each returned once.
    pub(crate) fn take_forgotten(&mut self) -> Vec<ItemId> {
        core::mem::take(&mut self.forgotten)
    }

    pub(crate) fn contains(&self, name: &ItemId) -> bool {
        self.held.contains_key(name)
    }

    pub(crate) fn octets(&self, name: &ItemId) -> Option<&Arc<[u8]>> {
        self.held.get(name).map(|item| &item.octets)
    }

    pub(crate) fn all_octets(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.held.values().map(|item| &item.octets)
    }

    /// The names after this one, ascending.
    pub(crate) fn names(&self, after: Option<ItemId>) -> impl Iterator<Item = &ItemId> {
        let from = after.map_or(Unbounded, Excluded);
        self.held.range((from, Unbounded)).map(|(name, _)| name)
    }

    /// Whether gossip is to pass a statement on: it is held, and this has not been asked before.
    pub(crate) fn pass_on(&mut self, name: &ItemId) -> bool {
        let Some(item) = self.held.get_mut(name) else { return false };
        !core::mem::replace(&mut item.is_passed_on, true)
    }

    /// The digests of all buckets, which `make` computes from the names if anything has changed.
    pub(crate) fn digests(
        &self,
        make: impl FnOnce(&Self) -> Vec<[u8; ItemId::LEN]>,
    ) -> &[[u8; ItemId::LEN]] {
        self.digests.get_or_init(|| make(self))
    }
}

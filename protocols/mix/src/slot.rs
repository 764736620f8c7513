//! An epoch's key with its replay filter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keys::Epoch;
use sphinx::{EpochKey, EpochKeys, ReplayTag};

/// Packets that one key may open: 2^20 are 90 a second over an epoch of 3 h 40 with its margins,
/// and 30 MB of tags. Packets above that are dropped: forgetting a tag would let a replay through.
const MAX_SEEN: usize = 1 << 20;

/// All slots, by epoch.
#[derive(Default)]
pub(crate) struct Slots(BTreeMap<Epoch, Slot>);

struct Slot {
    key: Arc<EpochKey>,
    seen: BTreeSet<ReplayTag>,
}

/// What the filter says of a tag.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    First,
    Before,
    NoSlot,
    Full,
}

impl Slots {
    /// An epoch that already has a slot keeps its key and its filter.
    pub(crate) fn insert(&mut self, key: Arc<EpochKey>, seen: BTreeSet<ReplayTag>) {
        self.0.entry(key.epoch()).or_insert(Slot { key, seen });
    }

    pub(crate) fn remove(&mut self, epoch: Epoch) {
        self.0.remove(&epoch);
    }

    pub(crate) fn forget_before(&mut self, oldest: Epoch) -> Vec<Epoch> {
        let kept = self.0.split_off(&oldest);
        core::mem::replace(&mut self.0, kept).into_keys().collect()
    }

    pub(crate) fn keys(&self, accepts: impl Fn(Epoch) -> bool) -> EpochKeys {
        let accepted = self.0.iter().filter(|(epoch, _)| accepts(**epoch));
        EpochKeys::new(accepted.map(|(_, slot)| Arc::clone(&slot.key)).collect())
    }

    pub(crate) fn epochs(&self) -> impl Iterator<Item = Epoch> + '_ {
        self.0.keys().copied()
    }

    pub(crate) fn key(&self, epoch: Epoch) -> Option<&Arc<EpochKey>> {
        self.0.get(&epoch).map(|slot| &slot.key)
    }

    /// Tests and inserts in one step: of two equal tags exactly one is the first.
    pub(crate) fn see(&mut self, epoch: Epoch, tag: ReplayTag) -> Seen {
        match self.0.get_mut(&epoch) {
            None => Seen::NoSlot,
            Some(slot) if slot.seen.contains(&tag) => Seen::Before,
            Some(slot) if slot.seen.len() >= MAX_SEEN => Seen::Full,
            Some(slot) => {
                slot.seen.insert(tag);
                Seen::First
            }
        }
    }
}

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

#[cfg(test)]
mod tests {
    use keys::{Identity, MixSecret, MixSeed};

    use super::*;

    fn key(epoch: u32) -> Arc<EpochKey> {
        let seed = MixSeed::from_bytes(&[u8::try_from(epoch).unwrap(); 96]);
        let node = Identity::from_seed(&[1; 32]).node();
        Arc::new(EpochKey::new(node, Epoch::new(epoch), MixSecret::from_seed(&seed)))
    }

    fn tag(number: u64) -> ReplayTag {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&number.to_be_bytes());
        ReplayTag::from_bytes(octets)
    }

    #[test]
    fn a_tag_is_first_once_in_its_epoch_and_slots_end_together_with_their_keys() {
        let mut slots = Slots::default();
        assert_eq!(slots.see(Epoch::new(5), tag(1)), Seen::NoSlot);
        slots.insert(key(5), [tag(9)].into());
        slots.insert(key(6), BTreeSet::new());
        assert_eq!(slots.see(Epoch::new(5), tag(9)), Seen::Before, "known before the start");
        assert_eq!(slots.see(Epoch::new(5), tag(1)), Seen::First);
        assert_eq!(slots.see(Epoch::new(5), tag(1)), Seen::Before);
        assert_eq!(slots.see(Epoch::new(6), tag(1)), Seen::First, "each epoch has its own");
        // A slot that is there keeps its filter.
        slots.insert(key(5), BTreeSet::new());
        assert_eq!(slots.see(Epoch::new(5), tag(1)), Seen::Before);
        assert!(slots.epochs().eq([Epoch::new(5), Epoch::new(6)]));
        assert!(slots.keys(|epoch| epoch == Epoch::new(6)).epochs().eq([Epoch::new(6)]));
        assert_eq!(slots.key(Epoch::new(6)).map(|key| key.epoch()), Some(Epoch::new(6)));
        assert_eq!(slots.forget_before(Epoch::new(6)), [Epoch::new(5)]);
        assert_eq!(slots.forget_before(Epoch::new(6)), []);
        assert_eq!(slots.see(Epoch::new(5), tag(2)), Seen::NoSlot);
        slots.remove(Epoch::new(6));
        assert!(slots.key(Epoch::new(6)).is_none());
    }

    #[test]
    fn a_full_filter_forgets_nothing_and_takes_nothing() {
        let mut slots = Slots::default();
        let seen = (0..MAX_SEEN as u64 - 1).map(tag).collect();
        slots.insert(key(5), seen);
        assert_eq!(slots.see(Epoch::new(5), tag(u64::MAX)), Seen::First);
        assert_eq!(slots.see(Epoch::new(5), tag(u64::MAX - 1)), Seen::Full);
        assert_eq!(slots.see(Epoch::new(5), tag(0)), Seen::Before);
        assert_eq!(slots.see(Epoch::new(5), tag(u64::MAX)), Seen::Before);
    }
}

//! The lists in use, and the one that is being put together from votes.
//!
//! ```text
//! votes -> digests by majority -> entries: known, proposed here, or asked for -> records -> list
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keys::Hour;
use record::{BUCKETS, BucketDigest, Record};

use crate::item::ItemId;
use crate::list::{HourList, ListEntry, digest};

/// Lists that are remembered: those of the last hours.
const MAX_LISTS: usize = 4;

/// Lists that this node voted for that are remembered: that of the coming hour, and the one before.
const MAX_VOTED: usize = 2;

/// The lists in use, and the one that is being put together.
#[derive(Default)]
pub(crate) struct Lists {
    /// Ascending by hour.
    known: Vec<Arc<HourList>>,
    /// What this node voted for last: what it knows may have changed since.
    voted: Vec<Arc<HourList>>,
    coming: Option<Coming>,
    /// The records that the newest list and the coming one name.
    pinned: BTreeMap<ItemId, Arc<Record>>,
    /// The records that the newest list names and that are not held: a list from the disk may have
    /// outlived them.
    unheld: BTreeSet<ItemId>,
    /// Whether the last of these has come.
    is_filled: bool,
    /// Whether anything has come that the coming list may be made of.
    pub(crate) is_stale: bool,
}

/// A list of which the digests are known.
pub(crate) struct Coming {
    hour: Hour,
    digests: [BucketDigest; BUCKETS],
    found: BTreeMap<u8, Vec<ListEntry>>,
    /// Records that entries name and that are not held.
    lacking: BTreeSet<ItemId>,
    /// Whether this node's own proposal has been looked at.
    is_compared: bool,
}

impl Lists {
    pub(crate) fn newest(&self) -> Option<&Arc<HourList>> {
        self.known.last()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<HourList>> {
        self.known.iter()
    }

    /// The newest list of an hour before this one.
    pub(crate) fn before(&self, hour: Hour) -> Option<&Arc<HourList>> {
        self.known.iter().rev().find(|list| list.hour() < hour)
    }

    pub(crate) fn has(&self, hour: Hour, digests: &[BucketDigest; BUCKETS]) -> bool {
        self.known.iter().any(|list| list.hour() == hour && list.digests() == digests)
    }

    /// Remembers what this node votes for.
    pub(crate) fn note_voted(&mut self, list: Arc<HourList>) {
        self.voted.push(list);
        let surplus = self.voted.len().saturating_sub(MAX_VOTED);
        self.voted.drain(..surplus);
    }

    /// Notes what the list of an hour is to be; what has been found of it before stays.
    pub(crate) fn expect(&mut self, hour: Hour, digests: [BucketDigest; BUCKETS]) {
        let is_same = |coming: &Coming| coming.hour == hour && coming.digests == digests;
        if self.coming.as_ref().is_some_and(is_same) {
            return;
        }
        let before = self.coming.take();
        let is_empty = |(_, digest): &(u8, &BucketDigest)| **digest == BucketDigest::EMPTY;
        let empty = (0..=u8::MAX).zip(&digests).filter(is_empty);
        let found = empty.map(|(bucket, _)| (bucket, Vec::new())).collect();
        let lacking = BTreeSet::new();
        self.coming = Some(Coming { hour, digests, found, lacking, is_compared: false });
        for bucket in before.into_iter().flat_map(|coming| coming.found.into_values()) {
            self.take_bucket(&bucket);
        }
        let known: Vec<_> = self.known.iter().chain(&self.voted).rev().map(Arc::clone).collect();
        for list in known {
            self.take_from(&list);
        }
    }

    pub(crate) fn expect_nothing(&mut self) {
        self.coming = None;
    }

    /// Takes the buckets of a list that are as they are to be.
    pub(crate) fn take_from(&mut self, list: &HourList) {
        for (bucket, stated) in self.missing_buckets() {
            if list.digests().get(usize::from(bucket)) == Some(&stated) {
                self.take_bucket(&list.bucket(bucket));
            }
        }
    }

    /// Takes the entries of one bucket; whether they are as they are to be.
    pub(crate) fn take_bucket(&mut self, entries: &[ListEntry]) -> bool {
        let (Some(coming), Some(first)) = (&mut self.coming, entries.first()) else {
            return false;
        };
        let bucket = first.bucket();
        let stated = coming.digests.get(usize::from(bucket));
        let is_one = entries.iter().all(|entry| entry.bucket() == bucket);
        if !is_one || stated != Some(&digest(entries)) {
            return false;
        }
        coming.found.insert(bucket, entries.to_vec());
        true
    }

    /// Whether this node's own proposal for the coming list is still to be looked at; says so once.
    pub(crate) fn wants_proposal(&mut self) -> Option<Hour> {
        let is_complete = self.missing_buckets().is_empty();
        let coming = self.coming.as_mut().filter(|coming| !coming.is_compared && !is_complete)?;
        coming.is_compared = true;
        Some(coming.hour)
    }

    /// The buckets of the coming list whose entries are not known, with their digests.
    pub(crate) fn missing_buckets(&self) -> Vec<(u8, BucketDigest)> {
        let Some(coming) = &self.coming else { return Vec::new() };
        let all = (0..=u8::MAX).zip(coming.digests);
        all.filter(|(bucket, _)| !coming.found.contains_key(bucket)).collect()
    }

    /// The records of the coming list and of the newest that are not held.
    pub(crate) fn missing_records(&self) -> impl Iterator<Item = &ItemId> {
        self.coming.iter().flat_map(|coming| &coming.lacking).chain(&self.unheld)
    }

    /// Whether the coming list names a record that is not held, or a list from the disk does.
    pub(crate) fn wants(&self, record: &Record) -> bool {
        let name = ItemId::named(record.hash());
        let is_lacking = self.coming.as_ref().is_some_and(|coming| coming.lacking.contains(&name));
        let is_listed = || {
            let listed = self.newest().and_then(|list| list.get(&record.node()));
            listed.is_some_and(|listed| listed.record == record.hash())
        };
        is_lacking || (is_listed() && !self.pinned.contains_key(&name))
    }

    /// The entries of a bucket with this digest, from any list that is known.
    pub(crate) fn find_bucket(&self, bucket: u8, wanted: BucketDigest) -> Option<Vec<ListEntry>> {
        let coming = self
            .coming
            .as_ref()
            .filter(|coming| coming.digests.get(usize::from(bucket)) == Some(&wanted));
        if let Some(found) = coming.and_then(|coming| coming.found.get(&bucket)) {
            return Some(found.clone());
        }
        let has = |list: &&Arc<HourList>| list.digests().get(usize::from(bucket)) == Some(&wanted);
        let mut all = self.known.iter().chain(&self.voted).rev();
        all.find(has).map(|list| list.bucket(bucket))
    }

    pub(crate) fn pin(&mut self, record: &Arc<Record>) {
        let name = ItemId::named(record.hash());
        self.pinned.insert(name, Arc::clone(record));
        if self.unheld.remove(&name) && self.unheld.is_empty() {
            self.is_filled = true;
        }
        if let Some(coming) = &mut self.coming {
            coming.lacking.remove(&name);
        }
        self.is_stale = true;
    }

    pub(crate) fn pinned(&self, name: &ItemId) -> Option<&Arc<Record>> {
        self.pinned.get(name)
    }

    /// Looks for the records of the entries that are known; the list, once all are held.
    pub(crate) fn complete(
        &mut self,
        find: impl Fn(&ListEntry) -> Option<Arc<Record>>,
    ) -> Option<Arc<HourList>> {
        let coming = self.coming.as_mut()?;
        for entry in coming.found.values().flatten() {
            let name = ItemId::named(entry.record);
            if self.pinned.contains_key(&name) {
                continue;
            }
            match find(entry) {
                Some(record) => {
                    coming.lacking.remove(&name);
                    self.pinned.insert(name, record);
                }
                None => {
                    coming.lacking.insert(name);
                }
            }
        }
        if coming.found.len() < BUCKETS || !coming.lacking.is_empty() {
            return None;
        }
        let coming = self.coming.take()?;
        let list = HourList::new(coming.hour, coming.found.into_values().flatten());
        let list = Arc::new(list);
        self.adopt(Arc::clone(&list));
        Some(list)
    }

    /// Uses a list from the disk, of which some records may not be held.
    pub(crate) fn restore(
        &mut self,
        list: HourList,
        find: impl Fn(&ListEntry) -> Option<Arc<Record>>,
    ) {
        let list = Arc::new(list);
        self.adopt(Arc::clone(&list));
        self.unheld = list.iter().map(|entry| ItemId::named(entry.record)).collect();
        for record in list.iter().filter_map(find) {
            self.pin(&record);
        }
    }

    /// Whether the last record of the newest list that was not held has come; says so once.
    pub(crate) fn take_filled(&mut self) -> bool {
        core::mem::take(&mut self.is_filled)
    }

    /// Uses a list from now on. A list for an hour takes the place of another for the same hour.
    pub(crate) fn adopt(&mut self, list: Arc<HourList>) {
        self.unheld.clear();
        self.known.retain(|known| known.hour() < list.hour());
        self.known.push(list);
        let surplus = self.known.len().saturating_sub(MAX_LISTS);
        self.known.drain(..surplus);
    }

    /// Lets go of the records that neither the newest list nor the coming one names; returns them.
    pub(crate) fn unpin(&mut self) -> Vec<Arc<Record>> {
        let newest = self.known.last().into_iter().flat_map(|list| list.iter());
        let coming = self.coming.iter().flat_map(|coming| coming.found.values().flatten());
        let named = newest.chain(coming).map(|entry| ItemId::named(entry.record));
        let named: BTreeSet<_> = named.collect();
        let gone = self.pinned.extract_if(.., |name, _| !named.contains(name));
        gone.map(|(_, record)| record).collect()
    }
}

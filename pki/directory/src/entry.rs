//! What is held of one identity.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Epoch, Time};
use record::{Proof, Record};

use crate::verdict::{Source, Unwanted};

/// Records held for one identity: the one that the present hour's view needs, the newest, and those
/// between them that the next hour's view may need. These are dated within `settle` and the early
/// tolerance, a twelfth of an hour apart, which makes (10 + 10) / 5 + 2.
const MAX_RECORDS: usize = 6;
/// Records of one identity that catch-ups may bring in one hour closer to each other than a twelfth
/// of an hour.
const MAX_FILLED: u8 = 8;

#[derive(Default)]
pub(crate) struct Entry {
    /// Ascending by sequence number.
    pub(crate) records: Vec<Arc<Record>>,
    /// The newest record that holds the key of each epoch that may still matter.
    pub(crate) keys: BTreeMap<Epoch, Arc<Record>>,
    pub(crate) proof: Option<Arc<Proof>>,
    /// Whether the proof took the place of another in this hour.
    pub(crate) is_proof_replaced: bool,
    /// Records that catch-ups brought in this hour.
    pub(crate) filled: u8,
}

impl Entry {
    pub(crate) fn check(
        &self,
        record: &Record,
        source: Source,
        settled: Time,
        spacing: Duration,
    ) -> Result<(), Unwanted> {
        if self.records.iter().any(|known| known.hash() == record.hash()) {
            return Err(Unwanted::Known);
        }
        // Checked before the order: two keys for one epoch are a breach whatever the records'
        // numbers.
        let known = self.records.iter().chain(self.keys.values());
        if let Some(proof) = known.into_iter().find_map(|known| Proof::of(known, record)) {
            return Err(Unwanted::Broken(Arc::new(proof)));
        }
        let is_later = |known: &&Arc<Record>| known.sequence() > record.sequence();
        let is_settled = record.published_at() <= settled;
        // A catch-up may bring an older record if this hour's view or the next needs it.
        let fills_a_gap = !is_settled
            || !self.records.iter().filter(is_later).any(|later| later.published_at() <= settled);
        if self.records.iter().any(|known| is_later(&known))
            && (source != Source::CatchUp || !fills_a_gap)
        {
            return Err(Unwanted::Older);
        }
        let is_apart = |known: &Arc<Record>| {
            let (first, second) = if known.sequence() < record.sequence() {
                (known.published_at(), record.published_at())
            } else {
                (record.published_at(), known.published_at())
            };
            second >= first.plus(spacing)
        };
        // Of two records too close together, nodes may have heard either first: a catch-up brings
        // both to all.
        let may = match source {
            Source::CatchUp => self.filled < MAX_FILLED,
            Source::Gossip | Source::Own => self.records.iter().all(is_apart),
        };
        if may { Ok(()) } else { Err(Unwanted::TooSoon) }
    }

    /// Inserts a record by number. Above [`MAX_RECORDS`] the oldest goes, but never the newest
    /// settled one.
    pub(crate) fn insert(&mut self, record: &Arc<Record>, settled: Time) -> Vec<Arc<Record>> {
        for epoch in record.epochs() {
            let holder = self.keys.entry(epoch).or_insert_with(|| Arc::clone(record));
            if holder.sequence() < record.sequence() {
                *holder = Arc::clone(record);
            }
        }
        let at = self.records.partition_point(|known| known.sequence() < record.sequence());
        self.records.insert(at, Arc::clone(record));
        let mut gone = Vec::new();
        if self.records.len() > MAX_RECORDS {
            let needed = self.records.iter().rposition(|known| known.published_at() <= settled);
            gone.push(self.records.remove(usize::from(needed == Some(0))));
        }
        gone
    }

    /// Removes the records before the newest settled one.
    pub(crate) fn prune(&mut self, settled: Time) -> Vec<Arc<Record>> {
        let needed = self.records.iter().rposition(|known| known.published_at() <= settled);
        self.records.drain(..needed.unwrap_or(0)).collect()
    }

    pub(crate) fn settled(&self, deadline: Time) -> Option<&Arc<Record>> {
        self.records.iter().rev().find(|record| record.published_at() <= deadline)
    }
}

//! What becomes of a verified record, beside the ones already known.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Epoch, NodeId, Schedule, Time};
use record::{Record, RecordHash, Unverified};

/// Identities held, at most. Beyond it strangers are turned away: a known node is never displaced by a
/// new one. 10,000 identities with 4 records of 5 KB are 200 MB.
const MAX_IDENTITIES: usize = 10_000;
/// Records held for one identity: the one that the present hour's view needs, the newest, and between
/// them what may become the next hour's.
const MAX_RECORDS: usize = 4;

/// How far apart the records of one identity must be dated: a twelfth of an hour. Closer ones are not
/// taken in, so that nobody makes others verify, keep and pass on without end.
#[must_use]
pub fn spacing(schedule: &Schedule) -> Duration {
    schedule.hour() / 12
}

/// Every verified record that has not lapsed.
pub struct Directory {
    schedule: Schedule,
    /// By when records for the present hour's view were published.
    settled: Time,
    entries: BTreeMap<NodeId, Entry>,
}

/// A record that was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The first of its identity.
    Newcomer,
    /// It follows one that was known.
    Renewal,
}

/// Why a verified record is not taken in, and not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unwanted {
    /// It is known already.
    #[error("known")]
    Known,
    /// A record with a higher sequence number is known.
    #[error("older")]
    Older,
    /// Dated before the newest one known, or too soon after it.
    #[error("too soon")]
    TooSoon,
    /// Another record with the same sequence number is known.
    #[error("second of its number")]
    SecondOfNumber,
    /// Another mix key is known for one of its epochs.
    #[error("second key for one epoch")]
    SecondKey,
    /// The directory is full of others.
    #[error("full")]
    Full,
}

struct Entry {
    /// The newest record passed on in gossip.
    passed_on: Option<RecordHash>,
    /// Ascending by sequence number.
    records: Vec<Arc<Record>>,
    /// BLAKE3 of the mix key of every epoch that may still matter, whichever record held it.
    keys: BTreeMap<Epoch, [u8; 32]>,
}

impl Directory {
    /// An empty directory.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule, settled: Time::default(), entries: BTreeMap::new() }
    }

    /// Takes in a record, or says why not. Nothing known is ever displaced by something older.
    ///
    /// # Errors
    /// [`Unwanted`].
    pub fn admit(&mut self, record: Record) -> Result<(Admitted, Arc<Record>), Unwanted> {
        let node = record.node();
        if !self.entries.contains_key(&node) && self.entries.len() >= MAX_IDENTITIES {
            return Err(Unwanted::Full);
        }
        let record = Arc::new(record);
        match self.entries.get_mut(&node) {
            None => {
                let mut entry =
                    Entry { passed_on: None, records: Vec::new(), keys: BTreeMap::new() };
                entry.insert(&record, self.settled);
                self.entries.insert(node, entry);
                Ok((Admitted::Newcomer, record))
            }
            Some(entry) => {
                entry.check(&record, spacing(&self.schedule))?;
                entry.insert(&record, self.settled);
                Ok((Admitted::Renewal, record))
            }
        }
    }

    /// Says by when records for the present hour's view were published: those stay, however often
    /// their authors renew them, and are served to who joins in the middle of the hour.
    pub fn turn_hour(&mut self, settled: Time) {
        self.settled = settled;
    }

    /// Takes in a record that a catch-up brought: as [`Directory::admit`] does, and also one that is
    /// older than the newest known but is what the present hour's view needs.
    ///
    /// # Errors
    /// [`Unwanted`].
    pub fn admit_synced(&mut self, record: Record) -> Result<(Admitted, Arc<Record>), Unwanted> {
        let settled = self.settled;
        let spacing = spacing(&self.schedule);
        match self.entries.get_mut(&record.node()) {
            Some(entry) if entry.misses(&record, settled, spacing) => {
                let record = Arc::new(record);
                entry.insert(&record, settled);
                Ok((Admitted::Renewal, record))
            }
            _ => self.admit(record),
        }
    }

    /// Whether these octets are the newest record of somebody and not passed on yet; from then on they
    /// are.
    pub fn pass_on(&mut self, octets: &[u8]) -> bool {
        let Ok(claimed) = Unverified::parse(octets) else { return false };
        let Some(entry) = self.entries.get_mut(&claimed.claimed_node()) else { return false };
        let Some(newest) = entry.records.last() else { return false };
        let is_news = newest.octets().as_ref() == octets && entry.passed_on != Some(newest.hash());
        if is_news {
            entry.passed_on = Some(newest.hash());
        }
        is_news
    }

    /// Forgets records whose every epoch is past, and returns the identities that are gone.
    pub fn expire(&mut self, now: Time) -> Vec<NodeId> {
        let oldest = self.schedule.oldest_held(now);
        let mut gone = Vec::new();
        self.entries.retain(|node, entry| {
            entry.records.retain(|record| record.epochs().last() >= Some(oldest));
            entry.keys.retain(|epoch, _| *epoch >= oldest);
            if entry.records.is_empty() {
                gone.push(*node);
            }
            !entry.records.is_empty()
        });
        gone
    }

    /// Whether a live record of this node is known.
    #[must_use]
    pub fn knows(&self, node: &NodeId) -> bool {
        self.entries.contains_key(node)
    }

    /// The newest record of a node.
    #[must_use]
    pub fn newest(&self, node: &NodeId) -> Option<&Arc<Record>> {
        self.entries.get(node)?.records.last()
    }

    /// The newest record of every node, by identity.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.entries.values().filter_map(|entry| entry.records.last())
    }

    /// For every node after this one, by identity: its newest settled record, and after
    /// it its newest, if that is another.
    pub(crate) fn after(
        &self,
        node: Option<NodeId>,
    ) -> impl Iterator<Item = (NodeId, Vec<&Arc<Record>>)> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = node.map_or(Unbounded, Excluded);
        self.entries.range((from, Unbounded)).map(move |(node, entry)| {
            let is_settled = |record: &&Arc<Record>| record.published_at() <= self.settled;
            let old = entry.records.iter().rev().find(is_settled);
            let newest = entry.records.last();
            let newest = newest.filter(|new| old.is_none_or(|old| old.hash() != new.hash()));
            (*node, old.into_iter().chain(newest).collect())
        })
    }

    /// For every node its newest record published by `deadline`.
    pub(crate) fn published_by(&self, deadline: Time) -> impl Iterator<Item = &Arc<Record>> {
        self.entries.values().filter_map(move |entry| {
            entry.records.iter().rev().find(|record| record.published_at() <= deadline)
        })
    }

    /// How many identities are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a record says of its author's directory, 32 octets: BLAKE3 over the hashes of the newest
    /// records, in the order of identities.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for record in self.iter() {
            hasher.update(record.hash().as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// When epochs and hours begin.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

impl Entry {
    fn check(&self, record: &Record, spacing: Duration) -> Result<(), Unwanted> {
        if self.records.iter().any(|known| known.hash() == record.hash()) {
            return Err(Unwanted::Known);
        }
        if self.records.iter().any(|known| known.sequence() == record.sequence()) {
            return Err(Unwanted::SecondOfNumber);
        }
        // Before the order: a second key is one whatever its record's number.
        let differs = |(epoch, hash): &(Epoch, [u8; 32])| {
            self.keys.get(epoch).is_some_and(|known| known != hash)
        };
        if key_hashes(record).any(|key| differs(&key)) {
            return Err(Unwanted::SecondKey);
        }
        if self.records.last().is_some_and(|newest| record.sequence() < newest.sequence()) {
            return Err(Unwanted::Older);
        }
        let newest = self.records.last().map(|newest| newest.published_at());
        if newest.is_some_and(|newest| record.published_at() < newest.plus(spacing)) {
            return Err(Unwanted::TooSoon);
        }
        Ok(())
    }

    /// Whether an older record is what the view needs and is not here: settled, newer than every other
    /// settled one, and at odds with nothing known.
    fn misses(&self, record: &Record, settled: Time, spacing: Duration) -> bool {
        let is_settled = record.published_at() <= settled;
        let apart = |known: &Arc<Record>| {
            let (first, second) = if known.sequence() < record.sequence() {
                (known.published_at(), record.published_at())
            } else {
                (record.published_at(), known.published_at())
            };
            known.sequence() != record.sequence() && second >= first.plus(spacing)
        };
        let newer = |known: &Arc<Record>| {
            known.sequence() > record.sequence() && known.published_at() <= settled
        };
        let same_keys = |(epoch, hash): (Epoch, [u8; 32])| {
            self.keys.get(&epoch).is_none_or(|known| *known == hash)
        };
        is_settled
            && self.records.last().is_some_and(|last| record.sequence() < last.sequence())
            && self.records.iter().all(apart)
            && !self.records.iter().any(newer)
            && key_hashes(record).all(same_keys)
    }

    /// In its place by number. What is too much goes, oldest first, but never the newest settled one.
    fn insert(&mut self, record: &Arc<Record>, settled: Time) {
        self.keys.extend(key_hashes(record));
        let at = self.records.partition_point(|known| known.sequence() < record.sequence());
        self.records.insert(at, Arc::clone(record));
        if self.records.len() > MAX_RECORDS {
            let needed = self.records.iter().rposition(|known| known.published_at() <= settled);
            self.records.remove(usize::from(needed == Some(0)));
        }
    }
}

fn key_hashes(record: &Record) -> impl Iterator<Item = (Epoch, [u8; 32])> + '_ {
    record.epochs().filter_map(|epoch| {
        let key = record.key(epoch)?;
        Some((epoch, *blake3::hash(&key.to_bytes()).as_bytes()))
    })
}

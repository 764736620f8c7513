//! What is held of one identity.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Epoch, NodeId, Time};
use record::{Proof, Record, Signed, StatementHash, Unverified};

use crate::settled::Settled;
use crate::verdict::{Source, Unwanted};

/// Records held for one identity: the one that the present hour's votes need, and those after it
/// that the next ones may need. Votes look at what is dated 30 minutes before the hour, and records
/// are dated a twelfth of an hour apart.
const MAX_RECORDS: usize = 8;
/// Records of one identity that catch-ups may bring in one hour beside one that replaces the newest
/// settled one.
const MAX_FILLED: u8 = 8;

#[derive(Default)]
pub(crate) struct Entry {
    /// Ascending by sequence number.
    pub(crate) records: Vec<Arc<Record>>,
    /// What was stated for each epoch that may still matter, by the newest record that states it.
    keys: BTreeMap<Epoch, Stated>,
    pub(crate) proof: Option<Arc<Proof>>,
    /// Whether the proof took the place of another in this hour.
    pub(crate) is_proof_replaced: bool,
    /// Records that catch-ups brought in this hour.
    pub(crate) filled: u8,
    /// When catch-ups brought what gossip would have refused as late.
    late: BTreeMap<StatementHash, Time>,
}

/// What is remembered of a record that states a key: enough to see that another contradicts it, and
/// its octets, of which the proof is made. The record itself may be gone.
struct Stated {
    key: blake3::Hash,
    sequence: u64,
    hash: StatementHash,
    previous: StatementHash,
    octets: Arc<[u8]>,
}

impl Stated {
    fn of(record: &Record, key: blake3::Hash) -> Self {
        Self {
            key,
            sequence: record.sequence(),
            hash: record.hash(),
            previous: record.previous(),
            octets: Arc::clone(record.octets()),
        }
    }

    fn may_contradict(&self, epoch: Epoch, record: &Record) -> bool {
        let follows = self.previous != StatementHash::NONE && self.previous == record.previous();
        let differs =
            record.key(epoch).is_some_and(|key| blake3::hash(&key.to_bytes()) != self.key);
        self.hash != record.hash() && (self.sequence == record.sequence() || follows || differs)
    }

    fn read(&self, node: NodeId) -> Option<Signed> {
        let unverified = Unverified::parse(&self.octets).ok()?;
        let network = unverified.claimed_network();
        unverified.check_signature(&network).ok().filter(|signed| signed.node() == node)
    }
}

impl Entry {
    pub(crate) fn check(
        &self,
        record: &Record,
        source: Source,
        settled: Settled,
        spacing: Duration,
    ) -> Result<(), Unwanted> {
        if self.records.iter().any(|known| known.hash() == record.hash()) {
            return Err(Unwanted::Known);
        }
        // Checked before the order: two keys for one epoch are a breach whatever the records'
        // numbers.
        if let Some(proof) = self.contradiction(record, spacing) {
            return Err(Unwanted::Broken(Arc::new(proof)));
        }
        let is_later = |known: &&Arc<Record>| known.sequence() > record.sequence();
        // A catch-up may bring an older record if this hour's votes or the next need it.
        let fills_a_gap = !settled.counts(record.published_at(), None)
            || !self.records.iter().filter(is_later).any(|later| self.is_settled(later, settled));
        if self.records.iter().any(|known| is_later(&known)) {
            return if source != Source::CatchUp || !fills_a_gap {
                Err(Unwanted::Older)
            } else if self.filled >= MAX_FILLED {
                Err(Unwanted::TooSoon)
            } else {
                Ok(())
            };
        }
        // It has the highest number. A record that is dated before one with a lower number comes
        // from a clock that was set back.
        let is_apart =
            |known: &Arc<Record>| record.published_at() >= known.published_at().plus(spacing);
        if self.records.iter().all(is_apart) { Ok(()) } else { Err(Unwanted::TooSoon) }
    }

    fn contradiction(&self, record: &Record, spacing: Duration) -> Option<Proof> {
        let held = self.records.iter().find_map(|known| Proof::of(known, record, spacing));
        held.or_else(|| {
            let suspects =
                self.keys.iter().filter(|(epoch, stated)| stated.may_contradict(**epoch, record));
            suspects
                .filter_map(|(_, stated)| stated.read(record.node()))
                .find_map(|known| Proof::of(known.peek(), record, spacing))
        })
    }

    /// Inserts a record by number. Above [`MAX_RECORDS`] the oldest goes, but never the newest
    /// settled one.
    pub(crate) fn insert(&mut self, record: &Arc<Record>, settled: Settled) -> Vec<Arc<Record>> {
        for (epoch, key) in record.keys() {
            let is_newer = |known: &Stated| known.sequence < record.sequence();
            if self.keys.get(&epoch).is_none_or(is_newer) {
                self.keys.insert(epoch, Stated::of(record, blake3::hash(&key.to_bytes())));
            }
        }
        let at = self.records.partition_point(|known| known.sequence() < record.sequence());
        self.records.insert(at, Arc::clone(record));
        let mut gone = Vec::new();
        if self.records.len() > MAX_RECORDS {
            let needed = self.newest_settled(settled);
            gone.push(self.records.remove(usize::from(needed == Some(0))));
        }
        self.forget_late(&gone);
        gone
    }

    /// Notes that a catch-up brought a record later than gossip would have taken it.
    pub(crate) fn note_late(&mut self, record: &Record, now: Time) {
        self.late.insert(record.hash(), now);
    }

    /// Removes the records before the newest settled one.
    pub(crate) fn prune(&mut self, settled: Settled) -> Vec<Arc<Record>> {
        let needed = self.newest_settled(settled);
        let gone: Vec<_> = self.records.drain(..needed.unwrap_or(0)).collect();
        self.forget_late(&gone);
        gone
    }

    /// Removes the records that speak of no epoch from `oldest` on.
    pub(crate) fn expire(&mut self, oldest: Epoch) -> Vec<Arc<Record>> {
        let lapsed = |record: &mut Arc<Record>| record.span().1 < oldest;
        let gone: Vec<_> = self.records.extract_if(.., lapsed).collect();
        self.keys.retain(|epoch, _| *epoch >= oldest);
        self.forget_late(&gone);
        gone
    }

    fn forget_late(&mut self, gone: &[Arc<Record>]) {
        for record in gone {
            self.late.remove(&record.hash());
        }
    }

    /// The newest settled record.
    pub(crate) fn settled(&self, settled: Settled) -> Option<&Arc<Record>> {
        self.records.get(self.newest_settled(settled)?)
    }

    fn newest_settled(&self, settled: Settled) -> Option<usize> {
        self.records.iter().rposition(|record| self.is_settled(record, settled))
    }

    fn is_settled(&self, record: &Record, settled: Settled) -> bool {
        settled.counts(record.published_at(), self.late.get(&record.hash()))
    }

    pub(crate) fn find(&self, hash: StatementHash) -> Option<&Arc<Record>> {
        self.records.iter().find(|record| record.hash() == hash)
    }
}

//! What becomes of a verified statement, beside the ones already known.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use keys::{Epoch, NodeId, Schedule, Time};
use record::{Admission, Proof, Record, StatementHash, Vouch};

use crate::entry::Entry;
use crate::item::{Item, ItemId};
use crate::trust::Words;
use crate::verdict::{Admitted, Source, Unwanted};

/// Identities held, at most. When they are that many, strangers are turned away: a new node never
/// displaces a known one. 10,000 identities with 2 records of 10 KB (octets and parsed keys), as
/// honest nodes have, are 200 MB; if all are hostile, with as many records as allowed and a proof
/// of 16 KB each, 760 MB.
const MAX_IDENTITIES: usize = 10_000;
/// Identities held that nobody vouches for, at most, where vouches count: the rest of the room is
/// kept for identities that are vouched for.
const MAX_STRANGERS: usize = 2_000;
/// Identities never heard of that are taken in within one network hour: 10 MB. In its first hour a
/// joiner takes in all that its peers have. An identity that was turned away comes with a later
/// record.
const MAX_NEWCOMERS_AN_HOUR: usize = 1_000;

/// How far apart the records of one identity must be dated, and the words of one identity about
/// another: a twelfth of an hour. A closer one is not taken in, so that no identity makes others
/// verify, keep and pass on statements without end.
#[must_use]
pub fn spacing(schedule: &Schedule) -> Duration {
    schedule.hour() / 12
}

/// Every verified statement that still matters.
pub struct Directory {
    pub(crate) schedule: Schedule,
    /// When a statement must have been published, at the latest, to count for the present hour's
    /// view.
    pub(crate) settled: Time,
    pub(crate) entries: BTreeMap<NodeId, Entry>,
    pub(crate) words: Words,
    /// Everything held, as reconciliation compares it.
    pub(crate) items: BTreeMap<ItemId, Item>,
    /// Names of statements no longer held, until [`Directory::take_forgotten`] takes them.
    forgotten: Vec<ItemId>,
    newcomers: usize,
    /// Whether this directory has yet to learn what others know; it counts as such until the hour
    /// after it has.
    is_young: bool,
    has_caught_up: bool,
    /// The digests of all buckets, for as long as nothing changes.
    pub(crate) digests: OnceLock<Vec<[u8; ItemId::LEN]>>,
}

impl Directory {
    /// An empty directory of a network.
    #[must_use]
    pub fn new(schedule: Schedule, admission: &Admission) -> Self {
        Self {
            schedule,
            settled: Time::default(),
            entries: BTreeMap::new(),
            words: Words::new(admission),
            items: BTreeMap::new(),
            forgotten: Vec::new(),
            newcomers: 0,
            is_young: true,
            has_caught_up: false,
            digests: OnceLock::new(),
        }
    }

    /// Takes in a record, or says why not. Nothing known is ever displaced by something older.
    ///
    /// # Errors
    /// [`Unwanted`]; with [`Unwanted::Broken`] there is a proof for [`Directory::convict`].
    pub fn admit(
        &mut self,
        record: Record,
        source: Source,
    ) -> Result<(Admitted, Arc<Record>), Unwanted> {
        let node = record.node();
        let admitted = match self.entries.get(&node) {
            Some(entry) => {
                entry.check(&record, source, self.settled, spacing(&self.schedule))?;
                if entry.records.is_empty() { Admitted::Newcomer } else { Admitted::Renewal }
            }
            None => {
                self.check_room(&node, source)?;
                self.newcomers += usize::from(!self.words.is_known(&node));
                Admitted::Newcomer
            }
        };
        let record = Arc::new(record);
        let entry = self.entries.entry(node).or_default();
        let gone = entry.insert(&record, self.settled);
        if gone.iter().any(|gone| gone.hash() == record.hash()) {
            return Err(Unwanted::Older);
        }
        entry.filled = entry.filled.saturating_add(u8::from(source == Source::CatchUp));
        let newest = entry.records.last().map(|newest| newest.hash());
        self.hold(record.hash(), record.octets());
        let entry = self.entries.entry(node).or_default();
        for older in &entry.records {
            // Gossip passes on only the newest record of an identity.
            if Some(older.hash()) != newest
                && let Some(item) = self.items.get_mut(&ItemId::named(older.hash()))
            {
                item.is_passed_on = true;
            }
        }
        self.release(gone.iter().map(|record| record.hash()));
        Ok((admitted, record))
    }

    /// Takes in a node's word about another.
    ///
    /// # Errors
    /// [`Unwanted`].
    pub fn note_word(&mut self, vouch: Vouch, source: Source) -> Result<Arc<Vouch>, Unwanted> {
        let vouch = Arc::new(vouch);
        let gone = self.words.insert(&vouch, source, spacing(&self.schedule), self.settled)?;
        self.release(gone.iter().map(|word| word.hash()));
        self.hold(vouch.hash(), vouch.octets());
        Ok(vouch)
    }

    /// Takes in a proof. No route goes through its identity until the epochs that it concerns are
    /// past and, where vouches count, a chain of words said after its records reaches that
    /// identity. One proof for each identity is kept: the one that concerns the latest epoch, and
    /// of those the one dated last.
    ///
    /// # Errors
    /// [`Unwanted`].
    pub fn convict(&mut self, proof: Arc<Proof>) -> Result<(), Unwanted> {
        let node = proof.node();
        match self.entries.get(&node) {
            None if !self.words.is_known(&node) => return Err(Unwanted::Unreached),
            None => self.check_room(&node, Source::CatchUp)?,
            Some(entry) => match &entry.proof {
                Some(known) if known.hash() == proof.hash() => return Err(Unwanted::Known),
                // All nodes keep the same proof, whichever they heard first.
                Some(known) if weight(known) > weight(&proof) => return Err(Unwanted::Older),
                // An author can make any number of proofs against itself: only one an hour may
                // replace another.
                Some(_) if entry.is_proof_replaced => return Err(Unwanted::TooSoon),
                Some(_) | None => {}
            },
        }
        self.hold(proof.hash(), proof.octets());
        let entry = self.entries.entry(node).or_default();
        let before = entry.proof.replace(proof);
        entry.is_proof_replaced = before.is_some();
        self.release(before.iter().map(|proof| proof.hash()));
        Ok(())
    }

    fn hold(&mut self, hash: StatementHash, octets: &Arc<[u8]>) {
        self.digests.take();
        let item = Item { octets: Arc::clone(octets), is_passed_on: false };
        self.items.insert(ItemId::named(hash), item);
    }

    fn release(&mut self, hashes: impl Iterator<Item = StatementHash>) {
        for hash in hashes {
            let name = ItemId::named(hash);
            if self.items.remove(&name).is_some() {
                self.digests.take();
                self.forgotten.push(name);
            }
        }
    }

    /// The names of statements that are no longer held, each returned once.
    pub fn take_forgotten(&mut self) -> Vec<ItemId> {
        core::mem::take(&mut self.forgotten)
    }

    fn check_room(&self, node: &NodeId, source: Source) -> Result<(), Unwanted> {
        if source == Source::Own {
            return Ok(());
        }
        if self.entries.len() >= MAX_IDENTITIES {
            return Err(Unwanted::Full);
        }
        let is_stranger = |node: &NodeId| !self.words.is_known(node);
        if self.words.matter() && is_stranger(node) && self.entries.len() >= MAX_STRANGERS {
            let strangers = self.entries.keys().filter(|node| is_stranger(node)).count();
            if strangers >= MAX_STRANGERS {
                return Err(Unwanted::Full);
            }
        }
        let is_joining = self.is_young && source == Source::CatchUp;
        if !is_joining && self.newcomers >= MAX_NEWCOMERS_AN_HOUR {
            return Err(Unwanted::Crowded);
        }
        Ok(())
    }

    /// Begins an hour, whose view counts what was published by `settled`. The newest record of each
    /// identity published by then stays, however often the identity renews it, and the older ones
    /// go.
    pub fn turn_hour(&mut self, settled: Time) {
        self.is_young = !self.has_caught_up;
        self.settled = settled;
        self.newcomers = 0;
        let mut gone = self.words.prune(settled);
        for entry in self.entries.values_mut() {
            entry.is_proof_replaced = false;
            entry.filled = 0;
            gone.extend(entry.prune(settled).iter().map(|record| record.hash()));
        }
        self.release(gone.into_iter());
    }

    /// Whether these octets are held, news, and not passed on by gossip yet; after this call they
    /// count as passed on.
    pub fn pass_on(&mut self, octets: &[u8]) -> bool {
        let Some(item) = self.items.get_mut(&ItemId::of(octets)) else { return false };
        !core::mem::replace(&mut item.is_passed_on, true)
    }

    /// Forgets what lies in the past, and returns the identities of which nothing is left.
    pub fn expire(&mut self, now: Time) -> Vec<NodeId> {
        let oldest = self.schedule.oldest_held(now);
        let mut hashes = self.words.expire(now);
        let mut gone = Vec::new();
        self.entries.retain(|node, entry| {
            let lapsed = |record: &Arc<Record>| record.span().1 < oldest;
            hashes.extend(entry.records.extract_if(.., |record| lapsed(record)).map(|r| r.hash()));
            entry.keys.retain(|epoch, _| *epoch >= oldest);
            let is_over = |proof: &mut Arc<Proof>| {
                proof.last_epoch() < oldest && !self.words.any_before(node, proof.dated())
            };
            hashes.extend(entry.proof.take_if(is_over).map(|proof| proof.hash()));
            let stays = !entry.records.is_empty() || entry.proof.is_some();
            if !stays {
                gone.push(*node);
            }
            stays
        });
        self.release(hashes.into_iter());
        gone
    }

    /// Whether a live record of this node is known.
    #[must_use]
    pub fn knows(&self, node: &NodeId) -> bool {
        self.newest(node).is_some()
    }

    /// The newest record of a node.
    #[must_use]
    pub fn newest(&self, node: &NodeId) -> Option<&Arc<Record>> {
        self.entries.get(node)?.records.last()
    }

    /// The proof against a node, as long as it counts at `at`.
    #[must_use]
    pub fn conviction(&self, node: &NodeId, at: Time) -> Option<&Arc<Proof>> {
        let proof = self.entries.get(node)?.proof.as_ref()?;
        (proof.last_epoch() >= self.schedule.epoch_at(at)).then_some(proof)
    }

    /// Notes that peers have told what they know: from now on this directory is the network's.
    pub fn note_caught_up(&mut self) {
        self.has_caught_up = true;
    }

    /// Whether a proof still decides anything: its epochs are not past, or words from before it are
    /// held.
    #[must_use]
    pub fn concerns(&self, proof: &Proof, now: Time) -> bool {
        proof.last_epoch() >= self.schedule.oldest_held(now)
            || self.words.any_before(&proof.node(), proof.dated())
    }

    /// When a node broke its word, as long as words from before that are held.
    #[must_use]
    pub fn broke(&self, node: &NodeId) -> Option<Time> {
        Some(self.entries.get(node)?.proof.as_ref()?.dated())
    }

    /// The newest record of every node, by identity.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.entries.values().filter_map(|entry| entry.records.last())
    }

    /// For every node its newest record published by `deadline`.
    pub(crate) fn published_by(&self, deadline: Time) -> impl Iterator<Item = &Arc<Record>> {
        self.entries.values().filter_map(move |entry| entry.settled(deadline))
    }

    /// The octets of everything held, for the disk.
    pub fn statements(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.items.values().map(|item| &item.octets)
    }

    /// Whether the statement of this name is held.
    #[must_use]
    pub fn holds(&self, name: &ItemId) -> bool {
        self.items.contains_key(name)
    }

    /// The vouches of one node that hold, the newest for each subject.
    pub fn vouches_by(&self, voucher: &NodeId) -> impl Iterator<Item = &Arc<Vouch>> {
        self.words.by_newest(voucher)
    }

    /// Whether a node's word about others counts at present.
    #[must_use]
    pub fn may_vouch(&self, node: &NodeId) -> bool {
        self.words.may_vouch(node)
    }

    /// The nodes that vouch for a node at present.
    pub fn vouchers_of(&self, subject: &NodeId) -> impl Iterator<Item = NodeId> {
        self.words.about(subject).map(|vouch| vouch.voucher())
    }

    /// How many identities are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no identity is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When epochs and hours begin.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

fn weight(proof: &Proof) -> (Epoch, Time, StatementHash) {
    (proof.last_epoch(), proof.dated(), proof.hash())
}

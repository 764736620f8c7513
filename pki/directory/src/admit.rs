//! What becomes of a verified statement, beside the ones already known.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use keys::{Epoch, NodeId, Schedule, Time};
use record::{Bounds, Descriptor, Lists as Rules, Proof, Record, StatementHash, Vote, Vouch, Word};

use crate::assembly::Lists;
use crate::entry::Entry;
use crate::item::{ItemId, Items};
use crate::settled::Settled;
use crate::trust::Words;
use crate::verdict::{Admitted, Source, Unwanted};
use crate::votes::{self, Votes};

/// Identities held, at most. When they are that many, strangers are turned away: a new node never
/// displaces a known one. With 2 records each, as honest nodes have, they are some 200 MB; if all
/// publish as often and as much as they may, 1.6 GB (`tests/memory.rs` measures it), of which
/// strangers of a vouched network have a fifth.
const MAX_IDENTITIES: usize = 10_000;

/// Every verified statement that still matters.
pub struct Directory {
    pub(crate) schedule: Schedule,
    pub(crate) rules: Rules,
    bounds: Bounds,
    /// What the present hour's votes looked at.
    settled: Settled,
    pub(crate) entries: BTreeMap<NodeId, Entry>,
    pub(crate) words: Words,
    pub(crate) votes: Votes,
    pub(crate) lists: Lists,
    /// Everything held, as reconciliation compares it.
    pub(crate) items: Items,
    strangers: Strangers,
    /// Whether this directory has yet to learn what others know; it counts as such until the hour
    /// after it has.
    is_young: bool,
    has_caught_up: bool,
}

/// How many identities are known that nobody speaks for.
#[derive(Default)]
struct Strangers {
    /// Taken in in this hour.
    new: u32,
    /// Held: counted when the hour begins, and those taken in since.
    held: u32,
}

impl Directory {
    /// An empty directory of a network.
    #[must_use]
    pub fn new(descriptor: &Descriptor) -> Self {
        let parameters = descriptor.parameters();
        Self {
            schedule: parameters.schedule(),
            rules: parameters.lists.clone(),
            bounds: parameters.bounds.clone(),
            settled: Settled { deadline: Time::default(), known_by: Time::default() },
            entries: BTreeMap::new(),
            words: Words::new(descriptor.admission()),
            votes: Votes::new(descriptor),
            lists: Lists::default(),
            items: Items::default(),
            strangers: Strangers::default(),
            is_young: true,
            has_caught_up: false,
        }
    }

    /// Takes in a record that came at `now`, or says why not. Nothing known is ever displaced by
    /// something older. A record that the coming list names, or the one in use, is held in any case.
    ///
    /// # Errors
    /// [`Unwanted`]; with [`Unwanted::Broken`] there is a proof for [`Directory::convict`].
    pub fn admit(
        &mut self,
        record: Record,
        source: Source,
        now: Time,
    ) -> Result<(Admitted, Arc<Record>), Unwanted> {
        let record = Arc::new(record);
        if !self.lists.wants(&record) {
            return self.admit_by_rule(&record, source, now);
        }
        let admitted = self.admit_by_rule(&record, source, now);
        self.lists.pin(&record);
        if admitted.is_err() {
            self.items.hold(record.hash(), record.octets());
        }
        match admitted {
            Ok(admitted) => Ok(admitted),
            // Held, but its author has to be convicted.
            Err(Unwanted::Broken(proof)) => Err(Unwanted::Broken(proof)),
            Err(_) => Ok((Admitted::Renewal, record)),
        }
    }

    fn admit_by_rule(
        &mut self,
        record: &Arc<Record>,
        source: Source,
        now: Time,
    ) -> Result<(Admitted, Arc<Record>), Unwanted> {
        let node = record.node();
        let admitted = match self.entries.get(&node) {
            Some(entry) => {
                entry.check(record, source, self.settled, self.bounds.spacing)?;
                if entry.records.is_empty() { Admitted::Newcomer } else { Admitted::Renewal }
            }
            None => {
                self.check_room(&node, source)?;
                let stranger = u32::from(!self.is_vouched(&node));
                self.strangers.new += stranger;
                self.strangers.held += stranger;
                Admitted::Newcomer
            }
        };
        let late = self.late(record.published_at(), source, now);
        let entry = self.entries.entry(node).or_default();
        if let Some(at) = late {
            entry.note_late(record, at);
        }
        let gone = entry.insert(record, self.settled);
        if gone.iter().any(|gone| gone.hash() == record.hash()) {
            return Err(Unwanted::Older);
        }
        let newest = entry.records.last().map(|newest| newest.hash());
        let fills = source == Source::CatchUp && newest != Some(record.hash());
        entry.filled = entry.filled.saturating_add(u8::from(fills));
        self.items.hold(record.hash(), record.octets());
        let entry = self.entries.entry(node).or_default();
        for older in &entry.records {
            // Gossip passes on only the newest record of an identity.
            if Some(older.hash()) != newest {
                self.items.pass_on(&ItemId::named(older.hash()));
            }
        }
        self.release(gone.iter().map(|record| record.hash()));
        Ok((admitted, Arc::clone(record)))
    }

    /// Whether a statement dated `dated` is too old for gossip at `now`: what reconciliation brings
    /// as late may be unknown to others, and counts from the votes after the next.
    #[must_use]
    pub fn is_late(&self, dated: Time, now: Time) -> bool {
        now.since(dated) > self.rules.late
    }

    /// `now`, if what comes then is late. To a joiner everything comes by reconciliation.
    fn late(&self, dated: Time, source: Source, now: Time) -> Option<Time> {
        let is_late = source == Source::CatchUp && self.is_late(dated, now);
        (is_late && !self.is_young).then_some(now)
    }

    /// Takes in a node's word about another that came at `now`.
    ///
    /// # Errors
    /// [`Unwanted`].
    pub fn note_word(
        &mut self,
        vouch: Vouch,
        source: Source,
        now: Time,
    ) -> Result<Arc<Vouch>, Unwanted> {
        let vouch = Arc::new(vouch);
        let gone = if vouch.word() == Word::Retirement {
            self.lists.is_stale = true;
            self.votes.retire(&vouch)?.into_iter().collect()
        } else {
            let late = self.late(vouch.issued_at(), source, now);
            self.words.insert(&vouch, source, self.bounds.spacing, self.settled, late)?
        };
        self.release(gone.iter().map(|word| word.hash()));
        self.items.hold(vouch.hash(), vouch.octets());
        Ok(vouch)
    }

    /// Takes in a vote for this hour, the two before it, or the next one once it may be signed.
    ///
    /// # Errors
    /// [`Unwanted`]; with [`Unwanted::Broken`] there is a proof for [`Directory::convict`].
    pub fn note_vote(&mut self, vote: Vote, now: Time) -> Result<Arc<Vote>, Unwanted> {
        let hour = self.schedule.hour_at(now);
        let signed_from = self.schedule.hour_end(hour).minus(self.rules.lead);
        let last = if self.schedule.may_be_dated(signed_from, now) { hour.plus(1) } else { hour };
        let vote = Arc::new(vote);
        self.votes.insert(&vote, &(hour.minus(votes::HOURS - 1)..=last))?;
        self.lists.is_stale = true;
        self.items.hold(vote.hash(), vote.octets());
        Ok(vote)
    }

    /// Takes in a proof. No vote lists its identity until the epochs that it concerns are past and,
    /// where vouches count, a chain of words said after its statements reaches that identity. A
    /// voter or root that broke its word is neither for good. One proof for each identity is kept:
    /// the one that concerns the latest epoch, and of those the one dated last.
    ///
    /// # Errors
    /// [`Unwanted`].
    pub fn convict(&mut self, proof: Arc<Proof>) -> Result<(), Unwanted> {
        let node = proof.node();
        match self.entries.get(&node) {
            None if !self.is_vouched(&node) => return Err(Unwanted::Unreached),
            None => {}
            Some(entry) => match &entry.proof {
                Some(known) if known.hash() == proof.hash() => return Err(Unwanted::Known),
                // All nodes keep the same proof, whichever they heard first.
                Some(known) if self.weight(known) > self.weight(&proof) => {
                    return Err(Unwanted::Older);
                }
                // An author can make any number of proofs against itself: only one an hour may
                // replace another.
                Some(_) if entry.is_proof_replaced => return Err(Unwanted::TooSoon),
                Some(_) | None => {}
            },
        }
        self.items.hold(proof.hash(), proof.octets());
        let entry = self.entries.entry(node).or_default();
        let before = entry.proof.replace(proof);
        entry.is_proof_replaced = before.is_some();
        self.lists.is_stale = true;
        self.release(before.iter().map(|proof| proof.hash()));
        Ok(())
    }

    pub(crate) fn release(&mut self, hashes: impl Iterator<Item = StatementHash>) {
        for hash in hashes {
            let name = ItemId::named(hash);
            if self.lists.pinned(&name).is_none() {
                self.items.release(name);
            }
        }
    }

    /// The names of statements that are no longer held, each returned once.
    pub fn take_forgotten(&mut self) -> Vec<ItemId> {
        self.items.take_forgotten()
    }

    /// Whether a node is more than a stranger: a voter, a root, or one that somebody vouches for;
    /// or has been listed. In an open network everybody is a stranger.
    fn is_vouched(&self, node: &NodeId) -> bool {
        self.words.is_known(node)
            || self.votes.is_founder(node)
            || self.lists.newest().is_some_and(|list| list.get(node).is_some())
    }

    fn check_room(&self, node: &NodeId, source: Source) -> Result<(), Unwanted> {
        if source == Source::Own || self.is_vouched(node) {
            return Ok(());
        }
        if self.entries.len() >= MAX_IDENTITIES {
            return Err(Unwanted::Full);
        }
        if self.words.matter() && self.strangers.held >= self.bounds.strangers {
            return Err(Unwanted::Full);
        }
        let is_joining = self.is_young && source == Source::CatchUp;
        if !is_joining && self.strangers.new >= self.bounds.newcomers {
            return Err(Unwanted::Crowded);
        }
        Ok(())
    }

    /// Begins the hour that `now` lies in. The newest record of each identity that its votes may
    /// name stays, however often the identity renews it, and the older ones go.
    pub fn turn_hour(&mut self, now: Time) {
        let hour = self.schedule.hour_at(now);
        let settled = self.settled_for(hour);
        self.is_young = !self.has_caught_up;
        self.settled = settled;
        let strangers = self.entries.keys().filter(|node| !self.is_vouched(node)).count();
        self.strangers = Strangers { new: 0, held: u32::try_from(strangers).unwrap_or(u32::MAX) };
        self.lists.is_stale = true;
        let mut gone = self.words.prune(settled);
        gone.extend(self.votes.forget_before(hour.minus(votes::HOURS - 1)));
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
        self.items.pass_on(&ItemId::of(octets))
    }

    /// Forgets what lies in the past, and returns the identities of which nothing is left.
    pub fn expire(&mut self, now: Time) -> Vec<NodeId> {
        let oldest = self.schedule.oldest_held(now);
        let mut hashes = self.words.expire(now);
        let mut gone = Vec::new();
        let (schedule, votes, words) = (&self.schedule, &self.votes, &self.words);
        self.entries.retain(|node, entry| {
            hashes.extend(entry.expire(oldest).iter().map(|record| record.hash()));
            let is_over = |proof: &mut Arc<Proof>| {
                proof.last_epoch(schedule) < oldest
                    && !words.any_before(node, proof.dated(schedule))
                    && !votes.is_founder(node)
            };
            hashes.extend(entry.proof.take_if(is_over).map(|proof| proof.hash()));
            let stays = !entry.records.is_empty() || entry.proof.is_some();
            if !stays {
                gone.push(*node);
            }
            stays
        });
        if !gone.is_empty() && self.entries.is_empty() {
            // A node that was cut off until all it knew had lapsed learns as a joiner does.
            (self.is_young, self.has_caught_up) = (true, false);
        }
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
        let counts = proof.last_epoch(&self.schedule) >= self.schedule.epoch_at(at);
        (counts || self.votes.is_founder(node)).then_some(proof)
    }

    /// Notes that peers have told what they know: from now on this directory is the network's.
    pub fn note_caught_up(&mut self) {
        self.has_caught_up = true;
    }

    /// Whether a proof still decides anything: its epochs are not past, or words from before it are
    /// held.
    #[must_use]
    pub fn concerns(&self, proof: &Proof, now: Time) -> bool {
        proof.last_epoch(&self.schedule) >= self.schedule.oldest_held(now)
            || self.words.any_before(&proof.node(), proof.dated(&self.schedule))
            || self.votes.is_founder(&proof.node())
    }

    /// When a node broke its word, as long as words from before that are held.
    #[must_use]
    pub fn broke(&self, node: &NodeId) -> Option<Time> {
        Some(self.entries.get(node)?.proof.as_ref()?.dated(&self.schedule))
    }

    /// The newest record of every node, by identity.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.entries.values().filter_map(|entry| entry.records.last())
    }

    /// The octets of everything held, for the disk.
    pub fn statements(&self) -> impl Iterator<Item = &Arc<[u8]>> {
        self.items.all_octets()
    }

    /// Whether the statement of this name is held.
    #[must_use]
    pub fn holds(&self, name: &ItemId) -> bool {
        self.items.contains(name)
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

    /// How far apart the records of one identity must be dated, and its words about another.
    #[must_use]
    pub fn spacing(&self) -> Duration {
        self.bounds.spacing
    }

    fn weight(&self, proof: &Proof) -> (Epoch, Time, StatementHash) {
        (proof.last_epoch(&self.schedule), proof.dated(&self.schedule), proof.hash())
    }
}

//! What a voter states for an hour, and the list that a majority of votes makes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use keys::{Hour, NodeId, Time};
use record::{BUCKETS, BucketDigest, ListHash, Record, VouchRole};

use crate::admit::Directory;
use crate::entry::Entry;
use crate::list::{HourList, ListEntry};
use crate::settled::Settled;
use crate::trust::Reached;
use crate::view::Standing;
use crate::votes::HOURS;

/// Which statements a proposal looks at.
#[derive(Clone, Copy)]
enum Counted {
    /// Those that had settled when the votes for the hour were due.
    Settled,
    /// All: the first list of a network just started.
    All,
}

/// How a voter sees the nodes in one hour.
pub(crate) struct Eyes {
    settled: Settled,
    taken: Time,
    reached: Option<BTreeMap<NodeId, Reached>>,
    retired: BTreeSet<NodeId>,
}

impl Directory {
    /// When the votes for an hour are signed.
    #[must_use]
    pub fn votes_at(&self, hour: Hour) -> Time {
        self.schedule.hour_start(hour).minus(self.rules.lead)
    }

    /// When a statement must have been published, at the latest, to count for an hour.
    #[must_use]
    pub fn deadline(&self, hour: Hour) -> Time {
        self.votes_at(hour).minus(self.rules.settle)
    }

    /// What the votes for an hour look at. What came late counts if it was there when the votes for
    /// the hour before were signed.
    pub(crate) fn settled_for(&self, hour: Hour) -> Settled {
        Settled { deadline: self.deadline(hour), known_by: self.votes_at(hour.minus(1)) }
    }

    /// The list that this node would vote for.
    #[must_use]
    pub fn propose(&self, hour: Hour) -> HourList {
        self.propose_from(hour, Counted::Settled)
    }

    /// The first list of a network just started: of all nodes that are known.
    #[must_use]
    pub fn propose_first(&self, hour: Hour) -> HourList {
        self.propose_from(hour, Counted::All)
    }

    fn propose_from(&self, hour: Hour, counted: Counted) -> HourList {
        let eyes = self.eyes(hour, counted);
        let before = self.lists.before(hour);
        let entries = self.entries.iter().filter_map(|(node, entry)| {
            let listed = before.and_then(|list| list.get(node));
            let (record, role) = self.look(node, entry, listed, &eyes).ok()?;
            let reached = eyes.reached.as_ref().and_then(|reached| reached.get(node));
            let since = match before {
                Some(_) if reached.is_some_and(Reached::is_root) => Hour::default(),
                Some(_) => listed.map_or(hour, |listed| listed.since),
                // Nobody was there to witness when the first nodes of a network came.
                None => Hour::default(),
            };
            Some(ListEntry {
                node: *node,
                record: record.hash(),
                since,
                exits: record.exit().is_some() && role == VouchRole::Exit,
            })
        });
        HourList::new(hour, entries)
    }

    fn eyes(&self, hour: Hour, counted: Counted) -> Eyes {
        let taken = self.schedule.hour_start(hour);
        let always = Time::from_millis(u64::MAX);
        let settled = match counted {
            Counted::Settled => self.settled_for(hour),
            Counted::All => Settled { deadline: always, known_by: always },
        };
        let retired = self.retired();
        let broke = |node: &NodeId| self.broke(node);
        let reached = self.words.reached(settled, taken, broke, |node| retired.contains(node));
        Eyes { settled, taken, reached, retired }
    }

    /// The record of a node that a vote names, and what the node may be used as; or why it is not
    /// listed.
    fn look<'a>(
        &self,
        node: &NodeId,
        entry: &'a Entry,
        listed: Option<&ListEntry>,
        eyes: &Eyes,
    ) -> Result<(&'a Arc<Record>, VouchRole), Standing> {
        if let Some(proof) = self.conviction(node, eyes.taken) {
            return Err(Standing::Convicted(proof.breach()));
        }
        if eyes.retired.contains(node) {
            return Err(Standing::Retired);
        }
        let role = match &eyes.reached {
            None => VouchRole::Exit,
            Some(reached) => reached.get(node).ok_or(Standing::NotVouched)?.role,
        };
        // What a list names has been witnessed: in a network just started nothing has settled yet.
        let named = listed.and_then(|listed| entry.find(listed.record));
        let settled = entry.settled(eyes.settled);
        let record = settled.or(named).ok_or(Standing::Unsettled)?;
        if !record.is_understood() {
            return Err(Standing::NotUnderstood);
        }
        if record.is_leaving() {
            return Err(Standing::Leaving);
        }
        match record.key(self.schedule.epoch_at(eyes.taken)) {
            Some(_) => Ok((record, role)),
            None => Err(Standing::NoKey),
        }
    }

    /// How every known node stands: in the list that is used, or else why the next votes would not
    /// name it.
    #[must_use]
    pub fn standings(&self, now: Time) -> BTreeMap<NodeId, Standing> {
        let eyes = self.eyes(self.schedule.hour_at(now).plus(1), Counted::Settled);
        let list = self.lists.newest();
        let stands = |(node, entry): (&NodeId, &Entry)| {
            let listed = list.and_then(|list| Some((list.hour(), list.get(node)?)));
            let standing = match listed {
                Some((hour, listed)) => self.stands(listed, hour),
                None => self.look(node, entry, None, &eyes).err().unwrap_or(Standing::NotListed),
            };
            (*node, standing)
        };
        self.entries.iter().map(stands).collect()
    }

    pub(crate) fn stands(&self, listed: &ListEntry, hour: Hour) -> Standing {
        let over = |epochs: u16| match listed.since {
            since if since == Hour::default() => Time::default(),
            since => {
                let hours = u64::from(epochs).saturating_mul(keys::Schedule::HOURS);
                self.schedule.hour_start(since.plus(hours))
            }
        };
        let taken = self.schedule.hour_start(hour);
        let (relays, exits) = (over(self.rules.relay_probation), over(self.rules.exit_probation));
        match () {
            () if relays > taken => Standing::Probation(relays),
            () if listed.exits && exits > taken => Standing::NotYetExit(exits),
            () => Standing::Routable,
        }
    }

    // Lists.

    /// The newest list, whatever its age.
    #[must_use]
    pub fn list(&self) -> Option<&Arc<HourList>> {
        self.lists.newest()
    }

    /// The lists of the last hours, ascending.
    pub fn lists(&self) -> impl Iterator<Item = &Arc<HourList>> {
        self.lists.iter()
    }

    /// The hash of the newest list: what a vote names as the one before.
    #[must_use]
    pub fn list_hash(&self) -> ListHash {
        self.lists.newest().map_or(ListHash::NONE, |list| list.hash())
    }

    /// Uses a list from the disk until votes make a newer one. The records that it names are held
    /// fast when they come.
    pub fn restore_list(&mut self, list: HourList) {
        let entries = &self.entries;
        self.lists.restore(list, |entry| find(entries, entry));
    }

    /// Whether the last record that a list from the disk names, and that was not held, has come: the
    /// view of that list is whole from then on. Says so once.
    pub fn take_filled(&mut self) -> bool {
        self.lists.take_filled()
    }

    /// Puts the list of the present hour, or of the latest that was voted, together as far as
    /// possible: from what is known, and from this node's own proposal. A list that is complete is
    /// used from then on, and returned.
    pub fn assemble(&mut self, now: Time) -> Option<Arc<HourList>> {
        if !core::mem::take(&mut self.lists.is_stale) {
            return None;
        }
        self.expect(self.schedule.hour_at(now));
        if let Some(hour) = self.lists.wants_proposal() {
            let is_first = self.may_begin(now);
            self.lists.take_from(&self.propose(hour));
            if is_first {
                self.lists.take_from(&self.propose_first(hour));
            }
        }
        let entries = &self.entries;
        let list = self.lists.complete(|entry| find(entries, entry));
        let gone = if list.is_some() { self.lists.unpin() } else { Vec::new() };
        let is_held = |record: &Record| {
            entries.get(&record.node()).is_some_and(|entry| entry.find(record.hash()).is_some())
        };
        let gone: Vec<_> =
            gone.iter().filter(|record| !is_held(record)).map(|record| record.hash()).collect();
        self.release(gone.into_iter());
        list
    }

    /// Whether the list may be made of all that is known: the network is one that begins at once, and
    /// there is no list that may be used.
    #[must_use]
    pub fn may_begin(&self, now: Time) -> bool {
        let start = self.lists.newest().map(|list| self.schedule.hour_start(list.hour()));
        self.rules.first > 0 && start.is_none_or(|start| now.since(start) >= self.rules.keep)
    }

    /// Finds out what the list of this hour, or of the latest before it that was voted, is to be.
    fn expect(&mut self, present: Hour) {
        let (retired, convicted) = (self.retired(), |node: &NodeId| self.broke(node).is_some());
        let tally = |hour| self.votes.tally(hour, &retired, |voter| !convicted(voter));
        let newest = self.lists.newest().map(|list| list.hour());
        let hours = (0..HOURS).map(|back| present.minus(back));
        let mut hours = hours.filter(|hour| newest.is_none_or(|newest| *hour >= newest));
        let Some((hour, stated)) = hours.find_map(|hour| Some((hour, tally(hour)?))) else {
            return self.lists.expect_nothing();
        };
        // A bucket without a majority keeps the entries that it had: in the first list of a network
        // none. A node that does not know them has no list.
        let before = self.lists.before(hour);
        let unknown = stated.is_first.then_some(BucketDigest::EMPTY);
        let mut digests: [Option<BucketDigest>; BUCKETS] =
            before.map_or([unknown; BUCKETS], |list| list.digests().map(Some));
        let first = before.map_or(present.minus(HOURS - 1), |list| list.hour().plus(1));
        let mut between = first.max(hour.minus(HOURS - 1));
        while between < hour {
            if let Some(stated) = tally(between) {
                overlay(&mut digests, &stated.digests);
            }
            between = between.plus(1);
        }
        overlay(&mut digests, &stated.digests);
        let known: Vec<_> = digests.into_iter().flatten().collect();
        match <[BucketDigest; BUCKETS]>::try_from(known) {
            Ok(digests) if !self.lists.has(hour, &digests) => self.lists.expect(hour, digests),
            Ok(_) | Err(_) => self.lists.expect_nothing(),
        }
    }

    /// Takes a bucket's entries from a peer, if they are those of the coming list.
    pub fn take_bucket(&mut self, entries: &[ListEntry]) {
        self.lists.is_stale |= self.lists.take_bucket(entries);
    }

    /// Whether peers have to be asked for the coming list: for entries, or for records.
    #[must_use]
    pub fn lacks_list(&self) -> bool {
        !self.lists.missing_buckets().is_empty() || self.lists.missing_records().next().is_some()
    }

    // Votes.

    /// Whether a node is a voter that has not been retired.
    #[must_use]
    pub fn is_voter(&self, node: &NodeId) -> bool {
        self.votes.is_voter(node) && !self.retired().contains(node)
    }

    /// Remembers what this node votes for, so that peers can be told its entries.
    pub fn note_voted(&mut self, list: HourList) {
        self.lists.note_voted(Arc::new(list));
    }

    /// The voters whose vote for an hour is not known.
    #[must_use]
    pub fn missing_voters(&self, hour: Hour) -> Vec<NodeId> {
        self.votes.missing(hour, &self.retired()).collect()
    }

    /// A bit for each voter, in the order of the descriptor, whose vote for an hour is known.
    pub(crate) fn voted(&self, hour: Hour) -> u32 {
        self.votes.held_bits(hour)
    }

    fn retired(&self) -> BTreeSet<NodeId> {
        self.votes.retired(|voter| self.broke(voter).is_some())
    }
}

fn overlay(
    digests: &mut [Option<BucketDigest>; BUCKETS],
    stated: &[Option<BucketDigest>; BUCKETS],
) {
    for (digest, stated) in digests.iter_mut().zip(stated) {
        *digest = stated.or(*digest);
    }
}

fn find(entries: &BTreeMap<NodeId, Entry>, listed: &ListEntry) -> Option<Arc<Record>> {
    entries.get(&listed.node)?.find(listed.record).map(Arc::clone)
}

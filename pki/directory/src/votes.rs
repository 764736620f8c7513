//! Who votes, what was voted, and what a majority of all voters states.

use core::ops::RangeInclusive;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keys::{Hour, NodeId};
use record::{BUCKETS, BucketDigest, Descriptor, ListHash, Proof, StatementHash, Vote, Vouch};

use crate::verdict::Unwanted;

/// Hours for which votes are held, the present one included.
pub(crate) const HOURS: u64 = 3;

/// What is held of votes. There are at most 32 voters: four hours of votes, of 4,267 octets and as
/// much again for their digests, are 1.1 MB; 32 words of 1,089 octets about each of 64 subjects are
/// 2.2 MB.
pub(crate) struct Votes {
    voters: Vec<NodeId>,
    held: BTreeMap<(Hour, NodeId), Arc<Vote>>,
    /// Who has said of whom that it counts no more, by subject and voter.
    retirements: BTreeMap<(NodeId, NodeId), Arc<Vouch>>,
    roots: Vec<NodeId>,
}

/// What the votes for one hour say.
pub(crate) struct Tally {
    /// For each bucket the digest that more than half of all voters state, if there is one.
    pub(crate) digests: [Option<BucketDigest>; BUCKETS],
    /// Whether more than half of all voters had no list before.
    pub(crate) is_first: bool,
}

impl Votes {
    pub(crate) fn new(descriptor: &Descriptor) -> Self {
        let roots = match descriptor.admission() {
            record::Admission::Open => Vec::new(),
            record::Admission::Vouched { roots, .. } => roots.clone(),
        };
        Self {
            voters: descriptor.voters().to_vec(),
            held: BTreeMap::new(),
            retirements: BTreeMap::new(),
            roots,
        }
    }

    pub(crate) fn is_voter(&self, node: &NodeId) -> bool {
        self.voters.binary_search(node).is_ok()
    }

    /// Whether what is proven against a node is never forgotten: nobody vouches for it again.
    pub(crate) fn is_founder(&self, node: &NodeId) -> bool {
        self.is_voter(node) || self.roots.binary_search(node).is_ok()
    }

    /// Takes in a vote for one of the hours that are held.
    pub(crate) fn insert(
        &mut self,
        vote: &Arc<Vote>,
        hours: &RangeInclusive<Hour>,
    ) -> Result<(), Unwanted> {
        if !self.is_voter(&vote.voter()) {
            return Err(Unwanted::NoVoter);
        }
        if !hours.contains(&vote.hour()) {
            return Err(Unwanted::OtherHour);
        }
        match self.held.get(&(vote.hour(), vote.voter())) {
            Some(known) if known.hash() == vote.hash() => Err(Unwanted::Known),
            Some(known) => Err(Proof::of_votes(known, vote)
                .map_or(Unwanted::Known, |proof| Unwanted::Broken(Arc::new(proof)))),
            None => {
                self.held.insert((vote.hour(), vote.voter()), Arc::clone(vote));
                Ok(())
            }
        }
    }

    pub(crate) fn of(&self, hour: Hour, voter: &NodeId) -> Option<&Arc<Vote>> {
        self.held.get(&(hour, *voter))
    }

    /// Forgets the votes for hours before this one.
    pub(crate) fn forget_before(&mut self, oldest: Hour) -> Vec<StatementHash> {
        let lapsed = self.held.extract_if(.., |(hour, _), _| *hour < oldest);
        lapsed.map(|(_, vote)| vote.hash()).collect()
    }

    /// Takes in a voter's word that a voter or root counts no more; returns the one whose place it
    /// takes. Of several about one subject all nodes keep the same, whichever they heard first: that
    /// with the lowest hash.
    pub(crate) fn retire(&mut self, word: &Arc<Vouch>) -> Result<Option<Arc<Vouch>>, Unwanted> {
        let (voter, subject) = (word.voucher(), word.subject());
        if !self.is_voter(&voter) || !self.is_founder(&subject) {
            return Err(Unwanted::NoVoter);
        }
        match self.retirements.get(&(subject, voter)) {
            Some(known) if known.hash() == word.hash() => Err(Unwanted::Known),
            Some(known) if known.hash() < word.hash() => Err(Unwanted::Older),
            Some(_) | None => Ok(self.retirements.insert((subject, voter), Arc::clone(word))),
        }
    }

    /// The voters and roots that more than half of the other voters have retired. The word of a
    /// convicted voter counts for nothing.
    pub(crate) fn retired(&self, is_convicted: impl Fn(&NodeId) -> bool) -> BTreeSet<NodeId> {
        let subjects: BTreeSet<_> = self.retirements.keys().map(|(subject, _)| *subject).collect();
        let is_retired = |subject: &NodeId| {
            let others = self.voters.iter().filter(|voter| *voter != subject).count();
            let (first, last) = ([0; NodeId::LEN], [0xff; NodeId::LEN]);
            let (first, last) = (NodeId::from_bytes(first), NodeId::from_bytes(last));
            let said = self.retirements.range((*subject, first)..=(*subject, last));
            let said =
                said.filter(|((_, voter), word)| word.is_understood() && !is_convicted(voter));
            said.count() * 2 > others
        };
        subjects.into_iter().filter(is_retired).collect()
    }

    /// What the votes for an hour say, if more than half of all voters agree about any bucket.
    /// `counts` says whose vote counts; `retired` are no voters any more.
    pub(crate) fn tally(
        &self,
        hour: Hour,
        retired: &BTreeSet<NodeId>,
        counts: impl Fn(&NodeId) -> bool,
    ) -> Option<Tally> {
        let electorate = self.voters.iter().filter(|voter| !retired.contains(voter)).count();
        let votes: Vec<_> = self
            .voters
            .iter()
            .filter(|voter| !retired.contains(voter) && counts(voter))
            .filter_map(|voter| self.of(hour, voter))
            .collect();
        if votes.len() * 2 <= electorate {
            return None;
        }
        let digests = core::array::from_fn(|number| {
            let stated: Vec<_> =
                votes.iter().filter_map(|vote| vote.digests().get(number)).collect();
            let agree = |digest: &&&BucketDigest| {
                stated.iter().filter(|other| other == digest).count() * 2 > electorate
            };
            stated.iter().find(agree).map(|digest| **digest)
        });
        let first = votes.iter().filter(|vote| vote.before() == ListHash::NONE).count();
        let is_first = first * 2 > electorate;
        digests.iter().any(Option::is_some).then_some(Tally { digests, is_first })
    }

    /// The voters whose vote for an hour is not held.
    pub(crate) fn missing(
        &self,
        hour: Hour,
        retired: &BTreeSet<NodeId>,
    ) -> impl Iterator<Item = NodeId> {
        let voters = self.voters.iter().filter(|voter| !retired.contains(voter));
        voters.filter(move |voter| self.of(hour, voter).is_none()).copied()
    }

    /// A bit for each voter, in the descriptor's order, whose vote for an hour is held.
    pub(crate) fn held_bits(&self, hour: Hour) -> u32 {
        let held = |(number, voter): (u32, &NodeId)| {
            self.of(hour, voter).and_then(|_| 1_u32.checked_shl(number))
        };
        (0..).zip(&self.voters).filter_map(held).fold(0, |bits, bit| bits | bit)
    }
}

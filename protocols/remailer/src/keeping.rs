//! What this node has made and must keep before anything rests on it: the seeds of mix keys, its own
//! records, its votes.
//!
//! ```text
//!         Command::Keep...          handle_kept
//! made ----------------------> asked -----------> used, stated, announced
//!   ^                            |
//!   '----------------------------'
//!          handle_keep_failed: asked again later
//! ```
//!
//! A key that is stated and lost with a restart would be replaced by another, and a number or an
//! hour that was signed for and forgotten would be signed for again: proofs against their author.

use std::collections::BTreeMap;

use directory::HourList;
use keys::{Epoch, MixSeed};
use rand::CryptoRng;
use record::{Signed, Vote};

use crate::command::{Command, Out};
use crate::ids::KeepId;

/// What is being kept.
#[derive(Default)]
pub(crate) struct Keeping {
    /// A seed that could not be kept stays: an epoch has one, whether or not it got to the disk.
    seeds: BTreeMap<Epoch, (Option<KeepId>, MixSeed)>,
    own: Option<(KeepId, Box<Signed>)>,
    vote: Option<Ballot>,
}

/// A vote that was signed: there is never another for its hour.
struct Ballot {
    asked: Option<KeepId>,
    vote: Box<Vote>,
    list: Box<HourList>,
}

/// What has become durable.
pub(crate) enum Durable {
    Seed(Epoch, MixSeed),
    Own(Box<Signed>),
    Vote(Box<Vote>, Box<HourList>),
}

/// What could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    Seed,
    /// The record with this number: it is not signed with again.
    Own(u64),
    Vote,
}

impl Keeping {
    /// Whether a record has to wait for what is being kept.
    pub(crate) fn holds_up_records(&self) -> bool {
        self.own.is_some() || self.seeds.values().any(|(asked, _)| asked.is_some())
    }

    /// Makes the seed of an epoch's key, or asks again for it to be kept.
    pub(crate) fn seed(&mut self, epoch: Epoch, rng: &mut impl CryptoRng, out: &mut Out) {
        let (asked, seed) =
            self.seeds.entry(epoch).or_insert_with(|| (None, MixSeed::generate(rng)));
        if asked.is_none() {
            let id = out.keep_id();
            *asked = Some(id);
            out.push(Command::KeepSeed(id, epoch, MixSeed::from_bytes(seed.as_bytes())));
        }
    }

    /// Forgets the seeds of epochs that get no key: those before this one, and one that was given
    /// up.
    pub(crate) fn forget_seeds(&mut self, gone: impl Fn(Epoch) -> bool) {
        self.seeds.retain(|epoch, _| !gone(*epoch));
    }

    pub(crate) fn own(&mut self, signed: Box<Signed>, out: &mut Out) {
        let id = out.keep_id();
        out.push(Command::KeepOwn(id, signed.peek().octets().to_vec()));
        self.own = Some((id, signed));
    }

    /// Whether a vote waits.
    pub(crate) fn holds_a_vote(&self) -> bool {
        self.vote.is_some()
    }

    pub(crate) fn vote(&mut self, vote: Box<Vote>, list: HourList, out: &mut Out) {
        self.vote = Some(Ballot { asked: None, vote, list: Box::new(list) });
        self.ask_for_vote(out);
    }

    /// Asks again for a vote to be kept that could not be.
    pub(crate) fn ask_for_vote(&mut self, out: &mut Out) {
        if let Some(ballot) = &mut self.vote
            && ballot.asked.is_none()
        {
            let id = out.keep_id();
            ballot.asked = Some(id);
            out.push(Command::KeepVote(id, ballot.vote.octets().to_vec()));
        }
    }

    /// Gives up a vote for an hour that is over.
    pub(crate) fn forget_votes(&mut self, over: impl FnOnce(&Vote) -> bool) {
        self.vote.take_if(|ballot| over(&ballot.vote));
    }

    /// Takes what was kept under this name out; `None` if the name is of something else.
    pub(crate) fn handle_kept(&mut self, id: KeepId) -> Option<Durable> {
        let is_asked = |asked: &Option<KeepId>| *asked == Some(id);
        if let Some(epoch) = self.epoch_of(id) {
            return self.seeds.remove(&epoch).map(|(_, seed)| Durable::Seed(epoch, seed));
        }
        if let Some((_, own)) = self.own.take_if(|(asked, _)| *asked == id) {
            return Some(Durable::Own(own));
        }
        let ballot = self.vote.take_if(|ballot| is_asked(&ballot.asked))?;
        Some(Durable::Vote(ballot.vote, ballot.list))
    }

    /// Notes that what was asked for under this name is not kept; `None` if the name is of
    /// something else.
    pub(crate) fn handle_failed(&mut self, id: KeepId) -> Option<Failed> {
        if let Some(epoch) = self.epoch_of(id) {
            if let Some((asked, _)) = self.seeds.get_mut(&epoch) {
                *asked = None;
            }
            return Some(Failed::Seed);
        }
        if let Some((_, own)) = self.own.take_if(|(asked, _)| *asked == id) {
            return Some(Failed::Own(own.sequence()));
        }
        let ballot = self.vote.as_mut().filter(|ballot| ballot.asked == Some(id))?;
        ballot.asked = None;
        Some(Failed::Vote)
    }

    fn epoch_of(&self, id: KeepId) -> Option<Epoch> {
        let mut asked = self.seeds.iter().filter(|(_, (asked, _))| *asked == Some(id));
        asked.next().map(|(epoch, _)| *epoch)
    }
}

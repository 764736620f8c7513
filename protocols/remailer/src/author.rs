//! A node's own statements: when they are made, and what they say.
//!
//! ```text
//!          one peer answered               published
//! New -----------------------> Ready ------------------> Publishing
//!                                ^                            |
//! Waiting -----------------------'                            | another record of its own is heard
//!          its witnesses have answered                        v
//!                                                           Rival
//! ```
//!
//! A node that may have published something that it does not remember waits: a record below one
//! that peers hold would be ignored, and two records with one number are a proof against their
//! author.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use directory::HourList;
use keys::{
    Epoch, Hour, Identity, MixPublic, MixSecret, MixSeed, NetworkId, NodeId, Schedule, Time,
};
use rand::{CryptoRng, RngExt as _};
use record::{
    Capacity, Draft, Extension, Features, ListHash, ListSketch, Signed, StatementHash, VoteDraft,
    VouchDraft, VouchRole, Word,
};
use sphinx::EpochKey;

use crate::count::NotPublished;
use crate::exit::ExitOffer;
use crate::invite::Invites;
use crate::keeping::Keeping;
use crate::setup::InvitesKept;
use crate::traffic::Carried;

/// How far record numbers jump when a node starts again: all that it published and has forgotten
/// since, and all that a copy of it published, has lower numbers.
const JUMP: u64 = 1 << 20;
/// For how many epochs this node's word about another holds: 30 days. It is renewed at half of
/// that.
const VOUCH_LIFE: u32 = 240;
/// All six kinds; stream 1, for peers without an address; mail fragments, acknowledgements and turning points.
const FEATURES: Features = Features { kinds: 0b11_1111, streams: 0b10, contents: 0b1110 };
/// How often in an hour what could not be kept is tried again.
const RETRIES: u32 = 60;
/// How soon a record is renewed after what it says has changed.
const SOON: Duration = Duration::from_millis(500);

/// The author of this node's statements.
pub(crate) struct Author {
    identity: Identity,
    network: NetworkId,
    schedule: Schedule,
    spacing: Duration,
    run_by: RunBy,
    numbers: Numbers,
    phase: Phase,
    reach: Reach,
    ballot: Ballot,
    /// Epochs whose key was given up; they never have another.
    withdrawn: BTreeSet<Epoch>,
    pub(crate) keeping: Keeping,
    pub(crate) invites: Invites,
}

/// What its records say of its operator, and on the operator's order.
#[derive(Default)]
struct RunBy {
    contact: String,
    family: Vec<NodeId>,
    is_leaving: bool,
}

/// The hours that this node votes for, if it is a voter.
#[derive(Default)]
struct Ballot {
    /// The next whose votes are to be looked at when they are due.
    next: Hour,
    /// The last that it has voted for.
    last: Option<Hour>,
    /// Before this, a proposal that was empty is not made again.
    again: Time,
}

/// Where the chain of this node's records has got to.
struct Numbers {
    sequence: u64,
    previous: StatementHash,
    /// How far the next number is above the last.
    step: u64,
    /// Before this, peers do not take another record.
    spaced: Time,
    /// When the next record is due.
    next: Time,
}

/// What has to happen before the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing was ever published. The first peer that answers ends the wait for the first record.
    New,
    /// Something was, or may have been, published. Nothing more is, however pressing, until enough
    /// witnesses have answered.
    Waiting,
    /// Only the time of the next record has to come.
    Ready,
    /// Only the time of the next record has to come; this node has published since it started.
    Publishing,
    /// Another node publishes with this identity: this one is silent for good.
    Rival,
}

/// Whether peers can reach this node. Before they can, no peer should be told to dial it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Reachable,
    Unreachable,
}

/// What a record of one's own says about its author's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnRecord {
    /// Nothing new.
    Known,
    /// It was published after anything that this node remembers: it was restored from a backup, or
    /// copied.
    Forgotten,
    /// It was published while this node was publishing: another runs with the same identity.
    Rival,
}

impl Author {
    pub(crate) fn new(
        identity: Identity,
        network: NetworkId,
        schedule: Schedule,
        spacing: Duration,
        invites: InvitesKept,
        first_record_at: Time,
    ) -> Self {
        Self {
            identity,
            network,
            schedule,
            spacing,
            run_by: RunBy::default(),
            numbers: Numbers {
                sequence: 0,
                previous: StatementHash::NONE,
                step: 1,
                spaced: Time::default(),
                next: first_record_at,
            },
            phase: Phase::New,
            reach: Reach::Unreachable,
            ballot: Ballot::default(),
            withdrawn: BTreeSet::new(),
            keeping: Keeping::default(),
            invites: Invites::new(invites),
        }
    }

    /// What its records say of its operator.
    pub(crate) fn run_by(&mut self, contact: String, family: Vec<NodeId>) {
        self.run_by = RunBy { contact, family, is_leaving: false };
    }

    /// Its records say from now on whether it is about to leave, and the next comes soon.
    pub(crate) fn set_leaving(&mut self, is_leaving: bool, now: Time) {
        if self.run_by.is_leaving != is_leaving {
            self.run_by.is_leaving = is_leaving;
            self.hasten(now);
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.identity.node()
    }

    /// Waits for witnesses: this node may have published before. A copy of it that ran until just now
    /// may have published a moment ago, which the witnesses need not know yet. So nothing is
    /// published for as long as two records have to be apart: by then it has been heard.
    pub(crate) fn wait(&mut self, now: Time) {
        self.phase = Phase::Waiting;
        self.numbers.step = JUMP;
        self.numbers.spaced = self.numbers.spaced.max(now.plus(self.spacing));
    }

    /// Whether peers are to be asked before this node publishes.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.phase, Phase::New | Phase::Waiting)
    }

    /// Whether nothing is published before witnesses have answered.
    pub(crate) fn awaits_witnesses(&self) -> bool {
        self.phase == Phase::Waiting
    }

    pub(crate) fn has_rival(&self) -> bool {
        self.phase == Phase::Rival
    }

    /// Notes that all that peers know was told by as many as can know of this node's last record.
    pub(crate) fn note_witnesses(&mut self, now: Time) {
        if self.waits() {
            self.phase = Phase::Ready;
            self.numbers.next = self.numbers.spaced.max(now);
        }
    }

    /// Notes that a peer has told all that it knows.
    pub(crate) fn note_witness(&mut self, now: Time) {
        if self.phase == Phase::New {
            self.note_witnesses(now);
        }
    }

    pub(crate) fn set_reach(&mut self, reach: Reach) {
        self.reach = reach;
    }

    /// When the next record is due; never for a node that cannot be reached, has a rival, or waits
    /// for witnesses or for its disk.
    pub(crate) fn next(&self) -> Option<Time> {
        let is_silent = matches!(self.phase, Phase::Rival | Phase::Waiting);
        let waits = is_silent || self.keeping.holds_up_records();
        let may = self.reach == Reach::Reachable && !waits;
        may.then_some(self.numbers.next)
    }

    /// Goes on after a record of this node, wherever it came from: above its number, and not sooner
    /// than peers take the next. A record dated ahead of the clock comes from a clock that was once
    /// wrong.
    pub(crate) fn resume(&mut self, own: &Signed, now: Time) -> OwnRecord {
        if own.sequence() <= self.numbers.sequence {
            return OwnRecord::Known;
        }
        self.follow(own, now);
        match self.phase {
            Phase::Publishing | Phase::Rival => {
                self.phase = Phase::Rival;
                OwnRecord::Rival
            }
            Phase::New | Phase::Waiting | Phase::Ready => OwnRecord::Forgotten,
        }
    }

    /// The clock jumped: what was planned is as far away as it was.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        let Numbers { spaced, next, .. } = &mut self.numbers;
        for at in [spaced, next, &mut self.ballot.again] {
            *at = at.shifted(millis);
        }
    }

    /// Notes that a record or a seed could not be kept: the next attempt comes in a minute of three
    /// hours, with another number.
    pub(crate) fn note_not_kept(&mut self, sequence: Option<u64>, now: Time) {
        let numbers = &mut self.numbers;
        numbers.sequence = numbers.sequence.max(sequence.unwrap_or_default());
        numbers.next = now.plus(self.schedule.hour() / RETRIES).max(numbers.spaced);
    }

    /// Whether a number was signed with, or is below one that was.
    pub(crate) fn has_used(&self, sequence: u64) -> bool {
        sequence <= self.numbers.sequence
    }

    /// Notes that the record signed last is kept and goes out; the next one follows it.
    pub(crate) fn note_published(&mut self, own: &Signed, now: Time) {
        self.follow(own, now);
        self.phase = Phase::Publishing;
        self.numbers.step = 1;
    }

    fn follow(&mut self, own: &Signed, now: Time) {
        let numbers = &mut self.numbers;
        numbers.sequence = own.sequence();
        numbers.previous = own.hash();
        numbers.step = JUMP;
        // A record dated ahead of the clock can have been taken by peers if it is so by no more
        // than they allow; two that are dated too close are a proof against their author.
        let dated = match self.schedule.may_be_dated(own.published_at(), now) {
            true => own.published_at(),
            false => now,
        };
        numbers.spaced = numbers.spaced.max(dated.plus(self.spacing));
        numbers.next = numbers.next.max(numbers.spaced);
    }

    /// The epochs whose keys a record of `now` states: this one and two ahead, and a third before
    /// the last hour of this one.
    pub(crate) fn epochs(&self, now: Time) -> impl Iterator<Item = Epoch> + use<> {
        let epoch = self.schedule.epoch_at(now);
        let ahead = if self.schedule.hour_of_epoch(now) == 0 { 2 } else { 3 };
        (0..=ahead).map(move |count| epoch.plus(count))
    }

    pub(crate) fn make_key(&self, epoch: Epoch, seed: &MixSeed) -> Arc<EpochKey> {
        Arc::new(EpochKey::new(self.node(), epoch, MixSecret::from_seed(seed)))
    }

    /// Gives up an epoch's key; returns whether it had not been given up before.
    pub(crate) fn withdraw(&mut self, epoch: Epoch) -> bool {
        self.keeping.forget_seeds(|of| of == epoch);
        self.withdrawn.insert(epoch)
    }

    pub(crate) fn has_withdrawn(&self, epoch: Epoch) -> bool {
        self.withdrawn.contains(&epoch)
    }

    pub(crate) fn forget_before(&mut self, oldest: Epoch) {
        self.withdrawn.retain(|epoch| *epoch >= oldest);
        self.keeping.forget_seeds(|epoch| epoch < oldest);
    }

    /// The next record's octets, and when to publish again: once an hour, at a random time in its
    /// first half, so that the record has settled when the votes for the next hour are signed.
    pub(crate) fn sign(
        &mut self,
        keys: Vec<(Epoch, MixPublic)>,
        (exit, carried): (Option<&ExitOffer>, Carried),
        list: (Hour, ListSketch),
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, NotPublished> {
        let hour_end = self.schedule.hour_end(self.schedule.hour_at(now));
        self.numbers.next =
            hour_end.plus(self.schedule.hour().mul_f64(rng.random_range(0.05..0.45)));
        let withdrawn = self.epochs(now).filter(|epoch| self.has_withdrawn(*epoch));
        let next = self.numbers.sequence.checked_add(self.numbers.step);
        let sequence = next.ok_or(NotPublished::LastNumber)?;
        let draft = Draft {
            sequence,
            // After a jump there may be records that this node does not know, of which one has the
            // same predecessor.
            previous: if self.numbers.step == 1 {
                self.numbers.previous
            } else {
                StatementHash::NONE
            },
            published_at: now,
            keys,
            withdrawn: withdrawn.collect(),
            exit: exit.map(|exit| exit.policy.clone()),
            contact: self.run_by.contact.clone(),
            family: self.run_by.family.clone(),
            traffic: carried.packets,
            delivered: carried.delivered,
            features: FEATURES,
            limits: Capacity::default(),
            list,
            extensions: self.run_by.is_leaving.then(Extension::leaving).into_iter().collect(),
        };
        draft.sign(&self.identity, &self.network).map_err(|_| NotPublished::NoKey)
    }

    /// Publishes within a moment, because what the record says has changed.
    pub(crate) fn hasten(&mut self, now: Time) {
        let soon = now.plus(SOON).max(self.numbers.spaced);
        self.numbers.next = soon;
    }

    /// This node's word about another, signed; a vouch that is renewed keeps the `since` it had.
    pub(crate) fn sign_word(
        &self,
        word: Word,
        subject: NodeId,
        since: Option<Time>,
        now: Time,
    ) -> Option<Vec<u8>> {
        let life = (self.schedule.hour() * 3).saturating_mul(VOUCH_LIFE);
        let draft = VouchDraft {
            word,
            subject,
            role: VouchRole::Exit,
            since: since.unwrap_or(now),
            issued_at: now,
            expires_at: match word {
                Word::Vouch | Word::Revocation => now.plus(life),
                Word::Retirement => VouchDraft::FOR_EVER,
            },
            extensions: Vec::new(),
        };
        draft.sign(&self.identity, &self.network).ok()
    }

    // Votes.

    /// The next hour to vote for. A voter says nothing of others before it has published itself.
    pub(crate) fn next_vote(&self) -> Option<Hour> {
        let may = self.reach == Reach::Reachable && self.phase == Phase::Publishing;
        may.then_some(self.ballot.next)
    }

    /// Whether this node has voted for no hour from this one on.
    pub(crate) fn may_vote(&self, hour: Hour) -> bool {
        self.ballot.last.is_none_or(|voted| voted < hour)
    }

    /// Whether it is time to make a proposal that may be empty, as the last one was.
    pub(crate) fn may_propose(&self, now: Time) -> bool {
        self.ballot.again <= now
    }

    /// Notes that a proposal was empty, or that a vote could not be kept: the next attempt comes in a
    /// minute of three hours, and not at every event until then.
    pub(crate) fn postpone_vote(&mut self, now: Time) {
        self.ballot.again = now.plus(self.schedule.hour() / RETRIES);
    }

    /// Notes that the votes for an hour were looked at when they were due.
    pub(crate) fn note_due(&mut self, hour: Hour) {
        self.ballot.next = self.ballot.next.max(hour.plus(1));
    }

    /// Notes that there is a vote of this node for an hour: there is never another.
    pub(crate) fn note_voted(&mut self, hour: Hour) {
        self.note_due(hour);
        self.ballot.last = self.ballot.last.max(Some(hour));
    }

    /// This node's vote for a list, signed.
    pub(crate) fn sign_vote(&self, list: &HourList, before: ListHash) -> Option<Vec<u8>> {
        let draft = VoteDraft { hour: list.hour(), before, digests: *list.digests() };
        draft.sign(&self.identity, &self.network).ok()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use record::{Parameters, Statement};

    use super::*;

    const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);
    const MINUTE: Duration = Duration::from_secs(60);

    fn author() -> (Author, Time) {
        let schedule = Parameters::main().schedule();
        let start = schedule.start(Epoch::new(165_000)).plus(MINUTE * 20);
        let identity = Identity::from_seed(&[1; 32]);
        let invites = InvitesKept::default();
        let first = start.plus(MINUTE);
        let mut author = Author::new(identity, NETWORK, schedule, MINUTE * 5, invites, first);
        author.set_reach(Reach::Reachable);
        (author, start)
    }

    fn sign(author: &mut Author, now: Time) -> Box<Signed> {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let stated = author.epochs(now).filter(|epoch| !author.has_withdrawn(*epoch));
        let keys = stated.map(|epoch| {
            let seed = MixSeed::generate(&mut ChaCha20Rng::seed_from_u64(epoch.number().into()));
            (epoch, MixSecret::from_seed(&seed).public().clone())
        });
        let keys = keys.collect();
        let octets =
            author.sign(keys, Default::default(), Default::default(), now, &mut rng).unwrap();
        match Statement::check(&octets, &NETWORK).unwrap() {
            Statement::Record(signed) => signed,
            Statement::Vouch(_) | Statement::Proof(_) | Statement::Vote(_) => {
                panic!("it signed a record")
            }
        }
    }

    #[test]
    fn a_new_node_counts_from_one_and_one_by_one() {
        let (mut author, start) = author();
        assert_eq!(author.next(), Some(start.plus(MINUTE)));
        author.note_witness(start);
        assert_eq!((author.next(), author.waits()), (Some(start), false), "one peer is enough");
        let first = sign(&mut author, start);
        assert_eq!((first.sequence(), first.peek().previous()), (1, StatementHash::NONE));
        author.note_published(&first, start);
        assert_eq!(author.resume(&first, start), OwnRecord::Known);
        let second = sign(&mut author, start.plus(MINUTE * 60));
        assert_eq!((second.sequence(), second.peek().previous()), (2, first.hash()));
        assert!(author.next() > Some(start.plus(MINUTE * 100)), "once an hour");
    }

    #[test]
    fn its_records_name_its_operator_and_no_key_that_was_given_up() {
        let (mut author, start) = author();
        let other = Identity::from_seed(&[2; 32]).node();
        author.run_by("ops@example.org".to_owned(), vec![other]);
        let epoch = Epoch::new(165_000);
        assert!(author.withdraw(epoch) && !author.withdraw(epoch));
        let signed = sign(&mut author, start);
        assert_eq!(signed.peek().contact(), "ops@example.org");
        author.forget_before(epoch);
        assert!(author.has_withdrawn(epoch));
        author.forget_before(epoch.plus(1));
        assert!(!author.has_withdrawn(epoch));
    }

    #[test]
    fn a_node_with_a_past_waits_and_jumps_whatever_is_pressing() {
        let (mut author, start) = author();
        author.wait(start);
        author.note_witness(start);
        author.hasten(start);
        assert!(author.awaits_witnesses());
        assert_eq!(author.next(), None, "one peer is not enough");
        author.note_witnesses(start.plus(MINUTE));
        assert_eq!(author.next(), Some(start.plus(MINUTE * 5)), "a copy may just have published");
        assert_eq!(sign(&mut author, start.plus(MINUTE * 5)).sequence(), JUMP);
        author.numbers.sequence = u64::MAX - 1;
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let signed =
            author.sign(Vec::new(), Default::default(), Default::default(), start, &mut rng);
        assert_eq!(signed.err(), Some(NotPublished::LastNumber));
    }

    #[test]
    fn a_record_that_it_forgot_is_followed_and_one_beside_it_silences_it() {
        let (mut before, start) = author();
        let own = sign(&mut before, start);
        let (mut after, _) = author();
        assert_eq!(after.resume(&own, start), OwnRecord::Forgotten);
        assert!(after.next() >= Some(start.plus(MINUTE * 5)), "peers take no other before");
        let next = sign(&mut after, start.plus(MINUTE * 5));
        assert_eq!((next.sequence(), next.peek().previous()), (1 + JUMP, StatementHash::NONE));

        before.note_published(&own, start);
        assert_eq!(before.resume(&next, start.plus(MINUTE * 6)), OwnRecord::Rival);
        assert!(before.has_rival() && before.next().is_none());
    }

    #[test]
    fn what_has_changed_is_said_soon_but_not_sooner_than_peers_take_it_or_reach_the_node() {
        let (mut author, start) = author();
        let own = sign(&mut author, start);
        author.note_published(&own, start);
        author.hasten(start.plus(MINUTE));
        assert_eq!(author.next(), Some(start.plus(MINUTE * 5)));
        author.hasten(start.plus(MINUTE * 6));
        assert_eq!(author.next(), Some(start.plus(MINUTE * 6).plus(SOON)));
        author.set_reach(Reach::Unreachable);
        assert_eq!(author.next(), None);
        author.set_reach(Reach::Reachable);
        assert!(author.next().is_some());
    }
}

//! What is heard and said: statements of others are taken in and judged, and this node's own are
//! made, taken in as any other, and announced.

use std::sync::Arc;

use directory::{Admitted, HourList, ItemId, Source, Unwanted};
use keys::{Epoch, MixSeed, NodeId, Time};
use rand::CryptoRng;
use record::{Admission, Proof, Signed, Statement, StatementError, Vote, Vouch, Word};

use crate::answer::NotDone;
use crate::author::{Author, OwnRecord};
use crate::command::{Command, Out};
use crate::count::{Count, NotPublished, NotTaken};
use crate::exit::ExitOffer;
use crate::ids::KeepId;
use crate::keeping::{Durable, Failed};
use crate::links;
use crate::outlook::Outlook;
use crate::relay::Relay;
use crate::traffic::Carried;

/// Epochs that are looked at for keys that were stated and lost: two days and a half.
const LOST_EPOCHS: u32 = 20;

/// What gossip is told about a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is new and good: pass it on.
    Accept,
    /// It is not to be passed on, and its sender is not to blame.
    Ignore,
    /// No honest peer passes this on.
    Reject,
}

impl Judgement {
    /// What gossip is told about octets that are no statement that may be used.
    #[must_use]
    pub fn of(why: StatementError) -> Self {
        match why {
            // A clock apart from ours, or a later version, is no fault of the peer that passes it
            // on.
            StatementError::Future | StatementError::Stale | StatementError::Unknown => {
                Self::Ignore
            }
            StatementError::TooLong
            | StatementError::Malformed
            | StatementError::NotCanonical
            | StatementError::OtherNetwork
            | StatementError::BadSignature
            | StatementError::BadKey => Self::Reject,
        }
    }
}

/// Why a statement was not taken in.
pub(crate) enum Rejected {
    Statement(StatementError),
    Unwanted(Unwanted),
}

impl From<StatementError> for Rejected {
    fn from(why: StatementError) -> Self {
        Self::Statement(why)
    }
}

impl From<Unwanted> for Rejected {
    fn from(why: Unwanted) -> Self {
        Self::Unwanted(why)
    }
}

impl From<&Rejected> for NotTaken {
    fn from(why: &Rejected) -> Self {
        match why {
            Rejected::Statement(why) => Self::Bad(*why),
            Rejected::Unwanted(why) => why.into(),
        }
    }
}

/// The parts of a node that a statement concerns, at one moment.
pub(crate) struct Hearing<'a, R> {
    pub(crate) outlook: &'a mut Outlook,
    pub(crate) author: &'a mut Author,
    pub(crate) relay: Option<&'a mut Relay>,
    pub(crate) out: &'a mut Out,
    pub(crate) now: Time,
    pub(crate) rng: &'a mut R,
}

impl<R: CryptoRng> Hearing<'_, R> {
    /// Takes a gossiped statement that [`Statement::check`] looked at, and says what is to become
    /// of it.
    pub(crate) fn handle_gossip(
        &mut self,
        checked: Result<Statement, StatementError>,
    ) -> Judgement {
        let octets = checked.as_ref().ok().map(|statement| Arc::clone(statement.octets()));
        let taken = checked.map_err(Rejected::from);
        let taken = taken.and_then(|statement| self.take(statement, Source::Gossip));
        // What a catch-up brought first is still passed on when gossip brings it, once.
        match self.judge(taken) {
            Judgement::Accept | Judgement::Ignore => match octets {
                Some(octets) if self.outlook.directory.pass_on(&octets) => Judgement::Accept,
                Some(_) | None => Judgement::Ignore,
            },
            Judgement::Reject => Judgement::Reject,
        }
    }

    /// What a peer that sent a statement deserves, by what became of it. Counts what was not taken
    /// in.
    pub(crate) fn judge(&mut self, taken: Result<(), Rejected>) -> Judgement {
        let Err(why) = taken else { return Judgement::Accept };
        if !matches!(why, Rejected::Unwanted(Unwanted::Known)) {
            self.out.count(Count::StatementRefused(NotTaken::from(&why)));
        }
        match why {
            Rejected::Statement(why) => Judgement::of(why),
            Rejected::Unwanted(Unwanted::NoVoter) => Judgement::Reject,
            Rejected::Unwanted(_) => Judgement::Ignore,
        }
    }

    /// Takes in a statement of whatever kind.
    pub(crate) fn take(&mut self, statement: Statement, source: Source) -> Result<(), Rejected> {
        let schedule = *self.outlook.schedule();
        match statement {
            Statement::Record(signed) => self.take_record(*signed, source),
            Statement::Vouch(signed) => {
                let life = self.outlook.parameters().bounds.word_epochs;
                let vouch = signed.timely(self.now, &schedule, life)?;
                // A retirement is as good today as it was when it was said.
                if vouch.word() != Word::Retirement {
                    self.check_late(vouch.issued_at(), source)?;
                }
                let vouch = self.outlook.directory.note_word(vouch, source, self.now)?;
                self.out.count(Count::WordTaken);
                self.outlook.keep(vouch.octets(), self.out);
                Ok(())
            }
            Statement::Proof(proof) => {
                proof.timely(self.now, &schedule, self.outlook.directory.spacing())?;
                if !self.outlook.directory.concerns(&proof, self.now) {
                    return Err(StatementError::Stale.into());
                }
                let proof = Arc::from(proof);
                self.outlook.directory.convict(Arc::clone(&proof))?;
                self.out.count(Count::ProofTaken);
                self.outlook.keep(proof.octets(), self.out);
                Ok(())
            }
            Statement::Vote(vote) => self.take_vote(*vote),
        }
    }

    fn take_vote(&mut self, vote: Vote) -> Result<(), Rejected> {
        if vote.voter() == self.outlook.node() {
            // Whatever this node remembers: it votes once for an hour.
            self.author.note_voted(vote.hour());
        }
        match self.outlook.directory.note_vote(vote, self.now) {
            Ok(vote) => {
                self.out.count(Count::VoteTaken);
                self.outlook.keep(vote.octets(), self.out);
                Ok(())
            }
            Err(Unwanted::Broken(proof)) => {
                self.make_proof(&proof);
                Err(Unwanted::Broken(proof).into())
            }
            Err(why) => Err(why.into()),
        }
    }

    fn take_record(&mut self, signed: Signed, source: Source) -> Result<(), Rejected> {
        let schedule = *self.outlook.schedule();
        if signed.node() == self.outlook.node() {
            // Whatever becomes of it: what was signed with a number is never signed again.
            match self.author.resume(&signed, self.now) {
                OwnRecord::Known => {}
                OwnRecord::Forgotten | OwnRecord::Rival => self.give_up_keys(&signed),
            }
        }
        let record = signed.timely(self.now, &schedule)?;
        self.check_late(record.published_at(), source)?;
        let octets = Arc::clone(record.octets());
        let admitted = self.outlook.directory.admit(record, source, self.now);
        self.outlook.forget(self.out);
        let (admitted, record) = match admitted {
            Ok(admitted) => admitted,
            Err(Unwanted::Broken(proof)) => {
                // The list may name it all the same.
                if self.outlook.directory.holds(&ItemId::of(&octets)) {
                    self.outlook.keep(&octets, self.out);
                }
                self.make_proof(&proof);
                return Err(Unwanted::Broken(proof).into());
            }
            Err(why) => return Err(why.into()),
        };
        if record.node() != self.outlook.node() {
            self.out.count(Count::RecordTaken);
            if admitted == Admitted::Newcomer {
                links::want_newcomer(
                    record.node(),
                    self.outlook.view().map(AsRef::as_ref),
                    self.out,
                );
            }
        }
        self.outlook.keep(record.octets(), self.out);
        Ok(())
    }

    /// Keeps and announces a proof that was made here.
    fn make_proof(&mut self, proof: &Arc<Proof>) {
        if self.outlook.directory.convict(Arc::clone(proof)).is_ok() {
            self.out.count(Count::ProofMade);
            self.outlook.keep(proof.octets(), self.out);
            self.outlook.directory.pass_on(proof.octets());
            self.out.push(Command::Announce(proof.octets().to_vec()));
        }
    }

    /// What counts for an hour has to be everywhere when its votes are signed: gossip does not help
    /// a statement that was held back to reach some voters before that and others after it.
    fn check_late(&self, dated: Time, source: Source) -> Result<(), Unwanted> {
        let is_late = self.outlook.directory.is_late(dated, self.now);
        if is_late && source == Source::Gossip { Err(Unwanted::Late) } else { Ok(()) }
    }

    // Keys that are given up.

    /// Gives up keys for a record of this node's own that it does not remember: it may have opened
    /// packets that it does not remember either, so that its keys of those epochs cannot be trusted
    /// to refuse a replay. Keys that the record states and this node never had must not be made
    /// anew: an epoch has one key, ever.
    fn give_up_keys(&mut self, own: &Signed) {
        let schedule = *self.outlook.schedule();
        let stated = own.peek().keys().map(|(epoch, key)| (epoch, Some(key.clone())));
        let oldest = schedule.oldest_held(self.now);
        // The keys accepted now are given up too, whether the record states them or not.
        let accepted = (0..=2).map(|ahead| oldest.plus(ahead));
        let accepted = accepted.filter(|epoch| schedule.accepts(*epoch, self.now));
        let accepted = accepted.map(|epoch| (epoch, None));
        let stated: Vec<_> = stated.chain(accepted).collect();
        for (epoch, key) in stated.into_iter().filter(|(epoch, _)| *epoch >= oldest) {
            let is_unused = !schedule.accepts(epoch, self.now);
            let is_same = |held: &sphinx::EpochKey| key.as_ref() == Some(held.public());
            let is_kept = self.key(epoch).is_some_and(|held| is_unused && is_same(held));
            if !is_kept {
                self.withdraw(epoch);
            }
        }
        self.author.hasten(self.now);
    }

    /// Gives up epochs that this node has stated a key for and has no key of, destroyed or lost: a
    /// clock that was set back must not make another.
    pub(crate) fn give_up_lost_keys(&mut self, own: &Signed) {
        let (_, last) = own.peek().span();
        let first = self.outlook.schedule().oldest_held(self.now);
        // A record speaks of four epochs; a clock far behind makes no keys that anybody takes.
        let stated = (0..LOST_EPOCHS).map(|ahead| first.plus(ahead)).filter(|epoch| *epoch <= last);
        for epoch in stated {
            if self.key(epoch).is_none() || own.peek().withdraws(epoch) {
                self.withdraw(epoch);
            }
        }
    }

    fn key(&self, epoch: Epoch) -> Option<&sphinx::EpochKey> {
        self.relay.as_ref()?.key(epoch).map(AsRef::as_ref)
    }

    fn withdraw(&mut self, epoch: Epoch) {
        if self.author.withdraw(epoch) {
            if let Some(relay) = &mut self.relay {
                relay.withdraw(epoch);
                relay.offer_keys(self.now, self.out);
            }
            self.out.count(Count::KeyWithdrawn);
            self.out.push(Command::WithdrawSeed(epoch));
        }
    }

    // Own statements.

    /// Publishes a record: its keys are kept first, then the record itself, then it is announced.
    /// What has to be kept lets it go on with [`Hearing::handle_kept`].
    pub(crate) fn publish(&mut self, exit: Option<&ExitOffer>, carried: Carried) {
        let mut keys = Vec::new();
        for epoch in self.author.epochs(self.now) {
            match self.key(epoch) {
                Some(key) => keys.push((epoch, key.public().clone())),
                None if self.author.has_withdrawn(epoch) => {}
                None => self.author.keeping.seed(epoch, self.rng, self.out),
            }
        }
        if self.author.keeping.holds_up_records() {
            return;
        }
        let list = self.outlook.directory.list_in_use();
        let signed = self.author.sign(keys, (exit, carried), list, self.now, self.rng);
        let octets = match signed {
            Ok(octets) => octets,
            Err(why) => return self.out.count(Count::OwnRecordRefused(why)),
        };
        let network = self.outlook.descriptor().id();
        if let Ok(Statement::Record(signed)) = Statement::check(&octets, &network) {
            self.author.keeping.own(signed, self.out);
        }
    }

    /// Goes on with what has become durable. Returns whether it was something of the author's.
    pub(crate) fn handle_kept(&mut self, id: KeepId) -> bool {
        match self.author.keeping.handle_kept(id) {
            None => return false,
            Some(Durable::Seed(epoch, seed)) => self.take_key(epoch, &seed),
            Some(Durable::Own(own)) => self.announce_own(own),
            Some(Durable::Vote(vote, list)) => self.announce_vote(*vote, *list),
        }
        true
    }

    /// Tries again later what could not be kept.
    pub(crate) fn handle_keep_failed(&mut self, id: KeepId) {
        match self.author.keeping.handle_failed(id) {
            None => {}
            Some(Failed::Seed) => {
                self.out.count(Count::OwnRecordRefused(NotPublished::NotKept));
                self.author.note_not_kept(None, self.now);
            }
            Some(Failed::Own(sequence)) => {
                self.out.count(Count::OwnRecordRefused(NotPublished::NotKept));
                self.author.note_not_kept(Some(sequence), self.now);
            }
            Some(Failed::Vote) => self.author.postpone_vote(self.now),
        }
    }

    fn take_key(&mut self, epoch: Epoch, seed: &MixSeed) {
        if let Some(relay) = &mut self.relay
            && relay.key(epoch).is_none()
        {
            relay.insert_key(self.author.make_key(epoch, seed), Default::default());
            relay.offer_keys(self.now, self.out);
        }
    }

    /// Taken in as any other, and announced, unless a later one of this node was heard meanwhile.
    fn announce_own(&mut self, own: Box<Signed>) {
        if self.author.has_used(own.sequence()) {
            return self.author.hasten(self.now);
        }
        let octets = own.peek().octets().to_vec();
        self.author.note_published(&own, self.now);
        match self.take_record(*own, Source::Own) {
            Ok(()) => {
                self.outlook.directory.pass_on(&octets);
                self.out.count(Count::RecordPublished);
                self.out.push(Command::Announce(octets));
            }
            Err(why) => {
                let why = NotPublished::NotTaken(NotTaken::from(&why));
                self.out.count(Count::OwnRecordRefused(why));
            }
        }
        self.renew_vouches();
    }

    fn announce_vote(&mut self, vote: Vote, list: HourList) {
        let octets = vote.octets().to_vec();
        self.outlook.directory.note_voted(list);
        if self.take_vote(vote).is_ok() {
            self.outlook.directory.pass_on(&octets);
            self.out.count(Count::VotePublished);
            self.out.push(Command::Announce(octets));
        }
    }

    /// Votes for what has fallen due: for the coming hour, for the present one if it has no list
    /// yet although there was one before, or at once in a network just started.
    pub(crate) fn vote(&mut self) {
        let present = self.outlook.schedule().hour_at(self.now);
        self.author.keeping.forget_votes(|vote| vote.hour() < present);
        if self.author.keeping.holds_a_vote() {
            if self.author.may_propose(self.now) {
                self.author.keeping.ask_for_vote(self.out);
            }
            return;
        }
        let Some(next) = self.author.next_vote() else { return };
        let directory = &self.outlook.directory;
        let node = self.outlook.node();
        if !directory.is_voter(&node) {
            return;
        }
        let coming = present.plus(1);
        let first = usize::from(self.outlook.parameters().lists.first);
        let is_missing = self.author.may_vote(present) && self.author.may_propose(self.now);
        let for_present = match directory.list() {
            _ if !is_missing => None,
            _ if directory.may_begin(self.now) && directory.len() >= first => {
                Some(directory.propose_first(present))
            }
            Some(list) if list.hour() < present => Some(directory.propose(present)),
            Some(_) | None => None,
        };
        let is_due = next <= coming && directory.votes_at(coming) <= self.now;
        // A voter that knows nobody yet has nothing to say.
        let list = match for_present {
            Some(list) if !list.is_empty() => list,
            empty => {
                if empty.is_some() {
                    self.author.postpone_vote(self.now);
                }
                if !is_due || !self.author.may_vote(coming) {
                    return;
                }
                let list = directory.propose(coming);
                if list.is_empty() {
                    return self.author.note_due(coming);
                }
                list
            }
        };
        let signed = self.author.sign_vote(&list, directory.list_hash());
        self.author.note_voted(list.hour());
        let network = self.outlook.descriptor().id();
        let checked = signed.map(|octets| Statement::check(&octets, &network));
        if let Some(Ok(Statement::Vote(vote))) = checked {
            self.author.keeping.vote(vote, list, self.out);
        }
    }

    /// Vouches for a node, or renews the vouch.
    pub(crate) fn vouch(&mut self, subject: NodeId) -> Result<(), NotDone> {
        let (directory, node) = (&self.outlook.directory, self.outlook.node());
        let own = || directory.vouches_by(&node);
        let before = own().find(|vouch| vouch.subject() == subject);
        let most = match self.outlook.descriptor().admission() {
            Admission::Open => 0,
            Admission::Vouched { fan_out, .. } => usize::from(*fan_out),
        };
        if before.is_none() && directory.may_vouch(&node) && own().count() >= most {
            return Err(NotDone::TooManyVouches);
        }
        // A node that broke its word begins again.
        let since = before.filter(|vouch| self.is_sound(vouch));
        let since = since.map(|vouch| vouch.since());
        self.speak(Word::Vouch, subject, since)
    }

    /// Takes a vouch back.
    pub(crate) fn unvouch(&mut self, subject: NodeId) -> Result<(), NotDone> {
        if !self.vouches_for(&subject) {
            return Err(NotDone::NoVouch);
        }
        self.speak(Word::Revocation, subject, None)
    }

    /// Says that a voter or root is to count no more.
    pub(crate) fn retire(&mut self, subject: NodeId) -> Result<(), NotDone> {
        self.speak(Word::Retirement, subject, None)
    }

    /// Whether this node vouches for another.
    pub(crate) fn vouches_for(&self, subject: &NodeId) -> bool {
        let node = self.outlook.node();
        let mut own = self.outlook.directory.vouches_by(&node);
        own.any(|vouch| vouch.subject() == *subject)
    }

    fn speak(&mut self, word: Word, subject: NodeId, since: Option<Time>) -> Result<(), NotDone> {
        let signed = self.author.sign_word(word, subject, since, self.now);
        let octets = signed.ok_or(NotDone::NotTaken)?;
        let network = self.outlook.descriptor().id();
        let statement = Statement::check(&octets, &network).map_err(|_| NotDone::NotTaken)?;
        match self.take(statement, Source::Own) {
            Ok(()) => {
                self.outlook.directory.pass_on(&octets);
                self.out.push(Command::Announce(octets));
                Ok(())
            }
            Err(Rejected::Unwanted(why)) => Err(NotDone::from(&why)),
            Err(Rejected::Statement(_)) => Err(NotDone::NotTaken),
        }
    }

    /// Whether nothing has become known against its subject since: a person has to know what the
    /// subject did before it is vouched for again.
    fn is_sound(&self, vouch: &Vouch) -> bool {
        let broke = self.outlook.directory.broke(&vouch.subject());
        broke.is_none_or(|dated| vouch.issued_at() > dated)
    }

    /// Renews this node's vouches at half of their time.
    fn renew_vouches(&mut self) {
        let node = self.outlook.node();
        let own = self.outlook.directory.vouches_by(&node);
        let due = own.filter(|vouch| {
            let life = vouch.expires_at().since(vouch.issued_at());
            vouch.issued_at().plus(life / 2) <= self.now && self.is_sound(vouch)
        });
        let due: Vec<_> = due.map(|vouch| (vouch.subject(), vouch.since())).collect();
        for (subject, since) in due {
            if self.speak(Word::Vouch, subject, Some(since)).is_err() {
                self.out.count(Count::VouchNotRenewed);
            }
        }
    }
}

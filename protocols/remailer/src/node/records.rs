//! Statements: what is heard of others, and what is said of oneself.

use std::sync::Arc;

use directory::{Admitted, Brought, ItemId, Unwanted};
use keys::{Epoch, MixSeed, NodeId, Time};
use rand::CryptoRng;
use record::{Admission, RecordError, Signed, Statement, Vouch, Word};

use super::{Command, Remailer};
use crate::publish::{Own, Publisher};

/// Epochs that are looked at for keys that were stated and lost: two days and a half.
const LOST_EPOCHS: u32 = 20;

/// What gossip is told about a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// New and good: pass it on.
    Accept,
    /// Not to be passed on; no fault of who sent it.
    Ignore,
    /// No honest peer passes this on.
    Reject,
}

impl Judgement {
    /// What gossip is told about a statement that is none.
    #[must_use]
    pub fn of(why: RecordError) -> Self {
        match why {
            // A clock apart from ours, or a later version, is no fault of who passes it on.
            RecordError::Future | RecordError::Stale | RecordError::Unknown => Self::Ignore,
            RecordError::TooLong
            | RecordError::Malformed
            | RecordError::NotCanonical
            | RecordError::OtherNetwork
            | RecordError::BadSignature
            | RecordError::BadKey => Self::Reject,
        }
    }
}

pub(super) enum Rejected {
    Statement(RecordError),
    Unwanted(Unwanted),
}

impl From<RecordError> for Rejected {
    fn from(why: RecordError) -> Self {
        Self::Statement(why)
    }
}

impl From<Unwanted> for Rejected {
    fn from(why: Unwanted) -> Self {
        Self::Unwanted(why)
    }
}

impl Remailer {
    /// Takes a gossiped statement that [`Statement::check`] looked at, and says what is to become of it.
    pub fn handle_statement(
        &mut self,
        checked: Result<Statement, RecordError>,
        now: Time,
    ) -> Judgement {
        let octets = checked.as_ref().ok().map(|statement| Arc::clone(statement.octets()));
        let taken = checked.map_err(Rejected::from);
        let taken = taken.and_then(|statement| self.take(statement, now, Brought::ByGossip));
        // What a catch-up brought first is still passed on when gossip brings it, once.
        match self.judge(taken) {
            Judgement::Accept | Judgement::Ignore => match octets {
                Some(octets) if self.directory.pass_on(&octets) => Judgement::Accept,
                Some(_) | None => Judgement::Ignore,
            },
            Judgement::Reject => Judgement::Reject,
        }
    }

    pub(super) fn judge(&mut self, taken: Result<(), Rejected>) -> Judgement {
        match taken {
            Ok(()) => Judgement::Accept,
            Err(Rejected::Statement(why)) => {
                self.counts.add(&format!("record refused: {why}"));
                Judgement::of(why)
            }
            Err(Rejected::Unwanted(Unwanted::Known)) => Judgement::Ignore,
            Err(Rejected::Unwanted(why)) => {
                self.counts.add(&format!("record refused: {why}"));
                Judgement::Ignore
            }
        }
    }

    /// Takes in a statement of whatever kind.
    pub(super) fn take(
        &mut self,
        statement: Statement,
        now: Time,
        brought: Brought,
    ) -> Result<(), Rejected> {
        match statement {
            Statement::Record(signed) => self.take_record(*signed, now, brought),
            Statement::Vouch(signed) => {
                let vouch = signed.timely(now, &self.schedule)?;
                self.check_late(vouch.issued_at(), now, brought)?;
                let vouch = self.directory.note_word(vouch, brought)?;
                self.counts.add("word taken");
                self.keep(vouch.octets());
                Ok(())
            }
            Statement::Proof(proof) => {
                proof.timely(now, &self.schedule)?;
                if !self.directory.concerns(&proof, now) {
                    return Err(RecordError::Stale.into());
                }
                let proof = Arc::from(proof);
                self.directory.convict(Arc::clone(&proof))?;
                self.counts.add("proof taken");
                self.keep(proof.octets());
                self.leave_out(now);
                Ok(())
            }
        }
    }

    fn take_record(&mut self, signed: Signed, now: Time, brought: Brought) -> Result<(), Rejected> {
        if signed.node() == self.node {
            // Whatever becomes of it: what was signed with a number is never signed again.
            match self.publisher.resume(&signed, now, &self.schedule) {
                Own::Known => {}
                Own::Forgotten => self.give_up_keys(&signed, now),
                Own::Rival => {
                    self.has_rival = true;
                    self.give_up_keys(&signed, now);
                }
            }
        }
        let record = signed.timely(now, &self.schedule)?;
        self.check_late(record.published_at(), now, brought)?;
        let admitted = self.directory.admit(record, brought);
        self.forget();
        let (admitted, record) = match admitted {
            Ok(admitted) => admitted,
            Err(Unwanted::Broken(proof)) => {
                if self.directory.convict(Arc::clone(&proof)).is_ok() {
                    self.counts.add("proof made");
                    self.keep(proof.octets());
                    self.directory.pass_on(proof.octets());
                    self.commands.push_back(Command::Announce(proof.octets().to_vec()));
                    self.leave_out(now);
                }
                return Err(Unwanted::Broken(proof).into());
            }
            Err(why) => return Err(why.into()),
        };
        if record.node() != self.node {
            self.counts.add("record taken");
            if admitted == Admitted::Newcomer {
                self.commands.push_back(Command::Link(record.node()));
            }
        }
        self.keep(record.octets());
        if self.view.as_ref().is_some_and(|view| view.get(&record.node()).is_some())
            && record.withdraws(self.schedule.epoch_at(now))
        {
            self.leave_out(now);
        }
        self.take_first_view(now);
        Ok(())
    }

    /// What settles for the hour has to be everywhere by then. Who holds a statement back, to have it arrive at
    /// some before the hour and at others after it, is not helped by gossip.
    fn check_late(&self, dated: Time, now: Time, brought: Brought) -> Result<(), Unwanted> {
        // Clocks differ by no more than statements may be ahead.
        let is_late = now.since(dated) > self.parameters().settle / 2 + self.parameters().early;
        if is_late && brought == Brought::ByGossip { Err(Unwanted::Late) } else { Ok(()) }
    }

    fn keep(&mut self, octets: &Arc<[u8]>) {
        let name = ItemId::of(octets);
        self.commands.push_back(Command::KeepStatement(name, Arc::clone(octets)));
        self.forget();
    }

    /// What the directory holds no more is not kept either.
    pub(super) fn forget(&mut self) {
        let names = self.directory.take_forgotten();
        if !names.is_empty() {
            self.commands.push_back(Command::ForgetStatements(names));
        }
    }

    /// A record of one's own that this node does not remember: it may have opened packets that it does not
    /// remember either, and its keys of those epochs are not to be trusted to refuse a replay. Keys that the
    /// record states and this node never had, it must not make anew: one key for one epoch, ever.
    fn give_up_keys(&mut self, own: &Signed, now: Time) {
        let stated = own.peek().keys().map(|(epoch, key)| (epoch, Some(key.clone())));
        let oldest = self.schedule.oldest_held(now);
        // And, whether it states them or not, those that are accepted now.
        let accepted = (0..=2).map(|ahead| oldest.plus(ahead));
        let accepted = accepted.filter(|epoch| self.schedule.accepts(*epoch, now));
        let accepted = accepted.map(|epoch| (epoch, None));
        let stated: Vec<_> = stated.chain(accepted).collect();
        for (epoch, key) in stated.into_iter().filter(|(epoch, _)| *epoch >= oldest) {
            let is_unused = !self.schedule.accepts(epoch, now);
            let is_same = |held: &sphinx::EpochKey| key.as_ref() == Some(held.public());
            let is_kept = self.mix.key(epoch).is_some_and(|held| is_unused && is_same(held));
            if !is_kept {
                self.withdraw(epoch);
            }
        }
        self.publisher.hasten(now);
    }

    /// Epochs that this node has stated a key for and has no key of: destroyed, or lost. A clock that was set
    /// back must not make another.
    pub(super) fn give_up_lost_keys(&mut self, own: &Signed, now: Time) {
        let (_, last) = own.peek().span();
        let first = self.schedule.oldest_held(now);
        // A record speaks of four epochs; a clock far behind makes no keys that anybody takes.
        let stated = (0..LOST_EPOCHS).map(|ahead| first.plus(ahead)).filter(|epoch| *epoch <= last);
        for epoch in stated {
            if self.mix.key(epoch).is_none() {
                self.withdraw(epoch);
            }
        }
    }

    pub(super) fn withdraw(&mut self, epoch: Epoch) {
        if !self.publisher.has_withdrawn(epoch) {
            self.mix.withdraw(epoch);
            self.publisher.withdraw(epoch);
            self.counts.add("key withdrawn");
            self.commands.push_back(Command::WithdrawSeed(epoch));
        }
    }

    pub(super) fn publish(&mut self, now: Time, rng: &mut impl CryptoRng) {
        let mut keys = Vec::new();
        for epoch in Publisher::epochs(&self.schedule, now) {
            if self.mix.key(epoch).is_none() && !self.publisher.has_withdrawn(epoch) {
                let seed = MixSeed::generate(rng);
                let key = self.publisher.make_key(epoch, &seed);
                self.mix.insert_key(key, Default::default());
                self.commands.push_back(Command::KeepSeed(epoch, seed));
            }
            if let Some(key) = self.mix.key(epoch) {
                keys.push((epoch, key.public().clone()));
            }
        }
        let digest = self.set_hash(now);
        let exit = self.exit.as_ref();
        let octets = self.publisher.publish(keys, exit, digest, &self.schedule, now, rng);
        let Some(octets) = octets else {
            self.counts.add("own record refused: no key");
            return;
        };
        match self.take_own(&octets, now) {
            Ok(()) => {
                self.counts.add("record published");
                self.commands.push_back(Command::Announce(octets));
            }
            Err(Rejected::Statement(why)) => {
                self.counts.add(&format!("own record refused: {why}"));
            }
            Err(Rejected::Unwanted(why)) => self.counts.add(&format!("own record refused: {why}")),
        }
        self.renew_vouches(now);
    }

    /// As anybody takes it, and kept before anybody hears of it: a number is never used twice.
    fn take_own(&mut self, octets: &[u8], now: Time) -> Result<(), Rejected> {
        let network = self.descriptor.id();
        if let Statement::Record(signed) = Statement::check(octets, &network)? {
            self.publisher.note_published(&signed, now, &self.schedule);
            self.commands.push_back(Command::KeepOwn(octets.to_vec()));
            self.take_record(*signed, now, Brought::ByOneself)?;
            self.directory.pass_on(octets);
        }
        Ok(())
    }

    // What this node says of others.

    /// Whether this node's word about others counts.
    #[must_use]
    pub fn may_vouch(&self) -> bool {
        self.directory.may_vouch(&self.node)
    }

    /// Whether this node vouches for another.
    #[must_use]
    pub fn vouches_for(&self, subject: &NodeId) -> bool {
        self.directory.vouches_by(&self.node).any(|vouch| vouch.subject() == *subject)
    }

    /// Vouches for a node, or goes on to.
    ///
    /// # Errors
    /// [`Unwanted::Idle`] where this node's word counts for nothing, [`Unwanted::Full`] if it has
    /// vouched for as many as it may.
    pub fn vouch(&mut self, subject: NodeId, now: Time) -> Result<(), Unwanted> {
        let own = || self.directory.vouches_by(&self.node);
        let before = own().find(|vouch| vouch.subject() == subject);
        let most = match self.descriptor.admission() {
            Admission::Open => 0,
            Admission::Vouched { fan_out, .. } => usize::from(*fan_out),
        };
        if before.is_none() && self.may_vouch() && own().count() >= most {
            return Err(Unwanted::Full);
        }
        // Whoever broke its word begins again.
        let since = before.filter(|vouch| self.is_sound(vouch));
        let since = since.map(|vouch| vouch.since());
        self.speak(Word::Vouch, subject, since, now)
    }

    /// Takes a vouch back.
    ///
    /// # Errors
    /// [`Unwanted::Idle`] if there is none.
    pub fn unvouch(&mut self, subject: NodeId, now: Time) -> Result<(), Unwanted> {
        if !self.vouches_for(&subject) {
            return Err(Unwanted::Idle);
        }
        self.speak(Word::Revocation, subject, None, now)
    }

    fn speak(
        &mut self,
        word: Word,
        subject: NodeId,
        since: Option<Time>,
        now: Time,
    ) -> Result<(), Unwanted> {
        let said = self.publisher.say(word, subject, since, &self.schedule, now);
        let octets = said.ok_or(Unwanted::Full)?;
        let network = self.descriptor.id();
        let Ok(statement) = Statement::check(&octets, &network) else { return Err(Unwanted::Idle) };
        match self.take(statement, now, Brought::ByOneself) {
            Ok(()) => {
                self.directory.pass_on(&octets);
                self.commands.push_back(Command::Announce(octets));
                Ok(())
            }
            Err(Rejected::Unwanted(why)) => Err(why),
            Err(Rejected::Statement(_)) => Err(Unwanted::Idle),
        }
    }

    /// Whether nothing has become known of its subject since: a person has to know what it did before it is
    /// vouched for again.
    fn is_sound(&self, vouch: &Vouch) -> bool {
        self.directory.broke(&vouch.subject()).is_none_or(|dated| vouch.issued_at() > dated)
    }

    /// At half of their time.
    fn renew_vouches(&mut self, now: Time) {
        let own = self.directory.vouches_by(&self.node);
        let due = own.filter(|vouch| {
            let life = vouch.expires_at().since(vouch.issued_at());
            vouch.issued_at().plus(life / 2) <= now && self.is_sound(vouch)
        });
        let due: Vec<_> = due.map(|vouch| (vouch.subject(), vouch.since())).collect();
        for (subject, since) in due {
            if self.speak(Word::Vouch, subject, Some(since), now).is_err() {
                self.counts.add("vouch not renewed");
            }
        }
    }
}

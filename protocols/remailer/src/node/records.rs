//! Records: what is heard of others, what is said of oneself, and the view of the hour.

use core::time::Duration;
use std::sync::Arc;

use directory::{Admitted, Page, Request, View};
use keys::{MixSeed, Time};
use rand::CryptoRng;
use record::{RecordError, Unverified};

use super::{Command, Remailer};
use crate::publish::Publisher;

/// A view that no later hour replaced serves so many hours.
const VIEW_HOURS: u32 = 2;

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

/// How a catch-up goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncStep {
    /// Ask the same peer this.
    Next(Request),
    /// That was all.
    Done,
    /// The peer does not keep to the protocol.
    Bad,
}

impl Remailer {
    /// Takes a gossiped statement and says what is to become of it.
    pub fn handle_statement(&mut self, octets: &[u8], now: Time) -> Judgement {
        match self.judge(octets, now, Brought::ByGossip) {
            // What a catch-up brought first is still passed on when gossip brings it, once.
            Judgement::Accept | Judgement::Ignore if self.directory.pass_on(octets) => {
                Judgement::Accept
            }
            Judgement::Accept | Judgement::Ignore => Judgement::Ignore,
            Judgement::Reject => Judgement::Reject,
        }
    }

    fn judge(&mut self, octets: &[u8], now: Time, brought: Brought) -> Judgement {
        match self.admit(octets, now, brought) {
            Ok(()) => {
                self.counts.add("record taken");
                Judgement::Accept
            }
            Err(Rejected::Statement(why)) => {
                self.counts.add(&format!("record refused: {why}"));
                match why {
                    // A clock apart from ours, or a later version, is no fault of who passes it on.
                    RecordError::Future | RecordError::Stale | RecordError::Unknown => {
                        Judgement::Ignore
                    }
                    RecordError::TooLong
                    | RecordError::Malformed
                    | RecordError::NotCanonical
                    | RecordError::OtherNetwork
                    | RecordError::BadSignature
                    | RecordError::BadKey => Judgement::Reject,
                }
            }
            Err(Rejected::Unwanted(directory::Unwanted::Known)) => Judgement::Ignore,
            Err(Rejected::Unwanted(why)) => {
                self.counts.add(&format!("record refused: {why}"));
                Judgement::Ignore
            }
        }
    }

    /// Answers a peer that catches up; nothing if its request is malformed.
    #[must_use]
    pub fn handle_sync_request(&self, octets: &[u8]) -> Option<Vec<u8>> {
        let request = Request::decode(octets).ok()?;
        self.directory.page(&request).encode().ok()
    }

    /// Takes a page of a peer's records, each checked as if it had been gossiped.
    pub fn handle_sync_page(&mut self, octets: &[u8], asked: &Request, now: Time) -> SyncStep {
        let Ok(page) = Page::decode(octets) else {
            return SyncStep::Bad;
        };
        let mut last = asked.after;
        for statement in &page.records {
            match Unverified::parse(statement) {
                Ok(record) => last = last.max(Some(record.claimed_node())),
                Err(_) => return SyncStep::Bad,
            }
            if self.judge(statement, now, Brought::ByCatchUp) == Judgement::Reject {
                return SyncStep::Bad;
            }
        }
        match page.next {
            None => {
                self.publisher.caught_up(now);
                if self.view.is_none() {
                    self.take_view(now);
                }
                SyncStep::Done
            }
            // A page has to get on, and by what it holds: else a peer could be asked for ever.
            Some(next) if asked.after < Some(next) && last == Some(next) => {
                SyncStep::Next(Request { after: Some(next) })
            }
            Some(_) => SyncStep::Bad,
        }
    }

    pub(super) fn admit(
        &mut self,
        octets: &[u8],
        now: Time,
        brought: Brought,
    ) -> Result<(), Rejected> {
        let signed = Unverified::parse(octets)?.check_signature(&self.descriptor.id())?;
        if signed.node() == self.node {
            // Whatever becomes of it: what was signed with a number is never signed again.
            self.publisher.resume(&signed, now, &self.schedule);
        }
        let record = signed.timely(now, &self.schedule)?;
        let (admitted, record) = match brought {
            Brought::ByGossip => self.directory.admit(record)?,
            Brought::ByCatchUp => self.directory.admit_synced(record)?,
        };
        if admitted == Admitted::Newcomer && record.node() != self.node {
            self.commands.push_back(Command::Link(record.node()));
        }
        self.commands.push_back(Command::KeepRecord(record));
        self.take_first_view(now);
        Ok(())
    }

    pub(super) fn publish(&mut self, now: Time, rng: &mut impl CryptoRng) {
        let mut keys = Vec::new();
        for epoch in Publisher::epochs(&self.schedule, now) {
            if self.mix.key(epoch).is_none() {
                let seed = MixSeed::generate(rng);
                self.mix.insert_key(self.publisher.make_key(epoch, &seed));
                self.commands.push_back(Command::KeepSeed(epoch, seed));
            }
            if let Some(key) = self.mix.key(epoch) {
                keys.push((epoch, key.public().clone()));
            }
        }
        let digest = self.directory.digest();
        let exit = self.exit.as_ref();
        let octets = self.publisher.publish(keys, exit, digest, &self.schedule, now, rng);
        let Some(octets) = octets else { return };
        match self.admit(&octets, now, Brought::ByGossip) {
            Ok(()) => {
                self.directory.pass_on(&octets);
                self.counts.add("record published");
                self.commands.push_back(Command::Announce(octets));
            }
            Err(Rejected::Statement(why)) => {
                self.counts.add(&format!("own record refused: {why}"));
            }
            Err(Rejected::Unwanted(why)) => self.counts.add(&format!("own record refused: {why}")),
        }
    }

    pub(super) fn take_first_view(&mut self, now: Time) {
        let enough = usize::from(self.parameters().first_view);
        if self.view.is_none()
            && enough > 0
            && self.directory.len() >= enough
            && let Ok(view) = self.directory.first_view(now).if_sufficient()
        {
            self.set_view(view);
        }
    }

    pub(super) fn take_view(&mut self, now: Time) {
        let hour = self.schedule.hour_at(now);
        self.next_view = self.schedule.hour_end(hour);
        self.turn_hour(now);
        let partial = self.directory.partial_view(hour, self.parameters().settle);
        match partial.if_sufficient() {
            Ok(view) => self.set_view(view),
            Err(_) => {
                if self.usable_view(now).is_none() {
                    self.view = None;
                }
            }
        }
    }

    pub(super) fn turn_hour(&mut self, now: Time) {
        let start = self.schedule.hour_start(self.schedule.hour_at(now));
        self.directory.turn_hour(start.minus(self.parameters().settle));
    }

    fn set_view(&mut self, view: View) {
        let view = Arc::new(view);
        self.view = Some(Arc::clone(&view));
        self.commands.push_back(Command::ViewTaken(view));
    }

    pub(super) fn usable_view(&self, now: Time) -> Option<&Arc<View>> {
        let oldest = now.minus(self.schedule.hour() * VIEW_HOURS + Duration::from_secs(1));
        self.view.as_ref().filter(|view| view.taken() >= oldest)
    }
}

/// How a statement came. What gossip brings has to be news; a catch-up also fills gaps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    ByGossip,
    ByCatchUp,
}

pub(super) enum Rejected {
    Statement(RecordError),
    Unwanted(directory::Unwanted),
}

impl From<RecordError> for Rejected {
    fn from(why: RecordError) -> Self {
        Self::Statement(why)
    }
}

impl From<directory::Unwanted> for Rejected {
    fn from(why: directory::Unwanted) -> Self {
        Self::Unwanted(why)
    }
}

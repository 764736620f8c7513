//! Reconciliation with peers: what is asked, what comes, and what has to wait for it.

use std::collections::BTreeSet;

use directory::{Answer, Brought, Request, Step};
use keys::{NodeId, Schedule, Time};

use super::records::{Judgement, Rejected};
use super::{Command, Remailer};

/// Peers that a node with a past asks for its own newest record before it publishes.
pub(super) const WITNESSES: usize = 3;
/// How long it waits for them, as a part of an hour: 10 minutes.
pub(super) const WAIT: u32 = 6;

/// What a node waits for before its first record and its first view: one liar must not decide either.
pub(super) struct Witnesses {
    /// Peers that it has asked for all that they have.
    asked: BTreeSet<NodeId>,
    /// Its first record waits for as many of them as may know of its last one, or for one.
    first_record: First,
    /// When it waits no longer.
    until: Time,
}

/// What the first record waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// Anybody who may know of it.
    Anybody,
    /// So many as can have seen the last one: this node has published before.
    Several,
    /// Nothing any more.
    Nothing,
}

impl Witnesses {
    pub(super) fn new(schedule: &Schedule, now: Time) -> Self {
        let until = now.plus(schedule.hour() / WAIT);
        Self { asked: BTreeSet::new(), first_record: First::Anybody, until }
    }
}

impl Remailer {
    /// Begins to ask a peer for what it has and this node has not; none if it is being asked, or
    /// enough others are.
    pub fn begin_sync(&mut self, peer: NodeId, now: Time) -> Option<Request> {
        self.reconciliation.begin(peer, now)
    }

    /// Whether a peer is being asked.
    pub fn is_syncing(&mut self, peer: &NodeId, now: Time) -> bool {
        self.reconciliation.is_asking(peer, now)
    }

    /// A peer that was asked does not answer.
    pub fn handle_sync_failed(&mut self, peer: &NodeId) {
        self.reconciliation.fail(peer);
    }

    /// Answers a peer that asks; nothing if its question is malformed.
    #[must_use]
    pub fn handle_sync_request(&self, octets: &[u8], now: Time) -> Option<Vec<u8>> {
        self.directory.answer(octets, now, || self.present_set_hash(now)).ok()
    }

    /// Takes a peer's answer that [`Answer::check`] looked at.
    pub fn handle_sync_answer(&mut self, peer: NodeId, mut answer: Answer, now: Time) -> Step {
        if let Answer::Items(items) = &mut answer {
            let mut bad = false;
            for (name, checked) in items {
                let checked = core::mem::replace(checked, Err(record::RecordError::Unknown));
                let taken = checked.map_err(Rejected::from);
                let taken = taken.and_then(|item| self.take(item, now, Brought::ByCatchUp));
                // What hangs on something that is still to come is asked for again.
                let waits = matches!(taken, Err(Rejected::Unwanted(directory::Unwanted::Idle)));
                if taken.is_err() && !waits {
                    self.reconciliation.refuse(*name);
                }
                bad |= self.judge(taken) == Judgement::Reject;
            }
            if bad {
                self.reconciliation.fail(&peer);
                return Step::Bad;
            }
        }
        let step = self.reconciliation.handle_answer(&peer, &answer, &self.directory, now);
        if let Step::Done(told) = &step
            && self.has_a_say(&peer)
        {
            self.clocks.note(peer, told.ahead_ms, now);
            self.note_clocks(now);
            self.note_set(peer, told.set, now);
            self.note_witness(peer, now);
        }
        step
    }

    fn note_witness(&mut self, peer: NodeId, now: Time) {
        if self.witnesses.asked.len() < WITNESSES {
            self.witnesses.asked.insert(peer);
        }
        let others = self.directory.len().saturating_sub(1).clamp(1, WITNESSES);
        let are_enough = self.witnesses.asked.len() >= others;
        if self.witnesses.first_record == First::Anybody
            || (self.witnesses.first_record == First::Several && are_enough)
        {
            self.witnesses.first_record = First::Nothing;
            self.publisher.caught_up(now);
        }
        if are_enough {
            self.directory.note_caught_up();
        }
        if are_enough && self.view.is_none() {
            self.take_view(now);
        }
    }

    /// When a node that has no view takes one all the same.
    pub(super) fn first_view_at(&self) -> Option<Time> {
        (self.view.is_none() && self.witnesses.until < self.next_view)
            .then_some(self.witnesses.until)
    }

    pub(super) fn waited_for_witnesses(&mut self, now: Time) {
        if self.witnesses.until <= now {
            self.witnesses.until = Time::from_millis(u64::MAX);
            if self.view.is_none() {
                self.take_view(now);
            }
        }
    }

    /// Whether more peers have to be asked before this node may publish.
    #[must_use]
    pub fn wants_witnesses(&self) -> bool {
        self.witnesses.first_record != First::Nothing
    }

    pub(super) fn wait_for_witnesses(&mut self) {
        self.witnesses.first_record = First::Several;
        self.publisher.wait_until(self.witnesses.until);
    }

    pub(super) fn ask_around(&mut self) {
        self.commands.push_back(Command::AskAround);
    }
}

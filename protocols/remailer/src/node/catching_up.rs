//! Reconciliation with peers: what is asked, what comes, and what has to wait for it.

use std::collections::BTreeSet;

use directory::{Answer, Brought, Request, Step};
use keys::{NodeId, Time};

use super::records::{Judgement, Rejected};
use super::{Command, Remailer};

/// Peers that a node with a past asks for its own newest record before it publishes.
const WITNESSES: usize = 3;
/// How long it waits for them, as a part of an hour: 10 minutes.
const WAIT: u32 = 6;

/// What a node waits for before its first record.
pub(super) enum First {
    /// For anybody who may know of it.
    Anybody,
    /// For so many as can have seen its last record: it has published before.
    Witnesses(BTreeSet<NodeId>),
    /// For nothing any more.
    Nothing,
}

impl Remailer {
    /// Begins to ask a peer for what it has and this node has not; none if it is being asked, or
    /// enough others are.
    pub fn begin_sync(&mut self, peer: NodeId, now: Time) -> Option<Request> {
        self.reconciliation.begin(peer, now)
    }

    /// A peer that was asked does not answer.
    pub fn handle_sync_failed(&mut self, peer: &NodeId) {
        self.reconciliation.fail(peer);
    }

    /// Answers a peer that asks; nothing if its question is malformed.
    #[must_use]
    pub fn handle_sync_request(&self, octets: &[u8], now: Time) -> Option<Vec<u8>> {
        self.directory.answer(octets, now, || self.set_hash(now)).ok()
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
        if let Step::Done(told) = &step {
            self.clocks.note(peer, told.ahead_ms, now);
            self.note_clocks(now);
            self.note_witness(peer, now);
            if self.view.is_none() {
                self.take_view(now);
            }
        }
        step
    }

    fn note_witness(&mut self, peer: NodeId, now: Time) {
        let others = self.directory.len().saturating_sub(1).clamp(1, WITNESSES);
        let is_enough = match &mut self.first {
            First::Nothing => return,
            First::Anybody => true,
            First::Witnesses(witnesses) => {
                witnesses.insert(peer);
                witnesses.len() >= others
            }
        };
        if is_enough {
            self.first = First::Nothing;
            self.publisher.caught_up(now);
        }
    }

    /// Whether more peers have to be asked before this node may publish.
    #[must_use]
    pub fn wants_witnesses(&self) -> bool {
        !matches!(self.first, First::Nothing)
    }

    pub(super) fn wait_for_witnesses(&mut self, now: Time) {
        self.first = First::Witnesses(BTreeSet::new());
        self.publisher.not_before(now.plus(self.schedule.hour() / WAIT));
    }

    pub(super) fn ask_around(&mut self) {
        self.commands.push_back(Command::AskAround);
    }
}

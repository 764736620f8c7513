//! A node's own keys and statements: when they are made, and what they say.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use keys::{Epoch, Identity, MixPublic, MixSecret, MixSeed, NetworkId, NodeId, Schedule, Time};
use rand::{CryptoRng, RngExt as _};
use record::{Draft, RecordHash, Signed, TRAFFIC_CLASSES, VouchDraft, Word};
use sphinx::EpochKey;

use crate::exit::Exit;

/// How far the numbers of records jump when a node starts again: whatever it published and has forgotten
/// since, and whatever a copy of it published, is below.
const JUMP: u64 = 1 << 20;
/// For how many epochs this node's word about another holds: 30 days. It is renewed at half of that.
const VOUCH_LIFE: u32 = 240;

/// The author of this node's statements.
pub(crate) struct Publisher {
    identity: Identity,
    network: NetworkId,
    contact: String,
    family: Vec<NodeId>,
    sequence: u64,
    previous: RecordHash,
    next: Time,
    /// Before this, peers do not take another.
    spaced: Time,
    has_published: bool,
    /// Before this nothing is published, however pressing: peers may know of a record that this node does not.
    gate: Option<Time>,
    /// Whether it may have published what it does not know of.
    has_past: bool,
    /// Epochs whose key was given up; there is never another one.
    withdrawn: BTreeSet<Epoch>,
}

/// What a record of one's own tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// Nothing new.
    Known,
    /// It was published after what this node remembers: it was restored from a backup, or copied.
    Forgotten,
    /// It was published while this node was publishing: another runs with the same identity.
    Rival,
}

impl Publisher {
    pub(crate) fn new(
        identity: Identity,
        network: NetworkId,
        contact: String,
        family: Vec<NodeId>,
        now: Time,
    ) -> Self {
        let previous = RecordHash::NONE;
        Self {
            identity,
            network,
            contact,
            family,
            sequence: 0,
            previous,
            next: now,
            spaced: now,
            has_published: false,
            gate: None,
            has_past: false,
            withdrawn: BTreeSet::new(),
        }
    }

    /// Goes on after a record of one's own, wherever it came from: above its number, and not sooner
    /// than peers take the next. A date ahead of the clock is a clock that was once wrong.
    pub(crate) fn resume(&mut self, own: &Signed, now: Time, schedule: &Schedule) -> Own {
        if own.sequence() <= self.sequence {
            return Own::Known;
        }
        self.sequence = own.sequence();
        self.previous = own.hash();
        self.spaced = own.published_at().min(now).plus(directory::spacing(schedule));
        self.next = self.next.max(self.spaced);
        if self.has_published { Own::Rival } else { Own::Forgotten }
    }

    pub(crate) fn not_before(&mut self, earliest: Time) {
        self.next = self.next.max(earliest);
    }

    pub(crate) fn wait_until(&mut self, gate: Time) {
        self.gate = Some(gate);
        self.has_past = true;
        self.not_before(gate);
    }

    /// Peers have said what they know: the first record waits no longer than it must.
    pub(crate) fn caught_up(&mut self, now: Time) {
        self.gate = None;
        if !self.has_published {
            self.next = self.spaced.max(now);
        }
    }

    /// What was published before this start is the past: the next number is far above it.
    pub(crate) fn begin_again(&mut self) {
        self.has_published = false;
    }

    pub(crate) fn next(&self) -> Time {
        self.next
    }

    /// The epochs whose keys a record of `now` states: this one and two ahead, and a third before the
    /// last hour of this one.
    pub(crate) fn epochs(schedule: &Schedule, now: Time) -> impl Iterator<Item = Epoch> {
        let epoch = schedule.epoch_at(now);
        let ahead = if schedule.hour_of_epoch(now) == 0 { 2 } else { 3 };
        (0..=ahead).map(move |count| epoch.plus(count))
    }

    pub(crate) fn make_key(&self, epoch: Epoch, seed: &MixSeed) -> Arc<EpochKey> {
        Arc::new(EpochKey::new(self.identity.node(), epoch, MixSecret::from_seed(seed)))
    }

    pub(crate) fn withdraw(&mut self, epoch: Epoch) {
        self.withdrawn.insert(epoch);
    }

    pub(crate) fn has_withdrawn(&self, epoch: Epoch) -> bool {
        self.withdrawn.contains(&epoch)
    }

    pub(crate) fn forget_before(&mut self, oldest: Epoch) {
        self.withdrawn.retain(|epoch| *epoch >= oldest);
    }

    /// The next record's octets, and when to publish again: once an hour, at a random time in its
    /// first two thirds, so that the record has settled before the next hour's view is taken.
    pub(crate) fn publish(
        &mut self,
        keys: Vec<(Epoch, MixPublic)>,
        exit: Option<&Exit>,
        digest: [u8; 32],
        schedule: &Schedule,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Option<Vec<u8>> {
        let hour_end = schedule.hour_end(schedule.hour_at(now));
        self.next = hour_end.plus(schedule.hour().mul_f64(rng.random_range(0.05..0.65)));
        self.gate = None;
        let is_new = self.sequence == 0 && !self.has_past;
        let step = if self.has_published || is_new { 1 } else { JUMP };
        let withdrawn = Self::epochs(schedule, now).filter(|epoch| self.has_withdrawn(*epoch));
        let draft = Draft {
            sequence: self.sequence.checked_add(step)?,
            previous: self.previous,
            published_at: now,
            keys,
            withdrawn: withdrawn.collect(),
            exit: exit.map(|exit| exit.policy.clone()),
            contact: self.contact.clone(),
            family: self.family.clone(),
            traffic: [0; TRAFFIC_CLASSES],
            digest,
        };
        draft.sign(&self.identity, &self.network).ok()
    }

    /// The record that was signed last is kept and goes out; the next follows it.
    pub(crate) fn note_published(&mut self, own: &Signed, now: Time, schedule: &Schedule) {
        self.has_published = false;
        self.resume(own, now, schedule);
        self.has_published = true;
    }

    /// Publishes within a moment, because what the record says has changed.
    pub(crate) fn hasten(&mut self, now: Time) {
        let soon = now.plus(Duration::from_millis(500)).max(self.spaced);
        self.next = self.next.min(soon).max(self.gate.unwrap_or(soon));
    }

    /// This node's word about another; a vouch that goes on has a `since` of before.
    pub(crate) fn say(
        &self,
        word: Word,
        subject: NodeId,
        since: Option<Time>,
        schedule: &Schedule,
        now: Time,
    ) -> Option<Vec<u8>> {
        let life = (schedule.hour() * 3).saturating_mul(VOUCH_LIFE);
        let draft = VouchDraft {
            word,
            subject,
            since: since.unwrap_or(now),
            issued_at: now,
            expires_at: now.plus(life),
        };
        draft.sign(&self.identity, &self.network).ok()
    }
}

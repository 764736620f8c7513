//! A node's own keys and records: when they are made, and what they say.

use core::time::Duration;
use std::sync::Arc;

use keys::{Epoch, Identity, MixPublic, MixSecret, MixSeed, NetworkId, NodeId, Schedule, Time};
use rand::{CryptoRng, RngExt as _};
use record::{Draft, RecordHash, Signed, TRAFFIC_CLASSES};
use sphinx::EpochKey;

use crate::exit::Exit;

/// The author of this node's records.
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
        }
    }

    /// Goes on after a record of one's own, wherever it came from: above its number, and not sooner
    /// than peers take the next. A date ahead of the clock is a clock that was once wrong.
    pub(crate) fn resume(&mut self, own: &Signed, now: Time, schedule: &Schedule) {
        if own.sequence() > self.sequence {
            self.sequence = own.sequence();
            self.previous = own.hash();
            self.spaced = own.published_at().min(now).plus(directory::spacing(schedule));
            self.next = self.next.max(self.spaced);
        }
    }

    pub(crate) fn not_before(&mut self, earliest: Time) {
        self.next = self.next.max(earliest);
    }

    /// Peers have said what they know: the first record waits no longer than it must.
    pub(crate) fn caught_up(&mut self, now: Time) {
        if !self.has_published {
            self.next = self.spaced.max(now);
        }
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
        self.has_published = true;
        let hour_end = schedule.hour_end(schedule.hour_at(now));
        self.next = hour_end.plus(schedule.hour().mul_f64(rng.random_range(0.05..0.65)));
        let draft = Draft {
            sequence: self.sequence.checked_add(1)?,
            previous: self.previous,
            published_at: now,
            keys,
            exit: exit.map(|exit| exit.policy.clone()),
            contact: self.contact.clone(),
            family: self.family.clone(),
            traffic: [0; TRAFFIC_CLASSES],
            digest,
        };
        draft.sign(&self.identity, &self.network).ok()
    }

    /// Publishes within a moment, because what the record says has changed.
    pub(crate) fn hasten(&mut self, now: Time) {
        let soon = now.plus(Duration::from_millis(500)).max(self.spaced);
        self.next = self.next.min(soon);
    }
}

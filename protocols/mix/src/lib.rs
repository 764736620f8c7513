//! What a node does to passing packets: refuse replays, hold, shuffle, release.
//!
//! [`Mix`] takes what [`sphinx::peel`] opened. The [`slot`](Mix::insert_key) of the key that opened
//! the packet refuses a replay. Any other packet stays until its replay tag is durable
//! ([`Mix::next_tags`], [`Mix::handle_kept`]): a node that was killed must not take the packet
//! again. Then it waits out the delay that its sender sealed in it, is collected with what falls
//! due in the same window, shuffled, and released one by one in the window that follows. Time and
//! randomness are passed in, so hours of it run in a test at once.
//!
//! It does not know what packets carry, where they go, or who sent them.

mod pool;
mod slot;

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use keys::{Epoch, NodeId, Schedule, Time};
use rand::CryptoRng;
use sphinx::{EpochKey, EpochKeys, Kind, Layer, Packet, Payload, Peeled, Refusal, ReplayTag};

use pool::Pool;
use slot::{Seen, Slots};

/// Times of the network that mixing needs.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long a window is.
    pub window: Duration,
    /// Longest delay that a sender may ask for.
    pub max_delay: Duration,
}

/// What leaves the mix.
pub enum Release {
    /// To be sent on.
    Forward {
        /// The next hop.
        to: NodeId,
        /// The packet to send.
        packet: Packet,
    },
    /// Its route ended here.
    End {
        /// `Deliver`, `Loop` or `Drop`.
        kind: Kind,
        /// What it carried.
        payload: Payload,
    },
}

impl Release {
    fn octets(&self) -> usize {
        match self {
            Self::Forward { packet, .. } => packet.octets().len(),
            Self::End { payload, .. } => payload.len(),
        }
    }
}

/// Why an opened packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum MixRefusal {
    /// Seen before.
    #[error("replay")]
    Replay,
    /// Its epoch's key was destroyed since it was opened.
    #[error("epoch")]
    Epoch,
    /// More packets in one epoch than a slot remembers.
    #[error("slot full")]
    SlotFull,
    /// Its next hop has no live record.
    #[error("unknown next hop")]
    UnknownHop,
    /// Its delay is longer than the network allows.
    #[error("delay")]
    Delay,
    /// More octets held than the pool may.
    #[error("pool full")]
    PoolFull,
    /// Its replay tag could not be kept: after a restart it would be taken again.
    #[error("tag not kept")]
    NotKept,
    /// What followed its header MAC was wrong.
    #[error("{0}")]
    Refused(Refusal),
}

/// Replay tags that are to be made durable, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    /// The number of these tags, for [`Mix::handle_kept`].
    pub batch: u64,
    /// The tags, with the epochs of the keys that opened their packets.
    pub tags: Vec<(Epoch, ReplayTag)>,
}

/// Keys with their replay filters, and the packets held.
pub struct Mix {
    schedule: Schedule,
    times: Times,
    slots: Slots,
    /// Tags that are not being kept yet, and the packets that wait for them.
    fresh: Batch,
    /// The batch that is being kept, after its number; one at a time.
    keeping: Option<(u64, Batch)>,
    batches: u64,
    pool: Pool,
}

#[derive(Default)]
struct Batch {
    tags: Vec<(Epoch, ReplayTag)>,
    packets: Vec<(Release, Time)>,
    octets: usize,
}

impl Mix {
    /// A mix whose windows have a phase of their own, drawn at random here.
    pub fn new(schedule: Schedule, times: Times, now: Time, rng: &mut impl CryptoRng) -> Self {
        let pool = Pool::new(times.window, now, rng);
        let (slots, fresh) = (Slots::default(), Batch::default());
        Self { schedule, times, slots, fresh, keeping: None, batches: 0, pool }
    }

    /// Opens a slot: a key, and the filter of what it has opened.
    pub fn insert_key(&mut self, key: Arc<EpochKey>, seen: BTreeSet<ReplayTag>) {
        self.slots.insert(key, seen);
    }

    /// Destroys the slot of an epoch: its filter may lack some of what its key has opened.
    pub fn withdraw(&mut self, epoch: Epoch) {
        self.slots.remove(epoch);
    }

    /// Destroys every slot before this epoch, key and filter together; returns their epochs. The key
    /// itself dies with the last packet that is being opened with it.
    pub fn forget_before(&mut self, oldest: Epoch) -> Vec<Epoch> {
        self.slots.forget_before(oldest)
    }

    /// The keys whose epochs are accepted at `now`.
    #[must_use]
    pub fn accepting(&self, now: Time) -> EpochKeys {
        self.slots.keys(|epoch| self.schedule.accepts(epoch, now))
    }

    /// The epochs whose keys are held, ascending.
    pub fn epochs(&self) -> impl Iterator<Item = Epoch> + '_ {
        self.slots.epochs()
    }

    /// The key of an epoch.
    #[must_use]
    pub fn key(&self, epoch: Epoch) -> Option<&Arc<EpochKey>> {
        self.slots.key(epoch)
    }

    /// Takes an opened packet: into the filter first, whatever its outcome, then into the pool.
    /// `known` says whether a next hop is a node to send to.
    ///
    /// # Errors
    /// [`MixRefusal`].
    pub fn handle_peeled(
        &mut self,
        peeled: Peeled,
        now: Time,
        known: impl Fn(&NodeId) -> bool,
    ) -> Result<(), MixRefusal> {
        if !self.schedule.accepts(peeled.epoch, now) {
            return Err(MixRefusal::Epoch);
        }
        match self.slots.see(peeled.epoch, peeled.tag) {
            Seen::First => {}
            Seen::Before => return Err(MixRefusal::Replay),
            Seen::NoSlot => return Err(MixRefusal::Epoch),
            Seen::Full => return Err(MixRefusal::SlotFull),
        }
        self.fresh.tags.push((peeled.epoch, peeled.tag));
        let (delay, release) = match peeled.outcome.map_err(MixRefusal::Refused)? {
            Layer::Forward { to, .. } if !known(&to) => return Err(MixRefusal::UnknownHop),
            Layer::Forward { to, delay, packet } => (delay, Release::Forward { to, packet }),
            Layer::End { kind, delay, payload } => (delay, Release::End { kind, payload }),
        };
        if delay > self.times.max_delay {
            return Err(MixRefusal::Delay);
        }
        let unkept = self.fresh.octets + self.keeping.as_ref().map_or(0, |(_, batch)| batch.octets);
        self.pool.check_room(unkept.saturating_add(release.octets()))?;
        self.fresh.octets = self.fresh.octets.saturating_add(release.octets());
        self.fresh.packets.push((release, now.plus(delay)));
        Ok(())
    }

    /// The tags to make durable next, if there are any and none are being kept.
    pub fn next_tags(&mut self) -> Option<Tags> {
        if self.keeping.is_some() || self.fresh.tags.is_empty() {
            return None;
        }
        let mut batch = core::mem::take(&mut self.fresh);
        self.batches = self.batches.wrapping_add(1);
        let tags = Tags { batch: self.batches, tags: core::mem::take(&mut batch.tags) };
        self.keeping = Some((self.batches, batch));
        Some(tags)
    }

    /// Notes that these tags are durable: their packets go on.
    pub fn handle_kept(&mut self, batch: u64) {
        let Some((_, kept)) = self.keeping.take_if(|(number, _)| *number == batch) else { return };
        for (release, due) in kept.packets {
            // Room was reserved when the packet was taken.
            let _ = self.pool.hold(release, due);
        }
    }

    /// Notes that these tags could not be made durable. Returns how many packets are dropped for
    /// that.
    pub fn handle_keep_failed(&mut self, batch: u64) -> usize {
        let failed = self.keeping.take_if(|(number, _)| *number == batch);
        failed.map_or(0, |(_, batch)| batch.packets.len())
    }

    /// When [`Mix::handle_timeout`] is due; `None` while nothing is held.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.pool.poll_timeout()
    }

    /// Collects and shuffles what fell due in windows that ended by `now`.
    pub fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.pool.handle_timeout(now, rng);
    }

    /// The next packet whose time has come by `now`.
    pub fn next_release(&mut self, now: Time) -> Option<Release> {
        self.pool.next_release(now)
    }

    /// Packets held.
    #[must_use]
    pub fn held(&self) -> usize {
        let keeping = self.keeping.as_ref().map_or(0, |(_, batch)| batch.packets.len());
        self.pool.len() + self.fresh.packets.len() + keeping
    }
}

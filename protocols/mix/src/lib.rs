#![doc = include_str!("../README.md")]

mod discipline;
mod gather;
mod pool;
mod rounds;
mod shares;
mod slot;

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use keys::{Epoch, NodeId, Schedule, Time};
use rand::CryptoRng;
use sphinx::{
    BlockName, EpochKey, EpochKeys, Kind, Layer, Packet, Payload, Peeled, Refusal, ReplayTag,
    SizeClass, StreamToken,
};

use discipline::Orders;
use pool::{Held, Pool};
use slot::{Seen, Slots};

pub use shares::{NoRoom, Shares};

/// Times of the network that mixing needs.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long a window is.
    pub window: Duration,
    /// Longest delay that a sender may ask for.
    pub max_delay: Duration,
    /// How few packets leave a window together.
    pub floor: Floor,
    /// When packets leave that are due.
    pub strategy: Strategy,
}

/// When packets leave that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// In the window after the one in which they fell due, shuffled, and no fewer of a class than the floor.
    Windows,
    /// Each by itself, at once.
    Continuous,
    /// From pools, each with the same chance in each window, the greater the more there are.
    BinomialPool,
    /// In rounds that all nodes share, as many of each class in every one: see [`Mix::set_rounds`].
    LockStep,
}

/// How few packets leave a window together.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Packets of one size class that leave a window together, at least: only what looks alike hides
    /// what it looks like.
    pub packets: u8,
    /// Windows for which fewer wait for more.
    pub windows: u8,
    /// Packets of as many octets received for each loop with which a batch may be filled up after that.
    /// A loop is nine packets on average for the nodes on its way: with one for each ten it does not
    /// feed on itself.
    pub budget: u8,
}

/// A loop of this node's own that is to leave among too few packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopUp {
    /// Its size class.
    pub class: SizeClass,
    /// When it leaves.
    pub at: Time,
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
    /// An answer to a reply block of this node's own.
    Reply {
        /// The name of the block.
        name: BlockName,
        /// What it carried, closed.
        payload: Payload,
    },
    /// For the open stream that presented a token.
    Stream {
        /// The token.
        token: StreamToken,
        /// The name of the reply block that it answers, if it is an answer.
        name: Option<BlockName>,
        /// What it carried.
        payload: Payload,
    },
}

impl Release {
    fn octets(&self) -> usize {
        match self {
            Self::Forward { packet, .. } => packet.octets().len(),
            Self::End { payload, .. }
            | Self::Reply { payload, .. }
            | Self::Stream { payload, .. } => payload.len(),
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
    packets: Vec<(Held, Time)>,
}

impl Mix {
    /// A mix whose windows have a phase of their own, drawn at random here.
    pub fn new(schedule: Schedule, times: Times, now: Time, rng: &mut impl CryptoRng) -> Self {
        let pool = Pool::new(&times, now, rng);
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

    /// Destroys every slot before this epoch, key and filter together; returns their epochs. The
    /// key itself dies with the last packet that is being opened with it.
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

    /// Takes an opened packet that came from a previous hop: into the filter first, whatever its
    /// outcome, then into the pool. `known` says whether a next hop is a node to send to.
    ///
    /// # Errors
    /// [`MixRefusal`].
    pub fn handle_peeled(
        &mut self,
        peeled: Peeled,
        from: NodeId,
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
            Layer::Reply { name, delay, payload } => (delay, Release::Reply { name, payload }),
            Layer::Stream { token, name, delay, payload } => {
                (delay, Release::Stream { token, name, payload })
            }
        };
        if delay > self.times.max_delay {
            return Err(MixRefusal::Delay);
        }
        let octets = release.octets();
        self.pool.reserve(from, octets).map_err(|NoRoom| MixRefusal::PoolFull)?;
        self.pool.discipline().note_received(octets);
        self.fresh.packets.push((Held { release, from }, now.plus(delay)));
        Ok(())
    }

    /// The loops with which batches are to be filled up, and how many packets leave in a batch with too few,
    /// each told once.
    pub fn take_orders(&mut self) -> (Vec<TopUp>, usize) {
        let Orders { top_ups, lonely } = self.pool.discipline().take_orders();
        (top_ups, lonely)
    }

    /// So many packets of each class make a round from now on, if the strategy has rounds.
    pub fn set_rounds(&mut self, each: [u16; SizeClass::COUNT]) {
        self.pool.discipline().set_rounds(each);
    }

    /// Keeps all packets that have not been shuffled until then, or a window longer: they leave together, as
    /// far as the strategy lets so many leave.
    pub fn keep_until(&mut self, until: Time) {
        self.pool.keep_until(until);
    }

    /// Whether this node's own packets are to be held here as well, by [`Mix::hold`], and leave with those
    /// of others.
    #[must_use]
    pub fn takes_own(&self) -> bool {
        self.pool.takes_own()
    }

    /// Holds a packet that is made here for somebody else, such as an answer, like one that came to be
    /// passed on. It has its share of the pool under this node's own name.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn hold(
        &mut self,
        packet: Packet,
        to: NodeId,
        own: NodeId,
        due: Time,
    ) -> Result<(), NoRoom> {
        let release = Release::Forward { to, packet };
        self.pool.reserve(own, release.octets())?;
        self.pool.hold(Held { release, from: own }, due);
        Ok(())
    }

    /// How many packets have gone for those of other previous hops, each told once.
    pub fn take_displaced(&mut self) -> usize {
        self.pool.take_displaced()
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

    /// Notes that these tags are durable: their packets go on. One whose window has passed
    /// meanwhile falls due now, or it would leave by itself.
    pub fn handle_kept(&mut self, batch: u64, now: Time) {
        let Some((_, kept)) = self.keeping.take_if(|(number, _)| *number == batch) else { return };
        for (held, due) in kept.packets {
            self.pool.hold(held, due.max(now));
        }
    }

    /// Notes that these tags could not be made durable. Returns how many packets are dropped for
    /// that.
    pub fn handle_keep_failed(&mut self, batch: u64) -> usize {
        let failed = self.keeping.take_if(|(number, _)| *number == batch);
        let packets = failed.map(|(_, batch)| batch.packets).unwrap_or_default();
        for (held, _) in &packets {
            self.pool.give_back(&held.from, held.release.octets());
        }
        packets.len()
    }

    /// Notes that the clock jumped by so many milliseconds. What is held waits as long as it would
    /// have waited without: what a machine slept through must not leave in one burst.
    pub fn handle_clock_jump(&mut self, millis: i64) {
        self.pool.shift(millis);
        let keeping = self.keeping.iter_mut().map(|(_, batch)| batch);
        for batch in keeping.chain([&mut self.fresh]) {
            for (_, due) in &mut batch.packets {
                *due = due.shifted(millis);
            }
        }
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

    /// The end of any one of its windows, if it has windows. An observer who measures for long enough knows it too.
    #[must_use]
    pub fn phase(&self) -> Option<Time> {
        self.pool.phase()
    }

    /// Packets held.
    #[must_use]
    pub fn held(&self) -> usize {
        let keeping = self.keeping.as_ref().map_or(0, |(_, batch)| batch.packets.len());
        self.pool.len() + self.fresh.packets.len() + keeping
    }
}

#[cfg(test)]
mod tests {
    use keys::{Identity, MixSecret, MixSeed};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const EPOCH: Epoch = Epoch::new(165_000);

    /// A mix with the keys of two epochs, a second into the first of them.
    fn mix() -> (Mix, Time, ChaCha20Rng) {
        let schedule = Schedule::new(SECOND * 10_800, SECOND * 1800, SECOND * 600);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let now = schedule.start(EPOCH).plus(SECOND);
        let floor = Floor { packets: 1, windows: 2, budget: 10 };
        let times = Times {
            window: SECOND * 30,
            max_delay: SECOND * 600,
            floor,
            strategy: Strategy::Windows,
        };
        let mut mix = Mix::new(schedule, times, now, &mut rng);
        for ahead in 0..2 {
            let node = Identity::from_seed(&[1; 32]).node();
            let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
            let key = EpochKey::new(node, EPOCH.plus(ahead), secret);
            mix.insert_key(Arc::new(key), BTreeSet::new());
        }
        (mix, now, rng)
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    /// A packet for `number` with the tag `number`.
    fn peeled(number: u8, delay: Duration) -> Peeled {
        let packet = Packet::from_octets(vec![0; SizeClass::SMALLEST.packet_len()]).unwrap();
        let outcome = Ok(Layer::Forward { to: node(number), delay, packet });
        Peeled { tag: ReplayTag::from_bytes([number; 16]), epoch: EPOCH, outcome }
    }

    fn numbers(tags: &Tags) -> Vec<u8> {
        tags.tags.iter().map(|(_, tag)| tag.as_bytes()[0]).collect()
    }

    fn released(mix: &mut Mix, until: Time, rng: &mut ChaCha20Rng) -> Vec<u8> {
        let mut released = Vec::new();
        while let Some(now) = mix.poll_timeout().filter(|at| *at <= until) {
            mix.handle_timeout(now, rng);
            while let Some(release) = mix.next_release(now) {
                if let Release::Forward { to, .. } = release {
                    released.push(to.as_bytes()[0]);
                }
            }
        }
        released.sort_unstable();
        released
    }

    #[test]
    fn packets_leave_only_after_their_own_batch_is_durable() {
        let (mut mix, now, mut rng) = mix();
        assert!(mix.next_tags().is_none());
        mix.handle_peeled(peeled(1, SECOND), node(7), now, |_| true).unwrap();
        let first = mix.next_tags().unwrap();
        assert_eq!(numbers(&first), [1]);
        mix.handle_peeled(peeled(2, SECOND), node(7), now, |_| true).unwrap();
        mix.handle_peeled(peeled(3, SECOND), node(7), now, |_| true).unwrap();
        assert!(mix.next_tags().is_none(), "one batch at a time");
        assert_eq!((mix.held(), mix.poll_timeout()), (3, None));
        mix.handle_kept(first.batch.wrapping_add(1), now);
        assert_eq!(mix.poll_timeout(), None, "another batch says nothing of this one");
        mix.handle_kept(first.batch, now);
        let second = mix.next_tags().unwrap();
        assert!(second.batch != first.batch);
        assert_eq!(numbers(&second), [2, 3]);
        assert_eq!(released(&mut mix, now.plus(SECOND * 120), &mut rng), [1]);
        assert_eq!(mix.handle_keep_failed(first.batch), 0);
        assert_eq!(mix.handle_keep_failed(second.batch), 2);
        assert_eq!((mix.held(), mix.pool.taken()), (0, 0), "its room is given back");
        assert!(released(&mut mix, now.plus(SECOND * 9999), &mut rng).is_empty());
        assert!(mix.next_tags().is_none());
    }

    #[test]
    fn a_packet_whose_tag_was_kept_late_is_shuffled_with_those_that_fall_due_then() {
        let (mut mix, now, mut rng) = mix();
        mix.handle_peeled(peeled(1, SECOND), node(7), now, |_| true).unwrap();
        let late = now.plus(SECOND * 300);
        let tags = mix.next_tags().unwrap();
        mix.handle_kept(tags.batch, late);
        mix.handle_peeled(peeled(2, Duration::ZERO), node(7), late, |_| true).unwrap();
        let tags = mix.next_tags().unwrap();
        mix.handle_kept(tags.batch, late);
        let due = mix.poll_timeout().unwrap();
        assert!(due >= late);
        mix.handle_timeout(due, &mut rng);
        assert_eq!(mix.pool.leaving(), 2, "one batch");
    }

    #[test]
    fn what_is_dropped_keeps_its_tag_and_says_why() {
        let (mut mix, now, _) = mix();
        let refused =
            |mix: &mut Mix, peeled, known| mix.handle_peeled(peeled, node(7), now, |_| known);
        let reason = Some(MixRefusal::UnknownHop);
        assert_eq!(refused(&mut mix, peeled(1, SECOND), false).err(), reason);
        assert_eq!(refused(&mut mix, peeled(1, SECOND), true).err(), Some(MixRefusal::Replay));
        let longest = peeled(2, SECOND * 600);
        assert_eq!(refused(&mut mix, longest, true).err(), None);
        let longer = peeled(3, SECOND * 600 + Duration::from_millis(1));
        assert_eq!(refused(&mut mix, longer, true).err(), Some(MixRefusal::Delay));
        let mut wrong = peeled(4, SECOND);
        wrong.outcome = Err(Refusal::Payload);
        let reason = Some(MixRefusal::Refused(Refusal::Payload));
        assert_eq!(refused(&mut mix, wrong, true).err(), reason);
        for (epoch, reason) in [(EPOCH.plus(1), MixRefusal::Epoch), (EPOCH, MixRefusal::Replay)] {
            let early = Peeled { epoch, ..peeled(1, SECOND) };
            assert_eq!(refused(&mut mix, early, true).err(), Some(reason), "{epoch:?}");
        }
        assert_eq!(mix.held(), 1);
        assert_eq!(numbers(&mix.next_tags().unwrap()), [1, 2, 3, 4]);
        mix.withdraw(EPOCH);
        assert_eq!(refused(&mut mix, peeled(5, SECOND), true).err(), Some(MixRefusal::Epoch));
    }

    #[test]
    fn the_pool_has_room_for_what_waits_for_its_tag() {
        let (mut mix, now, _) = mix();
        let octets = SizeClass::LARGEST.packet_len();
        let large = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let mut tag = [0; 16];
            tag[..2].copy_from_slice(&[high, low]);
            let packet = Packet::from_octets(vec![0; octets]).unwrap();
            let outcome = Ok(Layer::Forward { to: node(1), delay: SECOND, packet });
            Peeled { tag: ReplayTag::from_bytes(tag), epoch: EPOCH, outcome }
        };
        let mut taken = 0;
        let mut keeping = None;
        loop {
            let from = node(u8::try_from(usize::from(taken) * octets / pool::MAX_SHARE).unwrap());
            match mix.handle_peeled(large(taken), from, now, |_| true) {
                Ok(()) => taken += 1,
                Err(why) => {
                    assert_eq!(why, MixRefusal::PoolFull);
                    break;
                }
            }
            // Some wait for the disk, some for their turn there.
            if taken == 300 {
                keeping = mix.next_tags();
            }
        }
        assert_eq!(usize::from(taken), pool::MAX_OCTETS / octets);
        mix.handle_kept(keeping.unwrap().batch, now);
        let rest = mix.next_tags().unwrap();
        mix.handle_kept(rest.batch, now);
        assert_eq!(mix.held(), usize::from(taken), "there was room for each");
    }

    #[test]
    fn keys_are_accepted_in_their_time_and_destroyed_after_it() {
        let (mut mix, now, _) = mix();
        let numbers = |mix: &Mix, at| mix.accepting(at).epochs().collect::<Vec<_>>();
        assert_eq!(numbers(&mix, now), [EPOCH]);
        assert_eq!(numbers(&mix, now.plus(SECOND * 10_800)), [EPOCH, EPOCH.plus(1)]);
        assert!(mix.epochs().eq([EPOCH, EPOCH.plus(1)]));
        assert_eq!(mix.forget_before(EPOCH.plus(1)), [EPOCH]);
        assert!(mix.key(EPOCH).is_none() && mix.key(EPOCH.plus(1)).is_some());
        assert!(numbers(&mix, now).is_empty());
    }
}

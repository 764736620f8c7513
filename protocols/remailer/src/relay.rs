//! Passing packets on: opened packets in, packets for the next hop and payloads out.
//!
//! A client has no relay, and so no mix key and nothing that peers could send packets to.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use keys::{Epoch, NodeId, Schedule, Time};
use mix::{Floor, Mix, NoRoom, Release, Strategy, Times, TopUp};
use rand::CryptoRng;
use record::Mixing;
use sphinx::{
    BlockName, EpochKey, Kind, Packet, Payload, Peeled, Refusal, ReplayTag, SizeClass, StreamToken,
};

use crate::command::{Command, Out};
use crate::count::{Count, Dropped};
use crate::ids::StreamId;
use crate::siege::Siege;
use crate::streams::{Handed, Streams};
use crate::traffic::{ByClass, Traffic};

/// A packet that says to be later than this many hours was not delayed for that time: it is not
/// measured.
const LATEST_HOURS: u32 = 6;

/// A payload whose route ended here.
pub(crate) enum Arrival {
    /// For this node to act on.
    Mail(Payload),
    /// An answer to the reply block of this name.
    Reply(BlockName, Payload),
}

/// The mix of a node with its keys.
pub(crate) struct Relay {
    schedule: Schedule,
    mix: Mix,
    /// The epochs whose keys packets are opened with, as last announced.
    accepted: Vec<Epoch>,
    /// When those epochs next change by themselves.
    changes_at: Option<Time>,
    /// How long after the end of its key the latest packet came.
    latest: Option<Duration>,
    /// Packets of other nodes that the mix has taken.
    taken: u64,
    siege: Siege,
    traffic: Traffic,
    streams: Streams,
}

impl Relay {
    pub(crate) fn new(
        schedule: Schedule,
        mixing: &Mixing,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let Mixing { window, max_delay, floor, floor_windows, loop_budget, strategy, .. } = *mixing;
        let strategy = match strategy {
            1 => Strategy::Continuous,
            2 => Strategy::BinomialPool,
            3 => Strategy::LockStep,
            _ => Strategy::Windows,
        };
        let floor = Floor { packets: floor, windows: floor_windows, budget: loop_budget };
        let times = Times { window, max_delay, floor, strategy };
        let mix = Mix::new(schedule, times, now, rng);
        Self {
            schedule,
            mix,
            accepted: Vec::new(),
            changes_at: None,
            latest: None,
            taken: 0,
            siege: Siege::new(schedule),
            traffic: Traffic::default(),
            streams: Streams::default(),
        }
    }

    // Keys.

    pub(crate) fn insert_key(&mut self, key: Arc<EpochKey>, seen: BTreeSet<ReplayTag>) {
        self.mix.insert_key(key, seen);
    }

    pub(crate) fn withdraw(&mut self, epoch: Epoch) {
        self.mix.withdraw(epoch);
    }

    pub(crate) fn key(&self, epoch: Epoch) -> Option<&Arc<EpochKey>> {
        self.mix.key(epoch)
    }

    pub(crate) fn oldest_key(&self) -> Option<Epoch> {
        self.mix.epochs().next()
    }

    /// Destroys the keys of the epochs before this one, with their tags; returns whether there were
    /// any.
    pub(crate) fn forget_before(&mut self, oldest: Epoch) -> bool {
        !self.mix.forget_before(oldest).is_empty()
    }

    /// Announces which keys packets are opened with, if that has changed.
    pub(crate) fn offer_keys(&mut self, now: Time, out: &mut Out) {
        let accepts = |epoch: &Epoch| self.schedule.accepts(*epoch, now);
        let accepted: Vec<_> = self.mix.epochs().filter(accepts).collect();
        let bounds = self.mix.epochs().flat_map(|epoch| {
            [self.schedule.accepted_from(epoch), self.schedule.accepted_until(epoch)]
        });
        self.changes_at = bounds.filter(|at| *at > now).min();
        if self.accepted != accepted {
            out.push(Command::Accept(self.mix.accepting(now)));
            self.accepted = accepted;
        }
    }

    // Packets.

    /// Takes what came of opening a packet. `known` says whether a node has a live record.
    pub(crate) fn handle_peeled(
        &mut self,
        peeled: Result<Peeled, Refusal>,
        from: NodeId,
        now: Time,
        known: impl Fn(&NodeId) -> bool,
        out: &mut Out,
    ) {
        out.count(Count::PacketReceived);
        let dropped = match peeled {
            Ok(peeled) => {
                let epoch = peeled.epoch;
                match self.mix.handle_peeled(peeled, from, now, known) {
                    Ok(()) => {
                        self.taken = self.taken.saturating_add(1);
                        None
                    }
                    Err(mix::MixRefusal::Epoch) => Some(self.missed(epoch, now)),
                    Err(why) => Some(why.into()),
                }
            }
            Err(Refusal::Epoch(epoch)) => Some(self.missed(epoch, now)),
            Err(refusal) => Some(refusal.into()),
        };
        if let Some(why) = dropped {
            out.count(Count::PacketDropped(why));
        }
        for _ in 0..self.mix.take_displaced() {
            out.count(Count::PacketDropped(Dropped::PoolFull));
        }
        self.keep_tags(out);
    }

    /// Why there is no key for a packet of this epoch.
    fn missed(&mut self, epoch: Epoch, now: Time) -> Dropped {
        let end = self.schedule.accepted_until(epoch);
        if now < self.schedule.accepted_from(epoch) {
            Dropped::Early
        } else if now < end {
            Dropped::NoKey
        } else {
            // The epoch is the packet's own word, which nothing authenticates without a key.
            if now.since(end) <= self.schedule.hour() * LATEST_HOURS {
                self.latest = self.latest.max(Some(now.since(end)));
            }
            Dropped::Late
        }
    }

    /// How long after the end of its key the latest packet came.
    pub(crate) fn latest(&self) -> Option<Duration> {
        self.latest
    }

    pub(crate) fn handle_tags_kept(&mut self, batch: u64, now: Time, out: &mut Out) {
        self.mix.handle_kept(batch, now);
        self.keep_tags(out);
    }

    pub(crate) fn handle_tags_lost(&mut self, batch: u64, out: &mut Out) {
        for _ in 0..self.mix.handle_keep_failed(batch) {
            out.count(Count::PacketDropped(Dropped::NotKept));
        }
        self.keep_tags(out);
    }

    fn keep_tags(&mut self, out: &mut Out) {
        if let Some(tags) = self.mix.next_tags() {
            out.push(Command::KeepTags(tags));
        }
    }

    // Time.

    /// The clock jumped: see [`Mix::handle_clock_jump`].
    pub(crate) fn handle_clock_jump(&mut self, millis: i64, now: Time, out: &mut Out) {
        self.mix.handle_clock_jump(millis);
        self.streams.handle_clock_jump(millis);
        self.siege.handle_clock_jump(millis);
        self.offer_keys(now, out);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        [self.mix.poll_timeout(), self.changes_at, self.streams.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        if self.changes_at.is_some_and(|at| at <= now) {
            self.offer_keys(now, out);
        }
        self.mix.handle_timeout(now, rng);
        self.streams.handle_timeout(now, out);
    }

    /// Holds an answer that is made here, for a time drawn as senders draw it, like a packet that came
    /// to be passed on.
    pub(crate) fn hold_answer(
        &mut self,
        (to, packet): (NodeId, Packet),
        own: NodeId,
        due: Time,
    ) -> Result<(), NoRoom> {
        self.mix.hold(packet, to, own, due)
    }

    /// Sends on what leaves the mix by `now`, up to the next payload that ended here.
    pub(crate) fn next_arrival(
        &mut self,
        now: Time,
        known: impl Fn(&NodeId) -> bool,
        out: &mut Out,
    ) -> Option<Arrival> {
        while let Some(release) = self.mix.next_release(now) {
            match release {
                // Its record may have lapsed while the packet was held.
                Release::Forward { to, .. } if !known(&to) => {
                    out.count(Count::PacketDropped(Dropped::UnknownHop));
                }
                Release::Forward { to, packet } => {
                    let until = self.schedule.accepted_until(packet.epoch());
                    self.traffic.note(packet.class(), self.schedule.hour_at(now));
                    out.count(Count::PacketRelayed);
                    out.push(Command::Send { to, packet, until });
                }
                Release::End { kind: Kind::Deliver, payload } => {
                    return Some(Arrival::Mail(payload));
                }
                Release::Reply { name, payload } => return Some(Arrival::Reply(name, payload)),
                Release::Stream { token, name, payload } => {
                    self.streams.handle_packet(Handed { token, name, payload }, now, out);
                }
                Release::End { .. } => out.count(Count::CoverEnded),
            }
        }
        None
    }

    /// So many packets of each class make a round from now on, if the mix has rounds.
    pub(crate) fn set_rounds(&mut self, each: [u16; SizeClass::COUNT]) {
        self.mix.set_rounds(each);
    }

    /// Looks whether somebody keeps packets from this node, with how many of its loops have come back so
    /// far, and whether an outage explains that: then the mix keeps what has not been shuffled.
    pub(crate) fn look(&mut self, loops: u64, has_outage: bool, now: Time) {
        if let Some(keeps) = self.siege.look(self.taken, loops, has_outage, now) {
            self.mix.keep_until(now.plus(keeps));
        }
    }

    /// Whether that was so within the last hour.
    pub(crate) fn is_besieged(&self, now: Time) -> bool {
        self.siege.seen(now).is_some()
    }

    /// Whether this node's own packets leave with those of others.
    pub(crate) fn takes_own(&self) -> bool {
        self.mix.takes_own()
    }

    /// The loops with which batches are to be filled up.
    pub(crate) fn take_top_ups(&mut self, out: &mut Out) -> Vec<TopUp> {
        let (top_ups, lonely) = self.mix.take_orders();
        if lonely > 0 {
            out.count_many(Count::PacketLonely, u64::try_from(lonely).unwrap_or(u64::MAX));
        }
        top_ups
    }

    /// The end of any one window of the mix.
    pub(crate) fn phase(&self) -> Option<Time> {
        self.mix.phase()
    }

    /// Packets of each class that were passed on in the last whole hour.
    pub(crate) fn traffic(&self, now: Time) -> ByClass {
        self.traffic.last(self.schedule.hour_at(now))
    }

    // Streams of peers without an address.

    /// A peer presents tokens on a stream.
    pub(crate) fn handle_stream_opened(
        &mut self,
        stream: StreamId,
        tokens: &[StreamToken],
        now: Time,
        out: &mut Out,
    ) {
        self.streams.handle_opened(stream, tokens, now, out);
    }

    /// The peer has taken the oldest that its stream was handed.
    pub(crate) fn handle_stream_taken(&mut self, stream: StreamId, out: &mut Out) {
        self.streams.handle_taken(stream, out);
    }

    /// A stream ended; what its peer has not taken waits for another.
    pub(crate) fn handle_stream_ended(
        &mut self,
        stream: StreamId,
        left: Vec<Handed>,
        now: Time,
        out: &mut Out,
    ) {
        self.streams.handle_ended(stream, left, now, out);
    }

    /// Packets that wait for a stream, or for their receipt on one.
    pub(crate) fn for_streams(&self) -> usize {
        self.streams.held()
    }

    /// Packets held.
    pub(crate) fn held(&self) -> usize {
        self.mix.held()
    }
}

#[cfg(test)]
mod tests {
    use keys::{Identity, MixSecret};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use record::{Parameters, testing};
    use sphinx::{Layer, Packet, ReplayTag, SizeClass};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FROM: NodeId = NodeId::from_bytes([7; 32]);

    fn relay() -> (Relay, Schedule, Time) {
        let parameters = Parameters::main().quiet();
        let (schedule, mixing) = (parameters.schedule(), parameters.mixing);
        let now = schedule.start(Epoch::new(1000)).plus(SECOND * 3600);
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        (Relay::new(schedule, &mixing, now, rng), schedule, now)
    }

    fn key(number: u32) -> Arc<EpochKey> {
        let (node, epoch) = (Identity::from_seed(&[1; 32]).node(), Epoch::new(number));
        Arc::new(EpochKey::new(node, epoch, MixSecret::from_seed(&testing::seed(1, epoch))))
    }

    fn printed(out: &mut Out) -> Vec<String> {
        core::iter::from_fn(|| out.next()).map(|command| format!("{command:?}")).collect()
    }

    #[test]
    fn what_finds_no_room_or_has_to_go_for_others_is_counted() {
        let (mut relay, _, now) = relay();
        relay.insert_key(key(1000), BTreeSet::new());
        let (to, mut out) = (NodeId::from_bytes([9; 32]), Out::default());
        let mut number = 0_u64;
        let mut come = |relay: &mut Relay, from: u8, out: &mut Out| {
            number += 1;
            let mut tag = [0; ReplayTag::LEN];
            tag[..8].copy_from_slice(&number.to_be_bytes());
            let packet = vec![0; SizeClass::LARGEST.packet_len()];
            let packet = Packet::from_octets(packet).unwrap();
            let outcome = Ok(Layer::Forward { to, delay: SECOND, packet });
            let (epoch, tag) = (Epoch::new(1000), ReplayTag::from_bytes(tag));
            let peeled = Ok(Peeled { tag, epoch, outcome });
            relay.handle_peeled(peeled, NodeId::from_bytes([from; 32]), now, |_| true, out);
            // The disk is fast.
            while let Some(command) = out.next() {
                if let Command::KeepTags(tags) = command {
                    relay.handle_tags_kept(tags.batch, now, out);
                }
            }
            out.counts.get(Count::PacketDropped(Dropped::PoolFull))
        };
        let mut from_one = 0;
        while come(&mut relay, 1, &mut out) == 0 {
            from_one += 1;
        }
        assert!(from_one > 100, "it has its share");
        for from in 2..=8 {
            for _ in 0..from_one {
                assert_eq!(come(&mut relay, from, &mut out), 1);
            }
        }
        let held = relay.held();
        assert_eq!(come(&mut relay, 99, &mut out), 2, "another had to go");
        assert_eq!(relay.held(), held);
    }

    #[test]
    fn keys_are_said_when_they_change_and_not_again() {
        let (mut relay, schedule, now) = relay();
        let mut out = Out::default();
        relay.offer_keys(now, &mut out);
        assert_eq!((printed(&mut out), relay.poll_timeout()), (vec![], None));
        for number in 1000..1003 {
            relay.insert_key(key(number), BTreeSet::new());
        }
        relay.offer_keys(now, &mut out);
        assert_eq!(printed(&mut out), ["Accept[1000]"]);
        relay.offer_keys(now, &mut out);
        assert_eq!(printed(&mut out), [""; 0]);
        let from = schedule.accepted_from(Epoch::new(1001));
        assert_eq!(relay.poll_timeout(), Some(from));
        let rng = &mut ChaCha20Rng::seed_from_u64(2);
        relay.handle_timeout(from, rng, &mut out);
        assert_eq!(printed(&mut out), ["Accept[1000, 1001]"]);
        assert_eq!(relay.poll_timeout(), Some(schedule.accepted_until(Epoch::new(1000))));
        relay.withdraw(Epoch::new(1001));
        relay.offer_keys(from, &mut out);
        assert_eq!(printed(&mut out), ["Accept[1000]"]);
        assert_eq!(relay.oldest_key(), Some(Epoch::new(1000)));
        assert!(relay.forget_before(Epoch::new(1001)) && !relay.forget_before(Epoch::new(1001)));
    }

    #[test]
    fn late_is_told_from_early_and_from_a_missing_key_and_measured() {
        let (mut relay, schedule, now) = relay();
        let mut out = Out::default();
        let until = schedule.accepted_until(Epoch::new(999));
        let from = schedule.accepted_from(Epoch::new(1001));
        let longest = schedule.hour() * LATEST_HOURS;
        for (epoch, at, why, latest) in [
            (999, until.minus(Duration::from_millis(1)), Dropped::NoKey, None),
            (1001, from.minus(Duration::from_millis(1)), Dropped::Early, None),
            (1001, from, Dropped::NoKey, None),
            (1000, now, Dropped::NoKey, None),
            (999, until, Dropped::Late, Some(Duration::ZERO)),
            (999, until.plus(SECOND * 7), Dropped::Late, Some(SECOND * 7)),
            (999, until.plus(SECOND), Dropped::Late, Some(SECOND * 7)),
            (0, until, Dropped::Late, Some(SECOND * 7)),
            (999, until.plus(longest + SECOND), Dropped::Late, Some(SECOND * 7)),
            (999, until.plus(longest), Dropped::Late, Some(longest)),
        ] {
            let before = out.counts.get(Count::PacketDropped(why));
            let refused = Err(Refusal::Epoch(Epoch::new(epoch)));
            relay.handle_peeled(refused, FROM, at, |_| true, &mut out);
            assert_eq!(out.counts.get(Count::PacketDropped(why)), before + 1, "{epoch} {at:?}");
            assert_eq!(relay.latest(), latest);
        }
        assert_eq!(out.counts.get(Count::PacketReceived), 10);
    }

    #[test]
    fn a_packet_goes_no_further_if_the_record_of_its_next_hop_lapsed_while_it_was_held() {
        for (lapses, sent) in [(false, 1), (true, 0)] {
            let (mut relay, schedule, now) = relay();
            let (mut out, rng) = (Out::default(), &mut ChaCha20Rng::seed_from_u64(3));
            relay.insert_key(key(1000), BTreeSet::new());
            let octets = vec![0; SizeClass::SMALLEST.packet_len()];
            let packet = Packet::from_octets(octets).unwrap();
            let (to, delay) = (NodeId::from_bytes([2; 32]), SECOND);
            let outcome = Ok(Layer::Forward { to, delay, packet });
            let tag = ReplayTag::from_bytes([1; 16]);
            let peeled = Peeled { tag, epoch: Epoch::new(1000), outcome };
            relay.handle_peeled(Ok(peeled), FROM, now, |_| true, &mut out);
            let Some(Command::KeepTags(tags)) = out.next() else { panic!("tags are kept") };
            relay.handle_tags_kept(tags.batch, now, &mut out);
            while let Some(at) = relay.mix.poll_timeout() {
                assert!(at < schedule.accepted_until(Epoch::new(1000)));
                relay.handle_timeout(at, rng, &mut out);
                assert!(relay.next_arrival(at, |_| !lapses, &mut out).is_none());
            }
            assert_eq!(printed(&mut out).len(), sent);
            let dropped = Count::PacketDropped(Dropped::UnknownHop);
            assert_eq!(out.counts.get(dropped), u64::from(lapses));
        }
    }
}

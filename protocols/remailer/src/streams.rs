//! Packets for peers that have no address of their own: handed over on the open stream that presented
//! their token, or kept for a while until one does.
//!
//! A peer chooses its tokens at random and names one in each reply block that it gives away. It
//! presents several on one stream: a new one, and old ones that blocks still name.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use keys::Time;
use sphinx::{BlockName, Payload, StreamToken};

use crate::command::{Command, Out};
use crate::count::{Count, Dropped};
use crate::ids::StreamId;

/// Tokens that one stream presents, at most.
pub const MAX_TOKENS: usize = 8;
/// What is handed over on one stream without a receipt yet, at most.
const WINDOW: usize = 16;
/// How long a packet is kept for a token that no stream presents, and how long a token is known after
/// its stream.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// How often what is past is looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// Octets kept for one token, at most; the oldest makes room.
const MAX_OCTETS: usize = 2 << 20;
/// Octets kept for all tokens. Above that the oldest packet of one line goes: of a line that no stream
/// ever presented before any other, and of these of the one that keeps most.
const MAX_OCTETS_IN_ALL: usize = 64 << 20;
/// Tokens known at once. One for which nothing waits makes room first, then one that was never
/// presented, then the one whose stream ended first.
const MAX_LINES: usize = 4096;

/// What is handed over to a stream.
#[derive(PartialEq)]
pub struct Handed {
    /// The token that it is for.
    pub token: StreamToken,
    /// The name of the reply block that it answers, if it is an answer.
    pub name: Option<BlockName>,
    /// What the packet carried.
    pub payload: Payload,
}

/// The tokens that peers presented, and what waits for them.
#[derive(Default)]
pub(crate) struct Streams {
    lines: BTreeMap<StreamToken, Line>,
    /// What each open stream was handed without a receipt: octets by token.
    open: BTreeMap<StreamId, VecDeque<(StreamToken, usize)>>,
    sweep_at: Option<Time>,
    octets: usize,
}

#[derive(Default)]
struct Line {
    stream: Option<StreamId>,
    was_presented: bool,
    /// When its stream ended, or its first packet came.
    since: Time,
    kept: VecDeque<(Time, Handed)>,
    octets: usize,
}

impl Streams {
    /// Takes a packet for a token.
    pub(crate) fn handle_packet(&mut self, handed: Handed, now: Time, out: &mut Out) {
        if handed.payload.len() > MAX_OCTETS {
            return out.count(Count::PacketDropped(Dropped::NoStream));
        }
        let token = handed.token;
        self.keep(now, handed, out);
        self.hand_over(token, out);
        self.make_room(out);
        self.sweep_at.get_or_insert(now.plus(SWEEP));
    }

    /// A peer presents tokens on a stream. An older stream that presented one of them has it no longer.
    pub(crate) fn handle_opened(
        &mut self,
        stream: StreamId,
        tokens: &[StreamToken],
        now: Time,
        out: &mut Out,
    ) {
        self.open.entry(stream).or_default();
        for token in tokens.iter().take(MAX_TOKENS) {
            let line = self.lines.entry(*token).or_default();
            (line.stream, line.was_presented, line.since) = (Some(stream), true, now);
            self.hand_over(*token, out);
        }
        self.make_room(out);
        self.sweep_at.get_or_insert(now.plus(SWEEP));
    }

    /// The peer has taken the oldest that its stream was handed.
    pub(crate) fn handle_taken(&mut self, stream: StreamId, out: &mut Out) {
        let Some((token, octets)) = self.open.get_mut(&stream).and_then(VecDeque::pop_front) else {
            return;
        };
        out.count(Count::PacketHandedOver);
        self.free(token, octets);
        let own = self.lines.iter().filter(|(_, line)| line.stream == Some(stream));
        let waiting: Vec<_> =
            own.filter(|(_, line)| !line.kept.is_empty()).map(|(token, _)| *token).collect();
        for token in waiting {
            self.hand_over(token, out);
        }
    }

    /// A stream ended; what its peer has not taken is kept again.
    pub(crate) fn handle_ended(
        &mut self,
        stream: StreamId,
        left: Vec<Handed>,
        now: Time,
        out: &mut Out,
    ) {
        for (token, octets) in self.open.remove(&stream).unwrap_or_default() {
            self.free(token, octets);
        }
        for line in self.lines.values_mut().filter(|line| line.stream == Some(stream)) {
            (line.stream, line.since) = (None, now);
        }
        for handed in left {
            let token = handed.token;
            self.keep(now, handed, out);
            // Another stream may have presented the token since.
            self.hand_over(token, out);
        }
        self.make_room(out);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.sweep_at
    }

    /// Drops what has been kept for too long, and forgets tokens.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Out) {
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        for line in self.lines.values_mut() {
            while line.kept.front().is_some_and(|(since, _)| since.plus(KEPT_FOR) <= now) {
                self.octets = self.octets.saturating_sub(line.drop_oldest());
                out.count(Count::PacketDropped(Dropped::NoStream));
            }
        }
        self.lines.retain(|_, line| {
            line.stream.is_some() || line.octets > 0 || line.since.plus(KEPT_FOR) > now
        });
        self.sweep_at = (!self.lines.is_empty()).then(|| now.plus(SWEEP));
    }

    /// The clock jumped: what waits goes on waiting for as long as it had to.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        self.sweep_at = self.sweep_at.map(|at| at.shifted(millis));
        for line in self.lines.values_mut() {
            line.since = line.since.shifted(millis);
            for (since, _) in &mut line.kept {
                *since = since.shifted(millis);
            }
        }
    }

    /// Packets kept for tokens, handed over or not.
    pub(crate) fn held(&self) -> usize {
        let kept: usize = self.lines.values().map(|line| line.kept.len()).sum();
        self.open.values().map(VecDeque::len).sum::<usize>().saturating_add(kept)
    }

    fn keep(&mut self, now: Time, handed: Handed, out: &mut Out) {
        let octets = handed.payload.len();
        let line = self
            .lines
            .entry(handed.token)
            .or_insert_with(|| Line { since: now, ..Line::default() });
        line.kept.push_back((now, handed));
        line.octets = line.octets.saturating_add(octets);
        self.octets = self.octets.saturating_add(octets);
        while line.octets > MAX_OCTETS && !line.kept.is_empty() {
            self.octets = self.octets.saturating_sub(line.drop_oldest());
            out.count(Count::PacketDropped(Dropped::StreamFull));
        }
    }

    /// Hands over what is kept for a token, as far as its stream has a window for it.
    fn hand_over(&mut self, token: StreamToken, out: &mut Out) {
        let Some(line) = self.lines.get_mut(&token) else { return };
        let Some(stream) = line.stream else { return };
        let Some(handed) = self.open.get_mut(&stream) else { return };
        while handed.len() < WINDOW {
            let Some((_, next)) = line.kept.pop_front() else { return };
            handed.push_back((token, next.payload.len()));
            out.push(Command::HandOver(stream, next));
        }
    }

    /// What has been handed over counts until its peer has taken it.
    fn free(&mut self, token: StreamToken, octets: usize) {
        self.octets = self.octets.saturating_sub(octets);
        if let Some(line) = self.lines.get_mut(&token) {
            line.octets = line.octets.saturating_sub(octets);
        }
    }

    fn make_room(&mut self, out: &mut Out) {
        while self.octets > MAX_OCTETS_IN_ALL {
            let lines = self.lines.values_mut().filter(|line| !line.kept.is_empty());
            let worst = lines.max_by_key(|line| (!line.was_presented, line.octets));
            // What has been handed over cannot be taken back.
            let Some(worst) = worst else { break };
            self.octets = self.octets.saturating_sub(worst.drop_oldest());
            out.count(Count::PacketDropped(Dropped::StreamFull));
        }
        while self.lines.len() > MAX_LINES {
            let idle = self.lines.iter().filter(|(_, line)| line.is_idle());
            let worst = idle
                .min_by_key(|(_, line)| (!line.kept.is_empty(), line.was_presented, line.since));
            let Some(token) = worst.map(|(token, _)| *token) else { break };
            let Some(line) = self.lines.remove(&token) else { break };
            self.octets = self.octets.saturating_sub(line.octets);
            out.count_many(Count::PacketDropped(Dropped::StreamFull), line.kept.len() as u64);
        }
    }
}

impl Line {
    /// No stream has its token, and none was handed anything that it has not taken.
    fn is_idle(&self) -> bool {
        let kept: usize = self.kept.iter().map(|(_, handed)| handed.payload.len()).sum();
        self.stream.is_none() && self.octets == kept
    }

    /// Returns the octets that this frees.
    fn drop_oldest(&mut self) -> usize {
        let octets = self.kept.pop_front().map_or(0, |(_, handed)| handed.payload.len());
        self.octets = self.octets.saturating_sub(octets);
        octets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sphinx::SizeClass;

    use super::*;

    const START: Time = Time::from_millis(1_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn token(number: u16) -> StreamToken {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&number.to_be_bytes());
        StreamToken::from_bytes(octets)
    }

    fn packet(to: u16, mark: u8, class: SizeClass) -> Handed {
        let mut octets = vec![0; class.payload_len()];
        octets[0] = mark;
        Handed { token: token(to), name: None, payload: Payload::from_octets(octets).unwrap() }
    }

    fn small(to: u16, mark: u8) -> Handed {
        packet(to, mark, SizeClass::SMALLEST)
    }

    #[derive(Default)]
    struct Field {
        streams: Streams,
        out: Out,
        handed: Vec<(StreamId, Handed)>,
    }

    impl Field {
        /// Does something, and returns the marks of what was handed over by it.
        fn after(&mut self, act: impl FnOnce(&mut Streams, &mut Out)) -> Vec<(u64, u8)> {
            act(&mut self.streams, &mut self.out);
            let mut marks = Vec::new();
            while let Some(command) = self.out.next() {
                let Command::HandOver(stream, handed) = command else { panic!("{command:?}") };
                marks.push((stream.0, handed.payload.octets()[0]));
                self.handed.push((stream, handed));
            }
            marks
        }

        fn dropped(&self, why: Dropped) -> u64 {
            self.out.counts.get(Count::PacketDropped(why))
        }
    }

    #[test]
    fn a_packet_waits_ten_minutes_for_a_stream_with_its_token() {
        let mut field = Field::default();
        let (first, second) = (StreamId(1), StreamId(2));
        assert!(field.after(|s, out| s.handle_packet(small(1, 7), START, out)).is_empty());
        let late = START.plus(MINUTE * 9);
        let opened = field.after(|s, out| s.handle_opened(first, &[token(9), token(1)], late, out));
        assert_eq!(opened, [(1, 7)]);
        let next = field.after(|s, out| s.handle_packet(small(9, 8), late, out));
        assert_eq!(next, [(1, 8)]);
        assert_eq!(field.streams.held(), 2);
        field.after(|s, out| s.handle_taken(first, out));
        assert_eq!((field.streams.held(), field.out.counts.get(Count::PacketHandedOver)), (1, 1));

        // What was handed over and not taken goes to the next stream with its token.
        let left = field.handed.pop().unwrap().1;
        assert!(field.after(|s, out| s.handle_ended(first, vec![left], late, out)).is_empty());
        let again = field.after(|s, out| s.handle_opened(second, &[token(9)], late, out));
        assert_eq!(again, [(2, 8)]);
        // A stream that has ended takes nothing.
        assert!(field.after(|s, out| s.handle_packet(small(1, 9), late, out)).is_empty());
        field.after(|s, out| s.handle_taken(first, out));
        let over = late.plus(MINUTE * 10).plus(SWEEP);
        assert!(field.streams.poll_timeout().unwrap() < over);
        field.after(|s, out| s.handle_timeout(over, out));
        assert_eq!((field.dropped(Dropped::NoStream), field.streams.held()), (1, 1));
        field.after(|s, out| s.handle_taken(second, out));
        field.after(|s, out| s.handle_ended(second, Vec::new(), over, out));
        field.after(|s, out| s.handle_timeout(over.plus(MINUTE * 11), out));
        assert_eq!((field.streams.octets, field.streams.lines.len()), (0, 0));
        assert_eq!(field.streams.poll_timeout(), None);
    }

    #[test]
    fn of_two_streams_with_one_token_the_later_one_is_handed_what_comes() {
        let mut field = Field::default();
        for stream in [1, 2] {
            field.after(|s, out| s.handle_opened(StreamId(stream), &[token(1)], START, out));
        }
        let handed = field.after(|s, out| s.handle_packet(small(1, 7), START, out));
        assert_eq!(handed, [(2, 7)]);
        field.after(|s, out| s.handle_ended(StreamId(1), Vec::new(), START, out));
        assert_eq!(field.after(|s, out| s.handle_packet(small(1, 8), START, out)), [(2, 8)]);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_handed_no_more_than_its_window() {
        let mut field = Field::default();
        field.after(|s, out| s.handle_opened(StreamId(1), &[token(1)], START, out));
        for mark in 0..40 {
            field.after(|s, out| s.handle_packet(small(1, mark), START, out));
        }
        assert_eq!((field.handed.len(), field.streams.held()), (WINDOW, 40));
        assert_eq!(field.after(|s, out| s.handle_taken(StreamId(1), out)), [(1, 16)]);
        for mark in 40..=255 {
            field.after(|s, out| s.handle_packet(small(1, mark), START, out));
        }
        let kept = field.streams.octets;
        assert!(kept <= MAX_OCTETS && kept + 2 * SizeClass::SMALLEST.payload_len() > MAX_OCTETS);
        assert!(field.dropped(Dropped::StreamFull) > 0);
    }

    /// Packets for tokens that nobody presents, or for an attacker's own, do not push out what waits
    /// for a peer that was here.
    #[test]
    fn a_flood_of_packets_takes_its_own_room() {
        let mut field = Field::default();
        field.after(|s, out| s.handle_opened(StreamId(1), &[token(1)], START, out));
        field.after(|s, out| s.handle_ended(StreamId(1), Vec::new(), START, out));
        field.after(|s, out| s.handle_packet(small(1, 7), START, out));
        for number in 100..6000 {
            field.after(|s, out| s.handle_packet(small(number, 9), START, out));
        }
        for number in 2..60 {
            field.after(|s, out| s.handle_opened(StreamId(2), &[token(number)], START, out));
            for _ in 0..12 {
                let large = packet(number, 9, SizeClass::LARGEST);
                field.after(|s, out| s.handle_packet(large, START, out));
            }
        }
        assert!(field.streams.octets <= MAX_OCTETS_IN_ALL + WINDOW * 256 * 1024);
        assert!(field.streams.lines.len() <= MAX_LINES);
        let opened = field.after(|s, out| s.handle_opened(StreamId(3), &[token(1)], START, out));
        assert_eq!(opened, [(3, 7)]);
    }

    proptest! {
        /// Whatever streams and packets come and go: each packet is handed over at most once to a
        /// stream that presented its token, or counted, or still held; and octets add up.
        #[test]
        fn nothing_is_lost_uncounted(
            acts in prop::collection::vec((0_u8..5, 0_u16..4, 0_u64..4), 1..200),
        ) {
            let mut field = Field::default();
            let (mut sent, mut now) = (0_u64, START);
            let mut untaken: BTreeMap<u64, VecDeque<Handed>> = BTreeMap::new();
            let (mut open, mut serial) = (BTreeMap::new(), 0);
            for (act, number, which) in acts {
                now = now.plus(Duration::from_secs(20));
                match act {
                    0 | 1 => {
                        sent += 1;
                        field.after(|s, out| s.handle_packet(small(number, 1), now, out));
                    }
                    2 => {
                        serial += 1;
                        open.insert(which, serial);
                        field.after(|s, out| s.handle_opened(StreamId(serial), &[token(number)], now, out));
                    }
                    3 => if let Some(stream) = open.remove(&which) {
                        let left = untaken.remove(&stream).unwrap_or_default();
                        field.after(|s, out| s.handle_ended(StreamId(stream), left.into(), now, out));
                    },
                    _ => if let Some(stream) = open.get(&which) {
                        if untaken.get_mut(stream).and_then(VecDeque::pop_front).is_some() {
                            field.after(|s, out| s.handle_taken(StreamId(*stream), out));
                        }
                        field.after(|s, out| s.handle_timeout(now, out));
                    },
                }
                for (stream, handed) in field.handed.drain(..) {
                    untaken.entry(stream.0).or_default().push_back(handed);
                }
                let taken = field.out.counts.get(Count::PacketHandedOver);
                let lost = field.dropped(Dropped::NoStream) + field.dropped(Dropped::StreamFull);
                prop_assert_eq!(sent, taken + lost + field.streams.held() as u64);
                let payload = SizeClass::SMALLEST.payload_len();
                prop_assert_eq!(field.streams.octets, field.streams.held() * payload);
            }
        }
    }
}

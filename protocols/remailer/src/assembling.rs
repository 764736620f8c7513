//! Pieces of messages at an exit, until there are enough of each.
//!
//! Whoever sends a piece is unknown, and may send the rest or not. So what waits is bounded in
//! octets, and the message whose latest piece came longest ago goes first: one that is under way gets
//! its next piece soon.

use std::collections::{BTreeMap, BTreeSet};

use keys::Time;
use mail::{Assembly, Fragment, FragmentError, Piece};
use sphinx::ReplyBlock;

use crate::command::Out;
use crate::count::{Count, NotDelivered};

/// Octets of pieces that wait for others, at most: six of the largest messages.
const MAX_OCTETS: usize = 64 << 20;
/// Messages of which some pieces are here, at most.
const MAX_MESSAGES: usize = 1024;
/// Octets that a message costs beside its pieces: its reply block, and places in maps.
const OVERHEAD: usize = 8 * 1024;

pub(crate) type Name = [u8; 16];

/// What an exit has of messages that took several packets.
pub(crate) struct Assembling {
    /// Octets of a piece, at least.
    least: usize,
    under_way: BTreeMap<Name, UnderWay>,
    /// When each is given up.
    ends: BTreeSet<(Time, Name)>,
    octets: usize,
    /// What is answered for messages that are given up, until [`Assembling::take_given_up`].
    given_up: Vec<ReplyBlock>,
    /// Blocks of messages that are answered for by another.
    spare: Vec<ReplyBlock>,
}

struct UnderWay {
    assembly: Assembly,
    block: Option<ReplyBlock>,
    /// When its latest piece came, and when it is given up.
    latest: Time,
    until: Time,
}

impl UnderWay {
    fn octets(&self) -> usize {
        self.assembly.octets().saturating_add(OVERHEAD)
    }
}

/// A message that is whole, and what it is answered with.
pub(crate) struct Whole {
    pub(crate) fragment: Fragment,
    pub(crate) block: Option<ReplyBlock>,
    pub(crate) name: Name,
}

impl Assembling {
    /// For pieces of at least so many octets: an honest sender cuts a message into as few as there can
    /// be, and small ones would push out large ones for nothing.
    pub(crate) fn new(least: usize) -> Self {
        Self {
            least,
            under_way: BTreeMap::new(),
            ends: BTreeSet::new(),
            octets: 0,
            given_up: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Takes a piece; the message, if it is whole now. What has waited by `until` is given up.
    ///
    /// # Errors
    /// Why the piece, or the whole message, is dropped; with what the message is answered with.
    pub(crate) fn take(
        &mut self,
        piece: Piece,
        block: Option<ReplyBlock>,
        (now, until): (Time, Time),
        out: &mut Out,
    ) -> Result<Option<Whole>, (FragmentError, Option<ReplyBlock>)> {
        let name = piece.delivery();
        if !piece.is_whole() && piece.len() < self.least {
            return Err((FragmentError::Malformed, block));
        }
        let Some(known) = self.under_way.get_mut(&name) else {
            let assembly = Assembly::begin(piece);
            return self.insert(name, UnderWay { assembly, block, latest: now, until }, out);
        };
        let before = known.octets();
        known.assembly.add(piece).map_err(|why| (why, None))?;
        known.latest = now;
        match &known.block {
            Some(_) => self.spare.extend(block),
            None => known.block = block,
        }
        self.octets = self.octets.saturating_add(known.octets().saturating_sub(before));
        self.finish_or_wait(name, out)
    }

    fn insert(
        &mut self,
        name: Name,
        begun: UnderWay,
        out: &mut Out,
    ) -> Result<Option<Whole>, (FragmentError, Option<ReplyBlock>)> {
        self.octets = self.octets.saturating_add(begun.octets());
        self.ends.insert((begun.until, name));
        self.under_way.insert(name, begun);
        self.finish_or_wait(name, out)
    }

    fn finish_or_wait(
        &mut self,
        name: Name,
        out: &mut Out,
    ) -> Result<Option<Whole>, (FragmentError, Option<ReplyBlock>)> {
        if self.under_way.get(&name).is_some_and(|known| known.assembly.is_complete()) {
            let Some(UnderWay { assembly, block, .. }) = self.remove(&name) else {
                return Ok(None);
            };
            return match assembly.finish() {
                Ok(fragment) => Ok(Some(Whole { fragment, block, name })),
                Err(why) => Err((why, block)),
            };
        }
        while self.octets > MAX_OCTETS || self.under_way.len() > MAX_MESSAGES {
            let stalest = self.under_way.iter().min_by_key(|(_, known)| known.latest);
            let Some(stalest) = stalest.map(|(name, _)| *name) else { break };
            self.give_up(&stalest, out);
        }
        Ok(None)
    }

    fn remove(&mut self, name: &Name) -> Option<UnderWay> {
        let removed = self.under_way.remove(name)?;
        self.ends.remove(&(removed.until, *name));
        self.octets = self.octets.saturating_sub(removed.octets());
        Some(removed)
    }

    /// When the next one is given up.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Gives up messages whose pieces cannot come any more.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Out) {
        while let Some((until, name)) = self.ends.first().copied()
            && until <= now
        {
            self.give_up(&name, out);
        }
    }

    fn give_up(&mut self, name: &Name, out: &mut Out) {
        let removed = self.remove(name);
        self.given_up.extend(removed.and_then(|removed| removed.block));
        out.count(Count::MessageDropped(NotDelivered::Incomplete));
    }

    /// Blocks of messages that are answered for by another, each told once.
    pub(crate) fn take_spare(&mut self) -> Vec<ReplyBlock> {
        core::mem::take(&mut self.spare)
    }

    /// What is answered for messages that were given up, each told once.
    pub(crate) fn take_given_up(&mut self) -> Vec<ReplyBlock> {
        core::mem::take(&mut self.given_up)
    }

    /// The clock jumped: what waits goes on waiting for as long as it had to.
    pub(crate) fn shift(&mut self, millis: i64) {
        for known in self.under_way.values_mut() {
            known.latest = known.latest.shifted(millis);
            known.until = known.until.shifted(millis);
        }
        let before = core::mem::take(&mut self.ends).into_iter();
        self.ends = before.map(|(until, name)| (until.shifted(millis), name)).collect();
    }

    /// Messages of which some pieces are here.
    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }

    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use mail::{Mailbox, Submission};

    use super::*;

    const ROOM: usize = 240_000;
    const LEAST: usize = ROOM / 2;
    const START: Time = Time::from_millis(1_000_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    /// A message of some pieces, of octets that no code makes shorter.
    fn pieces(number: u32, octets: usize) -> Vec<Piece> {
        let mut message = b"To: a@b.example\r\n\r\n".to_vec();
        let mut xof = blake3_lines(number, octets);
        message.append(&mut xof);
        let recipients = vec![Mailbox::parse("a@b.example").unwrap()];
        let scrubbed = mail::scrub(&Submission { recipients, message }).unwrap().pop().unwrap();
        let mut name = [0; 16];
        name[..4].copy_from_slice(&number.to_be_bytes());
        let fragment = Fragment::cut(scrubbed, name, name);
        let pieces = fragment.pieces(ROOM).unwrap();
        pieces.iter().map(|octets| Piece::decode(octets).unwrap()).collect()
    }

    fn blake3_lines(number: u32, octets: usize) -> Vec<u8> {
        use rand::{Rng as _, SeedableRng as _};
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(number.into());
        let mut line = [0; 76];
        let mut lines = Vec::with_capacity(octets + 80);
        while lines.len() < octets {
            rng.fill_bytes(&mut line);
            lines.extend(line.iter().map(|octet| (octet & 0x7f).max(32)));
            lines.extend_from_slice(b"\r\n");
        }
        lines
    }

    fn take(assembling: &mut Assembling, piece: Piece, now: Time, out: &mut Out) -> Option<usize> {
        let taken = assembling.take(piece, None, (now, now.plus(HOUR)), out);
        Some(taken.ok().unwrap()?.fragment.size())
    }

    #[test]
    fn pieces_make_a_message_as_soon_as_they_are_enough() {
        let (mut assembling, mut out) = (Assembling::new(LEAST), Out::default());
        let pieces = pieces(1, 1_000_000);
        let last = pieces.len() - 1;
        // A copy of one is none more.
        let twice = pieces.into_iter().chain(self::pieces(1, 1_000_000)).take(last + 1);
        let whole = twice.filter_map(|piece| take(&mut assembling, piece, START, &mut out));
        let whole: Vec<_> = whole.collect();
        assert_eq!(whole.len(), 1);
        assert!(whole[0] > 1_000_000);
    }

    /// Two octets that say to be one of 256 pieces cost a small packet.
    #[test]
    fn a_piece_that_is_smaller_than_it_must_be_is_none() {
        let (mut assembling, mut out) = (Assembling::new(LEAST), Out::default());
        let mut message = b"To: a@b.example\r\n\r\n".to_vec();
        message.append(&mut blake3_lines(3, 9000));
        let recipients = vec![Mailbox::parse("a@b.example").unwrap()];
        let scrubbed = mail::scrub(&Submission { recipients, message }).unwrap().pop().unwrap();
        let pieces = Fragment::cut(scrubbed, [1; 16], [1; 16]).pieces(4096).unwrap();
        let piece = Piece::decode(&pieces[0]).unwrap();
        let taken = assembling.take(piece, None, (START, START.plus(HOUR)), &mut out);
        assert!(taken.is_err() && assembling.len() == 0);
    }

    #[test]
    fn a_message_whose_pieces_do_not_come_is_given_up() {
        let (mut assembling, mut out) = (Assembling::new(LEAST), Out::default());
        take(&mut assembling, pieces(1, 1_000_000).remove(0), START, &mut out);
        let over = assembling.poll_timeout().unwrap();
        assembling.handle_timeout(over, &mut out);
        assert_eq!((assembling.len(), assembling.octets()), (0, 0));
        let incomplete = Count::MessageDropped(NotDelivered::Incomplete);
        assert_eq!(out.counts.get(incomplete), 1);
    }

    #[test]
    fn a_thousand_halves_take_their_room_and_honest_mail_comes_through() {
        let (mut assembling, mut out) = (Assembling::new(LEAST), Out::default());
        let halves = pieces(7, 3_000_000);
        let honest = pieces(1, 5_000_000);
        let gap = 1000_usize.div_ceil(honest.len());
        let mut honest = honest.into_iter();
        let (mut now, mut whole) = (START, 0);
        for number in 0..1000_u32 {
            now = now.plus(Duration::from_secs(1));
            for piece in pieces_of(&halves[..2], number) {
                take(&mut assembling, piece, now, &mut out);
            }
            if usize::try_from(number).unwrap().is_multiple_of(gap)
                && let Some(piece) = honest.next()
                && take(&mut assembling, piece, now, &mut out).is_some()
            {
                whole += 1;
            }
            assert!(assembling.octets() <= MAX_OCTETS);
        }
        assert_eq!(whole, 1);
        assert!(out.counts.get(Count::MessageDropped(NotDelivered::Incomplete)) > 800);
    }

    /// The same pieces under the name of another delivery.
    fn pieces_of(pieces: &[Piece], number: u32) -> Vec<Piece> {
        let renamed = pieces.iter().map(|piece| {
            let mut octets = piece.to_octets().unwrap().to_vec();
            octets[1..5].copy_from_slice(&(number + 1000).to_be_bytes());
            Piece::decode(&octets).unwrap()
        });
        renamed.collect()
    }
}

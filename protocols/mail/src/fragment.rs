//! What a packet carries of a message. `README.md` beside this crate gives the layout.
//!
//! Envelope, needs and header are inside what is cut, so that one piece of many tells nothing of
//! them. What does not fit one packet is compressed if that helps, and cut into pieces of which any
//! `needed` give the whole again (Reed-Solomon); a third more are made than are needed.

use std::collections::BTreeMap;

use bincode::config::{BigEndian, Configuration, Fixint, Limit};
use bincode::{Decode, Encode};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use crate::address::Domain;
use crate::scrub::{Envelope, MAX_RECIPIENTS, Needs, Scrubbed};

/// Octets of a message, header and body, at most.
pub const MAX_MESSAGE: usize = 10 << 20;
/// Octets of a fragment, at most: more than the largest packet carries.
pub const MAX_FRAGMENT: usize = 256 * 1024;
/// Octets of what is cut, at most: a message with its envelope.
const MAX_WHOLE: usize = MAX_MESSAGE + 64 * 1024;
/// Pieces of one message that give it again, at most.
const MAX_NEEDED: usize = 256;
/// Octets of an encoded piece beside the piece itself.
const AROUND_PIECE: usize = 1 + 16 + 3 * 2 + 4 + 8;
/// Of three pieces that are needed one more is made.
const REDUNDANCY: usize = 3;
/// A message is at most so many times as long as what it was deflated to: an exit inflates it while
/// others wait, and whoever sends much of nothing pays for its packets.
const MAX_RATIO: usize = 8;
/// How hard to try: more gains little for mail, and takes long for ten megabytes.
const COMPRESSION: u8 = 4;

const VERSION: u8 = 2;
const WHOLE_VERSION: u8 = 1;
const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;
const MAX_EXTENSIONS: usize = 16;

/// Why octets are not a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum FragmentError {
    /// More than a packet can carry.
    #[error("too long")]
    TooLong,
    /// Not the one encoding of a fragment.
    #[error("malformed")]
    Malformed,
    /// A version, encoding, need or number of pieces that this node does not know.
    #[error("unknown version")]
    Unknown,
    /// An envelope that no honest ingress makes.
    #[error("bad envelope")]
    Envelope,
    /// News, which this version does not deliver.
    #[error("news")]
    News,
    /// A piece that does not belong to others of its delivery.
    #[error("contradicts another piece")]
    Contradiction,
    /// Pieces that give no message.
    #[error("pieces give no message")]
    Pieces,
}

/// A scrubbed message on its way. Zeroized on drop.
#[derive(ZeroizeOnDrop)]
pub struct Fragment {
    delivery: [u8; 16],
    pub(crate) message_id: [u8; 16],
    #[zeroize(skip)]
    pub(crate) needs: Needs,
    pub(crate) envelope: Envelope,
    pub(crate) message: Vec<u8>,
}

impl Fragment {
    /// Cuts a scrubbed message. `delivery` names it: the same in every copy, another for each
    /// domain of a submission. `message_id` is the same for all domains of one submission and
    /// becomes its Message-ID.
    #[must_use]
    pub fn cut(mut scrubbed: Scrubbed, delivery: [u8; 16], message_id: [u8; 16]) -> Self {
        Self {
            delivery,
            message_id,
            needs: scrubbed.needs,
            envelope: scrubbed.envelope.clone(),
            message: core::mem::take(&mut scrubbed.message),
        }
    }

    /// The recipients that it is for.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// What delivering it needs.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Octets of header and body.
    #[must_use]
    pub fn size(&self) -> usize {
        self.message.len()
    }

    /// The octets of a message that is one piece: the same for the same fragment.
    ///
    /// # Errors
    /// [`FragmentError::TooLong`].
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, FragmentError> {
        Piece::only(self.delivery, self.whole(PLAIN, &self.message)?).to_octets()
    }

    /// The octets of as many pieces as it takes, each at most `room` long: one if the message fits,
    /// plain or else compressed; or else any `needed` of them give it again.
    ///
    /// # Errors
    /// [`FragmentError::TooLong`] for a message over [`MAX_MESSAGE`], or of too many pieces.
    pub fn pieces(&self, room: usize) -> Result<Vec<Zeroizing<Vec<u8>>>, FragmentError> {
        if self.message.len() > MAX_MESSAGE {
            return Err(FragmentError::TooLong);
        }
        let room = room.min(MAX_FRAGMENT).saturating_sub(AROUND_PIECE);
        let mut whole = self.whole(PLAIN, &self.message)?;
        if whole.len() > room {
            let deflated = miniz_oxide::deflate::compress_to_vec(&self.message, COMPRESSION);
            let deflated = Zeroizing::new(deflated);
            let is_allowed = deflated.len().saturating_mul(MAX_RATIO) >= self.message.len();
            if deflated.len() < self.message.len() && is_allowed {
                whole = self.whole(DEFLATED, &deflated)?;
            }
        }
        if whole.len() <= room {
            return Ok(vec![Piece::only(self.delivery, whole).to_octets()?]);
        }
        cut(self.delivery, &whole, room)
    }

    fn whole(&self, encoding: u8, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, FragmentError> {
        let whole = Whole {
            version: WHOLE_VERSION,
            encoding,
            message_id: self.message_id,
            needs: self.needs.bits().into(),
            to: To::Mail {
                domain: self.envelope.domain.as_str().to_owned(),
                locals: self.envelope.locals.clone(),
            },
            extensions: Vec::new(),
            message: message.to_vec(),
        };
        encode::<MAX_WHOLE>(&whole)
    }

    /// Reads the octets of a message that is one piece.
    ///
    /// # Errors
    /// [`FragmentError`]: whoever sent it is not trusted to have been honest.
    pub fn decode(octets: &[u8]) -> Result<Self, FragmentError> {
        let piece = Piece::decode(octets)?;
        if piece.needed > 1 {
            return Err(FragmentError::Unknown);
        }
        Self::of_whole(piece.delivery, &piece.piece)
    }

    fn of_whole(delivery: [u8; 16], whole: &[u8]) -> Result<Self, FragmentError> {
        match whole.get(..2) {
            Some(&[WHOLE_VERSION, PLAIN | DEFLATED]) => {}
            Some(_) => return Err(FragmentError::Unknown),
            None => return Err(FragmentError::Malformed),
        }
        decode::<Whole, MAX_WHOLE>(whole)?.checked(delivery)
    }
}

/// Pieces of equal length, of which any `needed` give the whole.
fn cut(
    delivery: [u8; 16],
    whole: &[u8],
    room: usize,
) -> Result<Vec<Zeroizing<Vec<u8>>>, FragmentError> {
    // The code works on pairs of octets.
    let room = room & !1;
    let needed = whole.len().checked_div(room).map_or(usize::MAX, |full| full.saturating_add(1));
    if needed > MAX_NEEDED {
        return Err(FragmentError::TooLong);
    }
    let length = piece_len(whole.len(), needed);
    let mut shards: Vec<Zeroizing<Vec<u8>>> =
        whole.chunks(length).map(|shard| Zeroizing::new(shard.to_vec())).collect();
    shards.resize_with(needed, Zeroizing::default);
    for shard in &mut shards {
        shard.resize(length, 0);
    }
    let more = needed.div_ceil(REDUNDANCY);
    let coded = reed_solomon_simd::encode(needed, more, shards.iter().map(|s| s.as_slice()));
    let coded = coded.map_err(|_| FragmentError::Pieces)?;
    let count = |number: usize| u16::try_from(number).map_err(|_| FragmentError::TooLong);
    let (needed, total) = (count(needed)?, count(needed.saturating_add(more))?);
    let octets = u32::try_from(whole.len()).map_err(|_| FragmentError::TooLong)?;
    let all = shards.into_iter().chain(coded.into_iter().map(Zeroizing::new));
    let encoded = all.zip(0..).map(|(mut shard, index)| {
        let piece = core::mem::take(&mut *shard);
        Piece { version: VERSION, delivery, index, needed, total, octets, piece }.to_octets()
    });
    encoded.collect()
}

/// The length of each piece, even.
fn piece_len(octets: usize, needed: usize) -> usize {
    octets.div_ceil(needed.max(1)).next_multiple_of(2)
}

impl Piece {
    fn only(delivery: [u8; 16], mut whole: Zeroizing<Vec<u8>>) -> Self {
        let octets = u32::try_from(whole.len()).unwrap_or(u32::MAX);
        let piece = core::mem::take(&mut *whole);
        Self { version: VERSION, delivery, index: 0, needed: 1, total: 1, octets, piece }
    }

    /// The octets of a piece: the same for the same piece.
    ///
    /// # Errors
    /// [`FragmentError::TooLong`].
    pub fn to_octets(&self) -> Result<Zeroizing<Vec<u8>>, FragmentError> {
        encode::<MAX_FRAGMENT>(self)
    }

    /// Reads the octets of a piece.
    ///
    /// # Errors
    /// [`FragmentError`], also for counts and lengths that [`Fragment::pieces`] never makes.
    pub fn decode(octets: &[u8]) -> Result<Self, FragmentError> {
        if octets.len() > MAX_FRAGMENT {
            return Err(FragmentError::TooLong);
        }
        // Read before the rest: a later version has other fields.
        match octets.first() {
            Some(&VERSION) => {}
            Some(_) => return Err(FragmentError::Unknown),
            None => return Err(FragmentError::Malformed),
        }
        let piece: Self = decode::<Self, MAX_FRAGMENT>(octets)?;
        let (index, needed, total) =
            (usize::from(piece.index), usize::from(piece.needed), usize::from(piece.total));
        let whole = usize::try_from(piece.octets).unwrap_or(usize::MAX);
        if !(1..=MAX_NEEDED).contains(&needed)
            || index >= total
            || total != needed + if needed > 1 { needed.div_ceil(REDUNDANCY) } else { 0 }
        {
            return Err(FragmentError::Unknown);
        }
        let length = if needed == 1 { whole } else { piece_len(whole, needed) };
        if whole > MAX_WHOLE || whole < needed || piece.piece.len() != length {
            return Err(FragmentError::Malformed);
        }
        Ok(piece)
    }

    /// The name of what it is a piece of.
    #[must_use]
    pub fn delivery(&self) -> [u8; 16] {
        self.delivery
    }

    /// Whether it is the only one of its message.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.needed == 1
    }

    /// Octets that keeping it costs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.piece.len()
    }

    /// Never: a piece carries at least one octet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.piece.is_empty()
    }
}

/// Pieces of one message, until there are enough of them.
pub struct Assembly {
    delivery: [u8; 16],
    needed: u16,
    octets: u32,
    pieces: BTreeMap<u16, Zeroizing<Vec<u8>>>,
}

impl Assembly {
    /// Begins with a piece.
    #[must_use]
    pub fn begin(piece: Piece) -> Self {
        let (delivery, needed, octets) = (piece.delivery, piece.needed, piece.octets);
        let mut begun = Self { delivery, needed, octets, pieces: BTreeMap::new() };
        begun.keep(piece);
        begun
    }

    /// Takes another piece of the same delivery; one that is here already changes nothing.
    ///
    /// # Errors
    /// [`FragmentError::Contradiction`]; the piece is dropped.
    pub fn add(&mut self, piece: Piece) -> Result<(), FragmentError> {
        let same = (piece.delivery, piece.needed, piece.octets)
            == (self.delivery, self.needed, self.octets);
        match self.pieces.get(&piece.index) {
            Some(known) if !same || **known != piece.piece => Err(FragmentError::Contradiction),
            None if !same => Err(FragmentError::Contradiction),
            Some(_) => Ok(()),
            None => {
                self.keep(piece);
                Ok(())
            }
        }
    }

    fn keep(&mut self, mut piece: Piece) {
        if !self.is_complete() {
            self.pieces.insert(piece.index, Zeroizing::new(core::mem::take(&mut piece.piece)));
        }
    }

    /// Whether there are enough.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pieces.len() >= usize::from(self.needed)
    }

    /// Octets that it keeps.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.pieces.values().map(|piece| piece.len()).sum()
    }

    /// The message.
    ///
    /// # Errors
    /// [`FragmentError::Pieces`] if there are too few or if they give none, and what
    /// [`Fragment::decode`] says.
    pub fn finish(mut self) -> Result<Fragment, FragmentError> {
        if !self.is_complete() {
            return Err(FragmentError::Pieces);
        }
        let needed = usize::from(self.needed);
        let length = usize::try_from(self.octets).map_err(|_| FragmentError::TooLong)?;
        let mut restored: BTreeMap<usize, Zeroizing<Vec<u8>>> = BTreeMap::new();
        if needed > 1 {
            let here = |coded: bool| {
                let wanted = self.pieces.iter().map(|(index, piece)| (usize::from(*index), piece));
                wanted.filter_map(move |(index, piece)| match index.checked_sub(needed) {
                    Some(index) if coded => Some((index, piece.as_slice())),
                    None if !coded => Some((index, piece.as_slice())),
                    Some(_) | None => None,
                })
            };
            let more = needed.div_ceil(REDUNDANCY);
            let lost = reed_solomon_simd::decode(needed, more, here(false), here(true));
            let lost = lost.map_err(|_| FragmentError::Pieces)?;
            restored = lost.into_iter().map(|(at, octets)| (at, Zeroizing::new(octets))).collect();
        }
        let mut whole = Zeroizing::new(Vec::with_capacity(length.saturating_add(needed)));
        for at in 0..needed {
            let known = u16::try_from(at).ok().and_then(|at| self.pieces.remove(&at));
            let part = known.or_else(|| restored.remove(&at)).ok_or(FragmentError::Pieces)?;
            whole.extend_from_slice(&part);
        }
        whole.truncate(length);
        Fragment::of_whole(self.delivery, &whole)
    }
}

fn encode<const MAX: usize>(value: &impl Encode) -> Result<Zeroizing<Vec<u8>>, FragmentError> {
    let octets = bincode::encode_to_vec(value, layout::<MAX>());
    let octets = Zeroizing::new(octets.map_err(|_| FragmentError::TooLong)?);
    if octets.len() > MAX { Err(FragmentError::TooLong) } else { Ok(octets) }
}

fn decode<T: Encode + Decode<()>, const MAX: usize>(octets: &[u8]) -> Result<T, FragmentError> {
    if octets.len() > MAX {
        return Err(FragmentError::TooLong);
    }
    let decoded = bincode::decode_from_slice(octets, layout::<MAX>());
    let (value, consumed): (T, usize) = decoded.map_err(|_| FragmentError::Malformed)?;
    let again = encode::<MAX>(&value)?;
    if consumed != octets.len() || again.as_slice() != octets {
        return Err(FragmentError::Malformed);
    }
    Ok(value)
}

const fn layout<const MAX: usize>() -> Configuration<BigEndian, Fixint, Limit<MAX>> {
    bincode::config::standard().with_big_endian().with_fixed_int_encoding().with_limit::<MAX>()
}

/// What a packet carries: one piece of a whole. Zeroized on drop.
#[derive(Encode, Decode, ZeroizeOnDrop)]
pub struct Piece {
    version: u8,
    delivery: [u8; 16],
    index: u16,
    needed: u16,
    total: u16,
    /// Octets of the whole.
    octets: u32,
    piece: Vec<u8>,
}

/// What is cut. Zeroized on drop, but for its extensions, which no version writes yet.
#[derive(Encode, Decode, ZeroizeOnDrop)]
struct Whole {
    version: u8,
    encoding: u8,
    message_id: [u8; 16],
    needs: u16,
    to: To,
    #[zeroize(skip)]
    extensions: Vec<Extension>,
    message: Vec<u8>,
}

#[derive(Encode, Decode, ZeroizeOnDrop)]
enum To {
    Mail { domain: String, locals: Vec<String> },
    News,
}

/// A typed field of a later version: strictly ascending by kind. One that is critical makes an exit
/// that does not know it refuse the message.
#[derive(Encode, Decode)]
struct Extension {
    kind: u16,
    critical: bool,
    value: Vec<u8>,
}

impl Whole {
    fn checked(mut self, delivery: [u8; 16]) -> Result<Fragment, FragmentError> {
        let needs = u8::try_from(self.needs).ok().and_then(Needs::from_bits);
        let needs = needs.ok_or(FragmentError::Unknown)?;
        let extensions = &self.extensions;
        if extensions.len() > MAX_EXTENSIONS || !extensions.is_sorted_by(|a, b| a.kind < b.kind) {
            return Err(FragmentError::Malformed);
        }
        if extensions.iter().any(|extension| extension.critical) {
            return Err(FragmentError::Unknown);
        }
        if self.encoding == DEFLATED {
            let limit = self.message.len().saturating_mul(MAX_RATIO).min(MAX_MESSAGE);
            let plain = miniz_oxide::inflate::decompress_to_vec_with_limit(&self.message, limit);
            // What was opened of a bomb before the limit is in the error, and wiped there.
            self.message.zeroize();
            self.message = plain.map_err(|mut error| {
                error.output.zeroize();
                FragmentError::Malformed
            })?;
        }
        let To::Mail { domain: text, locals } = &mut self.to else {
            return Err(FragmentError::News);
        };
        let domain = Domain::parse(text).map_err(|_| FragmentError::Envelope)?;
        let counted = (1..=MAX_RECIPIENTS).contains(&locals.len());
        let envelope = Envelope { domain, locals: core::mem::take(locals) };
        // Nodes before A-labels write a domain beyond ASCII as it is.
        let is_settled = envelope.domain.as_str() == text || !text.is_ascii();
        if !counted || !is_settled || envelope.recipients().is_none() {
            return Err(FragmentError::Envelope);
        }
        Ok(Fragment {
            delivery,
            message_id: self.message_id,
            needs,
            envelope,
            message: core::mem::take(&mut self.message),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mailbox, MessageError, rebuild};

    fn whole(needs: u16, message: &[u8]) -> Whole {
        Whole {
            version: WHOLE_VERSION,
            encoding: PLAIN,
            message_id: [1; 16],
            needs,
            to: To::Mail { domain: "b.example".into(), locals: vec!["a".into()] },
            extensions: Vec::new(),
            message: message.to_vec(),
        }
    }

    fn piece(whole: &Whole) -> Piece {
        let piece = encode::<MAX_WHOLE>(whole).unwrap().to_vec();
        let octets = u32::try_from(piece.len()).unwrap();
        Piece { version: VERSION, delivery: [2; 16], index: 0, needed: 1, total: 1, octets, piece }
    }

    fn of_wire(wire: &Piece) -> Result<(Needs, String), String> {
        let octets = encode::<MAX_FRAGMENT>(wire).unwrap();
        let fragment = Fragment::decode(&octets).map_err(|error| error.to_string())?;
        assert_eq!(fragment.encode().unwrap().as_slice(), octets.as_slice());
        let anonymous = Mailbox::parse("anonymous@exit.example").unwrap();
        let delivery =
            rebuild(&fragment, &anonymous, 495_000).map_err(|error| error.to_string())?;
        Ok((delivery.needs, String::from_utf8_lossy(&delivery.message).into_owned()))
    }

    /// What an exit makes of octets that no honest ingress sends.
    fn exit(whole: &Whole) -> Result<(Needs, String), String> {
        of_wire(&piece(whole))
    }

    #[test]
    fn hostile_fragments_leave_clean_or_not_at_all() {
        let from = |text: &str| text.lines().filter(|line| line.starts_with("From:")).count();
        for message in [
            "From: ceo@bank.example\r\nTo: a@b.example\r\n\r\nx\r\n",
            "Bcc: x@y\r\nReceived: z\r\nDate: today\r\nMessage-ID: <1@2>\r\nX-Fog-Notice: no\r\n\r\n",
        ] {
            let (_, text) = exit(&whole(0, message.as_bytes())).unwrap();
            assert_eq!(from(&text), 1, "{text}");
            assert!(text.contains("From: Anonymous <anonymous@exit.example>"));
            for planted in ["ceo@bank", "Bcc", "Received", "today", "1@2", "Notice: no"] {
                assert!(!text.contains(planted), "{text}");
            }
        }
        // Needs are the exit's own finding, not what the ingress says.
        let (needs, _) = exit(&whole(0, "To: x\r\n\r\nä\r\n".as_bytes())).unwrap();
        assert!(needs.contains(Needs::EIGHT_BIT));
        let (_, kept) = exit(&whole(4, b"From: me@own.example\r\n\r\n")).unwrap();
        assert!(kept.contains("nobody vouches") && from(&kept) == 1);

        let long = [b"\r\n".as_slice(), &[b'x'; 999]].concat();
        let says = |error: MessageError| error.to_string();
        for (needs, message, why) in [
            (
                0,
                &b"X-Fog-From: keep\r\nFrom: ceo@bank.example\r\n\r\n"[..],
                says(MessageError::FogFrom),
            ),
            (4, b"X-Fog-From: no\r\nFrom: a@b\r\n\r\n", says(MessageError::Repeated)),
            (4, b"To: a@b\r\n\r\n", says(MessageError::NoFrom)),
            (0, b"To: a\r\n\r\nx\n.\nMAIL FROM:<>", says(MessageError::BareLineEnd)),
            (0, b"To: a\r\n\r\n\0", says(MessageError::Nul)),
            (0, &long, says(MessageError::LongLine)),
            (8, b"\r\n", FragmentError::Unknown.to_string()),
        ] {
            assert_eq!(exit(&whole(needs, message)).unwrap_err(), why);
        }
        let to = |domain: &str, locals: Vec<String>| To::Mail { domain: domain.into(), locals };
        let envelope = Some(FragmentError::Envelope.to_string());
        for bad in [
            to("b.example", vec!["a".into(); 101]),
            to("b.example", Vec::new()),
            to("B.example", vec!["a".into()]),
            to("b.example", vec!["a b".into()]),
        ] {
            let mut odd = whole(0, b"\r\n");
            odd.to = bad;
            assert_eq!(exit(&odd).err(), envelope);
        }
        let mut news = whole(0, b"\r\n");
        news.to = To::News;
        assert_eq!(exit(&news).err(), Some(FragmentError::News.to_string()));
    }

    /// A piece with these counts, and as many octets as they ask for and `more`.
    fn counted(
        index: u16,
        needed: u16,
        total: u16,
        octets: u32,
        more: usize,
    ) -> Option<FragmentError> {
        let whole = usize::try_from(octets).unwrap();
        let length = if needed == 1 { whole } else { piece_len(whole, needed.into()) };
        let piece = vec![1; length + more];
        let piece =
            Piece { version: VERSION, delivery: [2; 16], index, needed, total, octets, piece };
        Piece::decode(&encode::<MAX_FRAGMENT>(&piece).unwrap()).err()
    }

    #[test]
    fn counts_and_lengths_that_no_ingress_makes_are_refused() {
        let (unknown, malformed) = (Some(FragmentError::Unknown), Some(FragmentError::Malformed));
        assert_eq!(counted(5, 4, 6, 1000, 0), None);
        assert_eq!(counted(6, 4, 6, 1000, 0), unknown, "no such piece");
        assert_eq!(counted(1, 1, 1, 1000, 0), unknown, "no such piece");
        assert_eq!(counted(0, 4, 5, 1000, 0), unknown, "too little to spare");
        assert_eq!(counted(0, 4, 7, 1000, 0), unknown, "too much to spare");
        assert_eq!(counted(0, 0, 0, 0, 0), unknown);
        assert_eq!(counted(0, 257, 343, 100_000, 0), unknown, "too many");
        assert_eq!(counted(0, 4, 6, 1000, 2), malformed, "too long a piece");
        assert_eq!(counted(0, 4, 6, 4, 0), None);
        assert_eq!(counted(0, 4, 6, 3, 0), malformed, "a piece of nothing");
        let most = u32::try_from(MAX_WHOLE).unwrap();
        assert_eq!(counted(0, 256, 342, most, 0), None);
        assert_eq!(counted(0, 256, 342, most + 1, 0), malformed, "a whole of too many octets");
        assert_eq!(MAX_WHOLE, 10_551_296, "a message of ten megabytes, and an envelope");
    }

    #[test]
    fn the_longest_piece_is_taken_and_one_octet_more_is_not() {
        let only = |octets: usize| Piece::only([2; 16], Zeroizing::new(vec![1; octets]));
        let longest = only(MAX_FRAGMENT - AROUND_PIECE).to_octets().unwrap();
        assert_eq!(longest.len(), MAX_FRAGMENT);
        assert!(Piece::decode(&longest).is_ok());
        assert!(only(MAX_FRAGMENT - AROUND_PIECE + 1).to_octets().is_err());
        let longer = [longest.as_slice(), &[0]].concat();
        assert_eq!(Piece::decode(&longer).err(), Some(FragmentError::TooLong));
        assert_eq!(
            Piece::decode(&longest[..longest.len() - 1]).err(),
            Some(FragmentError::Malformed)
        );
        assert_eq!(Piece::decode(&[]).err(), Some(FragmentError::Malformed));
    }

    #[test]
    fn what_a_later_version_sends_is_told_from_what_nobody_sends() {
        let unknown = Some(FragmentError::Unknown.to_string());
        let malformed = Some(FragmentError::Malformed.to_string());
        let with = |change: &dyn Fn(&mut Piece)| {
            let mut wire = piece(&whole(0, b"To: a\r\n\r\n"));
            change(&mut wire);
            of_wire(&wire).err()
        };
        assert_eq!(with(&|_| {}), None);
        assert_eq!(with(&|wire| wire.version = 3), unknown);
        assert_eq!(with(&|wire| wire.total = 2), unknown);
        assert_eq!(with(&|wire| wire.piece[0] = 9), unknown, "another version of the whole");
        assert_eq!(with(&|wire| wire.piece[1] = 2), unknown, "in an unknown encoding");
        assert_eq!(with(&|wire| wire.piece[1] = 1), malformed, "not what it says");
        let two = |wire: &mut Piece| (wire.piece, wire.octets) = (vec![3, 0], 2);
        assert_eq!(with(&two), unknown, "with other fields behind it");
        assert_eq!(with(&|wire| wire.octets += 1), malformed);
        assert_eq!(with(&|wire| wire.piece.clear()), malformed);
        let extended = |extensions: &[(u16, bool)]| {
            let mut odd = whole(0, b"\r\n");
            let extension = |(kind, critical): &(u16, bool)| Extension {
                kind: *kind,
                critical: *critical,
                value: vec![1; 3],
            };
            odd.extensions = extensions.iter().map(extension).collect();
            Fragment::decode(&encode::<MAX_FRAGMENT>(&piece(&odd)).unwrap()).err()
        };
        assert_eq!(extended(&[(1, false), (2, false)]), None);
        assert_eq!(extended(&[(1, false), (2, true)]), Some(FragmentError::Unknown));
        assert_eq!(extended(&[(2, false), (1, false)]), Some(FragmentError::Malformed));
        assert_eq!(extended(&[(1, false), (1, false)]), Some(FragmentError::Malformed));
        let many: Vec<_> = (0..17).map(|kind| (kind, false)).collect();
        assert_eq!(extended(&many[..16]), None);
        assert_eq!(extended(&many), Some(FragmentError::Malformed));
    }
}

//! Reply blocks (SURBs): a header made by whoever will get the answer, for somebody who is not to
//! know the way.

use keys::{Epoch, NodeId};
use rand_core::CryptoRng;
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use crate::class::SizeClass;
use crate::crypto::{ReplyStream, seal, unseal};
use crate::layout::{
    CLEAR_LEN, EPOCH_LEN, HEADER_LEN, MAX_HOPS, MIN_HOPS, NAME_LEN, REPLY_BLOCK_LEN, SUITE,
    TAG_LEN, VERSION,
};
use crate::packet::{BlockName, Kind, Packet, StreamToken, halves};
use crate::peel::Payload;
use crate::wrap::{Hop, Orders, Sealed, WrapError, header};

/// Octets of kept [`ReplyKeys`] before their streams, and of a stream.
const KEYS_LEN: usize = NAME_LEN + 1 + 32;
const STREAM_LEN: usize = 32;

/// Where an answer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReplyEnd {
    /// At the last hop, which made the block.
    Owner,
    /// At the open stream that presented this token at the last hop.
    Stream(StreamToken),
}

/// Why there is no answer, or why it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Not the octets of a reply block.
    #[error("not a reply block")]
    Malformed,
    /// More content than a reply of its class holds.
    #[error("content larger than its size class holds")]
    Content,
    /// A reply of another size class than its block's.
    #[error("class")]
    Class,
    /// Altered on its way, or made by somebody who did not have the block.
    #[error("tag")]
    Tag,
}

/// What one answer can be sent with, once: first node 32, header 7,186, key 32, class 1, last epoch 4.
/// The key is zeroized on drop.
#[derive(PartialEq, Eq, ZeroizeOnDrop)]
pub struct ReplyBlock {
    #[zeroize(skip)]
    first: NodeId,
    #[zeroize(skip)]
    header: Vec<u8>,
    key: [u8; 32],
    #[zeroize(skip)]
    class: SizeClass,
    #[zeroize(skip)]
    last: Epoch,
}

/// What opens the answer to one reply block: keys for this answer only, from which nothing else
/// follows. Zeroized on drop.
#[derive(ZeroizeOnDrop)]
pub struct ReplyKeys {
    #[zeroize(skip)]
    name: BlockName,
    #[zeroize(skip)]
    class: SizeClass,
    key: [u8; 32],
    streams: Vec<ReplyStream>,
}

/// Makes a reply block for a route of 3 to 6 hops, of which the last is the one that makes it or the
/// one that it has a stream to; and what opens the answer.
///
/// Randomness is drawn in this order: for each hop from the first, 32 octets of X25519 scalar and 32
/// of ML-KEM `m`; name 16; key 32; the payload tags of all hops but the last, 16 each; then the
/// padding of the routing blocks.
///
/// # Errors
/// [`WrapError::Hops`], [`WrapError::Key`].
pub fn reply_block(
    hops: &[Hop<'_>],
    end: ReplyEnd,
    class: SizeClass,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(ReplyBlock, ReplyKeys), WrapError> {
    if !(MIN_HOPS..=MAX_HOPS).contains(&hops.len()) {
        return Err(WrapError::Hops);
    }
    let mut layers = Vec::with_capacity(hops.len());
    for hop in hops {
        layers.push(Sealed::to(hop, class, rng)?);
    }
    let name = draw_name(rng);
    let mut key = [0; 32];
    rng.fill_bytes(&mut key);
    let (last, before) = layers.split_last_mut().ok_or(WrapError::Hops)?;
    for layer in before.iter_mut() {
        rng.fill_bytes(&mut layer.payload_tag);
    }
    let mut streams: Vec<_> = before.iter().map(|layer| layer.keys.reply_stream()).collect();
    let name_octets = *name.as_bytes();
    let (kind, next) = match end {
        ReplyEnd::Owner => (Kind::Reply, halves([0; NAME_LEN], name_octets)),
        ReplyEnd::Stream(token) => {
            streams.push(last.keys.reply_stream());
            (Kind::DeliverToStream, halves(*token.as_bytes(), name_octets))
        }
    };
    let orders = Orders { on_the_way: Kind::Reply, at_the_end: kind, next, class };
    let (clear, routing) = header(&layers, &orders, rng).ok_or(WrapError::Hops)?;
    let first = hops.first().ok_or(WrapError::Hops)?;
    let last = hops.iter().map(|hop| hop.epoch).min().ok_or(WrapError::Hops)?;
    let header = Packet::assemble(&clear, &routing, &[]);
    let block = ReplyBlock { first: first.node, header, key, class, last };
    let keys = ReplyKeys { name, class, key, streams };
    key.zeroize();
    Ok((block, keys))
}

fn draw_name(rng: &mut (impl CryptoRng + ?Sized)) -> BlockName {
    loop {
        let mut name = [0; NAME_LEN];
        rng.fill_bytes(&mut name);
        if let Some(name) = BlockName::from_bytes(name) {
            return name;
        }
    }
}

impl ReplyBlock {
    /// The first node of its route.
    #[must_use]
    pub fn first(&self) -> NodeId {
        self.first
    }

    /// The size class of the answer.
    #[must_use]
    pub fn class(&self) -> SizeClass {
        self.class
    }

    /// The last epoch in which it is good.
    #[must_use]
    pub fn last_epoch(&self) -> Epoch {
        self.last
    }

    /// What tells it from every other: the header MAC for its first hop, 16 octets. Whoever answers
    /// remembers it, and never answers with it again: two answers would have one key stream.
    #[must_use]
    pub fn mark(&self) -> [u8; 16] {
        let mac = self.header.get(CLEAR_LEN - 16..CLEAR_LEN);
        mac.and_then(|mac| mac.try_into().ok()).unwrap_or_default()
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.first.as_bytes());
        to.extend_from_slice(&self.header);
        to.extend_from_slice(&self.key);
        to.push(self.class.number());
        to.extend_from_slice(&self.last.number().to_be_bytes());
    }

    /// Its 7,255 octets. Zeroized on drop.
    #[must_use]
    pub fn to_octets(&self) -> Zeroizing<Vec<u8>> {
        let mut octets = Zeroizing::new(Vec::with_capacity(REPLY_BLOCK_LEN));
        self.write(&mut octets);
        octets
    }

    /// Reads a reply block. Whether its header is good only its hops can tell.
    ///
    /// # Errors
    /// [`ReplyError::Malformed`].
    pub fn from_octets(octets: &[u8]) -> Result<Self, ReplyError> {
        let octets: &[u8; REPLY_BLOCK_LEN] =
            octets.try_into().map_err(|_| ReplyError::Malformed)?;
        Self::read(octets).ok_or(ReplyError::Malformed)
    }

    fn read(octets: &[u8; REPLY_BLOCK_LEN]) -> Option<Self> {
        let (first, rest) = octets.split_first_chunk()?;
        let (header, rest) = rest.split_first_chunk::<HEADER_LEN>()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (class, rest) = rest.split_first()?;
        let last = Epoch::new(u32::from_be_bytes(*rest.first_chunk::<EPOCH_LEN>()?));
        let epoch = Epoch::new(u32::from_be_bytes(*header.get(2..)?.first_chunk::<EPOCH_LEN>()?));
        // It is never good for longer than the key of its first hop.
        let is_good = header.starts_with(&[VERSION, SUITE]) && last <= epoch;
        is_good.then_some(Self {
            first: NodeId::from_bytes(*first),
            header: header.to_vec(),
            key: *key,
            class: SizeClass::from_number(*class)?,
            last,
        })
    }

    /// The packet of an answer, for [`ReplyBlock::first`]. The block is used up.
    ///
    /// # Errors
    /// [`ReplyError::Content`] for more than [`SizeClass::reply_capacity`] octets.
    pub fn answer(self, content: &[u8]) -> Result<Packet, ReplyError> {
        if content.len() > self.class.reply_capacity() {
            return Err(ReplyError::Content);
        }
        let length = u32::try_from(content.len()).map_err(|_| ReplyError::Content)?;
        let mut octets = Vec::with_capacity(self.class.packet_len());
        octets.extend_from_slice(&self.header);
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(content);
        octets.resize(self.class.packet_len() - TAG_LEN, 0);
        let plain = octets.get_mut(HEADER_LEN..).unwrap_or_default();
        let tag = seal(&self.key, plain).ok_or(ReplyError::Content)?;
        octets.extend_from_slice(&tag);
        Packet::from_octets(octets).map_err(|_| ReplyError::Class)
    }
}

impl ReplyKeys {
    /// The name of the block, by which its answer is known.
    #[must_use]
    pub fn name(&self) -> BlockName {
        self.name
    }

    /// Its octets, to be kept until the answer comes: name 16, class 1, key 32, then 32 for each hop whose
    /// stream the answer passes, of which there are 2 to 6. Zeroized on drop.
    #[must_use]
    pub fn to_octets(&self) -> Zeroizing<Vec<u8>> {
        let mut octets = Zeroizing::new(Vec::with_capacity(KEYS_LEN + MAX_HOPS * STREAM_LEN));
        octets.extend_from_slice(self.name.as_bytes());
        octets.push(self.class.number());
        octets.extend_from_slice(&self.key);
        for stream in &self.streams {
            octets.extend_from_slice(stream.as_bytes());
        }
        octets
    }

    /// Reads what [`ReplyKeys::to_octets`] gave.
    ///
    /// # Errors
    /// [`ReplyError::Malformed`].
    pub fn from_octets(octets: &[u8]) -> Result<Self, ReplyError> {
        let (head, streams) =
            octets.split_first_chunk::<KEYS_LEN>().ok_or(ReplyError::Malformed)?;
        let (name, rest) = head.split_first_chunk().ok_or(ReplyError::Malformed)?;
        let ([class], key) = rest.split_first_chunk().ok_or(ReplyError::Malformed)?;
        let name = BlockName::from_bytes(*name).ok_or(ReplyError::Malformed)?;
        let class = SizeClass::from_number(*class).ok_or(ReplyError::Malformed)?;
        let key = key.try_into().map_err(|_| ReplyError::Malformed)?;
        let (streams, []) = streams.as_chunks::<STREAM_LEN>() else {
            return Err(ReplyError::Malformed);
        };
        if !(MIN_HOPS - 1..=MAX_HOPS).contains(&streams.len()) {
            return Err(ReplyError::Malformed);
        }
        let streams = streams.iter().map(|stream| ReplyStream::from_bytes(*stream)).collect();
        Ok(Self { name, class, key, streams })
    }

    /// The content of an answer. The keys are used up.
    ///
    /// # Errors
    /// [`ReplyError::Class`], [`ReplyError::Tag`]; [`ReplyError::Malformed`] if whoever had the block
    /// answered with a length that does not fit.
    pub fn open(self, mut payload: Payload) -> Result<Zeroizing<Vec<u8>>, ReplyError> {
        let octets = payload.octets_mut();
        if octets.len() != self.class.payload_len() {
            return Err(ReplyError::Class);
        }
        for stream in &self.streams {
            stream.apply(octets);
        }
        let (sealed, tag) = octets.split_last_chunk_mut::<TAG_LEN>().ok_or(ReplyError::Class)?;
        unseal(&self.key, sealed, tag).ok_or(ReplyError::Tag)?;
        let (length, rest) = sealed.split_first_chunk::<4>().ok_or(ReplyError::Malformed)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let content = rest.get(..length).ok_or(ReplyError::Malformed)?;
        Ok(Zeroizing::new(content.to_vec()))
    }
}

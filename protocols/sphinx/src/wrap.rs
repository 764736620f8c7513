//! The sender's side: layers from the last hop inwards.

use core::time::Duration;

use keys::{Epoch, MixCiphertext, MixPublic, NodeId};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::class::SizeClass;
use crate::crypto::{Binding, HopKeys, hash};
use crate::layout::{
    BLOCK_LEN, LAST_BLOCK_LEN, MAC_LEN, MAX_HOPS, MIN_HOPS, NAME_LEN, REPLY_BLOCK_LEN, ROUTING_LEN,
    TAG_LEN,
};
use crate::packet::{Block, Clear, Kind, Packet, StreamToken, halves};
use crate::reply::ReplyBlock;

/// One hop of a route as its sender plans it.
pub struct Hop<'a> {
    /// The node at this hop.
    pub node: NodeId,
    /// The epoch in which the packet is planned to arrive there.
    pub epoch: Epoch,
    /// The node's mix key for that epoch.
    pub key: &'a MixPublic,
    /// How long it holds the packet; whole milliseconds, below 2^32.
    pub delay: Duration,
}

/// What the last hop does with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It acts on the content.
    Deliver,
    /// It is the sender itself, and notes that the packet has come back.
    Loop,
    /// Nothing: the packet was cover.
    Drop,
    /// It hands the payload to the open stream that presented this token.
    Stream(StreamToken),
}

/// What the last hop gets.
#[derive(Clone, Copy)]
pub struct Body<'a> {
    /// What it does with it.
    pub end: End,
    /// The size of the packet.
    pub class: SizeClass,
    /// At most [`SizeClass::capacity`] octets.
    pub content: &'a [u8],
    /// What it can answer with.
    pub reply: Option<&'a ReplyBlock>,
}

/// An empty content of the smallest class, to be delivered.
impl Default for Body<'_> {
    fn default() -> Self {
        Self { end: End::Deliver, class: SizeClass::SMALLEST, content: &[], reply: None }
    }
}

/// Why nothing was wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// Fewer than 3 or more than 6 hops.
    #[error("a route has {MIN_HOPS} to {MAX_HOPS} hops")]
    Hops,
    /// More content than the class holds.
    #[error("content larger than its size class holds")]
    Content,
    /// A mix key that was not checked.
    #[error("unusable mix key")]
    Key,
}

/// Makes a packet for a route of 3 to 6 hops.
///
/// Randomness is drawn in this order: for each hop from the first, 32 octets of X25519 scalar and
/// 32 of ML-KEM `m`; then the padding of the routing blocks.
///
/// # Errors
/// [`WrapError`]; nothing was sealed then.
pub fn wrap(
    hops: &[Hop<'_>],
    body: &Body<'_>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Packet, WrapError> {
    if !(MIN_HOPS..=MAX_HOPS).contains(&hops.len()) {
        return Err(WrapError::Hops);
    }
    let mut payload = lay_out(body)?;
    let mut layers = Vec::with_capacity(hops.len());
    for hop in hops {
        layers.push(Sealed::to(hop, body.class, rng)?);
    }
    for layer in layers.iter_mut().rev() {
        layer.payload_tag = layer.keys.seal(&mut payload).ok_or(WrapError::Content)?;
    }
    let none = [0; NAME_LEN];
    let (kind, next) = match body.end {
        End::Deliver => (Kind::Deliver, halves(none, none)),
        End::Loop => (Kind::Loop, halves(none, none)),
        End::Drop => (Kind::Drop, halves(none, none)),
        End::Stream(token) => (Kind::DeliverToStream, halves(*token.as_bytes(), none)),
    };
    let orders = Orders { on_the_way: Kind::Forward, at_the_end: kind, next, class: body.class };
    let (clear, routing) = header(&layers, &orders, rng).ok_or(WrapError::Hops)?;
    let octets = Packet::assemble(&clear, &routing, &payload);
    Packet::from_octets(octets).map_err(|_| WrapError::Content)
}

/// What the blocks of a header say beside what is each hop's own.
pub(crate) struct Orders {
    pub(crate) on_the_way: Kind,
    pub(crate) at_the_end: Kind,
    /// What stands in the last block in the next node's place.
    pub(crate) next: NodeId,
    pub(crate) class: SizeClass,
}

/// One hop with its secrets drawn.
pub(crate) struct Sealed {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    delay: Duration,
    ciphertext: MixCiphertext,
    pub(crate) keys: HopKeys,
    stream: Zeroizing<[u8; ROUTING_LEN + BLOCK_LEN]>,
    pub(crate) payload_tag: [u8; TAG_LEN],
}

impl Sealed {
    pub(crate) fn to(
        hop: &Hop<'_>,
        class: SizeClass,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, WrapError> {
        let (ciphertext, shared) = hop.key.encapsulate(rng).map_err(|_| WrapError::Key)?;
        let binding = Binding { node: hop.node, epoch: hop.epoch, class, key: hash(hop.key) };
        let keys = HopKeys::derive(&shared, &ciphertext, &binding);
        let stream = Zeroizing::new(keys.stream());
        Ok(Self {
            node: hop.node,
            epoch: hop.epoch,
            delay: hop.delay,
            ciphertext,
            keys,
            stream,
            payload_tag: [0; TAG_LEN],
        })
    }

    /// The clear header under which this hop receives `routing`.
    fn clear(&self, routing: &[u8; ROUTING_LEN]) -> Clear {
        let mut clear =
            Clear { epoch: self.epoch, ciphertext: self.ciphertext.clone(), mac: [0; MAC_LEN] };
        clear.mac = self.keys.mac(&clear.authenticated(), routing);
        clear
    }
}

/// `reply flag ‖ content length ‖ reply block ‖ content ‖ zeros`.
fn lay_out(body: &Body<'_>) -> Result<Zeroizing<Vec<u8>>, WrapError> {
    if body.content.len() > body.class.capacity() {
        return Err(WrapError::Content);
    }
    let length = u32::try_from(body.content.len()).map_err(|_| WrapError::Content)?;
    let mut payload = Zeroizing::new(Vec::with_capacity(body.class.payload_len()));
    payload.push(u8::from(body.reply.is_some()));
    payload.extend_from_slice(&length.to_be_bytes());
    match body.reply {
        Some(block) => block.write(&mut payload),
        None => payload.extend_from_slice(&[0; REPLY_BLOCK_LEN]),
    }
    payload.extend_from_slice(body.content);
    payload.resize(body.class.payload_len(), 0);
    Ok(payload)
}

/// Routing blocks from the last hop to the first. `None` only for a route of no hops.
pub(crate) fn header(
    layers: &[Sealed],
    orders: &Orders,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Option<(Clear, [u8; ROUTING_LEN])> {
    let (last, before) = layers.split_last()?;
    let filler = filler(before);

    let mut region = Vec::with_capacity(ROUTING_LEN);
    Block {
        next: orders.next,
        delay: last.delay,
        kind: orders.at_the_end,
        class: orders.class,
        next_epoch: Epoch::new(0),
        payload_tag: last.payload_tag,
        next_mac: [0; MAC_LEN],
    }
    .write(&mut region);
    let own = ROUTING_LEN.checked_sub(filler.len())?;
    let mut padding = vec![0; own.checked_sub(LAST_BLOCK_LEN)?];
    rng.fill_bytes(&mut padding);
    region.extend_from_slice(&padding);
    xor(&mut region, last.stream.as_slice());
    region.extend_from_slice(&filler);
    let mut routing: [u8; ROUTING_LEN] = region.as_slice().try_into().ok()?;
    let mut clear = last.clear(&routing);
    let mut next = last;

    for layer in before.iter().rev() {
        region.clear();
        Block {
            next: next.node,
            delay: layer.delay,
            kind: orders.on_the_way,
            class: orders.class,
            next_epoch: next.epoch,
            payload_tag: layer.payload_tag,
            next_mac: clear.mac,
        }
        .write(&mut region);
        region.extend_from_slice(next.ciphertext.as_bytes());
        region.extend_from_slice(&routing);
        region.truncate(ROUTING_LEN);
        xor(&mut region, layer.stream.as_slice());
        routing = region.as_slice().try_into().ok()?;
        clear = layer.clear(&routing);
        next = layer;
    }
    Some((clear, routing))
}

/// What the hops before the last append by decrypting beyond the end of the routing blocks: the
/// last hop's MAC has to cover it.
fn filler(before: &[Sealed]) -> Vec<u8> {
    let mut filler = Vec::new();
    for layer in before {
        filler.resize(filler.len() + BLOCK_LEN, 0);
        let (_, end) = layer.stream.split_at(layer.stream.len() - filler.len());
        xor(&mut filler, end);
    }
    filler
}

fn xor(octets: &mut [u8], stream: &[u8]) {
    for (octet, key) in octets.iter_mut().zip(stream) {
        *octet ^= key;
    }
}

//! A hop's side: check in the order that the specification gives, then open one layer.

use core::time::Duration;

use keys::{Epoch, MIX_CIPHERTEXT_LEN, MixCiphertext, NodeId};
use subtle::ConstantTimeEq as _;
use zeroize::ZeroizeOnDrop;

use crate::class::SizeClass;
use crate::crypto::{EpochKey, EpochKeys, HopKeys, ReplayTag};
use crate::layout::{NAME_LEN, NEXT_EPOCHS, PAYLOAD_PREFIX_LEN, REPLY_BLOCK_LEN, TAG_LEN};
use crate::packet::{Block, BlockName, Clear, Kind, Opening, Packet, StreamToken};
use crate::refusal::Refusal;
use crate::reply::ReplyBlock;

/// A packet whose header MAC was right. Its tag goes to the replay filter before anything else is
/// looked at, and stays there whatever the outcome.
pub struct Peeled {
    /// What marks the packet as seen.
    pub tag: ReplayTag,
    /// The epoch of the key that opened it.
    pub epoch: Epoch,
    /// What is to be done with it.
    pub outcome: Result<Layer, Refusal>,
}

/// What one hop finds.
pub enum Layer {
    /// Hold the packet for `delay`, then send it on. It may be a reply on its way.
    Forward {
        /// The next hop; whether there is such a node is for the directory to say.
        to: NodeId,
        /// How long to hold it.
        delay: Duration,
        /// The packet to send.
        packet: Packet,
    },
    /// The route ends here.
    End {
        /// `Deliver`, `Loop` or `Drop`.
        kind: Kind,
        /// How long to hold it.
        delay: Duration,
        /// What it carries.
        payload: Payload,
    },
    /// An answer to a reply block that this node made.
    Reply {
        /// The name of the block.
        name: BlockName,
        /// How long to hold it.
        delay: Duration,
        /// For [`crate::ReplyKeys::open`].
        payload: Payload,
    },
    /// For the open stream that presented a token.
    Stream {
        /// The token.
        token: StreamToken,
        /// The name of the reply block that it answers, if it is an answer: its payload is for
        /// [`crate::ReplyKeys::open`].
        name: Option<BlockName>,
        /// How long to hold it.
        delay: Duration,
        /// What is handed over, whole.
        payload: Payload,
    },
}

/// What a packet carried, opened at its last hop. Zeroized on drop.
#[derive(PartialEq, ZeroizeOnDrop)]
pub struct Payload(Vec<u8>);

impl Payload {
    /// Takes a payload that a stream handed over; `None` if no class has its length.
    #[must_use]
    pub fn from_octets(octets: Vec<u8>) -> Option<Self> {
        SizeClass::all().any(|class| class.payload_len() == octets.len()).then_some(Self(octets))
    }

    /// All of it, as it is handed over to a stream.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn octets_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The reply block that came with it, if there is one.
    ///
    /// # Errors
    /// [`Refusal::Block`] if the flag is neither 0 nor 1, or if what stands there is no reply block.
    pub fn reply_block(&self) -> Result<Option<ReplyBlock>, Refusal> {
        match self.0.first() {
            Some(0) => Ok(None),
            Some(1) => {
                let block = self.0.get(PAYLOAD_PREFIX_LEN - REPLY_BLOCK_LEN..PAYLOAD_PREFIX_LEN);
                let block = block.and_then(|octets| ReplyBlock::from_octets(octets).ok());
                block.map(Some).ok_or(Refusal::Block)
            }
            Some(_) | None => Err(Refusal::Block),
        }
    }

    /// Octets held, padding included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true: a payload has the length of its class.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The content, without reply block and padding.
    ///
    /// # Errors
    /// [`Refusal::Block`] if the length in it does not fit.
    pub fn content(&self) -> Result<&[u8], Refusal> {
        let (_, rest) = self.0.split_first().ok_or(Refusal::Block)?;
        let (length, _) = rest.split_first_chunk().ok_or(Refusal::Block)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Refusal::Block)?;
        let content = self.0.get(PAYLOAD_PREFIX_LEN..).ok_or(Refusal::Block)?;
        content.get(..length).ok_or(Refusal::Block)
    }
}

/// Opens one layer with the key of the packet's epoch.
///
/// The order of checks is part of the format: length (by [`Packet::from_octets`]), version, epoch,
/// ciphertext, header MAC; then block and payload tag, whose outcome is inside [`Peeled`].
///
/// # Errors
/// A [`Refusal`] before or at the header MAC: such a packet leaves no trace in the replay filter.
pub fn peel(packet: Packet, keys: &EpochKeys) -> Result<Peeled, Refusal> {
    let packet = packet.open();
    let (clear, routing) = packet.header()?;
    let key = keys.get(clear.epoch).ok_or(Refusal::Epoch(clear.epoch))?;
    let hop = key.open(&clear.ciphertext, packet.class).ok_or(Refusal::Ciphertext)?;
    if !bool::from(hop.mac(&clear.authenticated(), routing).ct_eq(&clear.mac)) {
        return Err(Refusal::Mac);
    }
    let region = hop.decrypt(routing);
    Ok(Peeled {
        tag: hop.replay_tag(),
        epoch: key.epoch(),
        outcome: open(packet, region.as_slice(), &hop, key),
    })
}

fn open(
    mut packet: Opening,
    region: &[u8],
    hop: &HopKeys,
    key: &EpochKey,
) -> Result<Layer, Refusal> {
    let (block, rest) = Block::read(region)?;
    let place = Place::of(&block);
    match place {
        Place::Forward | Place::End | Place::Stream(_, None) => {
            hop.unseal(packet.payload(), &block.payload_tag).ok_or(Refusal::Payload)?;
        }
        // Nobody before the owner can tell whether a reply was altered.
        Place::ReplyOnItsWay | Place::Owner(_) | Place::Stream(_, Some(_)) => {}
    }
    if block.class != packet.class {
        return Err(Refusal::Class);
    }
    let next = act_on(&block, place, rest, key)?;
    match place {
        Place::ReplyOnItsWay | Place::Stream(_, Some(_)) => {
            hop.reply_stream().apply(packet.payload());
        }
        Place::Forward | Place::End | Place::Owner(_) | Place::Stream(_, None) => {}
    }
    let (kind, delay) = (block.kind, block.delay);
    if let Some((clear, routing)) = next {
        let packet = packet.into_packet(&clear, routing);
        return Ok(Layer::Forward { to: block.next, delay, packet });
    }
    let payload = Payload(packet.into_payload());
    Ok(match place {
        Place::Owner(name) => Layer::Reply { name, delay, payload },
        Place::Stream(token, name) => Layer::Stream { token, name, delay, payload },
        Place::Forward | Place::ReplyOnItsWay | Place::End => Layer::End { kind, delay, payload },
    })
}

/// Where on which route a hop stands, as its block says.
#[derive(Clone, Copy)]
enum Place {
    Forward,
    ReplyOnItsWay,
    End,
    Owner(BlockName),
    Stream(StreamToken, Option<BlockName>),
}

impl Place {
    fn of(block: &Block) -> Self {
        let (first, second) = block.halves();
        match block.kind {
            Kind::Forward => Self::Forward,
            Kind::Deliver | Kind::Loop | Kind::Drop => Self::End,
            Kind::DeliverToStream => {
                Self::Stream(StreamToken::from_bytes(first), BlockName::from_bytes(second))
            }
            Kind::Reply => match BlockName::from_bytes(second) {
                // No identity begins with 16 zeros.
                Some(name) if first == [0; NAME_LEN] => Self::Owner(name),
                Some(_) | None => Self::ReplyOnItsWay,
            },
        }
    }
}

/// The header of the next hop, or none at the end of the route. `rest` is what stands behind the block:
/// the next ciphertext and the next routing blocks.
fn act_on<'a>(
    block: &Block,
    place: Place,
    rest: &'a [u8],
    key: &EpochKey,
) -> Result<Option<(Clear, &'a [u8])>, Refusal> {
    let is_right = match place {
        Place::Forward | Place::ReplyOnItsWay => {
            let opened = key.epoch();
            let epochs = opened.minus(1)..=opened.plus(NEXT_EPOCHS);
            if block.next == key.node() || !epochs.contains(&block.next_epoch) {
                return Err(Refusal::Block);
            }
            let (ciphertext, routing) =
                rest.split_first_chunk::<MIX_CIPHERTEXT_LEN>().ok_or(Refusal::Block)?;
            let clear = Clear {
                epoch: block.next_epoch,
                ciphertext: MixCiphertext::from_bytes(*ciphertext),
                mac: block.next_mac,
            };
            return Ok(Some((clear, routing)));
        }
        Place::End => block.next == NodeId::from_bytes([0; 32]),
        Place::Owner(_) | Place::Stream(_, Some(_)) => block.payload_tag == [0; TAG_LEN],
        Place::Stream(_, None) => true,
    };
    if is_right && block.ends_here() { Ok(None) } else { Err(Refusal::Block) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keys::{Identity, MixSecret, MixSeed};
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;
    use crate::layout::{HEADER_LEN, LAST_BLOCK_LEN, MAX_HOPS, MIN_HOPS, ROUTING_LEN};
    use crate::packet::halves;
    use crate::wrap::{Body, Hop, wrap};

    /// The octets behind its own block, as the last hop decrypts them.
    fn behind_the_last_block(route: &[Arc<EpochKey>], rng: &mut ChaCha20Rng) -> Vec<u8> {
        let hops: Vec<_> = route
            .iter()
            .map(|key| Hop {
                node: key.node(),
                epoch: key.epoch(),
                key: key.public(),
                delay: Duration::ZERO,
            })
            .collect();
        let body = Body { class: SizeClass::SMALLEST, ..Body::default() };
        let mut packet = wrap(&hops, &body, rng).unwrap();
        let (last, before) = route.split_last().unwrap();
        for key in before {
            let keys = EpochKeys::new(vec![Arc::clone(key)]);
            match peel(packet, &keys).unwrap().outcome.unwrap() {
                Layer::Forward { packet: next, .. } => packet = next,
                Layer::End { .. } | Layer::Reply { .. } | Layer::Stream { .. } => {
                    panic!("ended early")
                }
            }
        }
        let packet = packet.open();
        let (clear, routing) = packet.header().unwrap();
        let hop = last.open(&clear.ciphertext, packet.class).unwrap();
        hop.decrypt(routing)[LAST_BLOCK_LEN..ROUTING_LEN].to_vec()
    }

    /// A packet for one hop with any block in it: what a sender that breaks the rules can make.
    fn crafted(key: &EpochKey, block: &Block, rng: &mut ChaCha20Rng) -> Packet {
        use rand_chacha::rand_core::Rng as _;
        let class = SizeClass::SMALLEST;
        let (ciphertext, shared) = key.public().encapsulate(rng).unwrap();
        let binding = crate::crypto::Binding {
            node: key.node(),
            epoch: key.epoch(),
            class,
            key: crate::crypto::hash(key.public()),
        };
        let hop = HopKeys::derive(&shared, &ciphertext, &binding);
        let mut payload = vec![0; class.payload_len()];
        let tag = hop.seal(&mut payload).unwrap();
        let mut region = Vec::new();
        block.write(&mut region);
        region[42..58].copy_from_slice(&tag);
        let end = region.len();
        region.resize(ROUTING_LEN, 0);
        rng.fill_bytes(&mut region[end..]);
        for (octet, key) in region.iter_mut().zip(hop.stream()) {
            *octet ^= key;
        }
        let routing: [u8; ROUTING_LEN] = region.try_into().unwrap();
        let mut clear = Clear { epoch: key.epoch(), ciphertext, mac: [0; 16] };
        clear.mac = hop.mac(&clear.authenticated(), &routing);
        Packet::from_octets(Packet::assemble(&clear, &routing, &payload)).unwrap()
    }

    #[test]
    fn blocks_that_no_honest_sender_makes_are_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let own = Identity::generate(&mut rng).node();
        let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
        let key = Arc::new(EpochKey::new(own, Epoch::new(3), secret));
        let keys = EpochKeys::new(vec![Arc::clone(&key)]);
        let other = Identity::generate(&mut rng).node();
        let zero = NodeId::from_bytes([0; 32]);
        let forward = || Block {
            next: other,
            delay: Duration::ZERO,
            kind: Kind::Forward,
            class: SizeClass::SMALLEST,
            next_epoch: Epoch::new(3),
            payload_tag: [0; 16],
            next_mac: [0; 16],
        };
        let end = |kind| Block { next: zero, kind, next_epoch: Epoch::new(0), ..forward() };
        let wrong_class = SizeClass::LARGEST;
        let named = halves([0; 16], [7; 16]);
        for (block, refusal) in [
            (forward(), None),
            (end(Kind::Deliver), None),
            (Block { class: wrong_class, ..forward() }, Some(Refusal::Class)),
            (Block { class: wrong_class, ..end(Kind::Deliver) }, Some(Refusal::Class)),
            (Block { next: own, ..forward() }, Some(Refusal::Block)),
            (Block { next_epoch: Epoch::new(2), ..forward() }, None),
            (Block { next_epoch: Epoch::new(5), ..forward() }, None),
            (Block { next_epoch: Epoch::new(1), ..forward() }, Some(Refusal::Block)),
            (Block { next_epoch: Epoch::new(6), ..forward() }, Some(Refusal::Block)),
            (Block { next_epoch: Epoch::new(u32::MAX), ..forward() }, Some(Refusal::Block)),
            (Block { kind: Kind::Reply, ..forward() }, None),
            (Block { kind: Kind::Reply, next: own, ..forward() }, Some(Refusal::Block)),
            (
                Block { kind: Kind::Reply, next_epoch: Epoch::new(6), ..forward() },
                Some(Refusal::Block),
            ),
            // With a payload tag it is no end of a reply, and zeros are no name.
            (Block { next: named, ..end(Kind::Reply) }, Some(Refusal::Block)),
            (end(Kind::Reply), Some(Refusal::Block)),
            (end(Kind::DeliverToStream), None),
            (Block { next: named, ..end(Kind::DeliverToStream) }, Some(Refusal::Block)),
            (Block { next_mac: [1; 16], ..end(Kind::DeliverToStream) }, Some(Refusal::Block)),
            (Block { next: other, ..end(Kind::Deliver) }, Some(Refusal::Block)),
            (Block { kind: Kind::Deliver, ..forward() }, Some(Refusal::Block)),
            (Block { next_epoch: Epoch::new(1), ..end(Kind::Drop) }, Some(Refusal::Block)),
            (Block { next_mac: [1; 16], ..end(Kind::Loop) }, Some(Refusal::Block)),
        ] {
            let packet = crafted(&key, &block, &mut rng);
            assert_eq!(peel(packet, &keys).unwrap().outcome.err(), refusal);
        }
    }

    /// Chi-square over the 256 octet values; 99.99 % of random samples lie below 346 (255 degrees
    /// of freedom). Zeros, or anything that depends on the route's length, would be far above.
    #[test]
    fn the_last_hop_sees_noise_behind_its_block_whatever_the_length_of_the_route() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let epoch = Epoch::new(9);
        let route: Vec<_> = (0..MAX_HOPS)
            .map(|_| {
                let node = Identity::generate(&mut rng).node();
                let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
                Arc::new(EpochKey::new(node, epoch, secret))
            })
            .collect();
        let headers = if std::env::var_os("FOG_LONG").is_some() { 10_000 } else { 200 };
        for hops in MIN_HOPS..=MAX_HOPS {
            let mut parts = vec![[0_u32; 256]; 5];
            let mut pairs = vec![0_u32; 1 << 16];
            for _ in 0..headers {
                let octets = behind_the_last_block(&route[..hops], &mut rng);
                for (counts, part) in parts.iter_mut().zip(octets.chunks_exact(1190)) {
                    for octet in part {
                        counts[usize::from(*octet)] += 1;
                    }
                }
                for pair in octets.chunks_exact(2) {
                    pairs[usize::from(u16::from_be_bytes([pair[0], pair[1]]))] += 1;
                }
            }
            for (part, counts) in parts.iter().enumerate() {
                let chi_square = chi_square(counts);
                assert!(chi_square < 346.0, "{hops} hops, part {part}: {chi_square}");
            }
            // With 65,535 degrees of freedom: the mean and four and a half deviations.
            let chi_square = chi_square(&pairs);
            assert!(chi_square < 65_535.0 + 4.5 * 362.0, "{hops} hops, pairs: {chi_square}");
        }
    }

    fn chi_square(counts: &[u32]) -> f64 {
        let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum()
    }

    /// Before the exit opens it, nobody sees whether a packet brings a reply block.
    #[test]
    fn the_room_of_a_reply_block_is_noise_whether_one_is_there_or_not() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let epoch = Epoch::new(9);
        let route: Vec<_> = (0..3)
            .map(|_| {
                let node = Identity::generate(&mut rng).node();
                let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
                Arc::new(EpochKey::new(node, epoch, secret))
            })
            .collect();
        let delay = Duration::ZERO;
        let hops: Vec<_> = route
            .iter()
            .map(|key| Hop { node: key.node(), epoch, key: key.public(), delay })
            .collect();
        let end = crate::ReplyEnd::Owner;
        let (block, _) = crate::reply_block(&hops, end, SizeClass::SMALLEST, &mut rng).unwrap();
        for reply in [None, Some(&block)] {
            let mut links = vec![[0_u32; 256]; 2];
            for _ in 0..100 {
                let body = Body { reply, content: b"content", ..Body::default() };
                let mut packet = wrap(&hops, &body, &mut rng).unwrap();
                for (counts, key) in links.iter_mut().zip(&route) {
                    for octet in &packet.octets()[HEADER_LEN..HEADER_LEN + PAYLOAD_PREFIX_LEN] {
                        counts[usize::from(*octet)] += 1;
                    }
                    let keys = EpochKeys::new(vec![Arc::clone(key)]);
                    match peel(packet, &keys).unwrap().outcome.unwrap() {
                        Layer::Forward { packet: next, .. } => packet = next,
                        Layer::End { .. } | Layer::Reply { .. } | Layer::Stream { .. } => {
                            panic!("three hops")
                        }
                    }
                }
            }
            for (link, counts) in links.iter().enumerate() {
                let chi_square = chi_square(counts);
                let is_there = reply.is_some();
                assert!(chi_square < 346.0, "{is_there}, link {link}: {chi_square}");
            }
        }
    }
}

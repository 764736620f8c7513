//! The octets of a packet and of a routing block.

use core::time::Duration;

use keys::{Epoch, MIX_CIPHERTEXT_LEN, MixCiphertext, NodeId};
use zeroize::Zeroizing;

use crate::class::SizeClass;
use crate::layout::{
    CLEAR_LEN, EPOCH_LEN, HEADER_LEN, MAC_LEN, NAME_LEN, ROUTING_LEN, SUITE, TAG_LEN, VERSION,
};
use crate::refusal::Refusal;

/// A packet between two nodes: one of nine lengths, otherwise only octets.
#[derive(PartialEq, Eq)]
pub struct Packet {
    class: SizeClass,
    octets: Vec<u8>,
}

impl Packet {
    /// Takes octets of one of the nine lengths.
    ///
    /// # Errors
    /// [`Refusal::Length`] for any other length.
    pub fn from_octets(octets: Vec<u8>) -> Result<Self, Refusal> {
        let class = SizeClass::of_packet(octets.len()).ok_or(Refusal::Length)?;
        Ok(Self { class, octets })
    }

    /// Its size class.
    #[must_use]
    pub fn class(&self) -> SizeClass {
        self.class
    }

    /// Its octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The epoch it says it is sealed for.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        let number = self.octets.get(2..6).and_then(|octets| octets.try_into().ok());
        Epoch::new(u32::from_be_bytes(number.unwrap_or_default()))
    }

    pub(crate) fn assemble(clear: &Clear, routing: &[u8; ROUTING_LEN], payload: &[u8]) -> Vec<u8> {
        let mut octets = Vec::with_capacity(HEADER_LEN + payload.len());
        clear.write(&mut octets);
        octets.extend_from_slice(routing);
        octets.extend_from_slice(payload);
        octets
    }

    /// Taken apart for one hop.
    pub(crate) fn open(self) -> Opening {
        Opening { class: self.class, octets: Zeroizing::new(self.octets) }
    }
}

/// A packet at one hop, which decrypts it where it lies. Zeroized unless it goes on or ends here.
pub(crate) struct Opening {
    pub(crate) class: SizeClass,
    octets: Zeroizing<Vec<u8>>,
}

impl Opening {
    pub(crate) fn header(&self) -> Result<(Clear, &[u8; ROUTING_LEN]), Refusal> {
        let (header, _) = self.octets.split_first_chunk::<HEADER_LEN>().ok_or(Refusal::Length)?;
        let (clear, routing) = header.split_first_chunk::<CLEAR_LEN>().ok_or(Refusal::Length)?;
        Ok((Clear::read(clear)?, routing.try_into().map_err(|_| Refusal::Length)?))
    }

    pub(crate) fn payload(&mut self) -> &mut [u8] {
        self.octets.get_mut(HEADER_LEN..).unwrap_or_default()
    }

    /// The packet for the next hop, in the same octets. `routing` is cut to the length it has in a
    /// packet.
    pub(crate) fn into_packet(mut self, clear: &Clear, routing: &[u8]) -> Packet {
        if let Some((head, _)) = self.octets.split_first_chunk_mut::<HEADER_LEN>() {
            let (before, rest) = head.split_at_mut(CLEAR_LEN - MAC_LEN);
            before.copy_from_slice(&clear.authenticated());
            let (mac, blocks) = rest.split_at_mut(MAC_LEN);
            mac.copy_from_slice(&clear.mac);
            for (to, from) in blocks.iter_mut().zip(routing) {
                *to = *from;
            }
        }
        Packet { class: self.class, octets: core::mem::take(&mut self.octets) }
    }

    /// The payload, in the same octets.
    pub(crate) fn into_payload(mut self) -> Vec<u8> {
        let header = HEADER_LEN.min(self.octets.len());
        self.octets.drain(..header);
        core::mem::take(&mut self.octets)
    }
}

/// The part before the routing blocks, 1,142 octets.
pub(crate) struct Clear {
    pub(crate) epoch: Epoch,
    pub(crate) ciphertext: MixCiphertext,
    pub(crate) mac: [u8; MAC_LEN],
}

impl Clear {
    fn read(octets: &[u8; CLEAR_LEN]) -> Result<Self, Refusal> {
        let (version, rest) = octets.split_first_chunk::<2>().ok_or(Refusal::Length)?;
        if *version != [VERSION, SUITE] {
            return Err(Refusal::Version);
        }
        let (epoch, rest) = rest.split_first_chunk().ok_or(Refusal::Length)?;
        let (ciphertext, rest) =
            rest.split_first_chunk::<MIX_CIPHERTEXT_LEN>().ok_or(Refusal::Length)?;
        Ok(Self {
            epoch: Epoch::new(u32::from_be_bytes(*epoch)),
            ciphertext: MixCiphertext::from_bytes(*ciphertext),
            mac: rest.try_into().map_err(|_| Refusal::Length)?,
        })
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.authenticated());
        to.extend_from_slice(&self.mac);
    }

    /// The part that the MAC covers: all but the MAC itself.
    pub(crate) fn authenticated(&self) -> [u8; CLEAR_LEN - MAC_LEN] {
        let epoch = self.epoch.number().to_be_bytes();
        let fields = [VERSION, SUITE].into_iter().chain(epoch);
        let mut octets = [0; CLEAR_LEN - MAC_LEN];
        let (start, ciphertext) = octets.split_at_mut(2 + EPOCH_LEN);
        for (to, from) in start.iter_mut().zip(fields) {
            *to = from;
        }
        ciphertext.copy_from_slice(self.ciphertext.as_bytes());
        octets
    }
}

/// What a hop is to do with a packet; one octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 0: to the next node.
    Forward,
    /// 1: the payload is for this exit.
    Deliver,
    /// 2: along a reply block, to its owner.
    Reply,
    /// 3: a packet that has come back to its sender, which tests whether it would.
    Loop,
    /// 4: cover that ends here.
    Drop,
    /// 5: to the open stream that presented a token; token and name stand in the next node's place.
    DeliverToStream,
}

/// The name of a reply block, 16 octets: its owner knows by it which keys open the answer. Random,
/// and never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockName([u8; NAME_LEN]);

/// What a peer without an onion service presents on a stream, 16 octets: packets that name it are
/// handed over there. The peer chooses it at random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamToken([u8; NAME_LEN]);

impl BlockName {
    /// The 16 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; NAME_LEN] {
        &self.0
    }

    /// Takes 16 octets; `None` for zeros, which stand for no name.
    #[must_use]
    pub fn from_bytes(bytes: [u8; NAME_LEN]) -> Option<Self> {
        (bytes != [0; NAME_LEN]).then_some(Self(bytes))
    }
}

impl StreamToken {
    /// The 16 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; NAME_LEN] {
        &self.0
    }

    /// Takes 16 octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; NAME_LEN]) -> Self {
        Self(bytes)
    }
}

/// Two halves of the octets where the next node stands in other blocks.
pub(crate) fn halves(first: [u8; NAME_LEN], second: [u8; NAME_LEN]) -> NodeId {
    let mut octets = [0; NodeId::LEN];
    let (one, other) = octets.split_at_mut(NAME_LEN);
    one.copy_from_slice(&first);
    other.copy_from_slice(&second);
    NodeId::from_bytes(octets)
}

impl Kind {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Forward => 0,
            Self::Deliver => 1,
            Self::Reply => 2,
            Self::Loop => 3,
            Self::Drop => 4,
            Self::DeliverToStream => 5,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Forward, Self::Deliver, Self::Reply, Self::Loop, Self::Drop, Self::DeliverToStream]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// One hop's orders, 74 octets; the next ciphertext follows unless it is the last.
pub(crate) struct Block {
    pub(crate) next: NodeId,
    pub(crate) delay: Duration,
    pub(crate) kind: Kind,
    pub(crate) class: SizeClass,
    pub(crate) next_epoch: Epoch,
    pub(crate) payload_tag: [u8; TAG_LEN],
    pub(crate) next_mac: [u8; MAC_LEN],
}

impl Block {
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        let delay = u32::try_from(self.delay.as_millis()).unwrap_or(u32::MAX);
        to.extend_from_slice(self.next.as_bytes());
        to.extend_from_slice(&delay.to_be_bytes());
        to.extend_from_slice(&[self.kind.number(), self.class.number()]);
        to.extend_from_slice(&self.next_epoch.number().to_be_bytes());
        to.extend_from_slice(&self.payload_tag);
        to.extend_from_slice(&self.next_mac);
    }

    pub(crate) fn read(octets: &[u8]) -> Result<(Self, &[u8]), Refusal> {
        let (next, rest) = octets.split_first_chunk().ok_or(Refusal::Block)?;
        let (delay, rest) = rest.split_first_chunk().ok_or(Refusal::Block)?;
        let (&[kind, class], rest) = rest.split_first_chunk().ok_or(Refusal::Block)?;
        let (next_epoch, rest) = rest.split_first_chunk().ok_or(Refusal::Block)?;
        let (payload_tag, rest) = rest.split_first_chunk().ok_or(Refusal::Block)?;
        let (next_mac, rest) = rest.split_first_chunk().ok_or(Refusal::Block)?;
        let block = Self {
            next: NodeId::from_bytes(*next),
            delay: Duration::from_millis(u32::from_be_bytes(*delay).into()),
            kind: Kind::from_number(kind).ok_or(Refusal::Kind)?,
            class: SizeClass::from_number(class).ok_or(Refusal::Class)?,
            next_epoch: Epoch::new(u32::from_be_bytes(*next_epoch)),
            payload_tag: *payload_tag,
            next_mac: *next_mac,
        };
        Ok((block, rest))
    }

    /// Whether the fields that a last block has no use for are zero: all but what stands in the next
    /// node's place.
    pub(crate) fn ends_here(&self) -> bool {
        self.next_epoch.number() == 0 && self.next_mac == [0; MAC_LEN]
    }

    /// The two halves of what stands in the next node's place.
    pub(crate) fn halves(&self) -> ([u8; NAME_LEN], [u8; NAME_LEN]) {
        let (first, second) = self.next.as_bytes().split_at(NAME_LEN);
        (first.try_into().unwrap_or_default(), second.try_into().unwrap_or_default())
    }
}

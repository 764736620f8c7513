//! The octets of a message in custody: its sealed packets, when each leaves, and what opens their
//! answers. The node that keeps them cannot read the message.

use bincode::{Decode, Encode, config};
use keys::{NodeId, Time};
use sphinx::{Packet, ReplyKeys, SizeClass};
use zeroize::{Zeroize as _, Zeroizing};

use crate::custody::KeptMessage;
use crate::ids::MessageName;
use crate::loops::Walk;
use crate::outbox::Way;
use crate::replies::{Expected, Purpose};
use crate::seal::Sealed;

const VERSION: u8 = 1;
const CONTEXT: &str = "fog-v1 check of a spooled message";
const CHECK_LEN: usize = 16;
/// Octets of a message in custody, at most: two copies of the largest mail, and some.
pub const MAX_SPOOLED: usize = 64 << 20;
/// Parts of a message, at most: each has a recipient.
const MAX_PARTS: usize = mail::MAX_RECIPIENTS;

/// Why octets are no message in custody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// Of another version.
    #[error("unknown version")]
    Unknown,
    /// Not what was written.
    #[error("damaged")]
    Damaged,
}

/// A message in custody, as it was kept.
pub struct Spooled {
    pub(crate) name: MessageName,
    pub(crate) accepted: Time,
    pub(crate) is_cover: bool,
    pub(crate) parts: Vec<SpooledPart>,
}

/// The part of a message that goes to recipients of one domain.
pub(crate) struct SpooledPart {
    pub(crate) recipients: u8,
    pub(crate) packets: Vec<SpooledPacket>,
}

pub(crate) struct SpooledPacket {
    pub(crate) at: Time,
    pub(crate) way: Way,
    pub(crate) exit: u8,
    pub(crate) is_spare: bool,
    pub(crate) class: SizeClass,
    /// The packet, until it has left.
    pub(crate) sealed: Option<Sealed>,
    /// What opens its answer, until when that can come, and the way of what a decoy became.
    pub(crate) answer: Option<(ReplyKeys, Time, Option<Walk>)>,
}

#[derive(Encode, Decode)]
struct Whole {
    version: u8,
    name: [u8; 16],
    accepted: u64,
    is_cover: bool,
    parts: Vec<PartOctets>,
}

#[derive(Encode, Decode)]
struct PartOctets {
    recipients: u8,
    packets: Vec<PacketOctets>,
}

#[derive(Encode, Decode)]
struct PacketOctets {
    at: u64,
    exit: u8,
    is_spare: bool,
    returns: bool,
    first: [u8; 32],
    until: u64,
    answer_until: u64,
    answer: Vec<u8>,
    packet: Vec<u8>,
}

impl Drop for PacketOctets {
    fn drop(&mut self) {
        self.answer.zeroize();
    }
}

type Layout =
    config::Configuration<config::BigEndian, config::Fixint, config::Limit<{ MAX_SPOOLED }>>;

const fn layout() -> Layout {
    config::standard().with_big_endian().with_fixed_int_encoding().with_limit::<MAX_SPOOLED>()
}

impl Spooled {
    /// The octets, big-endian: version 1, name 16, time of acceptance 8, whether it is cover 1, parts 8;
    /// for each recipients 1 and packets 8; for each of those when it leaves 8, exit 1, whether it gives way to
    /// other mail 1, whether it returns 1, first hop 32, its end 8, the end of its answer 8 (0 if none comes),
    /// keys of the answer 8 and their octets, packet 8 and its octets. At the end 16 of BLAKE3 over all of it.
    /// `None` if there are more than [`MAX_SPOOLED`].
    #[must_use]
    pub fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let parts = self.parts.iter().map(|part| PartOctets {
            recipients: part.recipients,
            packets: part.packets.iter().filter_map(SpooledPacket::octets).collect(),
        });
        let whole = Whole {
            version: VERSION,
            name: *self.name.as_bytes(),
            accepted: self.accepted.as_millis(),
            is_cover: self.is_cover,
            parts: parts.collect(),
        };
        let mut octets = Zeroizing::new(bincode::encode_to_vec(&whole, layout()).ok()?);
        let check = check(&octets);
        octets.extend_from_slice(&check);
        (octets.len() <= MAX_SPOOLED).then_some(octets)
    }

    /// Reads the octets of a message in custody.
    ///
    /// # Errors
    /// [`SpoolError`]: a disk returns other octets than were written.
    pub fn decode(octets: &[u8]) -> Result<Self, SpoolError> {
        let damaged = SpoolError::Damaged;
        if octets.first().is_some_and(|version| *version != VERSION) {
            return Err(SpoolError::Unknown);
        }
        if octets.len() > MAX_SPOOLED {
            return Err(damaged);
        }
        let (body, written) = octets.split_last_chunk::<CHECK_LEN>().ok_or(damaged)?;
        if check(body) != *written {
            return Err(damaged);
        }
        let (whole, read): (Whole, usize) =
            bincode::decode_from_slice(body, layout()).map_err(|_| damaged)?;
        if read != body.len() || whole.parts.len() > MAX_PARTS {
            return Err(damaged);
        }
        let part = |part: PartOctets| {
            let packets = part.packets.into_iter().map(SpooledPacket::of);
            let packets = packets.collect::<Option<Vec<_>>>().ok_or(damaged)?;
            Ok(SpooledPart { recipients: part.recipients, packets })
        };
        Ok(Self {
            name: MessageName::from_bytes(whole.name),
            accepted: Time::from_millis(whole.accepted),
            is_cover: whole.is_cover,
            parts: whole.parts.into_iter().map(part).collect::<Result<_, SpoolError>>()?,
        })
    }

    /// With its marks, and without the octets of the packets that have left.
    #[must_use]
    pub fn marked(mut self, marks: Vec<u8>) -> KeptMessage {
        let of_packets = marks.iter().skip(self.parts.len());
        let packets = self.parts.iter_mut().flat_map(|part| &mut part.packets);
        for (packet, _) in packets.zip(of_packets).filter(|(_, mark)| **mark != 0) {
            packet.sealed = None;
        }
        KeptMessage { spooled: self, marks }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> MessageName {
        self.name
    }

    /// The packets of its attempts that are still to leave.
    pub fn packets(&self) -> impl Iterator<Item = &Packet> {
        let packets = self.parts.iter().flat_map(|part| &part.packets);
        packets.filter_map(|packet| Some(&packet.sealed.as_ref()?.packet))
    }
}

impl SpooledPacket {
    fn octets(&self) -> Option<PacketOctets> {
        let (answer, sealed) = (self.answer.as_ref(), self.sealed.as_ref()?);
        Some(PacketOctets {
            at: self.at.as_millis(),
            exit: self.exit,
            is_spare: self.is_spare,
            returns: self.way == Way::Returning,
            first: *sealed.first.as_bytes(),
            until: sealed.until.as_millis(),
            answer_until: answer.map_or(0, |(_, until, _)| until.as_millis()),
            answer: answer.map(|(keys, ..)| keys.to_octets().to_vec()).unwrap_or_default(),
            packet: sealed.packet.octets().to_vec(),
        })
    }

    /// What leaves, and what is waited for then; the number is that of its part.
    pub(crate) fn expecting(
        self,
        number: u64,
        is_cover: bool,
    ) -> (Option<Sealed>, Option<Expected>) {
        let of = match is_cover {
            true => Purpose::Decoy(number),
            false => Purpose::Message { part: number, exit: self.exit },
        };
        let expected = self.answer.map(|(keys, until, walk)| Expected { keys, until, of, walk });
        (self.sealed, expected)
    }

    fn of(mut octets: PacketOctets) -> Option<Self> {
        let answer = match octets.answer.as_slice() {
            [] if octets.answer_until == 0 => None,
            [] => return None,
            keys => {
                let until = Time::from_millis(octets.answer_until);
                Some((ReplyKeys::from_octets(keys).ok()?, until, None))
            }
        };
        let packet = Packet::from_octets(core::mem::take(&mut octets.packet)).ok()?;
        let until = Time::from_millis(octets.until);
        Some(Self {
            at: Time::from_millis(octets.at),
            way: if octets.returns { Way::Returning } else { Way::OneWay },
            exit: octets.exit,
            is_spare: octets.is_spare,
            class: packet.class(),
            sealed: Some(Sealed { first: NodeId::from_bytes(octets.first), packet, until }),
            answer,
        })
    }
}

fn check(octets: &[u8]) -> [u8; CHECK_LEN] {
    let hash = blake3::derive_key(CONTEXT, octets);
    hash.first_chunk().copied().unwrap_or_default()
}

//! What a packet carries of a message. `README.md` beside this crate gives the layout.
//!
//! Envelope, needs and header are inside what is cut, so that one piece of many tells nothing of
//! them. A message is one piece for now; index, counts and encoding have their place so that
//! cutting and compression need no new version of what surrounds them.

use bincode::config::{BigEndian, Configuration, Fixint, Limit};
use bincode::{Decode, Encode};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::address::Domain;
use crate::scrub::{Envelope, MAX_RECIPIENTS, Needs, Scrubbed};

/// Octets of a fragment, at most: more than the largest packet carries.
pub const MAX_FRAGMENT: usize = 256 * 1024;

const VERSION: u8 = 2;
const WHOLE_VERSION: u8 = 1;
const PLAIN: u8 = 0;
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

    /// The octets: the same for the same fragment.
    ///
    /// # Errors
    /// [`FragmentError::TooLong`].
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, FragmentError> {
        let whole = Whole {
            version: WHOLE_VERSION,
            encoding: PLAIN,
            message_id: self.message_id,
            needs: self.needs.bits().into(),
            to: To::Mail {
                domain: self.envelope.domain.as_str().to_owned(),
                locals: self.envelope.locals.clone(),
            },
            extensions: Vec::new(),
            message: self.message.clone(),
        };
        let piece = encode(&whole)?;
        let wire = Wire {
            version: VERSION,
            delivery: self.delivery,
            index: 0,
            needed: 1,
            total: 1,
            octets: u32::try_from(piece.len()).map_err(|_| FragmentError::TooLong)?,
            piece: piece.to_vec(),
        };
        encode(&wire)
    }

    /// Reads the octets of a fragment.
    ///
    /// # Errors
    /// [`FragmentError`]: whoever sent it is not trusted to have been honest.
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
        let wire: Wire = decode(octets)?;
        if (wire.index, wire.needed, wire.total) != (0, 1, 1) {
            return Err(FragmentError::Unknown);
        }
        if usize::try_from(wire.octets) != Ok(wire.piece.len()) {
            return Err(FragmentError::Malformed);
        }
        match wire.piece.get(..2) {
            Some(&[WHOLE_VERSION, PLAIN]) => {}
            Some(_) => return Err(FragmentError::Unknown),
            None => return Err(FragmentError::Malformed),
        }
        decode::<Whole>(&wire.piece)?.checked(wire.delivery)
    }
}

fn encode(value: &impl Encode) -> Result<Zeroizing<Vec<u8>>, FragmentError> {
    let octets = bincode::encode_to_vec(value, LAYOUT).map_err(|_| FragmentError::TooLong)?;
    let octets = Zeroizing::new(octets);
    if octets.len() > MAX_FRAGMENT { Err(FragmentError::TooLong) } else { Ok(octets) }
}

fn decode<T: Encode + Decode<()>>(octets: &[u8]) -> Result<T, FragmentError> {
    if octets.len() > MAX_FRAGMENT {
        return Err(FragmentError::TooLong);
    }
    let (value, consumed) =
        bincode::decode_from_slice(octets, LAYOUT).map_err(|_| FragmentError::Malformed)?;
    let again = encode(&value)?;
    if consumed != octets.len() || again.as_slice() != octets {
        return Err(FragmentError::Malformed);
    }
    Ok(value)
}

const LAYOUT: Configuration<BigEndian, Fixint, Limit<MAX_FRAGMENT>> = bincode::config::standard()
    .with_big_endian()
    .with_fixed_int_encoding()
    .with_limit::<MAX_FRAGMENT>();

/// What a packet carries: one piece of a whole. Zeroized on drop.
#[derive(Encode, Decode, ZeroizeOnDrop)]
struct Wire {
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
        let To::Mail { domain: text, locals } = &mut self.to else {
            return Err(FragmentError::News);
        };
        let domain = Domain::parse(text).map_err(|_| FragmentError::Envelope)?;
        let counted = (1..=MAX_RECIPIENTS).contains(&locals.len());
        let envelope = Envelope { domain, locals: core::mem::take(locals) };
        if !counted || envelope.domain.as_str() != text || envelope.recipients().is_none() {
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

    fn piece(whole: &Whole) -> Wire {
        let piece = encode(whole).unwrap().to_vec();
        let octets = u32::try_from(piece.len()).unwrap();
        Wire { version: VERSION, delivery: [2; 16], index: 0, needed: 1, total: 1, octets, piece }
    }

    fn of_wire(wire: &Wire) -> Result<(Needs, String), String> {
        let octets = encode(wire).unwrap();
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
            (4, b"X-Fog-From: keep\r\nFrom: a@b\r\n\r\n", says(MessageError::Repeated)),
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

    #[test]
    fn what_a_later_version_sends_is_told_from_what_nobody_sends() {
        let unknown = Some(FragmentError::Unknown.to_string());
        let malformed = Some(FragmentError::Malformed.to_string());
        let with = |change: &dyn Fn(&mut Wire)| {
            let mut wire = piece(&whole(0, b"To: a\r\n\r\n"));
            change(&mut wire);
            of_wire(&wire).err()
        };
        assert_eq!(with(&|_| {}), None);
        assert_eq!(with(&|wire| wire.version = 3), unknown);
        assert_eq!(with(&|wire| wire.total = 2), unknown);
        assert_eq!(with(&|wire| wire.piece[0] = 9), unknown, "another version of the whole");
        assert_eq!(with(&|wire| wire.piece[1] = 1), unknown, "compressed");
        let two = |wire: &mut Wire| (wire.piece, wire.octets) = (vec![3, 0], 2);
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
            Fragment::decode(&encode(&piece(&odd)).unwrap()).err()
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

//! What a payload carries of a message. `README.md` beside this crate gives the layout.
//!
//! A message is one fragment for now; index, count and encoding have their place so that cutting
//! and compression need no new version of what surrounds them.

use bincode::config::{BigEndian, Configuration, Fixint, Limit};
use bincode::{Decode, Encode};
use rand_core::CryptoRng;
use zeroize::{Zeroize as _, ZeroizeOnDrop};

use crate::address::Domain;
use crate::scrub::{Envelope, MAX_RECIPIENTS, Needs, Scrubbed};

/// Octets of a fragment, at most: more than the largest packet carries.
pub const MAX_FRAGMENT: usize = 256 * 1024;

const VERSION: u8 = 1;
const PLAIN: u8 = 0;

/// Why octets are not a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum FragmentError {
    /// More than a packet can carry.
    #[error("too long")]
    TooLong,
    /// Not the one encoding of a fragment.
    #[error("malformed")]
    Malformed,
    /// A version, encoding or number of fragments that this node does not know.
    #[error("unknown version")]
    Unknown,
    /// An envelope that no honest ingress makes.
    #[error("bad envelope")]
    Envelope,
}

/// A scrubbed message on its way. Zeroized on drop.
#[derive(ZeroizeOnDrop)]
pub struct Fragment {
    pub(crate) message_id: [u8; 16],
    #[zeroize(skip)]
    pub(crate) accepted_hour: u32,
    #[zeroize(skip)]
    pub(crate) needs: Needs,
    #[zeroize(skip)]
    pub(crate) envelope: Envelope,
    pub(crate) message: Vec<u8>,
}

impl Fragment {
    /// Cuts a scrubbed message. `message_id` is the same for all domains of one submission and
    /// becomes its Message-ID; `accepted_hour` is Unix time in whole hours and becomes its Date.
    #[must_use]
    pub fn cut(mut scrubbed: Scrubbed, message_id: [u8; 16], accepted_hour: u32) -> Self {
        Self {
            message_id,
            accepted_hour,
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

    /// The octets of the payload; draws 16 octets that name this fragment.
    ///
    /// # Errors
    /// [`FragmentError::TooLong`].
    pub fn encode(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, FragmentError> {
        let mut name = [0; 16];
        rng.fill_bytes(&mut name);
        let mut wire = Wire {
            version: VERSION,
            name,
            index: 0,
            needed: 1,
            total: 1,
            encoding: PLAIN,
            message_id: self.message_id,
            accepted_hour: self.accepted_hour,
            needs: self.needs.bits(),
            domain: self.envelope.domain.as_str().to_owned(),
            locals: self.envelope.locals.clone(),
            message: self.message.clone(),
        };
        let octets = bincode::encode_to_vec(&wire, LAYOUT);
        wire.message.zeroize();
        let octets = zeroize::Zeroizing::new(octets.map_err(|_| FragmentError::TooLong)?);
        if octets.len() > MAX_FRAGMENT { Err(FragmentError::TooLong) } else { Ok(octets) }
    }

    /// Reads the octets of a payload.
    ///
    /// # Errors
    /// [`FragmentError`]: whoever sent it is not trusted to have been honest.
    pub fn decode(octets: &[u8]) -> Result<Self, FragmentError> {
        if octets.len() > MAX_FRAGMENT {
            return Err(FragmentError::TooLong);
        }
        let (wire, consumed): (Wire, usize) =
            bincode::decode_from_slice(octets, LAYOUT).map_err(|_| FragmentError::Malformed)?;
        let again = bincode::encode_to_vec(&wire, LAYOUT).map_err(|_| FragmentError::Malformed)?;
        let again = zeroize::Zeroizing::new(again);
        if consumed != octets.len() || again.as_slice() != octets {
            return Err(FragmentError::Malformed);
        }
        wire.checked()
    }
}

const LAYOUT: Configuration<BigEndian, Fixint, Limit<MAX_FRAGMENT>> = bincode::config::standard()
    .with_big_endian()
    .with_fixed_int_encoding()
    .with_limit::<MAX_FRAGMENT>();

#[derive(Encode, Decode)]
struct Wire {
    version: u8,
    name: [u8; 16],
    index: u16,
    needed: u16,
    total: u16,
    encoding: u8,
    message_id: [u8; 16],
    accepted_hour: u32,
    needs: u8,
    domain: String,
    locals: Vec<String>,
    message: Vec<u8>,
}

impl Wire {
    fn checked(self) -> Result<Fragment, FragmentError> {
        let whole = (self.index, self.needed, self.total) == (0, 1, 1);
        if self.version != VERSION || self.encoding != PLAIN || !whole {
            return Err(FragmentError::Unknown);
        }
        let needs = Needs::from_bits(self.needs).ok_or(FragmentError::Unknown)?;
        let domain = Domain::parse(&self.domain).map_err(|_| FragmentError::Envelope)?;
        let counted = (1..=MAX_RECIPIENTS).contains(&self.locals.len());
        let envelope = Envelope { domain, locals: self.locals };
        if !counted || envelope.domain.as_str() != self.domain || envelope.recipients().is_none() {
            return Err(FragmentError::Envelope);
        }
        Ok(Fragment {
            message_id: self.message_id,
            accepted_hour: self.accepted_hour,
            needs,
            envelope,
            message: self.message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mailbox, MessageError, rebuild};

    fn wire(needs: u8, message: &[u8]) -> Wire {
        Wire {
            version: VERSION,
            name: [0; 16],
            index: 0,
            needed: 1,
            total: 1,
            encoding: PLAIN,
            message_id: [1; 16],
            accepted_hour: 495_000,
            needs,
            domain: "b.example".into(),
            locals: vec!["a".into()],
            message: message.to_vec(),
        }
    }

    /// What an exit makes of octets that no honest ingress sends.
    fn exit(wire: &Wire) -> Result<(Needs, String), String> {
        let octets = bincode::encode_to_vec(wire, LAYOUT).unwrap();
        let fragment = Fragment::decode(&octets).map_err(|error| error.to_string())?;
        let anonymous = Mailbox::parse("anonymous@exit.example").unwrap();
        let delivery = rebuild(&fragment, &anonymous).map_err(|error| error.to_string())?;
        Ok((delivery.needs, String::from_utf8_lossy(&delivery.message).into_owned()))
    }

    #[test]
    fn hostile_fragments_leave_clean_or_not_at_all() {
        let from = |text: &str| text.lines().filter(|line| line.starts_with("From:")).count();
        for message in [
            "From: ceo@bank.example\r\nTo: a@b.example\r\n\r\nx\r\n",
            "Bcc: x@y\r\nReceived: z\r\nDate: today\r\nMessage-ID: <1@2>\r\nX-Fog-Notice: no\r\n\r\n",
        ] {
            let (_, text) = exit(&wire(0, message.as_bytes())).unwrap();
            assert_eq!(from(&text), 1, "{text}");
            assert!(text.contains("From: Anonymous <anonymous@exit.example>"));
            for planted in ["ceo@bank", "Bcc", "Received", "today", "1@2", "Notice: no"] {
                assert!(!text.contains(planted), "{text}");
            }
        }
        // Needs are the exit's own finding, not what the ingress says.
        let (needs, _) = exit(&wire(0, "To: x\r\n\r\nä\r\n".as_bytes())).unwrap();
        assert!(needs.contains(Needs::EIGHT_BIT));
        let (_, kept) = exit(&wire(4, b"From: me@own.example\r\n\r\n")).unwrap();
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
            assert_eq!(exit(&wire(needs, message)).unwrap_err(), why);
        }
        let many = Wire { locals: vec!["a".into(); 101], ..wire(0, b"\r\n") };
        assert_eq!(exit(&many).unwrap_err(), FragmentError::Envelope.to_string());
        let cut = Wire { total: 2, ..wire(0, b"\r\n") };
        assert_eq!(exit(&cut).unwrap_err(), FragmentError::Unknown.to_string());
        let late = Wire { accepted_hour: u32::MAX, ..wire(0, b"\r\n") };
        assert_eq!(exit(&late).unwrap_err(), says(MessageError::Header));
    }
}

//! The fields of a record, as they are encoded and signed.

use bincode::{Decode, Encode};
use keys::{Epoch, Identity, MIX_PUBLIC_LEN, MixPublic, NetworkId, NodeId, Purpose, Time};

use crate::canonical::{self, CodecError};
use crate::hash::{SetHash, StatementHash};
use crate::layout::{MAX_KEYS, MAX_RECORD_BODY, RECORD_TAG, TRAFFIC_CLASSES};
use crate::policy::ExitPolicy;

const VERSION: u16 = 1;
/// The version of the same layout without a key: all keys that its author had are withdrawn. A node
/// that knows only version 1 ignores it.
const WITHOUT_KEYS: u16 = 2;
const MAX_FAMILY: usize = 16;
const MAX_CONTACT: usize = 128;
const MAX_SOFTWARE: usize = 32;
const MAX_EXTENSIONS: usize = 16;

/// What a node says of itself, before it is signed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Higher than in any record this identity published before.
    pub sequence: u64,
    /// Hash of the previous record; [`StatementHash::NONE`] for the first.
    pub previous: StatementHash,
    /// When it is published.
    pub published_at: Time,
    /// Mix keys in ascending order of epoch, from the epoch of `published_at` on; empty only if
    /// some keys are withdrawn.
    pub keys: Vec<(Epoch, MixPublic)>,
    /// Epochs whose key is given up, ascending, at most [`MAX_KEYS`]; none of them in `keys`.
    pub withdrawn: Vec<Epoch>,
    /// What it delivers, if it is an exit.
    pub exit: Option<ExitPolicy>,
    /// How to reach the operator, at most 128 octets without control characters; may be empty.
    pub contact: String,
    /// Other identities under the same operator, at most 16; none twice.
    pub family: Vec<NodeId>,
    /// Packets relayed in the last hour for each size class, rounded down to a power of two.
    pub traffic: [u32; TRAFFIC_CLASSES],
    /// What the author's directory holds for the hour.
    pub set: SetHash,
}

impl Draft {
    /// Encodes and signs: the statement's octets, ready to be published.
    ///
    /// # Errors [`CodecError::TooLong`] above [`crate::MAX_RECORD`] octets,
    /// [`CodecError::Malformed`] if a field breaks its bound.
    pub fn sign(self, identity: &Identity, network: &NetworkId) -> Result<Vec<u8>, CodecError> {
        let mut family: Vec<_> = self.family.iter().map(|node| *node.as_bytes()).collect();
        family.sort_unstable();
        let body = Body {
            version: if self.keys.is_empty() { WITHOUT_KEYS } else { VERSION },
            network: *network.as_bytes(),
            node: *identity.node().as_bytes(),
            sequence: self.sequence,
            previous: *self.previous.as_bytes(),
            published_at: self.published_at.as_millis(),
            keys: self
                .keys
                .iter()
                .map(|(epoch, key)| EpochKey { epoch: epoch.number(), key: key.to_bytes() })
                .collect(),
            withdrawn: self.withdrawn.iter().map(|epoch| epoch.number()).collect(),
            exit: self.exit,
            family,
            contact: self.contact,
            traffic: self.traffic,
            digest: *self.set.as_bytes(),
            software: concat!("fog ", env!("CARGO_PKG_VERSION")).to_owned(),
            extensions: Vec::new(),
        };
        if !body.well_formed() {
            return Err(CodecError::Malformed);
        }
        let octets = canonical::encode::<MAX_RECORD_BODY>(&body)?;
        let signature = identity.sign(Purpose::Record, network, &octets);
        let mut statement = vec![RECORD_TAG];
        statement.extend_from_slice(&octets);
        statement.extend_from_slice(signature.as_bytes());
        Ok(statement)
    }
}

/// A typed field of a later version. Unknown ones are kept and stay signed; an unknown critical one
/// makes the record unusable.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Extension {
    /// Which field; strictly ascending within a record.
    pub kind: u16,
    /// Whether a node that does not know the field must not use the record.
    pub critical: bool,
    /// Its octets.
    pub value: Vec<u8>,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Body {
    version: u16,
    pub(crate) network: [u8; 32],
    pub(crate) node: [u8; 32],
    pub(crate) sequence: u64,
    pub(crate) previous: [u8; 32],
    pub(crate) published_at: u64,
    pub(crate) keys: Vec<EpochKey>,
    /// Epochs whose key its owner gave up; ascending.
    pub(crate) withdrawn: Vec<u32>,
    pub(crate) exit: Option<ExitPolicy>,
    /// Identities under the same operator; ascending.
    pub(crate) family: Vec<[u8; 32]>,
    pub(crate) contact: String,
    pub(crate) traffic: [u32; TRAFFIC_CLASSES],
    pub(crate) digest: [u8; 32],
    pub(crate) software: String,
    extensions: Vec<Extension>,
}

#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct EpochKey {
    pub(crate) epoch: u32,
    pub(crate) key: [u8; MIX_PUBLIC_LEN],
}

impl Body {
    pub(crate) fn is_known_version(&self) -> bool {
        matches!(self.version, VERSION | WITHOUT_KEYS)
    }

    pub(crate) fn has_unknown_critical(&self) -> bool {
        self.extensions.iter().any(|extension| extension.critical)
    }

    /// Counts, texts and orders within their bounds.
    pub(crate) fn well_formed(&self) -> bool {
        let is_empty = self.keys.is_empty() && !self.withdrawn.is_empty();
        let has_keys = (1..=MAX_KEYS).contains(&self.keys.len());
        (if self.version == WITHOUT_KEYS { is_empty } else { has_keys })
            && ascending(self.keys.iter().map(|key| key.epoch))
            && self.withdrawn.len() <= MAX_KEYS
            && ascending(self.withdrawn.iter())
            && self.withdrawn.iter().all(|gone| self.keys.iter().all(|key| key.epoch != *gone))
            && self.exit.as_ref().is_none_or(|exit| exit.domains.well_formed())
            && self.family.len() <= MAX_FAMILY
            && ascending(self.family.iter())
            && printable(&self.contact, MAX_CONTACT)
            && printable(&self.software, MAX_SOFTWARE)
            && self.traffic.iter().all(|count| *count == 0 || count.is_power_of_two())
            && self.extensions.len() <= MAX_EXTENSIONS
            && ascending(self.extensions.iter().map(|extension| extension.kind))
    }
}

fn ascending<T: PartialOrd>(items: impl Iterator<Item = T> + Clone) -> bool {
    items.clone().zip(items.skip(1)).all(|(first, second)| first < second)
}

/// Shown on terminals: no control characters, no bidirectional overrides.
fn printable(text: &str, max: usize) -> bool {
    let turns = |c: char| matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.len() <= max && text.chars().all(|c| !c.is_control() && !turns(c))
}

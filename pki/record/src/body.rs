//! The fields of a record, as they are encoded and signed.

use bincode::{Decode, Encode};
use keys::{Epoch, Hour, Identity, MIX_PUBLIC_LEN, MixPublic, NetworkId, NodeId, Purpose, Time};

use crate::canonical::{self, CodecError};
use crate::extension::{self, Extension};
use crate::hash::{ListSketch, StatementHash};
use crate::layout::{MAX_KEYS, MAX_RECORD_BODY, RECORD_TAG, TRAFFIC_CLASSES};
use crate::policy::ExitPolicy;

const VERSION: u16 = 3;
const MAX_FAMILY: usize = 16;
const MAX_CONTACT: usize = 128;
const MAX_SOFTWARE: usize = 32;

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
    /// Messages delivered in the last day, rounded down to a power of two.
    pub delivered: u32,
    /// What it understands.
    pub features: Features,
    /// What it takes at most.
    pub limits: Capacity,
    /// The list that the author uses, with its hour.
    pub list: (Hour, ListSketch),
    /// Fields of later versions, ascending by kind.
    pub extensions: Vec<Extension>,
}

/// What a node understands, a bit for each number in the registries of `fog-sphinx` and
/// `fog-remailer`; 8 octets on the wire. Unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Features {
    /// Kinds of packets.
    pub kinds: u16,
    /// Streams that it serves.
    pub streams: u16,
    /// Content types.
    pub contents: u32,
}

impl Features {
    /// Whether it understands packets of this kind.
    #[must_use]
    pub fn has_kind(&self, number: u8) -> bool {
        1_u16.checked_shl(number.into()).is_some_and(|bit| self.kinds & bit != 0)
    }

    /// Whether it understands content of this type.
    #[must_use]
    pub fn has_content(&self, number: u8) -> bool {
        1_u32.checked_shl(number.into()).is_some_and(|bit| self.contents & bit != 0)
    }
}

/// What a node takes at most; 8 octets on the wire, zero where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Capacity {
    /// Links.
    pub links: u16,
    /// Streams of clients that wait for packets.
    pub streams: u16,
    /// KiB of packets that it holds.
    pub pool_kib: u32,
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
            version: VERSION,
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
            delivered: self.delivered,
            features: self.features,
            limits: self.limits,
            list_hour: self.list.0.number(),
            list: *self.list.1.as_bytes(),
            software: concat!("fog ", env!("CARGO_PKG_VERSION")).to_owned(),
            extensions: self.extensions,
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
    pub(crate) delivered: u32,
    pub(crate) features: Features,
    pub(crate) limits: Capacity,
    pub(crate) list_hour: u64,
    pub(crate) list: [u8; ListSketch::LEN],
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
        self.version == VERSION
    }

    pub(crate) fn has_unknown_critical(&self) -> bool {
        let known = [Extension::MAILBOX, Extension::REPLIES];
        let others = self.extensions.iter().filter(|extension| !extension.is_leaving());
        extension::unknown_critical(others, &known).is_some()
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.extensions.iter().any(Extension::is_leaving)
    }

    /// Counts, texts and orders within their bounds.
    pub(crate) fn well_formed(&self) -> bool {
        let is_power = |count: u32| count == 0 || count.is_power_of_two();
        !(self.keys.is_empty() && self.withdrawn.is_empty())
            && self.keys.len() <= MAX_KEYS
            && ascending(self.keys.iter().map(|key| key.epoch))
            && self.withdrawn.len() <= MAX_KEYS
            && ascending(self.withdrawn.iter())
            && self.withdrawn.iter().all(|gone| self.keys.iter().all(|key| key.epoch != *gone))
            && self.exit.as_ref().is_none_or(|exit| exit.domains.well_formed())
            && self.family.len() <= MAX_FAMILY
            && ascending(self.family.iter())
            && printable(&self.contact, MAX_CONTACT)
            && printable(&self.software, MAX_SOFTWARE)
            && self.traffic.iter().all(|count| is_power(*count))
            && is_power(self.delivered)
            && extension::well_formed(&self.extensions)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use keys::{Epoch, Schedule, Time};

    /// The body of an honest record.
    fn honest() -> Body {
        let hour = core::time::Duration::from_secs(3600);
        let schedule = Schedule::new(hour * 3, hour / 2, hour / 6);
        let at = schedule.start(Epoch::new(165_000)).plus(hour);
        let octets = testing::draft(1, at, &schedule)
            .sign(&Identity::from_seed(&[1; 32]), &NetworkId::from_bytes([3; 32]))
            .unwrap();
        let body = octets.get(1..octets.len() - 64).unwrap();
        assert!(at > Time::default());
        canonical::decode::<_, MAX_RECORD_BODY>(body).unwrap()
    }

    #[test]
    fn a_body_that_no_honest_author_signs_is_not_well_formed() {
        assert!(honest().well_formed() && honest().is_known_version());
        assert!(!Body { version: VERSION + 1, ..honest() }.is_known_version());
        let keys = |order: &[usize]| {
            let all = honest().keys;
            order.iter().map(|at| all[*at].clone()).collect::<Vec<_>>()
        };
        let epoch = |at: usize| honest().keys[at].epoch;
        let node = |number: u8| [number; 32];
        let extension = |kind| Extension { kind, critical: false, value: Vec::new() };
        let long = |octets: usize| "x".repeat(octets);
        for (is_taken, body) in [
            (true, Body { keys: keys(&[0]), ..honest() }),
            (false, Body { keys: Vec::new(), ..honest() }),
            (true, Body { keys: Vec::new(), withdrawn: vec![epoch(0)], ..honest() }),
            (false, Body { keys: keys(&[1, 0]), ..honest() }),
            (false, Body { keys: keys(&[0, 0]), ..honest() }),
            (true, Body { withdrawn: vec![epoch(2) + 1, epoch(2) + 2], ..honest() }),
            (false, Body { withdrawn: vec![epoch(2) + 2, epoch(2) + 1], ..honest() }),
            (false, Body { withdrawn: vec![epoch(2) + 1; 2], ..honest() }),
            (false, Body { withdrawn: vec![epoch(0)], ..honest() }),
            (false, Body { withdrawn: (1..=5).map(|more| epoch(2) + more).collect(), ..honest() }),
            (true, Body { family: (1..=16).map(node).collect(), ..honest() }),
            (false, Body { family: (1..=17).map(node).collect(), ..honest() }),
            (false, Body { family: vec![node(2), node(1)], ..honest() }),
            (true, Body { contact: long(128), ..honest() }),
            (false, Body { contact: long(129), ..honest() }),
            (false, Body { contact: "a\u{1b}[2J".into(), ..honest() }),
            (false, Body { contact: "a\u{202e}b".into(), ..honest() }),
            (false, Body { contact: "a\u{2066}b".into(), ..honest() }),
            (true, Body { software: long(32), ..honest() }),
            (false, Body { software: long(33), ..honest() }),
            (true, Body { traffic: [0, 1, 2, 4, 8, 16, 32, 64, 128], ..honest() }),
            (false, Body { traffic: [0, 1, 2, 4, 8, 16, 32, 64, 129], ..honest() }),
            (true, Body { delivered: 64, ..honest() }),
            (false, Body { delivered: 63, ..honest() }),
            (true, Body { extensions: vec![extension(1), extension(2)], ..honest() }),
            (false, Body { extensions: vec![extension(2), extension(1)], ..honest() }),
            (true, Body { extensions: (0..16).map(extension).collect(), ..honest() }),
            (false, Body { extensions: (0..17).map(extension).collect(), ..honest() }),
        ] {
            assert_eq!(body.well_formed(), is_taken, "{body:?}");
        }
    }

    #[test]
    fn only_what_is_critical_and_unknown_bars_a_record() {
        let with = |kind, critical| {
            let extensions = vec![Extension { kind, critical, value: Vec::new() }];
            Body { extensions, ..honest() }.has_unknown_critical()
        };
        assert!(with(9, true) && !with(9, false));
        assert!(!with(Extension::MAILBOX, true) && !with(Extension::REPLIES, true));
        let of = |extension: Extension| Body { extensions: vec![extension], ..honest() };
        let says = |body: Body| (body.is_leaving(), body.has_unknown_critical());
        let leaving = Extension::leaving();
        assert_eq!(says(of(leaving.clone())), (true, false));
        assert_eq!(says(of(Extension { critical: false, ..leaving.clone() })), (false, false));
        assert_eq!(says(of(Extension { value: vec![1], ..leaving })), (false, true));
    }
}

//! From octets to a verified record.
//!
//! ```text
//! Unverified   framed and parsed: bounded, one encoding, fields within their bounds
//!   | check_signature(network)
//! Signed       of this network, signed by its identity, its mix keys usable
//!   | timely(now, schedule)
//! Record       its epochs lie where they may at this time
//! ```

use std::sync::Arc;

use keys::{
    Checked, Epoch, Hour, MixPublic, NetworkId, NodeId, OnionAddress, Purpose, Schedule, Signature,
    Time,
};

use crate::body::{Body, Capacity, Features};
use crate::canonical;
use crate::error::StatementError;
use crate::hash::{ListSketch, StatementHash};
use crate::layout::{MAX_KEYS, MAX_RECORD, MAX_RECORD_BODY, RECORD_TAG};
use crate::policy::ExitPolicy;

/// A record as received: parsed, with nothing in it believed yet.
#[derive(Debug)]
pub struct Unverified {
    octets: Arc<[u8]>,
    body: Body,
    signature: Signature,
}

impl Unverified {
    /// Frames and parses a statement of at most [`MAX_RECORD`] octets.
    ///
    /// # Errors
    /// `TooLong`, `Malformed`, `NotCanonical`, or `Unknown` for what a later version may send.
    pub fn parse(octets: &[u8]) -> Result<Self, StatementError> {
        if octets.len() > MAX_RECORD {
            return Err(StatementError::TooLong);
        }
        let (body, signature) = split(octets)?;
        let body: Body = canonical::decode::<_, MAX_RECORD_BODY>(body)?;
        if !body.is_known_version() {
            return Err(StatementError::Unknown);
        }
        if !body.well_formed() {
            return Err(StatementError::Malformed);
        }
        Ok(Self { octets: octets.into(), body, signature })
    }

    /// The identity that it claims to be from.
    #[must_use]
    pub fn claimed_node(&self) -> NodeId {
        NodeId::from_bytes(self.body.node)
    }

    /// Which network it claims to be of.
    #[must_use]
    pub fn claimed_network(&self) -> NetworkId {
        NetworkId::from_bytes(self.body.network)
    }

    /// Checks network and signature over the octets as received, then the mix keys.
    ///
    /// # Errors
    /// `OtherNetwork`, `BadSignature` or `BadKey`.
    pub fn check_signature(self, network: &NetworkId) -> Result<Signed, StatementError> {
        self.check_signature_knowing(network, &mut Checked::default())
    }

    /// The same, without checking again what was checked before.
    ///
    /// # Errors
    /// As [`Unverified::check_signature`].
    pub fn check_signature_knowing(
        mut self,
        network: &NetworkId,
        checked: &mut Checked,
    ) -> Result<Signed, StatementError> {
        if self.claimed_network() != *network {
            return Err(StatementError::OtherNetwork);
        }
        let (signed, _) = split(&self.octets)?;
        let onion = checked.onion(self.claimed_node()).map_err(|_| StatementError::BadSignature)?;
        onion
            .verify(Purpose::Record, network, signed, &self.signature)
            .map_err(|_| StatementError::BadSignature)?;
        let mut keys = Vec::with_capacity(MAX_KEYS);
        for key in &self.body.keys {
            let public = checked.mix_public(&key.key).map_err(|_| StatementError::BadKey)?;
            keys.push((Epoch::new(key.epoch), public));
        }
        let hash = StatementHash::of(&self.octets);
        // The parsed keys replace them: 5 KB less for each record that is held.
        self.body.keys = Vec::new();
        Ok(Signed(Record { octets: self.octets, hash, onion, keys, body: self.body }))
    }
}

/// A record that its identity signed, whatever its time.
#[derive(Debug)]
pub struct Signed(Record);

impl Signed {
    /// The identity that signed it.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node()
    }

    /// Its place in the author's own order.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.0.sequence()
    }

    /// BLAKE3 of its octets.
    #[must_use]
    pub fn hash(&self) -> StatementHash {
        self.0.hash()
    }

    /// When the author says it was published.
    #[must_use]
    pub fn published_at(&self) -> Time {
        self.0.published_at()
    }

    /// What it says, for a caller that reads it whatever its time.
    #[must_use]
    pub fn peek(&self) -> &Record {
        &self.0
    }

    /// Checks that the record speaks of epochs it may speak of at `now`: published not later than
    /// the early tolerance allows, keys only from the epoch of publishing to three after it, and
    /// the last of them not past.
    ///
    /// # Errors
    /// `Future` or `Stale`.
    pub fn timely(self, now: Time, schedule: &Schedule) -> Result<Record, StatementError> {
        let record = self.0;
        let published = schedule.epoch_at(record.published_at());
        let (first, last) = record.span();
        if !schedule.may_be_dated(record.published_at(), now)
            || last > published.plus(3)
            || first < published
        {
            return Err(StatementError::Future);
        }
        if last < schedule.epoch_at(now) {
            return Err(StatementError::Stale);
        }
        Ok(record)
    }
}

/// A verified record: what a node says of itself, signed by it, within its time. Cheap to clone
/// where it is held in an [`Arc`].
#[derive(Debug)]
pub struct Record {
    octets: Arc<[u8]>,
    hash: StatementHash,
    onion: OnionAddress,
    keys: Vec<(Epoch, MixPublic)>,
    body: Body,
}

impl Record {
    /// The identity that signed it.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.onion.node()
    }

    /// Where it is reached: the same as [`Record::node`], as an address.
    #[must_use]
    pub fn onion(&self) -> OnionAddress {
        self.onion
    }

    /// The statement's octets as received, signature included.
    #[must_use]
    pub fn octets(&self) -> &Arc<[u8]> {
        &self.octets
    }

    /// BLAKE3 of the octets.
    #[must_use]
    pub fn hash(&self) -> StatementHash {
        self.hash
    }

    /// Its place in the author's own order.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.body.sequence
    }

    /// Hash of the record it follows.
    #[must_use]
    pub fn previous(&self) -> StatementHash {
        StatementHash::from_bytes(self.body.previous)
    }

    /// When the author says it was published.
    #[must_use]
    pub fn published_at(&self) -> Time {
        Time::from_millis(self.body.published_at)
    }

    /// The mix key for an epoch.
    #[must_use]
    pub fn key(&self, epoch: Epoch) -> Option<&MixPublic> {
        self.keys.iter().find(|(of, _)| *of == epoch).map(|(_, key)| key)
    }

    /// Epochs whose keys it holds, ascending.
    pub fn epochs(&self) -> impl Iterator<Item = Epoch> + '_ {
        self.keys.iter().map(|(epoch, _)| *epoch)
    }

    /// The first and the last epoch that it speaks of, by a key or by withdrawing one.
    #[must_use]
    pub fn span(&self) -> (Epoch, Epoch) {
        let withdrawn = self.body.withdrawn.iter().map(|epoch| Epoch::new(*epoch));
        let all = self.epochs().chain(withdrawn);
        all.fold((Epoch::new(u32::MAX), Epoch::new(0)), |(first, last), epoch| {
            (first.min(epoch), last.max(epoch))
        })
    }

    /// The mix keys with their epochs, ascending.
    pub fn keys(&self) -> impl Iterator<Item = (Epoch, &MixPublic)> {
        self.keys.iter().map(|(epoch, key)| (*epoch, key))
    }

    /// Whether its author gave up the key of an epoch.
    #[must_use]
    pub fn withdraws(&self, epoch: Epoch) -> bool {
        self.body.withdrawn.binary_search(&epoch.number()).is_ok()
    }

    /// The list that its author used when it was published, with its hour.
    #[must_use]
    pub fn list(&self) -> (Hour, ListSketch) {
        (Hour::new(self.body.list_hour), ListSketch::from_bytes(self.body.list))
    }

    /// Whether this node knows every critical field of it. Routes do not go through a node whose
    /// record says what this node does not understand.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        !self.body.has_unknown_critical()
    }

    /// Whether its author is about to leave: no route is to go through it.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.body.is_leaving()
    }

    /// What it understands.
    #[must_use]
    pub fn features(&self) -> Features {
        self.body.features
    }

    /// What it takes at most.
    #[must_use]
    pub fn limits(&self) -> Capacity {
        self.body.limits
    }

    /// Messages that it delivered in the last day, zero or a power of two.
    #[must_use]
    pub fn delivered(&self) -> u32 {
        self.body.delivered
    }

    /// What it delivers, if it is an exit.
    #[must_use]
    pub fn exit(&self) -> Option<&ExitPolicy> {
        self.body.exit.as_ref()
    }

    /// How to reach its operator.
    #[must_use]
    pub fn contact(&self) -> &str {
        &self.body.contact
    }

    /// Whether two nodes say of each other that one operator runs both. A node whose word alone
    /// sufficed could push another out of routes.
    #[must_use]
    pub fn is_family_of(&self, other: &Self) -> bool {
        self.names(&other.node()) && other.names(&self.node())
    }

    fn names(&self, node: &NodeId) -> bool {
        self.body.family.binary_search(node.as_bytes()).is_ok()
    }

    /// The software that it runs.
    #[must_use]
    pub fn software(&self) -> &str {
        &self.body.software
    }
}

/// Tag, body, signature.
fn split(octets: &[u8]) -> Result<(&[u8], Signature), StatementError> {
    let (tag, rest) = octets.split_first().ok_or(StatementError::Malformed)?;
    if *tag != RECORD_TAG {
        return Err(StatementError::Malformed);
    }
    let (body, signature) = rest.split_last_chunk().ok_or(StatementError::Malformed)?;
    Ok((body, Signature::from_bytes(*signature)))
}

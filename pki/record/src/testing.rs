//! Records made from numbers, for tests, benches and examples: the same number gives the same
//! octets.

use keys::{Epoch, Hour, Identity, MIX_SEED_LEN, MixPublic, MixSecret, MixSeed, Schedule, Time};

use crate::{Capacity, Draft, Features, ListSketch, Parameters, StatementHash, TRAFFIC_CLASSES};

/// The seed of the mix key that a number stands for in an epoch.
#[must_use]
pub fn seed(number: u64, epoch: Epoch) -> MixSeed {
    let mut octets = [0; MIX_SEED_LEN];
    let mut hasher = blake3::Hasher::new_derive_key("fog testing mix key");
    hasher.update(&number.to_be_bytes()).update(&epoch.number().to_be_bytes());
    hasher.finalize_xof().fill(&mut octets);
    MixSeed::from_bytes(&octets)
}

/// The public half of that key.
#[must_use]
pub fn key(number: u64, epoch: Epoch) -> MixPublic {
    MixSecret::from_seed(&seed(number, epoch)).public().clone()
}

/// The first record of a relay without a contact, published at `at`; its keys are to be filled in.
#[must_use]
pub fn blank(at: Time) -> Draft {
    Draft {
        sequence: 1,
        previous: StatementHash::NONE,
        published_at: at,
        keys: Vec::new(),
        withdrawn: Vec::new(),
        exit: None,
        contact: String::new(),
        family: Vec::new(),
        traffic: [0; TRAFFIC_CLASSES],
        delivered: 0,
        features: Features::default(),
        limits: Capacity::default(),
        list: (Hour::default(), ListSketch::default()),
        extensions: Vec::new(),
    }
}

/// The same with the keys of a number for three epochs.
#[must_use]
pub fn draft(number: u64, at: Time, schedule: &Schedule) -> Draft {
    let first = schedule.epoch_at(at);
    let key = |ahead| (first.plus(ahead), key(number, first.plus(ahead)));
    Draft { keys: (0..3).map(key).collect(), ..blank(at) }
}

/// The octets of a descriptor that its maker votes in, whatever its parameters, with a critical
/// extension of this kind, if any; empty if it cannot be encoded.
#[must_use]
pub fn descriptor(maker: &Identity, parameters: &Parameters, critical: Option<u16>) -> Vec<u8> {
    crate::descriptor::unchecked(maker, parameters, critical).unwrap_or_default()
}

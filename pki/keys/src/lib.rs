#![doc = include_str!("../README.md")]

mod checked;
mod epoch;
mod identity;
mod mixkey;
mod onion;
mod x25519;

pub use checked::Checked;
pub use epoch::{Epoch, Hour, Schedule, Time};
pub use identity::{Identity, IdentityError, NetworkId, NodeId, Purpose, Signature};
pub use mixkey::{
    KemError, MIX_CIPHERTEXT_LEN, MIX_PUBLIC_LEN, MIX_SEED_LEN, MixCiphertext, MixPublic,
    MixSecret, MixSeed, MixShared,
};
pub use onion::{OnionAddress, OnionError};

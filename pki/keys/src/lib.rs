//! A node's identity, and the mix key that it holds in each epoch.
//!
//! A node has one long-term ed25519 key. The same 32 octets are its [`NodeId`], its Tor v3
//! [`OnionAddress`], its libp2p peer id, and the key that signs its statements. For each [`Epoch`] it
//! has one hybrid mix key ([`MixSecret`], [`MixPublic`]): X25519 together with ML-KEM-768.
//!
//! This crate is not a key store: it reads no file, no clock and no source of randomness. What it
//! needs of them is passed in.

mod epoch;
mod identity;
mod mixkey;
mod onion;

pub use epoch::{Epoch, Hour, Schedule, Time};
pub use identity::{Identity, IdentityError, NetworkId, NodeId, Purpose, Signature};
pub use mixkey::{
    KemError, MIX_CIPHERTEXT_LEN, MIX_PUBLIC_LEN, MIX_SEED_LEN, MixCiphertext, MixPublic,
    MixSecret, MixSeed, MixShared,
};
pub use onion::{OnionAddress, OnionError};

//! The packet: fixed sizes, wrapped by the sender, peeled at each hop.
//!
//! Suite 1 is a Sphinx header over a hybrid KEM (X25519 with ML-KEM-768, one ciphertext for each
//! hop) and a payload under one AES-256-GCM layer for each hop, whose tag stands in that hop's
//! authenticated block. [`wrap`] makes a packet for a list of [`Hop`]s; [`peel`] opens one layer.
//! [`reply_block`] makes the header of an answer ahead, for somebody who is not to know the way:
//! [`ReplyBlock::answer`] makes the answer's packet, and [`ReplyKeys::open`] reads it. All are pure
//! functions. `SPEC.md` beside this crate gives every octet.
//!
//! This crate does no I/O, keeps no replay filter and chooses no route; it does not know what it
//! carries.

mod class;
mod crypto;
mod layout;
mod packet;
mod peel;
mod refusal;
mod reply;
mod wrap;

pub use class::SizeClass;
pub use crypto::{EpochKey, EpochKeys, ReplayTag};
pub use layout::{HEADER_LEN, MAX_HOPS, MIN_HOPS, REPLY_BLOCK_LEN};
pub use packet::{BlockName, Kind, Packet, StreamToken};
pub use peel::{Layer, Payload, Peeled, peel};
pub use refusal::Refusal;
pub use reply::{ReplyBlock, ReplyEnd, ReplyError, ReplyKeys, reply_block};
pub use wrap::{Body, End, Hop, WrapError, wrap};

//! Lengths in octets and the arithmetic behind them.

use keys::{MIX_CIPHERTEXT_LEN, NodeId};

/// Fewest hops of a route.
pub const MIN_HOPS: usize = 3;
/// Most hops of a route.
pub const MAX_HOPS: usize = 6;

/// How far after the epoch that opened a packet the next hop's may lie: as far ahead as keys are
/// stated. It may lie one before it, too, by the grace of keys.
pub(crate) const NEXT_EPOCHS: u32 = 2;

pub(crate) const VERSION: u8 = 2;
pub(crate) const SUITE: u8 = 1;

pub(crate) const MAC_LEN: usize = 16;
pub(crate) const TAG_LEN: usize = 16;
pub(crate) const EPOCH_LEN: usize = 4;

/// version 1, suite 1, epoch 4, ciphertext 1,120, MAC 16.
pub(crate) const CLEAR_LEN: usize = 2 + EPOCH_LEN + MIX_CIPHERTEXT_LEN + MAC_LEN;
/// next node 32, delay 4, kind 1, class 1, epoch of the next hop 4, payload tag 16, next MAC 16.
pub(crate) const LAST_BLOCK_LEN: usize = NodeId::LEN + 4 + 1 + 1 + EPOCH_LEN + TAG_LEN + MAC_LEN;
/// The same and the next ciphertext.
pub(crate) const BLOCK_LEN: usize = LAST_BLOCK_LEN + MIX_CIPHERTEXT_LEN;
/// Five blocks and a sixth without ciphertext: no hop follows the sixth.
pub(crate) const ROUTING_LEN: usize = (MAX_HOPS - 1) * BLOCK_LEN + LAST_BLOCK_LEN;

/// Octets of a header: clear part and routing blocks.
pub const HEADER_LEN: usize = CLEAR_LEN + ROUTING_LEN;
/// Octets of a reply block: first node 32, header, key 32, class 1, last epoch 4. Every payload has
/// room for one.
pub const REPLY_BLOCK_LEN: usize = NodeId::LEN + HEADER_LEN + 32 + 1 + EPOCH_LEN;

/// reply flag 1, content length 4, reply block.
pub(crate) const PAYLOAD_PREFIX_LEN: usize = 1 + 4 + REPLY_BLOCK_LEN;
/// content length 4 and tag 16: what a reply has beside its content.
pub(crate) const REPLY_OVERHEAD: usize = 4 + TAG_LEN;
/// Octets of the name of a reply block, and of the token of a stream.
pub(crate) const NAME_LEN: usize = 16;

const _: () = assert!(BLOCK_LEN == 1_194 && ROUTING_LEN == 6_044);
const _: () = assert!(HEADER_LEN == 7_186 && HEADER_LEN <= 7_200);
const _: () = assert!(REPLY_BLOCK_LEN == 7_255 && REPLY_BLOCK_LEN <= 7_280);
const _: () = assert!(16 * 1024 - HEADER_LEN - PAYLOAD_PREFIX_LEN == 1_938);

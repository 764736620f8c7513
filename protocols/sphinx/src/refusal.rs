//! Why a packet goes no further.

use keys::Epoch;

/// Why a packet goes no further. The sender is told nothing; the node counts by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// Not one of the nine lengths.
    #[error("length")]
    Length,
    /// An unknown version or suite.
    #[error("version")]
    Version,
    /// Its epoch, given here, has no key that is accepted now.
    #[error("epoch")]
    Epoch(Epoch),
    /// A first ciphertext that no honest sender makes.
    #[error("ciphertext")]
    Ciphertext,
    /// The header MAC does not match: the packet was altered, or is not for this node.
    #[error("mac")]
    Mac,
    /// The payload tag does not match: the payload was altered since the last hop.
    #[error("payload")]
    Payload,
    /// The block's size class is not that of the packet.
    #[error("class")]
    Class,
    /// An unknown or reserved kind.
    #[error("kind")]
    Kind,
    /// A block that no honest sender makes.
    #[error("block")]
    Block,
}

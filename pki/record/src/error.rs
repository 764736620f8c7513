//! Why a statement is none that may be used.

use crate::canonical::CodecError;

/// Why octets are not a statement that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum StatementError {
    /// More octets than a statement of its kind may have.
    #[error("statement over its size limit")]
    TooLong,
    /// Not a statement, or fields outside their bounds.
    #[error("malformed statement")]
    Malformed,
    /// Another encoding than the one.
    #[error("statement not in its canonical encoding")]
    NotCanonical,
    /// A kind or version that this node does not know.
    #[error("statement of an unknown version or kind")]
    Unknown,
    /// Signed for another network.
    #[error("statement of another network")]
    OtherNetwork,
    /// Unsigned, altered, or signed by another key.
    #[error("statement not signed by its author")]
    BadSignature,
    /// A mix key that cannot be used.
    #[error("statement with an unusable mix key")]
    BadKey,
    /// Published in the future, or with keys of epochs it may not speak of yet.
    #[error("statement from the future")]
    Future,
    /// Its time, or that of all its epochs, is past.
    #[error("statement whose time is past")]
    Stale,
}

impl From<CodecError> for StatementError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::TooLong => Self::TooLong,
            CodecError::Malformed => Self::Malformed,
            CodecError::NotCanonical => Self::NotCanonical,
        }
    }
}

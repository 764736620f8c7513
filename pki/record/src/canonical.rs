//! The one encoding of every statement: bincode 2 with big-endian integers of fixed width.
//!
//! bincode by itself leaves trailing octets unread and accepts several encodings of some values, so
//! decoding here also demands that everything was consumed and that encoding again gives the same
//! octets. The limit is checked before anything is allocated.

use bincode::config::{BigEndian, Configuration, Fixint, Limit};
use bincode::{Decode, Encode};

/// Why octets are not the encoding of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More octets than this kind of value may have.
    #[error("too long")]
    TooLong,
    /// Not an encoding of such a value.
    #[error("malformed")]
    Malformed,
    /// A second encoding of the value, or octets left over.
    #[error("not the canonical encoding")]
    NotCanonical,
}

/// Encodes a value in at most `LIMIT` octets.
///
/// # Errors
/// [`CodecError::TooLong`] if it needs more.
pub fn encode<const LIMIT: usize>(value: &impl Encode) -> Result<Vec<u8>, CodecError> {
    let octets =
        bincode::encode_to_vec(value, layout::<LIMIT>()).map_err(|_| CodecError::TooLong)?;
    if octets.len() > LIMIT { Err(CodecError::TooLong) } else { Ok(octets) }
}

/// Decodes at most `LIMIT` octets, all of them, from their one encoding.
///
/// # Errors
/// [`CodecError`] says which of the three conditions failed.
pub fn decode<T: Encode + Decode<()>, const LIMIT: usize>(octets: &[u8]) -> Result<T, CodecError> {
    if octets.len() > LIMIT {
        return Err(CodecError::TooLong);
    }
    let (value, consumed) =
        bincode::decode_from_slice(octets, layout::<LIMIT>()).map_err(|_| CodecError::Malformed)?;
    if consumed != octets.len() || encode::<LIMIT>(&value)? != octets {
        return Err(CodecError::NotCanonical);
    }
    Ok(value)
}

const fn layout<const LIMIT: usize>() -> Configuration<BigEndian, Fixint, Limit<LIMIT>> {
    bincode::config::standard().with_big_endian().with_fixed_int_encoding().with_limit::<LIMIT>()
}

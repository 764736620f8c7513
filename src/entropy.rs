//! The one source of randomness.

use rand::TryRng as _;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;

use crate::failure::{Failure, FailureKind};

/// The operating system's generator, asked anew each time. It holds no state: a generator with a
/// buffer would leave the octets of keys in memory wherever it was moved. It fails only on a system
/// that has not gathered enough entropy since its start; [`generator`] tests that first.
pub type Generator = UnwrapErr<SysRng>;

/// The generator, if the system has one.
///
/// # Errors
/// If it has none.
pub fn generator() -> Result<Generator, Failure> {
    SysRng
        .try_next_u64()
        .map_err(|error| Failure::new(FailureKind::Internal, format!("no randomness: {error}")))?;
    Ok(UnwrapErr(SysRng))
}

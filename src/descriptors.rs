//! File descriptors: as many as the bounds of a node's parts add up to, or it does not start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Failure, FailureKind};
use crate::net::tor::circuits::MAX_STREAMS;
use crate::{control, ingress, net};

/// For the state folder, the event loop, Tor's control port and what a delivery opens: counted on a
/// running node, and doubled.
const OWN: usize = 128;

/// What a node may need.
const NEEDED: usize =
    OWN + ingress::MAX_SESSIONS + MAX_STREAMS + net::MAX_SOCKETS + control::MAX_CALLERS;

/// Raises the limit of open files to the most that this user may have, and returns it.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, what there is may be enough.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Checks that so many are enough for a node under load.
///
/// # Errors
/// If they are not, with what to do.
pub fn check(most: u64) -> Result<(), Failure> {
    if usize::try_from(most).unwrap_or(usize::MAX) >= NEEDED {
        return Ok(());
    }
    let says = format!("{most} files may be open, and {NEEDED} may be needed");
    Err(Failure::new(FailureKind::State, says)
        .remedy("raise the hard limit: ulimit -Hn, or LimitNOFILE= in the unit"))
}

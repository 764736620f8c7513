//! Room on the disk: looked at before something is written, not after.

use std::path::Path;

use super::error::{Error, Fault};

/// Octets that have to be free on the disk of the state folder. Below that the database is neither
/// opened nor written, no mail is taken, and no packet: what is left is for keys, replay tags and
/// the node's own record.
pub const RESERVE: u64 = 16 << 20;
/// Files that may still be made, at least, where the file system counts them.
const RESERVED_FILES: u64 = 16;

/// Whether the disk that a path lies on, or is to lie on, has room.
///
/// # Errors
/// [`Fault::Full`], with how much is free.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let found = path.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok());
    // A disk that does not tell is tried.
    let Some(disk) = found else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < RESERVE {
        let says = format!("{} MiB are free, and {} are needed", free >> 20, RESERVE >> 20);
        return Err(Error::new(path, Fault::Full, says));
    }
    if disk.f_files > 0 && disk.f_favail < RESERVED_FILES {
        let says = format!("the file system has room for {} more files", disk.f_favail);
        return Err(Error::new(path, Fault::Full, says));
    }
    Ok(())
}

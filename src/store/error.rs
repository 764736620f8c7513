//! Errors of a node's storage: the place and the kind of each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, FailureKind};

/// A failure to read or store something.
#[derive(Debug)]
pub struct Error {
    path: PathBuf,
    fault: Fault,
    cause: String,
    remedy: Option<String>,
}

/// The kind of an error. `Full` may pass by itself; the others need a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room: the disk or a quota is full.
    Full,
    /// The file system is mounted read-only, as it is after a fault of the disk.
    ReadOnly,
    /// This user lacks the permission.
    Denied,
    /// The stored data is not what was written.
    Corrupt,
    /// The data belongs to another version, identity or network, or is in use.
    Foreign,
    /// Any other error of the system.
    Other,
}

impl Error {
    pub(super) fn io(path: &Path, error: &io::Error) -> Self {
        Self::new(path, fault_of(error), error)
    }

    pub(super) fn database(path: &Path, error: &sled::Error) -> Self {
        let fault = match error {
            sled::Error::Io(error) => fault_of(error),
            sled::Error::Corruption { .. } => Fault::Corrupt,
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_) => Fault::Other,
        };
        Self::new(path, fault, error)
    }

    pub(super) fn new(path: &Path, fault: Fault, cause: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), fault, cause: cause.to_string(), remedy: None }
    }

    /// Adds what to do about it.
    pub(super) fn remedy(self, remedy: impl fmt::Display) -> Self {
        Self { remedy: Some(remedy.to_string()), ..self }
    }

    /// The kind of the error.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.cause)
    }
}

impl core::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::new(FailureKind::State, &error);
        match (error.remedy, error.fault) {
            (Some(remedy), _) => failure.remedy(remedy),
            (None, Fault::Full) => failure.remedy("make room on that file system"),
            (None, Fault::ReadOnly) => {
                failure.remedy("look into the system's log for why it is mounted read-only")
            }
            (None, Fault::Denied | Fault::Corrupt | Fault::Foreign | Fault::Other) => failure,
        }
    }
}

fn fault_of(error: &io::Error) -> Fault {
    #[expect(clippy::wildcard_enum_match_arm, reason = "there are dozens of other kinds")]
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Fault::Full
        }
        io::ErrorKind::ReadOnlyFilesystem => Fault::ReadOnly,
        io::ErrorKind::PermissionDenied => Fault::Denied,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Fault::Corrupt,
        _ => Fault::Other,
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn full_is_told_from_read_only_denied_and_corrupt() {
        let path = Path::new("/state/own");
        for (errno, fault) in [
            (Errno::NOSPC, Fault::Full),
            (Errno::DQUOT, Fault::Full),
            (Errno::ROFS, Fault::ReadOnly),
            (Errno::ACCESS, Fault::Denied),
            (Errno::PERM, Fault::Denied),
            (Errno::IO, Fault::Other),
            (Errno::MFILE, Fault::Other),
        ] {
            let error = Error::io(path, &errno.into());
            assert_eq!(error.fault(), fault, "{errno:?}");
            let in_database = sled::Error::Io(errno.into());
            assert_eq!(Error::database(path, &in_database).fault(), fault, "{errno:?}");
        }
        let short = Error::io(path, &io::ErrorKind::UnexpectedEof.into());
        assert_eq!(short.fault(), Fault::Corrupt);
        let failure = Failure::from(Error::io(path, &Errno::NOSPC.into()));
        assert!(failure.to_string().starts_with("/state/own: "));
        assert_eq!(failure.hint(), Some("make room on that file system"));
    }
}

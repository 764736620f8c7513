//! What a node keeps on disk: its state folder.
//!
//! ```text
//! version       the number of this layout
//! lock          held while a node runs
//! identity      seed of the long-term key, 32 octets
//! network       the network's signed descriptor
//! own           the last record that this node published; before the first, its identity alone
//! vote          the last vote that this node signed, if it is a voter
//! list          the hour's list that this node used last
//! epochs/<n>    seed of the mix key of epoch n, 96 octets
//! epochs/<n>.tags       replay tags of the packets that key has opened
//! epochs/<n>.withdrawn  marks that key as given up
//! banned peers  onion addresses, one a line: nodes to avoid, and to dial first
//! invites       tokens that this node handed out; `invite` has the one that it was given
//! spool/        messages in custody, and what became of others: see `spool.rs`
//! db/           verified statements (sled); db.damaged is one that could not be read
//! control.sock  the control socket
//! ```
//!
//! The folder is 0700 and every file 0600. Secrets are written to a draft, synced, renamed into
//! place, and the folder synced: a file is there whole or not at all. What the database holds can be
//! fetched from peers again, and nothing else does it hold.

mod database;
mod epochs;
mod error;
mod identity;
mod keeper;
mod lists;
mod room;
mod spool;
mod tags;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::files::{make_folder, open_in_place, write_whole};
pub use database::Database;
pub use error::{Error, Fault};
pub use keeper::{DiskKeeper, Job};
pub use lists::List;
pub use room::RESERVE;
pub use spool::SpoolFound;

const VERSION: &str = "4\n";
/// The layout before: without messages in custody.
const VERSION_3: &str = "3\n";
/// The layout before that: replay tags in the database, with a file that counts them.
const VERSION_2: &str = "2\n";

/// An open state folder.
pub struct Store {
    folder: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens a state folder, or makes it.
    ///
    /// # Errors
    /// If it cannot be made or read, is open to other users, in use, or of another version.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let fail = |path: &Path, error: &io::Error| Error::io(path, error);
        make_folder(folder).map_err(|error| fail(folder, &error))?;
        let mode = fs::metadata(folder).map_err(|error| fail(folder, &error))?.permissions().mode();
        if mode & 0o077 != 0 {
            let open =
                Error::new(folder, Fault::Foreign, "the state folder is open to other users");
            return Err(open.remedy(format!("chmod 700 {}", folder.display())));
        }
        let lock = lock(folder)?;
        let version = check_version(folder)?;
        let epochs = folder.join(epochs::EPOCHS);
        make_folder(&epochs).map_err(|error| fail(&epochs, &error))?;
        let store = Self { folder: folder.to_owned(), _lock: lock };
        if version != VERSION {
            room::check(folder)?;
        }
        if version == VERSION_2 {
            store.renew()?;
        }
        if version != VERSION {
            store.write("version", VERSION.as_bytes())?;
        }
        Ok(store)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn write(&self, name: &str, octets: &[u8]) -> Result<(), Error> {
        let path = self.folder.join(name);
        write_whole(&path, octets).map_err(|error| Error::io(&path, &error))
    }
}

fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join("lock");
    let file = open_in_place(&path).map_err(|error| Error::io(&path, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let in_use = "another node runs on this state folder";
            Err(Error::new(&path, Fault::Foreign, in_use)
                .remedy("stop it, or use another --state-dir"))
        }
        Err(error) => Err(Error::io(&path, &error.into())),
    }
}

/// The version of a folder, if it can be used; a new folder gets the present version.
fn check_version(folder: &Path) -> Result<String, Error> {
    let path = folder.join("version");
    match fs::read_to_string(&path) {
        Ok(version) if [VERSION, VERSION_3, VERSION_2].contains(&version.as_str()) => Ok(version),
        Ok(_) => Err(Error::new(&path, Fault::Foreign, "the state folder is of another version")
            .remedy("use the fog that wrote it, or another --state-dir")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_whole(&path, VERSION.as_bytes()).map_err(|error| Error::io(&path, &error))?;
            Ok(VERSION.to_owned())
        }
        Err(error) => Err(Error::io(&path, &error)),
    }
}

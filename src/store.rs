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
//! epochs/<n>.mark       how many packets that key has opened: see `tags`
//! epochs/<n>.withdrawn  marks that key as given up
//! banned peers  onion addresses, one a line: nodes to avoid, and to dial first
//! invites       tokens that this node handed out; `invite` has the one that it was given
//! db/           verified statements, and replay tags (sled)
//! control.sock  the control socket
//! ```
//!
//! The folder is 0700 and every file 0600. Secrets are written to a draft, synced, renamed into
//! place, and the folder synced: a file is there whole or not at all.

mod epochs;
mod error;
mod identity;
mod lists;
mod statements;
mod tags;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use directory::ItemId;
use rustix::fs::{FlockOperation, flock};

use crate::files::{make_folder, open_in_place, write_whole};
pub use error::{Error, Fault};
pub use lists::List;
pub use tags::TagKeeper;

const VERSION: &str = "2\n";
/// The layout before: no `own`, no marks, and of statements only records, stored by identity.
const VERSION_1: &str = "1\n";
/// Octets of the database's cache, for which sled's default is a gigabyte.
const CACHE_OCTETS: u64 = 4 << 20;

/// An open state folder.
pub struct Store {
    folder: PathBuf,
    statements: sled::Tree,
    db: sled::Db,
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
        let path = folder.join("db");
        let db = sled::Config::new().path(&path).cache_capacity(CACHE_OCTETS).open();
        let db = db.map_err(|error| Error::database(&path, &error))?;
        let statements = db.open_tree("statements");
        let statements = statements.map_err(|error| Error::database(&path, &error))?;
        let store = Self { folder: folder.to_owned(), statements, db, _lock: lock };
        if version == VERSION_1 {
            store.renew().map_err(|error| store.database(&error))?;
            store.write("version", VERSION.as_bytes())?;
        }
        Ok(store)
    }

    /// What version 1 kept.
    fn renew(&self) -> sled::Result<()> {
        for octets in self.db.open_tree("records")?.iter().values() {
            let octets = octets?;
            self.statements.insert(ItemId::of(&octets).as_bytes(), octets)?;
        }
        self.statements.flush()?;
        self.db.drop_tree("records").map(drop)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The keeper of the replay tags, to run on a thread of its own.
    #[must_use]
    pub fn tags(&self) -> TagKeeper {
        TagKeeper::new(self.db.clone(), self.folder.join(epochs::EPOCHS))
    }

    /// Writes to disk what the database holds only in memory.
    pub fn flush(&self) {
        if let Err(error) = self.db.flush() {
            tracing::warn!(%error, "the database could not be flushed");
        }
    }

    fn database(&self, error: &sled::Error) -> Error {
        Error::database(&self.folder.join("db"), error)
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
        Ok(version) if version == VERSION || version == VERSION_1 => Ok(version),
        Ok(_) => Err(Error::new(&path, Fault::Foreign, "the state folder is of another version")
            .remedy("use the fog that wrote it, or another --state-dir")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_whole(&path, VERSION.as_bytes()).map_err(|error| Error::io(&path, &error))?;
            Ok(VERSION.to_owned())
        }
        Err(error) => Err(Error::io(&path, &error)),
    }
}

//! The database of verified statements. All that it holds can be fetched from peers again, so one
//! that cannot be read is set aside, and the node goes on without it.

use std::fs;
use std::path::{Path, PathBuf};

use directory::ItemId;

use super::error::{Error, Fault};
use super::room;

/// Octets of the database's cache, for which sled's default is a gigabyte.
const CACHE_OCTETS: u64 = 4 << 20;
/// Where a damaged database is moved, for a person to look at. The next one takes its place.
const SET_ASIDE: &str = "db.damaged";

/// The database, or none while the disk has no room for it: sled leaves a database that it opens or
/// writes on a full disk in a state that it does not read again.
pub struct Database {
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    statements: sled::Tree,
    db: sled::Db,
}

impl Database {
    /// Opens the database in a state folder. One that cannot be read is moved to `db.damaged`, and
    /// an empty one takes its place.
    ///
    /// # Errors
    /// [`Fault::Full`] if the disk has too little room, whatever else the system says.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("db");
        let open = open(&path)?;
        Ok(Self { path, open: Some(open) })
    }

    /// All statements.
    #[must_use]
    pub fn statements(&self) -> Vec<Vec<u8>> {
        let values = self.open.iter().flat_map(|open| open.statements.iter().values());
        values.filter_map(Result::ok).map(|octets| octets.to_vec()).collect()
    }

    /// Keeps a statement. If a crash loses it, it is fetched from peers again.
    ///
    /// # Errors
    /// If there is no room, or the database fails; it is closed then, and opened again when there
    /// is room.
    pub fn keep(&mut self, name: &ItemId, octets: &[u8]) -> Result<(), Error> {
        self.write(|open| open.statements.insert(name.as_bytes(), octets).map(drop))
    }

    /// Forgets statements.
    ///
    /// # Errors
    /// As [`Database::keep`].
    pub fn forget(&mut self, names: &[ItemId]) -> Result<(), Error> {
        self.write(|open| {
            let mut names = names.iter();
            names.try_for_each(|name| open.statements.remove(name.as_bytes()).map(drop))
        })
    }

    /// Writes to disk what is only in memory.
    ///
    /// # Errors
    /// As [`Database::keep`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.write(|open| open.db.flush().map(drop))
    }

    fn write(&mut self, work: impl FnOnce(&Open) -> sled::Result<()>) -> Result<(), Error> {
        if let Err(full) = room::check(&self.path) {
            // Its own thread writes what is in its memory, whatever there is room for.
            self.open = None;
            return Err(full);
        }
        let open = match &self.open {
            Some(open) => open,
            None => self.open.insert(open(&self.path)?),
        };
        work(open).map_err(|error| {
            // An error stays with an open database for good.
            self.open = None;
            Error::database(&self.path, &error)
        })
    }
}

fn open(path: &Path) -> Result<Open, Error> {
    room::check(path)?;
    match try_open(path) {
        Ok(open) => Ok(open),
        Err(error) if error.fault() == Fault::Full => Err(error),
        Err(error) => {
            let aside = path.with_file_name(SET_ASIDE);
            tracing::error!(%error, "the database cannot be read: it is moved to db.damaged");
            // An older one makes room; the first time there is none.
            let _ = fs::remove_dir_all(&aside);
            fs::rename(path, &aside).map_err(|error| Error::io(path, &error))?;
            try_open(path)
        }
    }
}

fn try_open(path: &Path) -> Result<Open, Error> {
    let failed = |error| Error::database(path, &error);
    let db = sled::Config::new().path(path).cache_capacity(CACHE_OCTETS).open().map_err(failed)?;
    let statements = db.open_tree("statements").map_err(failed)?;
    Ok(Open { statements, db })
}

/// What the second layout kept beside statements: replay tags, by epoch.
pub(super) fn old_tags(folder: &Path, epoch: u32) -> Option<Vec<[u8; 16]>> {
    let db =
        sled::Config::new().path(folder.join("db")).cache_capacity(CACHE_OCTETS).open().ok()?;
    let tree = db.open_tree(format!("tags-{epoch}")).ok()?;
    tree.iter().keys().map(|tag| tag.ok()?.as_ref().try_into().ok()).collect()
}

/// Drops what the third layout keeps elsewhere.
pub(super) fn drop_old(folder: &Path) -> sled::Result<()> {
    let db = sled::Config::new().path(folder.join("db")).cache_capacity(CACHE_OCTETS).open()?;
    for name in db.tree_names() {
        if name.starts_with(b"tags-") {
            db.drop_tree(name)?;
        }
    }
    db.flush().map(drop)
}

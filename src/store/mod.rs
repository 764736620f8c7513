//! What a node keeps on disk: its state folder.
//!
//! ```text
//! version       the number of this layout
//! lock          held while a node runs
//! identity      seed of the long-term key, 32 octets
//! network       the network's signed descriptor
//! own           the last record that this node published; its identity alone if it never has
//! epochs/<n>    seed of the mix key of epoch n, 96 octets
//! epochs/<n>.mark       how many packets it has opened: see `tags`
//! epochs/<n>.withdrawn  that it was given up
//! banned peers  onion addresses, one a line: nodes to avoid, and to dial first
//! invites       tokens that were handed out; invite: the one that this node was given
//! db/           verified statements, and replay tags (sled)
//! control.sock  the control socket
//! ```
//!
//! The folder is 0700 and every file 0600. Secrets are written to a draft, synced, renamed into place,
//! and the folder synced: a file is there whole or not at all.

mod tags;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use directory::ItemId;
use keys::{Epoch, Identity, MIX_SEED_LEN, MixSeed, NodeId};
use rand::CryptoRng;
use record::{Descriptor, MAX_DESCRIPTOR, MAX_RECORD};
use remailer::{Kept, Past};
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind};
pub use tags::{TagKeeper, TagOrder};

const VERSION: &str = "2\n";
/// Without `own`, marks, and statements other than records, which it kept by identity.
const VERSION_1: &str = "1\n";
/// sled's own default is a gigabyte.
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
    /// If its path is too long, or it cannot be made or read, is open to other users, in use, or of
    /// another version.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let fail = |what: &Path, error: &dyn fmt::Display| {
            Failure::new(Kind::State, format!("{}: {error}", what.display()))
        };
        crate::control::check_path(folder)?;
        let mut builder = DirBuilder::new();
        let builder = builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(|error| fail(folder, &error))?;
        let mode = fs::metadata(folder).map_err(|error| fail(folder, &error))?.permissions().mode();
        if mode & 0o077 != 0 {
            let remedy = format!("chmod 700 {}", folder.display());
            return Err(fail(folder, &"the state folder is open to other users").remedy(remedy));
        }
        let lock = lock(folder)?;
        let version = check_version(folder)?;
        let epochs = folder.join("epochs");
        builder.create(&epochs).map_err(|error| fail(&epochs, &error))?;
        let path = folder.join("db");
        let db = sled::Config::new().path(&path).cache_capacity(CACHE_OCTETS).open();
        let db = db.map_err(|error| fail(&path, &error))?;
        let statements = db.open_tree("statements").map_err(|error| fail(&path, &error))?;
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

    /// The identity kept here; a new one at the first start.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn identity(&self, rng: &mut impl CryptoRng) -> Result<Identity, Failure> {
        let path = self.folder.join("identity");
        match read_exactly::<{ Identity::SEED_LEN }>(&path) {
            Ok(seed) => Ok(Identity::from_seed(&seed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity::generate(rng);
                // First: an identity without this file was restored by itself.
                self.write("own", identity.node().as_bytes())?;
                self.write("identity", identity.seed().as_slice())?;
                Ok(identity)
            }
            Err(error) => Err(Failure::new(Kind::State, format!("{}: {error}", path.display()))
                .remedy("restore the file from a backup; a new identity is another node")),
        }
    }

    /// Binds the database to an identity: what it holds was written for that one.
    ///
    /// # Errors
    /// If it was bound to another, or fails.
    pub fn bind(&self, node: &NodeId) -> Result<(), Failure> {
        let bound = self.db.compare_and_swap("node", None::<&[u8]>, Some(node.as_bytes()));
        match bound.map_err(|error| self.database(&error))? {
            Ok(()) => Ok(()),
            Err(sled::CompareAndSwapError { current: Some(current), .. })
                if current == node.as_bytes() =>
            {
                Ok(())
            }
            Err(_) => Err(Failure::new(
                Kind::State,
                format!("{}: the folder of another identity", self.folder.display()),
            )
            .remedy("put its own identity file back, or use another --state-dir")),
        }
    }

    /// Pins the network: the first time it is written, later it must be the same.
    ///
    /// # Errors
    /// If the folder belongs to another network, or cannot be read or written.
    pub fn pin_network(&self, descriptor: &Descriptor) -> Result<(), Failure> {
        match self.network()? {
            None => self.write("network", descriptor.octets()),
            Some(pinned) if pinned.id() == descriptor.id() => Ok(()),
            Some(_) => Err(Failure::new(
                Kind::State,
                format!("{} belongs to another network", self.folder.display()),
            )
            .remedy("use another --state-dir")),
        }
    }

    /// The network pinned here.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn network(&self) -> Result<Option<Descriptor>, Failure> {
        let path = self.folder.join("network");
        let fail = |error: &dyn fmt::Display| {
            Failure::new(Kind::State, format!("{}: {error}", path.display()))
        };
        let mut octets = Vec::new();
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(&error)),
            Ok(file) => {
                let limit = u64::try_from(MAX_DESCRIPTOR).unwrap_or(u64::MAX).saturating_add(1);
                file.take(limit).read_to_end(&mut octets).map_err(|error| fail(&error))?;
            }
        }
        Descriptor::parse(&octets).map(Some).map_err(|error| fail(&error))
    }

    /// What was kept of each epoch. A key that may have opened packets of which nothing is known any more
    /// is given up here.
    ///
    /// # Errors
    /// If the folder or one of its files cannot be read, or a key cannot be given up.
    pub fn epochs(&self) -> Result<Vec<(Epoch, Kept)>, Failure> {
        let mut epochs = Vec::new();
        let files = self.epoch_files()?;
        let withdrawn = |epoch| files.contains(&EpochFile { epoch, kind: WITHDRAWN });
        for file in &files {
            let kept = match file.kind {
                WITHDRAWN => Kept::Withdrawn,
                SEED if withdrawn(file.epoch) => {
                    // The node was killed between the two steps.
                    self.withdraw_seed(file.epoch)?;
                    continue;
                }
                SEED => {
                    let path = self.epoch_path(file.epoch, SEED);
                    let seed =
                        read_exactly::<MIX_SEED_LEN>(&path).map_err(|e| unreadable(&path, &e))?;
                    match tags::load(&self.db, &self.folder.join(EPOCHS), file.epoch) {
                        Some(seen) => Kept::Key { seed: MixSeed::from_bytes(&seed), seen },
                        None => {
                            tracing::warn!("replay tags were lost: an epoch's key is given up");
                            self.withdraw_seed(file.epoch)?;
                            Kept::Withdrawn
                        }
                    }
                }
                _ => continue,
            };
            epochs.push((file.epoch, kept));
        }
        Ok(epochs)
    }

    /// Keeps a mix key's seed; when this returns it is on disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_seed(&self, epoch: Epoch, seed: &MixSeed) -> Result<(), Failure> {
        self.write(&format!("{EPOCHS}/{}", epoch.number()), seed.as_bytes())
    }

    /// Keeps that an epoch has no key any more, and destroys the one it had.
    ///
    /// # Errors
    /// If either cannot be done.
    pub fn withdraw_seed(&self, epoch: Epoch) -> Result<(), Failure> {
        self.write(&format!("{EPOCHS}/{}{WITHDRAWN}", epoch.number()), &[])?;
        let path = self.epoch_path(epoch, SEED);
        destroy(&path).map_err(|error| unreadable(&path, &error))
    }

    /// Removes what is kept of all epochs before `oldest`, but for their tags: [`Store::tags`].
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn forget_seeds(&self, oldest: Epoch) -> Result<(), Failure> {
        for file in self.epoch_files()?.into_iter().filter(|file| file.epoch < oldest) {
            let path = self.epoch_path(file.epoch, file.kind);
            destroy(&path).map_err(|error| unreadable(&path, &error))?;
        }
        Ok(())
    }

    /// Who keeps the replay tags, on a thread of its own.
    #[must_use]
    pub fn tags(&self) -> TagKeeper {
        TagKeeper::new(self.db.clone(), self.folder.join(EPOCHS))
    }

    /// What this node may have published before.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn past(&self, node: &NodeId) -> Result<Past, Failure> {
        let path = self.folder.join("own");
        let mut octets = Vec::new();
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Past::Forgotten),
            Err(error) => return Err(unreadable(&path, &error)),
            Ok(file) => {
                let limit = u64::try_from(MAX_RECORD).unwrap_or(u64::MAX);
                file.take(limit).read_to_end(&mut octets).map_err(|e| unreadable(&path, &e))?;
            }
        }
        Ok(match octets.len() {
            NodeId::LEN if octets == node.as_bytes() => Past::None,
            0..=NodeId::LEN => Past::Forgotten,
            _ => Past::Known(octets),
        })
    }

    /// Keeps the last record of one's own; when this returns it is on disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_own(&self, octets: &[u8]) -> Result<(), Failure> {
        self.write("own", octets)
    }

    /// All statements kept here.
    #[must_use]
    pub fn statements(&self) -> Vec<Vec<u8>> {
        let octets = self.statements.iter().values().filter_map(Result::ok);
        octets.map(|octets| octets.to_vec()).collect()
    }

    /// Keeps a statement. One that is lost with a crash is fetched from peers again.
    ///
    /// # Errors
    /// If the database fails.
    pub fn keep_statement(&self, name: &ItemId, octets: &[u8]) -> Result<(), Failure> {
        let kept = self.statements.insert(name.as_bytes(), octets);
        kept.map(drop).map_err(|error| self.database(&error))
    }

    /// Forgets statements.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_statements(&self, names: &[ItemId]) -> Result<(), Failure> {
        for name in names {
            self.statements.remove(name.as_bytes()).map_err(|error| self.database(&error))?;
        }
        Ok(())
    }

    /// The lines of a file that is a list; none if there is no such file.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn list<T: FromStr>(&self, list: List) -> Result<Vec<T>, Failure> {
        let path = self.folder.join(list.name());
        match fs::read_to_string(&path) {
            Ok(text) => {
                let lines = text.lines().map(|line| line.parse::<T>().ok());
                let lines: Option<Vec<T>> = lines.collect();
                lines.ok_or_else(|| {
                    unreadable(&path, &"not a list of what it should hold")
                        .remedy("correct or remove it")
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }

    /// Writes a list; an empty one is no file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_list<T: fmt::Display>(&self, list: List, lines: &[T]) -> Result<(), Failure> {
        let path = self.folder.join(list.name());
        if lines.is_empty() {
            return destroy(&path).map_err(|error| unreadable(&path, &error));
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.write(list.name(), text.as_bytes())
    }

    /// Writes out what the database still holds in memory.
    pub fn flush(&self) {
        if let Err(error) = self.db.flush() {
            tracing::warn!(%error, "the database could not be flushed");
        }
    }

    fn database(&self, error: &sled::Error) -> Failure {
        Failure::new(Kind::State, format!("{}/db: {error}", self.folder.display()))
    }

    fn epoch_files(&self) -> Result<Vec<EpochFile>, Failure> {
        let folder = self.folder.join(EPOCHS);
        let entries = fs::read_dir(&folder).map_err(|error| unreadable(&folder, &error))?;
        let files = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let name = name.to_str()?;
            let kinds = [WITHDRAWN, tags::MARK, SEED].into_iter();
            let (number, kind) =
                kinds.filter_map(|kind| Some((name.strip_suffix(kind)?, kind))).next()?;
            Some(EpochFile { epoch: Epoch::new(number.parse().ok()?), kind })
        });
        Ok(files.collect())
    }

    fn epoch_path(&self, epoch: Epoch, kind: &str) -> PathBuf {
        self.folder.join(EPOCHS).join(format!("{}{kind}", epoch.number()))
    }

    fn write(&self, name: &str, octets: &[u8]) -> Result<(), Failure> {
        let path = self.folder.join(name);
        write_whole(&path, octets)
            .map_err(|error| Failure::new(Kind::State, format!("{}: {error}", path.display())))
    }
}

/// The lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Nodes that this node's routes avoid.
    Banned,
    /// Nodes that it chose to link to, and dials first.
    Peers,
    /// Tokens that it has handed out.
    Invites,
    /// The token that it was given, with who gave it.
    Invite,
}

impl List {
    const fn name(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Peers => "peers",
            Self::Invites => "invites",
            Self::Invite => "invite",
        }
    }
}

const EPOCHS: &str = "epochs";
/// What the names of the files of an epoch end with.
const SEED: &str = "";
const WITHDRAWN: &str = ".withdrawn";

#[derive(PartialEq, Eq)]
struct EpochFile {
    epoch: Epoch,
    kind: &'static str,
}

fn unreadable(path: &Path, error: &dyn fmt::Display) -> Failure {
    Failure::new(Kind::State, format!("{}: {error}", path.display()))
}

/// Overwrites a file, as far as the file system does that in place, and removes it.
fn destroy(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(4096);
    file.write_all_at(&vec![0; length], 0)?;
    file.sync_all()?;
    fs::remove_file(path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Draft, sync, rename, sync of the folder.
///
/// # Errors
/// If any of the steps fails; the file is as it was then.
pub fn write_whole(path: &Path, octets: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let folder = match path.parent().ok_or(io::ErrorKind::InvalidInput)? {
        here if here.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()
}

fn read_exactly<const N: usize>(path: &Path) -> io::Result<Zeroizing<[u8; N]>> {
    let mut file = File::open(path)?;
    let mut octets = Zeroizing::new([0; N]);
    file.read_exact(octets.as_mut_slice())?;
    if file.read(&mut [0])? != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than it should be"));
    }
    Ok(octets)
}

fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.join("lock");
    let fail = |error: &dyn fmt::Display| {
        Failure::new(Kind::State, format!("{}: {error}", path.display()))
    };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|error| fail(&error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(fail(&"another node runs on this state folder")
            .remedy("stop it, or use another --state-dir")),
        Err(error) => Err(fail(&error)),
    }
}

/// The version of a folder that can be used; a new folder gets the present one.
fn check_version(folder: &Path) -> Result<String, Failure> {
    let path = folder.join("version");
    let fail = |error: &dyn fmt::Display| {
        Failure::new(Kind::State, format!("{}: {error}", path.display()))
    };
    match fs::read_to_string(&path) {
        Ok(version) if version == VERSION || version == VERSION_1 => Ok(version),
        Ok(_) => Err(fail(&"the state folder is of another version")
            .remedy("use the fog that wrote it, or another --state-dir")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_whole(&path, VERSION.as_bytes()).map_err(|error| fail(&error))?;
            Ok(VERSION.to_owned())
        }
        Err(error) => Err(fail(&error)),
    }
}

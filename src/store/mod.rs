//! What a node keeps on disk: its state folder.
//!
//! ```text
//! version       the number of this layout
//! lock          held while a node runs
//! identity      seed of the long-term key, 32 octets
//! network       the network's signed descriptor
//! epochs/<n>    seed of the mix key of epoch n, 96 octets
//! db/           verified records (sled)
//! control.sock  the control socket
//! ```
//!
//! The folder is 0700 and every file 0600. Secrets are written to a draft, synced, renamed into place,
//! and the folder synced: a file is there whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use keys::{Epoch, Identity, MIX_SEED_LEN, MixSeed, NodeId};
use rand::CryptoRng;
use record::{Descriptor, MAX_DESCRIPTOR, Record};
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind};

const VERSION: &str = "1\n";
/// sled's own default is a gigabyte.
const CACHE_OCTETS: u64 = 4 << 20;

/// An open state folder.
pub struct Store {
    folder: PathBuf,
    records: sled::Tree,
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
        let fail = |what: &Path, error: &dyn std::fmt::Display| {
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
        check_version(folder)?;
        let epochs = folder.join("epochs");
        builder.create(&epochs).map_err(|error| fail(&epochs, &error))?;
        let path = folder.join("db");
        let db = sled::Config::new().path(&path).cache_capacity(CACHE_OCTETS).open();
        let db = db.map_err(|error| fail(&path, &error))?;
        let records = db.open_tree("records").map_err(|error| fail(&path, &error))?;
        Ok(Self { folder: folder.to_owned(), records, db, _lock: lock })
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
        let fail = |error: &dyn std::fmt::Display| {
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

    /// The seeds of all mix keys kept here.
    ///
    /// # Errors
    /// If the folder or one of its files cannot be read.
    pub fn seeds(&self) -> Result<Vec<(Epoch, MixSeed)>, Failure> {
        let mut seeds = Vec::new();
        for (epoch, path) in self.seed_files()? {
            let seed = read_exactly::<MIX_SEED_LEN>(&path).map_err(|error| {
                Failure::new(Kind::State, format!("{}: {error}", path.display()))
            })?;
            seeds.push((epoch, MixSeed::from_bytes(&seed)));
        }
        Ok(seeds)
    }

    /// Keeps a mix key's seed; when this returns it is on disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_seed(&self, epoch: Epoch, seed: &MixSeed) -> Result<(), Failure> {
        self.write(&format!("epochs/{}", epoch.number()), seed.as_bytes())
    }

    /// Removes the seeds of all epochs before `oldest`.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn forget_seeds(&self, oldest: Epoch) -> Result<(), Failure> {
        for (epoch, path) in self.seed_files()? {
            if epoch < oldest {
                fs::remove_file(&path).map_err(|error| {
                    Failure::new(Kind::State, format!("{}: {error}", path.display()))
                })?;
            }
        }
        Ok(())
    }

    /// The statements of all records kept here.
    #[must_use]
    pub fn statements(&self) -> Vec<Vec<u8>> {
        self.records.iter().values().filter_map(Result::ok).map(|octets| octets.to_vec()).collect()
    }

    /// Keeps a node's newest record. A record lost with a crash is fetched from peers again.
    ///
    /// # Errors
    /// If the database fails.
    pub fn keep_record(&self, record: &Record) -> Result<(), Failure> {
        let kept = self.records.insert(record.node().as_bytes(), record.octets().as_ref());
        kept.map(drop).map_err(|error| self.database(&error))
    }

    /// Forgets a node's record.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_record(&self, node: &NodeId) -> Result<(), Failure> {
        self.records.remove(node.as_bytes()).map(drop).map_err(|error| self.database(&error))
    }

    /// Writes out what the database still holds in memory.
    pub fn close(&self) {
        if let Err(error) = self.db.flush() {
            tracing::warn!(%error, "the database could not be flushed");
        }
    }

    fn database(&self, error: &sled::Error) -> Failure {
        Failure::new(Kind::State, format!("{}/db: {error}", self.folder.display()))
    }

    fn seed_files(&self) -> Result<Vec<(Epoch, PathBuf)>, Failure> {
        let folder = self.folder.join("epochs");
        let entries = fs::read_dir(&folder)
            .map_err(|error| Failure::new(Kind::State, format!("{}: {error}", folder.display())))?;
        let files = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            Some((Epoch::new(number), path))
        });
        Ok(files.collect())
    }

    fn write(&self, name: &str, octets: &[u8]) -> Result<(), Failure> {
        let path = self.folder.join(name);
        write_whole(&path, octets)
            .map_err(|error| Failure::new(Kind::State, format!("{}: {error}", path.display())))
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
    let fail = |error: &dyn std::fmt::Display| {
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

fn check_version(folder: &Path) -> Result<(), Failure> {
    let path = folder.join("version");
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::State, format!("{}: {error}", path.display()))
    };
    match fs::read_to_string(&path) {
        Ok(version) if version == VERSION => Ok(()),
        Ok(_) => Err(fail(&"the state folder is of another version")
            .remedy("use the fog that wrote it, or another --state-dir")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_whole(&path, VERSION.as_bytes()).map_err(|error| fail(&error))
        }
        Err(error) => Err(fail(&error)),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn what_was_kept_is_there_again_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut rng = StdRng::seed_from_u64(1);
        let node = {
            let store = Store::open(&path).unwrap();
            let identity = store.identity(&mut rng).unwrap();
            for epoch in 5..9 {
                store.keep_seed(Epoch::new(epoch), &MixSeed::generate(&mut rng)).unwrap();
            }
            store.forget_seeds(Epoch::new(7)).unwrap();
            assert!(Store::open(&path).is_err(), "two nodes on one folder");
            identity.node()
        };
        let store = Store::open(&path).unwrap();
        assert_eq!(store.identity(&mut rng).unwrap().node(), node);
        assert!(store.bind(&node).is_ok() && store.bind(&node).is_ok());
        assert!(store.bind(&NodeId::from_bytes([1; 32])).is_err());
        let mut epochs: Vec<_> = store.seeds().unwrap().iter().map(|(e, _)| e.number()).collect();
        epochs.sort_unstable();
        assert_eq!(epochs, [7, 8]);
        for file in ["identity", "version", "lock", "epochs/7"] {
            let mode = fs::metadata(path.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_is_open_damaged_or_newer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| Store::open(path).map(drop).map_err(|f| f.to_string());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open(folder.path()).unwrap_err().contains("other users"));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(folder.path().join("version"), "2\n").unwrap();
        assert!(open(folder.path()).unwrap_err().contains("another version"));
        fs::write(folder.path().join("version"), VERSION).unwrap();
        fs::write(folder.path().join("identity"), [0; 31]).unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        assert!(store.identity(&mut rng).is_err());
    }
}

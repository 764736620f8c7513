//! Files that must survive a crash: a file is there whole or not at all, closed to other users.
//!
//! Everything durable that is not in the database goes through here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A step of an operation on files. Tests make any of them fail: see [`faults`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    /// How many octets are written.
    Write(usize),
    Sync,
    Rename,
    Remove,
}

/// Carries out a step, unless a test has it fail.
fn step<T>(step: Step, path: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    faults::meet(step, path)?;
    // Only tests look at where it is.
    let _ = (step, path);
    work()
}

fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    step(Step::Open, path, || options.open(path))
}

fn write(file: &mut File, path: &Path, octets: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    faults::write_some(file, path, octets)?;
    step(Step::Write(octets.len()), path, || file.write_all(octets))
}

fn write_at(file: &File, path: &Path, octets: &[u8], at: u64) -> io::Result<()> {
    step(Step::Write(octets.len()), path, || file.write_all_at(octets, at))
}

fn sync(file: &File, path: &Path) -> io::Result<()> {
    step(Step::Sync, path, || file.sync_all())
}

/// Writes a file whole, mode 0600: into a draft beside it, which is synced and renamed into place;
/// then the folder is synced.
///
/// # Errors
/// If any of the steps fails. The file is as it was then, or as it was to be: no error tells which
/// of them a crash would leave once the rename has begun.
pub fn write_whole(path: &Path, octets: &[u8]) -> io::Result<()> {
    let draft = path.with_added_extension("draft");
    let mut file =
        open(&draft, OpenOptions::new().write(true).create(true).truncate(true).mode(0o600))?;
    let written = write(&mut file, &draft, octets).and_then(|()| sync(&file, &draft));
    let done = written.and_then(|()| rename_synced(&draft, path));
    if done.is_err() {
        // A draft is in nobody's way, but may be a secret, and takes room.
        let _ = fs::remove_file(&draft);
    }
    done
}

/// Renames a synced file into a folder, and syncs the folder.
///
/// # Errors
/// If either fails.
pub fn rename_synced(from: &Path, to: &Path) -> io::Result<()> {
    step(Step::Rename, to, || fs::rename(from, to))?;
    sync_folder_of(to)
}

/// Overwrites a file, as far as the file system overwrites in place, and removes it. On
/// copy-on-write file systems and flash the old octets may outlive it.
///
/// # Errors
/// If it is there and cannot be removed. A disk on which nothing can be overwritten removes it all
/// the same.
pub fn destroy(path: &Path) -> io::Result<()> {
    let file = match open(path, OpenOptions::new().write(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(4096);
    let wiped = write_at(&file, path, &vec![0; length], 0).and_then(|()| sync(&file, path));
    remove(path)?;
    wiped
}

/// Removes a file, if it is there, and syncs its folder.
///
/// # Errors
/// If it cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match step(Step::Remove, path, || fs::remove_file(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_folder_of(path)),
    }
}

/// A file to which records of one length are appended: a batch is there whole and synced, or the
/// file is as before.
pub struct AppendFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// Whether the file may be longer than it should be.
    is_torn: bool,
}

impl AppendFile {
    /// Opens a file, or makes it, mode 0600. What is no whole record at its end was never synced,
    /// and is cut off.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path, record: usize) -> io::Result<Self> {
        let file =
            open(path, OpenOptions::new().write(true).create(true).truncate(false).mode(0o600))?;
        sync_folder_of(path)?;
        let found = file.metadata()?.len();
        let torn = found.checked_rem(u64::try_from(record).unwrap_or(1)).unwrap_or_default();
        let len = found.saturating_sub(torn);
        Ok(Self { path: path.to_owned(), file, len, is_torn: torn > 0 })
    }

    /// How many octets all whole batches have.
    pub fn octets(&self) -> u64 {
        self.len
    }

    /// Appends a batch, and syncs it.
    ///
    /// # Errors
    /// If it cannot be written, or what an earlier error left cannot be cut off.
    pub fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.is_torn {
            step(Step::Write(0), &self.path, || self.file.set_len(self.len))?;
        }
        self.is_torn = true;
        write_at(&self.file, &self.path, octets, self.len)?;
        sync(&self.file, &self.path)?;
        self.is_torn = false;
        self.len = self.len.saturating_add(u64::try_from(octets.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

/// A secret of exactly this many octets.
///
/// # Errors
/// If the file cannot be read, or is shorter or longer.
pub fn read_exactly<const N: usize>(path: &Path) -> io::Result<Zeroizing<[u8; N]>> {
    let mut file = File::open(path)?;
    let mut octets = Zeroizing::new([0; N]);
    file.read_exact(octets.as_mut_slice())?;
    if file.read(&mut [0])? != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than it should be"));
    }
    Ok(octets)
}

/// At most this many octets of a file; `None` if there is no such file.
///
/// # Errors
/// If it is there and cannot be read.
pub fn read_bounded(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut octets = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(file) => {
            let limit = u64::try_from(most).unwrap_or(u64::MAX);
            file.take(limit).read_to_end(&mut octets)?;
            Ok(Some(octets))
        }
    }
}

/// Opens a file for writing in place, mode 0600, and makes it if it is not there.
///
/// # Errors
/// If it cannot be opened.
pub fn open_in_place(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().write(true).create(true).truncate(false).mode(0o600))
}

/// Writes and syncs a new file, mode 0600, where no file was before.
///
/// # Errors
/// If it is there already, or cannot be written.
pub fn write_new(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut file = open(path, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
    let written = write(&mut file, path, octets).and_then(|()| sync(&file, path));
    if written.is_err() {
        // What is left of it is nobody's file.
        let _ = fs::remove_file(path);
    }
    written
}

/// Writes one octet at a place of a file, mode 0600, which is made if it is not there. It is not synced.
///
/// # Errors
/// If it cannot be written.
pub fn mark(path: &Path, place: u64, octet: u8) -> io::Result<()> {
    write_at(&open_in_place(path)?, path, &[octet], place)
}

/// Makes a folder with all above it, mode 0700, if it is not there.
///
/// # Errors
/// If it cannot be made.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes what was renamed, made or removed in a file's folder durable.
///
/// # Errors
/// If the folder cannot be synced.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(here) if here.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Ok(()),
    };
    step(Step::Sync, path, || File::open(folder)?.sync_all())
}

#[cfg(test)]
pub mod faults;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        // A draft that cannot be made leaves the file as it was.
        fs::create_dir(folder.path().join("file.draft")).unwrap();
        assert!(write_whole(&path, b"third").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert!(write_new(&path, b"x").is_err(), "it is there already");
    }

    #[test]
    fn secrets_are_read_at_their_length_only_and_destroyed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        assert_eq!(read_bounded(&path, 4).unwrap(), None);
        destroy(&path).unwrap();
        write_whole(&path, &[7; 32]).unwrap();
        assert_eq!(*read_exactly::<32>(&path).unwrap(), [7; 32]);
        assert!(read_exactly::<31>(&path).is_err() && read_exactly::<33>(&path).is_err());
        assert_eq!(read_bounded(&path, 4).unwrap(), Some(vec![7; 4]));
        destroy(&path).unwrap();
        assert!(!path.exists());
    }
}

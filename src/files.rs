//! Files that must survive a crash: a file is there whole or not at all, closed to other users.
//!
//! Everything durable that is not in the database goes through here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

/// Writes a file whole, mode 0600: into a draft beside it, which is synced and renamed into place;
/// then the folder is synced.
///
/// # Errors
/// If any of the steps fails; the file is unchanged then.
pub fn write_whole(path: &Path, octets: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(octets)?;
    file.sync_all()?;
    rename_synced(&draft, path)
}

/// Renames a synced file into a folder, and syncs the folder.
///
/// # Errors
/// If either fails.
pub fn rename_synced(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Overwrites a file, as far as the file system overwrites in place, and removes it. On
/// copy-on-write file systems and flash the old octets may outlive it.
///
/// # Errors
/// If it is there and any of the steps fails.
pub fn destroy(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(4096);
    file.write_all_at(&vec![0; length], 0)?;
    file.sync_all()?;
    fs::remove_file(path)?;
    sync_folder_of(path)
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
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes at the beginning of an open file, and syncs it.
///
/// # Errors
/// If either fails; the file may hold a part of the octets then.
pub fn write_in_place(file: &File, octets: &[u8]) -> io::Result<()> {
    file.write_all_at(octets, 0)?;
    file.sync_data()
}

/// Writes and syncs a new file, mode 0600, where no file was before.
///
/// # Errors
/// If it is there already, or cannot be written.
pub fn write_new(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(octets)?;
    file.sync_all()
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
    File::open(folder)?.sync_all()
}

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

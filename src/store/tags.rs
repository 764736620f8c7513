//! Replay tags on disk: a file for each epoch, to which they are appended.
//!
//! A record is a tag (16 octets) and the first 4 of BLAKE3 over its place in the file (8,
//! big-endian) and the tag. Records are synced before the packets of their tags leave. What is cut
//! off in the middle of a record at the end was never synced, and is dropped; any other record that
//! is not what was written means that tags may be lost, and the key of the epoch is given up.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use keys::Epoch;
use sphinx::ReplayTag;

use crate::files::{self, AppendFile};

pub(super) const TAGS: &str = ".tags";
const TAG_LEN: usize = 16;
const RECORD_LEN: usize = TAG_LEN + 4;

/// Writes tags. It blocks: some milliseconds for each batch.
pub(super) struct Tags {
    folder: PathBuf,
    open: BTreeMap<Epoch, AppendFile>,
    /// The oldest epoch whose tags are kept.
    oldest: Epoch,
}

impl Tags {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, open: BTreeMap::new(), oldest: Epoch::new(0) }
    }

    /// Makes tags durable: all of them, or the files are as before.
    ///
    /// # Errors
    /// If the disk fails; the packets of these tags must not leave then.
    pub(super) fn keep(&mut self, tags: &[(Epoch, ReplayTag)]) -> io::Result<()> {
        let mut batches: BTreeMap<Epoch, Vec<&ReplayTag>> = BTreeMap::new();
        for (epoch, tag) in tags.iter().filter(|(epoch, _)| *epoch >= self.oldest) {
            batches.entry(*epoch).or_default().push(tag);
        }
        for (epoch, tags) in batches {
            let file = match self.open.entry(epoch) {
                Entry::Occupied(file) => file.into_mut(),
                Entry::Vacant(place) => {
                    let path = path(&self.folder, epoch);
                    place.insert(AppendFile::open(&path, RECORD_LEN)?)
                }
            };
            let first = file.octets() / u64::try_from(RECORD_LEN).unwrap_or(u64::MAX);
            let records = (first..).zip(tags).flat_map(|(place, tag)| record(place, tag));
            file.append(&records.collect::<Vec<u8>>())?;
        }
        Ok(())
    }

    /// Forgets the tags of all epochs before `oldest`.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub(super) fn forget(&mut self, oldest: Epoch) -> io::Result<()> {
        self.oldest = self.oldest.max(oldest);
        let kept = self.open.split_off(&oldest);
        let gone = std::mem::replace(&mut self.open, kept);
        gone.into_keys().try_for_each(|epoch| self.remove(epoch))
    }

    /// Forgets the tags of one epoch.
    ///
    /// # Errors
    /// If its file cannot be removed.
    pub(super) fn withdraw(&mut self, epoch: Epoch) -> io::Result<()> {
        self.open.remove(&epoch);
        self.remove(epoch)
    }

    fn remove(&self, epoch: Epoch) -> io::Result<()> {
        files::remove(&path(&self.folder, epoch))
    }
}

/// The tags of an epoch; `None` if some may be missing.
pub(super) fn load(folder: &Path, epoch: Epoch) -> Option<BTreeSet<ReplayTag>> {
    let octets = match std::fs::read(path(folder, epoch)) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(BTreeSet::new()),
        Err(_) => return None,
    };
    let (records, _) = octets.as_chunks::<RECORD_LEN>();
    let tags = (0..).zip(records).map(|(place, found)| {
        let tag = ReplayTag::from_bytes(*found.first_chunk::<TAG_LEN>()?);
        (record(place, &tag) == *found).then_some(tag)
    });
    tags.collect()
}

fn record(place: u64, tag: &ReplayTag) -> [u8; RECORD_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&place.to_be_bytes()).update(tag.as_bytes());
    let check = hasher.finalize();
    let mut record = [0; RECORD_LEN];
    for (to, from) in record.iter_mut().zip(tag.as_bytes().iter().chain(check.as_bytes())) {
        *to = *from;
    }
    record
}

fn path(folder: &Path, epoch: Epoch) -> PathBuf {
    folder.join(format!("{}{TAGS}", epoch.number()))
}

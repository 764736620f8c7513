//! Replay tags on disk, and the mark that shows whether they are complete.
//!
//! The tags of an epoch are a tree of the database, which survives a killed process, but whose
//! flush is no fsync: after a power failure or on a restored copy the last of them can be missing
//! without an error. So beside each epoch's seed lies a mark, written and synced after the tags it
//! counts: their number (8 octets, big-endian) and the first 8 octets of its BLAKE3. A tree with
//! fewer tags than its mark says has lost some, and the key is given up. If it has more, the node
//! was killed between the two writes, and the packets of those tags never left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use keys::Epoch;
use sphinx::ReplayTag;

use crate::files::{open_in_place, sync_folder_of, write_in_place};

pub(super) const MARK: &str = ".mark";
const MARK_LEN: usize = 16;
const TREE: &str = "tags-";

/// Writes tags and marks. It blocks: some milliseconds for each batch.
pub struct TagKeeper {
    db: sled::Db,
    folder: PathBuf,
    open: BTreeMap<Epoch, Kept>,
    /// The oldest epoch whose tags are kept.
    oldest: Epoch,
}

struct Kept {
    tree: sled::Tree,
    mark: File,
    count: u64,
}

impl TagKeeper {
    pub(super) fn new(db: sled::Db, folder: PathBuf) -> Self {
        Self { db, folder, open: BTreeMap::new(), oldest: Epoch::new(0) }
    }

    /// Makes tags durable.
    ///
    /// # Errors
    /// If the disk fails; the packets of these tags must not leave then.
    pub fn keep(&mut self, tags: &[(Epoch, ReplayTag)]) -> io::Result<()> {
        let mut epochs = BTreeSet::new();
        let alive = |(epoch, _): &&(Epoch, ReplayTag)| *epoch >= self.oldest;
        let alive: Vec<_> = tags.iter().filter(alive).copied().collect();
        for (epoch, tag) in &alive {
            let kept = self.kept(*epoch)?;
            if kept.tree.insert(tag.as_bytes(), &[])?.is_none() {
                kept.count += 1;
            }
            epochs.insert(*epoch);
        }
        self.db.flush()?;
        for epoch in epochs {
            let kept = self.kept(epoch)?;
            write_in_place(&kept.mark, &mark(kept.count))?;
        }
        Ok(())
    }

    /// Forgets the tags of all epochs before `oldest`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget(&mut self, oldest: Epoch) -> io::Result<()> {
        self.oldest = self.oldest.max(oldest);
        self.open = self.open.split_off(&oldest);
        for name in self.db.tree_names() {
            if epoch_of(&name).is_some_and(|epoch| epoch < oldest) {
                self.db.drop_tree(name)?;
            }
        }
        Ok(())
    }

    /// Forgets the tags of one epoch.
    ///
    /// # Errors
    /// If the database fails.
    pub fn withdraw(&mut self, epoch: Epoch) -> io::Result<()> {
        self.open.remove(&epoch);
        self.db.drop_tree(tree(epoch))?;
        Ok(())
    }

    fn kept(&mut self, epoch: Epoch) -> io::Result<&mut Kept> {
        use std::collections::btree_map::Entry;
        match self.open.entry(epoch) {
            Entry::Occupied(kept) => Ok(kept.into_mut()),
            Entry::Vacant(place) => {
                let path = self.folder.join(format!("{}{MARK}", epoch.number()));
                let mark = open_in_place(&path)?;
                sync_folder_of(&path)?;
                let tree = self.db.open_tree(tree(epoch))?;
                let count = u64::try_from(tree.len()).unwrap_or(u64::MAX);
                Ok(place.insert(Kept { tree, mark, count }))
            }
        }
    }
}

/// The tags of an epoch; `None` if some may be missing.
pub(super) fn load(db: &sled::Db, folder: &Path, epoch: Epoch) -> Option<BTreeSet<ReplayTag>> {
    let octets = match std::fs::read(folder.join(format!("{}{MARK}", epoch.number()))) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(_) => return None,
    };
    // An empty mark was made and never written: no tags had been stored.
    let marked = match <[u8; MARK_LEN]>::try_from(octets.as_slice()) {
        Err(_) if octets.is_empty() => 0,
        Err(_) => return None,
        Ok(octets) => {
            let [count, _] = octets.as_chunks().0 else { return None };
            let count = u64::from_be_bytes(*count);
            if mark(count) != octets {
                return None;
            }
            count
        }
    };
    let mut seen = BTreeSet::new();
    for tag in db.open_tree(tree(epoch)).ok()?.iter().keys() {
        seen.insert(ReplayTag::from_bytes(tag.ok()?.as_ref().try_into().ok()?));
    }
    let count = u64::try_from(seen.len()).unwrap_or(u64::MAX);
    (count >= marked).then_some(seen)
}

fn mark(count: u64) -> [u8; MARK_LEN] {
    let count = count.to_be_bytes();
    let mut mark = [0; MARK_LEN];
    let check = blake3::hash(&count);
    for (to, from) in mark.iter_mut().zip(count.iter().chain(check.as_bytes())) {
        *to = *from;
    }
    mark
}

fn tree(epoch: Epoch) -> String {
    format!("{TREE}{}", epoch.number())
}

fn epoch_of(name: &[u8]) -> Option<Epoch> {
    let number = std::str::from_utf8(name).ok()?.strip_prefix(TREE)?;
    number.parse().ok().map(Epoch::new)
}

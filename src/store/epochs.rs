//! The mix keys: a seed for each epoch, and marks of keys that were given up.

use std::fs;
use std::path::PathBuf;

use keys::{Epoch, MIX_SEED_LEN, MixSeed};
use remailer::Kept;

use super::error::{Error, Fault};
use super::{Store, database, tags};
use crate::files::{destroy, read_exactly, remove};

pub(super) const EPOCHS: &str = "epochs";
/// Endings of the names of an epoch's files.
const SEED: &str = "";
const WITHDRAWN: &str = ".withdrawn";
/// What the second layout had beside a seed.
const OLD_MARK: &str = ".mark";

#[derive(PartialEq, Eq)]
struct EpochFile {
    epoch: Epoch,
    kind: &'static str,
}

impl Store {
    /// What is stored for each epoch. A key is given up here if it may have opened packets whose
    /// replay tags are lost.
    ///
    /// # Errors
    /// If the folder or one of its files cannot be read, or a key cannot be given up.
    pub fn epochs(&self) -> Result<Vec<(Epoch, Kept)>, Error> {
        let mut epochs = Vec::new();
        let files = self.epoch_files()?;
        let withdrawn = |epoch| files.contains(&EpochFile { epoch, kind: WITHDRAWN });
        for file in &files {
            let kept = match file.kind {
                WITHDRAWN => Kept::Withdrawn,
                SEED if withdrawn(file.epoch) => {
                    // The node was killed between the two steps of giving the key up.
                    self.withdraw_seed(file.epoch)?;
                    continue;
                }
                SEED => {
                    let path = self.epoch_path(file.epoch, SEED);
                    let seed = match read_exactly::<MIX_SEED_LEN>(&path) {
                        Ok(seed) => seed,
                        Err(error) => {
                            let error = Error::io(&path, &error);
                            if error.fault() != Fault::Corrupt {
                                return Err(error);
                            }
                            tracing::warn!(%error, "an epoch's key is given up");
                            self.withdraw_seed(file.epoch)?;
                            epochs.push((file.epoch, Kept::Withdrawn));
                            continue;
                        }
                    };
                    match tags::load(&self.folder.join(EPOCHS), file.epoch) {
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

    /// Brings the replay tags of the second layout where they are kept now. A key whose tags cannot
    /// be read is given up.
    pub(super) fn renew(&self) -> Result<(), Error> {
        let folder = self.folder.join(EPOCHS);
        let mut tags = tags::Tags::new(folder.clone());
        for file in self.epoch_files()?.into_iter().filter(|file| file.kind == SEED) {
            let Some(old) = database::old_tags(&self.folder, file.epoch.number()) else {
                self.withdraw_seed(file.epoch)?;
                continue;
            };
            let tag = |octets| (file.epoch, sphinx::ReplayTag::from_bytes(octets));
            let batch: Vec<_> = old.into_iter().map(tag).collect();
            tags.keep(&batch).map_err(|error| Error::io(&folder, &error))?;
        }
        for file in self.epoch_files()?.into_iter().filter(|file| file.kind == OLD_MARK) {
            let path = self.epoch_path(file.epoch, file.kind);
            remove(&path).map_err(|error| Error::io(&path, &error))?;
        }
        if let Err(error) = database::drop_old(&self.folder) {
            tracing::warn!(%error, "old replay tags stay in the database");
        }
        Ok(())
    }

    /// Stores a mix key's seed, which is on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_seed(&self, epoch: Epoch, seed: &MixSeed) -> Result<(), Error> {
        self.write(&format!("{EPOCHS}/{}", epoch.number()), seed.as_bytes())
    }

    /// Records that an epoch's key is given up, and destroys the key.
    ///
    /// # Errors
    /// If either step fails.
    pub fn withdraw_seed(&self, epoch: Epoch) -> Result<(), Error> {
        self.write(&format!("{EPOCHS}/{}{WITHDRAWN}", epoch.number()), &[])?;
        let path = self.epoch_path(epoch, SEED);
        destroy(&path).map_err(|error| Error::io(&path, &error))
    }

    /// Removes the files of all epochs before `oldest`.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn forget_seeds(&self, oldest: Epoch) -> Result<(), Error> {
        for file in self.epoch_files()?.into_iter().filter(|file| file.epoch < oldest) {
            let path = self.epoch_path(file.epoch, file.kind);
            destroy(&path).map_err(|error| Error::io(&path, &error))?;
        }
        Ok(())
    }

    fn epoch_files(&self) -> Result<Vec<EpochFile>, Error> {
        let folder = self.folder.join(EPOCHS);
        let entries = fs::read_dir(&folder).map_err(|error| Error::io(&folder, &error))?;
        let files = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let name = name.to_str()?;
            let kinds = [WITHDRAWN, tags::TAGS, OLD_MARK, SEED].into_iter();
            let (number, kind) =
                kinds.filter_map(|kind| Some((name.strip_suffix(kind)?, kind))).next()?;
            Some(EpochFile { epoch: Epoch::new(number.parse().ok()?), kind })
        });
        Ok(files.collect())
    }

    fn epoch_path(&self, epoch: Epoch, kind: &str) -> PathBuf {
        self.folder.join(EPOCHS).join(format!("{}{kind}", epoch.number()))
    }
}

//! The messages in a node's custody, what became of others, and the deliveries that are over.
//!
//! ```text
//! spool/new/<name>        a message that is being written: nobody was told that it is taken
//! spool/cur/<name>        a message in custody: sealed packets, and what opens their answers
//! spool/cur/<name>.marks  an octet for each of its parts and packets that is not zero once it was heard
//!                         of, or has left
//! spool/bad/<name>        one that cannot be read
//! spool/ended/<day>       records of 33 octets: the end of a message 29, and 4 of BLAKE3 over it
//! spool/over/<epoch>      records of 36 octets: first the key of the epoch 32, then the deliveries that
//!                         were over in it 32 each, with 4 of BLAKE3 over place and record
//! ```
//!
//! A message is written, synced and renamed, and its folder synced, as a mail server does it. Marks are not
//! synced: after a crash of the machine a packet may leave twice, and its first hop drops the second.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use keys::Epoch;
use remailer::{
    CustodyKept, Ended, KeptMessage, MAX_SPOOLED, Mark, MessageName, Over, OverIn, OverTag, Spooled,
};
use zeroize::Zeroizing;

use super::Store;
use super::error::Error;
use crate::files::{AppendFile, make_folder, mark, read_bounded, remove, rename_synced, write_new};

const SPOOL: &str = "spool";
const MARKS: &str = "marks";
/// Messages that are read at a start, at most.
const MAX_MESSAGES: usize = 16 * 1024;
const MAX_MARKS: usize = 8 * 1024;
const CHECK_LEN: usize = 4;
const ENDED_LEN: usize = Ended::LEN + CHECK_LEN;
const OVER_LEN: usize = OverTag::LEN + CHECK_LEN;
const DAY_MILLIS: u64 = 86_400_000;
/// Days for which ends are kept beside the present one.
const DAYS: u64 = 2;

/// What a node goes on with after a restart, and how many messages cannot be read.
pub struct SpoolFound {
    /// What it has in custody.
    pub kept: CustodyKept,
    /// Messages that were set aside, over all starts.
    pub damaged: usize,
}

/// Writes messages and their ends. It blocks.
pub(super) struct Spool {
    folder: PathBuf,
    ended: Option<(u64, AppendFile)>,
    over: Option<(Epoch, AppendFile)>,
}

impl Store {
    /// Reads what is in custody. A message that cannot be read is set aside.
    ///
    /// # Errors
    /// If a folder cannot be read or made.
    pub fn custody(&self) -> Result<SpoolFound, Error> {
        let spool = self.folder.join(SPOOL);
        let read = || -> io::Result<SpoolFound> {
            for part in ["new", "cur", "bad", "ended", "over"] {
                make_folder(&spool.join(part))?;
            }
            for unfinished in names(&spool.join("new"))? {
                remove(&spool.join("new").join(unfinished))?;
            }
            let mut messages = Vec::new();
            for name in names(&spool.join("cur"))? {
                if name.contains('.') || messages.len() >= MAX_MESSAGES {
                    continue;
                }
                messages.extend(message(&spool, &name)?);
            }
            let kept = CustodyKept { messages, ended: ended(&spool)?, over: over(&spool)? };
            Ok(SpoolFound { kept, damaged: names(&spool.join("bad"))?.len() })
        };
        read().map_err(|error| Error::io(&spool, &error))
    }
}

/// A message with its marks; none if it had to be set aside.
fn message(spool: &Path, name: &str) -> io::Result<Option<KeptMessage>> {
    let path = spool.join("cur").join(name);
    let octets = Zeroizing::new(read_bounded(&path, MAX_SPOOLED + 1)?.unwrap_or_default());
    let is_named = |spooled: &Spooled| HEXLOWER.encode(spooled.name().as_bytes()) == name;
    match Spooled::decode(&octets) {
        Ok(spooled) if is_named(&spooled) => {
            let marks = read_bounded(&path.with_added_extension(MARKS), MAX_MARKS)?;
            Ok(Some(spooled.marked(marks.unwrap_or_default())))
        }
        Ok(_) | Err(_) => {
            tracing::error!("a message in custody cannot be read: it is set aside in spool/bad");
            rename_synced(&path, &spool.join("bad").join(name))?;
            Ok(None)
        }
    }
}

fn ended(spool: &Path) -> io::Result<Vec<Ended>> {
    let mut all = Vec::new();
    for (_, octets) in numbered(&spool.join("ended"))? {
        let (records, _) = octets.as_chunks::<ENDED_LEN>();
        let records = (0..).zip(records).filter_map(|(place, record)| {
            let (octets, written) = record.split_first_chunk::<{ Ended::LEN }>()?;
            (check(place, octets) == *written).then(|| Ended::from_octets(octets)).flatten()
        });
        all.extend(records);
    }
    all.sort_by_key(|ended| ended.at);
    Ok(all)
}

fn over(spool: &Path) -> io::Result<Vec<OverIn>> {
    let mut all = Vec::new();
    for (number, octets) in numbered(&spool.join("over"))? {
        let (records, _) = octets.as_chunks::<OVER_LEN>();
        let mut records = (0..).zip(records).map(|(place, record)| {
            let (octets, written) = record.split_first_chunk::<{ OverTag::LEN }>()?;
            (check(place, octets) == *written).then_some(octets)
        });
        let Some(Some(key)) = records.next() else { continue };
        let tags = records.flatten().map(OverTag::from_octets).collect();
        let epoch = u32::try_from(number).unwrap_or(u32::MAX);
        all.push(OverIn { epoch: Epoch::new(epoch), key: Zeroizing::new(*key), tags });
    }
    Ok(all)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// The files of a folder that have numbers for names, ascending.
fn numbered(folder: &Path) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut all = Vec::new();
    for name in names(folder)? {
        if let Ok(number) = name.parse() {
            all.push((number, fs::read(folder.join(name))?));
        }
    }
    all.sort_by_key(|(number, _)| *number);
    Ok(all)
}

/// Of a record in its place.
fn check(place: u64, octets: &[u8]) -> [u8; CHECK_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&place.to_be_bytes()).update(octets);
    hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
}

fn append(file: &mut AppendFile, octets: &[u8]) -> io::Result<()> {
    let length = u64::try_from(octets.len() + CHECK_LEN).unwrap_or(u64::MAX);
    let place = file.octets() / length.max(1);
    let mut record = octets.to_vec();
    record.extend_from_slice(&check(place, octets));
    file.append(&record)
}

impl Spool {
    pub(super) fn new(state: &Path) -> Self {
        Self { folder: state.join(SPOOL), ended: None, over: None }
    }

    fn path(&self, part: &str, name: &MessageName) -> PathBuf {
        self.folder.join(part).join(HEXLOWER.encode(name.as_bytes()))
    }

    /// Keeps a message, which is on the disk when this returns.
    pub(super) fn keep(&self, name: &MessageName, octets: &[u8]) -> io::Result<()> {
        let draft = self.path("new", name);
        write_new(&draft, octets)?;
        let placed = rename_synced(&draft, &self.path("cur", name));
        if placed.is_err() {
            // Nobody is told that it is taken.
            let _ = remove(&draft);
            let _ = remove(&self.path("cur", name));
        }
        placed
    }

    pub(super) fn mark(&self, name: &MessageName, Mark { place, what }: Mark) -> io::Result<()> {
        // A message that has ended has no marks.
        if !self.path("cur", name).exists() {
            return Ok(());
        }
        mark(&self.path("cur", name).with_added_extension(MARKS), place.into(), what)
    }

    /// Forgets a message, after its end is kept.
    pub(super) fn forget(&mut self, name: &MessageName, ended: Option<&Ended>) -> io::Result<()> {
        if let Some(ended) = ended {
            self.end(ended)?;
        }
        let path = self.path("cur", name);
        remove(&path)?;
        remove(&path.with_added_extension(MARKS))
    }

    fn end(&mut self, ended: &Ended) -> io::Result<()> {
        let day = ended.at.as_millis() / DAY_MILLIS;
        let folder = self.folder.join("ended");
        let file = match &mut self.ended {
            Some((of, file)) if *of == day => file,
            open => {
                for (old, _) in numbered(&folder)? {
                    if old.saturating_add(DAYS) < day {
                        remove(&folder.join(old.to_string()))?;
                    }
                }
                let file = AppendFile::open(&folder.join(day.to_string()), ENDED_LEN)?;
                &mut open.insert((day, file)).1
            }
        };
        append(file, &ended.to_octets())
    }

    /// Keeps that a delivery is over.
    pub(super) fn over(&mut self, over: &Over) -> io::Result<()> {
        let file = match &mut self.over {
            Some((of, file)) if *of == over.epoch => file,
            open => {
                let path = self.folder.join("over").join(over.epoch.number().to_string());
                let file = AppendFile::open(&path, OVER_LEN)?;
                &mut open.insert((over.epoch, file)).1
            }
        };
        if file.octets() == 0 {
            append(file, over.key.as_slice())?;
        }
        append(file, &over.tag.to_octets())
    }

    /// Forgets the deliveries that were over before an epoch.
    pub(super) fn forget_over(&mut self, oldest: Epoch) -> io::Result<()> {
        let folder = self.folder.join("over");
        if self.over.as_ref().is_some_and(|(of, _)| *of < oldest) {
            self.over = None;
        }
        for name in names(&folder)? {
            if name.parse::<u32>().is_ok_and(|number| number < oldest.number()) {
                crate::files::destroy(&folder.join(name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keys::Time;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use record::Parameters;
    use remailer::sim::Simulation;

    use super::*;
    use crate::files::faults::{FaultKind, inject};

    fn store(folder: &Path) -> Store {
        Store::open(&folder.join("state")).unwrap()
    }

    /// Two messages, as a node keeps them.
    fn messages() -> [(MessageName, Vec<u8>); 2] {
        let parameters = Parameters::main().with_first_list(5).quiet();
        let start = parameters.schedule().start(Epoch::new(165_000));
        let rng = StdRng::seed_from_u64(1);
        let mut network = Simulation::new(5, &parameters, start, rng).unwrap();
        network.run(Duration::from_secs(2 * 3600));
        for _ in 0..2 {
            let recipients = vec![mail::Mailbox::parse("a@b.example").unwrap()];
            let message = b"To: a@b.example\r\n\r\nbody\r\n".to_vec();
            network.submit(1, &mail::Submission { recipients, message }).unwrap();
        }
        let kept = network.in_custody(1).map(|(name, octets)| (*name, octets.to_vec()));
        kept.collect::<Vec<_>>().try_into().unwrap()
    }

    /// Wherever the last write is cut off, what was kept before is there.
    #[test]
    fn a_write_that_is_cut_off_at_any_octet_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        store.custody().unwrap();
        let spool = Spool::new(store.folder());
        let [(first, earlier), (second, last)] = messages();
        spool.keep(&first, &earlier).unwrap();
        for part in ["new", "cur"] {
            for length in (0..last.len()).step_by(if part == "new" { 4099 } else { 1 }) {
                let path = spool.path(part, &second);
                fs::write(&path, &last[..length]).unwrap();
                if part == "cur" && length % 4099 > 0 && length > 300 {
                    // Most lengths are looked at without the walk over the folder.
                    assert!(Spooled::decode(&last[..length]).is_err());
                    continue;
                }
                let found = store.custody().unwrap().kept.messages;
                let found: Vec<_> = found.iter().map(KeptMessage::name).collect();
                assert!(found == [first], "{part} {length}");
            }
        }
        assert_eq!(fs::read(spool.path("cur", &first)).unwrap(), earlier);
        let custody = store.custody().unwrap();
        assert_eq!(custody.damaged, 1, "set aside under its name");
    }

    #[test]
    fn marks_ends_and_deliveries_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        assert_eq!(store.custody().unwrap().kept.messages.len(), 0);
        let mut spool = Spool::new(store.folder());
        let [(name, octets), (other, _)] = messages();
        spool.keep(&name, &octets).unwrap();
        spool.mark(&name, Mark { place: 2, what: 1 }).unwrap();
        spool.mark(&other, Mark { place: 2, what: 1 }).unwrap();
        let kept = store.custody().unwrap().kept;
        assert_eq!(kept.messages.len(), 1);
        assert_eq!(kept.messages[0].marks(), [0, 0, 1]);
        let mut octets = [0; Ended::LEN];
        octets[..16].copy_from_slice(name.as_bytes());
        octets[16..24].copy_from_slice(&(DAY_MILLIS * 5).to_be_bytes());
        octets[24] = 1;
        let ended = Ended::from_octets(&octets).unwrap();
        spool.forget(&name, Some(&ended)).unwrap();
        for (number, epoch) in [(1, 7), (2, 7), (3, 8)] {
            let key = Zeroizing::new([u8::try_from(epoch).unwrap(); 32]);
            let tag = OverTag::from_octets(&[number; OverTag::LEN]);
            spool.over(&Over { epoch: Epoch::new(epoch), key, tag }).unwrap();
        }
        let kept = store.custody().unwrap().kept;
        assert!(kept.messages.is_empty());
        assert_eq!(kept.ended, [ended]);
        let over: Vec<_> = kept.over.iter().map(|of| (of.epoch.number(), of.tags.len())).collect();
        assert_eq!(over, [(7, 2), (8, 1)]);
        assert_eq!(*kept.over[1].key, [8; 32]);
        spool.forget_over(Epoch::new(8)).unwrap();
        assert_eq!(store.custody().unwrap().kept.over.len(), 1);
        // Ends of days that are past go when another day begins.
        let later = Time::from_millis(DAY_MILLIS * 9);
        octets[16..24].copy_from_slice(&later.as_millis().to_be_bytes());
        spool.forget(&name, Ended::from_octets(&octets).as_ref()).unwrap();
        assert_eq!(store.custody().unwrap().kept.ended.len(), 1);
    }

    /// A message is kept, or nothing is left of it: whoever is told that it is not brings it again.
    #[test]
    fn a_disk_that_fails_at_any_step_keeps_all_of_a_message_or_nothing() {
        let [(name, octets), _] = messages();
        for kind in FaultKind::RETURNING {
            for after in 0..8 {
                let folder = tempfile::tempdir().unwrap();
                let store = store(folder.path());
                store.custody().unwrap();
                let spool = Spool::new(store.folder());
                let fault = inject(store.folder(), kind, after, 1);
                let kept = spool.keep(&name, &octets).is_ok();
                drop(fault);
                let found = store.custody().unwrap();
                assert_eq!(found.kept.messages.len(), usize::from(kept), "{kind:?} {after}");
                assert_eq!(found.damaged, 0);
            }
        }
    }
}

//! Faults of a disk, for tests: any step below a folder can be made to fail.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};

use rustix::io::Errno;

use super::Step;

/// How the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing more can be written; what there was room for is.
    NoSpace,
    /// Writes reach the cache, and syncing them fails.
    SyncFails,
    /// Mounted read-only.
    ReadOnly,
    /// Out of descriptors.
    TooManyFiles,
    /// A step that does not return.
    Hangs,
}

impl FaultKind {
    /// All that return.
    pub const RETURNING: [Self; 4] =
        [Self::NoSpace, Self::SyncFails, Self::ReadOnly, Self::TooManyFiles];

    fn fails(self, step: Step) -> Option<Errno> {
        match (self, step) {
            (Self::NoSpace, Step::Open | Step::Write(1..)) => Some(Errno::NOSPC),
            (Self::SyncFails, Step::Sync) => Some(Errno::IO),
            (Self::ReadOnly, Step::Open | Step::Rename | Step::Remove) => Some(Errno::ROFS),
            (Self::TooManyFiles, Step::Open) => Some(Errno::MFILE),
            _ => None,
        }
    }
}

/// What happens below one folder.
struct Plan {
    folder: PathBuf,
    kind: FaultKind,
    /// Steps that succeed first.
    after: usize,
    /// Steps that fail then.
    lasts: usize,
    met: usize,
}

static PLANS: Mutex<Vec<Plan>> = Mutex::new(Vec::new());
static CHANGED: Condvar = Condvar::new();

fn plans() -> MutexGuard<'static, Vec<Plan>> {
    PLANS.lock().unwrap()
}

/// A fault, until it is dropped.
pub struct Injected(PathBuf);

/// From the step after so many, this many steps below a folder fail.
pub fn inject(folder: &Path, kind: FaultKind, after: usize, lasts: usize) -> Injected {
    plans().push(Plan { folder: folder.to_owned(), kind, after, lasts, met: 0 });
    Injected(folder.to_owned())
}

impl Injected {
    /// Steps that were made below the folder.
    pub fn met(&self) -> usize {
        plans().iter().find(|plan| plan.folder == self.0).unwrap().met
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        plans().retain(|plan| plan.folder != self.0);
        CHANGED.notify_all();
    }
}

pub(super) fn meet(step: Step, path: &Path) -> io::Result<()> {
    let mut all = plans();
    let Some(plan) = all.iter_mut().find(|plan| path.starts_with(&plan.folder)) else {
        return Ok(());
    };
    plan.met += 1;
    let is_on = plan.met > plan.after && plan.met <= plan.after.saturating_add(plan.lasts);
    if !is_on {
        return Ok(());
    }
    if plan.kind == FaultKind::Hangs {
        let folder = plan.folder.clone();
        let hangs = |all: &mut Vec<Plan>| all.iter().any(|plan| plan.folder == folder);
        drop(CHANGED.wait_while(all, hangs).unwrap());
        return Err(Errno::IO.into());
    }
    plan.kind.fails(step).map_or(Ok(()), |errno| Err(errno.into()))
}

/// A disk that fills takes the first half of what is written.
pub(super) fn write_some(file: &mut File, path: &Path, octets: &[u8]) -> io::Result<()> {
    let all = plans();
    let plan = all.iter().find(|plan| path.starts_with(&plan.folder));
    let fills = plan.is_some_and(|plan| {
        plan.kind == FaultKind::NoSpace
            && plan.met >= plan.after
            && plan.met < plan.after.saturating_add(plan.lasts)
    });
    if fills {
        file.write_all(octets.get(..octets.len() / 2).unwrap_or_default())?;
    }
    Ok(())
}

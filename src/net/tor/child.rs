//! A node's own tor: a child process with its own folder, which ends with its owner.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::control::ControlAddress;
use crate::failure::{Failure, FailureKind};

/// Time for tor to write down its control port, which it does before connecting to the network.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Between SIGTERM and SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const TORRC: &str = "torrc";
const LOG: &str = "log";
const CONTROL_PORT: &str = "control-port";

/// A running child. It is killed when this is dropped, and ends by itself when its owner is gone.
pub(super) struct TorChild {
    child: Child,
    folder: PathBuf,
}

impl TorChild {
    /// Makes a folder and starts a tor in it. `lines` of configuration, with the control port
    /// among them, are added to those of every child.
    ///
    /// # Errors
    /// [`FailureKind::State`] for the folder, [`FailureKind::Tor`] if tor cannot be started.
    pub(super) fn start(binary: &Path, folder: &Path, lines: &str) -> Result<Self, Failure> {
        let made = write_torrc(folder, lines).and_then(|()| {
            let _ = fs::remove_file(folder.join(CONTROL_PORT));
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600).open(folder.join(LOG))
        });
        let log = made.map_err(|error| {
            Failure::new(FailureKind::State, format!("{}: {error}", folder.display()))
        })?;
        let mut command = tokio::process::Command::new(binary);
        command
            // The system's defaults are for the system's tor: another user, other folders.
            .args(["--defaults-torrc", "/dev/null", "-f"])
            .arg(folder.join(TORRC))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            // Only the owner handles signals that a terminal sends to its process group.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|error| {
            Failure::new(FailureKind::Tor, format!("cannot start {}: {error}", binary.display()))
        })?;
        Ok(Self { child, folder: folder.to_owned() })
    }

    /// Waits for tor to write down its control port, and returns it.
    ///
    /// # Errors
    /// If tor ends instead, with the last line of its log.
    pub(super) async fn control(&mut self) -> Result<ControlAddress, Failure> {
        let path = self.folder.join(CONTROL_PORT);
        let written = async {
            loop {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let address = text.lines().find_map(|line| line.strip_prefix("PORT="));
                if let Some(Ok(address)) = address.map(str::parse) {
                    return Ok(ControlAddress::Tcp(address));
                }
                if let Ok(Some(status)) = self.child.try_wait() {
                    let said = last_words(&self.folder).unwrap_or_else(|| status.to_string());
                    return Err(Failure::new(FailureKind::Tor, format!("tor ended: {said}"))
                        .remedy(format!("see {}", self.folder.join(LOG).display())));
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        let limit = timeout(START_TIMEOUT, written).await;
        limit.unwrap_or_else(|_| {
            Err(Failure::new(FailureKind::Tor, "tor does not say where its control port is")
                .remedy(format!("see {}", self.folder.join(LOG).display())))
        })
    }

    /// The id of its process, while it runs.
    #[must_use]
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks tor to end, and waits until it has.
    pub(super) async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have ended in the meantime.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// The tor on PATH, or where Debian puts it, which is not on every user's PATH.
#[must_use]
pub(super) fn find() -> Option<PathBuf> {
    find_program("tor")
}

/// A program on PATH or in the folders for system programs.
#[must_use]
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(system);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A path as a value in a torrc.
#[must_use]
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn write_torrc(folder: &Path, lines: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut torrc = format!(
        "DataDirectory {}\nControlPortWriteToFile {}\n\
         CookieAuthentication 1\nCookieAuthFile {}\nLog notice stdout\nRunAsDaemon 0\n\
         __OwningControllerProcess {}\n{lines}",
        quoted(&folder.join("data")),
        quoted(&folder.join(CONTROL_PORT)),
        quoted(&folder.join("cookie")),
        std::process::id(),
    );
    let local = folder.join("torrc.local");
    if local.exists() {
        let _ = writeln!(torrc, "%include {}", quoted(&local));
    }
    crate::files::write_whole(&folder.join(TORRC), torrc.as_bytes())
}

/// The last warning or error in its log, without the date.
fn last_words(folder: &Path) -> Option<String> {
    let log = fs::read_to_string(folder.join(LOG)).ok()?;
    let is_bad = |line: &&str| line.contains("[warn]") || line.contains("[err]");
    let line = log.lines().rfind(is_bad).or(log.lines().last())?;
    Some(line.split_once("] ").map_or(line, |(_, words)| words).to_owned())
}

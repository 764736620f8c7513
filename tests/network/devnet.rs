//! A devnet as a child process.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn fog() -> Command {
    let built = env!("CARGO_BIN_EXE_fog").to_owned();
    Command::new(std::env::var("FOG_BIN").unwrap_or(built))
}

/// Ports that no other test uses. Parallel tests of one process take them in order, below the range
/// from which the system takes the ports of outgoing connections.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let first = start + NEXT.fetch_add(count, Ordering::Relaxed);
        let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (first..first + count).all(free) {
            return first;
        }
    }
}

/// Waits for something to become true, looking every 20 ms.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) struct Devnet {
    child: Child,
    stdout: BufReader<ChildStdout>,
    folder: TempDir,
    pub(crate) port: u16,
    pub(crate) nodes: u16,
    pub(crate) ready_line: String,
    pub(crate) ready_after: Duration,
}

impl Devnet {
    /// Starts seven nodes and waits until they know each other.
    pub(crate) fn start(speed: u32, deliver: Option<&str>) -> Self {
        // Most tests count packets.
        Self::start_with(speed, deliver, &["--no-cover"])
    }

    /// The same, with more arguments.
    pub(crate) fn start_with(speed: u32, deliver: Option<&str>, arguments: &[&str]) -> Self {
        let nodes = 7;
        let port = free_ports(nodes);
        let folder = tempfile::tempdir().unwrap();
        let mut command = fog();
        command
            .args(["devnet", "--speed", &speed.to_string(), "--smtp-port", &port.to_string()])
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            .args(arguments)
            .env("RUST_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("log")).unwrap());
        if let Some(target) = deliver {
            command.args(["--deliver", target]);
        }
        let start = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready_line = String::new();
        while !ready_line.starts_with("devnet ready") {
            ready_line.clear();
            assert_ne!(stdout.read_line(&mut ready_line).unwrap(), 0, "the devnet ended early");
        }
        let ready_after = start.elapsed();
        Self { child, stdout, folder, port, nodes, ready_line, ready_after }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The messages in the devnet's own Maildir, oldest first.
    pub(crate) fn mails(&self) -> Vec<Vec<u8>> {
        maildir(&self.state().join("mail"))
    }

    pub(crate) fn status(&self, node: u16) -> Value {
        let mut command = fog();
        command.args(["status", "--json", "--state-dir"]);
        let output = command.arg(self.state().join(format!("n{node}"))).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The sum of one count over all nodes.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let count = |node| self.status(node)["counts"][name].as_u64().unwrap_or(0);
        (1..=self.nodes).map(count).sum()
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Interrupts the devnet, and returns its exit status and last output.
    pub(crate) fn stop(&mut self) -> (ExitStatus, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let limit = Duration::from_secs(10);
        let status = wait_for("the end of the devnet", limit, || self.child.try_wait().unwrap());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (status, rest)
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let warnings =
                log.lines().filter(|line| !line.contains("TRACE") && !line.contains("DEBUG"));
            println!("{}", warnings.take(50).collect::<Vec<_>>().join("\n"));
        }
    }
}

pub(crate) fn maildir(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder.join("new")) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

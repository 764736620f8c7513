//! One node in a process of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::devnet::fog;

/// A state folder, and the process that runs on it.
pub(crate) struct Node {
    pub(crate) folder: PathBuf,
    pub(crate) onion: String,
    pub(crate) port: u16,
    pub(crate) child: Option<Child>,
}

impl Node {
    pub(crate) fn init(folder: &Path, port: u16, options: &[&str]) -> Self {
        let smtp = format!("127.0.0.1:{port}");
        let mut command = fog();
        command
            .args(["init", "--json", "--smtp", &smtp])
            .arg("--state-dir")
            .arg(folder)
            .args(options);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        let onion = made["onion"].as_str().unwrap().to_owned();
        Self { folder: folder.to_owned(), onion, port, child: None }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = fog();
        command.args(["run", "--as-root", "--state-dir"]).arg(&self.folder);
        command.env("RUST_LOG", "trace");
        command
    }

    /// A node without any preparation: `fog run` makes it from its arguments.
    pub(crate) fn join(folder: &Path, bootstrap: &str) -> Self {
        let folder = folder.to_owned();
        let mut node = Self { folder, onion: String::new(), port: 2525, child: None };
        let mut command = node.command();
        command.args(["--bootstrap", bootstrap]);
        let line = node.spawn(command);
        let onion = line.strip_prefix("running: ").and_then(|line| line.split(',').next());
        node.onion = onion.expect(&line).to_owned();
        node
    }

    /// Starts the node and waits until it reports that it runs.
    pub(crate) fn start(&mut self) {
        self.start_with(&["run"]);
    }

    /// Starts the node with these variables in its environment.
    pub(crate) fn start_in(&mut self, environment: &[(&str, String)]) {
        self.begin(&["run"], environment);
    }

    /// Starts the node with another command than `run`.
    pub(crate) fn start_with(&mut self, order: &[&str]) {
        self.begin(order, &[]);
    }

    fn begin(&mut self, order: &[&str], environment: &[(&str, String)]) {
        let mut command = fog();
        command.args(order).args(["--as-root", "--state-dir"]).arg(&self.folder);
        command.env("RUST_LOG", "trace").envs(environment.iter().cloned());
        let line = self.spawn(command);
        let running = format!("running: {}, SMTP on 127.0.0.1:{}\n", self.onion, self.port);
        let log = fs::read_to_string(self.log()).unwrap();
        assert_eq!(line, running, "{log}");
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    fn spawn(&mut self, mut command: Command) -> String {
        let log = fs::File::create(self.log()).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.child = Some(child);
        line
    }

    /// Tries to start the node, and returns its exit code and its complaint.
    pub(crate) fn fails(&self) -> (i32, String) {
        let mut command = Command::new("timeout");
        let fog = self.command();
        command.arg("60").arg(fog.get_program()).args(fog.get_args());
        let output = command.env("RUST_LOG", "warn").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        (output.status.code().unwrap(), said)
    }

    pub(crate) fn ask(&self, order: &str) -> Value {
        let ask = || {
            let mut command = fog();
            command.args([order, "--json", "--state-dir"]).arg(&self.folder).output().unwrap()
        };
        let mut output = ask();
        // A machine that runs two Tor networks may be too busy for the two seconds that a caller has.
        if !output.status.success() {
            output = ask();
        }
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn count(&self, prefix: &str) -> u64 {
        let status = self.ask("status");
        let counts = status["counts"].as_object().unwrap();
        let matching = counts.iter().filter(|(name, _)| name.starts_with(prefix));
        matching.map(|(_, count)| count.as_u64().unwrap()).sum()
    }

    /// `fog send`: whether the node took it, or refused it for now.
    pub(crate) fn send(&self, subject: &str) -> bool {
        let mut command = fog();
        command.args(["send", "-", "--to", "user@b.example", "--via"]);
        command.arg(format!("127.0.0.1:{}", self.port));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let message = format!("To: user@b.example\nSubject: {subject}\n\nbody\n");
        child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            assert!(String::from_utf8_lossy(&output.stdout).starts_with("250 2.0.0 taken as "));
        } else {
            assert!(said.contains("did not take it: 451 4.4.0"), "{said}");
            assert_eq!(output.status.code(), Some(6));
        }
        output.status.success()
    }

    /// Its process id.
    pub(crate) fn process(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Resident memory in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        let pid = self.process();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&mut self, signal: &str) {
        let Some(mut child) = self.child.take() else { return };
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let start = Instant::now();
        let status = child.wait().unwrap();
        if signal == "-TERM" {
            assert!(status.success() && start.elapsed() < Duration::from_secs(10));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

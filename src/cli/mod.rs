//! The command line: one file for each subcommand.

mod devnet;
mod log;
mod status;

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit, umask};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Kind};

/// Anonymous mail over Tor, libp2p and Sphinx.
#[derive(Parser)]
#[command(name = "fog", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole network in one process: mail in by SMTP, across the nodes, and out.
    Devnet(devnet::Arguments),
    /// Say how a running node is.
    Status(status::Arguments),
}

/// Parses the command line and does what it says.
///
/// # Errors
/// What failed, with what to do about it.
pub fn run() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    confine()?;
    log::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::Internal, error))?;
    match arguments.command {
        Command::Devnet(arguments) => runtime.block_on(devnet::run(arguments)),
        Command::Status(arguments) => runtime.block_on(status::run(arguments)),
    }
}

/// Says on stderr what failed.
pub fn complain(failure: &Failure) {
    let mut stderr = io::stderr().lock();
    // There is nowhere to say that stderr is closed.
    let _ = writeln!(stderr, "fog: {failure}");
    if let Some(hint) = failure.hint() {
        let _ = writeln!(stderr, "     {hint}");
    }
}

/// Before the first file: nothing is readable by others, and no memory is written to disk.
fn confine() -> Result<(), Failure> {
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| {
            Failure::new(Kind::Internal, format!("cannot switch core dumps off: {error}"))
        })
}

/// Results go to stdout, a line at a time.
fn say(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(Kind::Internal, format!("stdout: {error}")))
}

/// Where a node keeps its state if nothing else is said.
fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/fog".into();
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).unwrap_or_else(|| ".".into()).join("fog")
}

/// SIGINT or SIGTERM.
pub(super) struct Interrupted {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupted {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(Kind::Internal, error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

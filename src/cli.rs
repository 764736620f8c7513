//! The command line: one file for each subcommand.

mod advice;
mod devnet;
mod doctor;
mod drain;
mod init;
mod log;
mod network;
mod orders;
mod peers;
mod queue;
mod run;
mod send;
mod stats;
mod status;
mod wording;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use keys::OnionAddress;
use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit, umask};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::entropy::generator;
use crate::failure::{Failure, FailureKind};
use crate::store::Store;

/// Anonymous mail over Tor, libp2p and Sphinx.
#[derive(Parser)]
#[command(name = "fog", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print results as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole network in one process: mail in by SMTP, across the nodes, and out.
    Devnet(devnet::Arguments),
    /// Make a state folder with an identity and a configuration.
    Init {
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        arguments: init::Arguments,
    },
    /// Run one node.
    Run {
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        arguments: run::Arguments,
    },
    /// Show the state of a running node, or what has become of a message that it has taken.
    Status {
        #[command(flatten)]
        state: State,
        /// The name under which the message was taken, from the reply to it.
        message: Option<String>,
    },
    /// Show the messages in the custody of a running node.
    Queue {
        #[command(flatten)]
        state: State,
    },
    /// List the nodes that a running node knows.
    Peers {
        #[command(flatten)]
        state: State,
        /// Show for each node whether it uses the same list as this one.
        #[arg(long)]
        lists: bool,
    },
    /// Show what the loops of a running node say of the others.
    Stats {
        #[command(flatten)]
        state: State,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = stats::Format::Table)]
        format: stats::Format,
    },
    /// Vouch for a node, so that routes may go through it.
    Vouch {
        #[command(flatten)]
        state: State,
        /// Its address.
        onion: OnionAddress,
    },
    /// Withdraw a vouch.
    Unvouch {
        #[command(flatten)]
        state: State,
        /// Its address.
        onion: OnionAddress,
    },
    /// As a voter, say that another voter or root counts no more: it is so for good once more than
    /// half of the other voters have said it.
    Retire {
        #[command(flatten)]
        state: State,
        /// Its address.
        onion: OnionAddress,
    },
    /// Print an invite: this node vouches for the node that joins with it.
    Invite {
        #[command(flatten)]
        state: State,
    },
    /// Join a network with an invite, and run a node in it.
    Join {
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        arguments: run::Joining,
    },
    /// Keep a node out of this node's own routes.
    Ban {
        #[command(flatten)]
        state: State,
        /// Its address.
        onion: OnionAddress,
    },
    /// Let a banned node into this node's own routes again.
    Unban {
        #[command(flatten)]
        state: State,
        /// Its address.
        onion: OnionAddress,
    },
    /// Have a running node leave the network so that nothing is lost: it takes no mail any more, waits for what
    /// others have planned with it and for what it has taken, and ends. To restart or upgrade a node, stop it.
    Drain {
        #[command(flatten)]
        state: State,
        #[command(flatten)]
        arguments: drain::Arguments,
    },
    /// Find what keeps a node from working, and say what to do.
    Doctor {
        #[command(flatten)]
        state: State,
    },
    /// Make a network.
    Network(network::Arguments),
    /// Submit a message to a node.
    Send(send::Arguments),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
}

/// Where a node keeps its state.
#[derive(Args)]
struct State {
    /// The node's state folder [default: $XDG_STATE_HOME/fog, as root /var/lib/fog].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Its configuration [default: fog.toml in the state folder].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl State {
    fn folder(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(default_state_dir)
    }

    fn config_file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.folder().join("fog.toml"))
    }
}

/// Parses the command line and does what it says.
///
/// # Errors
/// The failure, with its remedy.
pub fn run() -> Result<(), Failure> {
    let Arguments { command, json } = Arguments::parse();
    confine()?;
    log::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(FailureKind::Internal, error))?;
    match command {
        Command::Devnet(arguments) => runtime.block_on(devnet::run(arguments, json)),
        Command::Init { state, arguments } => init::run(&state, arguments, json),
        Command::Run { state, arguments } => runtime.block_on(run::run(state, arguments, json)),
        Command::Status { state, message: None } => runtime.block_on(status::run(state, json)),
        Command::Status { state, message: Some(message) } => {
            runtime.block_on(status::message(state, message, json))
        }
        Command::Queue { state } => runtime.block_on(queue::run(state, json)),
        Command::Peers { state, lists } => runtime.block_on(peers::run(state, lists, json)),
        Command::Stats { state, format } => runtime.block_on(stats::run(state, format, json)),
        Command::Vouch { state, onion } => runtime.block_on(orders::vouch(state, onion, json)),
        Command::Retire { state, onion } => runtime.block_on(orders::retire(state, onion, json)),
        Command::Unvouch { state, onion } => runtime.block_on(orders::unvouch(state, onion, json)),
        Command::Invite { state } => runtime.block_on(orders::invite(state, json)),
        Command::Join { state, arguments } => runtime.block_on(run::join(state, arguments, json)),
        Command::Ban { state, onion } => runtime.block_on(orders::ban(state, onion, json)),
        Command::Unban { state, onion } => runtime.block_on(orders::unban(state, onion, json)),
        Command::Drain { state, arguments } => runtime.block_on(drain::run(state, arguments, json)),
        Command::Doctor { state } => runtime.block_on(doctor::run(state, json)),
        Command::Network(arguments) => network::run(arguments, json),
        Command::Send(arguments) => runtime.block_on(send::run(arguments, json)),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "fog", &mut text);
            say_octets(&text)
        }
        Command::Man => manual().and_then(|text| say_octets(&text)),
    }
}

/// One page: the program, then each of its commands.
fn manual() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let mut program = Arguments::command();
    program.build();
    let commands = program.get_subcommands().cloned().collect::<Vec<_>>();
    for page in std::iter::once(program).chain(commands) {
        clap_mangen::Man::new(page)
            .render(&mut text)
            .map_err(|error| Failure::new(FailureKind::Internal, format!("manual: {error}")))?;
    }
    Ok(text)
}

fn say_octets(octets: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(octets)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(FailureKind::Internal, format!("stdout: {error}")))
}

/// Prints a failure to stderr.
pub fn complain(failure: &Failure) {
    let mut stderr = io::stderr().lock();
    // If stderr is closed, there is no place left to report that.
    let _ = match failure.hint() {
        Some(hint) => writeln!(stderr, "fog: {failure}; {hint}"),
        None => writeln!(stderr, "fog: {failure}"),
    };
}

/// Keeps other users from reading new files, and memory from being written to disk. Must run
/// before the first file is made.
fn confine() -> Result<(), Failure> {
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| {
            Failure::new(FailureKind::Internal, format!("cannot switch core dumps off: {error}"))
        })
}

/// Prints one line of a result to stdout.
fn say(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(FailureKind::Internal, format!("stdout: {error}")))
}

fn say_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(value);
    say(&json.map_err(|error| Failure::new(FailureKind::Internal, error))?)
}

/// Opens a state folder in which a control socket can be bound.
fn open_store(folder: &Path) -> Result<Store, Failure> {
    crate::control::check_path(folder)?;
    Ok(Store::open(folder)?)
}

/// The state folder if none is given.
fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/fog".into();
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).unwrap_or_else(|| ".".into()).join("fog")
}

/// Waits for SIGINT or SIGTERM, or for the end of the terminal that it was started in. Without one
/// SIGHUP is for a service to read its files anew: it must not end a node that holds mail.
pub(super) struct Interrupted {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    has_terminal: bool,
}

impl Interrupted {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(FailureKind::Internal, error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            has_terminal: io::stdin().is_terminal(),
        })
    }

    pub(super) async fn wait(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hang_up.recv() => {
                    if self.has_terminal {
                        return;
                    }
                    tracing::warn!("SIGHUP: a changed configuration counts from the next start");
                }
            }
        }
    }
}

//! `fog init`: a state folder, an identity, and a configuration to begin with.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use keys::{Identity, OnionAddress};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{State, devnet, generator, network, say, say_json};
use crate::config::DEFAULT_TOR_LISTEN;
use crate::exit::Target;
use crate::failure::{Failure, FailureKind};
use crate::files::write_whole;
use crate::net::connect::DevnetFolder;
use crate::net::tor::control::ControlAddress;
use crate::net::tor::{SMTP_PORT, SWARM_PORT};
use crate::store::Store;

#[derive(Args)]
pub(super) struct Arguments {
    /// Join through the node at this onion address; repeatable. The first node needs none.
    #[arg(long, value_name = "ONION")]
    bootstrap: Vec<OnionAddress>,
    /// Join a test network without Tor, whose nodes share this folder; it is made if missing.
    #[arg(long, value_name = "DIR")]
    devnet: Option<PathBuf>,
    /// Start a network with this descriptor, written by `fog network new`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["speed", "nodes"])]
    network: Option<PathBuf>,
    /// Use the Tor with this control port, ADDRESS:PORT or unix:PATH [default: a running Tor, else
    /// one of the node's own].
    #[arg(long, value_name = "WHERE", conflicts_with_all = ["devnet", "tor_dir"])]
    tor_control: Option<ControlAddress>,
    /// Keep Tor's control port closed: write the node's key into this folder as a HiddenServiceDir,
    /// and print the lines to add to the torrc.
    #[arg(long, value_name = "DIR", conflicts_with = "devnet")]
    tor_dir: Option<PathBuf>,
    /// Divide all times of the test network by this, if it is made now.
    #[arg(long, requires = "devnet", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    speed: Option<u32>,
    /// Vote the first list as soon as this many nodes are known, not for the next hour.
    #[arg(long, requires = "devnet", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    nodes: u16,
    /// Send no cover in the test network, if it is made now: its nodes are idle while nobody mails.
    #[arg(long, requires = "devnet")]
    no_cover: bool,
    /// Accept mail at this loopback address.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2525")]
    smtp: SocketAddr,
    /// Be an exit: deliver mail to maildir:DIR or smtp://ADDRESS:PORT.
    #[arg(long, value_name = "TARGET")]
    deliver: Option<Target>,
    /// Publish this as the way for other operators to reach you.
    #[arg(long, value_name = "TEXT")]
    contact: Option<String>,
}

#[derive(Serialize)]
struct Made {
    onion: String,
    config: PathBuf,
    torrc: Option<String>,
}

pub(super) fn run(state: &State, arguments: Arguments, json: bool) -> Result<(), Failure> {
    let config = state.config_file();
    if config.exists() {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("{} is there already", config.display()),
        )
        .remedy("edit it, or use another --state-dir"));
    }
    let devnet = arguments.devnet.as_deref().map(std::path::absolute).transpose();
    let devnet =
        devnet.map_err(|error| Failure::new(FailureKind::Usage, format!("--devnet: {error}")))?;
    let mut text = Draft::default();
    text.section("network");
    let bootstrap: Vec<_> = arguments.bootstrap.iter().map(ToString::to_string).collect();
    text.line("bootstrap", bootstrap);
    if let Some(folder) = &devnet {
        text.line("devnet", folder.display().to_string());
    }
    text.section("smtp");
    text.line("listen", arguments.smtp.to_string());
    let deliver = arguments.deliver.map(Target::absolute).transpose();
    let deliver =
        deliver.map_err(|error| Failure::new(FailureKind::Usage, format!("--deliver: {error}")))?;
    if let Some(target) = &deliver {
        text.section("exit");
        text.line("deliver", target.to_string());
    }
    if let Some(contact) = arguments.contact {
        text.section("operator");
        text.line("contact", contact);
    }
    let tor_dir = arguments.tor_dir.as_deref().map(std::path::absolute).transpose();
    let tor_dir =
        tor_dir.map_err(|error| Failure::new(FailureKind::Usage, format!("--tor-dir: {error}")))?;
    if let Some(control) = &arguments.tor_control {
        text.section("tor");
        text.line("mode", "running");
        text.line("control", control.to_string());
    } else if tor_dir.is_some() {
        text.section("tor");
        text.line("mode", "manual");
        text.line("listen", DEFAULT_TOR_LISTEN);
    }
    let network = arguments.network.as_deref().map(network::read).transpose()?;
    // Checked before anything is made: a mistake would otherwise show only at the first start.
    crate::config::check(&text.0)?;
    crate::control::check_path(&state.folder())?;

    let store = Store::open(&state.folder())?;
    let identity = store.identity(&mut generator()?)?;
    store.bind(&identity.node())?;
    let descriptor = match &devnet {
        None => network,
        Some(path) => {
            let fail =
                |error| Failure::new(FailureKind::State, format!("{}: {error}", path.display()));
            let folder = DevnetFolder::open(path).map_err(fail)?;
            if let (Some(network), Ok(None)) = (&network, folder.descriptor()) {
                folder.found(network).map_err(fail)?;
            }
            // The first node of a test network is its voter.
            let voter = [identity.node()];
            let Arguments { speed, nodes, no_cover, .. } = arguments;
            let wanted = devnet::Wanted { speed, nodes, is_quiet: no_cover };
            Some(devnet::descriptor(&folder, path, &wanted, &voter)?)
        }
    };
    if let Some(descriptor) = descriptor {
        store.pin_network(&descriptor)?;
    }
    let onion = OnionAddress::of(identity.node())
        .map_err(|error| Failure::new(FailureKind::Internal, format!("identity: {error}")))?
        .to_string();
    if let Some(folder) = &tor_dir {
        write_service(folder, &identity, &onion).map_err(|error| {
            Failure::new(FailureKind::State, format!("{}: {error}", folder.display()))
                .remedy("name an empty folder of your own; it is given to Tor afterwards")
        })?;
    }
    if let Some(folder) = config.parent() {
        fs::create_dir_all(folder).map_err(|error| {
            Failure::new(FailureKind::State, format!("{}: {error}", folder.display()))
        })?;
    }
    write_whole(&config, text.0.as_bytes()).map_err(|error| {
        Failure::new(FailureKind::State, format!("{}: {error}", config.display()))
    })?;

    if let Some(Target::Smarthost(server)) = &deliver
        && !server.ip().is_loopback()
    {
        // If stderr is closed, nobody reads it.
        let _ = writeln!(
            io::stderr(),
            "fog: mail goes to {server} in clear, past Tor, from this machine's address"
        );
    }
    let torrc = tor_dir.as_deref().map(torrc);
    if json {
        return say_json(&Made { onion, config, torrc });
    }
    say_next(&state.folder(), &onion, &config, tor_dir.as_deref(), torrc.as_deref())
}

/// Prints what was made, and what to do next.
fn say_next(
    state: &Path,
    onion: &str,
    config: &Path,
    tor_dir: Option<&Path>,
    torrc: Option<&str>,
) -> Result<(), Failure> {
    say(&format!("this node is {onion}"))?;
    say(&format!("its configuration is {}", config.display()))?;
    if let (Some(torrc), Some(folder)) = (torrc, tor_dir) {
        let folder = quoted(folder);
        say(&format!("give {folder} to Tor's user (Debian: chown -R debian-tor: {folder}),"))?;
        say("add this to the torrc, and reload Tor:")?;
        say(torrc.trim_end())?;
    }
    let as_root = if rustix::process::geteuid().is_root() { " --as-root" } else { "" };
    say(&format!("start it with: fog run{as_root} --state-dir {}", quoted(state)))?;
    if as_root.is_empty() { Ok(()) } else { say("better: make it again as a user of its own") }
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Writes the node's key the way Tor stores onion service keys: `hostname`, and two files, each a
/// tag of 32 octets and then the public key (32) or the expanded secret key (64).
fn write_service(folder: &Path, identity: &Identity, onion: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if fs::read_dir(folder)?.next().is_some() {
        return Err(io::Error::other("it is not empty; another service's key may be in it"));
    }
    let mut secret = Zeroizing::new(b"== ed25519v1-secret: type0 ==\0\0\0".to_vec());
    secret.reserve_exact(Identity::ONION_KEY_LEN);
    secret.extend_from_slice(identity.onion_key().as_slice());
    let mut public = b"== ed25519v1-public: type0 ==\0\0\0".to_vec();
    public.extend_from_slice(identity.node().as_bytes());
    write_whole(&folder.join("hs_ed25519_secret_key"), &secret)?;
    write_whole(&folder.join("hs_ed25519_public_key"), &public)?;
    write_whole(&folder.join("hostname"), format!("{onion}\n").as_bytes())
}

/// The lines for the torrc. They export circuit ids, so that the node can keep each circuit to its
/// share.
fn torrc(folder: &Path) -> String {
    format!(
        "HiddenServiceDir {}\nHiddenServicePort {SWARM_PORT} {DEFAULT_TOR_LISTEN}\n\
         HiddenServicePort {SMTP_PORT} {DEFAULT_TOR_LISTEN}\nHiddenServiceExportCircuitID haproxy\n\
         HiddenServiceMaxStreams 64\nHiddenServiceMaxStreamsCloseCircuit 1\n\
         HiddenServicePoWDefensesEnabled 1  # leave this out before Tor 0.4.8\n",
        folder.display()
    )
}

#[derive(Default)]
struct Draft(String);

impl Draft {
    fn section(&mut self, name: &str) {
        self.0.push_str(&format!("[{name}]\n"));
    }

    fn line(&mut self, key: &str, value: impl Into<toml::Value>) {
        self.0.push_str(&format!("{key} = {}\n", value.into()));
    }
}

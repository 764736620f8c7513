//! `fog init`: a state folder, an identity, and a configuration to begin with.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use keys::OnionAddress;
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use serde::Serialize;

use super::{State, devnet, say, say_json};
use crate::failure::{Failure, Kind};
use crate::net::connect::DevnetFolder;
use crate::smtp::Target;
use crate::store::{Store, write_whole};

#[derive(Args)]
pub(super) struct Arguments {
    /// Onion address of a node to begin with; may be given several times. None for the first node.
    #[arg(long, value_name = "ONION")]
    bootstrap: Vec<OnionAddress>,
    /// Join a test network without Tor: the folder that its nodes share. Made if it is not there.
    #[arg(long, value_name = "DIR")]
    devnet: Option<PathBuf>,
    /// What all times of that test network are divided by, if it is made now.
    #[arg(long, requires = "devnet", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    speed: Option<u32>,
    /// With so many nodes that test network takes its first view, instead of waiting for the hour.
    #[arg(long, requires = "devnet", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    nodes: u16,
    /// Where mail is submitted, on loopback.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2525")]
    smtp: SocketAddr,
    /// Be an exit: deliver to maildir:DIR or smtp://ADDRESS:PORT.
    #[arg(long, value_name = "TARGET")]
    deliver: Option<Target>,
    /// How other operators reach you; published.
    #[arg(long, value_name = "TEXT")]
    contact: Option<String>,
}

#[derive(Serialize)]
struct Made {
    onion: String,
    config: PathBuf,
}

pub(super) fn run(state: &State, arguments: Arguments, json: bool) -> Result<(), Failure> {
    let config = state.config_file();
    if config.exists() {
        return Err(Failure::new(Kind::Usage, format!("{} is there already", config.display()))
            .remedy("edit it, or use another --state-dir"));
    }
    let devnet = arguments.devnet.as_deref().map(std::path::absolute).transpose();
    let devnet = devnet.map_err(|error| Failure::new(Kind::Usage, format!("--devnet: {error}")))?;
    let mut text = Draft::default();
    text.section("network");
    let bootstrap: Vec<_> = arguments.bootstrap.iter().map(ToString::to_string).collect();
    text.line("bootstrap", bootstrap);
    if let Some(folder) = &devnet {
        text.line("devnet", folder.display().to_string());
    }
    text.section("smtp");
    text.line("listen", arguments.smtp.to_string());
    if let Some(target) = arguments.deliver {
        text.section("exit");
        let target = target
            .absolute()
            .map_err(|error| Failure::new(Kind::Usage, format!("--deliver: {error}")))?;
        text.line("deliver", target.to_string());
    }
    if let Some(contact) = arguments.contact {
        text.section("operator");
        text.line("contact", contact);
    }
    // Before anything is made: a mistake here would only show at the first start.
    crate::config::check(&text.0)?;
    crate::control::check_path(&state.folder())?;

    let descriptor = match &devnet {
        None => None,
        Some(path) => {
            let fail = |error| Failure::new(Kind::State, format!("{}: {error}", path.display()));
            let folder = DevnetFolder::open(path).map_err(fail)?;
            Some(devnet::descriptor(&folder, path, arguments.speed, arguments.nodes)?)
        }
    };
    let store = Store::open(&state.folder())?;
    let mut rng = StdRng::try_from_rng(&mut SysRng)
        .map_err(|error| Failure::new(Kind::Internal, format!("no randomness: {error}")))?;
    let identity = store.identity(&mut rng)?;
    store.bind(&identity.node())?;
    if let Some(descriptor) = descriptor {
        store.pin_network(&descriptor)?;
    }
    if let Some(folder) = config.parent() {
        fs::create_dir_all(folder)
            .map_err(|error| Failure::new(Kind::State, format!("{}: {error}", folder.display())))?;
    }
    write_whole(&config, text.0.as_bytes())
        .map_err(|error| Failure::new(Kind::State, format!("{}: {error}", config.display())))?;

    let onion = OnionAddress::of(identity.node())
        .map_err(|error| Failure::new(Kind::Internal, format!("identity: {error}")))?
        .to_string();
    if json {
        return say_json(&Made { onion, config });
    }
    say(&format!("this node is {onion}"))?;
    say(&format!("its configuration is {}", config.display()))?;
    let as_root = if rustix::process::geteuid().is_root() { " --as-root" } else { "" };
    say(&format!("start it with: fog run{as_root} --state-dir {}", state.folder().display()))?;
    if as_root.is_empty() { Ok(()) } else { say("better: make it again as a user of its own") }
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

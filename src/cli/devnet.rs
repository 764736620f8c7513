//! `fog devnet`: a whole network in one process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use keys::Identity;
use mail::Mailbox;
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use record::{Admission, Descriptor, Domains, Parameters};
use serde::Serialize;

use super::{Interrupted, say, say_json};
use crate::clock::Clock;
use crate::driver::{Node, Settings};
use crate::failure::{Failure, Kind};
use crate::net::connect::{Connector, DevnetFolder};
use crate::smtp::Target;
use crate::store::Store;

pub(super) const DEFAULT_SPEED: u32 = 100;

#[derive(Args)]
pub(super) struct Arguments {
    /// Number of nodes; routes need at least 4.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(4..=64))]
    nodes: u16,
    /// SMTP port of the first node; the others follow.
    #[arg(long, default_value_t = 2525)]
    smtp_port: u16,
    /// Where mail goes: maildir:DIR or smtp://ADDRESS:PORT [default: maildir:STATE-DIR/mail].
    #[arg(long, value_name = "TARGET")]
    deliver: Option<Target>,
    /// What all times of the network are divided by.
    #[arg(long, default_value_t = DEFAULT_SPEED, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    speed: u32,
    /// State of the nodes, in n1, n2, ... [default: a new temporary folder].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, json: bool) -> Result<(), Failure> {
    let last = arguments.smtp_port.checked_add(arguments.nodes - 1).ok_or_else(|| {
        Failure::new(Kind::Usage, format!("no room for {} ports", arguments.nodes))
            .remedy("choose a lower --smtp-port")
    })?;
    let state = state_folder(arguments.state_dir)?;
    let clock = Clock::start();
    let path = state.join("devnet");
    let folder = DevnetFolder::open(&path)
        .map_err(|error| Failure::new(Kind::State, format!("{}: {error}", path.display())))?;
    let descriptor = descriptor(&folder, &path, Some(arguments.speed), arguments.nodes)?;
    if descriptor.parameters().first_view != arguments.nodes {
        return Err(Failure::new(
            Kind::State,
            format!("{}: the devnet was made for another speed or number of nodes", path.display()),
        )
        .remedy("repeat the options it was made with, or use another --state-dir"));
    }
    let target = arguments.deliver.unwrap_or_else(|| Target::Maildir(state.join("mail")));
    if !json {
        say(&format!("devnet state in {}", state.display()))?;
    }

    let mut interrupted = Interrupted::new()?;
    let mut nodes: Vec<Node> = Vec::new();
    for (number, port) in (1..).zip(arguments.smtp_port..=last) {
        let settings = Settings {
            store: Store::open(&state.join(format!("n{number}")))?,
            descriptor: descriptor.clone(),
            connector: Connector::Devnet(folder.clone()),
            bootstrap: nodes.first().map(|first| first.onion).into_iter().collect(),
            contact: String::new(),
            family: Vec::new(),
            smtp: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            deliver: Some(target.clone()),
            domains: Domains::Any,
            anonymous: Mailbox::parse("anonymous@fog.invalid")
                .map_err(|error| Failure::new(Kind::Internal, error))?,
        };
        let started = tokio::select! {
            started = Node::start(settings, clock) => started,
            () = interrupted.wait() => {
                stop(nodes).await;
                return Ok(());
            }
        };
        match started {
            Ok(node) => nodes.push(node),
            Err(failure) => {
                stop(nodes).await;
                return Err(failure);
            }
        }
    }
    tokio::select! {
        () = all_know_all(&mut nodes) => announce(&state, &nodes, arguments.smtp_port, last, &target, json)?,
        () = interrupted.wait() => {
            stop(nodes).await;
            return Ok(());
        }
    }
    interrupted.wait().await;
    stop(nodes).await;
    if json { Ok(()) } else { say("devnet stopped") }
}

async fn all_know_all(nodes: &mut [Node]) {
    let count = nodes.len();
    for node in nodes {
        // An error means that the node has ended, which only a stop makes it do.
        let _ = node.progress.wait_for(|(known, _)| *known == count).await;
    }
}

#[derive(Serialize)]
struct Ready {
    state: PathBuf,
    nodes: Vec<ReadyNode>,
    deliver: String,
}

#[derive(Serialize)]
struct ReadyNode {
    onion: String,
    smtp: String,
}

fn announce(
    state: &Path,
    nodes: &[Node],
    first: u16,
    last: u16,
    target: &Target,
    json: bool,
) -> Result<(), Failure> {
    if json {
        let ready =
            |node: &Node| ReadyNode { onion: node.onion.to_string(), smtp: node.smtp.to_string() };
        let nodes = nodes.iter().map(ready).collect();
        return say_json(&Ready { state: state.to_owned(), nodes, deliver: target.to_string() });
    }
    let count = nodes.len();
    say(&format!(
        "devnet ready: {count} nodes, SMTP on 127.0.0.1:{first}-{last}, mail goes to {target}"
    ))?;
    say(&format!(
        "try: swaks --server 127.0.0.1:{first} --to you@example.org --body 'through the fog'"
    ))
}

async fn stop(nodes: Vec<Node>) {
    let stopping: Vec<_> = nodes.into_iter().map(|node| tokio::spawn(node.stop())).collect();
    for node in stopping {
        if let Ok(Err(failure)) = node.await {
            tracing::error!(%failure, "a node had ended");
        }
    }
}

fn state_folder(wanted: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let Some(folder) = wanted else {
        // Made anew under a random name, for nobody else to read.
        let made = tempfile::Builder::new().prefix("fog-devnet-").tempdir();
        let made =
            made.map_err(|error| Failure::new(Kind::State, format!("temporary folder: {error}")))?;
        return Ok(made.keep());
    };
    let folder = std::path::absolute(folder)
        .map_err(|error| Failure::new(Kind::State, format!("--state-dir: {error}")))?;
    fs::create_dir_all(&folder)
        .map_err(|error| Failure::new(Kind::State, format!("{}: {error}", folder.display())))?;
    Ok(folder)
}

/// The descriptor of a devnet: the one that was made for this folder before, or a new one. `speed` and
/// `nodes` must be those it was made with; without a speed any is taken.
pub(super) fn descriptor(
    folder: &DevnetFolder,
    path: &Path,
    speed: Option<u32>,
    nodes: u16,
) -> Result<Descriptor, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::State, format!("{}: {error}", path.display()))
    };
    match folder.descriptor().map_err(|error| fail(&error))? {
        Some(known) => {
            let first_view = known.parameters().first_view;
            let other = |speed| *known.parameters() != Parameters::scaled(speed, first_view);
            if speed.is_some_and(other) {
                return Err(fail(&"the devnet was made for another speed or number of nodes")
                    .remedy("repeat the options it was made with, or use another folder"));
            }
            Ok(known)
        }
        None => {
            let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(|error| fail(&error))?;
            let maker = Identity::generate(&mut rng);
            let parameters = Parameters::scaled(speed.unwrap_or(DEFAULT_SPEED), nodes);
            let now = Clock::start().now();
            let made = Descriptor::create(&maker, "devnet", now, &parameters, &Admission::Open)
                .map_err(|error| fail(&error))?;
            folder.found(&made).map_err(|error| fail(&error))?;
            Ok(made)
        }
    }
}

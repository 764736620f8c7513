//! `fog devnet`: a whole network in one process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use keys::{Identity, NodeId};
use mail::Mailbox;
use record::{Admission, Descriptor, Domains, Parameters};
use serde::Serialize;

use super::{Interrupted, generator, open_store, say, say_json};
use crate::clock::Clock;
use crate::descriptors;
use crate::driver::{Carrier, Node, Settings};
use crate::exit::{ExitSettings, Target};
use crate::failure::{Failure, FailureKind};
use crate::net::connect::DevnetFolder;
use crate::net::tor::control::ControlAddress;
use crate::net::tor::private::{PrivateClient, PrivateTor};
use crate::net::tor::{Mode, SMTP_PORT, Tor, TorSettings};
use crate::net::{LinkLog, Loss, Trial};
use crate::startup::Startup;
use crate::store::Store;

pub(super) const DEFAULT_SPEED: u32 = 100;
/// Nodes that vote, the first ones; a network of one node has one voter.
const VOTERS: usize = 3;
/// A route has three hops beside the node that takes the mail.
const MIN_NODES: u16 = 4;

#[derive(Args)]
pub(super) struct Arguments {
    /// Run this many nodes; routes need at least 4. With --tor, 0 runs the Tor network alone, for
    /// nodes in processes of their own.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(0..=64))]
    nodes: u16,
    /// Put each node behind an onion service, in a private Tor network on this machine. Needs tor.
    #[arg(long)]
    tor: bool,
    /// Spread the nodes evenly over this many Tors.
    #[arg(long, requires = "tor", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    tors: u16,
    /// SMTP port of the first node; the other nodes take the ports after it.
    #[arg(long, default_value_t = 2525)]
    smtp_port: u16,
    /// Deliver mail to maildir:DIR or smtp://ADDRESS:PORT [default: maildir:STATE-DIR/mail].
    #[arg(long, value_name = "TARGET")]
    deliver: Option<Target>,
    /// Let each node deliver into a Maildir of its own: n1, n2, ... in STATE-DIR/mail.
    #[arg(long, conflicts_with = "deliver")]
    mail_apart: bool,
    /// Divide all times of the network by this.
    #[arg(long, default_value_t = DEFAULT_SPEED, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    speed: u32,
    /// Keep the state of the nodes here, in n1, n2, ... [default: a new temporary folder].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Send no cover: nodes are idle while nobody mails.
    #[arg(long)]
    no_cover: bool,
    /// Let every node lose this share of the packets that it takes, such as 0.02.
    #[arg(long, value_name = "SHARE", conflicts_with = "tor", value_parser = share)]
    lose: Option<f64>,
    /// Let the packets that are lost follow from this number.
    #[arg(long, requires = "lose", default_value_t = 0)]
    seed: u64,
    /// Write down what each link carries, a line for each packet and receipt: milliseconds, from, to,
    /// octets; the octets of a decoy that one submits to the other follow the word `decoy`.
    #[arg(long, value_name = "FILE", conflicts_with = "tor")]
    link_log: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share lies between 0 and 1".to_owned())
}

impl Arguments {
    /// What the links are put to.
    fn trial(&self) -> Result<Trial, Failure> {
        let create = |path: &PathBuf| {
            LinkLog::create(path).map_err(|error| {
                Failure::new(FailureKind::Usage, format!("--link-log: {}: {error}", path.display()))
            })
        };
        Ok(Trial {
            loss: self.lose.map(|share| Loss { share, seed: self.seed }),
            link_log: self.link_log.as_ref().map(create).transpose()?,
        })
    }
}

pub(super) async fn run(arguments: Arguments, json: bool) -> Result<(), Failure> {
    let only_tor = arguments.tor && arguments.nodes == 0;
    if arguments.nodes < MIN_NODES && !only_tor {
        return Err(Failure::new(FailureKind::Usage, "--nodes: routes need at least 4 nodes")
            .remedy("say 4..=64; 0 goes with --tor"));
    }
    let ports = arguments.nodes.saturating_sub(1);
    let last = arguments.smtp_port.checked_add(ports).ok_or_else(|| {
        Failure::new(FailureKind::Usage, format!("no room for {} ports", arguments.nodes))
            .remedy("choose a lower --smtp-port")
    })?;
    descriptors::raise();
    let state = state_folder(arguments.state_dir.clone())?;
    if !json {
        say(&format!("devnet state in {}", state.display()))?;
    }
    let mut interrupted = Interrupted::new()?;
    let tor = match arguments.tor {
        false => None,
        true => {
            if !json {
                say("starting a private Tor network; this takes half a minute")?;
            }
            let (folder, mut rng) = (state.join("tor-network"), generator()?);
            let started = PrivateTor::start(&folder, arguments.tors, &mut rng);
            tokio::select! {
                started = started => Some(started?),
                () = interrupted.wait() => return Ok(()),
            }
        }
    };
    let mut nodes = Vec::new();
    let result = if only_tor {
        announce_tor(&state, tor.as_ref(), json)
    } else {
        let running = start(&arguments, &state, tor.as_ref(), last, &mut nodes, json);
        tokio::select! {
            running = running => running,
            () = interrupted.wait() => {
                stop(nodes, tor).await;
                return Ok(());
            }
        }
    };
    if result.is_ok() {
        interrupted.wait().await;
    }
    stop(nodes, tor).await;
    result?;
    if json { Ok(()) } else { say("devnet stopped") }
}

/// Starts the nodes, one after the other, and waits until each knows all the others.
async fn start(
    arguments: &Arguments,
    state: &Path,
    tor: Option<&PrivateTor>,
    last: u16,
    nodes: &mut Vec<Node>,
    json: bool,
) -> Result<(), Failure> {
    let clock = Clock::start();
    let path = state.join("devnet");
    let folder = DevnetFolder::open(&path).map_err(|error| {
        Failure::new(FailureKind::State, format!("{}: {error}", path.display()))
    })?;
    let folder = folder.on_trial(arguments.trial()?);
    let stores: Result<Vec<_>, _> =
        (1..=arguments.nodes).map(|number| open_store(&state.join(format!("n{number}")))).collect();
    let stores = stores?;
    let mut voters = Vec::new();
    for store in stores.iter().take(VOTERS) {
        voters.push(store.identity(&mut generator()?)?.node());
    }
    let wanted = Wanted {
        speed: Some(arguments.speed),
        nodes: arguments.nodes,
        is_quiet: arguments.no_cover,
    };
    let descriptor = descriptor(&folder, &path, &wanted, &voters)?;
    if descriptor.parameters().lists.first != arguments.nodes {
        return Err(Failure::new(
            FailureKind::State,
            format!("{}: the devnet was made for another number of nodes", path.display()),
        )
        .remedy("repeat the options it was made with, or use another --state-dir"));
    }
    let target = arguments.deliver.clone();
    let target = target.unwrap_or_else(|| Target::Maildir(state.join("mail")));
    let mut tors = tor.map(|tor| tor.clients().iter().cycle());
    for (number, store) in stores.into_iter().enumerate() {
        let port = arguments.smtp_port.saturating_add(u16::try_from(number).unwrap_or(u16::MAX));
        let apart = || Target::Maildir(state.join("mail").join(format!("n{}", number + 1)));
        let target = if arguments.mail_apart { apart() } else { target.clone() };
        let carrier = match tors.as_mut().and_then(Iterator::next) {
            None => Carrier::Devnet(folder.clone()),
            Some(client) => Carrier::Tor(use_tor(&store, client, clock).await?),
        };
        let settings = Settings {
            store,
            descriptor: descriptor.clone(),
            carrier,
            bootstrap: nodes.first().map(|first: &Node| first.onion).into_iter().collect(),
            contact: String::new(),
            family: Vec::new(),
            smtp: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            exit: Some(ExitSettings {
                target,
                domains: Domains::Any,
                anonymous: Mailbox::parse("anonymous@fog.invalid")
                    .map_err(|error| Failure::new(FailureKind::Internal, error))?,
            }),
            desk: None,
        };
        nodes.push(Node::start(settings, clock).await?);
    }
    all_know_all(nodes).await;
    announce(state, nodes, tor, (arguments.smtp_port, last), &target, json)
}

async fn use_tor(store: &Store, client: &PrivateClient, clock: Clock) -> Result<Tor, Failure> {
    let mut rng = generator()?;
    let node = store.identity(&mut rng)?.node();
    let settings = TorSettings {
        mode: Mode::Running,
        control: Some(ControlAddress::Tcp(client.control)),
        socks: None,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    };
    let folder = store.folder().join("tor");
    Tor::start(settings, folder, node, clock, rng, &Startup::default()).await
}

async fn all_know_all(nodes: &mut [Node]) {
    let count = nodes.len();
    for node in nodes {
        // An error means that the node has ended, and only a stop ends it.
        let _ = node.progress.wait_for(|progress| progress.view == count).await;
    }
}

#[derive(Serialize)]
struct Ready {
    state: PathBuf,
    nodes: Vec<ReadyNode>,
    deliver: Option<String>,
    tor: Vec<ReadyTor>,
}

#[derive(Serialize)]
struct ReadyTor {
    socks: SocketAddr,
    control: SocketAddr,
    folder: PathBuf,
    process: Option<u32>,
}

fn ready_tors(tor: Option<&PrivateTor>) -> Vec<ReadyTor> {
    let clients = tor.map(PrivateTor::clients).unwrap_or_default();
    let ready = |client: &PrivateClient| ReadyTor {
        socks: client.socks,
        control: client.control,
        folder: client.folder.clone(),
        process: client.id(),
    };
    clients.iter().map(ready).collect()
}

fn announce_tor(state: &Path, tor: Option<&PrivateTor>, json: bool) -> Result<(), Failure> {
    let tors = ready_tors(tor);
    if json {
        let state = state.to_owned();
        return say_json(&Ready { state, nodes: Vec::new(), deliver: None, tor: tors });
    }
    for tor in &tors {
        say(&format!("a Tor with SOCKS on {} and control port {}", tor.socks, tor.control))?;
    }
    say("private Tor network ready; nodes use it with: fog init --tor-control ADDRESS:PORT")
}

#[derive(Serialize)]
struct ReadyNode {
    onion: String,
    smtp: String,
}

fn announce(
    state: &Path,
    nodes: &[Node],
    tor: Option<&PrivateTor>,
    (first, last): (u16, u16),
    target: &Target,
    json: bool,
) -> Result<(), Failure> {
    let tors = ready_tors(tor);
    if json {
        let ready =
            |node: &Node| ReadyNode { onion: node.onion.to_string(), smtp: node.smtp.to_string() };
        let nodes = nodes.iter().map(ready).collect();
        let (state, deliver) = (state.to_owned(), Some(target.to_string()));
        return say_json(&Ready { state, nodes, deliver, tor: tors });
    }
    let count = nodes.len();
    say(&format!(
        "devnet ready: {count} nodes, SMTP on 127.0.0.1:{first}-{last}, mail goes to {target}"
    ))?;
    if let (Some(tor), Some(node)) = (tors.first(), nodes.last()) {
        return say(&format!(
            "try: torsocks -P {} swaks --server {} --port {SMTP_PORT} --to you@example.org \
             --body 'through the fog'",
            tor.socks.port(),
            node.onion
        ));
    }
    say(&format!(
        "try: swaks --server 127.0.0.1:{first} --to you@example.org --body 'through the fog'"
    ))
}

async fn stop(nodes: Vec<Node>, tor: Option<PrivateTor>) {
    let stopping: Vec<_> = nodes.into_iter().map(|node| tokio::spawn(node.stop())).collect();
    for node in stopping {
        if let Ok(Err(failure)) = node.await {
            tracing::error!(%failure, "a node had ended");
        }
    }
    if let Some(tor) = tor {
        tor.stop().await;
    }
}

fn state_folder(wanted: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let Some(folder) = wanted else {
        // A new folder with a random name, which other users cannot read.
        let made = tempfile::Builder::new().prefix("fog-devnet-").tempdir();
        let made = made.map_err(|error| {
            Failure::new(FailureKind::State, format!("temporary folder: {error}"))
        })?;
        return Ok(made.keep());
    };
    let folder = std::path::absolute(folder)
        .map_err(|error| Failure::new(FailureKind::State, format!("--state-dir: {error}")))?;
    fs::create_dir_all(&folder).map_err(|error| {
        Failure::new(FailureKind::State, format!("{}: {error}", folder.display()))
    })?;
    Ok(folder)
}

/// Whether a network was made with this speed.
pub(super) fn made_for(network: &Descriptor, speed: u32) -> bool {
    let lists = &network.parameters().lists;
    let parameters = test_parameters(speed, lists.first, network.parameters().sending.cover == 0);
    *network.parameters() == parameters.with_probation(lists.relay_probation, lists.exit_probation)
}

/// What a devnet is to be like.
pub(super) struct Wanted {
    /// What its times are divided by; without it, any devnet that is there will do.
    pub(super) speed: Option<u32>,
    /// With how many nodes the first list is voted.
    pub(super) nodes: u16,
    /// Whether there is no cover in it.
    pub(super) is_quiet: bool,
}

/// The parameters of a test network.
pub(super) fn test_parameters(speed: u32, nodes: u16, is_quiet: bool) -> Parameters {
    let parameters = Parameters::scaled(speed, nodes);
    if is_quiet { parameters.quiet() } else { parameters }
}

/// The descriptor of a devnet: the one that was made for this folder before, or a new one with
/// these voters. `speed` must be the one it was made with; without it any is accepted.
pub(super) fn descriptor(
    folder: &DevnetFolder,
    path: &Path,
    wanted: &Wanted,
    voters: &[NodeId],
) -> Result<Descriptor, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::State, format!("{}: {error}", path.display()))
    };
    match folder.descriptor().map_err(|error| fail(&error))? {
        Some(known) => {
            let other = |speed| !made_for(&known, speed);
            if wanted.speed.is_some_and(other) {
                return Err(fail(&"the devnet was made for another speed")
                    .remedy("repeat the options it was made with, or use another folder"));
            }
            // Whoever says how fast it is says all that it is to be like.
            let is_quiet = known.parameters().sending.cover == 0;
            if wanted.is_quiet != is_quiet && (wanted.is_quiet || wanted.speed.is_some()) {
                let with = if is_quiet { "without" } else { "with" };
                return Err(fail(&format!("the devnet was made {with} cover"))
                    .remedy("repeat the options it was made with, or use another folder"));
            }
            Ok(known)
        }
        None => {
            let maker = Identity::generate(&mut generator()?);
            let speed = wanted.speed.unwrap_or(DEFAULT_SPEED);
            let parameters = test_parameters(speed, wanted.nodes, wanted.is_quiet);
            let now = Clock::start().now();
            let rule = Admission::Open;
            let made = Descriptor::create(&maker, "devnet", now, &parameters, voters, &rule)
                .map_err(|error| fail(&error))?;
            folder.found(&made).map_err(|error| fail(&error))?;
            Ok(made)
        }
    }
}

//! `fog run`: one node.

use clap::Args;
use keys::OnionAddress;
use record::Descriptor;
use remailer::Invite;
use serde::Serialize;

use super::{Interrupted, State, generator, log, open_store, say, say_json};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::Desk;
use crate::descriptors;
use crate::driver::{Carrier, Node, Settings};
use crate::exit::ExitSettings;
use crate::failure::{Failure, FailureKind};
use crate::files::write_whole;
use crate::net::connect::{Connector, DevnetFolder};
use crate::net::fetch_descriptor;
use crate::net::tor::Tor;
use crate::startup::{Awaited, Startup};
use crate::store::{List, Store};

#[derive(Args)]
pub(super) struct Arguments {
    /// Join through the node at this onion address, beside those of the configuration; may be
    /// given several times. Not needed once the network has been joined.
    #[arg(long, value_name = "ONION")]
    bootstrap: Vec<OnionAddress>,
    /// Run as root all the same.
    #[arg(long)]
    as_root: bool,
}

#[derive(Args)]
pub(super) struct Joining {
    /// The string printed by `fog invite`.
    invite: String,
    /// Run as root all the same.
    #[arg(long)]
    as_root: bool,
}

/// `fog join`: like `fog run` with the inviter as bootstrap; the token is kept until the node has
/// shown it.
pub(super) async fn join(state: State, arguments: Joining, json: bool) -> Result<(), Failure> {
    let invite: Invite = arguments.invite.parse().map_err(|error| {
        Failure::new(FailureKind::Usage, error).remedy("repeat what fog invite printed")
    })?;
    let bootstrap = vec![invite.inviter];
    {
        let store = open_store(&state.folder())?;
        store.keep_list(List::Invite, &[invite])?;
    }
    run(state, Arguments { bootstrap, as_root: arguments.as_root }, json).await
}

#[derive(Serialize)]
struct Running {
    onion: String,
    smtp: String,
    network: String,
}

pub(super) async fn run(state: State, arguments: Arguments, json: bool) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() && !arguments.as_root {
        return Err(Failure::new(FailureKind::Usage, "a node should not run as root")
            .remedy("run it as a user of its own, or say --as-root"));
    }
    descriptors::check(descriptors::raise())?;
    let (mut config, store) = read_config(&state, &arguments.bootstrap)?;
    log::set_level(config.level);
    config.bootstrap.extend(arguments.bootstrap);
    config.bootstrap.sort();
    config.bootstrap.dedup();
    let mut interrupted = Interrupted::new()?;
    let started = tokio::select! {
        started = start(&state, config, store) => started?,
        () = interrupted.wait() => return Ok(()),
    };
    let (mut node, network) = started;
    let (onion, smtp) = (node.onion.to_string(), node.smtp.to_string());
    let said = if json {
        say_json(&Running { onion, smtp, network })
    } else {
        say(&format!("running: {onion}, SMTP on {smtp}"))
    };
    if said.is_ok() {
        tokio::select! {
            () = interrupted.wait() => {}
            () = node.ended() => {}
        }
    }
    node.stop().await.and(said)
}

/// Reads the configuration. A node that joins with an address alone needs no file: one is written
/// into the state folder, which is opened for that.
fn read_config(
    state: &State,
    bootstrap: &[OnionAddress],
) -> Result<(Config, Option<Store>), Failure> {
    let file = state.config_file();
    if state.config.is_some() || file.exists() || bootstrap.is_empty() {
        return Ok((Config::read(&file)?, None));
    }
    let store = open_store(&state.folder())?;
    let bootstrap: Vec<_> = bootstrap.iter().map(ToString::to_string).collect();
    let text = format!("[network]\nbootstrap = {}\n", toml::Value::from(bootstrap));
    write_whole(&file, text.as_bytes()).map_err(|error| {
        Failure::new(FailureKind::State, format!("{}: {error}", file.display()))
    })?;
    Ok((Config::read(&file)?, Some(store)))
}

async fn start(
    state: &State,
    config: Config,
    store: Option<Store>,
) -> Result<(Node, String), Failure> {
    let clock = Clock::start();
    let open = || store.map_or_else(|| open_store(&state.folder()), Ok);
    let (carrier, descriptor, store, desk) = match config.devnet.clone() {
        Some(path) => {
            let fail =
                |error| Failure::new(FailureKind::State, format!("{}: {error}", path.display()));
            let folder = DevnetFolder::open(&path).map_err(fail)?;
            let descriptor = folder.descriptor().map_err(fail)?.ok_or_else(|| {
                Failure::new(
                    FailureKind::Network,
                    format!("{}: there is no devnet yet", path.display()),
                )
                .remedy(format!("make one with: fog init --devnet {}", path.display()))
            })?;
            check_network(&config, &descriptor)?;
            let store = open()?;
            let desk = Desk::open(store.folder(), clock)?;
            (Carrier::Devnet(folder), descriptor, store, desk)
        }
        None => {
            let store = open()?;
            let desk = Desk::open(store.folder(), clock)?;
            let (tor, descriptor) = enter(&store, &config, clock, desk.startup()).await?;
            (Carrier::Tor(tor), descriptor, store, desk)
        }
    };
    let network = descriptor.id().to_string();
    let settings = Settings {
        store,
        descriptor,
        carrier,
        bootstrap: config.bootstrap,
        contact: config.contact,
        family: config.family.iter().map(OnionAddress::node).collect(),
        smtp: config.listen,
        exit: config.deliver.map(|target| ExitSettings {
            target,
            domains: config.domains,
            anonymous: config.from,
        }),
        desk: Some(desk),
    };
    Ok((Node::start(settings, clock).await?, network))
}

/// Gets a Tor and the network's descriptor, which is the pinned one or comes from a bootstrap.
async fn enter(
    store: &Store,
    config: &Config,
    clock: Clock,
    startup: &Startup,
) -> Result<(Tor, Descriptor), Failure> {
    let mut rng = generator()?;
    let pinned = store.network()?;
    if pinned.is_none() && config.bootstrap.is_empty() {
        return Err(Failure::new(FailureKind::Usage, "no network to join")
            .remedy("name a node of it with --bootstrap, or make one with: fog network new"));
    }
    if let Some(pinned) = &pinned {
        check_network(config, pinned)?;
    }
    let identity = store.identity(&mut rng)?;
    store.bind(&identity.node())?;
    let folder = store.folder().join("tor");
    let own_rng = rng;
    let node = identity.node();
    let tor = Tor::start(config.tor.clone(), folder, node, clock, own_rng, startup).await?;
    let descriptor = match pinned {
        Some(pinned) => pinned,
        None => {
            startup.set(Awaited::Network);
            tracing::info!("asking a bootstrap for its network");
            let connector = Connector::Tor(tor.connector());
            let check = |descriptor: &Descriptor| check_network(config, descriptor);
            fetch_descriptor(connector, &config.bootstrap, check, &mut rng).await?
        }
    };
    Ok((tor, descriptor))
}

fn check_network(config: &Config, descriptor: &Descriptor) -> Result<(), Failure> {
    let id = descriptor.id().to_string();
    if config.network.as_ref().is_some_and(|wanted| *wanted != id) {
        return Err(Failure::new(
            FailureKind::Network,
            format!("network.id: this network is {id}"),
        )
        .remedy("correct network.id, or join the network it names"));
    }
    if config.speed.is_some_and(|speed| !super::devnet::made_for(descriptor, speed)) {
        return Err(Failure::new(
            FailureKind::Network,
            "network.speed: not what this network was made with",
        )
        .remedy("remove network.speed: the network's descriptor says it"));
    }
    Ok(())
}

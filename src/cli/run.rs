//! `fog run`: one node.

use clap::Args;
use record::Descriptor;
use serde::Serialize;

use super::{Interrupted, State, log, say, say_json};
use crate::clock::Clock;
use crate::config::Config;
use crate::driver::{Node, Settings};
use crate::failure::{Failure, Kind};
use crate::net::connect::{Connector, DevnetFolder};
use crate::store::Store;

#[derive(Args)]
pub(super) struct Arguments {
    /// Run as root all the same.
    #[arg(long)]
    as_root: bool,
}

#[derive(Serialize)]
struct Running {
    onion: String,
    smtp: String,
}

pub(super) async fn run(state: State, arguments: Arguments, json: bool) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() && !arguments.as_root {
        return Err(Failure::new(Kind::Usage, "a node should not run as root")
            .remedy("run it as a user of its own, or say --as-root"));
    }
    let config = Config::read(&state.config_file())?;
    log::set_level(config.level);
    let path = config.devnet.clone().ok_or_else(|| {
        Failure::new(Kind::Usage, "no network to join: links through Tor are not built yet")
            .remedy("set network.devnet, or try: fog devnet")
    })?;
    let fail = |error| Failure::new(Kind::State, format!("{}: {error}", path.display()));
    let folder = DevnetFolder::open(&path).map_err(fail)?;
    let descriptor = folder.descriptor().map_err(fail)?.ok_or_else(|| {
        Failure::new(Kind::Network, format!("{}: there is no devnet yet", path.display()))
            .remedy(format!("make one with: fog init --devnet {}", path.display()))
    })?;
    check_network(&config, &descriptor)?;

    let mut interrupted = Interrupted::new()?;
    let settings = Settings {
        store: Store::open(&state.folder())?,
        descriptor,
        connector: Connector::Devnet(folder),
        bootstrap: config.bootstrap,
        contact: config.contact,
        family: config.family.iter().map(keys::OnionAddress::node).collect(),
        smtp: config.listen,
        deliver: config.deliver,
        domains: config.domains,
        anonymous: config.from,
    };
    let mut node = Node::start(settings, Clock::start()).await?;
    let (onion, smtp) = (node.onion.to_string(), node.smtp.to_string());
    if json {
        say_json(&Running { onion, smtp })?;
    } else {
        say(&format!("running: {onion}, SMTP on {smtp}"))?;
    }
    tokio::select! {
        () = interrupted.wait() => {}
        () = node.ended() => {}
    }
    node.stop().await
}

fn check_network(config: &Config, descriptor: &Descriptor) -> Result<(), Failure> {
    let id = descriptor.id().to_string();
    if config.network.as_ref().is_some_and(|wanted| *wanted != id) {
        return Err(Failure::new(Kind::Network, format!("network.id: this network is {id}"))
            .remedy("correct network.id, or join the network it names"));
    }
    let made_for = |speed| {
        let first_view = descriptor.parameters().first_view;
        *descriptor.parameters() == record::Parameters::scaled(speed, first_view)
    };
    if config.speed.is_some_and(|speed| !made_for(speed)) {
        return Err(Failure::new(
            Kind::Network,
            "network.speed: not what this network was made with",
        )
        .remedy("remove network.speed: the network's descriptor says it"));
    }
    Ok(())
}

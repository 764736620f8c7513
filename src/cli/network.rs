//! `fog network new`: the descriptor of a network to be started.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keys::{Identity, OnionAddress};
use record::{Admission, Descriptor, MAX_DESCRIPTOR, Parameters};
use serde::Serialize;

use super::{generator, open_store, say, say_json};
use crate::clock::Clock;
use crate::failure::{Failure, FailureKind};
use crate::files::write_whole;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Make a network: a signed file with its name and all parameters of its protocols.
    New {
        /// Write the descriptor to this file.
        file: PathBuf,
        /// Name of the network.
        #[arg(long)]
        name: String,
        /// Divide all times of the network by this; a network that is to hide anybody needs 1.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        speed: u32,
        /// Take the first view as soon as this many nodes are known, not on the hour (tests).
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
        nodes: u16,
        /// Begin chains of vouches with this node; may be given several times. Without any root,
        /// routes go through every node, whoever runs it.
        #[arg(long, value_name = "ONION")]
        root: Vec<OnionAddress>,
        /// Same as --root, for the node of this state folder; it gets an address if it has none.
        #[arg(long, value_name = "STATE-DIR")]
        root_of: Vec<PathBuf>,
        /// Limit chains of vouches to this length.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
        depth: u8,
        /// Let each node vouch for at most this many others.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
        fan_out: u16,
    },
}

#[derive(Serialize)]
struct Made {
    network: String,
    file: PathBuf,
}

pub(super) fn run(arguments: Arguments, json: bool) -> Result<(), Failure> {
    let Order::New { file, name, speed, nodes, root, root_of, depth, fan_out } = arguments.order;
    if file.exists() {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("{} is there already", file.display()),
        )
        .remedy("a network's descriptor is never changed; choose another name"));
    }
    // This key signs only once: a network is named by the hash of its descriptor.
    let maker = Identity::generate(&mut generator()?);
    let parameters = Parameters::scaled(speed, nodes);
    let now = Clock::start().now();
    let mut roots: Vec<_> = root.iter().map(OnionAddress::node).collect();
    for folder in &root_of {
        let store = open_store(folder)?;
        let identity = store.identity(&mut generator()?)?;
        store.bind(&identity.node())?;
        roots.push(identity.node());
    }
    roots.sort_unstable();
    roots.dedup();
    let is_open = roots.is_empty();
    let admission =
        if is_open { Admission::Open } else { Admission::Vouched { roots, depth, fan_out } };
    let made = Descriptor::create(&maker, &name, now, &parameters, &admission)
        .map_err(|error| Failure::new(FailureKind::Usage, format!("--name or --root: {error}")))?;
    write_whole(&file, made.octets()).map_err(|error| {
        Failure::new(FailureKind::State, format!("{}: {error}", file.display()))
    })?;
    let network = made.id().to_string();
    if json {
        return say_json(&Made { network, file });
    }
    say(&format!("network {network}"))?;
    if is_open {
        say(
            "everybody is routed through in it: one adversary can run most of its nodes. See --root",
        )?;
    }
    say(&format!("its first node begins with: fog init --network {}", file.display()))
}

/// Reads a descriptor from a file.
pub(super) fn read(file: &Path) -> Result<Descriptor, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Usage, format!("{}: {error}", file.display()))
            .remedy("make one with: fog network new")
    };
    let length = std::fs::metadata(file).map_err(|error| fail(&error))?.len();
    if usize::try_from(length).unwrap_or(usize::MAX) > MAX_DESCRIPTOR {
        return Err(fail(&"longer than a network's descriptor"));
    }
    let octets = std::fs::read(file).map_err(|error| fail(&error))?;
    Descriptor::parse(&octets).map_err(|error| fail(&error))
}

//! `fog network new`: the descriptor of a network that is yet to be.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keys::Identity;
use record::{Admission, Descriptor, MAX_DESCRIPTOR, Parameters};
use serde::Serialize;

use super::{generator, say, say_json};
use crate::clock::Clock;
use crate::failure::{Failure, Kind};
use crate::store::write_whole;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Make a network: a signed file with its name and all parameters of its protocols.
    New {
        /// Where it is written.
        file: PathBuf,
        /// What it is called.
        #[arg(long)]
        name: String,
        /// What all times of the network are divided by; 1 for one that is to hide anybody.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        speed: u32,
        /// With so many nodes it takes its first view, instead of waiting for the hour; for tests.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
        nodes: u16,
    },
}

#[derive(Serialize)]
struct Made {
    network: String,
    file: PathBuf,
}

pub(super) fn run(arguments: Arguments, json: bool) -> Result<(), Failure> {
    let Order::New { file, name, speed, nodes } = arguments.order;
    if file.exists() {
        return Err(Failure::new(Kind::Usage, format!("{} is there already", file.display()))
            .remedy("a network's descriptor is never changed; choose another name"));
    }
    // It signs this once: a network is named by the hash of its descriptor.
    let maker = Identity::generate(&mut generator()?);
    let parameters = Parameters::scaled(speed, nodes);
    let now = Clock::start().now();
    let made = Descriptor::create(&maker, &name, now, &parameters, &Admission::Open)
        .map_err(|error| Failure::new(Kind::Usage, format!("--name: {error}")))?;
    write_whole(&file, made.octets())
        .map_err(|error| Failure::new(Kind::State, format!("{}: {error}", file.display())))?;
    let network = made.id().to_string();
    if json {
        return say_json(&Made { network, file });
    }
    say(&format!("network {network}"))?;
    say(&format!("its first node begins with: fog init --network {}", file.display()))
}

/// A descriptor from a file.
pub(super) fn read(file: &Path) -> Result<Descriptor, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Usage, format!("{}: {error}", file.display()))
            .remedy("make one with: fog network new")
    };
    let length = std::fs::metadata(file).map_err(|error| fail(&error))?.len();
    if usize::try_from(length).unwrap_or(usize::MAX) > MAX_DESCRIPTOR {
        return Err(fail(&"longer than a network's descriptor"));
    }
    let octets = std::fs::read(file).map_err(|error| fail(&error))?;
    Descriptor::parse(&octets).map_err(|error| fail(&error))
}

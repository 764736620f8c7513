//! `fog network new`: the descriptor of a network to be started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use directory::Route;
use keys::{Identity, NodeId, OnionAddress};
use record::{Admission, Descriptor, DescriptorError, MAX_DESCRIPTOR, PACES, Parameters};
use serde::Serialize;
use sphinx::SizeClass;

use super::{devnet, generator, open_store, say, say_json};
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
        /// Vote the first list as soon as this many nodes are known, not for the next hour (tests).
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
        nodes: u16,
        /// Send no cover: a packet means mail then, and the network hides little.
        #[arg(long)]
        no_cover: bool,
        /// How nodes mix.
        #[arg(long, value_enum, default_value_t = Mixes::Windows)]
        strategy: Mixes,
        /// Begin chains of vouches with this node; may be given several times. Without any root,
        /// routes go through every node, whoever runs it.
        #[arg(long, value_name = "ONION")]
        root: Vec<OnionAddress>,
        /// Same as --root, for the node of this state folder; it gets an address if it has none.
        #[arg(long, value_name = "STATE-DIR")]
        root_of: Vec<PathBuf>,
        /// Let this node vote: more than half of the voters decide in each hour through which nodes
        /// everybody's mail goes. May be given several times; without any, the roots vote.
        #[arg(long, value_name = "ONION")]
        voter: Vec<OnionAddress>,
        /// Same as --voter, for the node of this state folder; it gets an address if it has none.
        #[arg(long, value_name = "STATE-DIR")]
        voter_of: Vec<PathBuf>,
        /// Limit chains of vouches to this length.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
        depth: u8,
        /// Let each node vouch for at most this many others.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
        fan_out: u16,
    },
}

/// How nodes mix: the numbers are those of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mixes {
    /// In windows of 30 s, two packets of a class together at least.
    Windows = 0,
    /// Each packet leaves when its own delay is over.
    Continuous = 1,
    /// From a pool, of which a share leaves every 30 s.
    Pool = 2,
    /// In rounds that are the same everywhere, with dummies.
    LockStep = 3,
}

/// With fewer voters than this a warning is printed.
const FEW_VOTERS: usize = 3;

/// What a node sends in a day, and receives: its own packets and those that it passes on, which are as
/// many as others pass on for it. A packet takes as many links as its route has hops, and one that
/// returns as many again; in lock-step, a round has room for all of them and for dummies.
fn octets_a_day(parameters: &Parameters, pace: usize) -> u64 {
    let day = Duration::from_secs(24 * 3600);
    let gap = parameters.sending.gaps.get(pace).copied().unwrap_or(day);
    let (_, stage) = parameters.stage_at(if pace == 0 { 0 } else { u32::MAX });
    let sizes = SizeClass::all().map(|class| class.packet_len() as f64);
    let sizes = sizes.zip(stage.weights).map(|(octets, weight)| octets * f64::from(weight) / 100.0);
    let links = (Route::MIN + Route::MAX) as f64 / 2.0 * (1.0 + f64::from(stage.returning) / 100.0);
    let covered = f64::from(parameters.sending.cover) / 100.0;
    let ticks = |every: Duration| day.as_secs_f64() / every.as_secs_f64();
    let mixing = &parameters.mixing;
    let packets = match parameters.sending.gaps {
        [slowest, ..] if mixing.strategy == Mixes::LockStep as u8 => {
            let faster = slowest.as_secs_f64() / gap.as_secs_f64();
            ticks(mixing.window) * f64::from(mixing.floor) * faster
        }
        _ => ticks(gap) * links,
    };
    (packets * sizes.sum::<f64>() * covered) as u64
}

/// These nodes and those of these state folders, each once.
fn identities(onions: &[OnionAddress], folders: &[PathBuf]) -> Result<Vec<NodeId>, Failure> {
    let mut nodes: Vec<_> = onions.iter().map(OnionAddress::node).collect();
    for folder in folders {
        let store = open_store(folder)?;
        let identity = store.identity(&mut generator()?)?;
        store.bind(&identity.node())?;
        nodes.push(identity.node());
    }
    nodes.sort_unstable();
    nodes.dedup();
    Ok(nodes)
}

#[derive(Serialize)]
struct Made {
    network: String,
    file: PathBuf,
}

pub(super) fn run(arguments: Arguments, json: bool) -> Result<(), Failure> {
    let Order::New { file, name, speed, nodes, no_cover, depth, fan_out, .. } = &arguments.order;
    let Order::New { root, root_of, voter, voter_of, strategy, .. } = &arguments.order;
    if file.exists() {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("{} is there already", file.display()),
        )
        .remedy("a network's descriptor is never changed; choose another name"));
    }
    // This key signs only once: a network is named by the hash of its descriptor.
    let maker = Identity::generate(&mut generator()?);
    let now = Clock::start().now();
    let (roots, voters) = (identities(root, root_of)?, identities(voter, voter_of)?);
    let is_open = roots.is_empty();
    if is_open && voters.is_empty() {
        return Err(Failure::new(FailureKind::Usage, "an open network needs voters")
            .remedy("name some with --voter or --voter-of"));
    }
    let main = Parameters::main().lists;
    let parameters = devnet::test_parameters(*speed, *nodes, *no_cover);
    let parameters = parameters.with_strategy(*strategy as u8);
    let (parameters, admission) = match is_open {
        // No probation: whoever waits for its end is let in all the same.
        true => (parameters, Admission::Open),
        false => {
            let probation = (main.relay_probation, main.exit_probation);
            let rule = Admission::Vouched { roots, depth: *depth, fan_out: *fan_out };
            (parameters.with_probation(probation.0, probation.1), rule)
        }
    };
    let made = Descriptor::create(&maker, name, now, &parameters, &voters, &admission)
        .map_err(|error| Failure::new(FailureKind::Usage, format!("this network: {error}")))?;
    write_whole(file, made.octets()).map_err(|error| {
        Failure::new(FailureKind::State, format!("{}: {error}", file.display()))
    })?;
    let network = made.id().to_string();
    if json {
        return say_json(&Made { network, file: file.clone() });
    }
    say(&format!("network {network}"))?;
    let cost = |pace| octets_a_day(&parameters, pace) as f64 / 1e9;
    say(&format!(
        "a node sends and receives some {:.1} GB a day each, in a network with little mail; {:.1} GB \
         in one with much",
        cost(0),
        cost(PACES - 1)
    ))?;
    if *no_cover {
        say("it hides nobody: without cover a packet means mail")?;
    }
    if is_open {
        say(
            "it hides nobody: everybody is routed through in it, and one adversary can run most of \
             its nodes. See --root",
        )?;
    }
    if made.voters().len() < FEW_VOTERS {
        say(
            "whoever holds more than half of its voters decides through which nodes mail goes, and \
             without them it stops after six hours: name five or more of different operators",
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
    Descriptor::parse(&octets).map_err(|error| match error {
        DescriptorError::Statement(_) => fail(&error),
        DescriptorError::Parameter(_) | DescriptorError::Extension(_) => {
            Failure::new(FailureKind::Network, format!("{}: {error}", file.display()))
                .remedy("update this program, or name another network")
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_a_strategy_costs_is_what_its_nodes_send() {
        let cost = |strategy, pace| {
            octets_a_day(&Parameters::main().with_strategy(strategy), pace) as f64 / 24e6
        };
        // In MB an hour: the laboratory finds 101, and 201 in rounds.
        assert!((95.0..105.0).contains(&cost(0, 0)), "{}", cost(0, 0));
        assert!((160.0..205.0).contains(&cost(3, 0)), "{}", cost(3, 0));
        assert!(cost(3, PACES - 1) > 5.0 * cost(3, 0) / 2.0);
        assert_eq!(octets_a_day(&Parameters::main().quiet().with_strategy(3), 0), 0);
    }

    #[test]
    fn in_an_open_network_nobody_waits_for_the_end_of_a_probation() {
        let folder = tempfile::tempdir().unwrap();
        let voter = OnionAddress::of(Identity::from_seed(&[1; 32]).node()).unwrap().to_string();
        for (option, probation) in [("--voter", (0, 0)), ("--root", (2, 8))] {
            let file = folder.path().join(option);
            let file = file.to_str().unwrap();
            let order = Line::parse_from(["new", "new", file, "--name", "n", option, &voter]);
            run(order.arguments, true).unwrap();
            let lists = read(Path::new(file)).unwrap().parameters().lists.clone();
            assert_eq!((lists.relay_probation, lists.exit_probation), probation);
        }
    }

    #[test]
    fn a_network_that_cannot_work_or_needs_a_later_version_is_named_with_exit_code_6() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("network");
        let maker = Identity::from_seed(&[1; 32]);
        let critical = record::testing::descriptor(&maker, &Parameters::main(), Some(77));
        let mut endless = Parameters::main();
        endless.mixing.max_delay = Duration::from_secs(24 * 3600);
        let endless = record::testing::descriptor(&maker, &endless, None);
        for (octets, named) in [(critical, "the extension 77"), (endless, "its longest delay")] {
            std::fs::write(&file, octets).unwrap();
            let failure = read(&file).unwrap_err();
            assert_eq!(
                format!("{:?}", failure.exit_code()),
                format!("{:?}", std::process::ExitCode::from(6))
            );
            assert!(failure.to_string().contains(named), "{failure}");
        }
        std::fs::write(&file, record::testing::descriptor(&maker, &Parameters::main(), None))
            .unwrap();
        assert!(read(&file).is_ok());
    }
}

//! The laboratory: a network in virtual time, an observer who sees all of it, and what that observer
//! learns.
//!
//! Every node is the real one, without its sockets; every packet has its real octets. The observer sees
//! each submission, each packet on each link with its size, and each delivery, and may own some of the
//! nodes.
//!
//! ```text
//! cargo run --release --example mix_lab -- --out lab               # one network
//! cargo run --release --example mix_lab -- --table --out lab       # all of the README's
//! cargo run --release --example mix_lab -- --nodes 10 --mails 600 --hold 5
//! ```
//!
//! A devnet of processes, sockets and real time is looked at in the same way, beside its simulation:
//!
//! ```text
//! cargo run --release --example mix_lab -- --hours 4 --devnet target/release/fog
//! ```
#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::struct_excessive_bools,
    unreachable_pub,
    reason = "a program for the desk: what it indexes it has made, and a devnet has no other clock"
)]

mod law;
mod live;
mod pair;
mod plots;
mod row;
mod trace;
mod watcher;
mod world;

use core::time::Duration;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use clap::Parser;
use law::{Held, Hold, Keeps, Law};
use pair::Pair;
use plots::Lines;
use record::Parameters;
use row::Row;
use trace::Trace;
use watcher::Knows;
use world::World;

/// Why there is no result.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// How long before the first mail that counts, and after the last, mails come that do not, beside the hold.
const SETTLING: f64 = 0.7;
/// Mails an hour of the pair's network, and its users, who mail twice a day.
const USERS: usize = 720;

#[derive(Parser)]
#[command(name = "mix_lab", about = "What an observer of a whole network learns")]
struct Arguments {
    /// Nodes.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(4..=64))]
    nodes: u16,
    /// Mails an hour in the whole network.
    #[arg(long, default_value_t = 60.0)]
    mails: f64,
    /// The longest hold at an ingress, in minutes.
    #[arg(long, default_value_t = 20.0)]
    hold: f64,
    /// Hours whose mails count.
    #[arg(long, default_value_t = 6.0)]
    hours: f64,
    /// Let the observer see decoys, which take the place of cover.
    #[arg(long)]
    decoys: bool,
    /// Nodes that the observer owns, in percent.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=90))]
    owned: u16,
    /// Mail of three sizes.
    #[arg(long)]
    sizes: bool,
    /// Follow the word of each delivery back to its sender.
    #[arg(long)]
    answers: bool,
    /// The strategy: 0 windows, 1 continuous, 2 binomial pool, 3 rounds in lock-step.
    #[arg(long, default_value_t = 0, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=3))]
    strategy: usize,
    /// The randomness follows from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// All networks of the table.
    #[arg(long)]
    table: bool,
    /// Write the table and the figures here.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also run a devnet like it with this program, in real time, and look at its links.
    #[arg(long, value_name = "FOG", conflicts_with_all = ["table", "sizes", "strategy", "answers", "owned", "hold", "decoys"])]
    devnet: Option<PathBuf>,
    /// The speed of that devnet.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=200))]
    speed: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mix_lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failed> {
    if let Some(fog) = &arguments.devnet {
        return beside_devnet(arguments, fog);
    }
    let networks = if arguments.table { table(arguments) } else { vec![one(arguments)] };
    let Looked { rows, pairs, latencies } = run_all(networks, arguments.seed)?;
    println!("{}", Row::HEAD);
    rows.iter().for_each(|row| println!("{}", row.to_csv()));
    for (name, days) in &pairs {
        let [half, most] = pair::days(&days.iter().map(|(_, share)| *share).collect::<Vec<_>>());
        let day = |day: Option<usize>| day.map_or("never".to_owned(), |day| format!("day {day}"));
        println!(
            "pair, {name}: first in half of the trials {}, in 9 of 10 {}",
            day(half),
            day(most)
        );
    }
    if let Some(out) = &arguments.out {
        write(out, &rows, pairs, latencies)?;
    }
    Ok(())
}

/// A devnet and the simulation of one, to an observer who knows the windows of neither.
fn beside_devnet(arguments: &Arguments, fog: &Path) -> Result<(), Failed> {
    // Nobody can ask for another hold than that of a devnet.
    let hold = arguments.hold;
    let Network { world, .. } = network(arguments.nodes, arguments.mails, hold, arguments);
    println!("{}", Row::HEAD);
    let look = |name: &str, trace: &Trace| {
        let knows = Knows { law: unphased(&world.parameters), ..knows(&world.parameters, trace) };
        let settling = settling(hold);
        println!("{}", Row::of(name, trace, &knows, settling).to_csv());
        let with = trace.with_decoys();
        println!("{}", Row::of(&format!("{name} decoys seen"), &with, &knows, settling).to_csv());
    };
    look("devnet", &live::run(&world, fog, arguments.speed)?);
    look("simulation", &world.run(|_| ())?);
    Ok(())
}

/// Points of a line, with its name.
type Line = (String, Vec<(f64, f64)>);

fn write(out: &Path, rows: &[Row], pairs: Vec<Line>, latencies: Vec<Line>) -> Result<(), Failed> {
    fs::create_dir_all(out)?;
    let lines: Vec<_> = rows.iter().map(Row::to_csv).collect();
    fs::write(out.join("table.csv"), format!("{}\n{}\n", Row::HEAD, lines.join("\n")))?;
    plots::draw_rows(rows, &out.join("mails.svg"))?;
    let title =
        "A pair that mails once a day, among 720 users: how often its writer is ranked first";
    let pair = Lines { title, x: "days", y: "share of trials", of: pairs };
    pair.draw(&out.join("pair.svg"))?;
    let title = "From submission to delivery";
    let latency = Lines { title, x: "minutes", y: "share of mails", of: latencies };
    latency.draw(&out.join("latency.svg"))
}

/// A network, and the ways in which it is looked at.
struct Network {
    name: String,
    world: World,
    /// The name that is added to that of the network, and what the observer knows.
    looks: Vec<(String, Look)>,
    /// Whether it has a place in the figures.
    is_drawn: bool,
}

/// A way to look at a network.
#[derive(Clone, Copy, Default)]
struct Look {
    sees_decoys: bool,
    owned: usize,
    is_unphased: bool,
    is_blind_to_class: bool,
    follows_answers: bool,
}

fn one(arguments: &Arguments) -> Network {
    let look = Look {
        sees_decoys: arguments.decoys,
        owned: usize::from(arguments.nodes * arguments.owned / 100),
        follows_answers: arguments.answers,
        ..Look::default()
    };
    let (nodes, mails) = (arguments.nodes, arguments.mails);
    let mut network = network(nodes, mails, arguments.hold, arguments);
    network.world.has_sizes = arguments.sizes;
    network.looks = vec![(String::new(), look)];
    if arguments.strategy == 0 { network } else { with_strategy(network, arguments.strategy) }
}

fn network(nodes: u16, mails: f64, hold: f64, arguments: &Arguments) -> Network {
    let hours = arguments.hours + 2.0 * (SETTLING + hold / 60.0);
    let parameters = world::parameters(nodes, minutes(hold));
    let world = World { nodes, mails, parameters, has_sizes: false, hours, seed: arguments.seed };
    let name = format!("{nodes} nodes {mails} mails hold {hold} min");
    let looks = vec![(String::new(), Look::default())];
    Network { name, world, looks, is_drawn: true }
}

const STRATEGIES: [&str; 4] = ["windows", "continuous", "binomial pool", "lock-step"];

fn with_strategy(mut network: Network, strategy: usize) -> Network {
    network.name = format!("{} {}", network.name, STRATEGIES[strategy]);
    network.world.parameters = network.world.parameters.with_strategy(strategy as u8);
    network
}

/// The networks of the table: the one of the documents, and what changes when one thing does.
fn table(arguments: &Arguments) -> Vec<Network> {
    let plain = Look::default();
    let mut main = network(20, 60.0, 20.0, arguments);
    let named = |name: &str, look| (name.to_owned(), look);
    main.looks = vec![
        named("", plain),
        named("answers followed", Look { follows_answers: true, ..plain }),
        named("decoys seen", Look { sees_decoys: true, ..plain }),
        named("fifth of nodes owned", Look { owned: 4, ..plain }),
        named("windows not known", Look { is_unphased: true, ..plain }),
    ];
    let mut sizes = network(20, 60.0, 20.0, arguments);
    sizes.world.has_sizes = true;
    sizes.is_drawn = false;
    sizes.looks = vec![
        named("three sizes seen", plain),
        named("three sizes not seen", Look { is_blind_to_class: true, ..plain }),
    ];
    let mut bare = network(20, 60.0, 0.0, arguments);
    bare.name = "20 nodes 60 mails no mixing".to_owned();
    let instant = Duration::from_millis(10);
    (bare.world.parameters.mixing.window, bare.world.parameters.mixing.floor) = (instant, 1);
    (bare.world.parameters.mixing.mean_delay, bare.world.parameters.mixing.transit) =
        (instant, Duration::from_secs(1));
    let mut quiet = network(20, 60.0, 20.0, arguments);
    quiet.name = "20 nodes 60 mails hold 20 min without cover".to_owned();
    quiet.world.parameters = quiet.world.parameters.quiet();
    // Few mails take longer to count.
    let mut few = network(20, 10.0, 20.0, arguments);
    few.world.hours += 2.0 * arguments.hours;
    let mut networks = vec![main, sizes, few, network(20, 600.0, 20.0, arguments)];
    for hold in [0.0, 5.0, 120.0] {
        networks.push(network(20, 60.0, hold, arguments));
    }
    for nodes in [5, 10, 50] {
        networks.push(Network { is_drawn: false, ..network(nodes, 60.0, 20.0, arguments) });
    }
    networks.extend([quiet, bare].map(|network| Network { is_drawn: false, ..network }));
    for strategy in 1..STRATEGIES.len() {
        let other = network(20, 60.0, 20.0, arguments);
        networks.push(Network { is_drawn: false, ..with_strategy(other, strategy) });
    }
    networks
}

/// Runs networks side by side, as many as there are processors.
fn run_all(networks: Vec<Network>, seed: u64) -> Result<Looked, Failed> {
    let count = networks.len();
    let queue = Mutex::new(networks.into_iter().enumerate().collect::<VecDeque<_>>());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from).min(count) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                    let Some((number, network)) = next else { return };
                    let looked = look_at(&network, seed);
                    let rows = looked.as_ref().map(|looked| looked.rows.as_slice());
                    rows.unwrap_or_default().iter().for_each(|row| eprintln!("{}", row.to_csv()));
                    if let Ok(mut done) = done.lock() {
                        done.push((number, looked));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().map_err(|_| "a network could not be run")?;
    done.sort_by_key(|(number, _)| *number);
    let mut all = Looked::default();
    for (_, looked) in done {
        let looked = looked?;
        all.rows.extend(looked.rows);
        all.pairs.extend(looked.pairs);
        all.latencies.extend(looked.latencies);
    }
    Ok(all)
}

/// What was found out.
#[derive(Default)]
struct Looked {
    rows: Vec<Row>,
    /// How often the writer of a pair is ranked first, by days.
    pairs: Vec<Line>,
    /// The share of mails that have come, by minutes.
    latencies: Vec<Line>,
}

fn look_at(network: &Network, seed: u64) -> Result<Looked, Failed> {
    let trace = network.world.run(|_| ())?;
    let parameters = &network.world.parameters;
    let hold = parameters.sending.max_hold.as_secs_f64() / 60.0;
    let rows = network.looks.iter().map(|(name, look)| {
        let decoyed = look.sees_decoys.then(|| trace.with_decoys());
        let trace = decoyed.as_ref().unwrap_or(&trace);
        let knows = knows(parameters, trace);
        let law = if look.is_unphased { unphased(parameters) } else { knows.law };
        let knows = Knows {
            law,
            owned: look.owned,
            sees_class: !look.is_blind_to_class,
            follows_answers: look.follows_answers,
            ..knows
        };
        let name = format!("{} {name}", network.name);
        Row::of(name.trim_end(), trace, &knows, settling(hold))
    });
    let rows = rows.collect();
    let latencies = trace.latencies();
    let pair = Pair { users: USERS, latencies: &latencies, days: 60, trials: 200, seed };
    let first = pair.ranked_first().into_iter().enumerate();
    let first: Vec<_> = first.map(|(day, share)| (day as f64 + 1.0, share)).collect();
    let of_all = latencies.len() as f64;
    let shares = latencies.iter().enumerate();
    let shares = shares.map(|(number, latency)| (latency / 60.0, number as f64 / of_all));
    let name = || network.name.clone();
    Ok(Looked {
        rows,
        pairs: network.is_drawn.then(|| (name(), first)).into_iter().collect(),
        latencies: network.is_drawn.then(|| (name(), shares.collect())).into_iter().collect(),
    })
}

/// What everybody knows of a network with these parameters, and of the windows of its nodes.
fn knows(parameters: &Parameters, trace: &Trace) -> Knows {
    let mixing = &parameters.mixing;
    let (window, phases) = (millis(mixing.window), trace.phases.clone());
    let keeps = match mixing.strategy {
        2 => Keeps::Pool(mixing.floor),
        3 => Keeps::Overflow,
        _ => Keeps::Below(mixing.floor),
    };
    let held = match mixing.strategy {
        1 => Held::Continuous,
        _ => Held::Windows { window, phases, keeps },
    };
    let lag = if mixing.strategy == 3 { window } else { 0.0 };
    let (_, stage) = parameters.stage_at(0);
    let [gap, ..] = parameters.sending.gaps;
    // Mail takes ticks for what returns.
    let holds =
        (0..).zip(stage.weights).filter(|(_, weight)| *weight > 0).map(|(class, weight)| {
            let share = f64::from(weight) * f64::from(stage.returning) / 10_000.0;
            let hold = millis(parameters.sending.max_hold);
            (class, Hold { hold, tick: millis(gap) / share, lag })
        });
    Knows {
        law: Law { mean: millis(mixing.mean_delay), held },
        holds: holds.collect(),
        owned: 0,
        sees_class: true,
        follows_answers: false,
    }
}

fn unphased(parameters: &Parameters) -> Law {
    let mixing = &parameters.mixing;
    let held = Held::Unphased { window: millis(mixing.window), keeps: Keeps::Below(mixing.floor) };
    Law { mean: millis(mixing.mean_delay), held }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn minutes(count: f64) -> Duration {
    Duration::from_secs_f64(count * 60.0)
}

/// In milliseconds, with a hold in minutes.
fn settling(hold: f64) -> u64 {
    ((SETTLING + hold / 60.0) * 3_600_000.0) as u64
}

//! How records spread in networks of 1,000 and 10,000 nodes, when one message in twenty is lost and
//! a fifth of the nodes is replaced in every epoch; and what the votes of seven voters cost.
//!
//! A model: who holds whose record of which hour, and no octets of it. What it takes from
//! elsewhere: a record has 5,300 octets; gossip sends it along 6 links of each node, which 200 real
//! swarms do as well (`a_record_reaches_two_hundred_swarms` in `src/net/tests/scale.rs` counts 6.0
//! copies); a question for digests and its answer have 4,300; a statement that is missing costs its
//! octets and 32 more; a joiner reads 100 KiB a second. Seeded: the same table each time. `cargo
//! run --release -p fog-directory --example spread`
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a table"
)]

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

const RECORD: u64 = 5_300;
const SUMMARY: u64 = 4_350;
/// Votes of an hour, and octets of each; gossip brings each as often as a record.
const VOTERS: u64 = 7;
const VOTE: u64 = 4_267;
const NAME: u64 = 32;
const A_SECOND: u64 = 100 * 1024;
/// Links along which a node passes a record on.
const MESH: usize = 6;
const LOSS: f64 = 0.05;
const CHURN: f64 = 0.2;
const HOURS_IN_EPOCH: usize = 3;
/// Minutes between two times that a node asks three others.
const ASKS_EVERY: usize = 6;
const ASKED: usize = 3;
const MINUTES: usize = 60;
/// By when before the hour a record is published that its votes look at.
const SETTLE: usize = 30;

fn main() {
    println!(
        "| nodes | epochs | held by all | held by a node, mean and least | gossip, MB | catching up, MB | votes, MB |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut before: Option<f64> = None;
    for (nodes, epochs) in [(1_000, 6), (10_000, 1)] {
        let mut network = Network::new(nodes, ChaCha20Rng::seed_from_u64(1));
        for _ in 0..epochs * HOURS_IN_EPOCH {
            network.hour();
        }
        let per = |octets: u64| octets as f64 / (nodes * epochs) as f64 / 1e6;
        let (gossip, sync) = (per(network.gossiped), per(network.synced));
        let votes = (HOURS_IN_EPOCH as u64 * VOTERS * VOTE * MESH as u64) as f64 / 1e6;
        println!(
            "| {nodes} | {epochs} | {:.3} % | {:.3} %, {:.1} % | {gossip:.0} | {sync:.1} | {votes:.1} |",
            100.0 * network.by_all(),
            100.0 * network.mean(),
            100.0 * network.least(),
        );
        if let Some(before) = before {
            println!();
            println!(
                "octets per node grow {:.1} times with ten times the nodes",
                (gossip + sync) / before
            );
        }
        before = Some(gossip + sync);
    }
}

struct Network {
    nodes: usize,
    rng: ChaCha20Rng,
    hour: u8,
    /// For each node and each author: the hour of the newest record it holds; 0 for none.
    held: Vec<Vec<u8>>,
    /// The hour of each author's newest record, and the minute in it.
    published: Vec<(u8, usize)>,
    /// Minutes until a joiner has caught up.
    joining: Vec<usize>,
    /// Minutes since it came.
    age: Vec<usize>,
    mesh: Vec<Vec<usize>>,
    gossiped: u64,
    synced: u64,
    /// What was measured on the hours: authors held by all, and for each node the part it held.
    samples: Vec<(f64, f64, f64)>,
}

impl Network {
    fn new(nodes: usize, rng: ChaCha20Rng) -> Self {
        let mut network = Self {
            nodes,
            rng,
            hour: 1,
            held: vec![vec![1; nodes]; nodes],
            published: vec![(1, 0); nodes],
            joining: vec![0; nodes],
            age: vec![1000; nodes],
            mesh: Vec::new(),
            gossiped: 0,
            synced: 0,
            samples: Vec::new(),
        };
        network.weave();
        network
    }

    /// A random graph in which everybody has six neighbours: three rings in random orders.
    fn weave(&mut self) {
        self.mesh = vec![Vec::new(); self.nodes];
        for _ in 0..MESH / 2 {
            let mut ring: Vec<_> = (0..self.nodes).collect();
            ring.shuffle(&mut self.rng);
            for (one, other) in ring.iter().zip(ring.iter().cycle().skip(1)) {
                self.mesh[*one].push(*other);
                self.mesh[*other].push(*one);
            }
        }
    }

    fn hour(&mut self) {
        self.hour += 1;
        let within = |rng: &mut ChaCha20Rng| rng.random_range(MINUTES / 20..MINUTES * 45 / 100);
        let due: Vec<_> = (0..self.nodes).map(|_| within(&mut self.rng)).collect();
        let leaving = (self.nodes as f64 * CHURN / HOURS_IN_EPOCH as f64) as usize;
        for minute in 0..MINUTES {
            for _ in 0..share(leaving, minute) {
                self.replace();
            }
            if minute % 10 == 0 {
                self.weave();
            }
            for (author, _) in due.iter().enumerate().filter(|(_, due)| **due == minute) {
                self.publish(author, minute);
            }
            for node in 0..self.nodes {
                self.age[node] += 1;
                self.joining[node] = self.joining[node].saturating_sub(1);
                if (node + minute) % ASKS_EVERY == 0 || self.age[node] == 1 {
                    self.ask_around(node);
                }
            }
        }
        self.measure();
    }

    /// A node goes for ever, and another comes in its place.
    fn replace(&mut self) {
        let node = self.rng.random_range(0..self.nodes);
        self.held[node].fill(0);
        for holder in &mut self.held {
            holder[node] = 0;
        }
        self.published[node] = (0, 0);
        self.age[node] = 0;
        self.joining[node] = (self.nodes as u64 * RECORD / A_SECOND / 60) as usize;
        // It publishes as soon as it is there.
        self.publish(node, MINUTES);
    }

    fn publish(&mut self, author: usize, minute: usize) {
        self.published[author] = (self.hour, minute);
        let mut has = vec![false; self.nodes];
        has[author] = true;
        let mut holders = vec![author];
        while let Some(holder) = holders.pop() {
            self.held[holder][author] = self.hour;
            for next in &self.mesh[holder] {
                self.gossiped += RECORD;
                if !has[*next] && self.rng.random_bool(1.0 - LOSS) {
                    has[*next] = true;
                    holders.push(*next);
                }
            }
        }
    }

    fn ask_around(&mut self, node: usize) {
        for _ in 0..ASKED {
            let peer = self.rng.random_range(0..self.nodes);
            if peer == node || self.joining[peer] > 0 || self.rng.random_bool(LOSS) {
                continue;
            }
            self.synced += SUMMARY;
            let (own, theirs) = two(&mut self.held, node, peer);
            let mut missing = 0;
            for (own, theirs) in own.iter_mut().zip(theirs) {
                missing += u64::from(*theirs > *own);
                *own = (*own).max(*theirs);
            }
            self.synced += missing * (RECORD + NAME);
        }
    }

    /// What the hour's votes look at: the records that were published in time, at nodes that were
    /// there then.
    fn measure(&mut self) {
        let settled: Vec<_> = (0..self.nodes)
            .filter(|author| {
                let (hour, minute) = self.published[*author];
                hour == self.hour && minute <= MINUTES - SETTLE
            })
            .collect();
        let there: Vec<_> = (0..self.nodes)
            .filter(|node| self.age[*node] >= SETTLE && self.joining[*node] == 0)
            .collect();
        let holds = |node: usize, author: usize| self.held[node][author] == self.hour;
        let by_all =
            settled.iter().filter(|author| there.iter().all(|node| holds(*node, **author)));
        let by_all = by_all.count() as f64 / settled.len() as f64;
        let part = |node: &usize| {
            let held = settled.iter().filter(|author| holds(*node, **author)).count();
            held as f64 / settled.len() as f64
        };
        let parts: Vec<f64> = there.iter().map(part).collect();
        let mean = parts.iter().sum::<f64>() / parts.len() as f64;
        self.samples.push((by_all, mean, parts.iter().copied().fold(1.0, f64::min)));
    }

    fn by_all(&self) -> f64 {
        self.samples.iter().map(|sample| sample.0).sum::<f64>() / self.samples.len() as f64
    }

    fn mean(&self) -> f64 {
        self.samples.iter().map(|sample| sample.1).sum::<f64>() / self.samples.len() as f64
    }

    fn least(&self) -> f64 {
        self.samples.iter().map(|sample| sample.2).fold(1.0, f64::min)
    }
}

/// The part of an hour's events that falls into one minute.
fn share(events: usize, minute: usize) -> usize {
    events * (minute + 1) / MINUTES - events * minute / MINUTES
}

fn two(rows: &mut [Vec<u8>], one: usize, other: usize) -> (&mut Vec<u8>, &Vec<u8>) {
    if one < other {
        let (low, high) = rows.split_at_mut(other);
        (&mut low[one], &high[0])
    } else {
        let (low, high) = rows.split_at_mut(one);
        (&mut high[0], &low[other])
    }
}

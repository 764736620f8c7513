//! Networks in virtual time, and mail for them.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "each test uses some of it")]

use std::time::Duration;

use fog_remailer::Count;
use fog_remailer::sim::Simulation;
use keys::Epoch;
use mail::{Mailbox, Submission};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::Parameters;

pub const MINUTE: Duration = Duration::from_secs(60);

pub fn network(nodes: u16, parameters: &Parameters, seed: u64) -> Simulation<ChaCha20Rng> {
    // Ten minutes into an hour of an epoch.
    let start = parameters.schedule().start(Epoch::new(165_000)).plus(MINUTE * 10);
    let rng = ChaCha20Rng::seed_from_u64(seed);
    let mut simulation = Simulation::new(nodes, parameters, start, rng).unwrap();
    simulation.run(Duration::from_secs(2));
    simulation
}

pub fn mail(to: &str, body: &str) -> Submission {
    let message = format!("From: me@home.example\r\nTo: {to}\r\nSubject: s\r\n\r\n{body}\r\n");
    Submission { recipients: vec![Mailbox::parse(to).unwrap()], message: message.into_bytes() }
}

pub fn total(simulation: &Simulation<ChaCha20Rng>, count: Count) -> u64 {
    simulation.nodes().iter().map(|node| node.counts().get(count)).sum()
}

//! What an observer of a whole network writes down.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Exp1};
use sphinx::SizeClass;

use crate::Failed;
use crate::law::Millis;

/// A packet on a link.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub sent: Millis,
    pub arrives: Millis,
    pub from: usize,
    pub to: usize,
    pub class: u8,
    /// The packet that it was before its sender opened it, as the sender knows.
    pub after: Option<usize>,
    /// Whether it carried mail to where it went, as its receiver knows.
    pub is_mail: bool,
}

/// A mail that somebody handed to a node.
#[derive(Clone, Copy, Debug)]
pub struct Submitted {
    pub at: Millis,
    pub node: usize,
    pub class: u8,
}

/// A mail that a node handed on.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    pub at: Millis,
    pub exit: usize,
    /// The submission that it was: what the observer wants to know.
    pub of: usize,
}

/// All of it, in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub nodes: usize,
    pub links: Vec<Link>,
    pub submitted: Vec<Submitted>,
    pub delivered: Vec<Delivered>,
    /// The end of a window of each node, if that is known.
    pub phases: Vec<Millis>,
}

impl Trace {
    /// The same with so many submissions an hour beside mail that go to nobody, to random nodes at the times
    /// of a Poisson process. An observer sees them come; their packets take the place of cover.
    pub fn with_decoys(&self, an_hour: f64, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let numbered = self.submitted.iter().copied().enumerate();
        let mut all: Vec<_> = numbered.map(|(number, mail)| (mail, Some(number))).collect();
        let class = smallest_class(&self.links).unwrap_or_default();
        let begin = self.links.first().map_or(0, |link| link.sent) as f64;
        let mut after = 0.0;
        loop {
            let gap: f64 = Exp1.sample(&mut rng);
            after += gap * 3_600_000.0 / an_hour;
            if after > self.span() {
                break;
            }
            let node = rng.random_range(0..self.nodes);
            all.push((Submitted { at: (begin + after) as Millis, node, class }, None));
        }
        all.sort_by_key(|(one, _)| one.at);
        let mut with = self.clone();
        with.submitted = all.iter().map(|(one, _)| *one).collect();
        let places =
            all.iter().enumerate().filter_map(|(place, (_, number))| Some(((*number)?, place)));
        let places: BTreeMap<_, _> = places.collect();
        for delivered in &mut with.delivered {
            delivered.of = places.get(&delivered.of).copied().unwrap_or(delivered.of);
        }
        with
    }

    /// From the first packet to the last, in milliseconds.
    pub fn span(&self) -> f64 {
        let (first, last) = (self.links.first(), self.links.last());
        last.zip(first).map_or(1.0, |(last, first)| (last.sent - first.sent).max(1) as f64)
    }

    /// MiB that a node sends in an hour.
    pub fn volume(&self) -> f64 {
        let octets: usize = self.links.iter().map(|link| packet_len(link.class)).sum();
        let hours = self.span() / 3_600_000.0;
        octets as f64 / hours / self.nodes as f64 / (1 << 20) as f64
    }

    /// From submission to delivery, in seconds, ascending.
    pub fn latencies(&self) -> Vec<f64> {
        let latency = |delivered: &Delivered| {
            let submitted = self.submitted.get(delivered.of)?;
            Some(delivered.at.saturating_sub(submitted.at) as f64 / 1000.0)
        };
        let mut latencies: Vec<_> = self.delivered.iter().filter_map(latency).collect();
        latencies.sort_by(f64::total_cmp);
        latencies
    }

    /// Reads what `fog devnet --link-log` wrote, and a file with a line for each mail: milliseconds and
    /// number of the node that it was submitted to, and milliseconds and number of the node that
    /// delivered it. Nodes are numbered from 0 in the order of `names`. All times are multiplied by the
    /// speed of the devnet.
    pub fn read(links: &Path, mails: &Path, names: &[String], speed: u64) -> Result<Self, Failed> {
        let numbers: BTreeMap<_, _> =
            names.iter().enumerate().map(|(number, name)| (name.as_str(), number)).collect();
        let mut trace = Self { nodes: names.len(), ..Self::default() };
        let bad = |line: &str| Failed::from(format!("not a line of a log: {line}"));
        for line in fs::read_to_string(links)?.lines().skip(1) {
            let [millis, from, to, octets] = fields(line).ok_or_else(|| bad(line))?;
            let octets: usize = octets.parse()?;
            // Receipts follow packets and say no more than they do.
            if octets == 1 {
                continue;
            }
            let class = SizeClass::of_packet(octets.saturating_sub(1)).ok_or_else(|| bad(line))?;
            let (from, to) = numbers.get(from).zip(numbers.get(to)).ok_or_else(|| bad(line))?;
            let sent = millis.parse::<Millis>()? * speed;
            trace.links.push(Link {
                sent,
                arrives: sent,
                from: *from,
                to: *to,
                class: class.number(),
                after: None,
                is_mail: false,
            });
        }
        trace.links.sort_by_key(|link| link.sent);
        let class = smallest_class(&trace.links).ok_or("no packets")?;
        for line in fs::read_to_string(mails)?.lines().skip(1) {
            let [at, node, delivered, exit] = fields(line).ok_or_else(|| bad(line))?;
            let of = trace.submitted.len();
            let (at, node) = (at.parse::<Millis>()? * speed, node.parse()?);
            trace.submitted.push(Submitted { at, node, class });
            if !delivered.is_empty() {
                let (at, exit) = (delivered.parse::<Millis>()? * speed, exit.parse()?);
                trace.delivered.push(Delivered { at, exit, of });
            }
        }
        trace.delivered.sort_by_key(|delivered| delivered.at);
        Ok(trace)
    }
}

/// The class of small mail.
pub fn smallest_class(links: &[Link]) -> Option<u8> {
    links.iter().map(|link| link.class).min()
}

fn fields(line: &str) -> Option<[&str; 4]> {
    let fields: Vec<_> = line.split(',').collect();
    fields.try_into().ok()
}

fn packet_len(class: u8) -> usize {
    SizeClass::from_number(class).map_or(0, SizeClass::packet_len)
}

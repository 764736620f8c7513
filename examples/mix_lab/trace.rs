//! What an observer of a whole network writes down.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

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
    /// The same of decoys, which nobody gets.
    pub decoys: Vec<Submitted>,
    pub delivered: Vec<Delivered>,
    /// The end of a window of each node, if that is known.
    pub phases: Vec<Millis>,
}

impl Trace {
    /// The same with decoys among the submissions. An observer sees them come; their ticks carry cover.
    pub fn with_decoys(&self) -> Self {
        let numbered = self.submitted.iter().copied().enumerate();
        let mut all: Vec<_> = numbered.map(|(number, mail)| (mail, Some(number))).collect();
        all.extend(self.decoys.iter().map(|decoy| (*decoy, None)));
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

    /// Reads what `fog devnet --link-log` wrote of the nodes of these names. All times are multiplied by the
    /// speed of the devnet.
    pub fn read(links: &Path, names: &[String], speed: u64) -> Result<Self, Failed> {
        let numbers: BTreeMap<_, _> =
            names.iter().enumerate().map(|(number, name)| (name.as_str(), number)).collect();
        let mut trace = Self { nodes: names.len(), ..Self::default() };
        let parameters = record::Parameters::main();
        let (_, stage) = parameters.stage_at(0);
        let open = SizeClass::all().filter(|class| stage.is_open(class.number()));
        let open: Vec<_> = open.collect();
        let bad = |line: &str| Failed::from(format!("not a line of a log: {line}"));
        for line in fs::read_to_string(links)?.lines().skip(1) {
            let [millis, from, to, octets] = fields(line).ok_or_else(|| bad(line))?;
            let sent = millis.parse::<Millis>()? * speed;
            let (from, to) = numbers.get(from).zip(numbers.get(to)).ok_or_else(|| bad(line))?;
            if let Some(octets) = octets.strip_prefix("decoy ") {
                let class = class_of(octets.parse()?, &open);
                trace.decoys.push(Submitted { at: sent, node: *to, class });
                continue;
            }
            let octets: usize = octets.parse()?;
            // Receipts follow packets and say no more than they do.
            if octets == 1 {
                continue;
            }
            let class = SizeClass::of_packet(octets.saturating_sub(1)).ok_or_else(|| bad(line))?;
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
        Ok(trace)
    }
}

/// Octets around a mail in its packet, more or less.
const AROUND: usize = 130;

/// The class of a mail of so many octets that cannot be compressed by more than a sixth, among those that are
/// open. Only what no class holds as it is gets compressed.
pub fn class_of(octets: usize, open: &[SizeClass]) -> u8 {
    let holds = |octets: usize| open.iter().find(|class| class.capacity() >= octets + AROUND);
    let class = holds(octets).or_else(|| holds(octets * 5 / 6));
    class.copied().unwrap_or(SizeClass::LARGEST).number()
}

fn fields(line: &str) -> Option<[&str; 4]> {
    let fields: Vec<_> = line.split(',').collect();
    fields.try_into().ok()
}

fn packet_len(class: u8) -> usize {
    SizeClass::from_number(class).map_or(0, SizeClass::packet_len)
}

//! A whole network in virtual time: real nodes and real packets, and mail that comes as a Poisson process.

use core::time::Duration;

use keys::Epoch;
use mail::{Mailbox, Submission};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Exp1};
use record::{Parameters, Sending};
use remailer::sim::Simulation;
use sphinx::SizeClass;

use crate::Failed;
use crate::trace::{Delivered, Link, Submitted, Trace, class_of};

/// What a network is like.
#[derive(Clone, Debug)]
pub struct World {
    pub nodes: u16,
    /// Mails an hour in the whole network.
    pub mails: f64,
    pub parameters: Parameters,
    /// Whether mail has one size, or three by 60, 30 and 10 of a hundred.
    pub has_sizes: bool,
    pub hours: f64,
    pub seed: u64,
}

/// The network of the documents.
pub fn parameters(nodes: u16, hold: Duration) -> Parameters {
    let main = Parameters::main().with_first_list(nodes).with_probation(0, 0);
    let max_hold = hold.max(Duration::from_millis(1));
    Parameters { sending: Sending { max_hold, ..main.sending }, ..main }
}

/// Octets of mails that take a packet of 24, 64 and 256 KiB.
const SIZES: [usize; 3] = [3_000, 46_000, 180_000];

impl World {
    /// Runs it, and says what an observer of everything saw.
    pub fn run(&self, progress: impl Fn(f64)) -> Result<Trace, Failed> {
        let start = self.parameters.schedule().start(Epoch::new(165_000));
        let start = start.plus(Duration::from_secs(600));
        let rng = StdRng::seed_from_u64(self.seed);
        let mut simulation = Simulation::new(self.nodes, &self.parameters, start, rng)?;
        let mut rng = StdRng::seed_from_u64(!self.seed);
        let end = start.plus(Duration::from_secs_f64(self.hours * 3600.0));
        // Links stand, and cover goes, before anybody mails.
        simulation.run(Duration::from_secs(120));
        let mut submitted = Vec::new();
        while simulation.now() < end {
            let gap: f64 = Exp1.sample(&mut rng);
            simulation.run(Duration::from_secs_f64(gap * 3600.0 / self.mails));
            progress(simulation.now().since(start).as_secs_f64() / 3600.0);
            let node = rng.random_range(0..usize::from(self.nodes));
            let size = match rng.random_range(0..100) {
                _ if !self.has_sizes => 0,
                0..60 => 0,
                60..90 => 1,
                _ => 2,
            };
            let octets = SIZES.get(size).copied().unwrap_or_default();
            let at = simulation.now().as_millis();
            let open = simulation.nodes().get(node).map(|node| node.classes(simulation.now()).open);
            let class = class_of(octets, &open.unwrap_or_default());
            let number = submitted.len();
            if simulation.submit(node, &mail(number, octets, &mut rng)).is_ok() {
                submitted.push(Submitted { at, node, class });
            }
        }
        let delivered = simulation.delivered().iter().filter_map(|delivered| {
            let recipient = delivered.delivery.recipients.first()?.to_text();
            let of = recipient.strip_prefix('r')?.split('@').next()?.parse().ok()?;
            Some(Delivered { at: delivered.at.as_millis(), exit: delivered.exit, of })
        });
        let delivered = delivered.collect();
        let links = simulation.sent().iter().filter_map(|sent| {
            Some(Link {
                sent: sent.at.as_millis(),
                arrives: sent.arrives.as_millis(),
                from: sent.from,
                to: sent.to,
                class: SizeClass::of_packet(sent.octets)?.number(),
                after: sent.after,
                is_mail: sent.is_mail,
            })
        });
        let open = simulation.nodes().first().map(|node| node.classes(simulation.now()).open);
        let open = open.unwrap_or_default();
        let decoys = simulation.decoys().iter().map(|decoy| Submitted {
            at: decoy.at.as_millis(),
            node: decoy.to,
            class: class_of(decoy.octets, &open),
        });
        let phases = simulation.nodes().iter().filter_map(|node| node.phase());
        Ok(Trace {
            nodes: usize::from(self.nodes),
            links: links.collect(),
            submitted,
            decoys: decoys.collect(),
            delivered,
            phases: phases.map(|phase| phase.as_millis()).collect(),
        })
    }
}

fn mail(number: usize, octets: usize, rng: &mut StdRng) -> Submission {
    const LINE: usize = 76;
    let mut message = b"Subject: s\r\n\r\n".to_vec();
    while message.len() < octets {
        // Such text cannot be compressed by much.
        message.extend((0..LINE).map(|_| rng.random_range(b'!'..=b'~')).filter(|c| *c != b'.'));
        message.extend_from_slice(b"\r\n");
    }
    let recipient = format!("r{number}@b.example");
    Submission { recipients: Mailbox::parse(&recipient).into_iter().collect(), message }
}

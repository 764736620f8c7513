//! What floods of valid statements cost the loop of a node that hears them, signatures aside, which
//! are checked elsewhere: `cargo run --release -p fog-directory --example floods`
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a table, of what this machine takes"
)]

use std::time::{Duration, Instant};

use fog_directory::{Directory, Request, Source};
use keys::{Epoch, Identity, MixPublic, NetworkId, Schedule, Time};
use record::{
    Admission, Descriptor, Draft, Parameters, Record, Statement, Vouch, VouchDraft, VouchRole,
    Word, testing,
};

const MINUTE: Duration = Duration::from_secs(60);

struct World {
    schedule: Schedule,
    start: Time,
    key: MixPublic,
}

/// The loop's time for a flood: in all, and the longest that one statement held it up.
#[derive(Default)]
struct Took {
    all: Duration,
    longest: Duration,
}

impl Took {
    fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let took = start.elapsed();
        self.all += took;
        self.longest = self.longest.max(took);
        done
    }
}

fn identity(kind: u8, number: u32) -> Identity {
    let mut seed = [kind; 32];
    let [a, b, c, d] = number.to_be_bytes();
    (seed[0], seed[1], seed[2], seed[3]) = (a, b, c, d);
    Identity::from_seed(&seed)
}

fn resident_mib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 / 1024
}

impl World {
    fn new() -> Self {
        let schedule = Parameters::main().schedule();
        let start = schedule.start(Epoch::new(165_000)).plus(MINUTE * 5);
        let key = testing::key(1, Epoch::new(165_000));
        Self { schedule, start, key }
    }

    fn descriptor(&self, admission: &Admission) -> Descriptor {
        let maker = identity(9, 0);
        let (voters, parameters) = ([maker.node()], Parameters::main());
        Descriptor::create(&maker, "n", self.start, &parameters, &voters, admission).unwrap()
    }

    fn directory(&self, descriptor: &Descriptor) -> Directory {
        let mut directory = Directory::new(descriptor);
        directory.turn_hour(self.start);
        directory
    }

    fn vouched(&self) -> Admission {
        let mut roots = vec![identity(1, 0).node()];
        roots.sort_unstable();
        Admission::Vouched { roots, depth: 4, fan_out: 16 }
    }

    /// A record of an identity; the making of mix keys is not what is measured.
    fn record(&self, author: &Identity, sequence: u64, at: Time, network: &NetworkId) -> Record {
        let first = self.schedule.epoch_at(at);
        let keys = (0..3).map(|ahead| (first.plus(ahead), self.key.clone()));
        let draft = Draft { sequence, keys: keys.collect(), ..testing::blank(at) };
        let octets = draft.sign(author, network).unwrap();
        match Statement::check(&octets, network).unwrap() {
            Statement::Record(signed) => signed.timely(at, &self.schedule).unwrap(),
            Statement::Vouch(_) | Statement::Proof(_) | Statement::Vote(_) => {
                unreachable!("a record")
            }
        }
    }

    fn word(
        &self,
        word: Word,
        voucher: &Identity,
        subject: &Identity,
        network: &NetworkId,
    ) -> Vouch {
        let draft = VouchDraft {
            word,
            subject: subject.node(),
            role: VouchRole::Exit,
            since: self.start,
            issued_at: self.start,
            expires_at: self.start.plus(MINUTE * 1440),
            extensions: Vec::new(),
        };
        match Statement::check(&draft.sign(voucher, network).unwrap(), network).unwrap() {
            Statement::Vouch(signed) => signed.timely(self.start, &self.schedule, 720).unwrap(),
            Statement::Record(_) | Statement::Proof(_) | Statement::Vote(_) => {
                unreachable!("a word")
            }
        }
    }
}

fn row(what: &str, took: &Took, mib: Option<usize>) {
    let memory = mib.map_or_else(String::new, |mib| format!("{mib} MiB"));
    println!("| {what} | {:.1?} | {:.1?} | {memory} |", took.all, took.longest);
}

/// Each flood has a process of its own, whose memory is measured.
fn main() {
    let floods: [fn(&World); 4] = [strangers, one_stranger, ten_thousand, words];
    if let Some(number) = std::env::args().nth(1) {
        let flood = number.parse().ok().and_then(|number: usize| floods.get(number));
        return flood.unwrap()(&World::new());
    }
    println!("| flood | the loop is held up for, in all | at most at once | memory |");
    println!("|---|---|---|---|");
    for number in 0..floods.len() {
        let own = std::env::current_exe().unwrap();
        let status = std::process::Command::new(own).arg(number.to_string()).status().unwrap();
        assert!(status.success());
    }
}

/// Strangers of a vouched network, by gossip, in three hours.
fn strangers(world: &World) {
    let descriptor = world.descriptor(&world.vouched());
    let (network, mut directory) = (descriptor.id(), world.directory(&descriptor));
    directory.note_caught_up();
    directory.turn_hour(world.start);
    let (before, mut took) = (resident_mib(), Took::default());
    for hour in 0..3_u32 {
        let at = world.start.plus(MINUTE * 60 * hour);
        took.measure(|| directory.turn_hour(at));
        for number in 0..1000 {
            let record = world.record(&identity(2, hour * 1000 + number), 1, at, &network);
            let _ = took.measure(|| directory.admit(record, Source::Gossip, at));
        }
    }
    row("3,000 strangers in three hours, vouched network", &took, Some(resident_mib() - before));
}

/// Records of one stranger that peers bring.
fn one_stranger(world: &World) {
    let descriptor = world.descriptor(&world.vouched());
    let (network, mut directory) = (descriptor.id(), world.directory(&descriptor));
    let author = identity(3, 0);
    let (before, mut took) = (resident_mib(), Took::default());
    for number in 0..3000_u32 {
        let at = world.start.plus(Duration::from_millis(u64::from(number)));
        let sequence = u64::from(number.reverse_bits());
        let record = world.record(&author, sequence, at, &network);
        let _ = took.measure(|| directory.admit(record, Source::CatchUp, at));
    }
    row("3,000 records of one stranger, by reconciliation", &took, Some(resident_mib() - before));
}

/// As many identities as are held, and a question after each new record.
fn ten_thousand(world: &World) {
    let descriptor = world.descriptor(&Admission::Open);
    let (network, mut directory) = (descriptor.id(), world.directory(&descriptor));
    let (before, mut took) = (resident_mib(), Took::default());
    for number in 0..10_000 {
        let record = world.record(&identity(4, number), 1, world.start, &network);
        let _ = took.measure(|| directory.admit(record, Source::CatchUp, world.start));
    }
    row("10,000 identities of an open network", &took, Some(resident_mib() - before));
    let (request, mut took) = (Request::Summary.encode().unwrap(), Took::default());
    for _ in 0..100 {
        took.measure(|| directory.answer(&request, world.start).unwrap());
    }
    row("a hundred questions to a node that holds them", &took, None);
    let mut took = Took::default();
    let later = world.start.plus(MINUTE * 6);
    for number in 0..100 {
        let record = world.record(&identity(4, number), 2, later, &network);
        let _ = took.measure(|| directory.admit(record, Source::Gossip, later));
        took.measure(|| directory.answer(&request, later).unwrap());
    }
    row("the same with a new record before each", &took, None);
    let mut took = Took::default();
    took.measure(|| directory.standings(later));
    row("fog peers", &took, None);
    let mut took = Took::default();
    let hour = world.schedule.hour_at(world.start).plus(1);
    took.measure(|| directory.turn_hour(world.schedule.hour_start(hour)));
    took.measure(|| directory.propose(hour));
    row("an hour begins, and its list is proposed", &took, None);
}

/// Branches of vouches that say all that they may.
fn words(world: &World) {
    let descriptor = world.descriptor(&world.vouched());
    let (network, mut directory) = (descriptor.id(), world.directory(&descriptor));
    let (before, mut took) = (resident_mib(), Took::default());
    let (mut level, mut serial) = (vec![identity(1, 0)], 0);
    let mut all = Vec::new();
    while all.len() < 22_000 {
        let mut next = Vec::new();
        for voucher in &level {
            for _ in 0..16 {
                serial += 1;
                let word = world.word(Word::Vouch, voucher, &identity(5, serial), &network);
                all.push((word.voucher(), serial));
                let _ = took.measure(|| directory.note_word(word, Source::CatchUp, world.start));
                next.push(identity(5, serial));
            }
        }
        next.truncate(1300);
        level = next;
    }
    row("22,000 words of bought branches", &took, Some(resident_mib() - before));
    let mut took = Took::default();
    let vouchers: Vec<_> = (1..=16).map(|number| identity(5, number)).collect();
    for voucher in &vouchers {
        let said = all.iter().filter(|(by, _)| *by == voucher.node());
        for (_, subject) in said.clone() {
            let word = world.word(Word::Revocation, voucher, &identity(5, *subject), &network);
            let _ = took.measure(|| directory.note_word(word, Source::CatchUp, world.start));
        }
    }
    row("256 of them taken back", &took, None);
}

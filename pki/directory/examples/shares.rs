//! How much of the routes an adversary gets that makes fresh identities, under each admission
//! policy.
//!
//! The directory and its views are the real ones, with real records and words; each figure is of
//! 20,000 routes, seeded. `cargo run --release -p fog-directory --example shares`
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "a table")]

use std::collections::BTreeSet;
use std::time::Duration;

use fog_directory::{Directory, Source, View};
use keys::{Epoch, Identity, MixPublic, MixSecret, MixSeed, NetworkId, NodeId, Schedule, Time};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::{
    Admission, Capabilities, Descriptor, Domains, Draft, ExitPolicy, Parameters, Statement,
    VouchDraft, VouchRole, Word, testing,
};

const HONEST: u32 = 100;
const ROOTS: u32 = 4;
const DEPTH: u8 = 4;
const FAN_OUT: u16 = 8;
const ROUTES: u32 = 20_000;
const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);
const EPOCH: Duration = Duration::from_secs(10_800);
const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    let world = World::new();
    println!("| admission | the attacker | after | 10 | 100 | 1,000 |");
    println!("|---|---|---|---|---|---|");
    let lists = Parameters::main().lists;
    let relays = u32::from(lists.relay_probation) + 1;
    let exits = u32::from(lists.exit_probation) + 1;
    let rows = [
        ("open", Attack::Alone, 1, "3 hours"),
        ("vouched", Attack::Alone, exits, "27 hours"),
        ("vouched", Attack::OwnsVoucher, 1, "3 hours"),
        ("vouched", Attack::OwnsVoucher, relays, "9 hours"),
        ("vouched", Attack::OwnsVoucher, exits, "27 hours"),
        ("vouched", Attack::DatesBack, 1, "3 hours"),
        ("vouched", Attack::DatesBack, exits, "27 hours"),
    ];
    for (policy, attack, epochs, after) in rows {
        let shares = [10, 100, 1000].map(|count| {
            let view = world.view(policy, attack, count, epochs);
            world.share(&view, attack, count)
        });
        let who = match attack {
            Attack::Alone => "has no voucher",
            Attack::OwnsVoucher => "owns a node that a root vouches for",
            Attack::DatesBack => "owns it, and dates its vouches back",
        };
        println!("| {policy} | {who} | {after} | {} | {} | {} |", shares[0], shares[1], shares[2]);
    }
    println!();
    println!("each: hops that are the attacker's / routes with it at both ends, in percent");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attack {
    Alone,
    OwnsVoucher,
    DatesBack,
}

struct World {
    schedule: Schedule,
    start: Time,
    key: MixPublic,
}

fn identity(number: u32) -> Identity {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    Identity::from_seed(&seed)
}

impl World {
    fn new() -> Self {
        let schedule = Schedule::new(EPOCH, EPOCH / 6, EPOCH / 18);
        let start = schedule.start(Epoch::new(165_000));
        let seed = MixSeed::generate(&mut ChaCha20Rng::seed_from_u64(1));
        Self { schedule, start, key: MixSecret::from_seed(&seed).public().clone() }
    }

    /// Numbers from [`HONEST`] on are the attacker's, and node 0's voucher is a root.
    fn view(&self, policy: &str, attack: Attack, attackers: u32, epochs: u32) -> View {
        let mut roots: Vec<_> = (1..=ROOTS).map(|number| identity(number).node()).collect();
        roots.sort_unstable();
        let parameters = Parameters::main();
        let (admission, parameters) = match policy {
            "open" => (Admission::Open, parameters.with_probation(0, 0)),
            _ => (Admission::Vouched { roots, depth: DEPTH, fan_out: FAN_OUT }, parameters),
        };
        let now = self.start.plus(EPOCH * epochs);
        let maker = identity(1);
        let voters = [maker.node()];
        let made =
            Descriptor::create(&maker, "n", self.start, &parameters, &voters, &admission).unwrap();
        let mut directory = Directory::new(&made);
        let publish = |directory: &mut Directory, numbers: std::ops::Range<u32>, at: Time| {
            for number in numbers {
                let record = self.record(number, u64::from(epochs) + at.as_millis(), at);
                directory.admit(record, Source::CatchUp, at).unwrap();
            }
        };
        publish(&mut directory, 0..HONEST, self.start.minus(HOUR));
        // The honest ones have been vouched for since long ago, level by level.
        let long_ago = self.start.minus(EPOCH * 100);
        let mut honest = (5..HONEST).chain([0]);
        let mut vouchers: Vec<u32> = (1..=ROOTS).collect();
        let mut fresh = HONEST..HONEST + attackers;
        directory.note_word(self.vouch(1, 0, long_ago, long_ago), Source::CatchUp, self.start).ok();
        while let Some(voucher) = vouchers.first().copied() {
            vouchers.remove(0);
            for subject in honest.by_ref().take(usize::from(FAN_OUT) - 1) {
                directory
                    .note_word(
                        self.vouch(voucher, subject, long_ago, long_ago),
                        Source::CatchUp,
                        self.start,
                    )
                    .ok();
                vouchers.push(subject);
            }
        }
        // The honest ones are listed before the attacker's come.
        let list = |directory: &mut Directory, at: Time| {
            directory.turn_hour(at);
            directory.restore_list(directory.propose(self.schedule.hour_at(at)));
        };
        list(&mut directory, self.start);
        publish(&mut directory, HONEST..HONEST + attackers, self.start);
        // The attacker's: from node 0 on, as wide and as deep as it goes.
        let mut vouchers = if attack == Attack::Alone { Vec::new() } else { vec![0] };
        let since = if attack == Attack::DatesBack { long_ago } else { self.start };
        while let Some(voucher) = vouchers.first().copied() {
            vouchers.remove(0);
            for subject in fresh.by_ref().take(usize::from(FAN_OUT)) {
                if directory
                    .note_word(
                        self.vouch(voucher, subject, since, self.start),
                        Source::CatchUp,
                        self.start,
                    )
                    .is_ok()
                {
                    vouchers.push(subject);
                }
            }
        }
        list(&mut directory, self.start.plus(HOUR));
        publish(&mut directory, 0..HONEST + attackers, now.minus(HOUR));
        list(&mut directory, now);
        directory.view().unwrap().if_sufficient().unwrap()
    }

    fn share(&self, view: &View, attack: Attack, attackers: u32) -> String {
        let voucher = (attack != Attack::Alone).then_some(0);
        let bad = (HONEST..HONEST + attackers).chain(voucher);
        let bad: BTreeSet<NodeId> = bad.map(|number| identity(number).node()).collect();
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let epoch = self.schedule.epoch_at(view.taken());
        let own = [identity(2).node()];
        let (mut hops, mut theirs, mut ends) = (0, 0, 0);
        for _ in 0..ROUTES {
            let route = view.route(&own, &(epoch..=epoch), &mut rng, |_| true).unwrap();
            let of = |index: usize| bad.contains(&route.hops()[index].node());
            let length = route.hops().len();
            hops += length;
            theirs += (0..length).filter(|index| of(*index)).count();
            ends += u32::from(of(0) && of(length - 1));
        }
        let percent = |part: f64, all: f64| 100.0 * part / all;
        let (theirs, hops) = (theirs as f64, hops as f64);
        format!("{:.1} / {:.1}", percent(theirs, hops), percent(ends.into(), ROUTES.into()))
    }

    fn record(&self, number: u32, sequence: u64, at: Time) -> record::Record {
        let first = self.schedule.epoch_at(at);
        let draft = Draft {
            sequence,
            keys: (0..3).map(|ahead| (first.plus(ahead), self.key.clone())).collect(),
            exit: Some(ExitPolicy {
                domains: Domains::Any,
                max_message: 1 << 20,
                offers: Capabilities::NONE,
            }),
            ..testing::blank(at)
        };
        let octets = draft.sign(&identity(number), &NETWORK).unwrap();
        match Statement::check(&octets, &NETWORK).unwrap() {
            Statement::Record(signed) => signed.timely(at, &self.schedule).unwrap(),
            Statement::Vouch(_) | Statement::Proof(_) | Statement::Vote(_) => {
                unreachable!("it was signed as a record")
            }
        }
    }

    fn vouch(&self, voucher: u32, subject: u32, since: Time, at: Time) -> record::Vouch {
        let draft = VouchDraft {
            word: Word::Vouch,
            subject: identity(subject).node(),
            role: VouchRole::Exit,
            since,
            issued_at: at,
            expires_at: at.plus(EPOCH * 240),
            extensions: Vec::new(),
        };
        let octets = draft.sign(&identity(voucher), &NETWORK).unwrap();
        match Statement::check(&octets, &NETWORK).unwrap() {
            Statement::Vouch(signed) => signed.timely(at, &self.schedule, 720).unwrap(),
            Statement::Record(_) | Statement::Proof(_) | Statement::Vote(_) => {
                unreachable!("it was signed as a vouch")
            }
        }
    }
}

//! Whole networks with cover in virtual time: what mixes do, and what nodes do about others that fail or
//! attack them.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{MINUTE, mail, network, total};
use fog_remailer::sim::{Delivered, Sent, Simulation};
use fog_remailer::{Alarm, Count, DECOY_DOMAIN, Role, Setup, Shunned};
use keys::{Identity, Time};
use mail::{Mailbox, Submission};
use rand::RngExt as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::Parameters;
use sphinx::{Body, End, Hop, SizeClass, wrap};

/// A network whose nodes send cover, with all its links.
fn covered(nodes: u16, seed: u64) -> Simulation<ChaCha20Rng> {
    let parameters = Parameters::main().with_first_list(nodes).with_probation(0, 0);
    let mut simulation = network(nodes, &parameters, seed);
    simulation.run(MINUTE * 5);
    simulation
}

fn delivered(simulation: &Simulation<ChaCha20Rng>) -> BTreeSet<u32> {
    let of = |delivered: &Delivered| {
        delivered.delivery.recipients[0].local().trim_start_matches('r').parse().unwrap()
    };
    simulation.delivered().iter().map(of).collect()
}

#[test]
fn no_new_mail_goes_through_nodes_that_were_killed_and_they_are_used_again_once_they_are_back() {
    let mut simulation = covered(10, 31);
    let begin = simulation.now();
    let avoid = |simulation: &Simulation<ChaCha20Rng>, of: usize| {
        let dead = [8, 9].map(|node| simulation.nodes()[node].node());
        let node = &simulation.nodes()[of];
        dead.map(|dead| node.health(&dead, simulation.now()).shunned).iter().flatten().count()
    };
    for node in [8, 9] {
        simulation.stop(node);
    }
    // Minute after minute, four mails from each of two nodes.
    let mut mails = Vec::new();
    for minute in 0..12 {
        for number in 0..8 {
            let name = minute * 8 + number;
            let mail = mail(&format!("r{name}@b.example"), "body");
            let from = usize::from(number % 2 == 0);
            if simulation.submit(from, &mail).is_ok() {
                mails.push((minute, name));
            }
        }
        simulation.run(MINUTE);
        let of_all = (0..8).map(|node| avoid(&simulation, node)).sum::<usize>();
        if minute >= 4 {
            assert_eq!(of_all, 16, "minute {minute}");
        }
    }
    simulation.run(MINUTE * 75);
    let came = delivered(&simulation);
    let mut shares = Vec::new();
    for minute in 0..12 {
        let of_minute = mails.iter().filter(|(at, _)| *at == minute);
        let (mut sent, mut lost) = (0, 0);
        for (_, name) in of_minute {
            sent += 1;
            lost += usize::from(!came.contains(name));
        }
        shares.push((sent, lost));
    }
    println!(
        "mails of each minute after the death of two of ten, and how many were lost: {shares:?}"
    );
    assert!(shares[..3].iter().any(|(_, lost)| *lost > 0), "{shares:?}");
    assert!(shares[5..].iter().all(|(sent, lost)| *sent > 0 && *lost == 0), "{shares:?}");
    for node in [8, 9] {
        simulation.go_on(node);
    }
    let back = simulation.now();
    simulation.run(MINUTE * 10);
    assert_eq!((0..8).map(|node| avoid(&simulation, node)).sum::<usize>(), 0);
    let to_them = simulation.sent().iter().filter(|sent| sent.at > back && sent.to >= 8);
    assert!(to_them.count() > 20 && begin < back);
}

#[test]
fn a_node_that_drops_most_of_what_it_gets_is_found_by_loops_alone() {
    let mut simulation = covered(10, 33);
    simulation.drop_at(6, 600);
    let bad = simulation.nodes()[6].node();
    let found = |simulation: &Simulation<ChaCha20Rng>| {
        let shun = |of: &usize| {
            let health = simulation.nodes()[*of].health(&bad, simulation.now());
            health.shunned == Some(Shunned::Losing)
        };
        (0..10).filter(|of| *of != 6).filter(shun).count()
    };
    let mut minutes = 0;
    while found(&simulation) < 9 {
        simulation.run(MINUTE);
        minutes += 1;
        assert!(minutes < 240, "{} of 9", found(&simulation));
    }
    let sent = total(&simulation, Count::LoopSent) / 10;
    println!("all nine others leave it out after {minutes} minutes, and {sent} loops of each");
    for (number, node) in simulation.nodes().iter().enumerate() {
        for other in simulation.nodes() {
            let health = node.health(&other.node(), simulation.now());
            assert!(health.shunned.is_none() || other.node() == bad, "{number}");
        }
    }
}

#[test]
fn a_node_that_is_kept_from_all_packets_but_an_adversarys_keeps_its_batch_and_says_so() {
    let mut simulation = covered(10, 35);
    simulation.run(MINUTE * 40);
    let node = simulation.nodes()[4].node();
    let is_besieged = |simulation: &Simulation<ChaCha20Rng>| {
        simulation.nodes()[4].alarms(simulation.now()).contains(&Alarm::Besieged)
    };
    let relayed = |simulation: &Simulation<ChaCha20Rng>| {
        simulation.nodes()[4].counts().get(Count::PacketRelayed)
    };
    assert!(!is_besieged(&simulation));
    // All that is for it is held back on the way, and it is sent packets of the adversary's alone, as many
    // as come to it at other times.
    simulation.drop_at(4, 1000);
    let mut rng = ChaCha20Rng::seed_from_u64(36);
    let mut passed = Vec::new();
    for _ in 0..30 {
        let now = simulation.now();
        let epoch = simulation.descriptor().parameters().schedule().epoch_at(now);
        let records: Vec<_> = [4, 1, 2]
            .map(|hop| simulation.nodes()[hop].node())
            .map(|hop| Arc::clone(simulation.nodes()[0].directory().newest(&hop).unwrap()))
            .into();
        for _ in 0..30 {
            let hops: Vec<_> = records
                .iter()
                .map(|record| Hop {
                    node: record.node(),
                    epoch,
                    key: record.key(epoch).unwrap(),
                    delay: Duration::from_secs(1),
                })
                .collect();
            let class = SizeClass::from_number(1).unwrap();
            let body = Body { end: End::Drop, class, content: &[], reply: None };
            let packet = wrap(&hops, &body, &mut rng).unwrap();
            simulation.inject(4, packet.octets().to_vec());
            simulation.run(Duration::from_secs(2));
        }
        passed.push((relayed(&simulation), is_besieged(&simulation)));
        if !passed.iter().any(|(_, is_besieged)| *is_besieged) {
            let others = simulation.nodes().iter().filter(|other| other.node() != node);
            let alarms = others.flat_map(|other| other.alarms(simulation.now()));
            assert_eq!(alarms.filter(|alarm| *alarm == Alarm::Besieged).count(), 0);
        }
    }
    let first = passed.iter().position(|(_, is_besieged)| *is_besieged).unwrap();
    println!("seen after {} minutes", first + 1);
    assert!(first <= 9, "{first}");
    // For ten minutes nothing leaves but what was shuffled before, then all of it; and it is said on.
    let at = |minute: usize| passed[minute].0;
    assert_eq!(at(first + 2), at(first + 9), "{passed:?}");
    assert!(at(first + 12) > at(first + 9) + 150, "{passed:?}");
    assert!(passed[first..].iter().all(|(_, is_besieged)| *is_besieged));
}

#[test]
fn every_strategy_delivers_and_in_lock_step_each_round_is_as_the_others() {
    for strategy in 0..4 {
        let parameters = Parameters::main().with_first_list(7).with_probation(0, 0);
        let parameters = parameters.with_strategy(strategy);
        let mut simulation = network(7, &parameters, 40 + u64::from(strategy));
        simulation.run(MINUTE * 10);
        let mut taken = 0;
        for number in 0..20 {
            let mail = mail(&format!("r{number}@b.example"), "body");
            taken += usize::from(simulation.submit(number % 7, &mail).is_ok());
            simulation.run(MINUTE / 4);
        }
        simulation.run(MINUTE * 50);
        assert_eq!(delivered(&simulation).len(), taken, "strategy {strategy}");
        let loops =
            [Count::LoopReturned, Count::LoopMissing].map(|count| total(&simulation, count));
        println!("strategy {strategy}: {taken} mails, {loops:?} loops back and missing");
        assert!(
            taken > 15 && loops[0] > 300 && loops[1] * 50 < loops[0],
            "strategy {strategy}: {loops:?}"
        );
        let mut lots = BTreeMap::new();
        let begin = simulation.now().minus(MINUTE * 30).as_millis().div_ceil(30_000);
        for sent in simulation.sent() {
            let round = sent.at.as_millis() / 30_000;
            if (begin..begin + 50).contains(&round) {
                *lots.entry((round, sent.from, sent.octets)).or_insert(0) += 1;
            }
        }
        let counts = |octets: usize| {
            let of: BTreeSet<usize> =
                lots.iter().filter(|((.., size), _)| *size == octets).map(|(_, n)| *n).collect();
            of
        };
        let sizes = [24, 64, 256].map(|kib| counts(kib * 1024));
        match strategy {
            3 => assert_eq!(sizes, [15, 8, 3].map(|count| BTreeSet::from([count]))),
            _ => assert!(sizes.iter().all(|counts| counts.len() > 3), "{sizes:?}"),
        }
    }
}

/// The distance between samples and an exponential law of this mean, as a part of the distance below which
/// 99.9 % of samples of the law lie.
fn from_exponential(mut gaps: Vec<f64>, mean: f64) -> f64 {
    gaps.sort_by(f64::total_cmp);
    let count = gaps.len() as f64;
    let apart = |(rank, gap): (usize, &f64)| {
        let expected = 1.0 - (-gap / mean).exp();
        (expected - rank as f64 / count).abs().max((expected - (rank as f64 + 1.0) / count).abs())
    };
    gaps.iter().enumerate().map(apart).fold(0.0, f64::max) * count.sqrt() / 1.95
}

#[test]
fn decoys_are_submitted_at_random_and_end_where_they_are_taken() {
    let mut simulation = covered(10, 41);
    let begin = simulation.now();
    simulation.run(MINUTE * 60 * 3);
    let decoys: Vec<_> = simulation.decoys().iter().filter(|decoy| decoy.at >= begin).collect();
    // Three an hour for each of ten nodes: 90, give or take 10.
    assert!((55..130).contains(&decoys.len()), "{}", decoys.len());
    let seconds = |one: &Time, other: &Time| other.since(*one).as_secs_f64();
    let gaps = decoys.windows(2).map(|pair| seconds(&pair[0].at, &pair[1].at)).collect();
    let distance = from_exponential(gaps, 120.0);
    assert!(distance < 1.0, "{distance}");
    let mut ends: BTreeMap<_, [u32; 2]> = BTreeMap::new();
    for decoy in &decoys {
        assert_ne!(decoy.from, decoy.to);
        ends.entry(decoy.from).or_default()[0] += 1;
        ends.entry(decoy.to).or_default()[1] += 1;
    }
    // 9 each, give or take 3.
    assert!(ends.len() == 10 && ends.values().flatten().all(|times| (1..30).contains(times)));
    let of_size = |least, most| {
        let within = decoys.iter().filter(|decoy| (least..most).contains(&decoy.octets));
        within.count() * 100 / decoys.len()
    };
    // As the clock's ticks: 60, 30 and 10 of a hundred.
    let [small, medium, large] =
        [1, 5, 8].map(|class| SizeClass::from_number(class).unwrap().capacity());
    let shares = [of_size(400, small), of_size(small, medium), of_size(medium, large + 1)];
    println!("{} decoys, of each size in percent: {shares:?}; {ends:?}", decoys.len());
    assert!(
        shares[0].abs_diff(60) < 19 && shares[1].abs_diff(30) < 18 && shares[2].abs_diff(10) < 10
    );
    let counts = [Count::DecoyTaken, Count::DecoySubmitted].map(|of| total(&simulation, of));
    assert_eq!(counts, [simulation.decoys().len() as u64; 2]);
    // No mail hides among them for whoever takes them, and `fog status` counts none.
    assert_eq!(simulation.nodes()[0].hides_among(), 0);
    // They are cover: no packet is one of mail, and no tick is without one.
    for of in [Count::MessageTaken, Count::PacketSent, Count::TickEmpty, Count::MessageToDeliver] {
        assert_eq!(total(&simulation, of), 0, "{of:?}");
    }
}

#[test]
fn decoys_take_the_ticks_that_mail_would_and_are_refused_when_there_are_none() {
    let decoy = || mail(&format!("nobody@{DECOY_DOMAIN}"), "body");
    let large = |to: &str| {
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        let mut line = || (0..70).map(|_| char::from(rng.random_range(b'/'..=b'~'))).collect();
        mail(to, &(0..6000).map(|_| line()).collect::<Vec<String>>().join("\r\n"))
    };
    // As many decoys as mails are taken, but for the times that are drawn for them: who asks for ticks cannot
    // tell which of them took those.
    let taken = |of: &dyn Fn() -> Submission| {
        let mut simulation = covered(6, 43);
        let taken = (0..200).filter(|_| simulation.submit(2, &of()).is_ok()).count();
        assert!(simulation.submit(2, &decoy()).is_err());
        assert!(simulation.submit(2, &mail("r1@b.example", "body")).is_err());
        (simulation, taken)
    };
    let (_, mails) = taken(&|| mail("r1@b.example", "body"));
    let (mut simulation, decoys) = taken(&decoy);
    let differ = decoys.abs_diff(mails);
    assert!(decoys > 20 && differ * 10 <= mails, "{decoys} decoys, {mails} mails");
    simulation.submit(3, &large(&format!("x@{DECOY_DOMAIN}"))).unwrap();
    let refused = simulation.nodes()[2].counts().get(Count::DecoyRefused);
    assert!(refused > 100, "{refused}");
    simulation.run(MINUTE * 60);
    // They leave as cover, and nothing is delivered.
    for node in [2, 3] {
        // No mail waits.
        assert_eq!(simulation.nodes()[node].held().waiting, 0);
        let counted = |of| simulation.nodes()[node].counts().get(of);
        assert_eq!(counted(Count::PacketSent) + counted(Count::TickEmpty), 0);
    }
    assert_eq!(total(&simulation, Count::PieceTaken), 0);
    assert!(simulation.delivered().is_empty());
}

#[test]
fn mail_for_somebody_and_for_nobody_comes_to_somebody() {
    let mut simulation = covered(6, 42);
    let mut both = mail("r1@b.example", "body");
    both.recipients.push(Mailbox::parse(&format!("x@{DECOY_DOMAIN}")).unwrap());
    simulation.submit(2, &both).unwrap();
    simulation.run(MINUTE * 75);
    assert_eq!(delivered(&simulation), BTreeSet::from([1]));
    assert_eq!(simulation.delivered()[0].delivery.recipients.len(), 1);
}

#[test]
fn a_node_that_has_slept_for_two_hours_sends_no_burst_and_nothing_early() {
    const SLEPT: Duration = Duration::from_secs(7200);
    const SLEEPER: usize = 4;
    const ATTEMPTS: usize = 4;
    let mut simulation = covered(10, 43);
    simulation.run(MINUTE * 60);
    for number in 0..6 {
        simulation.submit(SLEEPER, &mail(&format!("r{number}@b.example"), "body")).unwrap();
    }
    let (asleep, held) = (simulation.now(), simulation.nodes()[SLEEPER].held());
    assert!(held.mixing > 0 && held.waiting == 6 * ATTEMPTS, "{held:?}");
    simulation.stop(SLEEPER);
    simulation.run(SLEPT);
    simulation.wake(SLEEPER, SLEPT);
    let awake = simulation.now();
    simulation.run(MINUTE);
    let waiting = simulation.nodes()[SLEEPER].held().waiting;
    simulation.run(MINUTE * 19);
    let left = |from: Time, span: Duration| {
        let within = from..from.plus(span);
        let own = simulation.sent().iter().filter(|sent| sent.from == SLEEPER);
        own.filter(|sent| within.contains(&sent.at)).count()
    };
    assert_eq!(left(asleep, SLEPT), 0);
    let minute = |from: Time, number: u32| left(from.plus(MINUTE * number), MINUTE);
    let usual: Vec<_> = (0..10).map(|number| minute(asleep.minus(MINUTE * 10), number)).collect();
    let after: Vec<_> = (0..10).map(|number| minute(awake, number)).collect();
    println!("packets a minute before two hours of sleep: {usual:?}; after: {after:?}");
    let most = usual.iter().max().unwrap();
    assert!(after.iter().all(|packets| packets <= most), "{usual:?}, {after:?}");
    // In the first windows nothing comes in that could go out: what leaves is what was held, on its time.
    assert!(after[0] <= held.mixing + 8, "{held:?}, {after:?}");
    assert!((after[1] + after[2]) * 5 <= usual.iter().sum::<usize>(), "{usual:?}, {after:?}");
    // Mail waits for as long as it had to: on average ten minutes from when it was submitted.
    println!("of the packets of six mails {waiting} wait a minute after");
    assert!(waiting >= 6 * ATTEMPTS - 2);
}

/// The distance of Kolmogorov and Smirnov between two samples, as a part of the distance below which 99.9 %
/// of pairs of samples of one law lie.
fn distance(mut one: Vec<u64>, mut other: Vec<u64>) -> f64 {
    one.sort_unstable();
    other.sort_unstable();
    let share = |sample: &[u64], most: u64| {
        sample.partition_point(|value| *value <= most) as f64 / sample.len() as f64
    };
    let apart = |value: &u64| (share(&one, *value) - share(&other, *value)).abs();
    let most = one.iter().chain(&other).map(apart).fold(0.0, f64::max);
    let (n, m) = (one.len() as f64, other.len() as f64);
    most / (1.95 * ((n + m) / (n * m)).sqrt())
}

#[test]
fn a_node_that_relays_nothing_sends_the_same_with_and_without_mail() {
    let mut simulation = covered(5, 46);
    let identity = Identity::generate(&mut ChaCha20Rng::seed_from_u64(45));
    let setup = Setup::new(identity, Arc::clone(simulation.descriptor()));
    let client = simulation.join(Setup { role: Role::Client, ..setup });
    simulation.run(MINUTE * 5);
    const HOURS: u32 = 2;
    let mut begins = Vec::new();
    for (an_hour, octets) in [(0, 0), (60, 2000), (6, 100_000)] {
        begins.push(simulation.now());
        for number in 0..(HOURS * 60) {
            if number * an_hour / 60 != (number + 1) * an_hour / 60 {
                let body = format!("{number} {}", "0123456789abcdef\r\n".repeat(octets / 18));
                // A clock that is full refuses it.
                let _ = simulation.submit(client, &mail("r1@b.example", &body));
            }
            simulation.run(MINUTE);
        }
    }
    assert!(simulation.delivered().len() > 60, "{}", simulation.delivered().len());
    let phase = |from: &Time| {
        let within = *from..from.plus(MINUTE * 60 * HOURS);
        let own = simulation.sent().iter().filter(|sent| sent.from == client);
        own.filter(|sent| within.contains(&sent.at)).copied().collect::<Vec<_>>()
    };
    let phases: Vec<_> = begins.iter().map(phase).collect();
    let gaps = |phase: &[Sent]| {
        let gap = |pair: &[Sent]| u64::try_from(pair[1].at.since(pair[0].at).as_millis()).unwrap();
        phase.windows(2).map(gap).collect::<Vec<_>>()
    };
    let of = |phase: &[Sent], what: fn(&Sent) -> usize| {
        phase.iter().map(|sent| what(sent) as u64).collect::<Vec<_>>()
    };
    let (quiet, others) = phases.split_first().unwrap();
    // A tick of 15 s for what would return, and one for what would not: none stays empty.
    assert!(quiet.len() > 400, "{}", quiet.len());
    assert_eq!(simulation.nodes()[client].counts().get(Count::TickEmpty), 0);
    for busy in others {
        let apart = [
            distance(gaps(quiet), gaps(busy)),
            distance(of(quiet, |sent| sent.octets), of(busy, |sent| sent.octets)),
            distance(of(quiet, |sent| sent.to), of(busy, |sent| sent.to)),
        ];
        println!("{} packets without mail, {} with: {apart:.2?}", quiet.len(), busy.len());
        assert!(apart.iter().all(|apart| *apart < 1.0), "{apart:.2?}");
        let (one, other) = (quiet.len() as f64, busy.len() as f64);
        assert!((one - other).abs() < 4.0 * (one + other).sqrt(), "{one} and {other}");
    }
    // Nothing comes to it: it has no key for answers, and takes ticks for what does not return.
    assert_eq!(simulation.sent().iter().filter(|sent| sent.to == client).count(), 0);
}

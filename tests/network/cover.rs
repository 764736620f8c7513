//! What a watcher of all links sees of a devnet: the same, whether anybody mails or not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::devnet::{Devnet, fog, wait_for};
use crate::large::Session;

/// A packet on a link: when it was sent, by whom, and how large.
struct Seen {
    millis: u64,
    from: String,
    octets: u64,
}

fn seen(link_log: &Path) -> Vec<Seen> {
    let log = fs::read_to_string(link_log).unwrap();
    let packets = log.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split(',').collect();
        let [millis, from, _, octets] = fields[..] else { panic!("{line}") };
        let octets = octets.parse().unwrap();
        // The others are receipts.
        (octets > 1).then(|| Seen {
            millis: millis.parse().unwrap(),
            from: from.to_owned(),
            octets,
        })
    });
    let mut packets: Vec<_> = packets.collect();
    packets.sort_by_key(|packet| packet.millis);
    packets
}

/// The distance of Kolmogorov and Smirnov between two samples, as a part of the distance below which
/// 99.9 % of pairs of samples of one distribution lie.
fn distance(mut first: Vec<u64>, mut second: Vec<u64>) -> f64 {
    first.sort_unstable();
    second.sort_unstable();
    let share = |sample: &[u64], value| {
        sample.partition_point(|other| *other <= value) as f64 / sample.len() as f64
    };
    let apart = |value: &u64| (share(&first, *value) - share(&second, *value)).abs();
    let most = first.iter().chain(&second).map(apart).fold(0.0, f64::max);
    let (n, m) = (first.len() as f64, second.len() as f64);
    most / (1.95 * ((n + m) / (n * m)).sqrt())
}

fn gaps(packets: &[&Seen]) -> Vec<u64> {
    packets.windows(2).map(|pair| pair[1].millis - pair[0].millis).collect()
}

/// Whether a mail is taken; a clock that is full refuses it.
fn submit(session: &mut Session) -> bool {
    for line in ["MAIL FROM:<a@b.example>\r\n", "RCPT TO:<user@b.example>\r\n"] {
        assert!(session.say(line.as_bytes()).starts_with("250"));
    }
    assert!(session.say(b"DATA\r\n").starts_with("354"));
    session.say(b"To: user@b.example\r\n\r\nbody\r\n.\r\n").starts_with("250")
}

/// What the first node has sent on its clock.
fn ticks_used(devnet: &Devnet) -> u64 {
    let status = devnet.status(1);
    let count = |name| status["counts"][name].as_u64().unwrap_or(0);
    ["packet sent", "loop sent", "cover sent"].into_iter().map(count).sum()
}

/// The loops of each node say of the six others that they lose next to nothing.
fn shows_health(devnet: &Devnet, returned: u64) {
    let print = |arguments: &[&str]| {
        let mut command = fog();
        command.args(arguments).arg("--state-dir").arg(devnet.state().join("n1"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = print(&["stats", "--format", "mlist2"]);
    println!("{table}");
    assert!(table.starts_with("Stats-Version: 2.0\nGenerated: "));
    let rows: Vec<_> = table.lines().skip(4).collect();
    assert!(rows.len() == 6 && rows.iter().all(|row| row.ends_with('%')), "{rows:?}");
    let stats: serde_json::Value = serde_json::from_str(&print(&["stats", "--json"])).unwrap();
    for (onion, health) in stats.as_object().unwrap() {
        assert!(health["loss"].as_f64().unwrap() < 0.2, "{onion}: {health}");
        assert!(health["loops"].as_u64().unwrap() > returned / 100, "{onion}: {health}");
        assert!(health["avoided"].is_null() && health["latency_ms"].as_u64().unwrap() > 0);
    }
    assert!(print(&["peers"]).lines().all(|line| line.contains(" a hop")));
}

#[test]
fn links_carry_the_same_with_and_without_mail() {
    const PHASE: Duration = Duration::from_secs(30);
    let folder = tempfile::tempdir().unwrap();
    let link_log = folder.path().join("links");
    let devnet = Devnet::start_with(100, None, &["--link-log", link_log.to_str().unwrap()]);
    // Loops come back from the first minutes on.
    wait_for("a loop", Duration::from_secs(60), || {
        (devnet.count("loop returned") > 20).then_some(())
    });
    let begin = |log: &Path| seen(log).last().map_or(0, |packet| packet.millis);
    let quiet_from = begin(&link_log);
    let before = ticks_used(&devnet);
    sleep(PHASE);
    let in_quiet = ticks_used(&devnet) - before;
    assert_eq!(devnet.count("packet sent"), 0);
    let (mut one, mut other) = (Session::open(devnet.port), Session::open(devnet.port + 1));
    for session in [&mut one, &mut other] {
        assert!(session.say(b"EHLO x\r\n").starts_with("250"));
    }
    // As many as there is room for wait when the second phase begins.
    let mut mails = (0..60).filter(|_| submit(&mut one)).count();
    wait_for("a packet of mail", Duration::from_secs(60), || {
        (devnet.count("packet sent") > 0).then_some(())
    });
    let busy_from = begin(&link_log);
    let before = ticks_used(&devnet);
    let start = Instant::now();
    while start.elapsed() < PHASE {
        mails += usize::from(submit(&mut one)) + usize::from(submit(&mut other));
        sleep(Duration::from_millis(500));
    }
    let in_busy = ticks_used(&devnet) - before;
    let of_mail = devnet.count("packet sent");
    println!("{in_quiet} ticks used without mail, {in_busy} with {mails}, which took {of_mail}");
    assert!(of_mail > 60, "{of_mail}");
    // Both counts are Poisson. Mail beside the clock would be a quarter more.
    let (quiet, busy) = (in_quiet as f64, in_busy as f64);
    assert!((quiet - busy).abs() < 4.0 * (quiet + busy).sqrt(), "{in_quiet} and {in_busy}");
    wait_for("a mail", Duration::from_secs(60), || (!devnet.mails().is_empty()).then_some(()));
    let all = seen(&link_log);
    let phase = |from: u64| -> Vec<&Seen> {
        let within = from..from + u64::try_from(PHASE.as_millis()).unwrap();
        all.iter().filter(|packet| within.contains(&packet.millis)).collect()
    };
    let (quiet, busy) = (phase(quiet_from), phase(busy_from));
    let octets = |packets: &[&Seen]| packets.iter().map(|packet| packet.octets).sum::<u64>();
    println!(
        "{} packets of {} KiB without mail, {} of {} KiB with {mails} mails",
        quiet.len(),
        octets(&quiet) / 1024,
        busy.len(),
        octets(&busy) / 1024
    );
    let sizes = |packets: &[&Seen]| packets.iter().map(|packet| packet.octets).collect();
    let mut distances = BTreeMap::new();
    // A packet is on some seven links, and has one size: so many fewer are independent.
    let of_sizes = distance(sizes(&quiet), sizes(&busy)) / 7_f64.sqrt();
    distances.insert("sizes".to_owned(), of_sizes);
    distances.insert("gaps".to_owned(), distance(gaps(&quiet), gaps(&busy)));
    let mut nodes: Vec<_> = all.iter().map(|packet| &packet.from).collect();
    nodes.sort();
    nodes.dedup();
    for (number, node) in nodes.into_iter().enumerate() {
        let of = |packets: &[&Seen]| -> Vec<u64> {
            let own: Vec<_> = packets.iter().filter(|packet| packet.from == *node).collect();
            own.windows(2).map(|pair| pair[1].millis - pair[0].millis).collect()
        };
        distances.insert(format!("gaps of node {number}"), distance(of(&quiet), of(&busy)));
    }
    println!("{distances:.2?}");
    assert!(distances.values().all(|distance| *distance < 1.0), "{distances:.2?}");
    let missing = devnet.count("loop missing");
    let returned = devnet.count("loop returned");
    assert!(missing * 20 < returned, "{missing} missing, {returned} returned");
    shows_health(&devnet, returned);
    // Each word of a delivery came back where a loop would have.
    assert!(devnet.count("recipient acknowledged: delivered") > 0);
}

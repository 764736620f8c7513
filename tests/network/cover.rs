//! What a watcher of all links sees of a devnet: the same, whether anybody mails or not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::devnet::{Devnet, fog, wait_for};
use crate::large::Session;

const SPEED: u32 = 100;

/// A packet on a link: when it was sent, between whom, and how large.
struct Seen {
    millis: u64,
    ends: (String, String),
    octets: u64,
}

fn seen(link_log: &Path) -> Vec<Seen> {
    let log = fs::read_to_string(link_log).unwrap();
    let packets = log.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split(',').collect();
        let [millis, from, to, octets] = fields[..] else { panic!("{line}") };
        // The others are receipts, and decoys, which go another way.
        let octets = octets.parse().ok().filter(|octets| *octets > 1)?;
        let ends = (from.to_owned(), to.to_owned());
        Some(Seen { millis: millis.parse().unwrap(), ends, octets })
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

/// In hundredths of a second, which are seconds of the network: what is finer is how busy this machine is.
fn gaps(packets: &[&Seen]) -> Vec<u64> {
    packets.windows(2).map(|pair| (pair[1].millis - pair[0].millis) / 10).collect()
}

/// Whether a mail of so many octets is taken; a clock that is full refuses it.
fn submit(session: &mut Session, octets: usize) -> bool {
    for line in ["MAIL FROM:<a@b.example>\r\n", "RCPT TO:<user@b.example>\r\n"] {
        let reply = session.say(line.as_bytes());
        assert!(reply.starts_with("250"), "{reply}");
    }
    assert!(session.say(b"DATA\r\n").starts_with("354"));
    let mut rng = StdRng::seed_from_u64(1);
    let mut mail = b"To: user@b.example\r\n\r\n".to_vec();
    while mail.len() < octets {
        mail.extend((0..76).map(|_| rng.random_range(b'/'..=b'~')));
        mail.extend_from_slice(b"\r\n");
    }
    mail.extend_from_slice(b".\r\n");
    session.say(&mail).starts_with("250")
}

/// What the kernel has counted on each TCP socket of a process whose peer is in it as well, another node:
/// octets that the peer has acknowledged.
fn sockets(process: u32) -> BTreeMap<(String, String), u64> {
    let output = Command::new("ss").args(["-tinpHO", "state", "established"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let own = format!("pid={process},");
    let counted = text.lines().filter(|line| line.contains(&own)).filter_map(|line| {
        let mut words = line.split_whitespace();
        let acked = words.clone().find_map(|word| word.strip_prefix("bytes_acked:"))?;
        let (local, peer) = (words.nth(2)?, words.next()?);
        Some(((local.to_owned(), peer.to_owned()), acked.parse().ok()?))
    });
    let all: BTreeMap<_, _> = counted.collect();
    let is_link =
        |(local, peer): &(String, String)| all.contains_key(&(peer.clone(), local.clone()));
    all.iter()
        .filter(|(ends, _)| is_link(ends))
        .map(|(ends, acked)| (ends.clone(), *acked))
        .collect()
}

/// What happens in a time, and what an observer has seen of it.
struct Phase {
    name: &'static str,
    /// Mails an hour that each of so many nodes is handed, and octets of each.
    mails: (u32, usize),
    nodes: u16,
    from: u64,
    /// Mails that were taken.
    taken: usize,
    /// Octets that each socket sent in each half second.
    counted: Vec<u64>,
    ticks: u64,
}

impl Phase {
    const fn new(name: &'static str, mails: (u32, usize), nodes: u16) -> Self {
        Self { name, mails, nodes, from: 0, taken: 0, counted: Vec::new(), ticks: 0 }
    }

    /// Lets it pass: as many mails as are due, twice in a second a look at the sockets. A clock that is full
    /// refuses mail.
    fn pass(&mut self, devnet: &Devnet, log: &Path, span: Duration) {
        const LOOK: Duration = Duration::from_millis(500);
        let open = |node| {
            let mut session = Session::open(devnet.port + node);
            assert!(session.say(b"EHLO x\r\n").starts_with("250"));
            session
        };
        let mut sessions: Vec<_> = (0..self.nodes).map(open).collect();
        self.from = seen(log).last().map_or(0, |packet| packet.millis);
        let (ticks, start) = (ticks_used(devnet), Instant::now());
        let (an_hour, octets) = self.mails;
        let mut handed = 0;
        let process = devnet.process();
        // In a thread of its own: mail must not keep it from looking.
        let looking = std::thread::spawn(move || {
            let mut counted = Vec::new();
            let mut before = sockets(process);
            for look in 1.. {
                let due = LOOK * look;
                if due > span {
                    break;
                }
                sleep(due.saturating_sub(start.elapsed()));
                let now = sockets(process);
                let more = now.iter().filter_map(|(name, sent)| {
                    // A pair of ports may be used again.
                    sent.checked_sub(*before.get(name)?)
                });
                counted.extend(more);
                before = now;
            }
            counted
        });
        while start.elapsed() < span {
            let hours = start.elapsed().as_secs_f64() * f64::from(SPEED) / 3600.0;
            if f64::from(handed) >= hours * f64::from(an_hour) {
                sleep(Duration::from_millis(20));
                continue;
            }
            handed += 1;
            // A session may bring a hundred.
            if handed % 50 == 0 {
                sessions = (0..self.nodes).map(open).collect();
            }
            let taken = sessions.iter_mut().map(|session| submit(session, octets));
            self.taken += taken.map(usize::from).sum::<usize>();
        }
        self.counted = looking.join().unwrap();
        self.ticks = ticks_used(devnet) - ticks;
    }

    fn of<'a>(&self, all: &'a [Seen], span: Duration) -> Vec<&'a Seen> {
        let within = self.from..self.from + u64::try_from(span.as_millis()).unwrap();
        all.iter().filter(|packet| within.contains(&packet.millis)).collect()
    }
}

/// The packets of each group, as what it is called.
fn groups<'a>(
    packets: &[&'a Seen],
    name: impl Fn(&Seen) -> String,
) -> BTreeMap<String, Vec<&'a Seen>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for packet in packets {
        groups.entry(name(packet)).or_default().push(*packet);
    }
    groups
}

/// Packets of each second.
fn seconds((phase, packets): (&Phase, &[&Seen])) -> Vec<u64> {
    let last = packets.last().map_or(0, |packet| packet.millis);
    let mut seconds = vec![0; usize::try_from((last - phase.from) / 1000).unwrap()];
    for packet in packets {
        if let Some(second) = seconds.get_mut(((packet.millis - phase.from) / 1000) as usize) {
            *second += 1;
        }
    }
    seconds
}

/// How far two phases are apart, in all that is looked at: a part of what chance alone is let have.
fn apart(one: (&Phase, &[&Seen]), other: (&Phase, &[&Seen])) -> BTreeMap<String, f64> {
    // There are some hundred samples, of which none may be further apart than one in a million pairs of
    // samples is: 2.69 and not 1.95 is the factor for that.
    const MANY: f64 = 1.95 / 2.69;
    let sizes = |packets: &[&Seen]| packets.iter().map(|packet| packet.octets).collect();
    let mut apart = BTreeMap::new();
    // A packet is on some seven links, and has one size: so many fewer are independent.
    apart.insert("all sizes".to_owned(), distance(sizes(one.1), sizes(other.1)) / 7_f64.sqrt());
    let counted = distance(one.0.counted.clone(), other.0.counted.clone()) / 7_f64.sqrt();
    apart.insert("sockets".to_owned(), counted);
    // One tick makes several packets, which fall into one second or two.
    let of_seconds = distance(seconds(one), seconds(other)) / 2_f64.sqrt();
    apart.insert("packets a second".to_owned(), of_seconds);
    // Counts of what comes so many at a time by a Poisson process, five standard deviations apart.
    let times = |[one, other]: [u64; 2], together: f64| {
        let (one, other) = (one as f64, other as f64);
        (one - other).abs() / (5.0 * (together * (one + other)).sqrt())
    };
    apart.insert("ticks".to_owned(), times([one.0.ticks, other.0.ticks], 1.0));
    // One tick makes a packet on each of its links, half of them there and back.
    let packets = [one.1, other.1].map(|packets| u64::try_from(packets.len()).unwrap());
    apart.insert("packets".to_owned(), times(packets, 8.0));
    let node = |packet: &Seen| format!("from {}", packet.ends.0);
    let link = |packet: &Seen| format!("{} to {}", packet.ends.0, packet.ends.1);
    for (what, of) in [("node", &node as &dyn Fn(&Seen) -> String), ("link", &link)] {
        let (first, second) = (groups(one.1, of), groups(other.1, of));
        assert!(first.keys().eq(second.keys()) && first.len() >= 7);
        let mut most = [0.0_f64; 3];
        for (first, second) in first.values().zip(second.values()) {
            let counts = [first, second].map(|packets| u64::try_from(packets.len()).unwrap());
            let found = [
                // Windows group packets, so that no more than a third of the gaps is independent.
                distance(gaps(first), gaps(second)) * MANY / 3_f64.sqrt(),
                distance(sizes(first), sizes(second)) * MANY,
                // Of those of one tick some leave the same node.
                times(counts, 3.0),
            ];
            most = core::array::from_fn(|what| most[what].max(found[what]));
        }
        for (of, most) in ["gaps", "sizes", "packets"].iter().zip(most) {
            apart.insert(format!("{of} of a {what}"), most);
        }
    }
    apart
}

/// What all nodes have sent on their clocks.
fn ticks_used(devnet: &Devnet) -> u64 {
    ["packet sent", "loop sent", "cover sent"].into_iter().map(|name| devnet.count(name)).sum()
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

/// Phases without mail, and with mail of different sizes at one node. In the last, which is all of the short
/// form, every node has mail for each tick that takes such mail, three of ten: beside the clock it would be
/// as many packets more.
fn phases() -> (Duration, Vec<Phase>) {
    let quiet = Phase::new("no mail", (0, 0), 0);
    let full = Phase::new("mail on every tick for it", (200, 2000), 7);
    if std::env::var_os("FOG_LONG").is_none() {
        return (Duration::from_secs(30), vec![quiet, full]);
    }
    let mails = [
        Phase::new("no mail again", (0, 0), 0),
        Phase::new("10 mails of 2 KB", (10, 2000), 1),
        Phase::new("60 mails of 2 KB", (60, 2000), 1),
        Phase::new("10 mails of 1 MB", (10, 1_000_000), 1),
        Phase::new("60 mails of 1 MB", (60, 1_000_000), 1),
        full,
    ];
    // Three hours of the network.
    (Duration::from_secs(108), [quiet].into_iter().chain(mails).collect())
}

#[test]
fn links_carry_the_same_with_and_without_mail() {
    let folder = tempfile::tempdir().unwrap();
    let link_log = folder.path().join("links");
    let devnet = Devnet::start_with(SPEED, None, &["--link-log", link_log.to_str().unwrap()]);
    // As many loops are under way as come back from then on: some twenty leave in a second.
    wait_for("loops", Duration::from_secs(60), || {
        (devnet.count("loop returned") > 400).then_some(())
    });
    wait_for("a decoy", Duration::from_secs(60), || {
        (devnet.count("decoy taken") > 0 && devnet.count("decoy submitted") > 0).then_some(())
    });
    let (span, mut phases) = phases();
    for phase in &mut phases {
        let before = devnet.count("packet sent");
        phase.pass(&devnet, &link_log, span);
        let of_mail = devnet.count("packet sent") - before;
        println!(
            "{}: {} taken, which took {of_mail} of {} ticks",
            phase.name, phase.taken, phase.ticks
        );
        if phase.mails.0 > 0 {
            wait_for("a packet of mail", Duration::from_secs(60), || {
                (devnet.count("packet sent") > before).then_some(())
            });
        }
    }
    wait_for("a mail", Duration::from_secs(60), || (!devnet.mails().is_empty()).then_some(()));
    let all = seen(&link_log);
    let (quiet, others) = phases.split_first().unwrap();
    let of_quiet = quiet.of(&all, span);
    let octets = |packets: &[&Seen]| packets.iter().map(|packet| packet.octets).sum::<u64>();
    // The kernel has counted what the log has, and little beside it.
    let (counted, logged) = (quiet.counted.iter().sum::<u64>() as f64, octets(&of_quiet) as f64);
    println!("{counted} octets on sockets, {logged} of packets");
    assert!(counted > logged * 0.95 && counted < logged * 1.2, "{counted}, {logged}");
    for phase in others {
        let of_phase = phase.of(&all, span);
        println!(
            "{} packets of {} KiB with no mail, {} of {} KiB with {}",
            of_quiet.len(),
            octets(&of_quiet) / 1024,
            of_phase.len(),
            octets(&of_phase) / 1024,
            phase.name
        );
        let apart = apart((quiet, &of_quiet), (phase, &of_phase));
        println!("{apart:.2?}");
        assert!(apart.values().all(|apart| *apart < 1.0), "{}: {apart:.2?}", phase.name);
    }
    let missing = devnet.count("loop missing");
    let returned = devnet.count("loop returned");
    assert!(missing * 20 < returned, "{missing} missing, {returned} returned");
    shows_health(&devnet, returned);
    // Each word of a delivery came back where a loop would have.
    assert!(devnet.count("recipient acknowledged: delivered") > 0);
    // A node whose clock is full with mail refuses a decoy as it refuses mail.
    let refused = devnet.count("decoy not taken by another node");
    assert!(refused * 5 < devnet.count("decoy submitted"), "{refused}");
}

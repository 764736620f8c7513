//! Mix keys over their whole life: under load, over restarts and crashes, and after their end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fog::clock::Clock;
use fog::entropy::generator;
use fog::machine::Machine;
use fog::net::connect::{Connector, DevnetFolder};
use fog::net::{self, Beginning, Handle};
use keys::{Epoch, Identity, MIX_SEED_LEN, MixSecret, MixSeed, NodeId, OnionAddress};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use sphinx::{Body, End, Hop, Packet};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::devnet::{maildir, wait_for};
use crate::node::Node;
use crate::operate::{all_usable, network};

/// A long run has epochs of a minute; the short one the shortest there are, 20 s.
fn speed() -> u32 {
    if std::env::var_os("FOG_LONG").is_some() { 180 } else { 540 }
}

/// The counts of a node at one moment.
struct Counts(Value);

impl Counts {
    fn of(node: &Node) -> Self {
        Self(node.ask("status"))
    }

    fn get(&self, name: &str) -> u64 {
        self.0["counts"][name].as_u64().unwrap_or(0)
    }

    fn like(&self, prefix: &str) -> u64 {
        let counts = self.0["counts"].as_object().unwrap();
        let like = counts.iter().filter(|(name, _)| name.starts_with(prefix));
        like.map(|(_, count)| count.as_u64().unwrap()).sum()
    }

    /// Every packet that came in went out, is held, or was dropped for a known reason.
    fn assert_adds_up(&self) {
        // These packets count as relayed, but the next node did not take them in time.
        let after = self.get("packet dropped: expired") + self.get("packet dropped: queue full");
        let ended = self.get("message to deliver") + self.like("message dropped: not");
        let out = self.get("packet relayed") + ended + self.get("packet ended: cover");
        let out = out + self.get("answer received") + self.get("loop turned");
        let dropped = self.like("packet dropped") - after;
        let held = self.0["held"]["mixing"].as_u64().unwrap();
        // An answer is made here, and relayed like what came.
        let came = self.get("packet received") + self.get("answer sent");
        assert_eq!(came, out + held + dropped, "{:#}", self.0);
    }

    fn assert_no_key_was_missing(&self, who: &str) {
        let reasons = ["early", "no key", "mac", "payload", "replay", "tag not kept"];
        for reason in reasons.into_iter().chain(["unknown next hop"]) {
            assert_eq!(self.get(&format!("packet dropped: {reason}")), 0, "{who}: {reason}");
        }
        assert_eq!(self.get("key withdrawn"), 0, "{who}");
    }
}

/// Tells packets that a busy machine brought too late from packets that were planned wrongly. A
/// packet is sealed for the epoch in which it is planned to arrive, so it is late only if it was
/// delayed on its way by the whole grace: by timers that were handled late, and by links that
/// handed it over slowly, at each of up to six hops. The nodes measure both. What they measured has
/// to explain it.
fn assert_late_packets_were_delayed(all: &[Counts], grace: Duration) {
    let late: u64 = all.iter().map(|counts| counts.get("packet dropped: late")).sum();
    let worst = |what: &str| {
        let measured = all.iter().map(|counts| counts.0["lateness"][what].as_u64().unwrap_or(0));
        Duration::from_millis(measured.max().unwrap_or(0))
    };
    let (timer, handover, packet) = (worst("timer_ms"), worst("handover_ms"), worst("packet_ms"));
    println!("{late} packets late, by {packet:?} at most; timers by {timer:?}, links {handover:?}");
    assert!(
        late == 0 || (timer + handover) * 6 >= grace,
        "{late} packets too late, and nothing delayed them: timers {timer:?}, links {handover:?}"
    );
}

#[test]
fn five_hundred_mails_over_eight_epochs_with_a_restart_a_kill_and_an_outage() {
    const MAILS: u64 = 500;
    const GRACE: Duration = Duration::from_secs(5);
    let folder = tempfile::tempdir().unwrap();
    let mail = folder.path().join("mail");
    let speed = speed();
    let mut nodes = network(&folder, 7, &speed.to_string());
    for node in &mut nodes {
        node.start();
    }
    all_usable(&nodes);
    let epoch = Duration::from_secs(u64::from(10_800 / speed).max(20));
    let gap = epoch * 17 / 2 / u32::try_from(MAILS).unwrap();
    let first = nodes[0].ask("status")["epoch"].as_u64().unwrap();
    let start = Instant::now();
    let mut taken = 0;
    let mut before_restarts = Vec::new();
    for number in 0..MAILS {
        match number {
            120 | 220 | 330 => {
                let node = &mut nodes[4 + usize::try_from(number / 100 - 1).unwrap()];
                let counts = Counts::of(node);
                counts.assert_adds_up();
                counts.assert_no_key_was_missing("before it was stopped");
                before_restarts.push(counts);
                node.signal(if number == 220 { "-KILL" } else { "-TERM" });
                if number == 330 {
                    sleep(Duration::from_secs(180) / speed);
                }
                node.start();
            }
            _ => {}
        }
        // The first four take mail: they are never stopped, so none is lost at the entry.
        let entry = &nodes[usize::try_from(number % 4).unwrap()];
        taken += u64::from(entry.send(&format!("mail {number}")));
        let due = gap * u32::try_from(number + 1).unwrap();
        sleep(due.saturating_sub(start.elapsed()));
    }
    let last = nodes[0].ask("status")["epoch"].as_u64().unwrap();
    assert!(last - first >= 8, "{} epochs", last - first);
    assert_eq!(taken, MAILS, "mail was taken all the time");
    wait_for("nothing held", Duration::from_secs(120), || {
        let quiet = |node: &Node| {
            let held = &node.ask("status")["held"];
            ["mixing", "waiting", "delivering", "messages"].iter().all(|what| held[what] == 0)
        };
        nodes.iter().all(quiet).then_some(())
    });
    let (mut expired, mut unsure) = (0, 0);
    // A restart forgets what was measured; those that were not restarted sent most of the packets.
    let all: Vec<_> = nodes.iter().map(Counts::of).chain(before_restarts).collect();
    assert_late_packets_were_delayed(&all, Duration::from_secs(1800 / u64::from(speed)).max(GRACE));
    for (number, node) in nodes.iter().enumerate() {
        let counts = Counts::of(node);
        counts.assert_adds_up();
        counts.assert_no_key_was_missing(&format!("node {number}"));
        expired += counts.like("packet dropped");
        unsure += counts.like("message over: lost") + counts.like("message over: unknown");
    }
    let mails = maildir(&mail);
    let once: BTreeSet<_> = mails.iter().filter_map(|mail| field(mail, "Message-ID: ")).collect();
    let (delivered, twice) = (once.len() as u64, mails.len() - once.len());
    println!(
        "{taken} mails over {} epochs of {epoch:?}: {delivered} delivered, {twice} of them twice, {unsure} \
         said to be lost or unknown; one node restarted, one killed, one off for a while; {expired} packets \
         dropped",
        last - first
    );
    assert!(delivered + unsure >= taken, "{delivered} + {unsure} of {taken}");
    assert!(delivered * 100 >= taken * 99, "{delivered} of {taken}");
    // What an exit had delivered when it was killed, or whose word was lost, comes by another once more.
    assert!(twice * 10 <= mails.len(), "{twice} twice");
}

/// The value of a field of a mail.
pub(crate) fn field(mail: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(mail);
    text.lines().find_map(|line| line.strip_prefix(name)).map(ToOwned::to_owned)
}

/// The mix key of a node for an epoch, as its own folder has it.
pub(crate) fn seed(node: &Node, epoch: u32) -> Option<MixSeed> {
    let octets = fs::read(node.folder.join(format!("epochs/{epoch}"))).ok()?;
    Some(MixSeed::from_bytes(&<[u8; MIX_SEED_LEN]>::try_from(octets).unwrap()))
}

pub(crate) fn id(node: &Node) -> NodeId {
    node.onion.parse::<OnionAddress>().unwrap().node()
}

/// A packet across three nodes, each of which only passes it on.
fn packet(nodes: [&Node; 3], epoch: u32) -> Packet {
    let keys = nodes.map(|node| MixSecret::from_seed(&seed(node, epoch).unwrap()));
    let hops: Vec<_> = nodes
        .iter()
        .zip(&keys)
        .map(|(node, key)| Hop {
            node: id(node),
            epoch: Epoch::new(epoch),
            key: key.public(),
            delay: Duration::ZERO,
        })
        .collect();
    let body = Body { end: End::Drop, ..Body::default() };
    sphinx::wrap(&hops, &body, &mut StdRng::seed_from_u64(7)).unwrap()
}

/// A peer of the node that no node knows.
pub(crate) async fn stranger(devnet: &Path, to: &Node, number: u8) -> Handle {
    let folder = DevnetFolder::open(devnet).unwrap();
    let descriptor = folder.descriptor().unwrap().unwrap();
    let identity = Identity::from_seed(&[number; 32]);
    let incoming = folder.listen(&OnionAddress::of(identity.node()).unwrap()).await.unwrap();
    let bootstrap = vec![to.onion.parse().unwrap()];
    let beginning = Beginning { bootstrap, chosen: Vec::new() };
    let (connector, rng) = (Connector::Devnet(folder), generator().unwrap());
    let machine = Machine::new(Clock::start(), rng);
    net::spawn(&identity, &descriptor, connector, incoming, beginning, machine).unwrap()
}

/// Four nodes that know each other, the folder that they share, and a runtime for their peers.
fn four(folder: &TempDir, speed: &str) -> (Vec<Node>, PathBuf, Runtime) {
    let mut nodes = network(folder, 4, speed);
    for node in &mut nodes {
        node.start();
    }
    all_usable(&nodes);
    (nodes, folder.path().join("devnet"), Runtime::new().unwrap())
}

#[test]
fn who_was_killed_remembers_what_it_has_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (mut nodes, devnet, runtime) = four(&folder, "100");
    let status = nodes[0].ask("status");
    let (epoch, left) = (status["epoch"].as_u64().unwrap(), status["epoch_ends_in_ms"].as_u64());
    // The epoch has 108 s; what follows needs a few of them and must not meet its grace.
    let epoch = u32::try_from(epoch).unwrap() + u32::from(left.unwrap() < 1800);
    let until = Clock::start().now().plus(Duration::from_secs(600));
    let _inside = runtime.enter();
    let mut handle = runtime.block_on(stranger(&devnet, &nodes[0], 200));
    for (times, signal) in [(0, "-KILL"), (1, "-TERM"), (2, "-KILL")] {
        let sealed = packet([&nodes[0], &nodes[1], &nodes[2]], epoch);
        handle.queues.send(id(&nodes[0]), sealed, until).unwrap();
        let counted = if times == 0 { "packet relayed" } else { "packet dropped: replay" };
        let limit = Duration::from_secs(30);
        wait_for(counted, limit, || (nodes[0].count(counted) == 1).then_some(()));
        wait_for("its end", limit, || (nodes[2].count("packet ended: cover") == 1).then_some(()));
        assert_eq!(nodes[0].count("packet received"), 1, "the counts of this start");
        nodes[0].signal(signal);
        nodes[0].start();
        drop(handle);
        handle = runtime.block_on(stranger(&devnet, &nodes[0], 200));
    }
    assert_eq!(nodes[1].count("packet received"), 1, "one of three got through");
}

/// Twice in one run, by two connections at once, in the grace after its epoch, and after that.
#[test]
fn a_packet_is_opened_once_however_often_and_by_whomever_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (nodes, devnet, runtime) = four(&folder, "540");
    let _inside = runtime.enter();
    let mut peers = [200, 201].map(|number| runtime.block_on(stranger(&devnet, &nodes[0], number)));
    let limit = Duration::from_secs(30);
    let of_now = || u32::try_from(nodes[0].ask("status")["epoch"].as_u64().unwrap()).unwrap();
    let epoch = wait_for("a young epoch", limit, || {
        let left = nodes[0].ask("status")["epoch_ends_in_ms"].as_u64().unwrap();
        (left > 10_000).then(of_now)
    });
    let sealed = packet([&nodes[0], &nodes[1], &nodes[2]], epoch);
    let until = Clock::start().now().plus(Duration::from_secs(600));
    let mut send = |peer: usize| {
        let again = Packet::from_octets(sealed.octets().to_vec()).unwrap();
        peers[peer].queues.send(id(&nodes[0]), again, until).unwrap();
    };
    let comes_to = |dropped: u64| {
        wait_for("what became of it", limit, || {
            (nodes[0].count("packet dropped") == dropped).then_some(())
        });
    };
    // By two connections at once, both of which are there already.
    send(0);
    send(1);
    comes_to(1);
    // Twice by the same.
    send(0);
    comes_to(2);
    assert_eq!(nodes[0].count("packet dropped: replay"), 2);
    // In the grace of its key, unless this machine is too slow to tell.
    wait_for("the end of the epoch", limit, || (of_now() > epoch).then_some(()));
    send(0);
    comes_to(3);
    // After it. The grace is 5 s, and a key is destroyed when it is over.
    wait_for("the end of the key", limit, || seed(&nodes[0], epoch).is_none().then_some(()));
    send(1);
    comes_to(4);
    let late = nodes[0].count("packet dropped: late");
    assert!((1..=2).contains(&late), "{late}");
    wait_for("its end", limit, || (nodes[2].count("packet ended: cover") == 1).then_some(()));
    assert_eq!(nodes[0].count("packet relayed"), 1);
    assert_eq!(nodes[1].count("packet received"), 1);
}

/// The octets of a secret key as it lies in memory, unpacked: what stands before its implicit
/// rejection value, which is the last 32 octets of the seed, in this process's own memory.
fn unpacked_octets(number: &[u8; MIX_SEED_LEN]) -> Vec<Vec<u8>> {
    const POLYNOMIALS: usize = 3 * 256 * 2;
    let _secret = MixSecret::from_seed(&MixSeed::from_bytes(number));
    let rejection = &number[64..];
    let mut parts = Vec::new();
    each_region("self", |_, region| {
        let mut from = 0;
        while let Some(at) = find(&region[from..], rejection).map(|at| from + at) {
            from = at + 1;
            let Some(start) = at.checked_sub(POLYNOMIALS) else { continue };
            let before = &region[start..at];
            let (coefficients, _) = before.as_chunks::<2>();
            let small = |c: &[u8; 2]| i16::from_le_bytes(*c).unsigned_abs() < 3329;
            let distinct: BTreeSet<_> = coefficients.iter().collect();
            if coefficients.iter().all(small) && distinct.len() > 500 {
                parts.extend(before.chunks(512).map(|part| part[..64].to_vec()));
            }
        }
    });
    parts
}

/// Every writable region of a process's memory.
fn each_region(process: &str, mut look: impl FnMut(&str, &[u8])) {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, mode) = (fields.next().unwrap(), fields.next().unwrap());
        if !mode.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (start, end) =
            (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut octets = vec![0; usize::try_from(end - start).unwrap()];
        // Pages that were never touched cannot be read, and hold nothing.
        if memory.read_exact_at(&mut octets, start).is_ok() {
            look(line, &octets);
        }
    }
}

fn find(octets: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = wanted[..8].try_into().map(u64::from_le_bytes).unwrap();
    let starts = octets
        .windows(8)
        .enumerate()
        .filter(|(_, window)| u64::from_le_bytes((*window).try_into().unwrap()) == first);
    let mut found = starts.map(|(at, _)| at).filter(|at| octets[*at..].starts_with(wanted));
    found.next()
}

/// Which of the named secrets are found in the files of a node's folder or in its memory, and
/// where.
pub(crate) fn found(
    node: &Node,
    secrets: &[(&'static str, Vec<u8>)],
) -> BTreeSet<(&'static str, String)> {
    // One pass for all of them: a key lives for some seconds only.
    let mut begins = vec![false; 1 << 16];
    for (_, secret) in secrets {
        begins[usize::from(u16::from_le_bytes([secret[0], secret[1]]))] = true;
    }
    let mut places = BTreeSet::new();
    let mut look = |place: &str, octets: &[u8]| {
        for (at, pair) in octets.windows(2).enumerate() {
            if begins[usize::from(u16::from_le_bytes([pair[0], pair[1]]))] {
                let here = secrets.iter().filter(|(_, secret)| octets[at..].starts_with(secret));
                places.extend(here.map(|(name, _)| (*name, format!("{at:#x} of {place}"))));
            }
        }
    };
    let mut folders = vec![node.folder.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(octets) = fs::read(&path) {
                look(&path.display().to_string(), &octets);
            }
        }
    }
    each_region(&node.process().to_string(), &mut look);
    places
}

#[test]
fn of_a_past_key_nothing_is_left_in_memory_or_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = network(&folder, 5, "540");
    for node in &mut nodes {
        node.start();
    }
    all_usable(&nodes);
    let watched = &nodes[0];
    let epoch = u32::try_from(watched.ask("status")["epoch"].as_u64().unwrap()).unwrap() + 1;
    let limit = Duration::from_secs(60);
    let octets = wait_for("the key of the next epoch", limit, || seed(watched, epoch));
    let octets = *octets.as_bytes();
    let mut clamped = octets[..32].to_vec();
    clamped[0] &= 248;
    clamped[31] = clamped[31] & 127 | 64;
    let mut secrets = vec![
        ("seed", octets.to_vec()),
        ("x25519 scalar", octets[..32].to_vec()),
        ("x25519 scalar, clamped", clamped),
        ("ml-kem d", octets[32..64].to_vec()),
        ("ml-kem z", octets[64..].to_vec()),
    ];
    let unpacked = unpacked_octets(&octets);
    assert!(unpacked.len() >= 3, "an unpacked key was found in the test's own memory");
    secrets.extend(unpacked.into_iter().map(|part| ("ml-kem secret, unpacked", part)));
    let packed = libcrux_packed(&octets);
    secrets.push(("ml-kem secret, packed", packed));

    // In the key's epoch, with mail to open, the search must find the key.
    let is_present = || watched.ask("status")["epoch"].as_u64() == Some(u64::from(epoch));
    wait_for("its epoch", limit, || is_present().then_some(()));
    let mut seen = BTreeSet::new();
    while is_present() {
        for node in &nodes {
            node.send("to be opened");
        }
        seen.extend(found(watched, &secrets).into_iter().map(|(name, _)| name));
    }
    for name in ["seed", "x25519 scalar", "ml-kem z", "ml-kem secret, unpacked"] {
        assert!(
            seen.contains(name),
            "the search does not find the {name} of a living key: {seen:?}"
        );
    }
    assert!(watched.count("packet received") > 0);
    // The key and its grace are over when its file is gone.
    wait_for("the end of the key", limit, || seed(watched, epoch).is_none().then_some(()));
    // A packet that is being opened with it holds it for a millisecond more.
    sleep(Duration::from_secs(1));
    let left = found(watched, &secrets);
    assert!(left.is_empty(), "left of a past key: {left:#?}");
}

/// The packed ML-KEM secret of a seed: its first 64 octets are enough to know it by.
fn libcrux_packed(number: &[u8; MIX_SEED_LEN]) -> Vec<u8> {
    let dz: [u8; 64] = number[32..].try_into().unwrap();
    let pair = libcrux_ml_kem::mlkem768::generate_key_pair(dz);
    pair.private_key().as_slice()[..64].to_vec()
}

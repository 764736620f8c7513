//! A network under every attack that one client, one stranger, one disk or one clock can make, with
//! real mail beside it: what was answered with 250 arrives, or its loss is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

use crate::devnet::{free_ports, wait_for};
use crate::disk::Disk;
use crate::node::Node;
use crate::operate::all_usable;
use crate::stranger;
use crate::tor_mistakes::find_faketime;

/// Nodes, of which the first is attacked and takes the mail.
const NODES: u16 = 5;
const VICTIM: usize = 0;
/// The node that is stopped for a while, and the one whose clock is set.
const STOPPED: usize = 2;
const SET: usize = 3;
/// Each attack alone, and then pairs of them at random.
const EACH: Duration = Duration::from_secs(6);
/// A route takes less.
const QUIET: Duration = Duration::from_secs(25);
const LONG: Duration = Duration::from_secs(30 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Attack {
    DripInMail,
    Repeat,
    SilentSessions,
    SilentSockets,
    SilentStreams,
    ManyRecipients,
    FullDisk,
    Tarpit,
    Suspend,
    Clock,
}

const ALL: [Attack; 10] = [
    Attack::DripInMail,
    Attack::Repeat,
    Attack::SilentSessions,
    Attack::SilentSockets,
    Attack::SilentStreams,
    Attack::ManyRecipients,
    Attack::Tarpit,
    Attack::Suspend,
    Attack::Clock,
    Attack::FullDisk,
];

/// Of these, those that hold all places of sessions.
const SESSIONS: [Attack; 3] = [Attack::DripInMail, Attack::Repeat, Attack::SilentSessions];

/// The next mail server: it takes everything, but says nothing to mail for one domain while it is
/// told to.
#[derive(Default)]
struct Server {
    tarpit: AtomicBool,
    subjects: Mutex<Vec<String>>,
}

impl Server {
    fn start(port: u16) -> Arc<Self> {
        let server = Arc::new(Self::default());
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let serves = Arc::clone(&server);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let serves = Arc::clone(&serves);
                std::thread::spawn(move || serves.talk(stream.unwrap()));
            }
        });
        server
    }

    fn talk(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let mut say = |line: &str| stream.write_all(format!("{line}\r\n").as_bytes()).ok();
        say("220 next")?;
        loop {
            let line = lines.next()?.ok()?;
            match line.to_ascii_uppercase().split([' ', ':']).next()? {
                "EHLO" => say("250-next\r\n250-SIZE 10000000\r\n250 8BITMIME")?,
                "RCPT" if line.contains("tarpit.example") => {
                    while self.tarpit.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(200));
                    }
                    say("250 2.1.5 ok")?;
                }
                "DATA" => {
                    say("354 go on")?;
                    let mut subject = String::new();
                    loop {
                        let line = lines.next()?.ok()?;
                        if line == "." {
                            break;
                        }
                        if let Some(of) = line.strip_prefix("Subject: ") {
                            subject = of.to_owned();
                        }
                    }
                    self.subjects.lock().unwrap().push(subject);
                    say("250 2.0.0 queued")?;
                }
                "QUIT" => return say("221 bye"),
                _ => say("250 ok")?,
            }
        }
    }
}

/// One session. The reply to its mail and the time until its greeting, if it was served: not sent
/// away with 421.
fn submit(port: u16, subject: &str, to: &[String]) -> Option<(String, Duration)> {
    let start = Instant::now();
    let socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let mut writer = socket.try_clone().ok()?;
    let mut lines = BufReader::new(socket).lines();
    let mut line = || loop {
        let line = lines.next()?.ok()?;
        if line.as_bytes().get(3) == Some(&b' ') {
            return Some(line);
        }
    };
    if !line()?.starts_with("220") {
        return None;
    }
    let greeted = start.elapsed();
    let recipients = to.iter().map(|to| format!("RCPT TO:<{to}>"));
    let commands = ["EHLO x".to_owned(), "MAIL FROM:<a@b.example>".to_owned()];
    for command in commands.into_iter().chain(recipients) {
        writer.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let reply = line()?;
        if !reply.starts_with("250") {
            return (!reply.starts_with("421")).then_some((reply, greeted));
        }
    }
    writer.write_all(b"DATA\r\n").ok()?;
    let reply = line()?;
    if !reply.starts_with("354") {
        return Some((reply, greeted));
    }
    writer.write_all(format!("Subject: {subject}\r\n\r\nhello\r\n.\r\n").as_bytes()).ok()?;
    Some((line()?, greeted))
}

/// A session that says something first and then something again and again, and comes back when it is
/// sent away.
async fn session(port: u16, first: &'static str, again: &'static str) {
    loop {
        let talk = async {
            let (mut reader, mut writer) =
                tokio::net::TcpStream::connect(("127.0.0.1", port)).await?.into_split();
            let read = tokio::spawn(async move {
                let mut read = [0; 1024];
                while matches!(reader.read(&mut read).await, Ok(1..)) {}
            });
            writer.write_all(first.as_bytes()).await?;
            while !read.is_finished() {
                tokio::time::sleep(Duration::from_millis(700)).await;
                writer.write_all(again.as_bytes()).await?;
            }
            std::io::Result::Ok(())
        };
        let _ = talk.await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A stranger that comes back under another name when it is hung up on.
async fn strangers(swarm: u16) {
    loop {
        stranger::hold(swarm).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Field<'a> {
    nodes: &'a [Node],
    runtime: Runtime,
    server: Arc<Server>,
    disk: Disk<'a>,
    clock: &'a Path,
    swarm: u16,
}

impl Field<'_> {
    /// Begins an attack, and returns what ends it.
    fn begin(&self, attack: Attack) -> Box<dyn FnOnce() + '_> {
        let port = self.nodes[VICTIM].port;
        let many = |work: &dyn Fn() -> tokio::task::JoinHandle<()>, count: usize| {
            let tasks: Vec<_> = (0..count).map(|_| work()).collect();
            Box::new(move || tasks.iter().for_each(tokio::task::JoinHandle::abort))
                as Box<dyn FnOnce()>
        };
        let sessions = |first: &'static str, again: &'static str| {
            many(&|| self.runtime.spawn(session(port, first, again)), 300)
        };
        match attack {
            Attack::DripInMail => sessions(
                "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nSubject: drip\r\n\r\n",
                "x",
            ),
            Attack::Repeat => sessions(
                "EHLO x\r\n",
                "RSET\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nRSET\r\n",
            ),
            Attack::SilentSessions => sessions("", ""),
            Attack::SilentSockets => {
                let swarm = self.swarm;
                many(&|| self.runtime.spawn(session(swarm, "\x13/multistream/1.0.0\n", "")), 300)
            }
            Attack::SilentStreams => {
                let swarm = self.swarm;
                many(&|| self.runtime.spawn(strangers(swarm)), 128)
            }
            Attack::ManyRecipients => {
                for _ in 0..20 {
                    let to: Vec<_> = (0..100).map(|at| format!("x@d{at}.example")).collect();
                    submit(port, "many", &to);
                }
                Box::new(|| {})
            }
            Attack::FullDisk => {
                self.disk.fill(0);
                Box::new(|| self.disk.free())
            }
            Attack::Tarpit => {
                self.server.tarpit.store(true, Ordering::Relaxed);
                for _ in 0..10 {
                    submit(port, "tarpit", &["x@tarpit.example".to_owned()]);
                }
                Box::new(|| self.server.tarpit.store(false, Ordering::Relaxed))
            }
            Attack::Suspend => {
                self.kill("-STOP");
                Box::new(|| self.kill("-CONT"))
            }
            Attack::Clock => {
                fs::write(self.clock, "+60").unwrap();
                Box::new(|| fs::write(self.clock, "+0").unwrap())
            }
        }
    }

    /// Attacks for a while, and returns the most memory that the victim had, in KiB.
    fn stand(&self, attacks: &[Attack], span: Duration) -> u64 {
        let ends: Vec<_> = attacks.iter().map(|attack| self.begin(*attack)).collect();
        let (since, mut most) = (Instant::now(), 0);
        while since.elapsed() < span {
            std::thread::sleep(Duration::from_millis(250));
            most = most.max(self.nodes[VICTIM].memory_kib());
        }
        for end in ends {
            end();
        }
        most
    }

    fn kill(&self, signal: &str) {
        let process = self.nodes[STOPPED].process().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }
}

/// What a node takes of its machine.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    memory_kib: u64,
    descriptors: usize,
    disk: u64,
}

impl Footprint {
    fn of(node: &Node) -> Self {
        let open = fs::read_dir(format!("/proc/{}/fd", node.process())).unwrap().count();
        Self { memory_kib: node.memory_kib(), descriptors: open, disk: octets(&node.folder) }
    }
}

fn octets(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => octets(&entry.path()),
        Ok(metadata) => metadata.len(),
        // It has gone since.
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// What honest users of the attacked node saw.
#[derive(Default)]
struct Seen {
    tries: usize,
    served: usize,
    slowest: Duration,
    /// The same since the present attack began.
    slowest_now: Duration,
    taken: BTreeSet<String>,
}

impl Seen {
    /// An attack begins; the tries and those served so far.
    fn begin(&mut self) -> (usize, usize) {
        self.slowest_now = Duration::ZERO;
        (self.tries, self.served)
    }
}

/// Sends mail twice a second until the end.
fn honest(port: u16, seen: &Mutex<Seen>, end: &AtomicBool) {
    for number in 0.. {
        if end.load(Ordering::Relaxed) {
            return;
        }
        let subject = format!("honest {number}");
        let sent = submit(port, &subject, &["user@b.example".to_owned()]);
        let mut seen = seen.lock().unwrap();
        seen.tries += 1;
        if let Some((reply, greeted)) = sent {
            seen.served += 1;
            seen.slowest = seen.slowest.max(greeted);
            seen.slowest_now = seen.slowest_now.max(greeted);
            if reply.starts_with("250") {
                seen.taken.insert(subject);
            }
        }
        drop(seen);
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// What the nodes say that they have lost, by name, without what was no packet at all.
fn losses(nodes: &[Node]) -> BTreeMap<String, u64> {
    let mut losses = BTreeMap::new();
    for node in nodes {
        for (name, times) in node.ask("status")["counts"].as_object().unwrap() {
            let is_loss = ["packet dropped", "message dropped", "message refused by"];
            let is_bad = name == "packet dropped: version";
            if !is_bad && is_loss.iter().any(|loss| name.starts_with(loss)) {
                *losses.entry(name.clone()).or_default() += times.as_u64().unwrap();
            }
        }
    }
    losses
}

/// Nodes on one devnet folder; all exits hand mail to one server.
fn network(folder: &Path, ports: u16) -> Vec<Node> {
    let devnet = folder.join("devnet");
    let deliver = format!("smtp://127.0.0.1:{}", ports + NODES);
    let mut nodes: Vec<Node> = Vec::new();
    for at in 0..NODES {
        let number = NODES.to_string();
        let mut options = vec!["--devnet", devnet.to_str().unwrap(), "--deliver", &deliver];
        options.extend(["--speed", "100", "--nodes", &number, "--contact", "ops@fog.invalid"]);
        let bootstrap = nodes.first().map(|first| first.onion.clone());
        if let Some(bootstrap) = &bootstrap {
            options.extend(["--bootstrap", bootstrap]);
        }
        nodes.push(Node::init(&folder.join(format!("n{at}")), ports + at, &options));
    }
    nodes
}

#[test]
fn every_attack_at_random_with_real_mail_beside_loses_nothing_uncounted() {
    let is_long = std::env::var_os("FOG_LONG").is_some();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("n{VICTIM}"));
    let disk = Disk::mount(&path, "size=48m");
    let ports = free_ports(NODES + 1);
    let server = Server::start(ports + NODES);
    let mut nodes = network(folder.path(), ports);
    let clock = folder.path().join("time");
    fs::write(&clock, "+0").unwrap();
    for (at, node) in nodes.iter_mut().enumerate() {
        if at == SET {
            node.start_in(&[
                ("LD_PRELOAD", find_faketime()),
                ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
                ("FAKETIME_NO_CACHE", "1".to_owned()),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ]);
        } else {
            node.start();
        }
    }
    all_usable(&nodes);
    let swarm = fs::read_to_string(folder.path().join("devnet").join(&nodes[VICTIM].onion));
    let swarm = swarm.unwrap().trim().parse().unwrap();
    let runtime = Runtime::new().unwrap();
    let field = Field { nodes: &nodes, runtime, server, disk, clock: &clock, swarm };

    let seen = Mutex::new(Seen::default());
    let end = AtomicBool::new(false);
    let mut rng = StdRng::seed_from_u64(12);
    let mut peak = 0;
    let before = std::thread::scope(|scope| {
        scope.spawn(|| honest(nodes[VICTIM].port, &seen, &end));
        for attack in ALL {
            let memory = nodes[VICTIM].memory_kib();
            let (tries, served) = seen.lock().unwrap().begin();
            let most = field.stand(&[attack], EACH);
            peak = peak.max(most);
            let seen = seen.lock().unwrap();
            println!(
                "{attack:?}: {} of {} honest sessions served, greeted within {:.1?}; {} MiB more",
                seen.served - served,
                seen.tries - tries,
                seen.slowest_now,
                most.saturating_sub(memory) / 1024
            );
        }
        let before = Footprint::of(&nodes[VICTIM]);
        let start = Instant::now();
        while is_long && start.elapsed() < LONG {
            let mut order = ALL;
            order.shuffle(&mut rng);
            // Twice 300 sessions are more than the bound that is stated for their victim.
            while order.chunks(2).any(|pair| pair.iter().all(|attack| SESSIONS.contains(attack))) {
                order.shuffle(&mut rng);
            }
            for pair in order.chunks(2) {
                let span = Duration::from_secs(rng.random_range(15..=40));
                peak = peak.max(field.stand(pair, span));
            }
        }
        end.store(true, Ordering::Relaxed);
        before
    });

    let seen = seen.into_inner().unwrap();
    let drained = Duration::from_secs(400);
    // Cover goes on for ever: mail has come through when none waits and no more of it arrives.
    let mut arrived = (0, Instant::now());
    wait_for("no mail held", drained, || {
        std::thread::sleep(Duration::from_secs(1));
        let is_empty = |node: &Node| {
            let held = &node.ask("status")["held"];
            ["waiting", "delivering"].iter().all(|of| held[of] == 0)
        };
        let now = field.server.subjects.lock().unwrap().len();
        if now != arrived.0 || !nodes.iter().all(is_empty) {
            arrived = (now, Instant::now());
        }
        (arrived.1.elapsed() > QUIET).then_some(())
    });
    let delivered: BTreeSet<_> = field.server.subjects.lock().unwrap().iter().cloned().collect();
    let lost = seen.taken.difference(&delivered).count();
    let losses = losses(&nodes);
    let counted: u64 = losses.values().sum();
    let after = Footprint::of(&nodes[VICTIM]);
    println!(
        "{} of {} honest sessions served, greeted within {:.1?}; {} mails taken, {lost} of them lost \
         ({counted} losses counted: {losses:?}); memory at most {} MiB; after each attack once {before:?}, at the end {after:?}",
        seen.served,
        seen.tries,
        seen.slowest,
        seen.taken.len(),
        peak / 1024,
    );
    assert!(seen.served * 100 >= seen.tries * 95, "{} of {} served", seen.served, seen.tries);
    assert!(seen.slowest < Duration::from_secs(5), "{:?}", seen.slowest);
    assert!(!seen.taken.is_empty() && lost as u64 <= counted);
    assert!(peak < 256 * 1024, "{peak} KiB");
    assert!(after.memory_kib < before.memory_kib + 32 * 1024, "{before:?} {after:?}");
    assert!(after.descriptors < before.descriptors + 32, "{before:?} {after:?}");
    assert!(after.disk < before.disk + (8 << 20), "{before:?} {after:?}");
    // The attacks did take what there is, and their places went to others.
    for name in ["SMTP session ended", "stranger's packet stream ended"] {
        println!("{name} for another: {}", nodes[VICTIM].count(name));
        assert!(nodes[VICTIM].count(name) > 0, "{name}");
    }
    for node in &nodes {
        assert!(!node.ask("peers").to_string().contains("convicted"));
    }
}

//! Mail that was answered with 250, whatever dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fog::store::{Database, DiskKeeper, Job, Store};
use keys::{Epoch, MixSecret, OnionAddress};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use record::Parameters;
use remailer::sim::Simulation;
use remailer::{MessageName, Spooled};
use serde_json::{Value, json};
use sphinx::{EpochKey, EpochKeys, Packet};
use zeroize::Zeroizing;

use crate::devnet::{fog, free_ports, maildir, wait_for};
use crate::node::Node;
use crate::operate::all_usable;
use crate::postfix::Postfix;
use crate::rotation::{field, found, seed};

/// A relay before a mail server that has its bad days: it answers 4xx to one recipient in five, and of fifty
/// mails that the server has taken it says so to forty-nine.
struct Relay {
    port: u16,
    rng: Mutex<StdRng>,
    postponed: Mutex<usize>,
    silenced: Mutex<usize>,
}

impl Relay {
    fn start(server: u16) -> Arc<Self> {
        let port = free_ports(1);
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let rng = Mutex::new(StdRng::seed_from_u64(1));
        let (postponed, silenced) = (Mutex::default(), Mutex::default());
        let relay = Arc::new(Self { port, rng, postponed, silenced });
        let serves = Arc::clone(&relay);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (serves, stream) = (Arc::clone(&serves), stream.unwrap());
                std::thread::spawn(move || {
                    let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                    serves.talk(stream, server)
                });
            }
        });
        relay
    }

    fn draws(&self, percent: u32) -> bool {
        self.rng.lock().unwrap().random_range(0..100) < percent
    }

    fn talk(&self, mut client: TcpStream, mut server: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(client.try_clone().ok()?);
        let mut replies = BufReader::new(server.try_clone().ok()?);
        let mut reply = |client: Option<&mut TcpStream>| {
            let mut client = client;
            loop {
                let mut line = String::new();
                replies.read_line(&mut line).ok().filter(|read| *read > 0)?;
                if let Some(client) = &mut client {
                    client.write_all(line.as_bytes()).ok()?;
                }
                if line.as_bytes().get(3) == Some(&b' ') {
                    return line.get(..1).map(ToOwned::to_owned);
                }
            }
        };
        reply(Some(&mut client))?;
        loop {
            let mut line = Vec::new();
            lines.read_until(b'\n', &mut line).ok().filter(|read| *read > 0)?;
            let verb = String::from_utf8_lossy(&line).to_ascii_uppercase();
            if verb.starts_with("RCPT") && self.draws(20) {
                *self.postponed.lock().unwrap() += 1;
                client.write_all(b"451 4.7.1 not now\r\n").ok()?;
                continue;
            }
            server.write_all(&line).ok()?;
            let code = reply(Some(&mut client))?;
            if verb.starts_with("DATA") && code == "3" {
                loop {
                    line.clear();
                    lines.read_until(b'\n', &mut line).ok().filter(|read| *read > 0)?;
                    server.write_all(&line).ok()?;
                    if line == b".\r\n" {
                        break;
                    }
                }
                if self.draws(2) {
                    *self.silenced.lock().unwrap() += 1;
                    // The server takes it, and the client never learns that.
                    reply(None)?;
                    return None;
                }
                reply(Some(&mut client))?;
            }
        }
    }
}

/// Nodes that deliver through a server; each is relay and exit.
fn network(folder: &Path, count: u16, speed: &str, server: u16) -> Vec<Node> {
    let devnet = folder.join("devnet");
    let port = free_ports(count);
    let deliver = format!("smtp://127.0.0.1:{server}");
    let number = count.to_string();
    let mut nodes: Vec<Node> = Vec::new();
    for at in 0..count {
        let mut options = vec!["--devnet", devnet.to_str().unwrap(), "--deliver", &deliver];
        options.extend(["--speed", speed, "--nodes", &number, "--no-cover"]);
        options.extend(["--contact", "ops@fog.invalid"]);
        let bootstrap = nodes.first().map(|first| first.onion.clone());
        if let Some(bootstrap) = &bootstrap {
            options.extend(["--bootstrap", bootstrap]);
        }
        nodes.push(Node::init(&folder.join(format!("n{at}")), port + at, &options));
    }
    nodes
}

/// The nodes, started, and each with routes.
fn started(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.iter_mut().for_each(Node::start);
    all_usable(&nodes);
    nodes
}

/// Submits a mail; the name under which it was taken, if it was.
fn submit(node: &Node, number: usize) -> Option<String> {
    let mut command = fog();
    command.args(["send", "-", "--to", "user@b.example", "--via"]);
    command.arg(format!("127.0.0.1:{}", node.port));
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = piped.spawn().unwrap();
    let message = format!("To: user@b.example\nSubject: {number}\n\nbody of {number}\n");
    child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    said.strip_prefix("250 2.0.0 taken as ").map(|name| name.trim().to_owned())
}

/// What a node says of a message.
fn states(node: &Node, name: &str) -> Value {
    let mut command = fog();
    command.args(["status", name, "--json", "--state-dir"]).arg(&node.folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What processes counted, in all their lives.
#[derive(Default)]
struct Lives(BTreeMap<String, u64>);

impl Lives {
    fn note(&mut self, node: &Node) {
        let status = node.ask("status");
        for (name, count) in status["counts"].as_object().unwrap() {
            *self.0.entry(name.clone()).or_default() += count.as_u64().unwrap();
        }
    }

    fn get(&self, name: &str) -> f64 {
        self.0.get(name).map_or(0.0, |count| *count as f64)
    }
}

/// Messages that were taken, and what became of them. A node forgets that after 48 hours, which a long run
/// takes longer than.
#[derive(Default)]
struct Taken {
    open: VecDeque<(usize, String)>,
    ends: BTreeMap<String, usize>,
}

impl Taken {
    /// Notes the ends of the oldest, up to the first that has none.
    fn look(&mut self, nodes: &[Node]) {
        while let Some((entry, name)) = self.open.front() {
            let states = states(&nodes[*entry], name).to_string();
            if ["queued", "sent", "held"].iter().any(|state| states.contains(state)) {
                break;
            }
            *self.ends.entry(states).or_default() += 1;
            self.open.pop_front();
        }
    }
}

/// Entries, middles and exits are killed at random, one or two of eight at once, and started again while mail
/// goes in, and the next server is unreliable: all of it is delivered, and known to be.
#[test]
fn nothing_that_was_answered_for_is_lost_to_kills() {
    let is_long = std::env::var_os("FOG_LONG").is_some();
    // A delivery that is postponed is tried again after a minute, however fast the network's time is: of a long
    // run's many kills each exit has to survive one as a rule.
    let (mails, kills, size, pace) =
        if is_long { (5000, 1000, 24, 1200) } else { (120, 25, 8, 500) };
    let folder = tempfile::tempdir().unwrap();
    let postfix = Postfix::start();
    let relay = Relay::start(postfix.port);
    let mut nodes = started(network(folder.path(), size, "90", relay.port));
    let mut rng = StdRng::seed_from_u64(2);
    let (mut taken, mut lives) = (Taken::default(), Lives::default());
    let (mut count, mut killed, mut refused) = (0, 0, 0);
    let start = Instant::now();
    while count < mails {
        let entry = rng.random_range(0..nodes.len());
        match submit(&nodes[entry], count) {
            Some(name) => {
                taken.open.push_back((entry, name));
                count += 1;
            }
            None => {
                refused += 1;
                sleep(Duration::from_millis(500));
            }
        }
        assert!(refused < mails, "mail is taken again after a start");
        let due = Duration::from_millis(pace) * u32::try_from(count).unwrap();
        if killed * mails < kills * count {
            // It may have taken the last mail a moment ago.
            let first = if rng.random_bool(0.3) { entry } else { rng.random_range(0..nodes.len()) };
            let mut dies = BTreeSet::from([first]);
            if rng.random_bool(0.3) {
                dies.insert(rng.random_range(0..nodes.len()));
            }
            for node in &dies {
                lives.note(&nodes[*node]);
                nodes[*node].signal("-KILL");
            }
            killed += dies.len();
            sleep(Duration::from_millis(rng.random_range(0..1500)));
            for node in dies {
                nodes[node].start();
            }
        }
        if count % 100 == 0 {
            taken.look(&nodes);
        }
        sleep(due.saturating_sub(start.elapsed()));
    }
    let limit = Duration::from_secs(420);
    wait_for("an end of every message", limit, || {
        sleep(Duration::from_secs(1));
        let over = |node: &Node| node.ask("status")["held"]["messages"] == 0;
        nodes.iter().all(over).then_some(())
    });
    let took = start.elapsed();
    taken.look(&nodes);
    nodes.iter().for_each(|node| lives.note(node));
    // A message that came again may still be under way to the server.
    let mut met: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let mails_there = postfix.mails();
    for mail in &mails_there {
        let number: usize = field(mail, "Subject: ").unwrap().parse().unwrap();
        let text = String::from_utf8_lossy(mail).into_owned();
        assert!(text.ends_with(&format!("\n\nbody of {number}\n")), "{text}");
        met.entry(number).or_default().insert(field(mail, "Message-ID: ").unwrap());
    }
    println!(
        "{mails} mails, {killed} kills, {refused} refused meanwhile, {} postponed and {} silenced by the \
         server: {} arrived, {} copies more, in {took:?}; {:?}",
        relay.postponed.lock().unwrap(),
        relay.silenced.lock().unwrap(),
        met.len(),
        mails_there.len() - met.len(),
        taken.ends,
    );
    // Of an attempt, whether it gets through, whether its exit delivers it, and whether that is known.
    let sent = lives.get("packet sent");
    let through = (lives.get("message to deliver") + lives.get("message came again")) / sent;
    let served = lives.get("message delivered") / lives.get("message to deliver");
    let known = mails as f64 / sent;
    let not = |share: f64| (1.0 - share).powi(4) * mails as f64;
    println!(
        "{sent} attempts: {through:.3} came, {served:.3} of what came was delivered, and {known:.3} were the \
         last of their mail; by that four attempts at each of {mails} mails fail for {:.1}, and nothing is \
         heard for {:.1}",
        not(through * served),
        not(known)
    );
    assert!(met.values().all(|ids| ids.len() == 1), "copies have one Message-ID");
    let delivered =
        taken.ends.get(&json!({ "delivered": 1 }).to_string()).copied().unwrap_or_default();
    assert_eq!(taken.ends.values().sum::<usize>(), mails, "each has an end");
    // Of thousands four attempts fail for a few, and it is said of these and of some that arrived.
    let unheard = if is_long { 2.0 * not(known) + 10.0 } else { 0.0 };
    assert!(delivered <= met.len() && (mails - delivered) as f64 <= unheard, "{:?}", taken.ends);
    // One for each exit used, and one for each exit that died, or was not told, at the wrong moment.
    assert!(mails_there.len() <= mails * 2 + killed + *relay.silenced.lock().unwrap());
}

/// Right after the 250, and an hour of the network later, a node that has taken mail has no word of it: not in
/// a file, the log or its memory; and with all its keys what it keeps does not open.
#[test]
fn of_mail_that_was_taken_no_word_is_left_where_it_was_taken() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = started(crate::operate::network(&folder, 5, "100"));
    let ingress = &nodes[0];
    let words = [
        ("recipient", "quagmire.zephyr"),
        ("domain", "vortex-palimpsest.example"),
        ("subject", "Xylophone katabasis"),
        ("body", "thrice-gilded ocarina"),
    ];
    let [(_, local), (_, domain), (_, subject), (_, body)] = words;
    let secrets: Vec<_> =
        words.iter().map(|(name, word)| (*name, word.as_bytes().to_vec())).collect();
    let message = format!("To: {local}@{domain}\nSubject: {subject}\n\n{body}\n");
    for _ in 0..8 {
        let mut command = fog();
        command.args(["send", "-", "--to", &format!("{local}@{domain}"), "--via"]);
        command.arg(format!("127.0.0.1:{}", ingress.port));
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    let left = found(ingress, &secrets);
    assert!(left.is_empty(), "right after the 250: {left:#?}");
    let log = std::fs::read_to_string(ingress.log()).unwrap();
    assert!(words.iter().all(|(_, word)| !log.contains(word)), "a word in the log");

    let mut keys = Vec::new();
    let onion: OnionAddress = ingress.onion.parse().unwrap();
    for entry in std::fs::read_dir(ingress.folder.join("epochs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Ok(epoch) = name.parse() else { continue };
        let secret = MixSecret::from_seed(&seed(ingress, epoch).unwrap());
        keys.push(Arc::new(EpochKey::new(onion.node(), Epoch::new(epoch), secret)));
    }
    assert!(keys.len() >= 2);
    let keys = EpochKeys::new(keys);
    let mut tried = 0;
    for entry in std::fs::read_dir(ingress.folder.join("spool/cur")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none() {
            let spooled = Spooled::decode(&std::fs::read(&path).unwrap()).unwrap();
            for packet in spooled.packets() {
                let packet = Packet::from_octets(packet.octets().to_vec()).unwrap();
                let is_opened = sphinx::peel(packet, &keys).is_ok_and(|it| it.outcome.is_ok());
                assert!(!is_opened, "a key of the node opens what it keeps");
                tried += 1;
            }
        }
    }
    assert!(tried >= 8, "{tried} packets");
    sleep(Duration::from_secs(36));
    let left = found(ingress, &secrets);
    assert!(left.is_empty(), "an hour later: {left:#?}");
}

/// A system call of a trace: when it ended, and its text.
struct Called {
    to: f64,
    text: String,
}

/// The calls in the traces of all threads, by their ends.
fn calls(folder: &Path) -> Vec<Called> {
    let mut calls = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((from, text)) = line.split_once(' ') else { continue };
            let took = line.rsplit_once('<').and_then(|(_, took)| took.strip_suffix('>'));
            let (Ok(from), Some(Ok(took))) = (from.parse::<f64>(), took.map(str::parse::<f64>))
            else {
                continue;
            };
            calls.push(Called { to: from + took, text: text.to_owned() });
        }
    }
    calls.sort_by(|one, other| one.to.total_cmp(&other.to));
    calls
}

/// Each 250 comes after a file of its own was synced, renamed into place, and its folder synced.
#[test]
fn what_is_answered_with_250_was_synced_before() {
    const MAILS: usize = 12;
    let folder = tempfile::tempdir().unwrap();
    let nodes = started(crate::operate::network(&folder, 5, "100"));
    let traces = folder.path().join("traces");
    std::fs::create_dir(&traces).unwrap();
    let mut strace = Command::new("strace")
        .args(["-ff", "-y", "-ttt", "-T", "-s", "64", "-e", "trace=sendto,fsync,/rename", "-o"])
        .arg(traces.join("t"))
        .args(["-p", &nodes[0].process().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(strace.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "{line}");
    for number in 0..MAILS {
        assert!(submit(&nodes[0], number).is_some());
    }
    assert!(
        Command::new("kill").args(["-INT", &strace.id().to_string()]).status().unwrap().success()
    );
    strace.wait().unwrap();
    let calls = calls(&traces);
    let (mut synced, mut placed, mut durable) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut answered = 0;
    for call in &calls {
        let of = |folder: &str| {
            let rest = call.text.split_once(&format!("/spool/{folder}/"))?.1;
            Some(rest.chars().take_while(char::is_ascii_hexdigit).collect::<String>())
        };
        if call.text.starts_with("fsync(") {
            if let Some(name) = of("new") {
                synced.insert(name);
            } else if call.text.contains("/spool/cur>") {
                durable += placed.len();
                placed.clear();
            }
        } else if call.text.starts_with("rename") {
            if let Some(name) = of("new") {
                assert!(synced.remove(&name), "renamed before it was synced");
                placed.insert(name);
            }
        } else if call.text.contains("250 2.0.0 taken as") {
            answered += 1;
            assert!(durable >= answered, "answer {answered} with {durable} on the disk");
        }
    }
    assert_eq!((answered, durable), (MAILS, MAILS));
}

/// 600 mails in half a second from 50 clients: each is delivered, or refused for now.
#[test]
fn of_a_burst_each_mail_is_delivered_or_refused() {
    const CLIENTS: usize = 50;
    const EACH: usize = 12;
    let folder = tempfile::tempdir().unwrap();
    let nodes = started(crate::operate::network(&folder, 7, "540"));
    let (port, before) = (nodes[0].port, nodes[0].memory_kib());
    let start = Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let mut said = String::from("EHLO x\r\n");
            for number in 0..EACH {
                let number = client * EACH + number;
                said += &format!(
                    "MAIL FROM:<>\r\nRCPT TO:<user@b.example>\r\nDATA\r\nTo: user@b.example\r\n\
                     Subject: {number}\r\n\r\nbody\r\n.\r\n"
                );
            }
            said += "QUIT\r\n";
            stream.write_all(said.as_bytes()).unwrap();
            let lines = BufReader::new(stream).lines().map_while(Result::ok);
            let ends: Vec<_> =
                lines.filter(|line| line.contains("taken as") || line.starts_with('4')).collect();
            let taken = ends.iter().filter(|line| line.starts_with("250 ")).count();
            (taken, ends.len() - taken)
        })
    });
    let clients: Vec<_> = clients.collect();
    let (mut taken, mut refused) = (0, 0);
    for client in clients {
        let (more_taken, more_refused) = client.join().unwrap();
        taken += more_taken;
        refused += more_refused;
    }
    let (took, peak) = (start.elapsed(), nodes[0].memory_kib());
    wait_for("an end of every message", Duration::from_secs(180), || {
        (nodes[0].ask("status")["held"]["messages"] == 0).then_some(())
    });
    let mails = maildir(&folder.path().join("mail"));
    let subjects: BTreeSet<_> = mails.iter().filter_map(|mail| field(mail, "Subject: ")).collect();
    println!(
        "{taken} mails taken and {refused} refused for now of {CLIENTS} clients in {took:?}, from {before} to \
         {peak} KiB; {} delivered",
        subjects.len()
    );
    assert!(taken + refused >= CLIENTS * EACH && taken >= 20, "{taken} and {refused}");
    assert_eq!(subjects.len(), taken);
    assert_eq!(nodes[0].count("message over: delivered"), u64::try_from(taken).unwrap());
    assert!(peak < before + 100 * 1024);
}

/// What `fog drain` says to its caller, and how it ends.
fn drain(node: &mut Node, options: &[&str]) -> (Option<i32>, String) {
    let mut command = fog();
    let output = command.arg("drain").args(options).arg("--state-dir").arg(&node.folder).output();
    let output = output.unwrap();
    let ended = node.child.take().unwrap().wait().unwrap();
    assert!(ended.success(), "a node that has left is not started again");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// A node that drains takes nothing more, and ends when nothing needs it: all mail that it has taken, and that
/// others have sent through it and to it, arrives. One whose limit is short says what it leaves behind, and
/// goes on with that when it is started again.
#[test]
fn a_node_that_is_drained_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = started(crate::operate::network(&folder, 6, "540"));
    for number in 0..12 {
        assert!(submit(&nodes[number % 6], number).is_some());
    }
    let all = nodes.split_at_mut(1);
    let (code, said) = std::thread::scope(|scope| {
        let drained = scope.spawn(|| drain(&mut all.0[0], &[]));
        let port = all.1[0].port - 1;
        wait_for("a refusal", Duration::from_secs(10), || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            let order = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<user@b.example>\r\nQUIT\r\n";
            stream.write_all(order).unwrap();
            let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
            lines
                .any(|line| line.starts_with("451 4.3.2 this node is about to leave"))
                .then_some(())
        });
        drained.join().unwrap()
    });
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("left: nothing was left behind\n"), "{said}");
    assert!(said.contains("packets that others have planned may come until"), "{said}");
    let mails = maildir(&folder.path().join("mail"));
    let subjects: BTreeSet<_> = mails.iter().filter_map(|mail| field(mail, "Subject: ")).collect();
    assert_eq!(subjects.len(), 12, "{said}");

    let name = submit(&nodes[1], 12).unwrap();
    let order = |node: &Node, options: &[&str]| {
        let mut command = fog();
        let output =
            command.arg("drain").args(options).arg("--state-dir").arg(&node.folder).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let said = order(&nodes[1], &["--no-wait"]);
    assert!(said.starts_with("no mail is taken any more"), "{said}");
    nodes[1].signal("-KILL");
    nodes[1].start();
    assert!(nodes[1].ask("status")["leaving"].is_object(), "a restart takes no order back");
    let (code, said) = drain(&mut nodes[1], &["--limit", "0s"]);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("messages: 1 in custody") && said.contains("fog run goes on"), "{said}");
    assert!(said.contains("a list that names it") || said.contains("planned with it"), "{said}");
    nodes[1].start();
    assert_eq!(nodes[1].ask("status")["leaving"], Value::Null, "it has left, and comes back");
    wait_for("the message that was left", Duration::from_secs(90), || {
        (states(&nodes[1], &name) == json!({ "delivered": 1 })).then_some(())
    });
    assert_eq!(order(&nodes[1], &["--cancel"]), "it was not leaving\n");
}

/// Mails of 1 KiB a second that are on the disk before they are answered for: at a node's disk, to which 20
/// sessions hand what was sealed for four attempts, and at Postfix, which 20 sessions bring them to.
#[test]
#[ignore = "a measurement"]
fn as_many_mails_a_second_are_durable() {
    const MAILS: usize = 1000;
    const SESSIONS: usize = 20;
    let parameters = Parameters::main().with_first_list(5).quiet();
    let start = parameters.schedule().start(Epoch::new(165_000));
    let mut network = Simulation::new(5, &parameters, start, StdRng::seed_from_u64(1)).unwrap();
    network.run(Duration::from_secs(2 * 3600));
    let recipients = vec![mail::Mailbox::parse("user@b.example").unwrap()];
    let message = format!("To: user@b.example\r\n\r\n{}\r\n", "x".repeat(900)).into_bytes();
    network.submit(1, &mail::Submission { recipients, message }).unwrap();
    let octets = network.in_custody(1).next().unwrap().1.to_vec();

    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state")).unwrap();
    store.custody().unwrap();
    let database = Database::open(store.folder()).unwrap();
    let mut keeper = DiskKeeper::new(store, database);
    let (jobs, waiting) = sync_channel::<(Job, SyncSender<bool>)>(SESSIONS);
    let disk = std::thread::spawn(move || {
        for (job, done) in waiting {
            done.send(keeper.run(&job).is_ok()).unwrap();
        }
    });
    let from = Instant::now();
    let sessions = (0..SESSIONS).map(|session| {
        let (jobs, octets) = (jobs.clone(), octets.clone());
        std::thread::spawn(move || {
            for number in 0..MAILS / SESSIONS {
                let name = u128::try_from(session * MAILS + number).unwrap().to_be_bytes();
                let (done, kept) = sync_channel(1);
                let octets = Zeroizing::new(octets.clone());
                jobs.send((Job::Message(MessageName::from_bytes(name), octets), done)).unwrap();
                assert!(kept.recv().unwrap());
            }
        })
    });
    sessions.collect::<Vec<_>>().into_iter().for_each(|session| session.join().unwrap());
    let ours = MAILS as f64 / from.elapsed().as_secs_f64();
    drop(jobs);
    disk.join().unwrap();

    let postfix = Postfix::start();
    let from = Instant::now();
    let status = Command::new("smtp-source")
        .args(["-s", &SESSIONS.to_string(), "-m", &MAILS.to_string(), "-l", "1024"])
        .args(["-f", "", "-t", "user@b.example", &format!("127.0.0.1:{}", postfix.port)])
        .status()
        .unwrap();
    assert!(status.success());
    let theirs = MAILS as f64 / from.elapsed().as_secs_f64();
    println!(
        "durable mails a second at {SESSIONS} sessions: {ours:.0} of {} KiB each in packets; Postfix {theirs:.0}",
        octets.len() / 1024
    );
    assert!(ours >= 200.0, "{ours:.0}");
}

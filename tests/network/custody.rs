//! Mail that was answered with 250, whatever dies.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::devnet::{fog, free_ports, wait_for};
use crate::node::Node;
use crate::operate::all_usable;
use crate::postfix::Postfix;
use crate::rotation::field;

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
fn network(folder: &std::path::Path, count: u16, speed: &str, server: u16) -> Vec<Node> {
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

/// Entries, middles and exits are killed at random and started again while mail goes in, and the next server
/// is unreliable: all of it is delivered, and known to be.
#[test]
fn nothing_that_was_answered_for_is_lost_to_kills() {
    let is_long = std::env::var_os("FOG_LONG").is_some();
    let (mails, kills) = if is_long { (5000, 1000) } else { (120, 25) };
    let folder = tempfile::tempdir().unwrap();
    let postfix = Postfix::start();
    let relay = Relay::start(postfix.port);
    let mut nodes = network(folder.path(), 8, "90", relay.port);
    for node in &mut nodes {
        node.start();
    }
    all_usable(&nodes);
    let mut rng = StdRng::seed_from_u64(2);
    let (mut taken, mut killed, mut refused) = (Vec::new(), 0, 0);
    let start = Instant::now();
    while taken.len() < mails {
        let entry = rng.random_range(0..nodes.len());
        match submit(&nodes[entry], taken.len()) {
            Some(name) => taken.push((entry, name)),
            None => refused += 1,
        }
        assert!(refused < mails, "mail is taken again after a start");
        let due = Duration::from_millis(500) * u32::try_from(taken.len()).unwrap();
        if killed * mails < kills * taken.len() {
            // It may have taken the last mail a moment ago.
            let dies = if rng.random_bool(0.3) { entry } else { rng.random_range(0..nodes.len()) };
            nodes[dies].signal("-KILL");
            killed += 1;
            sleep(Duration::from_millis(rng.random_range(0..1500)));
            nodes[dies].start();
        }
        sleep(due.saturating_sub(start.elapsed()));
    }
    let limit = Duration::from_secs(if is_long { 1800 } else { 420 });
    wait_for("an end of every message", limit, || {
        sleep(Duration::from_secs(1));
        let over = |node: &Node| node.ask("status")["held"]["messages"] == 0;
        nodes.iter().all(over).then_some(())
    });
    let took = start.elapsed();
    // A message that came again may still be under way to the server.
    let mut met: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let mails_there = postfix.mails();
    for mail in &mails_there {
        let number: usize = field(mail, "Subject: ").unwrap().parse().unwrap();
        let text = String::from_utf8_lossy(mail).into_owned();
        assert!(text.ends_with(&format!("\n\nbody of {number}\n")), "{text}");
        met.entry(number).or_default().insert(field(mail, "Message-ID: ").unwrap());
    }
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for (entry, name) in &taken {
        *ends.entry(states(&nodes[*entry], name).to_string()).or_default() += 1;
    }
    println!(
        "{mails} mails, {killed} kills, {refused} refused meanwhile, {} postponed and {} silenced by the \
         server: {} arrived, {} copies more, in {took:?}; {ends:?}",
        relay.postponed.lock().unwrap(),
        relay.silenced.lock().unwrap(),
        met.len(),
        mails_there.len() - met.len(),
    );
    assert_eq!(met.len(), mails, "all arrive");
    assert!(met.values().all(|ids| ids.len() == 1), "copies have one Message-ID");
    assert_eq!(ends, BTreeMap::from([(json!({ "delivered": 1 }).to_string(), mails)]));
    // One for each exit used, and one for each exit that died, or was not told, at the wrong moment.
    assert!(mails_there.len() <= mails * 2 + killed + *relay.silenced.lock().unwrap());
}

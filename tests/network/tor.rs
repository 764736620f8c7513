//! Nodes that are onion services of a real tor, in a private Tor network.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::devnet::{Devnet, fog, free_ports, maildir, wait_for};
use crate::node::Node;
use crate::postfix::Postfix;
use crate::tor_network::{SHARED, Tor, tors};

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A network's descriptor in a folder.
pub(crate) fn new_network(folder: &Path, speed: u32, nodes: u16) -> String {
    let file = folder.join("network").to_str().unwrap().to_owned();
    let mut command = fog();
    command.args(["network", "new", &file, "--name", "test"]);
    // At these speeds cover is some hundred times that of a real network: more than all these Tors on
    // one machine carry.
    command.args(["--speed", &speed.to_string(), "--nodes", &nodes.to_string(), "--no-cover"]);
    for voter in 0..3 {
        command.arg("--voter-of").arg(folder.join(format!("n{voter}")));
    }
    assert!(command.output().unwrap().status.success());
    file
}

/// Nodes that are not started yet: the first has the descriptor, the others the first's address.
fn nodes(folder: &TempDir, speed: u32, count: u16, deliver: &str, tors: &[&Tor]) -> Vec<Node> {
    let network = new_network(folder.path(), speed, count);
    let port = free_ports(count);
    let mut nodes: Vec<Node> = Vec::new();
    for at in 0..count {
        let tor = tors[usize::from(at) % tors.len()].options();
        let mut options: Vec<&str> = tor.iter().map(String::as_str).collect();
        options.extend(["--deliver", deliver]);
        let first = nodes.first().map(|first| first.onion.clone());
        match &first {
            None => options.extend(["--network", &network]),
            Some(first) => options.extend(["--bootstrap", first]),
        }
        nodes.push(Node::init(&folder.path().join(format!("n{at}")), port + at, &options));
    }
    nodes
}

pub(crate) fn is_reachable(node: &Node) -> bool {
    node.ask("status")["reach"]["reachable"] == true
}

fn sees(node: &Node, count: usize) -> bool {
    let status = node.ask("status");
    status["view"]["nodes"].as_u64() == Some(count as u64)
        && status["known"].as_u64() == Some(count as u64)
}

/// The median and the 95th percentile, in seconds.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64();
    format!("median {:.1} s, p95 {:.1} s", at(50), at(95))
}

/// Sends mails and waits until all have arrived; returns how long each took.
fn time_mails(
    count: usize,
    arrived: impl Fn() -> Vec<Vec<u8>>,
    send: impl Fn(usize),
) -> Vec<Duration> {
    let mut sent = Vec::new();
    let mut took = BTreeMap::new();
    let look = |sent: &[Instant], took: &mut BTreeMap<usize, Duration>| {
        for mail in arrived() {
            let text = String::from_utf8_lossy(&mail).into_owned();
            let subject = text.lines().find_map(|line| line.strip_prefix("Subject: mail "));
            let number: usize = subject.unwrap().parse().unwrap();
            took.entry(number).or_insert_with(|| sent[number].elapsed());
        }
        (took.len() == count).then_some(())
    };
    for number in 0..count {
        sent.push(Instant::now());
        send(number);
        look(&sent, &mut took);
    }
    wait_for("every mail", Duration::from_secs(180), || look(&sent, &mut took));
    took.into_values().collect()
}

/// Submits mail through Tor as a user would, with one of three programs.
fn submit(tor: &Tor, onion: &str, number: usize) {
    let subject = format!("mail {number}");
    let (host, port) = ("127.0.0.1", tor.socks.port().to_string());
    let message = format!("From: a@a.example\nTo: user@b.example\nSubject: {subject}\n\nbody\n");
    let mut command = match number % 3 {
        0 => {
            let mut command = Command::new("torsocks");
            command.args(["-P", &port, "swaks", "--server", onion, "--port", "2525"]);
            command.args(["--helo", "localhost", "--from", "a@a.example", "--to"]);
            command.args(["user@b.example", "--header", &format!("Subject: {subject}")]);
            command
        }
        1 => {
            let mut command = Command::new("msmtp");
            command.args([&format!("--host={onion}"), "--port=2525", "--tls=off"]);
            command.args([&format!("--proxy-host={host}"), &format!("--proxy-port={port}")]);
            command.args(["--from=a@a.example", "--domain=localhost", "user@b.example"]);
            command
        }
        _ => {
            let mut command = Command::new("/usr/bin/python3");
            let program = "import smtplib, socket, socks, sys\n\
                 socks.set_default_proxy(socks.SOCKS5, sys.argv[1], int(sys.argv[2]), rdns=True)\n\
                 socket.socket = socks.socksocket\n\
                 socket.getaddrinfo = lambda h, p, *a: [(2, 1, 6, '', (h, p))]\n\
                 smtplib.SMTP(sys.argv[3], 2525, local_hostname='localhost')\
                 .sendmail('a@a.example', 'user@b.example', sys.stdin.read())\n";
            command.args(["-c", program, host, &port, onion]);
            command
        }
    };
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    use std::io::Write as _;
    // swaks makes its message itself.
    let _ = child.stdin.take().unwrap().write_all(message.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {said}");
}

#[test]
fn seven_nodes_join_with_one_address_and_carry_mail_from_onion_to_postfix() {
    let folder = tempfile::tempdir().unwrap();
    let postfix = Postfix::start();
    let own: Vec<_> = tors()[..SHARED].iter().collect();
    let mut nodes = nodes(&folder, 100, 7, &postfix.target(), &own);
    let begun = Instant::now();
    nodes[0].start();
    wait_for("the first node to be reachable", SOON, || is_reachable(&nodes[0]).then_some(()));
    println!("over Tor: reachable {:.1?} after the start", begun.elapsed());

    let mut starting = Vec::new();
    for mut node in nodes.drain(1..) {
        starting.push(std::thread::spawn(move || {
            let begun = Instant::now();
            node.start();
            wait_for("all seven to be known", SOON, || sees(&node, 7).then_some(()));
            (node, begun.elapsed())
        }));
    }
    let mut joined = Vec::new();
    for node in starting {
        let (node, after) = node.join().unwrap();
        nodes.push(node);
        joined.push(after);
    }
    wait_for("all seven to be known by the first", SOON, || sees(&nodes[0], 7).then_some(()));
    let all = begun.elapsed();
    assert!(all < Duration::from_secs(30), "{all:?}");
    println!("over Tor: seven know seven {all:.1?} after the first was started");
    println!("over Tor: a joiner knows all after {}", summary(joined));

    let took = time_mails(
        20,
        || postfix.mails(),
        |number| {
            submit(&tors()[number % SHARED], &nodes[number % 7].onion, number);
        },
    );
    println!("over Tor: 20 of 20 mails at speed 100, {}", summary(took));
    let memory = nodes.iter().map(Node::memory_kib).max().unwrap();
    println!("over Tor: a node has at most {} MiB of memory", memory / 1024);
    drop(nodes);
    drop(postfix);

    // The same without Tor.
    let postfix = Postfix::start();
    let devnet = Devnet::start(100, Some(&postfix.target()));
    let took = time_mails(
        20,
        || postfix.mails(),
        |number| {
            let port = devnet.port + u16::try_from(number % 7).unwrap();
            let mut command = Command::new("swaks");
            command.args(["--server", &format!("127.0.0.1:{port}"), "--from", "a@a.example"]);
            command.args([
                "--to",
                "user@b.example",
                "--header",
                &format!("Subject: mail {number}"),
            ]);
            assert!(command.output().unwrap().status.success());
        },
    );
    println!("over loopback: 20 of 20 mails at speed 100, {}", summary(took));
}

#[test]
fn without_its_bootstrap_the_network_lives_on() {
    let folder = tempfile::tempdir().unwrap();
    let mail = folder.path().join("mail");
    let deliver = format!("maildir:{}", mail.display());
    let own: Vec<_> = tors()[..SHARED].iter().collect();
    // With epochs of 20 s a dead node is out of all routes after a minute or so.
    let mut nodes = nodes(&folder, 540, 7, &deliver, &own);
    for node in &mut nodes {
        node.start();
        wait_for("it to be reachable", SOON, || is_reachable(node).then_some(()));
    }
    wait_for("seven nodes", SOON, || nodes.iter().all(|node| sees(node, 7)).then_some(()));
    nodes[0].signal("-KILL");

    // A node joins with only the address of a live node: no configuration, and the Tor at the usual
    // port.
    let begun = Instant::now();
    let eighth = folder.path().join("n7");
    if Path::new("/run/tor/control").exists() {
        // The Tor there would be this machine's own, which tests must not use.
        let tor = own[1].options();
        let options = [tor[0].as_str(), &tor[1], "--bootstrap", &nodes[3].onion];
        let mut joiner = Node::init(&eighth, free_ports(1), &options);
        joiner.start();
        nodes.push(joiner);
    } else {
        let usual = &tors()[SHARED + 1];
        let ports = format!("ControlPort={} ControlPort=127.0.0.1:9051", usual.control);
        usual.connect().ask(&format!("SETCONF {ports}"));
        nodes.push(Node::join(&eighth, &nodes[3].onion));
    }

    // The store is enough to come back, even if the configuration names only dead nodes.
    nodes[2].signal("-TERM");
    nodes[2].start();
    let (dead, joined) = (nodes[0].onion.clone(), nodes[7].onion.clone());
    let knows_who_lives = |node: &Node| {
        let peers = node.ask("peers").to_string();
        sees(node, 7) && !peers.contains(&dead) && (node.onion == joined || peers.contains(&joined))
    };
    wait_for("the living in everybody's view, the dead in nobody's", SOON * 3, || {
        nodes[1..].iter().all(knows_who_lives).then_some(())
    });
    println!("over Tor: seven without the dead bootstrap {:.1?} after its end", begun.elapsed());
    let took = time_mails(
        5,
        || maildir(&mail),
        |number| {
            submit(own[0], &nodes[number + 1].onion, number);
        },
    );
    println!("over Tor: 5 of 5 mails without the bootstrap, {}", summary(took));
}

#[test]
fn a_tor_that_is_killed_and_comes_back_costs_no_mail() {
    let folder = tempfile::tempdir().unwrap();
    let mail = folder.path().join("mail");
    let deliver = format!("maildir:{}", mail.display());
    let (stable, victim) = (&tors()[0], &tors()[SHARED]);
    let mut nodes = nodes(&folder, 5, 6, &deliver, &[stable, stable, victim]);
    for node in &mut nodes {
        node.start();
        wait_for("it to be reachable", SOON, || is_reachable(node).then_some(()));
    }
    wait_for("six nodes", SOON, || nodes.iter().all(|node| sees(node, 6)).then_some(()));
    let mails: usize = 12;
    for number in 0..mails {
        assert!(nodes[number % 6].send(&format!("mail {number}")));
    }
    let processes: Vec<_> = nodes.iter().map(|node| node.child.as_ref().unwrap().id()).collect();
    let is_in_use = || {
        let nodes = [&nodes[2], &nodes[5]];
        nodes.iter().any(|node| node.count("packet received") > 0).then_some(())
    };
    wait_for("packets at the nodes behind it", SOON * 4, is_in_use);
    victim.kill(&victim.process());
    let behind = [&nodes[2], &nodes[5]];
    wait_for("both to know that they are cut off", SOON, || {
        behind.iter().all(|node| !is_reachable(node)).then_some(())
    });
    assert_eq!(behind[0].ask("status")["tor_failure"]["kind"], "tor");
    // How long it is away.
    std::thread::sleep(Duration::from_secs(10));
    let begun = Instant::now();
    victim.restart();
    wait_for("both to be reachable again", Duration::from_secs(90), || {
        behind.iter().all(|node| is_reachable(node)).then_some(())
    });
    println!("over Tor: reachable {:.1?} after a killed tor was started again", begun.elapsed());
    wait_for("all links", Duration::from_secs(90), || {
        nodes.iter().all(|node| node.ask("status")["linked"] == 5).then_some(())
    });
    println!("over Tor: all links {:.1?} after a killed tor was started again", begun.elapsed());
    // At this speed a mail is held for a minute in the mean, and exponentially longer.
    wait_for("every mail", Duration::from_secs(900), || {
        (maildir(&mail).len() >= mails).then_some(())
    });
    assert_eq!(maildir(&mail).len(), mails, "each once");
    let now: Vec<_> = nodes.iter().map(|node| node.child.as_ref().unwrap().id()).collect();
    assert_eq!(now, processes, "no node was restarted");
}

#[test]
fn a_tor_of_ones_own_is_started_watched_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let network = new_network(folder.path(), 100, 4);
    let state = folder.path().join("state");
    let mut node = Node::init(&state, free_ports(1), &["--network", &network]);
    fs::create_dir(state.join("tor")).unwrap();
    fs::write(state.join("tor/torrc.local"), tors()[0].private_options()).unwrap();
    let config = state.join("fog.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}[tor]\nmode = \"own\"\n")).unwrap();
    node.start();
    wait_for("it to be reachable", SOON, || is_reachable(&node).then_some(()));
    let tor = |node: &Node| node.ask("status")["tor"].as_str().unwrap().to_owned();
    assert!(tor(&node).ends_with(", own"), "{}", tor(&node));

    let child = own_tor(&node);
    assert!(Command::new("kill").args(["-KILL", &child]).status().unwrap().success());
    wait_for("it to notice", SOON, || (!is_reachable(&node)).then_some(()));
    wait_for("it to be reachable again", Duration::from_secs(90), || {
        is_reachable(&node).then_some(())
    });
    let child = own_tor(&node);
    node.signal("-TERM");
    assert!(!Path::new("/proc").join(&child).exists(), "its tor ended before it");

    // The node's own tor ends with the node, however that ends.
    node.start();
    let child = own_tor(&node);
    node.signal("-KILL");
    wait_for("the end of its tor", SOON, || {
        let status = fs::read_to_string(Path::new("/proc").join(&child).join("stat"));
        status.is_err().then_some(())
    });
}

/// The process id of a node's own tor.
fn own_tor(node: &Node) -> String {
    let pid = node.child.as_ref().unwrap().id().to_string();
    wait_for("its tor", SOON, || {
        let output = Command::new("pgrep").args(["-P", &pid, "-x", "tor"]).output().unwrap();
        let child = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        (!child.is_empty()).then_some(child)
    })
}

#[test]
fn with_the_control_port_closed_the_service_stands_in_the_torrc() {
    let folder = tempfile::tempdir().unwrap();
    let network = new_network(folder.path(), 100, 4);
    let (state, service) = (folder.path().join("state"), folder.path().join("service"));
    let port = free_ports(1);
    let options = ["--network", &network, "--tor-dir", service.to_str().unwrap()];
    let mut node = Node::init(&state, free_ports(1), &options);
    let tor = &tors()[SHARED + 1];
    let config = state.join("fog.toml");
    let text = fs::read_to_string(&config).unwrap().replace("127.0.0.1:9998", &local(port));
    fs::write(&config, format!("{text}socks = \"{}\"\n", tor.socks)).unwrap();
    let hostname = fs::read_to_string(service.join("hostname")).unwrap();
    assert_eq!(hostname.trim_end(), node.onion);
    node.start();
    // The lines for the torrc that `fog init` prints.
    let mut control = tor.connect();
    control.ask(&format!(
        "SETCONF HiddenServiceDir=\"{}\" HiddenServicePort=\"9999 {}\" \
         HiddenServicePort=\"2525 {}\" HiddenServiceExportCircuitID=haproxy \
         HiddenServicePoWDefensesEnabled=1",
        service.display(),
        local(port),
        local(port)
    ));
    wait_for("it to be reachable", Duration::from_secs(120), || is_reachable(&node).then_some(()));
    // SMTP arrives at the same listener.
    let mut command = Command::new("torsocks");
    command.args(["-P", &tor.socks.port().to_string(), "swaks", "--server", &node.onion]);
    command.args(["--port", "2525", "--to", "user@b.example", "--quit-after", "EHLO"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("<-  220 ") && said.contains("250"), "{said}");
    control.ask("RESETCONF HiddenServiceDir");
}

pub(crate) fn local(port: u16) -> String {
    SocketAddr::from(([127, 0, 0, 1], port)).to_string()
}

#[test]
fn the_devnet_over_tor_is_one_command_and_ends_cleanly() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let (state, port) = (folder.path().join("state"), free_ports(4));
    let mut command = fog();
    // With cover, which this speed lets one machine carry.
    command.args(["devnet", "--tor", "--nodes", "4", "--tors", "1", "--speed", "30"]);
    command.args(["--smtp-port", &port.to_string(), "--state-dir"]).arg(&state);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hint = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("try: "));
    let hint = hint.unwrap().replace("you@example.org", "user@b.example");
    let output = Command::new("sh").args(["-c", hint.strip_prefix("try: ").unwrap()]).output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(said.contains("250 2.0.0 taken"), "{hint}: {said}");
    // It is held for up to forty seconds.
    wait_for("the mail", SOON * 2, || (maildir(&state.join("mail")).len() == 1).then_some(()));
    // Each node submits one in forty seconds to another's onion.
    let count = |name: &str| {
        let of = |number: u16| {
            let mut status = fog();
            status.args(["status", "--json", "--state-dir"]);
            let output = status.arg(state.join(format!("n{number}"))).output().unwrap();
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            status["counts"][name].as_u64().unwrap_or(0)
        };
        (1..=4).map(of).sum::<u64>()
    };
    wait_for("decoys", SOON, || {
        (count("decoy submitted") > 1 && count("decoy taken") > 1).then_some(())
    });
    let pid = child.id().to_string();
    let tors = || {
        let output = Command::new("pgrep").args(["-P", &pid, "-x", "tor"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let running = tors();
    assert_eq!(running.len(), 9, "three authorities, five relays, one client");
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    let lives = |pid: &String| Path::new("/proc").join(pid).exists();
    assert!(!running.iter().any(lives), "no tor is left");
}

//! Single nodes in processes of their own, as their operators start, inspect and lose them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::devnet::{fog, free_ports, maildir, wait_for};
use crate::node::Node;

/// Nodes on one devnet folder, with one bootstrap; all exits into one Maildir.
pub(crate) fn network(folder: &TempDir, count: u16, speed: &str) -> Vec<Node> {
    let path = folder.path();
    let (devnet, mail) = (path.join("devnet"), path.join("mail"));
    let port = free_ports(count);
    let deliver = format!("maildir:{}", mail.display());
    let number = count.to_string();
    let mut nodes: Vec<Node> = Vec::new();
    for at in 0..count {
        let mut options = vec!["--devnet", devnet.to_str().unwrap(), "--deliver", &deliver];
        options.extend(["--speed", speed, "--nodes", &number, "--contact", "ops@fog.invalid"]);
        // These tests count packets.
        options.push("--no-cover");
        let bootstrap = nodes.first().map(|first| first.onion.clone());
        if let Some(bootstrap) = &bootstrap {
            options.extend(["--bootstrap", bootstrap]);
        }
        nodes.push(Node::init(&path.join(format!("n{at}")), port + at, &options));
    }
    nodes
}

pub(crate) fn all_usable(nodes: &[Node]) {
    let start = Instant::now();
    wait_for("a view at every node", Duration::from_secs(40), || {
        let count = nodes.len() as u64;
        let statuses: Vec<_> = nodes.iter().map(|node| node.ask("status")).collect();
        let sees = |status: &serde_json::Value| status["view"]["nodes"].as_u64() == Some(count);
        if start.elapsed() > Duration::from_secs(35) {
            println!("{statuses:#?}");
            std::thread::sleep(Duration::from_secs(1));
        }
        statuses.iter().all(sees).then_some(())
    });
}

fn subjects(mail: &Path) -> Vec<String> {
    let subject = |mail: &Vec<u8>| {
        let text = String::from_utf8_lossy(mail).into_owned();
        text.lines().find_map(|line| line.strip_prefix("Subject: ").map(str::to_owned)).unwrap()
    };
    maildir(mail).iter().map(subject).collect()
}

#[test]
fn five_of_seven_are_killed_and_no_mail_takes_a_shorter_way() {
    let folder = tempfile::tempdir().unwrap();
    let mail = folder.path().join("mail");
    let mut nodes = network(&folder, 7, "540");
    for node in &mut nodes {
        node.start();
    }
    all_usable(&nodes);
    assert!(nodes[3].send("before"));
    wait_for("the first mail", Duration::from_secs(20), || {
        (subjects(&mail) == ["before"]).then_some(())
    });
    wait_for("its acknowledgement", Duration::from_secs(20), || {
        (nodes[3].count("recipient acknowledged: delivered") == 1).then_some(())
    });
    let relayed: u64 = nodes.iter().map(|node| node.count("packet relayed")).sum();
    // Three to six hops, the last of which does not relay; and three to six back, the first of which
    // the exit sends.
    assert!((5..=11).contains(&relayed), "{relayed}");
    let peers = nodes[2].ask("peers");
    assert_eq!(peers.as_array().unwrap().len(), 6);
    for peer in peers.as_array().unwrap() {
        assert_eq!(peer["roles"], serde_json::json!(["relay", "exit"]));
        assert_eq!(peer["contact"], "ops@fog.invalid");
        assert!(peer["unusable"].is_null() && !peer["epochs"].as_array().unwrap().is_empty());
    }

    let mut taken = 1;
    for node in &nodes[2..] {
        taken += usize::from(node.send("held by the killed"));
    }
    for node in &mut nodes[2..] {
        node.signal("-KILL");
    }
    let live = &nodes[..2];
    let mut after = 0;
    wait_for("both without a route", Duration::from_secs(150), || {
        for node in live {
            after += usize::from(node.send("after"));
        }
        std::thread::sleep(Duration::from_secs(2));
        live.iter().all(|node| !node.ask("status")["unusable"].is_null()).then_some(())
    });
    assert!(after > 0, "something was taken while the dead were still known");
    for _ in 0..5 {
        for node in live {
            assert!(!node.send("too late"), "451 always, once their records have lapsed");
        }
    }
    wait_for("nothing held", Duration::from_secs(90), || {
        let empty = |node: &Node| {
            let held = &node.ask("status")["held"];
            held["mixing"] == 0 && held["waiting"] == 0
        };
        let dropped: u64 = live.iter().map(|node| node.count("packet dropped")).sum();
        (live.iter().all(empty) && dropped >= after as u64).then_some(())
    });
    taken += after;
    let delivered = subjects(&mail);
    assert!(delivered.iter().all(|subject| subject != "after"), "{delivered:?}");
    let expired: u64 = live.iter().map(|node| node.count("packet dropped: expired")).sum();
    let dropped: u64 = live.iter().map(|node| node.count("packet dropped")).sum();
    assert!(expired > 0 && dropped >= after as u64);
    let lost = taken.saturating_sub(delivered.len() + usize::try_from(dropped).unwrap());
    println!(
        "{taken} mails taken, {} delivered, {dropped} dropped at live nodes ({expired} expired), \
         {lost} lost with the killed nodes",
        delivered.len()
    );
    let mut traced = false;
    for node in &nodes {
        let log = fs::read_to_string(node.log()).unwrap();
        traced |= log.contains(" TRACE fog");
        for word in
            ["b.example", "ops@fog", "held by", "after", ".onion", "12D3Koo", &node.onion[..16]]
        {
            assert!(!log.contains(word), "{word} in a log");
        }
    }
    assert!(traced, "the logs are written");
    let warnings = &live[0].ask("status")["warnings"];
    let is_told = |warning: &serde_json::Value| {
        warning["why"] == "too_few_nodes" && warning["kind"] == "no_mail"
    };
    let told = warnings.as_array().unwrap().iter().find(|warning| is_told(warning));
    assert!(told.is_some_and(|told| told["since_ms"].is_u64()), "{warnings}");
    let said = fog().args(["status", "--state-dir"]).arg(&live[0].folder).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let lines: Vec<_> = said.lines().collect();
    let no_mail = lines.iter().position(|line| line.contains("no mail is taken: too few nodes"));
    let [fault, cost, remedy] = &lines[no_mail.expect(&said)..][..3] else { panic!("{said}") };
    assert!(fault.starts_with("WARNING  ") && fault.contains(" (for "), "{said}");
    assert!(cost.trim().starts_with("cost ") && remedy.trim().starts_with("do "), "{said}");
}

#[test]
fn a_node_ends_on_sigterm_and_comes_back_with_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = network(&folder, 4, "100");
    for node in &mut nodes {
        node.start();
    }
    all_usable(&nodes);
    nodes[3].signal("-TERM");
    // A kill leaves a socket behind that no process serves.
    nodes[2].signal("-KILL");
    assert!(nodes[2].folder.join("control.sock").exists());
    for node in &mut nodes[2..] {
        node.start();
    }
    all_usable(&nodes);
    assert!(nodes[3].send("again") && nodes[2].send("again"));
    let mail = folder.path().join("mail");
    wait_for("both", Duration::from_secs(60), || (subjects(&mail).len() == 2).then_some(()));
    assert_eq!(nodes[3].count("own record refused"), 0);
}

#[test]
fn abuse_of_the_control_socket_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = network(&folder, 4, "100");
    nodes[0].start();
    let node = &nodes[0];
    let path = node.folder.join("control.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let exchange = |octets: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        // The node may hang up before everything is written.
        let _ = stream.write_all(octets);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let deep = format!("{{\"v\":1,\"do\":{}", "[".repeat(60_000));
    for garbage in [
        &b"\xff\xfe\x00 garbage\n"[..],
        b"\n",
        b"{\"v\":1",
        b"{\"v\":1,\"do\":\"format\"}\n",
        b"{\"v\":1,\"do\":\"status\",\"more\":1}\n",
        deep.as_bytes(),
    ] {
        assert!(exchange(garbage).contains("\"error\":\"not a request\""));
    }
    assert!(exchange(b"{\"v\":2,\"do\":\"status\"}\n").contains("version 1"));
    exchange(&vec![b'x'; 10 << 20]);
    node.ask("status");

    // The node waits for the rest of half a frame, but not long.
    let mut half = UnixStream::connect(&path).unwrap();
    half.write_all(b"{\"v\":1,\"do\"").unwrap();
    half.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(half.read(&mut [0]).unwrap(), 0, "hung up on");

    let idle: Vec<_> = (0..1000).map_while(|_| UnixStream::connect(&path).ok()).collect();
    assert!(idle.len() > 100);
    drop(idle);
    wait_for("a free place", Duration::from_secs(10), || {
        let output = fog().args(["status", "--state-dir"]).arg(&node.folder).output().unwrap();
        output.status.success().then_some(())
    });
}

#[test]
fn mistakes_of_an_operator_are_named_before_anything_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = network(&folder, 4, "100");
    let node = &nodes[0];
    let config = node.folder.join("fog.toml");
    let good = fs::read_to_string(&config).unwrap();
    let fails = |code, parts: &[&str]| {
        let (exit, said) = node.fails();
        assert_eq!(exit, code, "{said}");
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!node.folder.join("control.sock").exists());
    };
    let file = config.to_str().unwrap();

    fs::write(&config, format!("{good}[smpt]\nlisten = \"127.0.0.1:1\"\n")).unwrap();
    fails(2, &[file, "unknown key smpt.listen", "did you mean smtp.listen?"]);
    fs::write(&config, good.replace("bootstrap = []", "bootstrap = 5")).unwrap();
    fails(2, &[file, "network.bootstrap: invalid type", "fog.toml shows every key"]);
    fs::write(&config, good.replace("bootstrap = []", "bootstrap = [\"x.onion\"]")).unwrap();
    fails(2, &[file, "network.bootstrap", "56 characters"]);
    fs::write(&config, good.replace("[smtp]", "speed = 7\n[smtp]")).unwrap();
    fails(6, &["network.speed", "remove network.speed"]);
    let other = "ab".repeat(32);
    fs::write(&config, good.replace("[smtp]", &format!("id = \"{other}\"\n[smtp]"))).unwrap();
    fails(6, &["network.id", "correct network.id"]);
    fs::remove_file(&config).unwrap();
    fails(2, &[file, "fog init"]);
    fs::write(&config, &good).unwrap();

    let taken = TcpListener::bind(("127.0.0.1", node.port)).unwrap();
    fails(8, &[&format!("127.0.0.1:{}", node.port), "choose another port"]);
    drop(taken);

    fs::set_permissions(&node.folder, fs::Permissions::from_mode(0o755)).unwrap();
    fails(4, &[node.folder.to_str().unwrap(), "open to other users", "chmod 700"]);
    fs::set_permissions(&node.folder, fs::Permissions::from_mode(0o700)).unwrap();

    let identity = fs::read(node.folder.join("identity")).unwrap();
    fs::copy(nodes[1].folder.join("identity"), node.folder.join("identity")).unwrap();
    fails(4, &["the folder of another identity", "--state-dir"]);
    fs::write(node.folder.join("identity"), &identity[..31]).unwrap();
    fails(4, &["identity", "backup"]);
    fs::write(node.folder.join("identity"), identity).unwrap();

    fs::write(node.folder.join("version"), "5\n").unwrap();
    fails(4, &["version", "another version", "--state-dir"]);
    fs::write(node.folder.join("version"), "4\n").unwrap();

    std::os::unix::fs::symlink("/nonexistent", node.folder.join("control.sock")).unwrap();
    let (exit, said) = node.fails();
    assert!(exit == 4 && said.contains("control.sock: not a socket; remove it"), "{said}");
    fs::remove_file(node.folder.join("control.sock")).unwrap();

    let mut node = nodes.into_iter().next().unwrap();
    node.start();
    let (exit, said) = node.fails();
    assert!(exit == 4 && said.contains("another node runs on this state folder"), "{said}");
    node.signal("-TERM");

    let long = folder.path().join("x".repeat(120));
    let output = fog().args(["init", "--state-dir"]).arg(&long).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(said.contains("107 octets") && said.contains("shorter path"), "{said}");
    assert!(!long.exists(), "nothing was made");

    // A node runs as root only if it is told to.
    let output = fog().args(["run", "--state-dir"]).arg(&node.folder).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--as-root"));
    // A second init on the same folder.
    let output = fog().args(["init", "--state-dir"]).arg(&node.folder).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is there already"));
}

#[test]
fn completions_and_the_manual_come_from_the_same_definitions() {
    let printed = |arguments: &[&str]| {
        let output = fog().args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        assert!(printed(&["completions", shell]).contains("devnet"), "{shell}");
    }
    let manual = printed(&["man"]);
    assert!(manual.starts_with(".ie") || manual.contains(".TH fog"), "{}", &manual[..80]);
    for word in ["devnet", "init", "status", "peers", "send", "deliver", "bootstrap", "speed"] {
        assert!(manual.contains(word), "{word}");
    }
}

//! Next servers that take nothing from a node until their operator has changed something.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::devnet::{fog, free_ports, wait_for};
use crate::node::Node;

/// A server that wants STARTTLS before MAIL, until it is told to take mail.
#[derive(Default)]
struct Server {
    takes: AtomicBool,
    transactions: AtomicUsize,
    recipients: Mutex<Vec<String>>,
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
            let line = lines.next()?.ok()?.to_ascii_uppercase();
            match line.split([' ', ':']).next()? {
                "EHLO" => say("250-next\r\n250-SIZE 10000000\r\n250-STARTTLS\r\n250 8BITMIME")?,
                "MAIL" if !self.takes.load(Ordering::SeqCst) => {
                    say("530 5.7.0 Must issue a STARTTLS command first")?;
                }
                "RCPT" => {
                    self.recipients.lock().unwrap().push(line);
                    say("250 2.1.5 ok")?;
                }
                "DATA" => {
                    say("354 go on")?;
                    while lines.next()?.ok()? != "." {}
                    self.transactions.fetch_add(1, Ordering::SeqCst);
                    say("250 2.0.0 queued")?;
                }
                "QUIT" => return say("221 bye"),
                _ => say("250 ok")?,
            }
        }
    }
}

fn warns(node: &Node) -> Option<String> {
    let status = node.ask("status");
    let warnings = status["warnings"].as_array().unwrap();
    let server = warnings.iter().find(|warning| warning["kind"] == "next_server");
    server.map(|warning| warning["why"].as_str().unwrap().to_owned())
}

#[test]
fn an_exit_whose_server_wants_tls_offers_nothing_until_it_takes_mail() {
    let folder = tempfile::tempdir().unwrap();
    let ports = free_ports(5);
    let server = Server::start(ports + 4);
    let deliver = format!("smtp://127.0.0.1:{}", ports + 4);
    let devnet = folder.path().join("devnet");
    let mut nodes: Vec<Node> = Vec::new();
    for at in 0..4 {
        let mut options = vec!["--devnet", devnet.to_str().unwrap(), "--deliver", &deliver];
        options.extend(["--speed", "100", "--nodes", "4", "--contact", "ops@fog.invalid"]);
        let bootstrap = nodes.first().map(|first| first.onion.clone());
        if let Some(bootstrap) = &bootstrap {
            options.extend(["--bootstrap", bootstrap]);
        }
        nodes.push(Node::init(&folder.path().join(format!("n{at}")), ports + at, &options));
    }
    for node in &mut nodes {
        node.start();
    }
    for node in &nodes {
        assert_eq!(warns(node).as_deref(), Some("wants_tls"));
    }
    wait_for("no exit", Duration::from_secs(30), || {
        nodes.iter().all(|node| node.ask("status")["unusable"] == "no_exit").then_some(())
    });
    let doctor = fog().args(["doctor", "--state-dir"]).arg(&nodes[0].folder).output().unwrap();
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.contains("wants TLS"), "{said}");

    // Its operator has it take mail: within a minute the exits are back.
    server.takes.store(true, Ordering::SeqCst);
    wait_for("exits", Duration::from_secs(120), || {
        let ready = |node: &Node| warns(node).is_none() && node.ask("status")["unusable"].is_null();
        nodes.iter().all(ready).then_some(())
    });
    assert_eq!(server.transactions.load(Ordering::SeqCst), 0);
    let port = nodes[0].port.to_string();
    let sent = std::process::Command::new("swaks")
        .args(["--server", &format!("127.0.0.1:{port}"), "--to", "ann@b.example,bob@b.example"])
        .args(["--from", "me@home.example", "--helo", "x", "--body", "hello"])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
    // One recipient a transaction: filters for bounces refuse several of mail with the null sender.
    wait_for("both", Duration::from_secs(60), || {
        (server.transactions.load(Ordering::SeqCst) == 2).then_some(())
    });
    let mut recipients = server.recipients.lock().unwrap().clone();
    recipients.sort();
    assert_eq!(recipients, ["RCPT TO:<ANN@B.EXAMPLE>", "RCPT TO:<BOB@B.EXAMPLE>"]);
}

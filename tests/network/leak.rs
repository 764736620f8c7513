//! The system calls of a whole network over Tor, and the packets that leave the machine: there must
//! be none.
//!
//! The network runs in a namespace whose default route leads into a second, empty namespace, where
//! a counter sees every packet; and under strace, which sees even attempts that fail.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::devnet::{fog, free_ports, wait_for};

/// Two namespaces with a link between them.
struct Namespaces {
    inside: String,
    outside: String,
}

impl Namespaces {
    fn new() -> Self {
        let id = std::process::id();
        let names = Self { inside: format!("fog-in-{id}"), outside: format!("fog-out-{id}") };
        let (inside, outside) = (&names.inside, &names.outside);
        for name in [inside, outside] {
            run(&format!("ip netns add {name}"));
            // The kernel's own IPv6 packets when a link comes up must not be counted.
            run(&within(name, "sysctl -qw net.ipv6.conf.default.disable_ipv6=1"));
            run(&format!("ip -n {name} link set lo up"));
        }
        run(&format!("ip link add veth0 netns {inside} type veth peer name veth0 netns {outside}"));
        run(&format!("ip -n {inside} address add 198.51.100.1/30 dev veth0"));
        run(&format!("ip -n {outside} address add 198.51.100.2/30 dev veth0"));
        for name in [inside, outside] {
            run(&format!("ip -n {name} link set veth0 up"));
        }
        run(&format!("ip -n {inside} route add default via 198.51.100.2"));
        let rules = "add table ip leak; \
                     add chain ip leak seen { type filter hook prerouting priority 0; }; \
                     add rule ip leak seen iifname veth0 counter";
        run(&within(outside, &format!("nft '{rules}'")));
        names
    }

    /// Packets that have left.
    fn seen(&self) -> u64 {
        let listed = run(&within(&self.outside, "nft list table ip leak"));
        let words: Vec<_> = listed.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "packets").unwrap();
        words[at + 1].parse().unwrap()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/run/netns/{}", self.inside), program]);
        command
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.inside, &self.outside] {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

/// A command line inside a namespace. `ip netns exec` would mount anew, which it may not
/// everywhere.
fn within(name: &str, line: &str) -> String {
    format!("nsenter --net=/run/netns/{name} {line}")
}

fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A process group that is killed when this is dropped.
struct Group(Child);

impl Group {
    fn start(mut command: Command) -> Self {
        use std::os::unix::process::CommandExt as _;
        Self(command.process_group(0).spawn().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
        let _ = self.0.wait();
    }
}

fn traced(namespaces: &Namespaces, trace: &Path) -> Command {
    let mut command = namespaces.command("strace");
    command.args(["-f", "-qq", "--decode-pids=comm", "-e", "trace=%network", "-o"]).arg(trace);
    command
}

/// The port in `sin_port=htons(9050)`.
fn port(call: &str) -> Option<u16> {
    call.split_once("htons(")?.1.split_once(')')?.0.parse().ok()
}

/// Calls in a trace that must not be there: by the node, all but streams on loopback to these
/// ports; by a tor, which is configured for loopback only, all that leave loopback.
fn leaks(trace: &str, allowed: &BTreeSet<u16>) -> Vec<String> {
    let is_leak = |line: &&str| {
        let Some((process, call)) = line.split_once("> ") else { return false };
        let is_tor = process.ends_with("<tor");
        let name = call.split('(').next().unwrap_or_default();
        let is_inet = call.contains("AF_INET");
        let is_local = call.contains("inet_addr(\"127.0.0.1\")");
        let is_allowed = port(call).is_some_and(|port| allowed.contains(&port));
        match name {
            // tor looks for its own address with a datagram socket and by netlink, and its relays
            // ask a resolver at 127.0.0.1 that is not there.
            "socket" if is_tor => call.contains("AF_PACKET"),
            "socket" => {
                ["AF_NETLINK", "AF_PACKET", "AF_INET6", "SOCK_RAW"].iter().any(|x| call.contains(x))
                    || (is_inet && call.contains("SOCK_DGRAM"))
            }
            "bind" => is_inet && !is_local,
            "connect" => is_inet && !(is_local && (is_tor || is_allowed)),
            "sendto" | "sendmsg" | "sendmmsg" => is_inet && !(is_tor && is_local),
            _ => false,
        }
    };
    trace.lines().filter(is_leak).map(str::to_owned).collect()
}

#[test]
fn what_is_not_allowed_is_seen_in_a_trace() {
    let allowed = BTreeSet::from([9050]);
    let to = |address: &str, port: u16| {
        format!("{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr(\"{address}\")}}")
    };
    for (process, call, is_leak) in [
        ("fog", format!("connect(3, {}, 16) = 0", to("127.0.0.1", 9050)), false),
        ("fog", format!("connect(3, {} <unfinished ...>", to("127.0.0.1", 80)), true),
        ("tokio-rt-worker", format!("connect(3, {}, 16) = -1", to("192.0.2.1", 9050)), true),
        ("tor", format!("connect(3, {}, 16) = 0", to("127.0.0.1", 80)), false),
        ("tor", format!("connect(3, {}, 16) = 0", to("192.0.2.1", 443)), true),
        ("fog", format!("bind(3, {}, 16) = 0", to("0.0.0.0", 2525)), true),
        ("fog", format!("sendto(3, \"x\", 1, 0, {}, 16) = 1", to("127.0.0.1", 53)), true),
        ("fog", "sendto(3, \"x\", 1, MSG_NOSIGNAL, NULL, 0) = 1".to_owned(), false),
        ("fog", "socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP) = 3".to_owned(), true),
        ("fog", "socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP) = 3".to_owned(), true),
        ("fog", "socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) = 3".to_owned(), true),
        ("fog", "socket(AF_UNIX, SOCK_STREAM, 0) = 3".to_owned(), false),
    ] {
        let line = format!("77<{process}> {call}");
        assert_eq!(leaks(&line, &allowed).len(), usize::from(is_leak), "{line}");
    }
}

fn control_ports(folder: &Path) -> Vec<u16> {
    let entries =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("control-port"));
    let texts = entries.filter_map(|path: PathBuf| fs::read_to_string(path).ok());
    let texts: Vec<_> = texts.collect();
    let ports =
        texts.iter().flat_map(|text| text.lines()).map(|line| line.rsplit(':').next().unwrap());
    ports.map(|port| port.parse().unwrap()).collect()
}

#[test]
fn nothing_leaves_the_machine_but_through_tor() {
    let namespaces = Namespaces::new();
    let folder = tempfile::tempdir().unwrap();
    let (state, trace) = (folder.path().join("state"), folder.path().join("trace"));
    let first = free_ports(6);
    let next_server = first + 5;
    let mut sink = namespaces.command("smtp-sink");
    sink.args(["-u", "nobody"]).arg(format!("127.0.0.1:{next_server}")).arg("10");
    let _sink = Group::start(sink);
    let mut command = traced(&namespaces, &trace);
    command
        .arg(fog().get_program())
        .args([
            "devnet",
            "--tor",
            "--tors",
            "1",
            "--nodes",
            "5",
            "--speed",
            "100",
            "--json",
            "--no-cover",
        ])
        .args(["--smtp-port", &first.to_string(), "--deliver"])
        .arg(format!("smtp://127.0.0.1:{next_server}"))
        .arg("--state-dir")
        .arg(&state)
        .stdout(Stdio::piped());
    let mut network = Group::start(command);
    let mut line = String::new();
    BufReader::new(network.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).expect("a devnet over Tor");
    let socks = ready["tor"][0]["socks"].as_str().unwrap().rsplit(':').next().unwrap();
    for number in 0..5 {
        let onion = ready["nodes"][number]["onion"].as_str().unwrap();
        let mut command = namespaces.command("torsocks");
        command.args(["-P", socks, "swaks", "--server", onion, "--port", "2525"]);
        let output = command.args(["--to", "user@b.example"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("250 2.0.0 taken"), "{said}");
    }
    let delivered = || {
        let count = |number| {
            let mut command = fog();
            command.args(["status", "--json", "--state-dir"]).arg(state.join(format!("n{number}")));
            let status: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
            status["counts"]["message delivered"].as_u64().unwrap_or(0)
        };
        (1..=5).map(count).sum::<u64>()
    };
    wait_for("five mails", Duration::from_secs(60), || (delivered() == 5).then_some(()));

    let mut allowed: BTreeSet<u16> =
        control_ports(&state.join("tor-network")).into_iter().collect();
    allowed.insert(socks.parse().unwrap());
    allowed.insert(next_server);
    let text = fs::read_to_string(&trace).unwrap();
    let calls =
        |name: &str| text.lines().filter(|line| line.contains(&format!("> {name}("))).count();
    println!(
        "traced: {} sockets, {} connects, {} binds",
        calls("socket"),
        calls("connect"),
        calls("bind")
    );
    assert!(calls("connect") > 100 && text.contains("<tor>") && text.contains("<tokio"));
    assert_eq!(leaks(&text, &allowed), Vec::<String>::new());
    assert_eq!(namespaces.seen(), 0);

    // A packet that is sent on purpose shows that both the trace and the counter see it.
    let again = folder.path().join("again");
    let program = "import socket\n\
                   socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))";
    let mut command = traced(&namespaces, &again);
    assert!(command.args(["/usr/bin/python3", "-c", program]).status().unwrap().success());
    let text = fs::read_to_string(&again).unwrap();
    assert_eq!(leaks(&text, &allowed).len(), 2, "the socket and the packet: {text}");
    assert_eq!(namespaces.seen(), 1);
}

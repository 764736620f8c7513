//! Mistakes with Tor, and what the operator is told of them.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use crate::devnet::{fog, free_ports, wait_for};
use crate::node::Node;
use crate::tor::{SOON, is_reachable, local, new_network};
use crate::tor_network::{SHARED, false_control_port, listening, tors};

#[test]
fn mistakes_with_tor_are_one_line_with_cause_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let network = new_network(folder.path(), 100, 4);
    let tor = &tors()[SHARED + 2];
    let made = tor.options();
    let options = ["--network", &network, &made[0], &made[1]];
    let mut node = Node::init(&folder.path().join("n0"), free_ports(1), &options);
    let config = node.folder.join("fog.toml");
    let good = fs::read_to_string(&config).unwrap();
    let fails = |node: &Node, code: i32, parts: &[&str]| {
        let (exit, said) = node.fails();
        assert_eq!(exit, code, "{said}");
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
    };
    let at = |address: &str| good.replace(&tor.control.to_string(), address);

    let nobody = local(free_ports(1));
    fs::write(&config, at(&nobody)).unwrap();
    fails(&node, 5, &[&nobody, "refused", "start Tor"]);
    let old = false_control_port(&folder.path().join("old"), "0.4.6.10", "0");
    fs::write(&config, at(&old)).unwrap();
    fails(&node, 5, &["too old: 0.4.6.10", "upgrade"]);
    let open = false_control_port(&folder.path().join("open"), "0.4.9.11", "1");
    fs::write(&config, at(&open)).unwrap();
    fails(&node, 5, &["HiddenServiceSingleHopMode set", "remove it", "not hidden"]);
    fs::write(&config, at(&mail_server().to_string())).unwrap();
    fails(&node, 5, &["no Tor", "correct tor.control"]);
    fs::write(&config, &good).unwrap();

    let cookie = tor.folder.join("cookie");
    let right = fs::read(&cookie).unwrap();
    fs::write(&cookie, [7; 32]).unwrap();
    fails(&node, 5, &["is not the one of this Tor", "CookieAuthFile"]);
    fs::write(&cookie, [7; 31]).unwrap();
    fails(&node, 5, &["not a file of 32 octets", "debian-tor"]);
    fs::write(&cookie, &right).unwrap();
    fs::set_permissions(&cookie, fs::Permissions::from_mode(0o644)).unwrap();
    fails(&node, 5, &["every user can read it", "and no others"]);
    fs::set_permissions(&cookie, fs::Permissions::from_mode(0o600)).unwrap();
    // Told before Tor's network is waited for, which never comes here.
    tor.connect().ask("SETCONF DisableNetwork=1 SocksPort=0");
    fails(&node, 5, &["no SOCKS port", "SocksPort 9050"]);
    // The same port, without any accepted way to authenticate.
    let process = tor.process();
    tor.connect().ask("SETCONF CookieAuthentication=0 HashedControlPassword=\"16:872860B76453A77D60CA2BB8C1A7042072093276A3D701AD684053EC4C\"");
    fails(&node, 5, &["lets nobody in by cookie", "CookieAuthentication 1"]);
    // A restart brings back the settings of its torrc.
    tor.kill(&process);
    tor.restart();

    let library = find_faketime();
    for (offset, how) in [("+1d", "ahead"), ("-1d", "behind")] {
        let mut command = node.command();
        command.env("LD_PRELOAD", &library).env("FAKETIME", offset);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(said.contains(how) && said.contains("timedatectl"), "{said}");
    }

    node.start();
    fails(&node, 4, &["another node runs on this state folder"]);
    // The same identity in another folder, at the same Tor.
    let twin = Node::init(&folder.path().join("n1"), free_ports(1), &options);
    fs::copy(node.folder.join("identity"), twin.folder.join("identity")).unwrap();
    fails(&twin, 4, &["the folder of another identity"]);
    fs::remove_file(twin.folder.join("own")).unwrap();
    fails(&twin, 5, &["address is taken at this Tor", "same identity"]);
    wait_for("the first to be reachable", SOON, || is_reachable(&node).then_some(()));

    // An onion address that leads to another node's swarm.
    let process = node.child.as_ref().unwrap().id();
    let swarm = listening(process).into_iter().find(|port| !greets(*port)).unwrap();
    let mut control = tor.connect();
    let added = control
        .ask(&format!("ADD_ONION NEW:ED25519-V3 Flags=DiscardPK Port=9999,{}", local(swarm)));
    let onion = added[0].strip_prefix("ServiceID=").unwrap().to_owned();
    let join = |onion: &str| {
        let state = folder.path().join("joiner");
        let _ = fs::remove_dir_all(&state);
        let mut command = fog();
        command.args(["run", "--as-root", "--bootstrap", onion, "--state-dir"]).arg(&state);
        let config = folder.path().join("joiner.toml");
        fs::write(&config, format!("[tor]\ncontrol = \"{}\"\n", tor.control)).unwrap();
        let output = command.arg("--config").arg(config).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = join(&onion);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("another key answers at") && said.lines().count() == 1, "{said}");
    let wrong = format!("{}{}", if onion.starts_with('a') { 'b' } else { 'a' }, &onion[1..]);
    let (code, said) = join(&wrong);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("checksum"), "{said}");
    // The node itself was not disturbed.
    assert!(is_reachable(&node));
    let doctor = fog().args(["doctor", "--state-dir"]).arg(&node.folder).output().unwrap();
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.contains("ok    onion: the node reaches itself"), "{said}");
    node.signal("-TERM");
    let doctor = |node: &Node| {
        let output = fog().args(["doctor", "--state-dir"]).arg(&node.folder).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = doctor(&node);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("ok    onion: a service dialled itself after"), "{said}");
    fs::write(&config, at(&nobody)).unwrap();
    fs::set_permissions(node.folder.join("identity"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = doctor(&node);
    assert_eq!(code, 4, "the first failure counts: {said}");
    assert!(said.contains("FAIL  state folder") && said.contains("      chmod 600"), "{said}");
    assert!(said.contains("FAIL  tor:") && said.contains("      start Tor"), "{said}");
}

#[test]
fn without_any_tor_it_is_said_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let network = new_network(folder.path(), 100, 4);
    let node = Node::init(&folder.path().join("n0"), free_ports(1), &["--network", &network]);
    // The node runs where there is no tor program, no control socket and no port to connect to.
    let hidden = "mount --bind /dev/null \"$(command -v tor)\" && \
                  { [ ! -d /run/tor ] || mount -t tmpfs none /run/tor; } && exec \"$@\"";
    let run = node.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "sh", "-c", hidden, "sh"]);
    command.arg(run.get_program()).args(run.get_args()).env("RUST_LOG", "warn");
    let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert_eq!(
        said,
        "fog: there is no Tor on this machine; install it (Debian: apt install tor)\n"
    );
}

/// A port at which a program other than Tor answers.
fn mail_server() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = listener.accept().unwrap().0;
        let _ = stream.write_all(b"220 fog\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    address
}

/// Whether a mail server answers at a port.
fn greets(port: u16) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut code = [0; 3];
    stream.read_exact(&mut code).is_ok() && &code == b"220"
}

pub(crate) fn find_faketime() -> String {
    let output =
        Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]).output();
    let paths = String::from_utf8(output.unwrap().stdout).unwrap();
    paths.lines().next().unwrap().to_owned()
}

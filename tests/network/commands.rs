//! The command line: what it prints, and how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::devnet::{Devnet, fog, free_ports, wait_for};

fn fails(arguments: &[&str]) -> (Option<i32>, String) {
    let output = fog().args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_devnet_says_when_it_is_ready_and_ends_cleanly() {
    let mut devnet = Devnet::start(1000, None);
    let (first, last) = (devnet.port, devnet.port + 6);
    let mail = devnet.state().join("mail");
    let expected = format!(
        "devnet ready: 7 nodes, SMTP on 127.0.0.1:{first}-{last}, mail goes to maildir:{}\n",
        mail.display()
    );
    assert_eq!(devnet.ready_line, expected);

    for node in 1..=7 {
        let status = devnet.status(node);
        assert_eq!(
            (status["known"].as_u64(), status["view"]["nodes"].as_u64()),
            (Some(7), Some(7))
        );
        let folder = devnet.state().join(format!("n{node}"));
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.clone()), 0o700);
        for file in ["identity", "control.sock", "lock", "version", "network"] {
            assert_eq!(mode(folder.join(file)), 0o600, "{file}");
        }
    }
    let linked = |node| devnet.status(node)["linked"].as_u64() == Some(6);
    wait_for("all links", Duration::from_secs(20), || (1..=7).all(linked).then_some(()));

    let (status, said) = devnet.stop();
    assert!(status.success());
    assert!(said.ends_with("devnet stopped\n"), "{said}");
    let left = fs::read_dir(devnet.state().join("devnet")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["network"], "addresses are taken back");
    let n1 = devnet.state().join("n1");
    assert!(!n1.join("control.sock").exists());
    let (code, said) = fails(&["status", "--state-dir", n1.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn identities_and_keys_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut onions = Vec::new();
    let mut seeds: Vec<BTreeMap<_, _>> = Vec::new();
    for _ in 0..2 {
        let port = free_ports(4).to_string();
        let mut command = fog();
        command.args(["devnet", "--nodes", "4", "--speed", "100", "--smtp-port", &port]);
        command.arg("--state-dir").arg(&state).stdout(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let onion = wait_for("node 1 with a view", Duration::from_secs(20), || {
            let output =
                fog().args(["status", "--json", "--state-dir"]).arg(state.join("n1")).output();
            let status: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).ok()?;
            (status["view"]["nodes"] == 4).then(|| status["onion"].as_str().unwrap().to_owned())
        });
        onions.push(onion);
        let epochs = fs::read_dir(state.join("n1/epochs")).unwrap();
        let files = epochs.map(|entry| entry.unwrap().path());
        seeds.push(files.map(|file| (file.clone(), fs::read(file).unwrap())).collect());
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(onions[0], onions[1]);
    // The second run may have dropped an epoch that had ended, and made another.
    let both = || seeds[0].iter().filter(|(file, _)| seeds[1].contains_key(*file));
    assert!(both().count() >= 2);
    assert!(both().all(|(file, seed)| seeds[1].get(file) == Some(seed)), "keys are the same");
    let (code, said) =
        fails(&["devnet", "--nodes", "4", "--speed", "99", "--state-dir", state.to_str().unwrap()]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("another speed"), "{said}");
}

#[test]
fn mistakes_are_named_with_their_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let port = free_ports(4);
    let _taken = TcpListener::bind(("127.0.0.1", port + 2)).unwrap();
    let port = port.to_string();
    for (arguments, expected, part) in [
        (&["devnet", "--nodes", "3"][..], 2, "4..=64"),
        (&["devnet", "--speed", "0"], 2, "1..=10000"),
        (&["devnet", "--deliver", "smtp://mx.example.org:25"], 2, "smtp://ADDRESS:PORT"),
        (&["devnet", "--smtp-port", "65533", "--state-dir", state], 2, "--smtp-port"),
        (
            &["devnet", "--nodes", "4", "--smtp-port", &port, "--state-dir", state],
            8,
            "choose another port",
        ),
        (&["status", "--state-dir", "/nonexistent"], 3, "--state-dir"),
    ] {
        let (code, said) = fails(arguments);
        assert_eq!(code, Some(expected), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

//! Machines whose clock is set while a node runs.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::devnet::wait_for;
use crate::operate::{all_usable, network};
use crate::tor_mistakes::find_faketime;

/// Half an epoch and more at this speed, of which a 36th is allowed.
const OFF: u32 = 60;
const SOON: Duration = Duration::from_secs(40);

#[test]
fn a_clock_that_is_set_is_followed_and_named_as_long_as_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = network(&folder, 4, "100");
    let set = folder.path().join("time");
    fs::write(&set, "+0").unwrap();
    for node in &mut nodes[..3] {
        node.start();
    }
    let node = &mut nodes[3];
    let environment = [
        ("LD_PRELOAD", find_faketime()),
        ("FAKETIME_TIMESTAMP_FILE", set.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    node.start_in(&environment);
    all_usable(&nodes);
    let node = &nodes[3];
    let apart = || {
        let status = node.ask("status");
        let warnings = status["warnings"].as_array().unwrap();
        let apart = warnings.iter().find(|warning| warning["kind"] == "clock_apart");
        apart.map(|warning| warning["ahead_ms"].as_i64().unwrap())
    };
    assert_eq!(apart(), None);
    let off = i64::from(OFF) * 1000;
    for ahead in [off, -off] {
        fs::write(&set, format!("{:+}", ahead / 1000)).unwrap();
        let said = wait_for("it is named", SOON, apart);
        assert!((said + ahead).abs() < 5000, "{said} where the clock is {ahead} ahead");
        assert!(!node.send("with a wrong clock"));
        fs::write(&set, "+0").unwrap();
        wait_for("it is right again", SOON, || apart().is_none().then_some(()));
    }
    wait_for("mail is taken again", SOON, || node.send("with a right clock").then_some(()));
    let counts: Value = node.ask("status")["counts"].clone();
    assert_eq!(counts["clock jumped"], 4);
    all_usable(&nodes);
    for node in &nodes {
        assert!(!node.ask("peers").to_string().contains("convicted"));
    }
}

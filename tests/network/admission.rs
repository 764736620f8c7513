//! A network whose routes go only through vouched nodes, and the orders of its operators.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::devnet::{fog, free_ports, wait_for};
use crate::node::Node;

/// Four roots, and two nodes that know nobody yet; all on one devnet folder.
fn network(folder: &TempDir) -> Vec<Node> {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut make = fog();
    make.args(["network", "new", &path("net"), "--name", "vouched", "--speed", "540"]);
    make.arg("--no-cover");
    make.args(["--nodes", "4", "--depth", "2", "--fan-out", "2"]);
    for root in 0..4 {
        make.args(["--root-of", &path(&format!("n{root}"))]);
    }
    let output = make.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let port = free_ports(6);
    let (devnet, deliver) = (path("devnet"), format!("maildir:{}", path("mail")));
    let mut nodes: Vec<Node> = Vec::new();
    for at in 0..6 {
        let network = path("net");
        let mut options = vec!["--devnet", &devnet, "--deliver", &deliver];
        if at < 4 {
            options.extend(["--network", &network]);
        }
        let bootstrap = nodes.first().map(|first| first.onion.clone());
        if let Some(bootstrap) = &bootstrap {
            options.extend(["--bootstrap", bootstrap]);
        }
        nodes.push(Node::init(&folder.path().join(format!("n{at}")), port + at, &options));
    }
    nodes
}

fn order(node: &Node, arguments: &[&str]) -> (bool, String) {
    let output = fog().args(arguments).arg("--state-dir").arg(&node.folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// A node's report on another node.
fn seen(by: &Node, node: &Node) -> Value {
    let peers = by.ask("peers");
    let found = peers.as_array().unwrap().iter().find(|peer| peer["onion"] == node.onion.as_str());
    found.cloned().unwrap_or(Value::Null)
}

fn standing(node: &Node) -> String {
    node.ask("status")["standing"]["kind"].as_str().unwrap_or_default().to_owned()
}

fn wait_standing(node: &Node, what: &str) {
    // Two epochs of probation, and an hour to settle in.
    wait_for(what, Duration::from_secs(90), || (standing(node) == what).then_some(()));
}

#[test]
fn vouches_invites_and_bans_decide_who_is_routed_through() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = network(&folder);
    for node in &mut nodes[..5] {
        node.start();
    }
    let (roots, strangers) = nodes.split_at_mut(4);
    let (friend, invited) = strangers.split_at_mut(1);
    let (friend, invited) = (&mut friend[0], &mut invited[0]);

    // A stranger gossips and submits mail; no route goes through it, and it sees why.
    wait_standing(friend, "not_vouched");
    let limit = Duration::from_secs(30);
    wait_for("a view of the roots", limit, || {
        (friend.ask("status")["view"]["nodes"] == 4).then_some(())
    });
    assert!(friend.send("from a stranger"));
    let warnings = friend.ask("status")["warnings"].to_string();
    assert!(warnings.contains("not_vouched"), "{warnings}");
    assert_eq!(seen(&roots[1], friend)["unusable"]["kind"], "not_vouched");
    let (done, said) = order(friend, &["vouch", &roots[0].onion]);
    assert!(!done && said.contains("word counts for nothing"), "{said}");

    // One node is vouched for by an order, the other by an invite.
    let (done, said) = order(&roots[0], &["vouch", &friend.onion]);
    assert!(done && said.contains("probation"), "{said}");
    let (done, invite) = order(&roots[1], &["invite"]);
    assert!(done, "{invite}");
    let token = invite.lines().next().unwrap();
    assert!(token.starts_with(&roots[1].onion) && token.len() == 95, "{token}");
    invited.start_with(&["join", token]);
    wait_standing(friend, "probation");
    wait_standing(invited, "probation");
    assert_eq!(seen(&roots[2], invited)["vouchers"], serde_json::json!([roots[1].onion]));
    assert!(!invited.folder.join("invite").exists(), "it is good once");
    let again = token.to_owned();
    let mut late = Node::init(
        &folder.path().join("late"),
        free_ports(1),
        &["--devnet", folder.path().join("devnet").to_str().unwrap()],
    );
    late.start_with(&["join", &again]);
    wait_for("the refusal", limit, || {
        let warnings = late.ask("status")["warnings"].to_string();
        warnings.contains("invite_refused").then_some(())
    });
    late.signal("-TERM");

    // After the probation, routes go through both nodes but do not end there yet.
    wait_standing(friend, "not_yet_exit");
    wait_standing(invited, "not_yet_exit");
    wait_for("both in everybody's view", limit, || {
        let both = |node: &Node| node.ask("status")["view"]["nodes"] == 6;
        roots.iter().all(both).then_some(())
    });
    // A vouched node may vouch for others, as long as the chain allows.
    let (done, said) = order(friend, &["vouch", &invited.onion]);
    assert!(done, "{said}");

    // A ban counts for one node only, and its answer tells what it costs.
    let (done, said) = order(&roots[2], &["ban", &friend.onion]);
    assert!(done && said.contains("can be told apart"), "{said}");
    assert_eq!(seen(&roots[2], friend)["unusable"]["kind"], "banned");
    assert!(seen(&roots[3], friend)["unusable"].is_null());
    assert_eq!(roots[2].ask("status")["view"]["nodes"], 5);
    roots[2].signal("-TERM");
    roots[2].start();
    wait_for("the ban after a restart", limit, || {
        (seen(&roots[2], friend)["unusable"]["kind"] == "banned").then_some(())
    });
    wait_for("the view after a restart", limit, || {
        roots[2].ask("status")["view"]["nodes"].is_number().then_some(())
    });
    let (done, said) = order(&roots[2], &["unban", &friend.onion]);
    assert!(done && said.contains("go through it again"), "{said}");
    assert!(seen(&roots[2], friend)["unusable"].is_null(), "at once");

    let (done, said) = order(&roots[3], &["peers", "--lists"]);
    assert!(done && said.contains("use the same list as this node"), "{said}");
    wait_for("agreement", limit, || {
        let peers = roots[3].ask("peers");
        let same =
            peers.as_array().unwrap().iter().filter(|peer| peer["list"]["kind"] == "same").count();
        (same >= 4).then_some(())
    });

    // A node whose vouch is withdrawn leaves the routes with the next hour, and so does its own
    // branch; the other vouch stays.
    assert!(order(&roots[0], &["unvouch", &friend.onion]).0);
    wait_standing(friend, "not_vouched");
    wait_for("out of the view", limit, || {
        (seen(&roots[1], friend)["unusable"]["kind"] == "not_vouched").then_some(())
    });
    assert!(seen(&roots[1], invited)["unusable"].is_null());
}

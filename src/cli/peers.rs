//! `fog peers`: what a running node knows of the others.

use super::{State, say, say_json, wording};
use crate::clock::Clock;
use crate::control::{self, ControlOrder, Peer, PeerList, Response};
use crate::failure::{Failure, FailureKind};

pub(super) async fn run(state: State, lists: bool, json: bool) -> Result<(), Failure> {
    let answer = control::call(&state.folder(), ControlOrder::Peers).await?;
    let Response::Peers(peers) = answer else {
        return Err(Failure::new(FailureKind::Internal, "the node answered something else"));
    };
    if json {
        return say_json(&peers);
    }
    if peers.is_empty() {
        return say("no other node is known");
    }
    if lists {
        return say_lists(&peers);
    }
    let now = Clock::start().now().as_millis();
    for peer in &peers {
        say(&line(peer, now))?;
    }
    Ok(())
}

/// Prints whether each node uses the same list as this one.
fn say_lists(peers: &[Peer]) -> Result<(), Failure> {
    for peer in peers {
        say(&format!("{}  {}", peer.onion, wording::list(peer.list)))?;
    }
    let count = |list: PeerList| peers.iter().filter(|peer| peer.list == list).count();
    let (same, unknown) = (count(PeerList::Same), count(PeerList::Unknown));
    let other = peers.len() - same - unknown;
    say(&format!("{same} use the same list as this node, {other} another, {unknown} have not said"))
}

fn line(peer: &Peer, now: u64) -> String {
    let epochs = match (peer.epochs.first(), peer.epochs.last()) {
        (Some(first), Some(last)) => format!("{first}-{last}"),
        _ => "none".to_owned(),
    };
    let linked = if peer.linked { "linked" } else { "not linked" };
    let score = peer.score.filter(|score| *score < 0.0);
    let score = score.map_or(String::new(), |score| format!("misbehaves ({score:.1})  "));
    let unusable = peer.unusable.as_ref().map(|used| wording::node_use(used, now));
    let usable = unusable.unwrap_or("usable".to_owned());
    let roles: Vec<_> = peer.roles.iter().map(|role| wording::role(*role)).collect();
    let contact = if peer.contact.is_empty() { "no contact" } else { &peer.contact };
    let health = wording::health(&peer.health);
    format!(
        "{}  {}  epochs {epochs}  record {} s old  {linked}  {health}  {score}{usable}  {contact}",
        peer.onion,
        roles.join("+"),
        peer.record_age_ms / 1000,
    )
}

//! An operator's orders about other nodes: `fog vouch`, `unvouch`, `retire`, `ban`, `unban` and
//! `invite`.

use keys::OnionAddress;
use serde::Serialize;

use super::{State, say, say_json};
use crate::control::{self, ControlOrder, Response};
use crate::failure::{Failure, FailureKind};

#[derive(Serialize)]
struct Done {
    done: String,
}

/// Sends an order to the running node, and prints the result and what it means.
async fn order(state: &State, order: ControlOrder, json: bool, means: &str) -> Result<(), Failure> {
    let Response::Done(done) = control::call(&state.folder(), order).await? else {
        return Err(Failure::new(FailureKind::Internal, "the node answered something else"));
    };
    if json {
        return say_json(&Done { done });
    }
    say(&done)?;
    say(means)
}

pub(super) async fn vouch(state: State, onion: OnionAddress, json: bool) -> Result<(), Failure> {
    let means = "vouched for: routes may go through it once its probation is over. The vouch is renewed \
                 while this node runs, and ends 15 to 30 days after it stopped, or with: fog unvouch";
    order(&state, ControlOrder::Vouch(onion.to_string()), json, means).await
}

pub(super) async fn unvouch(state: State, onion: OnionAddress, json: bool) -> Result<(), Failure> {
    let means = "not vouched for any more: from the next hour but one no route goes through it, unless \
                 others vouch for it";
    order(&state, ControlOrder::Unvouch(onion.to_string()), json, means).await
}

pub(super) async fn retire(state: State, onion: OnionAddress, json: bool) -> Result<(), Failure> {
    let means = "said, for good: once more than half of the other voters have said it too, its votes and \
                 its words count nowhere, from the next list on";
    order(&state, ControlOrder::Retire(onion.to_string()), json, means).await
}

pub(super) async fn ban(state: State, onion: OnionAddress, json: bool) -> Result<(), Failure> {
    let means = "banned here: this node's own routes avoid it, nobody else's do. Routes that differ from \
                 everybody else's can be told apart: who watches long enough learns which mail enters here. \
                 If it misbehaves towards all, have its voucher take its word back instead.";
    order(&state, ControlOrder::Ban(onion.to_string()), json, means).await
}

pub(super) async fn unban(state: State, onion: OnionAddress, json: bool) -> Result<(), Failure> {
    let means = "not banned any more: this node's routes go through it again";
    order(&state, ControlOrder::Unban(onion.to_string()), json, means).await
}

pub(super) async fn invite(state: State, json: bool) -> Result<(), Failure> {
    let means = "good once, for a day, while this node runs: fog join with that string. Whoever uses it \
                 first is vouched for by this node.";
    order(&state, ControlOrder::Invite, json, means).await
}

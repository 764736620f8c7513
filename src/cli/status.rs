//! `fog status`: asks a running node.

use std::path::PathBuf;

use clap::Args;

use super::{default_state_dir, say};
use crate::control::{self, Order, Status};
use crate::failure::{Failure, Kind};

#[derive(Args)]
pub(super) struct Arguments {
    /// The node's state folder (of a devnet: DIR/n1, DIR/n2, ...).
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let folder = arguments.state_dir.unwrap_or_else(default_state_dir);
    let status = control::call(&folder, Order::Status).await?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&status);
        return say(&json.map_err(|error| Failure::new(Kind::Internal, error))?);
    }
    for line in lines(&status) {
        say(&line)?;
    }
    Ok(())
}

fn lines(status: &Status) -> Vec<String> {
    let view = match status.view {
        Some((nodes, _)) => format!("{nodes} nodes"),
        None => "none: too few nodes known, no mail is taken".to_owned(),
    };
    let (mixing, waiting, delivering) = status.held;
    let seconds = status.epoch_ends_in_ms / 1000;
    let mut lines = vec![
        format!("node     {}", status.onion),
        format!("network  {}", status.network),
        format!("epoch    {}, ends in {seconds} s", status.epoch),
        format!("known    {} nodes, {} linked", status.known, status.linked),
        format!("view     {view}"),
        format!("held     {mixing} packets, {waiting} own waiting, {delivering} deliveries"),
    ];
    lines.extend(status.counts.iter().map(|(name, count)| format!("{count:>8} {name}")));
    lines
}

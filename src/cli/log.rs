//! The log: on stderr, at the level of `RUST_LOG`.
//!
//! Only the level is taken from there. Events of other crates are dropped below WARN whatever it says:
//! they print peers and names that were asked for.

use std::io;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub(super) fn start() {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let level = wanted.rsplit('=').next().and_then(|level| level.trim().parse().ok());
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("fog", level.unwrap_or(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines).with(filter).init();
}

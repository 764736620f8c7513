//! The log: on stderr, at the level of `RUST_LOG`.
//!
//! `RUST_LOG` sets a level only, bare or after `fog=`. Whatever it says, events of other crates are
//! dropped below WARN, and those of libp2p altogether: they print peers and names looked up.

use std::io;
use std::sync::OnceLock;

use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Written once at the start, and changed when the configuration has been read.
static FILTER: OnceLock<Handle<Targets, Registry>> = OnceLock::new();

pub(super) fn start() {
    let (filter, handle) = reload::Layer::new(filter(wanted().unwrap_or(LevelFilter::WARN)));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    FILTER.get_or_init(|| handle);
}

/// Sets the level from the configuration; `RUST_LOG` overrides it.
pub(super) fn set_level(level: LevelFilter) {
    if let (None, Some(handle)) = (wanted(), FILTER.get()) {
        // This fails only without a subscriber, and then there is nothing to filter.
        let _ = handle.reload(filter(level));
    }
}

fn wanted() -> Option<LevelFilter> {
    let wanted = std::env::var("RUST_LOG").ok()?;
    let level = |part: &str| part.trim().trim_start_matches("fog=").parse().ok();
    wanted.split(',').find_map(level)
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("libp2p", LevelFilter::OFF)
        .with_target("yamux", LevelFilter::OFF)
        .with_target("fog", level)
}

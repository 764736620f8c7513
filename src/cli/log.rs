//! The log: on stderr, at the level of `RUST_LOG`.
//!
//! Only the level is taken from there. Events of other crates are dropped below WARN whatever it says:
//! they print peers and names that were asked for.

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

/// The level of the configuration; `RUST_LOG` goes before it.
pub(super) fn set_level(level: LevelFilter) {
    if let (None, Some(handle)) = (wanted(), FILTER.get()) {
        // It errs only if there is no subscriber, and so nothing to filter.
        let _ = handle.reload(filter(level));
    }
}

fn wanted() -> Option<LevelFilter> {
    let wanted = std::env::var("RUST_LOG").ok()?;
    wanted.rsplit('=').next().and_then(|level| level.trim().parse().ok())
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new().with_default(LevelFilter::WARN).with_target("fog", level)
}

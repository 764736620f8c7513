//! What peers said of themselves when they were last asked.

use core::time::Duration;
use std::collections::BTreeMap;

use keys::{Hour, NodeId, Schedule, Time};
use record::ListSketch;

use crate::sync::Told;

/// How far apart a clock may be from the median of the peers', as a part of an epoch: 5 min of 3
/// hours.
pub const MAX_APART: u32 = 36;
/// The least that is allowed in any network, because a round trip may hide as much.
const LEAST: Duration = Duration::from_secs(2);
/// Peers whose word is remembered. Beyond it the oldest word goes.
const MAX_PEERS: usize = 64;
/// Clocks that a comparison needs, at least.
const MIN_PEERS: usize = 3;

/// What peers said of themselves, and when.
#[derive(Default)]
pub struct Heard(BTreeMap<NodeId, (Time, Told)>);

impl Heard {
    /// Takes a peer's word about itself.
    pub fn note(&mut self, peer: NodeId, told: Told, now: Time) {
        if self.0.len() >= MAX_PEERS
            && !self.0.contains_key(&peer)
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(node, _)| *node)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(peer, (now, told));
    }

    /// Notes that this node's clock jumped by so many milliseconds; `real` of them have passed for
    /// the peers as well, as when a machine slept.
    pub fn handle_clock_jump(&mut self, millis: i64, real: i64) {
        for (at, told) in self.0.values_mut() {
            *at = at.shifted(millis);
            told.ahead_ms = told.ahead_ms.saturating_sub(millis.saturating_sub(real));
        }
    }

    /// The list that a peer uses, with its hour, by its own word.
    #[must_use]
    pub fn list_of(&self, peer: &NodeId) -> Option<(Hour, ListSketch)> {
        self.0.get(peer).map(|(_, told)| told.list)
    }

    /// The lists of the peers that have said theirs within a span.
    pub fn lists(&self, now: Time, within: Duration) -> impl Iterator<Item = (Hour, ListSketch)> {
        self.within(now, within).map(|told| told.list)
    }

    /// Whether enough peers have told their time for a comparison.
    #[must_use]
    pub fn are_clocks_known(&self) -> bool {
        self.0.len() >= MIN_PEERS
    }

    /// By how many milliseconds the peers' clocks are ahead of ours, if their median is further off
    /// than allowed; `None` if fewer than three told their time within an epoch.
    #[must_use]
    pub fn clocks_apart(&self, schedule: &Schedule, now: Time) -> Option<i64> {
        let epoch = schedule.hour() * 3;
        let mut ahead: Vec<i64> = self.within(now, epoch).map(|told| told.ahead_ms).collect();
        ahead.sort_unstable();
        if ahead.len() < MIN_PEERS {
            return None;
        }
        let median = ahead.get(ahead.len() / 2).copied()?;
        let limit = (epoch / MAX_APART).max(LEAST);
        (u128::from(median.unsigned_abs()) > limit.as_millis()).then_some(median)
    }

    fn within(&self, now: Time, span: Duration) -> impl Iterator<Item = &Told> {
        self.0.values().filter(move |(at, _)| now.since(*at) <= span).map(|(_, told)| told)
    }
}

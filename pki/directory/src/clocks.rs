//! This node's clock beside those of its peers.

use core::time::Duration;
use std::collections::BTreeMap;

use keys::{NodeId, Schedule, Time};

/// How far apart a clock may be from the median of the peers', as a part of an epoch: 5 min of 3
/// hours.
pub const MAX_APART: u32 = 36;
/// The least that is allowed in any network, because a round trip may hide as much.
const LEAST: Duration = Duration::from_secs(2);
/// Peers whose clocks are remembered.
const MAX_PEERS: usize = 64;
/// Clocks that a comparison needs, at least.
const MIN_PEERS: usize = 3;

/// How far the peers' clocks were ahead, when they last said so.
#[derive(Default)]
pub struct Clocks(BTreeMap<NodeId, (Time, i64)>);

impl Clocks {
    /// Takes a peer's word about its clock.
    pub fn note(&mut self, peer: NodeId, ahead_ms: i64, now: Time) {
        if self.0.len() >= MAX_PEERS
            && !self.0.contains_key(&peer)
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(node, _)| *node)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(peer, (now, ahead_ms));
    }

    /// Whether enough peers have told their time for a comparison.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.0.len() >= MIN_PEERS
    }

    /// By how many milliseconds the peers' clocks are ahead of ours, if their median is further off
    /// than allowed; `None` if fewer than three told their time within an epoch.
    #[must_use]
    pub fn apart(&self, schedule: &Schedule, now: Time) -> Option<i64> {
        let epoch = schedule.hour() * 3;
        let fresh = self.0.values().filter(|(at, _)| now.since(*at) <= epoch);
        let mut ahead: Vec<i64> = fresh.map(|(_, ahead)| *ahead).collect();
        ahead.sort_unstable();
        if ahead.len() < MIN_PEERS {
            return None;
        }
        let median = ahead.get(ahead.len() / 2).copied()?;
        let limit = (epoch / MAX_APART).max(LEAST);
        (u128::from(median.unsigned_abs()) > limit.as_millis()).then_some(median)
    }
}

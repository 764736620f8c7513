//! How much each peer may send, and which peers have sent too much.
//!
//! A peer that keeps to the protocol never comes near these bounds. A peer that exceeds them is
//! hung up on, and refused under the same identity for a while. It can come back under another
//! identity: the directory, not this module, bounds what that costs in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::PeerId;

/// Statements at once: what a node is sent after an absence in which a network of 2,000 published.
const STATEMENTS: f64 = 2048.0;
/// Statements a second: 10,000 nodes publish 3 an hour each at most, which is 8; and a factor of 4.
const STATEMENTS_A_SECOND: f64 = 32.0;
/// Statements and questions above the allowance after which a peer is hung up on.
const SURPLUS: u32 = 1024;
/// Questions at once: enough to fetch the records of 10,000 nodes from three peers.
const QUESTIONS: f64 = 512.0;
/// Questions a second after that: at 128 KiB an answer, a megabyte.
const QUESTIONS_A_SECOND: f64 = 8.0;
/// How long a peer that was hung up on is refused.
pub(super) const BLOCKED_FOR: Duration = Duration::from_secs(600);
/// Identities blocked at once. The block that would end first makes room for a new one.
const MAX_BLOCKED: usize = 1024;

/// The rest of a peer's allowance.
struct Meter {
    statements: Bucket,
    questions: Bucket,
    surplus: u32,
}

/// An allowance that refills with time, up to its capacity.
pub(super) struct Bucket {
    level: f64,
    at: Duration,
}

impl Bucket {
    pub(super) fn full(level: f64, now: Duration) -> Self {
        Self { level, at: now }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.level < 1.0
    }

    pub(super) fn is_half_full(&self, most: f64) -> bool {
        self.level * 2.0 >= most
    }

    pub(super) fn take(&mut self, now: Duration, a_second: f64, most: f64) -> bool {
        let gained = now.saturating_sub(self.at).as_secs_f64() * a_second;
        self.level = (self.level + gained).min(most);
        self.at = now;
        let has = self.level >= 1.0;
        if has {
            self.level -= 1.0;
        }
        has
    }
}

/// Whether a peer's message is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// The message is accepted.
    Granted,
    /// The message is above the allowance.
    Denied,
    /// The peer has exceeded its allowance too often.
    Broken,
}

/// The meters of the linked peers. Times are monotonic since the start.
#[derive(Default)]
pub(super) struct Meters(BTreeMap<PeerId, Meter>);

impl Meters {
    pub(super) fn statement(&mut self, peer: PeerId, now: Duration) -> Allowance {
        let meter = self.meter(peer, now);
        if meter.statements.take(now, STATEMENTS_A_SECOND, STATEMENTS) {
            if meter.statements.is_half_full(STATEMENTS) {
                meter.surplus = 0;
            }
            return Allowance::Granted;
        }
        meter.surplus += 1;
        if meter.surplus > SURPLUS { Allowance::Broken } else { Allowance::Denied }
    }

    /// Credits a peer for a statement that was new and good: such a statement costs it nothing.
    pub(super) fn was_good(&mut self, peer: PeerId) {
        if let Some(meter) = self.0.get_mut(&peer) {
            meter.statements.level = (meter.statements.level + 1.0).min(STATEMENTS);
        }
    }

    pub(super) fn question(&mut self, peer: PeerId, now: Duration) -> Allowance {
        let meter = self.meter(peer, now);
        if meter.questions.take(now, QUESTIONS_A_SECOND, QUESTIONS) {
            return Allowance::Granted;
        }
        meter.surplus += 1;
        if meter.surplus > SURPLUS { Allowance::Broken } else { Allowance::Denied }
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    fn meter(&mut self, peer: PeerId, now: Duration) -> &mut Meter {
        self.0.entry(peer).or_insert_with(|| Meter {
            statements: Bucket::full(STATEMENTS, now),
            questions: Bucket::full(QUESTIONS, now),
            surplus: 0,
        })
    }
}

/// Peers that were hung up on, and until when each is refused.
#[derive(Default)]
pub(super) struct Blocked(BTreeMap<PeerId, Duration>);

impl Blocked {
    pub(super) fn block(&mut self, peer: PeerId, now: Duration) {
        self.0.retain(|_, until| *until > now);
        if self.0.len() >= MAX_BLOCKED
            && let Some(first) = self.0.iter().min_by_key(|(_, until)| **until).map(|(p, _)| *p)
        {
            self.0.remove(&first);
        }
        self.0.insert(peer, now + BLOCKED_FOR);
    }

    pub(super) fn is_blocked(&self, peer: &PeerId, now: Duration) -> bool {
        self.0.get(peer).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_denied_then_ends_the_link_and_a_patient_peer_is_neither() {
        let (flooder, patient) = (PeerId::random(), PeerId::random());
        let mut meters = Meters::default();
        let mut now = Duration::ZERO;
        let mut said = BTreeMap::new();
        for _ in 0..10_000 {
            let allowance = format!("{:?}", meters.statement(flooder, now));
            *said.entry(allowance).or_insert(0) += 1;
        }
        assert_eq!((said["Granted"], said["Denied"]), (2048, 1024));
        for _ in 0..100_000 {
            now += Duration::from_millis(40);
            assert_eq!(meters.statement(patient, now), Allowance::Granted);
        }
        meters.forget(&flooder);
        assert_eq!(meters.0.len(), 1);
    }

    #[test]
    fn a_block_ends_and_blocks_are_bounded() {
        let mut blocked = Blocked::default();
        let first = PeerId::random();
        blocked.block(first, Duration::ZERO);
        assert!(blocked.is_blocked(&first, Duration::from_secs(599)));
        assert!(!blocked.is_blocked(&first, Duration::from_secs(600)));
        for second in 0..3000 {
            blocked.block(PeerId::random(), Duration::from_millis(second));
        }
        assert_eq!(blocked.0.len(), MAX_BLOCKED);
        assert!(!blocked.is_blocked(&first, Duration::from_secs(3)));
    }
}

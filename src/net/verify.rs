//! Verifies octets from peers before the driver sees them: a pure function, which any thread can
//! run.

use directory::Answer;
use keys::{NetworkId, NodeId};
use record::Statement;

use super::handle::{Judged, NetEvent};

/// Octets to verify.
pub(super) enum Work {
    Statement { octets: Vec<u8>, judged: Judged },
    Answer { peer: NodeId, octets: Vec<u8> },
}

impl Work {
    /// Verifies them: some 300 us for a statement, up to 20 ms for an answer.
    pub(super) fn check(self, network: &NetworkId) -> NetEvent {
        match self {
            Self::Statement { octets, judged } => {
                NetEvent::Statement { checked: Statement::check(&octets, network), judged }
            }
            Self::Answer { peer, octets } => match Answer::check(&octets, network) {
                Ok(answer) => NetEvent::SyncAnswer { peer, answer },
                Err(_) => NetEvent::SyncFailed(peer),
            },
        }
    }
}

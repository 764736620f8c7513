//! Verifies octets from peers before the driver sees them: a pure function, which any thread can
//! run.

use std::cell::RefCell;

use directory::Answer;
use keys::{Checked, NetworkId, NodeId};
use record::Statement;

use super::handle::{Judged, NetEvent};

thread_local! {
    /// Each thread has its own: shared, it would be locked while another thread verifies.
    static CHECKED: RefCell<Checked> = RefCell::default();
}

/// Octets to verify.
pub(super) enum Work {
    Statement { octets: Vec<u8>, judged: Judged },
    Answer { peer: NodeId, octets: Vec<u8> },
}

impl Work {
    /// Verifies them: some 300 us for a statement, up to 20 ms for an answer, and half of that
    /// where this thread has seen the identities and keys before.
    pub(super) fn check(self, network: &NetworkId) -> NetEvent {
        CHECKED.with_borrow_mut(|checked| self.check_knowing(network, checked))
    }

    fn check_knowing(self, network: &NetworkId, known: &mut Checked) -> NetEvent {
        match self {
            Self::Statement { octets, judged } => {
                let checked = Statement::check_knowing(&octets, network, known);
                NetEvent::Statement { checked, judged }
            }
            Self::Answer { peer, octets } => match Answer::check_knowing(&octets, network, known) {
                Ok(answer) => NetEvent::SyncAnswer { peer, answer },
                Err(_) => NetEvent::SyncFailed(peer),
            },
        }
    }
}

//! Decoys: handed to other nodes beside the loop, as a user's program does.

use std::sync::Arc;

use keys::OnionAddress;
use remailer::Decoy;
use tokio::sync::{Semaphore, mpsc};

use crate::exit::submit_on;
use crate::machine::Machine;
use crate::net::connect::Connector;
use crate::net::tor::socks::DialPurpose;

/// Decoys under way at once. A node has one in twenty minutes; beyond this they are given up.
const AT_ONCE: usize = 8;

/// Hands decoys to other nodes.
pub(super) struct Decoys {
    own: OnionAddress,
    connector: Connector,
    machine: Machine,
    turns: Arc<Semaphore>,
    results: mpsc::Sender<bool>,
}

impl Decoys {
    /// Also returns where it is told whether each was taken.
    pub(super) fn new(
        own: OnionAddress,
        connector: Connector,
        machine: Machine,
    ) -> (Self, mpsc::Receiver<bool>) {
        let (results, taken) = mpsc::channel(AT_ONCE);
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        (Self { own, connector, machine, turns, results }, taken)
    }

    /// Begins to hand over a decoy; whether it could.
    pub(super) fn submit(&mut self, decoy: Decoy) -> bool {
        let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else { return false };
        let Ok(to) = OnionAddress::of(decoy.to) else { return false };
        let Ok(delivery) = decoy.delivery(&mut self.machine.rng) else { return false };
        let (connector, clock) = (self.connector.clone(), self.machine.clock);
        let (own, results) = (self.own, self.results.clone());
        tokio::spawn(async move {
            if let Some(log) = connector.trial().link_log {
                log.note_decoy(clock.now(), [&own, &to], delivery.message.len());
            }
            let connecting = connector.dial(&to, DialPurpose::Submit);
            let submitted = submit_on(delivery, connecting, clock).await;
            // The loop is gone only when the node is.
            let _ = results.send(submitted.is_ok()).await;
            drop(turn);
        });
        true
    }
}

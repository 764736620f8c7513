//! Decoys: handed to other nodes beside the loop, as a user's program does.

use std::sync::Arc;
use std::time::Duration;

use keys::OnionAddress;
use remailer::{Decoy, DecoyEnd};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::exit::submit_on;
use crate::machine::Machine;
use crate::net::connect::Connector;
use crate::net::tor::socks::DialPurpose;

/// Decoys under way at once; what comes beyond them is given up. A node has one in twenty minutes on average.
const AT_ONCE: usize = 8;
/// Time for all of a conversation: a server that keeps one for as long as each step may take must not keep the
/// eight of them.
const PATIENCE: Duration = Duration::from_secs(300);

/// Hands decoys to other nodes.
pub(super) struct Decoys {
    own: OnionAddress,
    connector: Connector,
    machine: Machine,
    turns: Arc<Semaphore>,
    ends: mpsc::Sender<DecoyEnd>,
}

impl Decoys {
    /// Also returns where it is told what became of each.
    pub(super) fn new(
        own: OnionAddress,
        connector: Connector,
        machine: Machine,
    ) -> (Self, mpsc::Receiver<DecoyEnd>) {
        let (ends, ended) = mpsc::channel(AT_ONCE);
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        (Self { own, connector, machine, turns, ends }, ended)
    }

    /// Begins to hand over a decoy.
    ///
    /// # Errors
    /// [`DecoyEnd::NotTaken`] if too many are under way.
    pub(super) fn submit(&self, decoy: Decoy) -> Result<(), DecoyEnd> {
        let turn = Arc::clone(&self.turns).try_acquire_owned();
        let turn = turn.map_err(|_| DecoyEnd::NotTaken)?;
        let to = OnionAddress::of(decoy.to).map_err(|_| DecoyEnd::NotTaken)?;
        let (own, connector, machine) = (self.own, self.connector.clone(), self.machine.clone());
        let ends = self.ends.clone();
        tokio::spawn(async move {
            let handed = timeout(PATIENCE, hand_over(decoy, [own, to], connector, machine));
            let end = handed.await.unwrap_or(DecoyEnd::NotTaken);
            // The loop is gone only when the node is.
            let _ = ends.send(end).await;
            drop(turn);
        });
        Ok(())
    }
}

async fn hand_over(
    decoy: Decoy,
    [own, to]: [OnionAddress; 2],
    connector: Connector,
    mut machine: Machine,
) -> DecoyEnd {
    let Ok(delivery) = decoy.delivery(&mut machine.rng) else { return DecoyEnd::NotTaken };
    if let Some(log) = connector.trial().link_log {
        log.note_decoy(machine.clock.now(), [&own, &to], delivery.message.len());
    }
    let connecting = connector.dial(&to, DialPurpose::Submit);
    match submit_on(delivery, connecting, machine.clock).await {
        Ok(_) => DecoyEnd::Taken,
        Err(_) => DecoyEnd::NotTaken,
    }
}

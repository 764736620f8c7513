//! What the next mail server takes, asked at the start and now and then.

use std::time::Duration;

use mail::Mailbox;
use record::ExitPolicy;
use remailer::Exit;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::smtp::{Target, least, probe};

/// How often an exit asks its next server what it takes.
const PROBE_EVERY: Duration = Duration::from_secs(600);
/// The same while it does not answer.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
const PROBE_AT_START: Duration = Duration::from_secs(1);

/// What the next server takes, if it says so soon; the record must not wait for one that is down.
pub(super) async fn first_offer(target: &Target, anonymous: &Mailbox, clock: Clock) -> Exit {
    let probed = tokio::time::timeout(PROBE_AT_START, probe(target, clock)).await;
    let policy = probed.ok().flatten().unwrap_or_else(least);
    Exit { policy, anonymous: anonymous.clone() }
}

/// Says what the next server takes, or that it does not answer.
pub(super) async fn keep_probing(
    target: Target,
    clock: Clock,
    offers: mpsc::Sender<Option<ExitPolicy>>,
) {
    let mut wait = PROBE_AGAIN;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = offers.closed() => return,
        }
        let offered = probe(&target, clock).await;
        wait = if offered.is_some() { PROBE_EVERY } else { PROBE_AGAIN };
        if offers.send(offered).await.is_err() {
            return;
        }
    }
}

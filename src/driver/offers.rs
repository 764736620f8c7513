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

pub(super) async fn keep_probing(
    target: Target,
    mut known: ExitPolicy,
    clock: Clock,
    offers: mpsc::Sender<ExitPolicy>,
) {
    loop {
        let wait = if known == least() { PROBE_AGAIN } else { PROBE_EVERY };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = offers.closed() => return,
        }
        // One that is down for now still takes what it took: mail waits for it.
        let Some(policy) = probe(&target, clock).await else { continue };
        if policy != known && offers.send(policy.clone()).await.is_err() {
            return;
        }
        known = policy;
    }
}

//! What the next mail server takes, asked at the start and now and then.

use std::time::Duration;

use mail::Needs;
use record::{Capabilities, Domains, ExitPolicy};
use smtp::Offers;
use tokio::sync::mpsc;

use super::{Target, smarthost};
use crate::clock::Clock;

/// What a server is taken to accept that announces no SIZE.
const DEFAULT_MAX_MESSAGE: u32 = 10 << 20;
/// How often an exit asks its next server what it takes.
const PROBE_EVERY: Duration = Duration::from_secs(600);
/// The same while it does not answer.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
const PROBE_AT_START: Duration = Duration::from_secs(1);

/// What can be delivered there; nothing if the server does not answer.
pub async fn probe(target: &Target, clock: Clock) -> Option<ExitPolicy> {
    match target {
        Target::Maildir(_) => Some(ExitPolicy {
            offers: Capabilities::EIGHT_BIT | Capabilities::SMTP_UTF8 | Capabilities::KEEP_FROM,
            ..least()
        }),
        Target::Smarthost(address) => {
            let offers = smarthost::offers(*address, clock).await?;
            Some(ExitPolicy {
                max_message: size(&offers),
                offers: capabilities(&offers),
                ..least()
            })
        }
    }
}

/// What the next server takes, if it says so soon; the record must not wait for one that is down.
pub(super) async fn first(target: &Target, clock: Clock) -> ExitPolicy {
    let probed = tokio::time::timeout(PROBE_AT_START, probe(target, clock)).await;
    probed.ok().flatten().unwrap_or_else(least)
}

/// Says what the next server takes, or that it does not answer.
pub(super) async fn keep_asking(
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

/// What every server of RFC 5321 takes: seven bits. Said of one that has not answered yet.
fn least() -> ExitPolicy {
    ExitPolicy {
        domains: Domains::Any,
        max_message: DEFAULT_MAX_MESSAGE,
        offers: Capabilities::KEEP_FROM,
    }
}

fn size(offers: &Offers) -> u32 {
    let announced = offers.max_message.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    announced.unwrap_or(DEFAULT_MAX_MESSAGE)
}

fn capabilities(offers: &Offers) -> Capabilities {
    let mut capabilities = Capabilities::KEEP_FROM;
    if offers.needs.contains(Needs::EIGHT_BIT) {
        capabilities = capabilities | Capabilities::EIGHT_BIT;
    }
    if offers.needs.contains(Needs::EIGHT_BIT | Needs::SMTP_UTF8) {
        capabilities = capabilities | Capabilities::SMTP_UTF8;
    }
    capabilities
}

//! Asks the next mail server what it accepts, at the start and now and then.

use std::time::Duration;

use mail::Needs;
use record::{Capabilities, Domains, ExitPolicy};
use smtp::Offers;
use tokio::sync::mpsc;

use super::{ServerFault, Target, maildir, smarthost};
use crate::clock::Clock;

/// Octets that a server is assumed to accept if it announces no SIZE: the largest mail that is carried,
/// and what an exit writes into it.
const DEFAULT_MAX_MESSAGE: u32 = (10 << 20) + (64 << 10);
/// How often an exit asks its next server what it takes.
const PROBE_EVERY: Duration = Duration::from_secs(600);
/// How often an exit asks a next server that does not answer.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
const PROBE_AT_START: Duration = Duration::from_secs(1);

/// What can be delivered to a target, or why nothing can.
///
/// # Errors
/// [`ServerFault`].
pub async fn probe(target: &Target, clock: Clock) -> Result<ExitPolicy, ServerFault> {
    match target {
        Target::Maildir(folder) => {
            let folder = folder.clone();
            let tried = tokio::task::spawn_blocking(move || maildir::probe(&folder)).await;
            tried.unwrap_or(Err(ServerFault::CannotWrite))?;
            Ok(ExitPolicy {
                offers: Capabilities::EIGHT_BIT | Capabilities::SMTP_UTF8 | Capabilities::KEEP_FROM,
                ..least()
            })
        }
        Target::Smarthost(address) => {
            let offers = smarthost::offers(*address, clock).await?;
            Ok(ExitPolicy { max_message: size(&offers), offers: capabilities(&offers), ..least() })
        }
    }
}

/// The next server's policy, or a minimum if it does not answer soon, and what is wrong with it: the
/// record must not wait for a server that is down.
pub(super) async fn first(target: &Target, clock: Clock) -> (ExitPolicy, Result<(), ServerFault>) {
    let probed = tokio::time::timeout(PROBE_AT_START, probe(target, clock)).await;
    match probed.unwrap_or(Err(ServerFault::Silent)) {
        Ok(policy) => (policy, Ok(())),
        Err(fault) => (least(), Err(fault)),
    }
}

/// Reports now and then what the next server accepts, or why it takes nothing.
pub(super) async fn keep_asking(
    target: Target,
    clock: Clock,
    offers: mpsc::Sender<Result<ExitPolicy, ServerFault>>,
) {
    let mut wait = PROBE_AGAIN;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = offers.closed() => return,
        }
        let offered = probe(&target, clock).await;
        wait = if offered.is_ok() { PROBE_EVERY } else { PROBE_AGAIN };
        if offers.send(offered).await.is_err() {
            return;
        }
    }
}

/// The policy of a server that has not answered yet: what RFC 5321 makes every server accept, which
/// is seven bits.
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

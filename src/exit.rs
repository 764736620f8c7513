//! Outgoing mail: where an exit delivers it, and how.
//!
//! A next hop of another kind (MX, LMTP, an onion, news) is one more [`Target`] with a file of its
//! own.

mod maildir;
mod probe;
mod smarthost;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use mail::{Delivery, Mailbox};
use record::{Domains, ExitPolicy};
use remailer::{DeliveryId, DeliveryOutcome, ExitOffer};
use smtp::Bar;
use tokio::sync::{Semaphore, mpsc};

use crate::machine::Machine;
pub use probe::probe;
pub use smarthost::{submit, submit_on};

/// Conversations with the next server at once.
const DELIVERIES_AT_ONCE: usize = 8;

/// Where an exit delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into a Maildir, one file for each recipient.
    Maildir(PathBuf),
    /// To an SMTP server at an address. No name is looked up for it.
    Smarthost(SocketAddr),
}

impl Target {
    /// The same target with an absolute path, so that it does not depend on the present folder.
    ///
    /// # Errors
    /// If the present folder is not known.
    pub fn absolute(self) -> io::Result<Self> {
        match self {
            Self::Maildir(folder) => std::path::absolute(folder).map(Self::Maildir),
            Self::Smarthost(address) => Ok(Self::Smarthost(address)),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(folder) = text.strip_prefix("maildir:").filter(|folder| !folder.is_empty()) {
            return Ok(Self::Maildir(folder.into()));
        }
        let address = text.strip_prefix("smtp://").map(|address| {
            address
                .strip_prefix("localhost:")
                .map_or(address.to_owned(), |port| format!("127.0.0.1:{port}"))
        });
        address
            .and_then(|address| address.parse().ok())
            .map(Self::Smarthost)
            .ok_or_else(|| "say maildir:DIR or smtp://ADDRESS:PORT".to_owned())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Maildir(folder) => write!(f, "maildir:{}", folder.display()),
            Self::Smarthost(address) => write!(f, "smtp://{address}"),
        }
    }
}

/// The settings of an exit: the mail that it delivers, the target, and the sender it names.
pub struct ExitSettings {
    /// The target of deliveries.
    pub target: Target,
    /// The recipient domains that it delivers to.
    pub domains: Domains,
    /// The From of mail whose sender did not ask for another.
    pub anonymous: Mailbox,
}

/// The exit of a running node: it delivers, and knows what the next server takes.
pub struct Exit {
    settings: ExitSettings,
    machine: Machine,
    /// The policy of the next server in its last answer.
    offered: ExitPolicy,
    fault: Option<ServerFault>,
    outcomes: mpsc::Sender<Attempted>,
    turns: Arc<Semaphore>,
}

/// Why the next server takes no mail from this node at all. Mail waits until it is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerFault {
    /// It does not answer, or not now.
    Silent,
    /// It wants TLS, which this version does not speak.
    WantsTls,
    /// It wants a password, which this version does not have.
    WantsAuth,
    /// It refuses this machine, or mail with the null sender.
    Refuses,
    /// Nothing can be written into the Maildir.
    CannotWrite,
}

impl ServerFault {
    fn of(bar: Bar) -> Self {
        match bar {
            Bar::WantsTls => Self::WantsTls,
            Bar::WantsAuth => Self::WantsAuth,
            Bar::Refuses => Self::Refuses,
        }
    }

    /// Whether it passes by itself, as far as anybody can tell: then the node goes on offering to
    /// deliver.
    fn may_pass(self) -> bool {
        self == Self::Silent
    }
}

/// What came of an attempt to deliver, and what it showed of the next server.
pub struct Attempted {
    /// The name of the delivery.
    pub id: DeliveryId,
    /// What came of it.
    pub outcome: DeliveryOutcome,
    /// What is wrong with the server, if its reply was about that.
    pub server: Result<(), ServerFault>,
}

/// What changes in the node's record.
pub enum Offer {
    /// It delivers this.
    Delivers(ExitOffer),
    /// It delivers nothing at present.
    Nothing,
}

/// The results of an exit's work.
pub struct ExitInputs {
    /// Outcomes of attempts to deliver.
    pub outcomes: mpsc::Receiver<Attempted>,
    /// The policy of the next server, or why it takes nothing.
    pub offers: mpsc::Receiver<Result<ExitPolicy, ServerFault>>,
}

impl ExitInputs {
    /// The inputs of a node that is not an exit: no result ever comes.
    #[must_use]
    pub fn none() -> Self {
        Self { outcomes: mpsc::channel(1).1, offers: mpsc::channel(1).1 }
    }
}

impl Exit {
    /// Asks the next server what it accepts, and asks it again now and then.
    pub async fn start(settings: ExitSettings, machine: Machine) -> (Self, ExitInputs) {
        let (offered, first) = probe::first(&settings.target, machine.clock).await;
        let (offers_in, offers) = mpsc::channel(1);
        tokio::spawn(probe::keep_asking(settings.target.clone(), machine.clock, offers_in));
        let (outcomes_in, outcomes) = mpsc::channel(DELIVERIES_AT_ONCE);
        let exit = Self {
            settings,
            machine,
            offered,
            fault: first.err(),
            outcomes: outcomes_in,
            turns: Arc::new(Semaphore::new(DELIVERIES_AT_ONCE)),
        };
        (exit, ExitInputs { outcomes, offers })
    }

    /// The offer to publish in the node's record, once the next server takes mail.
    #[must_use]
    pub fn offer(&self) -> ExitOffer {
        let mut policy = self.offered.clone();
        policy.domains = self.settings.domains.clone();
        ExitOffer { policy, anonymous: self.settings.anonymous.clone() }
    }

    /// What is wrong with the next server, by its last answer.
    #[must_use]
    pub fn fault(&self) -> Option<ServerFault> {
        self.fault
    }

    /// Whether the record may say that this node delivers.
    #[must_use]
    pub fn delivers(&self) -> bool {
        self.fault.is_none_or(ServerFault::may_pass)
    }

    /// Handles the policy of the next server, or why it takes nothing: a server that does not
    /// answer leaves the last policy in force, and one that takes nothing from this node ends it.
    /// Returns the record's new offer, if it changes.
    pub fn handle_offer(&mut self, offered: Result<ExitPolicy, ServerFault>) -> Option<Offer> {
        let delivered = self.delivers();
        let (fault, policy) = match offered {
            Ok(policy) => (None, policy),
            Err(fault) => (Some(fault), self.offered.clone()),
        };
        self.note_fault(fault);
        let is_same = policy == self.offered;
        self.offered = policy;
        self.changed(delivered, is_same)
    }

    /// Handles what an attempt to deliver showed of the server. Returns the record's new offer, if
    /// it changes.
    pub fn handle_shown(&mut self, server: Result<(), ServerFault>) -> Option<Offer> {
        let delivered = self.delivers();
        // That one message was refused or taken shows nothing that a probe does not.
        if let Err(fault) = server {
            self.note_fault(Some(fault));
        }
        self.changed(delivered, true)
    }

    fn note_fault(&mut self, fault: Option<ServerFault>) {
        match (self.fault, fault) {
            (before, Some(now)) if before != Some(now) => {
                tracing::warn!(fault = ?now, "the next mail server takes nothing");
            }
            (Some(_), None) => tracing::info!("the next mail server takes mail again"),
            _ => {}
        }
        self.fault = fault;
    }

    fn changed(&self, delivered: bool, is_same: bool) -> Option<Offer> {
        match (delivered, self.delivers()) {
            (true, true) if is_same => None,
            (_, true) => Some(Offer::Delivers(self.offer())),
            (true, false) => Some(Offer::Nothing),
            (false, false) => None,
        }
    }

    /// Delivers a message when its turn comes; the outcome arrives through the inputs.
    pub fn deliver(&self, id: DeliveryId, delivery: Delivery) {
        let (outcomes, turns) = (self.outcomes.clone(), Arc::clone(&self.turns));
        let (target, machine) = (self.settings.target.clone(), self.machine.clone());
        tokio::spawn(async move {
            let _turn = turns.acquire_owned().await;
            let (outcome, server) = deliver(target, delivery, machine).await;
            // The loop is gone only when the node is.
            let _ = outcomes.send(Attempted { id, outcome, server }).await;
        });
    }
}

/// One attempt to deliver.
async fn deliver(
    target: Target,
    delivery: Delivery,
    machine: Machine,
) -> (DeliveryOutcome, Result<(), ServerFault>) {
    match target {
        Target::Maildir(folder) => {
            let write = move || maildir::deliver(&folder, delivery, &machine);
            // The thread is cancelled only with the runtime: the node is ending.
            let cut_short =
                (DeliveryOutcome::Done { taken: 0, refused: 0, refused_here: 0 }, Ok(()));
            tokio::task::spawn_blocking(write).await.unwrap_or(cut_short)
        }
        Target::Smarthost(address) => smarthost::deliver(address, delivery, machine.clock).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_and_write_the_same() {
        for text in ["maildir:/tmp/x", "smtp://127.0.0.1:25", "smtp://[::1]:2525"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        let local: Target = "smtp://localhost:2500".parse().unwrap();
        assert_eq!(local.to_string(), "smtp://127.0.0.1:2500");
        for bad in
            ["", "maildir:", "smtp://", "smtp://mx.example.org:25", "smtp://127.0.0.1", "/tmp"]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}

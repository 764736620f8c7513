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
use tokio::sync::{Semaphore, mpsc};

use crate::machine::Machine;
pub use probe::probe;
pub use smarthost::submit;

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
    is_server_down: bool,
    outcomes: mpsc::Sender<(DeliveryId, DeliveryOutcome)>,
    turns: Arc<Semaphore>,
}

/// The results of an exit's work.
pub struct ExitInputs {
    /// Outcomes of attempts to deliver.
    pub outcomes: mpsc::Receiver<(DeliveryId, DeliveryOutcome)>,
    /// The policy of the next server, or `None` if it does not answer.
    pub offers: mpsc::Receiver<Option<ExitPolicy>>,
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
        let offered = probe::first(&settings.target, machine.clock).await;
        let (offers_in, offers) = mpsc::channel(1);
        tokio::spawn(probe::keep_asking(settings.target.clone(), machine.clock, offers_in));
        let (outcomes_in, outcomes) = mpsc::channel(DELIVERIES_AT_ONCE);
        let exit = Self {
            settings,
            machine,
            offered,
            is_server_down: false,
            outcomes: outcomes_in,
            turns: Arc::new(Semaphore::new(DELIVERIES_AT_ONCE)),
        };
        (exit, ExitInputs { outcomes, offers })
    }

    /// The offer to publish in the node's record.
    #[must_use]
    pub fn offer(&self) -> ExitOffer {
        let mut policy = self.offered.clone();
        policy.domains = self.settings.domains.clone();
        ExitOffer { policy, anonymous: self.settings.anonymous.clone() }
    }

    /// Whether the next server did not answer when it was last asked.
    #[must_use]
    pub fn is_server_down(&self) -> bool {
        self.is_server_down
    }

    /// Handles the policy of the next server, or `None` if the server does not answer: then the
    /// last policy stays in force, and mail waits. Returns the record's new offer, if any.
    pub fn handle_offer(&mut self, offered: Option<ExitPolicy>) -> Option<ExitOffer> {
        self.is_server_down = offered.is_none();
        let policy = offered.filter(|policy| *policy != self.offered)?;
        self.offered = policy;
        Some(self.offer())
    }

    /// Delivers a message when its turn comes; the outcome arrives through the inputs.
    pub fn deliver(&self, id: DeliveryId, delivery: Delivery) {
        let (outcomes, turns) = (self.outcomes.clone(), Arc::clone(&self.turns));
        let (target, machine) = (self.settings.target.clone(), self.machine.clone());
        tokio::spawn(async move {
            let _turn = turns.acquire_owned().await;
            let outcome = deliver(target, delivery, machine).await;
            // The loop is gone only when the node is.
            let _ = outcomes.send((id, outcome)).await;
        });
    }
}

/// One attempt to deliver.
async fn deliver(target: Target, delivery: Delivery, machine: Machine) -> DeliveryOutcome {
    match target {
        Target::Maildir(folder) => {
            let write = move || maildir::deliver(&folder, delivery, &machine);
            // The thread is cancelled only with the runtime: the node is ending.
            let cut_short = DeliveryOutcome::Done { taken: 0, refused: 0 };
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

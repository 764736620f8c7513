//! What a node that starts is waiting for.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What is waited for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Awaited {
    /// The state folder is read.
    State,
    /// Tor connects to its network.
    Tor {
        /// How far it has got, if it tells.
        percent: Option<u8>,
    },
    /// A bootstrap is asked for the network's descriptor.
    Network,
    /// The next mail server is asked what it takes.
    NextServer,
    /// Tor takes the onion service.
    Onion,
}

/// Where it is told. A copy tells the same.
#[derive(Clone)]
pub struct Startup(watch::Sender<Awaited>);

impl Default for Startup {
    fn default() -> Self {
        Self(watch::Sender::new(Awaited::State))
    }
}

impl Startup {
    /// Tells what is waited for now.
    pub fn set(&self, awaited: Awaited) {
        self.0.send_replace(awaited);
    }

    /// What is waited for.
    #[must_use]
    pub fn now(&self) -> Awaited {
        *self.0.borrow()
    }
}

//! Whether peers can reach this node: it dials itself, by its own address, like any of them.
//!
//! The dial has come home when the handshake shows the node's own key *and* this node's swarm has
//! seen a connection from itself. The first without the second is another machine with the same
//! identity.

use std::io;
use std::time::Duration;

use keys::{OnionAddress, Time};
use libp2p::core::Endpoint;
use libp2p::core::transport::{DialOpts, PortUse, Transport as _};
use libp2p::identity::Keypair;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::connect::Connector;
use super::onion;
use super::tor::TorState;
use super::tor::socks::{DialFailed, DialPurpose};
use super::transport::{OnionTransport, transport};
use crate::clock::Clock;
use crate::entropy::Generator;
use crate::machine::Machine;

const LOOK_EVERY: Duration = Duration::from_secs(180);
/// After the first failure; twice as long after each further one.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// For the dial with its handshakes.
const DIAL_TIMEOUT: Duration = Duration::from_secs(45);
/// For the swarm's word that it came in.
const ECHO_TIMEOUT: Duration = Duration::from_secs(10);
/// Tor publishes within seconds of being able to.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);
/// A node that was reachable is called unreachable after this many failures in a row: one circuit in
/// some hundreds fails by itself.
const FAILURES: u32 = 2;

/// Whether this node can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// It has not been tried yet.
    #[default]
    Unknown,
    /// It can.
    Reachable {
        /// Since when.
        since: Time,
    },
    /// It cannot.
    Unreachable {
        /// Since when.
        since: Time,
        /// The last reason.
        why: Unreachable,
    },
}

/// Why a node does not reach itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Unreachable {
    /// The dial failed.
    #[error("{0}")]
    Dial(DialFailed),
    /// Tor does not publish the onion service.
    #[error("Tor has not published the onion service")]
    NotPublished,
    /// Nobody answered, or somebody that does not speak as nodes do.
    #[error("nobody answers as a node does")]
    NoAnswer,
    /// Somebody else's swarm answers at this node's address.
    #[error("another node answers at this address")]
    WrongKey,
    /// Its own key answered, but not here.
    #[error("another machine answers with this node's identity; stop one of them")]
    Elsewhere,
}

/// What looks, now and then, for as long as the node runs.
pub(super) struct Lookout {
    keypair: Keypair,
    own: OnionAddress,
    connector: Connector,
    /// The swarm's word that it was dialled by itself.
    echoes: mpsc::Receiver<()>,
    clock: Clock,
    rng: Generator,
    reach: watch::Sender<Reach>,
}

impl Lookout {
    /// Starts looking. Returns what it finds, and where the swarm says that it was dialled by
    /// itself.
    pub(super) fn start(
        keypair: Keypair,
        own: OnionAddress,
        connector: Connector,
        machine: &Machine,
    ) -> (watch::Receiver<Reach>, mpsc::Sender<()>) {
        let (reach, found) = watch::channel(Reach::default());
        let (echoes_in, echoes) = mpsc::channel(1);
        let (clock, rng) = (machine.clock, machine.rng);
        tokio::spawn(Self { keypair, own, connector, echoes, clock, rng, reach }.run());
        (found, echoes_in)
    }

    async fn run(mut self) {
        let mut tor = self.connector.tor_state();
        let mut failures = 0;
        while !self.reach.is_closed() {
            if let Some(tor) = &mut tor
                && !self.is_published(tor).await
            {
                return;
            }
            match self.look().await {
                Ok(()) => {
                    failures = 0;
                    self.reached();
                }
                Err(why) => {
                    failures += 1;
                    if failures >= FAILURES {
                        self.missed(why);
                    }
                }
            }
            let wait = match failures {
                0 => LOOK_EVERY,
                _ => (LOOK_AGAIN * 2_u32.saturating_pow(failures - 1)).min(LONGEST_WAIT),
            };
            let wait = wait.mul_f64(self.rng.random_range(0.75..1.25));
            tokio::select! {
                () = sleep(wait) => {}
                () = changed(&mut tor) => failures = 0,
                () = self.reach.closed() => return,
            }
        }
    }

    /// Waits until there is a Tor and it has published the onion service: what is looked for before
    /// cannot be found, and is not looked for again for minutes. False if the node has ended.
    async fn is_published(&self, tor: &mut watch::Receiver<TorState>) -> bool {
        if tor.borrow_and_update().socks.is_none() {
            self.missed(Unreachable::Dial(DialFailed::NoTor));
        }
        loop {
            let published =
                tor.wait_for(|state| state.socks.is_some() && state.published.is_some());
            tokio::select! {
                published = published => return published.is_ok(),
                () = self.reach.closed() => return false,
                () = sleep(PUBLISH_TIMEOUT) => {}
            }
            if tor.borrow().socks.is_some() {
                self.missed(Unreachable::NotPublished);
            }
        }
    }

    async fn look(&mut self) -> Result<(), Unreachable> {
        while self.echoes.try_recv().is_ok() {}
        let dial = async {
            let carrier = OnionTransport::dialling(self.connector.clone(), DialPurpose::Reach);
            let upgraded = transport(&self.keypair, carrier);
            let mut upgraded = upgraded.map_err(io::Error::other)?;
            let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
            let address = onion::multiaddr(&self.own);
            upgraded.dial(address, options).map_err(io::Error::other)?.await
        };
        let dialled = timeout(DIAL_TIMEOUT, dial).await.map_err(|_| Unreachable::NoAnswer)?;
        let (peer, _connection) = dialled.map_err(|error| match DialFailed::find(&error) {
            Some(failed) => Unreachable::Dial(failed),
            None => Unreachable::NoAnswer,
        })?;
        if peer != self.keypair.public().to_peer_id() {
            return Err(Unreachable::WrongKey);
        }
        match timeout(ECHO_TIMEOUT, self.echoes.recv()).await {
            Ok(Some(())) => Ok(()),
            Ok(None) | Err(_) => Err(Unreachable::Elsewhere),
        }
    }

    fn reached(&self) {
        let since = self.clock.now();
        self.reach.send_if_modified(|reach| match reach {
            Reach::Reachable { .. } => false,
            Reach::Unknown | Reach::Unreachable { .. } => {
                *reach = Reach::Reachable { since };
                true
            }
        });
    }

    fn missed(&self, why: Unreachable) {
        let now = self.clock.now();
        self.reach.send_modify(|reach| {
            let since = match reach {
                Reach::Unreachable { since, .. } => *since,
                Reach::Unknown | Reach::Reachable { .. } => now,
            };
            *reach = Reach::Unreachable { since, why };
        });
    }
}

/// Tor went away, came back, or published the service again.
pub(super) async fn changed(tor: &mut Option<watch::Receiver<TorState>>) {
    if let Some(tor) = tor
        && tor.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

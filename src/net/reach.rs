//! Whether peers can reach this node: it dials its own address, as any peer would.
//!
//! The dial has reached this node if the handshake shows the node's own key *and* this node's swarm
//! has seen a connection from itself. The own key alone means another machine with the same
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
/// Wait after the first failure; it doubles with each further one.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Time for the dial with its handshakes.
const DIAL_TIMEOUT: Duration = Duration::from_secs(45);
/// Time for the swarm to report the connection.
const ECHO_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for publishing the onion service: Tor does it within seconds of being able to.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);
/// A node that was reachable is called unreachable after this many failures in a row: one circuit
/// in some hundreds fails by itself.
const FAILURES: u32 = 2;

/// Whether this node can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The node has not tried yet.
    #[default]
    Unknown,
    /// Peers can reach the node.
    Reachable {
        /// Since when.
        since: Time,
    },
    /// Peers cannot reach the node.
    Unreachable {
        /// Since when.
        since: Time,
        /// The reason of the last failure.
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
    /// Nothing answered, or something that does not speak as nodes do.
    #[error("nobody answers as a node does")]
    NoAnswer,
    /// Another node's swarm answers at this node's address.
    #[error("another node answers at this address")]
    WrongKey,
    /// The node's own key answered, but on another machine.
    #[error("another machine answers with this node's identity; stop one of them")]
    Elsewhere,
}

/// Tests now and then, for as long as the node runs, whether the node can be reached.
pub(super) struct Lookout {
    keypair: Keypair,
    own: OnionAddress,
    connector: Connector,
    /// The swarm's reports that it was dialled by itself.
    echoes: mpsc::Receiver<()>,
    clock: Clock,
    rng: Generator,
    reach: watch::Sender<Reach>,
}

impl Lookout {
    /// Starts the tests. Returns their results, and the channel on which the swarm reports that it
    /// was dialled by itself.
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

    /// Waits until there is a Tor that has published the onion service: a client that asks earlier
    /// finds nothing, and does not ask again for minutes. False if the node has ended.
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

/// Waits until Tor goes away, comes back, or publishes the service again.
pub(super) async fn changed(tor: &mut Option<watch::Receiver<TorState>>) {
    if let Some(tor) = tor
        && tor.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

//! Tor: streams out through its SOCKS port, and an onion service for streams in.
//!
//! A [`Tor`] keeps one control connection for as long as its node runs. The onion service lives as
//! long as that connection does; when it breaks, Tor is found or started anew, the service is added
//! again under the same key, and every task that waits for Tor is told.
//!
//! Where an operator configures Tor himself ([`Mode::Manual`]) there is no control connection, and
//! the service's streams come with a line that tells their circuits apart ([`circuits`]).

mod attach;
mod child;
pub mod circuits;
pub mod control;
mod keeper;
mod listener;
pub mod private;
mod reply;
pub mod socks;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::entropy::Generator;
use data_encoding::BASE64;
use keys::{Identity, NodeId, OnionAddress};
use rand::RngExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use zeroize::Zeroizing;

use super::incoming::Incoming;
pub use attach::{Mode, TorSettings};
use circuits::Sorted;
use keeper::{Keeper, Request};
use socks::{DialFailed, DialPurpose, SocksPort};

use crate::clock::Clock;
use crate::failure::{Failure, FailureKind};
pub use crate::net::onion::SWARM_PORT;
use crate::startup::{Awaited, Startup};

/// The port of SMTP on every node's onion service.
pub const SMTP_PORT: u16 = 2525;
/// Tor's usual SOCKS port.
const USUAL_SOCKS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9050);
/// Dials at once through one Tor. Each dial costs Tor a circuit or two.
const DIALS_AT_ONCE: usize = 16;

/// The present state of Tor.
#[derive(Clone, Debug, Default)]
pub struct TorState {
    /// The SOCKS port; `None` while there is no Tor.
    pub socks: Option<SocksPort>,
    /// The number, from 1, of the publication of the onion service that can be found at present;
    /// `None` if no publication can.
    pub published: Option<u32>,
    /// What is wrong, for the operator.
    pub trouble: Option<Failure>,
    /// Its version and origin: `tor 0.4.9.11, own`.
    pub name: String,
}

/// A Tor in use by one node.
pub struct Tor {
    connector: TorConnector,
    state: watch::Receiver<TorState>,
    sorted: Option<Sorted>,
    swarm_port: Option<u16>,
    requests: Option<mpsc::Sender<Request>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Tor {
    /// Finds or starts a Tor and waits until it has circuits, which is told to `startup`. `folder` is
    /// for a tor of its own.
    ///
    /// # Errors
    /// [`FailureKind::Tor`] if there is no Tor, or no suitable one; [`FailureKind::Clock`] if the
    /// clock is too wrong for Tor.
    pub async fn start(
        settings: TorSettings,
        folder: PathBuf,
        node: NodeId,
        clock: Clock,
        mut rng: Generator,
        startup: &Startup,
    ) -> Result<Self, Failure> {
        startup.set(Awaited::Tor { percent: None });
        let (state_in, state) = watch::channel(TorState::default());
        let connector = TorConnector::new(node, state.clone(), rng.random());
        if settings.mode == Mode::Manual {
            let socks = settings.socks.unwrap_or(USUAL_SOCKS);
            let socks = SocksPort { at: socks, owner: Some(listener::check(socks)?) };
            state_in.send_replace(TorState {
                socks: Some(socks),
                // The operator's Tor publishes it; the node's dial to itself will tell.
                published: Some(1),
                trouble: None,
                name: "configured by its operator".to_owned(),
            });
            let sorted = circuits::listen(settings.listen).await?;
            return Ok(Self {
                connector,
                state,
                sorted: Some(sorted),
                swarm_port: None,
                requests: None,
                task: None,
            });
        }
        let attached = attach::attach(&settings, &folder, clock, &mut rng, startup).await?;
        let (requests, requests_out) = mpsc::channel(1);
        let keeper = Keeper { settings, folder, clock, rng, state: state_in, publications: 0 };
        let task = tokio::spawn(keeper.run(attached, requests_out));
        // The SOCKS port must be known before the first dial.
        let mut known = state.clone();
        let _ = known.wait_for(|state| state.socks.is_some()).await;
        let (requests, task) = (Some(requests), Some(task));
        Ok(Self { connector, state, sorted: None, swarm_port: None, requests, task })
    }

    /// A connector that dials through this Tor.
    #[must_use]
    pub fn connector(&self) -> TorConnector {
        self.connector.clone()
    }

    /// The state of this Tor, kept up to date.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<TorState> {
        self.state.clone()
    }

    /// Where streams to the swarm arrive; and those to SMTP, if they do not come to the usual
    /// listener.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn listen(&mut self) -> io::Result<(Incoming, Option<Incoming>)> {
        if let Some(Sorted { swarm, smtp }) = self.sorted.take() {
            return Ok((Incoming::Sorted(swarm), Some(Incoming::Sorted(smtp))));
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        self.swarm_port = Some(listener.local_addr()?.port());
        Ok((Incoming::Socket(listener), None))
    }

    /// Publishes the node's onion service: the swarm's port goes to where the connector listens,
    /// SMTP's to `smtp`. Returns when Tor has taken it; it can be reached some seconds later.
    ///
    /// # Errors
    /// If Tor refuses the service, or already serves its address for another node.
    pub async fn serve(&self, identity: &Identity, smtp: SocketAddr) -> Result<(), Failure> {
        let Some(requests) = &self.requests else { return Ok(()) };
        let swarm = self.swarm_port;
        let swarm = swarm
            .ok_or_else(|| Failure::new(FailureKind::Internal, "the swarm does not listen yet"))?;
        let onion = OnionAddress::of(identity.node())
            .map_err(|error| Failure::new(FailureKind::State, format!("identity: {error}")))?;
        let service = Service {
            label: onion.to_string().trim_end_matches(".onion").to_owned(),
            key: Zeroizing::new(BASE64.encode(identity.onion_key().as_slice())),
            ports: [
                (SWARM_PORT, SocketAddr::from((Ipv4Addr::LOCALHOST, swarm))),
                (SMTP_PORT, smtp),
            ],
        };
        let (answer, answered) = oneshot::channel();
        let gone = || Failure::new(FailureKind::Tor, "Tor hung up").remedy("see Tor's log");
        requests.send((service, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Withdraws the onion service, and ends a tor of the node's own.
    pub async fn stop(mut self) {
        drop(self.requests.take());
        if let Some(task) = self.task.take() {
            // It errs only if it has panicked.
            let _ = task.await;
        }
    }
}

/// An onion service: its address without `.onion`, Tor's form of its key, and where its ports lead.
struct Service {
    label: String,
    key: Zeroizing<String>,
    ports: [(u16, SocketAddr); 2],
}

/// Dials onion addresses through one Tor.
#[derive(Clone)]
pub struct TorConnector {
    node: NodeId,
    state: watch::Receiver<TorState>,
    dials: Arc<Semaphore>,
    turn: Arc<AtomicU32>,
    submissions: Arc<AtomicU32>,
}

impl TorConnector {
    fn new(node: NodeId, state: watch::Receiver<TorState>, first_submission: u32) -> Self {
        let dials = Arc::new(Semaphore::new(DIALS_AT_ONCE));
        // Not where the last run began: Tor may still hold its circuits.
        let submissions = Arc::new(AtomicU32::new(first_submission));
        Self { node, state, dials, turn: Arc::default(), submissions }
    }

    /// The state of its Tor, kept up to date.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<TorState> {
        self.state.clone()
    }

    /// Connects to the swarm of a node, or to its SMTP port.
    ///
    /// # Errors
    /// [`DialFailed`].
    pub async fn dial(&self, onion: &OnionAddress, purpose: DialPurpose) -> io::Result<TcpStream> {
        let _place = match purpose {
            DialPurpose::Swarm | DialPurpose::Join | DialPurpose::Submit => {
                self.dials.acquire().await.ok()
            }
            // This is a single dial, which must not wait for peers that do not answer.
            DialPurpose::Reach => None,
        };
        let socks = self.state.borrow().socks.ok_or(DialFailed::NoTor)?;
        let turn = match purpose {
            DialPurpose::Swarm | DialPurpose::Join => self.turn.load(Ordering::Relaxed),
            // An existing circuit would not show that a new caller can reach this node.
            DialPurpose::Reach => self.turn.fetch_add(1, Ordering::Relaxed),
            // A circuit for each decoy, as for each user.
            DialPurpose::Submit => self.submissions.fetch_add(1, Ordering::Relaxed),
        };
        let port = purpose.port();
        let dialled = socks::connect(socks, &self.node, onion, port, purpose, turn).await;
        let is_shared = purpose != DialPurpose::Submit;
        if is_shared && dialled.as_ref().is_err_and(|failed| failed.is_of_circuit()) {
            // This circuit will keep failing, so later dials take a fresh one.
            let next = turn.wrapping_add(1);
            let _ = self.turn.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        Ok(dialled?)
    }
}

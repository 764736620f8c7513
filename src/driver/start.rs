//! The settings of a node, its start and its stop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keys::{Identity, NodeId, OnionAddress};
use record::Descriptor;
use remailer::{CustodyKept, DecoyEnd, ExitOffer, InvitesKept, Known, Remailer, Setup};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::asked::Asked;
use super::decoys::Decoys;
use super::disk::Disk;
use super::work::Work;
use super::{Driver, Inputs, Net, Troubles};
use crate::clock::Clock;
use crate::control::{Call, Desk, PlaceKind, Socket};
use crate::entropy::generator;
use crate::exit::{Exit, ExitInputs, ExitSettings};
use crate::failure::{Failure, FailureKind};
use crate::ingress::{self, Cutting, FromOnion, Listening, Question};
use crate::machine::Machine;
use crate::net::connect::{Connector, DevnetFolder};
use crate::net::incoming::Incoming;
use crate::net::tor::Tor;
use crate::net::{self, Beginning, Links};
use crate::startup::Awaited;
use crate::store::{Database, DiskKeeper, List, Store};

/// Questions of sessions, and calls of operators, that wait for the loop.
const QUESTIONS: usize = 64;

/// How long the end of a node waits for its disk.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// How onion addresses are reached.
pub enum Carrier {
    /// Through a folder, on loopback.
    Devnet(DevnetFolder),
    /// Through Tor.
    Tor(Tor),
}

/// The settings that a node is started with.
pub struct Settings {
    /// Its open state folder.
    pub store: Store,
    /// Its network.
    pub descriptor: Descriptor,
    /// How onion addresses are reached.
    pub carrier: Carrier,
    /// Nodes to join through; empty for the first node of a network.
    pub bootstrap: Vec<OnionAddress>,
    /// How to reach its operator; may be empty.
    pub contact: String,
    /// Other nodes of the same operator.
    pub family: Vec<NodeId>,
    /// Where it takes submissions, on loopback.
    pub smtp: SocketAddr,
    /// The mail that it delivers, if it is an exit.
    pub exit: Option<ExitSettings>,
    /// The control socket, if it is open already.
    pub desk: Option<Desk>,
}

/// A running node.
pub struct Node {
    /// Its address.
    pub onion: OnionAddress,
    /// Where it takes submissions.
    pub smtp: SocketAddr,
    /// Its progress in joining the network.
    pub progress: watch::Receiver<Progress>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// A node's progress in joining the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Nodes in its view.
    pub view: usize,
    /// Nodes linked.
    pub linked: usize,
}

impl Node {
    /// Starts a node.
    ///
    /// # Errors
    /// If its state, its ports or its network are not available.
    pub async fn start(settings: Settings, clock: Clock) -> Result<Self, Failure> {
        let Settings { store, descriptor, bootstrap, contact, family, .. } = settings;
        let desk = match settings.desk {
            Some(desk) => desk,
            None => Desk::open(store.folder(), clock)?,
        };
        let database = Database::open(store.folder())?;
        let mut machine = Machine::new(clock, generator()?);
        let identity = store.identity(&mut machine.rng)?;
        let onion = OnionAddress::of(identity.node())
            .map_err(|error| Failure::new(FailureKind::State, format!("identity: {error}")))?;
        desk.startup().set(Awaited::NextServer);
        let (exit, exit_inputs) = start_exit(settings.exit, &machine).await;
        let carried = Carried::open(settings.carrier, &onion).await?;
        let (questions_in, questions) = mpsc::channel(QUESTIONS);
        let (carries, may_carry) = watch::channel(mail::MAX_MESSAGE);
        let cutting = Cutting::new(machine.clone(), Arc::new(descriptor.clone()), may_carry);
        let smtp = ingress::listen(settings.smtp, carried.smtp, questions_in, cutting).await?;
        store.bind(&identity.node())?;
        store.pin_network(&descriptor)?;
        carried.connector.publish_smtp(&onion, smtp.here.port()).map_err(|error| {
            Failure::new(FailureKind::Port, format!("the port of SMTP: {error}"))
        })?;
        let chosen: Vec<OnionAddress> = store.list(List::Peers)?;
        let chosen = chosen.iter().map(OnionAddress::node).collect();
        let beginning = Beginning { bootstrap: bootstrap.clone(), chosen };
        let (connector, swarm) = (carried.connector, carried.swarm);
        let runs_on = machine.clone();
        let decoys = Decoys::new(onion, connector.clone(), machine.clone());
        let net = net::spawn(&identity, &descriptor, connector, swarm, beginning, runs_on)?;
        desk.startup().set(Awaited::Onion);
        if let Some(tor) = &carried.tor {
            tor.serve(&identity, smtp.onion).await?;
        }
        let offer = exit.as_ref().map(Exit::offer);
        let found = store.custody()?;
        let (statements, damaged) = (database.statements(), found.damaged);
        let mut setup = setup(&store, statements, identity, descriptor, offer, &bootstrap)?;
        setup.known.custody = found.kept;
        let setup = Setup { contact, family, ..setup };
        let mut remailer = Remailer::new(setup, clock.now(), &mut machine.rng);
        if exit.as_ref().is_some_and(|exit| !exit.delivers()) {
            remailer.handle_exit_barred(clock.now());
        }

        let tor = carried.tor;
        let keeper = DiskKeeper::new(store, database);
        let (calls_in, calls) = mpsc::channel(QUESTIONS);
        let socket = desk.hand_over(calls_in);
        let has_bootstrap = !bootstrap.is_empty();
        let started = Started {
            remailer,
            keeper,
            machine,
            net,
            has_bootstrap,
            exit,
            tor,
            socket,
            carries,
            damaged,
            decoys,
        };
        Ok(started.drive(onion, smtp, exit_inputs, calls, questions))
    }

    /// Stops it and waits until everything is written.
    ///
    /// # Errors
    /// If a part of it has panicked.
    pub async fn stop(self) -> Result<(), Failure> {
        // The node may have ended already.
        let _ = self.stop.send(());
        self.task.await.map_err(|error| Failure::new(FailureKind::Internal, error))
    }

    /// Waits until the node ends by itself: it has left, or the program has a fault.
    pub async fn ended(&mut self) {
        while self.progress.changed().await.is_ok() {}
    }
}

/// The parts of a node, once each has been started.
struct Started {
    remailer: Remailer,
    keeper: DiskKeeper,
    machine: Machine,
    net: net::Handle,
    has_bootstrap: bool,
    exit: Option<Exit>,
    tor: Option<Tor>,
    socket: Socket,
    carries: watch::Sender<usize>,
    /// Messages in custody that cannot be read.
    damaged: usize,
    decoys: (Decoys, mpsc::Receiver<DecoyEnd>),
}

impl Started {
    /// Starts the event loop.
    fn drive(
        self,
        onion: OnionAddress,
        smtp: Listening,
        exit: ExitInputs,
        calls: mpsc::Receiver<Call>,
        questions: mpsc::Receiver<Question>,
    ) -> Node {
        let net = self.net;
        let (work, done, keeping) = Work::start(self.machine.clone(), net.packets, self.keeper);
        let (decoys, decoys_taken) = self.decoys;
        let (progress_in, progress) = watch::channel(Progress::default());
        let (stop, stopped) = oneshot::channel();
        let inputs = Inputs {
            stopped,
            done,
            exit,
            failures: net.failures,
            calls,
            questions,
            decoys: decoys_taken,
            events: net.events,
            links: net.links,
            reach: net.reach.clone(),
            chosen: net.chosen,
        };
        let driver = Driver {
            remailer: self.remailer,
            machine: self.machine,
            net: Net {
                orders: net.orders,
                queues: net.queues,
                scores: net.scores,
                reach: net.reach,
                listed: net.reception.listed,
                turned: net.entrances.turned,
                linked: Links::default(),
                streams: BTreeMap::new(),
                has_bootstrap: self.has_bootstrap,
                tor: self.tor.as_ref().map(Tor::state),
            },
            exit: self.exit,
            work,
            decoys,
            disk: Disk::new(net.reception.takes_packets, self.damaged),
            places: PlaceKind::ALL
                .into_iter()
                .zip(smtp.places.into_iter().chain(net.entrances.places))
                .collect(),
            asked: Asked::default(),
            progress: progress_in,
            carries: self.carries,
            troubles: Troubles::default(),
        };
        let ending = Ending { keeping, swarm: net.task, tor: self.tor, socket: self.socket };
        let task = tokio::spawn(async move {
            driver.run(inputs).await;
            ending.wait().await;
        });
        Node { onion, smtp: smtp.here, progress, stop, task }
    }
}

async fn start_exit(
    settings: Option<ExitSettings>,
    machine: &Machine,
) -> (Option<Exit>, ExitInputs) {
    match settings {
        Some(settings) => {
            let (exit, inputs) = Exit::start(settings, machine.clone()).await;
            (Some(exit), inputs)
        }
        None => (None, ExitInputs::none()),
    }
}

/// The sources of incoming streams, and the connector that dials.
struct Carried {
    connector: Connector,
    swarm: Incoming,
    /// How submissions come through the onion service.
    smtp: FromOnion,
    tor: Option<Tor>,
}

impl Carried {
    async fn open(carrier: Carrier, onion: &OnionAddress) -> Result<Self, Failure> {
        let no_port =
            |error| Failure::new(FailureKind::Port, format!("the swarm's listener: {error}"));
        Ok(match carrier {
            Carrier::Devnet(folder) => {
                let swarm = folder.listen(onion).await.map_err(no_port)?;
                Self {
                    connector: Connector::Devnet(folder),
                    swarm,
                    smtp: FromOnion::None,
                    tor: None,
                }
            }
            Carrier::Tor(mut tor) => {
                let (swarm, smtp) = tor.listen().await.map_err(no_port)?;
                let connector = Connector::Tor(tor.connector());
                let smtp = smtp.map_or(FromOnion::Socket, FromOnion::Sorted);
                Self { connector, swarm, smtp, tor: Some(tor) }
            }
        })
    }
}

/// Gathers the setup of a node from its state folder.
fn setup(
    store: &Store,
    statements: Vec<Vec<u8>>,
    identity: Identity,
    descriptor: Descriptor,
    exit: Option<ExitOffer>,
    bootstrap: &[OnionAddress],
) -> Result<Setup, Failure> {
    let banned: Vec<OnionAddress> = store.list(List::Banned)?;
    let banned: BTreeSet<_> = banned.iter().map(OnionAddress::node).collect();
    let hour = descriptor.parameters().schedule().hour();
    // The first node of a network, at its first start, has no other node to ask.
    let is_first = bootstrap.is_empty() && statements.is_empty();
    Ok(Setup {
        exit,
        epochs: store.epochs()?,
        past: store.past(&identity.node())?,
        first_record_after: if is_first { Duration::ZERO } else { hour / 60 },
        known: Known {
            statements,
            list: store.hour_list()?,
            vote: store.vote()?,
            health: store.health(),
            custody: CustodyKept::default(),
            leaving: store.list(List::Leaving)?.pop(),
        },
        banned,
        invites: InvitesKept {
            open: store.list(List::Invites)?,
            given: store.list(List::Invite)?.pop(),
        },
        ..Setup::new(identity, Arc::new(descriptor))
    })
}

/// The tasks that must end after the loop, in this order.
struct Ending {
    /// The thread that owns the disk.
    keeping: oneshot::Receiver<()>,
    /// The swarm, which withdraws its address.
    swarm: tokio::task::JoinHandle<()>,
    tor: Option<Tor>,
    socket: Socket,
}

impl Ending {
    async fn wait(self) {
        if timeout(WRITTEN_WITHIN, self.keeping).await.is_err() {
            tracing::error!("the disk hangs: what was to be kept last may be lost");
        }
        // Joining a task fails only if it has panicked.
        let _ = self.swarm.await;
        if let Some(tor) = self.tor {
            tor.stop().await;
        }
        drop(self.socket);
    }
}

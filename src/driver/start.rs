//! What a node is started with, and how it starts and stops.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use keys::{NodeId, OnionAddress};
use mail::Mailbox;
use record::{Descriptor, Domains, ExitPolicy};
use remailer::{Remailer, Setup};
use sphinx::EpochKeys;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::offers::{first_offer, keep_probing};
use super::{
    DELIVERIES_AT_ONCE, Driver, Inputs, Net, OPENED, QUESTIONS, keep_tags, open_packets,
    processors, wait_for_catch_up,
};
use crate::clock::Clock;
use crate::control::{self, Call};
use crate::entropy::{Generator, generator};
use crate::failure::{Failure, Kind};
use crate::invite::{Invite, Invites};
use crate::net::connect::{Connector, DevnetFolder};
use crate::net::tor::Tor;
use crate::net::{self, Beginning, Links};
use crate::smtp::{Question, Target, listen};
use crate::store::{List, Store};

/// How onion addresses are reached.
pub enum Carrier {
    /// Through a folder, on loopback.
    Devnet(DevnetFolder),
    /// Through Tor.
    Tor(Tor),
}

/// What a node is started with.
pub struct Settings {
    /// Its open state folder.
    pub store: Store,
    /// Its network.
    pub descriptor: Descriptor,
    /// How onion addresses are reached.
    pub carrier: Carrier,
    /// Nodes to begin with; none for the first of a network.
    pub bootstrap: Vec<OnionAddress>,
    /// How to reach its operator; may be empty.
    pub contact: String,
    /// Other nodes of the same operator.
    pub family: Vec<NodeId>,
    /// Where it takes submissions, on loopback.
    pub smtp: SocketAddr,
    /// Where it delivers, if it is an exit.
    pub deliver: Option<Target>,
    /// To which recipient domains.
    pub domains: Domains,
    /// The From of mail whose sender did not ask for another.
    pub anonymous: Mailbox,
}

/// A running node.
pub struct Node {
    /// Its address.
    pub onion: OnionAddress,
    /// Where it takes submissions.
    pub smtp: SocketAddr,
    /// Nodes in its view, and nodes linked.
    pub progress: watch::Receiver<(usize, usize)>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl Node {
    /// Starts a node.
    ///
    /// # Errors
    /// If its state, its ports or its network cannot be had.
    pub async fn start(settings: Settings, clock: Clock) -> Result<Self, Failure> {
        let mut rng = generator()?;
        let store = settings.store;
        let identity = store.identity(&mut rng)?;
        let onion = OnionAddress::of(identity.node())
            .map_err(|error| Failure::new(Kind::State, format!("identity: {error}")))?;
        let network = settings.descriptor.id();
        let mut exit = match &settings.deliver {
            Some(target) => Some(first_offer(target, &settings.anonymous, clock).await),
            None => None,
        };
        let probed = exit.as_ref().map(|exit| exit.policy.clone());
        if let Some(exit) = &mut exit {
            exit.policy.domains = settings.domains.clone();
        }

        let (questions_in, questions) = mpsc::channel(QUESTIONS);
        let no_port = |error| Failure::new(Kind::Port, format!("the swarm's listener: {error}"));
        let (connector, incoming, from_onion, tor) = match settings.carrier {
            Carrier::Devnet(folder) => {
                let incoming = folder.listen(&onion).await.map_err(no_port)?;
                (Connector::Devnet(folder), incoming, None, None)
            }
            Carrier::Tor(mut tor) => {
                let (incoming, from_onion) = tor.listen().await.map_err(no_port)?;
                (Connector::Tor(tor.connector()), incoming, from_onion, Some(tor))
            }
        };
        let smtp = listen(settings.smtp, from_onion, questions_in, clock).await?;
        store.bind(&identity.node())?;
        store.pin_network(&settings.descriptor)?;
        let (calls_in, calls) = mpsc::channel(QUESTIONS);
        let socket = control::listen(store.folder(), calls_in)?;
        let chosen: Vec<OnionAddress> = store.list(List::Peers)?;
        let net = net::spawn(
            &identity,
            &settings.descriptor,
            connector,
            incoming,
            Beginning {
                bootstrap: settings.bootstrap.clone(),
                chosen: chosen.iter().map(OnionAddress::node).collect(),
            },
            clock,
            rng,
        )?;
        if let Some(tor) = &tor {
            tor.serve(&identity, smtp).await?;
        }

        let (offers_in, offers) = mpsc::channel(1);
        if let Some(target) = settings.deliver.clone() {
            tokio::spawn(keep_probing(target, clock, offers_in));
        }
        let statements = store.statements();
        let banned: Vec<OnionAddress> = store.list(List::Banned)?;
        let banned: BTreeSet<_> = banned.iter().map(OnionAddress::node).collect();
        let hour = settings.descriptor.parameters().schedule().hour();
        let setup = Setup {
            identity,
            descriptor: Arc::new(settings.descriptor),
            exit,
            contact: settings.contact,
            family: settings.family,
            epochs: store.epochs()?,
            past: store.past(&onion.node())?,
            first_record_after: wait_for_catch_up(&settings.bootstrap, &statements, hour),
            statements,
            banned: banned.clone(),
        };
        let remailer = Remailer::new(setup, clock.now(), &mut rng);
        Ok(Parts {
            remailer,
            banned,
            invites: Invites::new(store.list(List::Invites)?),
            invite: store.list(List::Invite)?.pop(),
            store,
            clock,
            rng,
            onion,
            network: network.to_string(),
            smtp,
            target: settings.deliver,
            anonymous: settings.anonymous,
            domains: settings.domains,
            offered: probed,
            net,
            tor,
            socket,
            questions,
            calls,
            offers,
        }
        .drive())
    }

    /// Stops it and waits until everything is written.
    ///
    /// # Errors
    /// Why it had ended by itself before.
    pub async fn stop(self) -> Result<(), Failure> {
        // It may have ended already.
        let _ = self.stop.send(());
        self.task.await.unwrap_or_else(|error| Err(Failure::new(Kind::Internal, error)))
    }

    /// Waits until it ends by itself, which only a failing disk makes it do.
    pub async fn ended(&mut self) {
        while self.progress.changed().await.is_ok() {}
    }
}

/// All that a running node is made of.
struct Parts {
    remailer: Remailer,
    banned: BTreeSet<NodeId>,
    invites: Invites,
    invite: Option<Invite>,
    store: Store,
    clock: Clock,
    rng: Generator,
    onion: OnionAddress,
    network: String,
    smtp: SocketAddr,
    target: Option<Target>,
    anonymous: Mailbox,
    domains: Domains,
    offered: Option<ExitPolicy>,
    net: net::Handle,
    tor: Option<Tor>,
    socket: control::Socket,
    questions: mpsc::Receiver<Question>,
    calls: mpsc::Receiver<Call>,
    offers: mpsc::Receiver<Option<ExitPolicy>>,
}

impl Parts {
    /// Sets the loop going.
    fn drive(self) -> Node {
        let net = self.net;
        let (opened_in, opened) = mpsc::channel(OPENED);
        let (keys, keys_out) = watch::channel(EpochKeys::default());
        let (outcomes_in, outcomes) = mpsc::channel(DELIVERIES_AT_ONCE);
        let (sealed_in, sealed) = mpsc::channel(OPENED);
        let (tags, tag_orders) = mpsc::unbounded_channel();
        let (kept_in, kept) = mpsc::channel(OPENED);
        let keeper = self.store.tags();
        let keeping = tokio::task::spawn_blocking(move || keep_tags(keeper, tag_orders, &kept_in));
        let (progress_in, progress) = watch::channel((0, 0));
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(open_packets(net.packets, keys_out, opened_in));
        let driver = Driver {
            remailer: self.remailer,
            store: self.store,
            clock: self.clock,
            rng: self.rng,
            network: self.network,
            target: self.target,
            anonymous: self.anonymous,
            net: Net {
                orders: net.orders,
                queues: net.queues,
                links: net.links.clone(),
                scores: net.scores,
                reach: net.reach.clone(),
                tor: self.tor.as_ref().map(Tor::state),
            },
            keys,
            outcomes: outcomes_in,
            conversations: Arc::new(Semaphore::new(DELIVERIES_AT_ONCE)),
            sealed: sealed_in,
            sealers: Arc::new(Semaphore::new(processors())),
            progress: progress_in,
            linked: Links::default(),
            to_ask: BTreeSet::new(),
            tags,
            banned: self.banned,
            invites: self.invites,
            invite: self.invite,
            invite_refused: false,
            domains: self.domains,
            offered: self.offered,
            next_server_is_down: false,
            unkept: 0,
        };
        let inputs = Inputs {
            stopped,
            opened,
            kept,
            outcomes,
            sealed,
            failures: net.failures,
            offers: self.offers,
            calls: self.calls,
            questions: self.questions,
            events: net.events,
            links: net.links,
            reach: net.reach,
            chosen: net.chosen,
        };
        let (swarm, tor, socket) = (net.task, self.tor, self.socket);
        let task = tokio::spawn(async move {
            let ended = driver.run(inputs).await;
            // Its thread has the database open.
            let _ = keeping.await;
            // The driver's ends are closed now; the swarm takes its address back.
            let _ = swarm.await;
            if let Some(tor) = tor {
                tor.stop().await;
            }
            drop(socket);
            ended
        });
        Node { onion: self.onion, smtp: self.smtp, progress, stop, task }
    }
}

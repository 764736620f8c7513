//! Which links are held: which nodes are dialled and when, which are refused, which remembered.
//!
//! The node decides which links it wants ([`remailer::Command::Links`]). This module dials and
//! redials them, beside the bootstraps and a few nodes that this one chose itself: an attacker that
//! fills all incoming links of a node still does not decide what the node hears.

use std::collections::BTreeSet;
use std::time::Duration;

use keys::NodeId;
use libp2p::PeerId;
use libp2p::core::transport::TransportError;
use libp2p::swarm::DialError;
use rand::Rng;
use tokio::sync::watch;

use super::connect::Connector;
use super::handle::Beginning;
use super::meters::Blocked;
use super::onion;
use super::tor::TorState;
use super::tor::socks::{DialFailed, Retry};
use super::wanted::WantedLinks;

/// A peer that answered with the wrong key is not dialled again for this long.
const WRONG_KEY_WAIT: Duration = Duration::from_secs(3600);
/// Nodes that this one chose to dial. It keeps dialling them, across restarts too, whatever other
/// nodes dial it.
const CHOSEN: usize = 8;

/// Times are monotonic since the start.
pub(super) struct Dialling {
    bootstrap: Vec<NodeId>,
    wanted: WantedLinks,
    /// Linked nodes that this one dialled.
    dialled: BTreeSet<NodeId>,
    /// Nodes of `dialled` that this one keeps dialling, whatever happens.
    chosen: watch::Sender<Vec<NodeId>>,
    blocked: Blocked,
    tor: Option<watch::Receiver<TorState>>,
    /// The last known publication of the onion service.
    published: Option<u32>,
}

impl Dialling {
    /// Begins with the bootstraps, and with the nodes chosen before.
    pub(super) fn new(beginning: Beginning, own: NodeId, connector: &Connector) -> Self {
        let bootstrap = beginning.bootstrap.iter().map(keys::OnionAddress::node);
        let bootstrap: Vec<_> = bootstrap.filter(|node| *node != own).collect();
        let chosen: Vec<_> = beginning.chosen.into_iter().take(CHOSEN).collect();
        let mut wanted = WantedLinks::default();
        for node in bootstrap.iter().chain(&chosen) {
            wanted.want(*node);
        }
        Self {
            bootstrap,
            wanted,
            dialled: BTreeSet::new(),
            chosen: watch::Sender::new(chosen),
            blocked: Blocked::default(),
            tor: connector.tor_state(),
            published: None,
        }
    }

    /// The nodes that this one chose, for the next start.
    pub(super) fn chosen(&self) -> watch::Receiver<Vec<NodeId>> {
        self.chosen.subscribe()
    }

    /// The state of the node's Tor.
    pub(super) fn tor(&mut self) -> &mut Option<watch::Receiver<TorState>> {
        &mut self.tor
    }

    pub(super) fn want(&mut self, node: NodeId) {
        self.wanted.want(node);
    }

    /// Limits the wanted links to these nodes, the bootstraps and the chosen nodes.
    pub(super) fn want_only(&mut self, nodes: &[NodeId]) {
        let (bootstrap, chosen) = (&self.bootstrap, self.chosen.borrow().clone());
        self.wanted.keep_only(|node| {
            nodes.contains(node) || bootstrap.contains(node) || chosen.contains(node)
        });
        for node in self.bootstrap.iter().chain(&chosen).chain(nodes) {
            self.wanted.want(*node);
        }
        // Only nodes of the view are chosen: being heard of first must not be enough.
        let dialled = self.dialled.iter().filter(|node| nodes.contains(node)).copied();
        let dialled: Vec<_> = dialled.collect();
        self.choose(|chosen| {
            let new = dialled.into_iter().filter(|node| !chosen.contains(node));
            let new: Vec<_> = new.take(CHOSEN.saturating_sub(chosen.len())).collect();
            chosen.extend(new);
        });
    }

    /// Stops dialling a node, unless it is a bootstrap: that is dialled for as long as it is
    /// configured, for it may come back.
    pub(super) fn forget(&mut self, node: &NodeId) {
        if !self.bootstrap.contains(node) {
            self.wanted.forget(node);
            self.choose(|chosen| chosen.retain(|known| known != node));
        }
    }

    fn choose(&self, change: impl FnOnce(&mut Vec<NodeId>)) {
        self.chosen.send_if_modified(|chosen| {
            let before = chosen.len();
            change(chosen);
            chosen.len() != before
        });
    }

    /// Notes that a link is up, and which side dialled it.
    pub(super) fn connected(&mut self, node: NodeId, by: DialledBy, now: Duration) {
        if by == DialledBy::Us {
            self.dialled.insert(node);
        }
        self.wanted.connected(&node, now);
    }

    pub(super) fn disconnected(&mut self, node: &NodeId) {
        self.dialled.remove(node);
    }

    /// Nodes to dial now, of those that are not linked.
    pub(super) fn due(
        &mut self,
        now: Duration,
        linked: &BTreeSet<NodeId>,
        rng: &mut impl Rng,
    ) -> Vec<NodeId> {
        self.wanted.due(now, |node| linked.contains(node), rng)
    }

    /// Notes that a dial failed: some failures tell when the next dial makes sense.
    pub(super) fn failed(&mut self, peer: &PeerId, error: &DialError, now: Duration) {
        let Some(node) = onion::node_id(peer) else { return };
        let then = match (error, dial_failed(error)) {
            (DialError::WrongPeerId { .. }, _) => now + WRONG_KEY_WAIT,
            (_, Some(failed)) if failed.retry() == Retry::Never => Duration::MAX,
            _ => return,
        };
        self.wanted.not_before(&node, then);
    }

    /// Notes a change of Tor. A new publication of the onion service means that Tor was gone and
    /// is back.
    pub(super) fn tor_changed(&mut self, now: Duration, rng: &mut impl Rng) {
        let Some(tor) = &mut self.tor else { return };
        let Some(published) = tor.borrow_and_update().published else { return };
        if self.published.is_some_and(|before| before < published) {
            self.wanted.renew(now, rng);
        }
        self.published = Some(published);
    }

    /// Refuses a peer for a while.
    pub(super) fn block(&mut self, peer: PeerId, now: Duration) {
        self.blocked.block(peer, now);
    }

    pub(super) fn is_blocked(&self, peer: &PeerId, now: Duration) -> bool {
        self.blocked.is_blocked(peer, now)
    }
}

/// The side that dialled a link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DialledBy {
    Us,
    Them,
}

/// The reason why the transport could not dial.
pub(super) fn dial_failed(error: &DialError) -> Option<DialFailed> {
    let DialError::Transport(errors) = error else { return None };
    errors.iter().find_map(|(_, error)| match error {
        TransportError::Other(error) => DialFailed::find(error),
        TransportError::MultiaddrNotSupported(_) => None,
    })
}

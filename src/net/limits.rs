//! How many links a node has, and with whom.
//!
//! `libp2p-connection-limits` counts the same, and keeps an entry for each peer that ever had a link:
//! a stranger that comes back under new names would fill the memory of a node with them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{
    ConnectionClosed, ConnectionEstablished, DialFailure, ListenFailure,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

/// Connections at once: for links to the 64 nodes that every node is linked to, in both
/// directions, and for nodes that are joining.
const MAX_CONNECTIONS: usize = 256;
/// Of these, those that others dialled.
const MAX_INCOMING: usize = MAX_CONNECTIONS / 4 * 3;
/// More than one: two nodes may dial each other at the same time, and a peer whose Tor has died
/// comes back before its old links are known to be dead.
const MAX_PER_PEER: usize = 4;
const MAX_PENDING: usize = 64;
/// More handshakes than silent callers on a few circuits can keep open: the onion service limits
/// the streams of a circuit.
const MAX_PENDING_INCOMING: usize = 512;
/// Sockets at once: connections, and handshakes in both directions.
pub(crate) const MAX_SOCKETS: usize = MAX_CONNECTIONS + MAX_PENDING + MAX_PENDING_INCOMING;

/// Refuses connections above the limits. What is kept for one goes when it ends.
#[derive(Default)]
pub(crate) struct Limits {
    dialled: BTreeSet<ConnectionId>,
    arriving: BTreeSet<ConnectionId>,
    /// All that have been made, and of these those that others dialled.
    made: BTreeSet<ConnectionId>,
    incoming: BTreeSet<ConnectionId>,
    of_peer: BTreeMap<PeerId, BTreeSet<ConnectionId>>,
}

impl Limits {
    fn check_made(&self, peer: &PeerId) -> Result<(), ConnectionDenied> {
        check(self.made.len(), MAX_CONNECTIONS, "connections")?;
        let own = self.of_peer.get(peer).map_or(0, BTreeSet::len);
        check(own, MAX_PER_PEER, "connections with one peer")
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        let sets = [&self.dialled, &self.arriving, &self.made, &self.incoming];
        self.of_peer.is_empty() && sets.iter().all(|set| set.is_empty())
    }
}

fn check(held: usize, most: usize, what: &str) -> Result<(), ConnectionDenied> {
    if held >= most {
        return Err(ConnectionDenied::new(io::Error::other(format!("too many {what}"))));
    }
    Ok(())
}

impl NetworkBehaviour for Limits {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        check(self.arriving.len(), MAX_PENDING_INCOMING, "callers")?;
        self.arriving.insert(id);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.arriving.remove(&id);
        check(self.incoming.len(), MAX_INCOMING, "connections from others")?;
        self.check_made(&peer)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        check(self.dialled.len(), MAX_PENDING, "dials")?;
        self.dialled.insert(id);
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.dialled.remove(&id);
        self.check_made(&peer)?;
        Ok(dummy::ConnectionHandler)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the others change no connection")]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                self.made.insert(connection_id);
                if endpoint.is_listener() {
                    self.incoming.insert(connection_id);
                }
                self.of_peer.entry(peer_id).or_default().insert(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.made.remove(&connection_id);
                self.incoming.remove(&connection_id);
                if let Some(own) = self.of_peer.get_mut(&peer_id) {
                    own.remove(&connection_id);
                    if own.is_empty() {
                        self.of_peer.remove(&peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.dialled.remove(&connection_id);
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.arriving.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::ConnectedPoint;
    use libp2p::swarm::{DialError, ListenError};

    use super::*;
    use crate::net::streams;

    /// The behaviours that keep something for a link, and what a swarm tells them.
    #[derive(Default)]
    struct Field {
        limits: Limits,
        streams: Option<streams::Behaviour>,
        serial: usize,
    }

    impl Field {
        fn id(&mut self) -> ConnectionId {
            self.serial += 1;
            ConnectionId::new_unchecked(self.serial)
        }

        fn arrive(&mut self) -> Option<ConnectionId> {
            let (id, nowhere) = (self.id(), Multiaddr::empty());
            let arrived = self.limits.handle_pending_inbound_connection(id, &nowhere, &nowhere);
            arrived.ok().map(|()| id)
        }

        fn dial(&mut self) -> Option<ConnectionId> {
            let id = self.id();
            let dialled =
                self.limits.handle_pending_outbound_connection(id, None, &[], Endpoint::Dialer);
            dialled.ok().map(|_| id)
        }

        fn make(&mut self, id: ConnectionId, peer_id: PeerId, is_incoming: bool) -> bool {
            let nowhere = Multiaddr::empty();
            let limits = &mut self.limits;
            let made = match is_incoming {
                true => {
                    limits.handle_established_inbound_connection(id, peer_id, &nowhere, &nowhere)
                }
                false => limits.handle_established_outbound_connection(
                    id,
                    peer_id,
                    &nowhere,
                    Endpoint::Dialer,
                    PortUse::Reuse,
                ),
            };
            if made.is_err() {
                return false;
            }
            self.tell(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id: id,
                endpoint: &endpoint(is_incoming),
                failed_addresses: &[],
                other_established: 0,
            }));
            true
        }

        fn end(&mut self, connection_id: ConnectionId, peer_id: PeerId) {
            self.tell(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                endpoint: &endpoint(true),
                cause: None,
                remaining_established: 0,
            }));
        }

        fn tell(&mut self, event: FromSwarm<'_>) {
            self.streams.get_or_insert_with(streams::Behaviour::new).on_swarm_event(event);
            self.limits.on_swarm_event(event);
        }
    }

    fn endpoint(is_incoming: bool) -> ConnectedPoint {
        let nowhere = Multiaddr::empty();
        match is_incoming {
            true => {
                ConnectedPoint::Listener { local_addr: nowhere.clone(), send_back_addr: nowhere }
            }
            false => ConnectedPoint::Dialer {
                address: nowhere,
                role_override: Endpoint::Dialer,
                port_use: PortUse::Reuse,
            },
        }
    }

    #[test]
    fn nothing_is_kept_of_a_peer_whose_links_have_ended() {
        let mut field = Field::default();
        for _ in 0..1000 {
            let (id, peer) = (field.arrive().unwrap(), PeerId::random());
            assert!(field.make(id, peer, true));
            assert!(!field.limits.is_empty() && !field.streams.as_ref().unwrap().is_empty());
            field.end(id, peer);
        }
        assert!(field.limits.is_empty() && field.streams.unwrap().is_empty());
    }

    #[test]
    fn connections_are_limited_in_every_way_there_is() {
        let mut field = Field::default();
        let callers: Vec<_> = std::iter::from_fn(|| field.arrive()).collect();
        assert_eq!(callers.len(), 512);
        let dials: Vec<_> = std::iter::from_fn(|| field.dial()).collect();
        assert_eq!(dials.len(), 64);

        let one = PeerId::random();
        let mut made: Vec<_> = callers[..5].iter().map(|id| (*id, one)).collect();
        made.retain(|(id, peer)| field.make(*id, *peer, true));
        assert_eq!(made.len(), 4);
        let others = callers[5..].iter().map(|id| (*id, PeerId::random()));
        made.extend(others.filter(|(id, peer)| field.make(*id, *peer, true)));
        assert_eq!(made.len(), 192);
        // Those that others made leave room for those that this node dials.
        let own: Vec<_> = dials.iter().map(|id| (*id, PeerId::random())).collect();
        made.extend(own.into_iter().filter(|(id, peer)| field.make(*id, *peer, false)));
        assert_eq!(made.len(), 256);
        let more = field.dial().unwrap();
        assert!(!field.make(more, PeerId::random(), false));

        // What fails before it is made has its place no longer.
        let (failed, broken) = (field.dial().unwrap(), field.arrive().unwrap());
        let aborted = (DialError::Aborted, ListenError::Aborted);
        field.tell(FromSwarm::DialFailure(DialFailure {
            peer_id: None,
            error: &aborted.0,
            connection_id: failed,
        }));
        let nowhere = Multiaddr::empty();
        field.tell(FromSwarm::ListenFailure(ListenFailure {
            local_addr: &nowhere,
            send_back_addr: &nowhere,
            error: &aborted.1,
            connection_id: broken,
            peer_id: None,
        }));
        for (id, peer) in made {
            field.end(id, peer);
        }
        assert!(field.limits.is_empty());
        const { assert!(crate::net::transport::MAX_STREAMS <= 32) };
    }
}

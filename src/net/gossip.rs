//! The gossip topic: gossipsub for links through Tor, with a meter on the work each peer causes.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use keys::NetworkId;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::gossipsub::{
    self, IdentTopic, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds,
    TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use record::MAX_STATEMENT;

use super::meters::{Allowance, Bucket};
use crate::clock::Clock;

/// Octets of the gossip envelope around a statement: topic and field lengths.
pub(super) const OVERHEAD: usize = 512;
/// Below this score a peer is not listened to, and is hung up on: nine bad statements in a row.
pub(super) const WORST_SCORE: f64 = -80.0;
/// How long a peer without a link keeps its score. A peer that is hung up on is refused for longer
/// than this; a stranger that comes under a new name each time leaves an entry behind it each time.
const RETAINED: Duration = Duration::from_secs(60);

type Inner = gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>;

/// Gossipsub with a limit on each peer's actions, at once and per second. Messages, subscriptions
/// and control actions all count; a statement causes about three.
pub(crate) struct Gossip {
    pub(crate) inner: Inner,
    clock: Clock,
    meters: BTreeMap<PeerId, (Bucket, u32)>,
    floods: VecDeque<PeerId>,
}

const ACTIONS: f64 = 8192.0;
const ACTIONS_A_SECOND: f64 = 128.0;
/// Actions above the allowance are dropped; a peer that exceeds it by this many is hung up on.
const SURPLUS: u32 = 1024;

/// An event of the gossip.
#[derive(Debug)]
pub(crate) enum Said {
    /// A peer said something.
    Gossip(gossipsub::Event),
    /// A peer says too much.
    TooMuch(PeerId),
}

/// The topic on which a network's statements travel.
pub(crate) fn topic(network: &NetworkId) -> IdentTopic {
    IdentTopic::new(format!("fog/2/{network}/statements"))
}

impl Gossip {
    pub(crate) fn new(network: &NetworkId, clock: Clock) -> Result<Self, String> {
        let ours = std::iter::once(topic(network).hash()).collect();
        let mut inner = Inner::new_with_subscription_filter(
            MessageAuthenticity::Anonymous,
            config()?,
            WhitelistSubscriptionFilter(ours),
        )?;
        inner.with_peer_score(scores(network), thresholds())?;
        Ok(Self { inner, clock, meters: BTreeMap::new(), floods: VecDeque::new() })
    }

    fn allow(&mut self, peer: PeerId, actions: usize) -> Allowance {
        let now = self.clock.elapsed();
        let full = || (Bucket::full(ACTIONS, now), 0);
        let (bucket, surplus) = self.meters.entry(peer).or_insert_with(full);
        for _ in 0..actions {
            if !bucket.take(now, ACTIONS_A_SECOND, ACTIONS) {
                *surplus = surplus.saturating_add(1);
                if *surplus > SURPLUS {
                    return Allowance::Broken;
                }
            }
        }
        if *surplus > 0 && bucket.is_empty() {
            return Allowance::Denied;
        }
        if bucket.is_half_full(ACTIONS) {
            *surplus = 0;
        }
        Allowance::Granted
    }
}

pub(super) fn config() -> Result<gossipsub::Config, String> {
    // The times suit links through Tor, on which the defaults give up too early.
    gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .max_transmit_size(MAX_STATEMENT + OVERHEAD)
        // Anonymous messages have no author or number: by default they would all get the same id.
        .message_id_fn(|message| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(message.topic.as_str().as_bytes());
            hasher.update(&message.data);
            MessageId::new(hasher.finalize().as_bytes())
        })
        .publish_queue_duration(Duration::from_secs(60))
        .forward_queue_duration(Duration::from_secs(30))
        .iwant_followup_time(Duration::from_secs(20))
        .history_length(12)
        .history_gossip(6)
        .duplicate_cache_time(Duration::from_secs(600))
        // IDONTWANT goes to all peers before anything is verified: a peer that floods one node
        // would make that node flood the others.
        .idontwant_message_size_threshold(usize::MAX)
        .build()
        .map_err(|error| error.to_string())
}

pub(super) fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds { graylist_threshold: WORST_SCORE, ..PeerScoreThresholds::default() }
}

/// Judges peers by provably bad statements and by breaches of the protocol. Never by address, for
/// all connections come from one Tor; nor by speed, which depends on their Tor.
pub(super) fn scores(network: &NetworkId) -> PeerScoreParams {
    let topic_params = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(60),
        time_in_mesh_cap: 60.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_decay: 0.99,
        first_message_deliveries_cap: 20.0,
        // Peers on slow circuits deliver late, and a quiet network delivers nothing.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // The penalty grows with the square: one bad statement costs 1, ten cost 100.
        invalid_message_deliveries_weight: -1.0,
        invalid_message_deliveries_decay: 0.995,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: [(topic(network).hash(), topic_params)].into(),
        ip_colocation_factor_weight: 0.0,
        slow_peer_weight: 0.0,
        behaviour_penalty_weight: -1.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: 0.99,
        decay_interval: Duration::from_secs(10),
        retain_score: RETAINED,
        ..PeerScoreParams::default()
    }
}

impl NetworkBehaviour for Gossip {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Said;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = &event
            && closed.remaining_established == 0
        {
            self.meters.remove(&closed.peer_id);
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        type Heard = THandlerOutEvent<Inner>;
        if let Heard::Message { rpc, invalid_messages } = &event {
            let said = rpc.messages.len() + invalid_messages.len();
            let actions = 1 + said + rpc.subscriptions.len() + rpc.control_msgs.len();
            match self.allow(peer, actions) {
                Allowance::Granted => {}
                Allowance::Denied => return,
                Allowance::Broken => {
                    if !self.floods.contains(&peer) {
                        self.floods.push_back(peer);
                    }
                    return;
                }
            }
        }
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Said, THandlerInEvent<Self>>> {
        if let Some(peer) = self.floods.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(Said::TooMuch(peer)));
        }
        self.inner.poll(cx).map(|event| event.map_out(Said::Gossip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_configuration_is_the_one_for_links_through_tor() {
        let config = config().unwrap();
        assert!(matches!(config.validation_mode(), ValidationMode::Anonymous));
        assert!(config.validate_messages() && !config.support_floodsub() && !config.do_px());
        assert_eq!(config.max_transmit_size(), MAX_STATEMENT + OVERHEAD);
        let seconds = Duration::from_secs;
        assert_eq!(config.publish_queue_duration(), seconds(60));
        assert_eq!(config.forward_queue_duration(), seconds(30));
        assert_eq!(config.iwant_followup_time(), seconds(20));
        assert_eq!((config.history_length(), config.history_gossip()), (12, 6));
        assert_eq!(config.duplicate_cache_time(), seconds(600));
        assert!(config.max_ihave_messages_heartbeat() <= 10);
        assert!(config.max_control_messages_sent() <= 5000);
        assert_eq!(config.idontwant_message_size_threshold(), usize::MAX);

        let network = NetworkId::from_bytes([1; 32]);
        let scores = scores(&network);
        assert!(scores.validate().is_ok() && thresholds().validate().is_ok());
        // Every peer comes from 127.0.0.1, and is as quick as its circuit.
        assert_eq!((scores.ip_colocation_factor_weight, scores.slow_peer_weight), (0.0, 0.0));
        assert!(scores.behaviour_penalty_weight < 0.0);
        let [topic] = scores.topics.values().collect::<Vec<_>>()[..] else { panic!("one topic") };
        assert_eq!(topic.mesh_message_deliveries_weight, 0.0);
        assert_eq!(topic.mesh_failure_penalty_weight, 0.0);
        assert_eq!(topic.time_in_mesh_quantum, seconds(60));
        // Nine bad statements in a row end a link, eight do not, whatever good was done before.
        let best = topic.time_in_mesh_weight * topic.time_in_mesh_cap
            + topic.first_message_deliveries_weight * topic.first_message_deliveries_cap;
        let after = |bad: f64| best + topic.invalid_message_deliveries_weight * bad * bad;
        assert!(after(8.0) > WORST_SCORE && after(10.0) < WORST_SCORE, "{best}");
        assert_eq!(thresholds().graylist_threshold, WORST_SCORE);
        assert!(scores.retain_score < super::super::meters::BLOCKED_FOR);
    }
}

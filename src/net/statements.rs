//! Statements on their way between peers and the driver: metered, verified elsewhere, judged; and
//! the questions and answers of reconciliation and of invites.
//!
//! ```text
//! gossip -> meter -> Waiting -> Work::check -> NetEvent::Statement -> judge -> gossip
//! answer ----------> answers -> Work::check -> NetEvent::SyncAnswer
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use directory::Request;
use keys::{NetworkId, NodeId};
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, PublishError};
use libp2p::{PeerId, Swarm, request_response};
use remailer::{InviteAnswer, Judgement};
use tokio::sync::mpsc;

use super::behaviour::{Behaviour, INVITED};
use super::gossip::{Said, topic};
use super::handle::{Judged, NetEvent};
use super::meters::{Allowance, Meters};
use super::onion;
use super::turned::{Turned, TurnedAway};
use super::verify::Work;

/// This node's statements that wait for a peer to hear them; if there are more, the oldest is
/// dropped.
const MAX_ANNOUNCEMENTS: usize = 64;

/// Statements that wait to be heard by a peer, or to be verified.
pub(super) struct Statements {
    topic: IdentTopic,
    /// This node's own statements, until there is a peer to hear them.
    announcements: VecDeque<Vec<u8>>,
    /// Gossiped statements to be verified.
    waiting: super::waiting::Waiting<Work>,
    /// Answers to be verified: at most one from each peer that is being asked.
    answers: VecDeque<Work>,
    meters: Meters,
    pub(super) turned: TurnedAway,
    events: mpsc::Sender<NetEvent>,
}

/// A peer that exceeded a bound, to be hung up on.
#[must_use]
pub(super) struct Broken(pub(super) PeerId);

impl Statements {
    pub(super) fn new(network: &NetworkId, events: mpsc::Sender<NetEvent>) -> Self {
        Self {
            topic: topic(network),
            announcements: VecDeque::new(),
            waiting: super::waiting::Waiting::default(),
            answers: VecDeque::new(),
            meters: Meters::default(),
            turned: TurnedAway::default(),
            events,
        }
    }

    pub(super) fn topic(&self) -> &IdentTopic {
        &self.topic
    }

    // To be verified.

    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.answers.is_empty()
    }

    /// The next octets to verify.
    pub(super) fn next_work(&mut self) -> Option<Work> {
        self.answers.pop_front().or_else(|| self.waiting.pop())
    }

    // Gossip.

    pub(super) fn gossip_event(
        &mut self,
        event: Said,
        now: Duration,
        swarm: &mut Swarm<Behaviour>,
    ) -> Option<Broken> {
        match event {
            Said::TooMuch(peer) => return Some(Broken(peer)),
            Said::Gossip(gossipsub::Event::Message {
                propagation_source: source,
                message_id: id,
                message,
            }) => return self.statement(message.data, Judged { id, source }, now, swarm),
            Said::Gossip(gossipsub::Event::Subscribed { .. }) => self.announce_waiting(swarm),
            Said::Gossip(
                gossipsub::Event::Unsubscribed { .. }
                | gossipsub::Event::GossipsubNotSupported { .. }
                | gossipsub::Event::SlowPeer { .. },
            ) => {}
        }
        None
    }

    fn statement(
        &mut self,
        octets: Vec<u8>,
        judged: Judged,
        now: Duration,
        swarm: &mut Swarm<Behaviour>,
    ) -> Option<Broken> {
        let source = judged.source;
        let Some(peer) = onion::node_id(&source).filter(|_| swarm.is_connected(&source)) else {
            // The peer's meter and its place in the queue ended with its link.
            self.judge(&judged, Judgement::Ignore, swarm);
            return None;
        };
        match self.meters.statement(source, now) {
            Allowance::Granted => {}
            Allowance::Denied => {
                self.turned.count(Turned::Statement);
                self.judge(&judged, Judgement::Ignore, swarm);
                return None;
            }
            Allowance::Broken => {
                self.judge(&judged, Judgement::Ignore, swarm);
                return Some(Broken(source));
            }
        }
        let work = Work::Statement { octets, judged };
        let shed = self.waiting.push(peer, work, |node| score(node, swarm));
        if let Some(Work::Statement { judged, .. }) = shed {
            self.turned.count(Turned::Unverified);
            self.judge(&judged, Judgement::Ignore, swarm);
        }
        None
    }

    /// Drops what a peer sent, unverified: it has no link any more.
    pub(super) fn forget(&mut self, peer: &PeerId, swarm: &mut Swarm<Behaviour>) {
        self.meters.forget(peer);
        let Some(node) = onion::node_id(peer) else { return };
        for work in self.waiting.forget(&node) {
            if let Work::Statement { judged, .. } = work {
                self.judge(&judged, Judgement::Ignore, swarm);
            }
        }
    }

    pub(super) fn judge(
        &mut self,
        Judged { id, source }: &Judged,
        judgement: Judgement,
        swarm: &mut Swarm<Behaviour>,
    ) {
        let acceptance = match judgement {
            Judgement::Accept => {
                self.meters.was_good(*source);
                MessageAcceptance::Accept
            }
            Judgement::Ignore => MessageAcceptance::Ignore,
            Judgement::Reject => MessageAcceptance::Reject,
        };
        let gossip = &mut swarm.behaviour_mut().gossip.inner;
        gossip.report_message_validation_result(id, source, acceptance);
    }

    /// Publishes a statement of this node's own, now or when somebody subscribes.
    pub(super) fn announce(&mut self, octets: Vec<u8>, swarm: &mut Swarm<Behaviour>) {
        if self.announcements.len() >= MAX_ANNOUNCEMENTS {
            self.announcements.pop_front();
        }
        self.announcements.push_back(octets);
        self.announce_waiting(swarm);
    }

    fn announce_waiting(&mut self, swarm: &mut Swarm<Behaviour>) {
        while let Some(octets) = self.announcements.pop_front() {
            let gossip = &mut swarm.behaviour_mut().gossip.inner;
            if let Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) =
                gossip.publish(self.topic.clone(), octets.clone())
            {
                self.announcements.push_front(octets);
                return;
            }
        }
    }

    // Reconciliation.

    pub(super) fn ask(&self, node: NodeId, request: &Request, swarm: &mut Swarm<Behaviour>) {
        let peer = onion::peer_id(&node).filter(|peer| swarm.is_connected(peer));
        match (peer, request.encode()) {
            (Some(peer), Ok(octets)) => {
                swarm.behaviour_mut().sync.send_request(&peer, octets);
            }
            // The node asks this peer again when it is linked again.
            _ => self.tell(NetEvent::SyncFailed(node)),
        }
    }

    pub(super) fn sync_event(
        &mut self,
        event: request_response::Event<Vec<u8>, Vec<u8>>,
        now: Duration,
    ) -> Option<Broken> {
        use request_response::{Event as Sync, Message};
        match event {
            Sync::Message { message: Message::Request { request, channel, .. }, peer, .. } => {
                match self.meters.question(peer, now) {
                    Allowance::Granted => {
                        let asked = NetEvent::SyncRequest { octets: request, answer: channel };
                        if self.events.try_send(asked).is_err() {
                            self.turned.count(Turned::Question);
                        }
                    }
                    // A peer that gets no answer asks somebody else.
                    Allowance::Denied => self.turned.count(Turned::Question),
                    Allowance::Broken => return Some(Broken(peer)),
                }
            }
            Sync::Message { message: Message::Response { response, .. }, peer, .. } => {
                if let Some(peer) = onion::node_id(&peer) {
                    self.answers.push_back(Work::Answer { peer, octets: response });
                }
            }
            Sync::OutboundFailure { peer, .. } => {
                if let Some(peer) = onion::node_id(&peer) {
                    self.tell(NetEvent::SyncFailed(peer));
                }
            }
            Sync::InboundFailure { .. } | Sync::ResponseSent { .. } => {}
        }
        None
    }

    // Invites.

    pub(super) fn invite_event(
        &mut self,
        event: request_response::Event<Vec<u8>, Vec<u8>>,
        now: Duration,
    ) {
        use request_response::{Event as Invite, Message};
        let Invite::Message { message, peer, .. } = event else { return };
        let Some(node) = onion::node_id(&peer) else { return };
        match message {
            Message::Request { request: token, channel: answer, .. } => {
                if self.meters.question(peer, now) == Allowance::Granted {
                    self.tell(NetEvent::InviteShown { peer: node, token, answer });
                } else {
                    self.turned.count(Turned::Question);
                }
            }
            Message::Response { response, .. } => {
                let is_taken = response == [INVITED];
                let answer = if is_taken { InviteAnswer::Taken } else { InviteAnswer::Refused };
                self.tell(NetEvent::InviteAnswered { peer: node, answer });
            }
        }
    }

    /// Tells the driver. An event that finds no room is lost: the next catch-up asks for it again.
    fn tell(&self, event: NetEvent) {
        let _ = self.events.try_send(event);
    }
}

/// The gossip score of a node; zero if it is not linked.
pub(super) fn score(node: &NodeId, swarm: &Swarm<Behaviour>) -> f64 {
    let gossip = &swarm.behaviour().gossip.inner;
    onion::peer_id(node).and_then(|peer| gossip.peer_score(&peer)).unwrap_or_default()
}

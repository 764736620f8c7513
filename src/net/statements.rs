//! Statements on their way between peers and the driver: metered, verified on threads of their own, judged;
//! and the questions and answers of reconciliation.
//!
//! ```text
//! gossip -> meter -> Waiting -> check (a thread) -> Event::Statement -> judge -> gossip
//! answer ----------> answers -> check (a thread) -> Event::SyncAnswer
//! ```

use std::sync::Arc;

use directory::{Answer, Request};
use keys::{NetworkId, NodeId};
use libp2p::gossipsub::{self, MessageAcceptance, PublishError};
use libp2p::request_response;
use record::Statement;
use remailer::Judgement;
use tokio::sync::{Semaphore, mpsc};

use super::gossip::Said;
use super::meters::Allowance;
use super::onion;
use super::swarm::{Event, Judged, Task};

/// Octets to verify.
pub(super) enum Work {
    Statement { octets: Vec<u8>, judged: Judged },
    Answer { peer: NodeId, octets: Vec<u8> },
}

/// Verifies on as many threads as there are processors, and no more than the driver keeps up with.
pub(super) async fn check(
    mut work: mpsc::Receiver<Work>,
    network: NetworkId,
    events: mpsc::Sender<Event>,
) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let turns = Arc::new(Semaphore::new(processors));
    while let Some(work) = work.recv().await {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let events = events.clone();
        tokio::task::spawn_blocking(move || {
            let event = match work {
                Work::Statement { octets, judged } => {
                    Event::Statement { checked: Statement::check(&octets, &network), judged }
                }
                Work::Answer { peer, octets } => match Answer::check(&octets, &network) {
                    Ok(answer) => Event::SyncAnswer { peer, answer },
                    Err(_) => Event::SyncFailed(peer),
                },
            };
            // The driver is gone only when the node is.
            let _ = events.blocking_send(event);
            drop(turn);
        });
    }
}

impl Task {
    pub(super) fn gossip_event(&mut self, event: Said) {
        match event {
            Said::TooMuch(peer) => self.hang_up(peer),
            Said::Gossip(gossipsub::Event::Message {
                propagation_source: source,
                message_id: id,
                message,
            }) => self.statement(message.data, Judged { id, source }),
            Said::Gossip(gossipsub::Event::Subscribed { .. }) => self.announce(),
            Said::Gossip(
                gossipsub::Event::Unsubscribed { .. }
                | gossipsub::Event::GossipsubNotSupported { .. }
                | gossipsub::Event::SlowPeer { .. },
            ) => {}
        }
    }

    fn statement(&mut self, octets: Vec<u8>, judged: Judged) {
        let source = judged.source;
        let Some(peer) = onion::node_id(&source).filter(|_| self.swarm.is_connected(&source))
        else {
            // Its meter and its place in the queue went with its link.
            return self.judge(&judged, Judgement::Ignore);
        };
        match self.meters.statement(source, self.clock.elapsed()) {
            Allowance::Granted => {}
            Allowance::Denied => return self.judge(&judged, Judgement::Ignore),
            Allowance::Broken => {
                self.judge(&judged, Judgement::Ignore);
                return self.hang_up(source);
            }
        }
        let gossip = &self.swarm.behaviour().gossip.inner;
        let score = |node: &NodeId| {
            onion::peer_id(node).and_then(|peer| gossip.peer_score(&peer)).unwrap_or_default()
        };
        let shed = self.waiting.push(peer, Work::Statement { octets, judged }, score);
        if let Some(Work::Statement { judged, .. }) = shed {
            self.judge(&judged, Judgement::Ignore);
        }
    }

    pub(super) fn forget_waiting(&mut self, peer: &NodeId) {
        for work in self.waiting.forget(peer) {
            if let Work::Statement { judged, .. } = work {
                self.judge(&judged, Judgement::Ignore);
            }
        }
    }

    pub(super) fn judge(&mut self, Judged { id, source }: &Judged, judgement: Judgement) {
        let acceptance = match judgement {
            Judgement::Accept => {
                self.meters.was_good(*source);
                MessageAcceptance::Accept
            }
            Judgement::Ignore => MessageAcceptance::Ignore,
            Judgement::Reject => MessageAcceptance::Reject,
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip.inner;
        gossip.report_message_validation_result(id, source, acceptance);
    }

    pub(super) fn announce(&mut self) {
        while let Some(octets) = self.announcements.pop_front() {
            let gossip = &mut self.swarm.behaviour_mut().gossip.inner;
            if let Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) =
                gossip.publish(self.topic.clone(), octets.clone())
            {
                self.announcements.push_front(octets);
                return;
            }
        }
    }

    pub(super) fn score(&self, node: &NodeId) -> f64 {
        let gossip = &self.swarm.behaviour().gossip.inner;
        onion::peer_id(node).and_then(|peer| gossip.peer_score(&peer)).unwrap_or_default()
    }

    // Reconciliation.

    pub(super) fn ask(&mut self, node: NodeId, request: &Request) {
        let peer = onion::peer_id(&node).filter(|peer| self.swarm.is_connected(peer));
        match (peer, request.encode()) {
            (Some(peer), Ok(octets)) => {
                self.swarm.behaviour_mut().sync.send_request(&peer, octets);
            }
            // It is asked again when it is linked again.
            _ => self.tell(Event::SyncFailed(node)),
        }
    }

    pub(super) fn sync_event(&mut self, event: request_response::Event<Vec<u8>, Vec<u8>>) {
        use request_response::{Event as Sync, Message};
        match event {
            Sync::Message { message: Message::Request { request, channel, .. }, peer, .. } => {
                match self.meters.question(peer, self.clock.elapsed()) {
                    Allowance::Granted => {
                        self.tell(Event::SyncRequest { octets: request, answer: channel });
                    }
                    // A peer that gets no answer asks somebody else.
                    Allowance::Denied => {}
                    Allowance::Broken => self.hang_up(peer),
                }
            }
            Sync::Message { message: Message::Response { response, .. }, peer, .. } => {
                if let Some(peer) = onion::node_id(&peer) {
                    self.answers.push_back(Work::Answer { peer, octets: response });
                }
            }
            Sync::OutboundFailure { peer, .. } => {
                if let Some(peer) = onion::node_id(&peer) {
                    self.tell(Event::SyncFailed(peer));
                }
            }
            Sync::InboundFailure { .. } | Sync::ResponseSent { .. } => {}
        }
    }

    pub(super) fn invite_event(&mut self, event: request_response::Event<Vec<u8>, Vec<u8>>) {
        use request_response::{Event as Invite, Message};
        let Invite::Message { message, peer, .. } = event else { return };
        let Some(node) = onion::node_id(&peer) else { return };
        match message {
            Message::Request { request: token, channel: answer, .. } => {
                if self.meters.question(peer, self.clock.elapsed()) == Allowance::Granted {
                    self.tell(Event::InviteShown { peer: node, token, answer });
                }
            }
            Message::Response { response: answer, .. } => {
                self.tell(Event::InviteAnswered { peer: node, answer });
            }
        }
    }

    /// What finds no room is lost: it is asked for again by the next catch-up.
    fn tell(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}

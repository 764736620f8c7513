//! Events and questions from the network.

use super::{Driver, HandedOver};
use remailer::{Handed, StreamId};
use tokio::sync::mpsc::error::TrySendError;

use crate::net::{Links, NetEvent, Reach, StreamEvent, SwarmOrder};

impl Driver {
    pub(super) async fn net_event(&mut self, event: NetEvent) {
        let now = self.now();
        let rng = &mut self.machine.rng;
        match event {
            NetEvent::Statement { checked, judged } => {
                let judgement = self.remailer.handle_statement(checked, now, rng);
                self.order(SwarmOrder::Judge(judged, judgement)).await;
            }
            NetEvent::SyncRequest { octets, answer } => {
                if let Some(octets) = self.remailer.handle_sync_request(&octets, now) {
                    self.order(SwarmOrder::Answer(answer, octets)).await;
                }
            }
            NetEvent::SyncAnswer { peer, answer } => {
                self.remailer.handle_sync_answer(peer, answer, now, rng);
            }
            NetEvent::SyncFailed(peer) => self.remailer.handle_sync_failed(&peer, now, rng),
            NetEvent::Stream(id, event) => self.stream_event(StreamId(id), event),
            NetEvent::InviteShown { peer, token, answer } => {
                let id = self.asked.invite(answer);
                self.remailer.handle_invite_shown(id, peer, &token, now, rng);
            }
            NetEvent::InviteAnswered { peer, answer } => {
                self.remailer.handle_invite_answered(peer, answer, now, rng);
            }
        }
    }

    fn stream_event(&mut self, id: StreamId, event: StreamEvent) {
        let now = self.now();
        match event {
            StreamEvent::Opened { tokens, to } => {
                self.net.streams.insert(id, HandedOver { to, back: Vec::new() });
                self.remailer.handle_stream_opened(id, &tokens, now);
            }
            StreamEvent::Taken => self.remailer.handle_stream_taken(id),
            StreamEvent::Ended { mut left } => {
                left.extend(self.net.streams.remove(&id).into_iter().flat_map(|of| of.back));
                self.remailer.handle_stream_ended(id, left, now);
            }
        }
    }

    /// Hands something over. What a stream does not take that has ended goes back when it says so.
    pub(super) fn hand_over(&mut self, id: StreamId, handed: Handed) {
        let Some(stream) = self.net.streams.get_mut(&id) else {
            return self.remailer.handle_stream_ended(id, vec![handed], self.now());
        };
        if let Err(TrySendError::Closed(handed) | TrySendError::Full(handed)) =
            stream.to.try_send(handed)
        {
            stream.back.push(handed);
        }
    }

    /// Tells the node which links are new, and which are gone.
    pub(super) fn links_changed(&mut self, links: Links) {
        let (now, before) =
            (self.now(), std::mem::replace(&mut self.net.linked, Links::clone(&links)));
        for gone in before.difference(&links) {
            self.remailer.handle_peer_down(gone);
        }
        let new: Vec<_> = links.difference(&before).copied().collect();
        self.remailer.handle_peers_up(&new, now, &mut self.machine.rng);
        self.progress.send_modify(|progress| progress.linked = links.len());
    }

    pub(super) fn reach_changed(&mut self) {
        match *self.net.reach.borrow() {
            Reach::Reachable { .. } => self.remailer.handle_reachable(),
            Reach::Unknown | Reach::Unreachable { .. } => self.remailer.handle_unreachable(),
        }
    }
}

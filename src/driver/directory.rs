//! Statements, links and catching up; and what the operator orders about other nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use directory::{Step, Unwanted};
use keys::{NodeId, OnionAddress};
use rand::seq::{IteratorRandom as _, SliceRandom as _};

use super::Driver;
use crate::control::{self, Answer};
use crate::failure::Failure;
use crate::invite::Invite;
use crate::net::{Event, INVITED, Order};
use crate::store::List;

/// Peers asked at each catch-up.
const ASKED: usize = 3;
/// Nodes that an operator may ban.
const MAX_BANNED: usize = 1024;

impl Driver {
    pub(super) async fn net_event(&mut self, event: Event) -> Result<(), Failure> {
        let now = self.clock.now();
        match event {
            Event::Statement { checked, judged } => {
                let judgement = self.remailer.handle_statement(checked, now);
                self.order(Order::Judge(judged, judgement)).await;
            }
            Event::SyncRequest { octets, answer } => {
                if let Some(octets) = self.remailer.handle_sync_request(&octets, now) {
                    self.order(Order::Answer(answer, octets)).await;
                }
            }
            Event::SyncAnswer { peer, answer } => {
                match self.remailer.handle_sync_answer(peer, answer, now) {
                    Step::Ask(request) => self.order(Order::Sync(peer, request)).await,
                    Step::Done(_) | Step::Late => self.ask_next().await,
                    Step::Bad => {
                        self.order(Order::HangUp(peer)).await;
                        self.ask_next().await;
                    }
                }
            }
            Event::SyncFailed(peer) => {
                self.remailer.handle_sync_failed(&peer);
                self.ask_next().await;
            }
            Event::InviteShown { peer, token, answer } => {
                // Who did not get the answer shows it again.
                let vouched = self.remailer.vouches_for(&peer)
                    || (self.invites.knows(&token, now) && self.remailer.vouch(peer, now).is_ok());
                if vouched {
                    // The word is on the disk before anybody hears of it, and then the token is used.
                    self.carry_out().await?;
                    self.store.flush();
                    if self.invites.redeem(&token, now) {
                        let kept = self.store.keep_list(List::Invites, self.invites.tokens());
                        self.must_keep(kept);
                    }
                }
                let octets = if vouched { vec![INVITED] } else { Vec::new() };
                self.order(Order::Answer(answer, octets)).await;
            }
            Event::InviteAnswered { peer, answer } => self.invite_answered(peer, &answer),
        }
        Ok(())
    }

    /// A peer that has just been linked is asked for what it has.
    pub(super) async fn links_changed(&mut self) {
        let links = Arc::clone(&self.net.links.borrow());
        let new: Vec<NodeId> = links.difference(&self.linked).copied().collect();
        self.linked = Arc::clone(&links);
        self.progress.send_modify(|(_, linked)| *linked = links.len());
        self.to_ask.retain(|node| links.contains(node));
        if let Some(invite) = &self.invite
            && new.contains(&invite.inviter.node())
        {
            let (inviter, token) = (invite.inviter.node(), invite.token.to_vec());
            self.order(Order::ShowInvite(inviter, token)).await;
        }
        self.to_ask.extend(new);
        self.ask_next().await;
    }

    /// Some of the linked peers, drawn anew each time.
    pub(super) async fn ask_around(&mut self) {
        let drawn = self.linked.iter().copied().sample(&mut self.rng, ASKED);
        self.to_ask.extend(drawn);
        self.ask_next().await;
    }

    /// As many as may be asked at once, in no order that a peer's key decides.
    async fn ask_next(&mut self) {
        let now = self.clock.now();
        let mut nodes: Vec<_> = self.to_ask.iter().copied().collect();
        nodes.shuffle(&mut self.rng);
        for node in nodes {
            if !self.remailer.is_syncing(&node, now) {
                let Some(request) = self.remailer.begin_sync(node, now) else { return };
                self.order(Order::Sync(node, request)).await;
            }
            self.to_ask.remove(&node);
        }
    }

    pub(super) fn keep_chosen(&mut self, chosen: &[NodeId]) {
        let onions = chosen.iter().filter_map(|node| OnionAddress::of(*node).ok());
        let onions: Vec<_> = onions.collect();
        self.must_keep(self.store.keep_list(List::Peers, &onions));
    }

    fn invite_answered(&mut self, peer: NodeId, answer: &[u8]) {
        if self.invite.take_if(|invite| invite.inviter.node() == peer).is_none() {
            return;
        }
        self.must_keep(self.store.keep_list::<Invite>(List::Invite, &[]));
        if answer == [INVITED] {
            tracing::info!("the invite was taken: this node is vouched for");
        } else {
            tracing::warn!("the invite was not taken");
            self.invite_refused = true;
        }
    }

    // The operator.

    pub(super) fn order_from_operator(&mut self, order: control::Order) -> Answer {
        match order {
            control::Order::Status => Answer::Status(Box::new(self.status())),
            control::Order::Peers => Answer::Peers(self.peers()),
            control::Order::Vouch(onion) => self.said(onion, |driver, node| {
                let now = driver.clock.now();
                driver.remailer.vouch(node, now).map_err(|why| refused(&why))
            }),
            control::Order::Unvouch(onion) => self.said(onion, |driver, node| {
                let now = driver.clock.now();
                driver
                    .remailer
                    .unvouch(node, now)
                    .map_err(|_| "there is no vouch for it".to_owned())
            }),
            control::Order::Ban(onion) => self.said(onion, |driver, node| {
                let mut banned = driver.banned.clone();
                if banned.len() >= MAX_BANNED {
                    return Err("too many are banned".to_owned());
                }
                banned.insert(node);
                driver.ban(banned)
            }),
            control::Order::Unban(onion) => self.said(onion, |driver, node| {
                let mut banned = driver.banned.clone();
                if !banned.remove(&node) {
                    return Err("it is not banned".to_owned());
                }
                driver.ban(banned)
            }),
            control::Order::Invite => self.make_invite(),
        }
    }

    fn said(
        &mut self,
        onion: String,
        order: impl FnOnce(&mut Self, NodeId) -> Result<(), String>,
    ) -> Answer {
        let Ok(onion) = onion.parse::<OnionAddress>() else {
            return Answer::Error("not an onion address".to_owned());
        };
        if onion.node() == self.remailer.node() {
            return Answer::Error("that is this node".to_owned());
        }
        match order(self, onion.node()) {
            Ok(()) => Answer::Done(onion.to_string()),
            Err(why) => Answer::Error(why),
        }
    }

    fn ban(&mut self, banned: BTreeSet<NodeId>) -> Result<(), String> {
        let onions = banned.iter().filter_map(|node| OnionAddress::of(*node).ok());
        let onions: Vec<_> = onions.collect();
        self.store.keep_list(List::Banned, &onions).map_err(|failure| failure.to_string())?;
        self.banned = banned.clone();
        self.remailer.ban(banned, self.clock.now());
        Ok(())
    }

    /// A token counts only once it is on the disk.
    fn make_invite(&mut self) -> Answer {
        let now = self.clock.now();
        if !self.remailer.may_vouch() {
            return Answer::Error(refused(&Unwanted::Idle));
        }
        let Some(onion) = self.remailer.onion() else {
            return Answer::Error("no address".to_owned());
        };
        let token = match self.invites.make(now, &mut self.rng) {
            Ok(token) => token,
            Err(why) => return Answer::Error(why.to_owned()),
        };
        match self.store.keep_list(List::Invites, self.invites.tokens()) {
            Ok(()) => Answer::Done(Invite { inviter: onion, token }.to_string()),
            Err(failure) => {
                self.invites.redeem(token.as_slice(), now);
                Answer::Error(failure.to_string())
            }
        }
    }
}

fn refused(why: &Unwanted) -> String {
    match why {
        Unwanted::Idle => {
            "this node's word counts for nothing: nobody vouches for it, its chain is as long as it may \
             be, or the network is open"
        }
        Unwanted::Full => "this node has vouched for as many as it may",
        Unwanted::TooSoon => "it has said something of that node just now",
        Unwanted::Known
        | Unwanted::Older
        | Unwanted::Broken(_)
        | Unwanted::Crowded
        | Unwanted::Late => {
            "it was not taken"
        }
    }
    .to_owned()
}

//! The commands of a node, carried out.

use std::fmt::Display;

use keys::{NodeId, OnionAddress};
use remailer::{Command, Done, InviteAnswer, KeepId, NotDone, Refused};

use super::Driver;
use crate::control::Response;
use crate::failure::Failure;
use crate::net::SwarmOrder;
use crate::store::{self, List};

impl Driver {
    /// # Errors
    /// If a key or an own record cannot be stored: the commands after it must not be carried out
    /// then. A key that is announced and then lost with a restart would be replaced by another,
    /// which is an equivocation.
    pub(super) async fn carry_out(&mut self) -> Result<(), Failure> {
        while let Some(command) = self.remailer.next_command() {
            match command {
                Command::Send { to, packet, until } => {
                    tracing::trace!("packet leaves");
                    if let Err(failure) = self.net.queues.send(to, packet, until) {
                        self.send_failed(failure);
                    }
                }
                Command::Deliver(id, delivery) => {
                    if let Some(exit) = &self.exit {
                        exit.deliver(id, delivery);
                    }
                }
                Command::Accept(keys) => self.work.accept(keys),
                Command::KeepTags(_) | Command::Seal(..) => self.give_work(command),
                Command::Answer(id, Ok(name)) => {
                    let taken = smtp::Verdict::Taken(*name.as_bytes());
                    self.asked.answer_submission(id, taken);
                }
                Command::Answer(id, Err(why)) => self.asked.answer_submission(id, refusal(why)),
                Command::Reply(id, reply) => self.asked.answer_order(id, answer(reply)),
                Command::KeepSeed(..)
                | Command::WithdrawSeed(_)
                | Command::KeepOwn(_)
                | Command::KeepVote(_) => self.keep_before_anything(command)?,
                Command::ForgetSeeds(_)
                | Command::KeepList(_)
                | Command::KeepStatement(..)
                | Command::ForgetStatements(_)
                | Command::KeepBanned(..)
                | Command::KeepInvites(..)
                | Command::ForgetInvite(_) => self.keep(command),
                Command::Announce(_)
                | Command::Link(_)
                | Command::Links(_)
                | Command::Unlink(_)
                | Command::Ask(..)
                | Command::HangUp(_)
                | Command::ShowInvite(..)
                | Command::AnswerInvite(..) => self.order_net(command).await,
                Command::ViewTaken(view) => {
                    tracing::debug!(nodes = view.len(), "view taken");
                    self.progress.send_modify(|progress| progress.view = view.len());
                }
            }
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller tells these from the others")]
    fn give_work(&mut self, command: Command) {
        match command {
            Command::KeepTags(tags) => {
                let batch = tags.batch;
                if self.work.keep_tags(tags).is_err() {
                    self.troubles.unkept += 1;
                    self.remailer.handle_tags_lost(batch);
                }
            }
            Command::Seal(id, sealing) => {
                if let Err(sealing) = self.work.seal(id, sealing) {
                    let failed = Err(sealing.give_up());
                    self.remailer.handle_sealed(id, failed, &mut self.machine.rng);
                }
            }
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller tells these from the others")]
    fn keep_before_anything(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::KeepSeed(epoch, seed) => self.store.keep_seed(epoch, &seed)?,
            Command::WithdrawSeed(epoch) => {
                self.store.withdraw_seed(epoch)?;
                self.work.withdraw_tags(epoch);
            }
            Command::KeepOwn(octets) => self.store.keep_own(&octets)?,
            Command::KeepVote(octets) => self.store.keep_vote(&octets)?,
            _ => {}
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller tells these from the others")]
    fn keep(&mut self, command: Command) {
        match command {
            Command::ForgetSeeds(oldest) => {
                self.must_keep(self.store.forget_seeds(oldest));
                self.work.forget_tags(oldest);
            }
            Command::KeepList(octets) => self.must_keep(self.store.keep_hour_list(&octets)),
            Command::KeepStatement(name, octets) => {
                self.must_keep(self.store.keep_statement(&name, &octets));
            }
            Command::ForgetStatements(names) => {
                self.must_keep(self.store.forget_statements(&names));
            }
            Command::KeepBanned(id, banned) => {
                let onions = addresses(banned.iter());
                self.report_kept(id, self.store.keep_list(List::Banned, &onions));
            }
            Command::KeepInvites(id, open) => {
                self.store.flush();
                self.report_kept(id, self.store.keep_list(List::Invites, &open));
            }
            Command::ForgetInvite(answer) => {
                self.must_keep(self.store.keep_list::<String>(List::Invite, &[]));
                match answer {
                    InviteAnswer::Taken => {
                        tracing::info!("the invite was taken: this node is vouched for");
                    }
                    InviteAnswer::Refused => tracing::warn!("the invite was not taken"),
                }
            }
            _ => {}
        }
    }

    fn report_kept(&mut self, id: KeepId, kept: Result<(), store::Error>) {
        let now = self.now();
        match kept {
            Ok(()) => self.remailer.handle_kept(id, now, &mut self.machine.rng),
            Err(error) => {
                self.must_keep(Err(error));
                self.remailer.handle_keep_failed(id, now, &mut self.machine.rng);
            }
        }
    }

    /// Logs a failure to store something. A failing disk does not stop the node; what could not be
    /// stored is missing at the next start.
    pub(super) fn must_keep(&mut self, kept: Result<(), store::Error>) {
        if let Err(error) = kept {
            self.troubles.unkept += 1;
            tracing::error!(%error, "cannot be kept");
        }
    }

    pub(super) fn keep_chosen(&mut self, chosen: &[NodeId]) {
        self.must_keep(self.store.keep_list(List::Peers, &addresses(chosen.iter())));
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller tells these from the others")]
    async fn order_net(&mut self, command: Command) {
        let order = match command {
            Command::Announce(octets) => SwarmOrder::Announce(octets),
            Command::Link(node) => SwarmOrder::Link(node),
            Command::Links(nodes) => SwarmOrder::Links(nodes),
            Command::Unlink(node) => {
                self.net.queues.forget(&node);
                SwarmOrder::Unlink(node)
            }
            Command::Ask(peer, request) => SwarmOrder::Ask(peer, request),
            Command::HangUp(peer) => SwarmOrder::HangUp(peer),
            Command::ShowInvite(peer, token) => SwarmOrder::ShowInvite(peer, token),
            Command::AnswerInvite(id, answer) => match self.asked.take_invite(id) {
                Some(channel) => SwarmOrder::AnswerInvite(channel, answer),
                None => return,
            },
            _ => return,
        };
        self.order(order).await;
    }

    pub(super) async fn order(&self, order: SwarmOrder) {
        // The swarm ends only after this loop.
        let _ = self.net.orders.send(order).await;
    }
}

fn addresses<'a>(nodes: impl Iterator<Item = &'a NodeId>) -> Vec<OnionAddress> {
    nodes.filter_map(|node| OnionAddress::of(*node).ok()).collect()
}

/// The reply to a session whose mail is refused.
pub(super) fn refusal(why: Refused) -> smtp::Verdict {
    match why {
        Refused::TooFewNodes | Refused::ClockApart | Refused::NoList => smtp::Verdict::TooFewNodes,
        Refused::NoExit => smtp::Verdict::NoExit,
        Refused::TooBig => smtp::Verdict::TooBig,
        Refused::Full => smtp::Verdict::Full,
        Refused::Unfit(why) => smtp::Verdict::Unfit(why),
    }
}

fn answer(reply: Result<Done, NotDone>) -> Response {
    match reply {
        Ok(Done::Of(node)) => match OnionAddress::of(node) {
            Ok(onion) => Response::Done(onion.to_string()),
            Err(error) => error_of(error),
        },
        Ok(Done::Invited(invite)) => Response::Done(invite.to_string()),
        Err(why) => error_of(not_done(why)),
    }
}

fn error_of(why: impl Display) -> Response {
    Response::Error(why.to_string())
}

fn not_done(why: NotDone) -> &'static str {
    match why {
        NotDone::Oneself => "that is this node",
        NotDone::WordCountsForNothing => {
            "this node's word counts for nothing: nobody vouches for it, its chain is as long as it \
             may be, or the network is open"
        }
        NotDone::TooManyVouches => "this node has vouched for as many as it may",
        NotDone::TooSoon => "it has said something of that node just now",
        NotDone::NoVouch => "there is no vouch for it",
        NotDone::NotTaken => "it was not taken",
        NotDone::TooManyBanned => "too many are banned",
        NotDone::NotBanned => "it is not banned",
        NotDone::TooManyInvites => "64 invites are open already; each ends after a day",
        NotDone::NotKept => "it could not be kept: see the log",
    }
}

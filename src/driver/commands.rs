//! The commands of a node, carried out.

use std::fmt::Display;

use keys::{NodeId, OnionAddress, Time};
use mail::DeliveryStatus;
use remailer::{
    Command, Done, InviteAnswer, MessageState, NotDone, Refused, Sealing, SubmissionId, Taken,
};

use super::Driver;
use super::disk::Report;
use crate::control::Response;
use crate::net::SwarmOrder;
use crate::store::Job;

impl Driver {
    pub(super) async fn carry_out(&mut self) {
        while let Some(command) = self.remailer.next_command() {
            match command {
                Command::Send { to, packet, until } => {
                    tracing::trace!("packet leaves");
                    if let Err(failure) = self.net.queues.send(to, packet, until) {
                        self.send_failed(failure);
                    }
                }
                Command::HandOver(id, handed) => self.hand_over(id, handed),
                Command::Deliver(id, delivery) => {
                    if let Some(exit) = &self.exit {
                        exit.deliver(id, delivery);
                    }
                }
                Command::Accept(keys) => self.work.accept(keys),
                Command::Seal(id, sealing) => self.seal(id, sealing),
                Command::SealCover(sealing) => {
                    if let Err(sealing) = self.work.seal_cover(sealing) {
                        self.remailer.handle_cover_sealed(Err(sealing.give_up()));
                    }
                }
                Command::Submit(decoy) => self.submit_decoy(decoy),
                Command::Answer(id, Ok(taken)) => {
                    let verdict = taken_by(taken, self.now());
                    self.asked.answer_submission(id, verdict);
                }
                Command::Answer(id, Err(why)) => self.asked.answer_submission(id, refusal(why)),
                Command::Reply(id, reply) => self.asked.answer_order(id, answer(reply)),
                Command::KeepSeed(..)
                | Command::WithdrawSeed(_)
                | Command::KeepOwn(..)
                | Command::KeepVote(..)
                | Command::KeepTags(_)
                | Command::ForgetSeeds(_)
                | Command::KeepMessage(..)
                | Command::MarkMessage(..)
                | Command::ForgetMessage(..)
                | Command::KeepOver(_)
                | Command::ForgetOver(_)
                | Command::KeepList(_)
                | Command::KeepHealth(_)
                | Command::KeepLeaving(..)
                | Command::KeepStatement(..)
                | Command::ForgetStatements(_)
                | Command::KeepBanned(..)
                | Command::KeepInvites(..) => self.keep(command),
                Command::ForgetInvite(answer) => {
                    log_invite(answer);
                    self.keep(command);
                }
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
                    let list = self.remailer.directory().list();
                    let listed = list.into_iter().flat_map(|list| list.iter());
                    self.net.listed.send_replace(listed.map(|entry| entry.node).collect());
                    self.progress.send_modify(|progress| progress.view = view.len());
                }
            }
        }
    }

    fn seal(&mut self, id: SubmissionId, sealing: Sealing) {
        if let Err(sealing) = self.work.seal(id, sealing) {
            let failed = Err(sealing.give_up());
            let now = self.now();
            self.remailer.handle_sealed(id, failed, now, &mut self.machine.rng);
        }
    }

    pub(super) fn keep_chosen(&mut self, chosen: &[NodeId]) {
        self.give_to_disk(Job::Peers(addresses(chosen.iter())), Report::Nothing);
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
                // Without an answer the peer shows it again.
                Some(_) if answer == InviteAnswer::NotNow => return,
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

/// What has become of a message, as a session says it.
pub(super) fn report(states: &[(MessageState, u8)]) -> smtp::MessageReport {
    let mut report = smtp::MessageReport::default();
    for (state, recipients) in states {
        let of = match state {
            MessageState::Queued => &mut report.queued,
            MessageState::Sent => &mut report.sent,
            MessageState::Held => &mut report.held,
            MessageState::Delivered => &mut report.delivered,
            MessageState::Failed(DeliveryStatus::RefusedHere) => &mut report.refused_here,
            MessageState::Failed(DeliveryStatus::GaveUp) => &mut report.gave_up,
            MessageState::Failed(_) => &mut report.refused,
            MessageState::Unknown => &mut report.unknown,
            MessageState::Lost => &mut report.lost,
        };
        *of = of.saturating_add((*recipients).into());
    }
    report
}

pub(super) fn addresses<'a>(nodes: impl Iterator<Item = &'a NodeId>) -> Vec<OnionAddress> {
    nodes.filter_map(|node| OnionAddress::of(*node).ok()).collect()
}

fn log_invite(answer: InviteAnswer) {
    match answer {
        InviteAnswer::Taken => tracing::info!("the invite was taken: this node is vouched for"),
        InviteAnswer::Refused | InviteAnswer::NotNow => {
            tracing::warn!("the invite was not taken");
        }
    }
}

/// The reply to a session whose mail is taken.
fn taken_by(taken: Taken, now: Time) -> smtp::Verdict {
    const MINUTE: u64 = 60_000;
    let name = *taken.name.as_bytes();
    let Some(through) = taken.through else { return smtp::Verdict::Taken(name) };
    let millis = u64::try_from(through.since(now).as_millis()).unwrap_or(u64::MAX);
    let minutes = u32::try_from(millis.div_ceil(MINUTE)).unwrap_or(u32::MAX);
    smtp::Verdict::TakenFor(name, minutes)
}

/// The reply to a session whose mail is refused.
pub(super) fn refusal(why: Refused) -> smtp::Verdict {
    match why {
        Refused::TooFewNodes | Refused::ClockApart | Refused::NoList => smtp::Verdict::TooFewNodes,
        Refused::Leaving => smtp::Verdict::Leaving,
        Refused::NoExitNow => smtp::Verdict::NoExitNow,
        Refused::NoExit => smtp::Verdict::NoExit,
        Refused::TooBig => smtp::Verdict::TooBig,
        Refused::Full => smtp::Verdict::Full,
        Refused::FullFor(octets) => smtp::Verdict::FullFor(octets),
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

//! What an operator orders about other nodes, and what peers show of invites.
//!
//! An order that changes what is kept is answered only when it is kept: a ban or an invite that a
//! restart would lose was never given.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use keys::{NodeId, OnionAddress};
use rand::CryptoRng;

use crate::answer::{Done, InviteAnswer, NotDone};
use crate::command::{Command, Out};
use crate::ids::{KeepId, OrderId, QuestionId};
use crate::invite::{GivenInvite, Invite};
use crate::leaving::Leaving;
use crate::statements::Hearing;

/// Nodes that an operator may ban.
const MAX_BANNED: usize = 1024;
/// Orders that wait to be kept. A caller of the control socket waits for each.
const MAX_PENDING: usize = 64;

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorOrder {
    /// Vouch for a node, or renew the vouch.
    Vouch(NodeId),
    /// Take a vouch back.
    Unvouch(NodeId),
    /// Say as a voter that another voter or root is to count no more. This cannot be taken back.
    Retire(NodeId),
    /// Avoid a node in this node's own routes.
    Ban(NodeId),
    /// Stop avoiding it.
    Unban(NodeId),
    /// Make an invite.
    Invite,
    /// Leave: nothing more is taken, the next record says so, and once no list names this node it waits until
    /// nothing can come that others have planned, and it holds nothing. It is over after this time at the
    /// latest. If none is given it is the horizon of mail and six hours, which is enough if the lists are in
    /// time; of a node that leaves already only a given time changes anything.
    Leave(Option<Duration>),
    /// Stay after all.
    Stay,
}

/// Orders that wait to be kept.
#[derive(Default)]
pub(crate) struct Operator {
    pending: BTreeMap<KeepId, (OrderId, Pending)>,
}

enum Pending {
    Ban(NodeId),
    Unban(NodeId),
    Invite(Invite),
    /// That it leaves, or stays.
    Leaving,
}

impl Pending {
    fn change(&self, banned: &mut BTreeSet<NodeId>) {
        match self {
            Self::Ban(node) => {
                banned.insert(*node);
            }
            Self::Unban(node) => {
                banned.remove(node);
            }
            Self::Invite(_) | Self::Leaving => {}
        }
    }
}

impl Operator {
    /// Carries out an order, or begins to. `leaving` is how far the node has got with leaving.
    pub(crate) fn handle_order<R: CryptoRng>(
        &mut self,
        id: OrderId,
        (order, leaving): (OperatorOrder, Option<Leaving>),
        hearing: &mut Hearing<'_, R>,
    ) {
        let done = match order {
            OperatorOrder::Vouch(node)
            | OperatorOrder::Unvouch(node)
            | OperatorOrder::Retire(node)
            | OperatorOrder::Ban(node)
            | OperatorOrder::Unban(node)
                if node == hearing.outlook.node() =>
            {
                Err(NotDone::Oneself)
            }
            OperatorOrder::Vouch(node) => hearing.vouch(node).map(|()| Some(Done::Of(node))),
            OperatorOrder::Unvouch(node) => hearing.unvouch(node).map(|()| Some(Done::Of(node))),
            OperatorOrder::Retire(node) => hearing.retire(node).map(|()| Some(Done::Of(node))),
            OperatorOrder::Ban(node) => self.ban(id, node, hearing).map(|()| None),
            OperatorOrder::Unban(node) => self.unban(id, node, hearing).map(|()| None),
            OperatorOrder::Invite => self.invite(id, hearing).map(|()| None),
            OperatorOrder::Leave(_) | OperatorOrder::Stay => {
                self.wait(id, Pending::Leaving, hearing.out).map(|keep| {
                    hearing.out.push(Command::KeepLeaving(keep, leaving));
                    None
                })
            }
        };
        if let Some(done) = done.transpose() {
            hearing.out.push(Command::Reply(id, done));
        }
    }

    fn ban<R: CryptoRng>(
        &mut self,
        id: OrderId,
        node: NodeId,
        hearing: &mut Hearing<'_, R>,
    ) -> Result<(), NotDone> {
        if self.banned(hearing.outlook.banned()).len() >= MAX_BANNED {
            return Err(NotDone::TooManyBanned);
        }
        self.keep_banned(id, Pending::Ban(node), hearing)
    }

    fn unban<R: CryptoRng>(
        &mut self,
        id: OrderId,
        node: NodeId,
        hearing: &mut Hearing<'_, R>,
    ) -> Result<(), NotDone> {
        if !self.banned(hearing.outlook.banned()).contains(&node) {
            return Err(NotDone::NotBanned);
        }
        self.keep_banned(id, Pending::Unban(node), hearing)
    }

    fn keep_banned<R>(
        &mut self,
        id: OrderId,
        change: Pending,
        hearing: &mut Hearing<'_, R>,
    ) -> Result<(), NotDone> {
        let keep = self.wait(id, change, hearing.out)?;
        let banned = self.banned(hearing.outlook.banned());
        hearing.out.push(Command::KeepBanned(keep, banned));
        Ok(())
    }

    /// The banned nodes once all that is pending is kept.
    fn banned(&self, now: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let mut banned = now.clone();
        for (_, pending) in self.pending.values() {
            pending.change(&mut banned);
        }
        banned
    }

    fn invite<R: CryptoRng>(
        &mut self,
        id: OrderId,
        hearing: &mut Hearing<'_, R>,
    ) -> Result<(), NotDone> {
        let node = hearing.outlook.node();
        if !hearing.outlook.directory.may_vouch(&node) {
            return Err(NotDone::WordCountsForNothing);
        }
        let inviter = OnionAddress::of(node).map_err(|_| NotDone::NotTaken)?;
        let token = hearing.author.invites.make(hearing.now, hearing.rng);
        let token = token.map_err(|_| NotDone::TooManyInvites)?;
        let invite = Invite { inviter, token };
        let keep = self.wait(id, Pending::Invite(invite), hearing.out)?;
        hearing.out.push(Command::KeepInvites(keep, hearing.author.invites.open().to_vec()));
        Ok(())
    }

    fn wait(&mut self, id: OrderId, pending: Pending, out: &mut Out) -> Result<KeepId, NotDone> {
        if self.pending.len() >= MAX_PENDING {
            return Err(NotDone::NotKept);
        }
        let keep = out.keep_id();
        self.pending.insert(keep, (id, pending));
        Ok(keep)
    }

    /// What an order waited for is on the disk.
    pub(crate) fn handle_kept<R: CryptoRng>(&mut self, id: KeepId, hearing: &mut Hearing<'_, R>) {
        let Some((order, pending)) = self.pending.remove(&id) else { return };
        let done = match pending {
            Pending::Ban(node) | Pending::Unban(node) => {
                let mut banned = hearing.outlook.banned().clone();
                pending.change(&mut banned);
                hearing.outlook.ban(banned, hearing.now, hearing.rng, hearing.out);
                Done::Of(node)
            }
            Pending::Invite(invite) => Done::Invited(invite),
            Pending::Leaving => Done::Of(hearing.outlook.node()),
        };
        hearing.out.push(Command::Reply(order, Ok(done)));
    }

    /// What an order waited for could not be kept: nothing has changed.
    pub(crate) fn handle_keep_failed<R>(&mut self, id: KeepId, hearing: &mut Hearing<'_, R>) {
        let Some((order, pending)) = self.pending.remove(&id) else { return };
        if let Pending::Invite(invite) = pending {
            hearing.author.invites.redeem(invite.token.as_bytes(), hearing.now);
        }
        hearing.out.push(Command::Reply(order, Err(NotDone::NotKept)));
    }
}

// Invites, as peers meet them.

/// A peer shows the token of an invite. A peer that did not get the answer shows it again.
pub(crate) fn handle_invite_shown<R: CryptoRng>(
    id: QuestionId,
    peer: NodeId,
    token: &[u8],
    hearing: &mut Hearing<'_, R>,
) {
    let is_good = || hearing.author.invites.knows(token, hearing.now);
    let answer = match hearing.vouches_for(&peer) {
        true => InviteAnswer::Taken,
        false if !is_good() => InviteAnswer::Refused,
        false => match hearing.vouch(peer) {
            Ok(()) => InviteAnswer::Taken,
            // It passes, and the token stays good.
            Err(NotDone::TooSoon | NotDone::NotKept | NotDone::NotTaken) => InviteAnswer::NotNow,
            Err(_) => InviteAnswer::Refused,
        },
    };
    // The word is kept first, and then the token is used up.
    let is_taken = answer == InviteAnswer::Taken;
    if is_taken && hearing.author.invites.redeem(token, hearing.now) {
        let keep = hearing.out.keep_id();
        let open = hearing.author.invites.open().to_vec();
        hearing.out.push(Command::KeepInvites(keep, open));
    }
    hearing.out.push(Command::AnswerInvite(id, answer));
}

/// Shows the invite that this node was given, if this peer made it.
pub(crate) fn show_invite<R>(peer: NodeId, hearing: &mut Hearing<'_, R>) {
    if let GivenInvite::Held(invite) = &hearing.author.invites.given
        && invite.inviter.node() == peer
    {
        hearing.out.push(Command::ShowInvite(peer, invite.token.clone()));
    }
}

/// A peer answers to the invite that it was shown.
pub(crate) fn handle_invite_answered<R>(
    peer: NodeId,
    answer: InviteAnswer,
    hearing: &mut Hearing<'_, R>,
) {
    let given = &mut hearing.author.invites.given;
    let is_its_own = matches!(given, GivenInvite::Held(held) if held.inviter.node() == peer);
    if is_its_own {
        *given = match answer {
            InviteAnswer::Taken => GivenInvite::None,
            InviteAnswer::Refused => GivenInvite::Refused,
            // It is shown again with the next link.
            InviteAnswer::NotNow => return,
        };
        hearing.out.push(Command::ForgetInvite(answer));
    }
}

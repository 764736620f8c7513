//! What a node wants done: one queue, in the order in which it must be done.

use core::fmt;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use directory::{ItemId, Request, View};
use keys::{Epoch, MixSeed, NodeId, Time};
use mail::Delivery;
use mix::Tags;
use sphinx::{EpochKeys, Packet};
use zeroize::Zeroizing;

use crate::answer::{Done, InviteAnswer, NotDone, Refused, Taken};
use crate::count::{Count, Counts};
use crate::custody::{Ended, Mark};
use crate::decoys::Decoy;
use crate::ids::{DeliveryId, KeepId, MessageName, OrderId, QuestionId, StreamId, SubmissionId};
use crate::invite::{OpenInvite, Token};
use crate::leaving::Leaving;
use crate::over::Over;
use crate::seal::Sealing;
use crate::streams::Handed;

/// What is to be done. Commands are begun one after the other, and what is to be kept gets to the
/// disk in that order; nothing waits for it but what its report lets go on.
///
/// A command can be compared, and printed: its `Debug` gives kinds, sizes and epochs, never a node,
/// an octet of a packet or message, or a secret.
#[derive(PartialEq)]
pub enum Command {
    /// Hand a packet to a node; it is useless after `until`.
    Send {
        /// The next hop.
        to: NodeId,
        /// The packet.
        packet: Packet,
        /// When the next hop's key is gone.
        until: Time,
    },
    /// Hand this over on a stream, then report [`crate::Remailer::handle_stream_taken`], or
    /// [`crate::Remailer::handle_stream_ended`] with it.
    HandOver(StreamId, Handed),
    /// Open packets with these keys, and with no others, from now on.
    Accept(EpochKeys),
    /// Make these replay tags durable, then report [`crate::Remailer::handle_tags_kept`] or
    /// [`crate::Remailer::handle_tags_lost`].
    KeepTags(Tags),
    /// Seal a message on whatever thread has time, then report
    /// [`crate::Remailer::handle_sealed`].
    Seal(SubmissionId, Sealing),
    /// Seal cover in the same way, then report [`crate::Remailer::handle_cover_sealed`].
    SealCover(Sealing),
    /// Submit a decoy to another node as a user would, then report
    /// [`crate::Remailer::handle_decoy_submitted`].
    Submit(Decoy),
    /// Answer a submission.
    Answer(SubmissionId, Result<Taken, Refused>),
    /// Hand a message to the next server, then report [`crate::Remailer::handle_delivery`].
    Deliver(DeliveryId, Delivery),
    /// Keep this key's seed, then report [`crate::Remailer::handle_kept`] or
    /// [`crate::Remailer::handle_keep_failed`].
    KeepSeed(KeepId, Epoch, MixSeed),
    /// Destroy this epoch's seed and tags, and keep that it has no key.
    WithdrawSeed(Epoch),
    /// Destroy the seeds and tags of the epochs before this one.
    ForgetSeeds(Epoch),
    /// Keep this record as the last one that this node published, then report as above.
    KeepOwn(KeepId, Vec<u8>),
    /// Keep this vote as the last one that this node signed, then report as above.
    KeepVote(KeepId, Vec<u8>),
    /// Keep these octets of a message in custody under its name, then report as above: only then is it
    /// answered for.
    KeepMessage(KeepId, MessageName, Zeroizing<Vec<u8>>),
    /// Keep a mark of a message; one that is lost does no harm.
    MarkMessage(MessageName, Mark),
    /// Forget a message, and keep its end, if it has one.
    ForgetMessage(MessageName, Option<Ended>),
    /// Keep that a delivery is over.
    KeepOver(Over),
    /// Forget the deliveries that were over in the epochs before this one.
    ForgetOver(Epoch),
    /// Keep this as the list in use.
    KeepList(Vec<u8>),
    /// Keep what is known of the health of other nodes, for [`crate::Known::health`].
    KeepHealth(Vec<u8>),
    /// Keep how far this node has got with leaving, or that it does not leave, for [`crate::Known::leaving`],
    /// then report as above.
    KeepLeaving(KeepId, Option<Leaving>),
    /// Keep a statement under its name.
    KeepStatement(ItemId, Arc<[u8]>),
    /// Forget statements.
    ForgetStatements(Vec<ItemId>),
    /// Keep these nodes as those that this node's routes avoid, then report as above.
    KeepBanned(KeepId, BTreeSet<NodeId>),
    /// Write out the statements kept so far, then keep these as the open invites, then report as
    /// above. An invite that is not kept must not be answered for, and one whose vouch is lost
    /// must not be used up.
    KeepInvites(KeepId, Vec<OpenInvite>),
    /// Forget the invite that this node was given: it has been answered.
    ForgetInvite(InviteAnswer),
    /// Publish this statement as soon as a peer is there to hear it.
    Announce(Vec<u8>),
    /// Hold a link to this node, whose record has just become known.
    Link(NodeId),
    /// Hold links to the first of these nodes, [`crate::MAX_LINKS`] in all, and to the bootstraps.
    /// A link that was wanted before and is among them stays wanted.
    Links(Vec<NodeId>),
    /// Hold no link to this node: nothing is known of it any more.
    Unlink(NodeId),
    /// Ask a linked peer, then report [`crate::Remailer::handle_sync_answer`] or
    /// [`crate::Remailer::handle_sync_failed`].
    Ask(NodeId, Request),
    /// End the links to a peer that breaks the protocol, and refuse it for a while.
    HangUp(NodeId),
    /// Show a linked peer the token of the invite that it made, then report
    /// [`crate::Remailer::handle_invite_answered`].
    ShowInvite(NodeId, Token),
    /// Answer a peer that showed an invite.
    AnswerInvite(QuestionId, InviteAnswer),
    /// Tell the operator what came of an order.
    Reply(OrderId, Result<Done, NotDone>),
    /// Routes come from this view from now on.
    ViewTaken(Arc<View>),
}

/// Where every part of a node writes what it wants done and what it has counted.
#[derive(Default)]
pub(crate) struct Out {
    commands: VecDeque<Command>,
    pub(crate) counts: Counts,
    keeps: u64,
}

impl Out {
    pub(crate) fn push(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    pub(crate) fn extend(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.commands.extend(commands);
    }

    pub(crate) fn count(&mut self, count: Count) {
        self.counts.add(count);
    }

    pub(crate) fn count_many(&mut self, count: Count, times: u64) {
        self.counts.add_many(count, times);
    }

    pub(crate) fn next(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    pub(crate) fn keep_id(&mut self) -> KeepId {
        self.keeps += 1;
        KeepId(self.keeps)
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { packet, .. } => write!(f, "Send({} octets)", packet.octets().len()),
            Self::HandOver(id, handed) => {
                write!(f, "HandOver({}, {} octets)", id.0, handed.payload.len())
            }
            Self::Accept(keys) => {
                f.write_str("Accept")?;
                f.debug_list().entries(keys.epochs().map(Epoch::number)).finish()
            }
            Self::KeepTags(tags) => write!(f, "KeepTags({}, {})", tags.batch, tags.tags.len()),
            Self::Seal(id, sealing) => write!(f, "Seal({}, {} packets)", id.0, sealing.len()),
            Self::SealCover(sealing) => write!(f, "SealCover({} packets)", sealing.len()),
            Self::Submit(decoy) => write!(f, "Submit({} octets)", decoy.octets),
            Self::Answer(id, Ok(_)) => write!(f, "Answer({}, taken)", id.0),
            Self::Answer(id, Err(why)) => write!(f, "Answer({}, {why:?})", id.0),
            Self::Deliver(_, delivery) => {
                write!(f, "Deliver({} recipients)", delivery.recipients.len())
            }
            Self::KeepSeed(_, epoch, _) => write!(f, "KeepSeed({})", epoch.number()),
            Self::WithdrawSeed(epoch) => write!(f, "WithdrawSeed({})", epoch.number()),
            Self::ForgetSeeds(epoch) => write!(f, "ForgetSeeds({})", epoch.number()),
            Self::KeepOwn(_, octets) => write!(f, "KeepOwn({} octets)", octets.len()),
            Self::KeepVote(_, octets) => write!(f, "KeepVote({} octets)", octets.len()),
            Self::KeepMessage(id, _, octets) => {
                write!(f, "KeepMessage({}, {} octets)", id.0, octets.len())
            }
            Self::MarkMessage(_, mark) => write!(f, "MarkMessage({})", mark.place),
            Self::ForgetMessage(_, ended) => write!(f, "ForgetMessage({})", ended.is_some()),
            Self::KeepOver(over) => write!(f, "KeepOver({})", over.epoch.number()),
            Self::ForgetOver(epoch) => write!(f, "ForgetOver({})", epoch.number()),
            Self::KeepList(octets) => write!(f, "KeepList({} octets)", octets.len()),
            Self::KeepLeaving(id, leaving) => write!(f, "KeepLeaving({}, {leaving:?})", id.0),
            Self::KeepHealth(octets) => write!(f, "KeepHealth({} octets)", octets.len()),
            Self::KeepStatement(_, octets) => write!(f, "KeepStatement({} octets)", octets.len()),
            Self::ForgetStatements(names) => write!(f, "ForgetStatements({})", names.len()),
            Self::KeepBanned(id, nodes) => write!(f, "KeepBanned({}, {})", id.0, nodes.len()),
            Self::KeepInvites(id, open) => write!(f, "KeepInvites({}, {})", id.0, open.len()),
            Self::ForgetInvite(answer) => write!(f, "ForgetInvite({answer:?})"),
            Self::Announce(octets) => write!(f, "Announce({} octets)", octets.len()),
            Self::Link(_) => f.write_str("Link"),
            Self::Links(nodes) => write!(f, "Links({})", nodes.len()),
            Self::Unlink(_) => f.write_str("Unlink"),
            Self::Ask(_, Request::Summary) => f.write_str("Ask(summary)"),
            Self::Ask(_, Request::List { .. }) => f.write_str("Ask(list)"),
            Self::Ask(_, Request::Entries(buckets)) => write!(f, "Ask(entries {})", buckets.len()),
            Self::Ask(_, Request::Fetch(names)) => write!(f, "Ask(fetch {})", names.len()),
            Self::HangUp(_) => f.write_str("HangUp"),
            Self::ShowInvite(..) => f.write_str("ShowInvite"),
            Self::AnswerInvite(id, answer) => write!(f, "AnswerInvite({}, {answer:?})", id.0),
            Self::Reply(id, Ok(_)) => write!(f, "Reply({}, done)", id.0),
            Self::Reply(id, Err(why)) => write!(f, "Reply({}, {why:?})", id.0),
            Self::ViewTaken(view) => write!(f, "ViewTaken({} nodes)", view.len()),
        }
    }
}

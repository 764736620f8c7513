//! How often each thing happened. A count is one of a fixed set of kinds: it never names an
//! address, an identity or a packet. The text for each kind is made where it is printed.

use std::collections::BTreeMap;

use directory::Unwanted;
use mail::{DeliveryStatus, FragmentError, MessageError};
use record::StatementError;
use sphinx::Refusal;

use crate::answer::Refused;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// A packet arrived, whatever became of it.
    PacketReceived,
    /// A packet of another node was passed on.
    PacketRelayed,
    /// A packet of another node was passed on among fewer of its class than should leave together.
    PacketLonely,
    /// A packet of this node's own left on its tick.
    PacketSent,
    /// A loop left on a tick that no mail had taken.
    LoopSent,
    /// A loop left among too few packets of others.
    TopUpSent,
    /// A packet left that only ends somewhere, on a tick that no mail had taken.
    DropSent,
    /// Nothing left on a tick.
    TickEmpty,
    /// A loop came back.
    LoopReturned,
    /// A loop did not come back in time.
    LoopMissing,
    /// A loop of another node turned here.
    LoopTurned,
    /// A peer took a packet on the stream that presented its token.
    PacketHandedOver,
    /// A packet ended here that carried nothing.
    CoverEnded,
    /// A packet went no further.
    PacketDropped(Dropped),
    /// A submission was answered with 250.
    MessageTaken,
    /// A message in custody was found there after a restart.
    MessageRestored,
    /// All recipients of a message in custody were served.
    MessageAcknowledged,
    /// A message in custody was refused for at least one recipient, or exits gave up.
    MessageFailed,
    /// Nothing certain is known of a message in custody that an exit held, and never will be.
    MessageUnknown,
    /// Nothing was heard of a message in custody, and never will be.
    MessageLost,
    /// A submission was not taken.
    MessageRefused(Refused),
    /// A decoy was answered with 250.
    DecoyTaken,
    /// A decoy of another node was not taken.
    DecoyRefused,
    /// Another node took a decoy of this one.
    DecoySubmitted,
    /// A decoy of this node was not taken, or found no node that answers.
    DecoyNotTaken,
    /// A piece of a message came that takes several packets.
    PieceTaken,
    /// A piece came of a message that is whole already, or a copy of one.
    PieceSpare,
    /// A message came again that is being delivered, or was.
    MessageAgain,
    /// A message left the network here and is being delivered.
    MessageToDeliver,
    /// The next server took a message for at least one recipient.
    MessageDelivered,
    /// The next server refused a message for good, for at least one recipient.
    MessageRefusedByServer,
    /// A delivery will be tried again.
    DeliveryPostponed,
    /// A message that left the network here was not delivered.
    MessageDropped(NotDelivered),
    /// An exit was answered for a recipient of this node's mail.
    Acknowledged(DeliveryStatus),
    /// A packet came along a reply block to this node, whatever became of it.
    AnswerReceived,
    /// No answer came to a reply block of this node's own while its keys lived.
    AnswerMissing,
    /// An answer to a reply block was not what it should be.
    AnswerRefused(NoAnswer),
    /// What became of a message was answered for, or a loop was turned.
    AnswerSent,
    /// What became of a message could not be answered for, or a loop not be turned.
    NotAnswered(NotAnswered),
    /// Another node's record was taken in.
    RecordTaken,
    /// A vouch or a revocation was taken in.
    WordTaken,
    /// A vote was taken in.
    VoteTaken,
    /// A vote of this node's own was published.
    VotePublished,
    /// A proof was taken in.
    ProofTaken,
    /// Two statements that contradict each other were heard, and a proof was made of them.
    ProofMade,
    /// A statement was not taken in.
    StatementRefused(NotTaken),
    /// A record of this node's own was published.
    RecordPublished,
    /// A record of this node's own could not be published.
    OwnRecordRefused(NotPublished),
    /// The clock jumped: it was set, or the machine slept.
    ClockJumped,
    /// A mix key was given up.
    KeyWithdrawn,
    /// A vouch could not be renewed.
    VouchNotRenewed,
}

/// Why a packet went no further: one list for the packet layer, the mix, the node and the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// Its length is none of the nine.
    Length,
    /// It is of an unknown version or suite.
    Version,
    /// Its key was destroyed, as planned, before it arrived.
    Late,
    /// It arrived before its key is accepted.
    Early,
    /// It is of an epoch that is accepted now and has no key here.
    NoKey,
    /// Its first ciphertext is one that no honest sender makes.
    Ciphertext,
    /// Its header MAC is wrong.
    Mac,
    /// Its payload tag is wrong.
    Payload,
    /// Its block speaks of another size class.
    Class,
    /// Its kind is unknown or reserved.
    Kind,
    /// Its block is one that no honest sender makes.
    Block,
    /// It was seen before.
    Replay,
    /// Its key has opened as many packets as its replay filter holds.
    SlotFull,
    /// Its next hop has no live record.
    UnknownHop,
    /// No stream presented its token in time.
    NoStream,
    /// Too much waits for its token, or for all tokens.
    StreamFull,
    /// Its delay is longer than the network allows.
    Delay,
    /// The pool is full.
    PoolFull,
    /// Its replay tag could not be made durable.
    NotKept,
    /// Its next hop's key was gone before it could be handed over.
    Expired,
    /// Too much waits for its next hop already.
    QueueFull,
}

impl From<mix::MixRefusal> for Dropped {
    fn from(why: mix::MixRefusal) -> Self {
        match why {
            mix::MixRefusal::Replay => Self::Replay,
            mix::MixRefusal::Epoch => Self::NoKey,
            mix::MixRefusal::SlotFull => Self::SlotFull,
            mix::MixRefusal::UnknownHop => Self::UnknownHop,
            mix::MixRefusal::Delay => Self::Delay,
            mix::MixRefusal::PoolFull => Self::PoolFull,
            mix::MixRefusal::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<Refusal> for Dropped {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::Length => Self::Length,
            Refusal::Version => Self::Version,
            Refusal::Epoch(_) => Self::NoKey,
            Refusal::Ciphertext => Self::Ciphertext,
            Refusal::Mac => Self::Mac,
            Refusal::Payload => Self::Payload,
            Refusal::Class => Self::Class,
            Refusal::Kind => Self::Kind,
            Refusal::Block => Self::Block,
        }
    }
}

/// Why a message that left the network here was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotDelivered {
    /// This node is no exit.
    NotAnExit,
    /// The payload is not one that a sender makes.
    Payload,
    /// What it carries is of a type that this exit does not deliver.
    ContentType,
    /// The payload holds no fragment.
    Fragment(FragmentError),
    /// The fragment holds no message that may be delivered.
    Message(MessageError),
    /// This exit's policy does not allow it.
    NotInPolicy,
    /// Too few of its pieces came in time, or while there was room for them.
    Incomplete,
    /// Too much waits for delivery already.
    NoRoom,
    /// The node was ending while it was delivered.
    CutShort,
    /// The next server did not take it in time.
    GaveUp,
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoAnswer {
    /// It names no reply block that waits for one: it came already, or too late, or was made up.
    Unexpected,
    /// It was altered on its way, or made by somebody who did not have the block.
    Altered,
    /// Whoever had the block wrote something else than an answer.
    Malformed,
    /// It is of a type or version that this node does not know.
    ContentType,
}

/// Why there is no answer with a reply block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotAnswered {
    /// What came with the message is no reply block.
    Malformed,
    /// The last epoch in which it is good is over.
    Expired,
    /// Its first node has no live record here.
    UnknownHop,
    /// It was answered with before.
    Used,
    /// No more blocks can be remembered as used, or the pool is full.
    NoRoom,
}

/// Why a statement was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotTaken {
    /// It is not one that may be used.
    Bad(StatementError),
    /// It is known already.
    Known,
    /// A later one is known.
    Older,
    /// It is dated too soon after another of its author.
    TooSoon,
    /// It contradicts another of its author.
    Broken,
    /// The directory has no room for it.
    Full,
    /// Its author is one newcomer too many in this hour.
    Crowded,
    /// It is dated too long ago for gossip.
    Late,
    /// Nobody vouches for its author, or the node that it concerns is unknown.
    Unreached,
    /// Vouches decide nothing in this network.
    Pointless,
    /// Its author is no voter.
    NoVoter,
    /// It is a vote for an hour that is past, or not to be voted on yet.
    OtherHour,
}

impl From<&Unwanted> for NotTaken {
    fn from(why: &Unwanted) -> Self {
        match why {
            Unwanted::Known => Self::Known,
            Unwanted::Older => Self::Older,
            Unwanted::TooSoon => Self::TooSoon,
            Unwanted::Broken(_) => Self::Broken,
            Unwanted::Full => Self::Full,
            Unwanted::Crowded => Self::Crowded,
            Unwanted::Late => Self::Late,
            Unwanted::Unreached => Self::Unreached,
            Unwanted::Pointless => Self::Pointless,
            Unwanted::NoVoter => Self::NoVoter,
            Unwanted::OtherHour => Self::OtherHour,
        }
    }
}

/// Why a record of this node's own was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotPublished {
    /// It has neither a key nor a withdrawn one to state.
    NoKey,
    /// There is no number above that of its last one.
    LastNumber,
    /// It, or one of its keys, could not be kept.
    NotKept,
    /// Its own directory does not take it in.
    NotTaken(NotTaken),
}

/// A counter for each kind of thing that happened at least once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<Count, u64>);

impl Counts {
    pub(crate) fn add(&mut self, count: Count) {
        self.add_many(count, 1);
    }

    pub(crate) fn add_many(&mut self, count: Count, times: u64) {
        let counter = self.0.entry(count).or_default();
        *counter = counter.saturating_add(times);
    }

    /// How often this happened.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.0.get(&count).copied().unwrap_or(0)
    }

    /// What happened at least once, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (Count, u64)> {
        self.0.iter().map(|(count, times)| (*count, *times))
    }
}

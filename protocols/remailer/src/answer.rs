//! What clients, operators and peers are answered, and what became of a delivery.

use directory::{RouteError, Unwanted};
use keys::{NodeId, Time};
use mail::{Delivery, NotCarried};

use crate::ids::QueueId;
use crate::invite::Invite;

/// Why mail is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// Too few nodes are usable; that may change.
    #[error("too few nodes")]
    TooFewNodes,
    /// No exit delivers that at present; one that is known may again.
    #[error("no exit now")]
    NoExitNow,
    /// No exit that is known delivers that.
    #[error("no exit")]
    NoExit,
    /// This node's clock is not the network's.
    #[error("the clock is wrong")]
    ClockApart,
    /// There is no list of nodes that is new enough; that may change.
    #[error("no list of nodes")]
    NoList,
    /// This node is about to leave.
    #[error("about to leave")]
    Leaving,
    /// Larger than any mail that is carried, or too large for so many domains.
    #[error("too big")]
    TooBig,
    /// As much mail waits as is allowed; that will change.
    #[error("full")]
    Full,
    /// The same for mail of this size; one of so many octets would go.
    #[error("full for more than {0} octets")]
    FullFor(u32),
    /// It cannot be carried as it is.
    #[error("{0}")]
    Unfit(NotCarried),
}

impl From<RouteError> for Refused {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::TooFewNodes => Self::TooFewNodes,
            RouteError::NoExit => Self::NoExit,
        }
    }
}

/// A submission that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its name.
    pub name: QueueId,
    /// When it will have come through, by plan, if it takes more than one packet for a domain.
    pub through: Option<Time>,
}

/// What was done.
#[derive(Clone, PartialEq, Eq)]
pub enum Done {
    /// What was ordered of this node.
    Of(NodeId),
    /// An invite was made.
    Invited(Invite),
}

/// Why an order was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// It concerns this node itself.
    Oneself,
    /// This node's word counts for nothing: no chain of vouches reaches it that may grow longer, or
    /// the network is open.
    WordCountsForNothing,
    /// This node vouches for as many as it may.
    TooManyVouches,
    /// This node has said something of that node just now.
    TooSoon,
    /// This node does not vouch for it.
    NoVouch,
    /// This node's own directory does not take the statement in.
    NotTaken,
    /// As many nodes are banned as is allowed.
    TooManyBanned,
    /// It is not banned.
    NotBanned,
    /// As many invites are open as is allowed.
    TooManyInvites,
    /// It could not be kept.
    NotKept,
}

impl From<&Unwanted> for NotDone {
    fn from(why: &Unwanted) -> Self {
        match why {
            Unwanted::Unreached | Unwanted::Pointless | Unwanted::NoVoter => {
                Self::WordCountsForNothing
            }
            Unwanted::Full => Self::TooManyVouches,
            Unwanted::TooSoon => Self::TooSoon,
            Unwanted::Known
            | Unwanted::Older
            | Unwanted::Broken(_)
            | Unwanted::Crowded
            | Unwanted::OtherHour
            | Unwanted::Late => Self::NotTaken,
        }
    }
}

/// Whether an invite was taken by the node that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteAnswer {
    /// It was taken: the bearer is vouched for.
    Taken,
    /// It was not taken.
    Refused,
    /// It is good, and could not be taken now: the bearer is to show it again.
    NotNow,
}

/// What came of an attempt.
pub enum DeliveryOutcome {
    /// The next server took it for some recipients, and refused it for others for good.
    Done {
        /// How many recipients were taken.
        taken: usize,
        /// How many were refused, as any other server would refuse them.
        refused: usize,
        /// How many were refused by this server, as another may not.
        refused_here: usize,
    },
    /// Recipients remain to be tried again.
    Later {
        /// The message with the recipients that remain.
        delivery: Delivery,
        /// How many were taken.
        taken: usize,
        /// How many were refused, as any other server would refuse them.
        refused: usize,
        /// How many were refused by this server, as another may not.
        refused_here: usize,
    },
}

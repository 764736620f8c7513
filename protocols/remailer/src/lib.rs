#![doc = include_str!("../README.md")]

mod answer;
mod answers;
mod assembling;
mod author;
mod catch_up;
mod command;
mod content;
mod count;
mod custody;
mod cutting;
mod decoys;
mod exit;
mod health;
mod ids;
mod ingress;
mod invite;
mod keeping;
mod leaving;
mod links;
mod loops;
mod node;
mod operator;
mod outbox;
mod outlook;
mod over;
mod relay;
mod replies;
mod seal;
mod sender;
mod setup;
mod siege;
pub mod sim;
mod spool;
mod statements;
mod streams;
mod traffic;

pub use answer::{DeliveryOutcome, Done, InviteAnswer, NotDone, Refused, Taken};
pub use command::Command;
pub use content::ContentType;
pub use count::{
    Count, Counts, Dropped, NoAnswer, NotAnswered, NotDelivered, NotPublished, NotTaken,
};
pub use custody::{Ended, KeptMessage, Mark, MessageState, QueueEntry};
pub use cutting::Cut;
pub use decoys::{DECOY_DOMAIN, Decoy, DecoyEnd};
pub use exit::ExitOffer;
pub use health::{PeerHealth, Shunned};
pub use ids::{
    DeliveryId, KeepId, MessageName, OrderId, QuestionId, QueueId, StreamId, SubmissionId,
};
pub use invite::{Invite, NotAnInvite, OpenInvite, TOKEN_LEN, Token};
pub use leaving::{Leaving, NotLeaving};
pub use links::MAX_LINKS;
pub use loops::{DAYS, DayHealth};
pub use node::{Classes, Held, Remailer};
pub use operator::OperatorOrder;
pub use outlook::{Agreement, Alarm, Suspicion};
pub use over::{Over, OverIn, OverTag};
pub use seal::{SealError, Sealed, SealedMessage, Sealing, SealingFailed};
pub use setup::{ClockJump, CustodyKept, InvitesKept, Kept, Known, Past, Role, Setup};
pub use spool::{MAX_SPOOLED, SpoolError, Spooled};
pub use statements::Judgement;
pub use streams::{Handed, MAX_TOKENS};

//! One whole node without a socket: directory, mix and mail put together.
//!
//! [`Remailer`] is told what happens and when (`handle_*`, with `now`, and randomness where it is
//! needed) and says what is to be done ([`Remailer::next_command`], [`Remailer::poll_timeout`]). It
//! opens no connection, writes no file and reads no clock; its caller carries out its [`Command`]s
//! and reports what came of them. [`sim`] runs many nodes against each other in virtual time.
//!
//! ```text
//! statement -> statements -> outlook (directory, view) --.
//!                 '-> author (own keys and records)      |
//! packet ----> relay (mix) -> exit -> delivery           +-> Out -> next_command
//! submission -> ingress -> sender (clock, route) --------|
//! link ------> links, catch_up (peers to link or ask) ---'
//! ```
//!
//! Each part owns its state and writes into the `Out` that is passed to it; [`Remailer`] holds the
//! parts and gives each input to the one that it concerns. Mail becomes a packet in one place, which
//! takes a [`directory::Route`] and so a route of at least three hops. There is no other way from a
//! submission to the wire.

mod answer;
mod author;
mod catch_up;
mod command;
mod content;
mod count;
mod exit;
mod ids;
mod ingress;
mod invite;
mod links;
mod node;
mod operator;
mod outbox;
mod outlook;
mod relay;
mod seal;
mod sender;
mod setup;
pub mod sim;
mod statements;

pub use answer::{DeliveryOutcome, Done, InviteAnswer, NotDone, Refused};
pub use command::Command;
pub use content::Content;
pub use count::{Count, Counts, Dropped, NotDelivered, NotPublished, NotTaken};
pub use exit::ExitOffer;
pub use ids::{DeliveryId, KeepId, OrderId, QuestionId, QueueId, SubmissionId};
pub use invite::{Invite, NotAnInvite, OpenInvite, TOKEN_LEN, Token};
pub use links::MAX_LINKS;
pub use node::{Held, Remailer};
pub use operator::OperatorOrder;
pub use outlook::{Agreement, Alarm};
pub use seal::{SealError, Sealed, SealedMessage, Sealing, SealingFailed};
pub use setup::{InvitesKept, Kept, Past, Role, Setup};
pub use statements::Judgement;

//! One whole node without a socket: directory, mix and mail put together.
//!
//! [`Remailer`] is told what happens and when (`handle_*`, with `now` and randomness where it needs
//! them) and says what is to be done ([`Remailer::next_command`], [`Remailer::poll_timeout`]). It opens
//! no connection, writes no file and reads no clock; whoever runs it carries out its [`Command`]s and
//! reports what failed. [`sim`] runs many of them against each other in virtual time.
//!
//! Mail becomes a packet in one place, which takes a [`directory::Route`] and so a route of at least
//! three hops. There is no other way from a submission to the wire.

mod counts;
mod exit;
mod node;
mod outbox;
mod publish;
mod seal;
pub mod sim;

pub use counts::Counts;
pub use exit::{DeliveryId, DeliveryOutcome, Exit};
pub use node::{
    Agreement, Alarm, Command, Judgement, Kept, Past, Refused, Remailer, SealedMessage, Sealing,
    SealingFailed, Setup,
};
pub use seal::{Content, SealError, Sealed};

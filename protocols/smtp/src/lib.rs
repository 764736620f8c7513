//! Both ends of an SMTP conversation (RFC 5321) as state machines over byte slices.
//!
//! [`Session`] is the server that takes submissions, [`Client`] hands a message to the next server.
//! Neither opens a socket, reads a clock, or decides where mail goes: octets and the time since the
//! conversation began go in, [`SessionEvent`]s or octets come out.
//!
//! Replies of the server tell no host name, address, version or time, and repeat nothing that was
//! received.

mod client;
mod command;
mod data;
mod server;

pub use client::{Client, Offers, Outcome, Port};
pub use server::{Limits, RecipientAsk, Session, SessionEvent, Verdict};

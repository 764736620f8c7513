#![doc = include_str!("../README.md")]

mod chunks;
mod client;
mod command;
mod data;
mod server;

pub use client::{Bar, Client, Offers, Outcome, Port};
pub use server::{
    Limits, MessageReport, PER_MESSAGE, RecipientAsk, Session, SessionEvent, Verdict,
};

//! Whole nodes, as users and attackers meet them: the `fog` binary, real sockets, real mail
//! programs.
//!
//! `FOG_BIN` names the binary to test; without it, the one that cargo built beside these tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod admission;
mod clocks;
mod commands;
mod cover;
mod custody;
mod devnet;
mod disk;
mod large;
mod leak;
mod mail;
mod next_server;
mod node;
mod operate;
mod postfix;
mod rotation;
mod smtp_input;
mod soak;
mod stranger;
mod throughput;
mod tor;
mod tor_mistakes;
mod tor_network;

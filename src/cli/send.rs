//! `fog send`: submits a message to a node by SMTP, for people without a mail program.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use mail::{Delivery, Mailbox, Needs};
use serde::Serialize;

use super::{say, say_json};
use crate::clock::Clock;
use crate::exit::submit;
use crate::failure::{Failure, FailureKind};

/// Octets read of a file, more than any node accepts.
const MAX_FILE: u64 = 64 << 20;

#[derive(Args)]
pub(super) struct Arguments {
    /// The message: header, empty line, body. `-` reads standard input.
    file: PathBuf,
    /// The recipient; may be given several times.
    #[arg(long, required = true, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Submit to the node at this address.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2525")]
    via: SocketAddr,
}

#[derive(Serialize)]
struct Sent {
    recipients: usize,
    reply: String,
}

pub(super) async fn run(arguments: Arguments, json: bool) -> Result<(), Failure> {
    let message = read(&arguments.file)?;
    if message.is_empty() {
        return Err(Failure::new(FailureKind::Usage, "the message is empty: nothing was sent")
            .remedy("see what was to write it"));
    }
    let usage = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Usage, format!("{what}: {error}"))
    };
    let to = arguments.to.iter().map(|text| Mailbox::parse(text));
    let recipients: Vec<_> = to.collect::<Result<_, _>>().map_err(|error| usage("--to", &error))?;
    let header_end = message.windows(4).position(|window| window == b"\r\n\r\n");
    let (header, body) = message.split_at(header_end.unwrap_or(message.len()));
    let mut needs = Needs::NONE;
    if !body.is_ascii() {
        needs = needs | Needs::EIGHT_BIT;
    }
    if !header.is_ascii() || recipients.iter().any(Mailbox::is_international) {
        needs = needs | Needs::SMTP_UTF8;
    }
    let count = recipients.len();
    let delivery = Delivery { recipients, needs, message };
    let via = arguments.via;
    let reply = submit(delivery, via, Clock::start()).await.map_err(|reply| match reply {
        Some(reply) => {
            Failure::new(FailureKind::Network, format!("{via} did not take it: {reply}"))
                .remedy("fog status says how the node is")
        }
        None => Failure::new(FailureKind::NoNode, format!("no node answers at {via}"))
            .remedy("start one, or name another with --via"),
    })?;
    if json {
        return say_json(&Sent { recipients: count, reply });
    }
    say(&reply)
}

/// Reads the message and turns every line end into CRLF.
fn read(file: &PathBuf) -> Result<Vec<u8>, Failure> {
    let mut octets = Vec::new();
    let read = if file.as_os_str() == "-" {
        io::stdin().lock().take(MAX_FILE).read_to_end(&mut octets)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_end(&mut octets))
    };
    read.map_err(|error| Failure::new(FailureKind::Usage, format!("{}: {error}", file.display())))?;
    let mut message = Vec::with_capacity(octets.len() + octets.len() / 32);
    for octet in octets {
        if octet == b'\n' && message.last() != Some(&b'\r') {
            message.push(b'\r');
        }
        message.push(octet);
    }
    Ok(message)
}

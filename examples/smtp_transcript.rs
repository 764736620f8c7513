//! A conversation of the two SMTP machines in memory, as it would stand on the wire.
//!
//! `cargo run --example smtp_transcript`
#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::time::Duration;

use mail::{Delivery, Mailbox, Needs};
use smtp::{Client, Limits, MessageReport, Outcome, Session, SessionEvent, Verdict};

fn main() -> Result<(), Box<dyn Error>> {
    // Neither machine has a socket or a clock; time since the start is told to them.
    let now = Duration::ZERO;
    let mut server = Session::new(Limits::new(10_000));
    let mut client = Client::deliver(
        "fog.invalid",
        Delivery {
            recipients: vec![Mailbox::parse("you@example.org")?],
            needs: Needs::NONE,
            message: b"To: you@example.org\r\n\r\n.a line that begins with a dot\r\n".to_vec(),
        },
    );
    loop {
        while let Some(event) = server.next_event() {
            match event {
                SessionEvent::Write(octets) => {
                    print("S", &octets);
                    client.handle_input(&octets, now);
                }
                SessionEvent::Recipient(_) => server.handle_answer(Verdict::RecipientTaken, now),
                SessionEvent::Message(submission) => {
                    println!("   (the server has {} octets)", submission.message.len());
                    server.handle_answer(Verdict::Taken([0xab; 16]), now);
                }
                SessionEvent::Status(_) => {
                    server.handle_answer(Verdict::Became(MessageReport::default()), now);
                }
                SessionEvent::Close => println!("   (the server hangs up)"),
            }
        }
        let Some(octets) = client.next_output() else { break };
        print("C", &octets);
        server.handle_input(&octets, now);
    }
    match client.finish() {
        (Outcome::Delivered { taken: 1, .. }, _) => Ok(()),
        (outcome, _) => Err(format!("not delivered: {outcome:?}").into()),
    }
}

fn print(who: &str, octets: &[u8]) {
    for line in String::from_utf8_lossy(octets).lines() {
        println!("{who}: {line}");
    }
}

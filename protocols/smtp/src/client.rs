//! The client's side: one message to the next server, or only the question of what that server
//! takes.

use core::time::Duration;
use std::collections::VecDeque;

use mail::{Delivery, Needs};
use zeroize::Zeroizing;

/// Octets of one reply line, and lines of one reply: far above what servers send, far below what a
/// hostile one might.
const MAX_REPLY_LINE: usize = 2048;
const MAX_REPLY_LINES: usize = 128;

/// What the next server takes, by its reply to EHLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// 8BITMIME and SMTPUTF8, as the needs that they meet.
    pub needs: Needs,
    /// SIZE with a number other than zero.
    pub max_message: Option<u64>,
}

/// What came of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered EHLO.
    Probed(Offers),
    /// The server took the message for some recipients, and refused it for others for good. The
    /// rest may be tried again.
    Delivered {
        /// Recipients taken.
        taken: usize,
        /// Recipients refused for good.
        refused: usize,
        /// Recipients to try again.
        later: usize,
    },
    /// Nothing was taken and nothing ever will be.
    Refused,
    /// Nothing was taken; it may be tried again.
    Later,
}

/// One conversation with the next server.
pub struct Client {
    name: String,
    delivery: Option<Delivery>,
    offers: Offers,
    step: Step,
    reply: Vec<u8>,
    line_starts: Vec<String>,
    output: VecDeque<Zeroizing<Vec<u8>>>,
    recipients: Recipients,
    outcome: Option<Outcome>,
    decisive: String,
    deadline: Duration,
}

/// Whether the conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// More is to be read.
    Open,
    /// Hang up when everything is written.
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Greeting,
    Ehlo,
    Helo,
    Mail,
    /// The number of the recipient whose reply is awaited.
    Recipient(usize),
    Data,
    End,
    Quit,
}

#[derive(Default)]
struct Recipients {
    taken: Vec<usize>,
    refused: Vec<usize>,
    later: Vec<usize>,
}

impl Client {
    /// A conversation that delivers. `name` is what EHLO says, the same for every exit.
    #[must_use]
    pub fn deliver(name: &str, delivery: Delivery) -> Self {
        Self::begin(name, Some(delivery))
    }

    /// A conversation that ends after EHLO.
    #[must_use]
    pub fn probe(name: &str) -> Self {
        Self::begin(name, None)
    }

    fn begin(name: &str, delivery: Option<Delivery>) -> Self {
        Self {
            name: name.to_owned(),
            delivery,
            offers: Offers::default(),
            step: Step::Greeting,
            reply: Vec::new(),
            line_starts: Vec::new(),
            output: VecDeque::new(),
            recipients: Recipients::default(),
            outcome: None,
            decisive: String::new(),
            deadline: wait_for(Step::Greeting),
        }
    }

    /// Takes what the server said, at `now` since the conversation began.
    pub fn handle_input(&mut self, octets: &[u8], now: Duration) {
        for &octet in octets {
            if self.step == Step::Quit {
                return;
            }
            if octet != b'\n' {
                self.reply.push(octet);
                if self.reply.len() > MAX_REPLY_LINE {
                    self.fail();
                }
                continue;
            }
            let line = core::mem::take(&mut self.reply);
            self.line(String::from_utf8_lossy(&line).trim_end(), now);
        }
    }

    /// The connection ended or never came about.
    pub fn handle_lost(&mut self) {
        self.fail();
    }

    /// When [`Client::handle_timeout`] is due (RFC 5321, 4.5.3.2).
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        self.deadline
    }

    /// Gives up if the server has taken too long.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now >= self.deadline {
            self.fail();
        }
    }

    /// What to write next.
    pub fn next_output(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        self.output.pop_front()
    }

    /// Whether to go on reading.
    #[must_use]
    pub fn port(&self) -> Port {
        if self.step == Step::Quit { Port::Done } else { Port::Open }
    }

    /// The last line of the reply that decided the outcome, for a person to read: printable, at
    /// most 200 characters. Not for a log: a server may repeat an address.
    #[must_use]
    pub fn decisive_reply(&self) -> &str {
        &self.decisive
    }

    /// What came of the conversation, and the delivery with the recipients that may be tried again.
    #[must_use]
    pub fn finish(mut self) -> (Outcome, Option<Delivery>) {
        let outcome = self.outcome.unwrap_or(Outcome::Later);
        if let Some(delivery) = &mut self.delivery {
            let done = |index: &usize| {
                self.recipients.taken.contains(index) || self.recipients.refused.contains(index)
            };
            if let Outcome::Delivered { .. } = outcome {
                let mut index = 0..;
                delivery.recipients.retain(|_| index.next().is_some_and(|index| !done(&index)));
            }
        }
        (outcome, self.delivery)
    }

    fn line(&mut self, line: &str, now: Duration) {
        let (code, rest) = line.split_at_checked(3).unwrap_or(("", ""));
        let Ok(code) = code.parse::<u16>() else {
            return self.fail();
        };
        self.line_starts.push(rest.trim_start_matches(['-', ' ']).to_ascii_uppercase());
        if rest.starts_with('-') {
            if self.line_starts.len() > MAX_REPLY_LINES {
                self.fail();
            }
            return;
        }
        if self.outcome.is_none() {
            self.decisive = line.chars().filter(|c| !c.is_control()).take(200).collect();
        }
        let lines = core::mem::take(&mut self.line_starts);
        self.replied(code, &lines);
        self.deadline = now.saturating_add(wait_for(self.step));
    }

    fn replied(&mut self, code: u16, lines: &[String]) {
        if code == 421 {
            return self.fail();
        }
        match (self.step, code) {
            (Step::Greeting, 220) => self.say(Step::Ehlo, &format!("EHLO {}", self.name)),
            (Step::Ehlo, 250) => {
                self.offers = Offers::read(lines);
                self.begin_mail();
            }
            (Step::Ehlo, 500..=504) => self.say(Step::Helo, &format!("HELO {}", self.name)),
            (Step::Helo, 250) => self.begin_mail(),
            (Step::Mail, 250) => self.next_recipient(0),
            (Step::Recipient(index), _) => {
                match code {
                    250 | 251 => self.recipients.taken.push(index),
                    500..=599 => self.recipients.refused.push(index),
                    _ => self.recipients.later.push(index),
                }
                self.next_recipient(index + 1);
            }
            (Step::Data, 354) => self.send_message(),
            (Step::End, 250) => {
                let recipients = &self.recipients;
                self.end(Outcome::Delivered {
                    taken: recipients.taken.len(),
                    refused: recipients.refused.len(),
                    later: recipients.later.len(),
                });
            }
            (Step::Mail | Step::Data | Step::End, 500..=599) => self.end(Outcome::Refused),
            _ => self.end(Outcome::Later),
        }
    }

    fn begin_mail(&mut self) {
        let Some(delivery) = &self.delivery else {
            return self.end(Outcome::Probed(self.offers));
        };
        let size = delivery.message.len();
        let fits = self
            .offers
            .max_message
            .is_none_or(|max| u64::try_from(size).is_ok_and(|size| size <= max));
        let keep_from_is_ours = Needs::KEEP_FROM;
        if !fits || !(self.offers.needs | keep_from_is_ours).contains(delivery.needs) {
            return self.end(Outcome::Refused);
        }
        let mut command = "MAIL FROM:<>".to_owned();
        if self.offers.max_message.is_some() {
            command.push_str(&format!(" SIZE={size}"));
        }
        if delivery.needs.contains(Needs::EIGHT_BIT) || delivery.needs.contains(Needs::SMTP_UTF8) {
            command.push_str(" BODY=8BITMIME");
        }
        if delivery.needs.contains(Needs::SMTP_UTF8) {
            command.push_str(" SMTPUTF8");
        }
        self.say(Step::Mail, &command);
    }

    fn next_recipient(&mut self, index: usize) {
        let recipients = self.delivery.as_ref().map(|delivery| &delivery.recipients);
        match recipients.and_then(|recipients| recipients.get(index)) {
            Some(mailbox) => {
                let command = format!("RCPT TO:<{}>", mailbox.to_text());
                self.say(Step::Recipient(index), &command);
            }
            None if !self.recipients.taken.is_empty() => self.say(Step::Data, "DATA"),
            None if self.recipients.later.is_empty() => self.end(Outcome::Refused),
            None => self.end(Outcome::Later),
        }
    }

    fn send_message(&mut self) {
        let message = self.delivery.as_ref().map(|delivery| delivery.message.as_slice());
        self.output.push_back(stuff(message.unwrap_or_default()));
        self.step = Step::End;
    }

    fn say(&mut self, step: Step, line: &str) {
        self.step = step;
        self.output.push_back(Zeroizing::new(format!("{line}\r\n").into_bytes()));
    }

    fn end(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
        if self.step != Step::Quit {
            self.say(Step::Quit, "QUIT");
        }
    }

    /// Ends without a word: the server does not keep to the protocol, or is gone.
    fn fail(&mut self) {
        self.outcome.get_or_insert(Outcome::Later);
        self.step = Step::Quit;
        self.reply = Vec::new();
        self.output.clear();
    }
}

impl Offers {
    fn read(lines: &[String]) -> Self {
        let mut offers = Self::default();
        for line in lines {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("8BITMIME") => offers.needs = offers.needs | Needs::EIGHT_BIT,
                Some("SMTPUTF8") => offers.needs = offers.needs | Needs::SMTP_UTF8,
                Some("SIZE") => {
                    let size = words.next().and_then(|size| size.parse().ok());
                    offers.max_message = size.filter(|size| *size > 0);
                }
                _ => {}
            }
        }
        offers
    }
}

/// Doubles dots at line starts and ends with CRLF `.` CRLF.
fn stuff(message: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut stuffed = Zeroizing::new(Vec::with_capacity(message.len() + message.len() / 32 + 16));
    let mut line_start = true;
    for &octet in message {
        if line_start && octet == b'.' {
            stuffed.push(b'.');
        }
        stuffed.push(octet);
        line_start = octet == b'\n';
    }
    if !line_start {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}

const fn wait_for(step: Step) -> Duration {
    let minutes = match step {
        Step::Greeting | Step::Ehlo | Step::Helo | Step::Mail | Step::Recipient(_) => 5,
        Step::Data => 2,
        Step::End => 10,
        Step::Quit => 0,
    };
    Duration::from_secs(60 * minutes)
}

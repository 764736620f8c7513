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
        /// Recipients refused for good, as by any other server.
        refused: usize,
        /// Recipients refused for this server's own reasons (RFC 3463: 5.7.x).
        refused_here: usize,
        /// Recipients to try again.
        later: usize,
    },
    /// Nothing was taken and nothing ever will be, by any server.
    Refused,
    /// The same for this server's own reasons.
    RefusedHere,
    /// Nothing was taken; it may be tried again.
    Later,
    /// Nothing was taken, and nothing will be before the operator of this side has changed
    /// something: the server speaks of the session, not of the mail.
    Barred(Bar),
}

/// Why a server takes no mail from this side at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// It wants STARTTLS first (RFC 3207, 4).
    WantsTls,
    /// It wants AUTH first (RFC 4954, 6).
    WantsAuth,
    /// It refuses this client or its sender.
    Refuses,
}

impl Bar {
    /// What a reply before any recipient means, by its code and text (RFC 3463 for 5.7.x).
    fn of(code: u16, lines: &[String]) -> Option<Self> {
        let says = |word: &str| lines.iter().any(|line| line.contains(word));
        match code {
            // What the mail is, not what the session is: its size, its parameters.
            552 | 555 => None,
            530 if says("STARTTLS") || says("TLS") => Some(Self::WantsTls),
            530 | 534 | 535 => Some(Self::WantsAuth),
            538 => Some(Self::WantsTls),
            500..=599 => Some(Self::Refuses),
            _ => None,
        }
    }
}

/// How recipients are named to a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transactions {
    /// All in one.
    One,
    /// Each in one of its own: filters that are made for bounces refuse several recipients of mail
    /// with the null sender.
    Each,
}

/// One conversation with the next server.
pub struct Client {
    name: String,
    delivery: Option<Delivery>,
    transactions: Transactions,
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
    /// The next recipient after that.
    Reset(usize),
    Data,
    End,
    Quit,
}

#[derive(Default)]
struct Recipients {
    taken: Vec<usize>,
    refused: Vec<usize>,
    refused_here: Vec<usize>,
    later: Vec<usize>,
    /// The one whose transaction is under way, where each has its own.
    current: usize,
}

impl Client {
    /// A conversation that submits a message to all its recipients at once. `name` is what EHLO
    /// says, the same for every exit.
    #[must_use]
    pub fn submit(name: &str, delivery: Delivery) -> Self {
        Self::begin(name, Some(delivery), Transactions::One)
    }

    /// A conversation that delivers a message to each recipient by itself.
    #[must_use]
    pub fn deliver(name: &str, delivery: Delivery) -> Self {
        Self::begin(name, Some(delivery), Transactions::Each)
    }

    /// A conversation that finds out what a server offers, and whether it takes mail from here at
    /// all: it names the null sender, and goes.
    #[must_use]
    pub fn probe(name: &str) -> Self {
        Self::begin(name, None, Transactions::One)
    }

    fn begin(name: &str, delivery: Option<Delivery>, transactions: Transactions) -> Self {
        Self {
            name: name.to_owned(),
            delivery,
            transactions,
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
                let Recipients { taken, refused, refused_here, .. } = &self.recipients;
                [taken, refused, refused_here].iter().any(|done| done.contains(index))
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

    /// A reply means what its first digit says, whatever else it may mean (RFC 5321, 4.3.2).
    fn replied(&mut self, code: u16, lines: &[String]) {
        if code == 421 {
            return self.fail();
        }
        match (self.step, code) {
            (Step::Greeting, 200..=299) => self.say(Step::Ehlo, &format!("EHLO {}", self.name)),
            (Step::Ehlo, 200..=299) => {
                self.offers = Offers::read(lines);
                self.begin_mail();
            }
            (Step::Ehlo, 500..=504) => self.say(Step::Helo, &format!("HELO {}", self.name)),
            (Step::Helo, 200..=299) => self.begin_mail(),
            (Step::Mail, 200..=299) if self.delivery.is_none() => {
                self.end(Outcome::Probed(self.offers));
            }
            (Step::Mail, 200..=299) => self.next_recipient(self.recipients.current),
            (Step::Recipient(_), 530 | 534 | 535 | 538) => {
                let bar = Bar::of(code, lines).unwrap_or(Bar::Refuses);
                self.conclude(Outcome::Barred(bar));
            }
            (Step::Recipient(index), _) => self.recipient_replied(index, code, lines),
            (Step::Reset(next), 200..=299) => {
                self.recipients.current = next;
                self.begin_mail();
            }
            (Step::Data, 300..=399) => self.send_message(),
            (Step::End, _) => self.message_replied(code, lines),
            (Step::Greeting | Step::Ehlo | Step::Helo | Step::Mail, 500..=599) => {
                match Bar::of(code, lines) {
                    Some(bar) => self.conclude(Outcome::Barred(bar)),
                    None => self.conclude(Outcome::Refused),
                }
            }
            (Step::Data, 500..=599) if is_own_policy(lines) => self.conclude(Outcome::RefusedHere),
            (Step::Data, 500..=599) => self.conclude(Outcome::Refused),
            _ => self.conclude(Outcome::Later),
        }
    }

    fn recipient_replied(&mut self, index: usize, code: u16, lines: &[String]) {
        let is_taken = (200..=299).contains(&code);
        match (code, self.transactions) {
            (200..=299, Transactions::One) => self.recipients.taken.push(index),
            (200..=299, Transactions::Each) => return self.say(Step::Data, "DATA"),
            (500..=599, _) if is_own_policy(lines) => self.recipients.refused_here.push(index),
            (500..=599, _) => self.recipients.refused.push(index),
            _ => self.recipients.later.push(index),
        }
        match self.transactions {
            Transactions::One => self.next_recipient(index + 1),
            Transactions::Each if !is_taken && index + 1 < self.count() => {
                self.say(Step::Reset(index + 1), "RSET");
            }
            Transactions::Each => self.conclude(Outcome::Later),
        }
    }

    fn message_replied(&mut self, code: u16, lines: &[String]) {
        let index = self.recipients.current;
        if self.transactions == Transactions::One {
            return match code {
                200..=299 => self.end(self.delivered()),
                500..=599 if is_own_policy(lines) => self.end(Outcome::RefusedHere),
                500..=599 => self.end(Outcome::Refused),
                _ => self.end(Outcome::Later),
            };
        }
        match code {
            200..=299 => self.recipients.taken.push(index),
            500..=599 if is_own_policy(lines) => self.recipients.refused_here.push(index),
            500..=599 => self.recipients.refused.push(index),
            _ => self.recipients.later.push(index),
        }
        if index + 1 < self.count() {
            self.recipients.current = index + 1;
            self.begin_mail();
        } else {
            self.conclude(Outcome::Later);
        }
    }

    /// Ends a delivery of which `rest` came, unless something came of it before.
    fn conclude(&mut self, rest: Outcome) {
        let outcome = self.settled().unwrap_or(rest);
        self.end(outcome);
    }

    /// What came of the recipients so far, where each has a transaction of its own.
    fn settled(&self) -> Option<Outcome> {
        let Recipients { taken, refused, refused_here, .. } = &self.recipients;
        let none = taken.is_empty() && refused.is_empty() && refused_here.is_empty();
        match self.transactions {
            Transactions::One => None,
            Transactions::Each if none => None,
            Transactions::Each if refused.len() == self.count() => Some(Outcome::Refused),
            Transactions::Each if refused_here.len() == self.count() => Some(Outcome::RefusedHere),
            Transactions::Each => Some(self.delivered()),
        }
    }

    /// Whatever is neither taken nor refused may be tried again.
    fn delivered(&self) -> Outcome {
        let Recipients { taken, refused, refused_here, .. } = &self.recipients;
        let (taken, refused, refused_here) = (taken.len(), refused.len(), refused_here.len());
        let later = self.count().saturating_sub(taken + refused + refused_here);
        Outcome::Delivered { taken, refused, refused_here, later }
    }

    fn count(&self) -> usize {
        self.delivery.as_ref().map_or(0, |delivery| delivery.recipients.len())
    }

    fn begin_mail(&mut self) {
        let Some(delivery) = &self.delivery else {
            return self.say(Step::Mail, "MAIL FROM:<>");
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
            None if self.recipients.refused_here.len() == self.count() => {
                self.end(Outcome::RefusedHere);
            }
            None if self.recipients.later.is_empty() && self.recipients.refused_here.is_empty() => {
                self.end(Outcome::Refused);
            }
            // What was refused is refused again, and told then.
            None if self.recipients.later.is_empty() => self.end(self.delivered()),
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
        let outcome = self.settled().unwrap_or(Outcome::Later);
        self.outcome.get_or_insert(outcome);
        self.step = Step::Quit;
        self.reply = Vec::new();
        self.output.clear();
    }
}

/// Whether a refusal is one of this server's own policy, by its enhanced code: another may take the mail.
fn is_own_policy(lines: &[String]) -> bool {
    lines.iter().any(|line| line.starts_with("5.7."))
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
        Step::Greeting
        | Step::Ehlo
        | Step::Helo
        | Step::Mail
        | Step::Recipient(_)
        | Step::Reset(_) => 5,
        Step::Data => 2,
        Step::End => 10,
        Step::Quit => 0,
    };
    Duration::from_secs(60 * minutes)
}

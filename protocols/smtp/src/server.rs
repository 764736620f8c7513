//! The server's side of one conversation.

use core::time::Duration;
use std::collections::VecDeque;

use mail::{MAX_RECIPIENTS, Mailbox, MessageError, NotCarried, Submission};
use zeroize::Zeroizing;

use crate::chunks::Chunks;
use crate::command::{self, BadCommand, Command, Hello, MAX_MAIL_LINE, MailParameters};
use crate::data::{Data, Fault, Progress};

/// What a message that was taken counts for, in octets, beside its own.
pub const PER_MESSAGE: u64 = 20_000;

/// Bounds of a session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Octets of a message, at most; announced with SIZE.
    pub max_message: usize,
    /// How long to wait for a command, or for more of a message.
    pub idle: Duration,
    /// How long one message may take to arrive.
    pub message: Duration,
    /// Commands refused before the session is ended.
    pub max_errors: u32,
    /// Messages in one session.
    pub max_messages: u32,
}

impl Limits {
    /// What RFC 5321 (4.5.3.2) gives a client: five minutes for a command.
    #[must_use]
    pub const fn new(max_message: usize) -> Self {
        Self {
            max_message,
            idle: Duration::from_secs(300),
            message: Duration::from_secs(1800),
            max_errors: 20,
            max_messages: 1000,
        }
    }
}

/// What the session wants done.
#[derive(Debug)]
pub enum SessionEvent {
    /// Send these octets.
    Write(Vec<u8>),
    /// Say whether there is a way to this recipient; [`Session::handle_answer`].
    Recipient(RecipientAsk),
    /// Take this message; [`Session::handle_answer`].
    Message(Submission),
    /// Say what has become of the message that was given this id; [`Session::handle_answer`].
    Status([u8; 16]),
    /// End the connection as soon as everything has been written.
    Close,
}

/// A recipient whose acceptance is asked for.
pub struct RecipientAsk {
    /// The recipient's address.
    pub mailbox: Mailbox,
    /// Octets that the client announced.
    pub size: Option<u64>,
}

impl core::fmt::Debug for RecipientAsk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RecipientAsk(..)")
    }
}

/// The answer to [`SessionEvent::Recipient`], [`SessionEvent::Message`] or [`SessionEvent::Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The recipient is taken.
    RecipientTaken,
    /// The message is taken, under this name of 128 random bits.
    Taken([u8; 16]),
    /// A large message is taken, and will have come through in so many minutes.
    TakenFor([u8; 16], u32),
    /// There are too few nodes to route through at present.
    TooFewNodes,
    /// This node takes no mail any more: it is about to leave the network.
    Leaving,
    /// No exit delivers such mail to that domain at present; one that is known does otherwise.
    NoExitNow,
    /// No exit that is known delivers such mail to that domain.
    NoExit,
    /// It is larger than any mail that is carried.
    TooBig,
    /// It cannot be carried as it is.
    Unfit(NotCarried),
    /// What has become of a message.
    Became(MessageReport),
    /// No room at present.
    Full,
    /// No room for so much at present; a message of so many octets would go.
    FullFor(u32),
}

/// What has become of a message: for how many recipients it is what. Nothing of it tells one recipient from
/// another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageReport {
    /// It waits for its time.
    pub queued: u16,
    /// It is on its way.
    pub sent: u16,
    /// An exit holds it, and tries.
    pub held: u16,
    /// The next server has taken it.
    pub delivered: u16,
    /// The next server refused it.
    pub refused: u16,
    /// No exit delivers it, by the policy of its own server.
    pub refused_here: u16,
    /// No next server took it in time.
    pub gave_up: u16,
    /// An exit held it, and nothing more will be heard of it.
    pub unknown: u16,
    /// Nothing was heard of it, and nothing will be.
    pub lost: u16,
}

impl MessageReport {
    /// The reply: the states with their numbers of recipients, a failure with its enhanced code (RFC 3463).
    fn reply(&self) -> String {
        let all = [
            (self.queued, "queued"),
            (self.sent, "sent"),
            (self.held, "held"),
            (self.delivered, "delivered"),
            (self.refused, "failed 5.0.0 refused by the next server"),
            (self.refused_here, "failed 5.7.1 refused by every exit"),
            (self.gave_up, "failed 4.4.7 given up"),
            (self.unknown, "unknown"),
            (self.lost, "lost"),
        ];
        let some = all.into_iter().filter(|(recipients, _)| *recipients > 0);
        let some: Vec<_> = some.map(|(recipients, what)| format!("{recipients} {what}")).collect();
        if some.is_empty() {
            return "550 5.1.6 no such message is known here".to_owned();
        }
        format!("250 2.0.0 {}", some.join(", "))
    }
}

/// One conversation.
pub struct Session {
    limits: Limits,
    state: State,
    /// Octets received and not yet looked at, or the start of a line.
    input: Zeroizing<Vec<u8>>,
    /// A line over its bound is being dropped up to its end.
    overlong: bool,
    events: VecDeque<SessionEvent>,
    errors: u32,
    messages: u32,
    deadline: Duration,
    useful: u64,
    /// Fields of the message that is asked about that stay behind.
    left: Vec<&'static str>,
}

/// The first octet of a TLS handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

enum State {
    /// No EHLO or HELO yet.
    Greeted,
    Ready,
    Mail(Transaction),
    /// A recipient's answer is awaited.
    AskedRecipient(Transaction, Mailbox),
    Data {
        recipients: Vec<Mailbox>,
        data: Data,
        until: Duration,
    },
    /// A message comes in chunks: one of them, or the command for the next.
    Chunks {
        recipients: Vec<Mailbox>,
        chunks: Chunks,
        until: Duration,
    },
    /// Octets of a chunk that nobody wants are dropped: a reply comes at their end, and then that state again.
    Swallow {
        left: u64,
        reply: &'static str,
        then: Box<State>,
    },
    /// A message's answer is awaited.
    AskedMessage,
    /// What has become of a message is awaited; whether there was an EHLO.
    AskedStatus(bool),
    Closed,
}

struct Transaction {
    parameters: MailParameters,
    recipients: Vec<Mailbox>,
}

impl Session {
    /// Begins a conversation at time zero.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut session = Self {
            limits,
            state: State::Greeted,
            input: Zeroizing::default(),
            overlong: false,
            events: VecDeque::new(),
            errors: 0,
            messages: 0,
            deadline: limits.idle,
            useful: 0,
            left: Vec::new(),
        };
        session.reply("220 fog ESMTP");
        session
    }

    /// A conversation with a client for which there is no place: it is told so instead of being
    /// greeted (RFC 5321, 3.1).
    #[must_use]
    pub fn refused(limits: Limits) -> Self {
        let mut session = Self::new(limits);
        session.events.clear();
        session.close("421 4.3.2 too many sessions; try again later");
        session
    }

    /// Whether more input can be given. While not, an answer is awaited or events are to be
    /// fetched: a client that does not read its replies is not read from.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.events.is_empty()
            && match self.state {
                State::AskedRecipient(..)
                | State::AskedMessage
                | State::AskedStatus(_)
                | State::Closed => false,
                State::Greeted
                | State::Ready
                | State::Mail(_)
                | State::Data { .. }
                | State::Chunks { .. }
                | State::Swallow { .. } => true,
            }
    }

    /// Takes octets as they come, at `now` since the session began. Only a whole command, or a part
    /// of a message, postpones the deadline: single octets of a command line do not.
    pub fn handle_input(&mut self, octets: &[u8], now: Duration) {
        let coming = match &self.state {
            State::Data { .. } => octets.len() as u64,
            State::Chunks { chunks, .. } => chunks.left().min(octets.len() as u64),
            State::Greeted
            | State::Ready
            | State::Mail(_)
            | State::AskedRecipient(..)
            | State::Swallow { .. }
            | State::AskedMessage
            | State::AskedStatus(_)
            | State::Closed => 0,
        };
        if coming > 0 {
            self.progress(now);
            self.useful = self.useful.saturating_add(coming);
        }
        // A buffer that grows leaves copies of what it held.
        let before = core::mem::take(&mut self.input);
        let mut input = Zeroizing::new(Vec::with_capacity(before.len() + octets.len()));
        input.extend_from_slice(&before);
        input.extend_from_slice(octets);
        self.input = input;
        self.advance(now);
    }

    /// Takes the answer that the last event asked for.
    pub fn handle_answer(&mut self, answer: Verdict, now: Duration) {
        self.progress(now);
        match core::mem::replace(&mut self.state, State::Ready) {
            State::AskedRecipient(mut transaction, mailbox) => {
                match answer {
                    Verdict::RecipientTaken => {
                        transaction.recipients.push(mailbox);
                        self.reply("250 2.1.5 ok");
                    }
                    refused @ (Verdict::Taken(_)
                    | Verdict::TakenFor(..)
                    | Verdict::FullFor(_)
                    | Verdict::TooFewNodes
                    | Verdict::Leaving
                    | Verdict::NoExitNow
                    | Verdict::NoExit
                    | Verdict::TooBig
                    | Verdict::Unfit(_)
                    | Verdict::Became(_)
                    | Verdict::Full) => self.refuse(refused),
                }
                self.state = State::Mail(transaction);
            }
            State::AskedMessage => match answer {
                Verdict::Taken(name) | Verdict::TakenFor(name, _) => {
                    self.useful = self.useful.saturating_add(PER_MESSAGE);
                    let name = u128::from_be_bytes(name);
                    let through = if let Verdict::TakenFor(_, minutes) = answer {
                        format!("; large, so through in about {minutes} min")
                    } else {
                        String::new()
                    };
                    let left = match core::mem::take(&mut self.left) {
                        left if left.is_empty() => String::new(),
                        left => format!("; left behind: {}", left.join(", ")),
                    };
                    self.reply(&format!("250 2.0.0 taken as {name:032x}{through}{left}"));
                }
                refused @ (Verdict::RecipientTaken
                | Verdict::TooFewNodes
                | Verdict::Leaving
                | Verdict::NoExitNow
                | Verdict::NoExit
                | Verdict::TooBig
                | Verdict::Unfit(_)
                | Verdict::Became(_)
                | Verdict::Full
                | Verdict::FullFor(_)) => self.refuse(refused),
            },
            State::AskedStatus(is_ready) => {
                self.state = if is_ready { State::Ready } else { State::Greeted };
                match answer {
                    Verdict::Became(report) => {
                        let reply = report.reply();
                        // Guesses count as mistakes.
                        if reply.starts_with('5') { self.error(&reply) } else { self.reply(&reply) }
                    }
                    Verdict::RecipientTaken
                    | Verdict::Taken(_)
                    | Verdict::TakenFor(..)
                    | Verdict::TooFewNodes
                    | Verdict::Leaving
                    | Verdict::NoExitNow
                    | Verdict::NoExit
                    | Verdict::TooBig
                    | Verdict::Unfit(_)
                    | Verdict::Full
                    | Verdict::FullFor(_) => self.reply("451 4.3.0 try again later"),
                }
            }
            // No answer was asked for: a mistake of the caller, without consequence.
            other @ (State::Greeted
            | State::Ready
            | State::Mail(_)
            | State::Data { .. }
            | State::Chunks { .. }
            | State::Swallow { .. }
            | State::Closed) => self.state = other,
        }
        self.advance(now);
    }

    /// When [`Session::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        match &self.state {
            State::Data { until, .. } | State::Chunks { until, .. } => self.deadline.min(*until),
            State::Swallow { .. }
            | State::Greeted
            | State::Ready
            | State::Mail(_)
            | State::AskedRecipient(..)
            | State::AskedMessage
            | State::AskedStatus(_)
            | State::Closed => self.deadline,
        }
    }

    /// Ends the session if it has taken too long.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now >= self.poll_timeout() {
            self.close("421 4.4.2 too slow");
        }
    }

    /// What this session has brought so far: an octet of a message counts as one, and a message
    /// that was taken as [`PER_MESSAGE`] more. Commands count for nothing, or repeating them would
    /// keep a place on a crowded server.
    #[must_use]
    pub fn useful(&self) -> u64 {
        self.useful
    }

    /// Octets of a message that the session holds.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.state {
            State::Data { data, .. } => data.len(),
            State::Chunks { chunks, .. } => chunks.len(),
            State::Swallow { .. }
            | State::Greeted
            | State::Ready
            | State::Mail(_)
            | State::AskedRecipient(..)
            | State::AskedMessage
            | State::AskedStatus(_)
            | State::Closed => 0,
        }
    }

    /// Names fields of the message that is asked about which stay behind if it is taken: the reply says so.
    pub fn note_left(&mut self, fields: &[&'static str]) {
        self.left = fields.to_vec();
    }

    /// Keeps nothing of the message that is coming, because the server has no room for it: its end
    /// is answered with 452.
    pub fn handle_no_room(&mut self) {
        if let State::Data { data, .. } = &mut self.state {
            data.give_up();
        } else if let State::Chunks { chunks, .. } = &mut self.state {
            chunks.give_up();
        }
    }

    /// Ends the session because others wait for its place.
    pub fn handle_crowd(&mut self) {
        self.close("421 4.3.2 too slow for a crowded server");
    }

    /// Ends the session because the server is overloaded or stops.
    pub fn handle_shutdown(&mut self) {
        self.close("421 4.3.2 not now");
    }

    /// The next thing to do.
    pub fn next_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    fn progress(&mut self, now: Duration) {
        self.deadline = now.saturating_add(self.limits.idle);
    }

    fn advance(&mut self, now: Duration) {
        let input = core::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        loop {
            rest = match &mut self.state {
                State::AskedRecipient(..) | State::AskedMessage | State::AskedStatus(_) => break,
                State::Closed => return,
                State::Data { data, .. } => match data.take(rest) {
                    Progress::More => return,
                    Progress::End(length) => {
                        self.end_of_data();
                        rest.get(length..).unwrap_or_default()
                    }
                },
                State::Chunks { chunks, .. } if chunks.left() > 0 => {
                    let taken = chunks.take(rest);
                    if chunks.left() > 0 {
                        return;
                    }
                    self.end_of_chunk();
                    rest.get(taken..).unwrap_or_default()
                }
                State::Swallow { left, .. } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left = left.saturating_sub(taken as u64);
                    if *left > 0 {
                        return;
                    }
                    self.end_of_swallowed();
                    rest.get(taken..).unwrap_or_default()
                }
                State::Greeted | State::Ready | State::Mail(_) | State::Chunks { .. } => {
                    match self.line(rest, now) {
                        Some(after) => after,
                        None => return,
                    }
                }
            };
        }
        self.input = Zeroizing::new(rest.to_vec());
    }

    /// Acts on the next line and returns what follows it; keeps an unfinished line.
    fn line<'a>(&mut self, rest: &'a [u8], now: Duration) -> Option<&'a [u8]> {
        // What can never become a command is answered at once.
        if rest.starts_with(&[TLS_HANDSHAKE]) {
            self.bad(BadCommand::Tls);
            return None;
        }
        let Some(end) = rest.iter().position(|octet| *octet == b'\n') else {
            self.keep_start(rest);
            return None;
        };
        let (line, after) = rest.split_at_checked(end)?;
        let after = after.get(1..)?;
        let Some(line) = line.strip_suffix(b"\r") else {
            self.bad(BadCommand::BareLineEnd);
            return None;
        };
        self.progress(now);
        if core::mem::take(&mut self.overlong) || line.len() > MAX_MAIL_LINE {
            self.bad(BadCommand::TooLong);
        } else {
            match command::parse(line) {
                Ok(command) => self.command(command, now),
                Err(bad) => self.bad(bad),
            }
        }
        Some(after)
    }

    /// Keeps as much of an unfinished line as a command may have; of a longer one only a CR at its
    /// end, which may be half of what ends it.
    fn keep_start(&mut self, start: &[u8]) {
        if start.len() <= MAX_MAIL_LINE && !self.overlong {
            self.input = Zeroizing::new(start.to_vec());
        } else {
            self.overlong = true;
            let half = start.last().filter(|octet| **octet == b'\r').into_iter().copied();
            self.input = Zeroizing::new(half.collect());
        }
    }

    fn command(&mut self, command: Command, now: Duration) {
        match command {
            Command::Noop => self.reply("250 2.0.0 ok"),
            Command::Help => {
                self.reply("214 2.0.0 EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY XFOGSTATUS HELP QUIT")
            }
            Command::Verify => self.reply("252 2.5.0 not verified; try to send"),
            Command::Status(id) => self.status(id),
            Command::Quit => self.close("221 2.0.0 bye"),
            Command::Hello(hello) => {
                self.state = State::Ready;
                self.hello(hello);
            }
            Command::Reset => {
                if !matches!(self.state, State::Greeted) {
                    self.state = State::Ready;
                }
                self.reply("250 2.0.0 ok");
            }
            Command::Mail(parameters) => self.mail(parameters),
            Command::Recipient(mailbox) => self.recipient(mailbox),
            Command::Data => self.data(now),
            Command::Chunk(octets, is_last) => self.chunk(octets, is_last, now),
        }
    }

    /// A question about a message, outside of a transaction: whoever has its id has sent it.
    fn status(&mut self, id: [u8; 16]) {
        match self.state {
            State::Greeted | State::Ready => {
                self.state = State::AskedStatus(matches!(self.state, State::Ready));
                self.events.push_back(SessionEvent::Status(id));
            }
            State::Mail(_)
            | State::AskedRecipient(..)
            | State::Data { .. }
            | State::Chunks { .. }
            | State::Swallow { .. }
            | State::AskedMessage
            | State::AskedStatus(_)
            | State::Closed => self.error("503 5.5.1 not within a transaction"),
        }
    }

    fn hello(&mut self, hello: Hello) {
        match hello {
            Hello::Plain => self.reply("250 fog"),
            Hello::Extended => {
                let size = self.limits.max_message;
                self.reply(&format!(
                    "250-fog\r\n250-SIZE {size}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-PIPELINING\r\n250-CHUNKING\r\n\
                     250-ENHANCEDSTATUSCODES\r\n250-XFOGSTATUS\r\n250 HELP"
                ));
            }
        }
    }

    fn mail(&mut self, parameters: MailParameters) {
        let max = u64::try_from(self.limits.max_message).unwrap_or(u64::MAX);
        if !matches!(self.state, State::Ready) {
            self.error("503 5.5.1 EHLO first, and one MAIL at a time");
        } else if parameters.size.is_some_and(|size| size > max) {
            self.error("552 5.3.4 too big");
        } else if self.messages >= self.limits.max_messages {
            self.close("421 4.7.0 enough for one session");
        } else {
            self.state = State::Mail(Transaction { parameters, recipients: Vec::new() });
            self.reply("250 2.1.0 ok");
        }
    }

    fn recipient(&mut self, mailbox: Mailbox) {
        match core::mem::replace(&mut self.state, State::Ready) {
            State::Mail(transaction) => {
                if transaction.recipients.len() >= MAX_RECIPIENTS {
                    self.state = State::Mail(transaction);
                    self.reply("452 4.5.3 enough recipients for one message");
                } else if mailbox.is_international() && !transaction.parameters.utf8 {
                    self.state = State::Mail(transaction);
                    self.error("553 5.6.7 such an address needs SMTPUTF8");
                } else {
                    let size = transaction.parameters.size;
                    let ask = RecipientAsk { mailbox: mailbox.clone(), size };
                    self.events.push_back(SessionEvent::Recipient(ask));
                    self.state = State::AskedRecipient(transaction, mailbox);
                }
            }
            other @ (State::Greeted
            | State::Ready
            | State::AskedRecipient(..)
            | State::Data { .. }
            | State::Chunks { .. }
            | State::Swallow { .. }
            | State::AskedMessage
            | State::AskedStatus(_)
            | State::Closed) => {
                self.state = other;
                self.error("503 5.5.1 MAIL first");
            }
        }
    }

    fn data(&mut self, now: Duration) {
        match core::mem::replace(&mut self.state, State::Ready) {
            State::Mail(transaction) if !transaction.recipients.is_empty() => {
                self.state = State::Data {
                    recipients: transaction.recipients,
                    data: Data::new(self.limits.max_message),
                    until: now.saturating_add(self.limits.message),
                };
                self.reply("354 end with a line of one dot");
            }
            State::Mail(transaction) => {
                self.state = State::Mail(transaction);
                self.error("554 5.5.1 no valid recipients");
            }
            other @ (State::Greeted
            | State::Ready
            | State::AskedRecipient(..)
            | State::Data { .. }
            | State::Chunks { .. }
            | State::Swallow { .. }
            | State::AskedMessage
            | State::AskedStatus(_)
            | State::Closed) => {
                self.state = other;
                self.error("503 5.5.1 MAIL and RCPT first");
            }
        }
    }

    /// A chunk of a message follows (RFC 3030). What is announced comes, whatever is answered: it is never taken
    /// for commands.
    fn chunk(&mut self, octets: u64, is_last: bool, now: Duration) {
        let swallow = |reply, then| State::Swallow { left: octets, reply, then: Box::new(then) };
        self.state = match core::mem::replace(&mut self.state, State::Ready) {
            State::Mail(transaction) if transaction.recipients.is_empty() => {
                swallow("554 5.5.1 no valid recipients", State::Mail(transaction))
            }
            State::Mail(transaction) => {
                let mut chunks = Chunks::new(self.limits.max_message);
                chunks.begin(octets, is_last);
                let until = now.saturating_add(self.limits.message);
                State::Chunks { recipients: transaction.recipients, chunks, until }
            }
            State::Chunks { recipients, mut chunks, until } => {
                chunks.begin(octets, is_last);
                State::Chunks { recipients, chunks, until }
            }
            other @ (State::Greeted
            | State::Ready
            | State::AskedRecipient(..)
            | State::Data { .. }
            | State::Swallow { .. }
            | State::AskedMessage
            | State::AskedStatus(_)
            | State::Closed) => swallow("503 5.5.1 MAIL and RCPT first", other),
        };
        if octets == 0 {
            self.end_of_chunk();
            self.end_of_swallowed();
        }
    }

    fn end_of_chunk(&mut self) {
        match core::mem::replace(&mut self.state, State::Ready) {
            State::Chunks { recipients, chunks, .. } if chunks.is_last() => {
                self.end_of_message(recipients, chunks.finish());
            }
            State::Chunks { recipients, chunks, until } => match chunks.fault() {
                // The transaction is over: what follows of it is swallowed.
                Some(fault) => self.end_of_message(recipients, Err(fault)),
                None => {
                    self.reply(&format!("250 2.0.0 {} octets so far", chunks.len()));
                    self.state = State::Chunks { recipients, chunks, until };
                }
            },
            other @ (State::Greeted
            | State::Ready
            | State::Mail(_)
            | State::AskedRecipient(..)
            | State::Data { .. }
            | State::Swallow { .. }
            | State::AskedMessage
            | State::AskedStatus(_)
            | State::Closed) => self.state = other,
        }
    }

    fn end_of_swallowed(&mut self) {
        if let State::Swallow { .. } = self.state
            && let State::Swallow { reply, then, .. } =
                core::mem::replace(&mut self.state, State::Ready)
        {
            self.state = *then;
            self.error(reply);
        }
    }

    fn end_of_data(&mut self) {
        let State::Data { recipients, data, .. } =
            core::mem::replace(&mut self.state, State::Ready)
        else {
            return;
        };
        self.end_of_message(recipients, data.finish());
    }

    fn end_of_message(&mut self, recipients: Vec<Mailbox>, message: Result<Vec<u8>, Fault>) {
        self.messages = self.messages.saturating_add(1);
        self.left.clear();
        match message {
            Ok(message) => {
                self.state = State::AskedMessage;
                self.events.push_back(SessionEvent::Message(Submission { recipients, message }));
            }
            Err(Fault::TooBig) => self.error("552 5.3.4 too big"),
            Err(Fault::NoRoom) => self.refuse(Verdict::Full),
            Err(Fault::BareLineEnd(line)) => {
                self.refuse(Verdict::Unfit(NotCarried::at_line(MessageError::BareLineEnd, line)));
            }
            Err(Fault::Nul(line)) => {
                self.refuse(Verdict::Unfit(NotCarried::at_line(MessageError::Nul, line)));
            }
        }
    }

    fn refuse(&mut self, answer: Verdict) {
        match answer {
            // An answer to another question has no effect.
            Verdict::RecipientTaken
            | Verdict::Taken(_)
            | Verdict::TakenFor(..)
            | Verdict::Became(_)
            | Verdict::TooFewNodes => {
                self.reply("451 4.4.0 too few nodes to route through; try again later");
            }
            Verdict::Leaving => {
                self.reply("451 4.3.2 this node is about to leave; submit to another");
            }
            Verdict::NoExitNow => {
                self.reply(
                    "451 4.4.0 no exit delivers such mail there at present; try again later",
                );
            }
            Verdict::NoExit => self.error("550 5.7.1 no exit delivers such mail there"),
            Verdict::TooBig => self.error("552 5.3.4 too big"),
            Verdict::Full => self.reply("452 4.3.1 no room; try again later"),
            Verdict::FullFor(octets) => self.reply(&format!(
                "452 4.3.1 no room for so much now; {octets} octets would go, or try again later"
            )),
            Verdict::Unfit(why) => self.error(&format!("550 5.6.0 {why}")),
        }
    }

    fn bad(&mut self, bad: BadCommand) {
        match bad {
            BadCommand::TooLong => self.error("500 5.5.2 line too long"),
            BadCommand::Octets => self.error("500 5.5.2 not a command line"),
            BadCommand::Unknown => self.error("500 5.5.1 unknown command"),
            BadCommand::NotOffered => self.error("502 5.5.1 not offered"),
            BadCommand::Auth => self.error(
                "502 5.5.1 no authentication is needed: send without it (s-nail: smtp-auth=none)",
            ),
            BadCommand::StartTls => {
                self.error("502 5.5.1 no TLS here: send without it (mutt: ssl_force_tls=no)");
            }
            BadCommand::Http => self.close("554 5.5.1 this is not HTTP"),
            BadCommand::Arguments => self.error("501 5.5.4 bad arguments"),
            BadCommand::Parameter => self.error("555 5.5.4 unknown parameter"),
            BadCommand::Address => self.error("553 5.1.3 bad address"),
            BadCommand::Local => {
                self.error("550 5.1.2 that name means another machine at each exit");
            }
            BadCommand::Chunk => self.close("501 5.5.4 BDAT takes a number of octets, and LAST"),
            BadCommand::Tls => self.close("554 5.5.1 TLS is not spoken here; connect without it"),
            BadCommand::BareLineEnd => self.close("500 5.5.2 lines end with CR and LF"),
        }
    }

    /// A refusal that counts: a client that only makes mistakes is sent away.
    fn error(&mut self, line: &str) {
        self.errors = self.errors.saturating_add(1);
        if self.errors > self.limits.max_errors {
            self.close("421 4.7.0 too many errors");
        } else {
            self.reply(line);
        }
    }

    fn reply(&mut self, text: &str) {
        self.events.push_back(SessionEvent::Write(format!("{text}\r\n").into_bytes()));
    }

    fn close(&mut self, line: &str) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.input = Zeroizing::default();
            self.reply(line);
            self.events.push_back(SessionEvent::Close);
        }
    }
}

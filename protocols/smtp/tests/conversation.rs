//! What a client sees of the server, what a server sees of the client, and both together.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::time::Duration;

use fog_smtp::{Bar, Client, Limits, MessageReport, Outcome, Port, Session, SessionEvent, Verdict};
use mail::{
    Delivery, Fragment, Mailbox, MessageError, Needs, NotCarried, Submission, rebuild, scrub,
};
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;

/// A server with answers of its own.
struct Server {
    session: Session,
    recipient: Verdict,
    message: Verdict,
    written: String,
    taken: Vec<(Vec<String>, Vec<u8>)>,
    closed: bool,
}

impl Server {
    fn new() -> Self {
        let limits = Limits { max_message: 5000, ..Limits::new(0) };
        let mut server = Self {
            session: Session::new(limits),
            recipient: Verdict::RecipientTaken,
            message: Verdict::Taken([0xab; 16]),
            written: String::new(),
            taken: Vec::new(),
            closed: false,
        };
        server.drain();
        server.written.clear();
        server
    }

    fn drain(&mut self) {
        while let Some(event) = self.session.next_event() {
            match event {
                SessionEvent::Write(octets) => {
                    self.written += std::str::from_utf8(&octets).unwrap()
                }
                SessionEvent::Recipient(_) => self.session.handle_answer(self.recipient, NOW),
                SessionEvent::Message(submission) => {
                    let to = submission.recipients.iter().map(Mailbox::to_text).collect();
                    self.taken.push((to, submission.message.clone()));
                    self.session.handle_answer(self.message, NOW);
                }
                SessionEvent::Status(id) => {
                    let known =
                        MessageReport { delivered: 2, refused_here: 1, ..Default::default() };
                    let report = if id == [0xab; 16] { known } else { MessageReport::default() };
                    self.session.handle_answer(Verdict::Became(report), NOW);
                }
                SessionEvent::Close => self.closed = true,
            }
        }
    }

    /// Sends octets and returns the codes of the replies.
    fn say(&mut self, octets: impl AsRef<[u8]>) -> Vec<u16> {
        assert!(self.session.wants_input() || self.closed);
        self.session.handle_input(octets.as_ref(), NOW);
        self.drain();
        let written = std::mem::take(&mut self.written);
        assert!(written.is_empty() || written.ends_with("\r\n"));
        let last = written.lines().filter(|line| line.as_bytes()[3] == b' ');
        last.map(|line| line[..3].parse().unwrap()).collect()
    }
}

#[test]
fn a_pipelined_conversation_is_answered_in_order() {
    let mut server = Server::new();
    let codes = server.say(
        "EHLO me\r\nMAIL FROM:<x@y.example> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n\
         Subject: x\r\n\r\n..dot\r\n.\r\nMAIL FROM:<>\r\nRSET\r\nNOOP\r\nVRFY x\r\nHELP\r\nQUIT\r\n",
    );
    assert_eq!(codes, [250, 250, 250, 250, 354, 250, 250, 250, 250, 252, 214, 221]);
    assert_eq!(
        server.taken,
        [(
            vec!["a@b.example".into(), "c@d.example".into()],
            b"Subject: x\r\n\r\n.dot\r\n".to_vec()
        )]
    );
    assert!(server.closed);
}

#[test]
fn who_has_the_name_of_a_message_learns_what_has_become_of_it() {
    let mut server = Server::new();
    let ask = format!("XFOGSTATUS {}\r\n", "AB".repeat(16));
    server.session.handle_input(ask.as_bytes(), NOW);
    server.drain();
    let said = std::mem::take(&mut server.written);
    assert_eq!(said, "250 2.0.0 2 delivered, 1 failed 5.7.1 refused by every exit\r\n");
    assert_eq!(server.say("MAIL FROM:<>\r\n"), [503], "it is no EHLO");
    let unknown = format!("xfogstatus {}\r\n", "ac".repeat(16));
    assert_eq!(
        server.say(format!("EHLO x\r\n{unknown}MAIL FROM:<>\r\n{ask}")),
        [250, 550, 250, 503]
    );
    let long = format!("XFOGSTATUS {}\r\n", "ab".repeat(17));
    for bad in ["XFOGSTATUS\r\n", "XFOGSTATUS +b\r\n", &long] {
        assert_eq!(server.say(bad), [501], "{bad}");
    }
    // Guesses are mistakes, of which a client makes twenty.
    let guesses = server.say(unknown.repeat(20));
    assert_eq!(guesses.last(), Some(&421));
    assert!(server.closed);
}

#[test]
fn commands_out_of_order_are_refused_and_change_nothing() {
    let mut server = Server::new();
    assert_eq!(
        server.say("MAIL FROM:<x@y.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nRSET\r\n"),
        [503, 503, 503, 250]
    );
    assert_eq!(server.say("MAIL FROM:<x@y.example>\r\n"), [503], "RSET is no EHLO");
    assert_eq!(
        server.say("HELO x\r\nMAIL FROM:<x@y.example>\r\nMAIL FROM:<x@y.example>\r\nDATA\r\n"),
        [250, 250, 503, 554]
    );
    assert_eq!(server.say("RCPT TO:<a@b.example>\r\nEHLO again\r\nDATA\r\n"), [250, 250, 503]);
    assert!(server.taken.is_empty());
}

#[test]
fn garbage_gets_its_code() {
    let mut server = Server::new();
    server.say("EHLO x\r\n");
    for (line, code) in [
        ("XYZZY", 500),
        ("STARTTLS", 502),
        ("AUTH PLAIN AGEAYg==", 502),
        ("EXPN list", 502),
        ("MAIL FROM:<> SIZE=5001", 552),
        ("MAIL FROM:<> SIZE=x", 501),
        ("MAIL FROM:<> XVERP", 555),
        ("RCPT TO:<a b@c.example>", 553),
        ("RCPT TO:<root@localhost>", 550),
        ("NOOP a\rb", 500),
        ("RCPT TO:<a@b.example>\0", 500),
    ] {
        assert_eq!(server.say(format!("{line}\r\n")), [code], "{line:?}");
    }
    let long = "x".repeat(600);
    assert_eq!(server.say(format!("NOOP {}\r\nNOOP\r\n", &long[..505])), [250, 250], "512 octets");
    assert_eq!(server.say(format!("NOOP {}\r\nNOOP\r\n", &long[..506])), [500, 250]);
    assert_eq!(server.say(format!("NOOP {long}\r\nNOOP\r\n")), [500, 250]);
    assert_eq!(server.say("MAIL FROM:<>\r\nRCPT TO:<ä@b.example>\r\n"), [250, 553]);
    assert_eq!(
        server.say("RSET\r\nMAIL FROM:<> SMTPUTF8\r\nRCPT TO:<ä@b.example>\r\n"),
        [250, 250, 250]
    );
    assert_eq!(server.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), [554]);
    assert!(server.closed);
}

#[test]
fn a_line_without_end_takes_no_memory_and_one_refusal() {
    let mut server = Server::new();
    for _ in 0..1000 {
        assert_eq!(server.say([b'x'; 10_000]), []);
    }
    assert_eq!(server.say("\r"), []);
    assert_eq!(server.say("\nNOOP\r\n"), [500, 250]);
}

#[test]
fn who_only_makes_mistakes_is_sent_away() {
    let mut server = Server::new();
    let codes = server.say("X\r\n".repeat(50));
    assert_eq!(codes.len(), 21);
    assert_eq!(codes.last(), Some(&421));
    assert!(server.closed);
}

#[test]
fn a_hundred_recipients_and_not_one_more() {
    let mut server = Server::new();
    server.say("EHLO x\r\nMAIL FROM:<>\r\n");
    for _ in 0..100 {
        assert_eq!(server.say("RCPT TO:<a@b.example>\r\n"), [250]);
    }
    assert_eq!(server.say("RCPT TO:<a@b.example>\r\nDATA\r\n"), [452, 354]);
}

#[test]
fn every_answer_has_its_code() {
    for (answer, code) in [
        (Verdict::TooFewNodes, 451),
        (Verdict::Leaving, 451),
        (Verdict::NoExit, 550),
        (Verdict::TooBig, 552),
        (Verdict::Full, 452),
        (Verdict::FullFor(1000), 452),
        (Verdict::Unfit(MessageError::Header.into()), 550),
        (Verdict::NoExitNow, 451),
    ] {
        let mut server = Server::new();
        server.recipient = answer;
        assert_eq!(
            server.say("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n")[2..],
            [code, 554]
        );
        server.recipient = Verdict::RecipientTaken;
        server.message = answer;
        assert_eq!(server.say("RCPT TO:<a@b.example>\r\nDATA\r\n\r\n.\r\n"), [250, 354, code]);
        assert_eq!(server.say("DATA\r\n"), [503], "the transaction is over");
    }
}

#[test]
fn a_message_in_chunks_is_taken_octet_for_octet_however_it_is_cut() {
    let chunks = ["To: a@b.example\r\nX", "", ": y\r\n\r\n.\r\n"];
    let [first, none, last] = chunks.map(|chunk| format!("{}\r\n{chunk}", chunk.len()));
    let last = last.replacen("\r\n", " LAST\r\n", 1);
    let script = format!(
        "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT {first}BDAT {none}BDAT {last}NOOP\r\n\
         MAIL FROM:<>\r\n"
    );
    let script = script.as_bytes();
    for cut in 1..script.len() {
        let mut server = Server::new();
        let (first, second) = script.split_at(cut);
        let mut codes = server.say(first);
        codes.extend(server.say(second));
        assert_eq!(codes, [250, 250, 250, 250, 250, 250, 250, 250], "cut at {cut}");
        let message = b"To: a@b.example\r\nX: y\r\n\r\n.\r\n".to_vec();
        assert_eq!(server.taken, [(vec!["a@b.example".to_owned()], message)]);
    }
}

#[test]
fn a_chunk_that_nobody_wants_is_no_command() {
    let mut server = Server::new();
    let hidden = "MAIL FROM:<>\r\n";
    let chunk = |octets: &str| format!("BDAT {}\r\n{octets}", octets.len());
    assert_eq!(server.say(chunk(hidden)), [503]);
    assert_eq!(server.say(format!("EHLO x\r\n{}MAIL FROM:<>\r\n", chunk(hidden))), [250, 503, 250]);
    assert_eq!(server.say(chunk(hidden)), [554], "no recipient yet");
    assert_eq!(server.say("RCPT TO:<a@b.example>\r\n"), [250]);
    assert_eq!(
        server.say(format!("{}DATA\r\nRCPT TO:<c@d.example>\r\n", chunk("x"))),
        [250, 503, 503]
    );
    assert_eq!(server.say("RSET\r\nDATA\r\n"), [250, 503], "half a message is none");
    server.say("MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n");
    let big = chunk(&"x".repeat(5001));
    assert_eq!(server.say(format!("{big}{}NOOP\r\n", chunk(hidden))), [552, 503, 250]);
    assert!(server.taken.is_empty() && !server.closed);
    assert_eq!(server.say(format!("BDAT x\r\n{hidden}")), [501], "how much follows is not known");
    assert!(server.closed);
}

#[test]
fn what_can_never_become_a_command_is_answered_at_once() {
    for (octets, reply) in [
        (&b"EHLO h\nMAIL FROM:<>\n"[..], "500 5.5.2 lines end with CR and LF\r\n"),
        (b"\x16\x03\x01\x02\x00", "554 5.5.1 TLS is not spoken here; connect without it\r\n"),
    ] {
        let mut server = Server::new();
        server.session.handle_input(octets, NOW);
        server.drain();
        assert_eq!((server.written.as_str(), server.closed), (reply, true));
    }
}

#[test]
fn a_reply_names_what_stays_behind_and_where_a_message_is_at_fault() {
    let mut server = Server::new();
    server.say("EHLO x\r\n");
    let submit = |server: &mut Server| {
        server.session.handle_input(b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n", NOW);
        server.drain();
        server.session.handle_input(b"DATA\r\nx\r\n.\r\n", NOW);
        while let Some(event) = server.session.next_event() {
            if let SessionEvent::Message(_) = event {
                server.session.note_left(&["Reply-To", "Importance"]);
                server.session.handle_answer(server.message, NOW);
            } else if let SessionEvent::Write(octets) = event {
                server.written = String::from_utf8(octets).unwrap();
            }
        }
        std::mem::take(&mut server.written)
    };
    let id = "ab".repeat(16);
    let said = submit(&mut server);
    assert_eq!(said, format!("250 2.0.0 taken as {id}; left behind: Reply-To, Importance\r\n"));
    server.message = Verdict::Unfit(NotCarried::at_line(MessageError::LongLine, 7));
    let said = submit(&mut server);
    assert!(said.starts_with("550 5.6.0 line 7: longer than 998 octets; "), "{said}");
}

#[test]
fn spoilt_and_oversize_data_is_refused_after_its_end() {
    for (data, code) in [
        ("a\nb\r\n.\r\n".to_owned(), 550),
        ("a\0b\r\n.\r\n".to_owned(), 550),
        (format!("{}.\r\n", "x\r\n".repeat(2000)), 552),
    ] {
        let mut server = Server::new();
        server.say("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n");
        assert_eq!(server.say(format!("{data}NOOP\r\n")), [code, 250]);
        assert!(server.taken.is_empty());
    }
}

#[test]
fn a_message_for_which_there_is_no_room_is_told_so_at_its_end() {
    let mut session = Session::new(Limits::new(100_000));
    let now = Duration::ZERO;
    session.handle_input(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n", now);
    session.handle_answer(Verdict::RecipientTaken, now);
    session.handle_input(b"DATA\r\n", now);
    session.handle_input(&b"0123456789\r\n".repeat(100), now);
    assert_eq!(session.held(), 1200);
    session.handle_no_room();
    assert_eq!(session.held(), 0);
    session.handle_input(&b"0123456789\r\n".repeat(100), now);
    assert_eq!(session.held(), 0);
    while session.next_event().is_some() {}
    session.handle_input(b".\r\nNOOP\r\n", now);
    let mut said = Vec::new();
    while let Some(SessionEvent::Write(reply)) = session.next_event() {
        said.extend(reply);
    }
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("452 4.3.1") && said.ends_with("250 2.0.0 ok\r\n"), "{said}");
}

#[test]
fn the_slow_are_sent_away() {
    let mut session = Session::new(Limits::new(1000));
    while session.next_event().is_some() {}
    let five = Duration::from_secs(300);
    assert_eq!(session.poll_timeout(), five);
    session.handle_timeout(five - Duration::from_millis(1));
    assert!(session.next_event().is_none());
    session.handle_timeout(five);
    assert!(
        matches!(session.next_event(), Some(SessionEvent::Write(octets)) if octets.starts_with(b"421"))
    );
    assert!(matches!(session.next_event(), Some(SessionEvent::Close)));
}

#[test]
fn octet_by_octet_is_too_slow_and_only_messages_are_useful() {
    let closed = |session: &mut Session| {
        std::iter::from_fn(|| session.next_event())
            .any(|event| matches!(event, SessionEvent::Close))
    };
    let second = Duration::from_secs(1);
    let mut session = Session::new(Limits::new(1000));
    assert!(!closed(&mut session));
    session.handle_input(b"NOOP\r\n", second * 250);
    assert_eq!(session.poll_timeout(), second * 550);
    for late in 0..200 {
        session.handle_input(b"x", second * (251 + late));
    }
    assert_eq!(session.poll_timeout(), second * 550, "no whole command came");
    assert!(!closed(&mut session));
    // Any number of commands is worth nothing to a crowded server.
    let mut session = Session::new(Limits::new(1000));
    for late in 0..20 {
        session.handle_input(b"EHLO x\r\nNOOP\r\nRSET\r\nMAIL FROM:<>\r\n", second * late);
        session.handle_input(b"RCPT TO:<a@b.example>\r\n", second * late);
        session.handle_answer(Verdict::RecipientTaken, second * late);
        session.handle_input(b"RSET\r\n", second * late);
    }
    assert!(!closed(&mut session) && session.useful() == 0);
    session.handle_input(b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n", NOW);
    session.handle_answer(Verdict::RecipientTaken, NOW);
    session.handle_input(b"DATA\r\n", NOW);
    session.handle_input(b"To: x\r\n\r\n", NOW);
    assert_eq!(session.useful(), 9);
    session.handle_input(b".\r\n", NOW);
    session.handle_answer(Verdict::Taken([1; 16]), NOW);
    assert_eq!(session.useful(), 12 + fog_smtp::PER_MESSAGE);
    session.handle_crowd();
    assert!(closed(&mut session));
}

#[test]
fn who_finds_no_place_is_told_so_instead_of_being_greeted() {
    let mut session = Session::refused(Limits::new(1000));
    let Some(SessionEvent::Write(first)) = session.next_event() else { panic!("no word") };
    assert!(first.starts_with(b"421 4.3.2 "));
    assert!(matches!(session.next_event(), Some(SessionEvent::Close)));
}

proptest! {
    #[test]
    fn where_the_octets_are_cut_does_not_matter(cuts in proptest::collection::vec(1usize..30, 1..40)) {
        let text = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nTo: x\r\n\r\n.\r\n\
                     MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n..\r\n.\r\nQUIT\r\n";
        let mut server = Server::new();
        let mut rest = &text[..];
        let mut codes = Vec::new();
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(cut.min(rest.len()));
            codes.extend(server.say(now));
            rest = later;
        }
        prop_assert_eq!(codes, [250, 250, 250, 354, 250, 250, 250, 354, 250, 221]);
        prop_assert_eq!(server.taken.len(), 2);
    }

    #[test]
    fn any_octets_are_answered_without_harm(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut server = Server::new();
        server.say("EHLO x\r\n");
        server.say(octets);
    }
}

fn delivery(recipients: &[&str], message: &str) -> Delivery {
    let recipients = recipients.iter().map(|text| Mailbox::parse(text).unwrap()).collect();
    let submission = Submission { recipients, message: message.as_bytes().to_vec() };
    let scrubbed = scrub(&submission).unwrap().remove(0);
    let octets = Fragment::cut(scrubbed, [2; 16], [1; 16]).encode().unwrap();
    rebuild(&Fragment::decode(&octets).unwrap(), &Mailbox::parse("anon@exit.example").unwrap(), 1)
        .unwrap()
}

/// Plays a server's replies to a client; returns what the client said and what came of it.
fn play(mut client: Client, replies: &[&str]) -> (Vec<String>, Outcome, Option<Delivery>) {
    let mut said = Vec::new();
    for reply in replies {
        if client.port() == Port::Done {
            break;
        }
        client.handle_input(format!("{reply}\r\n").as_bytes(), NOW);
        while let Some(octets) = client.next_output() {
            said.push(String::from_utf8_lossy(&octets).into_owned());
        }
    }
    let (outcome, delivery) = client.finish();
    (said, outcome, delivery)
}

const EHLO: &str = "250-next.example\r\n250-SIZE 100000\r\n250-8bitmime\r\n250 SMTPUTF8";

#[test]
fn the_client_delivers_to_each_by_itself_and_says_nothing_of_itself() {
    let client = Client::deliver(
        "fog.invalid",
        delivery(&["a@b.example", "c@b.example"], "To: a@b.example\r\n\r\n.ä\r\n"),
    );
    let replies =
        ["220 next", EHLO, "250 ok", "250 ok", "354 go", "250 queued", "250 ok", "550 no"];
    let (said, outcome, rest) = play(client, &replies);
    assert_eq!(said[0], "EHLO fog.invalid\r\n");
    assert!(said[1].starts_with("MAIL FROM:<> SIZE=") && said[1].ends_with(" BODY=8BITMIME\r\n"));
    assert_eq!(said[2..4], ["RCPT TO:<a@b.example>\r\n", "DATA\r\n"]);
    assert!(said[4].ends_with("\r\n\r\n..ä\r\n.\r\n"));
    assert_eq!(said[5], said[1]);
    assert_eq!(said[6..], ["RCPT TO:<c@b.example>\r\n", "QUIT\r\n"]);
    assert_eq!(outcome, Outcome::Delivered { taken: 1, refused: 1, refused_here: 0, later: 0 });
    assert!(rest.unwrap().recipients.is_empty());
}

#[test]
fn who_is_to_be_tried_again_is_kept() {
    let client = || {
        Client::deliver(
            "fog.invalid",
            delivery(&["a@b.example", "c@b.example", "d@b.example"], "To: x\r\n\r\n"),
        )
    };
    let left = |rest: Option<Delivery>| {
        let rest = rest.unwrap();
        rest.recipients.iter().map(Mailbox::to_text).collect::<Vec<_>>()
    };
    let start = ["220 x", EHLO, "250 x", "451 later", "250 reset", "250 x", "250 x", "354 x"];
    let whole = [&start[..], &["250 taken", "250 x", "550 x"]].concat();
    let (_, outcome, rest) = play(client(), &whole);
    assert_eq!(
        (outcome, left(rest)),
        (
            Outcome::Delivered { taken: 1, refused: 1, refused_here: 0, later: 1 },
            vec!["a@b.example".to_owned()]
        )
    );
    // Cut off after one was taken: that one is never sent again.
    let cut = [&start[..], &["250 taken", "421 gone"]].concat();
    let (_, outcome, rest) = play(client(), &cut);
    assert_eq!(outcome, Outcome::Delivered { taken: 1, refused: 0, refused_here: 0, later: 2 });
    assert_eq!(left(rest), ["a@b.example", "d@b.example"]);
    // A submission names all at once.
    let client = Client::submit(
        "fog.invalid",
        delivery(&["a@b.example", "c@b.example", "d@b.example"], "To: x\r\n\r\n"),
    );
    let (said, outcome, rest) =
        play(client, &["220 x", EHLO, "250 x", "451 later", "250 x", "550 x", "354 x", "250 x"]);
    assert_eq!(
        said[2..6],
        [
            "RCPT TO:<a@b.example>\r\n",
            "RCPT TO:<c@b.example>\r\n",
            "RCPT TO:<d@b.example>\r\n",
            "DATA\r\n"
        ]
    );
    assert_eq!(outcome, Outcome::Delivered { taken: 1, refused: 1, refused_here: 0, later: 1 });
    assert_eq!(left(rest), ["a@b.example"]);
}

#[test]
fn failures_are_final_only_when_the_server_speaks_of_the_mail() {
    let run = |replies: &[&str]| {
        let client =
            Client::deliver("fog.invalid", delivery(&["a@b.example"], "To: x\r\n\r\nä\r\n"));
        play(client, replies).1
    };
    let taken = Outcome::Delivered { taken: 1, refused: 0, refused_here: 0, later: 0 };
    let long = "250-x\r\n".repeat(200);
    for (replies, outcome) in [
        (&[][..], Outcome::Later),
        (&["554 no"], Outcome::Barred(Bar::Refuses)),
        (&["421 busy"], Outcome::Later),
        (&["220 x", "250 no eight bit"], Outcome::Refused),
        (&["220 x", EHLO, "250 x", "550 5.1.1 unknown"], Outcome::Refused),
        (&["220 x", EHLO, "250 x", "550 5.7.1 not from you"], Outcome::RefusedHere),
        (&["220 x", EHLO, "250 x", "250 x", "550-5.7.1 no\r\n550 5.7.1 no"], Outcome::RefusedHere),
        (&["220 x", EHLO, "250 x", "250 x", "354 x", "554 5.7.1 spam"], Outcome::RefusedHere),
        (&["220 x", EHLO, "250 x", "250 x", "354 x", "552 5.3.4 big"], Outcome::Refused),
        (&["220 x", "250-x\r\n250-8BITMIME\r\n250 SIZE 10"], Outcome::Refused),
        (
            &["220 x", EHLO, "530 5.7.0 Must issue a STARTTLS command first"],
            Outcome::Barred(Bar::WantsTls),
        ),
        (&["220 x", EHLO, "530 5.7.0 Authentication required"], Outcome::Barred(Bar::WantsAuth)),
        (&["220 x", EHLO, "501 5.1.7 null sender"], Outcome::Barred(Bar::Refuses)),
        (&["220 x", EHLO, "550 5.7.1 go away"], Outcome::Barred(Bar::Refuses)),
        (&["220 x", EHLO, "552 5.3.4 too big"], Outcome::Refused),
        (
            &["220 x", EHLO, "250 x", "530 5.7.0 Authentication required"],
            Outcome::Barred(Bar::WantsAuth),
        ),
        (&["220 x", EHLO, "250 x", "550 no"], Outcome::Refused),
        (&["220 x", EHLO, "250 x", "450 later"], Outcome::Later),
        (&["220 x", EHLO, "250 x", "250 x", "354 x", "554 spam"], Outcome::Refused),
        (&["220 x", EHLO, "250 x", "250 x", "354 x", "451 later"], Outcome::Later),
        (&["220 x", EHLO, "250 x", "250 x", "354 x", "421 gone"], Outcome::Later),
        // Its first digit says what a reply means.
        (&["220 x", EHLO, "251 x", "252 x", "399 x", "299 x"], taken),
        (&["220 x", &long], Outcome::Later),
        (&["nonsense"], Outcome::Later),
    ] {
        assert_eq!(run(replies), outcome, "{replies:?}");
    }
    let plain = Client::deliver("fog.invalid", delivery(&["a@b.example"], "To: x\r\n\r\nx\r\n"));
    let (said, outcome, _) =
        play(plain, &["220 x", "500 what", "250 x", "250 x", "250 x", "354 x", "250 x"]);
    assert_eq!(said[1], "HELO fog.invalid\r\n");
    assert_eq!(outcome, Outcome::Delivered { taken: 1, refused: 0, refused_here: 0, later: 0 });
}

#[test]
fn a_probe_learns_what_the_server_takes() {
    let probe = |replies: &[&str]| play(Client::probe("fog.invalid"), replies);
    let (said, outcome, _) = probe(&["220 x", EHLO, "250 sender ok"]);
    assert_eq!(said[1..], ["MAIL FROM:<>\r\n", "QUIT\r\n"]);
    let Outcome::Probed(offers) = outcome else { panic!("{outcome:?}") };
    let (_, barred, _) = probe(&["220 x", EHLO, "530 5.7.0 Must issue a STARTTLS command first"]);
    assert_eq!(barred, Outcome::Barred(Bar::WantsTls));
    assert_eq!(probe(&["220 x", EHLO, "451 not now"]).1, Outcome::Later);
    assert_eq!(offers.needs, Needs::EIGHT_BIT | Needs::SMTP_UTF8);
    assert_eq!(offers.max_message, Some(100_000));
}

proptest! {
    #[test]
    fn any_server_is_survived(replies in proptest::collection::vec("[2-5][0-5][0-4][ -]\\PC{0,20}|\\PC{0,30}", 0..20)) {
        let client = Client::deliver("fog.invalid", delivery(&["a@b.example", "c@b.example"], "To: x\r\n\r\nx\r\n"));
        let replies: Vec<_> = replies.iter().map(String::as_str).collect();
        let _ = play(client, &replies);
    }
}

#[test]
fn client_and_server_understand_each_other() {
    let mut server = Server::new();
    let mut client = Client::deliver(
        "fog.invalid",
        delivery(&["a@b.example"], "To: a@b.example\r\n\r\n..x\r\n.\r\n"),
    );
    let expected =
        delivery(&["a@b.example"], "To: a@b.example\r\n\r\n..x\r\n.\r\n").message.clone();
    client.handle_input(b"220 fog\r\n", NOW);
    while let Some(octets) = client.next_output() {
        server.session.handle_input(&octets, NOW);
        server.drain();
        client.handle_input(std::mem::take(&mut server.written).as_bytes(), NOW);
    }
    assert_eq!(
        client.finish().0,
        Outcome::Delivered { taken: 1, refused: 0, refused_here: 0, later: 0 }
    );
    assert_eq!(server.taken, [(vec!["a@b.example".to_owned()], expected)]);
}

//! What arrives of what was submitted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use fog_mail::{
    Delivery, Fragment, FragmentError, Mailbox, MessageError, Needs, NotCarried, Place, Submission,
    rebuild, scrub,
};
use proptest::prelude::*;

const HOUR: u32 = 495_000;

fn submission(recipients: &[&str], message: &[u8]) -> Submission {
    let recipients = recipients.iter().map(|text| Mailbox::parse(text).unwrap()).collect();
    Submission { recipients, message: message.to_vec() }
}

/// Through ingress, octets and exit.
fn carry(recipients: &[&str], message: &[u8]) -> Result<Vec<Delivery>, MessageError> {
    scrub(&submission(recipients, message))
        .map_err(|refused| refused.why)?
        .into_iter()
        .map(|scrubbed| {
            let octets = Fragment::cut(scrubbed, [0xcd; 16], [0xab; 16]).encode().unwrap();
            let fragment = Fragment::decode(&octets).unwrap();
            rebuild(&fragment, &Mailbox::parse("anonymous@exit.example").unwrap(), HOUR)
        })
        .collect()
}

fn arrives(message: &[u8]) -> String {
    let deliveries = carry(&["a@b.example"], message).unwrap();
    String::from_utf8(deliveries[0].message.clone()).unwrap()
}

#[test]
fn no_planted_marker_arrives() {
    let message = b"Received: from MARKER ([10.1.2.3])\r\n\tby MARKER with ESMTP;\r\n Mon, 2 Nov 2026 10:11:12 +0530\r\n\
        return-path: <MARKER@home.example>\r\nFROM:\r\n Marker <MARKER@home.example>\r\nSender: MARKER\r\n\
        Reply-To: MARKER@x\r\nDate: Mon, 2 Nov 2026 10:11:12 +0530\r\nMessage-ID: <MARKER@host>\r\n\
        User-Agent: MARKER/1.0\r\nX-Mailer: MARKER\r\nX-Originating-IP: MARKER\r\nBcc: MARKER@x\r\n\
        DKIM-Signature: MARKER\r\nOrganization: MARKER\r\nDisposition-Notification-To: MARKER@x\r\n\
        ARC-Seal: MARKER\r\nAutocrypt: MARKER\r\nX-Fog-Notice: MARKER\r\n\
        To: a@b.example\r\nsubject: keep\r\n\tthis\r\nReferences: <1@x>\r\nX-No-Archive: yes\r\n\
        Content-type: text/plain; charset=utf-8\r\nMIME-Version: 1.0\r\n\r\nbody\r\n";
    let arrived = arrives(message);
    assert!(!arrived.contains("MARKER"), "{arrived}");
    assert!(!arrived.contains("+0530") && !arrived.contains("10:11"), "{arrived}");
    let expected = "X-Fog-Notice: This message came through an anonymous mail network. Its sender\r\n \
        is not known to the server that delivered it.\r\n\
        From: Anonymous <anonymous@exit.example>\r\nDate: Tue, 21 Jun 2026 00:00:00 +0000\r\n\
        Message-ID: <abababababababababababababababab@fog.invalid>\r\n\
        To: a@b.example\r\nSubject: keep this\r\nReferences: <1@x>\r\nX-No-Archive: yes\r\n\
        MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nbody\r\n";
    let date = |text: &str| text.lines().find(|line| line.starts_with("Date:")).unwrap().to_owned();
    assert!(date(&arrived).ends_with(":00:00 +0000"));
    assert_eq!(arrived.replace(&date(&arrived), ""), expected.replace(&date(expected), ""));
}

#[test]
fn what_programs_write_unasked_into_the_fields_that_are_carried_stays_behind() {
    let message = b"To: a@b.example\r\nContent-Language: de-CH MARKER\r\n\
        Content-ID: <part1.MARKER@laptop-of-alice.lan>\r\nContent-Description: MARKER\r\n\
        Content-Disposition: inline; filename=\"C:\\MARKER\\alice\\x.txt\"; size=MARKER\r\n\
        Content-Type: text/plain; charset=utf-8; x-app=\"MARKER/1.0\"; format=flowed\r\n\
        Content-Transfer-Encoding: BASE64 (MARKER)\r\nX-No-Archive: no, MARKER\r\n\
        Mime-Version: 1.0 (MARKER 16.0 \\(3731.700.6\\))\r\n\r\nbody";
    let arrived = arrives(message);
    assert!(!arrived.contains("MARKER"), "{arrived}");
    let (_, carried) = arrived.split_once("To: a@b.example\r\n").unwrap();
    let expected = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8; format=flowed\r\n\
        Content-Transfer-Encoding: base64\r\n\
        Content-Disposition: inline; filename=x.txt\r\n\r\nbody";
    assert_eq!(carried, expected);
    for (odd, name) in [
        ("MIME-Version: 2.0", "MIME-Version"),
        ("Content-Type: text/plain MARKER", "Content-Type"),
        ("Content-Type: text", "Content-Type"),
        ("content-type: a/b; boundary=\"\u{e9}\"", "Content-Type"),
        ("Content-Transfer-Encoding: x-marker", "Content-Transfer-Encoding"),
    ] {
        let odd = submission(&["a@b.example"], format!("{odd}\r\n\r\n").as_bytes());
        let refused = NotCarried { why: MessageError::Value, place: Place::Field(name) };
        assert_eq!(scrub(&odd).err(), Some(refused));
        assert_eq!(refused.to_string(), format!("{name}: not a value that this field takes"));
    }
}

#[test]
fn a_sender_may_keep_the_own_from_and_is_vouched_for_by_nobody() {
    let arrived =
        arrives(b"X-Fog-From: Keep\r\nFrom: me@own.example\r\nReply-To: r@x\r\nTo: a@b\r\n\r\n");
    assert!(arrived.contains("\r\nFrom: me@own.example\r\nReply-To: r@x\r\n"), "{arrived}");
    assert!(arrived.contains("nobody vouches"));
    assert!(!arrived.contains("X-Fog-From") && !arrived.contains("exit.example"));
    for (bad, why) in [
        (&b"X-Fog-From: keep\r\nTo: a@b\r\n\r\n"[..], MessageError::NoFrom),
        (b"X-Fog-From: keep\r\nFrom: a@b\r\nFrom: c@d\r\n\r\n", MessageError::NoFrom),
        (b"X-Fog-From: other\r\nFrom: a@b\r\n\r\n", MessageError::FogFrom),
        (b"X-Fog-From: keep\r\nX-Fog-From: no\r\nFrom: a@b\r\n\r\n", MessageError::Repeated),
        (b"X-Fog-Copies: 3\r\n\r\n", MessageError::UnknownWish),
        (b"Content-Type: a/b\r\ncontent-type: c/d\r\n\r\n", MessageError::Repeated),
    ] {
        assert_eq!(scrub(&submission(&["a@b.example"], bad)).err().map(|it| it.why), Some(why));
    }
}

#[test]
fn a_sender_may_ask_for_a_hold_of_up_to_a_day_and_nobody_else_learns_of_it() {
    let asked = |value: &str| {
        let message = format!("X-Fog-Hold: {value}\r\nTo: a@b\r\n\r\nx\r\n");
        let submission = submission(&["a@b.example", "c@d.example"], message.as_bytes());
        let scrubbed = scrub(&submission).map_err(|refused| refused.why)?;
        Ok(scrubbed.iter().map(fog_mail::Scrubbed::hold).collect::<Vec<_>>())
    };
    for (value, hold) in [("0", 0), ("7", 7), (" 0020 ", 20), ("1440", 1440)] {
        assert_eq!(asked(value), Ok(vec![Some(hold); 2]), "{value}");
    }
    for bad in ["", "-1", "+5", "1441", "5m", "1.5", "99999999999999999999", "5\r\nX-Fog-Hold: 6"] {
        let why = if bad.contains('X') { MessageError::Repeated } else { MessageError::FogHold };
        assert_eq!(asked(bad), Err(why), "{bad}");
    }
    let without = scrub(&submission(&["a@b.example"], b"To: a@b\r\n\r\nx\r\n")).unwrap();
    assert_eq!(without[0].hold(), None);
    let arrived = arrives(b"X-Fog-Hold: 0\r\nTo: a@b\r\n\r\n");
    assert!(!arrived.contains("Hold"), "{arrived}");
}

#[test]
fn each_domain_gets_its_own_recipients_only() {
    let message = b"To: everybody\r\n\r\nx\r\n";
    let deliveries =
        carry(&["a@one.example", "b@two.example", "c@ONE.example", "a@one.example"], message);
    let mut seen: Vec<Vec<String>> = deliveries
        .unwrap()
        .iter()
        .map(|delivery| delivery.recipients.iter().map(Mailbox::to_text).collect())
        .collect();
    seen.sort();
    assert_eq!(seen, [vec!["a@one.example", "c@one.example"], vec!["b@two.example"]]);
    assert_eq!(carry(&[], message).err(), Some(MessageError::Recipients));
    assert_eq!(carry(&["a@b.example"; 101], message).err(), Some(MessageError::Recipients));
}

#[test]
fn what_a_message_needs_is_read_from_its_octets() {
    let needs = |recipient: &str, message: &[u8]| carry(&[recipient], message).unwrap()[0].needs;
    assert_eq!(needs("a@b.example", b"To: x\r\n\r\nplain"), Needs::NONE);
    assert_eq!(needs("a@b.example", "To: x\r\n\r\nä".as_bytes()), Needs::EIGHT_BIT);
    assert_eq!(needs("a@b.example", "Subject: ä\r\n\r\nx".as_bytes()), Needs::NONE);
    assert_eq!(needs("a@ä.example", "To: ä <a@ä.example>\r\n\r\nx".as_bytes()), Needs::NONE);
    assert_eq!(needs("a@b.example", "Cc: <ä@b.example>\r\n\r\nx".as_bytes()), Needs::SMTP_UTF8);
    assert_eq!(needs("ä@b.example", b"To: x\r\n\r\nplain"), Needs::SMTP_UTF8);
    // A field that is not carried needs nothing.
    assert_eq!(needs("a@b.example", "X-Own: ä\r\n\r\nx".as_bytes()), Needs::NONE);
}

#[test]
fn an_exit_rebuilds_what_a_dishonest_ingress_made() {
    // A fragment is only made from scrubbed mail, so the octets are altered behind its back.
    let honest = scrub(&submission(
        &["a@b.example"],
        b"To: a@b.example\r\nSubject: 0123456789\r\n\r\nbody\r\n",
    ))
    .unwrap()
    .remove(0);
    let octets = Fragment::cut(honest, [2; 16], [1; 16]).encode().unwrap().to_vec();
    let swap = |from: &[u8], to: &[u8]| {
        assert_eq!(from.len(), to.len());
        let at = octets.windows(from.len()).position(|window| window == from).unwrap();
        let mut altered = octets.clone();
        altered[at..at + from.len()].copy_from_slice(to);
        altered
    };
    let anonymous = Mailbox::parse("anonymous@exit.example").unwrap();
    let rebuilt = |octets: &[u8]| {
        let fragment = Fragment::decode(octets).unwrap();
        rebuild(&fragment, &anonymous, HOUR).map(|d| String::from_utf8(d.message.clone()).unwrap())
    };
    let injected = rebuilt(&swap(b"Subject: 0123456789", b"Sub: 1\r\nReceived: x")).unwrap();
    assert!(!injected.contains("Received") && !injected.contains("Sub: 1"), "{injected}");
    assert_eq!(rebuilt(&swap(b"0123456789", b"0123\n.\r\n89")), Err(MessageError::BareLineEnd));
    assert_eq!(rebuilt(&swap(b"0123456789", b"01234\x006789")), Err(MessageError::Nul));
    assert_eq!(rebuilt(&swap(b"Subject: 01", b"Subject 001")), Err(MessageError::Header));
    let decode = |octets: &[u8]| Fragment::decode(octets).err();
    assert_eq!(decode(&swap(b"b.example", b"b.EXample")), Some(FragmentError::Envelope));
    assert_eq!(decode(&swap(b"b.example", b"b.\r\nample")), Some(FragmentError::Envelope));
    assert_eq!(decode(&[&octets[..], &[0]].concat()), Some(FragmentError::Malformed));
    assert_eq!(decode(&octets[..octets.len() - 1]), Some(FragmentError::Malformed));
    assert_eq!(decode(&[0; 300_000]), Some(FragmentError::TooLong));
    let mut next_version = octets.clone();
    next_version[0] = 3;
    assert_eq!(decode(&next_version), Some(FragmentError::Unknown));
}

#[test]
fn the_fragment_is_laid_out_as_the_vector() {
    let scrubbed = scrub(&submission(&["a@b.example", "c@b.example"], b"To: x\r\n\r\nbody\r\n"))
        .unwrap()
        .remove(0);
    let octets = Fragment::cut(scrubbed, [0xcd; 16], [0xab; 16]).encode().unwrap();
    let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(hex, include_str!("vectors/fragment-2.hex").trim());
}

#[test]
fn needs_are_a_set() {
    let all = [Needs::EIGHT_BIT, Needs::SMTP_UTF8, Needs::KEEP_FROM];
    let has = |set: Needs| all.map(|need| set.contains(need));
    assert_eq!(has(Needs::EIGHT_BIT | Needs::KEEP_FROM), [true, false, true]);
    assert_eq!(has(Needs::EIGHT_BIT | Needs::EIGHT_BIT), [true, false, false]);
    let both = Needs::EIGHT_BIT | Needs::KEEP_FROM;
    assert_eq!(has(both & (Needs::KEEP_FROM | Needs::SMTP_UTF8)), [false, false, true]);
    assert_eq!(both & Needs::SMTP_UTF8, Needs::NONE);
}

#[test]
fn a_scrubbed_message_says_what_it_needs_and_how_long_it_is() {
    let text = "X-Fog-From: keep\r\nFrom: a@b.example\r\nSubject: s\r\n\r\n\u{e4}\r\n";
    let mut scrubbed = scrub(&submission(&["a@b.example"], text.as_bytes())).unwrap();
    let scrubbed = scrubbed.pop().unwrap();
    assert_eq!(scrubbed.needs(), Needs::EIGHT_BIT | Needs::KEEP_FROM);
    let size = scrubbed.size();
    let fragment = Fragment::cut(scrubbed, [1; 16], [2; 16]);
    assert_eq!((fragment.size(), fragment.needs()), (size, Needs::EIGHT_BIT | Needs::KEEP_FROM));
    assert!((30..text.len()).contains(&size), "{size}");
    let printed = format!("{:?}", submission(&["a@b.example"], b"secret"));
    assert_eq!(printed, "Submission(..)");
}

#[test]
fn long_lines_are_folded_where_they_may_be_and_refused_beyond_what_smtp_takes() {
    let longest = |octets: usize| format!("Subject: {}\r\n\r\n", "x".repeat(octets));
    let most = 998 - "Subject: ".len();
    assert!(carry(&["a@b.example"], longest(most).as_bytes()).is_ok());
    let longer = carry(&["a@b.example"], longest(most + 1).as_bytes());
    assert_eq!(longer.err(), Some(MessageError::LongLine));
    // Words of nine octets and a space: as many as fit 78 octets.
    let words = vec!["x23456789"; 20].join(" ");
    let text = arrives(format!("Subject: {words}\r\n\r\n").as_bytes());
    let lines: Vec<_> = text.lines().filter(|line| line.contains("x23456789")).collect();
    let lengths: Vec<_> = lines.iter().map(|line| line.len()).collect();
    assert_eq!(lengths, [78, 70, 60], "{lines:?}");
    // A quotation mark in a subject quotes nothing: spaces behind it may be folded.
    let quoted = format!("Subject: \"{words}\"\r\n\r\n");
    let folded = arrives(quoted.as_bytes());
    assert!(folded.lines().all(|line| line.len() <= 80), "{folded}");
    // In a field with structure they may not.
    let kept = arrives(format!("To: \"{words}\" <a@b.example>\r\n\r\n").as_bytes());
    assert!(kept.contains(&format!("\"{words}\"")), "{kept}");
}

#[test]
fn an_archive_is_told_no_only_with_the_word_for_it() {
    let of = |value: &str| arrives(format!("X-No-Archive: {value}\r\n\r\n").as_bytes());
    assert!(of("Yes").contains("X-No-Archive: yes"));
    assert!(!of("MARKER").contains("X-No-Archive"));
}

#[test]
fn fields_that_programs_write_twice_are_put_together_and_what_is_beyond_ascii_is_encoded() {
    let message = "To: a@b.example\r\nTo: a@b.example\r\nTo: Zo\u{eb} <z@\u{e9}.example>\r\nCc:\r\n\
        MIME-Version: 1.0\r\nMIME-Version: 1.0 (again)\r\nSubject: d\u{e9}j\u{e0} vu\r\n\
        References: <1@x> <\u{e9}@x>\r\n\
        Content-Type: application/pdf; name=\"r\u{e9}sum\u{e9}.pdf\"\r\n\r\nbody";
    let refused = scrub(&submission(&["a@b.example"], message.as_bytes())).err().unwrap();
    assert_eq!(refused.place, Place::Field("MIME-Version"));
    let arrived = arrives(message.replace(" (again)", "").as_bytes());
    let (_, carried) = arrived.split_once("@fog.invalid>\r\n").unwrap();
    let expected = "To: a@b.example, =?utf-8?B?Wm/Dqw==?= <z@xn--9ca.example>\r\nCc:\r\n\
        Subject: =?utf-8?B?ZMOpasOg?= vu\r\nReferences: <1@x>\r\nMIME-Version: 1.0\r\n\
        Content-Type: application/pdf; name*=utf-8''r%C3%A9sum%C3%A9.pdf\r\n\r\nbody";
    assert_eq!(carried, expected);
}

#[test]
fn what_stays_behind_makes_no_mail_fail_and_what_is_carried_is_named() {
    let message =
        b"From: \x1b$Bx\x07\r\nReply-To: \x01\r\nX-Any: \xff\x02\r\nTo: a@b.example\r\n\r\nx";
    assert!(carry(&["a@b.example"], message).is_ok());
    let refused = |message: &[u8]| scrub(&submission(&["a@b.example"], message)).err();
    let at = |line| Some(NotCarried::at_line(MessageError::Value, line));
    assert_eq!(refused(b"To: a@b.example\r\nSubject: a\x07\r\n\r\nx"), at(2));
    let kept = [b"X-Fog-From: keep\r\n".as_slice(), message].concat();
    assert_eq!(refused(&kept), at(2));
}

#[test]
fn who_submits_is_told_what_stays_behind_that_people_write() {
    let left = |message: &[u8]| {
        let scrubbed = scrub(&submission(&["a@b.example"], message)).unwrap();
        scrubbed[0].left().to_vec()
    };
    assert_eq!(
        left(b"Reply-To: x@y\r\nUser-Agent: z\r\nimportance: high\r\n\r\n"),
        ["Reply-To", "Importance"]
    );
    assert!(left(b"X-Fog-From: keep\r\nFrom: x@y\r\nReply-To: x@y\r\n\r\n").is_empty());
}

#[test]
fn names_that_mean_another_machine_at_each_exit_are_refused_at_both_ends() {
    for recipient in ["root@localhost", "nobody@10.0.0.1", "x@b", "x@printer.local"] {
        assert_eq!(carry(&[recipient], b"\r\n").err(), Some(MessageError::Recipients));
    }
    // What a dishonest ingress makes of an honest one's fragment.
    let scrubbed = scrub(&submission(&["a@printer.locax"], b"\r\nx")).unwrap().remove(0);
    let mut octets = Fragment::cut(scrubbed, [2; 16], [1; 16]).encode().unwrap().to_vec();
    let at = octets.windows(7).position(|window| window == b"r.locax").unwrap();
    octets[at + 6] = b'l';
    let fragment = Fragment::decode(&octets).unwrap();
    let anonymous = Mailbox::parse("anonymous@exit.example").unwrap();
    assert_eq!(rebuild(&fragment, &anonymous, HOUR).err(), Some(MessageError::Recipients));
}

proptest! {
    #[test]
    fn a_body_arrives_octet_for_octet(lines in proptest::collection::vec("[ -~äß.]{0,80}", 0..30)) {
        let body = lines.join("\r\n");
        let message = format!("To: a@b\r\n\r\n{body}");
        let arrived = arrives(message.as_bytes());
        let (_, arrived_body) = arrived.split_once("\r\n\r\n").unwrap();
        prop_assert_eq!(arrived_body, body);
    }

    #[test]
    fn whatever_is_submitted_leaves_as_one_clean_message(message in "(X-A|To|Bcc|Received)?:?[a-z:\\r\\n \\t.]{0,80}") {
        if let Ok(deliveries) = carry(&["a@b.example"], message.as_bytes()) {
            let text = String::from_utf8(deliveries[0].message.clone()).unwrap();
            let bare = text.replace("\r\n", "");
            prop_assert!(!bare.contains(['\r', '\n', '\0']));
            let (header, _) = text.split_once("\r\n\r\n").unwrap();
            prop_assert!(!header.to_lowercase().contains("\r\nbcc:"));
            prop_assert!(!header.to_lowercase().contains("\r\nreceived:"));
        }
    }

    #[test]
    fn any_octets_are_decoded_without_harm(octets: Vec<u8>) {
        if let Ok(fragment) = Fragment::decode(&octets) {
            let _ = rebuild(&fragment, &Mailbox::parse("a@b.example").unwrap(), HOUR);
        }
    }
}

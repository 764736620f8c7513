//! The top-level header: taken apart, and written in one way.
//!
//! A line that is neither a field nor folded (RFC 5322, 2.2 and 3.6.8) is refused: it is never taken for the
//! start of the body, where it would escape the allow-list. What a field that is not carried says does not
//! matter, as long as it ends where its line does.

use core::fmt;

use encoding_rs::{Encoding, ISO_2022_JP, WINDOWS_1252};
use zeroize::Zeroizing;

use crate::parameters::Parameters;
use crate::quotes::Quotes;

/// Octets in a line without its CRLF, at most (RFC 5322, 2.1.1).
const MAX_LINE: usize = 998;
/// Where lines are folded if they can be.
const FOLD_AT: usize = 78;
/// Fields of a header that are looked at, and octets of all their values, at most: what is done with them takes
/// up to the square of their number.
const MAX_FIELDS: usize = 200;
const MAX_OCTETS: usize = 256 * 1024;

/// Why a message is not carried. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum MessageError {
    /// A CR or LF that is not part of CRLF.
    #[error("a CR or LF alone; lines end with both (curl does that with --crlf)")]
    BareLineEnd,
    /// A NUL octet.
    #[error("a NUL octet")]
    Nul,
    /// A line of more than 998 octets in the body, or a word of a header field that makes one.
    #[error("longer than 998 octets; wrap it, or send it as quoted-printable or base64")]
    LongLine,
    /// A header line that is neither a field nor folded.
    #[error("not a header field; an empty line ends the header")]
    Header,
    /// More fields that are looked at, or more octets of them, than a header may have.
    #[error("more than 200 header fields of the kinds that are carried, or more than 256 KiB")]
    LargeHeader,
    /// A carried field whose value is not one that it takes.
    #[error("not a value that this field takes")]
    Value,
    /// A field twice that may stand once, with different values.
    #[error("stands twice, with different values")]
    Repeated,
    /// `X-Fog-From: keep` without a From to keep.
    #[error("keep needs exactly one From field")]
    NoFrom,
    /// An `X-Fog-From` that is not `keep`.
    #[error("takes the value keep only")]
    FogFrom,
    /// An `X-Fog-Hold` that is not a number of minutes of one day.
    #[error("takes whole minutes, 0 to 1440")]
    FogHold,
    /// An `X-Fog-Hold` of more than the keys of nodes reach ahead.
    #[error("no node can hold mail for more than six hours")]
    HoldTooLong,
    /// A field of the network's own that is not known.
    #[error("no field of the network: X-Fog-From and X-Fog-Hold are")]
    UnknownWish,
    /// No recipient, or more than fit, or one that means another machine at each exit.
    #[error("no recipient, too many, or one at a name that means another machine at each exit")]
    Recipients,
}

/// Why a message is not carried, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct NotCarried {
    /// Why.
    pub why: MessageError,
    /// Where.
    pub place: Place,
}

/// A place in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere in particular.
    Message,
    /// A line, the first of which is 1.
    Line(u32),
    /// A field of this name.
    Field(&'static str),
}

impl NotCarried {
    /// It stands in a line.
    #[must_use]
    pub const fn at_line(why: MessageError, line: u32) -> Self {
        Self { why, place: Place::Line(line) }
    }

    pub(crate) const fn in_field(why: MessageError, name: &'static str) -> Self {
        Self { why, place: Place::Field(name) }
    }
}

impl From<MessageError> for NotCarried {
    fn from(why: MessageError) -> Self {
        Self { why, place: Place::Message }
    }
}

impl fmt::Display for NotCarried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why, place } = self;
        match place {
            Place::Message => write!(f, "{why}"),
            Place::Line(line) => write!(f, "line {line}: {why}"),
            Place::Field(name) => write!(f, "{name}: {why}"),
        }
    }
}

/// One field: its name, its value unfolded and trimmed, if it is text, and its line.
pub(crate) struct Field<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: Option<Zeroizing<String>>,
    pub(crate) line: u32,
}

/// A field whose value is not read yet.
struct Raw<'a> {
    name: &'a str,
    value: Zeroizing<Vec<u8>>,
    line: u32,
}

impl Raw<'_> {
    /// Adds a line that is folded. A buffer that grows by itself leaves copies of what it held.
    fn add_fold(&mut self, line: &[u8]) {
        let needed = self.value.len() + 1 + line.len();
        if needed > self.value.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed * 2));
            larger.extend_from_slice(&self.value);
            self.value = larger;
        }
        self.value.push(FOLD);
        self.value.extend_from_slice(line);
    }
}

/// Splits a message into those of its fields that are wanted and the octets of its body. A byte order mark
/// before it goes, and so does the line that begins a message in an mbox file.
pub(crate) fn parse<'a>(
    message: &'a [u8],
    wanted: impl Fn(&str) -> bool,
) -> Result<(Vec<Field<'a>>, &'a [u8]), NotCarried> {
    check_line_ends(message)?;
    let mut raw: Vec<Raw<'a>> = Vec::new();
    // Whether what is folded belongs to the last field of those, to one that is not wanted, or to none.
    let mut goes_on = None;
    let mut octets = 0_usize;
    let mut rest = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    let mut number = 0;
    while let Some((line, after)) = next_line(rest) {
        rest = after;
        number += 1;
        if number == 1 && (line.starts_with(b"From ") || line.starts_with(b">From ")) {
            continue;
        }
        if line.is_empty() {
            break;
        }
        let malformed = NotCarried::at_line(MessageError::Header, number);
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            match (goes_on, raw.last_mut()) {
                (Some(true), Some(field)) => {
                    octets += line.len();
                    if octets > MAX_OCTETS {
                        return Err(NotCarried::at_line(MessageError::LargeHeader, number));
                    }
                    field.add_fold(line);
                }
                (Some(_), _) => {}
                (None, _) => return Err(malformed),
            }
            continue;
        }
        let (name, value) = split_field(line).ok_or(malformed)?;
        goes_on = Some(wanted(name));
        if wanted(name) {
            octets += value.len();
            if octets > MAX_OCTETS || raw.len() == MAX_FIELDS {
                return Err(NotCarried::at_line(MessageError::LargeHeader, number));
            }
            raw.push(Raw { name, value: Zeroizing::new(value.to_vec()), line: number });
        }
    }
    check_lengths(rest, number)?;
    let charset = charset(&raw);
    let read = |raw: Raw<'a>| {
        let text = text(&raw.value, charset);
        let value = text.map(|text| Zeroizing::new(unfold(&text, is_structured(raw.name))));
        Field { name: raw.name, value, line: raw.line }
    };
    Ok((raw.into_iter().map(read).collect(), rest))
}

/// The name of a field and what follows its colon. Blanks before the colon are of old (RFC 5322, 4.5).
fn split_field(line: &[u8]) -> Option<(&str, &[u8])> {
    let at = line.iter().position(|octet| *octet == b':')?;
    let (name, value) = line.split_at_checked(at)?;
    let name = core::str::from_utf8(name).ok()?.trim_end_matches([' ', '\t']);
    let is_name = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
    is_name.then_some((name, value.get(1..)?))
}

/// The character set that the message says it is in.
fn charset(fields: &[Raw<'_>]) -> Option<&'static Encoding> {
    let of_type = fields.iter().find(|field| field.name.eq_ignore_ascii_case("Content-Type"))?;
    let value = Zeroizing::new(String::from_utf8_lossy(&of_type.value).into_owned());
    let label = Parameters::parse(&value).text("charset")?;
    Encoding::for_label(label.as_bytes()).filter(|charset| charset.is_ascii_compatible())
}

/// The text of a value. Octets that are not UTF-8 are of the message's own character set, or of that of old
/// Western mail; escape sequences are those of Japanese mail. `None` if it has control characters.
fn text(octets: &[u8], charset: Option<&'static Encoding>) -> Option<Zeroizing<String>> {
    let text = match core::str::from_utf8(octets) {
        Ok(_) if octets.contains(&ESCAPE) => {
            ISO_2022_JP.decode_without_bom_handling_and_without_replacement(octets)?
        }
        Ok(text) => text.into(),
        Err(_) => charset.unwrap_or(WINDOWS_1252).decode_without_bom_handling(octets).0,
    };
    let text = Zeroizing::new(text.into_owned());
    let is_text = |c: char| !c.is_control() || c == '\t' || c == char::from(FOLD);
    text.chars().all(is_text).then_some(text)
}

/// Begins an escape sequence of ISO-2022-JP (RFC 1468).
const ESCAPE: u8 = 0x1b;

/// Where a line was folded, while a value is put together. No value holds it: lines end with it.
const FOLD: u8 = b'\n';

/// Whether quotation marks in a field mean something.
fn is_structured(name: &str) -> bool {
    !name.eq_ignore_ascii_case("Subject")
}

/// One space where a line was folded, none at the ends, no tabs: how a program folds is its mark.
/// Inside a quoted string only the line end goes (RFC 5322, 2.2.3): a boundary is what it is.
fn unfold(value: &str, structured: bool) -> String {
    let heeds_quotes = structured && Quotes::are_pairs(value);
    let mut unfolded = String::with_capacity(value.len());
    let mut quotes = Quotes::default();
    let fold = char::from(FOLD);
    let mut rest = value.trim_matches([' ', '\t', fold]);
    while let Some(c) = rest.chars().next() {
        let is_white = |c: char| matches!(c, ' ' | '\t') || c == fold;
        if is_white(c) && !quotes.is_inside() {
            let after = rest.trim_start_matches(is_white);
            let (run, _) = rest.split_at(rest.len() - after.len());
            match run.contains(fold) {
                true => unfolded.push(' '),
                false => unfolded.extend(run.chars().map(|_| ' ')),
            }
            rest = after;
            continue;
        }
        if heeds_quotes {
            quotes.pass(c);
        }
        if c != fold {
            unfolded.push(c);
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    unfolded
}

/// Writes a field, folded before words so that lines stay short where they can; what stands between
/// quotation marks is never touched.
pub(crate) fn write(to: &mut Vec<u8>, name: &str, value: &str) -> Result<(), MessageError> {
    // A buffer that grows leaves copies of what it held.
    let mut line = Zeroizing::new(String::with_capacity(name.len() + 2 + value.len()));
    line.push_str(name);
    line.push(':');
    let heeds_quotes = is_structured(name) && Quotes::are_pairs(value);
    for word in (Words { rest: value, heeds_quotes }) {
        let is_first = line.len() == name.len() + 1;
        if line.len() + 1 + word.len() > FOLD_AT && !is_first {
            finish(to, &line)?;
            line.clear();
        }
        line.push(' ');
        line.push_str(word);
    }
    finish(to, &line)
}

/// Divides a value at single spaces outside quoted strings; runs of spaces stay inside a word.
struct Words<'a> {
    rest: &'a str,
    heeds_quotes: bool,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (mut quotes, mut before) = (Quotes::default(), ' ');
        for (at, c) in self.rest.char_indices() {
            let rest = self.rest.get(at + 1..).unwrap_or_default();
            let is_single = before != ' ' && !rest.starts_with(' ') && !rest.is_empty();
            if c == ' ' && is_single && !quotes.is_inside() {
                let word = self.rest.get(..at);
                self.rest = rest;
                return word;
            }
            if self.heeds_quotes {
                quotes.pass(c);
            }
            before = c;
        }
        Some(core::mem::take(&mut self.rest))
    }
}

fn finish(to: &mut Vec<u8>, line: &str) -> Result<(), MessageError> {
    if line.len() > MAX_LINE {
        return Err(MessageError::LongLine);
    }
    to.extend_from_slice(line.as_bytes());
    to.extend_from_slice(b"\r\n");
    Ok(())
}

/// Refuses what may end a line for one reader and not for another.
fn check_line_ends(message: &[u8]) -> Result<(), NotCarried> {
    let (mut before, mut line) = (0, 1);
    for &octet in message {
        match (before, octet) {
            (_, 0) => return Err(NotCarried::at_line(MessageError::Nul, line)),
            (b'\r', b'\n') => line += 1,
            (b'\r', _) | (_, b'\n') => {
                return Err(NotCarried::at_line(MessageError::BareLineEnd, line));
            }
            _ => {}
        }
        before = octet;
    }
    match before {
        b'\r' => Err(NotCarried::at_line(MessageError::BareLineEnd, line)),
        _ => Ok(()),
    }
}

/// Refuses a line that is too long in a body that comes after so many lines.
fn check_lengths(body: &[u8], before: u32) -> Result<(), NotCarried> {
    let (mut rest, mut number) = (body, before);
    while let Some((line, after)) = next_line(rest) {
        number += 1;
        if line.len() > MAX_LINE {
            return Err(NotCarried::at_line(MessageError::LongLine, number));
        }
        rest = after;
    }
    Ok(())
}

/// The next line without its CRLF; a last line may lack it.
fn next_line(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    if octets.is_empty() {
        return None;
    }
    match octets.windows(2).position(|pair| pair == b"\r\n") {
        Some(at) => {
            let (line, rest) = octets.split_at(at);
            Some((line, rest.get(2..).unwrap_or_default()))
        }
        None => Some((octets, &[])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folded_fields_are_one() {
        let message = b"Subject: a\r\n\t b\r\n \r\n  c\r\nTo:x@y\r\n\r\nbody\r\n\r\nmore";
        let (fields, body) = parse(message, |_| true).unwrap();
        let fields: Vec<_> =
            fields.iter().map(|f| (f.name, f.value.as_ref().unwrap().as_str())).collect();
        assert_eq!(fields, [("Subject", "a b c"), ("To", "x@y")]);
        assert_eq!(body, b"body\r\n\r\nmore");
    }

    #[test]
    fn a_boundary_is_unfolded_to_what_it_was_and_one_quotation_mark_quotes_nothing() {
        let value = |message: &str| {
            parse(message.as_bytes(), |_| true).unwrap().0[0].value.as_ref().unwrap().to_string()
        };
        let folded = "Content-Type: multipart/mixed;\r\n\tboundary=\"a\r\n  b\t c\"\r\n\r\n";
        assert_eq!(value(folded), "multipart/mixed; boundary=\"a  b\t c\"");
        let words = ["word"; 300].join("\r\n\t");
        for subject in [format!("5\" disk {words}"), format!("a \" b \" {words}")] {
            let read = value(&format!("Subject: {subject}\r\n\r\n"));
            assert_eq!(read, subject.replace("\r\n\t", " "));
            let mut written = Vec::new();
            write(&mut written, "Subject", &read).unwrap();
            assert_eq!(value(&String::from_utf8(written).unwrap()), read);
        }
    }

    #[test]
    fn malformed_headers_do_not_slide_into_the_body_and_are_named_by_their_line() {
        let refused = |message: &[u8]| parse(message, |_| true).map(|_| ()).unwrap_err();
        let at = NotCarried::at_line;
        for (bad, line) in [
            (&b" folded: first\r\n\r\n"[..], 1),
            (b"no colon\r\n\r\n", 1),
            (b": empty\r\n\r\n", 1),
            (b"To: a\r\nReceived\r\n by x: y\r\n\r\n", 2),
            (b"To: a\r\nHello there: x\r\n\r\n", 2),
            (b"To: a\r\nT\xc3\xb6: a\r\n\r\n", 2),
            (b"From x\r\nTo: a\r\nFrom y\r\n\r\n", 3),
        ] {
            assert_eq!(refused(bad), at(MessageError::Header, line));
        }
        for (bad, why) in [
            (&b"A: b\r\nTo: a\nReceived: x\r\n\r\n"[..], at(MessageError::BareLineEnd, 2)),
            (b"To: a\rReceived: x\r\n\r\n", at(MessageError::BareLineEnd, 1)),
            (b"To: a\r\n\r\nend\r", at(MessageError::BareLineEnd, 3)),
            (b"To: a\0\r\n\r\n", at(MessageError::Nul, 1)),
        ] {
            assert_eq!(refused(bad), why);
        }
        let long = [b"\r\n".as_slice(), &[b'x'; 999]].concat();
        assert_eq!(refused(&long), at(MessageError::LongLine, 2));
        assert!(parse(&long[..1000], |_| true).is_ok());
    }

    #[test]
    fn what_is_not_wanted_may_hold_anything_and_what_comes_before_a_header_goes() {
        let only = |message: &[u8]| {
            let (fields, body) = parse(message, |name| name == "To").unwrap();
            assert_eq!(body, b"x");
            fields
                .iter()
                .map(|field| format!("{} {}", field.line, field.value.as_ref().unwrap().as_str()))
                .collect::<Vec<_>>()
        };
        let long = [b"X-Long: ".as_slice(), &[b'y'; 2000], b"\r\nTo: a\r\n\r\nx"].concat();
        let many = format!("{}To: a\r\n\r\nx", "A: b\r\n".repeat(1000));
        for (message, expected) in [
            (&b"X-M: \xe9\x07\r\n \xff folded\r\nTo: a\r\n\r\nx"[..], "3 a"),
            (b"\xef\xbb\xbfTo: a\r\n\r\nx", "1 a"),
            (b"From me Mon Sep 17 00:00:00 2001\r\nTo: a\r\n\r\nx", "2 a"),
            (b"To : a\r\n\r\nx", "1 a"),
            (&long, "2 a"),
            (many.as_bytes(), "1001 a"),
        ] {
            assert_eq!(only(message), [expected]);
        }
    }

    #[test]
    fn a_header_that_is_looked_at_is_bounded_and_no_other() {
        let read = |message: &str| {
            let fields =
                parse(message.as_bytes(), |name| name == "To").map(|(fields, _)| fields.len());
            fields.map_err(|refused| (refused.why, refused.place))
        };
        let large = |line| Err((MessageError::LargeHeader, Place::Line(line)));
        assert_eq!(read(&"To: a\r\nA: b\r\n".repeat(200)), Ok(200));
        assert_eq!(read(&"To: a\r\n".repeat(201)), large(201));
        let folded =
            |lines| format!("To:\r\n{}", format!(" {}\r\n", "x".repeat(1023)).repeat(lines));
        assert_eq!(read(&folded(256)), Ok(1));
        assert_eq!(read(&folded(257)), large(258));
        assert_eq!(read(&format!("To:{}\r\n", "x".repeat(MAX_OCTETS + 1))), large(1));
    }

    #[test]
    fn text_of_other_character_sets_is_read() {
        let subject = |message: &[u8]| {
            let (fields, _) = parse(message, |_| true).unwrap();
            let subject = fields.iter().find(|field| field.name == "Subject");
            subject.unwrap().value.as_ref().map(|value| value.to_string())
        };
        for (message, text) in [
            ("Subject: d\u{e9}j\u{e0}\r\n\r\n".as_bytes(), "d\u{e9}j\u{e0}"),
            (b"Subject: d\xe9j\xe0\r\n\r\n", "d\u{e9}j\u{e0}"),
            (b"Subject: \x1b$B$3$s\x1b(B!\r\n\r\n", "\u{3053}\u{3093}!"),
            (
                b"Content-Type: text/plain; charset=KOI8-R\r\nSubject: \xc4\xc1\r\n\r\n",
                "\u{434}\u{430}",
            ),
            (b"Content-Type: text/plain; charset=utf-16\r\nSubject: \xe9\r\n\r\n", "\u{e9}"),
        ] {
            assert_eq!(subject(message).as_deref(), Some(text));
        }
    }

    #[test]
    fn quoted_strings_and_runs_of_spaces_stay() {
        let long = "x".repeat(60);
        for value in [
            "multipart/signed; boundary=\"=_a  b c\"",
            "a  b   c",
            "text/plain; name=\"a \\\"  b\"; x=y",
            &format!("{long} \"{long} {long}\" {long}"),
            "odd \" quote  and more",
        ] {
            let mut written = Vec::new();
            write(&mut written, "Content-Type", value).unwrap();
            let (fields, _) = parse(&written, |_| true).unwrap();
            assert_eq!(fields[0].value.as_ref().unwrap().as_str(), value);
        }
    }

    #[test]
    fn control_characters_are_no_text() {
        for message in [&b"Subject: a\x0bb\r\n\r\n"[..], b"Subject: \x1b$Bx\r\n\r\n"] {
            assert!(parse(message, |_| true).unwrap().0[0].value.is_none());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(words in proptest::collection::vec("[!#-~]{1,60}", 0..40)) {
            let value = words.join(" ");
            let mut written = Vec::new();
            write(&mut written, "Subject", &value).unwrap();
            written.extend_from_slice(b"\r\nbody");
            let (fields, body) = parse(&written, |_| true).unwrap();
            prop_assert_eq!(fields.len(), 1);
            prop_assert_eq!(fields[0].value.as_ref().unwrap().as_str(), value);
            prop_assert_eq!(body, b"body");
            for line in written.split(|octet| *octet == b'\n') {
                prop_assert!(line.len() <= 80);
            }
        }

        #[test]
        fn any_octets_are_parsed_without_harm(octets: Vec<u8>) {
            let _ = parse(&octets, |_| true);
        }

        #[test]
        fn any_text_is_parsed_without_harm(text in "[A-C:\\r\\n \\t\\x00é]{0,60}") {
            if let Ok((fields, body)) = parse(text.as_bytes(), |_| true) {
                prop_assert!(text.as_bytes().ends_with(body));
                for value in fields.into_iter().filter_map(|field| field.value) {
                    prop_assert!(!value.contains(['\r', '\n', '\0']));
                }
            }
        }
    }
}

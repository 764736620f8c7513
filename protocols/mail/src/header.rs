//! The top-level header: taken apart strictly, and written in one way.
//!
//! What is not a well-formed header (RFC 5322, 2.2 and 3.6.8) is refused whole. A malformed line is
//! never taken for the start of the body, where it would escape the allow-list.

use zeroize::{Zeroize as _, Zeroizing};

use crate::quotes::Quotes;

/// Octets in a line without its CRLF, at most (RFC 5322, 2.1.1).
const MAX_LINE: usize = 998;
/// Where lines are folded if they can be.
const FOLD_AT: usize = 78;
const MAX_FIELDS: usize = 200;

/// Why a message is not carried. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum MessageError {
    /// A CR or LF that is not part of CRLF.
    #[error("bare CR or LF")]
    BareLineEnd,
    /// A NUL octet.
    #[error("NUL octet")]
    Nul,
    /// A line of more than 998 octets.
    #[error("line longer than 998 octets")]
    LongLine,
    /// A header line that is neither a field nor folded.
    #[error("malformed header")]
    Header,
    /// More than 200 header fields.
    #[error("too many header fields")]
    TooManyFields,
    /// A field twice that may stand once.
    #[error("a header field stands twice that may stand once")]
    Repeated,
    /// A header that is not UTF-8.
    #[error("header is not UTF-8")]
    NotUtf8,
    /// `X-Fog-From: keep` without a From to keep.
    #[error("X-Fog-From: keep needs exactly one From field")]
    NoFrom,
    /// An `X-Fog-From` that is not `keep`.
    #[error("X-Fog-From takes the value keep only")]
    FogFrom,
    /// An `X-Fog-Hold` that is not a number of minutes of one day.
    #[error("X-Fog-Hold takes whole minutes, 0 to 1440")]
    FogHold,
    /// An `X-Fog-Hold` of more than the keys of nodes reach ahead.
    #[error("X-Fog-Hold: no node can hold mail for more than six hours")]
    HoldTooLong,
    /// No recipient, or more than fit.
    #[error("no recipient, or too many")]
    Recipients,
}

/// One field: its name, and its value unfolded and trimmed.
pub(crate) struct Field<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: String,
}

/// Splits a message into its fields and the octets of its body.
pub(crate) fn parse(message: &[u8]) -> Result<(Vec<Field<'_>>, &[u8]), MessageError> {
    check_lines(message)?;
    let mut fields: Vec<Field<'_>> = Vec::new();
    let mut rest = message;
    while let Some((line, after)) = next_line(rest) {
        rest = after;
        if line.is_empty() {
            break;
        }
        let line = core::str::from_utf8(line).map_err(|_| MessageError::NotUtf8)?;
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(MessageError::Header);
        }
        if line.starts_with([' ', '\t']) {
            let field = fields.last_mut().ok_or(MessageError::Header)?;
            field.value.push(FOLD);
            field.value.push_str(line);
        } else {
            if fields.len() == MAX_FIELDS {
                return Err(MessageError::TooManyFields);
            }
            let (name, value) = line.split_once(':').ok_or(MessageError::Header)?;
            if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic()) {
                return Err(MessageError::Header);
            }
            fields.push(Field { name, value: value.to_owned() });
        }
    }
    for field in &mut fields {
        let unfolded = unfold(&field.value, is_structured(field.name));
        field.value.zeroize();
        field.value = unfolded;
    }
    Ok((fields, rest))
}

/// Where a line was folded, while a value is put together. No value holds it: control characters
/// are refused.
const FOLD: char = '\n';

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
    let mut rest = value.trim_matches([' ', '\t', FOLD]);
    while let Some(c) = rest.chars().next() {
        let is_white = |c: char| matches!(c, ' ' | '\t' | FOLD);
        if is_white(c) && !quotes.is_inside() {
            let after = rest.trim_start_matches(is_white);
            let (run, _) = rest.split_at(rest.len() - after.len());
            match run.contains(FOLD) {
                true => unfolded.push(' '),
                false => unfolded.extend(run.chars().map(|_| ' ')),
            }
            rest = after;
            continue;
        }
        if heeds_quotes {
            quotes.pass(c);
        }
        if c != FOLD {
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

fn check_lines(message: &[u8]) -> Result<(), MessageError> {
    let mut length = 0_usize;
    let mut before = 0;
    for &octet in message {
        match (before, octet) {
            (_, 0) => return Err(MessageError::Nul),
            (b'\r', b'\n') => length = 0,
            (b'\r', _) | (_, b'\n') => return Err(MessageError::BareLineEnd),
            (_, b'\r') => {}
            _ => {
                length += 1;
                if length > MAX_LINE {
                    return Err(MessageError::LongLine);
                }
            }
        }
        before = octet;
    }
    if before == b'\r' { Err(MessageError::BareLineEnd) } else { Ok(()) }
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
        let (fields, body) = parse(message).unwrap();
        let fields: Vec<_> = fields.iter().map(|f| (f.name, f.value.as_str())).collect();
        assert_eq!(fields, [("Subject", "a b c"), ("To", "x@y")]);
        assert_eq!(body, b"body\r\n\r\nmore");
    }

    #[test]
    fn a_boundary_is_unfolded_to_what_it_was_and_one_quotation_mark_quotes_nothing() {
        let value = |message: &str| parse(message.as_bytes()).unwrap().0[0].value.clone();
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
    fn malformed_headers_do_not_slide_into_the_body() {
        for bad in [
            &b" folded: first\r\n\r\n"[..],
            b"no colon\r\n\r\n",
            b"Received : x\r\n\r\n",
            b": empty\r\n\r\n",
            b"To: a\r\nReceived\r\n by x: y\r\n\r\n",
            b"Sub\xffject: a\r\n\r\n",
            b"To: a\x0bb\r\n\r\n",
            b"T\xc3\xb6: a\r\n\r\n",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        for (bad, why) in [
            (&b"To: a\nReceived: x\r\n\r\n"[..], MessageError::BareLineEnd),
            (b"To: a\rReceived: x\r\n\r\n", MessageError::BareLineEnd),
            (b"To: a\r\n\r\nend\r", MessageError::BareLineEnd),
            (b"To: a\0\r\n\r\n", MessageError::Nul),
        ] {
            assert_eq!(parse(bad).err(), Some(why));
        }
        let long = [b"\r\n".as_slice(), &[b'x'; 999]].concat();
        assert_eq!(parse(&long).err(), Some(MessageError::LongLine));
        assert!(parse(&long[..1000]).is_ok());
        let many = "A: b\r\n".repeat(201);
        assert_eq!(parse(many.as_bytes()).err(), Some(MessageError::TooManyFields));
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
            let (fields, _) = parse(&written).unwrap();
            assert_eq!(fields[0].value, value);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(words in proptest::collection::vec("[!#-~]{1,60}", 0..40)) {
            let value = words.join(" ");
            let mut written = Vec::new();
            write(&mut written, "Subject", &value).unwrap();
            written.extend_from_slice(b"\r\nbody");
            let (fields, body) = parse(&written).unwrap();
            prop_assert_eq!(fields.len(), 1);
            prop_assert_eq!(&fields[0].value, &value);
            prop_assert_eq!(body, b"body");
            for line in written.split(|octet| *octet == b'\n') {
                prop_assert!(line.len() <= 80);
            }
        }

        #[test]
        fn any_octets_are_parsed_without_harm(octets: Vec<u8>) {
            let _ = parse(&octets);
        }

        #[test]
        fn any_text_is_parsed_without_harm(text in "[A-C:\\r\\n \\t\\x00é]{0,60}") {
            if let Ok((fields, body)) = parse(text.as_bytes()) {
                prop_assert!(text.as_bytes().ends_with(body));
                for field in fields {
                    prop_assert!(!field.value.contains(['\r', '\n', '\0']));
                }
            }
        }
    }
}

//! Values of the form of Content-Type (RFC 2045, 5.1; RFC 2231): taken apart, and written in one
//! way.
//!
//! Order, case, quotation marks and the dividing of long values are a program's mark, as much as a
//! parameter that only it writes. What is written here depends on none of them.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::quotes::Quotes;

/// A value and its parameters.
pub(crate) struct Parameters {
    /// What stands before the first parameter, without comments, in lower case.
    pub(crate) main: String,
    /// Names in lower case, `*` included, with what follows the `=`; the first of each.
    found: BTreeMap<String, Zeroizing<String>>,
}

/// What a parameter says.
enum Value {
    Plain(String),
    /// As RFC 2231 has it, without the language.
    Extended {
        charset: String,
        octets: Vec<u8>,
    },
}

impl Parameters {
    pub(crate) fn parse(value: &str) -> Self {
        let plain = Zeroizing::new(without_comments(value));
        let mut parts = split_at_semicolons(&plain);
        let main = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let mut found = BTreeMap::new();
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = Zeroizing::new(value.trim().to_owned());
            found.entry(name.trim().to_ascii_lowercase()).or_insert(value);
        }
        Self { main, found }
    }

    /// Adds those of these names, in this order. Of a file's name only the last part of its path.
    pub(crate) fn write(&self, to: &mut String, carried: &[&str]) {
        for name in carried {
            match self.value(name) {
                // RFC 2231: names of files beyond ASCII. Of others nobody knows what they mean.
                Some(Value::Plain(text)) if !text.is_ascii() && is_file(name) => {
                    to.push_str(&format!("; {name}*=utf-8''{}", percent_encoded(text.as_bytes())));
                }
                Some(Value::Plain(text)) if !text.is_ascii() => {}
                Some(Value::Plain(mut text)) => {
                    if is_keyword(name) {
                        text.make_ascii_lowercase();
                    }
                    to.push_str(&format!("; {name}={}", quoted(&text)));
                }
                Some(Value::Extended { charset, octets }) => {
                    to.push_str(&format!("; {name}*={charset}''{}", percent_encoded(&octets)));
                }
                None => {}
            }
        }
    }

    /// A parameter's text, however it is written.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::Plain(text) => Some(text),
            Value::Extended { octets, .. } => String::from_utf8(octets).ok(),
        }
    }

    /// Whether a parameter that has no other form is beyond ASCII: a boundary is what it is.
    pub(crate) fn has_odd_boundary(&self) -> bool {
        self.text("boundary").is_some_and(|boundary| !boundary.is_ascii())
    }

    fn value(&self, name: &str) -> Option<Value> {
        let value = self.extended(name).or_else(|| self.plain(name).map(Value::Plain))?;
        if !is_file(name) {
            return Some(value);
        }
        Some(match value {
            Value::Plain(path) => {
                let file = path.rsplit(['/', '\\']).next().unwrap_or_default();
                Value::Plain(file.to_owned())
            }
            Value::Extended { charset, octets } => {
                let file = octets.rsplit(|octet| matches!(octet, b'/' | b'\\')).next();
                Value::Extended { charset, octets: file.unwrap_or_default().to_vec() }
            }
        })
    }

    fn plain(&self, name: &str) -> Option<String> {
        let parts = self.parts(name);
        let whole = |parts: Vec<(String, bool)>| parts.into_iter().map(|(text, _)| text).collect();
        self.content(name, name).or_else(|| parts.map(whole))
    }

    /// The value as `name*`, or as `name*0*` with what continues it.
    fn extended(&self, name: &str) -> Option<Value> {
        let whole = self.content(name, &format!("{name}*")).map(|text| vec![(text, true)]);
        let parts = whole.or_else(|| self.parts(name))?;
        let mut parts = parts.into_iter();
        let (first, true) = parts.next()? else { return None };
        let mut fields = first.splitn(3, '\'');
        let charset = fields.next()?.to_ascii_lowercase();
        let (_language, text) = (fields.next()?, fields.next()?);
        if !charset.bytes().all(is_attribute_octet) {
            return None;
        }
        let mut octets = percent_decoded(text);
        for (text, is_extended) in parts {
            match is_extended {
                true => octets.extend(percent_decoded(&text)),
                false => octets.extend(text.into_bytes()),
            }
        }
        Some(Value::Extended { charset, octets })
    }

    /// The parts of a value that was divided, each with whether it is percent-encoded.
    fn parts(&self, name: &str) -> Option<Vec<(String, bool)>> {
        let part = |number: usize| {
            let plain = self.content(name, &format!("{name}*{number}")).map(|text| (text, false));
            let extended = || self.content(name, &format!("{name}*{number}*"));
            plain.or_else(|| extended().map(|text| (text, true)))
        };
        let parts: Vec<_> = (0..self.found.len()).map_while(part).collect();
        if parts.is_empty() { None } else { Some(parts) }
    }

    /// The text of one parameter, without quotation marks. What follows it is dropped, but for a
    /// file's name, which many programs write with spaces and without quotation marks.
    fn content(&self, name: &str, written: &str) -> Option<String> {
        let value = self.found.get(written)?;
        let Some(rest) = value.strip_prefix('"') else {
            let end = value.find([' ', '\t']).filter(|_| !is_file(name));
            return value.get(..end.unwrap_or(value.len())).map(str::to_owned);
        };
        let mut text = String::with_capacity(rest.len());
        let mut rest = rest.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '"' => break,
                // A path of Windows, whose backslashes escape nothing, is as common as one in which
                // they are escaped.
                '\\' if !is_file(name) => text.extend(rest.next()),
                '\\' => text.push(rest.next_if(|next| matches!(next, '"' | '\\')).unwrap_or(c)),
                _ => text.push(c),
            }
        }
        Some(text)
    }
}

fn is_file(name: &str) -> bool {
    matches!(name, "name" | "filename")
}

/// Whether upper and lower case mean the same in a parameter.
fn is_keyword(name: &str) -> bool {
    matches!(name, "charset" | "protocol" | "micalg" | "format" | "delsp" | "type")
}

/// Whether this is a token (RFC 2045, 5.1).
pub(crate) fn is_token(text: &str) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_graphic() && !br#"()<>@,;:\"/[]?="#.contains(&octet);
    !text.is_empty() && text.bytes().all(is_plain)
}

/// Of what a percent-encoded value consists (RFC 2231, 7).
fn is_attribute_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$&+-.^_`{|}~".contains(&octet)
}

fn quoted(text: &str) -> String {
    match is_token(text) {
        true => text.to_owned(),
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

fn percent_encoded(octets: &[u8]) -> String {
    let encode = |octet: &u8| match is_attribute_octet(*octet) {
        true => char::from(*octet).to_string(),
        false => format!("%{octet:02X}"),
    };
    octets.iter().map(encode).collect()
}

/// A percent sign that begins no octet stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().and_then(|two| core::str::from_utf8(two).ok());
        let digits = digits.filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(octet) if *first == b'%' => {
                octets.push(octet);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                octets.push(*first);
                rest = after;
            }
        }
    }
    octets
}

/// A value without its comments (RFC 5322, 3.2.2).
pub(crate) fn without_comments(value: &str) -> String {
    let (mut depth, mut quotes) = (0_usize, Quotes::default());
    let mut kept = String::with_capacity(value.len());
    for c in value.chars() {
        let bounds = !quotes.is_escaped() && !quotes.is_inside();
        depth += usize::from(bounds && c == '(');
        if depth == 0 {
            kept.push(c);
            quotes.pass(c);
        } else {
            quotes.pass_in_comment(c);
        }
        if bounds && c == ')' {
            depth = depth.saturating_sub(1);
        }
    }
    kept
}

fn split_at_semicolons(value: &str) -> impl Iterator<Item = &str> {
    let mut quotes = Quotes::default();
    value.split(move |c: char| {
        let ends = c == ';' && !quotes.is_inside();
        quotes.pass(c);
        ends
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTED: [&str; 3] = ["charset", "boundary", "name"];

    fn written(value: &str) -> String {
        let parsed = Parameters::parse(value);
        let mut written = parsed.main.clone();
        parsed.write(&mut written, &LISTED);
        written
    }

    #[test]
    fn parameters_that_are_not_listed_go_and_so_do_paths_and_comments() {
        for (value, expected) in [
            (
                "Text/Plain; boundary=b; charset=\"UTF-8\"; x-app=\"M;A/1.0\"",
                "text/plain; charset=utf-8; boundary=b",
            ),
            ("text/plain (by M) ; CHARSET = \"a\\\"b\"", "text/plain; charset=\"a\\\"b\""),
            ("a/b; charset=utf-8 M; charset=M", "a/b; charset=utf-8"),
            ("a/b; boundary=\"x y\" M; boundary*9=M", "a/b; boundary=\"x y\""),
            ("a/b; name=\"C:\\Users\\alice\\x.txt\"", "a/b; name=x.txt"),
            ("a/b; name=\"C:\\\\Users\\\\alice\\\\x.txt\"", "a/b; name=x.txt"),
            ("a/b; name=\"a\\\"b.txt\"", "a/b; name=\"a\\\"b.txt\""),
            ("a/b; name=/home/alice/x y.txt; odd", "a/b; name=\"x y.txt\""),
            ("a/b; name*=UTF-8'de-CH'%2Fhome%2Falice%2fx%20%c3%b6", "a/b; name*=utf-8''x%20%C3%B6"),
            ("a/b; name*0=\"/home/al\"; name*1=\"ice/x.txt\"; named=z", "a/b; name=x.txt"),
            ("a/b; name*1*=%2Fx; name*2=\"/y z\"; name*0*=utf-8''%2Fh", "a/b; name*=utf-8''y%20z"),
            ("a/b; name=x; name*=utf-8''y", "a/b; name*=utf-8''y"),
            ("a/b; name=x; name*=MARK ER'M'y", "a/b; name=x"),
            ("text/plain", "text/plain"),
        ] {
            assert_eq!(written(value), expected);
        }
        assert_eq!(without_comments("1.0 (Mac (\\) OS) X) "), "1.0  ");
    }

    proptest! {
        #[test]
        fn what_is_written_is_written_the_same_again(
            value in "[a-b]/c(;[ ]?(name|charset|boundary)[*]?[01]?[*]?=[a\"'\\\\/%25;() *ö-]{0,12}){0,4}",
        ) {
            let once = written(&value);
            prop_assert_eq!(written(&once), once);
        }
    }
}

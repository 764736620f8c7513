//! Header fields in ASCII: text beyond it becomes encoded words (RFC 2047), and domains become A-labels.
//!
//! A field in UTF-8 needs SMTPUTF8 of every server on its way, and a mail that meets one without it is lost
//! where nobody is told. Encoded words every server takes.

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::address::Domain;
use crate::quotes::Quotes;

/// How much longer a value gets at most: a word of one character of two octets, and its space, become 16 and
/// theirs. A buffer that grows leaves copies of what it held.
const GROWS: usize = 8;
/// Octets of text in one encoded word: with `=?utf-8?B?` and `?=` it has 72 of the 75 allowed (RFC 2047, 2).
const WORD_OCTETS: usize = 45;

/// Text as it stands in a Subject: runs of words beyond ASCII as encoded words, with the spaces between them.
pub(crate) fn text(value: &str) -> Zeroizing<String> {
    if value.is_ascii() {
        return Zeroizing::new(value.to_owned());
    }
    let words: Vec<&str> = value.split(' ').collect();
    let mut written = Zeroizing::new(String::with_capacity(value.len() * GROWS));
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if at > 0 {
            written.push(' ');
        }
        if word.is_ascii() {
            written.push_str(word);
            at += 1;
            continue;
        }
        // A run ends with its last word beyond ASCII; between two spaces is a word of no octets.
        let after = words.get(at..).unwrap_or_default();
        let in_run = after.iter().take_while(|word| word.is_empty() || !word.is_ascii()).count();
        let run = after.get(..in_run).unwrap_or_default();
        let count = run.iter().rposition(|word| !word.is_empty()).map_or(1, |last| last + 1);
        // Readers drop spaces between encoded words: those beside one that is there already go into the run.
        let before = words.get(..at).unwrap_or_default();
        let spaces_before = spaces_to_encoded(before.iter().rev());
        let spaces_after = spaces_to_encoded(after.iter().skip(count));
        let mut run = Zeroizing::new(String::with_capacity(value.len() + spaces_before));
        run.push_str(&" ".repeat(spaces_before));
        run.push_str(&Zeroizing::new(after.get(..count).unwrap_or_default().join(" ")));
        run.push_str(&" ".repeat(spaces_after));
        written.push_str(&encoded(&run));
        at += count;
    }
    written
}

/// The spaces up to the next word, if that is an encoded one.
fn spaces_to_encoded<'a>(words: impl Iterator<Item = &'a &'a str>) -> usize {
    let mut words = (1..).zip(words).skip_while(|(_, word)| word.is_empty());
    words.next().filter(|(_, word)| word.starts_with("=?")).map_or(0, |(spaces, _)| spaces)
}

/// Encoded words of a text.
fn encoded(text: &str) -> Zeroizing<String> {
    let mut written = Zeroizing::new(String::with_capacity(text.len() * 2 + 16));
    let mut rest = text;
    while !rest.is_empty() {
        let fits = (0..=WORD_OCTETS.min(rest.len())).rev().find(|at| rest.is_char_boundary(*at));
        let Some((word, after)) = fits.and_then(|at| rest.split_at_checked(at)) else { break };
        if !written.is_empty() {
            written.push(' ');
        }
        written.push_str("=?utf-8?B?");
        BASE64.encode_append(word.as_bytes(), &mut written);
        written.push_str("?=");
        rest = after;
    }
    written
}

/// The words of a value that are in ASCII: names of messages and of groups.
pub(crate) fn words(value: &str) -> Zeroizing<String> {
    let words: Vec<_> = value.split(' ').filter(|word| word.is_ascii()).collect();
    Zeroizing::new(words.join(" "))
}

/// A list of addresses (RFC 5322, 3.4): of those beyond ASCII the names become encoded words, the domains
/// A-labels, and comments go. A local part beyond ASCII stays: it has no other form.
pub(crate) fn addresses(value: &str) -> Zeroizing<String> {
    if value.is_ascii() {
        return Zeroizing::new(value.to_owned());
    }
    let mut written = Zeroizing::new(String::with_capacity(value.len() * GROWS));
    for (item, end) in items(value) {
        let item = item.trim();
        match item.is_ascii() {
            true => written.push_str(item),
            false => written.push_str(&address(item, end == Some(':'))),
        }
        if let Some(end) = end {
            written.push(end);
            written.push(' ');
        }
    }
    let length = written.trim_end().len();
    written.truncate(length);
    written
}

/// Divides a list where an address or the name of a group ends, with what ends it.
fn items(value: &str) -> Vec<(&str, Option<char>)> {
    let (mut quotes, mut depth, mut is_angled) = (Quotes::default(), 0_usize, false);
    let (mut items, mut from) = (Vec::new(), 0);
    for (at, c) in value.char_indices() {
        let is_plain = !quotes.is_inside() && !quotes.is_escaped();
        match c {
            '(' if is_plain => depth += 1,
            ')' if is_plain => depth = depth.saturating_sub(1),
            '<' if is_plain && depth == 0 => is_angled = true,
            '>' if is_plain && depth == 0 => is_angled = false,
            ',' | ';' | ':' if is_plain && depth == 0 && !is_angled => {
                items.push((value.get(from..at).unwrap_or_default(), Some(c)));
                from = at + 1;
            }
            _ => {}
        }
        match depth {
            0 => quotes.pass(c),
            _ => quotes.pass_in_comment(c),
        }
    }
    items.push((value.get(from..).unwrap_or_default(), None));
    items
}

fn address(item: &str, is_group: bool) -> Zeroizing<String> {
    let plain = Zeroizing::new(crate::parameters::without_comments(item));
    let angle = outside_quotes(&plain, '<').filter(|_| !is_group);
    let mut written = Zeroizing::new(String::with_capacity(item.len() * GROWS));
    match angle.and_then(|at| plain.split_at_checked(at)) {
        _ if is_group => written.push_str(&encoded(&unquoted(plain.trim()))),
        Some((name, angled)) => {
            let name = unquoted(name.trim());
            match name.is_ascii() {
                true => {
                    written.push_str(plain.get(..plain.len() - angled.len()).unwrap_or_default())
                }
                false => {
                    written.push_str(&encoded(&name));
                    written.push(' ');
                }
            }
            let inner = angled.trim().trim_start_matches('<').trim_end_matches('>');
            written.push('<');
            written.push_str(&with_labels(inner));
            written.push('>');
        }
        None => written.push_str(&with_labels(plain.trim())),
    }
    written
}

/// An address whose domain is in A-labels, if it is one that has them.
fn with_labels(address: &str) -> Zeroizing<String> {
    let split = address.rsplit_once('@').and_then(|(local, domain)| {
        let domain = Domain::parse(domain.trim()).ok()?;
        Some(format!("{local}@{}", domain.as_str()))
    });
    Zeroizing::new(split.unwrap_or_else(|| address.to_owned()))
}

/// A name without the quotation marks and backslashes that stand for others.
fn unquoted(name: &str) -> Zeroizing<String> {
    let mut quotes = Quotes::default();
    let mut text = Zeroizing::new(String::with_capacity(name.len()));
    for c in name.chars() {
        let is_mark = (c == '"' || c == '\\') && !quotes.is_escaped();
        if !is_mark {
            text.push(c);
        }
        quotes.pass(c);
    }
    text
}

fn outside_quotes(value: &str, wanted: char) -> Option<usize> {
    let mut quotes = Quotes::default();
    let found = value.char_indices().find(|(_, c)| {
        let is_it = *c == wanted && !quotes.is_inside();
        quotes.pass(*c);
        is_it
    });
    found.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a reader makes of encoded words of this kind.
    fn read(text: &str) -> String {
        let (mut read, mut spaces, mut was_encoded) = (String::new(), String::new(), false);
        for (number, word) in text.split(' ').enumerate() {
            if number > 0 {
                spaces.push(' ');
            }
            let inner = word.strip_prefix("=?utf-8?B?").and_then(|rest| rest.strip_suffix("?="));
            if word.is_empty() && was_encoded {
                continue;
            }
            if !(was_encoded && inner.is_some()) {
                read.push_str(&spaces);
            }
            spaces.clear();
            match inner {
                Some(inner) => {
                    let octets = BASE64.decode(inner.as_bytes()).unwrap();
                    read.push_str(core::str::from_utf8(&octets).unwrap());
                }
                None => read.push_str(word),
            }
            was_encoded = inner.is_some() || (word.is_empty() && was_encoded);
        }
        read + &spaces
    }

    #[test]
    fn addresses_beyond_ascii_keep_their_meaning() {
        for (value, expected) in [
            ("a@b.example, \"x, y\" <c@d.example>", "a@b.example, \"x, y\" <c@d.example>"),
            ("Zoë <z@b.example>", "=?utf-8?B?Wm/Dqw==?= <z@b.example>"),
            (
                "\"Zoë, \\\"x\\\"\" <z@b.example>, a@b",
                "=?utf-8?B?Wm/DqywgIngi?= <z@b.example>, a@b",
            ),
            ("a@exämple.example", "a@xn--exmple-cua.example"),
            ("Ann <a@exämple.example>", "Ann <a@xn--exmple-cua.example>"),
            ("a@b.example (Zoë, at home)", "a@b.example"),
            (
                "Größen: a@b.example, c@d.example;",
                "=?utf-8?B?R3LDtsOfZW4=?=: a@b.example, c@d.example;",
            ),
            ("zoë@b.example", "zoë@b.example"),
            ("Zoë <zoë@exämple.example>", "=?utf-8?B?Wm/Dqw==?= <zoë@xn--exmple-cua.example>"),
        ] {
            assert_eq!(addresses(value).as_str(), expected);
        }
        assert_eq!(words("<1@x> <é@x> <2@x>").as_str(), "<1@x> <2@x>");
    }

    #[test]
    fn spaces_beside_words_that_are_encoded_already_are_read() {
        let written = text("=?utf-8?B?w6k=?= è =?utf-8?B?w6k=?= é é x");
        assert!(written.is_ascii());
        assert_eq!(read(&written), "é è é é é x");
    }

    proptest! {
        #[test]
        fn a_subject_is_read_as_it_was_written(value in "[a-c é ü漢\\u{1f600}]{0,120}") {
            let written = text(&value);
            prop_assert!(written.is_ascii());
            prop_assert_eq!(read(&written), value);
            prop_assert_eq!(text(&written), written.clone());
            prop_assert!(written.split(' ').all(|word| word.len() <= 75 || !word.starts_with("=?")));
        }

        #[test]
        fn of_any_list_only_what_is_no_address_and_local_parts_stay_beyond_ascii(
            value in "[a-cé@<>(),;:\"\\\\ .]{0,40}",
        ) {
            let written = addresses(&value);
            prop_assert!(!written.chars().any(char::is_control));
            prop_assert!(written.is_ascii() || !value.is_ascii());
        }
    }
}

//! Addresses, as strict as what is announced: RFC 5321, 4.1.2, with UTF-8 as in RFC 6531.

use core::fmt;

use zeroize::{ZeroizeOnDrop, Zeroizing};

/// A mail domain in lower case and in ASCII: `label *("." label)`, at most 253 octets. A label has 1 to 63
/// letters, digits and inner hyphens; what is beyond ASCII is in A-labels (RFC 5890). No address literals.
/// Zeroized on drop.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, ZeroizeOnDrop)]
pub struct Domain(String);

impl Domain {
    const MAX: usize = 253;

    /// Reads a domain: its case is folded first, and checked is what that gives. Beyond ASCII only
    /// what UTS 46 leaves unchanged is taken; another spelling would be another domain for whoever
    /// maps it later, past the list of an exit.
    ///
    /// # Errors
    /// [`AddressError::Domain`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > Self::MAX {
            return Err(AddressError::Domain);
        }
        let folded = Zeroizing::new(text.to_lowercase());
        let ascii = match folded.is_ascii() {
            true => folded.as_str().to_owned(),
            false => {
                let (mapped, outcome) = idna::domain_to_unicode(&folded);
                if outcome.is_err() || mapped != *folded {
                    return Err(AddressError::Domain);
                }
                idna::domain_to_ascii(&folded).map_err(|_| AddressError::Domain)?
            }
        };
        let domain = Self(ascii);
        let fits = (1..=Self::MAX).contains(&domain.0.len());
        if fits && domain.0.split('.').all(is_label) {
            Ok(domain)
        } else {
            Err(AddressError::Domain)
        }
    }

    /// Whether the name means the same machines wherever it is resolved: it has two labels at least, the last
    /// of which is no number, and is none of those kept for one's own network (RFC 6761, RFC 6762, RFC 8375;
    /// `internal`). Any other is a machine near the exit, which may trust it.
    #[must_use]
    pub fn is_global(&self) -> bool {
        let Some((rest, last)) = self.0.rsplit_once('.') else { return false };
        let is_number = last.bytes().all(|octet| octet.is_ascii_digit());
        let is_own = matches!(last, "localhost" | "localdomain" | "local" | "internal" | "lan")
            || (last == "arpa" && (rest == "home" || rest.ends_with(".home")));
        !is_number && !is_own
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Domain(..)")
    }
}

/// A recipient: `local "@" domain`, at most 254 octets; the local part a dot-string or quoted
/// string of at most 64. Zeroized on drop.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, ZeroizeOnDrop)]
pub struct Mailbox {
    local: String,
    domain: Domain,
}

impl Mailbox {
    /// Octets of an address, at most (RFC 5321, 4.5.3.1.3, less the angle brackets).
    pub const MAX: usize = 254;
    const MAX_LOCAL: usize = 64;

    /// Reads an address without angle brackets.
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > Self::MAX {
            return Err(AddressError::Length);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::NoAt)?;
        Self::of(local, Domain::parse(domain)?)
    }

    /// Puts the parts together.
    ///
    /// # Errors
    /// [`AddressError::Local`] or [`AddressError::Length`].
    pub fn of(local: &str, domain: Domain) -> Result<Self, AddressError> {
        if local.len() + 1 + domain.0.len() > Self::MAX {
            return Err(AddressError::Length);
        }
        // Some have dots where a dot-string has none: quoted it is the same mailbox.
        let local = match is_dot_string(local) || !local.chars().all(|c| is_atext(c) || c == '.') {
            true => local.to_owned(),
            false => format!("\"{local}\""),
        };
        if local.len() > Self::MAX_LOCAL || !(is_dot_string(&local) || is_quoted(&local)) {
            return Err(AddressError::Local);
        }
        Ok(Self { local, domain })
    }

    /// The part before the `@`, as it was written, or quoted where it has to be.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The part after the `@`.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether a mail server may read its local part as a way to another domain (`user%other@domain`,
    /// `other!user@domain`, `"user@other"@domain`), as several do for clients that they trust.
    #[must_use]
    pub fn may_route(&self) -> bool {
        self.local.contains(['%', '!', '@'])
    }

    /// `local@domain`, for the wire.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}@{}", self.local, self.domain.0)
    }

    /// Whether the address can be sent only with SMTPUTF8.
    #[must_use]
    pub fn is_international(&self) -> bool {
        !self.local.is_ascii()
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailbox(..)")
    }
}

/// Why a text is not an address. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// More than 254 octets.
    #[error("address too long")]
    Length,
    /// No `@`.
    #[error("address without @")]
    NoAt,
    /// Local part neither dot-string nor quoted string.
    #[error("bad local part")]
    Local,
    /// Not a domain.
    #[error("bad domain")]
    Domain,
}

fn is_label(label: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=63).contains(&label.len())
        && label.chars().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322, 3.2.3, with RFC 6532.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_beyond_ascii(c)
}

/// `DQUOTE *(qtext / "\" printable) DQUOTE`, without control characters.
fn is_quoted(local: &str) -> bool {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return false;
    };
    let mut escaped = false;
    for c in inner.chars() {
        let printable = matches!(c, ' '..='~') || is_beyond_ascii(c);
        if !printable || (c == '"' && !escaped) {
            return false;
        }
        escaped = c == '\\' && !escaped;
    }
    !escaped && !inner.is_empty()
}

fn is_beyond_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && !c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_the_standard() {
        for good in [
            "a@b.example",
            "a.b+c@b-c.example",
            "\"a b\"@example.org",
            "\"a\\\"b\"@example.org",
            "Straße@example.org",
            "x@localhost",
            "u@2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion",
        ] {
            assert_eq!(Mailbox::parse(good).unwrap().to_text(), good);
        }
        for (written, text) in [
            ("A@B.Example", "A@b.example"),
            ("x@exämple.org", "x@xn--exmple-cua.org"),
            ("a..b@c.example", "\"a..b\"@c.example"),
            (".a.@c.example", "\".a.\"@c.example"),
        ] {
            assert_eq!(Mailbox::parse(written).unwrap().to_text(), text);
        }
    }

    #[test]
    fn the_longest_parts_are_taken_and_one_octet_more_is_not() {
        let label = |octets: usize| "b".repeat(octets);
        let domain = |last: usize| [label(63), label(63), label(63), label(last)].join(".");
        assert_eq!(domain(61).len(), Domain::MAX);
        assert!(Domain::parse(&domain(61)).is_ok() && Domain::parse(&domain(62)).is_err());
        let local = "a".repeat(64);
        assert!(Mailbox::parse(&format!("{local}@b.example")).is_ok());
        assert_eq!(Mailbox::parse(&format!("{local}a@b.example")), Err(AddressError::Local));
        let longest = |last: usize| [label(63), label(63), label(last)].join(".");
        for (last, taken) in [(61, Ok(())), (62, Err(AddressError::Length))] {
            let domain = longest(last);
            let text = format!("{local}@{domain}");
            assert_eq!(text.len() <= Mailbox::MAX, taken.is_ok());
            assert_eq!(Mailbox::parse(&text).map(|_| ()), taken);
            let put_together = Mailbox::of(&local, Domain::parse(&domain).unwrap());
            assert_eq!(put_together.map(|_| ()), taken);
        }
    }

    #[test]
    fn a_quotation_mark_ends_what_it_quotes_and_controls_are_never_quoted() {
        for bad in ["\"a\"b\"@b.example", "\"a\u{1}b\"@b.example", "\"a\u{7f}\"@b.example"] {
            assert_eq!(Mailbox::parse(bad), Err(AddressError::Local), "{bad:?}");
        }
    }

    #[test]
    fn nothing_is_printed_of_an_address() {
        let mailbox = Mailbox::parse("secret@secret.example").unwrap();
        let printed = format!("{mailbox:?} {:?}", mailbox.domain());
        assert_eq!(printed, "Mailbox(..) Domain(..)");
    }

    #[test]
    fn anything_else_is_refused() {
        let long_local = format!("{}@example.org", "a".repeat(65));
        let long = format!("a@{}", ["b".repeat(63).as_str(); 4].join("."));
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b..c",
            "a@-b",
            "a@b-",
            "a b@c",
            "a@b c",
            "a@[127.0.0.1]",
            "a@b\r\nDATA",
            "a\0@b",
            "\"a@b",
            "\"\"@b",
            "\"a\\\"@b",
            "a@b_c",
            "a\u{85}@b",
            "<a@b>",
            "a,b@c",
            &long_local,
            &long,
        ] {
            assert!(Mailbox::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_domain_is_checked_as_it_is_carried_and_has_one_spelling() {
        // 31 times U+0130 is a label of 62 octets, and of 93 in lower case.
        let grows = "\u{130}".repeat(31);
        for bad in [
            grows.as_str(),
            "closed\u{ff0e}example",
            "closed\u{3002}example",
            "\u{ff43}losed.example",
            "a\u{200d}b.example",
            "e\u{301}.example",
        ] {
            assert_eq!(Domain::parse(bad), Err(AddressError::Domain), "{bad}");
        }
        // The Kelvin sign is a k in lower case, and nothing else is left of it.
        assert_eq!(Domain::parse("\u{212a}elvin.example").unwrap().as_str(), "kelvin.example");
        assert_eq!(Domain::parse("EXÄMPLE.example").unwrap().as_str(), "xn--exmple-cua.example");
        assert!(Domain::parse("xn--exmple-cua.example").is_ok());
    }

    proptest! {
        #[test]
        fn a_domain_that_was_read_is_read_again(text in "\\PC{0,80}|[a-zA-Z0-9.ÄßİK-]{1,40}") {
            if let Ok(domain) = Domain::parse(&text) {
                prop_assert_eq!(Domain::parse(domain.as_str()), Ok(domain));
            }
        }

        #[test]
        fn nothing_that_parses_breaks_a_command_line(text in "\\PC{0,80}|[a-z\\r\\n\\x00 @.\"<>]{0,40}") {
            if let Ok(mailbox) = Mailbox::parse(&text) {
                let text = mailbox.to_text();
                prop_assert!(text.len() <= Mailbox::MAX);
                prop_assert!(!text.chars().any(char::is_control));
            }
        }
    }

    #[test]
    fn a_local_part_that_names_another_domain_is_known() {
        let may = |text: &str| Mailbox::parse(text).unwrap().may_route();
        assert!(may("a%b@c.example") && may("b!a@c.example") && may("\"a@b\"@c.example"));
        assert!(!may("a+b@c.example") && !may("\"a b\"@c.example"));
    }

    #[test]
    fn a_name_that_means_another_machine_at_each_exit_is_not_global() {
        let is_global = |name: &str| Domain::parse(name).unwrap().is_global();
        for own in [
            "localhost",
            "b",
            "10.0.0.1",
            "a.localhost",
            "printer.local",
            "x.internal",
            "home.arpa",
            "a.home.arpa",
            "x.lan",
            "x.localdomain",
        ] {
            assert!(!is_global(own), "{own}");
        }
        for global in
            ["b.example", "fog.invalid", "x.onion", "exämple.org", "in-addr.arpa", "3com.com"]
        {
            assert!(is_global(global), "{global}");
        }
    }

    #[test]
    fn printing_shows_nothing() {
        assert_eq!(format!("{:?}", Mailbox::parse("a@b").unwrap()), "Mailbox(..)");
    }
}

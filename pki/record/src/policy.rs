//! What an exit says it delivers, and the question that is put to it.

use core::ops::BitOr;

use bincode::{Decode, Encode};

/// A set of things that mail may need and an exit may offer, 2 octets on the wire. Bits without a
/// name here are kept as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Capabilities(u16);

impl Capabilities {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Octets above 127 in the body (8BITMIME, RFC 6152).
    pub const EIGHT_BIT: Self = Self(1);
    /// UTF-8 in header or envelope (SMTPUTF8, RFC 6531).
    pub const SMTP_UTF8: Self = Self(2);
    /// The sender's own From.
    pub const KEEP_FROM: Self = Self(4);
    /// Posting to Usenet.
    pub const NEWS: Self = Self(8);

    /// Whether everything in `needed` is in this set.
    #[must_use]
    pub const fn contains(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Recipient domains of an exit. Names are in lower case and compared whole.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Domains {
    /// Every domain.
    Any,
    /// Only these.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

impl Domains {
    /// At most this many names.
    pub const MAX: usize = 32;

    fn cover(&self, domain: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.iter().any(|name| name == domain),
            Self::Except(names) => names.iter().all(|name| name != domain),
        }
    }

    pub(crate) fn well_formed(&self) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) | Self::Except(names) => {
                names.len() <= Self::MAX && names.iter().all(|name| is_name(name))
            }
        }
    }
}

/// What an exit delivers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExitPolicy {
    /// The recipient domains that it delivers to.
    pub domains: Domains,
    /// Largest message in octets that its next hop takes.
    pub max_message: u32,
    /// What its next hop can carry and its operator allows.
    pub offers: Capabilities,
}

/// One message's question to an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask<'a> {
    /// Recipient domain in lower case.
    pub domain: &'a str,
    /// Octets of the message.
    pub size: u32,
    /// What it needs.
    pub needs: Capabilities,
}

impl ExitPolicy {
    /// Whether the exit delivers such a message.
    #[must_use]
    pub fn allows(&self, ask: &Ask<'_>) -> bool {
        ask.size <= self.max_message
            && self.offers.contains(ask.needs)
            && self.domains.cover(ask.domain)
    }
}

/// 1 to 253 octets, printable, without upper-case ASCII.
fn is_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.chars().all(|c| !c.is_control() && !c.is_whitespace() && !c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_delivers_what_it_says() {
        let policy = ExitPolicy {
            domains: Domains::Except(vec!["closed.example".into()]),
            max_message: 1000,
            offers: Capabilities::EIGHT_BIT,
        };
        let ask = Ask { domain: "open.example", size: 1000, needs: Capabilities::EIGHT_BIT };
        assert!(policy.allows(&ask));
        assert!(!policy.allows(&Ask { size: 1001, ..ask.clone() }));
        assert!(!policy.allows(&Ask { domain: "closed.example", ..ask.clone() }));
        let both = Capabilities::EIGHT_BIT | Capabilities::SMTP_UTF8;
        assert!(!policy.allows(&Ask { needs: both, ..ask }));
    }
}

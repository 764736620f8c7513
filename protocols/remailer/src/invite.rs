//! Invites: one string that lets its bearer join a network and be vouched for by the node that made
//! it.
//!
//! ```text
//! <56 characters>.onion/<32 hexadecimal digits>
//! ```
//!
//! The inviter's address, and a token of 16 octets that it takes once, within a day. The first
//! bearer that shows the string is vouched for, so it has to reach the invited by a way that others
//! cannot read.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use data_encoding::HEXLOWER;
use keys::{OnionAddress, Time};
use rand::CryptoRng;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::setup::InvitesKept;

/// Octets of a token.
pub const TOKEN_LEN: usize = 16;
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Invites open at once.
const MAX_INVITES: usize = 64;

/// What an inviter recognises its invite by, 16 octets. Zeroized on drop, compared in constant
/// time.
#[derive(Clone)]
pub struct Token(Zeroizing<[u8; TOKEN_LEN]>);

impl Token {
    /// The 16 octets, for the peer that made them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; TOKEN_LEN] {
        &self.0
    }

    fn fits(&self, shown: &[u8]) -> bool {
        self.0.as_slice().ct_eq(shown).into()
    }

    fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(self.0.as_slice()))
    }

    fn from_hex(text: &str) -> Result<Self, NotAnInvite> {
        let mut token = Zeroizing::new([0; TOKEN_LEN]);
        if text.len() != 2 * TOKEN_LEN {
            return Err(NotAnInvite);
        }
        HEXLOWER.decode_mut(text.as_bytes(), token.as_mut_slice()).map_err(|_| NotAnInvite)?;
        Ok(Self(token))
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.fits(other.as_bytes())
    }
}

impl Eq for Token {}

/// An invite, as it is handed over. Its bearer can use it, so it is printed for its operator only.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The node that made it.
    pub inviter: OnionAddress,
    /// What that node will recognise.
    pub token: Token,
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.inviter, *self.token.to_hex())
    }
}

/// Not an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an invite is ADDRESS.onion/TOKEN, 95 characters")]
pub struct NotAnInvite;

impl FromStr for Invite {
    type Err = NotAnInvite;

    fn from_str(text: &str) -> Result<Self, NotAnInvite> {
        let (inviter, token) = text.split_once('/').ok_or(NotAnInvite)?;
        let inviter = inviter.parse().map_err(|_| NotAnInvite)?;
        Ok(Self { inviter, token: Token::from_hex(token)? })
    }
}

/// The token of an invite that nobody has used yet, with its end. `Display` is the line that its
/// file keeps.
#[derive(Clone, PartialEq, Eq)]
pub struct OpenInvite {
    token: Token,
    until: Time,
}

impl fmt::Display for OpenInvite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", *self.token.to_hex(), self.until.as_millis())
    }
}

impl FromStr for OpenInvite {
    type Err = NotAnInvite;

    fn from_str(text: &str) -> Result<Self, NotAnInvite> {
        let (token, until) = text.split_once(' ').ok_or(NotAnInvite)?;
        let until = Time::from_millis(until.parse().map_err(|_| NotAnInvite)?);
        Ok(Self { token: Token::from_hex(token)?, until })
    }
}

/// The invites that this node has handed out and nobody has used yet, and the one that it was given.
#[derive(Default)]
pub(crate) struct Invites {
    open: Vec<OpenInvite>,
    pub(crate) given: GivenInvite,
}

/// The invite that this node was given.
#[derive(Default)]
pub(crate) enum GivenInvite {
    /// There is none, or it was taken.
    #[default]
    None,
    /// It is shown to the node that made it as soon as a link to that node is up.
    Held(Invite),
    /// The node that made it did not take it.
    Refused,
}

/// As many invites are open as may be.
#[derive(Debug)]
pub(crate) struct TooMany;

impl Invites {
    pub(crate) fn new(kept: InvitesKept) -> Self {
        let given = kept.given.map_or(GivenInvite::None, GivenInvite::Held);
        Self { open: kept.open, given }
    }

    pub(crate) fn make(&mut self, now: Time, rng: &mut impl CryptoRng) -> Result<Token, TooMany> {
        self.open.retain(|open| open.until > now);
        if self.open.len() >= MAX_INVITES {
            return Err(TooMany);
        }
        let mut token = Token(Zeroizing::new([0; TOKEN_LEN]));
        rng.fill_bytes(token.0.as_mut_slice());
        self.open.push(OpenInvite { token: token.clone(), until: now.plus(LIFE) });
        Ok(token)
    }

    /// Whether a token is open.
    pub(crate) fn knows(&self, shown: &[u8], now: Time) -> bool {
        self.open.iter().any(|open| open.until > now && open.token.fits(shown))
    }

    /// Takes a token, once.
    pub(crate) fn redeem(&mut self, shown: &[u8], now: Time) -> bool {
        self.open.retain(|open| open.until > now);
        let at = self.open.iter().position(|open| open.token.fits(shown));
        at.map(|at| self.open.swap_remove(at)).is_some()
    }

    /// The open ones, to be kept.
    pub(crate) fn open(&self) -> &[OpenInvite] {
        &self.open
    }
}

#[cfg(test)]
mod tests {
    use keys::Identity;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn an_invite_is_taken_once_within_a_day() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let inviter = OnionAddress::of(Identity::generate(&mut rng).node()).unwrap();
        let start = Time::from_millis(1_000_000);
        let mut invites = Invites::default();
        let token = invites.make(start, &mut rng).unwrap();
        let text = Invite { inviter, token }.to_string();
        assert_eq!(text.len(), 95);
        let read: Invite = text.parse().unwrap();
        assert_eq!(read.inviter, inviter);
        let kept: Vec<OpenInvite> =
            invites.open().iter().map(|open| open.to_string().parse().unwrap()).collect();
        let mut invites = Invites::new(InvitesKept { open: kept, given: None });
        assert!(!invites.redeem(&[0; TOKEN_LEN], start) && !invites.redeem(&[], start));
        assert!(invites.knows(read.token.as_bytes(), start));
        assert!(invites.redeem(read.token.as_bytes(), start));
        assert!(!invites.knows(read.token.as_bytes(), start));
        assert!(!invites.redeem(read.token.as_bytes(), start));
        let late = invites.make(start, &mut rng).unwrap();
        assert!(!invites.redeem(late.as_bytes(), start.plus(LIFE)));
        while invites.make(start, &mut rng).is_ok() {}
        assert_eq!(invites.open().len(), MAX_INVITES);
    }

    #[test]
    fn what_is_no_invite_is_refused() {
        let address = "a".repeat(56);
        for text in [
            "",
            "/",
            "x/y",
            &format!("{address}.onion/00"),
            &format!("{address}/{}", "0".repeat(32)),
        ] {
            assert!(text.parse::<Invite>().is_err(), "{text}");
        }
    }
}

//! Invites: one string that lets its bearer join a network and be vouched for by who made it.
//!
//! ```text
//! <56 characters>.onion/<32 hexadecimal digits>
//! ```
//!
//! The inviter's address, and a token of 16 octets that it takes once, within a day. Whoever holds the string
//! first is vouched for: it goes to the invited by a way that others cannot read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::HEXLOWER;
use keys::{OnionAddress, Time};
use rand::CryptoRng;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Octets of a token.
pub const TOKEN_LEN: usize = 16;
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Invites open at once.
const MAX_INVITES: usize = 64;

/// An invite, as it is handed over. Whoever knows it can use it.
pub struct Invite {
    /// Who made it.
    pub inviter: OnionAddress,
    /// What it will recognise.
    pub token: Zeroizing<[u8; TOKEN_LEN]>,
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.inviter, HEXLOWER.encode(self.token.as_slice()))
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
        Ok(Self { inviter, token: read(token)? })
    }
}

fn read(text: &str) -> Result<Zeroizing<[u8; TOKEN_LEN]>, NotAnInvite> {
    let mut token = Zeroizing::new([0; TOKEN_LEN]);
    if text.len() != 2 * TOKEN_LEN {
        return Err(NotAnInvite);
    }
    HEXLOWER.decode_mut(text.as_bytes(), token.as_mut_slice()).map_err(|_| NotAnInvite)?;
    Ok(token)
}

/// The token of an invite that is open, with its end.
pub struct Open {
    token: Zeroizing<[u8; TOKEN_LEN]>,
    until: Time,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", HEXLOWER.encode(self.token.as_slice()), self.until.as_millis())
    }
}

impl FromStr for Open {
    type Err = NotAnInvite;

    fn from_str(text: &str) -> Result<Self, NotAnInvite> {
        let (token, until) = text.split_once(' ').ok_or(NotAnInvite)?;
        let until = Time::from_millis(until.parse().map_err(|_| NotAnInvite)?);
        Ok(Self { token: read(token)?, until })
    }
}

/// The invites that this node has handed out and nobody has used yet.
#[derive(Default)]
pub struct Invites(Vec<Open>);

impl Invites {
    /// Those that were kept.
    #[must_use]
    pub fn new(kept: Vec<Open>) -> Self {
        Self(kept)
    }

    /// A new token.
    ///
    /// # Errors
    /// With 64 that are open.
    pub fn make(
        &mut self,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<Zeroizing<[u8; TOKEN_LEN]>, &'static str> {
        self.0.retain(|open| open.until > now);
        if self.0.len() >= MAX_INVITES {
            return Err("64 invites are open already; each ends after a day");
        }
        let mut token = Zeroizing::new([0; TOKEN_LEN]);
        rng.fill_bytes(token.as_mut_slice());
        self.0.push(Open { token: token.clone(), until: now.plus(LIFE) });
        Ok(token)
    }

    /// Whether a token is open.
    #[must_use]
    pub fn knows(&self, shown: &[u8], now: Time) -> bool {
        let fits = |open: &Open| open.until > now && open.token.as_slice().ct_eq(shown).into();
        self.0.iter().any(fits)
    }

    /// Takes a token, once.
    pub fn redeem(&mut self, shown: &[u8], now: Time) -> bool {
        self.0.retain(|open| open.until > now);
        let at = self.0.iter().position(|open| open.token.as_slice().ct_eq(shown).into());
        at.map(|at| self.0.swap_remove(at)).is_some()
    }

    /// Those that are open, to be kept.
    #[must_use]
    pub fn tokens(&self) -> &[Open] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use keys::Identity;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn an_invite_is_taken_once_within_a_day() {
        let mut rng = StdRng::seed_from_u64(1);
        let inviter = OnionAddress::of(Identity::generate(&mut rng).node()).unwrap();
        let start = Time::from_millis(1_000_000);
        let mut invites = Invites::default();
        let token = invites.make(start, &mut rng).unwrap();
        let text = Invite { inviter, token }.to_string();
        assert_eq!(text.len(), 95);
        let read: Invite = text.parse().unwrap();
        assert_eq!(read.inviter, inviter);
        let kept: Vec<Open> =
            invites.tokens().iter().map(|open| open.to_string().parse().unwrap()).collect();
        let mut invites = Invites::new(kept);
        assert!(!invites.redeem(&[0; TOKEN_LEN], start) && !invites.redeem(&[], start));
        assert!(invites.knows(read.token.as_slice(), start));
        assert!(invites.redeem(read.token.as_slice(), start));
        assert!(!invites.knows(read.token.as_slice(), start));
        assert!(!invites.redeem(read.token.as_slice(), start));
        let late = invites.make(start, &mut rng).unwrap();
        assert!(!invites.redeem(late.as_slice(), start.plus(LIFE)));
        while invites.make(start, &mut rng).is_ok() {}
        assert_eq!(invites.tokens().len(), MAX_INVITES);
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

//! Tor v3 onion addresses (Tor rend-spec-v3, section 6: `.onion` addresses).

use core::fmt;
use core::str::FromStr;

use data_encoding::BASE32_NOPAD;
use sha3::{Digest as _, Sha3_256};

use crate::{IdentityError, NetworkId, NodeId, Purpose, Signature};

/// A Tor v3 onion address: base32 of key (32 octets), checksum (2) and version (1), 56 characters.
///
/// It says the same as the [`NodeId`] in it, and is only made from octets that are a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnionAddress(NodeId);

impl OnionAddress {
    /// Characters before `.onion`.
    pub const TEXT_LEN: usize = 56;
    /// Octets that the text encodes.
    pub const RAW_LEN: usize = 35;
    const VERSION: u8 = 3;

    /// The address of a node.
    ///
    /// # Errors
    /// [`OnionError::NotAKey`] if the id is no public key.
    pub fn of(node: NodeId) -> Result<Self, OnionError> {
        node.check()?;
        Ok(Self(node))
    }

    /// The address of a node that was checked before.
    pub(crate) const fn checked_before(node: NodeId) -> Self {
        Self(node)
    }

    /// Checks a signature of the node at this address, which is a key already: see
    /// [`NodeId::verify`].
    ///
    /// # Errors
    /// [`IdentityError::BadSignature`].
    pub fn verify(
        &self,
        purpose: Purpose,
        network: &NetworkId,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), IdentityError> {
        self.0.verify_checked(purpose, network, message, signature)
    }

    /// The node at this address.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.0
    }

    /// The 35 octets as they stand in a `/onion3/` multiaddress.
    #[must_use]
    pub fn to_raw(&self) -> [u8; Self::RAW_LEN] {
        let mut raw = [0; Self::RAW_LEN];
        let [first, second] = checksum(&self.0);
        let (key, rest) = raw.split_at_mut(NodeId::LEN);
        key.copy_from_slice(self.0.as_bytes());
        rest.copy_from_slice(&[first, second, Self::VERSION]);
        raw
    }

    /// Reads the 35 octets, checking version, checksum and key.
    ///
    /// # Errors
    /// One [`OnionError`] for each of the three.
    pub fn from_raw(raw: &[u8; Self::RAW_LEN]) -> Result<Self, OnionError> {
        let (key, rest) = raw.split_first_chunk::<32>().ok_or(OnionError::Length)?;
        let &[first, second, version] = rest else {
            return Err(OnionError::Length);
        };
        if version != Self::VERSION {
            return Err(OnionError::Version);
        }
        let node = NodeId::from_bytes(*key);
        if checksum(&node) != [first, second] {
            return Err(OnionError::Checksum);
        }
        Self::of(node)
    }
}

impl FromStr for OnionAddress {
    type Err = OnionError;

    /// Reads `<56 characters>` or `<56 characters>.onion`, in either case.
    fn from_str(text: &str) -> Result<Self, OnionError> {
        // 56 characters and ".onion"; nothing longer is looked at.
        if text.len() > Self::TEXT_LEN + 6 {
            return Err(OnionError::Length);
        }
        let lower = text.to_ascii_lowercase();
        let label = lower.strip_suffix(".onion").unwrap_or(&lower);
        if label.len() != Self::TEXT_LEN {
            return Err(OnionError::Length);
        }
        let raw = BASE32_NOPAD
            .decode(label.to_ascii_uppercase().as_bytes())
            .map_err(|_| OnionError::Alphabet)?;
        let raw = <[u8; Self::RAW_LEN]>::try_from(raw).map_err(|_| OnionError::Length)?;
        Self::from_raw(&raw)
    }
}

impl fmt::Display for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32_NOPAD.encode(&self.to_raw()).to_ascii_lowercase();
        write!(f, "{text}.onion")
    }
}

impl fmt::Debug for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnionAddress({:?})", self.0)
    }
}

/// Why a text is not an onion address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnionError {
    /// Not 56 characters before `.onion`.
    #[error("an onion address has 56 characters before .onion")]
    Length,
    /// A character outside `a-z2-7`.
    #[error("an onion address is written in a-z and 2-7")]
    Alphabet,
    /// Not version 3.
    #[error("not a version 3 onion address")]
    Version,
    /// The checksum does not fit: a character is wrong.
    #[error("the checksum of the onion address does not fit; a character is wrong")]
    Checksum,
    /// The key in it is no usable public key.
    #[error("the onion address holds no usable key")]
    NotAKey,
}

impl From<IdentityError> for OnionError {
    fn from(_: IdentityError) -> Self {
        Self::NotAKey
    }
}

fn checksum(node: &NodeId) -> [u8; 2] {
    let mut hash = Sha3_256::new();
    hash.update(b".onion checksum");
    hash.update(node.as_bytes());
    hash.update([OnionAddress::VERSION]);
    let digest: [u8; 32] = hash.finalize().into();
    let [first, second, ..] = digest;
    [first, second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    /// The address of the Tor Project's own site, published by it.
    const KNOWN: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    #[test]
    fn a_published_address_reads_and_writes_the_same() {
        let address: OnionAddress = KNOWN.parse().unwrap();
        assert_eq!(address.to_string(), KNOWN);
        assert_eq!(KNOWN.to_uppercase().parse(), Ok(address));
        assert_eq!(KNOWN[..56].parse(), Ok(address));
    }

    #[test]
    fn any_wrong_character_is_noticed() {
        for at in 0..56 {
            let mut text = KNOWN.as_bytes().to_vec();
            text[at] = if text[at] == b'a' { b'b' } else { b'a' };
            let text = String::from_utf8(text).unwrap();
            assert!(text.parse::<OnionAddress>().is_err(), "{text}");
        }
        assert_eq!("abc.onion".parse::<OnionAddress>(), Err(OnionError::Length));
        let foreign = format!("{}1{}", &KNOWN[..10], &KNOWN[11..]);
        assert_eq!(foreign.parse::<OnionAddress>(), Err(OnionError::Alphabet));
        let trailing = format!("{KNOWN}.onion");
        assert_eq!(trailing.parse::<OnionAddress>(), Err(OnionError::Length));
    }

    #[test]
    fn an_identity_has_one_address() {
        let node = Identity::from_seed(&[1; 32]).node();
        let address = OnionAddress::of(node).unwrap();
        assert_eq!(address.to_string().parse::<OnionAddress>().unwrap().node(), node);
    }
}

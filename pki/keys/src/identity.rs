//! The long-term key of a node, and what it signs.

use core::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha512};
use zeroize::{Zeroize as _, Zeroizing};

/// A node's ed25519 public key, 32 octets, as somebody states it.
///
/// It is an identifier first: comparing and looking up need no curve arithmetic. Whether it is a
/// key that may sign at all is decided by [`NodeId::verify`] and [`NodeId::check`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; Self::LEN]);

impl NodeId {
    /// Length in octets.
    pub const LEN: usize = 32;

    /// Takes 32 octets as an identifier, without any check.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Whether this can be an identity: the canonical encoding of a point of prime order (RFC 8032,
    /// 5.1.3). Points with a torsion part would give one key several addresses.
    ///
    /// # Errors
    /// [`IdentityError::NotAKey`] otherwise.
    pub fn check(&self) -> Result<(), IdentityError> {
        let compressed = CompressedEdwardsY(self.0);
        let point = compressed.decompress().ok_or(IdentityError::NotAKey)?;
        let canonical = point.compress() == compressed;
        if canonical && !point.is_small_order() && point.is_torsion_free() {
            Ok(())
        } else {
            Err(IdentityError::NotAKey)
        }
    }

    /// Checks a signature over `fog-v1/<purpose>\0 ‖ network ‖ message`, strictly (small-order keys
    /// and non-canonical signatures refused).
    ///
    /// # Errors
    /// [`IdentityError::NotAKey`] if this is no key, [`IdentityError::BadSignature`] if it does not
    /// verify.
    pub fn verify(
        &self,
        purpose: Purpose,
        network: &NetworkId,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), IdentityError> {
        self.check()?;
        self.verify_checked(purpose, network, message, signature)
    }

    /// As [`NodeId::verify`], for an id that [`NodeId::check`] has passed: at half the cost.
    pub(crate) fn verify_checked(
        &self,
        purpose: Purpose,
        network: &NetworkId,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), IdentityError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| IdentityError::NotAKey)?;
        key.verify_strict(
            &signed_octets(purpose, network, message),
            &ed25519_dalek::Signature::from_bytes(&signature.0),
        )
        .map_err(|_| IdentityError::BadSignature)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, _) = self.0.split_at(4);
        write!(f, "NodeId({}..)", HEXLOWER.encode(start))
    }
}

/// The hash of a network's signed descriptor, 32 octets: the name under which everything in that
/// network is signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId([u8; Self::LEN]);

impl NetworkId {
    /// Length in octets.
    pub const LEN: usize = 32;
    /// The value under which a descriptor is signed, as it cannot hold its own hash.
    pub const NONE: Self = Self([0; Self::LEN]);

    /// Takes 32 octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({self})")
    }
}

/// What a signature is for. A signature for one purpose never verifies for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A network descriptor, signed by the maker of the network.
    Descriptor,
    /// A node's record.
    Record,
    /// One node's word for another.
    Vouch,
    /// That word, taken back.
    Revocation,
    /// A voter's view of the network in one hour.
    Vote,
    /// One voter's word that another is to count no more.
    Retirement,
    /// Reserved: what a person signs about their own keys.
    Passport,
    /// Reserved: what the owner of a mailbox signs.
    Box,
}

impl Purpose {
    const fn label(self) -> &'static str {
        match self {
            Self::Descriptor => "descriptor",
            Self::Record => "record",
            Self::Vouch => "vouch",
            Self::Revocation => "revocation",
            Self::Vote => "vote",
            Self::Retirement => "retirement",
            Self::Passport => "passport",
            Self::Box => "box",
        }
    }
}

/// An ed25519 signature, 64 octets (RFC 8032).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature([u8; Self::LEN]);

impl Signature {
    /// Length in octets.
    pub const LEN: usize = 64;

    /// Takes 64 octets.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 64 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// The long-term secret of a node. Held as the key made from its 32-octet seed: a key in expanded
/// form, without the seed, can be made to sign under a foreign public key and is not accepted.
pub struct Identity(Box<SigningKey>);

impl Identity {
    /// Length of the seed in octets.
    pub const SEED_LEN: usize = 32;
    /// Length of [`Identity::onion_key`] in octets.
    pub const ONION_KEY_LEN: usize = 64;

    /// Draws a new identity.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Zeroizing::new([0; Self::SEED_LEN]);
        rng.fill_bytes(seed.as_mut_slice());
        Self::from_seed(&seed)
    }

    /// The identity of a 32-octet seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; Self::SEED_LEN]) -> Self {
        Self(Box::new(SigningKey::from_bytes(seed)))
    }

    /// The seed, for the file that keeps it.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; Self::SEED_LEN]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The key as a Tor of this identity's onion service wants it: the clamped SHA-512 of the seed,
    /// 64 octets (RFC 8032, 5.1.5; Tor control-spec, `ADD_ONION`, key type `ED25519-V3`).
    #[must_use]
    pub fn onion_key(&self) -> Zeroizing<[u8; Self::ONION_KEY_LEN]> {
        let mut hash = Sha512::digest(self.seed().as_slice());
        let mut key = Zeroizing::new([0; Self::ONION_KEY_LEN]);
        key.copy_from_slice(&hash);
        hash.as_mut_slice().zeroize();
        if let [first, .., last] = key.split_at_mut(32).0 {
            *first &= 0b1111_1000;
            *last &= 0b0111_1111;
            *last |= 0b0100_0000;
        }
        key
    }

    /// The public side.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Signs `fog-v1/<purpose>\0 ‖ network ‖ message`.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, network: &NetworkId, message: &[u8]) -> Signature {
        Signature(self.0.sign(&signed_octets(purpose, network, message)).to_bytes())
    }
}

/// Why something is not what its identity says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not the canonical encoding of a point of prime order.
    #[error("not an ed25519 public key of prime order")]
    NotAKey,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    BadSignature,
}

fn signed_octets(purpose: Purpose, network: &NetworkId, message: &[u8]) -> Vec<u8> {
    let label = purpose.label();
    let mut octets = Vec::with_capacity(8 + label.len() + NetworkId::LEN + message.len());
    octets.extend_from_slice(b"fog-v1/");
    octets.extend_from_slice(label.as_bytes());
    octets.push(0);
    octets.extend_from_slice(network.as_bytes());
    octets.extend_from_slice(message);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId::from_bytes([9; 32]);

    #[test]
    fn a_signature_holds_for_its_purpose_network_and_message_only() {
        let identity = Identity::from_seed(&[7; 32]);
        let node = identity.node();
        let signature = identity.sign(Purpose::Record, &NETWORK, b"text");
        assert_eq!(node.verify(Purpose::Record, &NETWORK, b"text", &signature), Ok(()));
        let bad = Err(IdentityError::BadSignature);
        assert_eq!(node.verify(Purpose::Descriptor, &NETWORK, b"text", &signature), bad);
        assert_eq!(node.verify(Purpose::Record, &NetworkId::NONE, b"text", &signature), bad);
        assert_eq!(node.verify(Purpose::Record, &NETWORK, b"texT", &signature), bad);
    }

    #[test]
    fn small_order_torsion_and_non_canonical_identities_are_refused() {
        use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
        for point in EIGHT_TORSION {
            let id = NodeId(point.compress().to_bytes());
            assert_eq!(id.check(), Err(IdentityError::NotAKey));
            let mixed = NodeId((ED25519_BASEPOINT_POINT + point).compress().to_bytes());
            assert_eq!(mixed.check().is_ok(), point == EIGHT_TORSION[0]);
        }
        // y = p + 1 encodes y = 1 a second time.
        let mut second = [0xff; 32];
        second[0] = 0xee;
        second[31] = 0x7f;
        assert_eq!(NodeId(second).check(), Err(IdentityError::NotAKey));
    }

    #[test]
    fn the_onion_key_is_the_expanded_key_of_the_same_point() {
        use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
        use curve25519_dalek::scalar::Scalar;
        let identity = Identity::from_seed(&[7; 32]);
        let key = identity.onion_key();
        let scalar = Scalar::from_bytes_mod_order(key[..32].try_into().unwrap());
        let point = (ED25519_BASEPOINT_POINT * scalar).compress();
        assert_eq!(point.as_bytes(), identity.node().as_bytes());
        assert_eq!((key[0] & 7, key[31] & 0xc0), (0, 0x40));
    }

    #[test]
    fn printing_an_id_shows_four_octets() {
        assert_eq!(format!("{:?}", NodeId([0xab; 32])), "NodeId(abababab..)");
    }
}

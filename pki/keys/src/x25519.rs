//! X25519 (RFC 7748) as mix keys use it: no octets but those of a point of the curve itself, of full
//! order, in their one encoding.
//!
//! Two ways to the same octets: the ladder of `s2n-bignum` through `graviola`, whose assembler is
//! proved against its specification, where the processor has what that needs; the Edwards form of
//! `curve25519-dalek` elsewhere.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::montgomery::MontgomeryPoint;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::mixkey::KemError;

pub(crate) const X25519_LEN: usize = 32;

/// The public key of a scalar.
pub(crate) fn public(scalar: &[u8; X25519_LEN]) -> [u8; X25519_LEN] {
    #[cfg(target_arch = "x86_64")]
    if assembler::runs_here() {
        return assembler::public(scalar);
    }
    MontgomeryPoint::mul_base_clamped(*scalar).to_bytes()
}

/// Refuses what is no public key.
pub(crate) fn check(u: &[u8; X25519_LEN]) -> Result<(), KemError> {
    if edwards(u)?.is_small_order() { Err(KemError::LowOrder) } else { Ok(()) }
}

/// The secret shared with whoever sent `u`.
pub(crate) fn shared(
    scalar: &[u8; X25519_LEN],
    u: &[u8; X25519_LEN],
) -> Result<Zeroizing<[u8; 32]>, KemError> {
    let point = edwards(u)?;
    #[cfg(target_arch = "x86_64")]
    if assembler::runs_here() {
        return assembler::shared(scalar, u);
    }
    by_edwards(scalar, &point)
}

/// The same with octets that [`check`] took before.
pub(crate) fn shared_with_checked(
    scalar: &[u8; X25519_LEN],
    u: &[u8; X25519_LEN],
) -> Result<Zeroizing<[u8; 32]>, KemError> {
    #[cfg(target_arch = "x86_64")]
    if assembler::runs_here() {
        return assembler::shared(scalar, u);
    }
    shared(scalar, u)
}

/// Gives what the ladder gives for every point it takes. A torsion part of the peer's point dies
/// under the clamped scalar.
fn by_edwards(
    scalar: &[u8; X25519_LEN],
    point: &EdwardsPoint,
) -> Result<Zeroizing<[u8; 32]>, KemError> {
    let shared = Zeroizing::new(point.mul_clamped(*scalar).to_montgomery().to_bytes());
    // The neutral element maps to u = 0 (RFC 7748, 6.1).
    if shared.as_slice().ct_eq(&[0; 32]).into() {
        return Err(KemError::LowOrder);
    }
    Ok(shared)
}

fn edwards(u: &[u8; X25519_LEN]) -> Result<EdwardsPoint, KemError> {
    if !canonical(u) {
        return Err(KemError::NotCanonical);
    }
    MontgomeryPoint(*u).to_edwards(0).ok_or(KemError::Twist)
}

/// Below 2^255 - 19, little-endian.
fn canonical(u: &[u8; X25519_LEN]) -> bool {
    let [low, middle @ .., high] = u;
    let at_least_p = *high == 0x7f && *low >= 0xed && middle.iter().all(|octet| *octet == 0xff);
    high >> 7 == 0 && !at_least_p
}

#[cfg(target_arch = "x86_64")]
mod assembler {
    use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
    use zeroize::Zeroizing;

    use super::X25519_LEN;
    use crate::mixkey::KemError;

    /// Whether the processor has all that graviola needs: it panics elsewhere.
    pub(super) fn runs_here() -> bool {
        graviola::util::is_cpu_supported()
    }

    pub(super) fn public(scalar: &[u8; X25519_LEN]) -> [u8; X25519_LEN] {
        StaticPrivateKey::from_array(scalar).public_key().as_bytes()
    }

    pub(super) fn shared(
        scalar: &[u8; X25519_LEN],
        u: &[u8; X25519_LEN],
    ) -> Result<Zeroizing<[u8; 32]>, KemError> {
        let shared = StaticPrivateKey::from_array(scalar)
            .diffie_hellman(&PublicKey::from_array(u))
            .map_err(|_| KemError::LowOrder)?;
        Ok(Zeroizing::new(shared.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use x25519_dalek::{PublicKey, StaticSecret};

    use super::*;

    /// All ways to the shared secret, which must agree.
    fn every_way(scalar: &[u8; 32], u: &[u8; 32]) -> Result<[u8; 32], KemError> {
        let here = shared(scalar, u).map(|shared| *shared);
        let portable = edwards(u).and_then(|point| by_edwards(scalar, &point));
        assert_eq!(here, portable.map(|shared| *shared));
        if here.is_ok() {
            assert_eq!(here, shared_with_checked(scalar, u).map(|shared| *shared));
            assert_eq!(check(u), Ok(()));
        } else {
            assert_eq!(here.err(), check(u).err());
        }
        here
    }

    /// The vectors of RFC 7748, 6.1, and the first of 5.2.
    #[test]
    fn every_way_agrees_with_the_rfc() {
        let unhex = |text: &str| -> [u8; 32] {
            core::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        };
        let own = |scalar: &str, u: &str| every_way(&unhex(scalar), &unhex(u));
        let alice = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
        let bob = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
        let of_alice = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        let of_bob = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
        assert_eq!(public(&unhex(alice)), unhex(of_alice));
        assert_eq!(public(&unhex(bob)), unhex(of_bob));
        let shared = unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(own(alice, of_bob), Ok(shared));
        assert_eq!(own(bob, of_alice), Ok(shared));
        // The points of 5.2 may be on the twist, where a mix key takes none.
        let first = own(
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        );
        let shared = unhex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
        assert!(first.map_or_else(|why| why == KemError::Twist, |own| own == shared));
    }

    proptest! {
        // A million in the long run: half of all u are on the twist.
        #![proptest_config(ProptestConfig::with_cases(
            if std::env::var_os("FOG_LONG").is_some() { 1_000_000 } else { 256 }
        ))]

        #[test]
        fn every_way_agrees_with_the_ladder(scalar: [u8; 32], u: [u8; 32]) {
            let secret = StaticSecret::from(scalar);
            prop_assert_eq!(public(&scalar), PublicKey::from(&secret).to_bytes());
            let ladder = secret.diffie_hellman(&PublicKey::from(u)).to_bytes();
            match every_way(&scalar, &u) {
                Ok(shared) => prop_assert_eq!(shared, ladder),
                Err(KemError::Twist) => prop_assert!(MontgomeryPoint(u).to_edwards(0).is_none()),
                Err(KemError::NotCanonical) => prop_assert!(u[31] & 0x80 != 0 || u[31] == 0x7f),
                Err(other) => prop_assert_eq!(other, KemError::LowOrder),
            }
        }
    }
}

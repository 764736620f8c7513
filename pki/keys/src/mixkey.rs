//! The mix key: a hybrid KEM of X25519 (RFC 7748) and ML-KEM-768 (FIPS 203).
//!
//! The two shared secrets are handed out side by side. A protocol that uses them must bind both
//! ciphertexts and the public key in its key derivation: X25519 alone is malleable.

use core::fmt;
use core::hint::black_box;
use std::sync::{Arc, OnceLock};

use libcrux_ml_kem::mlkem768::{self, MlKem768Ciphertext, MlKem768PublicKey};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize as _, Zeroizing};

use crate::x25519::{self, X25519_LEN};

const MLKEM_PUBLIC_LEN: usize = 1184;
const MLKEM_CIPHERTEXT_LEN: usize = 1088;
const MLKEM_SEED_LEN: usize = 64;

/// Octets of a mix public key: X25519 (32), ML-KEM-768 encapsulation key (1,184).
pub const MIX_PUBLIC_LEN: usize = X25519_LEN + MLKEM_PUBLIC_LEN;
/// Octets of a ciphertext: ephemeral X25519 key (32), ML-KEM-768 ciphertext (1,088).
pub const MIX_CIPHERTEXT_LEN: usize = X25519_LEN + MLKEM_CIPHERTEXT_LEN;
/// Octets of a seed: X25519 scalar (32), ML-KEM `d ‖ z` (64).
pub const MIX_SEED_LEN: usize = X25519_LEN + MLKEM_SEED_LEN;

/// What a mix key is made from, 96 octets; also what its file holds. Zeroized on drop.
pub struct MixSeed(Box<Zeroizing<[u8; MIX_SEED_LEN]>>);

impl MixSeed {
    /// Draws a seed.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Self(Box::new(Zeroizing::new([0; MIX_SEED_LEN])));
        rng.fill_bytes(seed.0.as_mut_slice());
        seed
    }

    /// Takes a seed from the file that kept it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; MIX_SEED_LEN]) -> Self {
        Self(Box::new(Zeroizing::new(*bytes)))
    }

    /// The 96 octets, for the file that keeps it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; MIX_SEED_LEN] {
        &self.0
    }
}

/// Compared in constant time.
impl PartialEq for MixSeed {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl Eq for MixSeed {}

/// The secret half of a node's mix key for one epoch. Destroyed on drop.
pub struct MixSecret {
    x25519: Box<StaticSecret>,
    mlkem: Unpacked,
    public: MixPublic,
}

impl MixSecret {
    /// The key of a seed.
    #[must_use]
    pub fn from_seed(seed: &MixSeed) -> Self {
        let mut scalar = Zeroizing::new([0; X25519_LEN]);
        let mut dz = Zeroizing::new([0; MLKEM_SEED_LEN]);
        let (first, second) = seed.as_bytes().split_at(X25519_LEN);
        scalar.copy_from_slice(first);
        dz.copy_from_slice(second);
        let x25519 = Box::new(StaticSecret::from(*scalar));
        let mlkem = Unpacked::generate(&dz);
        let public = MixPublic {
            x25519: PublicKey::from(x25519.as_ref()).to_bytes(),
            mlkem: Box::new(mlkem.public()),
            unpacked: OnceLock::new(),
        };
        Self { x25519, mlkem, public }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &MixPublic {
        &self.public
    }

    /// Opens a ciphertext. ML-KEM never fails: a foreign ciphertext gives an unrelated secret.
    ///
    /// # Errors
    /// [`KemError`] if the X25519 half is not canonical, on the twist, or of low order.
    pub fn decapsulate(&self, ciphertext: &MixCiphertext) -> Result<MixShared, KemError> {
        let (x25519, mlkem) = ciphertext.parts();
        let x25519 = x25519::shared(self.x25519.as_bytes(), x25519)?;
        Ok(MixShared { x25519, mlkem: self.mlkem.decapsulate(mlkem) })
    }
}

/// The public half of a mix key, 1,216 octets, checked when it was read: wrapping to it cannot
/// fail.
#[derive(Clone)]
pub struct MixPublic {
    x25519: [u8; X25519_LEN],
    mlkem: Box<[u8; MLKEM_PUBLIC_LEN]>,
    /// The matrix expanded, at the first use: most keys of a directory are never wrapped to.
    unpacked: OnceLock<Arc<UnpackedPublic>>,
}

impl PartialEq for MixPublic {
    fn eq(&self, other: &Self) -> bool {
        self.x25519 == other.x25519 && self.mlkem == other.mlkem
    }
}

impl Eq for MixPublic {}

impl fmt::Debug for MixPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MixPublic(..)")
    }
}

impl MixPublic {
    /// Reads and checks a public key: X25519 canonical, on the curve and not of low order; ML-KEM
    /// coefficients reduced (FIPS 203, 7.2, modulus check).
    ///
    /// # Errors
    /// [`KemError`] naming the failed check.
    pub fn from_bytes(bytes: &[u8; MIX_PUBLIC_LEN]) -> Result<Self, KemError> {
        let (x25519, mlkem) = bytes.split_first_chunk().ok_or(KemError::Length)?;
        let mlkem: &[u8; MLKEM_PUBLIC_LEN] = mlkem.try_into().map_err(|_| KemError::Length)?;
        x25519::check(x25519)?;
        if !mlkem768::validate_public_key(&MlKem768PublicKey::from(*mlkem)) {
            return Err(KemError::Modulus);
        }
        Ok(Self { x25519: *x25519, mlkem: Box::new(*mlkem), unpacked: OnceLock::new() })
    }

    /// Reads a public key that was checked before.
    pub(crate) fn checked_before(bytes: &[u8; MIX_PUBLIC_LEN]) -> Result<Self, KemError> {
        let (x25519, mlkem) = bytes.split_first_chunk().ok_or(KemError::Length)?;
        let mlkem: [u8; MLKEM_PUBLIC_LEN] = mlkem.try_into().map_err(|_| KemError::Length)?;
        Ok(Self { x25519: *x25519, mlkem: Box::new(mlkem), unpacked: OnceLock::new() })
    }

    /// The 1,216 octets.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; MIX_PUBLIC_LEN] {
        join(&self.x25519, self.mlkem.as_slice())
    }

    /// A fresh ciphertext to this key, and the secrets it carries. Draws 64 octets: the ephemeral
    /// X25519 scalar, then ML-KEM's `m`.
    ///
    /// # Errors
    /// [`KemError`] never happens for a key that [`MixPublic::from_bytes`] took.
    pub fn encapsulate(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(MixCiphertext, MixShared), KemError> {
        let mut scalar = Zeroizing::new([0; X25519_LEN]);
        let mut m = Zeroizing::new([0; 32]);
        rng.fill_bytes(scalar.as_mut_slice());
        rng.fill_bytes(m.as_mut_slice());

        let ephemeral = x25519::public(&scalar);
        let x25519 = x25519::shared_with_checked(&scalar, &self.x25519)?;
        let unpacked = self.unpacked.get_or_init(|| Arc::new(UnpackedPublic::of(&self.mlkem)));
        let (ciphertext, mut shared) = unpacked.encapsulate(&m);
        let mlkem = Zeroizing::new(shared);
        shared.zeroize();
        let bytes = join(&ephemeral, ciphertext.as_slice());
        Ok((MixCiphertext(bytes), MixShared { x25519, mlkem }))
    }
}

/// A KEM ciphertext, 1,120 octets, as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixCiphertext([u8; MIX_CIPHERTEXT_LEN]);

impl MixCiphertext {
    /// Takes 1,120 octets; what they hold is checked when they are opened.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; MIX_CIPHERTEXT_LEN]) -> Self {
        Self(bytes)
    }

    /// The 1,120 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; MIX_CIPHERTEXT_LEN] {
        &self.0
    }

    fn parts(&self) -> (&[u8; X25519_LEN], &[u8; MLKEM_CIPHERTEXT_LEN]) {
        let (x25519, rest) = self.0.split_at(X25519_LEN);
        let mut halves = (&[0; X25519_LEN], &[0; MLKEM_CIPHERTEXT_LEN]);
        if let (Ok(x25519), Ok(mlkem)) = (x25519.try_into(), rest.try_into()) {
            halves = (x25519, mlkem);
        }
        halves
    }
}

/// The two secrets of one encapsulation, 32 octets each. Zeroized on drop.
pub struct MixShared {
    x25519: Zeroizing<[u8; 32]>,
    mlkem: Zeroizing<[u8; 32]>,
}

impl MixShared {
    /// The X25519 secret.
    #[must_use]
    pub fn x25519(&self) -> &[u8; 32] {
        &self.x25519
    }

    /// The ML-KEM-768 secret.
    #[must_use]
    pub fn mlkem(&self) -> &[u8; 32] {
        &self.mlkem
    }
}

/// Why a key or ciphertext is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KemError {
    /// Not the number of octets it must have.
    #[error("wrong length")]
    Length,
    /// An X25519 octet string that encodes no reduced field element.
    #[error("X25519 value is not canonical")]
    NotCanonical,
    /// An X25519 value on the twist of the curve.
    #[error("X25519 value is on the twist")]
    Twist,
    /// An X25519 value whose product is the neutral element.
    #[error("X25519 value is of low order")]
    LowOrder,
    /// An ML-KEM key with a coefficient of 3,329 or more.
    #[error("ML-KEM key is not reduced")]
    Modulus,
}

/// ML-KEM-768 encapsulation key with its matrix expanded.
enum UnpackedPublic {
    #[cfg(target_arch = "x86_64")]
    Avx2(Box<mlkem768::avx2::unpacked::MlKem768PublicKeyUnpacked>),
    Portable(Box<mlkem768::portable::unpacked::MlKem768PublicKeyUnpacked>),
}

impl UnpackedPublic {
    fn of(packed: &[u8; MLKEM_PUBLIC_LEN]) -> Self {
        let packed = MlKem768PublicKey::from(*packed);
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            let mut key = Box::new(mlkem768::avx2::unpacked::init_public_key());
            mlkem768::avx2::unpacked::unpacked_public_key(&packed, &mut key);
            return Self::Avx2(key);
        }
        let mut key = Box::new(mlkem768::portable::unpacked::init_public_key());
        mlkem768::portable::unpacked::unpacked_public_key(&packed, &mut key);
        Self::Portable(key)
    }

    fn encapsulate(&self, m: &[u8; 32]) -> (MlKem768Ciphertext, [u8; 32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(key) => mlkem768::avx2::unpacked::encapsulate(key, *m),
            Self::Portable(key) => mlkem768::portable::unpacked::encapsulate(key, *m),
        }
    }
}

/// ML-KEM-768 key pair with its matrix expanded (7,776 octets), in the code path this machine can
/// run. libcrux's types neither zeroize nor drop: they stay boxed and are overwritten in place.
enum Unpacked {
    #[cfg(target_arch = "x86_64")]
    Avx2(Box<mlkem768::avx2::unpacked::MlKem768KeyPairUnpacked>),
    Portable(Box<mlkem768::portable::unpacked::MlKem768KeyPairUnpacked>),
}

impl Unpacked {
    fn generate(dz: &[u8; MLKEM_SEED_LEN]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            let mut pair = Box::new(mlkem768::avx2::unpacked::init_key_pair());
            mlkem768::avx2::unpacked::generate_key_pair_mut(*dz, &mut pair);
            return Self::Avx2(pair);
        }
        let mut pair = Box::new(mlkem768::portable::unpacked::init_key_pair());
        mlkem768::portable::unpacked::generate_key_pair_mut(*dz, &mut pair);
        Self::Portable(pair)
    }

    fn public(&self) -> [u8; MLKEM_PUBLIC_LEN] {
        let mut public = MlKem768PublicKey::from([0; MLKEM_PUBLIC_LEN]);
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(pair) => {
                mlkem768::avx2::unpacked::key_pair_serialized_public_key_mut(pair, &mut public);
            }
            Self::Portable(pair) => {
                mlkem768::portable::unpacked::key_pair_serialized_public_key_mut(pair, &mut public);
            }
        }
        *public.as_slice()
    }

    fn decapsulate(&self, ciphertext: &[u8; MLKEM_CIPHERTEXT_LEN]) -> Zeroizing<[u8; 32]> {
        let ciphertext = MlKem768Ciphertext::from(*ciphertext);
        let mut shared = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(pair) => mlkem768::avx2::unpacked::decapsulate(pair, &ciphertext),
            Self::Portable(pair) => mlkem768::portable::unpacked::decapsulate(pair, &ciphertext),
        };
        let kept = Zeroizing::new(shared);
        shared.zeroize();
        kept
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        const NOTHING: [u8; MLKEM_SEED_LEN] = [0; MLKEM_SEED_LEN];
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(pair) => {
                mlkem768::avx2::unpacked::generate_key_pair_mut(NOTHING, pair);
                black_box(pair);
            }
            Self::Portable(pair) => {
                mlkem768::portable::unpacked::generate_key_pair_mut(NOTHING, pair);
                black_box(pair);
            }
        }
    }
}

fn join<const N: usize>(first: &[u8], second: &[u8]) -> [u8; N] {
    let mut joined = [0; N];
    for (to, from) in joined.iter_mut().zip(first.iter().chain(second)) {
        *to = *from;
    }
    joined
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    fn secret(seed: u64) -> MixSecret {
        MixSecret::from_seed(&MixSeed::generate(&mut ChaCha20Rng::seed_from_u64(seed)))
    }

    #[test]
    fn both_ends_hold_the_same_secrets() {
        let secret = secret(1);
        let public = MixPublic::from_bytes(&secret.public().to_bytes()).unwrap();
        let (ciphertext, sent) = public.encapsulate(&mut ChaCha20Rng::seed_from_u64(2)).unwrap();
        let opened = secret.decapsulate(&ciphertext).unwrap();
        assert_eq!(sent.x25519(), opened.x25519());
        assert_eq!(sent.mlkem(), opened.mlkem());
    }

    #[test]
    fn low_order_twist_and_second_encodings_are_refused() {
        let secret = secret(3);
        let refused = |u: [u8; 32]| {
            let ciphertext = MixCiphertext(join(&u, &[0; MLKEM_CIPHERTEXT_LEN]));
            secret.decapsulate(&ciphertext).err()
        };
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(refused([0; 32]), Some(KemError::LowOrder));
        assert_eq!(refused(one), Some(KemError::LowOrder));
        for point in curve25519_dalek::constants::EIGHT_TORSION {
            let error = refused(point.to_montgomery().to_bytes());
            assert_eq!(error, Some(KemError::LowOrder));
        }
        let mut two = [0; 32];
        two[0] = 2;
        assert_eq!(refused(two), Some(KemError::Twist));
        let mut p = [0xff; 32];
        p[0] = 0xed;
        p[31] = 0x7f;
        assert_eq!(refused(p), Some(KemError::NotCanonical));
        let mut high_bit = secret.public().x25519;
        high_bit[31] |= 0x80;
        assert_eq!(refused(high_bit), Some(KemError::NotCanonical));
    }

    #[test]
    fn unreduced_and_low_order_public_keys_are_refused() {
        let good = secret(4).public().to_bytes();
        let mut unreduced = good;
        unreduced[32] = 0xff;
        unreduced[33] |= 0x0f;
        assert_eq!(MixPublic::from_bytes(&unreduced), Err(KemError::Modulus));
        let mut low = good;
        low[..32].fill(0);
        assert_eq!(MixPublic::from_bytes(&low), Err(KemError::LowOrder));
    }

    #[test]
    fn the_portable_path_opens_what_the_fast_path_opens() {
        let seed = MixSeed::generate(&mut ChaCha20Rng::seed_from_u64(5));
        let fast = MixSecret::from_seed(&seed);
        let dz: [u8; 64] = seed.as_bytes()[32..].try_into().unwrap();
        let mut pair = Box::new(mlkem768::portable::unpacked::init_key_pair());
        mlkem768::portable::unpacked::generate_key_pair_mut(dz, &mut pair);
        let portable = Unpacked::Portable(pair);
        assert_eq!(portable.public(), *fast.public().mlkem);
        let (ciphertext, sent) =
            fast.public().encapsulate(&mut ChaCha20Rng::seed_from_u64(6)).unwrap();
        let (_, mlkem) = ciphertext.parts();
        assert_eq!(*portable.decapsulate(mlkem), *sent.mlkem);

        let packed = MlKem768PublicKey::from(*fast.public().mlkem);
        let mut key = Box::new(mlkem768::portable::unpacked::init_public_key());
        mlkem768::portable::unpacked::unpacked_public_key(&packed, &mut key);
        let (portable, fast) =
            (UnpackedPublic::Portable(key), UnpackedPublic::of(packed.as_slice()));
        let (first, second) = (portable.encapsulate(&[3; 32]), fast.encapsulate(&[3; 32]));
        let known = mlkem768::encapsulate(&packed, [3; 32]);
        assert_eq!((first.0.as_slice(), first.1), (second.0.as_slice(), second.1));
        assert_eq!((first.0.as_slice(), first.1), (known.0.as_slice(), known.1));
    }
}

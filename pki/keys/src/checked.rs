//! What has been checked before and need not be checked again: that octets are an identity, or a
//! mix key. Both are facts for ever, and cost half of what a record costs to verify.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha512};

use crate::identity::NodeId;
use crate::mixkey::{KemError, MIX_PUBLIC_LEN, MixPublic};
use crate::onion::{OnionAddress, OnionError};

/// Facts of one kind that are remembered in one generation; 32 octets each. Of two generations the
/// older is forgotten when the younger is full: a flood of new ones costs others their facts, and
/// nothing but time.
const MAX_FACTS: usize = 8192;

/// Facts that one thread remembers: at most a megabyte.
#[derive(Default)]
pub struct Checked {
    identities: Facts,
    mix_keys: Facts,
}

#[derive(Default)]
struct Facts {
    young: BTreeSet<[u8; 32]>,
    old: BTreeSet<[u8; 32]>,
}

impl Facts {
    fn has(&mut self, fact: &[u8; 32]) -> bool {
        if self.young.contains(fact) {
            return true;
        }
        let is_known = self.old.contains(fact);
        if is_known {
            self.note(*fact);
        }
        is_known
    }

    fn note(&mut self, fact: [u8; 32]) {
        if self.young.len() >= MAX_FACTS {
            self.old = core::mem::take(&mut self.young);
        }
        self.young.insert(fact);
    }
}

impl Checked {
    /// The address of a node.
    ///
    /// # Errors
    /// As [`OnionAddress::of`].
    pub fn onion(&mut self, node: NodeId) -> Result<OnionAddress, OnionError> {
        if self.identities.has(node.as_bytes()) {
            return Ok(OnionAddress::checked_before(node));
        }
        let onion = OnionAddress::of(node)?;
        self.identities.note(*node.as_bytes());
        Ok(onion)
    }

    /// A mix key from its octets.
    ///
    /// # Errors
    /// As [`MixPublic::from_bytes`].
    pub fn mix_public(&mut self, bytes: &[u8; MIX_PUBLIC_LEN]) -> Result<MixPublic, KemError> {
        let mut fact = [0; 32];
        for (to, from) in fact.iter_mut().zip(Sha512::digest(bytes)) {
            *to = from;
        }
        if self.mix_keys.has(&fact) {
            return MixPublic::checked_before(bytes);
        }
        let key = MixPublic::from_bytes(bytes)?;
        self.mix_keys.note(fact);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, MixSecret, MixSeed};

    #[test]
    fn what_was_checked_is_taken_again_and_nothing_else_is() {
        let mut checked = Checked::default();
        let node = Identity::from_seed(&[1; 32]).node();
        let secret = MixSecret::from_seed(&MixSeed::from_bytes(&[2; crate::MIX_SEED_LEN]));
        let key = secret.public().to_bytes();
        for _ in 0..2 {
            assert_eq!(checked.onion(node), OnionAddress::of(node));
            assert_eq!(checked.mix_public(&key).as_ref(), Ok(secret.public()));
            let nobody = NodeId::from_bytes([0; 32]);
            assert!(checked.onion(nobody).is_err(), "of low order");
            let mut bad = key;
            bad[40..].fill(0xff);
            assert!(checked.mix_public(&bad).is_err(), "not reduced");
        }
    }

    #[test]
    fn it_remembers_a_bounded_number_and_what_is_used_stays() {
        let mut facts = Facts::default();
        let fact = |number: usize| {
            let mut fact = [0; 32];
            fact[..8].copy_from_slice(&number.to_be_bytes());
            fact
        };
        facts.note(fact(usize::MAX));
        for number in 0..MAX_FACTS * 5 {
            facts.note(fact(number));
            if number % 1000 == 0 {
                assert!(facts.has(&fact(usize::MAX)));
            }
        }
        assert!(facts.young.len() + facts.old.len() <= 2 * MAX_FACTS);
        assert!(!facts.has(&fact(0)));
    }
}

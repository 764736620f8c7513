//! Deliveries that are over: an attempt that comes again is answered, and not delivered again.
//!
//! A delivery is remembered by a tag, BLAKE3 over its id keyed with a key of the epoch, which goes with the
//! epoch: a disk that is seized later does not tell which deliveries were made here.

use std::collections::BTreeMap;

use keys::Epoch;
use mail::{Acknowledgement, DeliveryStatus};
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::command::{Command, Out};

/// Deliveries remembered, at most, some 100 octets each. At the bound those of the oldest epoch go: what
/// comes again of them is delivered twice, with the same Message-ID.
const MAX_OVER: usize = 256 * 1024;
/// Epochs for which a delivery is remembered after its own: its attempts end within six hours.
pub(crate) const REMEMBERED: u32 = 3;
/// Statuses remembered of one, at most: there are four.
const STATUSES: usize = 8;

/// That a delivery is over.
#[derive(Clone, PartialEq)]
pub struct Over {
    /// When it was, for which the tag is keyed.
    pub epoch: Epoch,
    /// The key of that epoch.
    pub key: Zeroizing<[u8; 32]>,
    /// The tag.
    pub tag: OverTag,
}

/// What is remembered of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverTag {
    tag: [u8; 16],
    statuses: [(u8, u8); STATUSES],
}

/// The deliveries that were over in one epoch.
pub struct OverIn {
    /// The epoch.
    pub epoch: Epoch,
    /// Its key.
    pub key: Zeroizing<[u8; 32]>,
    /// The deliveries.
    pub tags: Vec<OverTag>,
}

impl OverTag {
    /// Octets of one.
    pub const LEN: usize = 16 + 2 * STATUSES;

    fn of(tag: [u8; 16], said: &Acknowledgement) -> Self {
        let mut statuses = [(0, 0); STATUSES];
        let pairs = said.iter().map(|(status, all)| (status.number(), all));
        statuses.iter_mut().zip(pairs).for_each(|(to, from)| *to = from);
        Self { tag, statuses }
    }

    /// The octets: tag 16, then number of the status 1 and recipients 1, eight times.
    #[must_use]
    pub fn to_octets(&self) -> [u8; Self::LEN] {
        let statuses = self.statuses.iter().flat_map(|(status, all)| [*status, *all]);
        let mut octets = [0; Self::LEN];
        let all = self.tag.iter().copied().chain(statuses);
        octets.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        octets
    }

    /// Reads what [`OverTag::to_octets`] gave.
    #[must_use]
    pub fn from_octets(octets: &[u8; Self::LEN]) -> Self {
        let mut of = Self { tag: [0; 16], statuses: [(0, 0); STATUSES] };
        let (tag, rest) = octets.split_at(of.tag.len());
        of.tag.copy_from_slice(tag);
        let (pairs, _) = rest.as_chunks::<2>();
        of.statuses.iter_mut().zip(pairs).for_each(|(to, [status, all])| *to = (*status, *all));
        of
    }

    fn said(&self) -> Acknowledgement {
        let statuses = self.statuses.iter();
        let statuses =
            statuses.map(|(status, all)| (DeliveryStatus::from_number(*status), usize::from(*all)));
        Acknowledgement::of(statuses)
    }
}

struct Tags {
    key: Zeroizing<[u8; 32]>,
    tags: BTreeMap<[u8; 16], OverTag>,
}

impl Tags {
    fn tag(&self, delivery: &[u8; 16]) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.key, delivery);
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

#[derive(Default)]
pub(crate) struct Overs {
    epochs: BTreeMap<Epoch, Tags>,
}

impl Overs {
    pub(crate) fn restore(&mut self, kept: Vec<OverIn>) {
        for OverIn { epoch, key, tags } in kept {
            let tags = tags.into_iter().map(|tag| (tag.tag, tag)).collect();
            self.epochs.insert(epoch, Tags { key, tags });
        }
    }

    /// What was said of a delivery that is over.
    pub(crate) fn find(&self, delivery: &[u8; 16]) -> Option<Acknowledgement> {
        let found = self.epochs.values().find_map(|of| of.tags.get(&of.tag(delivery)));
        found.map(OverTag::said)
    }

    /// Remembers that a delivery is over.
    pub(crate) fn note(
        &mut self,
        delivery: &[u8; 16],
        said: &Acknowledgement,
        epoch: Epoch,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        while self.epochs.values().map(|of| of.tags.len()).sum::<usize>() >= MAX_OVER {
            let Some((oldest, _)) = self.epochs.pop_first() else { break };
            out.push(Command::ForgetOver(oldest.plus(1)));
        }
        let of = self.epochs.entry(epoch).or_insert_with(|| {
            let mut key = Zeroizing::new([0; 32]);
            rng.fill_bytes(key.as_mut_slice());
            Tags { key, tags: BTreeMap::new() }
        });
        let tag = OverTag::of(of.tag(delivery), said);
        of.tags.insert(tag.tag, tag);
        out.push(Command::KeepOver(Over { epoch, key: of.key.clone(), tag }));
    }

    /// Forgets what was over so long ago that no attempt comes any more.
    pub(crate) fn forget_past(&mut self, present: Epoch, out: &mut Out) {
        let oldest = present.minus(REMEMBERED);
        let kept = self.epochs.split_off(&oldest);
        if !core::mem::replace(&mut self.epochs, kept).is_empty() {
            out.push(Command::ForgetOver(oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn what_is_over_is_known_after_a_restart_and_goes_with_its_epoch() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (mut overs, mut out) = (Overs::default(), Out::default());
        let said =
            Acknowledgement::of([(DeliveryStatus::Delivered, 2), (DeliveryStatus::Refused, 1)]);
        let epoch = Epoch::new(70);
        overs.note(&[7; 16], &said, epoch, &mut rng, &mut out);
        overs.note(&[8; 16], &Acknowledgement::default(), epoch, &mut rng, &mut out);
        assert_eq!(overs.find(&[7; 16]), Some(said.clone()));
        assert_eq!(overs.find(&[9; 16]), None);
        let mut kept: Vec<OverIn> = Vec::new();
        while let Some(Command::KeepOver(Over { epoch, key, tag })) = out.next() {
            assert!(!tag.to_octets().windows(16).any(|octets| octets == [7; 16]), "no id");
            let again = OverTag::from_octets(&tag.to_octets());
            assert_eq!(again, tag);
            match kept.last_mut() {
                Some(of) => of.tags.push(again),
                None => kept.push(OverIn { epoch, key, tags: vec![again] }),
            }
        }
        let mut again = Overs::default();
        again.restore(kept);
        assert_eq!(again.find(&[7; 16]), Some(said));
        again.forget_past(epoch.plus(REMEMBERED), &mut out);
        assert!(again.find(&[7; 16]).is_some() && out.next().is_none());
        again.forget_past(epoch.plus(REMEMBERED + 1), &mut out);
        assert!(again.find(&[7; 16]).is_none());
        assert_eq!(out.next(), Some(Command::ForgetOver(epoch.plus(1))));
    }
}

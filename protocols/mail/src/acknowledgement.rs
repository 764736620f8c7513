//! What became of a message at an exit, as its acknowledgement says. `README.md` beside this crate
//! gives the layout.

/// Octets of an acknowledgement, at most.
pub const MAX_ACKNOWLEDGEMENT: usize = 1 + 2 * MAX_STATUSES;

const VERSION: u8 = 1;
/// More than there are kinds of statuses.
const MAX_STATUSES: usize = 16;
/// The bit of an status after which there is no other.
const FINAL: u8 = 0x80;

/// What became of a message for some of its recipients (a delivery status, as in RFC 3464); one octet. The list is open: of an status
/// that is not known its first bit says whether it is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryStatus {
    /// 0x81: the next server took it.
    Delivered,
    /// 0x82: the next server refused it, as any other would.
    Refused,
    /// 0x83: it is not delivered by this exit; by another it may be.
    RefusedHere,
    /// 0x84: the next server did not take it in time.
    GaveUp,
    /// 0x05: it is held, and tried again.
    Held,
    /// Another.
    Other {
        /// Whether no other follows.
        is_final: bool,
    },
}

/// Why octets are no acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgementError {
    /// Of another version.
    #[error("unknown version")]
    Unknown,
    /// Too long, or not of whole pairs.
    #[error("malformed")]
    Malformed,
}

/// What became of one message: statuses, each with the number of recipients that it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgement(Vec<(DeliveryStatus, u8)>);

impl DeliveryStatus {
    const KNOWN: [Self; 5] =
        [Self::Delivered, Self::Refused, Self::RefusedHere, Self::GaveUp, Self::Held];

    /// Its octet.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Delivered => FINAL | 1,
            Self::Refused => FINAL | 2,
            Self::RefusedHere => FINAL | 3,
            Self::GaveUp => FINAL | 4,
            Self::Held => 5,
            Self::Other { is_final: true } => FINAL,
            Self::Other { is_final: false } => 0,
        }
    }

    /// Of any octet.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.number() == number);
        known.unwrap_or(Self::Other { is_final: number & FINAL != 0 })
    }

    /// Whether no other status follows for these recipients.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self.number() & FINAL != 0
    }
}

impl Acknowledgement {
    /// Of these statuses; those of nobody are left out.
    #[must_use]
    pub fn of(statuses: impl IntoIterator<Item = (DeliveryStatus, usize)>) -> Self {
        let some = statuses.into_iter().filter(|(_, recipients)| *recipients > 0);
        let counted = some.map(|(status, all)| (status, u8::try_from(all).unwrap_or(u8::MAX)));
        Self(counted.take(MAX_STATUSES).collect())
    }

    /// The statuses, each with its number of recipients.
    pub fn iter(&self) -> impl Iterator<Item = (DeliveryStatus, u8)> {
        self.0.iter().copied()
    }

    /// The octets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let pairs = self.0.iter().flat_map(|(status, all)| [status.number(), *all]);
        core::iter::once(VERSION).chain(pairs).collect()
    }

    /// Reads the octets of an acknowledgement.
    ///
    /// # Errors
    /// [`AcknowledgementError`]: whoever sent it is not trusted to have been honest.
    pub fn decode(octets: &[u8]) -> Result<Self, AcknowledgementError> {
        let (version, rest) = octets.split_first().ok_or(AcknowledgementError::Malformed)?;
        if *version != VERSION {
            return Err(AcknowledgementError::Unknown);
        }
        let (pairs, []) = rest.as_chunks::<2>() else {
            return Err(AcknowledgementError::Malformed);
        };
        if pairs.len() > MAX_STATUSES {
            return Err(AcknowledgementError::Malformed);
        }
        Ok(Self(
            pairs
                .iter()
                .map(|[number, all]| (DeliveryStatus::from_number(*number), *all))
                .collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_octets_are_those_of_the_layout() {
        let said = Acknowledgement::of([
            (DeliveryStatus::Delivered, 2),
            (DeliveryStatus::Refused, 0),
            (DeliveryStatus::GaveUp, 100),
        ]);
        assert_eq!(said.encode(), [1, 0x81, 2, 0x84, 100]);
        assert_eq!(Acknowledgement::decode(&said.encode()), Ok(said));
        assert!(DeliveryStatus::RefusedHere.is_final() && !DeliveryStatus::Held.is_final());
        let other = |number| Acknowledgement::decode(&[1, number, 3]).unwrap().iter().next();
        assert_eq!(other(0x99), Some((DeliveryStatus::Other { is_final: true }, 3)));
        assert_eq!(other(0x19), Some((DeliveryStatus::Other { is_final: false }, 3)));
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_harm(
            octets in proptest::collection::vec(any::<u8>(), 0..60),
            version in 0u8..3,
        ) {
            let octets: Vec<u8> = core::iter::once(version).chain(octets).collect();
            match Acknowledgement::decode(&octets) {
                Ok(said) => {
                    prop_assert!(version == 1 && octets.len() <= MAX_ACKNOWLEDGEMENT);
                    let again = Acknowledgement::decode(&said.encode());
                    prop_assert_eq!(again.map(|again| again.iter().count()), Ok(said.iter().count()));
                }
                Err(AcknowledgementError::Unknown) => prop_assert_ne!(version, 1),
                Err(AcknowledgementError::Malformed) => {
                    prop_assert!(octets.len().is_multiple_of(2) || octets.len() > MAX_ACKNOWLEDGEMENT);
                }
            }
        }
    }
}

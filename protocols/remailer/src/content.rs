//! What a packet may carry, and the smallest size class that holds it.
//!
//! The first octet of a content is its type. A node refuses by its number what it does not know.

use record::Stage;
use sphinx::{Payload, SizeClass};
use zeroize::Zeroizing;

/// The first octet of a content. 240 to 255 are for tests; the rest is unassigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// 1: a fragment of mail.
    Fragment,
    /// 2: what became of a message at its exit.
    Acknowledgement,
    /// 3: where a loop turns back. What turns it answers with the same octet.
    TurningPoint,
    /// 4: what a node says of the list that it uses. Reserved.
    Digest,
    /// 5: something for a mailbox. Reserved.
    Store,
    /// 6: a question to a mailbox. Reserved.
    Fetch,
    /// 7: the answer of a mailbox. Reserved.
    MailboxAnswer,
    /// 8: more time for what a mailbox keeps. Reserved.
    GrantRenewal,
    /// 9: to whom a content was sent does not know its type. Reserved.
    Unsupported,
}

impl ContentType {
    const ALL: [Self; 9] = [
        Self::Fragment,
        Self::Acknowledgement,
        Self::TurningPoint,
        Self::Digest,
        Self::Store,
        Self::Fetch,
        Self::MailboxAnswer,
        Self::GrantRenewal,
        Self::Unsupported,
    ];

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Fragment => 1,
            Self::Acknowledgement => 2,
            Self::TurningPoint => 3,
            Self::Digest => 4,
            Self::Store => 5,
            Self::Fetch => 6,
            Self::MailboxAnswer => 7,
            Self::GrantRenewal => 8,
            Self::Unsupported => 9,
        }
    }

    /// Whether a payload is a loop's, to be turned.
    pub(crate) fn is_turning_point(payload: &Payload) -> bool {
        let content = payload.content().ok().and_then(Self::split);
        matches!(content, Some((Self::TurningPoint, [])))
    }

    /// The type and the rest of a content; `None` if its type is not assigned.
    #[must_use]
    pub fn split(content: &[u8]) -> Option<(Self, &[u8])> {
        let (number, rest) = content.split_first()?;
        let of = Self::ALL.into_iter().find(|known| known.number() == *number)?;
        Some((of, rest))
    }
}

/// The smallest open class that holds a content of so many octets.
pub(crate) fn open_class(octets: usize, stage: &Stage) -> Option<SizeClass> {
    let mut open = SizeClass::all().filter(|class| stage.is_open(class.number()));
    open.find(|class| class.capacity() >= octets)
}

/// More than the largest packet holds.
#[derive(Debug)]
pub(crate) struct TooBig;

/// The octets of a content and the smallest class that holds them. Zeroized on drop.
#[derive(PartialEq)]
pub(crate) struct Fitted {
    pub(crate) octets: Zeroizing<Vec<u8>>,
    pub(crate) class: SizeClass,
}

impl Fitted {
    /// What a piece of mail for an exit travels as: in the smallest of the open classes that holds it.
    pub(crate) fn mail(piece: &[u8], stage: &Stage) -> Result<Self, TooBig> {
        let mut octets = Zeroizing::new(Vec::with_capacity(piece.len() + 1));
        octets.push(ContentType::Fragment.number());
        octets.extend_from_slice(piece);
        let class = open_class(octets.len(), stage).ok_or(TooBig)?;
        Ok(Self { octets, class })
    }

    /// What a packet travels as that ends without a word.
    pub(crate) fn nothing(class: SizeClass) -> Self {
        Self { octets: Zeroizing::new(Vec::new()), class }
    }

    /// What a loop travels as.
    pub(crate) fn turning_point(class: SizeClass) -> Self {
        Self { octets: Zeroizing::new(vec![ContentType::TurningPoint.number()]), class }
    }

    pub(crate) fn packet_len(&self) -> usize {
        self.class.packet_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_number_of_its_own_and_others_are_none() {
        for number in 0..=u8::MAX {
            let content = [number, 7];
            let known = ContentType::split(&content);
            assert_eq!(known.is_some(), (1..=9).contains(&number));
            if let Some((of, rest)) = known {
                assert_eq!((of.number(), rest), (number, &[7][..]));
            }
        }
        assert!(ContentType::split(&[]).is_none());
    }
}

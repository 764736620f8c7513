//! A message that comes in chunks of announced lengths (RFC 3030): its octets are what they are, and no dot ends
//! it.

use zeroize::Zeroizing;

use crate::data::{Fault, append};

/// Collects one message.
pub(crate) struct Chunks {
    message: Zeroizing<Vec<u8>>,
    max: usize,
    /// Octets of the present chunk that are still to come.
    left: u64,
    is_last: bool,
    fault: Option<Fault>,
}

impl Chunks {
    pub(crate) fn new(max: usize) -> Self {
        Self { message: Zeroizing::default(), max, left: 0, is_last: false, fault: None }
    }

    /// A chunk of so many octets follows.
    pub(crate) fn begin(&mut self, octets: u64, is_last: bool) {
        (self.left, self.is_last) = (octets, is_last);
        let fits = usize::try_from(octets)
            .ok()
            .and_then(|octets| octets.checked_add(self.message.len()))
            .is_some_and(|all| all <= self.max);
        if !fits {
            self.spoil(Fault::TooBig);
        }
    }

    /// Octets of the present chunk that are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Whether the present chunk is the last.
    pub(crate) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Takes what belongs to the present chunk, and returns how many octets that is.
    pub(crate) fn take(&mut self, octets: &[u8]) -> usize {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(octets.len());
        self.left = self.left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        if self.fault.is_none()
            && let Some(taken) = octets.get(..count)
        {
            append(&mut self.message, taken);
        }
        count
    }

    /// Octets kept so far.
    pub(crate) fn len(&self) -> usize {
        self.message.len()
    }

    /// What spoiled it, if anything did.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Keeps nothing of the message any more; its chunks are still taken.
    pub(crate) fn give_up(&mut self) {
        self.spoil(Fault::NoRoom);
    }

    fn spoil(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.message = Zeroizing::default();
    }

    /// The message, which ends with a line, or what spoiled it.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if !self.message.is_empty() && !self.message.ends_with(b"\r\n") {
            append(&mut self.message, b"\r\n");
        }
        Ok(core::mem::take(&mut *self.message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_announced_is_taken_and_no_octet_more() {
        let mut chunks = Chunks::new(20);
        chunks.begin(4, false);
        assert_eq!((chunks.take(b"ab"), chunks.left()), (2, 2));
        assert_eq!((chunks.take(b".\nBDAT"), chunks.left(), chunks.is_last()), (2, 0, false));
        chunks.begin(1, true);
        assert_eq!((chunks.take(b"cd"), chunks.is_last(), chunks.len()), (1, true, 5));
        assert_eq!(chunks.finish(), Ok(b"ab.\nc\r\n".to_vec()));
        let ended = |octets: &[u8]| {
            let mut chunks = Chunks::new(20);
            chunks.begin(octets.len() as u64, true);
            chunks.take(octets);
            chunks.finish().unwrap()
        };
        assert_eq!((ended(b""), ended(b"a\r\n")), (vec![], b"a\r\n".to_vec()));
    }

    #[test]
    fn too_much_is_swallowed_to_its_end() {
        for octets in [21, u64::MAX] {
            let mut chunks = Chunks::new(20);
            chunks.begin(octets, true);
            assert_eq!((chunks.take(&[b'x'; 19]), chunks.len()), (19, 0));
            assert_eq!((chunks.left(), chunks.fault()), (octets - 19, Some(Fault::TooBig)));
        }
        let mut chunks = Chunks::new(20);
        chunks.begin(20, false);
        chunks.take(&[b'x'; 20]);
        assert_eq!(chunks.fault(), None);
        chunks.begin(1, true);
        assert_eq!((chunks.take(b"x"), chunks.finish()), (1, Err(Fault::TooBig)));
    }

    proptest! {
        #[test]
        fn how_it_is_divided_does_not_matter(octets: Vec<u8>, cuts in proptest::collection::vec(0usize..64, 0..8)) {
            let mut chunks = Chunks::new(1000);
            let mut rest = octets.as_slice();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.begin(chunk.len() as u64, false);
                prop_assert_eq!(chunks.take(rest), chunk.len());
                rest = after;
            }
            chunks.begin(rest.len() as u64, true);
            chunks.take(rest);
            let mut whole = octets.clone();
            if !whole.is_empty() && !whole.ends_with(b"\r\n") {
                whole.extend(b"\r\n");
            }
            prop_assert_eq!(chunks.finish(), Ok(whole));
        }
    }
}

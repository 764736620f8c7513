//! What a packet may carry, and the smallest size class that holds it.

use mail::Fragment;
use rand::CryptoRng;
use sphinx::SizeClass;
use zeroize::Zeroizing;

/// What a packet may carry.
pub enum Content<'a> {
    /// Mail for an exit.
    Mail(&'a Fragment),
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
    pub(crate) fn new(
        content: &Content<'_>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, TooBig> {
        let Content::Mail(fragment) = content;
        let octets = fragment.encode(rng).map_err(|_| TooBig)?;
        let class = SizeClass::holding(octets.len()).ok_or(TooBig)?;
        Ok(Self { octets, class })
    }

    pub(crate) fn packet_len(&self) -> usize {
        self.class.packet_len()
    }
}

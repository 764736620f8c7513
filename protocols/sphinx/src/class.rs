//! The nine sizes that a packet may have.

use crate::layout::{HEADER_LEN, PAYLOAD_PREFIX_LEN, REPLY_OVERHEAD};

/// A packet's size class. Its number, 0 to 8, is one octet on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SizeClass(u8);

const KIBIBYTES: [usize; SizeClass::COUNT] = [16, 24, 32, 48, 64, 96, 128, 192, 256];

impl SizeClass {
    /// How many there are.
    pub const COUNT: usize = 9;
    /// 16 KiB.
    pub const SMALLEST: Self = Self(0);
    /// 256 KiB.
    pub const LARGEST: Self = Self(8);

    /// All classes, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (Self::SMALLEST.0..=Self::LARGEST.0).map(Self)
    }

    /// The class of this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        (number <= Self::LARGEST.0).then_some(Self(number))
    }

    /// Its number, 0 to 8.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The class whose packets have exactly this many octets.
    #[must_use]
    pub fn of_packet(octets: usize) -> Option<Self> {
        Self::all().find(|class| class.packet_len() == octets)
    }

    /// The smallest class that holds this many octets of content.
    #[must_use]
    pub fn holding(content: usize) -> Option<Self> {
        Self::all().find(|class| class.capacity() >= content)
    }

    /// Octets of a whole packet: 16, 24, 32, 48, 64, 96, 128, 192 or 256 KiB.
    #[must_use]
    pub fn packet_len(self) -> usize {
        KIBIBYTES.get(usize::from(self.0)).map_or(0, |kib| kib * 1024)
    }

    /// Octets of its payload: all but the header.
    #[must_use]
    pub fn payload_len(self) -> usize {
        self.packet_len().saturating_sub(HEADER_LEN)
    }

    /// Octets of content of a reply: 9,178 in the smallest class.
    #[must_use]
    pub fn reply_capacity(self) -> usize {
        self.payload_len().saturating_sub(REPLY_OVERHEAD)
    }

    /// Octets of content beside the room for a reply block: 1,938 in the smallest class.
    #[must_use]
    pub fn capacity(self) -> usize {
        self.payload_len().saturating_sub(PAYLOAD_PREFIX_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capacities_are_those_of_the_specification() {
        let capacities: Vec<_> = SizeClass::all().map(SizeClass::capacity).collect();
        let expected = [1938, 10_130, 18_322, 34_706, 51_090, 83_858, 116_626, 182_162, 247_698];
        assert_eq!(capacities, expected);
        let replies: Vec<_> = SizeClass::all().map(SizeClass::reply_capacity).collect();
        let expected = [9178, 17_370, 25_562, 41_946, 58_330, 91_098, 123_866, 189_402, 254_938];
        assert_eq!(replies, expected);
        assert_eq!(SizeClass::holding(1938), Some(SizeClass::SMALLEST));
        assert_eq!(SizeClass::holding(1939), SizeClass::from_number(1));
        assert_eq!(SizeClass::holding(247_698), SizeClass::from_number(8));
        assert_eq!(SizeClass::holding(247_699), None);
        assert_eq!(SizeClass::from_number(9), None);
        assert_eq!(SizeClass::of_packet(16 * 1024 + 1), None);
    }
}

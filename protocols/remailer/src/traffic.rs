//! What a node has carried lately, and what of it its record says.

use std::collections::VecDeque;

use keys::Hour;
use rand::{CryptoRng, RngExt as _};
use sphinx::SizeClass;

/// Hours of a day.
const DAY: u64 = 24;

/// Packets of each class.
pub(crate) type ByClass = [u32; SizeClass::COUNT];

/// What a record says of what its author has carried, blurred.
#[derive(Clone, Copy, Default)]
pub(crate) struct Carried {
    /// Packets of each class that were passed on in the last whole hour.
    pub(crate) packets: ByClass,
    /// Messages that were delivered in the last day.
    pub(crate) delivered: u32,
}

/// Packets that were passed on in the present hour, and in the one before.
#[derive(Default)]
pub(crate) struct Traffic {
    hour: Hour,
    present: ByClass,
    last: ByClass,
}

impl Traffic {
    /// Counts a packet.
    pub(crate) fn note(&mut self, class: SizeClass, hour: Hour) {
        self.turn(hour);
        if let Some(count) = self.present.get_mut(usize::from(class.number())) {
            *count = count.saturating_add(1);
        }
    }

    /// Packets of the last whole hour.
    pub(crate) fn last(&self, hour: Hour) -> ByClass {
        match () {
            () if self.hour == hour => self.last,
            () if self.hour.plus(1) == hour => self.present,
            () => ByClass::default(),
        }
    }

    fn turn(&mut self, hour: Hour) {
        if self.hour == hour {
            return;
        }
        self.last = self.last(hour);
        self.present = ByClass::default();
        self.hour = hour;
    }
}

/// Messages that an exit has delivered, by hour.
#[derive(Default)]
pub(crate) struct DeliveredLately(VecDeque<(Hour, u32)>);

impl DeliveredLately {
    /// Counts a message.
    pub(crate) fn note(&mut self, hour: Hour) {
        match self.0.back_mut() {
            Some((last, count)) if *last == hour => *count = count.saturating_add(1),
            Some(_) | None => self.0.push_back((hour, 1)),
        }
        self.forget(hour);
    }

    /// Messages of the last day.
    pub(crate) fn of_a_day(&mut self, hour: Hour) -> u32 {
        self.forget(hour);
        self.0.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn forget(&mut self, hour: Hour) {
        let is_past = |of: &Hour| of.plus(DAY) <= hour || *of > hour;
        while self.0.front().is_some_and(|(of, _)| is_past(of)) {
            self.0.pop_front();
        }
        // A clock that was ahead leaves hours behind that have not come.
        self.0.retain(|(of, _)| !is_past(of));
    }
}

/// What a record says of a count: zero or a power of two, so that no single packet shows. The count is
/// first multiplied by a random factor between the root of a half and that of two.
pub(crate) fn blurred(count: u32, rng: &mut impl CryptoRng) -> u32 {
    let factor = rng.random_range(-0.5_f64..0.5).exp2();
    let blurred = f64::from(count) * factor;
    // Between 0 and 2^32.5: the conversion saturates.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let whole = blurred as u32;
    whole.checked_ilog2().map_or(0, |power| 1 << power)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn an_hour_is_counted_until_the_next_is_over() {
        let mut traffic = Traffic::default();
        let hour = Hour::new(1000);
        for _ in 0..3 {
            traffic.note(SizeClass::LARGEST, hour);
        }
        assert_eq!(traffic.last(hour), [0; 9]);
        traffic.note(SizeClass::SMALLEST, hour.plus(1));
        assert_eq!(traffic.last(hour.plus(1)), [0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(traffic.last(hour.plus(2)), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(traffic.last(hour.plus(9)), [0; 9]);
    }

    #[test]
    fn a_day_is_24_hours() {
        let mut lately = DeliveredLately::default();
        let hour = Hour::new(1000);
        for ahead in 0..30 {
            lately.note(hour.plus(ahead));
            lately.note(hour.plus(ahead));
        }
        assert_eq!(lately.of_a_day(hour.plus(29)), 48);
        assert_eq!(lately.of_a_day(hour.plus(40)), 2 * 13);
        assert_eq!(lately.of_a_day(hour.plus(20)), 2 * 4, "the clock was set back");
    }

    #[test]
    fn a_count_is_told_as_a_power_of_two_near_it() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        assert_eq!(blurred(0, &mut rng), 0);
        let mut told = std::collections::BTreeSet::new();
        for _ in 0..200 {
            told.insert(blurred(1500, &mut rng));
        }
        assert_eq!(told, [1024, 2048].into());
        assert!(blurred(u32::MAX, &mut rng).is_power_of_two());
        assert!((0..100).all(|_| blurred(1, &mut rng) <= 1));
    }
}

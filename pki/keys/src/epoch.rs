//! Time as the network counts it: epochs, hours, and when a mix key is accepted.

use core::time::Duration;

/// Unix time in milliseconds. The caller reads the clock; this crate only counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// From Unix milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Unix milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Later by `span`; stops at the end of time instead of overflowing.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// Earlier by `span`; stops at zero.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// Later by so many milliseconds, or earlier if they are negative; stops at either end of time.
    #[must_use]
    pub const fn shifted(self, millis: i64) -> Self {
        Self(self.0.saturating_add_signed(millis))
    }

    /// The span since `earlier`, zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The number of an epoch: Unix time divided by the epoch's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u32);

impl Epoch {
    /// From its number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number, 4 octets on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The epoch `count` later.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The epoch `count` earlier; stops at the first.
    #[must_use]
    pub const fn minus(self, count: u32) -> Self {
        Self(self.0.saturating_sub(count))
    }
}

/// The number of a network hour (a third of an epoch): each has a list of nodes to route through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hour(u64);

impl Hour {
    /// From its number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number, 8 octets on the wire.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The hour `count` later.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The hour `count` earlier; stops at the first.
    #[must_use]
    pub const fn minus(self, count: u64) -> Self {
        Self(self.0.saturating_sub(count))
    }
}

/// When epochs and hours begin, and how far around its epoch a mix key is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    epoch_ms: u64,
    grace: Duration,
    early: Duration,
}

impl Schedule {
    /// Hours in an epoch.
    pub const HOURS: u64 = 3;

    /// A schedule with epochs of `epoch`, keys accepted until `grace` after and from `early`
    /// before. An epoch shorter than a second counts as one.
    #[must_use]
    pub fn new(epoch: Duration, grace: Duration, early: Duration) -> Self {
        Self { epoch_ms: millis(epoch).max(1000), grace, early }
    }

    /// The epoch that `now` lies in.
    #[must_use]
    pub fn epoch_at(&self, now: Time) -> Epoch {
        let number = now.0.checked_div(self.epoch_ms).unwrap_or(0);
        Epoch(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// The first instant of an epoch.
    #[must_use]
    pub fn start(&self, epoch: Epoch) -> Time {
        Time(u64::from(epoch.0).saturating_mul(self.epoch_ms))
    }

    /// The first instant after an epoch.
    #[must_use]
    pub fn end(&self, epoch: Epoch) -> Time {
        self.start(epoch).plus(Duration::from_millis(self.epoch_ms))
    }

    /// How long before its epoch a key is accepted.
    #[must_use]
    pub fn early(&self) -> Duration {
        self.early
    }

    /// When a node begins to take packets of this epoch.
    #[must_use]
    pub fn accepted_from(&self, epoch: Epoch) -> Time {
        self.start(epoch).minus(self.early)
    }

    /// Until when a node takes packets of this epoch; then its secret is destroyed.
    #[must_use]
    pub fn accepted_until(&self, epoch: Epoch) -> Time {
        self.end(epoch).plus(self.grace)
    }

    /// Whether a packet sealed for `epoch` is taken at `now`.
    #[must_use]
    pub fn accepts(&self, epoch: Epoch, now: Time) -> bool {
        self.accepted_from(epoch) <= now && now < self.accepted_until(epoch)
    }

    /// Whether a statement dated `at` may be seen at `now`: not further ahead than keys are taken
    /// early.
    #[must_use]
    pub fn may_be_dated(&self, at: Time, now: Time) -> bool {
        at <= now.plus(self.early)
    }

    /// The oldest epoch whose key is still held at `now`.
    #[must_use]
    pub fn oldest_held(&self, now: Time) -> Epoch {
        self.epoch_at(now.minus(self.grace))
    }

    /// The hour that `now` lies in.
    #[must_use]
    pub fn hour_at(&self, now: Time) -> Hour {
        Hour(now.0.checked_div(self.hour_ms()).unwrap_or(0))
    }

    /// The first instant of an hour.
    #[must_use]
    pub fn hour_start(&self, hour: Hour) -> Time {
        Time(hour.0.saturating_mul(self.hour_ms()))
    }

    /// The first instant after an hour.
    #[must_use]
    pub fn hour_end(&self, hour: Hour) -> Time {
        Time(hour.0.saturating_add(1).saturating_mul(self.hour_ms()))
    }

    /// The length of an hour.
    #[must_use]
    pub fn hour(&self) -> Duration {
        Duration::from_millis(self.hour_ms())
    }

    /// Which hour of its epoch this is, 0 to 2; the few milliseconds that an epoch not divisible by
    /// three leaves over belong to the last.
    #[must_use]
    pub fn hour_of_epoch(&self, now: Time) -> u64 {
        let into = now.since(self.start(self.epoch_at(now)));
        let hours = millis(into).checked_div(self.hour_ms()).unwrap_or(0);
        hours.min(Self::HOURS.saturating_sub(1))
    }

    fn hour_ms(&self) -> u64 {
        self.epoch_ms.div_euclid(Self::HOURS)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn main_network() -> Schedule {
        Schedule::new(MINUTE * 180, MINUTE * 30, MINUTE * 10)
    }

    #[test]
    fn a_key_is_accepted_from_ten_minutes_before_to_thirty_after() {
        let schedule = main_network();
        let epoch = Epoch::new(1000);
        let start = schedule.start(epoch);
        let end = schedule.end(epoch);
        assert_eq!(end.since(start), MINUTE * 180);
        let just = Duration::from_millis(1);
        for (at, accepted) in [
            (start.minus(MINUTE * 10).minus(just), false),
            (start.minus(MINUTE * 10), true),
            (end, true),
            (end.plus(MINUTE * 30).minus(just), true),
            (end.plus(MINUTE * 30), false),
        ] {
            assert_eq!(schedule.accepts(epoch, at), accepted, "{at:?}");
        }
    }

    #[test]
    fn three_hours_to_an_epoch() {
        let schedule = main_network();
        let start = schedule.start(Epoch::new(77));
        for minute in 0..180 {
            let now = start.plus(MINUTE * minute);
            assert_eq!(schedule.hour_of_epoch(now), u64::from(minute) / 60);
            let hour = schedule.hour_at(now);
            assert!(schedule.hour_start(hour) <= now && now < schedule.hour_end(hour));
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let schedule = main_network();
        for now in [Time::from_millis(0), Time::from_millis(u64::MAX)] {
            let epoch = schedule.epoch_at(now);
            let _ = (schedule.start(epoch), schedule.end(epoch), schedule.accepts(epoch, now));
            let _ = schedule.hour_end(schedule.hour_at(now));
        }
    }
}

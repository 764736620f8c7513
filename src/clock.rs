//! The one reader of clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keys::Time;

/// The wall clock as it was at the start, plus monotonic time since: it never jumps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Time,
    start: Instant,
}

impl Clock {
    /// Reads both clocks once.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Time::from_millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        Self { wall, start: Instant::now() }
    }

    /// The present as the network counts it.
    #[must_use]
    pub fn now(&self) -> Time {
        self.wall.plus(self.start.elapsed())
    }

    /// The instant at which [`Clock::now`] will be `time`.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        self.start + time.since(self.wall)
    }

    /// Monotonic time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

//! The one reader of clocks.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keys::Time;

/// The wall clock as it was at the start, plus monotonic time since. It jumps only when
/// [`Clock::correct`] finds that the wall clock has: monotonic time stands still while a machine
/// sleeps, and a clock may be wrong when a node starts. A copy is the same clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Time,
    start: Instant,
    jumps: &'static Jumps,
}

/// All jumps since the start, added up, in milliseconds.
#[derive(Debug, Default)]
struct Jumps {
    ahead: AtomicI64,
    slept: AtomicI64,
}

/// What the wall clock did beside going on, since the start, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jumped {
    /// How far it jumped ahead.
    pub ahead: i64,
    /// For how long the machine slept.
    pub slept: i64,
}

/// The wall clock and monotonic time are read one after the other, and are adjusted apart.
const TOLERATED: i64 = 1000;

impl Clock {
    /// Reads both clocks once.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Time::from_millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        // A process has one clock, or a few in tests.
        let jumps: &'static Jumps = Box::leak(Box::default());
        jumps.slept.store(slept(), Ordering::Relaxed);
        Self { wall, start: Instant::now(), jumps }
    }

    /// The present as the network counts it.
    #[must_use]
    pub fn now(&self) -> Time {
        self.wall.shifted(self.jumps.ahead.load(Ordering::Relaxed)).plus(self.start.elapsed())
    }

    /// The instant at which [`Clock::now`] will be `time`, unless it jumps.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        self.start + time.since(self.wall.shifted(self.jumps.ahead.load(Ordering::Relaxed)))
    }

    /// Follows the wall clock, if that has jumped; returns all jumps since the start.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub fn correct(&self) -> Jumped {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        let now = i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX);
        let ahead = wall.saturating_sub(now);
        if ahead.abs() >= TOLERATED {
            self.jumps.ahead.fetch_add(ahead, Ordering::Relaxed);
        }
        Jumped {
            ahead: self.jumps.ahead.load(Ordering::Relaxed),
            slept: slept().saturating_sub(self.jumps.slept.load(Ordering::Relaxed)),
        }
    }

    /// Monotonic time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// For how many milliseconds the machine has slept since it booted, where the system tells.
fn slept() -> i64 {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        let millis = |id| {
            let time = clock_gettime(id);
            time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
        };
        millis(ClockId::Boottime).saturating_sub(millis(ClockId::Monotonic))
    }
    #[cfg(not(target_os = "linux"))]
    0
}

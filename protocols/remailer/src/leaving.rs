//! Leaving the network so that nothing is lost that others, or this node, have planned.
//!
//! ```text
//!          a list without it          nobody plans with it any more      nothing is held      an hour begins
//! listed --------------------> planned ---------------------------> unused -------------> free -----------> over
//!    '------------------------------------------ the limit -----------------------------------------------'
//! ```
//!
//! It ends when an hour begins, a quarter of an hour after it holds nothing at the earliest: by then answers
//! have left its mix and its links, and when it ends does not show when its last message was over.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use keys::{Schedule, Time};

/// How far a node has got with leaving, on its operator's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// When it was ordered.
    pub since: Time,
    /// When it is over, whatever is left.
    pub until: Time,
    /// How long packets may come that others planned while the list named this node; `None` while it does.
    pub needed_until: Option<Time>,
    /// When it ends, if nothing more comes that it has to hold.
    pub ends: Option<Time>,
    /// Whether nothing keeps the node any more, or its limit has passed.
    pub is_over: bool,
}

impl Leaving {
    /// Begins to leave.
    pub(crate) fn begin(limit: Duration, now: Time) -> Self {
        let until = now.plus(limit);
        Self { since: now, until, needed_until: None, ends: None, is_over: false }
    }

    /// Sets another limit.
    pub(crate) fn limit(&mut self, limit: Duration, now: Time) {
        self.until = now.plus(limit);
    }

    /// Looks whether it is over. `reach` is how far ahead others plan with a node that is listed. Returns
    /// whether something has changed that is to outlive a restart.
    pub(crate) fn look(
        &mut self,
        (is_listed, holds): (bool, bool),
        reach: Duration,
        schedule: &Schedule,
        now: Time,
    ) -> bool {
        let before = (self.needed_until, self.is_over);
        self.needed_until = match self.needed_until {
            _ if is_listed => None,
            None => Some(now.plus(reach)),
            needed => needed,
        };
        let is_unused = self.needed_until.is_some_and(|until| until <= now);
        self.ends = match self.ends {
            _ if holds || !is_unused => None,
            None => Some(schedule.hour_end(schedule.hour_at(now.plus(schedule.hour() / 4)))),
            ends => ends,
        };
        self.is_over |= self.until <= now || self.ends.is_some_and(|at| at <= now);
        before != (self.needed_until, self.is_over)
    }

    /// When it has to be looked at, whatever else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let next = self.ends.map_or(self.until, |ends| ends.min(self.until));
        (!self.is_over).then_some(next)
    }

    /// The clock jumped: what is waited for is waited for as long.
    pub(crate) fn shift(&mut self, millis: i64) {
        for at in [&mut self.since, &mut self.until].into_iter().chain(&mut self.needed_until) {
            *at = at.shifted(millis);
        }
        self.ends = None;
    }
}

/// A line: when it was ordered, when it is over, and how long it is needed, or 0, in Unix milliseconds.
impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = self.needed_until.map_or(0, Time::as_millis);
        write!(f, "{} {} {needed}", self.since.as_millis(), self.until.as_millis())
    }
}

/// A line is not what [`Leaving`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not three times")]
pub struct NotLeaving;

impl FromStr for Leaving {
    type Err = NotLeaving;

    fn from_str(line: &str) -> Result<Self, NotLeaving> {
        let times: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        match times.as_deref() {
            Ok([since, until, needed]) => Ok(Self {
                since: Time::from_millis(*since),
                until: Time::from_millis(*until),
                needed_until: (*needed > 0).then(|| Time::from_millis(*needed)),
                ends: None,
                is_over: false,
            }),
            Ok(_) | Err(_) => Err(NotLeaving),
        }
    }
}

#[cfg(test)]
mod tests {
    use record::Parameters;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const REACH: Duration = Duration::from_secs(8 * 3600);

    /// So many quarters of an hour after an hour began.
    fn at(quarters: u32) -> Time {
        Time::from_millis(1_800_000_000_000).plus(HOUR / 4 * quarters)
    }

    #[test]
    fn it_ends_with_an_hour_once_nobody_plans_with_the_node_and_nothing_is_held() {
        let schedule = Parameters::main().schedule();
        assert_eq!(schedule.hour_start(schedule.hour_at(at(0))), at(0));
        let mut leaving = Leaving::begin(HOUR * 20, at(0));
        let mut look = |is_listed, holds, quarters| {
            let changed = leaving.look((is_listed, holds), REACH, &schedule, at(quarters));
            (leaving.is_over, leaving.needed_until, leaving.ends, changed)
        };
        assert_eq!(look(true, false, 4), (false, None, None, false), "the list names it");
        assert_eq!(look(false, false, 8), (false, Some(at(40)), None, true));
        assert_eq!(look(true, false, 12), (false, None, None, true), "another list names it again");
        assert_eq!(look(false, false, 16), (false, Some(at(48)), None, true), "as long again");
        assert_eq!(look(false, true, 48), (false, Some(at(48)), None, false), "something is held");
        assert_eq!(look(false, false, 50), (false, Some(at(48)), Some(at(52)), false));
        assert_eq!(look(false, true, 51), (false, Some(at(48)), None, false), "again");
        assert_eq!(
            look(false, false, 51),
            (false, Some(at(48)), Some(at(56)), false),
            "too late for it"
        );
        assert_eq!(look(false, false, 56), (true, Some(at(48)), Some(at(56)), true));
        assert!(look(true, true, 60).0, "for good");
        assert_eq!(leaving.poll_timeout(), None);
    }

    #[test]
    fn it_ends_at_its_limit_whatever_is_held_and_waits_as_long_as_before_a_jump() {
        let schedule = Parameters::main().schedule();
        let mut leaving = Leaving::begin(HOUR, at(0));
        leaving.look((false, true), REACH, &schedule, at(0));
        assert_eq!(leaving.poll_timeout(), Some(at(4)));
        leaving.shift(900_000);
        let Leaving { since, until, needed_until, .. } = leaving;
        assert_eq!((since, until, needed_until), (at(1), at(5), Some(at(33))));
        leaving.limit(HOUR, at(3));
        assert!(!leaving.look((false, true), REACH, &schedule, at(6)));
        assert!(leaving.look((true, true), REACH, &schedule, at(7)) && leaving.is_over);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut leaving = Leaving::begin(HOUR, at(0));
        assert_eq!(leaving.to_string().parse(), Ok(leaving));
        leaving.needed_until = Some(at(3));
        assert_eq!(leaving.to_string().parse(), Ok(leaving));
        for bad in ["", "1 2", "1 2 3 4", "1 2 x", "1  2 3"] {
            assert_eq!(bad.parse::<Leaving>(), Err(NotLeaving));
        }
    }
}

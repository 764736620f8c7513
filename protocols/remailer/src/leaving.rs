//! Leaving the network so that nothing is lost that others, or this node, have planned.
//!
//! ```text
//!          a list without it           nobody plans with it any more      nothing is held
//! listed --------------------> planned ---------------------------> unused --------------> over
//!    '-------------------------------------- the limit ---------------------------------'
//! ```

use core::time::Duration;

use keys::Time;

/// How far a node has got with leaving, on its operator's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// When it was ordered.
    pub since: Time,
    /// When it is over, whatever is left.
    pub until: Time,
    /// How long packets may come that others planned while the list named this node; `None` while it does.
    pub needed_until: Option<Time>,
    /// Whether nothing keeps the node any more, or its limit has passed.
    pub is_over: bool,
}

impl Leaving {
    /// Begins to leave.
    pub(crate) fn begin(limit: Duration, now: Time) -> Self {
        Self { since: now, until: now.plus(limit), needed_until: None, is_over: false }
    }

    /// Sets another limit, unless it is over.
    pub(crate) fn limit(&mut self, limit: Duration, now: Time) {
        self.until = now.plus(limit);
    }

    /// Looks whether it is over. `reach` is how far ahead others plan with a node that is listed.
    pub(crate) fn look(&mut self, is_listed: bool, holds: bool, reach: Duration, now: Time) {
        self.needed_until = match self.needed_until {
            _ if is_listed => None,
            None => Some(now.plus(reach)),
            needed => needed,
        };
        let is_unused = self.needed_until.is_some_and(|until| until <= now);
        self.is_over |= self.until <= now || (is_unused && !holds);
    }

    /// When it has to be looked at, whatever else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        (!self.is_over).then_some(self.until)
    }

    /// The clock jumped: what is waited for is waited for as long.
    pub(crate) fn shift(&mut self, millis: i64) {
        for at in [&mut self.since, &mut self.until].into_iter().chain(&mut self.needed_until) {
            *at = at.shifted(millis);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn it_is_over_when_nobody_plans_with_the_node_and_nothing_is_held_or_at_the_limit() {
        let at = |hours: u32| Time::from_millis(1_800_000_000_000).plus(HOUR * hours);
        let mut leaving = Leaving::begin(HOUR * 11, at(0));
        let mut over = |is_listed, holds, hours| {
            leaving.look(is_listed, holds, HOUR * 8, at(hours));
            (leaving.is_over, leaving.needed_until)
        };
        assert_eq!(over(true, false, 1), (false, None), "the list names it");
        assert_eq!(over(false, false, 2), (false, Some(at(10))));
        assert_eq!(over(true, false, 3), (false, None), "another list names it again");
        assert_eq!(over(false, false, 3), (false, Some(at(11))), "as long again");
        assert_eq!(over(false, true, 10), (false, Some(at(11))));
        assert_eq!(over(false, true, 11), (true, Some(at(11))), "its limit");
        assert_eq!(leaving.poll_timeout(), None);

        let mut leaving = Leaving::begin(HOUR * 11, at(0));
        leaving.look(false, true, HOUR, at(0));
        leaving.look(false, true, HOUR, at(1));
        assert!(!leaving.is_over, "something is held");
        assert_eq!(leaving.poll_timeout(), Some(at(11)));
        leaving.shift(3_600_000);
        assert_eq!(
            (leaving.since, leaving.until, leaving.needed_until),
            (at(1), at(12), Some(at(2)))
        );
        leaving.look(false, false, HOUR, at(2));
        assert!(leaving.is_over);
        leaving.look(true, true, HOUR, at(3));
        assert!(leaving.is_over, "for good");
    }
}

//! Whether somebody may be keeping all packets but one from this node, and sending it others instead, to
//! see which one is not theirs when it leaves (the n-1 attack: Serjantov, Dingledine and Syverson, "From a
//! Trickle to a Flood", 2002; that loops show it: Danezis and Sassaman, "Heartbeat Traffic to Counter (n-1)
//! Attacks", 2003).
//!
//! Two things have to come together: loops of this node's own do not come back any more, as whoever holds
//! back what is for this node cannot tell them from other packets, and as many packets come as ever, which
//! they do not if the network is down. After some nodes have gone down, loops through them are missing
//! while packets come as ever: then it takes a surge of packets. Then the mix keeps what it has for a while:
//! the packet that is meant may find company. A node that waited for ever could be stopped for ever, so that
//! it does so once, and then goes on with a warning.

use core::time::Duration;
use std::collections::VecDeque;

use keys::{Schedule, Time};

/// Looks that are compared with those before them: seven minutes. With the slowest clock 14 loops come back in
/// them on average, and by chance one or none in one of a hundred thousand.
const RECENT: usize = 7;
/// Looks that are remembered: an hour.
const MEMORY: usize = 60;
/// Looks that are needed to compare with.
const NEEDED: usize = 20;
/// So many times as many packets as before are as many as ever, and so many a surge.
const AS_EVER: f64 = 0.75;
const SURGE: f64 = 2.0;
/// Loops that have to be expected before their absence means anything.
const EXPECTED: f64 = 8.0;
/// Of so many loops that were to come one or none has. One node of ten that drops everything leaves a quarter
/// of the others' loops.
const MISSING: f64 = 10.0;
/// Parts of an hour for which packets are kept.
const KEEP: u32 = 6;

/// What came in one look.
#[derive(Clone, Copy, Default)]
struct Came {
    packets: u64,
    loops: u64,
}

/// What has come, and whether that looks like an attack.
pub(crate) struct Siege {
    schedule: Schedule,
    /// The counters at the last look.
    last: Came,
    came: VecDeque<Came>,
    /// When it was last seen.
    seen: Option<Time>,
    /// Looks since then in which nothing was seen, while the packets of that time are not kept again.
    calm: usize,
}

impl Siege {
    pub(crate) fn new(schedule: Schedule) -> Self {
        let (last, came) = (Came::default(), VecDeque::new());
        Self { schedule, last, came, seen: None, calm: RECENT }
    }

    /// Looks at how many packets the mix has taken so far, how many loops have come back, and whether some
    /// are missing because other nodes are down. Returns for how long the mix is to keep what it has, if an
    /// attack begins.
    pub(crate) fn look(
        &mut self,
        packets: u64,
        loops: u64,
        has_outage: bool,
        now: Time,
    ) -> Option<Duration> {
        let total = Came { packets, loops };
        let before = core::mem::replace(&mut self.last, total);
        self.came.push_front(Came {
            packets: packets.saturating_sub(before.packets),
            loops: loops.saturating_sub(before.loops),
        });
        self.came.truncate(MEMORY);
        if !self.is_besieged(if has_outage { SURGE } else { AS_EVER }) {
            self.calm = self.calm.saturating_add(1);
            return None;
        }
        let begins = self.calm >= RECENT;
        (self.calm, self.seen) = (0, Some(now));
        begins.then(|| self.schedule.hour() / KEEP)
    }

    /// Whether at least so many times as many packets come as before, and no loops.
    fn is_besieged(&self, times: f64) -> bool {
        let looks = self.came.len().saturating_sub(RECENT);
        if looks < NEEDED {
            return false;
        }
        let sum = |part: &mut dyn Iterator<Item = &Came>| {
            part.fold((0.0, 0.0), |(packets, loops), came| {
                (packets + came.packets as f64, loops + came.loops as f64)
            })
        };
        let (packets, loops) = sum(&mut self.came.iter().take(RECENT));
        let (before, loops_before) = sum(&mut self.came.iter().skip(RECENT));
        let share = RECENT as f64 / looks as f64;
        let expected = loops_before * share;
        packets >= before * share * times && expected >= EXPECTED && loops * MISSING <= expected
    }

    /// When it was seen within the last hour.
    pub(crate) fn seen(&self, now: Time) -> Option<Time> {
        self.seen.filter(|seen| now.since(*seen) < self.schedule.hour())
    }

    /// The clock jumped.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        self.seen = self.seen.map(|seen| seen.shifted(millis));
        // A machine that slept has missed what came.
        self.came.clear();
    }
}

#[cfg(test)]
mod tests {
    use keys::Epoch;
    use record::Parameters;

    use super::*;

    /// What is to be kept back in each minute, with so many packets and loops in each.
    fn run(minutes: &[(u64, u64)], has_outage: bool) -> Vec<bool> {
        let schedule = Parameters::main().schedule();
        let start = schedule.start(Epoch::new(165_000));
        let mut siege = Siege::new(schedule);
        let (mut packets, mut loops) = (0, 0);
        let look = |(number, (more_packets, more_loops)): (usize, &(u64, u64))| {
            packets += more_packets;
            loops += more_loops;
            let now = start.plus(Duration::from_secs(60) * u32::try_from(number).unwrap());
            let keeps = siege.look(packets, loops, has_outage, now);
            assert!(keeps.is_none_or(|keeps| keeps == Duration::from_secs(600)));
            assert!(keeps.is_none() || siege.seen(now) == Some(now));
            keeps.is_some()
        };
        minutes.iter().enumerate().map(look).collect()
    }

    #[test]
    fn loops_that_stop_while_packets_come_as_ever_are_an_attack() {
        let calm = vec![(27, 2); 40];
        let found = |attack: (u64, u64), minutes: usize, has_outage: bool| {
            let minutes = [calm.clone(), vec![attack; minutes], calm.clone()].concat();
            let kept = run(&minutes, has_outage);
            let at: Vec<_> = kept.iter().enumerate().filter(|(_, keeps)| **keeps).collect();
            at.into_iter().map(|(at, _)| at as i64 - 40).collect::<Vec<_>>()
        };
        let with = |attack, minutes| found(attack, minutes, false);
        assert_eq!(with((27, 2), 30), []);
        assert_eq!(with((100, 2), 30), [], "a flood that stops no loop");
        assert_eq!(with((13, 0), 30), [], "a network that is down");
        assert_eq!(with((0, 0), 30), []);
        assert_eq!(with((100, 0), 5), [], "a few minutes");
        // Once, and not again while it goes on, however few packets take the place of others.
        assert_eq!(with((100, 0), 20), [6]);
        assert_eq!(with((27, 0), 20), [6]);
        assert_eq!(found((27, 0), 30, true), [], "nodes are down");
        assert_eq!(found((100, 0), 30, true), [6]);
        // An attack from the first minute on has nothing to be compared with.
        assert!(run(&[(100, 0); 100], false).iter().all(|keeps| !keeps));
    }
}

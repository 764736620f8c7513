//! Places that callers take, and who must go when all are taken.
//!
//! Whoever comes first must not keep everybody else out. When all places are taken, the caller that
//! has done least for its place since it took it gives it up to the next one: measured by what it
//! brought (octets, frames, finished transactions), never by whether anything came from it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::clock::Clock;

/// How often a caller that waits for a place looks whether somebody has to go by now.
const LOOK: Duration = Duration::from_millis(250);

/// How many places there are, and who keeps one.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Places.
    pub most: usize,
    /// Nobody has to go before this.
    pub grace: Duration,
    /// Nobody has to go that brings so much a second, from the time when it came.
    pub pace: u64,
}

/// The places of one kind.
pub struct Places {
    rule: Rule,
    clock: Clock,
    taken: Mutex<Taken>,
    freed: Notify,
    ended: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Taken {
    serial: u64,
    by: BTreeMap<u64, Arc<Caller>>,
}

struct Caller {
    since: Duration,
    useful: AtomicU64,
    must_go: AtomicBool,
    waker: AtomicWaker,
}

/// A place, until it is dropped.
pub struct Seat {
    places: Arc<Places>,
    number: u64,
    caller: Arc<Caller>,
}

impl Places {
    /// All places free.
    #[must_use]
    pub fn new(rule: Rule, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            rule,
            clock,
            taken: Mutex::default(),
            freed: Notify::new(),
            ended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// How many callers had to go for others, and how many found no place.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.ended.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// A place, if one is free or somebody has to go.
    #[must_use]
    pub fn try_take(self: &Arc<Self>) -> Option<Seat> {
        let seat = self.find();
        if seat.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        seat
    }

    /// A place, within this time.
    pub async fn take(self: &Arc<Self>, patience: Duration) -> Option<Seat> {
        let found = async {
            loop {
                if let Some(seat) = self.find() {
                    return seat;
                }
                // In vain: somebody may have to go by now.
                let _ = timeout(LOOK, self.freed.notified()).await;
            }
        };
        let seat = timeout(patience, found).await.ok();
        if seat.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        seat
    }

    /// A place as [`Places::try_take`] finds it, for a caller that waits if there is none.
    #[must_use]
    pub fn find(self: &Arc<Self>) -> Option<Seat> {
        let now = self.clock.elapsed();
        let mut taken = self.lock();
        if taken.by.len() >= self.rule.most {
            let slowest = self.slowest(&taken, now)?;
            let caller = taken.by.remove(&slowest)?;
            caller.must_go.store(true, Ordering::Release);
            caller.waker.wake();
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        taken.serial += 1;
        let number = taken.serial;
        let caller = Arc::new(Caller {
            since: now,
            useful: AtomicU64::new(0),
            must_go: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        taken.by.insert(number, Arc::clone(&caller));
        Some(Seat { places: Arc::clone(self), number, caller })
    }

    /// The caller that brought least a second, of those that may have to go.
    fn slowest(&self, taken: &Taken, now: Duration) -> Option<u64> {
        let paces = taken.by.iter().filter_map(|(number, caller)| {
            let lasted = now.saturating_sub(caller.since);
            let millis = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX).max(1);
            let useful = caller.useful.load(Ordering::Relaxed);
            let pace = useful.saturating_mul(1000) / millis;
            (lasted >= self.rule.grace && pace < self.rule.pace).then_some((pace, *number))
        });
        // Of several as slow the one that came first.
        paces.min().map(|(_, number)| number)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing that runs under the lock can leave it half done.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Notes what the caller has brought.
    pub fn add(&self, useful: u64) {
        self.caller.useful.fetch_add(useful, Ordering::Relaxed);
    }

    /// What it has brought so far.
    #[must_use]
    pub fn useful(&self) -> u64 {
        self.caller.useful.load(Ordering::Relaxed)
    }

    /// Whether the caller has to go.
    #[must_use]
    pub fn must_go(&self) -> bool {
        self.caller.must_go.load(Ordering::Acquire)
    }

    /// Ready once the caller has to go.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.caller.waker.register(cx.waker());
        if self.must_go() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until the caller has to go.
    pub async fn ended(&self) {
        poll_fn(|cx| self.poll_ended(cx)).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.lock().by.remove(&self.number);
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(most: usize, grace_ms: u64, pace: u64) -> Arc<Places> {
        let rule = Rule { most, grace: Duration::from_millis(grace_ms), pace };
        Places::new(rule, Clock::start())
    }

    #[tokio::test]
    async fn who_brings_least_gives_its_place_up_and_who_brings_enough_keeps_it() {
        let places = places(3, 0, 1_000_000);
        let seats: Vec<_> = (0..3).map(|_| places.try_take().unwrap()).collect();
        seats[0].add(500);
        seats[2].add(1 << 40);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let fourth = places.try_take().unwrap();
        seats[1].ended().await;
        fourth.add(1 << 40);
        let fifth = places.try_take().unwrap();
        seats[0].ended().await;
        fifth.add(1 << 40);
        assert!(places.try_take().is_none(), "all others bring enough");
        assert_eq!(places.counts(), (2, 1));
        // Those that had to go free nothing when they are gone.
        drop(seats);
        let sixth = places.try_take().expect("the third was still there");
        sixth.add(1 << 40);
        assert!(places.try_take().is_none());
    }

    #[tokio::test]
    async fn nobody_has_to_go_at_once_and_who_waits_gets_the_first_place() {
        let places = places(1, 300, u64::MAX);
        let first = places.try_take().unwrap();
        assert!(places.try_take().is_none(), "it has only just come");
        let waits = {
            let places = Arc::clone(&places);
            tokio::spawn(async move { places.take(Duration::from_secs(5)).await })
        };
        first.ended().await;
        let second = waits.await.unwrap().unwrap();
        assert!(places.take(Duration::from_millis(1)).await.is_none());
        drop(second);
        assert!(places.take(Duration::from_millis(1)).await.is_some());
    }
}

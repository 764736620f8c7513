//! When packets leave that are due: what is common to the strategies of a mix.

use keys::{NodeId, Time};
use rand::seq::SliceRandom as _;
use rand::{CryptoRng, RngExt as _};
use sphinx::SizeClass;

use crate::pool::Held;
use crate::{Release, TopUp};

/// A strategy, with the packets that it keeps back.
pub(crate) trait Discipline: Send + Sync {
    /// When it next decides, if what falls due first does so at `first`.
    fn next_look(&self, first: Option<Time>) -> Option<Time>;

    /// What leaves, and when, of what was due by the look at `at` and of what was kept back before. It takes
    /// place at `now`, and nothing leaves earlier.
    fn decide(
        &mut self,
        due: Vec<Held>,
        at: Time,
        now: Time,
        rng: &mut dyn CryptoRng,
    ) -> Vec<(Time, Held)>;

    /// A packet of so many octets came from another node.
    fn note_received(&mut self, _octets: usize) {}

    /// Loops that are to leave among too few packets, and packets that leave among too few, each told once.
    fn take_orders(&mut self) -> Orders {
        Orders::default()
    }

    /// Packets that are kept back.
    fn kept_back(&self) -> usize {
        0
    }

    /// Gives up the newest packet of a previous hop that is kept back, and returns it.
    fn give_up(&mut self, _hop: &NodeId) -> Option<Held> {
        None
    }

    /// Keeps all packets of others until then, if it can do so better than by deciding on nothing before.
    fn keeps_until(&mut self, _until: Time) -> bool {
        false
    }

    /// So many packets of each class make a round from now on.
    fn set_rounds(&mut self, _each: [u16; SizeClass::COUNT]) {}

    /// Moves all times.
    fn shift(&mut self, _millis: i64) {}

    /// Its windows, if it has any.
    fn windows(&self) -> Option<Windows> {
        None
    }

    /// Whether this node's own packets leave with those of others, and not beside them.
    fn takes_own(&self) -> bool {
        false
    }
}

/// What a strategy wants, and has to say, beside what leaves.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) top_ups: Vec<TopUp>,
    pub(crate) lonely: usize,
}

/// Each packet leaves when its own delay is over ("stop-and-go": Kesdogan, Egner and Büschkes, 1998; Loopix,
/// 2017). There are no batches, and no floor.
pub(crate) struct Continuous;

impl Discipline for Continuous {
    fn next_look(&self, first: Option<Time>) -> Option<Time> {
        first
    }

    fn decide(
        &mut self,
        mut due: Vec<Held>,
        at: Time,
        now: Time,
        rng: &mut dyn CryptoRng,
    ) -> Vec<(Time, Held)> {
        // One that was kept, or that a slow machine is late for, leaves among others.
        due.shuffle(rng);
        due.into_iter().map(|held| (at.max(now), held)).collect()
    }
}

/// Windows of one length that follow each other from some phase on.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) window: core::time::Duration,
    /// The end of any one of them; the others are counted from it.
    pub(crate) phase: Time,
}

impl Windows {
    /// The end of the window that `at` lies in; an end belongs to the window it ends.
    pub(crate) fn end_of(&self, at: Time) -> Time {
        let window = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX).max(1);
        let offset = self.phase.as_millis() % window;
        let into = at.as_millis().saturating_add(window).saturating_sub(offset) % window;
        let missing = if into == 0 { 0 } else { window - into };
        at.plus(core::time::Duration::from_millis(missing))
    }

    /// A uniform time in the window from `from` on: as a Poisson process has them once the count is given,
    /// with no time that many packets share.
    pub(crate) fn within(&self, from: Time, rng: &mut dyn CryptoRng) -> Time {
        from.plus(self.window.mul_f64(rng.random::<f64>()))
    }

    /// Packets with the times at which they leave in the window from `from` on.
    pub(crate) fn spread(
        &self,
        mut batch: Vec<Held>,
        from: Time,
        rng: &mut dyn CryptoRng,
    ) -> Vec<(Time, Held)> {
        // Packets that draw the same millisecond leave in this order.
        batch.shuffle(rng);
        batch.into_iter().map(|held| (self.within(from, rng), held)).collect()
    }
}

/// What goes to other nodes, with its class, and what ends here.
pub(crate) fn sort(due: Vec<Held>) -> (Vec<(SizeClass, Held)>, Vec<Held>) {
    let (mut forward, mut ends) = (Vec::new(), Vec::new());
    for held in due {
        match &held.release {
            Release::Forward { packet, .. } => forward.push((packet.class(), held)),
            Release::End { .. } | Release::Reply { .. } | Release::Stream { .. } => ends.push(held),
        }
    }
    (forward, ends)
}

//! The parameters of a network, in groups. They are the network's: no node has its own.

use core::time::Duration;

use keys::Schedule;

const MIN_EPOCH: Duration = Duration::from_secs(20);
const MIN_GRACE: Duration = Duration::from_secs(5);
const MIN_EARLY: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(24 * 3600);
const TICK: Duration = Duration::from_millis(1);
const MINUTE: u64 = 60;

/// Times and counts of the protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Epochs, and when their keys are accepted.
    pub timing: Timing,
    /// What an hour's view is made of.
    pub views: Views,
    /// What a hop does to a packet.
    pub mixing: Mixing,
    /// When a node's own packets leave.
    pub sending: Sending,
}

/// Epochs, and when their keys are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Length of an epoch.
    pub epoch: Duration,
    /// How long after its epoch a mix key is still accepted.
    pub grace: Duration,
    /// How long before its epoch a mix key is already accepted.
    pub early: Duration,
}

/// What an hour's view is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Views {
    /// How old a record must be on the hour to be in that hour's view.
    pub settle: Duration,
    /// In a network just started, the first view is taken as soon as this many nodes are known;
    /// 0: on the hour.
    pub first_view: u16,
}

/// What a hop does to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mixing {
    /// Mean of the exponential delay that a sender draws for each hop.
    pub mean_delay: Duration,
    /// Longest delay drawn.
    pub max_delay: Duration,
    /// Length of the window in which a node collects packets before it shuffles them.
    pub window: Duration,
    /// What a sender allows for each hop beside the drawn delay when it plans an arrival.
    pub transit: Duration,
}

/// When a node's own packets leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Mean of the exponential time for which an ingress holds a mail first.
    pub mean_hold: Duration,
    /// Mean gap of the Poisson clock on which a node's own packets leave.
    pub mean_send: Duration,
}

impl Parameters {
    /// The parameters of the main network.
    #[must_use]
    pub const fn main() -> Self {
        Self {
            timing: Timing {
                epoch: Duration::from_secs(180 * MINUTE),
                grace: Duration::from_secs(30 * MINUTE),
                early: Duration::from_secs(10 * MINUTE),
            },
            views: Views { settle: Duration::from_secs(10 * MINUTE), first_view: 0 },
            mixing: Mixing {
                mean_delay: Duration::from_secs(20),
                max_delay: Duration::from_secs(10 * MINUTE),
                window: Duration::from_secs(30),
                transit: Duration::from_secs(30),
            },
            sending: Sending {
                mean_hold: Duration::from_secs(5 * MINUTE),
                mean_send: Duration::from_secs(10),
            },
        }
    }

    /// The parameters of a test network: every time divided by `speed`, but an epoch is never under
    /// 20 s, the grace never under 5 s, and the early acceptance never under 2 s.
    #[must_use]
    pub fn scaled(speed: u32, first_view: u16) -> Self {
        let speed = speed.max(1);
        let scale = |span: Duration| Duration::from_millis(whole_millis(span) / u64::from(speed));
        let Self { timing, views, mixing, sending } = Self::main();
        Self {
            timing: Timing {
                epoch: scale(timing.epoch).max(MIN_EPOCH),
                grace: scale(timing.grace).max(MIN_GRACE),
                early: scale(timing.early).max(MIN_EARLY),
            },
            views: Views { settle: scale(views.settle), first_view },
            mixing: Mixing {
                mean_delay: scale(mixing.mean_delay),
                max_delay: scale(mixing.max_delay),
                window: scale(mixing.window),
                transit: scale(mixing.transit),
            },
            sending: Sending {
                mean_hold: scale(sending.mean_hold),
                mean_send: scale(sending.mean_send),
            },
        }
    }

    /// The same, with the first view as soon as this many nodes are known.
    #[must_use]
    pub fn with_first_view(mut self, nodes: u16) -> Self {
        self.views.first_view = nodes;
        self
    }

    /// When epochs and hours begin.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::new(self.timing.epoch, self.timing.grace, self.timing.early)
    }

    /// Whether every group is within its bounds, and the groups fit each other.
    pub(crate) fn well_formed(&self) -> bool {
        self.timing.well_formed()
            && self.views.well_formed(&self.timing)
            && self.mixing.well_formed()
            && self.sending.well_formed()
    }
}

/// Bounds that keep every sum of times representable and every timer above a millisecond.
fn within(span: Duration, low: Duration) -> bool {
    low <= span && span <= DAY
}

impl Timing {
    fn well_formed(&self) -> bool {
        within(self.epoch, MIN_EPOCH)
            && within(self.grace, MIN_GRACE)
            && within(self.early, MIN_EARLY)
            && self.grace + self.early < self.epoch
    }
}

impl Views {
    fn well_formed(&self, timing: &Timing) -> bool {
        self.settle * 4 <= timing.epoch
    }
}

impl Mixing {
    fn well_formed(&self) -> bool {
        within(self.mean_delay, TICK)
            && within(self.max_delay, self.mean_delay)
            && within(self.window, TICK)
            && within(self.transit, TICK)
    }
}

impl Sending {
    fn well_formed(&self) -> bool {
        within(self.mean_hold, TICK) && within(self.mean_send, TICK)
    }
}

pub(crate) fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

//! The parameters of a network, in groups. They are the network's: no node has its own.
//!
//! Everything that decides who is routable, what a packet costs or when something leaves stands
//! here, because two releases with other constants would split a network.

use core::time::Duration;

use keys::Schedule;

use crate::layout::TRAFFIC_CLASSES;

const MIN_EPOCH: Duration = Duration::from_secs(20);
const MIN_GRACE: Duration = Duration::from_secs(5);
const MIN_EARLY: Duration = Duration::from_secs(2);
const MIN_SETTLE: Duration = Duration::from_secs(3);
const MIN_GAP: Duration = Duration::from_millis(50);
/// Each decoy is a conversation.
const MIN_DECOY_GAP: Duration = Duration::from_secs(1);
const MAX_TICKS: u128 = 100_000;
const MIN_LEAD: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
const TICK: Duration = Duration::from_millis(1);
const MINUTE: u64 = 60;

/// Stages of size classes.
pub const STAGES: usize = 3;
/// Paces of the clock on which a node's own packets leave.
pub const PACES: usize = 4;

/// Times and counts of the protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Epochs, and when their keys are accepted.
    pub timing: Timing,
    /// What an hour's list is made of.
    pub lists: Lists,
    /// What a directory takes in.
    pub bounds: Bounds,
    /// What a hop does to a packet.
    pub mixing: Mixing,
    /// When a node's own packets leave.
    pub sending: Sending,
    /// How often a message is tried.
    pub custody: Custody,
    /// Which size classes are open, and what fills a tick, by the volume of the whole network.
    pub stages: [Stage; STAGES],
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

/// What an hour's list is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lists {
    /// How long before the hour its votes are signed.
    pub lead: Duration,
    /// How old a statement must be when votes are signed to count for them.
    pub settle: Duration,
    /// How old a statement may be for gossip; what reconciliation brings later counts from the votes
    /// after the next.
    pub late: Duration,
    /// For how long after the start of its hour a list may be used.
    pub keep: Duration,
    /// In a network just started, the first list is voted as soon as this many nodes are known; 0:
    /// for the next hour.
    pub first: u16,
    /// Nodes that a list must have before mail is taken.
    pub fewest: u16,
    /// Epochs for which a node is listed before it relays.
    pub relay_probation: u16,
    /// Epochs for which a node is listed before routes end there.
    pub exit_probation: u16,
}

/// What a directory takes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How far apart the records of one identity must be dated, and its words about one other.
    pub spacing: Duration,
    /// Identities held that nobody vouches for, where vouches count.
    pub strangers: u32,
    /// Strangers never heard of that are taken in within an hour.
    pub newcomers: u32,
    /// For how many epochs a word about another holds, at most.
    pub word_epochs: u32,
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
    /// Which strategy: 0 windows, 1 continuous, 2 binomial pool, 3 rounds. Others are reserved.
    pub strategy: u8,
    /// Packets of one class that leave a window together, at least.
    pub floor: u8,
    /// Windows for which fewer wait.
    pub floor_windows: u8,
    /// Packets that a node receives for each loop with which it may fill a batch.
    pub loop_budget: u8,
}

/// When a node's own packets leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// An ingress holds a mail for a uniform time up to this.
    pub max_hold: Duration,
    /// The longest hold that a sender may ask for.
    pub longest_hold: Duration,
    /// Mean gaps of the Poisson clock on which a node's own packets leave, the slowest first.
    pub gaps: [Duration; PACES],
    /// Mails an hour and node from which the clock goes faster; ascending.
    pub pace_from: [u16; PACES - 1],
    /// Mean gap between the decoys that a node submits.
    pub decoy_gap: Duration,
    /// How long a client keeps its first hop.
    pub first_hop: Duration,
    /// Loops of a peer that must be counted before it may be excluded.
    pub health_loops: u8,
    /// Percent of them lost above which it is.
    pub health_loss: u8,
    /// Percent of a list that may be excluded at most.
    pub health_share: u8,
    /// Percent of the ticks without mail on which cover leaves.
    pub cover: u8,
}

/// How often a message is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custody {
    /// For how long a message is tried.
    pub horizon: Duration,
    /// How far apart its attempts are, at least.
    pub apart: Duration,
    /// Attempts for a message of one packet.
    pub attempts: u8,
    /// Attempts for each fragment of a larger one.
    pub fragment_attempts: u8,
}

/// One stage of size classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Mails an hour in the whole network from which it holds.
    pub from: u32,
    /// Percent of the ticks that each class gets; 0 for a class that is not open.
    pub weights: [u8; TRAFFIC_CLASSES],
    /// Percent of a class's ticks that take a packet with a reply block.
    pub returning: u8,
}

impl Parameters {
    /// The number of the stage that holds at so many mails an hour in the whole network, from 0, and
    /// the stage.
    #[must_use]
    pub fn stage_at(&self, volume: u32) -> (usize, &Stage) {
        let [first, ..] = &self.stages;
        let mut latest = self.stages.iter().enumerate().rev();
        latest.find(|(_, stage)| stage.from <= volume).unwrap_or((0, first))
    }

    /// The parameters of the main network.
    #[must_use]
    pub const fn main() -> Self {
        const fn minutes(count: u64) -> Duration {
            Duration::from_secs(count * MINUTE)
        }
        Self {
            timing: Timing { epoch: minutes(180), grace: minutes(30), early: minutes(10) },
            lists: Lists {
                lead: minutes(10),
                settle: minutes(20),
                late: minutes(10),
                keep: minutes(360),
                first: 0,
                fewest: 4,
                relay_probation: 2,
                exit_probation: 8,
            },
            bounds: Bounds {
                spacing: minutes(5),
                strangers: 2000,
                newcomers: 1000,
                word_epochs: 720,
            },
            mixing: Mixing {
                mean_delay: Duration::from_secs(30),
                max_delay: minutes(10),
                window: Duration::from_secs(30),
                transit: Duration::from_secs(30),
                strategy: 0,
                floor: 2,
                floor_windows: 2,
                loop_budget: 10,
            },
            sending: Sending {
                max_hold: minutes(20),
                longest_hold: minutes(24 * 60),
                gaps: [
                    Duration::from_secs(15),
                    Duration::from_secs(10),
                    Duration::from_secs(5),
                    Duration::from_millis(2500),
                ],
                pace_from: [30, 45, 90],
                decoy_gap: minutes(20),
                first_hop: minutes(30 * 24 * 60),
                health_loops: 20,
                health_loss: 50,
                health_share: 25,
                cover: 100,
            },
            custody: Custody {
                horizon: minutes(360),
                apart: minutes(60),
                attempts: 4,
                fragment_attempts: 2,
            },
            stages: [
                Stage { from: 0, weights: [0, 60, 0, 0, 30, 0, 0, 0, 10], returning: 50 },
                Stage { from: 600, weights: [40, 25, 0, 20, 0, 10, 0, 0, 5], returning: 50 },
                Stage { from: 3000, weights: [25, 20, 15, 12, 10, 8, 5, 3, 2], returning: 50 },
            ],
        }
    }

    /// The parameters of a test network: every time divided by `speed`, but an epoch is never under
    /// 20 s, the grace never under 5 s, the time to settle and what gossip takes as late never
    /// under 3 s, the early acceptance never under 2 s, and votes never signed less than 1 s before
    /// their hour. There is no probation. The first list is voted once `first` nodes are known.
    #[must_use]
    pub fn scaled(speed: u32, first: u16) -> Self {
        let speed = speed.max(1);
        let mut scaled = Self::main();
        for span in scaled.spans() {
            *span = Duration::from_millis(whole_millis(*span) / u64::from(speed)).max(TICK);
        }
        let Self { timing, lists, bounds, sending, .. } = &mut scaled;
        sending.gaps = sending.gaps.map(|gap| gap.max(MIN_GAP));
        sending.decoy_gap = sending.decoy_gap.max(MIN_DECOY_GAP);
        // Three hours make an epoch, in whole milliseconds.
        let hour = whole_millis(timing.epoch.max(MIN_EPOCH)).div_ceil(3);
        timing.epoch = Duration::from_millis(hour * 3);
        timing.grace = timing.grace.max(MIN_GRACE);
        timing.early = timing.early.max(MIN_EARLY);
        lists.lead = lists.lead.max(MIN_LEAD);
        lists.settle = lists.settle.max(MIN_SETTLE);
        lists.late = lists.late.max(MIN_SETTLE);
        lists.keep = timing.epoch * 2;
        lists.first = first;
        (lists.relay_probation, lists.exit_probation) = (0, 0);
        bounds.spacing = Duration::from_millis(whole_millis(timing.epoch) / 36);
        scaled
    }

    /// The same, with the first list as soon as this many nodes are known.
    #[must_use]
    pub fn with_first_list(mut self, nodes: u16) -> Self {
        self.lists.first = nodes;
        self
    }

    /// The same, with these probations of relays and exits, in epochs.
    #[must_use]
    pub fn with_probation(mut self, relay: u16, exit: u16) -> Self {
        (self.lists.relay_probation, self.lists.exit_probation) = (relay, exit);
        self
    }

    /// The same without cover: nothing leaves on a tick without mail, and a packet may leave alone.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        (self.sending.cover, self.mixing.floor) = (0, 1);
        self
    }

    /// The same with another strategy of its mixes, by its number, and with delays that give it some latency
    /// like that of windows. In lock-step, the floor is the number of packets that a node sends in a round:
    /// nearly twice as many as come to it by the slowest clock, for each dummy is one at 4.5 nodes.
    #[must_use]
    pub fn with_strategy(mut self, strategy: u8) -> Self {
        let mixing = &mut self.mixing;
        (mixing.strategy, mixing.mean_delay, mixing.floor) = match strategy {
            1 => (strategy, mixing.mean_delay * 2, 1),
            2 => (strategy, mixing.mean_delay / 2, mixing.floor),
            3 => (strategy, (mixing.mean_delay / 30).max(TICK), 24),
            other => (other, mixing.mean_delay, mixing.floor),
        };
        self
    }

    /// When epochs and hours begin.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::new(self.timing.epoch, self.timing.grace, self.timing.early)
    }

    /// Every time, in the order in which a descriptor has them.
    pub(crate) fn spans(&mut self) -> [&mut Duration; Self::SPANS] {
        let Self { timing, lists, bounds, mixing, sending, custody, .. } = self;
        let [slow, brisk, quick, fast] = &mut sending.gaps;
        [
            &mut timing.epoch,
            &mut timing.grace,
            &mut timing.early,
            &mut lists.lead,
            &mut lists.settle,
            &mut lists.late,
            &mut lists.keep,
            &mut bounds.spacing,
            &mut mixing.mean_delay,
            &mut mixing.max_delay,
            &mut mixing.window,
            &mut mixing.transit,
            &mut sending.max_hold,
            &mut sending.longest_hold,
            slow,
            brisk,
            quick,
            fast,
            &mut sending.decoy_gap,
            &mut sending.first_hop,
            &mut custody.horizon,
            &mut custody.apart,
        ]
    }

    /// Times in a descriptor.
    pub(crate) const SPANS: usize = 22;

    /// Whether every group is within its bounds, and the groups fit each other.
    ///
    /// # Errors
    /// The name of the parameter that cannot work.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let Self { timing, lists, bounds, mixing, sending, custody, stages } = self;
        timing.check()?;
        lists.check(timing)?;
        bounds.check(timing)?;
        mixing.check(timing)?;
        sending.check()?;
        // So many ticks a node draws ahead, at the most.
        let ahead = (sending.max_hold + timing.epoch).as_millis();
        let fastest = sending.gaps.iter().min().map_or(1, Duration::as_millis).max(1);
        require(ahead / fastest <= MAX_TICKS, "gaps")?;
        custody.check()?;
        let ascending = stages.iter().zip(stages.iter().skip(1)).all(|(a, b)| a.from < b.from);
        require(ascending && stages.first().is_some_and(|first| first.from == 0), "stages")?;
        stages.iter().try_for_each(Stage::check)
    }
}

fn require(holds: bool, name: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(name) }
}

/// Bounds that keep every sum of times representable and every timer above a millisecond.
fn within(span: Duration, low: Duration) -> bool {
    low <= span && span <= DAY
}

impl Timing {
    fn check(&self) -> Result<(), &'static str> {
        let is_in_thirds = whole_millis(self.epoch).is_multiple_of(3);
        require(within(self.epoch, MIN_EPOCH) && is_in_thirds, "epoch")?;
        require(within(self.grace, MIN_GRACE), "grace")?;
        require(within(self.early, MIN_EARLY), "early")?;
        require(self.grace + self.early < self.epoch, "grace and early")
    }
}

impl Lists {
    fn check(&self, timing: &Timing) -> Result<(), &'static str> {
        let hour = timing.epoch / 3;
        require(within(self.lead, TICK), "lead")?;
        require(within(self.settle, TICK), "settle")?;
        // A record is published once an hour and has to settle within it.
        require((self.lead + self.settle) * 10 <= hour * 8, "lead and settle")?;
        require(within(self.late, TICK) && self.late <= self.settle, "late")?;
        // Records state keys for two epochs after that of the hour.
        require(within(self.keep, hour) && self.keep <= timing.epoch * 2, "keep")?;
        require(self.fewest >= 4, "fewest nodes")?;
        require(self.relay_probation <= self.exit_probation, "probation")
    }
}

impl Bounds {
    fn check(&self, timing: &Timing) -> Result<(), &'static str> {
        require(within(self.spacing, TICK) && self.spacing * 9 <= timing.epoch, "spacing")?;
        require(self.newcomers > 0 && self.newcomers <= 10_000, "newcomers")?;
        require(self.strangers > 0 && self.strangers <= 10_000, "strangers")?;
        require((1..=720).contains(&self.word_epochs), "life of a word")
    }
}

impl Mixing {
    fn check(&self, timing: &Timing) -> Result<(), &'static str> {
        require(within(self.mean_delay, TICK), "mean delay")?;
        let longest = within(self.max_delay, self.mean_delay) && self.max_delay <= timing.epoch;
        require(longest, "longest delay")?;
        require(within(self.window, TICK) && self.window <= timing.epoch, "window")?;
        require(within(self.transit, TICK) && self.transit <= timing.epoch, "transit")?;
        require(self.strategy <= 3, "strategy")?;
        require((1..=64).contains(&self.floor), "batch floor")?;
        require(self.floor_windows <= 16, "windows of the floor")?;
        // A loop is nine packets on average for the nodes on its way: for fewer it would feed on itself.
        require(self.loop_budget >= 10, "loop budget")
    }
}

impl Sending {
    fn check(&self) -> Result<(), &'static str> {
        require(within(self.max_hold, TICK), "hold")?;
        require(within(self.longest_hold, self.max_hold), "longest hold")?;
        require(self.gaps.iter().all(|gap| within(*gap, MIN_GAP)), "gaps")?;
        require(self.gaps.is_sorted_by(|slow, fast| slow >= fast), "gaps")?;
        require(self.pace_from.is_sorted_by(|few, many| few < many), "paces")?;
        require(within(self.decoy_gap, MIN_DECOY_GAP), "decoys")?;
        require(self.first_hop >= TICK && self.first_hop <= YEAR, "first hop")?;
        require(self.health_loops > 0 && self.health_loss <= 100, "health")?;
        require(self.health_share <= 50, "share of excluded nodes")?;
        require(self.cover <= 100, "cover")
    }
}

impl Custody {
    fn check(&self) -> Result<(), &'static str> {
        require(within(self.horizon, TICK), "horizon")?;
        require(within(self.apart, TICK) && self.apart <= self.horizon, "gap of attempts")?;
        require((1..=16).contains(&self.attempts), "attempts")?;
        require((1..=16).contains(&self.fragment_attempts), "attempts of fragments")
    }
}

impl Stage {
    /// Whether packets of the class with this number may be sent.
    #[must_use]
    pub fn is_open(&self, class: u8) -> bool {
        self.weights.get(usize::from(class)).is_some_and(|weight| *weight > 0)
    }

    fn check(&self) -> Result<(), &'static str> {
        let sum: u32 = self.weights.iter().map(|weight| u32::from(*weight)).sum();
        require(sum == 100, "weights of classes")?;
        require(self.weights.last().is_some_and(|largest| *largest > 0), "largest class")?;
        require((1..=99).contains(&self.returning), "returning share")
    }
}

pub(crate) fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

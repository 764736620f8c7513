//! How long a hop holds a packet, as everybody may know it.

/// Milliseconds of Unix time.
pub type Millis = u64;

/// What a node does with the packets of others.
#[derive(Clone, Debug)]
pub enum Held {
    /// What falls due in a window of this length leaves in the next, unless it is kept back. The observer
    /// knows where windows end at each node.
    Windows { window: f64, phases: Vec<Millis>, keeps: Keeps },
    /// Windows of which the observer does not know where they end.
    Unphased { window: f64, keeps: Keeps },
    /// Each packet leaves when its own delay is over.
    Continuous,
}

/// What is kept back when a window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Packets of a class of which there are fewer than so many, for two more windows.
    Below(u8),
    /// Of a pool of packets of one class all but a share, which is one less so many over all.
    Pool(u8),
    /// What is more than a round has room for: rarely anything.
    Overflow,
}

/// The delay that a sender seals for each hop, and what the hop adds to it.
#[derive(Clone, Debug)]
pub struct Law {
    /// Mean of the exponential delay, in milliseconds.
    pub mean: f64,
    pub held: Held,
}

/// Of what falls due later than this the observer takes no notice.
const TAIL: f64 = 1e-4;
/// Parts of a window, or of the mean delay, that are told apart where no windows are known.
const PARTS: f64 = 6.0;

/// With what chance a packet leaves in each of some bins that follow each other.
pub struct Spread {
    pub first: i64,
    pub chances: Vec<f64>,
}

impl Law {
    /// Length of the bins of time in which departures are counted, in milliseconds. Within one nobody can
    /// tell more than that all that leave in it do.
    pub fn bin(&self) -> f64 {
        match &self.held {
            Held::Windows { window, .. } => *window,
            Held::Unphased { window, .. } => window / PARTS,
            Held::Continuous => self.mean / PARTS,
        }
    }

    fn phase(&self, node: usize) -> f64 {
        match &self.held {
            Held::Windows { window, phases, .. } => {
                phases.get(node).map_or(0.0, |phase| (*phase as f64).rem_euclid(*window))
            }
            Held::Unphased { .. } | Held::Continuous => 0.0,
        }
    }

    /// The bin of a moment at a node.
    pub fn bin_at(&self, node: usize, at: Millis) -> i64 {
        ((at as f64 - self.phase(node)) / self.bin()).floor() as i64
    }

    /// When a packet leaves that came at some time and is not kept back by the floor.
    pub fn spread(&self, node: usize, arrived: Millis) -> Spread {
        let (bin, first) = (self.bin(), self.bin_at(node, arrived));
        let start = self.phase(node) + first as f64 * bin - arrived as f64;
        let mut chances = Vec::new();
        // What falls due in a window leaves in the next.
        let first = first + i64::from(matches!(self.held, Held::Windows { .. }));
        let mut before = 0.0;
        for number in 1_u32.. {
            let until = start + bin * f64::from(number);
            let by = self.left_by(until);
            chances.push(by - before);
            before = by;
            if by > 1.0 - TAIL {
                break;
            }
        }
        Spread { first, chances }
    }

    /// The chance that a packet has left so many milliseconds after it came; where windows are known, that
    /// it has fallen due.
    fn left_by(&self, after: f64) -> f64 {
        let exponential = |x: f64| if x <= 0.0 { 0.0 } else { 1.0 - (-x / self.mean).exp() };
        match &self.held {
            Held::Windows { .. } | Held::Continuous => exponential(after),
            // The wait for the end of a window and that in the next are both uniform.
            Held::Unphased { window, .. } => {
                let twice = |x: f64| {
                    let m = self.mean;
                    if x <= 0.0 { 0.0 } else { x * x / 2.0 - m * x + m * m * exponential(x) }
                };
                let sum = twice(after) - 2.0 * twice(after - window) + twice(after - 2.0 * window);
                sum / (window * window)
            }
        }
    }

    /// With which chances a packet is kept back for no, one, two and more windows, where so many others of
    /// its class fall due in a window; and how many bins a window has.
    pub fn kept_back(&self, others: f64) -> (Vec<f64>, usize) {
        let (keeps, bins) = match &self.held {
            Held::Windows { keeps, .. } => (*keeps, 1),
            Held::Unphased { keeps, .. } => (*keeps, PARTS as usize),
            Held::Continuous => (Keeps::Below(1), 1),
        };
        let geometric = |leaves: f64, most: u32| {
            let stays = (1.0 - leaves).max(0.0);
            (0..most).map(|rounds| leaves * stays.powi(rounds as i32)).collect()
        };
        let chances = match keeps {
            Keeps::Below(0 | 1) => vec![1.0],
            // It leaves at once if another falls due with it or waits already; else with the first that
            // comes, or after two windows.
            Keeps::Below(_) => {
                let none = (-others).exp();
                let begins = others * none / (1.0 + others * none * (1.0 + none));
                let is_alone = none * (1.0 - begins * (1.0 + none));
                vec![1.0 - is_alone, is_alone * (1.0 - none), is_alone * none]
            }
            // As many leave as come: the size of the pool at which that is so.
            Keeps::Pool(floor) => {
                let stay = f64::from(floor.saturating_sub(1));
                geometric((others / (others + stay)).clamp(0.05, 0.65), 8)
            }
            Keeps::Overflow => geometric(0.8, 4),
        };
        (chances, bins)
    }
}

/// How long a sender keeps a mail: uniformly up to `hold`, and then until the next tick of its kind, which
/// come `tick` apart on average; where its node's own packets leave with those of others, it comes `lag`
/// later on a link. Milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    pub hold: f64,
    pub tick: f64,
    pub lag: f64,
}

impl Hold {
    /// How likely a mail leaves so many milliseconds after it was submitted, per millisecond.
    pub fn density(&self, after: f64) -> f64 {
        let by = |x: f64| if x <= 0.0 { 0.0 } else { 1.0 - (-x / self.tick).exp() };
        let after = after - self.lag;
        match self.hold > 1.0 {
            true => (by(after) - by(after - self.hold)) / self.hold,
            false if after > 0.0 => (-after / self.tick).exp() / self.tick,
            false => 0.0,
        }
    }

    /// After this time it has left, but for one in ten thousand.
    pub fn longest(&self) -> f64 {
        self.hold + self.tick * 9.2 + self.lag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(law: &Law, arrived: Millis) -> f64 {
        let spread = law.spread(0, arrived);
        let sum: f64 = spread.chances.iter().sum();
        assert!((sum - 1.0).abs() < 2.0 * TAIL, "{sum}");
        let middle = |number: usize| (spread.first + number as i64) as f64 + 0.5;
        let times = spread.chances.iter().enumerate();
        let at = |number| law.phase(0) + middle(number) * law.bin();
        times.map(|(number, chance)| chance * at(number)).sum::<f64>()
    }

    #[test]
    fn laws_have_the_means_that_can_be_computed_by_hand() {
        let (window, mean_delay) = (30_000.0, 30_000.0);
        for (held, by_hand) in [
            (Held::Continuous, 30_000.0),
            (Held::Unphased { window, keeps: Keeps::Below(1) }, 60_000.0),
        ] {
            let law = Law { mean: mean_delay, held };
            let arrived = 1_000_000;
            let after = mean(&law, arrived) - arrived as f64;
            assert!((after - by_hand).abs() < 600.0, "{after}");
        }
        // Over all phases, a known one holds a packet for as long.
        let mut sum = 0.0;
        for step in 0..100 {
            let held = Held::Windows { window, phases: vec![step * 300], keeps: Keeps::Below(1) };
            let law = Law { mean: mean_delay, held };
            sum += mean(&law, 1_000_000) - 1_000_000.0;
        }
        assert!((sum / 100.0 - 60_000.0).abs() < 600.0, "{sum}");
    }

    #[test]
    fn the_floor_keeps_back_what_is_alone() {
        let held = Held::Windows { window: 1.0, phases: Vec::new(), keeps: Keeps::Below(2) };
        let law = Law { mean: 1.0, held };
        let (few, _) = law.kept_back(1e-9);
        assert!(few[0] < 1e-6 && few[1] < 1e-6 && few[2] > 0.999);
        assert!(law.kept_back(20.0).0[0] > 0.999);
        assert!((law.kept_back(0.7).0.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_hold_is_a_distribution() {
        for (hold, tick) in [(0.0, 50.0), (1200.0, 50.0), (30.0, 500.0)] {
            let law = Hold { hold, tick, lag: 0.0 };
            let step = 0.25;
            let steps = (law.longest() / step) as u64;
            let sum: f64 = (0..steps).map(|x| law.density((x as f64 + 0.5) * step) * step).sum();
            assert!((sum - 1.0).abs() < 1e-3, "{hold}: {sum}");
        }
    }
}

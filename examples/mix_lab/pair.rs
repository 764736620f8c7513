//! How long two people can write to each other daily before an observer of submissions and deliveries
//! knows it.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const DAY: f64 = 86_400.0;
/// How much the observer trusts that a mail of the pair is among those that may be it.
const DOUBT: f64 = 0.02;

/// A network whose users mail twice a day at times of their own choice, and a pair among them of which one
/// writes to the other once a day.
pub struct Pair<'a> {
    pub users: usize,
    /// From submission to delivery, in seconds, as measured.
    pub latencies: &'a [f64],
    pub days: usize,
    pub trials: usize,
    pub seed: u64,
}

impl Pair<'_> {
    /// In which share of the trials the writer was ranked first after each day. Each day the observer
    /// weighs every user by how likely their submissions of that day were the mail that came.
    pub fn ranked_first(&self) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let density = Density::of(self.latencies);
        let mut first = vec![0.0; self.days];
        for _ in 0..self.trials {
            let mut scores = vec![0.0; self.users];
            for of_day in &mut first {
                let latency = self.latencies[rng.random_range(0..self.latencies.len())];
                let submitted = rng.random_range(0.0..DAY);
                let arrived = submitted + latency;
                let mut weights = vec![0.0; self.users];
                for (user, weight) in weights.iter_mut().enumerate() {
                    let own = if user == 0 {
                        [submitted, rng.random_range(0.0..DAY)]
                    } else {
                        [rng.random_range(0.0..DAY), rng.random_range(0.0..DAY)]
                    };
                    // A day is as the next: what came after midnight was submitted before it.
                    let ages = own.map(|at| (arrived - at).rem_euclid(DAY));
                    *weight = ages.iter().map(|age| density.at(*age)).sum();
                }
                let sum: f64 = weights.iter().sum::<f64>().max(1e-300);
                let each = 1.0 / self.users as f64;
                for (score, weight) in scores.iter_mut().zip(weights) {
                    *score += ((1.0 - DOUBT) * weight / sum + DOUBT * each).ln();
                }
                let best = scores.iter().copied().fold(f64::MIN, f64::max);
                if scores[0] >= best {
                    let ties = scores.iter().filter(|score| **score >= best).count();
                    *of_day += 1.0 / self.trials as f64 / ties as f64;
                }
            }
        }
        first
    }
}

/// The day from which the writer is ranked first in half of the trials, and in nine of ten.
pub fn days(first: &[f64]) -> [Option<usize>; 2] {
    [0.5, 0.9].map(|share| first.iter().position(|of_day| *of_day >= share).map(|day| day + 1))
}

/// How likely each latency is, per second: a histogram.
struct Density {
    bin: f64,
    shares: Vec<f64>,
}

impl Density {
    fn of(latencies: &[f64]) -> Self {
        let longest = latencies.iter().copied().fold(1.0, f64::max);
        let bin = longest / 40.0;
        let mut shares = vec![0.0; 41];
        for latency in latencies {
            if let Some(share) = shares.get_mut((latency / bin) as usize) {
                *share += 1.0 / latencies.len() as f64 / bin;
            }
        }
        Self { bin, shares }
    }

    fn at(&self, latency: f64) -> f64 {
        self.shares.get((latency / self.bin) as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_nothing_hides_is_found_on_the_first_day_and_one_among_all_by_chance() {
        let at_once: Vec<f64> = (0..1000).map(|n| f64::from(n) / 100.0).collect();
        let within_a_day: Vec<f64> = (0..1000).map(|n| f64::from(n) * 86.4).collect();
        let pair = |latencies| Pair { users: 200, latencies, days: 10, trials: 100, seed: 1 };
        assert!(pair(&at_once).ranked_first()[0] > 0.9);
        let hidden = pair(&within_a_day).ranked_first();
        assert!(hidden.iter().all(|share| *share < 0.1), "{hidden:?}");
    }
}

//! What an observer learned of one network, in figures.

use crate::law::Millis;
use crate::trace::Trace;
use crate::watcher::{Knows, Watcher, bits};

/// What a table has of one network.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    /// Deliveries that were looked at.
    pub targets: usize,
    /// Those of which the observer believes nothing: guesses that are wrong.
    pub untraced: usize,
    /// Mails among which a mail hides: two to the mean entropy in bits of the observer's belief, with the
    /// standard error of that mean, as a factor.
    pub mails: f64,
    pub error: f64,
    /// The same with the min-entropy, which asks for the best guess alone.
    pub least: f64,
    /// The share of best guesses that are right, and the share that the observer itself expects.
    pub hit: f64,
    pub expected: f64,
    /// Packets among which its packet hides when it is wrapped: cover counts.
    pub packets: f64,
    /// From submission to delivery, in seconds: the median, and 95 of 100.
    pub latency: [f64; 2],
    /// MiB that a node sends in an hour; it receives as much.
    pub volume: f64,
}

impl Row {
    pub const HEAD: &str = "network,targets,untraced,mails,error,least,hit,expected,ratio,packets,\
                            latency_median_s,latency_p95_s,mib_per_hour";

    /// The best guess is right so many times more often than one of as many as the set has.
    pub fn ratio(&self) -> f64 {
        self.hit * self.mails
    }

    pub fn to_csv(&self) -> String {
        let [median, late] = self.latency;
        format!(
            "{},{},{},{:.1},{:.3},{:.1},{:.3},{:.3},{:.2},{:.0},{:.0},{:.0},{:.1}",
            self.name,
            self.targets,
            self.untraced,
            self.mails,
            self.error,
            self.least,
            self.hit,
            self.expected,
            self.ratio(),
            self.packets,
            median,
            late,
            self.volume
        )
    }

    /// Looks at a network. What was submitted in the first `settling` milliseconds, or in the last, is
    /// matched with the rest, but not counted: its surroundings are not complete.
    pub fn of(name: &str, trace: &Trace, knows: &Knows, settling: Millis) -> Self {
        let watcher = Watcher::new(trace, knows.clone());
        let traced = watcher.trace_all();
        let begin = trace.links.first().map_or(0, |link| link.sent) + settling;
        let end = trace.links.last().map_or(0, |link| link.sent).saturating_sub(settling);
        let (mut entropies, mut least, mut packets) = (Vec::new(), 0.0, 0.0);
        let (mut hit, mut expected, mut targets, mut untraced) = (0.0, 0.0, 0, 0);
        for (delivered, traced) in trace.delivered.iter().zip(&traced) {
            let submitted = &trace.submitted[delivered.of];
            let counts = (begin..end).contains(&submitted.at) && submitted.node >= knows.owned;
            if !counts {
                continue;
            }
            targets += 1;
            if traced.submissions.is_empty() {
                untraced += 1;
                continue;
            }
            let chances = traced.submissions.iter().map(|(_, chance)| *chance);
            let best = chances.clone().fold(0.0, f64::max);
            let ties = chances.clone().filter(|chance| *chance >= best).count();
            let own = traced.submissions.iter().find(|(number, _)| *number == delivered.of);
            if own.is_some_and(|(_, chance)| *chance >= best) {
                hit += 1.0 / ties as f64;
            }
            entropies.push(bits(chances));
            expected += best;
            least -= best.log2();
            packets += traced.packets.log2();
        }
        let count = entropies.len().max(1) as f64;
        let all = f64::from(targets.max(1_u32));
        let mean = entropies.iter().sum::<f64>() / count;
        let variance = entropies.iter().map(|bits| (bits - mean).powi(2)).sum::<f64>() / count;
        let latencies = trace.latencies();
        let at = |share: f64| {
            let place = (latencies.len() as f64 * share) as usize;
            latencies.get(place).copied().unwrap_or_default()
        };
        Self {
            name: name.to_owned(),
            targets: targets as usize,
            untraced,
            mails: mean.exp2(),
            error: (variance / count).sqrt().exp2() - 1.0,
            least: (least / count).exp2(),
            hit: hit / all,
            expected: expected / all,
            packets: (packets / count).exp2(),
            latency: [at(0.5), at(0.95)],
            volume: trace.volume(),
        }
    }
}

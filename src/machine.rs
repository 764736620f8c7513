//! The machine that a node runs on, as its parts see it: the clock, the randomness, and the threads
//! for slow work.

use crate::clock::Clock;
use crate::entropy::Generator;
use crate::workers::Workers;

/// The handle that every part of a node is given. A copy is the same machine.
#[derive(Clone)]
pub struct Machine {
    /// The clock.
    pub clock: Clock,
    /// The operating system's generator.
    pub rng: Generator,
    /// The threads.
    pub workers: Workers,
}

impl Machine {
    /// A machine with as many threads for computing as it has processors.
    #[must_use]
    pub fn new(clock: Clock, rng: Generator) -> Self {
        Self { clock, rng, workers: Workers::new() }
    }
}

//! Routes with known secrets.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use fog_sphinx::{
    Body, End, EpochKey, EpochKeys, Hop, Packet, ReplyBlock, ReplyEnd, ReplyKeys, SizeClass,
    WrapError, reply_block, wrap,
};
use keys::{Epoch, Identity, MixSecret, MixSeed, NodeId};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A route whose every node's secrets follow from a seed.
pub(crate) struct Route {
    hops: Vec<(Arc<EpochKey>, Duration)>,
    seed: u64,
}

impl Route {
    pub(crate) fn new(hops: usize, seed: u64) -> Self {
        let mut rng = rng(seed);
        let mut number = 160_000;
        let hops = (0..hops)
            .map(|_| {
                let node = Identity::generate(&mut rng).node();
                let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
                // It may go back by one, and ahead by two.
                number = number + rng.next_u32() % 4 - 1;
                let epoch = Epoch::new(number);
                let delay = Duration::from_millis(u64::from(rng.next_u32() % 600_000));
                (Arc::new(EpochKey::new(node, epoch, secret)), delay)
            })
            .collect();
        Self { hops, seed }
    }

    /// The same nodes, other randomness for the packet.
    pub(crate) fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub(crate) fn hops(&self) -> Vec<Hop<'_>> {
        self.hops
            .iter()
            .map(|(key, delay)| Hop {
                node: key.node(),
                epoch: key.epoch(),
                key: key.public(),
                delay: *delay,
            })
            .collect()
    }

    pub(crate) fn wrap(
        &self,
        end: End,
        class: SizeClass,
        content: &[u8],
    ) -> Result<Packet, WrapError> {
        let body = Body { end, class, content, reply: None };
        wrap(&self.hops(), &body, &mut rng(self.seed ^ 0xf06))
    }

    /// A reply block for this route, which ends at its last node, and what opens the answer.
    pub(crate) fn reply_block(&self, end: ReplyEnd, class: SizeClass) -> (ReplyBlock, ReplyKeys) {
        reply_block(&self.hops(), end, class, &mut rng(self.seed ^ 0xb10c)).unwrap()
    }

    pub(crate) fn keys(&self, hop: usize) -> EpochKeys {
        EpochKeys::new(vec![Arc::clone(&self.hops[hop].0)])
    }

    pub(crate) fn node(&self, hop: usize) -> NodeId {
        self.hops[hop].0.node()
    }

    pub(crate) fn epoch(&self, hop: usize) -> Epoch {
        self.hops[hop].0.epoch()
    }

    pub(crate) fn delay(&self, hop: usize) -> Duration {
        self.hops[hop].1
    }
}

//! Answering with the reply blocks of others: once with each, and while its keys live.

use std::collections::{BTreeMap, BTreeSet};

use keys::{Epoch, NodeId, Schedule, Time};
use sphinx::{Packet, ReplyBlock};

use crate::count::NotAnswered;

/// How many epochs ahead the last epoch of a reply block may lie: keys are stated no further.
const AHEAD: u32 = 3;
/// Loops that are turned at once, at most: answers of exits have room beside them.
const MAX_TURNED: usize = 1024;
/// Reply blocks that are remembered as used, at most, 16 octets each. More answers are not given
/// before an epoch is over: to answer twice with one block would give both answers away.
const MAX_USED: usize = 128 * 1024;

/// The reply blocks that were answered with, until they are good no more.
#[derive(Default)]
pub(crate) struct Answers {
    used: BTreeMap<Epoch, BTreeSet<[u8; 16]>>,
    /// The blocks of loops that are to be turned.
    turned: Vec<ReplyBlock>,
}

impl Answers {
    /// Turns a loop, with the answers that are given next.
    ///
    /// # Errors
    /// [`NotAnswered::NoRoom`].
    pub(crate) fn turn(&mut self, block: ReplyBlock) -> Result<(), NotAnswered> {
        if self.turned.len() >= MAX_TURNED {
            return Err(NotAnswered::NoRoom);
        }
        self.turned.push(block);
        Ok(())
    }

    /// The blocks of loops that are to be turned, each told once.
    pub(crate) fn take_turned(&mut self) -> Vec<ReplyBlock> {
        core::mem::take(&mut self.turned)
    }

    /// The packet that answers, and the node that it goes to. `known` says whether a node has a live
    /// record.
    pub(crate) fn answer(
        &mut self,
        block: ReplyBlock,
        content: &[u8],
        schedule: &Schedule,
        now: Time,
        known: impl Fn(&NodeId) -> bool,
    ) -> Result<(NodeId, Packet), NotAnswered> {
        let present = schedule.epoch_at(now);
        self.used.retain(|last, _| *last >= present);
        let (first, last) = (block.first(), block.last_epoch());
        if last < present {
            return Err(NotAnswered::Expired);
        }
        // Who writes it decides for how long it is remembered.
        if last > present.plus(AHEAD) {
            return Err(NotAnswered::Malformed);
        }
        if !known(&first) {
            return Err(NotAnswered::UnknownHop);
        }
        if self.used.values().map(BTreeSet::len).sum::<usize>() >= MAX_USED {
            return Err(NotAnswered::NoRoom);
        }
        if !self.used.entry(last).or_default().insert(block.mark()) {
            return Err(NotAnswered::Used);
        }
        let packet = block.answer(content).map_err(|_| NotAnswered::Malformed)?;
        Ok((first, packet))
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use keys::{Identity, MixSecret, MixSeed};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use sphinx::{Hop, ReplyEnd, SizeClass, reply_block};

    use super::*;

    #[test]
    fn a_block_is_answered_with_once_in_its_time_and_towards_a_known_node() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let schedule = record::Parameters::main().schedule();
        let epoch = Epoch::new(165_000);
        let now = schedule.start(epoch).plus(Duration::from_secs(60));
        let hops: Vec<_> = (0..3)
            .map(|_| {
                let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
                (Identity::generate(&mut rng).node(), secret)
            })
            .collect();
        let mut block = || {
            let hop = |(node, secret): &(NodeId, MixSecret)| (*node, secret.public().clone());
            let hops: Vec<_> = hops.iter().map(hop).collect();
            let hops: Vec<_> = hops
                .iter()
                .map(|(node, key)| Hop { node: *node, epoch, key, delay: Duration::ZERO })
                .collect();
            reply_block(&hops, ReplyEnd::Owner, SizeClass::SMALLEST, &mut rng).unwrap().0
        };
        let mut answers = Answers::default();
        let first = block();
        let again = ReplyBlock::from_octets(&first.to_octets()).unwrap();
        let mut answer = |block, now, is_known| {
            answers.answer(block, &[3], &schedule, now, |_| is_known).map(|(to, _)| to)
        };
        assert_eq!(answer(first, now, true), Ok(hops[0].0));
        assert_eq!(answer(again, now, true), Err(NotAnswered::Used));
        assert_eq!(answer(block(), now, false), Err(NotAnswered::UnknownHop));
        let long_before = schedule.start(Epoch::new(165_000 - AHEAD - 1));
        assert_eq!(answer(block(), long_before, true), Err(NotAnswered::Malformed));
        let end = schedule.end(epoch);
        assert_eq!(answer(block(), end, true), Err(NotAnswered::Expired));
        assert!(answers.used.is_empty(), "what is good no more need not be remembered");
    }
}

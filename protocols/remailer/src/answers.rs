//! Answering with the reply blocks of others: once with each, and while its keys live.

use std::collections::{BTreeMap, BTreeSet};

use keys::{Epoch, NodeId, Schedule, Time};
use mail::Acknowledgement;
use sphinx::{Packet, Payload, ReplyBlock};

use crate::content::ContentType;
use crate::count::NotAnswered;

/// How many epochs ahead the last epoch of a reply block may lie: keys are stated no further.
const AHEAD: u32 = 3;
/// Loops that are turned at once, at most.
const MAX_TURNED: usize = 1024;
/// Reply blocks that are remembered as used, at most, 16 octets each, for loops and as many for word of
/// messages: a stranger's loops must not end what an exit says. More answers are not given before an
/// epoch is over: to answer twice with one block would give both answers away.
const MAX_USED: usize = 64 * 1024;

/// What a node answers.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// What became of a message.
    Became(Acknowledgement),
    /// That a loop turned here.
    Turned,
}

impl Reply {
    fn content(&self) -> Vec<u8> {
        match self {
            Self::Became(said) => {
                let mut content = vec![ContentType::Acknowledgement.number()];
                content.extend_from_slice(&said.encode());
                content
            }
            Self::Turned => vec![ContentType::TurningPoint.number()],
        }
    }
}

/// The reply blocks that were answered with, until they are good no more.
#[derive(Default)]
pub(crate) struct Answers {
    used: BTreeMap<Epoch, BTreeSet<[u8; 16]>>,
    used_for_loops: BTreeMap<Epoch, BTreeSet<[u8; 16]>>,
    /// The blocks of loops that are to be turned.
    turned: Vec<ReplyBlock>,
}

impl Answers {
    /// Turns a loop, with the answers that are given next. Its block has to be of the class of the packet
    /// that brought it: a small packet must not become a large one.
    ///
    /// # Errors
    /// [`NotAnswered::Malformed`], [`NotAnswered::NoRoom`].
    pub(crate) fn turn(&mut self, payload: &Payload) -> Result<(), NotAnswered> {
        let block = payload.reply_block().ok().flatten().ok_or(NotAnswered::Malformed)?;
        if block.class().payload_len() != payload.len() {
            return Err(NotAnswered::Malformed);
        }
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
        reply: &Reply,
        schedule: &Schedule,
        now: Time,
        known: impl Fn(&NodeId) -> bool,
    ) -> Result<(NodeId, Packet), NotAnswered> {
        let present = schedule.epoch_at(now);
        for used in [&mut self.used, &mut self.used_for_loops] {
            used.retain(|last, _| *last >= present);
        }
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
        let (used, others) = match reply {
            Reply::Became(_) => (&mut self.used, &self.used_for_loops),
            Reply::Turned => (&mut self.used_for_loops, &self.used),
        };
        let mark = block.mark();
        if others.get(&last).is_some_and(|marks| marks.contains(&mark)) {
            return Err(NotAnswered::Used);
        }
        if used.values().map(BTreeSet::len).sum::<usize>() >= MAX_USED {
            return Err(NotAnswered::NoRoom);
        }
        if !used.entry(last).or_default().insert(mark) {
            return Err(NotAnswered::Used);
        }
        let packet = block.answer(&reply.content()).map_err(|_| NotAnswered::Malformed)?;
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
            answers.answer(block, &Reply::Turned, &schedule, now, |_| is_known).map(|(to, _)| to)
        };
        assert_eq!(answer(first, now, true), Ok(hops[0].0));
        assert_eq!(answer(again, now, true), Err(NotAnswered::Used));
        assert_eq!(answer(block(), now, false), Err(NotAnswered::UnknownHop));
        let long_before = schedule.start(Epoch::new(165_000 - AHEAD - 1));
        assert_eq!(answer(block(), long_before, true), Err(NotAnswered::Malformed));
        // Nor is one that was used for a loop used for word of a message.
        let twice = block();
        let again = ReplyBlock::from_octets(&twice.to_octets()).unwrap();
        assert_eq!(answer(twice, now, true), Ok(hops[0].0));
        let said = Reply::Became(Acknowledgement::of([]));
        let used = answers.answer(again, &said, &schedule, now, |_| true).map(|(to, _)| to);
        assert_eq!(used, Err(NotAnswered::Used));
        let mut answer = |block, now, is_known| {
            answers.answer(block, &said, &schedule, now, |_| is_known).map(|(to, _)| to)
        };
        let end = schedule.end(epoch);
        assert_eq!(answer(block(), end, true), Err(NotAnswered::Expired));
        assert!(
            answers.used.is_empty() && answers.used_for_loops.is_empty(),
            "what is good no more need not be remembered"
        );
    }
}

//! Answers to this node's own reply blocks: what opens each is kept until it comes, or until no answer
//! can come any more.

use std::collections::{BTreeMap, BTreeSet};

use keys::Time;
use mail::{Acknowledgement, AcknowledgementError, DeliveryStatus};
use sphinx::{BlockName, Payload, ReplyError, ReplyKeys};

use crate::command::Out;
use crate::content::ContentType;
use crate::count::{Count, NoAnswer};
use crate::custody::Word;
use crate::loops::{Walk, Walked};

/// Reply blocks that wait for their answers, at most; some 300 octets each. The one that would wait
/// least long makes room for another.
const MAX_WAITING: usize = 16 * 1024;

/// What opens an answer, and until when it can come.
pub(crate) struct Expected {
    pub(crate) keys: ReplyKeys,
    pub(crate) until: Time,
    /// What it is an answer to.
    pub(crate) of: Purpose,
    /// The way of a loop.
    pub(crate) walk: Option<Walk>,
}

/// What a reply block was given away for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For word of a part of a message, from the first exit that it goes to or the second.
    Message {
        /// The number of the part.
        part: u64,
        /// Which exit.
        exit: u8,
    },
    /// For a loop, which turns at another node.
    Loop,
    /// The same, for what a decoy became, by the number of its part.
    Decoy(u64),
}

impl Purpose {
    /// Whether it is a loop, whoever it is for.
    pub(crate) fn is_loop(self) -> bool {
        matches!(self, Self::Loop | Self::Decoy(_))
    }

    /// The part of a message that it is for.
    pub(crate) fn part(self) -> Option<u64> {
        match self {
            Self::Message { part, .. } | Self::Decoy(part) => Some(part),
            Self::Loop => None,
        }
    }
}

/// The answers that are waited for.
#[derive(Default)]
pub(crate) struct Replies {
    waiting: BTreeMap<BlockName, Expected>,
    ends: BTreeSet<(Time, BlockName)>,
    /// The blocks that wait for each part of a message.
    of: BTreeMap<u64, Vec<BlockName>>,
    /// What exits have said, until [`Replies::take_words`].
    words: Vec<Word>,
    /// What became of loops, until [`Replies::take_walked`].
    walked: Vec<Walked>,
}

impl Replies {
    /// Waits for an answer.
    pub(crate) fn expect(&mut self, expected: Expected, out: &mut Out) {
        if self.waiting.len() >= MAX_WAITING {
            // It may be under way still.
            let _ = self.give_up_first(out);
        }
        let name = expected.keys.name();
        self.ends.insert((expected.until, name));
        if let Purpose::Message { part, .. } = expected.of {
            self.of.entry(part).or_default().push(name);
        }
        self.waiting.insert(name, expected);
    }

    /// Takes an answer that came to its owner. Its keys are gone then, whatever came of it.
    pub(crate) fn handle_reply(
        &mut self,
        name: BlockName,
        payload: Payload,
        now: Time,
        out: &mut Out,
    ) {
        out.count(Count::AnswerReceived);
        let Some(Expected { keys, until, of, walk }) = self.waiting.remove(&name) else {
            return out.count(Count::AnswerRefused(NoAnswer::Unexpected));
        };
        self.ends.remove(&(until, name));
        match (of, read(keys, payload)) {
            (Purpose::Loop | Purpose::Decoy(_), Ok(Said::Turned)) => {
                out.count(Count::LoopReturned);
                if let Purpose::Decoy(part) = of {
                    let said = Acknowledgement::of([(DeliveryStatus::Delivered, 1)]);
                    self.words.push(Word { part, exit: 0, said });
                }
                let walked = walk.map(|walk| (now.since(walk.left), walk));
                self.walked.extend(walked.map(|(took, walk)| Walked { walk, took: Some(took) }));
            }
            (Purpose::Message { part, exit }, Ok(Said::Became(said))) => {
                self.forget(of, &name);
                for (status, recipients) in said.iter() {
                    out.count_many(Count::Acknowledged(status), recipients.into());
                }
                self.words.push(Word { part, exit, said });
            }
            // Another block of the message is the one that is answered with word of it.
            (Purpose::Message { .. }, Ok(Said::Turned)) => {
                if self.forget(of, &name) {
                    out.count(Count::AnswerMissing);
                }
            }
            (of, said) => {
                out.count(Count::AnswerRefused(said.err().unwrap_or(NoAnswer::ContentType)));
                self.forget(of, &name);
            }
        }
    }

    /// One block is gone; whether it was the last for its purpose.
    fn forget(&mut self, of: Purpose, name: &BlockName) -> bool {
        let Purpose::Message { part, .. } = of else { return true };
        let Some(others) = self.of.get_mut(&part) else { return true };
        others.retain(|other| other != name);
        let was_last = others.is_empty();
        if was_last {
            self.of.remove(&part);
        }
        was_last
    }

    /// No answer is waited for any more that is for a part of a message.
    pub(crate) fn forget_part(&mut self, part: u64) {
        for name in self.of.remove(&part).unwrap_or_default() {
            if let Some(Expected { until, .. }) = self.waiting.remove(&name) {
                self.ends.remove(&(until, name));
            }
        }
    }

    /// What exits have said, each told once.
    pub(crate) fn take_words(&mut self) -> Vec<Word> {
        core::mem::take(&mut self.words)
    }

    /// What became of loops, each told once.
    pub(crate) fn take_walked(&mut self) -> Vec<Walked> {
        core::mem::take(&mut self.walked)
    }

    /// The clock jumped: what is waited for is waited for as long. A machine that slept has missed loops
    /// that came back.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        for expected in self.waiting.values_mut() {
            expected.until = expected.until.shifted(millis);
            expected.walk = None;
        }
        let ends = self.waiting.iter().map(|(name, expected)| (expected.until, *name));
        self.ends = ends.collect();
    }

    /// When the next one is given up.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Gives up those that cannot come any more, and forgets their keys.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Out) {
        while self.poll_timeout().is_some_and(|until| until <= now) {
            let lost = self.give_up_first(out);
            self.walked.extend(lost.map(|walk| Walked { walk, took: None }));
        }
    }

    /// How many are waited for.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the way of the loop that it was.
    fn give_up_first(&mut self, out: &mut Out) -> Option<Walk> {
        let (_, name) = self.ends.pop_first()?;
        let Expected { of, walk, .. } = self.waiting.remove(&name)?;
        if self.forget(of, &name) {
            out.count(match of {
                Purpose::Message { .. } => Count::AnswerMissing,
                Purpose::Loop | Purpose::Decoy(_) => Count::LoopMissing,
            });
        }
        walk
    }
}

/// What an answer says.
enum Said {
    /// What became of a message.
    Became(Acknowledgement),
    /// That a loop was turned.
    Turned,
}

fn read(keys: ReplyKeys, payload: Payload) -> Result<Said, NoAnswer> {
    let content = keys.open(payload).map_err(|why| match why {
        ReplyError::Class | ReplyError::Tag => NoAnswer::Altered,
        ReplyError::Malformed | ReplyError::Content => NoAnswer::Malformed,
    })?;
    match ContentType::split(&content) {
        Some((ContentType::Acknowledgement, said)) => {
            Acknowledgement::decode(said).map(Said::Became).map_err(|why| match why {
                AcknowledgementError::Unknown => NoAnswer::ContentType,
                AcknowledgementError::Malformed => NoAnswer::Malformed,
            })
        }
        Some((ContentType::TurningPoint, [])) => Ok(Said::Turned),
        Some(_) | None => Err(NoAnswer::ContentType),
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::sync::Arc;

    use keys::{Epoch, Identity, MixSecret, MixSeed};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use sphinx::{
        EpochKey, EpochKeys, Hop, Layer, Packet, ReplyBlock, ReplyEnd, SizeClass, reply_block,
    };

    use super::*;

    /// The owner of reply blocks, and the two nodes before it.
    struct World {
        route: Vec<Arc<EpochKey>>,
        rng: ChaCha20Rng,
        blocks: u64,
        replies: Replies,
        out: Out,
    }

    const UNTIL: Time = Time::from_millis(1_000_000);

    impl World {
        fn new() -> Self {
            let mut rng = ChaCha20Rng::seed_from_u64(1);
            let key = |_| {
                let node = Identity::generate(&mut rng).node();
                let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
                Arc::new(EpochKey::new(node, Epoch::new(7), secret))
            };
            let route = (0..3).map(key).collect();
            Self { route, rng, blocks: 0, replies: Replies::default(), out: Out::default() }
        }

        /// A block whose answer is waited for.
        fn block(&mut self) -> ReplyBlock {
            let hop = |key: &'_ Arc<EpochKey>| (key.node(), key.epoch());
            let hops: Vec<_> = self.route.iter().map(|key| (hop(key), key.public())).collect();
            let delay = Duration::ZERO;
            let hops: Vec<_> = hops
                .into_iter()
                .map(|((node, epoch), key)| Hop { node, epoch, key, delay })
                .collect();
            self.blocks += 1;
            let made =
                reply_block(&hops, ReplyEnd::Owner, SizeClass::SMALLEST, &mut self.rng).unwrap();
            self.replies.expect(
                Expected {
                    keys: made.1,
                    until: UNTIL,
                    of: Purpose::Message { part: self.blocks, exit: 0 },
                    walk: None,
                },
                &mut self.out,
            );
            made.0
        }

        /// Carries an answer to its owner.
        fn arrive(&mut self, mut packet: Packet) {
            for key in &self.route {
                let keys = EpochKeys::new(vec![Arc::clone(key)]);
                match sphinx::peel(packet, &keys).unwrap().outcome.unwrap() {
                    Layer::Forward { packet: next, .. } => packet = next,
                    Layer::Reply { name, payload, .. } => {
                        let now = Time::from_millis(0);
                        return self.replies.handle_reply(name, payload, now, &mut self.out);
                    }
                    Layer::End { .. } | Layer::Stream { .. } => panic!("another end"),
                }
            }
        }

        fn refused(&self, why: NoAnswer) -> u64 {
            self.out.counts.get(Count::AnswerRefused(why))
        }
    }

    fn again(packet: &Packet, change: usize) -> Packet {
        let mut octets = packet.octets().to_vec();
        let last = octets.last_mut().unwrap();
        *last ^= u8::try_from(change).unwrap();
        Packet::from_octets(octets).unwrap()
    }

    #[test]
    fn an_answer_is_read_once_and_every_other_is_counted_by_its_reason() {
        let mut world = World::new();
        let said =
            Acknowledgement::of([(DeliveryStatus::Delivered, 3), (DeliveryStatus::GaveUp, 1)]);
        let content = [&[2][..], &said.encode()].concat();
        let good = world.block().answer(&content).unwrap();
        world.arrive(again(&good, 0));
        let count = |world: &World, status| world.out.counts.get(Count::Acknowledged(status));
        assert_eq!(count(&world, DeliveryStatus::Delivered), 3);
        assert_eq!(count(&world, DeliveryStatus::GaveUp), 1);
        world.arrive(good);
        assert_eq!(world.refused(NoAnswer::Unexpected), 1);
        assert_eq!(count(&world, DeliveryStatus::Delivered), 3);

        let altered = world.block().answer(&content).unwrap();
        world.arrive(again(&altered, 1));
        assert_eq!(world.refused(NoAnswer::Altered), 1);
        world.arrive(altered);
        assert_eq!(world.refused(NoAnswer::Unexpected), 2, "its keys are gone");

        for (content, why) in [
            (&[1, 1, 0x81, 1][..], NoAnswer::ContentType),
            (&[77], NoAnswer::ContentType),
            (&[], NoAnswer::ContentType),
            (&[2, 9], NoAnswer::ContentType),
            (&[2, 1, 0x81], NoAnswer::Malformed),
            (&[2], NoAnswer::Malformed),
        ] {
            let before = world.refused(why);
            let packet = world.block().answer(content).unwrap();
            world.arrive(packet);
            assert_eq!(world.refused(why), before + 1, "{content:?}");
        }
        assert_eq!((world.replies.waiting(), world.replies.poll_timeout()), (0, None));
    }

    #[test]
    fn what_does_not_come_is_given_up_with_its_key_and_the_map_is_bounded() {
        let mut world = World::new();
        let late = world.block().answer(&[2, 1, 0x81, 1]).unwrap();
        assert_eq!(world.replies.poll_timeout(), Some(UNTIL));
        world.replies.handle_timeout(UNTIL.minus(Duration::from_millis(1)), &mut world.out);
        assert_eq!(world.replies.waiting(), 1);
        world.replies.handle_timeout(UNTIL, &mut world.out);
        assert_eq!(world.out.counts.get(Count::AnswerMissing), 1);
        world.arrive(late);
        assert_eq!(world.refused(NoAnswer::Unexpected), 1);
        for _ in 0..20 {
            world.block();
        }
        assert_eq!(world.replies.waiting(), 20);
        assert_eq!(world.replies.ends.len(), world.replies.waiting.len());
    }
}

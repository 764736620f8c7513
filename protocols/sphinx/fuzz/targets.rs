//! What is fuzzed: what a hop makes of any octets. Beside the octets as they come, packets and blocks
//! that a sender made are tried with the octets laid over them, or no fuzzer would get past the first
//! check.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fog_sphinx::{
    Body, EpochKey, EpochKeys, Hop, Layer, Packet, Payload, ReplyBlock, ReplyEnd, ReplyKeys,
    SizeClass, peel, reply_block, wrap,
};
use keys::{Epoch, Identity, MixSecret, MixSeed};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

/// What is done with any octets.
pub(crate) type Target = fn(&[u8]);

/// Names the targets; each has a corpus of that name.
pub(crate) const TARGETS: [(&str, Target); 2] = [("packet", packet), ("reply", reply)];

/// A route, and what its sender made for it.
struct World {
    route: Vec<Arc<EpochKey>>,
    packet: Vec<u8>,
    block: Vec<u8>,
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

fn made(route: &[Arc<EpochKey>]) -> Option<(ReplyBlock, ReplyKeys, Packet)> {
    let hop = |key: &'_ Arc<EpochKey>| (key.node(), key.epoch());
    let delay = Duration::ZERO;
    let hops: Vec<_> = route
        .iter()
        .map(|key| Hop { node: hop(key).0, epoch: hop(key).1, key: key.public(), delay })
        .collect();
    let mut rng = rng();
    let (block, keys) = reply_block(&hops, ReplyEnd::Owner, SizeClass::SMALLEST, &mut rng).ok()?;
    let body = Body { reply: Some(&block), content: b"content", ..Body::default() };
    let packet = wrap(&hops, &body, &mut rng).ok()?;
    Some((block, keys, packet))
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let mut rng = rng();
        let key = |_| {
            let node = Identity::generate(&mut rng).node();
            let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
            Arc::new(EpochKey::new(node, Epoch::new(7), secret))
        };
        let route: Vec<_> = (0..3).map(key).collect();
        let Some((block, _, packet)) = made(&route) else { panic!("a route of three") };
        let (packet, block) = (packet.octets().to_vec(), block.to_octets().to_vec());
        World { route, packet, block }
    })
}

/// The octets laid over others, from the place that their first two name.
fn over(octets: &[u8], onto: &[u8]) -> Vec<u8> {
    let mut onto = onto.to_vec();
    if let Some((at, octets)) = octets.split_first_chunk() {
        let at = usize::from(u16::from_be_bytes(*at));
        for (to, from) in onto.iter_mut().skip(at).zip(octets) {
            *to ^= from;
        }
    }
    onto
}

/// Peels it over the whole route; how many hops took it.
fn travel(octets: Vec<u8>) -> usize {
    let Ok(mut packet) = Packet::from_octets(octets) else { return 0 };
    for (hop, key) in world().route.iter().enumerate() {
        let peeled = peel(packet, &EpochKeys::new(vec![Arc::clone(key)]));
        match peeled.map(|peeled| peeled.outcome) {
            Ok(Ok(Layer::Forward { packet: next, .. })) => packet = next,
            Ok(Ok(Layer::End { payload, .. })) => {
                let _ = (payload.content().is_ok(), payload.reply_block().is_ok());
                return hop + 1;
            }
            Ok(Ok(Layer::Reply { payload, .. })) => {
                let keys = made(&world().route).map(|(_, keys, _)| keys);
                let _ = keys.map(|keys| keys.open(payload).is_ok());
                return hop + 1;
            }
            Ok(Ok(Layer::Stream { .. })) => return hop + 1,
            Ok(Err(_)) | Err(_) => return hop,
        }
    }
    panic!("three hops end it");
}

/// A packet as it comes, and one that was altered on its way.
pub(crate) fn packet(octets: &[u8]) {
    let _ = travel(octets.to_vec());
    let altered = over(octets, &world().packet);
    let is_altered = altered != world().packet;
    assert!(travel(altered) == if is_altered { 0 } else { 3 }, "altered at its first hop");
}

/// A reply block that an exit was given, and what it answers with.
pub(crate) fn reply(octets: &[u8]) {
    let _ = ReplyBlock::from_octets(octets).is_ok();
    let Ok(block) = ReplyBlock::from_octets(&over(octets, &world().block)) else { return };
    let Ok(answer) = block.answer(b"answer") else { return };
    let _ = travel(answer.octets().to_vec());
    if let (Some(payload), Some((_, keys, _))) =
        (Payload::from_octets(octets.to_vec()), made(&world().route))
    {
        assert!(keys.open(payload).is_err());
    }
}

//! What hops, watchers, owners and forgers can do with reply blocks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::Route;
use fog_sphinx::{
    BlockName, Body, End, HEADER_LEN, Layer, MAX_HOPS, MIN_HOPS, Packet, Payload, REPLY_BLOCK_LEN,
    Refusal, ReplyBlock, ReplyEnd, ReplyError, ReplyKeys, SizeClass, StreamToken, peel, wrap,
};
use proptest::prelude::*;

/// Carries an answer along its route; what the last hop finds.
fn carry(route: &Route, hops: usize, mut packet: Packet) -> Result<Layer, Refusal> {
    let class = packet.class();
    for hop in 0..hops {
        assert_eq!(packet.octets().len(), class.packet_len());
        assert_eq!(packet.epoch(), route.epoch(hop));
        match peel(packet, &route.keys(hop))?.outcome? {
            Layer::Forward { to, delay, packet: next } => {
                assert_eq!((to, delay), (route.node(hop + 1), route.delay(hop)));
                packet = next;
            }
            end @ (Layer::End { .. } | Layer::Reply { .. } | Layer::Stream { .. }) => {
                assert_eq!(hop, hops - 1);
                return Ok(end);
            }
        }
    }
    panic!("nobody was the last hop");
}

fn owned(layer: Layer) -> (BlockName, Payload) {
    let Layer::Reply { name, payload, .. } = layer else { panic!("no reply") };
    (name, payload)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn an_answer_of_any_class_comes_back_over_any_route(
        hops in MIN_HOPS..=MAX_HOPS,
        class in 0u8..9,
        fill in 0.0f64..=1.0,
        to_a_stream: bool,
        seed: u64,
    ) {
        let class = SizeClass::from_number(class).unwrap();
        let route = Route::new(hops, seed);
        let token = StreamToken::from_bytes([9; 16]);
        let end = if to_a_stream { ReplyEnd::Stream(token) } else { ReplyEnd::Owner };
        let (block, keys) = route.reply_block(end, class);
        prop_assert_eq!(block.first(), route.node(0));
        prop_assert_eq!(Some(block.last_epoch()), (0..hops).map(|hop| route.epoch(hop)).min());

        // The block travels in a packet of any class, which looks as without it.
        let there = Route::new(4, seed ^ 1);
        let body = Body { reply: Some(&block), content: b"mail", ..Body::default() };
        let hops_there = there.hops();
        let mut packet = wrap(&hops_there, &body, &mut common::rng(seed)).unwrap();
        let mut arrived = None;
        for hop in 0..4 {
            match peel(packet, &there.keys(hop)).unwrap().outcome.unwrap() {
                Layer::Forward { packet: next, .. } => packet = next,
                Layer::End { payload, .. } => {
                    arrived = Some(payload);
                    break;
                }
                Layer::Reply { .. } | Layer::Stream { .. } => panic!("another end"),
            }
        }
        // What opens the answer may have been kept meanwhile.
        let kept = keys.to_octets();
        let keys = ReplyKeys::from_octets(&kept).unwrap();
        prop_assert_eq!(keys.to_octets(), kept.clone());
        for length in [0, 48, 49, kept.len() - 1] {
            let cut = ReplyKeys::from_octets(&kept[..length]).map(|_| ());
            prop_assert_eq!(cut, Err(ReplyError::Malformed));
        }
        let payload = arrived.unwrap();
        prop_assert_eq!(payload.content().unwrap(), b"mail");
        let arrived = payload.reply_block().unwrap().unwrap();
        prop_assert!(arrived == block);
        let octets = arrived.to_octets();
        prop_assert_eq!(octets.len(), REPLY_BLOCK_LEN);
        prop_assert!(ReplyBlock::from_octets(&octets).unwrap() == arrived);

        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
        let answer = vec![0x3c; (class.reply_capacity() as f64 * fill) as usize];
        let packet = arrived.answer(&answer).unwrap();
        let (name, payload) = match carry(&route, hops, packet).unwrap() {
            Layer::Stream { token: named, name, payload, .. } => {
                prop_assert!(to_a_stream && named == token);
                (name.unwrap(), Payload::from_octets(payload.octets().to_vec()).unwrap())
            }
            layer @ (Layer::Forward { .. } | Layer::End { .. } | Layer::Reply { .. }) => {
                prop_assert!(!to_a_stream);
                owned(layer)
            }
        };
        prop_assert!(name == keys.name());
        let opened = keys.open(payload).unwrap();
        prop_assert_eq!(opened.as_slice(), &answer[..]);
    }

    #[test]
    fn any_octets_are_no_block_or_one_block(
        mut octets in proptest::collection::vec(any::<u8>(), REPLY_BLOCK_LEN),
        class in 0u8..12,
        last: u8,
    ) {
        octets[32..34].copy_from_slice(&[2, 1]);
        octets[REPLY_BLOCK_LEN - 5..REPLY_BLOCK_LEN - 3].copy_from_slice(&[class, last]);
        match ReplyBlock::from_octets(&octets) {
            Ok(block) => {
                let again = block.to_octets();
                prop_assert_eq!(again.as_slice(), &octets[..]);
            }
            Err(why) => prop_assert_eq!(why, ReplyError::Malformed),
        }
        octets.truncate(usize::from(last));
        prop_assert!(ReplyBlock::from_octets(&octets).is_err());
    }
}

#[test]
fn what_comes_for_a_stream_is_handed_over_whole() {
    let route = Route::new(3, 2);
    let token = StreamToken::from_bytes([5; 16]);
    let packet = route.wrap(End::Stream(token), SizeClass::SMALLEST, b"news").unwrap();
    let Ok(Layer::Stream { token: named, name: None, payload, .. }) = carry(&route, 3, packet)
    else {
        panic!("no stream")
    };
    assert!(named == token);
    let handed_over = Payload::from_octets(payload.octets().to_vec()).unwrap();
    assert_eq!(handed_over.content().unwrap(), b"news");
    assert!(Payload::from_octets(vec![0; 100]).is_none());
}

#[test]
fn an_altered_answer_ends_at_a_hop_or_at_its_owner_unread() {
    let answer = || {
        let route = Route::new(5, 3);
        let (block, keys) = route.reply_block(ReplyEnd::Owner, SizeClass::SMALLEST);
        (route, block.answer(b"delivered").unwrap(), keys)
    };
    for at in (0..SizeClass::SMALLEST.packet_len()).step_by(97) {
        let (route, packet, keys) = answer();
        let mut octets = packet.octets().to_vec();
        octets[at] ^= 4;
        let carried = carry(&route, 5, Packet::from_octets(octets).unwrap());
        match at {
            0..HEADER_LEN => assert!(carried.is_err(), "octet {at}"),
            _ => {
                let (name, payload) = owned(carried.unwrap());
                assert!(name == keys.name());
                assert_eq!(keys.open(payload).err(), Some(ReplyError::Tag), "octet {at}");
            }
        }
    }
}

#[test]
fn an_answer_of_another_class_or_by_somebody_without_the_block_is_refused() {
    let route = Route::new(4, 6);
    let (block, keys) = route.reply_block(ReplyEnd::Owner, SizeClass::SMALLEST);
    let octets = block.to_octets();
    // Resized: the class is bound in the keys of every hop.
    let resized = |class: SizeClass| {
        let mut octets = octets[32..32 + HEADER_LEN].to_vec();
        octets.resize(class.packet_len(), 0);
        Packet::from_octets(octets).unwrap()
    };
    for class in SizeClass::all().skip(1) {
        assert_eq!(carry(&route, 4, resized(class)).err(), Some(Refusal::Mac));
        // A block whose class octet was changed makes such a packet.
        let mut changed = octets.to_vec();
        changed[REPLY_BLOCK_LEN - 5] = class.number();
        let changed = ReplyBlock::from_octets(&changed).unwrap();
        let refused = carry(&route, 4, changed.answer(b"x").unwrap());
        assert_eq!(refused.err(), Some(Refusal::Mac));
    }
    // Whoever has the header alone, as a hop does, cannot answer.
    let (_, payload) = owned(carry(&route, 4, resized(SizeClass::SMALLEST)).unwrap());
    assert_eq!(keys.open(payload).err(), Some(ReplyError::Tag));
    let (_, keys) = route.reply_block(ReplyEnd::Owner, SizeClass::SMALLEST);
    let larger = Payload::from_octets(vec![0; SizeClass::LARGEST.payload_len()]).unwrap();
    assert_eq!(keys.open(larger).err(), Some(ReplyError::Class));
    let too_much = vec![0; SizeClass::SMALLEST.reply_capacity() + 1];
    assert_eq!(block.answer(&too_much).err(), Some(ReplyError::Content));
}

#[test]
fn a_block_that_contradicts_itself_is_none() {
    let (block, _) = Route::new(3, 7).reply_block(ReplyEnd::Owner, SizeClass::SMALLEST);
    let octets = block.to_octets();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = octets.to_vec();
        change(&mut octets);
        ReplyBlock::from_octets(&octets).err()
    };
    assert_eq!(with(&|_| {}), None);
    let malformed = Some(ReplyError::Malformed);
    assert_eq!(with(&|octets| octets[32] ^= 1), malformed, "another version");
    assert_eq!(with(&|octets| octets[REPLY_BLOCK_LEN - 5] = 9), malformed, "no class");
    let late = |octets: &mut Vec<u8>| octets[REPLY_BLOCK_LEN - 4] = 0xff;
    assert_eq!(with(&late), malformed, "good for longer than its first key");
    assert_eq!(with(&|octets| octets.truncate(REPLY_BLOCK_LEN - 1)), malformed);
}

#[test]
fn two_answers_with_one_block_have_one_replay_tag() {
    let route = Route::new(3, 8);
    let (block, _) = route.reply_block(ReplyEnd::Owner, SizeClass::SMALLEST);
    let again = ReplyBlock::from_octets(&block.to_octets()).unwrap();
    assert_eq!(block.mark(), again.mark());
    let tag = |block: ReplyBlock, content: &[u8]| {
        peel(block.answer(content).unwrap(), &route.keys(0)).unwrap().tag
    };
    assert_eq!(tag(block, b"one"), tag(again, b"other"));
}

/// Chi-square over the 256 octet values of what a watcher sees; 99.99 % of random samples lie below
/// 346 (255 degrees of freedom).
#[test]
fn on_every_link_an_answer_looks_like_any_packet() {
    let (hops, class) = (4, SizeClass::SMALLEST);
    let mut seen = vec![[0_u32; 256]; hops];
    for seed in 0..60 {
        let route = Route::new(hops, seed);
        let (block, _) = route.reply_block(ReplyEnd::Owner, class);
        let mut packet = block.answer(b"delivered").unwrap();
        for (hop, counts) in seen.iter_mut().enumerate() {
            // The clear part has a version, an epoch and an encapsulation, as in any packet.
            for octet in &packet.octets()[1126..] {
                counts[usize::from(*octet)] += 1;
            }
            match peel(packet, &route.keys(hop)).unwrap().outcome.unwrap() {
                Layer::Forward { packet: next, .. } => packet = next,
                Layer::End { .. } | Layer::Reply { .. } | Layer::Stream { .. } => break,
            }
        }
    }
    for (hop, counts) in seen.iter().enumerate() {
        let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
        let chi: f64 = counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
        assert!(chi < 346.0, "link {hop}: {chi}");
    }
}

#[test]
fn a_block_has_a_mark_of_its_own_and_carries_as_much_as_its_class_and_no_octet_more() {
    for class in SizeClass::all() {
        let blocks = |seed| Route::new(4, seed).reply_block(ReplyEnd::Owner, class).0;
        let (one, same, other) = (blocks(1), blocks(1), blocks(2));
        assert_eq!(one.mark(), same.mark());
        assert_ne!(one.mark(), other.mark());
        // The MAC that its first hop checks.
        let octets = one.to_octets();
        assert_eq!(one.mark(), octets[32 + 1126..32 + 1142]);
        let most = vec![7; class.reply_capacity()];
        let packet = one.answer(&most).unwrap();
        assert_eq!(packet.octets().len(), class.packet_len());
        assert!(same.answer(&[&most[..], &[7]].concat()).err() == Some(ReplyError::Content));
    }
}

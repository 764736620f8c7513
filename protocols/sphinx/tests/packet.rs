//! What hops and people on the way see of packets, and what becomes of altered ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use common::Route;
use fog_sphinx::{
    Body, End, EpochKeys, HEADER_LEN, Kind, Layer, MAX_HOPS, MIN_HOPS, Packet, Refusal, ReplyEnd,
    SizeClass, WrapError, peel, reply_block, wrap,
};
use keys::Epoch;
use proptest::prelude::*;

fn refusal(route: &Route, hop: usize, octets: Vec<u8>) -> Option<Refusal> {
    match Packet::from_octets(octets).and_then(|packet| peel(packet, &route.keys(hop))) {
        Ok(peeled) => peeled.outcome.err(),
        Err(refusal) => Some(refusal),
    }
}

#[test]
fn keys_are_told_apart_by_their_public_halves_and_epochs() {
    let (one, other) = (Route::new(3, 1), Route::new(3, 2));
    assert!(one.keys(0) == Route::new(3, 1).keys(0));
    assert!(one.keys(0) != other.keys(0) && one.keys(0) != EpochKeys::default());
    assert_eq!(one.keys(1).epochs().collect::<Vec<_>>(), [one.epoch(1)]);
    assert_eq!(EpochKeys::default().epochs().count(), 0);
}

#[test]
fn a_payload_has_the_length_of_its_class_whatever_it_carries() {
    let route = Route::new(3, 1);
    for class in SizeClass::all() {
        let mut packet = route.wrap(End::Deliver, class, b"x").unwrap();
        let mut end = None;
        for hop in 0..3 {
            match peel(packet, &route.keys(hop)).unwrap().outcome.unwrap() {
                Layer::Forward { packet: next, .. } => packet = next,
                Layer::End { payload, .. } => {
                    end = Some(payload);
                    break;
                }
                Layer::Reply { .. } | Layer::Stream { .. } => panic!("another end"),
            }
        }
        let payload = end.unwrap();
        assert!(!payload.is_empty());
        assert_eq!(HEADER_LEN + payload.len(), class.packet_len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_route_length_delivers_and_keeps_the_length(
        hops in MIN_HOPS..=MAX_HOPS,
        class in 0u8..9,
        fill in 0.0f64..=1.0,
        seed: u64,
    ) {
        let class = SizeClass::from_number(class).unwrap();
        let route = Route::new(hops, seed);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
        let content = vec![0x5a; (class.capacity() as f64 * fill) as usize];
        let mut packet = route.wrap(End::Deliver, class, &content).unwrap();
        for hop in 0..hops {
            prop_assert_eq!(packet.octets().len(), class.packet_len());
            prop_assert_eq!(packet.epoch(), route.epoch(hop));
            let peeled = peel(packet, &route.keys(hop)).unwrap();
            match peeled.outcome.unwrap() {
                Layer::Forward { to, delay, packet: next } => {
                    prop_assert_eq!(to, route.node(hop + 1));
                    prop_assert_eq!(delay, route.delay(hop));
                    packet = next;
                }
                Layer::End { kind, delay, payload } => {
                    prop_assert_eq!(hop, hops - 1);
                    prop_assert_eq!(kind, Kind::Deliver);
                    prop_assert_eq!(delay, route.delay(hop));
                    prop_assert_eq!(payload.content().unwrap(), &content[..]);
                    prop_assert!(payload.reply_block().unwrap().is_none());
                    return Ok(());
                }
                Layer::Reply { .. } | Layer::Stream { .. } => {
                    prop_assert!(false, "another end");
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "nobody was the last hop");
    }

    #[test]
    fn any_octets_of_a_right_length_are_peeled_without_harm(seed: u64, octets in proptest::collection::vec(any::<u8>(), 1200)) {
        let route = Route::new(3, seed);
        let mut packet = route.wrap(End::Deliver, SizeClass::SMALLEST, b"x").unwrap().octets().to_vec();
        packet[6..1206].copy_from_slice(&octets);
        prop_assert!(refusal(&route, 0, packet).is_some());
    }
}

/// The epoch that stands in a packet's octets.
fn epoch_of(octets: &[u8]) -> Epoch {
    Epoch::new(u32::from_be_bytes(octets[2..6].try_into().unwrap()))
}

#[test]
fn a_flip_of_any_octet_is_refused_at_the_next_hop() {
    for hops in [MIN_HOPS, MAX_HOPS] {
        let route = Route::new(hops, 11);
        let mut packet = route.wrap(End::Deliver, SizeClass::SMALLEST, b"mail").unwrap();
        for hop in 0..hops {
            let octets = packet.octets().to_vec();
            // Every octet at the first hop, a sample with other bits at the later ones.
            let step = if hop == 0 { 1 } else { 37 };
            for at in (0..octets.len()).step_by(step) {
                let mut altered = octets.clone();
                altered[at] ^= if hop == 0 { 0x80 } else { 1 << (at % 8) };
                let reason = refusal(&route, hop, altered.clone()).unwrap();
                let expected = match at {
                    0 | 1 => vec![Refusal::Version],
                    2..6 => vec![Refusal::Epoch(epoch_of(&altered))],
                    6..38 => vec![Refusal::Ciphertext, Refusal::Mac],
                    38..HEADER_LEN => vec![Refusal::Mac],
                    _ => vec![Refusal::Payload],
                };
                assert!(expected.contains(&reason), "octet {at}: {reason}");
            }
            let peeled = peel(packet, &route.keys(hop)).unwrap();
            match peeled.outcome.unwrap() {
                Layer::Forward { packet: next, .. } => packet = next,
                Layer::End { .. } | Layer::Reply { .. } | Layer::Stream { .. } => break,
            }
        }
    }
}

#[test]
fn a_resized_packet_is_refused() {
    let route = Route::new(4, 5);
    let class = SizeClass::from_number(1).unwrap();
    let octets = route.wrap(End::Deliver, class, b"mail").unwrap().octets().to_vec();
    for other in SizeClass::all().filter(|other| *other != class) {
        let mut resized = octets.clone();
        resized.resize(other.packet_len(), 0);
        assert_eq!(refusal(&route, 0, resized), Some(Refusal::Mac));
    }
    for length in [0, 1, HEADER_LEN, octets.len() - 1, octets.len() + 1] {
        let mut resized = octets.clone();
        resized.resize(length, 0);
        assert_eq!(refusal(&route, 0, resized), Some(Refusal::Length));
    }
}

#[test]
fn only_the_next_hop_opens_a_packet_and_only_with_the_key_of_its_epoch() {
    let route = Route::new(5, 6);
    let octets = route.wrap(End::Deliver, SizeClass::SMALLEST, b"mail").unwrap().octets().to_vec();
    for hop in 1..5 {
        let reason = refusal(&route, hop, octets.clone()).unwrap();
        assert!(matches!(reason, Refusal::Mac | Refusal::Epoch(_)), "{reason}");
    }
    assert_eq!(refusal(&route, 0, octets), None);
    let other = Route::new(5, 7).wrap(End::Drop, SizeClass::SMALLEST, b"").unwrap();
    let reason = refusal(&route, 0, other.octets().to_vec()).unwrap();
    assert!(matches!(reason, Refusal::Mac | Refusal::Epoch(_)), "{reason}");
}

#[test]
fn the_same_packet_has_the_same_replay_tag_and_another_has_another() {
    let route = Route::new(3, 8);
    let tag = |octets: &[u8]| {
        peel(Packet::from_octets(octets.to_vec()).unwrap(), &route.keys(0)).unwrap().tag
    };
    let first = route.wrap(End::Deliver, SizeClass::SMALLEST, b"mail").unwrap();
    let second =
        Route::new(3, 8).seeded(9).wrap(End::Deliver, SizeClass::SMALLEST, b"mail").unwrap();
    assert_eq!(tag(first.octets()), tag(first.octets()));
    assert_ne!(tag(first.octets()), tag(second.octets()));
    // An altered payload leaves the header and so the tag as they are: it counts as seen.
    let mut altered = first.octets().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(tag(&altered), tag(first.octets()));
}

#[test]
fn what_cannot_be_wrapped_is_refused() {
    let route = Route::new(6, 10);
    let class = SizeClass::SMALLEST;
    let too_much = vec![0; class.capacity() + 1];
    let error = |route: &Route, content: &[u8]| route.wrap(End::Deliver, class, content).err();
    assert_eq!(error(&route, &too_much), Some(WrapError::Content));
    for hops in [0, 1, 2, 7] {
        assert_eq!(error(&Route::new(hops, 1), b""), Some(WrapError::Hops));
        let route = Route::new(hops, 1);
        let block = reply_block(&route.hops(), ReplyEnd::Owner, class, &mut common::rng(1));
        assert_eq!(block.err(), Some(WrapError::Hops));
    }
    assert!(wrap(&route.hops(), &Body::default(), &mut common::rng(1)).is_ok());
}

#[test]
fn keys_are_told_apart_by_their_epochs_and_public_halves_and_payloads_have_their_class() {
    let (route, other) = (Route::new(3, 7), Route::new(3, 8));
    assert!(route.keys(0).epochs().eq([route.epoch(0)]));
    assert!(route.keys(0) == route.keys(0));
    assert!(route.keys(0) != route.keys(1) && route.keys(0) != other.keys(0));
    for class in SizeClass::all() {
        let mut packet = Some(route.wrap(End::Deliver, class, b"mail").unwrap());
        for hop in 0..3 {
            let layer = peel(packet.take().unwrap(), &route.keys(hop)).unwrap().outcome.unwrap();
            match layer {
                Layer::Forward { packet: next, .. } => packet = Some(next),
                Layer::End { payload, .. } => {
                    assert_eq!((hop, payload.len()), (2, class.payload_len()));
                    assert!(!payload.is_empty());
                }
                Layer::Reply { .. } | Layer::Stream { .. } => panic!("another end"),
            }
        }
    }
}

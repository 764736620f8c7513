//! What a hop allocates: nothing. A packet is opened in the buffer in which it came.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use allocation_counter::measure;
use common::Route;
use fog_sphinx::{End, Layer, ReplyEnd, SizeClass, peel};

#[test]
fn opening_a_packet_allocates_nothing_at_any_hop_of_any_way() {
    for class in SizeClass::all() {
        let route = Route::new(4, 7);
        let forward = route.wrap(End::Deliver, class, b"mail").unwrap();
        let reply = route.reply_block(ReplyEnd::Owner, class).0.answer(b"answer").unwrap();
        for mut packet in [forward, reply] {
            let mut hop = 0;
            loop {
                let keys = route.keys(hop);
                let mut layer = None;
                let counted = measure(|| layer = Some(peel(packet, &keys)));
                assert_eq!(counted.count_total, 0, "hop {hop}, {} octets", class.packet_len());
                match layer.unwrap().unwrap().outcome.unwrap() {
                    Layer::Forward { packet: next, .. } => packet = next,
                    Layer::End { .. } | Layer::Reply { .. } => break,
                    Layer::Stream { .. } => panic!("no stream"),
                }
                hop += 1;
            }
            assert_eq!(hop, 3);
        }
    }
}

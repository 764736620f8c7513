//! The vectors in `vectors/`: packets with the secrets of their hops, to peel octet for octet.
//!
//! `FOG_WRITE_VECTORS=1 cargo test -p fog-sphinx --test vectors` writes them anew; a difference is
//! a change of the format and needs a new version.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use fog_sphinx::{
    Body, End, EpochKey, EpochKeys, HEADER_LEN, Hop, Kind, Layer, MAX_HOPS, MIN_HOPS, Packet,
    ReplyEnd, SizeClass, StreamToken, peel, reply_block, wrap,
};
use keys::{Epoch, Identity, MixSecret, MixSeed};
use std::time::Duration;

#[test]
fn the_vectors_peel_to_what_they_say() {
    let smallest = SizeClass::SMALLEST;
    let second = SizeClass::from_number(1).unwrap();
    let full: Vec<u8> = (0..second.capacity()).map(|at| (at % 251) as u8).collect();
    for (name, hops, end, class, content) in [
        ("suite1-3-hops", 3, End::Deliver, smallest, &b"a mail for the exit"[..]),
        ("suite1-6-hops", 6, End::Loop, smallest, &b""[..]),
        ("suite1-4-hops-full", 4, End::Drop, second, &full),
    ] {
        let text = compare(name, &make(hops, end, class, content));
        check(&text, hops);
    }
}

/// What is in the tree under this name, which must be what is made.
fn compare(name: &str, made: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    let path = path.with_extension("txt");
    if std::env::var_os("FOG_WRITE_VECTORS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, made, "{name}: other octets are made now");
    text
}

const TOKEN: StreamToken = StreamToken::from_bytes([0x70; 16]);

/// Every class, every length of a route, every end. What they carry is short, so that a header and a
/// hash say all.
#[test]
fn the_short_vectors_are_made_octet_for_octet() {
    let mut hops = (MIN_HOPS..=MAX_HOPS).cycle();
    for class in SizeClass::all() {
        let number = class.number();
        let with_block = number % 2 == 0;
        let forward = make_forward(class, hops.next().unwrap(), End::Deliver, with_block);
        compare(&format!("forward-class-{number}"), &forward);
        let reply = make_reply(class, hops.next().unwrap(), ReplyEnd::Owner);
        compare(&format!("reply-class-{number}"), &reply);
        // The next class gets other lengths.
        hops.next();
    }
    let smallest = SizeClass::SMALLEST;
    compare("forward-to-stream", &make_forward(smallest, 4, End::Stream(TOKEN), false));
    compare("reply-to-stream", &make_reply(smallest, 5, ReplyEnd::Stream(TOKEN)));
}

fn make_forward(class: SizeClass, hops: usize, end: End, with_block: bool) -> String {
    let mut rng = common::rng(1000 + u64::from(class.number()) * 10 + hops as u64);
    let mut text = String::new();
    let keys = lay_route(hops, &mut rng, &mut text);
    let plan = plan(&keys);
    // A block over the same nodes, which is all that a vector needs to say of it.
    let block = reply_block(&plan, ReplyEnd::Owner, class, &mut rng).unwrap().0;
    let content = format!("class {} over {hops} hops", class.number());
    let reply = with_block.then_some(&block);
    let body = Body { end, class, content: content.as_bytes(), reply };
    let packet = wrap(&plan, &body, &mut rng).unwrap();
    writeln!(text, "class = {}", class.number()).unwrap();
    writeln!(text, "header = {}", hex(&packet.octets()[..HEADER_LEN])).unwrap();
    writeln!(text, "content = {}", hex(content.as_bytes())).unwrap();
    if let Some(block) = reply {
        writeln!(text, "reply block = {}", hex(&block.to_octets())).unwrap();
    }
    follow(packet, &keys, &mut text);
    text
}

fn make_reply(class: SizeClass, hops: usize, end: ReplyEnd) -> String {
    let mut rng = common::rng(2000 + u64::from(class.number()) * 10 + hops as u64);
    let mut text = String::new();
    let keys = lay_route(hops, &mut rng, &mut text);
    let (block, opens) = reply_block(&plan(&keys), end, class, &mut rng).unwrap();
    let content = format!("answer of class {} over {hops} hops", class.number());
    writeln!(text, "class = {}", class.number()).unwrap();
    writeln!(text, "reply block = {}", hex(&block.to_octets())).unwrap();
    writeln!(text, "name = {}", hex(opens.name().as_bytes())).unwrap();
    writeln!(text, "content = {}", hex(content.as_bytes())).unwrap();
    let payload = follow(block.answer(content.as_bytes()).unwrap(), &keys, &mut text);
    assert_eq!(opens.open(payload).unwrap().as_slice(), content.as_bytes());
    text
}

/// Peels a packet to its end, and writes down what each hop does.
fn follow(
    mut packet: Packet,
    keys: &[(Arc<EpochKey>, Duration)],
    text: &mut String,
) -> fog_sphinx::Payload {
    writeln!(text, "packet blake3 = {}", blake3::hash(packet.octets()).to_hex()).unwrap();
    for (hop, (key, _)) in keys.iter().enumerate() {
        let peeled = peel(packet, &EpochKeys::new(vec![Arc::clone(key)])).unwrap();
        writeln!(text, "hop {hop} replay tag = {}", hex(peeled.tag.as_bytes())).unwrap();
        let (kind, token, payload) = match peeled.outcome.unwrap() {
            Layer::Forward { packet: next, .. } => {
                let hash = blake3::hash(next.octets());
                writeln!(text, "hop {hop} sends blake3 = {}", hash.to_hex()).unwrap();
                packet = next;
                continue;
            }
            Layer::End { payload, .. } => (1, None, payload),
            Layer::Reply { payload, .. } => (2, None, payload),
            Layer::Stream { token, payload, .. } => (5, Some(token), payload),
        };
        writeln!(text, "hop {hop} kind = {kind}").unwrap();
        if let Some(token) = token {
            writeln!(text, "token = {}", hex(token.as_bytes())).unwrap();
        }
        return payload;
    }
    panic!("nobody was the last hop");
}

fn plan(keys: &[(Arc<EpochKey>, Duration)]) -> Vec<Hop<'_>> {
    let hop = |(key, delay): &'_ (Arc<EpochKey>, Duration)| (key.node(), key.epoch(), *delay);
    let hops = keys.iter().map(|of| (hop(of), of.0.public()));
    hops.map(|((node, epoch, delay), key)| Hop { node, epoch, key, delay }).collect()
}

fn lay_route(
    hops: usize,
    rng: &mut rand_chacha::ChaCha20Rng,
    text: &mut String,
) -> Vec<(Arc<EpochKey>, Duration)> {
    let mut keys = Vec::new();
    for hop in 0..hops {
        let node = Identity::generate(rng).node();
        let seed = MixSeed::generate(rng);
        let epoch = Epoch::new(165_000 + u32::try_from(hop).unwrap() / 2);
        let delay = Duration::from_millis(1000 * (hop as u64 + 1) + 7);
        writeln!(text, "hop {hop} node = {}", hex(node.as_bytes())).unwrap();
        writeln!(text, "hop {hop} seed = {}", hex(seed.as_bytes())).unwrap();
        writeln!(text, "hop {hop} epoch = {}", epoch.number()).unwrap();
        writeln!(text, "hop {hop} delay = {}", delay.as_millis()).unwrap();
        keys.push((Arc::new(EpochKey::new(node, epoch, MixSecret::from_seed(&seed))), delay));
    }
    keys
}

fn make(hops: usize, end: End, class: SizeClass, content: &[u8]) -> String {
    let mut rng = common::rng(hops as u64);
    let mut text = String::new();
    let keys = lay_route(hops, &mut rng, &mut text);
    let body = Body { end, class, content, reply: None };
    let mut packet = wrap(&plan(&keys), &body, &mut rng).unwrap();
    writeln!(text, "packet = {}", hex(packet.octets())).unwrap();
    for (hop, (key, _)) in keys.iter().enumerate() {
        let peeled = peel(packet, &EpochKeys::new(vec![Arc::clone(key)])).unwrap();
        writeln!(text, "hop {hop} replay tag = {}", hex(peeled.tag.as_bytes())).unwrap();
        match peeled.outcome.unwrap() {
            Layer::Forward { packet: next, .. } => {
                let hash = blake3::hash(next.octets());
                writeln!(text, "hop {hop} sends blake3 = {}", hash.to_hex()).unwrap();
                packet = next;
            }
            Layer::End { kind, payload, .. } => {
                let number = match kind {
                    Kind::Deliver => 1,
                    Kind::Loop => 3,
                    Kind::Drop => 4,
                    other @ (Kind::Forward | Kind::Reply | Kind::DeliverToStream) => {
                        panic!("{other:?} ends no route")
                    }
                };
                writeln!(text, "hop {hop} kind = {number}").unwrap();
                let content = hex(payload.content().unwrap());
                writeln!(text, "{}", format!("hop {hop} content = {content}").trim_end()).unwrap();
                return text;
            }
            Layer::Reply { .. } | Layer::Stream { .. } => panic!("another end"),
        }
    }
    panic!("nobody was the last hop");
}

/// Reads nothing but the text.
fn check(text: &str, hops: usize) {
    let lines = text.lines().filter_map(|line| line.split_once(" ="));
    let fields: BTreeMap<_, _> = lines.map(|(name, value)| (name, value.trim_start())).collect();
    let mut packet = Packet::from_octets(unhex(fields["packet"])).unwrap();
    for hop in 0..hops {
        let field = |name: &str| fields[format!("hop {hop} {name}").as_str()];
        let node = keys::NodeId::from_bytes(unhex(field("node")).try_into().unwrap());
        let seed = MixSeed::from_bytes(&unhex(field("seed")).try_into().unwrap());
        let epoch = Epoch::new(field("epoch").parse().unwrap());
        let key = Arc::new(EpochKey::new(node, epoch, MixSecret::from_seed(&seed)));
        let peeled = peel(packet, &EpochKeys::new(vec![key])).unwrap();
        assert_eq!(hex(peeled.tag.as_bytes()), field("replay tag"));
        match peeled.outcome.unwrap() {
            Layer::Forward { packet: next, delay, .. } => {
                assert_eq!(delay.as_millis().to_string(), field("delay"));
                assert_eq!(blake3::hash(next.octets()).to_hex().as_str(), field("sends blake3"));
                packet = next;
            }
            Layer::End { payload, .. } => {
                assert_eq!(hop, hops - 1);
                assert_eq!(hex(payload.content().unwrap()), field("content"));
                return;
            }
            Layer::Reply { .. } | Layer::Stream { .. } => panic!("another end"),
        }
    }
    panic!("nobody was the last hop");
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

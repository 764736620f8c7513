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

use fog_sphinx::{Body, Hop};
use fog_sphinx::{EpochKey, EpochKeys, Kind, Layer, Packet, SizeClass, peel, wrap};
use keys::{Epoch, Identity, MixSecret, MixSeed};
use std::time::Duration;

#[test]
fn the_vectors_peel_to_what_they_say() {
    let smallest = SizeClass::SMALLEST;
    let second = SizeClass::from_number(1).unwrap();
    let full: Vec<u8> = (0..second.capacity()).map(|at| (at % 251) as u8).collect();
    for (name, hops, kind, class, content) in [
        ("suite1-3-hops", 3, Kind::Deliver, smallest, &b"a mail for the exit"[..]),
        ("suite1-6-hops", 6, Kind::Loop, smallest, &b""[..]),
        ("suite1-4-hops-full", 4, Kind::Drop, second, &full),
    ] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
        let path = path.with_extension("txt");
        if std::env::var_os("FOG_WRITE_VECTORS").is_some() {
            std::fs::write(&path, make(hops, kind, class, content)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, make(hops, kind, class, content), "{name}: wrapping gives other octets");
        check(&text, hops);
    }
}

fn make(hops: usize, kind: Kind, class: SizeClass, content: &[u8]) -> String {
    let mut rng = common::rng(hops as u64);
    let mut text = String::new();
    let mut keys = Vec::new();
    for hop in 0..hops {
        let node = Identity::generate(&mut rng).node();
        let seed = MixSeed::generate(&mut rng);
        let epoch = Epoch::new(165_000 + u32::try_from(hop).unwrap() / 2);
        let delay = Duration::from_millis(1000 * (hop as u64 + 1) + 7);
        writeln!(text, "hop {hop} node = {}", hex(node.as_bytes())).unwrap();
        writeln!(text, "hop {hop} seed = {}", hex(seed.as_bytes())).unwrap();
        writeln!(text, "hop {hop} epoch = {}", epoch.number()).unwrap();
        writeln!(text, "hop {hop} delay = {}", delay.as_millis()).unwrap();
        keys.push((Arc::new(EpochKey::new(node, epoch, MixSecret::from_seed(&seed))), delay));
    }
    let plan: Vec<_> = keys
        .iter()
        .map(|(key, delay)| Hop {
            node: key.node(),
            epoch: key.epoch(),
            key: key.public(),
            delay: *delay,
        })
        .collect();
    let body = Body { kind, class, content };
    let mut packet = wrap(&plan, &body, &mut rng).unwrap();
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

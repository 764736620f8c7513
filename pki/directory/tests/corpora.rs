//! The fuzz targets, on their corpora: what was once found, and what each decoder takes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

#[path = "../fuzz/targets.rs"]
mod targets;

mod common;

use std::fs;
use std::path::Path;

use common::{identity, record, start, vouch};
use fog_directory::{Directory, ItemId, Request, Source};
use record::{Admission, Descriptor, Parameters, Proof};

#[test]
fn every_corpus_is_read_without_harm() {
    for (name, target) in targets::TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut count = 0;
        for file in fs::read_dir(&corpus).unwrap() {
            target(&fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 3, "{name}");
    }
}

/// Writes one of everything that is taken, for the fuzzer to begin with.
#[test]
#[ignore = "run once after a change of format"]
fn seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let keep = |target: &str, name: &str, octets: &[u8]| {
        fs::create_dir_all(folder.join(target)).unwrap();
        fs::write(folder.join(target).join(name), octets).unwrap();
    };
    let (first, second) =
        (record(1, 1, start(), None), record(1, 1, start(), Some(common::exit())));
    let proof = Proof::of(&first, &second).unwrap();
    let word = vouch(1, 2, start());
    for (name, octets) in
        [("record", first.octets()), ("proof", proof.octets()), ("vouch", word.octets())]
    {
        keep("statement", name, octets);
        keep("statement", &format!("{name}-cut"), &octets[..octets.len() - 1]);
    }
    let mut directory = Directory::new(common::schedule(), &Admission::Open);
    let name = ItemId::of(first.octets());
    directory.admit(first, Source::Gossip).unwrap();
    let questions = [
        ("summary", Request::Summary),
        ("list", Request::List { buckets: [0xff; 32], after: None }),
        ("list-after", Request::List { buckets: [0x0f; 32], after: Some(name) }),
        ("fetch", Request::Fetch(vec![name])),
    ];
    let mut all = Vec::new();
    for (name, question) in questions {
        let octets = question.encode().unwrap();
        let answer =
            directory.answer(&octets, start(), || record::SetHash::from_bytes([3; 32])).unwrap();
        keep("request", name, &octets);
        keep("answer", name, &answer);
        all.push(answer);
    }
    keep("answer", "conversation", &[&all[0][..], &all[1], &all[3]].join(&0xa5));
    let roots = vec![identity(1).node()];
    for (name, admission) in
        [("open", Admission::Open), ("vouched", Admission::Vouched { roots, depth: 3, fan_out: 9 })]
    {
        let made = Descriptor::create(&identity(1), "n", start(), &Parameters::main(), &admission);
        let made = made.unwrap();
        keep("descriptor", name, made.octets());
        keep("descriptor", &format!("{name}-cut"), &made.octets()[1..]);
    }
}

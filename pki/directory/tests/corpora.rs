//! The fuzz targets, on their corpora: what each decoder takes, and the same cut.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

#[path = "../fuzz/targets.rs"]
mod targets;

mod common;

use std::fs;
use std::path::Path;

use common::{NETWORK, SPACING, admit, ballot, empty, identity, record, schedule, start, vouch};
use fog_directory::{Answer, HourList, ItemId, Request};
use record::{Admission, Descriptor, Parameters, Proof, Statement};

#[test]
fn every_corpus_is_read_without_harm() {
    for (name, target) in targets::TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut count = 0;
        for file in fs::read_dir(&corpus).unwrap() {
            let file = file.unwrap();
            let octets = fs::read(file.path()).unwrap();
            target(&octets);
            count += 1;
            // A fuzzer that begins with what no decoder takes gets nowhere.
            let cut = file.file_name().to_string_lossy().ends_with("-cut");
            assert_eq!(is_taken(name, &octets), !cut, "{name}: {:?}", file.file_name());
        }
        assert!(count > 3, "{name}");
    }
}

fn is_taken(target: &str, octets: &[u8]) -> bool {
    match target {
        "statement" => Statement::check(octets, &NETWORK).is_ok(),
        "request" => Request::decode(octets).is_ok(),
        "answer" => {
            let mut rest = octets;
            while let Some((length, after)) = rest.split_first_chunk() {
                let (part, after) = after.split_at(u32::from_be_bytes(*length) as usize);
                if Answer::check(part, &NETWORK).is_err() {
                    return false;
                }
                rest = after;
            }
            true
        }
        "descriptor" => Descriptor::parse(octets).is_ok(),
        "list" => HourList::from_octets(octets).is_some(),
        _ => panic!("{target}"),
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
    let proof = Proof::of(&first, &second, SPACING).unwrap();
    let word = vouch(1, 2, start());
    let mut directory = empty();
    let hour = schedule().hour_at(start());
    admit(&mut directory, record(1, 1, start(), None)).unwrap();
    let list = directory.propose_first(hour);
    let vote = ballot(1, &list, &directory);
    let nobody = HourList::new(hour, []);
    let two_votes = Proof::of_votes(&vote, &ballot(1, &nobody, &directory)).unwrap();
    for (name, octets) in [
        ("record", first.octets()),
        ("proof", proof.octets()),
        ("vouch", word.octets()),
        ("vote", vote.octets()),
        ("two-votes", two_votes.octets()),
    ] {
        keep("statement", name, octets);
        keep("statement", &format!("{name}-cut"), &octets[..octets.len() - 1]);
    }
    let name = ItemId::of(first.octets());
    directory.note_vote(vote, start()).unwrap();
    let list = directory.assemble(start()).unwrap();
    for (name, octets) in [("one", list.to_octets()), ("none", nobody.to_octets())] {
        keep("list", name, &octets);
        keep("list", &format!("{name}-cut"), &octets[..octets.len() - 1]);
    }
    let entry = list.iter().next().unwrap();
    let bucket = (entry.bucket(), list.digests()[usize::from(entry.bucket())]);
    let questions = [
        ("summary", Request::Summary),
        ("list", Request::List { buckets: [0xff; 32], after: None }),
        ("list-after", Request::List { buckets: [0x0f; 32], after: Some(name) }),
        ("fetch", Request::Fetch(vec![name])),
        ("entries", Request::Entries(vec![bucket])),
    ];
    let framed = |answer: &[u8]| [&(answer.len() as u32).to_be_bytes(), answer].concat();
    let mut all = Vec::new();
    for (name, question) in questions {
        let octets = question.encode().unwrap();
        let answer = directory.answer(&octets, start()).unwrap();
        keep("request", name, &octets);
        all.push(framed(&answer));
        keep("answer", name, &all[all.len() - 1]);
        keep("answer", &format!("{name}-cut"), &framed(&answer[..answer.len() - 1]));
    }
    keep("answer", "conversation", &[&all[0][..], &all[1], &all[3]].concat());
    let roots = vec![identity(1).node()];
    for (name, admission) in
        [("open", Admission::Open), ("vouched", Admission::Vouched { roots, depth: 3, fan_out: 9 })]
    {
        let voters = [identity(1).node()];
        let parameters = Parameters::main();
        let made = Descriptor::create(&identity(1), "n", start(), &parameters, &voters, &admission);
        let made = made.unwrap();
        keep("descriptor", name, made.octets());
        keep("descriptor", &format!("{name}-cut"), &made.octets()[1..]);
    }
}

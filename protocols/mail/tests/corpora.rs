//! The fuzz targets, on their corpora: what each decoder takes, and the same cut.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests, which read and write corpora"
)]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::PathBuf;

use fog_mail::{Acknowledgement, DeliveryStatus, Fragment, Mailbox, Submission, scrub};

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

#[test]
fn every_corpus_is_read_without_harm() {
    for (name, target) in targets::TARGETS {
        let mut count = 0;
        for file in fs::read_dir(corpus(name)).unwrap() {
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
        "pieces" => targets::assemble(octets).is_some(),
        "acknowledgement" => Acknowledgement::decode(octets).is_ok(),
        other => panic!("{other}"),
    }
}

/// Lines of which no two are alike.
fn body(lines: u32) -> String {
    (0..lines).map(|line| format!("{:08x}\r\n", line.wrapping_mul(2_654_435_761))).collect()
}

fn joined(body: &str, room: usize, skip: usize) -> Vec<u8> {
    let message = format!("To: a@b.example\r\n\r\n{body}").into_bytes();
    let recipients = vec![Mailbox::parse("a@b.example").unwrap()];
    let scrubbed = scrub(&Submission { recipients, message }).unwrap().pop().unwrap();
    let pieces = Fragment::cut(scrubbed, [7; 16], [8; 16]).pieces(room).unwrap();
    let framed = pieces.iter().skip(skip).flat_map(|piece| {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        length.into_iter().chain(piece.iter().copied())
    });
    framed.collect()
}

#[test]
#[ignore = "writes the beginnings of the corpora"]
fn write_the_corpora() {
    let write = |name: &str, file: &str, octets: &[u8]| {
        fs::create_dir_all(corpus(name)).unwrap();
        fs::write(corpus(name).join(file), octets).unwrap();
        // Of two statuses the first alone is an acknowledgement too; of all pieces half are too few.
        let cut = if name == "pieces" { octets.len() / 2 } else { octets.len() - 1 };
        fs::write(corpus(name).join(format!("{file}-cut")), &octets[..cut]).unwrap();
    };
    write("pieces", "plain", &joined("body\r\n", 4096, 0));
    write("pieces", "deflated", &joined(&body(40).repeat(2), 512, 0));
    write("pieces", "all", &joined(&body(200), 512, 0));
    write("pieces", "coded", &joined(&body(200), 512, 1));
    let said =
        |counts: &[(DeliveryStatus, usize)]| Acknowledgement::of(counts.iter().copied()).encode();
    let (one, other) = ((DeliveryStatus::Delivered, 2), (DeliveryStatus::GaveUp, 1));
    write("acknowledgement", "one", &said(&[one]));
    write("acknowledgement", "two", &said(&[one, other]));
}

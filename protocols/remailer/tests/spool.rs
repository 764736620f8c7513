//! The octets of what a node keeps of the mail that it has answered for, by a second writer and reader, and the
//! fuzz targets on their corpora.
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
use std::time::Duration;

use fog_remailer::sim::Simulation;
use fog_remailer::{Ended, SpoolError, Spooled};
use keys::Epoch;
use mail::{Mailbox, Submission};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::Parameters;
use sphinx::SizeClass;

/// A packet of a message, as the other writer writes it: class, and streams of its answer.
struct Written {
    class: u8,
    streams: Option<u8>,
}

/// A message without its check.
fn write(parts: &[(u8, &[Written])]) -> Vec<u8> {
    let length = |length: usize| u64::try_from(length).unwrap().to_be_bytes();
    let mut octets = vec![1];
    octets.extend([7; 16]);
    octets.extend(1_800_000_000_000_u64.to_be_bytes());
    octets.push(0);
    octets.extend(length(parts.len()));
    for (recipients, packets) in parts {
        octets.push(*recipients);
        octets.extend(length(packets.len()));
        for (number, packet) in (0_u8..).zip(*packets) {
            octets.extend((1_800_000_600_000 + u64::from(number) * 3_600_000).to_be_bytes());
            octets.extend([number % 2, 0, u8::from(packet.streams.is_some())]);
            octets.extend([9; 32]);
            octets.extend(1_800_030_000_000_u64.to_be_bytes());
            let mut keys = Vec::new();
            if let Some(streams) = packet.streams {
                keys.extend([number + 1; 16]);
                keys.push(packet.class);
                keys.extend(vec![number; 32 + 32 * usize::from(streams)]);
            }
            let until = if keys.is_empty() { 0_u64 } else { 1_800_040_000_000 };
            octets.extend(until.to_be_bytes());
            octets.extend(length(keys.len()));
            octets.extend(keys);
            let class = SizeClass::from_number(packet.class).unwrap();
            octets.extend(length(class.packet_len()));
            octets.extend(vec![0; class.packet_len()]);
        }
    }
    octets
}

/// Reads what stands at the beginning, as the other writer writes it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn counted(&mut self) -> &'a [u8] {
        let count = usize::try_from(self.number()).unwrap();
        self.take(count)
    }
}

#[test]
fn a_mail_lies_on_the_disk_as_documented() {
    let parameters = Parameters::main().with_first_list(8).quiet();
    let start = parameters.schedule().start(Epoch::new(165_000));
    let rng = ChaCha20Rng::seed_from_u64(1);
    let mut network = Simulation::new(8, &parameters, start, rng).unwrap();
    network.run(Duration::from_secs(2 * 3600));
    let recipients = vec![Mailbox::parse("a@b.example").unwrap()];
    let message = b"To: a@b.example\r\n\r\nbody\r\n".to_vec();
    network.submit(1, &Submission { recipients, message }).unwrap();
    let (name, octets) = network.in_custody(1).next().unwrap();
    let mut reader = Reader(octets);
    assert_eq!(reader.take(1), [1], "the version");
    assert_eq!(reader.take(16), name.as_bytes());
    assert_eq!(reader.number(), network.now().as_millis());
    assert_eq!((reader.take(1), reader.number(), reader.take(1)), (&[0][..], 1, &[1][..]));
    let mut last = network.now().as_millis();
    assert_eq!(reader.number(), 4, "attempts");
    let mut exits = Vec::new();
    for number in 0..4 {
        let at = reader.number();
        // The first after its hold of at most twenty minutes, and the half hour in which there has to be a tick.
        let least = if number == 0 { 0 } else { 3_600_000 - 1_800_000 };
        assert!(at > last + least && at < network.now().as_millis() + 6 * 3_600_000, "{number}");
        last = at;
        exits.push(reader.take(1)[0]);
        assert_eq!(reader.take(2), [0, 1], "no spare attempt, and it returns");
        reader.take(32);
        assert!(reader.number() > at && reader.number() > at);
        let keys = reader.counted().len();
        assert!(keys > 49 && (keys - 49).is_multiple_of(32) && keys <= 49 + 6 * 32);
        assert_eq!(reader.counted().len(), 24 * 1024);
    }
    assert_eq!(exits, [0, 1, 0, 1]);
    let body = &octets[..octets.len() - 16];
    assert_eq!(
        (reader.0, targets::checked(body).as_slice()),
        (&octets[octets.len() - 16..], octets)
    );
    assert_eq!(targets::packets(body), Some(4));
}

#[test]
fn octets_of_another_writer_are_read_and_others_refused() {
    let packets = [Written { class: 1, streams: Some(2) }, Written { class: 2, streams: None }];
    let body = write(&[(3, &packets), (1, &packets[..1])]);
    assert_eq!(targets::packets(&body), Some(3));
    let why = |body: &[u8]| Spooled::decode(&targets::checked(body)).err();
    let altered = |at: usize, octet: u8| {
        let mut body = body.clone();
        body[at] = octet;
        why(&body)
    };
    assert_eq!(altered(0, 2), Some(SpoolError::Unknown));
    assert_eq!(altered(25, 2), Some(SpoolError::Damaged), "neither cover nor mail");
    assert_eq!(altered(33, 3), Some(SpoolError::Damaged), "a part more");
    let until = body.windows(8).position(|octets| octets == 1_800_040_000_000_u64.to_be_bytes());
    assert_eq!(
        altered(until.unwrap() + 15, 50),
        Some(SpoolError::Damaged),
        "keys of half a stream"
    );
    assert_eq!(why(&[&body[..], &[0]].concat()), Some(SpoolError::Damaged), "an octet more");
    assert_eq!(Spooled::decode(&[]).err(), Some(SpoolError::Damaged));
    let mut octets = targets::checked(&body);
    octets[100] ^= 1;
    assert_eq!(Spooled::decode(&octets).err(), Some(SpoolError::Damaged));
    let many: Vec<_> = (0..=mail::MAX_RECIPIENTS).map(|_| (1, &packets[..0])).collect();
    assert_eq!(targets::packets(&write(&many[1..])), Some(0));
    assert_eq!(why(&write(&many)), Some(SpoolError::Damaged), "a part more than any has");
}

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
            let is_taken = match name {
                "spooled" => targets::packets(&octets).is_some(),
                _ => {
                    octets.as_slice().try_into().is_ok_and(|all| Ended::from_octets(all).is_some())
                }
            };
            let cut = file.file_name().to_string_lossy().ends_with("-cut");
            assert_eq!(is_taken, !cut, "{name}: {:?}", file.file_name());
        }
        assert!(count > 1, "{name}");
    }
}

#[test]
#[ignore = "writes the beginnings of the corpora"]
fn write_the_corpora() {
    let keep = |name: &str, file: &str, octets: &[u8]| {
        fs::create_dir_all(corpus(name)).unwrap();
        fs::write(corpus(name).join(file), octets).unwrap();
        fs::write(corpus(name).join(format!("{file}-cut")), &octets[..octets.len() - 1]).unwrap();
    };
    let returning = [Written { class: 1, streams: Some(3) }];
    keep("spooled", "empty", &write(&[]));
    keep("spooled", "one", &write(&[(1, &returning)]));
    keep("ended", "one", &[[7; 16].as_slice(), &[0; 8], &[1, 0, 0, 0, 0]].concat());
}

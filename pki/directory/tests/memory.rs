//! What identities cost that do all that they may to be held.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a figure"
)]

mod common;

use common::{MINUTE, NETWORK, empty, identity, read, schedule, start};
use fog_directory::Source;
use keys::Identity;
use record::{Capabilities, Domains, Draft, ExitPolicy, testing};

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[ignore = "measures the memory of its process"]
fn an_identity_that_publishes_as_often_and_as_much_as_it_may() {
    const COUNT: u16 = 300;
    let mut directory = empty();
    directory.note_caught_up();
    directory.turn_hour(start());
    let names: Vec<_> = (0..32).map(|n| format!("{n:02}{}", "a".repeat(178))).collect();
    // What is shared is made before.
    let _ = (identity(1), testing::key(1, schedule().epoch_at(start())));
    let before = resident();
    for number in 0..COUNT {
        let mut seed = [0xaa; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let author = Identity::from_seed(&seed);
        let publish = |sequence: u64, minute: u32, ahead: u32| {
            let at = start().plus(MINUTE * minute);
            let epoch = schedule().epoch_at(at).plus(ahead);
            let policy = ExitPolicy {
                domains: Domains::Only(names.clone()),
                max_message: 1,
                offers: Capabilities::NONE,
            };
            let draft = Draft {
                sequence,
                keys: vec![(epoch, testing::key(1, epoch))],
                exit: Some(policy),
                contact: "x".repeat(128),
                ..testing::blank(at)
            };
            let octets = draft.sign(&author, &NETWORK).unwrap();
            (read(&octets, at), at)
        };
        // Keys of three later epochs, each in a record of its own, and then one every five minutes.
        let epochs = [3, 2, 1].into_iter().chain([0; 8]);
        for ((sequence, ahead), minute) in (1..).zip(epochs).zip((20..).step_by(5)) {
            let (record, at) = publish(sequence, minute, ahead);
            directory.admit(record, Source::Gossip, at).unwrap();
        }
    }
    let each = (resident() - before) / usize::from(COUNT);
    println!("{} KB for an identity, {} MB for 10,000", each / 1000, each / 100);
    assert!(each < 200_000, "{each}");
}

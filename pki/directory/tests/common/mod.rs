//! Records, words and directories made from numbers.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::panic,
    reason = "each test uses some of it"
)]

use std::time::Duration;

use fog_directory::{Directory, Source};
use keys::{Epoch, Identity, NetworkId, Schedule, Time};
use record::{
    Admission, Capabilities, Domains, Draft, ExitPolicy, Record, Statement, Unverified, Vouch,
    VouchDraft, Word, testing,
};

pub const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);
pub const MINUTE: Duration = Duration::from_secs(60);

pub fn schedule() -> Schedule {
    Schedule::new(MINUTE * 180, MINUTE * 30, MINUTE * 10)
}

pub fn start() -> Time {
    schedule().start(Epoch::new(165_000))
}

pub fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

pub fn exit() -> ExitPolicy {
    ExitPolicy { domains: Domains::Any, max_message: 1000, offers: Capabilities::NONE }
}

pub fn record(number: u8, sequence: u64, at: Time, exit: Option<ExitPolicy>) -> Record {
    record_naming(&[], number, sequence, at, exit)
}

/// A record that names others as its family.
pub fn record_naming(
    family: &[u8],
    number: u8,
    sequence: u64,
    at: Time,
    exit: Option<ExitPolicy>,
) -> Record {
    let draft = Draft {
        sequence,
        exit,
        family: family.iter().map(|number| identity(*number).node()).collect(),
        ..testing::draft(number.into(), at, &schedule())
    };
    let octets = draft.sign(&identity(number), &NETWORK).unwrap();
    read(&octets, at)
}

pub fn read(octets: &[u8], at: Time) -> Record {
    let signed = Unverified::parse(octets).unwrap().check_signature(&NETWORK).unwrap();
    signed.timely(at, &schedule()).unwrap()
}

/// Nodes 1 to `count`; those up to `exits` are exits.
pub fn directory(count: u8, exits: u8) -> Directory {
    let mut directory = empty();
    for number in 1..=count {
        let exit = (number <= exits).then(exit);
        directory.admit(record(number, 1, start(), exit), Source::Gossip).unwrap();
    }
    directory
}

pub fn epochs() -> std::ops::RangeInclusive<Epoch> {
    Epoch::new(165_000)..=Epoch::new(165_001)
}

/// A directory of an open network that has heard nothing.
pub fn empty() -> Directory {
    Directory::new(schedule(), &Admission::Open)
}

/// A network whose chains begin at 1, of two words each, with two subjects for each node.
pub fn vouched() -> Admission {
    Admission::Vouched { roots: vec![identity(1).node()], depth: 2, fan_out: 2 }
}

pub fn word(word: Word, voucher: u8, subject: u8, since: Time, issued_at: Time) -> Vouch {
    let subject = identity(subject).node();
    let expires_at = issued_at.plus(MINUTE * 180 * 240);
    let draft = VouchDraft { word, subject, since, issued_at, expires_at };
    let octets = draft.sign(&identity(voucher), &NETWORK).unwrap();
    let Ok(Statement::Vouch(vouch)) = Statement::check(&octets, &NETWORK) else { panic!() };
    vouch.timely(issued_at, &schedule()).unwrap()
}

pub fn vouch(voucher: u8, subject: u8, at: Time) -> Vouch {
    word(Word::Vouch, voucher, subject, at, at)
}

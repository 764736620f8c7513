//! Records, words and directories made from numbers.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::panic,
    reason = "each test uses some of it"
)]

use std::time::Duration;

use fog_directory::{Admitted, Directory, HourList, Source, Unwanted, View};
use keys::{Epoch, Identity, NetworkId, Schedule, Time};
use record::{
    Admission, Capabilities, Descriptor, Domains, Draft, ExitPolicy, Parameters, Record, Statement,
    Unverified, Vote, VoteDraft, Vouch, VouchDraft, VouchRole, Word, testing,
};

pub const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);
pub const MINUTE: Duration = Duration::from_secs(60);
/// How far apart the records of one identity are dated.
pub const SPACING: Duration = Duration::from_secs(300);
/// Epochs for which a word holds at most.
pub const LIFE: u32 = 720;

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
        admit(&mut directory, record(number, 1, start(), exit)).unwrap();
    }
    directory
}

/// Takes in a record by gossip, as soon as it was published.
pub fn admit(directory: &mut Directory, record: Record) -> Result<Admitted, Unwanted> {
    let now = record.published_at();
    directory.admit(record, Source::Gossip, now).map(|(how, _)| how)
}

/// Takes in a record by reconciliation.
pub fn catch_up(
    directory: &mut Directory,
    record: Record,
    now: Time,
) -> Result<Admitted, Unwanted> {
    directory.admit(record, Source::CatchUp, now).map(|(how, _)| how)
}

/// The descriptor of a network in which node 1 votes, with the times of the main network.
pub fn network(admission: &Admission) -> Descriptor {
    network_of(admission, &[1])
}

/// The same with these voters.
pub fn network_of(admission: &Admission, voters: &[u8]) -> Descriptor {
    let voters: Vec<_> = voters.iter().map(|number| identity(*number).node()).collect();
    let parameters = Parameters::main().with_first_list(4);
    let maker = identity(250);
    Descriptor::create(&maker, "n", start(), &parameters, &voters, admission).unwrap()
}

/// A voter's vote for a list.
pub fn ballot(voter: u8, list: &HourList, directory: &Directory) -> Vote {
    let before = directory.list_hash();
    let draft = VoteDraft { hour: list.hour(), before, digests: *list.digests() };
    let octets = draft.sign(&identity(voter), &NETWORK).unwrap();
    let Ok(Statement::Vote(vote)) = Statement::check(&octets, &NETWORK) else { panic!() };
    *vote
}

/// Node 1 votes for what this directory proposes for the hour of `at`, and the list is used.
pub fn take_list(directory: &mut Directory, at: Time) {
    let list = directory.propose(schedule().hour_at(at));
    use_list(directory, &list, at);
}

/// Node 1 votes for a list, and it is used.
pub fn use_list(directory: &mut Directory, list: &HourList, at: Time) {
    let vote = ballot(1, list, directory);
    directory.note_vote(vote, at).unwrap();
    directory.assemble(at).unwrap();
}

/// The view of the first list of a network, of all that is known.
pub fn first_view(directory: &mut Directory) -> Result<View, fog_directory::RouteError> {
    let list = directory.propose_first(schedule().hour_at(start()));
    use_list(directory, &list, start());
    directory.view().unwrap().if_sufficient()
}

pub fn epochs() -> std::ops::RangeInclusive<Epoch> {
    Epoch::new(165_000)..=Epoch::new(165_001)
}

/// A directory of an open network that has heard nothing.
pub fn empty() -> Directory {
    Directory::new(&network(&Admission::Open))
}

/// A network whose chains begin at 1, of two words each, with two subjects for each node.
pub fn vouched() -> Admission {
    Admission::Vouched { roots: vec![identity(1).node()], depth: 2, fan_out: 2 }
}

pub fn word(word: Word, voucher: u8, subject: u8, since: Time, issued_at: Time) -> Vouch {
    let subject = identity(subject).node();
    let expires_at = issued_at.plus(MINUTE * 180 * 240);
    let role = VouchRole::Exit;
    let extensions = Vec::new();
    said(voucher, &VouchDraft { word, subject, role, since, issued_at, expires_at, extensions })
}

/// A word as its voucher signs it.
pub fn said(voucher: u8, draft: &VouchDraft) -> Vouch {
    let octets = draft.sign(&identity(voucher), &NETWORK).unwrap();
    let Ok(Statement::Vouch(vouch)) = Statement::check(&octets, &NETWORK) else { panic!() };
    vouch.timely(draft.issued_at, &schedule(), LIFE).unwrap()
}

pub fn vouch(voucher: u8, subject: u8, at: Time) -> Vouch {
    word(Word::Vouch, voucher, subject, at, at)
}

//! What is fuzzed: every decoder of what a peer says about nodes, as plain functions. Whatever
//! octets come, nothing panics, and what is taken encodes to the octets that came.

use std::sync::Arc;
use std::time::Duration;

use fog_directory::{Answer, Directory, HourList, Reconciliation, Request, Source};
use keys::{Epoch, Identity, NetworkId, NodeId, Schedule, Time};
use record::{Admission, Descriptor, Parameters, Proof, Statement};

const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);

/// What is done with any octets.
pub(crate) type Target = fn(&[u8]);

/// Names the targets; each has a corpus of that name.
pub(crate) const TARGETS: [(&str, Target); 5] = [
    ("statement", statement),
    ("request", request),
    ("answer", answer),
    ("descriptor", descriptor),
    ("list", list),
];

fn schedule() -> Schedule {
    let minute = Duration::from_secs(60);
    Schedule::new(minute * 180, minute * 30, minute * 10)
}

fn now() -> Time {
    schedule().start(Epoch::new(165_000))
}

/// A directory of an open network that has heard nothing.
fn empty() -> Directory {
    let maker = Identity::from_seed(&[1; 32]);
    let voters = [maker.node()];
    let parameters = Parameters::main();
    match Descriptor::create(&maker, "n", now(), &parameters, &voters, &Admission::Open) {
        Ok(descriptor) => Directory::new(&descriptor),
        Err(error) => panic!("{error}"),
    }
}

fn take(directory: &mut Directory, statement: Statement) {
    match statement {
        Statement::Record(signed) => {
            if let Ok(record) = signed.timely(now(), &schedule()) {
                let _ = directory.admit(record, Source::Gossip, now());
            }
        }
        Statement::Vouch(signed) => {
            if let Ok(vouch) = signed.timely(now(), &schedule(), 720) {
                let _ = directory.note_word(vouch, Source::Gossip, now());
            }
        }
        Statement::Proof(proof) => {
            let proof: Arc<Proof> = Arc::from(proof);
            let _ = proof.timely(now(), &schedule(), Duration::from_secs(300));
            let _ = directory.convict(proof);
        }
        Statement::Vote(vote) => {
            let _ = directory.note_vote(*vote, now());
            directory.assemble(now());
        }
    }
}

/// A statement of the topic, into an empty directory.
pub(crate) fn statement(octets: &[u8]) {
    let mut directory = empty();
    if let Ok(statement) = Statement::check(octets, &NETWORK) {
        assert_eq!(statement.octets().as_ref(), octets);
        take(&mut directory, statement);
        assert!(directory.statements().count() <= 1);
    }
}

/// A peer's question.
pub(crate) fn request(octets: &[u8]) {
    if let Ok(request) = Request::decode(octets) {
        assert_eq!(request.encode().as_deref(), Ok(octets));
    }
    let directory = empty();
    let _ = directory.answer(octets, now());
}

/// Three answers of a peer that is asked, each behind its length in four octets.
pub(crate) fn answer(octets: &[u8]) {
    let mut directory = empty();
    let mut asking = Reconciliation::default();
    let peer = NodeId::from_bytes([1; 32]);
    let _ = asking.begin(peer, now());
    let mut rest = octets;
    for _ in 0..3 {
        let Some((length, after)) = rest.split_first_chunk() else { return };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((part, after)) = after.split_at_checked(length) else { return };
        rest = after;
        let Ok(mut answer) = Answer::check(part, &NETWORK) else { return };
        if let Answer::Items(items) = &mut answer {
            for (name, checked) in items {
                match core::mem::replace(checked, Err(record::StatementError::Unknown)) {
                    Ok(statement) => take(&mut directory, statement),
                    Err(_) => asking.refuse(*name),
                }
            }
        }
        if let Answer::Entries(buckets) = &answer {
            for entries in buckets {
                directory.take_bucket(entries);
            }
        }
        let _ = asking.handle_answer(&peer, &answer, &directory, now());
    }
}

/// The descriptor of a network.
pub(crate) fn descriptor(octets: &[u8]) {
    if let Ok(descriptor) = Descriptor::parse(octets) {
        assert_eq!(descriptor.octets(), octets);
        let _ = descriptor.parameters().schedule();
    }
}

/// The list that a node kept.
pub(crate) fn list(octets: &[u8]) {
    if let Some(list) = HourList::from_octets(octets) {
        assert_eq!(list.to_octets(), octets);
        empty().restore_list(list);
    }
}

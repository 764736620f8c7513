//! What is fuzzed: every decoder of what a peer says about nodes, as plain functions. Whatever
//! octets come, nothing panics, and what is taken encodes to the octets that came.

use std::sync::Arc;
use std::time::Duration;

use fog_directory::{Answer, Directory, Reconciliation, Request, Source};
use keys::{Epoch, NetworkId, NodeId, Schedule, Time};
use record::{Admission, Descriptor, Proof, Statement};

const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);

/// What is done with any octets.
pub(crate) type Target = fn(&[u8]);

/// Names the targets; each has a corpus of that name.
pub(crate) const TARGETS: [(&str, Target); 4] = [
    ("statement", statement),
    ("request", request),
    ("answer", answer),
    ("descriptor", descriptor),
];

fn schedule() -> Schedule {
    let minute = Duration::from_secs(60);
    Schedule::new(minute * 180, minute * 30, minute * 10)
}

fn now() -> Time {
    schedule().start(Epoch::new(165_000))
}

fn take(directory: &mut Directory, statement: Statement) {
    match statement {
        Statement::Record(signed) => {
            if let Ok(record) = signed.timely(now(), &schedule()) {
                let _ = directory.admit(record, Source::Gossip);
            }
        }
        Statement::Vouch(signed) => {
            if let Ok(vouch) = signed.timely(now(), &schedule()) {
                let _ = directory.note_word(vouch, Source::Gossip);
            }
        }
        Statement::Proof(proof) => {
            let proof: Arc<Proof> = Arc::from(proof);
            let _ = proof.timely(now(), &schedule());
            let _ = directory.convict(proof);
        }
    }
}

/// A statement of the topic, into an empty directory.
pub(crate) fn statement(octets: &[u8]) {
    let mut directory = Directory::new(schedule(), &Admission::Open);
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
    let directory = Directory::new(schedule(), &Admission::Open);
    let _ = directory.answer(octets, now(), || record::SetHash::from_bytes([0; 32]));
}

/// Three answers of a peer that is asked, cut from what came.
pub(crate) fn answer(octets: &[u8]) {
    let mut directory = Directory::new(schedule(), &Admission::Open);
    let mut asking = Reconciliation::default();
    let peer = NodeId::from_bytes([1; 32]);
    let _ = asking.begin(peer, now());
    for part in octets.split(|octet| *octet == 0xa5).take(3) {
        let Ok(mut answer) = Answer::check(part, &NETWORK) else { return };
        if let Answer::Items(items) = &mut answer {
            for (name, checked) in items {
                match core::mem::replace(checked, Err(record::StatementError::Unknown)) {
                    Ok(statement) => take(&mut directory, statement),
                    Err(_) => asking.refuse(*name),
                }
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

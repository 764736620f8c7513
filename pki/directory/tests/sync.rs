//! Reconciliation between directories, honest peers and others.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use common::{
    LIFE, MINUTE, NETWORK, SPACING, admit, directory, empty, exit, identity, network, read, record,
    schedule, start, vouch, vouched,
};
use fog_directory::{
    Answer, Directory, Heard, ItemId, MAX_ANSWER, MAX_REQUEST, Reconciliation, Request, Source,
    Step, Told,
};
use keys::{NodeId, Time};
use proptest::prelude::*;
use record::{Proof, Statement};
use std::sync::Arc;

const NOW: Time = Time::from_millis(165_000 * 10_800_000 + 600_000);

fn peer(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

/// As a node takes what an answer brings.
fn take(directory: &mut Directory, asking: &mut Reconciliation, answer: &mut Answer) {
    let Answer::Items(items) = answer else { return };
    for (name, checked) in items {
        let taken = match core::mem::replace(checked, Err(record::StatementError::Unknown)) {
            Ok(Statement::Record(signed)) => {
                let record = read(signed.peek().octets(), NOW);
                directory.admit(record, Source::CatchUp, NOW).is_ok()
            }
            Ok(Statement::Vouch(vouch)) => directory
                .note_word(vouch.timely(NOW, &schedule(), LIFE).unwrap(), Source::CatchUp, start())
                .is_ok(),
            Ok(Statement::Proof(proof)) => directory.convict(Arc::from(proof)).is_ok(),
            Ok(Statement::Vote(vote)) => directory.note_vote(*vote, NOW).is_ok(),
            Err(_) => false,
        };
        if !taken {
            asking.refuse(*name);
        }
    }
}

struct Talk {
    step: Step,
    octets: usize,
    rounds: usize,
}

/// One conversation to its end, with what the peer answers bent by `bend`.
fn converse(
    joiner: &mut Directory,
    asking: &mut Reconciliation,
    who: NodeId,
    holder: &Directory,
    bend: impl Fn(&Request, Vec<u8>) -> Vec<u8>,
) -> Talk {
    let mut request = asking.begin(who, NOW).unwrap();
    let mut talk = Talk { step: Step::Bad, octets: 0, rounds: 0 };
    loop {
        let asked = request.encode().unwrap();
        assert!(asked.len() <= MAX_REQUEST);
        let octets = holder.answer(&asked, NOW).unwrap();
        assert!(octets.len() <= MAX_ANSWER);
        let octets = bend(&request, octets);
        talk.octets += asked.len() + octets.len();
        talk.rounds += 1;
        let Ok(mut answer) = Answer::check(&octets, &NETWORK) else {
            asking.fail(&who);
            return talk;
        };
        take(joiner, asking, &mut answer);
        match asking.handle_answer(&who, &answer, joiner, NOW) {
            Step::Ask(next) => request = next,
            step => {
                talk.step = step;
                return talk;
            }
        }
        assert!(talk.rounds < 1000);
    }
}

fn honest(_: &Request, octets: Vec<u8>) -> Vec<u8> {
    octets
}

fn names(directory: &Directory) -> Vec<ItemId> {
    directory.statements().map(|octets| ItemId::of(octets)).collect()
}

#[test]
fn a_joiner_gets_everything_for_hardly_more_than_its_octets_and_then_asks_for_nothing() {
    let all = directory(200, 3);
    let held: usize = all.statements().map(|octets| octets.len()).sum();
    let (mut joiner, mut asking) = (empty(), Reconciliation::default());
    let talk = converse(&mut joiner, &mut asking, peer(1), &all, honest);
    assert!(matches!(talk.step, Step::Done(Told { ahead_ms: 0, .. })), "{:?}", talk.step);
    assert_eq!(names(&joiner), names(&all));
    assert!(talk.octets * 100 < held * 103, "{} octets for {held}", talk.octets);
    let again = converse(&mut joiner, &mut asking, peer(1), &all, honest);
    assert!(again.rounds == 1 && again.octets < 5000, "{} octets", again.octets);

    let mut all = all;
    all.admit(record(77, 2, NOW, None), Source::Gossip, NOW).unwrap();
    let one = converse(&mut joiner, &mut asking, peer(2), &all, honest);
    assert!(one.rounds == 3 && one.octets < 12_000, "{} octets", one.octets);
    assert_eq!(names(&joiner), names(&all));
}

#[test]
fn words_and_proofs_come_along() {
    let mut all = Directory::new(&network(&vouched()));
    for number in 1..=4 {
        admit(&mut all, record(number, 1, start(), None)).unwrap();
    }
    for (voucher, subject) in [(1, 2), (2, 3)] {
        all.note_word(vouch(voucher, subject, start()), Source::Gossip, start()).unwrap();
    }
    let proof =
        Proof::of(&record(4, 1, start(), None), &record(4, 1, start(), Some(exit())), SPACING);
    all.convict(Arc::new(proof.unwrap())).unwrap();
    let (mut joiner, mut asking) =
        (Directory::new(&network(&vouched())), Reconciliation::default());
    for _ in 0..3 {
        // A word may come before the one that it hangs on; a later hour asks for it again.
        converse(&mut joiner, &mut asking, peer(1), &all, honest);
        asking.turn_hour();
    }
    assert_eq!(names(&joiner), names(&all));
    assert!(joiner.conviction(&identity(4).node(), NOW).is_some());
}

#[test]
fn a_liar_hides_nothing_from_who_asks_others_and_is_found_out() {
    let all = directory(60, 3);
    let half = directory(30, 3);
    let (mut joiner, mut asking) = (empty(), Reconciliation::default());
    // It does not know half of them, says it; another one does.
    converse(&mut joiner, &mut asking, peer(1), &half, honest);
    assert_eq!(joiner.len(), 30);
    converse(&mut joiner, &mut asking, peer(2), &all, honest);
    assert_eq!(joiner.len(), 60);

    // Lists everything and hands out nothing: it is left, and nothing counts as refused.
    let (mut joiner, mut asking) = (empty(), Reconciliation::default());
    let nothing = empty();
    let bare = |request: &Request, octets| match request {
        Request::Fetch(_) => {
            nothing.answer(&Request::Fetch(Vec::new()).encode().unwrap(), NOW).unwrap()
        }
        Request::Summary | Request::List { .. } | Request::Entries(_) => octets,
    };
    let talk = converse(&mut joiner, &mut asking, peer(1), &all, bare);
    assert!(matches!(talk.step, Step::Done(_)) && joiner.is_empty());
    // Hands out one thing again and again, which was not asked for.
    let other = record(99, 1, start(), None);
    let mut stock = empty();
    admit(&mut stock, other).unwrap();
    let name = names(&stock)[0];
    let foist = |request: &Request, octets| match request {
        Request::Fetch(_) => {
            stock.answer(&Request::Fetch(vec![name]).encode().unwrap(), NOW).unwrap()
        }
        Request::Summary | Request::List { .. } | Request::Entries(_) => octets,
    };
    let talk = converse(&mut joiner, &mut asking, peer(1), &all, foist);
    assert!(matches!(talk.step, Step::Bad));
    // Answers another question, or garbage.
    for garbage in [vec![], vec![3, 0, 0, 0, 9], vec![0xff; 500]] {
        let talk = converse(&mut joiner, &mut asking, peer(1), &all, |_, _| garbage.clone());
        assert!(matches!(talk.step, Step::Bad));
    }
    converse(&mut joiner, &mut asking, peer(3), &all, honest);
    assert_eq!(joiner.len(), 61, "and the one that was foisted, which is as good as any");
}

#[test]
fn what_one_peer_is_being_asked_for_is_asked_of_another_only_when_it_fails() {
    let all = directory(100, 3);
    let (joiner, mut asking) = (empty(), Reconciliation::default());
    let ask = |asking: &mut Reconciliation, who, request: &Request| {
        let octets = all.answer(&request.encode().unwrap(), NOW).unwrap();
        let answer = Answer::check(&octets, &NETWORK).unwrap();
        match asking.handle_answer(&who, &answer, &joiner, NOW) {
            Step::Ask(next) => next,
            step => panic!("{step:?}"),
        }
    };
    let mut fetch = |who| {
        let first = asking.begin(who, NOW).unwrap();
        let list = ask(&mut asking, who, &first);
        match ask(&mut asking, who, &list) {
            Request::Fetch(names) => names,
            other => panic!("{other:?}"),
        }
    };
    let first = fetch(peer(1));
    assert_eq!(first.len(), 100, "all of it");
    // Nothing is left for the second; it is asked all the same, for the first may never answer.
    assert_eq!(fetch(peer(2)).len(), 100);
    assert!(asking.begin(peer(1), NOW).is_none(), "one conversation with each");
    asking.begin(peer(3), NOW).unwrap();
    asking.begin(peer(4), NOW).unwrap();
    assert!(asking.begin(peer(5), NOW).is_none(), "four at once");
    asking.fail(&peer(1));
    assert!(asking.begin(peer(5), NOW).is_some());
    // Those that have brought nothing after half a minute make room for one that waits.
    let later = NOW.plus(std::time::Duration::from_secs(31));
    assert!(asking.begin(peer(6), later).is_some());
}

#[test]
fn the_median_of_three_clocks_counts_and_one_liar_does_not() {
    let schedule = schedule();
    let minute = 60_000;
    let mut heard = Heard::default();
    let told = |ahead_ms| Told { ahead_ms, list: Default::default(), voted: 0 };
    heard.note(peer(1), told(100 * minute), NOW);
    heard.note(peer(2), told(100 * minute), NOW);
    assert_eq!(heard.clocks_apart(&schedule, NOW), None, "two say nothing");
    heard.note(peer(3), told(0), NOW);
    assert_eq!(heard.clocks_apart(&schedule, NOW), Some(100 * minute));
    heard.note(peer(2), told(0), NOW);
    assert_eq!(heard.clocks_apart(&schedule, NOW), None);
    for number in 1..=3 {
        heard.note(peer(number), told(-6 * minute), NOW);
    }
    assert_eq!(heard.clocks_apart(&schedule, NOW), Some(-6 * minute));
    assert_eq!(heard.clocks_apart(&schedule, NOW.plus(MINUTE * 181)), None, "too long ago");
    for ahead in [i64::MIN, i64::MAX] {
        for number in 1..=200 {
            heard.note(peer(number), told(ahead), NOW);
        }
        assert_eq!(heard.clocks_apart(&schedule, NOW), Some(ahead));
    }
}

proptest! {
    #[test]
    fn any_octets_are_decoded_without_harm(octets: Vec<u8>) {
        let _ = Request::decode(&octets);
        let _ = Answer::check(&octets, &NETWORK);
        let _ = empty().answer(&octets, NOW);
    }

    #[test]
    fn requests_have_one_encoding(
        names in proptest::collection::vec(any::<[u8; 16]>(), 0..=128),
        buckets: [u8; 32],
        after: Option<[u8; 16]>,
        at: prop::sample::Index,
        change in 1u8..,
    ) {
        let after = after.map(ItemId::from_bytes);
        let names = names.into_iter().map(ItemId::from_bytes).collect();
        for request in [Request::Summary, Request::List { buckets, after }, Request::Fetch(names)] {
            let octets = request.encode().unwrap();
            prop_assert_eq!(&Request::decode(&octets).unwrap(), &request);
            let mut altered = octets.clone();
            let at = at.index(altered.len());
            altered[at] = altered[at].wrapping_add(change);
            if let Ok(other) = Request::decode(&altered) {
                prop_assert_ne!(other, request);
            }
        }
    }
}

//! What becomes of records that are honest, forged, altered, foreign, early, late or oversize.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::time::Duration;

use fog_record::{
    Breach, Capabilities, Domains, Draft, ExitPolicy, MAX_RECORD, MAX_STATEMENT, Proof, Record,
    SetHash, Statement, StatementError, StatementHash, Unverified, VOUCH_EPOCHS, Vouch, VouchDraft,
    Word,
};
use keys::{Epoch, Identity, MixSecret, MixSeed, NetworkId, Schedule, Time};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

const NETWORK: NetworkId = NetworkId::from_bytes([3; 32]);

fn schedule() -> Schedule {
    let minute = Duration::from_secs(60);
    Schedule::new(minute * 180, minute * 30, minute * 10)
}

fn now() -> Time {
    schedule().start(Epoch::new(165_000)).plus(Duration::from_secs(3600))
}

fn identity() -> Identity {
    Identity::from_seed(&[1; 32])
}

fn draft(published_at: Time, epochs: std::ops::RangeInclusive<u32>) -> Draft {
    let keys = epochs
        .map(|offset| {
            let mut rng = ChaCha20Rng::seed_from_u64(u64::from(offset));
            let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
            (schedule().epoch_at(published_at).plus(offset), secret.public().clone())
        })
        .collect();
    Draft {
        sequence: 7,
        previous: StatementHash::from_bytes([2; 32]),
        published_at,
        keys,
        withdrawn: Vec::new(),
        exit: Some(ExitPolicy {
            domains: Domains::Only(vec!["example.org".into()]),
            max_message: 240_000,
            offers: Capabilities::EIGHT_BIT,
        }),
        contact: "fog@example.org".into(),
        family: Vec::new(),
        traffic: [0, 1, 2, 4, 8, 16, 32, 64, 128],
        set: SetHash::from_bytes([4; 32]),
    }
}

fn signed() -> Vec<u8> {
    draft(now(), 0..=3).sign(&identity(), &NETWORK).unwrap()
}

fn read(octets: &[u8], at: Time) -> Result<Record, StatementError> {
    Unverified::parse(octets)?.check_signature(&NETWORK)?.timely(at, &schedule())
}

#[test]
fn an_honest_record_says_what_was_signed() {
    let octets = signed();
    let record = read(&octets, now()).unwrap();
    assert_eq!(record.node(), identity().node());
    assert_eq!(record.sequence(), 7);
    assert_eq!(record.epochs().count(), 4);
    assert!(record.key(Epoch::new(165_003)).is_some());
    assert!(record.key(Epoch::new(165_004)).is_none());
    assert_eq!(record.octets()[..], octets[..]);
    assert!(octets.len() <= MAX_RECORD);
}

#[test]
fn the_encoding_is_the_one_in_the_vector() {
    let vector = include_str!("vectors/record-1.hex").trim();
    let hex: String = signed().iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(hex, vector);
}

#[test]
fn any_altered_octet_is_refused() {
    let octets = signed();
    for at in 0..octets.len() {
        for bit in [0x01, 0x80] {
            let mut altered = octets.clone();
            altered[at] ^= bit;
            assert!(read(&altered, now()).is_err(), "octet {at}");
        }
    }
}

#[test]
fn unsigned_foreign_cut_and_padded_records_are_refused() {
    let octets = signed();
    let mut unsigned = octets.clone();
    let body = unsigned.len() - 64;
    unsigned[body..].fill(0);
    assert_eq!(read(&unsigned, now()).unwrap_err(), StatementError::BadSignature);

    let other = Identity::from_seed(&[2; 32]);
    let theirs = draft(now(), 0..=2).sign(&other, &NETWORK).unwrap();
    let mut stolen = octets.clone();
    stolen[body..].copy_from_slice(&theirs[theirs.len() - 64..]);
    assert_eq!(read(&stolen, now()).unwrap_err(), StatementError::BadSignature);

    let foreign = draft(now(), 0..=2).sign(&identity(), &NetworkId::from_bytes([4; 32])).unwrap();
    assert_eq!(read(&foreign, now()).unwrap_err(), StatementError::OtherNetwork);

    for cut in [0, 1, 64, 65, 100, octets.len() - 1] {
        assert!(read(&octets[..cut], now()).is_err(), "{cut}");
    }
    assert!(read(&[&octets[..], &[0]].concat(), now()).is_err());
    let oversize = vec![1; MAX_RECORD + 1];
    assert_eq!(read(&oversize, now()).unwrap_err(), StatementError::TooLong);
    for tag in [0, 2, 3, 4, 5, 0xff] {
        assert_eq!(read(&[tag, 0, 0], now()).unwrap_err(), StatementError::Malformed);
    }
}

#[test]
fn records_are_believed_in_their_time_only() {
    let minute = Duration::from_secs(60);
    let octets = signed();
    assert!(read(&octets, now().minus(minute * 10)).is_ok());
    assert_eq!(read(&octets, now().minus(minute * 11)).unwrap_err(), StatementError::Future);
    let last = schedule().end(Epoch::new(165_003));
    assert!(read(&octets, last.minus(minute)).is_ok());
    assert_eq!(read(&octets, last).unwrap_err(), StatementError::Stale);
    for (at, outcome) in [(0, StatementError::Future), (u64::MAX, StatementError::Stale)] {
        assert_eq!(read(&octets, Time::from_millis(at)).unwrap_err(), outcome);
    }

    let far = draft(now(), 0..=4);
    assert!(far.sign(&identity(), &NETWORK).is_err(), "five keys do not fit");
    let ahead = draft(now(), 3..=4).sign(&identity(), &NETWORK).unwrap();
    assert_eq!(read(&ahead, now()).unwrap_err(), StatementError::Future);
    let eternal = draft(Time::from_millis(u64::MAX), 0..=0).sign(&identity(), &NETWORK).unwrap();
    assert_eq!(read(&eternal, now()).unwrap_err(), StatementError::Future);
}

#[test]
fn a_node_that_has_lost_all_its_keys_can_say_so() {
    let mut lost = draft(now(), 0..=2);
    let epochs: Vec<_> = lost.keys.drain(..).map(|(epoch, _)| epoch).collect();
    assert!(lost.clone().sign(&identity(), &NETWORK).is_err(), "neither keys nor withdrawn ones");
    lost.withdrawn = epochs.clone();
    let octets = lost.sign(&identity(), &NETWORK).unwrap();
    assert_eq!(octets[1..3], [0, 2], "who knows version 1 only ignores it");
    let record = read(&octets, now()).unwrap();
    assert!(epochs.iter().all(|epoch| record.withdraws(*epoch)) && record.epochs().count() == 0);
    assert_eq!(record.span(), (epochs[0], epochs[2]));
    let past = schedule().end(epochs[2]);
    assert_eq!(read(&octets, past).unwrap_err(), StatementError::Stale);
}

fn vouch_draft(word: Word) -> VouchDraft {
    let minute = Duration::from_secs(60);
    VouchDraft {
        word,
        subject: Identity::from_seed(&[2; 32]).node(),
        since: now().minus(minute * 60),
        issued_at: now(),
        expires_at: now().plus(minute * 180 * VOUCH_EPOCHS),
    }
}

fn read_vouch(octets: &[u8], at: Time) -> Result<Vouch, StatementError> {
    match Statement::check(octets, &NETWORK)? {
        Statement::Vouch(vouch) => vouch.timely(at, &schedule()),
        Statement::Record(_) | Statement::Proof(_) => panic!("not a vouch"),
    }
}

#[test]
fn a_word_about_another_holds_for_its_time_and_the_later_one_counts() {
    let minute = Duration::from_secs(60);
    let sign = |draft: &VouchDraft| draft.sign(&identity(), &NETWORK).unwrap();
    let draft = vouch_draft(Word::Vouch);
    let octets = sign(&draft);
    let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(hex, include_str!("vectors/vouch-1.hex").trim());
    let vouch = read_vouch(&octets, now()).unwrap();
    assert_eq!((vouch.voucher(), vouch.subject()), (identity().node(), draft.subject));
    assert_eq!((vouch.since(), vouch.issued_at()), (draft.since, now()));

    assert_eq!(read_vouch(&octets, now().minus(minute * 11)).unwrap_err(), StatementError::Future);
    assert_eq!(read_vouch(&octets, draft.expires_at).unwrap_err(), StatementError::Stale);
    let longer = VouchDraft { expires_at: draft.expires_at.plus(minute), ..draft };
    assert_eq!(read_vouch(&sign(&longer), now()).unwrap_err(), StatementError::Malformed);
    for wrong in [
        VouchDraft { since: now().plus(minute), ..draft },
        VouchDraft { expires_at: now(), ..draft },
        VouchDraft { subject: identity().node(), ..draft },
    ] {
        assert_eq!(read_vouch(&sign(&wrong), now()).unwrap_err(), StatementError::Malformed);
    }

    let revocation = read_vouch(&sign(&vouch_draft(Word::Revocation)), now()).unwrap();
    assert!(revocation.supersedes(&vouch) && !vouch.supersedes(&revocation));
    let again = VouchDraft { issued_at: now().plus(minute), ..draft };
    assert!(read_vouch(&sign(&again), now()).unwrap().supersedes(&revocation));

    // A vouch is no revocation, whatever its first octet says.
    let mut turned = octets.clone();
    turned[0] = 3;
    assert_eq!(read_vouch(&turned, now()).unwrap_err(), StatementError::BadSignature);
    for at in 0..octets.len() {
        let mut altered = octets.clone();
        altered[at] ^= 1;
        assert!(Statement::check(&altered, &NETWORK).is_err(), "octet {at}");
    }
}

/// A record of the same identity that differs as `change` says.
fn another(change: impl Fn(&mut Draft)) -> Record {
    let mut draft = draft(now(), 0..=2);
    change(&mut draft);
    read(&draft.sign(&identity(), &NETWORK).unwrap(), now()).unwrap()
}

#[test]
fn two_records_of_which_there_may_be_one_are_a_proof_and_others_are_not() {
    let first = another(|_| {});
    let other_key = Identity::from_seed(&[9; 32]).seed();
    let other_key =
        MixSecret::from_seed(&MixSeed::generate(&mut ChaCha20Rng::from_seed(*other_key)));
    let number = another(|draft| draft.contact.clear());
    let fork = another(|draft| draft.sequence = 8);
    let keys = another(|draft| {
        draft.sequence = 9;
        draft.previous = StatementHash::from_bytes([5; 32]);
        draft.keys[1].1 = other_key.public().clone();
    });
    for (second, breach) in
        [(&number, Breach::OneNumber), (&fork, Breach::Fork), (&keys, Breach::TwoKeys)]
    {
        let proof = Proof::of(&first, second).unwrap();
        assert_eq!(proof.breach(), breach);
        assert_eq!(proof.octets(), Proof::of(second, &first).unwrap().octets(), "one encoding");
        assert!(proof.octets().len() <= MAX_STATEMENT);
        let Ok(Statement::Proof(read)) = Statement::check(proof.octets(), &NETWORK) else {
            panic!("{breach:?}")
        };
        assert_eq!(
            (read.node(), read.breach(), read.hash()),
            (identity().node(), breach, proof.hash())
        );
        assert_eq!(read.last_epoch(), Epoch::new(165_002));
        assert!(read.timely(now(), &schedule()).is_ok());
        let early = now().minus(Duration::from_secs(3600));
        assert_eq!(read.timely(early, &schedule()), Err(StatementError::Future));
        for at in (0..proof.octets().len()).step_by(7) {
            let mut altered = proof.octets().to_vec();
            altered[at] ^= 1;
            assert!(Statement::check(&altered, &NETWORK).is_err(), "octet {at}");
        }
    }
    let next = another(|draft| {
        draft.sequence = 8;
        draft.previous = first.hash();
    });
    let withdrawn = another(|draft| {
        draft.sequence = 8;
        draft.previous = first.hash();
        draft.withdrawn = vec![draft.keys.remove(0).0];
    });
    assert!(
        withdrawn.withdraws(Epoch::new(165_000)) && withdrawn.key(Epoch::new(165_000)).is_none()
    );
    let beginnings: [Record; 2] = [7, 8].map(|sequence| {
        another(|draft| (draft.sequence, draft.previous) = (sequence, StatementHash::NONE))
    });
    let theirs = draft(now(), 0..=1).sign(&Identity::from_seed(&[2; 32]), &NETWORK).unwrap();
    let theirs = read(&theirs, now()).unwrap();
    for second in [&first, &next, &withdrawn, &theirs] {
        assert!(Proof::of(&first, second).is_none());
    }
    assert!(Proof::of(&beginnings[0], &beginnings[1]).is_none());
}

proptest! {
    #[test]
    fn any_octets_are_no_statement_and_do_no_harm(
        tag in 0u8..6, octets in proptest::collection::vec(any::<u8>(), 0..600)
    ) {
        prop_assert!(Statement::check(&[&[tag], &octets[..]].concat(), &NETWORK).is_err());
    }

    #[test]
    fn any_octets_are_read_without_harm(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&octets, now());
    }

    #[test]
    fn any_middle_of_a_record_is_read_without_harm(at in 0usize..5000, octet: u8, cut in 0usize..5400) {
        let mut octets = signed();
        let len = octets.len();
        octets[at % len] = octet;
        octets.truncate(cut);
        let _ = read(&octets, now());
    }
}

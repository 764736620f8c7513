//! What becomes of records that are honest, forged, altered, foreign, early, late or oversize.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::time::Duration;

use fog_record::{
    Admission, BUCKETS, Breach, BucketDigest, Capabilities, Capacity, Descriptor, Domains, Draft,
    ExitPolicy, Extension, Features, ListHash, ListSketch, MAX_DESCRIPTOR, MAX_RECORD,
    MAX_STATEMENT, Parameters, Proof, Record, Statement, StatementError, StatementHash, Unverified,
    Vote, VoteDraft, Vouch, VouchDraft, VouchRole, Word,
};
use keys::{Epoch, Hour, Identity, MixSecret, MixSeed, NetworkId, Schedule, Time};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

/// Epochs for which a word holds at most.
const LIFE: u32 = 720;
const SPACING: Duration = Duration::from_secs(300);
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
        delivered: 64,
        features: Features { kinds: 0x3f, streams: 1, contents: 0xff },
        limits: Capacity { links: 64, streams: 8, pool_kib: 1 << 18 },
        list: (Hour::new(495_000), ListSketch::from_bytes([4; 32])),
        extensions: vec![Extension {
            kind: Extension::REPLIES,
            critical: false,
            value: vec![1, 2],
        }],
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
    let vector = include_str!("vectors/record-3.hex").trim();
    let hex: String = signed().iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(hex, vector);
}

#[test]
fn a_descriptor_is_laid_out_as_the_vector() {
    let roots = vec![Identity::from_seed(&[2; 32]).node()];
    let voters = [identity().node()];
    let admission = Admission::Vouched { roots, depth: 3, fan_out: 9 };
    let parameters = Parameters::main().with_first_list(4);
    let made =
        Descriptor::create(&identity(), "vector", now(), &parameters, &voters, &admission).unwrap();
    let hex: String = made.octets().iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(hex, include_str!("vectors/descriptor-3.hex").trim());
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
    for tag in [0, 2, 3, 4, 5, 6, 0xff] {
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
        role: VouchRole::Exit,
        since: now().minus(minute * 60),
        issued_at: now(),
        expires_at: now().plus(minute * 180 * LIFE),
        extensions: Vec::new(),
    }
}

fn read_vouch(octets: &[u8], at: Time) -> Result<Vouch, StatementError> {
    match Statement::check(octets, &NETWORK)? {
        Statement::Vouch(vouch) => vouch.timely(at, &schedule(), LIFE),
        Statement::Record(_) | Statement::Proof(_) | Statement::Vote(_) => panic!("not a vouch"),
    }
}

#[test]
fn a_word_about_another_holds_for_its_time_and_the_later_one_counts() {
    let minute = Duration::from_secs(60);
    let sign = |draft: &VouchDraft| draft.sign(&identity(), &NETWORK).unwrap();
    let draft = vouch_draft(Word::Vouch);
    let octets = sign(&draft);
    let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(hex, include_str!("vectors/vouch-2.hex").trim());
    let vouch = read_vouch(&octets, now()).unwrap();
    assert_eq!((vouch.voucher(), vouch.subject()), (identity().node(), draft.subject));
    assert_eq!((vouch.since(), vouch.issued_at()), (draft.since, now()));

    assert_eq!(read_vouch(&octets, now().minus(minute * 11)).unwrap_err(), StatementError::Future);
    assert_eq!(read_vouch(&octets, draft.expires_at).unwrap_err(), StatementError::Stale);
    let longer = VouchDraft { expires_at: draft.expires_at.plus(minute), ..draft.clone() };
    assert_eq!(read_vouch(&sign(&longer), now()).unwrap_err(), StatementError::Malformed);
    for wrong in [
        VouchDraft { since: now().plus(minute), ..draft.clone() },
        VouchDraft { expires_at: now(), ..draft.clone() },
        VouchDraft { subject: identity().node(), ..draft.clone() },
    ] {
        assert_eq!(read_vouch(&sign(&wrong), now()).unwrap_err(), StatementError::Malformed);
    }

    let revocation = read_vouch(&sign(&vouch_draft(Word::Revocation)), now()).unwrap();
    assert!(revocation.supersedes(&vouch) && !vouch.supersedes(&revocation));
    let again = VouchDraft { issued_at: now().plus(minute), ..draft.clone() };
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
    let close = another(|draft| {
        draft.sequence = 8;
        draft.previous = first.hash();
        draft.published_at = now().plus(SPACING).minus(Duration::from_millis(1));
    });
    for (second, breach) in [
        (&number, Breach::OneNumber),
        (&fork, Breach::Fork),
        (&keys, Breach::TwoKeys),
        (&close, Breach::TooClose),
    ] {
        let proof = Proof::of(&first, second, SPACING).unwrap();
        assert_eq!(proof.breach(), breach);
        assert_eq!(
            proof.octets(),
            Proof::of(second, &first, SPACING).unwrap().octets(),
            "one encoding"
        );
        assert!(proof.octets().len() <= MAX_STATEMENT);
        let Ok(Statement::Proof(read)) = Statement::check(proof.octets(), &NETWORK) else {
            panic!("{breach:?}")
        };
        assert_eq!(
            (read.node(), read.breach(), read.hash()),
            (identity().node(), breach, proof.hash())
        );
        assert_eq!(read.last_epoch(&schedule()), Epoch::new(165_002));
        assert!(read.timely(now(), &schedule(), SPACING).is_ok());
        let wider = read.timely(now(), &schedule(), SPACING / 2);
        assert_eq!(wider.is_err(), breach == Breach::TooClose, "{breach:?}");
        let early = now().minus(Duration::from_secs(3600));
        assert_eq!(read.timely(early, &schedule(), SPACING), Err(StatementError::Future));
        for at in (0..proof.octets().len()).step_by(7) {
            let mut altered = proof.octets().to_vec();
            altered[at] ^= 1;
            assert!(Statement::check(&altered, &NETWORK).is_err(), "octet {at}");
        }
    }
    let later = |draft: &mut Draft| draft.published_at = now().plus(SPACING);
    let next = another(|draft| {
        later(draft);
        draft.sequence = 8;
        draft.previous = first.hash();
    });
    let withdrawn = another(|draft| {
        later(draft);
        draft.sequence = 8;
        draft.previous = first.hash();
        draft.withdrawn = vec![draft.keys.remove(0).0];
    });
    assert!(
        withdrawn.withdraws(Epoch::new(165_000)) && withdrawn.key(Epoch::new(165_000)).is_none()
    );
    let beginnings: [Record; 2] = [7, 8].map(|sequence| {
        another(|draft| {
            (draft.sequence, draft.previous) = (sequence, StatementHash::NONE);
            draft.published_at = now().plus(SPACING * (u32::try_from(sequence).unwrap() - 6));
        })
    });
    let theirs = draft(now(), 0..=1).sign(&Identity::from_seed(&[2; 32]), &NETWORK).unwrap();
    let theirs = read(&theirs, now()).unwrap();
    for second in [&first, &next, &withdrawn, &theirs] {
        assert!(Proof::of(&first, second, SPACING).is_none());
    }
    assert!(Proof::of(&beginnings[0], &beginnings[1], SPACING).is_none());
}

fn vote(hour: u64, digest: u8) -> Vote {
    let draft = VoteDraft {
        hour: Hour::new(hour),
        before: ListHash::from_bytes([6; 32]),
        digests: [BucketDigest::from_bytes([digest; 16]); BUCKETS],
    };
    let octets = draft.sign(&identity(), &NETWORK).unwrap();
    match Statement::check(&octets, &NETWORK).unwrap() {
        Statement::Vote(vote) => *vote,
        Statement::Record(_) | Statement::Vouch(_) | Statement::Proof(_) => panic!("not a vote"),
    }
}

#[test]
fn a_vote_says_what_was_signed_and_two_for_one_hour_are_a_proof() {
    let first = vote(495_001, 1);
    assert_eq!(first.octets().len(), 4267);
    let start: String = first.octets()[..64].iter().map(|octet| format!("{octet:02x}")).collect();
    let whole = blake3::hash(first.octets()).to_hex().to_string();
    let vector = include_str!("vectors/vote-1.txt");
    assert_eq!(vector, format!("first 64 octets = {start}\nblake3 = {whole}\n"));
    assert_eq!((first.voter(), first.hour()), (identity().node(), Hour::new(495_001)));
    assert_eq!(first.digests()[255].as_bytes(), &[1; 16]);
    for at in (0..first.octets().len()).step_by(5) {
        let mut altered = first.octets().to_vec();
        altered[at] ^= 1;
        assert!(Statement::check(&altered, &NETWORK).is_err(), "octet {at}");
    }
    let longer = [&first.octets()[..], &[0]].concat();
    assert!(Statement::check(&longer, &NETWORK).is_err());

    let rival = vote(495_001, 2);
    let proof = Proof::of_votes(&first, &rival).unwrap();
    assert_eq!(proof.octets(), Proof::of_votes(&rival, &first).unwrap().octets());
    let Ok(Statement::Proof(read)) = Statement::check(proof.octets(), &NETWORK) else { panic!() };
    assert_eq!((read.node(), read.breach()), (identity().node(), Breach::TwoVotes));
    assert!(Proof::of_votes(&first, &vote(495_001, 1)).is_none(), "the same");
    assert!(Proof::of_votes(&first, &vote(495_002, 2)).is_none(), "another hour");
    let hour = schedule().hour_at(now());
    let ahead = |by| {
        let (one, other) = (vote(hour.number() + by, 1), vote(hour.number() + by, 2));
        Proof::of_votes(&one, &other).unwrap().timely(now(), &schedule(), SPACING)
    };
    assert_eq!((ahead(1), ahead(2)), (Ok(()), Err(StatementError::Future)));
}

#[test]
fn a_retirement_holds_for_ever_and_no_other_word_does() {
    let sign = |draft: &VouchDraft| draft.sign(&identity(), &NETWORK).unwrap();
    let for_ever = VouchDraft { expires_at: VouchDraft::FOR_EVER, ..vouch_draft(Word::Retirement) };
    let years = now().plus(Duration::from_secs(100 * 366 * 24 * 3600));
    assert_eq!(read_vouch(&sign(&for_ever), years).unwrap().word(), Word::Retirement);
    for word in [Word::Vouch, Word::Revocation] {
        let draft = VouchDraft { word, ..for_ever.clone() };
        assert_eq!(read_vouch(&sign(&draft), now()).unwrap_err(), StatementError::Malformed);
    }
    let ends = vouch_draft(Word::Retirement);
    assert_eq!(read_vouch(&sign(&ends), now()).unwrap_err(), StatementError::Malformed);
}

#[test]
fn a_record_with_a_critical_field_of_a_later_version_is_read_and_said_not_to_be_understood() {
    let with = |kind, critical| {
        let mut draft = draft(now(), 0..=2);
        draft.extensions = vec![Extension { kind, critical, value: vec![0; 5] }];
        read(&draft.sign(&identity(), &NETWORK).unwrap(), now()).unwrap()
    };
    assert!(!with(77, true).is_understood());
    assert!(with(77, false).is_understood() && with(Extension::MAILBOX, true).is_understood());
    let features = with(1, false).features();
    assert!(features.has_kind(5) && !features.has_kind(6) && !features.has_kind(200));
    assert!(features.has_content(7) && !features.has_content(8) && !features.has_content(32));
}

#[test]
fn whoever_reads_a_record_is_told_what_it_says() {
    let octets = signed();
    let Ok(Statement::Record(said)) = Statement::check(&octets, &NETWORK) else { panic!() };
    assert_eq!((said.sequence(), said.published_at()), (7, now()));
    assert_eq!(said.hash().to_string(), blake3::hash(&octets).to_hex().to_string());
    let record = another(|draft| {
        draft.withdrawn = vec![draft.keys.remove(1).0];
        draft.family = vec![Identity::from_seed(&[5; 32]).node()];
    });
    let epoch = schedule().epoch_at(now());
    assert!(record.withdraws(epoch.plus(1)) && !record.withdraws(epoch));
    assert_eq!(record.span(), (epoch, epoch.plus(2)));
    assert_eq!(record.list(), (Hour::new(495_000), ListSketch::from_bytes([4; 32])));
    assert_eq!(record.limits(), Capacity { links: 64, streams: 8, pool_kib: 1 << 18 });
    assert_eq!((record.delivered(), record.contact()), (64, "fog@example.org"));
    assert!(record.software().contains(env!("CARGO_PKG_VERSION")), "{}", record.software());
    assert_eq!(record.exit().unwrap().max_message, 240_000);
    assert!(another(|draft| draft.exit = None).exit().is_none());
    // Nobody states a key of an epoch that was past then.
    let mut past = draft(now(), 0..=2);
    past.keys.insert(0, (epoch.minus(1), past.keys[0].1.clone()));
    let past = read(&past.sign(&identity(), &NETWORK).unwrap(), now());
    assert_eq!(past.map(|_| ()), Err(StatementError::Future));
    let ahead = draft(now(), 1..=2).sign(&identity(), &NETWORK).unwrap();
    assert!(read(&ahead, now()).is_ok());
    let one_way = Identity::from_seed(&[5; 32]);
    let of = |family: Vec<_>| {
        let draft = Draft { family, ..draft(now(), 0..=2) };
        read(&draft.sign(&one_way, &NETWORK).unwrap(), now()).unwrap()
    };
    let (knows, knows_not) = (of(vec![identity().node()]), of(Vec::new()));
    assert!(record.is_family_of(&knows) && knows.is_family_of(&record));
    assert!(!record.is_family_of(&knows_not) && !knows_not.is_family_of(&record));
    assert!(!another(|_| {}).is_family_of(&knows), "its word alone");
}

#[test]
fn a_word_ends_when_it_says_and_counts_for_nothing_if_it_is_not_understood() {
    let draft = vouch_draft(Word::Vouch);
    let sign = |draft: &VouchDraft| draft.sign(&identity(), &NETWORK).unwrap();
    let vouch = read_vouch(&sign(&draft), now()).unwrap();
    assert_eq!(vouch.expires_at(), draft.expires_at);
    assert!(vouch.is_understood() && !vouch.supersedes(&vouch));
    let extensions = vec![Extension { kind: 77, critical: true, value: Vec::new() }];
    let later = VouchDraft { extensions, ..draft.clone() };
    assert!(!read_vouch(&sign(&later), now()).unwrap().is_understood());
    // One that begins as it is said is one.
    let at_once = VouchDraft { since: now(), ..draft };
    assert!(read_vouch(&sign(&at_once), now()).is_ok());
}

#[test]
fn statements_of_the_largest_length_are_read_and_longer_ones_are_not() {
    let first = signed()[0];
    let of = |length: usize, tag: u8| {
        let mut octets = vec![0; length];
        octets[0] = tag;
        Statement::check(&octets, &NETWORK).err()
    };
    assert_eq!(of(MAX_STATEMENT + 1, 0xff), Some(StatementError::TooLong));
    assert_ne!(of(MAX_STATEMENT, 0xff), Some(StatementError::TooLong));
    assert_eq!(of(MAX_RECORD + 1, first), Some(StatementError::TooLong));
    assert_ne!(of(MAX_RECORD, first), Some(StatementError::TooLong));
    let descriptor = |length| Descriptor::parse(&vec![0; length]).err().unwrap().to_string();
    assert_ne!(descriptor(MAX_DESCRIPTOR), descriptor(MAX_DESCRIPTOR + 1));
    // Fields of later versions stand in one order, none twice.
    let twice = |kinds: [u16; 2]| {
        let mut draft = draft(now(), 0..=2);
        let extension = |kind| Extension { kind, critical: false, value: Vec::new() };
        draft.extensions = kinds.map(extension).to_vec();
        draft.sign(&identity(), &NETWORK).is_ok_and(|octets| read(&octets, now()).is_ok())
    };
    assert!(twice([1, 2]) && !twice([2, 2]) && !twice([2, 1]));
}

#[test]
fn sketches_stages_and_domains_are_what_they_say() {
    let sketch = ListSketch::from_bytes([4; 32]);
    let mut other = [4; 32];
    assert_eq!(sketch.apart(&ListSketch::from_bytes(other)), 0);
    (other[0], other[31], other[7]) = (5, 6, 7);
    assert_eq!(sketch.apart(&ListSketch::from_bytes(other)), 3);

    let parameters = Parameters::main();
    for (volume, number) in [(0, 0), (599, 0), (600, 1), (2999, 1), (3000, 2), (u32::MAX, 2)] {
        assert_eq!(parameters.stage_at(volume).0, number, "{volume}");
    }
    let (_, stage) = parameters.stage_at(0);
    let open: Vec<u8> = (0..12).filter(|class| stage.is_open(*class)).collect();
    assert_eq!(open, [1, 4, 8]);
    let of = |strategy| Parameters::main().with_strategy(strategy).mixing;
    let millis = |strategy| of(strategy).mean_delay.as_millis();
    assert_eq!([0, 1, 2, 3].map(millis), [30_000, 60_000, 15_000, 1000]);
    assert_eq!([0, 1, 2, 3].map(|strategy| of(strategy).floor), [2, 1, 2, 24]);

    let takes = |domains: Domains, domain: &str| {
        let policy = ExitPolicy { domains, max_message: 10, offers: Capabilities::NONE };
        policy.allows(&fog_record::Ask { domain, size: 10, needs: Capabilities::NONE })
    };
    let names = || vec!["a.example".to_owned(), "b.example".to_owned()];
    assert!(takes(Domains::Only(names()), "b.example"));
    assert!(!takes(Domains::Only(names()), "c.example"));
    assert!(takes(Domains::Except(names()), "c.example"));
    assert!(!takes(Domains::Except(names()), "b.example"));
    let is_signed = |names: Vec<String>| {
        let mut draft = draft(now(), 0..=2);
        let exit = draft.exit.as_mut().unwrap();
        exit.domains = Domains::Except(names);
        draft.sign(&identity(), &NETWORK).is_ok_and(|octets| read(&octets, now()).is_ok())
    };
    let many = |count: usize| (0..count).map(|number| format!("{number}.example")).collect();
    assert!(is_signed(many(Domains::MAX)) && !is_signed(many(Domains::MAX + 1)));
    let one = |name: &str| is_signed(vec![name.to_owned()]);
    assert!(one("ä.example") && one(&"a".repeat(253)));
    for name in ["", "A.example", "a b.example", "a\u{7}.example", &"a".repeat(254)] {
        assert!(!one(name), "{name:?}");
    }
}

/// A proof of records that nobody could ever have taken in proves nothing.
#[test]
fn a_proof_speaks_of_epochs_that_its_records_may_speak_of() {
    let of = |published: Time, epochs: std::ops::RangeInclusive<u32>| {
        let made = |sequence| {
            let mut draft = draft(published, 0..=2);
            let first = schedule().epoch_at(now());
            let base = draft.keys.clone();
            draft.keys = epochs
                .clone()
                .zip(base.iter().cycle())
                .map(|(offset, (_, key))| (first.plus(offset), key.clone()))
                .collect();
            draft.sequence = 7;
            draft.contact = format!("{sequence}");
            let octets = draft.sign(&identity(), &NETWORK).unwrap();
            let Ok(Statement::Record(signed)) = Statement::check(&octets, &NETWORK) else {
                panic!()
            };
            signed
        };
        let (one, other) = (made(1), made(2));
        let proof = Proof::of(one.peek(), other.peek(), SPACING).unwrap();
        assert_eq!(proof.dated(&schedule()), published);
        proof.timely(now().plus(Duration::from_secs(4 * 3600)), &schedule(), SPACING)
    };
    let next = now().plus(Duration::from_secs(3 * 3600));
    assert_eq!(of(now(), 0..=3), Ok(()));
    assert_eq!(of(now(), 1..=3), Ok(()));
    assert_eq!(of(now(), 1..=4), Err(StatementError::Future), "a key of too late an epoch");
    assert_eq!(of(now(), 4..=5), Err(StatementError::Future));
    assert_eq!(of(next, 0..=2), Err(StatementError::Future), "a key of an epoch that was past");
    assert_eq!(of(next, 1..=4), Ok(()));
}

proptest! {
    #[test]
    fn any_octets_are_no_statement_and_do_no_harm(
        tag in 0u8..8, octets in proptest::collection::vec(any::<u8>(), 0..600)
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

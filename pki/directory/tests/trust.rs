//! Whom a voter finds routable: vouches, retirements, proofs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{
    MINUTE, SPACING, admit, directory, exit, identity, network, network_of, record, said, schedule,
    start, take_list, vouch, vouched, word,
};
use fog_directory::{Directory, ItemId, Source, Standing, Unwanted};
use keys::Time;
use proptest::prelude::*;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::{Admission, Breach, Proof, VouchDraft, VouchRole, Word};

/// Nodes 1 to 8 of a vouched network, published now; all are exits.
fn nodes(at: Time) -> Directory {
    let mut directory = Directory::new(&network(&vouched()));
    publish(&mut directory, at);
    directory
}

fn publish(directory: &mut Directory, at: Time) {
    for number in 1..=8 {
        let sequence = at.as_millis();
        admit(directory, record(number, sequence, at, Some(exit()))).unwrap();
    }
}

/// The numbers of the nodes that a vote for the hour of `at` lists.
fn viewed(directory: &Directory, at: Time) -> Vec<u8> {
    let list = directory.propose(schedule().hour_at(at));
    (1..=8).filter(|number| list.get(&identity(*number).node()).is_some()).collect()
}

fn epoch_times(count: u32) -> std::time::Duration {
    MINUTE * 180 * count
}

/// The first hour whose votes count what was said at the start.
fn first_hour() -> Time {
    start().plus(MINUTE * 60)
}

#[test]
fn chains_reach_as_far_and_as_wide_as_the_network_allows() {
    let mut directory = nodes(start());
    // 1 -> 2, 3, 4; 2 -> 5; 5 -> 6; 7 -> 8: too wide, right, too long, from nowhere.
    for (voucher, subject, minute) in [(1, 2, 0), (1, 3, 1), (1, 4, 2), (2, 5, 0)] {
        directory
            .note_word(
                vouch(voucher, subject, start().plus(MINUTE * minute)),
                Source::Gossip,
                start(),
            )
            .unwrap();
    }
    for (voucher, subject) in [(5, 6), (7, 8), (4, 8)] {
        let refused =
            directory.note_word(vouch(voucher, subject, start()), Source::Gossip, start());
        assert!(matches!(refused, Err(Unwanted::Unreached)), "{voucher} {subject}");
    }
    assert_eq!(viewed(&directory, first_hour()), [1, 2, 3, 5]);
    let stands = directory.standings(start());
    assert_eq!(stands[&identity(2).node()], Standing::NotListed);
    assert_eq!(stands[&identity(6).node()], Standing::NotVouched);
}

#[test]
fn probation_counts_from_the_list_that_first_named_a_node_whatever_a_voucher_says() {
    let mut directory = nodes(start());
    // With 2 on probation, four others to route through.
    for (voucher, subject) in [(1, 3), (3, 4), (3, 5)] {
        directory.note_word(vouch(voucher, subject, start()), Source::Gossip, start()).unwrap();
    }
    take_list(&mut directory, start().plus(MINUTE * 60));
    let long_ago = start().minus(epoch_times(20));
    let said = start().plus(MINUTE * 60);
    directory.note_word(word(Word::Vouch, 1, 2, long_ago, said), Source::Gossip, start()).unwrap();
    let first = start().plus(MINUTE * 120);
    let stands = |directory: &Directory, at| directory.standings(at)[&identity(2).node()];
    let relays = first.plus(epoch_times(2));
    let others = |directory: &Directory| {
        [1, 3].map(|number| directory.standings(start())[&identity(number).node()])
    };
    assert_eq!(others(&directory), [Standing::Routable; 2], "they were there at the beginning");
    let mut publish_and_list = |at: Time| {
        directory.turn_hour(at.minus(MINUTE * 60));
        publish(&mut directory, at.minus(MINUTE * 50));
        directory.turn_hour(at);
        take_list(&mut directory, at);
        let (hops, exits) = used(&directory);
        (stands(&directory, at), hops.contains(&2), exits.contains(&2))
    };
    let exits = first.plus(epoch_times(8));
    for hours in 0..=23 {
        let expected = match hours {
            0..6 => (Standing::Probation(relays), false, false),
            _ => (Standing::NotYetExit(exits), true, false),
        };
        assert_eq!(publish_and_list(first.plus(MINUTE * 60 * hours)), expected, "{hours}");
    }
    assert_eq!(publish_and_list(exits), (Standing::Routable, true, true));
}

#[test]
fn a_word_for_a_relay_makes_no_exit() {
    let mut directory = nodes(start());
    let draft = VouchDraft {
        word: Word::Vouch,
        subject: identity(2).node(),
        role: VouchRole::Relay,
        since: start(),
        issued_at: start(),
        expires_at: start().plus(MINUTE * 180 * 240),
        extensions: Vec::new(),
    };
    directory.note_word(said(1, &draft), Source::Gossip, start()).unwrap();
    for (voucher, subject) in [(1, 3), (3, 4), (3, 5)] {
        directory.note_word(vouch(voucher, subject, start()), Source::Gossip, start()).unwrap();
    }
    let list = directory.propose(schedule().hour_at(first_hour()));
    let exits = |number| list.get(&identity(number).node()).map(|entry| entry.exits);
    assert_eq!((exits(1), exits(2), exits(3)), (Some(true), Some(false), Some(true)));
    take_list(&mut directory, first_hour());
    assert_eq!(used(&directory), ([1, 2, 3, 4, 5].into(), [1, 3, 4, 5].into()));
}

/// The numbers of the nodes that routes go through, and of those that they end at.
fn used(directory: &Directory) -> (BTreeSet<u8>, BTreeSet<u8>) {
    let number = |node| (1..=8).find(|number| identity(*number).node() == node).unwrap();
    let Ok(view) = directory.view().unwrap().if_sufficient() else { return Default::default() };
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (mut hops, mut exits) = (BTreeSet::new(), BTreeSet::new());
    let epoch = schedule().epoch_at(view.taken());
    for _ in 0..300 {
        let route = view.route(&[], &(epoch..=epoch), &mut rng, |_| true).unwrap();
        hops.extend(route.hops().iter().map(|record| number(record.node())));
        exits.extend(route.hops().last().map(|record| number(record.node())));
    }
    (hops, exits)
}

/// Four roots, all of which vote and vouch.
fn roots() -> Admission {
    let mut roots: Vec<_> = (1..=4).map(|number| identity(number).node()).collect();
    roots.sort_unstable();
    Admission::Vouched { roots, depth: 2, fan_out: 2 }
}

fn retirement(voter: u8, subject: u8) -> record::Vouch {
    said(voter, &retiring(subject))
}

fn retiring(subject: u8) -> VouchDraft {
    VouchDraft {
        word: Word::Retirement,
        subject: identity(subject).node(),
        role: VouchRole::Relay,
        since: start(),
        issued_at: start(),
        expires_at: VouchDraft::FOR_EVER,
        extensions: Vec::new(),
    }
}

#[test]
fn a_word_that_is_not_understood_is_held_and_makes_and_ends_nothing() {
    let unknown = || vec![record::Extension { kind: 99, critical: true, value: vec![1] }];
    let mut directory = nodes(start());
    let known = vouch(1, 2, start());
    let draft = VouchDraft {
        word: Word::Vouch,
        subject: identity(2).node(),
        role: VouchRole::Exit,
        since: start(),
        issued_at: start(),
        expires_at: known.expires_at(),
        extensions: unknown(),
    };
    let word = directory.note_word(said(1, &draft), Source::Gossip, start()).unwrap();
    assert!(directory.holds(&ItemId::of(word.octets())));
    assert_eq!(viewed(&directory, first_hour()), [1]);

    let mut directory = Directory::new(&network_of(&roots(), &[1, 2, 3, 4]));
    for voter in [2, 3, 4] {
        let draft = VouchDraft { extensions: unknown(), ..retiring(1) };
        directory.note_word(said(voter, &draft), Source::Gossip, start()).unwrap();
    }
    assert!(directory.is_voter(&identity(1).node()));
}

#[test]
fn of_two_retirements_all_nodes_keep_the_same_and_a_convicted_voter_retires_nobody() {
    let one = retirement(2, 1);
    let other = said(2, &VouchDraft { role: VouchRole::Exit, ..retiring(1) });
    let octets = [Arc::clone(one.octets()), Arc::clone(other.octets())];
    let (lower, higher) = match one.hash() < other.hash() {
        true => (one, other),
        false => (other, one),
    };
    let lowest = ItemId::of(lower.octets());
    let mut directory = Directory::new(&network_of(&roots(), &[1, 2, 3, 4]));
    publish(&mut directory, start());
    directory.note_word(higher, Source::Gossip, start()).unwrap();
    directory.note_word(lower, Source::Gossip, start()).unwrap();
    let held: Vec<_> = octets.iter().map(|octets| ItemId::of(octets)).collect();
    let held: Vec<_> = held.iter().filter(|name| directory.holds(name)).collect();
    assert_eq!(held, [&lowest]);
    assert_eq!(directory.take_forgotten().len(), 1, "nor is the other kept on a disk");

    directory.note_word(retirement(3, 1), Source::Gossip, start()).unwrap();
    assert!(!directory.is_voter(&identity(1).node()));
    let known = directory.newest(&identity(3).node()).unwrap();
    let twin = record(3, start().as_millis(), start(), None);
    directory.convict(Arc::new(Proof::of(known, &twin, SPACING).unwrap())).unwrap();
    assert!(directory.is_voter(&identity(1).node()), "one of three is left");
}

#[test]
fn a_root_is_retired_by_more_than_half_of_the_others_and_its_word_and_vote_go_with_it() {
    let mut directory = Directory::new(&network_of(&roots(), &[1, 2, 3, 4]));
    publish(&mut directory, start());
    directory.note_word(vouch(1, 5, start()), Source::Gossip, start()).unwrap();
    assert_eq!(viewed(&directory, first_hour()), [1, 2, 3, 4, 5]);
    let stranger = directory.note_word(retirement(7, 1), Source::Gossip, start());
    assert!(matches!(stranger, Err(Unwanted::NoVoter)));
    let of_nobody = directory.note_word(retirement(2, 7), Source::Gossip, start());
    assert!(matches!(of_nobody, Err(Unwanted::NoVoter)));
    directory.note_word(retirement(2, 1), Source::Gossip, start()).unwrap();
    assert_eq!(viewed(&directory, first_hour()), [1, 2, 3, 4, 5], "one of three");
    directory.note_word(retirement(3, 1), Source::Gossip, start()).unwrap();
    assert_eq!(viewed(&directory, first_hour()), [2, 3, 4]);
    assert!(!directory.is_voter(&identity(1).node()) && directory.is_voter(&identity(2).node()));
    assert_eq!(directory.standings(start())[&identity(1).node()], Standing::Retired);
    // Another root cannot bring it back.
    directory.note_word(vouch(4, 1, start().plus(MINUTE)), Source::Gossip, start()).unwrap();
    assert_eq!(viewed(&directory, first_hour()), [2, 3, 4]);
    let long = start().plus(epoch_times(1000));
    directory.expire(long);
    assert!(!directory.is_voter(&identity(1).node()), "for ever");
}

#[test]
fn a_convicted_root_vouches_for_nobody_and_does_not_come_back_by_itself() {
    let mut directory = Directory::new(&network_of(&roots(), &[1, 2, 3, 4]));
    publish(&mut directory, start());
    directory.note_word(vouch(1, 5, start()), Source::Gossip, start()).unwrap();
    let known = directory.newest(&identity(1).node()).unwrap();
    let twin = record(1, start().as_millis(), start(), None);
    let proof = Arc::new(Proof::of(known, &twin, SPACING).unwrap());
    directory.convict(proof).unwrap();
    directory.note_word(vouch(1, 6, start().plus(MINUTE * 5)), Source::Gossip, start()).unwrap();
    assert_eq!(viewed(&directory, first_hour()), [2, 3, 4]);
    let later = start().plus(epoch_times(10));
    directory.expire(later);
    directory.turn_hour(later.minus(MINUTE * 60));
    publish(&mut directory, later.minus(MINUTE * 50));
    assert_eq!(viewed(&directory, later), [2, 3, 4], "its epochs are past");
}

#[test]
fn a_vouch_ends_by_revocation_or_by_its_date_and_its_branch_with_it() {
    let mut directory = nodes(start());
    let since = start().minus(epoch_times(2));
    for (voucher, subject) in [(1, 2), (2, 5)] {
        directory
            .note_word(word(Word::Vouch, voucher, subject, since, start()), Source::Gossip, start())
            .unwrap();
    }
    let hour = start().plus(MINUTE * 60);
    assert_eq!(viewed(&directory, hour), [1, 2, 5]);
    let at = start().plus(MINUTE * 35);
    directory.note_word(word(Word::Revocation, 1, 2, at, at), Source::Gossip, start()).unwrap();
    assert_eq!(viewed(&directory, hour), [1, 2, 5], "it had not settled when votes were due");
    publish(&mut directory, start().plus(MINUTE * 65));
    assert_eq!(viewed(&directory, start().plus(MINUTE * 120)), [1]);
    // Its own words are taken in for the rest of the hour, and count for nothing.
    assert!(!directory.may_vouch(&identity(2).node()));
    let renewed = |minute| word(Word::Vouch, 2, 5, since, start().plus(MINUTE * minute));
    directory.note_word(renewed(100), Source::Gossip, start()).unwrap();
    assert_eq!(viewed(&directory, start().plus(MINUTE * 180)), [1]);
    directory.turn_hour(hour);
    let late = directory.note_word(renewed(110), Source::Gossip, hour);
    assert!(matches!(late, Err(Unwanted::Unreached)));
    let old = word(Word::Vouch, 1, 2, since, start().plus(MINUTE * 5));
    assert!(matches!(directory.note_word(old, Source::Gossip, start()), Err(Unwanted::Older)));
    let again = start().plus(MINUTE * 40);
    directory.note_word(word(Word::Vouch, 1, 2, again, again), Source::Gossip, start()).unwrap();

    let mut directory = nodes(start());
    directory.note_word(word(Word::Vouch, 1, 2, since, start()), Source::Gossip, start()).unwrap();
    let end = start().plus(MINUTE * 180 * 240);
    directory.turn_hour(end.minus(MINUTE * 130));
    publish(&mut directory, end.minus(MINUTE * 120));
    assert_eq!(viewed(&directory, end.minus(MINUTE * 60)), [1, 2]);
    assert_eq!(viewed(&directory, end), [1]);
    assert!(directory.vouches_by(&identity(1).node()).count() == 1);
    directory.expire(end);
    assert_eq!(directory.vouches_by(&identity(1).node()).count(), 0);
}

#[test]
fn one_voucher_fills_no_directory_and_which_of_its_words_stay_is_not_for_the_order_to_say() {
    let held = |subjects: &mut dyn Iterator<Item = u8>| {
        let mut directory = nodes(start());
        for (number, subject) in (0..).zip(subjects) {
            let at = start().plus(MINUTE * 5 * number);
            let _ = directory.note_word(
                word(Word::Vouch, 1, subject, start(), at),
                Source::Gossip,
                start(),
            );
        }
        directory.vouches_by(&identity(1).node()).map(|vouch| vouch.subject()).collect::<Vec<_>>()
    };
    let (up, down) = (held(&mut (2..=60)), held(&mut (2..=60).rev()));
    assert_eq!(up.len(), 4, "twice as many as count");
    assert_eq!(up, down);

    let mut directory = nodes(start());
    directory.note_word(vouch(1, 2, start()), Source::Gossip, start()).unwrap();
    let soon = word(Word::Vouch, 1, 2, start(), start().plus(MINUTE));
    assert!(matches!(directory.note_word(soon, Source::Gossip, start()), Err(Unwanted::TooSoon)));
    // It can be taken back at once, and that only once.
    let back = |minute| {
        let at = start().plus(MINUTE * minute);
        word(Word::Revocation, 1, 2, at, at)
    };
    directory.note_word(back(1), Source::Gossip, start()).unwrap();
    assert!(matches!(
        directory.note_word(back(2), Source::Gossip, start()),
        Err(Unwanted::TooSoon)
    ));
}

#[test]
fn a_word_that_was_held_back_from_some_voters_counts_for_none_of_the_next_votes() {
    let hour = first_hour();
    let said = start().plus(MINUTE * 25);
    let voter = || {
        let mut directory = nodes(start());
        directory.note_word(vouch(1, 2, start()), Source::Gossip, start()).unwrap();
        directory.note_caught_up();
        directory.turn_hour(start().plus(MINUTE));
        directory
    };
    for brought in [35, 36, 50, 51] {
        let mut directory = voter();
        let at = start().plus(MINUTE * brought);
        directory.note_word(vouch(1, 3, said), Source::CatchUp, at).unwrap();
        directory.note_word(word(Word::Revocation, 1, 2, said, said), Source::CatchUp, at).unwrap();
        let (before, after) = ([1, 2].as_slice(), [1, 3].as_slice());
        assert_eq!(viewed(&directory, hour), if brought > 35 { before } else { after });
        // What the present votes named is not forgotten for what they did not see.
        directory.turn_hour(hour);
        assert_eq!(viewed(&directory, hour), if brought > 35 { before } else { after });
        let next = hour.plus(MINUTE * 60);
        publish(&mut directory, start().plus(MINUTE * 70));
        assert_eq!(viewed(&directory, next), if brought > 50 { before } else { after });
    }
}

#[test]
fn what_others_say_takes_nothing_from_a_node() {
    let mut directory = nodes(start());
    let since = start().minus(epoch_times(2));
    for (voucher, subject) in [(1, 2), (2, 5)] {
        directory
            .note_word(word(Word::Vouch, voucher, subject, since, start()), Source::Gossip, start())
            .unwrap();
    }
    let hour = start().plus(MINUTE * 60);
    assert_eq!(viewed(&directory, hour), [1, 2, 5]);
    // Nearer to a root, and later.
    directory.note_word(vouch(1, 5, start()), Source::Gossip, start()).unwrap();
    assert_eq!(viewed(&directory, hour), [1, 2, 5]);
}

#[test]
fn a_word_that_was_renewed_since_the_hour_is_brought_by_a_catch_up() {
    let since = start().minus(epoch_times(2));
    let settled = word(Word::Vouch, 1, 2, since, start());
    let renewed = word(Word::Vouch, 1, 2, since, start().plus(MINUTE * 35));
    let hour = start().plus(MINUTE * 60);
    let mut joiner = nodes(start());
    joiner.turn_hour(hour);
    joiner.note_word(renewed, Source::CatchUp, start()).unwrap();
    assert_eq!(viewed(&joiner, hour), [1]);
    joiner.note_word(settled, Source::CatchUp, start()).unwrap();
    assert_eq!(viewed(&joiner, hour), [1, 2]);
    let older = word(Word::Vouch, 1, 2, since, start().minus(MINUTE * 30));
    assert!(joiner.note_word(older, Source::CatchUp, start()).is_err());
}

#[test]
fn of_two_proofs_all_keep_the_same_and_one_that_nobody_could_have_taken_is_none() {
    let record_of = |at: Time| record(2, start().as_millis(), at, None);
    let mut first = nodes(start());
    let known = first.newest(&identity(2).node()).unwrap().octets().to_vec();
    let known = common::read(&known, start());
    let [one, other] = [1, 2].map(|minute| {
        Arc::new(Proof::of(&known, &record_of(start().plus(MINUTE * minute)), SPACING).unwrap())
    });
    let mut second = nodes(start());
    for proof in [&one, &other] {
        let _ = first.convict(Arc::clone(proof));
    }
    for proof in [&other, &one] {
        let _ = second.convict(Arc::clone(proof));
    }
    let kept = |directory: &Directory| {
        directory.conviction(&identity(2).node(), start()).map(|proof| proof.hash())
    };
    assert_eq!(kept(&first), kept(&second));
    assert_eq!(kept(&first), Some(other.hash()));
}

#[test]
fn who_broke_its_word_is_left_out_until_its_epochs_are_past_and_it_is_vouched_for_again() {
    let mut directory = nodes(start());
    let since = start().minus(epoch_times(2));
    directory.note_word(word(Word::Vouch, 1, 2, since, start()), Source::Gossip, start()).unwrap();
    let hour = start().plus(MINUTE * 60);
    assert_eq!(viewed(&directory, hour), [1, 2]);
    let proof = {
        let known = directory.newest(&identity(2).node()).unwrap();
        Arc::new(Proof::of(known, &record(2, start().as_millis(), start(), None), SPACING).unwrap())
    };
    directory.convict(Arc::clone(&proof)).unwrap();
    assert!(matches!(directory.convict(Arc::clone(&proof)), Err(Unwanted::Known)));
    assert_eq!(viewed(&directory, hour), [1]);
    let stands = directory.standings(start());
    assert_eq!(stands[&identity(2).node()], Standing::Convicted(Breach::OneNumber));

    // The epochs are past; its vouch is as old as its deed.
    let later = start().plus(epoch_times(4));
    directory.expire(later);
    directory.turn_hour(later.minus(MINUTE * 60));
    publish(&mut directory, later.minus(MINUTE * 50));
    assert_eq!(viewed(&directory, later), [1]);
    let at = later.minus(MINUTE * 40);
    directory.note_word(word(Word::Vouch, 1, 2, since, at), Source::Gossip, start()).unwrap();
    assert_eq!(viewed(&directory, later), [1, 2]);
    directory.expire(later);
    assert!(directory.conviction(&identity(2).node(), start()).is_none(), "it is forgotten");
}

#[test]
fn in_an_open_network_a_proof_counts_for_its_epochs() {
    let mut open = directory(6, 6);
    let proof = {
        let known = open.newest(&identity(2).node()).unwrap();
        Arc::new(Proof::of(known, &record(2, 1, start().plus(MINUTE), None), SPACING).unwrap())
    };
    let stranger =
        Proof::of(&record(9, 1, start(), None), &record(9, 1, start(), Some(exit())), SPACING);
    assert!(matches!(open.convict(Arc::new(stranger.unwrap())), Err(Unwanted::Unreached)));
    assert_eq!(viewed(&open, first_hour()), [1, 2, 3, 4, 5, 6]);
    open.convict(Arc::clone(&proof)).unwrap();
    assert_eq!(viewed(&open, first_hour()), [1, 3, 4, 5, 6]);
    let past = schedule().accepted_until(proof.last_epoch(&schedule()));
    assert!(open.conviction(&identity(2).node(), past.minus(MINUTE * 31)).is_some());
    open.expire(past);
    assert!(open.conviction(&identity(2).node(), start()).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The same statements make the same view, whatever order they come in.
    #[test]
    fn the_order_of_arrival_makes_no_difference(
        words in proptest::collection::vec((1u8..7, 1u8..7, 0u32..5, any::<bool>()), 0..14),
        seed: u64,
    ) {
        let since = start().minus(epoch_times(2));
        let statements: Vec<_> = words.into_iter().filter(|(a, b, ..)| a != b).collect();
        let fill = |order: &[(u8, u8, u32, bool)]| {
            let mut directory = nodes(start());
            // Reconciliation brings again what came before its voucher was known.
            for _ in 0..4 {
                for (voucher, subject, at, revoked) in order {
                    let kind = if *revoked { Word::Revocation } else { Word::Vouch };
                    let at = start().plus(MINUTE * 5 * *at);
                    let since = if *revoked { at } else { since };
                    let _ = directory.note_word(word(kind, *voucher, *subject, since, at), Source::Gossip, start());
                }
            }
            viewed(&directory, start().plus(MINUTE * 60))
        };
        let mut shuffled = statements.clone();
        shuffled.shuffle(&mut ChaCha20Rng::seed_from_u64(seed));
        let (first, second) = (fill(&statements), fill(&shuffled));
        // What a full voucher may say more depends on what it said first; nobody else's word does.
        let of = |voucher: u8| statements.iter().filter(|(who, ..)| *who == voucher).count();
        if (1..7).all(|voucher| of(voucher) <= 2) {
            prop_assert_eq!(first, second);
        }
    }
}

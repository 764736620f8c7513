//! Votes and the list that a majority of them makes, with honest voters and others.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::sync::Arc;

use common::{
    LIFE, MINUTE, NETWORK, admit, ballot, catch_up, exit, identity, network_of, read, record,
    schedule, start, vouch, vouched,
};
use fog_directory::{
    Answer, Directory, HourList, ItemId, ListEntry, Reconciliation, Request, Source, Standing,
    Step, Unwanted,
};
use keys::{Hour, Identity, NodeId, Time};
use proptest::prelude::*;
use record::{Admission, Breach, BucketDigest, Draft, Statement, StatementHash, Vote, testing};

/// The voters of these networks.
const VOTERS: [u8; 5] = [1, 2, 3, 4, 5];
/// The nodes of these networks.
const NODES: u8 = 12;

/// The hour whose list is voted, and its start.
fn coming() -> (Hour, Time) {
    let at = start().plus(MINUTE * 60);
    (schedule().hour_at(at), at)
}

fn open() -> Directory {
    Directory::new(&network_of(&Admission::Open, &VOTERS))
}

/// A directory that knows all nodes.
fn full() -> Directory {
    let mut directory = open();
    for number in 1..=NODES {
        admit(&mut directory, record(number, 1, start(), Some(exit()))).unwrap();
    }
    directory
}

/// The votes of these voters for what a directory proposes.
fn votes(directory: &Directory, voters: &[u8], hour: Hour) -> Vec<Vote> {
    let list = directory.propose(hour);
    voters.iter().map(|voter| ballot(*voter, &list, directory)).collect()
}

fn again(vote: &Vote) -> Vote {
    match Statement::check(vote.octets(), &NETWORK) {
        Ok(Statement::Vote(vote)) => *vote,
        _ => panic!("a vote"),
    }
}

fn hear(directory: &mut Directory, votes: &[Vote], now: Time) -> Option<Arc<HourList>> {
    for vote in votes {
        directory.note_vote(again(vote), now).unwrap();
    }
    directory.assemble(now)
}

/// A vote for other nodes than there are.
fn lie(voter: u8, salt: u8, hour: Hour) -> Vote {
    let entry = |number: u8| ListEntry {
        node: NodeId::from_bytes([number; 32]),
        record: StatementHash::from_bytes([salt; 32]),
        since: Hour::default(),
        exits: true,
    };
    ballot(voter, &HourList::new(hour, (0..=255).map(entry)), &open())
}

#[test]
fn more_than_half_of_all_voters_make_a_list_whatever_the_others_say() {
    let (hour, at) = coming();
    let honest = full();
    let good = votes(&honest, &[1, 2, 3], hour);
    for (name, rest) in [
        ("dead", vec![]),
        ("lying", vec![lie(4, 1, hour), lie(5, 2, hour)]),
        ("lying alike", vec![lie(4, 1, hour), lie(5, 1, hour)]),
    ] {
        let mut node = full();
        assert!(hear(&mut node, &good[..2], at).is_none(), "two of five");
        assert!(hear(&mut node, &rest, at).is_none(), "{name}");
        let list = hear(&mut node, &good[2..], at).unwrap();
        assert_eq!(*list, honest.propose(hour), "{name}");
        assert_eq!(node.view().unwrap().if_sufficient().unwrap().len(), usize::from(NODES));
        let missing = node.missing_voters(hour);
        assert_eq!(missing.len(), if rest.is_empty() { 2 } else { 0 });
    }
}

#[test]
fn the_order_in_which_votes_come_makes_no_difference() {
    let (hour, at) = coming();
    let honest = full();
    let mut all = votes(&honest, &[1, 2, 3], hour);
    all.extend([lie(4, 1, hour), lie(5, 2, hour)]);
    let mut lists = Vec::new();
    for turn in 0..all.len() {
        all.rotate_left(usize::from(turn > 0));
        let mut node = full();
        for vote in &all {
            hear(&mut node, std::slice::from_ref(vote), at);
        }
        lists.push(node.list().unwrap().hash());
    }
    assert!(lists.iter().all(|hash| *hash == lists[0]));
}

#[test]
fn a_bucket_without_a_majority_keeps_its_entries_and_takes_no_other_with_it() {
    let (hour, at) = coming();
    let mut node = full();
    let first = hear(&mut node, &votes(&full(), &[1, 2, 3], hour), at).unwrap();
    // An hour later everybody has renewed its record, and of node 7 each voter knows another.
    let (next, later) = (hour.plus(1), at.plus(MINUTE * 60));
    let renew = |directory: &mut Directory, of_seven: u64| {
        directory.turn_hour(at);
        for number in 1..=NODES {
            let sequence = if number == 7 { of_seven } else { 2 };
            let renewed = record(number, sequence, at, Some(exit()));
            directory.admit(renewed, Source::Gossip, at).unwrap();
        }
        directory.turn_hour(later);
    };
    let mut ballots = Vec::new();
    for voter in VOTERS {
        let mut eyes = full();
        hear(&mut eyes, &votes(&full(), &[1, 2, 3], hour), at).unwrap();
        renew(&mut eyes, 1 + u64::from(voter));
        ballots.extend(votes(&eyes, &[voter], next));
    }
    renew(&mut node, 2);
    let second = hear(&mut node, &ballots, later).unwrap();
    let seven = identity(7).node();
    assert_eq!(second.get(&seven), first.get(&seven), "as it was");
    let renewed = second.iter().filter(|entry| first.get(&entry.node) != Some(entry));
    let mates = (1..=NODES).filter(|n| identity(*n).node().as_bytes()[0] == seven.as_bytes()[0]);
    assert_eq!(renewed.count(), usize::from(NODES) - mates.count());
    assert!(node.view().unwrap().if_sufficient().unwrap().get(&seven).is_some());
}

#[test]
fn in_a_first_list_a_bucket_without_a_majority_is_empty_and_a_joiner_later_knows_none() {
    let (hour, at) = coming();
    // Of node 7 each voter knows another record.
    let ballots = |before: &dyn Fn(&mut Directory), hour: Hour, at: Time| {
        let mut ballots = Vec::new();
        for voter in VOTERS {
            let mut eyes = open();
            for number in 1..=NODES {
                let sequence = if number == 7 { 10 + u64::from(voter) } else { 1 };
                let dated = at.minus(MINUTE * 60);
                admit(&mut eyes, record(number, sequence, dated, Some(exit()))).unwrap();
            }
            before(&mut eyes);
            ballots.extend(votes(&eyes, &[voter], hour));
        }
        ballots
    };
    let mut node = full();
    let list = hear(&mut node, &ballots(&|_| {}, hour, at), at).unwrap();
    let mates = (1..=NODES)
        .filter(|n| identity(*n).node().as_bytes()[0] == identity(7).node().as_bytes()[0]);
    assert_eq!(list.len(), usize::from(NODES) - mates.count());
    assert!(list.get(&identity(7).node()).is_none());
    // In the next hour it is the same; the list before is not nothing any more.
    let (next, later) = (hour.plus(1), at.plus(MINUTE * 60));
    let known = |eyes: &mut Directory| eyes.restore_list(HourList::clone(&list));
    let mut joiner = full();
    joiner.turn_hour(later);
    assert!(hear(&mut joiner, &ballots(&known, next, later), later).is_none());
    assert!(!joiner.lacks_list(), "it cannot know what it lacks");
}

/// Takes what an answer brings, as a node does.
fn take(directory: &mut Directory, answer: &mut Answer, now: Time) {
    match answer {
        Answer::Items(items) => {
            for (_, checked) in items {
                match core::mem::replace(checked, Err(record::StatementError::Unknown)) {
                    Ok(Statement::Record(signed)) => {
                        let _ = catch_up(directory, read(signed.peek().octets(), now), now);
                    }
                    Ok(Statement::Vouch(word)) => {
                        let word = word.timely(now, &schedule(), LIFE).unwrap();
                        let _ = directory.note_word(word, Source::CatchUp, start());
                    }
                    Ok(Statement::Vote(vote)) => {
                        let _ = directory.note_vote(*vote, now);
                    }
                    Ok(Statement::Proof(proof)) => {
                        let _ = directory.convict(Arc::from(proof));
                    }
                    Err(_) => {}
                }
            }
        }
        Answer::Entries(buckets) => {
            for entries in buckets {
                directory.take_bucket(entries);
            }
        }
        Answer::Summary(_) | Answer::List(..) => {}
    }
    directory.assemble(now);
}

/// A conversation to its end.
fn converse(
    node: &mut Directory,
    who: u8,
    holder: &Directory,
    now: Time,
    bend: impl Fn(&Request, Vec<u8>) -> Vec<u8>,
) -> Step {
    let (mut asking, who) = (Reconciliation::default(), NodeId::from_bytes([who; 32]));
    let mut request = asking.begin(who, now).unwrap();
    for _ in 0..1000 {
        let octets = holder.answer(&request.encode().unwrap(), now).unwrap();
        let mut answer = Answer::check(&bend(&request, octets), &NETWORK).unwrap();
        take(node, &mut answer, now);
        match asking.handle_answer(&who, &answer, node, now) {
            Step::Ask(next) => request = next,
            step => return step,
        }
    }
    panic!("it does not end")
}

fn honest(_: &Request, octets: Vec<u8>) -> Vec<u8> {
    octets
}

#[test]
fn a_joiner_needs_votes_and_entries_only_and_peers_can_give_it_no_list_of_their_own() {
    let (hour, at) = coming();
    let mut holder = full();
    hear(&mut holder, &votes(&full(), &[1, 2, 3], hour), at).unwrap();
    let expected = holder.list().unwrap().hash();
    let mut joiner = open();
    assert!(matches!(converse(&mut joiner, 1, &holder, at, honest), Step::Done(_)));
    assert_eq!(joiner.list().unwrap().hash(), expected);
    assert_eq!(joiner.view().unwrap().if_sufficient().unwrap().len(), usize::from(NODES));

    // Hostile peers know two of the voters' votes at most, and give other entries for a bucket.
    let mut few = full();
    for vote in votes(&full(), &[1, 2], hour) {
        few.note_vote(vote, at).unwrap();
    }
    let mut joiner = open();
    for peer in 1..=3 {
        converse(&mut joiner, peer, &few, at, honest);
    }
    assert!(joiner.list().is_none(), "none is all that they can give");
    let entry = holder.list().unwrap().get(&identity(7).node()).copied().unwrap();
    let forged = HourList::new(hour, [ListEntry { exits: false, ..entry }]);
    let mut forger = open();
    forger.restore_list(forged.clone());
    let digest = forged.digests()[usize::from(entry.bucket())];
    let asked = Request::Entries(vec![(entry.bucket(), digest)]).encode().unwrap();
    let answer = forger.answer(&asked, at).unwrap();
    let mut joiner = open();
    for vote in votes(&full(), &[1, 2, 3], hour) {
        joiner.note_vote(vote, at).unwrap();
    }
    joiner.assemble(at);
    let foist = |request: &Request, octets: Vec<u8>| match request {
        Request::Entries(_) => answer.clone(),
        _ => octets,
    };
    assert!(matches!(converse(&mut joiner, 9, &holder, at, foist), Step::Bad), "hung up on");
    assert!(joiner.list().is_none());
    converse(&mut joiner, 1, &holder, at, honest);
    assert_eq!(joiner.list().unwrap().hash(), expected, "another gives it");
}

#[test]
fn a_record_that_the_list_names_is_taken_whatever_else_is_held_of_its_author() {
    let (hour, at) = coming();
    let votes = votes(&full(), &[1, 2, 3], hour);
    // A peer showed this node alone a later record of 7 that had settled too.
    let mut node = full();
    let alone = record(7, 9, start().plus(MINUTE * 20), None);
    catch_up(&mut node, alone, start().plus(MINUTE * 40)).unwrap();
    node.turn_hour(at);
    assert!(hear(&mut node, &votes, at).is_none());
    assert!(node.lacks_list());
    let mut holder = full();
    hear(&mut holder, &votes, at).unwrap();
    converse(&mut node, 1, &holder, at, honest);
    assert_eq!(node.list(), holder.list());
    let seen = node.view().unwrap().if_sufficient().unwrap();
    assert_eq!(seen.get(&identity(7).node()).unwrap().sequence(), 1);
    assert_eq!(node.newest(&identity(7).node()).unwrap().sequence(), 9);
    assert!(!node.lacks_list());
}

/// Node 7's second record, dated too late for gossip to take it when the votes are near, and held
/// back until `brought`.
fn late(directory: &mut Directory, brought: u32) {
    directory.note_caught_up();
    directory.turn_hour(start().plus(MINUTE));
    let renewal = record(7, 2, start().plus(MINUTE * 25), None);
    catch_up(directory, renewal, start().plus(MINUTE * brought)).unwrap();
}

#[test]
fn the_record_that_the_votes_named_stays_whatever_reconciliation_brought_late() {
    let (hour, at) = coming();
    let votes = votes(&full(), &[1, 2, 3], hour);
    let mut node = full();
    late(&mut node, 40);
    node.turn_hour(at);
    let list = hear(&mut node, &votes, at).expect("nothing has to be asked for");
    let seven = identity(7).node();
    assert_eq!(node.view().unwrap().if_sufficient().unwrap().get(&seven).unwrap().sequence(), 1);
    assert_eq!(list.len(), usize::from(NODES));
}

#[test]
fn a_listed_record_that_contradicts_another_is_held_for_peers_and_convicts_its_author() {
    let (hour, at) = coming();
    let votes = votes(&full(), &[1, 2, 3], hour);
    let mut node = open();
    for number in 1..=NODES {
        let exit = (number != 7).then(exit);
        admit(&mut node, record(number, 1, start(), exit)).unwrap();
    }
    assert!(hear(&mut node, &votes, at).is_none(), "it knows another record of 7");
    let mut holder = full();
    hear(&mut holder, &votes, at).unwrap();
    let entries = holder.list().unwrap().bucket(identity(7).node().as_bytes()[0]);
    node.take_bucket(&entries);
    node.assemble(at);
    let named = record(7, 1, start(), Some(exit()));
    let name = ItemId::of(named.octets());
    let admitted = node.admit(named, Source::CatchUp, at);
    assert!(matches!(admitted, Err(Unwanted::Broken(_))));
    assert!(node.holds(&name), "peers that lack it can ask here");
    assert_eq!(node.assemble(at).unwrap().len(), usize::from(NODES));
    assert!(node.view().unwrap().if_sufficient().unwrap().get(&identity(7).node()).is_some());
}

#[test]
fn what_reconciliation_brings_late_counts_from_the_next_hour() {
    let (hour, _) = coming();
    let seventh = identity(7).node();
    let lists = |directory: &Directory, hour| directory.propose(hour).get(&seventh).copied();
    let of = |directory: &Directory| directory.newest(&seventh).unwrap().hash();
    let before = lists(&full(), hour).unwrap().record;
    // The votes for the hour are signed at its minute 50; those for the next one, an hour later,
    // look at what was there then.
    for (brought, counts, counts_next) in
        [(35, true, true), (36, false, true), (50, false, true), (51, false, false)]
    {
        let mut voter = full();
        late(&mut voter, brought);
        let named = |hour| lists(&voter, hour).unwrap().record;
        let expected = |counts| if counts { of(&voter) } else { before };
        assert_eq!(named(hour), expected(counts), "{brought}");
        assert_eq!(named(hour.plus(1)), expected(counts_next), "{brought}");
    }
    // A joiner hears all by reconciliation: it takes what it is told for what the others know.
    let mut joiner = full();
    joiner.turn_hour(start().plus(MINUTE));
    catch_up(&mut joiner, record(7, 2, start().plus(MINUTE * 25), None), start().plus(MINUTE * 45))
        .unwrap();
    assert_eq!(lists(&joiner, hour).unwrap().record, of(&joiner));
}

#[test]
fn two_votes_for_one_hour_are_a_proof_and_their_voter_counts_no_more() {
    let (hour, at) = coming();
    let mut node = full();
    let honest = votes(&full(), &[1, 2, 3], hour);
    let rival = lie(3, 9, hour);
    assert!(hear(&mut node, &honest, at).is_some());
    let Err(Unwanted::Broken(proof)) = node.note_vote(rival, at) else { panic!("a proof") };
    assert_eq!((proof.breach(), proof.node()), (Breach::TwoVotes, identity(3).node()));
    node.convict(Arc::clone(&proof)).unwrap();
    // In the next hour it takes one more of the others.
    let (next, later) = (hour.plus(1), at.plus(MINUTE * 60));
    node.turn_hour(later);
    let next_votes = votes(&node, &[1, 2, 3, 4], next);
    assert!(hear(&mut node, &next_votes[..3], later).is_none());
    let list = hear(&mut node, &next_votes[3..], later).unwrap();
    assert!(list.get(&identity(3).node()).is_none(), "nor is it routed through");
    let long = later.plus(MINUTE * 180 * 50);
    node.expire(long);
    assert!(node.conviction(&identity(3).node(), long).is_some(), "a voter for good");
}

#[test]
fn votes_of_others_or_for_other_hours_are_refused() {
    let (hour, at) = coming();
    let mut node = full();
    let now = at.minus(MINUTE * 5);
    let refused = |node: &mut Directory, vote| node.note_vote(vote, now).err();
    let list = |hour| full().propose(hour);
    assert!(matches!(refused(&mut node, ballot(9, &list(hour), &open())), Some(Unwanted::NoVoter)));
    for (ahead, taken) in
        [(-4_i64, false), (-3, true), (-2, true), (-1, true), (0, true), (1, false), (90, false)]
    {
        let of = Hour::new(hour.number().saturating_add_signed(ahead));
        let why = refused(&mut node, ballot(1, &list(of), &open()));
        assert_eq!(why.is_none(), taken, "{ahead} {why:?}");
    }
    // Not before it may be signed, give or take what clocks differ.
    let early = at.minus(MINUTE * 21);
    let vote = || ballot(2, &list(hour), &open());
    assert!(matches!(node.note_vote(vote(), early), Err(Unwanted::OtherHour)));
    assert!(node.note_vote(vote(), at.minus(MINUTE * 20)).is_ok());
    assert!(matches!(node.note_vote(vote(), now), Err(Unwanted::Known)));
    // They are held for three hours.
    let held = node.statements().count();
    node.turn_hour(at.plus(MINUTE * 200));
    assert_eq!(node.statements().count(), held - 5);
}

#[test]
fn the_last_list_goes_on_while_there_is_none_and_outlives_a_restart() {
    let (hour, at) = coming();
    let mut node = full();
    let list = hear(&mut node, &votes(&full(), &[1, 2, 3], hour), at).unwrap();
    let later = at.plus(MINUTE * 180);
    node.turn_hour(later);
    assert!(node.assemble(later).is_none());
    assert_eq!(node.list(), Some(&list));
    let mut restarted = full();
    restarted.restore_list(HourList::from_octets(&list.to_octets()).unwrap());
    assert_eq!(restarted.list(), Some(&list));
    assert_eq!(restarted.view().unwrap().if_sufficient().unwrap().len(), usize::from(NODES));
    assert!(HourList::from_octets(&list.to_octets()[..50]).is_none());
    assert!(HourList::from_octets(&[9; 400]).is_none());
}

#[test]
fn in_a_network_just_started_the_next_votes_name_what_the_first_list_named() {
    // It starts a quarter of an hour before the hour: nothing has settled when votes are due.
    let now = start().plus(MINUTE * 45);
    let mut node = open();
    for number in 1..=NODES {
        admit(&mut node, record(number, 1, now, Some(exit()))).unwrap();
    }
    let present = schedule().hour_at(now);
    let first = node.propose_first(present);
    let ballots: Vec<_> = [1, 2, 3].map(|voter| ballot(voter, &first, &node)).into();
    hear(&mut node, &ballots, now).unwrap();
    admit(&mut node, record(40, 1, now, None)).unwrap();
    let next = node.propose(present.plus(1));
    assert!(next.iter().eq(first.iter()), "these, and no newcomer yet");
}

/// An identity that nobody knows.
fn stranger(number: u32) -> Identity {
    let mut seed = [0xaa; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(&seed)
}

fn of_stranger(number: u32, sequence: u64, at: Time) -> record::Record {
    let draft = Draft { sequence, ..testing::draft(1, at, &schedule()) };
    read(&draft.sign(&stranger(number), &NETWORK).unwrap(), at)
}

#[test]
fn eight_records_of_one_stranger_at_each_node_convict_it_and_change_no_vote() {
    let (hour, _) = coming();
    let network = network_of(&vouched(), &[1]);
    let mut proposals = Vec::new();
    for node in 0..5_u64 {
        let mut directory = Directory::new(&network);
        for number in 1..=4 {
            admit(&mut directory, record(number, 1, start(), Some(exit()))).unwrap();
        }
        directory.note_word(vouch(1, 2, start()), Source::Gossip, start()).unwrap();
        let mut proven = 0;
        for k in 0..8 {
            let sequence = 1 + k * 5 + node;
            let at = start().plus(std::time::Duration::from_secs(sequence));
            if let Err(Unwanted::Broken(proof)) =
                catch_up(&mut directory, of_stranger(1, sequence, at), at)
            {
                proven += 1;
                let _ = directory.convict(proof);
            }
        }
        assert_eq!(proven, 7);
        assert!(matches!(
            directory.standings(start())[&stranger(1).node()],
            Standing::Convicted(Breach::TooClose)
        ));
        proposals.push(directory.propose(hour).hash());
    }
    assert!(proposals.iter().all(|hash| *hash == proposals[0]));
}

#[test]
fn strangers_crowd_out_neither_vouched_nodes_nor_roots_and_change_no_vote() {
    let (hour, _) = coming();
    let network = network_of(&vouched(), &[1]);
    let strangers: Vec<_> = (0..2300).map(|n| of_stranger(n, 1, start())).collect();
    let mut proposals = Vec::new();
    for backwards in [false, true] {
        let mut directory = Directory::new(&network);
        directory.note_caught_up();
        for lot in 0..3 {
            directory.turn_hour(start().plus(MINUTE * lot));
            let mut order: Vec<_> = strangers.iter().collect();
            if backwards {
                order.reverse();
            }
            for record in order {
                let _ = admit(&mut directory, read(record.octets(), start()));
            }
        }
        assert_eq!(directory.len(), 2000);
        directory.note_word(vouch(1, 2, start()), Source::Gossip, start()).unwrap();
        for number in [1, 2] {
            admit(&mut directory, record(number, 1, start(), None)).unwrap();
        }
        let list = directory.propose(hour);
        assert_eq!(list.len(), 2);
        proposals.push(list.hash());
    }
    assert_eq!(proposals[0], proposals[1]);
}

#[test]
fn a_node_that_was_away_until_all_had_lapsed_learns_as_a_joiner_does() {
    let mut directory = Directory::new(&network_of(&vouched(), &[1]));
    for number in 0..1500 {
        catch_up(&mut directory, of_stranger(number, 1, start()), start()).unwrap();
    }
    directory.note_caught_up();
    directory.turn_hour(start().plus(MINUTE * 60));
    let morning = start().plus(MINUTE * 60 * 14);
    assert_eq!(directory.expire(morning).len(), 1500);
    directory.turn_hour(morning);
    for number in 0..1500 {
        catch_up(&mut directory, of_stranger(number, 2, morning), morning).unwrap();
    }
}

#[test]
fn a_record_that_is_not_understood_or_of_one_that_leaves_is_held_and_not_routed_through() {
    let (hour, _) = coming();
    for (extension, stands) in [
        (record::Extension { kind: 99, critical: true, value: vec![1] }, Standing::NotUnderstood),
        (record::Extension::leaving(), Standing::Leaving),
    ] {
        let mut directory = full();
        let mut draft = testing::draft(50, start(), &schedule());
        draft.extensions = vec![extension];
        let octets = draft.sign(&identity(50), &NETWORK).unwrap();
        admit(&mut directory, read(&octets, start())).unwrap();
        assert!(directory.knows(&identity(50).node()));
        assert!(directory.propose(hour).get(&identity(50).node()).is_none());
        assert_eq!(directory.standings(start())[&identity(50).node()], stands);
    }
}

#[test]
fn a_list_its_digests_hash_and_sketch_are_those_of_the_vector() {
    let entry = |number: u8| ListEntry {
        node: NodeId::from_bytes([number; 32]),
        record: StatementHash::from_bytes([number + 1; 32]),
        since: Hour::new(495_000),
        exits: number == 8,
    };
    let mut second = entry(8);
    second.node = NodeId::from_bytes([[8; 31].as_slice(), &[9]].concat().try_into().unwrap());
    let list = HourList::new(Hour::new(495_001), [second, entry(8), entry(200)]);
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let written = format!(
        "octets = {}\ndigest of bucket 8 = {}\nhash = {}\nsketch = {}\n",
        hex(&list.to_octets()),
        hex(list.digests()[8].as_bytes()),
        hex(list.hash().as_bytes()),
        hex(list.sketch().as_bytes()),
    );
    assert_eq!(written, include_str!("vectors/list-1.txt"));
}

proptest! {
    #[test]
    fn a_list_is_read_as_it_was_written_and_any_octets_do_no_harm(
        entries in proptest::collection::btree_map(
            any::<[u8; 32]>(), (any::<[u8; 32]>(), any::<u64>(), any::<bool>()), 0..40
        ),
        hour: u64,
        garbage: Vec<u8>,
    ) {
        let entries = entries.into_iter().map(|(node, (record, since, exits))| ListEntry {
            node: NodeId::from_bytes(node),
            record: StatementHash::from_bytes(record),
            since: Hour::new(since),
            exits,
        });
        let list = HourList::new(Hour::new(hour), entries);
        prop_assert_eq!(HourList::from_octets(&list.to_octets()), Some(list.clone()));
        let of_buckets: usize = (0..=255).map(|bucket| list.bucket(bucket).len()).sum();
        prop_assert_eq!(of_buckets, list.len());
        for bucket in 0..=255_u8 {
            let is_empty = list.digests()[usize::from(bucket)] == BucketDigest::EMPTY;
            prop_assert_eq!(is_empty, list.bucket(bucket).is_empty());
        }
        let _ = HourList::from_octets(&garbage);
    }
}

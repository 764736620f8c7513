//! Views and routes over directories of real records.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{
    MINUTE, NETWORK, admit, catch_up, directory, empty, epochs, exit, first_view, identity, read,
    record, record_naming, schedule, start,
};
use fog_directory::{Admitted, Directory, Route, RouteError, Unwanted, View};
use keys::{Epoch, NodeId};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::{Breach, Draft, Parameters, Record, testing};

fn viewed(mut directory: Directory) -> View {
    first_view(&mut directory).unwrap()
}

#[test]
fn nothing_known_is_displaced() {
    let mut directory = directory(2, 0);
    let again = |directory: &mut Directory, record| {
        admit(directory, record).err().map(|why| why.to_string())
    };
    let because = |why: Unwanted| Some(why.to_string());
    assert_eq!(again(&mut directory, record(1, 1, start(), None)), because(Unwanted::Known));
    let later = start().plus(MINUTE * 5);
    let soon = later.minus(Duration::from_millis(1));
    for (at, number) in [(soon, 5), (soon, 0)] {
        let close = admit(&mut directory, record(1, number, at, None));
        assert!(
            matches!(close, Err(Unwanted::Broken(proof)) if proof.breach() == Breach::TooClose)
        );
    }
    let before = start().minus(MINUTE * 5);
    assert_eq!(again(&mut directory, record(1, 5, before, None)), because(Unwanted::TooSoon));
    let how = admit(&mut directory, record(1, 5, later, None)).unwrap();
    assert_eq!(how, Admitted::Renewal);
    let earlier = start().minus(MINUTE * 10);
    assert_eq!(again(&mut directory, record(1, 4, earlier, None)), because(Unwanted::Older));
    let second = admit(&mut directory, record(1, 5, later, Some(exit())));
    assert!(matches!(second, Err(Unwanted::Broken(proof)) if proof.breach() == Breach::OneNumber));
    assert_eq!(directory.newest(&identity(1).node()).unwrap().sequence(), 5);
    assert_eq!(directory.len(), 2);
}

#[test]
fn a_record_is_passed_on_once_whether_gossip_or_a_catch_up_brought_it() {
    let mut directory = directory(1, 0);
    let newest = directory.newest(&identity(1).node()).unwrap().octets().to_vec();
    assert!(directory.pass_on(&newest));
    assert!(!directory.pass_on(&newest));
    let stranger = record(2, 1, start(), None);
    assert!(!directory.pass_on(stranger.octets()));
    admit(&mut directory, record(1, 2, start().plus(MINUTE * 5), None)).unwrap();
    assert!(!directory.pass_on(&newest), "it is not the newest any more");
    assert!(!directory.pass_on(b"\x01garbage"));
}

#[test]
fn the_record_of_the_view_outlives_any_number_of_renewals_and_can_be_fetched() {
    let mut directory = directory(1, 0);
    // Half an hour before the hour is what its votes need.
    directory.turn_hour(start().plus(MINUTE * 60));
    for number in 2..14 {
        let at = start().plus(MINUTE * 5 * (u32::try_from(number).unwrap() + 5));
        admit(&mut directory, record(1, number, at, None)).unwrap();
    }
    let sequences = |directory: &Directory| -> Vec<u64> {
        let at = start().plus(MINUTE * 100);
        let mut held: Vec<_> =
            directory.statements().map(|octets| read(octets, at).sequence()).collect();
        held.sort_unstable();
        held
    };
    assert_eq!(sequences(&directory), [1, 7, 8, 9, 10, 11, 12, 13]);
    // What is older is no news; what a view needs and is missing may come late.
    let mut late = empty();
    let now = start().plus(MINUTE * 60);
    late.turn_hour(now);
    admit(&mut late, record(1, 13, now, None)).unwrap();
    assert!(admit(&mut late, record(1, 1, start(), None)).is_err());
    assert!(catch_up(&mut late, record(1, 1, start(), None), now).is_ok());
    let older = record(1, 0, start().minus(MINUTE * 5), None);
    assert!(catch_up(&mut late, older, now).is_err());
    assert!(catch_up(&mut late, record(1, 7, start().plus(MINUTE * 30), None), now).is_ok());
    assert_eq!(sequences(&late), [1, 7, 13]);
    assert_eq!(late.newest(&identity(1).node()).unwrap().sequence(), 13);
    late.turn_hour(start().plus(MINUTE * 120));
    assert_eq!(sequences(&late), [13]);
}

#[test]
fn records_lapse_with_their_last_key() {
    let mut directory = directory(2, 0);
    let end = schedule().end(Epoch::new(165_002));
    assert!(directory.expire(end.plus(MINUTE * 29)).is_empty());
    admit(&mut directory, record(1, 2, end, None)).unwrap();
    assert_eq!(directory.expire(end.plus(MINUTE * 30)), [identity(2).node()]);
    assert_eq!(directory.len(), 1);
}

#[test]
fn too_few_nodes_make_no_view_and_no_route() {
    for count in 1..=3 {
        let view = first_view(&mut directory(count, count));
        assert_eq!(view.err(), Some(RouteError::TooFewNodes));
    }
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let own = identity(1).node();
    let all = viewed(directory(4, 4));
    assert!(all.route(&[own], &epochs(), &mut rng, |_| true).is_ok());
    let none = all.route(&[own], &epochs(), &mut rng, |_| false).err();
    assert_eq!(none, Some(RouteError::NoExit));
    let far = Epoch::new(165_002)..=Epoch::new(165_003);
    let keyless = all.route(&[own], &far, &mut rng, |_| true).err();
    assert_eq!(keyless, Some(RouteError::TooFewNodes));
}

#[test]
fn routes_are_distinct_and_end_at_an_exit_that_may_deliver() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for count in 4..=9 {
        let view = viewed(directory(count, 2));
        let own = identity(1).node();
        for _ in 0..300 {
            let route =
                view.route(&[own], &epochs(), &mut rng, |record| record.exit().is_some()).unwrap();
            let nodes: BTreeSet<NodeId> = route.hops().iter().map(|record| record.node()).collect();
            assert_eq!(nodes.len(), route.hops().len());
            assert!((Route::MIN..=Route::MAX).contains(&nodes.len()));
            assert!(!nodes.contains(&own));
            assert_eq!(route.hops().last().unwrap().node(), identity(2).node());
        }
    }
}

/// Further attempts at a mail go by the first hop of the first one, in a small network and in a large one.
#[test]
fn a_route_through_a_given_node_begins_there_and_is_like_any_other_from_then_on() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    for (count, exits) in [(5, 3), (9, 4), (120, 20)] {
        let view = viewed(directory(count, exits));
        let own = identity(count).node();
        let linked = |one: NodeId, other: NodeId| view.links_of(&one).unwrap().contains(&other);
        let delivers = |record: &Record| record.exit().is_some();
        let (mut lengths, mut ends) = (BTreeSet::new(), BTreeSet::new());
        let first = view.route(&[own], &epochs(), &mut rng, delivers).unwrap().hops()[0].node();
        for _ in 0..400 {
            let route = view.route_through(&first, &[own], &epochs(), &mut rng, delivers).unwrap();
            let nodes: Vec<NodeId> = route.hops().iter().map(|record| record.node()).collect();
            assert!(nodes[0] == first && !nodes.contains(&own));
            assert!(nodes.windows(2).all(|pair| linked(pair[0], pair[1])));
            assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), nodes.len());
            assert!(route.hops().last().unwrap().exit().is_some());
            lengths.insert(nodes.len());
            ends.insert(*nodes.last().unwrap());
        }
        let longest = usize::from(count - 1).min(Route::MAX);
        assert_eq!(lengths, (Route::MIN..=longest).collect());
        assert!(ends.len() + 1 >= usize::from(exits), "{} of {exits} exits", ends.len());
        let unknown = identity(250).node();
        let none = view.route_through(&unknown, &[own], &epochs(), &mut rng, delivers).err();
        assert_eq!(none, Some(RouteError::TooFewNodes));
        let to_first = |record: &Record| record.node() == first;
        let none = view.route_through(&first, &[own], &epochs(), &mut rng, to_first).err();
        assert!(none.is_some(), "no node is passed twice");
    }
}

#[test]
fn no_route_holds_two_of_one_family() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    // 1 sends, and runs 7; 2, 3, 4 are one family, 5, 6 another; 8 claims 9, which knows nothing of
    // it.
    let named: [&[u8]; 10] = [&[7], &[3, 4], &[2, 4], &[2, 3], &[6], &[5], &[1], &[9], &[], &[]];
    let mut directory = empty();
    for (number, family) in (1..).zip(named) {
        admit(&mut directory, record_naming(family, number, 1, start(), Some(exit()))).unwrap();
    }
    let view = viewed(directory);
    let own = [identity(1).node(), identity(7).node()];
    let number = |node: NodeId| (1..=10).find(|n| identity(*n).node() == node).unwrap();
    let (mut seen, mut together) = (BTreeSet::new(), false);
    for _ in 0..2000 {
        let route = view.route(&own, &epochs(), &mut rng, |_| true).unwrap();
        let nodes: BTreeSet<u8> = route.hops().iter().map(|record| number(record.node())).collect();
        let of = |family: &[u8]| family.iter().filter(|node| nodes.contains(node)).count();
        assert!(of(&[2, 3, 4]) <= 1 && of(&[5, 6]) <= 1 && of(&[1, 7]) == 0, "{nodes:?}");
        together |= of(&[8, 9]) == 2;
        seen.extend(nodes);
    }
    assert_eq!(seen, BTreeSet::from([2, 3, 4, 5, 6, 8, 9, 10]));
    assert!(together, "what one says alone counts for nothing");

    // Four families are three hops for a fifth, and no more.
    let mut few = empty();
    for (number, family) in [(1, &[2][..]), (2, &[1]), (3, &[4]), (4, &[3]), (5, &[]), (6, &[])] {
        admit(&mut few, record_naming(family, number, 1, start(), Some(exit()))).unwrap();
    }
    let view = viewed(few);
    for _ in 0..100 {
        let route = view
            .route(&[identity(1).node(), identity(2).node()], &epochs(), &mut rng, |_| true)
            .unwrap();
        assert_eq!(route.hops().len(), 3);
    }
    assert_eq!(
        view.reaches(&[identity(1).node(), identity(2).node()], &epochs(), |_| true),
        Ok(())
    );
    let but_five = |record: &Record| record.node() != identity(5).node();
    assert!(view.reaches(&[identity(1).node(), identity(2).node()], &epochs(), but_five).is_ok());

    // 1 and each of 2, 3 are a family, 2 and 3 are not: there is a way, whatever is looked at
    // first.
    let mut odd = empty();
    for (number, family) in [(1, &[2, 3][..]), (2, &[1]), (3, &[1]), (4, &[]), (5, &[])] {
        admit(&mut odd, record_naming(family, number, 1, start(), Some(exit()))).unwrap();
    }
    let view = viewed(odd);
    let own = [identity(5).node()];
    let only_four = |record: &Record| record.node() == identity(4).node();
    assert!(view.reaches(&own, &epochs(), only_four).is_ok());
    for _ in 0..100 {
        let route = view.route(&own, &epochs(), &mut rng, only_four).unwrap();
        assert!(route.hops().iter().all(|record| record.node() != identity(1).node()));
    }
}

#[test]
fn a_network_of_one_operator_has_no_route() {
    let mut directory = empty();
    let all = [1, 2, 3, 4, 5, 6];
    for number in all {
        let others: Vec<u8> = all.into_iter().filter(|other| *other != number).collect();
        admit(&mut directory, record_naming(&others, number, 1, start(), Some(exit()))).unwrap();
    }
    let view = viewed(directory);
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    for sender in [1, 9] {
        let own = identity(sender).node();
        let none = Some(RouteError::TooFewNodes);
        assert_eq!(view.route(&[own], &epochs(), &mut rng, |_| true).err(), none);
        assert_eq!(view.reaches(&[own], &epochs(), |_| true).err(), none);
    }
}

/// With 19 degrees of freedom, 99.9 % of uniform samples lie below 43.8.
#[test]
fn in_a_network_of_more_than_64_routes_are_walks_over_links_to_any_exit() {
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let view = viewed(directory(120, 20));
    assert!(!view.is_complete() && viewed(directory(64, 4)).is_complete());
    let own = identity(100).node();
    let linked = |one: NodeId, other: NodeId| view.links_of(&one).unwrap().contains(&other);
    let delivers = |record: &Record| record.exit().is_some();
    let (mut ends, mut lengths) = (BTreeMap::<NodeId, f64>::new(), BTreeSet::new());
    let mut seen = BTreeSet::new();
    const DRAWS: u32 = 2000;
    for _ in 0..DRAWS {
        let route = view.route(&[own], &epochs(), &mut rng, delivers).unwrap();
        let nodes: Vec<NodeId> = route.hops().iter().map(|record| record.node()).collect();
        assert!(linked(own, nodes[0]) && !nodes.contains(&own));
        assert!(nodes.windows(2).all(|pair| linked(pair[0], pair[1])));
        assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), nodes.len());
        lengths.insert(nodes.len());
        *ends.entry(*nodes.last().unwrap()).or_default() += 1.0;
        seen.extend(nodes);
    }
    assert_eq!((lengths, seen.len()), (BTreeSet::from([3, 4, 5, 6]), 119));
    let expected = f64::from(DRAWS) / 20.0;
    let chi: f64 = ends.values().map(|seen| (seen - expected).powi(2) / expected).sum();
    assert!(ends.len() == 20 && chi < 43.8, "exits are drawn uniformly: {chi}");

    // A ban takes nodes from this node's routes, and no link is drawn anew for it.
    let near = view.links_of(&own).unwrap();
    let banned: BTreeSet<NodeId> = near[..8].iter().copied().collect();
    let fewer = view.without(&banned);
    assert_eq!(fewer.links_of(&own).unwrap(), near[8..]);
    for _ in 0..100 {
        let route = fewer.route(&[own], &epochs(), &mut rng, delivers).unwrap();
        assert!(route.hops().iter().all(|record| !banned.contains(&record.node())));
    }
    let none = view.without(&near.iter().copied().collect());
    assert_eq!(
        none.route(&[own], &epochs(), &mut rng, delivers).err(),
        Some(RouteError::TooFewNodes)
    );
    assert_eq!(none.reaches(&[own], &epochs(), delivers).err(), Some(RouteError::TooFewNodes));
    // A node that is not in the view is bound by no link.
    let stranger = identity(200).node();
    assert!(view.links_of(&stranger).is_none());
    let first = |rng: &mut ChaCha20Rng| {
        view.route(&[stranger], &epochs(), rng, delivers).unwrap().hops()[0].node()
    };
    let firsts: BTreeSet<_> = (0..300).map(|_| first(&mut rng)).collect();
    assert!(firsts.len() > 60);
}

/// A view of a network of 20 nodes, of which the first 12 are exits; what each exit states that it
/// delivered in a day.
fn stating(delivered: [u32; 12]) -> View {
    let mut directory = empty();
    for number in 1..=20 {
        let said = delivered.get(usize::from(number) - 1).copied();
        let draft = Draft {
            exit: said.map(|_| exit()),
            // A relay that says it delivers counts nowhere.
            delivered: said.unwrap_or(1 << 31),
            ..testing::draft(number.into(), start(), &schedule())
        };
        let octets = draft.sign(&identity(number), &NETWORK).unwrap();
        admit(&mut directory, read(&octets, start())).unwrap();
    }
    viewed(directory)
}

#[test]
fn a_third_of_the_exits_moves_no_stage_whatever_it_states() {
    let stages = Parameters::main();
    let stage = |view: &View| stages.stage_at(view.volume()).0;
    for (honest, volume, expected) in [(0, 0, 0), (1024, 512, 0), (2048, 1024, 1), (8192, 4096, 2)]
    {
        let view = stating([honest; 12]);
        assert_eq!((view.volume(), stage(&view)), (volume, expected));
        for lie in [0, 1, 1 << 20, 1 << 31] {
            for liars in 1..=4 {
                let mut said = [honest; 12];
                said[..liars].fill(lie);
                assert_eq!(stating(said).volume(), volume, "{liars} exits state {lie}");
            }
        }
    }
    // Half of them do, in the direction that opens no class.
    let mut said = [8192; 12];
    said[..6].fill(0);
    assert_eq!(stage(&stating(said)), 0);
    let mut said = [0; 12];
    said[..6].fill(1 << 31);
    assert_eq!(stage(&stating(said)), 0);

    // Mail that all goes through one exit counts as the mail of one.
    let mut said = [1024; 12];
    said[0] = 1 << 31;
    assert_eq!(stage(&stating(said)), 0);
    // What an operator bans changes its routes, and not the stage.
    let view = stating([2048; 12]);
    let banned = (1..=9).map(|number| identity(number).node()).collect();
    assert_eq!(view.without(&banned).volume(), view.volume());
    // The same for a network of relays.
    assert_eq!(viewed(directory(9, 0)).volume(), 0);
}

/// 200,000 draws over 12 nodes: lengths and the node at each place are uniform. Chi-square with 11
/// degrees of freedom lies below 31.3 for 99.9 % of uniform samples; with 3, below 16.3.
#[test]
fn lengths_and_places_are_uniform() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let view = viewed(directory(13, 13));
    let own = identity(13).node();
    let mut lengths: BTreeMap<usize, f64> = BTreeMap::new();
    let mut places: Vec<BTreeMap<NodeId, f64>> = vec![BTreeMap::new(); 6];
    for _ in 0..200_000 {
        let route = view.route(&[own], &epochs(), &mut rng, |_| true).unwrap();
        *lengths.entry(route.hops().len()).or_default() += 1.0;
        for (place, record) in route.hops().iter().enumerate() {
            *places[place].entry(record.node()).or_default() += 1.0;
        }
    }
    let chi_square = |counts: &mut dyn Iterator<Item = f64>| {
        let counts: Vec<_> = counts.collect();
        let expected = counts.iter().sum::<f64>() / counts.len() as f64;
        counts.iter().map(|n| (n - expected).powi(2) / expected).sum::<f64>()
    };
    assert_eq!(lengths.len(), 4);
    assert!(chi_square(&mut lengths.values().copied()) < 16.3, "{lengths:?}");
    for place in places {
        assert_eq!(place.len(), 12);
        assert!(chi_square(&mut place.values().copied()) < 31.3);
    }
}

#[test]
fn the_way_back_ends_at_its_owner_and_shuns_who_answers() {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    // 1 owns, and runs 7; 2 answers, and runs 3; 8 and 9 are a family.
    let named: [&[u8]; 10] = [&[7], &[3], &[2], &[], &[], &[], &[1], &[9], &[8], &[]];
    let mut directory = empty();
    for (number, family) in (1..).zip(named) {
        admit(&mut directory, record_naming(family, number, 1, start(), Some(exit()))).unwrap();
    }
    let view = viewed(directory);
    let own = [identity(1).node(), identity(7).node()];
    let owner = view.get(&own[0]).unwrap().clone();
    let answers = view.get(&identity(2).node()).unwrap().clone();
    let number = |node: NodeId| (1..=10).find(|n| identity(*n).node() == node).unwrap();
    let (mut seen, mut lengths) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..1000 {
        let route =
            view.route_back((&own, &owner), &answers, &epochs(), &mut rng, |_| true).unwrap();
        let nodes: Vec<u8> = route.hops().iter().map(|record| number(record.node())).collect();
        assert_eq!(nodes.last(), Some(&1));
        lengths.insert(nodes.len());
        let before: BTreeSet<_> = nodes[..nodes.len() - 1].iter().copied().collect();
        assert_eq!(before.len(), nodes.len() - 1);
        assert!(!(before.contains(&8) && before.contains(&9)));
        seen.extend(before);
    }
    assert_eq!(seen, BTreeSet::from([4, 5, 6, 8, 9, 10]));
    assert_eq!(lengths, BTreeSet::from([3, 4, 5, 6]));
    let mut back = |epochs, allows: &dyn Fn(&Record) -> bool| {
        view.route_back((&own, &owner), &answers, &epochs, &mut rng, allows).err()
    };
    let too_few = Some(RouteError::TooFewNodes);
    let only_four = |record: &Record| record.node() == identity(4).node();
    assert_eq!(back(epochs(), &only_four), too_few, "never a shorter one");
    let far = Epoch::new(epochs().end().number() + 50);
    assert_eq!(back(far..=far, &|_| true), too_few);
}

#[test]
fn in_a_network_of_more_than_64_the_way_back_walks_over_links_too() {
    let mut rng = ChaCha20Rng::seed_from_u64(10);
    let view = viewed(directory(120, 20));
    let own = [identity(100).node()];
    let owner = view.get(&own[0]).unwrap().clone();
    let linked = |one: NodeId, other: NodeId| view.links_of(&one).unwrap().contains(&other);
    for number in 1..=20 {
        let answers = view.get(&identity(number).node()).unwrap().clone();
        for _ in 0..20 {
            let route =
                view.route_back((&own, &owner), &answers, &epochs(), &mut rng, |_| true).unwrap();
            let nodes: Vec<_> = route.hops().iter().map(|record| record.node()).collect();
            assert!((3..=6).contains(&nodes.len()) && nodes.last() == Some(&own[0]));
            assert!(linked(answers.node(), nodes[0]) && !nodes.contains(&answers.node()));
            assert!(nodes.windows(2).all(|pair| linked(pair[0], pair[1])));
            assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), nodes.len());
        }
    }
}

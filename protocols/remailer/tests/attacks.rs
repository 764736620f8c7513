//! Attacks on what nodes take for the network, against whole nodes in virtual time. Each is a row
//! of the table in the README of `fog-directory`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests that print their row"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use directory::HourList;
use fog_remailer::sim::Simulation;
use fog_remailer::{Alarm, ExitOffer, Judgement, OperatorOrder, Refused, Setup};
use keys::{Epoch, Hour, Identity, NodeId, Time};
use mail::Mailbox;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::{
    Admission, BUCKETS, BucketDigest, Capabilities, Descriptor, Domains, Draft, ExitPolicy,
    ListHash, Parameters, VoteDraft, VouchDraft, VouchRole, Word, testing,
};

const MINUTE: Duration = Duration::from_secs(60);
/// Voters, which are the roots.
const VOTERS: usize = 5;
/// All nodes: the roots, and those that they vouch for.
const NODES: usize = 12;

fn identity(number: usize) -> Identity {
    Identity::from_seed(&[u8::try_from(number).unwrap() + 1; 32])
}

fn exit() -> Option<ExitOffer> {
    let anonymous = Mailbox::parse("anonymous@fog.invalid").unwrap();
    let offers = Capabilities::EIGHT_BIT;
    let policy = ExitPolicy { domains: Domains::Any, max_message: 1 << 20, offers };
    Some(ExitOffer { policy, anonymous })
}

struct Network {
    simulation: Simulation<ChaCha20Rng>,
    parameters: Parameters,
    descriptor: Arc<Descriptor>,
}

/// A vouched network that has used lists for two hours, five minutes into an hour.
fn network(seed: u64) -> Network {
    let parameters = Parameters::main().quiet();
    let start = parameters.schedule().start(Epoch::new(165_000)).plus(MINUTE * 2);
    let mut roots: Vec<_> = (0..VOTERS).map(|number| identity(number).node()).collect();
    roots.sort_unstable();
    let rule = Admission::Vouched { roots, depth: 3, fan_out: 8 };
    let maker = Identity::from_seed(&[250; 32]);
    let made = Descriptor::create(&maker, "n", start, &parameters, &[], &rule).unwrap();
    let mut simulation = Simulation::empty(made, start, ChaCha20Rng::seed_from_u64(seed));
    let descriptor = Arc::clone(simulation.descriptor());
    for number in 0..NODES {
        let setup = Setup::new(identity(number), Arc::clone(&descriptor));
        simulation.join(Setup { exit: exit(), ..setup });
    }
    simulation.run(Duration::from_secs(5));
    for subject in VOTERS..NODES {
        let order = OperatorOrder::Vouch(identity(subject).node());
        assert!(simulation.order(subject % VOTERS, order).is_ok());
    }
    let mut network = Network { simulation, parameters, descriptor };
    network.run_to_minute(5);
    network.run_to_minute(5);
    network.assert_all_agree("before");
    network
}

impl Network {
    /// Lets time pass until this minute of the next hour.
    fn run_to_minute(&mut self, minute: u32) {
        let schedule = self.parameters.schedule();
        let now = self.simulation.now();
        let next = schedule.hour_end(schedule.hour_at(now)).plus(MINUTE * minute);
        self.simulation.run(next.since(now));
    }

    /// Lets time pass until this long before the next hour.
    fn run_to_before(&mut self, span: Duration) {
        let schedule = self.parameters.schedule();
        let now = self.simulation.now();
        let at = schedule.hour_end(schedule.hour_at(now)).minus(span);
        self.simulation.run(at.since(now));
    }

    fn hour(&self) -> Hour {
        self.parameters.schedule().hour_at(self.simulation.now())
    }

    /// Of these nodes: the largest share with one list, how many take mail, and how old the list
    /// is.
    fn state(&self, nodes: impl Iterator<Item = usize> + Clone) -> (f64, usize, u64) {
        let mut lists: BTreeMap<Option<ListHash>, usize> = BTreeMap::new();
        let (mut taking, mut age) = (0, 0);
        for number in nodes.clone() {
            let node = &self.simulation.nodes()[number];
            let list = node.directory().list();
            *lists.entry(list.map(|list| list.hash())).or_default() += 1;
            taking += usize::from(node.check_routes(self.simulation.now()).is_ok());
            let hour = list.map_or(0, |list| list.hour().number());
            age = age.max(self.hour().number() - hour);
        }
        let most = lists.values().max().copied().unwrap();
        (100.0 * most as f64 / nodes.count() as f64, taking, age)
    }

    fn assert_agree(&self, row: &str, nodes: impl Iterator<Item = usize> + Clone) {
        let (share, taking, age) = self.state(nodes.clone());
        println!(
            "{row}: {share:.0} % with one list, {taking} of {} take mail",
            nodes.clone().count()
        );
        assert_eq!((share, taking, age), (100.0, nodes.count(), 0), "{row}");
    }

    fn assert_all_agree(&self, row: &str) {
        self.assert_agree(row, 0..NODES);
    }

    fn record(&self, identity: &Identity, at: Time, change: impl Fn(&mut Draft)) -> Vec<u8> {
        let mut draft = testing::draft(9, at, &self.parameters.schedule());
        change(&mut draft);
        draft.sign(identity, &self.descriptor.id()).unwrap()
    }

    /// A vote of node `voter` for a list of its own invention.
    fn lie(&self, voter: usize, salt: u8) -> Vec<u8> {
        let draft = VoteDraft {
            hour: self.hour().plus(1),
            before: ListHash::NONE,
            digests: [BucketDigest::from_bytes([salt; 16]); BUCKETS],
        };
        draft.sign(&identity(voter), &self.descriptor.id()).unwrap()
    }

    fn listed(&self, by: usize, node: &NodeId) -> bool {
        self.simulation.nodes()[by].directory().list().unwrap().get(node).is_some()
    }
}

#[test]
fn eight_records_of_one_stranger_for_each_node() {
    let mut network = network(1);
    let stranger = Identity::from_seed(&[200; 32]);
    for _ in 0..3 {
        let now = network.simulation.now();
        for node in 0..NODES {
            for k in 0..8_u64 {
                let sequence = 1 + k * NODES as u64 + node as u64;
                let at = now.minus(MINUTE * 9).plus(Duration::from_secs(sequence));
                let octets = network.record(&stranger, at, |draft| draft.sequence = sequence);
                network.simulation.gossip(node, &octets);
            }
        }
        network.run_to_minute(5);
        network.assert_all_agree("8 records of one stranger for each node");
    }
    let now = network.simulation.now();
    for node in network.simulation.nodes() {
        assert!(node.directory().conviction(&stranger.node(), now).is_some());
    }
}

#[test]
fn strangers_in_another_order_at_each_node() {
    let mut network = network(2);
    let now = network.simulation.now();
    let strangers: Vec<_> = (0..2300_u32)
        .map(|number| {
            let mut seed = [0xbb; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            network.record(&Identity::from_seed(&seed), now, |_| {})
        })
        .collect();
    for node in 0..NODES {
        // Each node hears them from a peer of the adversary's, which starts elsewhere in the row,
        // and then from nobody else: the others know their share already.
        for turn in 0..strangers.len() {
            let octets = &strangers[(turn + node * 190) % strangers.len()];
            network.simulation.show(node, octets);
        }
    }
    network.run_to_minute(5);
    network.assert_all_agree("2,300 strangers, in another order at each node");
    network.run_to_minute(5);
    network.assert_all_agree("2,300 strangers, in another order at each node");
}

#[test]
fn a_record_that_some_see_before_the_votes_and_some_after() {
    let mut network = network(3);
    // A listed node renews its record, and shows it to two voters alone: a second before they vote,
    // when gossip takes it no more, and at the last moment that gossip does take it.
    let second_before_votes = MINUTE * 10 + Duration::from_secs(1);
    for (dated, judged) in
        [(MINUTE * 32, Judgement::Ignore), (second_before_votes + MINUTE * 10, Judgement::Accept)]
    {
        network.run_to_before(dated);
        let author = identity(NODES - 1);
        network.simulation.stop(NODES - 1);
        let known = network.simulation.nodes()[0].directory().newest(&author.node()).unwrap();
        let (sequence, previous) = (known.sequence() + 1, known.hash());
        let keys: Vec<_> = known.keys().map(|(epoch, key)| (epoch, key.clone())).collect();
        let octets = network.record(&author, network.simulation.now(), |draft| {
            (draft.sequence, draft.previous) = (sequence, previous);
            draft.keys = keys.clone();
        });
        network.run_to_before(second_before_votes);
        for voter in [0, 1] {
            assert_eq!(network.simulation.show(voter, &octets), judged);
        }
        network.run_to_minute(5);
        network.assert_agree("a record released at the worst second", 0..NODES - 1);
        network.simulation.go_on(NODES - 1);
        network.run_to_minute(5);
    }
}

#[test]
fn a_voucher_with_other_words_for_each_node() {
    let mut network = network(4);
    let voucher = NODES - 1;
    network.simulation.stop(voucher);
    let now = network.simulation.now();
    let subjects: Vec<_> =
        (0..NODES * 2).map(|n| Identity::from_seed(&[100 + n as u8; 32])).collect();
    for subject in &subjects {
        let octets = network.record(subject, now, |_| {});
        network.simulation.gossip(0, &octets);
    }
    for node in 0..NODES - 1 {
        for (order, subject) in subjects.iter().skip(node * 2).take(8).enumerate() {
            let since = now.minus(Duration::from_secs(node as u64 * 100 + order as u64));
            let draft = VouchDraft {
                word: Word::Vouch,
                subject: subject.node(),
                role: VouchRole::Exit,
                since,
                issued_at: now,
                expires_at: now.plus(MINUTE * 60 * 24),
                extensions: Vec::new(),
            };
            let octets = draft.sign(&identity(voucher), &network.descriptor.id()).unwrap();
            network.simulation.show(node, &octets);
        }
    }
    for _ in 0..3 {
        network.run_to_minute(5);
        network.assert_agree("a voucher with other words for each node", 0..NODES - 1);
    }
    let list = network.simulation.nodes()[0].directory().list().unwrap();
    let listed = subjects.iter().filter(|subject| list.get(&subject.node()).is_some()).count();
    assert!((1..=8).contains(&listed), "its words were taken, as many as count: {listed}");
}

#[test]
fn votes_that_are_withheld_from_a_victim() {
    let mut network = network(5);
    network.simulation.eclipse(7);
    for hour in 1..=7 {
        network.run_to_minute(11);
        network.assert_agree(
            "votes withheld from a victim: the others",
            (0..NODES).filter(|n| *n != 7),
        );
        let victim = &network.simulation.nodes()[7];
        let now = network.simulation.now();
        let alarm = |alarm: &Alarm| matches!(alarm, Alarm::NoList { .. });
        assert!(victim.alarms(now).iter().any(alarm), "it notices");
        assert_eq!(victim.missing_voters(now).len(), VOTERS);
        let refused = victim.check_routes(now).err();
        assert_eq!(refused, (hour >= 6).then_some(Refused::NoList), "after {hour} hours");
    }
}

#[test]
fn one_of_five_voters_lies_equivocates_is_late_or_dead_and_two_are_dead() {
    let honest = || (0..NODES).filter(|number| *number != 4);
    for (row, seed) in [("lying", 6), ("equivocating", 7), ("late", 8), ("dead", 9)] {
        let mut network = network(seed);
        network.simulation.stop(4);
        for _ in 0..3 {
            network.run_to_before(MINUTE * 9);
            let (first, second) = (network.lie(4, 1), network.lie(4, 2));
            match row {
                "lying" => {
                    assert_eq!(network.simulation.gossip(0, &first), Judgement::Accept);
                }
                "equivocating" => {
                    for node in honest() {
                        let octets = if node % 2 == 0 { &first } else { &second };
                        network.simulation.show(node, octets);
                    }
                    network.simulation.pass_on(0, &first);
                    network.simulation.pass_on(1, &second);
                }
                _ => {}
            }
            network.run_to_minute(5);
            if row == "late" {
                network.simulation.gossip(0, &first);
                network.simulation.run(MINUTE);
            }
            network.assert_agree(&format!("one of five voters {row}"), honest());
        }
        if row == "equivocating" {
            let liar = identity(4).node();
            assert!(honest().all(|by| !network.listed(by, &liar)), "out of the lists");
        }
    }
    let mut network = network(10);
    network.simulation.stop(3);
    network.simulation.stop(4);
    for _ in 0..3 {
        network.run_to_minute(5);
        let rest = (0..NODES).filter(|number| ![3, 4].contains(number));
        network.assert_agree("two of five voters dead", rest);
    }
}

#[test]
fn all_voters_dead_for_three_hours_and_for_seven() {
    for (hours, takes_mail) in [(3, true), (7, false)] {
        let mut network = network(11 + hours);
        for voter in 0..VOTERS {
            network.simulation.stop(voter);
        }
        for _ in 0..hours {
            network.run_to_minute(5);
        }
        let (share, taking, age) = network.state(VOTERS..NODES);
        println!("all voters dead for {hours} h: {share:.0} % with one list, {taking} take mail");
        let expected = if takes_mail { NODES - VOTERS } else { 0 };
        assert_eq!((share, taking, age), (100.0, expected, hours));
        for voter in 0..VOTERS {
            network.simulation.go_on(voter);
        }
        network.run_to_minute(11);
        network.run_to_minute(11);
        network.assert_all_agree("and back");
    }
}

#[test]
fn a_joiner_whose_first_three_peers_are_hostile() {
    let mut network = network(20);
    let setup = Setup::new(Identity::from_seed(&[240; 32]), Arc::clone(&network.descriptor));
    let joiner = network.simulation.join(Setup { first_record_after: MINUTE, ..setup });
    network.simulation.eclipse(joiner);
    network.simulation.run(MINUTE * 10);
    let now = network.simulation.now();
    let node = &network.simulation.nodes()[joiner];
    assert!(node.directory().list().is_none());
    assert_eq!(node.check_routes(now), Err(Refused::NoList), "none is all that they can give");
    // One honest peer is enough.
    network.simulation.end_eclipse(joiner);
    network.simulation.run(MINUTE * 15);
    let node = &network.simulation.nodes()[joiner];
    let lists = |node: &fog_remailer::Remailer| node.directory().list().map(Arc::<HourList>::clone);
    assert_eq!(lists(node), lists(&network.simulation.nodes()[0]));
    assert!(node.check_routes(network.simulation.now()).is_ok());
    network.assert_all_agree("a joiner whose first three peers are hostile");
}

#[test]
fn a_root_that_was_stolen_and_is_retired_counts_nowhere_from_the_next_list() {
    let mut network = network(21);
    network.simulation.stop(4);
    for voter in 0..3 {
        let order = OperatorOrder::Retire(identity(4).node());
        assert!(network.simulation.order(voter, order).is_ok());
    }
    network.run_to_before(MINUTE * 9);
    let theirs = network.lie(4, 1);
    network.simulation.gossip(0, &theirs);
    network.run_to_minute(5);
    let rest = || (0..NODES).filter(|number| *number != 4);
    network.assert_agree("a stolen root, retired", rest());
    // It had vouched for node 9 alone.
    let gone = [identity(4).node(), identity(9).node()];
    assert!(rest().all(|by| gone.iter().all(|node| !network.listed(by, node))));
    // Two of the four that are left are no majority; three are.
    network.simulation.stop(3);
    network.run_to_minute(5);
    let rest = || (0..NODES).filter(|number| ![3, 4].contains(number));
    network.assert_agree("a stolen root, retired, and another voter dead", rest());
}

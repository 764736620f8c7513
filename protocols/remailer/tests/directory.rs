//! One node and what its peers say of it, of others, and of the time.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use directory::{Answer, Directory, HourList, Standing};
use fog_remailer::{
    Agreement, Alarm, Command, Count, Done, Judgement, Kept, Known, NotDone, NotPublished,
    NotTaken, OperatorOrder, OrderId, Past, Refused, Remailer, Setup,
};
use keys::{Epoch, Identity, Time};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::{
    Admission, Descriptor, Draft, ListSketch, Parameters, Record, Statement, Unverified, VoteDraft,
    testing,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The voters of an open network; those of a vouched one are its roots.
const VOTERS: [u8; 3] = [11, 12, 13];

/// The next thing to be done, where the disk keeps everything at once.
fn next(node: &mut Remailer, now: Time) -> Option<Command> {
    let command = node.next_command()?;
    if let Command::KeepSeed(id, ..) | Command::KeepOwn(id, _) | Command::KeepVote(id, _) = &command
    {
        let mut rng = ChaCha20Rng::seed_from_u64(now.as_millis());
        node.handle_kept(*id, now, &mut rng);
    }
    Some(command)
}

struct World {
    parameters: Parameters,
    descriptor: Arc<Descriptor>,
    start: Time,
    rng: ChaCha20Rng,
}

fn world(admission: &Admission) -> World {
    let parameters = Parameters::main().with_first_list(4).quiet();
    let start = parameters.schedule().start(Epoch::new(165_000)).plus(MINUTE * 40);
    let maker = Identity::from_seed(&[77; 32]);
    let voters: Vec<_> = match admission {
        Admission::Open => VOTERS.map(|number| identity(number).node()).to_vec(),
        Admission::Vouched { .. } => Vec::new(),
    };
    let descriptor =
        Descriptor::create(&maker, "n", start, &parameters, &voters, admission).unwrap();
    let rng = ChaCha20Rng::seed_from_u64(1);
    World { parameters, descriptor: Arc::new(descriptor), start, rng }
}

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

impl World {
    fn setup(&self, number: u8) -> Setup {
        let setup = Setup::new(identity(number), Arc::clone(&self.descriptor));
        Setup { first_record_after: MINUTE, ..setup }
    }

    fn node(&mut self, setup: Setup) -> Remailer {
        let mut node = Remailer::new(setup, self.start, &mut self.rng);
        node.handle_reachable();
        node
    }

    /// A record as `number` publishes it, changed as `change` says.
    fn record(&self, number: u8, at: Time, change: impl Fn(&mut Draft)) -> Vec<u8> {
        let schedule = self.parameters.schedule();
        let mut draft = Draft { sequence: 41, ..testing::draft(number.into(), at, &schedule) };
        change(&mut draft);
        draft.sign(&identity(number), &self.descriptor.id()).unwrap()
    }

    fn check(&self, octets: &[u8]) -> Result<Statement, record::StatementError> {
        Statement::check(octets, &self.descriptor.id())
    }

    fn read(&self, octets: &[u8], now: Time) -> Record {
        let signed = Unverified::parse(octets).unwrap().check_signature(&self.descriptor.id());
        signed.unwrap().timely(now, &self.parameters.schedule()).unwrap()
    }

    fn hear(&mut self, node: &mut Remailer, octets: &[u8], now: Time) -> Judgement {
        node.handle_statement(self.check(octets), now, &mut self.rng)
    }

    /// A peer is linked, is asked, answers from these statements with a clock that is `ahead` by
    /// this many seconds, and goes.
    fn visit(&mut self, node: &mut Remailer, peer: u8, held: &[Vec<u8>], ahead: i64, now: Time) {
        let mut holder = Directory::new(&self.descriptor);
        for octets in held {
            let _ = holder.admit(self.read(octets, now), directory::Source::CatchUp, now);
        }
        self.visit_of(node, peer, &holder, ahead, now);
    }

    /// The same with a peer that knows what this directory holds.
    fn visit_of(
        &mut self,
        node: &mut Remailer,
        peer: u8,
        holder: &Directory,
        ahead: i64,
        now: Time,
    ) {
        let theirs = Time::from_millis(now.as_millis().saturating_add_signed(ahead * 1000));
        let peer = identity(peer).node();
        node.handle_peers_up(&[peer], now, &mut self.rng);
        let mut questions = 0;
        while let Some(command) = next(node, now) {
            match command {
                Command::Ask(asked, request) if asked == peer => {
                    questions += 1;
                    let octets = holder.answer(&request.encode().unwrap(), theirs).unwrap();
                    let answer = Answer::check(&octets, &self.descriptor.id()).unwrap();
                    node.handle_sync_answer(peer, answer, now, &mut self.rng);
                }
                Command::HangUp(_) => panic!("an honest peer"),
                _ => {}
            }
        }
        assert!(questions > 0, "it is asked as soon as it is linked");
        node.handle_peer_down(&peer);
    }

    /// The node hears the votes of these voters for a list of these records in the hour of `at`,
    /// and then from one of them what the list is.
    fn vote(&mut self, node: &mut Remailer, voters: &[u8], records: &[Vec<u8>], at: Time) {
        let hour = self.parameters.schedule().hour_at(at);
        let mut eyes = Directory::new(&self.descriptor);
        if let Some(list) = node.directory().list() {
            eyes.restore_list(HourList::clone(list));
        }
        let before = eyes.list_hash();
        for octets in records {
            let record = self.read(octets, at);
            eyes.admit(record, directory::Source::Gossip, at).unwrap();
        }
        let list = eyes.propose_first(hour);
        for voter in voters {
            let draft = VoteDraft { hour, before, digests: *list.digests() };
            let octets = draft.sign(&identity(*voter), &self.descriptor.id()).unwrap();
            assert_eq!(self.hear(node, &octets, at), Judgement::Accept);
        }
        eyes.restore_list(list);
        if node.directory().lacks_list() {
            self.visit_of(node, voters[0], &eyes, 0, at);
        }
    }

    /// What the node publishes until `end`, with the time of each.
    fn published(&mut self, node: &mut Remailer, from: Time, end: Time) -> Vec<(Time, Record)> {
        let mut published = Vec::new();
        let mut now = from;
        loop {
            node.handle_timeout(now, &mut self.rng);
            while let Some(command) = next(node, now) {
                if let Command::Announce(octets) = command
                    && let Ok(Statement::Record(_)) = self.check(&octets)
                {
                    published.push((now, self.read(&octets, now)));
                }
            }
            let next = node.poll_timeout();
            assert!(next > now, "it gets on");
            if next > end {
                return published;
            }
            now = next;
        }
    }

    fn kept(&self, number: u8, epochs: u32) -> Vec<(Epoch, Kept)> {
        let first = self.parameters.schedule().epoch_at(self.start);
        let keep = |ahead| {
            let epoch = first.plus(ahead);
            (epoch, Kept::Key { seed: testing::seed(number.into(), epoch), seen: BTreeSet::new() })
        };
        (0..epochs).map(keep).collect()
    }
}

#[test]
fn a_restored_backup_publishes_far_above_what_peers_hold_and_gives_up_what_it_may_have_opened() {
    let mut world = world(&Admission::Open);
    let (start, now) = (world.start, world.start.plus(MINUTE));
    // Its folder ends with record 41 and two keys; its peers hold record 50, with a third key.
    let old = world.record(1, start.minus(MINUTE * 30), |draft| drop(draft.keys.pop()));
    let newer = world.record(1, start.minus(MINUTE * 10), |draft| draft.sequence = 50);
    let setup = Setup { epochs: world.kept(1, 2), past: Past::Known(old), ..world.setup(1) };
    let mut node = world.node(setup);
    assert!(world.published(&mut node, start, now).is_empty());
    // Three strangers, who answer at once with nothing.
    for stranger in 21..=23 {
        world.visit(&mut node, stranger, &[], 0, now);
    }
    assert!(world.published(&mut node, now, now).is_empty(), "they have no say");
    assert_eq!(node.alarms(now), [Alarm::AwaitsWitnesses { heard: 0, needed: 2 }]);
    for peer in VOTERS {
        world.visit(&mut node, peer, std::slice::from_ref(&newer), 0, now);
    }
    let published = world.published(&mut node, now, start.plus(MINUTE * 60));
    let (at, first) = &published[0];
    let span = start.plus(MINUTE * 5)..start.plus(MINUTE * 6);
    assert!(span.contains(at), "a copy of it may just have published: {:?}", at.since(start));
    assert_eq!(first.sequence(), 50 + (1 << 20));
    assert_eq!(first.previous(), record::StatementHash::NONE, "there may be others it forgot");
    let epoch = world.parameters.schedule().epoch_at(now);
    let stated: Vec<_> = first.epochs().collect();
    // The present one may have opened packets; the third key is another's.
    assert_eq!(stated, [epoch.plus(1)]);
    assert!(first.withdraws(epoch) && first.withdraws(epoch.plus(2)));
    assert!(node.alarms(now).is_empty());
    assert!(node.oldest_key() > Some(epoch), "it opens nothing in this epoch");
    let broken = NotPublished::NotTaken(NotTaken::Broken);
    assert_eq!(node.counts().get(Count::OwnRecordRefused(broken)), 0);
}

#[test]
fn a_node_with_a_past_waits_for_three_witnesses_however_long_that_takes() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let own = world.record(1, start.minus(MINUTE * 30), |_| {});
    let others: Vec<_> =
        (2..=5).map(|n| world.record(n, start.minus(MINUTE * 30), |_| {})).collect();
    // Of the last list that it knew, 2 to 5 are nodes.
    let mut eyes = Directory::new(&world.descriptor);
    for octets in others.iter().chain([&own]) {
        eyes.admit(world.read(octets, start), directory::Source::Own, start).unwrap();
    }
    let list = eyes.propose_first(world.parameters.schedule().hour_at(start)).to_octets();
    let setup = Setup {
        epochs: world.kept(1, 3),
        past: Past::Known(own.clone()),
        known: Known {
            statements: others.clone(),
            list: Some(list),
            vote: None,
            ..Known::default()
        },
        ..world.setup(1)
    };
    let mut node = world.node(setup);
    let late = start.plus(MINUTE * 90);
    assert!(world.published(&mut node, start, late).is_empty());
    world.visit(&mut node, 2, &others, 0, late);
    world.visit(&mut node, 2, &others, 0, late);
    world.visit(&mut node, 11, &others, 0, late);
    world.visit(&mut node, 99, &others, 0, late);
    assert!(node.wants_witnesses(), "a node, a voter, whatever one says twice, and a stranger");
    let waits = Alarm::AwaitsWitnesses { heard: 2, needed: 3 };
    assert!(node.alarms(late).contains(&waits));
    world.visit(&mut node, 4, &others, 0, late);
    assert!(!node.wants_witnesses());
    let published = world.published(&mut node, late, late.plus(MINUTE));
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].1.sequence(), 41 + (1 << 20));
    assert_eq!(published[0].1.epochs().count(), 4, "nothing was lost, nothing is given up");
}

#[test]
fn a_backup_that_is_restored_again_and_again_convicts_nobody() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let own = world.record(1, start.minus(MINUTE * 30), |_| {});
    let kept = |world: &World| Setup {
        epochs: world.kept(1, 3),
        past: Past::Known(own.clone()),
        ..world.setup(1)
    };
    // Peers hear all that any copy publishes; the witnesses that a copy asks know nothing of it yet.
    let mut peers = Directory::new(&world.descriptor);
    peers.admit(world.read(&own, start), directory::Source::Own, start).unwrap();
    let mut copies = 0;
    for seconds in [3_u64, 7, 8, 20, 40, 60, 200, 290, 4000, 10, 5000] {
        let at = world.start;
        let setup = kept(&world);
        let mut node = world.node(setup);
        for witness in VOTERS {
            world.visit(&mut node, witness, std::slice::from_ref(&own), 0, at);
        }
        assert!(!node.wants_witnesses());
        // Within minutes it hears what the copy before it published.
        let heard: Vec<_> = peers.statements().map(|octets| octets.to_vec()).collect();
        let end = at.plus(Duration::from_secs(seconds));
        let later = at.plus(MINUTE * 2).min(end);
        let mut published = world.published(&mut node, at, later);
        for octets in heard {
            world.hear(&mut node, &octets, later);
        }
        published.extend(world.published(&mut node, later, end));
        assert!(published.is_empty() || seconds > 300, "{seconds}");
        copies += usize::from(!published.is_empty());
        for (at, record) in published {
            let admitted = peers.admit(record, directory::Source::Gossip, at);
            assert!(admitted.is_ok(), "{seconds}: {:?}", admitted.err());
        }
        world.start = end.plus(Duration::from_secs(1));
    }
    assert_eq!(copies, 2, "only those that lived for more than five minutes published");
}

#[test]
fn the_only_voter_goes_on_without_a_list_once_any_peer_has_told_what_it_knows() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let (maker, voters) = (Identity::from_seed(&[77; 32]), [identity(1).node()]);
    world.descriptor = Arc::new(
        Descriptor::create(&maker, "n", start, &world.parameters, &voters, &Admission::Open)
            .unwrap(),
    );
    let own = world.record(1, start.minus(MINUTE * 30), |_| {});
    let newer = world.record(1, start.minus(MINUTE * 10), |draft| draft.sequence = 50);
    let setup = Setup { epochs: world.kept(1, 3), past: Past::Known(own), ..world.setup(1) };
    let mut node = world.node(setup);
    let now = start.plus(MINUTE * 30);
    assert!(world.published(&mut node, start, now).is_empty());
    world.visit(&mut node, 2, &[newer], 0, now);
    let published = world.published(&mut node, now, now.plus(MINUTE * 10));
    assert_eq!(published[0].1.sequence(), 50 + (1 << 20), "it has learnt what it forgot");
}

#[test]
fn after_a_restart_the_kept_list_has_all_its_nodes_whatever_else_was_kept() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let at = |minutes| start.minus(MINUTE * minutes);
    let listed: Vec<_> = (2..=5).map(|n| world.record(n, at(60), |_| {})).collect();
    let mut eyes = Directory::new(&world.descriptor);
    for octets in &listed {
        eyes.admit(world.read(octets, at(60)), directory::Source::Own, at(60)).unwrap();
    }
    let list = eyes.propose_first(world.parameters.schedule().hour_at(start));
    // A disk gives its files in any order; here the newer records of each node come first.
    let newer = |ahead: u64, minutes| {
        let record = |n| world.record(n, at(minutes), |draft| draft.sequence += ahead);
        (2..=5).map(record).collect::<Vec<_>>()
    };
    let statements = [newer(2, 20), newer(1, 40), listed.clone()].concat();
    let known = Known { statements, list: Some(list.to_octets()), vote: None, ..Known::default() };
    let setup = Setup { known, ..world.setup(1) };
    let node = world.node(setup);
    assert_eq!(node.view().map(|view| view.len()), Some(4));
    // Or it has none of them, as after a loss of power, and a peer brings them.
    let known = Known { list: Some(list.to_octets()), ..Known::default() };
    let mut node = world.node(Setup { known, ..world.setup(1) });
    assert!(node.view().is_none());
    world.visit(&mut node, VOTERS[0], &listed, 0, start);
    assert_eq!(node.view().map(|view| view.len()), Some(4), "not only in the next hour");
    let own_hour = |hour| HourList::new(hour, list.iter().copied());
    let hour = world.parameters.schedule().hour_at(start).plus(2);
    let known = Known { list: Some(own_hour(hour).to_octets()), ..Known::default() };
    let far_ahead = Setup { known, ..world.setup(1) };
    assert!(world.node(far_ahead).directory().list().is_none(), "made by a clock that was wrong");
}

#[test]
fn of_two_nodes_with_one_identity_the_one_that_runs_falls_silent_and_says_so() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let setup = Setup { first_record_after: Duration::ZERO, ..world.setup(1) };
    let mut node = world.node(setup);
    let published = world.published(&mut node, start, start.plus(MINUTE * 10));
    let (_, first) = &published[0];
    let copy = world.record(1, start.plus(MINUTE * 10), |draft| {
        draft.sequence = first.sequence() + 100;
        draft.previous = first.hash();
        draft.keys = first.keys().map(|(epoch, key)| (epoch, key.clone())).collect();
    });
    let now = start.plus(MINUTE * 10);
    assert_eq!(world.hear(&mut node, &copy, now), Judgement::Accept);
    assert!(node.alarms(now).contains(&Alarm::Rival));
    assert!(world.published(&mut node, now, start.plus(MINUTE * 200)).is_empty());
}

#[test]
fn keys_whose_tags_may_be_lost_are_given_up_and_never_made_again() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let own = world.record(1, start.minus(MINUTE * 30), |_| {});
    let mut epochs = world.kept(1, 3);
    epochs[0].1 = Kept::Withdrawn;
    let setup = Setup { epochs, past: Past::Known(own), ..world.setup(1) };
    let mut node = world.node(setup);
    for peer in VOTERS {
        world.visit(&mut node, peer, &[], 0, start);
    }
    for record in world.published(&mut node, start, start.plus(MINUTE * 100)) {
        let epoch = world.parameters.schedule().epoch_at(start);
        assert!(record.1.withdraws(epoch) && record.1.key(epoch).is_none());
        assert!(record.1.key(epoch.plus(1)).is_some());
    }
    let later = start.plus(MINUTE * 180);
    let last = world.published(&mut node, start.plus(MINUTE * 100), later).pop().unwrap().1;
    assert!(last.key(world.parameters.schedule().epoch_at(later)).is_some());
}

#[test]
fn a_clock_that_nobody_shares_takes_no_mail_publishes_nothing_and_destroys_no_key() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let setup = Setup { first_record_after: Duration::ZERO, ..world.setup(1) };
    let mut node = world.node(setup);
    for number in 2..=6 {
        let record = world.record(number, start.minus(MINUTE * 4), |_| {});
        assert_eq!(world.hear(&mut node, &record, start), Judgement::Accept);
    }
    assert_eq!(world.published(&mut node, start, start.plus(MINUTE)).len(), 1);
    assert_ne!(node.check_routes(start), Err(Refused::ClockApart));
    for (peer, ahead) in [(11, 6 * 60), (12, 6 * 60), (13, 0)] {
        world.visit(&mut node, peer, &[], ahead, start);
    }
    assert_eq!(node.check_routes(start), Err(Refused::ClockApart));
    assert_eq!(node.alarms(start), [Alarm::ClockApart(360_000)]);
    let epoch = world.parameters.schedule().epoch_at(start);
    let mut now = start;
    while now < start.plus(MINUTE * 350) {
        for peer in VOTERS {
            world.visit(&mut node, peer, &[], 6 * 60, now);
        }
        let next = now.plus(MINUTE * 10);
        assert!(world.published(&mut node, now, next).is_empty());
        now = next;
        assert_eq!(node.oldest_key(), Some(epoch), "no key is destroyed");
    }
    for peer in VOTERS {
        world.visit(&mut node, peer, &[], 6 * 60, now);
    }
    world.published(&mut node, now, now.plus(MINUTE * 15));
    assert!(node.oldest_key() > Some(epoch), "six hours are enough");
    for peer in VOTERS {
        world.visit(&mut node, peer, &[], 4 * 60, now);
    }
    assert_ne!(node.check_routes(now), Err(Refused::ClockApart));
    assert!(!node.alarms(now).iter().any(|alarm| matches!(alarm, Alarm::ClockApart(_))));
    assert!(!world.published(&mut node, now, now.plus(MINUTE * 70)).is_empty());
}

/// The epochs before which seeds are forgotten, and the records announced, until `end`.
fn forgotten(world: &mut World, node: &mut Remailer, from: Time, end: Time) -> Vec<Epoch> {
    let mut forgotten = Vec::new();
    let mut now = from;
    while now <= end {
        node.handle_timeout(now, &mut world.rng);
        while let Some(command) = next(node, now) {
            if let Command::ForgetSeeds(oldest) = command {
                forgotten.push(oldest);
            }
        }
        assert!(node.poll_timeout() > now, "it gets on");
        now = node.poll_timeout();
    }
    forgotten
}

#[test]
fn a_clock_that_is_wrong_at_the_start_destroys_nothing_before_peers_have_spoken() {
    for days in [1, 3650] {
        let mut world = world(&Admission::Open);
        let right = world.start;
        let own = world.record(1, right.minus(MINUTE * 30), |_| {});
        let others: Vec<_> =
            (2..=6).map(|n| world.record(n, right.minus(MINUTE * 30), |_| {})).collect();
        let setup = Setup {
            epochs: world.kept(1, 3),
            past: Past::Known(own),
            known: Known { statements: others, ..Known::default() },
            ..world.setup(1)
        };
        let ahead = MINUTE * 60 * 24 * days;
        world.start = right.plus(ahead);
        let start = world.start;
        let mut node = world.node(setup);
        let end = start.plus(MINUTE * 5);
        assert!(forgotten(&mut world, &mut node, start, end).is_empty());
        let behind = -i64::try_from(ahead.as_secs()).unwrap();
        for peer in VOTERS {
            world.visit(&mut node, peer, &[], behind, end);
        }
        assert!(matches!(node.alarms(end)[..], [Alarm::ClockApart(_)]), "{days} days");
        let later = end.plus(MINUTE * 100);
        assert!(forgotten(&mut world, &mut node, end, later).is_empty(), "{days} days");
        // Where the peers agree, what is past is forgotten at once.
        for peer in VOTERS {
            world.visit(&mut node, peer, &[], 0, later);
        }
        assert_eq!(forgotten(&mut world, &mut node, later, later.plus(MINUTE)).len(), 1);
    }
}

#[test]
fn a_clock_that_was_set_back_makes_no_second_key_for_an_epoch() {
    let mut world = world(&Admission::Open);
    // Forty minutes into an epoch the key of the one before is destroyed; then the clock is set
    // back by an hour.
    let (right, back) = (world.start, world.start.minus(MINUTE * 60));
    let epoch = world.parameters.schedule().epoch_at(back);
    let before = world.record(1, back, |draft| draft.sequence = 40);
    let own = world.record(1, right.minus(MINUTE * 5), |_| {});
    let setup = Setup { epochs: world.kept(1, 3), past: Past::Known(own), ..world.setup(1) };
    world.start = back;
    let mut node = world.node(setup);
    for peer in VOTERS {
        world.visit(&mut node, peer, &[], 0, back);
    }
    let published = world.published(&mut node, back, back.plus(MINUTE * 20));
    let before = world.read(&before, back);
    for (_, record) in &published {
        assert!(record.withdraws(epoch) && record.key(epoch).is_none());
        assert!(record::Breach::between(&before, record, MINUTE * 5).is_none());
    }
    assert!(!published.is_empty());
}

/// How many words about others are announced.
fn said(world: &World, commands: Vec<Command>) -> usize {
    let announced = commands.into_iter().filter_map(|command| match command {
        Command::Announce(octets) => Some(octets),
        _ => None,
    });
    announced.filter(|octets| matches!(world.check(octets), Ok(Statement::Vouch(_)))).count()
}

/// What comes of an order about a node, and how many words are announced for it.
fn order(
    world: &World,
    node: &mut Remailer,
    order: OperatorOrder,
    now: Time,
) -> (Result<(), NotDone>, usize) {
    node.handle_order(OrderId(1), order, now, &mut ChaCha20Rng::seed_from_u64(3));
    let mut commands: Vec<_> = std::iter::from_fn(|| next(node, now)).collect();
    let Some(Command::Reply(OrderId(1), reply)) = commands.pop() else { panic!("no reply") };
    let subject = match order {
        OperatorOrder::Vouch(node)
        | OperatorOrder::Unvouch(node)
        | OperatorOrder::Retire(node)
        | OperatorOrder::Ban(node)
        | OperatorOrder::Unban(node) => node,
        OperatorOrder::Leave(_) | OperatorOrder::Stay | OperatorOrder::Invite => {
            panic!("of no node")
        }
    };
    (reply.map(|done| assert!(done == Done::Of(subject))), said(world, commands))
}

#[test]
fn a_node_vouches_renews_and_takes_back() {
    let root = identity(1).node();
    let mut world = world(&Admission::Vouched { roots: vec![root], depth: 1, fan_out: 2 });
    let start = world.start;
    let setup = Setup { first_record_after: Duration::ZERO, ..world.setup(1) };
    let mut node = world.node(setup);
    let friend = identity(2).node();
    assert_eq!(
        order(&world, &mut node, OperatorOrder::Unvouch(friend), start),
        (Err(NotDone::NoVouch), 0)
    );
    assert_eq!(order(&world, &mut node, OperatorOrder::Vouch(friend), start), (Ok(()), 1));
    let record = world.record(2, start, |_| {});
    world.hear(&mut node, &record, start);
    let soon = start.plus(MINUTE * 60);
    assert_eq!(node.standings(soon)[&friend], Standing::NotListed);
    let days = start.plus(MINUTE * 60 * 24 * 16);
    node.handle_timeout(days, &mut ChaCha20Rng::seed_from_u64(3));
    let commands = std::iter::from_fn(|| next(&mut node, days)).collect();
    assert_eq!(said(&world, commands), 1, "at half of its thirty days");
    assert_eq!(
        order(&world, &mut node, OperatorOrder::Unvouch(friend), days.plus(MINUTE)),
        (Ok(()), 1)
    );

    let mut stranger = world.setup(3);
    stranger.first_record_after = Duration::ZERO;
    let mut stranger = world.node(stranger);
    let refused = order(&world, &mut stranger, OperatorOrder::Vouch(friend), start).0;
    assert_eq!(refused, Err(NotDone::WordCountsForNothing));
}

/// A node that knows 2 to 8 and uses their list, which the voters voted.
fn listed(world: &mut World) -> (Remailer, Vec<Vec<u8>>) {
    let start = world.start;
    let setup = Setup { first_record_after: Duration::from_secs(1 << 30), ..world.setup(1) };
    let mut node = world.node(setup);
    let records: Vec<_> =
        (2..=8).chain(VOTERS).map(|number| world.record(number, start, |_| {})).collect();
    for record in &records {
        world.hear(&mut node, record, start);
    }
    world.vote(&mut node, &VOTERS[..1], &records, start);
    assert_eq!(node.check_routes(start), Err(Refused::NoList), "one of three");
    world.vote(&mut node, &VOTERS[1..2], &records, start);
    assert_eq!(node.view().unwrap().len(), 10);
    assert_ne!(node.check_routes(start), Err(Refused::NoList));
    (node, records)
}

#[test]
fn a_list_goes_on_for_six_hours_without_votes_and_then_no_mail_is_taken() {
    let mut world = world(&Admission::Open);
    let (start, schedule) = (world.start, world.parameters.schedule());
    let (mut node, _) = listed(&mut world);
    let first = schedule.hour_start(schedule.hour_at(start));
    let missing = |node: &Remailer, now| {
        let mut missing = node.missing_voters(now);
        missing.sort_unstable();
        missing
    };
    assert!(node.alarms(start).is_empty() && missing(&node, start).is_empty());
    let mut now = start;
    for hours in 1..=6 {
        let next = first.plus(MINUTE * (60 * hours + 5));
        world.published(&mut node, now, next);
        assert!(!node.alarms(next).iter().any(|alarm| matches!(alarm, Alarm::NoList { .. })));
        now = first.plus(MINUTE * (60 * hours + 11));
        world.published(&mut node, next, now);
        let alarm = Alarm::NoList { hours: Some(hours.into()) };
        assert_eq!(node.alarms(now), [alarm]);
        let mut voters = VOTERS.map(|number| identity(number).node());
        voters.sort_unstable();
        assert_eq!(missing(&node, now), voters, "it says whose votes are missing");
        let refused = (hours == 6).then_some(Refused::NoList);
        assert_eq!(node.check_routes(now).err().filter(|why| *why == Refused::NoList), refused);
    }
    // Votes come back, and mail with them.
    let records: Vec<_> = (2..=8)
        .chain(VOTERS)
        .map(|number| world.record(number, now, |draft| draft.sequence = 50))
        .collect();
    for record in &records {
        world.hear(&mut node, record, now);
    }
    world.vote(&mut node, &VOTERS[..2], &records, now);
    assert!(node.alarms(now).is_empty());
    assert_ne!(node.check_routes(now), Err(Refused::NoList));
}

#[test]
fn what_listed_peers_say_of_their_lists_is_shown_and_stops_no_mail_and_strangers_have_no_say() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let (mut node, records) = listed(&mut world);
    let hour = world.parameters.schedule().hour_at(start);
    let later = start.plus(MINUTE * 6);
    let other = world.record(3, later, |draft| {
        draft.sequence = 42;
        draft.list = (hour, ListSketch::from_bytes([9; 32]));
    });
    world.hear(&mut node, &other, later);
    let own = node.directory().list_in_use();
    let same = world.record(4, later, |draft| (draft.sequence, draft.list) = (42, own));
    world.hear(&mut node, &same, later);
    let agreement = |number| node.agreement(&identity(number).node());
    assert!(matches!(agreement(3), Agreement::Apart(30..)));
    assert_eq!((agreement(4), agreement(5)), (Agreement::Same, Agreement::Unknown));

    // Peers that were asked use a list of one node for this hour.
    let mut elsewhere = Directory::new(&world.descriptor);
    elsewhere.admit(world.read(&records[0], start), directory::Source::Own, start).unwrap();
    elsewhere.restore_list(elsewhere.propose_first(hour));
    let tell = |world: &mut World, node: &mut Remailer, peer: u8| {
        let peer = identity(peer).node();
        node.handle_peers_up(&[peer], later, &mut world.rng);
        while let Some(command) = next(node, later) {
            if let Command::Ask(_, request) = command {
                let octets = elsewhere.answer(&request.encode().unwrap(), later).unwrap();
                let answer = Answer::check(&octets, &world.descriptor.id()).unwrap();
                node.handle_sync_answer(peer, answer, later, &mut world.rng);
            }
        }
        node.handle_peer_down(&peer);
    };
    for stranger in 60..70 {
        tell(&mut world, &mut node, stranger);
    }
    assert!(node.alarms(later).is_empty());
    for peer in 2..=4 {
        tell(&mut world, &mut node, peer);
    }
    assert_eq!(node.alarms(later), [Alarm::AnotherList { other: 3, same: 0 }]);
    assert_ne!(node.check_routes(later), Err(Refused::NoList));
}

#[test]
fn a_list_that_halves_is_an_alarm_for_three_hours() {
    let mut world = world(&Admission::Open);
    let (start, schedule) = (world.start, world.parameters.schedule());
    let (mut node, _) = listed(&mut world);
    let now = schedule.hour_end(schedule.hour_at(start));
    world.published(&mut node, start, now);
    let records: Vec<_> =
        (2..=6).map(|number| world.record(number, now, |draft| draft.sequence = 50)).collect();
    for record in &records {
        world.hear(&mut node, record, now);
    }
    world.vote(&mut node, &VOTERS[..2], &records, now);
    assert_eq!(node.view().unwrap().len(), 5);
    assert_eq!(node.alarms(now), [Alarm::Halved { before: 10, after: 5 }]);
    let later = now.plus(MINUTE * 180);
    assert!(!node.alarms(later).iter().any(|alarm| matches!(alarm, Alarm::Halved { .. })));
}

#[test]
fn gossip_takes_nothing_that_was_held_back_and_reconciliation_does() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let setup = Setup { first_record_after: Duration::from_secs(1 << 30), ..world.setup(1) };
    let mut node = world.node(setup);
    let late = world.record(30, start.minus(MINUTE * 10), |_| {});
    let just = start.plus(Duration::from_millis(1));
    assert_eq!(world.hear(&mut node, &late, just), Judgement::Ignore);
    assert_eq!(node.counts().get(Count::StatementRefused(NotTaken::Late)), 1);
    assert!(!node.directory().knows(&identity(30).node()));
    world.visit(&mut node, 40, std::slice::from_ref(&late), 0, just);
    assert!(node.directory().knows(&identity(30).node()));
    let timely = world.record(31, start.minus(MINUTE * 10), |_| {});
    assert_eq!(world.hear(&mut node, &timely, start), Judgement::Accept);
}

#[test]
fn a_vote_of_nobody_is_refused_and_one_of_another_hour_ignored() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let (mut node, _) = listed(&mut world);
    let hour = world.parameters.schedule().hour_at(start);
    let vote = |world: &World, voter: u8, hour| {
        let digests = [record::BucketDigest::EMPTY; record::BUCKETS];
        let draft = VoteDraft { hour, before: record::ListHash::NONE, digests };
        draft.sign(&identity(voter), &world.descriptor.id()).unwrap()
    };
    let of_stranger = vote(&world, 77, hour);
    assert_eq!(world.hear(&mut node, &of_stranger, start), Judgement::Reject);
    for far in [hour.minus(5), hour.plus(40)] {
        let octets = vote(&world, 13, far);
        assert_eq!(world.hear(&mut node, &octets, start), Judgement::Ignore);
    }
    let refused = |why| node.counts().get(Count::StatementRefused(why));
    assert_eq!((refused(NotTaken::NoVoter), refused(NotTaken::OtherHour)), (1, 2));
    // A second vote for one hour is a proof, which everybody is to have.
    let first = vote(&world, 13, hour);
    assert_eq!(world.hear(&mut node, &first, start), Judgement::Accept);
    while next(&mut node, start).is_some() {}
    let rival = {
        let digests = [record::BucketDigest::from_bytes([3; 16]); record::BUCKETS];
        let draft = VoteDraft { hour, before: record::ListHash::NONE, digests };
        draft.sign(&identity(13), &world.descriptor.id()).unwrap()
    };
    assert_eq!(world.hear(&mut node, &rival, start), Judgement::Ignore);
    let announced =
        std::iter::from_fn(|| next(&mut node, start)).find_map(|command| match command {
            Command::Announce(octets) => Some(octets),
            _ => None,
        });
    assert!(matches!(world.check(&announced.unwrap()), Ok(Statement::Proof(_))));
}

#[test]
fn a_voter_votes_once_for_an_hour_whatever_is_restarted_when() {
    let mut world =
        world(&Admission::Vouched { roots: vec![identity(1).node()], depth: 1, fan_out: 2 });
    let (start, schedule) = (world.start, world.parameters.schedule());
    let setup = Setup { first_record_after: Duration::ZERO, ..world.setup(1) };
    let mut node = world.node(setup);
    let votes = |world: &mut World, node: &mut Remailer, from: Time, end: Time| {
        let mut votes = Vec::new();
        let mut now = from;
        loop {
            node.handle_timeout(now, &mut world.rng);
            let mut kept = None;
            while let Some(command) = next(node, now) {
                match command {
                    Command::KeepVote(_, octets) => kept = Some(octets),
                    Command::Announce(octets) => {
                        if let Ok(Statement::Vote(vote)) = world.check(&octets) {
                            assert_eq!(kept.as_ref(), Some(&octets), "kept before it is announced");
                            votes.push((now, vote.hour(), octets));
                        }
                    }
                    _ => {}
                }
            }
            assert!(node.poll_timeout() > now, "it gets on");
            now = node.poll_timeout();
            if now > end {
                return votes;
            }
        }
    };
    let end = schedule.hour_end(schedule.hour_at(start)).plus(MINUTE * 55);
    let cast = votes(&mut world, &mut node, start, end);
    assert_eq!(cast.len(), 1);
    let (at, hour, last) = cast[0].clone();
    assert_eq!(schedule.hour_start(hour).since(at), MINUTE * 10);
    // It starts again within the same ten minutes, with all that it knew but its vote, or with its
    // vote and nothing else of that hour.
    let own = node.directory().newest(&identity(1).node()).unwrap().octets().to_vec();
    let list = node.directory().list().map(|list| list.to_octets());
    let all: Vec<_> = node.directory().statements().map(|octets| octets.to_vec()).collect();
    let is_vote = |octets: &Vec<u8>| matches!(world.check(octets), Ok(Statement::Vote(_)));
    let without: Vec<_> = all.iter().filter(|octets| !is_vote(octets)).cloned().collect();
    assert!(without.len() < all.len());
    world.start = at.plus(MINUTE);
    let after = schedule.hour_start(hour).plus(MINUTE * 5);
    for (statements, vote, again) in
        [(all, None, 0), (without.clone(), Some(last), 0), (without, None, 1)]
    {
        let known = Known { statements, vote, list: list.clone(), ..Known::default() };
        let setup = Setup { past: Past::Known(own.clone()), known, ..world.setup(1) };
        let mut node = world.node(setup);
        let from = world.start;
        // Peers that remember nothing of it let it go on.
        for witness in VOTERS {
            world.visit(&mut node, witness, &[], 0, from);
        }
        assert!(!node.wants_witnesses());
        assert_eq!(votes(&mut world, &mut node, from, after).len(), again);
    }
}

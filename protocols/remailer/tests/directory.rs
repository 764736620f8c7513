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

use directory::{Answer, Directory, Standing};
use fog_remailer::{
    Agreement, Alarm, Command, Count, Done, Judgement, Kept, NotDone, NotPublished, NotTaken,
    OperatorOrder, OrderId, Past, Refused, Remailer, Setup,
};
use keys::{Epoch, Identity, Time};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::{
    Admission, Descriptor, Draft, Parameters, Record, SetHash, Statement, Unverified, testing,
};

const MINUTE: Duration = Duration::from_secs(60);

struct World {
    parameters: Parameters,
    descriptor: Arc<Descriptor>,
    start: Time,
    rng: ChaCha20Rng,
}

fn world(admission: &Admission) -> World {
    let parameters = Parameters::main().with_first_view(4);
    let start = parameters.schedule().start(Epoch::new(165_000)).plus(MINUTE * 40);
    let maker = Identity::from_seed(&[77; 32]);
    let descriptor = Descriptor::create(&maker, "n", start, &parameters, admission).unwrap();
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
        let mut holder = Directory::new(self.parameters.schedule(), self.descriptor.admission());
        for octets in held {
            let _ = holder.admit(self.read(octets, now), directory::Source::CatchUp);
        }
        let theirs = Time::from_millis(now.as_millis().saturating_add_signed(ahead * 1000));
        let peer = identity(peer).node();
        node.handle_peer_up(peer, now, &mut self.rng);
        let mut questions = 0;
        while let Some(command) = node.next_command() {
            match command {
                Command::Ask(asked, request) if asked == peer => {
                    questions += 1;
                    let set = node.set_hash(now);
                    let octets = holder.answer(&request.encode().unwrap(), theirs, || set).unwrap();
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

    /// What the node publishes until `end`, with the time of each.
    fn published(&mut self, node: &mut Remailer, from: Time, end: Time) -> Vec<(Time, Record)> {
        let mut published = Vec::new();
        let mut now = from;
        loop {
            node.handle_timeout(now, &mut self.rng);
            while let Some(command) = node.next_command() {
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
    for peer in 11..=13 {
        world.visit(&mut node, peer, std::slice::from_ref(&newer), 0, now);
    }
    let published = world.published(&mut node, now, start.plus(MINUTE * 60));
    let (at, first) = &published[0];
    assert!(*at < start.plus(MINUTE * 3), "three peers have said what they know");
    assert_eq!(first.sequence(), 50 + (1 << 20));
    assert_eq!(first.previous(), world.read(&newer, now).hash());
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
fn a_node_with_a_past_waits_for_three_peers_or_ten_minutes() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let own = world.record(1, start.minus(MINUTE * 30), |_| {});
    let others: Vec<_> =
        (2..=5).map(|n| world.record(n, start.minus(MINUTE * 30), |_| {})).collect();
    let setup = || Setup {
        epochs: world.kept(1, 3),
        past: Past::Known(own.clone()),
        statements: others.clone(),
        ..world.setup(1)
    };
    let (alone, asking) = (setup(), setup());
    let mut node = world.node(alone);
    let published = world.published(&mut node, start, start.plus(MINUTE * 15));
    assert_eq!(published[0].0, start.plus(MINUTE * 10));
    assert_eq!(published[0].1.sequence(), 41 + (1 << 20));
    assert_eq!(published[0].1.epochs().count(), 3, "nothing was lost, nothing is given up");

    let mut node = world.node(asking);
    world.visit(&mut node, 2, &others, 0, start);
    world.visit(&mut node, 2, &others, 0, start);
    world.visit(&mut node, 3, &others, 0, start);
    world.visit(&mut node, 99, &others, 0, start);
    assert!(node.wants_witnesses(), "two peers, whatever one says twice, and a stranger");
    world.visit(&mut node, 4, &others, 0, start);
    assert!(!node.wants_witnesses());
    assert_eq!(world.published(&mut node, start, start.plus(MINUTE)).len(), 1);
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
    assert_eq!(node.alarms(now), [Alarm::Rival]);
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
    for (peer, ahead) in [(2, 6 * 60), (3, 6 * 60), (4, 0)] {
        world.visit(&mut node, peer, &[], ahead, start);
    }
    assert_eq!(node.check_routes(start), Err(Refused::ClockApart));
    assert_eq!(node.alarms(start), [Alarm::ClockApart(360_000)]);
    let epoch = world.parameters.schedule().epoch_at(start);
    let mut now = start;
    while now < start.plus(MINUTE * 350) {
        for peer in 2..=4 {
            world.visit(&mut node, peer, &[], 6 * 60, now);
        }
        let next = now.plus(MINUTE * 10);
        assert!(world.published(&mut node, now, next).is_empty());
        now = next;
        assert_eq!(node.oldest_key(), Some(epoch), "no key is destroyed");
    }
    for peer in 2..=4 {
        world.visit(&mut node, peer, &[], 6 * 60, now);
    }
    world.published(&mut node, now, now.plus(MINUTE * 15));
    assert!(node.oldest_key() > Some(epoch), "six hours are enough");
    for peer in 2..=4 {
        world.visit(&mut node, peer, &[], 4 * 60, now);
    }
    assert_ne!(node.check_routes(now), Err(Refused::ClockApart));
    assert!(node.alarms(now).is_empty());
    assert!(!world.published(&mut node, now, now.plus(MINUTE * 70)).is_empty());
}

/// The epochs before which seeds are forgotten, and the records announced, until `end`.
fn forgotten(world: &mut World, node: &mut Remailer, from: Time, end: Time) -> Vec<Epoch> {
    let mut forgotten = Vec::new();
    let mut now = from;
    while now <= end {
        node.handle_timeout(now, &mut world.rng);
        while let Some(command) = node.next_command() {
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
            statements: others,
            ..world.setup(1)
        };
        let ahead = MINUTE * 60 * 24 * days;
        world.start = right.plus(ahead);
        let start = world.start;
        let mut node = world.node(setup);
        let end = start.plus(MINUTE * 5);
        assert!(forgotten(&mut world, &mut node, start, end).is_empty());
        let behind = -i64::try_from(ahead.as_secs()).unwrap();
        for peer in 11..=13 {
            world.visit(&mut node, peer, &[], behind, end);
        }
        assert!(matches!(node.alarms(end)[..], [Alarm::ClockApart(_)]), "{days} days");
        let later = end.plus(MINUTE * 100);
        assert!(forgotten(&mut world, &mut node, end, later).is_empty(), "{days} days");
        // Where the peers agree, what is past is forgotten at once.
        for peer in 11..=13 {
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
    let published = world.published(&mut node, back, back.plus(MINUTE * 20));
    let before = world.read(&before, back);
    for (_, record) in &published {
        assert!(record.withdraws(epoch) && record.key(epoch).is_none());
        assert!(record::Breach::between(&before, record).is_none());
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
    let mut commands: Vec<_> = std::iter::from_fn(|| node.next_command()).collect();
    let Some(Command::Reply(OrderId(1), reply)) = commands.pop() else { panic!("no reply") };
    let subject = match order {
        OperatorOrder::Vouch(node)
        | OperatorOrder::Unvouch(node)
        | OperatorOrder::Ban(node)
        | OperatorOrder::Unban(node) => node,
        OperatorOrder::Invite => panic!("of no node"),
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
    assert!(matches!(node.standings(soon)[&friend], Standing::Probation(_)));
    let days = start.plus(MINUTE * 60 * 24 * 16);
    node.handle_timeout(days, &mut ChaCha20Rng::seed_from_u64(3));
    let commands = std::iter::from_fn(|| node.next_command()).collect();
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

#[test]
fn views_that_differ_for_two_hours_and_halve_are_alarms() {
    let mut world = world(&Admission::Open);
    let start = world.start;
    let schedule = world.parameters.schedule();
    let setup = Setup { first_record_after: Duration::ZERO, ..world.setup(1) };
    let mut node = world.node(setup);
    let mut now = start;
    let mut alarms = Vec::new();
    for hour in 0..5u32 {
        // In every hour after the first: 2 and 3 see what this node sees, 4 to 8 something else.
        let own = node.set_hash(now);
        for number in 2..=8 {
            let record = world.record(number, now, |draft| {
                draft.sequence = u64::from(hour) + 1;
                draft.set =
                    if number <= 3 || hour == 0 { own } else { SetHash::from_bytes([9; 32]) };
            });
            world.hear(&mut node, &record, now);
        }
        if hour == 2 {
            let agreement = |number| node.agreement(&identity(number).node(), now);
            assert_eq!((agreement(2), agreement(4)), (Agreement::Same, Agreement::Other));
            assert_eq!(agreement(9), Agreement::Unknown);
        }
        let next = schedule.hour_end(schedule.hour_at(now)).plus(MINUTE * 10);
        world.published(&mut node, now, next);
        now = next;
        alarms.push(node.alarms(now));
    }
    assert!(alarms[0].is_empty() && alarms[1].is_empty(), "{alarms:?}");
    assert_eq!(alarms[2], [Alarm::AnotherView { other: 5, same: 2 }]);
    assert_eq!(node.check_routes(now), Err(Refused::Divided), "no route in a network apart");

    // Four go on; when the keys of the others have run out, half of the view is gone.
    let mut halved = None;
    for hour in 0..14 {
        let own = node.set_hash(now);
        for number in 2..=4 {
            let record = world.record(number, now, |draft| {
                (draft.sequence, draft.set) = (100 + hour, own);
            });
            world.hear(&mut node, &record, now);
        }
        let next = schedule.hour_end(schedule.hour_at(now)).plus(MINUTE * 10);
        world.published(&mut node, now, next);
        now = next;
        let alarm = node.alarms(now).into_iter().find(|a| matches!(a, Alarm::Halved { .. }));
        halved = halved.or(alarm);
    }
    assert_eq!(halved, Some(Alarm::Halved { before: 8, after: 4 }));
    assert!(node.alarms(now).is_empty(), "it has been said for three hours");
}

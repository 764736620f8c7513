//! What a node wants done for each input, exactly and in order: keys and replay rest on two orders
//! of commands, and a caller that carries them out one by one must be able to rely on all of them.
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

use directory::{Answer, Directory, ItemId, Request};
use fog_remailer::{
    ClockJump, Command, Count, CustodyKept, Cut, DeliveryId, DeliveryOutcome, Done, Dropped,
    ExitOffer, Invite, InviteAnswer, InvitesKept, Judgement, KeepId, Kept, Known, MessageName,
    MessageState, NotAnswered, NotDelivered, NotDone, NotPublished, OperatorOrder, OrderId,
    QuestionId, QueueId, Refused, Remailer, Role, Setup, Spooled, SubmissionId,
};
use keys::{Epoch, Identity, MixSecret, MixSeed, NodeId, OnionAddress, Time};
use mail::{Mailbox, Submission};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::{
    Admission, Capabilities, Descriptor, Domains, Draft, ExitPolicy, Parameters, Statement,
    VoteDraft, VouchDraft, VouchRole, Word, testing,
};
use sphinx::{
    Body, End, EpochKey, EpochKeys, Hop, Kind, Layer, Peeled, Refusal, ReplyBlock, ReplyEnd,
    ReplyKeys, SizeClass,
};
use zeroize::Zeroizing;

const MINUTE: Duration = Duration::from_secs(60);
const FIRST: u32 = 165_000;

/// A node in a network of ten identities, of which the first is a root that vouches.
struct World {
    descriptor: Arc<Descriptor>,
    now: Time,
    rng: ChaCha20Rng,
    node: Remailer,
    /// Those that packets are opened with.
    keys: EpochKeys,
    /// What its packets carry.
    content: Vec<u8>,
    /// What the next of them can be answered with.
    reply: Option<ReplyBlock>,
    /// The id of the message that was taken last.
    taken: Option<QueueId>,
}

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

fn id(number: u8) -> NodeId {
    identity(number).node()
}

fn descriptor(admission: &Admission) -> Arc<Descriptor> {
    let parameters = Parameters::main().with_first_list(5).quiet();
    let start = parameters.schedule().start(Epoch::new(FIRST));
    let maker = identity(77);
    let voters = match admission {
        Admission::Open => vec![id(VOTER)],
        Admission::Vouched { .. } => Vec::new(),
    };
    let made = Descriptor::create(&maker, "n", start, &parameters, &voters, admission);
    Arc::new(made.unwrap())
}

/// The voter of an open network; in a vouched one the node itself is root and voter.
const VOTER: u8 = 20;

impl World {
    fn new(admission: &Admission, change: impl FnOnce(Setup) -> Setup) -> Self {
        let descriptor = descriptor(admission);
        let schedule = descriptor.parameters().schedule();
        let now = schedule.start(Epoch::new(FIRST)).plus(MINUTE * 40);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let setup = change(Setup::new(identity(1), Arc::clone(&descriptor)));
        let node = Remailer::new(setup, now, &mut rng);
        Self {
            descriptor,
            now,
            rng,
            node,
            keys: EpochKeys::default(),
            content: b"no fragment".to_vec(),
            reply: None,
            taken: None,
        }
    }

    /// A node that has published, with nothing left to be done.
    fn running(admission: &Admission) -> Self {
        let mut world = Self::new(admission, |setup| setup);
        world.node.handle_reachable();
        world.time_out();
        world.kept();
        world
    }

    /// All that is to be done, by a disk that keeps everything at once.
    fn kept(&mut self) -> Vec<String> {
        let mut printed = Vec::new();
        loop {
            let commands = self.commands();
            if commands.is_empty() {
                return printed;
            }
            for command in commands {
                printed.push(format!("{command:?}"));
                if let Some(id) = awaited(&command) {
                    self.node.handle_kept(id, self.now, &mut self.rng);
                }
            }
        }
    }

    fn open() -> Self {
        Self::running(&Admission::Open)
    }

    fn rooted() -> Self {
        Self::running(&Admission::Vouched { roots: vec![id(1)], depth: 2, fan_out: 3 })
    }

    fn commands(&mut self) -> Vec<Command> {
        let commands: Vec<_> = std::iter::from_fn(|| self.node.next_command()).collect();
        for command in &commands {
            match command {
                Command::Accept(keys) => self.keys = keys.clone(),
                Command::Answer(_, Ok(taken)) => self.taken = Some(taken.name),
                _ => {}
            }
        }
        commands
    }

    /// The commands as they are printed.
    fn printed(&mut self) -> Vec<String> {
        self.commands().iter().map(|command| format!("{command:?}")).collect()
    }

    fn time_out(&mut self) {
        self.node.handle_timeout(self.now, &mut self.rng);
    }

    fn record(&self, number: u8, change: impl Fn(&mut Draft)) -> Vec<u8> {
        let draft = testing::draft(number.into(), self.now, self.node.schedule());
        let mut draft = Draft { exit: number.is_multiple_of(2).then(policy), ..draft };
        change(&mut draft);
        draft.sign(&identity(number), &self.descriptor.id()).unwrap()
    }

    fn hear(&mut self, octets: &[u8]) -> Judgement {
        let checked = Statement::check(octets, &self.descriptor.id());
        self.node.handle_statement(checked, self.now, &mut self.rng)
    }

    /// Four others are known, so that there is a view.
    fn with_a_view() -> Self {
        let mut world = Self::open();
        for number in 2..=5 {
            let record = world.record(number, |_| {});
            assert_eq!(world.hear(&record), Judgement::Accept);
        }
        world.commands();
        assert_eq!(world.vote(), Judgement::Accept);
        world.commands();
        world
    }

    /// The voter votes for all that this node knows.
    fn vote(&mut self) -> Judgement {
        let directory = self.node.directory();
        let list = directory.propose_first(self.node.schedule().hour_at(self.now));
        let (hour, digests) = (list.hour(), *list.digests());
        let draft = VoteDraft { hour, before: directory.list_hash(), digests };
        let octets = draft.sign(&identity(VOTER), &self.descriptor.id()).unwrap();
        self.hear(&octets)
    }

    fn submit(&mut self, number: u64, to: &str) {
        let message = format!("From: me@home.example\r\nTo: {to}\r\n\r\nbody\r\n").into_bytes();
        let submission = Submission { recipients: vec![Mailbox::parse(to).unwrap()], message };
        let id = SubmissionId(number);
        let cut = Cut::of(&submission, self.descriptor.parameters(), &mut self.rng);
        self.node.handle_submission(id, cut, self.now, &mut self.rng);
    }

    /// Has a submission sealed; what is to be kept of it then.
    fn seal(&mut self, number: u64, to: &str) -> (KeepId, Zeroizing<Vec<u8>>) {
        self.submit(number, to);
        let Some(Command::Seal(id, sealing)) = self.commands().pop() else { panic!() };
        let sealed = sealing.run(&mut self.rng);
        self.node.handle_sealed(id, sealed, self.now, &mut self.rng);
        let Some(Command::KeepMessage(id, _, octets)) = self.commands().pop() else { panic!() };
        (id, octets)
    }

    /// Has a submission taken.
    fn take_mail(&mut self, number: u64, to: &str) {
        let (id, _) = self.seal(number, to);
        self.node.handle_kept(id, self.now, &mut self.rng);
        assert_eq!(self.printed(), [format!("Answer({number}, taken)")]);
    }

    /// The id of the message that was taken last.
    fn queue_id(&self) -> QueueId {
        self.taken.unwrap()
    }

    /// Lets time pass until a message is over; for how many recipients it is what.
    fn pass_until_over(mut self, id: &QueueId) -> Vec<(MessageState, u8)> {
        for _ in 0..40 {
            self.pass(MINUTE * 15);
        }
        self.node.message(id).unwrap()
    }

    /// Opens packet `number`, of this kind and delay, as the node would: over it to 3 and 4, or
    /// over 2 and 3 to it.
    fn peel(&mut self, kind: Kind, delay: Duration, number: u64) -> Result<Peeled, Refusal> {
        let epoch = Epoch::new(FIRST);
        let secrets = [2_u64, 3, 4].map(|n| MixSecret::from_seed(&testing::seed(n, epoch)));
        let own = Arc::clone(self.node.directory().newest(&id(1)).unwrap());
        let own = Hop { node: id(1), epoch, key: own.key(epoch).unwrap(), delay };
        let other = |n: u8| {
            let key = secrets[usize::from(n) - 2].public();
            Hop { node: id(n), epoch, key, delay: Duration::ZERO }
        };
        let mut rng = ChaCha20Rng::seed_from_u64(number);
        if kind == Kind::Forward {
            let body = Body { end: End::Drop, ..Body::default() };
            let packet = sphinx::wrap(&[own, other(3), other(4)], &body, &mut rng).unwrap();
            return sphinx::peel(packet, &self.keys);
        }
        let end = match kind {
            Kind::Loop => End::Loop,
            Kind::Drop => End::Drop,
            Kind::Forward | Kind::Deliver | Kind::Reply | Kind::DeliverToStream => End::Deliver,
        };
        let reply = self.reply.take();
        // Each packet brings a delivery of its own, which an exit takes once; from 1000 on it brings that
        // of an earlier one.
        let mut content = self.content.clone();
        if let Some(delivery) = content.get_mut(2..10) {
            delivery.copy_from_slice(&(number % 1000).to_be_bytes());
        }
        let body = Body { end, content: &content, reply: reply.as_ref(), ..Body::default() };
        let mut packet = sphinx::wrap(&[other(2), other(3), own], &body, &mut rng).unwrap();
        for n in [2, 3] {
            let secret = MixSecret::from_seed(&testing::seed(n.into(), epoch));
            let key = Arc::new(EpochKey::new(id(n), epoch, secret));
            let peeled = sphinx::peel(packet, &EpochKeys::new(vec![key])).unwrap();
            let Layer::Forward { packet: next, .. } = peeled.outcome.unwrap() else { panic!() };
            packet = next;
        }
        sphinx::peel(packet, &self.keys)
    }

    /// A reply block of node 5, over 3 and 4, that is good in the first epoch.
    fn reply_block(&self, number: u64) -> (ReplyBlock, ReplyKeys) {
        let epoch = Epoch::new(FIRST);
        let secrets = [3_u64, 4, 5].map(|n| MixSecret::from_seed(&testing::seed(n, epoch)));
        let hops: Vec<_> = [3, 4, 5]
            .into_iter()
            .zip(&secrets)
            .map(|(n, secret)| Hop {
                node: id(n),
                epoch,
                key: secret.public(),
                delay: Duration::ZERO,
            })
            .collect();
        let mut rng = ChaCha20Rng::seed_from_u64(number);
        sphinx::reply_block(&hops, ReplyEnd::Owner, SizeClass::SMALLEST, &mut rng).unwrap()
    }

    /// Carries an answer from node 3 to node 5, and opens it.
    fn open_answer(&self, mut packet: sphinx::Packet, opens: ReplyKeys) -> Vec<u8> {
        let epoch = Epoch::new(FIRST);
        for n in [3_u8, 4, 5] {
            let secret = MixSecret::from_seed(&testing::seed(n.into(), epoch));
            let key = Arc::new(EpochKey::new(id(n), epoch, secret));
            match sphinx::peel(packet, &EpochKeys::new(vec![key])).unwrap().outcome.unwrap() {
                Layer::Forward { packet: next, .. } => packet = next,
                Layer::Reply { payload, .. } => return opens.open(payload).unwrap().to_vec(),
                Layer::End { .. } | Layer::Stream { .. } => panic!("another end"),
            }
        }
        panic!("it did not end");
    }

    fn receive(&mut self, kind: Kind, delay: Duration, number: u64) {
        let peeled = self.peel(kind, delay, number);
        self.node.handle_peeled(id(9), peeled, self.now);
    }

    /// Handles timers until `span` is over, and returns what was to be done meanwhile.
    fn pass(&mut self, span: Duration) -> Vec<String> {
        let end = self.now.plus(span);
        let mut printed = Vec::new();
        while self.node.poll_timeout() <= end {
            self.now = self.node.poll_timeout().max(self.now);
            self.time_out();
            printed.extend(self.kept());
        }
        self.now = end;
        printed
    }

    fn order(&mut self, order: OperatorOrder) {
        self.node.handle_order(OrderId(9), order, self.now, &mut self.rng);
    }
}

/// The name under which a command of the author's is to be reported.
fn awaited(command: &Command) -> Option<KeepId> {
    match command {
        Command::KeepSeed(id, ..)
        | Command::KeepOwn(id, _)
        | Command::KeepVote(id, _)
        | Command::KeepMessage(id, ..) => Some(*id),
        _ => None,
    }
}

fn policy() -> ExitPolicy {
    ExitPolicy { domains: Domains::Any, max_message: 1 << 20, offers: Capabilities::KEEP_FROM }
}

#[test]
fn a_seed_and_an_own_record_are_kept_before_they_are_announced() {
    let mut world = World::new(&Admission::Open, |setup| setup);
    assert_eq!(world.printed(), [""; 0], "nobody can reach it");
    world.time_out();
    world.printed();
    world.node.handle_reachable();
    world.time_out();
    // Nothing is used or stated before it is kept.
    let seeds = world.commands();
    let printed: Vec<_> = seeds.iter().map(|command| format!("{command:?}")).collect();
    assert_eq!(printed, ["KeepSeed(165000)", "KeepSeed(165001)", "KeepSeed(165002)"]);
    world.time_out();
    assert_eq!(world.printed(), [""; 0]);
    let ids: Vec<_> = seeds.iter().filter_map(awaited).collect();
    world.node.handle_kept(ids[1], world.now, &mut world.rng);
    assert_eq!(world.printed(), [""; 0], "a key of a later epoch opens nothing yet");
    // One fails, and is asked for again after a minute: the same seed.
    world.node.handle_keep_failed(ids[0], world.now, &mut world.rng);
    world.node.handle_kept(ids[2], world.now, &mut world.rng);
    assert_eq!(world.printed(), [""; 0]);
    world.now = world.now.plus(MINUTE);
    world.time_out();
    let again = world.commands();
    let [Command::KeepSeed(name, epoch, seed)] = &again[..] else { panic!("{again:?}") };
    let Command::KeepSeed(_, first, before) = &seeds[0] else { panic!("{:?}", seeds[0]) };
    assert!(epoch == first && seed.as_bytes() == before.as_bytes());
    world.node.handle_kept(*name, world.now, &mut world.rng);
    let commands = world.commands();
    let [Command::Accept(_), Command::KeepOwn(own, first)] = &commands[..] else {
        panic!("{commands:?}")
    };
    // The record fails: another with another number follows, and the same predecessor.
    world.node.handle_keep_failed(*own, world.now, &mut world.rng);
    assert_eq!(world.printed(), [""; 0]);
    world.now = world.now.plus(MINUTE);
    world.time_out();
    let commands = world.commands();
    let [Command::KeepOwn(own, second)] = &commands[..] else { panic!("{commands:?}") };
    let number = |octets: &[u8]| match Statement::check(octets, &world.descriptor.id()).unwrap() {
        Statement::Record(signed) => (signed.sequence(), signed.peek().previous()),
        _ => panic!("a record"),
    };
    let none = record::StatementHash::NONE;
    assert_eq!([number(first), number(second)], [(1, none), (2, none)]);
    world.node.handle_kept(*own, world.now, &mut world.rng);
    let last = world.commands();
    let printed: Vec<_> = last.iter().map(|command| format!("{command:?}")).collect();
    assert_eq!(printed, ["KeepStatement(3993 octets)", "Announce(3993 octets)"]);
    let own = world.node.directory().newest(&id(1)).unwrap().octets().clone();
    assert!(second[..] == own[..]);
    assert!(last[0] == Command::KeepStatement(ItemId::of(&own), Arc::clone(&own)));
    assert!(last[1] == Command::Announce(own.to_vec()));
    assert_eq!(world.node.counts().get(Count::OwnRecordRefused(NotPublished::NotKept)), 2);
    // Another seed is another command, though it prints the same.
    let Command::KeepSeed(name, epoch, seed) = &seeds[0] else { panic!("{:?}", seeds[0]) };
    let same = Command::KeepSeed(*name, *epoch, MixSeed::from_bytes(seed.as_bytes()));
    let other = Command::KeepSeed(*name, *epoch, MixSeed::generate(&mut world.rng));
    assert!(seeds[0] == same && seeds[0] != other);
    assert_eq!(format!("{other:?}"), "KeepSeed(165000)");
}

#[test]
fn nothing_leaves_between_keep_tags_and_its_confirmation() {
    let mut world = World::with_a_view();
    world.receive(Kind::Forward, Duration::from_secs(1), 1);
    assert_eq!(world.printed(), ["KeepTags(1, 1)"]);
    // Those that arrive meanwhile wait for the next batch.
    world.receive(Kind::Forward, Duration::from_secs(1), 2);
    world.receive(Kind::Forward, Duration::from_secs(1), 3);
    let meanwhile = world.pass(MINUTE * 10);
    assert!(meanwhile.iter().all(|command| !command.starts_with("Send")), "{meanwhile:?}");
    assert_eq!(world.node.held().mixing, 3);
    world.node.handle_tags_kept(99, world.now);
    assert_eq!(world.printed(), [""; 0], "another batch says nothing of this one");
    world.node.handle_tags_kept(1, world.now);
    assert_eq!(world.printed(), ["KeepTags(2, 2)"]);
    assert_eq!(sends(&world.pass(MINUTE * 2)), 1, "the first batch and nothing else");
    world.node.handle_tags_lost(2);
    assert_eq!(world.printed(), [""; 0]);
    assert_eq!(sends(&world.pass(MINUTE * 10)), 0);
    let count = |count| world.node.counts().get(count);
    assert_eq!(count(Count::PacketDropped(Dropped::NotKept)), 2);
    assert_eq!(world.node.held().mixing, 0);
}

fn sends(printed: &[String]) -> usize {
    printed.iter().filter(|command| command.starts_with("Send")).count()
}

#[test]
fn packets() {
    let mut world = World::with_a_view();
    world.node.handle_peeled(id(9), Err(Refusal::Mac), world.now);
    assert_eq!(world.printed(), [""; 0]);
    world.receive(Kind::Forward, Duration::from_secs(1), 1);
    world.receive(Kind::Forward, Duration::from_secs(1), 1);
    world.receive(Kind::Forward, MINUTE * 11, 2);
    assert_eq!(world.printed(), ["KeepTags(1, 1)"], "the tag of a dropped one comes with the next");
    world.node.handle_tags_kept(1, world.now);
    assert_eq!(world.printed(), ["KeepTags(2, 1)"]);
    world.node.handle_tags_kept(2, world.now);
    let now = world.now;
    let sent = world.pass(MINUTE * 3);
    assert_eq!(sends(&sent), 1);
    assert!(world.now.since(now) >= Duration::from_secs(1));
    for (kind, number) in [(Kind::Drop, 5), (Kind::Loop, 6), (Kind::Deliver, 7)] {
        world.receive(kind, Duration::ZERO, number);
        let batch = world.commands();
        let [Command::KeepTags(tags)] = &batch[..] else { panic!("{batch:?}") };
        world.node.handle_tags_kept(tags.batch, world.now);
        assert_eq!(sends(&world.pass(MINUTE * 2)), 0);
    }
    world.node.handle_send_failed(Dropped::Expired);
    assert_eq!(world.printed(), [""; 0]);
    let count = |count| world.node.counts().get(count);
    for (what, times) in [
        (Count::PacketReceived, 7),
        (Count::PacketRelayed, 1),
        (Count::CoverEnded, 2),
        (Count::PacketDropped(Dropped::Mac), 1),
        (Count::PacketDropped(Dropped::Replay), 1),
        (Count::PacketDropped(Dropped::Delay), 1),
        (Count::PacketDropped(Dropped::Expired), 1),
        (Count::MessageDropped(NotDelivered::NotAnExit), 1),
    ] {
        assert_eq!(count(what), times, "{what:?}");
    }
}

#[test]
fn keys_are_accepted_from_their_time_on_and_no_longer_and_then_destroyed() {
    let mut world = World::open();
    let epochs = |keys: &EpochKeys| keys.epochs().map(Epoch::number).collect::<Vec<_>>();
    assert_eq!(epochs(&world.keys), [FIRST]);
    let schedule = *world.node.schedule();
    let mut changes = Vec::new();
    let end = schedule.end(Epoch::new(FIRST)).plus(MINUTE * 31);
    while world.now < end {
        world.now = world.node.poll_timeout().min(end).max(world.now);
        world.time_out();
        for command in world.commands() {
            if matches!(command, Command::Accept(_) | Command::ForgetSeeds(_)) {
                changes.push((world.now, format!("{command:?}")));
            }
        }
    }
    let start_over = schedule.start(Epoch::new(FIRST)).plus(MINUTE * 50);
    let until = schedule.accepted_until(Epoch::new(FIRST));
    let from = schedule.accepted_from(Epoch::new(FIRST + 1));
    let kept: Vec<_> = changes.iter().map(|(at, what)| (*at, what.as_str())).collect();
    assert_eq!(
        kept,
        [
            // The clean-up of the start.
            (start_over, "ForgetSeeds(165000)"),
            (from, "Accept[165000, 165001]"),
            (until, "ForgetSeeds(165001)"),
            (until, "Accept[165001]"),
        ]
    );
}

#[test]
fn statements_are_kept_and_links_wanted_and_the_list_of_a_vote_used() {
    let mut world = World::open();
    let records: Vec<_> = (2..=5).map(|number| world.record(number, |_| {})).collect();
    for record in &records {
        assert_eq!(world.hear(record), Judgement::Accept);
        let kept = format!("KeepStatement({} octets)", record.len());
        assert_eq!(world.printed(), ["Link".to_owned(), kept]);
        assert_eq!(world.hear(record), Judgement::Ignore);
        assert_eq!(world.printed(), [""; 0], "known");
    }
    assert_eq!(world.vote(), Judgement::Accept);
    let list = format!("KeepList({} octets)", 1 + 8 + 5 * 73);
    let expected = ["KeepStatement(4267 octets)", &list, "ViewTaken(5 nodes)", "Links(4)"];
    assert_eq!(world.printed(), expected);
    // Two records with one number: the proof is kept and announced; the list goes on for its hour.
    let second = world.record(3, |draft| draft.contact = "other".to_owned());
    assert_eq!(world.hear(&second), Judgement::Ignore);
    let printed = world.printed();
    let kinds: Vec<_> = printed.iter().map(|p| p.split('(').next().unwrap()).collect();
    assert_eq!(kinds, ["KeepStatement", "Announce"]);
    // Octets that are none, and a node that nothing is left of after its keys.
    assert_eq!(world.hear(b"garbage"), Judgement::Reject);
    assert_eq!(world.printed(), [""; 0]);
    let later = world.pass(MINUTE * 60 * 13);
    assert!(later.iter().filter(|command| *command == "Unlink").count() >= 3, "{later:?}");
    assert!(later.iter().any(|command| command.starts_with("ForgetStatements(")), "{later:?}");
}

#[test]
fn a_vote_is_kept_before_it_is_announced_and_its_list_used() {
    let mut world = World::rooted();
    for number in 2..=4 {
        let record = world.record(number, |_| {});
        world.hear(&record);
    }
    world.commands();
    // The fifth node is the one that the first list waits for.
    let record = world.record(5, |_| {});
    assert_eq!(world.hear(&record), Judgement::Accept);
    let kept = format!("KeepStatement({} octets)", record.len());
    let list = format!("KeepList({} octets)", 1 + 8 + 73);
    let commands = world.commands();
    let [Command::Link(_), keep, vote @ Command::KeepVote(id, octets)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!([format!("{keep:?}"), format!("{vote:?}")], [kept, "KeepVote(4267 octets)".into()]);
    // It is not kept: the same vote is tried again after a minute, and there is no other.
    world.node.handle_keep_failed(*id, world.now, &mut world.rng);
    world.time_out();
    assert_eq!(world.printed(), [""; 0]);
    world.now = world.now.plus(MINUTE);
    world.time_out();
    let again = world.commands();
    let [Command::KeepVote(id, same)] = &again[..] else { panic!("{again:?}") };
    assert_eq!(same, octets);
    world.node.handle_kept(*id, world.now, &mut world.rng);
    let expected = ["KeepStatement(4267 octets)", "Announce(4267 octets)", &list];
    assert_eq!(world.printed(), expected, "nobody is vouched for yet: the root alone is listed");
}

#[test]
fn a_link_asks_and_answers_lead_to_further_questions_or_hang_up() {
    let mut world = World::open();
    let (peer, network) = (id(8), world.descriptor.id());
    let mut holder = Directory::new(&world.descriptor);
    let record = world.record(2, |_| {});
    if let Statement::Record(signed) = Statement::check(&record, &network).unwrap() {
        let record = signed.timely(world.now, world.node.schedule()).unwrap();
        holder.admit(record, directory::Source::CatchUp, world.now).unwrap();
    }
    world.node.handle_peers_up(&[peer], world.now, &mut world.rng);
    let mut asked = Vec::new();
    loop {
        let commands = world.commands();
        asked.extend(commands.iter().map(|command| format!("{command:?}")));
        let ask = commands.iter().find_map(|command| match command {
            Command::Ask(to, request) => Some((*to, request.encode().unwrap())),
            _ => None,
        });
        let Some((to, request)) = ask else { break };
        assert_eq!(to, peer);
        let answer = holder.answer(&request, world.now).unwrap();
        let answer = Answer::check(&answer, &network).unwrap();
        world.node.handle_sync_answer(peer, answer, world.now, &mut world.rng);
    }
    let kept = format!("KeepStatement({} octets)", record.len());
    assert_eq!(asked, ["Ask(summary)", "Ask(list)", "Ask(fetch 1)", "Link", &kept]);

    // A list that answers no question, and one that cannot be read.
    world.node.handle_peers_up(&[id(9)], world.now, &mut world.rng);
    assert_eq!(world.printed(), ["Ask(summary)"]);
    let list = holder.answer(&Request::Fetch(Vec::new()).encode().unwrap(), world.now);
    let list = Answer::check(&list.unwrap(), &network).unwrap();
    world.node.handle_sync_answer(id(9), list, world.now, &mut world.rng);
    assert_eq!(world.commands(), [Command::HangUp(id(9))]);
    world.node.handle_peers_up(&[id(7)], world.now, &mut world.rng);
    assert_eq!(world.commands(), [Command::Ask(id(7), Request::Summary)]);
    world.node.handle_sync_failed(&id(7), world.now, &mut world.rng);
    assert_eq!(world.printed(), [""; 0]);

    // Linked peers are asked now and then; peers that are gone are not.
    for gone in [7, 9] {
        world.node.handle_peer_down(&id(gone));
    }
    let later = world.pass(MINUTE * 30);
    assert!(later.contains(&"Ask(summary)".to_owned()), "{later:?}");
    world.node.handle_peer_down(&peer);
    let alone = world.pass(MINUTE * 60);
    assert!(!alone.contains(&"Ask(summary)".to_owned()), "{alone:?}");
    assert!(world.node.handle_sync_request(b"garbage", world.now).is_none());
    let summary = Request::Summary.encode().unwrap();
    assert!(world.node.handle_sync_request(&summary, world.now).is_some());
    assert_eq!(world.printed(), [""; 0], "questions are answered by what they return");
}

#[test]
fn a_submission_is_sealed_answered_and_sent_on_its_tick() {
    let mut world = World::open();
    world.submit(1, "a@b.example");
    assert_eq!(world.commands(), [Command::Answer(SubmissionId(1), Err(Refused::NoList))]);

    let mut world = World::with_a_view();
    world.submit(2, "a@b.example");
    let mut commands = world.commands();
    assert_eq!(format!("{commands:?}"), "[Seal(2, 4 packets)]", "it is tried four times");
    world.submit(2, "a@b.example");
    assert_eq!(world.commands(), [Command::Answer(SubmissionId(2), Err(Refused::Full))]);
    assert_eq!(sends(&world.pass(MINUTE * 60)), 0, "it is not sealed yet");
    let Some(Command::Seal(id, sealing)) = commands.pop() else { panic!() };
    let sealed = sealing.run(&mut world.rng);
    world.node.handle_sealed(id, sealed, world.now, &mut world.rng);
    let mut commands = world.commands();
    let Some(Command::KeepMessage(keep, _, octets)) = commands.pop() else { panic!() };
    assert!(commands.is_empty(), "it is not answered for before it is kept");
    assert_eq!(sends(&world.pass(MINUTE * 10)), 0, "nor does any packet of it leave");
    for word in [&b"b.example"[..], b"body", b"home"] {
        assert!(!octets.windows(word.len()).any(|there| there == word));
    }
    world.node.handle_kept(keep, world.now, &mut world.rng);
    assert_eq!(world.printed(), ["Answer(2, taken)"]);
    let done = world.pass(MINUTE * 30);
    assert_eq!(sends(&done), 1);
    assert!(done.contains(&"MarkMessage(1)".to_owned()), "{done:?}");

    let mut world = World::with_a_view();
    world.submit(3, "a@b.example");
    let Some(Command::Seal(id, sealing)) = world.commands().pop() else { panic!() };
    world.node.handle_sealed(id, Err(sealing.give_up()), world.now, &mut world.rng);
    assert_eq!(world.commands(), [Command::Answer(SubmissionId(3), Err(Refused::Full))]);
    assert_eq!(world.node.held().waiting, 0, "its tick is free again");
    let (keep, _) = world.seal(4, "a@b.example");
    assert_eq!(world.node.held().waiting, 4);
    world.node.handle_keep_failed(keep, world.now, &mut world.rng);
    assert_eq!(world.commands(), [Command::Answer(SubmissionId(4), Err(Refused::Full))]);
    assert_eq!(world.node.held().waiting, 0, "a disk that fails takes nothing");
}

/// Without an answer a message is tried at four times, an hour apart or more, through one first hop; then it
/// is lost, and that is said.
#[test]
fn what_is_not_answered_for_is_tried_again_and_at_last_lost() {
    let mut world = World::with_a_view();
    world.take_mail(1, "a@b.example");
    let id = world.queue_id();
    assert_eq!(world.node.message(&id), Some(vec![(MessageState::Queued, 1)]));
    let (mut times, mut hops) = (Vec::new(), BTreeSet::new());
    let end = world.now.plus(MINUTE * 600);
    while world.now < end && world.node.held().messages > 0 {
        world.now = world.node.poll_timeout().max(world.now);
        world.time_out();
        for command in world.commands() {
            if let Some(id) = awaited(&command) {
                world.node.handle_kept(id, world.now, &mut world.rng);
            }
            if let Command::Send { to, .. } = command {
                times.push(world.now);
                hops.insert(to);
                assert_eq!(world.node.message(&id), Some(vec![(MessageState::Sent, 1)]));
            }
        }
    }
    assert_eq!((times.len(), hops.len()), (4, 1));
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= MINUTE * 60), "{times:?}");
    assert!(world.now < end);
    assert_eq!(world.node.message(&id), Some(vec![(MessageState::Lost, 1)]));
    let count = |count| world.node.counts().get(count);
    assert_eq!((count(Count::MessageTaken), count(Count::MessageLost)), (1, 1));
    assert_eq!(world.node.held().waiting + world.node.held().answers, 0);
}

/// A node that is killed goes on with what it has answered for: what has left does not leave again.
#[test]
fn what_is_in_custody_outlives_the_node() {
    let mut world = World::with_a_view();
    let (keep, octets) = world.seal(1, "a@b.example");
    world.node.handle_kept(keep, world.now, &mut world.rng);
    world.commands();
    let id = world.queue_id();
    let first = world.pass(MINUTE * 50);
    assert_eq!(sends(&first), 1);
    let name = MessageName::of(&id);
    let restart = |octets: &[u8], marks: &[u8], minutes: u32| {
        let spooled = Spooled::decode(octets).unwrap();
        assert!(spooled.name() == name);
        let messages = vec![spooled.marked(marks.to_vec())];
        let custody = CustodyKept { messages, ..CustodyKept::default() };
        let known = Known { custody, ..Known::default() };
        let mut again = World::new(&Admission::Open, |setup| Setup { known, ..setup });
        again.node.handle_reachable();
        // It starts at the same time as the first, and later by so much.
        again.now = again.now.plus(MINUTE * minutes);
        again.time_out();
        again.kept();
        again
    };
    let mut again = restart(&octets, &[0, 1], 0);
    assert_eq!(again.node.held().waiting, 3, "what has left does not leave again");
    assert_eq!(again.node.message(&id), Some(vec![(MessageState::Sent, 1)]));
    assert_eq!(again.node.queue().len(), 1);
    for number in 2..=5 {
        let record = again.record(number, |_| {});
        again.hear(&record);
    }
    again.commands();
    again.vote();
    let all: usize = (0..40).map(|_| sends(&again.pass(MINUTE * 15))).sum();
    assert_eq!(all, 3);
    assert_eq!(again.node.message(&id), Some(vec![(MessageState::Lost, 1)]));
    let marked_held = restart(&octets, &[1, 1], 0).pass_until_over(&id);
    assert_eq!(marked_held, [(MessageState::Unknown, 1)]);
    // Octets that a disk has changed are none.
    for place in [0, 30, octets.len() / 2, octets.len() - 1] {
        let mut changed = octets.to_vec();
        changed[place] ^= 1;
        assert!(Spooled::decode(&changed).is_err());
    }
    for length in (0..octets.len()).step_by(997) {
        assert!(Spooled::decode(&octets[..length]).is_err());
    }
}

#[test]
fn orders_are_answered_when_they_are_kept() {
    let mut world = World::rooted();
    world.order(OperatorOrder::Ban(id(1)));
    assert_eq!(world.commands(), [Command::Reply(OrderId(9), Err(NotDone::Oneself))]);
    world.order(OperatorOrder::Unban(id(2)));
    assert_eq!(world.commands(), [Command::Reply(OrderId(9), Err(NotDone::NotBanned))]);
    world.order(OperatorOrder::Ban(id(2)));
    let commands = world.commands();
    let [Command::KeepBanned(keep, banned)] = &commands[..] else { panic!("{commands:?}") };
    assert!(banned.iter().eq([&id(2)]) && !world.node.bans(&id(2)), "not before it is kept");
    world.node.handle_kept(*keep, world.now, &mut world.rng);
    assert_eq!(world.commands(), [Command::Reply(OrderId(9), Ok(Done::Of(id(2))))]);
    world.order(OperatorOrder::Unban(id(2)));
    let commands = world.commands();
    let [Command::KeepBanned(keep, _)] = &commands[..] else { panic!("{commands:?}") };
    world.node.handle_keep_failed(*keep, world.now, &mut world.rng);
    assert_eq!(world.commands(), [Command::Reply(OrderId(9), Err(NotDone::NotKept))]);
    assert!(world.node.bans(&id(2)), "nothing has changed");

    world.order(OperatorOrder::Vouch(id(3)));
    let printed = world.printed();
    let kinds: Vec<_> = printed.iter().map(|p| p.split('(').next().unwrap()).collect();
    assert_eq!(kinds, ["KeepStatement", "Announce", "Reply"]);
    world.order(OperatorOrder::Unvouch(id(4)));
    assert_eq!(world.commands(), [Command::Reply(OrderId(9), Err(NotDone::NoVouch))]);
}

#[test]
fn an_invite_is_kept_before_it_is_handed_out_and_used_up_after_its_word_is_kept() {
    let mut world = World::rooted();
    world.order(OperatorOrder::Invite);
    let commands = world.commands();
    let [Command::KeepInvites(keep, open)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(open.len(), 1);
    world.node.handle_kept(*keep, world.now, &mut world.rng);
    let mut commands = world.commands();
    let Some(Command::Reply(_, Ok(Done::Invited(invite)))) = commands.pop() else { panic!() };
    let shown = |world: &mut World, token: &[u8]| {
        let (now, rng) = (world.now, &mut world.rng);
        world.node.handle_invite_shown(QuestionId(5), id(6), token, now, rng);
        world.printed()
    };
    assert_eq!(shown(&mut world, &[0; 16]), ["AnswerInvite(5, Refused)"]);
    let printed = shown(&mut world, invite.token.as_bytes());
    let kinds: Vec<_> = printed.iter().map(|p| p.split('(').next().unwrap()).collect();
    assert_eq!(kinds, ["KeepStatement", "Announce", "KeepInvites", "AnswerInvite"]);
    assert_eq!(printed[2..], ["KeepInvites(6, 0)", "AnswerInvite(5, Taken)"]);
    assert_eq!(shown(&mut world, invite.token.as_bytes()), ["AnswerInvite(5, Taken)"]);

    // One that could not be kept was never open.
    world.order(OperatorOrder::Invite);
    let commands = world.commands();
    let [Command::KeepInvites(keep, _)] = &commands[..] else { panic!("{commands:?}") };
    world.node.handle_keep_failed(*keep, world.now, &mut world.rng);
    assert_eq!(world.commands(), [Command::Reply(OrderId(9), Err(NotDone::NotKept))]);
    world.order(OperatorOrder::Invite);
    let commands = world.commands();
    let [Command::KeepInvites(_, open)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(open.len(), 1);

    // The other side of it.
    let inviter = OnionAddress::of(id(8)).unwrap();
    let given = Invite { inviter, token: invite.token.clone() };
    let admission = Admission::Vouched { roots: vec![id(8)], depth: 2, fan_out: 3 };
    let mut world = World::new(&admission, |setup| Setup {
        invites: InvitesKept { open: Vec::new(), given: Some(given) },
        ..setup
    });
    let (now, rng) = (world.now, &mut world.rng);
    world.node.handle_peers_up(&[id(7)], now, rng);
    world.node.handle_peers_up(&[id(8)], now, rng);
    assert_eq!(world.printed(), ["Ask(summary)", "ShowInvite", "Ask(summary)"]);
    let answered = |world: &mut World, peer, answer| {
        world.node.handle_invite_answered(peer, answer, now, &mut ChaCha20Rng::seed_from_u64(1));
        world.commands()
    };
    assert_eq!(answered(&mut world, id(7), InviteAnswer::Refused), [], "nobody asked it");
    let forgotten = answered(&mut world, id(8), InviteAnswer::Refused);
    assert_eq!(forgotten, [Command::ForgetInvite(InviteAnswer::Refused)]);
    assert_eq!(world.node.alarms(now), [fog_remailer::Alarm::InviteRefused]);
}

/// What an ingress puts into a packet for an exit.
fn mail_for(to: &str) -> Vec<u8> {
    let message = format!("To: {to}\r\n\r\nbody\r\n").into_bytes();
    let submission = Submission { recipients: vec![Mailbox::parse(to).unwrap()], message };
    let scrubbed = mail::scrub(&submission).unwrap().pop().unwrap();
    let fragment = mail::Fragment::cut(scrubbed, [8; 16], [7; 16]).encode().unwrap();
    [&[1], fragment.as_slice()].concat()
}

#[test]
fn a_message_is_delivered_tried_again_and_given_up() {
    let anonymous = Mailbox::parse("anonymous@fog.invalid").unwrap();
    let offer = ExitOffer { policy: policy(), anonymous };
    let mut world = World::with_a_view();
    world.node.handle_exit_changed(offer, world.now);
    assert_eq!(world.printed(), [""; 0]);
    let printed = world.pass(MINUTE * 6);
    let kinds: Vec<_> = printed.iter().map(|p| p.split('(').next().unwrap()).collect();
    assert_eq!(kinds, ["KeepOwn", "KeepStatement", "Announce"], "its record says so soon");
    assert!(world.node.directory().newest(&id(1)).unwrap().exit().is_some());

    world.content = mail_for("a@b.example");
    let arrive = |world: &mut World, number| {
        world.receive(Kind::Deliver, Duration::ZERO, number);
        let batch = world.commands();
        let [Command::KeepTags(tags)] = &batch[..] else { panic!("{batch:?}") };
        world.node.handle_tags_kept(tags.batch, world.now);
        next_delivery(world)
    };
    let (first, delivery) = arrive(&mut world, 1);
    assert_eq!(delivery.recipients.len(), 1);
    let done = DeliveryOutcome::Done { taken: 1, refused: 0, refused_here: 0 };
    world.node.handle_delivery(first, done, world.now, &mut world.rng);
    assert_eq!(world.printed(), ["KeepOver(165000)"]);
    // Another attempt of the same message is none.
    world.receive(Kind::Deliver, Duration::ZERO, 1001);
    let batch = world.commands();
    let [Command::KeepTags(tags)] = &batch[..] else { panic!("{batch:?}") };
    world.node.handle_tags_kept(tags.batch, world.now);
    world.pass(MINUTE * 10);
    assert_eq!(world.node.counts().get(Count::MessageAgain), 1);

    let (second, mut delivery) = arrive(&mut world, 2);
    assert!(second != first);
    let mut waits = Vec::new();
    loop {
        let before = world.now;
        world.node.handle_delivery(
            second,
            DeliveryOutcome::Later { delivery, taken: 0, refused: 0, refused_here: 0 },
            before,
            &mut world.rng,
        );
        if world.node.held().delivering == 0 {
            break;
        }
        let again;
        (again, delivery) = next_delivery(&mut world);
        assert_eq!(again, second);
        waits.push(world.now.since(before).as_secs());
    }
    // Up to a quarter longer each: attempts at fixed times could be told from first ones.
    let doubling = [60, 120, 240, 480, 960, 1920, 3840, 4000].into_iter().chain([4000; 20]);
    for (wait, least) in waits.iter().zip(doubling) {
        assert!((least..=least * 5 / 4).contains(wait), "{waits:?}");
    }
    assert!(waits[..4].iter().zip([60, 120, 240, 480]).any(|(wait, least)| *wait != least));
    let count = |count| world.node.counts().get(count);
    assert_eq!(count(Count::MessageDelivered), 1);
    assert_eq!(count(Count::MessageDropped(NotDelivered::GaveUp)), 1);
    assert_eq!(count(Count::DeliveryPostponed), waits.len() as u64 + 1);
}

/// Lets time pass until something is to be delivered.
fn next_delivery(world: &mut World) -> (DeliveryId, mail::Delivery) {
    loop {
        world.now = world.node.poll_timeout().max(world.now);
        world.time_out();
        for command in world.commands() {
            if let Command::Deliver(id, delivery) = command {
                return (id, delivery);
            }
        }
    }
}

#[test]
fn a_node_that_comes_back_accepts_its_keys_at_once_and_gives_up_what_it_cannot_vouch_for() {
    let first = Epoch::new(FIRST);
    let keep = |ahead: u32| {
        let seed = testing::seed(1, first.plus(ahead));
        (first.plus(ahead), Kept::Key { seed, seen: Default::default() })
    };
    let kept = [(first, Kept::Withdrawn), keep(1), keep(2)];
    let mut world = World::new(&Admission::Open, |setup| Setup { epochs: kept.into(), ..setup });
    assert_eq!(world.printed(), [""; 0], "the present one was given up");
    let kept = [keep(0), keep(1)];
    let mut world = World::new(&Admission::Open, |setup| Setup { epochs: kept.into(), ..setup });
    assert_eq!(world.printed(), ["Accept[165000]"]);
    // A record of its own that it does not remember states what it has, and a key that it has not.
    let own = world.record(1, |draft| draft.sequence = 70);
    assert_eq!(world.hear(&own), Judgement::Accept);
    let printed = world.printed();
    assert_eq!(printed[..3], ["Accept[]", "WithdrawSeed(165000)", "WithdrawSeed(165002)"]);
    assert!(printed[3].starts_with("KeepStatement("), "{printed:?}");
}

#[test]
fn a_client_sends_and_has_no_key_no_record_and_nothing_to_relay() {
    let mut world = World::new(&Admission::Open, |setup| Setup { role: Role::Client, ..setup });
    world.node.handle_reachable();
    for number in 2..=6 {
        let record = world.record(number, |_| {});
        assert_eq!(world.hear(&record), Judgement::Accept);
    }
    world.commands();
    assert_eq!(world.vote(), Judgement::Accept);
    world.commands();
    assert!(world.node.view().is_some());
    world.take_mail(1, "a@b.example");
    world.node.handle_peeled(id(9), Err(Refusal::Mac), world.now);
    world.node.handle_tags_kept(1, world.now);
    let done = world.pass(MINUTE * 60 * 7);
    assert_eq!(sends(&done), 4);
    let never = ["Accept", "KeepSeed", "KeepOwn", "Announce", "KeepTags"];
    assert!(!done.iter().any(|command| never.iter().any(|kind| command.starts_with(kind))));
    assert_eq!(world.node.counts().get(Count::PacketReceived), 0);
}

#[test]
fn a_clock_that_jumps_fires_nothing_at_once_and_holds_nothing_back() {
    let hour = 3_600_000;
    for (millis, slept) in [(2 * hour, 2 * hour), (2 * hour, 0), (-24 * hour, 0)] {
        let mut world = World::with_a_view();
        for number in 0..5 {
            world.receive(Kind::Forward, MINUTE * 5, number);
            let batch = world.commands();
            let [Command::KeepTags(tags)] = &batch[..] else { panic!("{batch:?}") };
            world.node.handle_tags_kept(tags.batch, world.now);
        }
        for number in 0..3 {
            world.take_mail(number, "a@b.example");
        }
        world.commands();
        world.now = world.now.shifted(millis);
        let slept = Duration::from_millis(slept.try_into().unwrap());
        let jump = ClockJump { millis, slept };
        world.node.handle_clock_jump(jump, world.now, &mut world.rng);
        assert_eq!(sends(&world.kept()), 0, "{millis}: nothing at once");
        let first = world.pass(MINUTE * 4);
        let forwarded = world.pass(MINUTE * 2 + Duration::from_secs(30));
        assert!(sends(&first) <= 3, "{millis}: what is held waits as long as it had to");
        assert!(sends(&forwarded) >= 4, "{millis}: {}", sends(&forwarded));
        let rest = world.pass(MINUTE * 50);
        assert_eq!(sends(&first) + sends(&forwarded) + sends(&rest), 8, "{millis}");
        assert_eq!(world.node.counts().get(Count::ClockJumped), 1);
        // Its records go on in the same rhythm.
        let later = world.pass(MINUTE * 120);
        let kinds = later.iter().filter(|command| command.starts_with("KeepOwn"));
        assert!((1..=4).contains(&kinds.count()), "{millis}");
    }
}

#[test]
fn a_vouch_of_a_stranger_changes_nothing() {
    let mut world = World::rooted();
    let draft = VouchDraft {
        word: Word::Vouch,
        subject: id(5),
        role: VouchRole::Exit,
        since: world.now,
        issued_at: world.now,
        expires_at: world.now.plus(MINUTE * 600),
        extensions: Vec::new(),
    };
    let stranger = draft.sign(&identity(4), &world.descriptor.id()).unwrap();
    assert_eq!(world.hear(&stranger), Judgement::Ignore);
    assert_eq!(world.printed(), [""; 0]);
    let roots = draft.sign(&identity(1), &world.descriptor.id()).unwrap();
    assert_eq!(world.hear(&roots), Judgement::Accept);
    assert_eq!(world.printed(), [format!("KeepStatement({} octets)", roots.len())]);
}

/// The packet that is to be sent within some minutes, and to whom.
fn next_send(world: &mut World) -> (NodeId, sphinx::Packet) {
    let end = world.now.plus(MINUTE * 20);
    loop {
        for command in world.commands() {
            if let Command::Send { to, packet, .. } = command {
                return (to, packet);
            }
        }
        world.now = world.node.poll_timeout().max(world.now);
        assert!(world.now <= end, "nothing is sent");
        world.time_out();
    }
}

#[test]
fn an_exit_answers_for_what_became_of_a_message_once_and_only_by_good_blocks() {
    let anonymous = Mailbox::parse("anonymous@fog.invalid").unwrap();
    let offer = ExitOffer { policy: policy(), anonymous };
    let mut world = World::with_a_view();
    world.node.handle_exit_changed(offer, world.now);
    world.pass(MINUTE * 6);
    world.content = mail_for("a@b.example");
    let arrive = |world: &mut World, number, block: &ReplyBlock| {
        world.reply = Some(ReplyBlock::from_octets(&block.to_octets()).unwrap());
        world.receive(Kind::Deliver, Duration::ZERO, number);
        let mut batch = world.commands();
        batch.retain(|command| !matches!(command, Command::KeepOver(_)));
        let [Command::KeepTags(tags)] = &batch[..] else { panic!("{batch:?}") };
        world.node.handle_tags_kept(tags.batch, world.now);
        next_delivery(world)
    };
    let outcomes = [
        (DeliveryOutcome::Done { taken: 1, refused: 0, refused_here: 0 }, vec![2, 1, 0x81, 1]),
        (DeliveryOutcome::Done { taken: 0, refused: 1, refused_here: 0 }, vec![2, 1, 0x82, 1]),
    ];
    for (number, (outcome, said)) in (1..).zip(outcomes) {
        let (block, opens) = world.reply_block(number);
        let (delivery, _) = arrive(&mut world, number, &block);
        let now = world.now;
        world.node.handle_delivery(delivery, outcome, now, &mut world.rng);
        let (to, packet) = next_send(&mut world);
        assert!(to == id(3) && world.now > now, "it is held like any packet");
        assert_eq!(world.open_answer(packet, opens), said);
    }
    // The same block in another message.
    let (block, _) = world.reply_block(1);
    let done = || DeliveryOutcome::Done { taken: 1, refused: 0, refused_here: 0 };
    let (delivery, _) = arrive(&mut world, 3, &block);
    world.node.handle_delivery(delivery, done(), world.now, &mut world.rng);
    // One with an unknown first node, and one of which the last epoch is over.
    let mut unknown = world.reply_block(4).0.to_octets().to_vec();
    unknown[..32].copy_from_slice(id(99).as_bytes());
    let unknown = ReplyBlock::from_octets(&unknown).unwrap();
    let (delivery, _) = arrive(&mut world, 4, &unknown);
    world.node.handle_delivery(delivery, done(), world.now, &mut world.rng);
    let (block, _) = world.reply_block(5);
    let (delivery, _) = arrive(&mut world, 5, &block);
    world.pass(MINUTE * 180);
    world.node.handle_delivery(delivery, done(), world.now, &mut world.rng);
    assert_eq!(sends(&world.pass(MINUTE * 30)), 0);
    let count = |count| world.node.counts().get(count);
    assert_eq!(count(Count::AnswerSent), 2);
    for why in [NotAnswered::Used, NotAnswered::UnknownHop, NotAnswered::Expired] {
        assert_eq!(count(Count::NotAnswered(why)), 1, "{why:?}");
    }
    assert_eq!(count(Count::MessageDelivered), 4, "mail is delivered all the same");
}

#[test]
fn an_exit_says_what_it_does_not_deliver() {
    let anonymous = Mailbox::parse("anonymous@fog.invalid").unwrap();
    let mut only = policy();
    only.domains = Domains::Only(vec!["c.example".to_owned()]);
    let mut world = World::with_a_view();
    world.node.handle_exit_changed(ExitOffer { policy: only, anonymous }, world.now);
    world.pass(MINUTE * 6);
    world.content = mail_for("a@b.example");
    let (block, opens) = world.reply_block(1);
    world.reply = Some(block);
    world.receive(Kind::Deliver, Duration::ZERO, 1);
    let batch = world.commands();
    let [Command::KeepTags(tags)] = &batch[..] else { panic!("{batch:?}") };
    world.node.handle_tags_kept(tags.batch, world.now);
    let (_, packet) = next_send(&mut world);
    assert_eq!(world.open_answer(packet, opens), [2, 1, 0x83, 1]);
}

//! Whether the disk keeps what a node must keep, and what the node does while it does not: it takes
//! no mail and no packets, publishes nothing, and tries again.

use std::time::Duration;

use keys::Time;
use mix::Tags;
use remailer::{Command, KeepId};
use tokio::sync::watch;

use super::Driver;
use super::commands::addresses;
use crate::control::DiskTrouble;
use crate::store::{self, Fault, Job};

/// How often the disk is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(2);
/// A disk that has not answered for this long hangs.
const HANGS: Duration = Duration::from_secs(10);
/// For how long packets wait for their replay tags to be kept.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is reported when a job is done.
pub(super) enum Report {
    /// To the core, under this name.
    Named(KeepId),
    /// These replay tags.
    Tags(Tags),
    /// That the disk was looked at.
    Look,
    /// Nothing; what it was about is said in the log.
    Nothing,
}

/// The disk, as far as it has shown itself.
pub(super) struct Disk {
    failing: Option<Failing>,
    /// How often something was not kept, since the start.
    pub(super) times: u64,
    /// Messages in custody that could not be read at the start.
    pub(super) damaged: usize,
    /// Since when a look is under way.
    looking: Option<Time>,
    /// Tags that could not be kept, and since when.
    unkept: Option<(Time, Tags)>,
    /// Whether packets are taken from peers.
    takes: watch::Sender<bool>,
}

/// Trouble with the disk.
#[derive(Clone, Copy)]
pub(super) struct Failing {
    pub(super) since: Time,
    pub(super) why: DiskTrouble,
}

impl Disk {
    pub(super) fn new(takes: watch::Sender<bool>, damaged: usize) -> Self {
        Self { failing: None, times: 0, damaged, looking: None, unkept: None, takes }
    }

    /// The trouble, if there is one.
    pub(super) fn failing(&self) -> Option<Failing> {
        self.failing
    }

    fn note(&mut self, why: Option<DiskTrouble>, now: Time) {
        match (why, self.failing) {
            (None, None) => {}
            (None, Some(before)) => {
                let seconds = now.since(before.since).as_secs();
                tracing::info!(seconds, "the disk keeps what it is given again");
                self.failing = None;
            }
            (Some(why), before) => {
                let since = before.map_or(now, |before| before.since);
                if before.is_none_or(|before| before.why != why) {
                    tracing::error!(?why, "the disk fails: no mail and no packets are taken");
                }
                self.failing = Some(Failing { since, why });
            }
        }
        let takes = self.failing.is_none();
        self.takes.send_if_modified(|before| std::mem::replace(before, takes) != takes);
    }
}

impl Driver {
    /// Gives a command that is about the disk to the thread that owns it.
    pub(super) fn keep(&mut self, command: Command) {
        if let Some((job, report)) = job(command) {
            self.give_to_disk(job, report);
        }
    }

    pub(super) fn give_to_disk(&mut self, job: Job, report: Report) {
        if let Err(report) = self.work.keep(job, report) {
            // So many jobs wait only for a disk that hangs.
            self.disk_answered(report, Err(DiskTrouble::Hangs));
        }
    }

    pub(super) fn disk_done(&mut self, report: Report, result: Result<(), store::Error>) {
        let result = result.map_err(|error| {
            // Once: whatever else fails until it is over fails for the same reason.
            if self.disk.failing.is_none() {
                tracing::error!(%error, "not kept");
            }
            trouble(error.fault())
        });
        self.disk_answered(report, result);
    }

    fn disk_answered(&mut self, report: Report, result: Result<(), DiskTrouble>) {
        let now = self.now();
        let is_look = matches!(report, Report::Look);
        self.disk.times += u64::from(result.is_err() && !is_look);
        // That one thing was kept does not show that all can be: a look does.
        if result.is_err() || is_look {
            self.disk.note(result.err(), now);
        }
        let is_kept = result.is_ok();
        match report {
            Report::Named(id) if is_kept => {
                self.remailer.handle_kept(id, now, &mut self.machine.rng);
            }
            Report::Named(id) => {
                self.remailer.handle_keep_failed(id, now, &mut self.machine.rng);
            }
            Report::Tags(tags) if is_kept => {
                self.disk.unkept = None;
                self.remailer.handle_tags_kept(tags.batch, now);
            }
            Report::Tags(tags) => {
                let since = self.disk.unkept.take().map_or(now, |(since, _)| since);
                if now.since(since) < PATIENCE {
                    self.disk.unkept = Some((since, tags));
                } else {
                    self.remailer.handle_tags_lost(tags.batch);
                }
            }
            Report::Look => self.disk.looking = None,
            Report::Nothing => {}
        }
    }

    /// Looks at the disk, and tries again what could not be kept.
    pub(super) fn look_at_disk(&mut self) {
        let now = self.now();
        match self.disk.looking {
            Some(since) if now.since(since) >= HANGS => {
                self.disk.note(Some(DiskTrouble::Hangs), now);
            }
            Some(_) => {}
            None => {
                self.disk.looking = Some(now);
                let writes = self.disk.failing.is_some();
                self.give_to_disk(Job::Look { writes }, Report::Look);
                if let Some((_, tags)) = &self.disk.unkept {
                    let tags = Tags { batch: tags.batch, tags: tags.tags.clone() };
                    self.give_to_disk(Job::Tags(tags.tags.clone()), Report::Tags(tags));
                }
            }
        }
    }
}

/// What a command is to the disk, and what is to be reported of it.
#[expect(clippy::wildcard_enum_match_arm, reason = "most commands are not about the disk")]
fn job(command: Command) -> Option<(Job, Report)> {
    Some(match command {
        Command::KeepSeed(id, epoch, seed) => (Job::Seed(epoch, seed), Report::Named(id)),
        Command::WithdrawSeed(epoch) => (Job::Withdrawal(epoch), Report::Nothing),
        Command::ForgetSeeds(oldest) => (Job::SeedsFrom(oldest), Report::Nothing),
        Command::KeepOwn(id, octets) => (Job::Own(octets), Report::Named(id)),
        Command::KeepVote(id, octets) => (Job::Vote(octets), Report::Named(id)),
        Command::KeepMessage(id, name, octets) => (Job::Message(name, octets), Report::Named(id)),
        Command::MarkMessage(name, mark) => (Job::Mark(name, mark), Report::Nothing),
        Command::ForgetMessage(name, ended) => (Job::NoMessage(name, ended), Report::Nothing),
        Command::KeepOver(over) => (Job::Over(over), Report::Nothing),
        Command::ForgetOver(oldest) => (Job::OverFrom(oldest), Report::Nothing),
        Command::KeepList(octets) => (Job::HourList(octets), Report::Nothing),
        Command::KeepLeaving(id, leaving) => (Job::Leaving(leaving), Report::Named(id)),
        Command::KeepHealth(octets) => (Job::Health(octets), Report::Nothing),
        Command::KeepStatement(name, octets) => (Job::Statement(name, octets), Report::Nothing),
        Command::ForgetStatements(names) => (Job::NoStatements(names), Report::Nothing),
        Command::KeepBanned(id, banned) => {
            (Job::Banned(addresses(banned.iter())), Report::Named(id))
        }
        Command::KeepInvites(id, open) => (Job::Invites(open), Report::Named(id)),
        Command::ForgetInvite(_) => (Job::NoInvite, Report::Nothing),
        Command::KeepTags(tags) => (Job::Tags(tags.tags.clone()), Report::Tags(tags)),
        _ => return None,
    })
}

fn trouble(fault: Fault) -> DiskTrouble {
    match fault {
        Fault::Full => DiskTrouble::Full,
        Fault::ReadOnly => DiskTrouble::ReadOnly,
        Fault::Denied => DiskTrouble::Denied,
        Fault::Corrupt | Fault::Foreign | Fault::Other => DiskTrouble::Fails,
    }
}

#[cfg(test)]
mod tests {
    //! A node's life on a disk that fails at every step of it, in virtual time.

    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use directory::{Directory, Source};
    use keys::{Epoch, Identity, MixPublic, NodeId};
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use record::{Admission, Descriptor, Parameters, Statement};
    use remailer::{Known, OperatorOrder, OrderId, Remailer, Setup};
    use sphinx::{Peeled, Refusal, ReplayTag};

    use super::*;
    use crate::files::faults::{FaultKind, inject};
    use crate::store::{Database, DiskKeeper, List, Store};

    const MINUTE: Duration = Duration::from_secs(60);

    /// What peers hear of the node, over all its starts.
    struct Peers {
        descriptor: Arc<Descriptor>,
        directory: Directory,
        keys: BTreeMap<Epoch, MixPublic>,
        records: usize,
        votes: usize,
    }

    impl Peers {
        fn hear(&mut self, octets: &[u8], now: Time) {
            match Statement::check(octets, &self.descriptor.id()).unwrap() {
                Statement::Record(signed) => {
                    for (epoch, key) in signed.peek().keys() {
                        let before = self.keys.entry(epoch).or_insert_with(|| key.clone());
                        assert!(before == key, "one key for an epoch, ever");
                    }
                    let schedule = self.descriptor.parameters().schedule();
                    let record = signed.timely(now, &schedule).unwrap();
                    let admitted = self.directory.admit(record, Source::Gossip, now);
                    assert!(admitted.is_ok(), "{:?}", admitted.err());
                    self.records += 1;
                }
                Statement::Vote(vote) => {
                    let noted = self.directory.note_vote(*vote, now);
                    assert!(noted.is_ok(), "{:?}", noted.err());
                    self.votes += 1;
                }
                Statement::Vouch(_) | Statement::Proof(_) => panic!("it says nothing else"),
            }
        }
    }

    struct Life {
        node: Remailer,
        keeper: DiskKeeper,
        unkept: Option<Tags>,
        now: Time,
        rng: StdRng,
    }

    impl Life {
        /// A start of the node, as `Node::start` makes it.
        fn start(folder: &Path, peers: &Peers, now: Time) -> Result<Self, store::Error> {
            let mut rng = StdRng::seed_from_u64(now.as_millis());
            let store = Store::open(folder)?;
            let database = Database::open(folder)?;
            let identity = store.identity(&mut rng)?;
            let known = Known {
                statements: database.statements(),
                list: store.hour_list()?,
                vote: store.vote()?,
                health: store.health(),
                custody: store.custody()?.kept,
                leaving: store.list(List::Leaving)?.pop(),
            };
            let setup = Setup {
                epochs: store.epochs()?,
                past: store.past(&identity.node())?,
                known,
                banned: store
                    .list::<keys::OnionAddress>(List::Banned)?
                    .iter()
                    .map(|o| o.node())
                    .collect(),
                ..Setup::new(identity, Arc::clone(&peers.descriptor))
            };
            let mut node = Remailer::new(setup, now, &mut rng);
            node.handle_reachable();
            let keeper = DiskKeeper::new(store, database);
            Ok(Self { node, keeper, unkept: None, now, rng })
        }

        fn live(&mut self, until: Time, peers: &mut Peers) {
            let mut number = 0_u64;
            while self.now < until {
                self.node.handle_timeout(self.now, &mut self.rng);
                self.obey(peers);
                number += 1;
                if number.is_multiple_of(5) {
                    let epoch = self.node.schedule().epoch_at(self.now);
                    let mut tag = [0; 16];
                    tag[..8].copy_from_slice(&self.now.as_millis().to_be_bytes());
                    let tag = ReplayTag::from_bytes(tag);
                    let peeled = Peeled { tag, epoch, outcome: Err(Refusal::Payload) };
                    self.node.handle_peeled(NodeId::from_bytes([9; 32]), Ok(peeled), self.now);
                    let other = Identity::from_seed(&[u8::try_from(number % 40).unwrap() + 50; 32]);
                    let order = OperatorOrder::Ban(other.node());
                    self.node.handle_order(OrderId(number), order, self.now, &mut self.rng);
                    self.obey(peers);
                }
                let _ = self.keeper.run(&Job::Look { writes: true });
                if let Some(tags) = self.unkept.take() {
                    self.carry_out(Job::Tags(tags.tags.clone()), Report::Tags(tags));
                }
                // The disk is looked at every few minutes, which is often beside a life of hours.
                let next = self.now.plus(MINUTE * 3).min(until);
                let soonest = self.now.plus(MINUTE / 60).min(next);
                self.now = self.node.poll_timeout().clamp(soonest, next);
            }
        }

        fn obey(&mut self, peers: &mut Peers) {
            while let Some(command) = self.node.next_command() {
                if let Command::Announce(octets) = &command {
                    peers.hear(octets, self.now);
                }
                if let Some((job, report)) = job(command) {
                    self.carry_out(job, report);
                }
            }
        }

        fn carry_out(&mut self, job: Job, report: Report) {
            let kept = self.keeper.run(&job).is_ok();
            match report {
                Report::Named(id) if kept => {
                    self.node.handle_kept(id, self.now, &mut self.rng);
                }
                Report::Named(id) => {
                    self.node.handle_keep_failed(id, self.now, &mut self.rng);
                }
                Report::Tags(tags) if kept => self.node.handle_tags_kept(tags.batch, self.now),
                Report::Tags(tags) => self.unkept = Some(tags),
                Report::Look | Report::Nothing => {}
            }
        }
    }

    /// Lives with a fault, is killed and started again while it lasts if it can be, and lives
    /// without. Returns the steps that were made with the fault in place.
    fn try_life(kind: FaultKind, after: usize, lasts: usize) -> usize {
        // In memory where there is such a folder: that steps fail is tried here, not how long they take.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory } else { &std::env::temp_dir() };
        let folder = tempfile::tempdir_in(folder).unwrap();
        let path = folder.path().join("state");
        // A clock that ticks for cover changes nothing on the disk, and takes time.
        let parameters = Parameters::main().with_first_list(1).quiet();
        let start = parameters.schedule().start(Epoch::new(165_000)).plus(MINUTE * 100);
        let identity = {
            let store = Store::open(&path).unwrap();
            store.identity(&mut StdRng::seed_from_u64(1)).unwrap()
        };
        let (voters, rule) = ([identity.node()], Admission::Open);
        let made = Descriptor::create(&identity, "n", start, &parameters, &voters, &rule).unwrap();
        let directory = Directory::new(&made);
        let descriptor = Arc::new(made);
        let mut peers =
            Peers { descriptor, directory, keys: BTreeMap::new(), records: 0, votes: 0 };
        let mut life = Life::start(&path, &peers, start).unwrap();
        let fault = inject(&path, kind, after, lasts);
        let killed = start.plus(MINUTE * 250);
        life.live(killed, &mut peers);
        drop(life);
        // A start on a disk that fails is refused with a reason, or goes on.
        let again = Life::start(&path, &peers, killed.plus(MINUTE));
        let met = fault.met();
        drop(fault);
        let mut life = again.or_else(|_| Life::start(&path, &peers, killed.plus(MINUTE))).unwrap();
        // Without peers that tell their time, a clock is trusted after six hours.
        let end = killed.plus(MINUTE * 420);
        let before = (peers.records, peers.votes);
        life.live(end, &mut peers);
        assert!(peers.records >= before.0 + 3, "it publishes again: {}", peers.records - before.0);
        assert!(peers.votes >= before.1 + 3, "it votes again: {}", peers.votes - before.1);
        assert!(life.unkept.is_none());
        // Past keys are gone.
        let oldest = parameters.schedule().oldest_held(end);
        for file in std::fs::read_dir(path.join("epochs")).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let epoch: u32 = name.split('.').next().unwrap().parse().unwrap();
            assert!(epoch >= oldest.number(), "{name} at {oldest:?}");
        }
        met
    }

    /// Every step of a node's life is met by every fault, for one step or for a hundred: nothing is
    /// published that is not kept, and all goes on when the disk does. The short form tries one
    /// step in 37.
    #[test]
    fn a_disk_that_fails_at_any_step_of_a_nodes_life() {
        let steps = try_life(FaultKind::NoSpace, usize::MAX, 0);
        assert!(steps > 150, "{steps}");
        let every = if std::env::var_os("FOG_LONG").is_some() { 1 } else { 37 };
        for kind in FaultKind::RETURNING {
            for lasts in [1, 100] {
                for after in (0..steps).step_by(every) {
                    try_life(kind, after, lasts);
                }
            }
        }
    }
}

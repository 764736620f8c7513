//! The one event loop of a node: feeds the [`Remailer`] and carries out its commands.
//!
//! What is ready is handled in this order, local work before remote:
//!
//! 1. the order to stop
//! 2. timers
//! 3. what came of own work: opened packets, kept replay tags, deliveries, sealed messages, failed
//!    sends, the next server's offers
//! 4. the control socket
//! 5. submissions
//! 6. the network: whether it reaches this node, links, statements, catching up, invites
//!
//! After each of them the commands are carried out, and the timer is set anew.

mod directory;
mod offers;
mod report;
mod start;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use keys::{NodeId, OnionAddress, Time};
use mail::{Delivery, Mailbox};
use rand::seq::SliceRandom as _;
use record::{Domains, ExitPolicy};
use remailer::{
    Command, DeliveryId, DeliveryOutcome, Exit, Refused, Remailer, SealedMessage, Sealing,
    SealingFailed,
};
use smtp::Answer;
use sphinx::{EpochKeys, Packet, Peeled, Refusal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::sleep_until;

use crate::clock::Clock;
use crate::control::Call;
use crate::entropy::Generator;
use crate::failure::Failure;
use crate::invite::{Invite, Invites};
use crate::net::tor::TorState;
use crate::net::{self, Event, Links, Order, Reach, Scores};
use crate::smtp::{Question, Target, deliver};
use crate::store::{Store, TagKeeper, TagOrder};
pub use start::{Carrier, Node, Settings};

/// Conversations with the next server at once.
const DELIVERIES_AT_ONCE: usize = 8;
/// Opened packets that wait for the loop.
const OPENED: usize = 64;
const QUESTIONS: usize = 64;
/// How often the accepted keys are compared with the clock.
const KEYS_TICK: Duration = Duration::from_millis(250);

/// What came of sealing a message, and who waits to hear.
type Sealed = (Result<SealedMessage, SealingFailed>, oneshot::Sender<Answer>);

struct Inputs {
    stopped: oneshot::Receiver<()>,
    opened: mpsc::Receiver<Result<Peeled, Refusal>>,
    kept: mpsc::Receiver<(u64, TagsKept)>,
    outcomes: mpsc::Receiver<(DeliveryId, DeliveryOutcome)>,
    sealed: mpsc::Receiver<Sealed>,
    failures: mpsc::Receiver<net::SendFailed>,
    offers: mpsc::Receiver<Option<ExitPolicy>>,
    calls: mpsc::Receiver<Call>,
    questions: mpsc::Receiver<Question>,
    events: mpsc::Receiver<Event>,
    links: watch::Receiver<Links>,
    reach: watch::Receiver<Reach>,
    chosen: watch::Receiver<Vec<NodeId>>,
}

/// What came of making replay tags durable.
#[derive(Clone, Copy)]
enum TagsKept {
    Kept,
    Lost,
}

struct Net {
    orders: mpsc::Sender<Order>,
    queues: net::PacketQueues,
    links: watch::Receiver<Links>,
    scores: watch::Receiver<Scores>,
    reach: watch::Receiver<Reach>,
    tor: Option<watch::Receiver<TorState>>,
}

struct Driver {
    remailer: Remailer,
    store: Store,
    clock: Clock,
    rng: Generator,
    network: String,
    target: Option<Target>,
    anonymous: Mailbox,
    net: Net,
    keys: watch::Sender<EpochKeys>,
    outcomes: mpsc::Sender<(DeliveryId, DeliveryOutcome)>,
    conversations: Arc<Semaphore>,
    sealed: mpsc::Sender<Sealed>,
    sealers: Arc<Semaphore>,
    progress: watch::Sender<(usize, usize)>,
    linked: Links,
    /// Linked peers that are to be asked for what they have.
    to_ask: BTreeSet<NodeId>,
    /// Where replay tags are made durable.
    tags: mpsc::UnboundedSender<TagOrder>,
    banned: BTreeSet<NodeId>,
    invites: Invites,
    /// The one that this node was given and has not shown yet.
    invite: Option<Invite>,
    invite_refused: bool,
    domains: Domains,
    offered: Option<ExitPolicy>,
    next_server_is_down: bool,
    unkept: u64,
}

impl Driver {
    async fn run(mut self, inputs: Inputs) -> Result<(), Failure> {
        tracing::info!("node started");
        let ended = self.turn(inputs).await;
        let (mixing, waiting, delivering) = self.remailer.held();
        if mixing + waiting + delivering > 0 {
            tracing::warn!(mixing, waiting, delivering, "stopped; what was held is lost");
        }
        self.store.flush();
        tracing::info!("node stopped");
        ended
    }

    async fn turn(&mut self, mut inputs: Inputs) -> Result<(), Failure> {
        let mut keys_tick = tokio::time::interval(KEYS_TICK);
        loop {
            self.carry_out().await?;
            let timer = self.clock.instant(self.remailer.poll_timeout());
            let now = || self.clock.now();
            tokio::select! {
                biased;
                _ = &mut inputs.stopped => return Ok(()),
                () = sleep_until(timer.into()) => {
                    let now = now();
                    self.remailer.handle_timeout(now, &mut self.rng);
                    self.offer_keys(now);
                }
                _ = keys_tick.tick() => self.offer_keys(now()),
                Some(opened) = inputs.opened.recv() => self.remailer.handle_peeled(opened, now()),
                Some((batch, kept)) = inputs.kept.recv() => match kept {
                    TagsKept::Kept => self.remailer.handle_tags_kept(batch),
                    TagsKept::Lost => {
                        self.unkept += 1;
                        self.remailer.handle_tags_lost(batch);
                    }
                },
                Some((id, outcome)) = inputs.outcomes.recv() => {
                    self.remailer.handle_delivery(id, outcome, now());
                }
                Some((sealed, to)) = inputs.sealed.recv() => {
                    answer(self.remailer.handle_sealed(sealed, &mut self.rng), to);
                }
                Some(failure) = inputs.failures.recv() => self.send_failed(failure),
                Some(offered) = inputs.offers.recv() => self.offer(offered),
                Some((order, answer)) = inputs.calls.recv() => {
                    // A caller that has hung up is told nothing.
                    let _ = answer.send(self.order_from_operator(order));
                }
                Some(question) = inputs.questions.recv() => self.question(question),
                Ok(()) = inputs.reach.changed() => self.reach_changed(),
                Ok(()) = inputs.links.changed() => self.links_changed().await,
                Ok(()) = inputs.chosen.changed() => {
                    let chosen = inputs.chosen.borrow_and_update().clone();
                    self.keep_chosen(&chosen);
                }
                Some(event) = inputs.events.recv() => self.net_event(event).await?,
            }
        }
    }

    async fn carry_out(&mut self) -> Result<(), Failure> {
        while let Some(command) = self.remailer.next_command() {
            match command {
                Command::Send { to, packet, until } => {
                    tracing::trace!("packet leaves");
                    if let Err(failure) = self.net.queues.send(to, packet, until) {
                        self.send_failed(failure);
                    }
                }
                Command::Announce(octets) => self.order(Order::Announce(octets)).await,
                Command::Deliver(id, delivery) => self.deliver(id, delivery),
                // A key that is announced and then lost with a restart would be replaced by another: an
                // equivocation. So nothing that follows may be done.
                Command::KeepSeed(epoch, seed) => self.store.keep_seed(epoch, &seed)?,
                Command::WithdrawSeed(epoch) => {
                    self.store.withdraw_seed(epoch)?;
                    self.keep_tags(TagOrder::Withdraw(epoch));
                }
                Command::KeepOwn(octets) => self.store.keep_own(&octets)?,
                Command::ForgetSeeds(oldest) => {
                    self.must_keep(self.store.forget_seeds(oldest));
                    self.keep_tags(TagOrder::Forget(oldest));
                }
                Command::KeepTags(tags) => self.keep_tags(TagOrder::Keep(tags)),
                Command::KeepStatement(name, octets) => {
                    self.must_keep(self.store.keep_statement(&name, &octets));
                }
                Command::ForgetStatements(names) => {
                    self.must_keep(self.store.forget_statements(&names));
                }
                Command::Unlink(node) => {
                    self.net.queues.forget(&node);
                    self.order(Order::Unlink(node)).await;
                }
                Command::Link(node) => self.order(Order::Link(node)).await,
                Command::AskAround => self.ask_around().await,
                Command::ViewTaken(view) => {
                    tracing::debug!(nodes = view.len(), "view taken");
                    self.progress.send_modify(|(nodes, _)| *nodes = view.len());
                    let nodes = view.iter().map(|record| record.node());
                    let own = self.remailer.node();
                    let mut others: Vec<_> = nodes.filter(|node| *node != own).collect();
                    // Which of more than can be linked must not follow from their keys.
                    others.shuffle(&mut self.rng);
                    self.order(Order::Links(others)).await;
                }
            }
        }
        Ok(())
    }

    /// A failing disk does not stop the node; it is said in the log, and on the next start what could
    /// not be kept is missing.
    fn must_keep(&mut self, kept: Result<(), Failure>) {
        if let Err(failure) = kept {
            self.unkept += 1;
            tracing::error!(%failure, "cannot be kept");
        }
    }

    fn keep_tags(&self, order: TagOrder) {
        // Its thread ends only after this loop. At most one batch is under way, and a few epochs an hour.
        let _ = self.tags.send(order);
    }

    async fn order(&self, order: Order) {
        // The swarm ends only after this loop.
        let _ = self.net.orders.send(order).await;
    }

    fn send_failed(&mut self, failure: net::SendFailed) {
        self.remailer.handle_send_failed(match failure {
            net::SendFailed::Expired => "expired",
            net::SendFailed::QueueFull => "queue full",
        });
    }

    /// Puts the accepted keys where packets are opened, when they have changed.
    fn offer_keys(&mut self, now: Time) {
        let keys = self.remailer.epoch_keys(now);
        self.keys.send_if_modified(|offered| {
            let changed = !offered.epochs().eq(keys.epochs());
            if changed {
                *offered = keys;
            }
            changed
        });
    }

    // Mail.

    fn question(&mut self, question: Question) {
        let now = self.clock.now();
        match question {
            Question::Recipient(ask, to) => {
                let checked = self.remailer.check_recipient(&ask.mailbox, ask.size, now);
                answer(checked.map(|()| [0; 16]), to);
            }
            Question::Message(submission, to) => {
                match self.remailer.handle_submission(&submission, now, &mut self.rng) {
                    Ok(sealing) => self.seal(sealing, to),
                    Err(why) => answer(Err(why), to),
                }
            }
        }
    }

    /// On a thread of its own, as many at once as there are processors. No more wait than there are
    /// SMTP sessions, each of which has one message under way.
    fn seal(&mut self, sealing: Sealing, to: oneshot::Sender<Answer>) {
        let (turns, sealed) = (Arc::clone(&self.sealers), self.sealed.clone());
        let mut rng = self.rng;
        tokio::spawn(async move {
            let Ok(turn) = turns.acquire_owned().await else { return };
            let work = tokio::task::spawn_blocking(move || sealing.run(&mut rng));
            // It fails only with the runtime.
            if let Ok(done) = work.await {
                let _ = sealed.send((done, to)).await;
            }
            drop(turn);
        });
    }

    fn deliver(&mut self, id: DeliveryId, delivery: Delivery) {
        let Some(target) = self.target.clone() else { return };
        let (outcomes, conversations) = (self.outcomes.clone(), Arc::clone(&self.conversations));
        let (clock, rng) = (self.clock, self.rng);
        tokio::spawn(async move {
            let _turn = conversations.acquire_owned().await;
            let outcome = deliver(&target, delivery, clock, rng).await;
            let _ = outcomes.send((id, outcome)).await;
        });
    }

    fn offer(&mut self, offered: Option<ExitPolicy>) {
        self.next_server_is_down = offered.is_none();
        // One that is down for now still takes what it took: mail waits for it.
        let Some(mut policy) = offered else { return };
        if self.offered.as_ref() == Some(&policy) {
            return;
        }
        self.offered = Some(policy.clone());
        policy.domains = self.domains.clone();
        let exit = Exit { policy, anonymous: self.anonymous.clone() };
        self.remailer.handle_exit_changed(exit, self.clock.now());
    }

    // Records.

    fn reach_changed(&mut self) {
        match *self.net.reach.borrow() {
            Reach::Reachable { .. } => self.remailer.handle_reachable(),
            Reach::Unknown | Reach::Unreachable { .. } => self.remailer.handle_unreachable(),
        }
    }
}

/// Makes replay tags durable, one order after the other, on a thread of its own.
fn keep_tags(
    mut keeper: TagKeeper,
    mut orders: mpsc::UnboundedReceiver<TagOrder>,
    kept: &mpsc::Sender<(u64, TagsKept)>,
) {
    while let Some(order) = orders.blocking_recv() {
        let done = match order {
            TagOrder::Keep(tags) => {
                let done = keeper.keep(&tags.tags);
                let came = if done.is_ok() { TagsKept::Kept } else { TagsKept::Lost };
                // The loop is gone only when the node is.
                let _ = kept.blocking_send((tags.batch, came));
                done
            }
            TagOrder::Forget(oldest) => keeper.forget(oldest),
            TagOrder::Withdraw(epoch) => keeper.withdraw(epoch),
        };
        if let Err(error) = done {
            tracing::error!(%error, "replay tags cannot be kept");
        }
    }
}

fn answer(answered: Result<[u8; 16], Refused>, to: oneshot::Sender<Answer>) {
    let answer = match answered {
        Ok(name) => Answer::Taken(name),
        Err(Refused::TooFewNodes | Refused::ClockApart | Refused::Divided) => Answer::TooFewNodes,
        Err(Refused::NoExit) => Answer::NoExit,
        Err(Refused::TooBig) => Answer::TooBig,
        Err(Refused::Full) => Answer::Full,
        Err(Refused::Unfit(why)) => Answer::Unfit(why),
    };
    // A client that has gone has been answered nothing; its mail is on its way all the same.
    let _ = to.send(answer);
}

/// The first node of a network, at its first start, has nobody to ask.
fn wait_for_catch_up(bootstrap: &[OnionAddress], known: &[Vec<u8>], hour: Duration) -> Duration {
    if bootstrap.is_empty() && known.is_empty() { Duration::ZERO } else { hour / 60 }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Opens packets on threads of their own, as many at once as there are processors.
async fn open_packets(
    mut packets: mpsc::Receiver<Packet>,
    keys: watch::Receiver<EpochKeys>,
    opened: mpsc::Sender<Result<Peeled, Refusal>>,
) {
    let turns = Arc::new(Semaphore::new(processors()));
    while let Some(packet) = packets.recv().await {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let (keys, opened) = (keys.borrow().clone(), opened.clone());
        tokio::task::spawn_blocking(move || {
            let peeled = sphinx::peel(packet, &keys);
            // The loop is gone only when the node is.
            let _ = opened.blocking_send(peeled);
            drop(turn);
        });
    }
}

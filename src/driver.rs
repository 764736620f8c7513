//! The one event loop of a node: feeds the [`Remailer`] and carries out its commands.
//!
//! Inputs that are ready are handled in this order, local work before remote:
//!
//! 1. the order to stop, or the end of one to leave
//! 2. timers
//! 3. results of own work: opened packets, what was kept, sealed messages, the look at the disk,
//!    deliveries, what the next server takes, decoys, failed sends
//! 4. the control socket
//! 5. submissions
//! 6. the network: whether it reaches this node, links, statements, catching up, invites
//!
//! After each input the commands are carried out, and the timer is set anew.

mod asked;
mod commands;
mod decoys;
mod disk;
mod network;
mod operator;
mod report;
mod start;
mod warnings;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use keys::{NodeId, Time};
use record::ExitPolicy;
use remailer::{ClockJump, Decoy, DecoyEnd, Dropped, Handed, Held, QueueId, Remailer, StreamId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::clock::Jumped;
use crate::control::{Call, PlaceKind};
use crate::exit::{Attempted, Exit, ExitInputs, Offer, ServerFault};
use crate::ingress::Question;
use crate::machine::Machine;
use crate::net::tor::TorState;
use crate::net::{self, Links, Reach, Scores};
use crate::places::Places;
use asked::Asked;
use decoys::Decoys;
use disk::Disk;
pub use start::{Carrier, Node, Progress, Settings};
use work::{Done, Work};

/// How long a node that has left goes on to say so to whoever asks.
const TOLD_WITHIN: Duration = Duration::from_secs(3);

struct Inputs {
    stopped: oneshot::Receiver<()>,
    done: mpsc::Receiver<Done>,
    exit: ExitInputs,
    failures: mpsc::Receiver<net::SendFailed>,
    calls: mpsc::Receiver<Call>,
    questions: mpsc::Receiver<Question>,
    decoys: mpsc::Receiver<DecoyEnd>,
    events: mpsc::Receiver<net::NetEvent>,
    links: watch::Receiver<Links>,
    reach: watch::Receiver<Reach>,
    chosen: watch::Receiver<Vec<NodeId>>,
}

struct Net {
    orders: mpsc::Sender<net::SwarmOrder>,
    queues: net::PacketQueues,
    scores: watch::Receiver<Scores>,
    reach: watch::Receiver<Reach>,
    listed: watch::Sender<BTreeSet<NodeId>>,
    turned: net::TurnedAway,
    /// The links that the [`Remailer`] has been told of.
    linked: Links,
    /// Where to hand over what is for the open streams of peers without an address.
    streams: BTreeMap<StreamId, HandedOver>,
    /// Whether the operator named a node to join through.
    has_bootstrap: bool,
    tor: Option<watch::Receiver<TorState>>,
}

/// A stream of a peer without an address.
struct HandedOver {
    to: mpsc::Sender<Handed>,
    /// What came back since it ended, until it says so.
    back: Vec<Handed>,
}

struct Driver {
    remailer: Remailer,
    machine: Machine,
    net: Net,
    exit: Option<Exit>,
    work: Work,
    decoys: Decoys,
    disk: Disk,
    places: Vec<(PlaceKind, Arc<Places>)>,
    asked: Asked,
    progress: watch::Sender<Progress>,
    /// Octets of the largest mail that is carried at present.
    carries: watch::Sender<usize>,
    troubles: Troubles,
}

/// Problems since the start.
#[derive(Default)]
struct Troubles {
    /// The longest delay between the due time of a timer and its handling.
    late_timer: Duration,
    /// The timer that was set last, and when it could have been handled first.
    armed: (Time, Time),
    /// What the wall clock has done so far.
    jumped: Jumped,
    /// The kinds of warnings at the last look, and since when.
    warned: BTreeMap<String, Time>,
}

impl Troubles {
    /// Returns when a timer could be handled first. A timer set after its due time is late only
    /// from then on: its reason has only just come up.
    fn arm(&mut self, due: Time, now: Time) -> Time {
        if self.armed.0 != due {
            self.armed = (due, due.max(now));
        }
        self.armed.1
    }
}

/// Waits for an instant; for ever if there is none.
async fn passed(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Driver {
    async fn run(mut self, inputs: Inputs) {
        tracing::info!("node started");
        self.turn(inputs).await;
        let held = self.remailer.held();
        let Held { mixing, delivering, assembling, for_streams, messages, .. } = held;
        if mixing + delivering + assembling + for_streams > 0 {
            tracing::warn!(
                mixing,
                delivering,
                assembling,
                for_streams,
                "stopped; what was held for others is lost, and tried again by who has sent it"
            );
        }
        if messages > 0 {
            tracing::info!(messages, "in custody: the next start goes on with them");
        }
        tracing::info!("node stopped");
    }

    async fn turn(&mut self, mut inputs: Inputs) {
        let mut looks = interval(disk::LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ends = None;
        loop {
            self.carry_out().await;
            let has_left = self.remailer.leaving().is_some_and(|leaving| leaving.is_over);
            ends = has_left.then(|| ends.unwrap_or_else(|| self.now().plus(TOLD_WITHIN)));
            let due = self.remailer.poll_timeout();
            let armed = self.troubles.arm(due, self.now());
            let timer = self.machine.clock.instant(due);
            tokio::select! {
                biased;
                _ = &mut inputs.stopped => return,
                () = passed(ends.map(|at| self.machine.clock.instant(at).into())) => return,
                () = sleep_until(timer.into()) => self.time_out(armed),
                Some(done) = inputs.done.recv() => self.work_done(done),
                _ = looks.tick() => {
                    self.look_at_clock();
                    self.look_at_disk();
                    self.look_at_sizes();
                    self.look_at_warnings();
                }
                Some(delivered) = inputs.exit.outcomes.recv() => self.delivered(delivered),
                Some(offered) = inputs.exit.offers.recv() => self.offered(offered),
                Some(end) = inputs.decoys.recv() => self.remailer.handle_decoy_submitted(end),
                Some(failure) = inputs.failures.recv() => self.send_failed(failure),
                Some((order, to)) = inputs.calls.recv() => self.order_from_operator(order, to),
                Some(question) = inputs.questions.recv() => self.question(question),
                Ok(()) = inputs.reach.changed() => self.reach_changed(),
                Ok(()) = inputs.links.changed() => {
                    let links = Links::clone(&inputs.links.borrow_and_update());
                    self.links_changed(links);
                }
                Ok(()) = inputs.chosen.changed() => {
                    let chosen = inputs.chosen.borrow_and_update().clone();
                    self.keep_chosen(&chosen);
                }
                Some(event) = inputs.events.recv() => self.net_event(event).await,
            }
        }
    }

    fn now(&self) -> Time {
        self.machine.clock.now()
    }

    /// Follows the wall clock. A jump is not the lateness of any timer.
    fn look_at_clock(&mut self) {
        let (before, jumped) = (self.troubles.jumped, self.machine.clock.correct());
        if before.ahead != jumped.ahead {
            let slept = u64::try_from(jumped.slept.saturating_sub(before.slept)).unwrap_or(0);
            let jump = ClockJump {
                millis: jumped.ahead.saturating_sub(before.ahead),
                slept: Duration::from_millis(slept),
            };
            let (ahead_ms, slept_ms) = (jump.millis, slept);
            tracing::warn!(ahead_ms, slept_ms, "the clock jumped");
            let now = self.now();
            self.remailer.handle_clock_jump(jump, now, &mut self.machine.rng);
            self.troubles.armed = (now, now);
        }
        self.troubles.jumped = jumped;
    }

    /// Notes what may be submitted.
    fn look_at_sizes(&self) {
        let carries = self.remailer.carries();
        self.carries.send_if_modified(|known| std::mem::replace(known, carries) != carries);
    }

    /// `armed` is when the timer could have been handled first.
    fn time_out(&mut self, armed: Time) {
        let now = self.now();
        self.troubles.late_timer = self.troubles.late_timer.max(now.since(armed));
        self.remailer.handle_timeout(now, &mut self.machine.rng);
    }

    fn work_done(&mut self, done: Done) {
        match done {
            Done::Opened(from, peeled) => {
                self.remailer.handle_peeled(from, peeled, self.machine.clock.now());
            }
            Done::Sealed(id, sealed) => {
                let now = self.now();
                self.remailer.handle_sealed(id, sealed, now, &mut self.machine.rng);
            }
            Done::CoverSealed(sealed) => self.remailer.handle_cover_sealed(sealed),
            Done::Disk(report, result) => self.disk_done(report, result),
        }
    }

    fn delivered(&mut self, delivered: Attempted) {
        let Attempted { id, outcome, server } = delivered;
        self.remailer.handle_delivery(id, outcome, self.now(), &mut self.machine.rng);
        let changed = self.exit.as_mut().and_then(|exit| exit.handle_shown(server));
        self.offer(changed);
    }

    fn offered(&mut self, offered: Result<ExitPolicy, ServerFault>) {
        let changed = self.exit.as_mut().and_then(|exit| exit.handle_offer(offered));
        self.offer(changed);
    }

    fn offer(&mut self, changed: Option<Offer>) {
        let now = self.now();
        match changed {
            Some(Offer::Delivers(offer)) => self.remailer.handle_exit_changed(offer, now),
            Some(Offer::Nothing) => self.remailer.handle_exit_barred(now),
            None => {}
        }
    }

    fn send_failed(&mut self, failure: net::SendFailed) {
        self.remailer.handle_send_failed(match failure {
            net::SendFailed::Expired => Dropped::Expired,
            net::SendFailed::QueueFull => Dropped::QueueFull,
            net::SendFailed::Forgotten => Dropped::UnknownHop,
        });
    }

    fn submit_decoy(&mut self, decoy: Decoy) {
        if let Err(end) = self.decoys.submit(decoy) {
            self.remailer.handle_decoy_submitted(end);
        }
    }

    fn question(&mut self, question: Question) {
        let now = self.now();
        let (answer, to) = match question {
            Question::Status(id, to) => {
                let states = self.remailer.message(&QueueId::from_bytes(id)).unwrap_or_default();
                (smtp::Verdict::Became(commands::report(&states)), to)
            }
            // Nothing is answered for that may have to be kept.
            Question::Recipient(_, to) | Question::Message(_, to)
                if self.disk.failing().is_some() =>
            {
                (smtp::Verdict::Full, to)
            }
            Question::Recipient(ask, to) => {
                let checked = self.remailer.check_recipient(&ask.mailbox, ask.size, now);
                (checked.map_or_else(commands::refusal, |()| smtp::Verdict::RecipientTaken), to)
            }
            Question::Message(cut, to) => {
                let id = self.asked.submission(to);
                return self.remailer.handle_submission(id, cut, now, &mut self.machine.rng);
            }
        };
        // A client that has disconnected gets no answer.
        let _ = to.send(answer);
    }
}

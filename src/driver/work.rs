//! Slow work, which runs on other threads: opening packets, sealing messages, and what is kept.

use std::panic::{AssertUnwindSafe, catch_unwind};

use keys::NodeId;
use remailer::{SealedMessage, Sealing, SealingFailed, SubmissionId};
use sphinx::{EpochKeys, Peeled, Refusal};
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::Report;
use crate::machine::Machine;
use crate::net::Received;
use crate::store::{self, DiskKeeper, Job};
use crate::workers::{InOrder, Lane, OrderedJobs, Room, in_order};

/// Results that wait for the loop.
const RESULTS: usize = 64;
/// Packets that one job opens, if so many wait: handing a job to another thread costs a fifth of what
/// opening a packet does.
const OPENED_TOGETHER: usize = 8;
/// Messages that wait to be sealed: more than there are SMTP sessions, each of which has one under
/// way.
const SEALING: usize = 512;
/// Cover that waits to be sealed. It is made two seconds ahead.
const COVERING: usize = 128;
/// What waits to be kept: a joiner's statements, in the main.
const KEEPING: usize = 16_384;

/// A result of work.
pub(super) enum Done {
    /// A packet of this previous hop was opened.
    Opened(NodeId, Result<Peeled, Refusal>),
    /// A message was sealed.
    Sealed(SubmissionId, Result<SealedMessage, SealingFailed>),
    /// Cover was sealed.
    CoverSealed(Result<SealedMessage, SealingFailed>),
    /// Something was kept, or was not.
    Disk(Report, Result<(), store::Error>),
}

/// Takes orders for work on other threads.
pub(super) struct Work {
    keys: watch::Sender<EpochKeys>,
    sealing: Lane,
    covering: Lane,
    disk: OrderedJobs<DiskKeeper>,
    done: mpsc::Sender<Done>,
    machine: Machine,
}

impl Work {
    /// Starts opening `packets`. Returns where results come from, and the end of the thread that
    /// owns the disk.
    pub(super) fn start(
        machine: Machine,
        packets: mpsc::Receiver<Received>,
        keeper: DiskKeeper,
    ) -> (Self, mpsc::Receiver<Done>, oneshot::Receiver<()>) {
        let (done, results) = mpsc::channel(RESULTS);
        let (keys, accepted) = watch::channel(EpochKeys::default());
        let opening = machine.workers.lane(1);
        tokio::spawn(open_packets(packets, accepted, opening, done.clone()));
        let sealing = machine.workers.lane(SEALING);
        let covering = machine.workers.lane(COVERING);
        let InOrder { jobs: disk, ended } = in_order(keeper, KEEPING);
        (Self { keys, sealing, covering, disk, done, machine }, results, ended)
    }

    /// Packets are opened with these keys from now on.
    pub(super) fn accept(&self, keys: EpochKeys) {
        self.keys.send_replace(keys);
    }

    /// Seals a message.
    ///
    /// # Errors
    /// The message, if too many wait already.
    pub(super) fn seal(&self, id: SubmissionId, sealing: Sealing) -> Result<(), Sealing> {
        let Some(room) = self.sealing.try_room() else { return Err(sealing) };
        self.seal_in(room, sealing, move |sealed| Done::Sealed(id, sealed));
        Ok(())
    }

    /// Seals cover, which has a queue of its own: mail does not keep it waiting.
    ///
    /// # Errors
    /// The cover, if too much waits already.
    pub(super) fn seal_cover(&self, sealing: Sealing) -> Result<(), Sealing> {
        let Some(room) = self.covering.try_room() else { return Err(sealing) };
        self.seal_in(room, sealing, Done::CoverSealed);
        Ok(())
    }

    fn seal_in(
        &self,
        room: Room<'_>,
        sealing: Sealing,
        report: impl FnOnce(Result<SealedMessage, SealingFailed>) -> Done + Send + 'static,
    ) {
        let (done, mut rng) = (self.done.clone(), self.machine.rng);
        room.run(move || {
            // Whoever waits is answered whatever happens here.
            let lost = sealing.give_up();
            let seal = AssertUnwindSafe(move || sealing.run(&mut rng));
            let sealed = catch_unwind(seal).unwrap_or(Err(lost));
            // The loop is gone only when the node is.
            let _ = done.blocking_send(report(sealed));
        });
    }

    /// Gives a job to the thread that owns the disk; a job about which nothing is to be reported is
    /// reported if it fails.
    ///
    /// # Errors
    /// What was to be reported, if too many jobs wait already.
    pub(super) fn keep(&self, job: Job, report: Report) -> Result<(), Report> {
        let Some(room) = self.disk.try_room() else { return Err(report) };
        let done = self.done.clone();
        room.run(move |keeper| {
            let result = keeper.run(&job);
            if result.is_err() || !matches!(report, Report::Nothing) {
                // The loop is gone only when the node is.
                let _ = done.blocking_send(Done::Disk(report, result));
            }
        });
        Ok(())
    }
}

/// Opens each packet with the keys that are accepted when its turn comes.
///
/// When the queue is full, streams wait in turn for room for one packet each: a packet of a slow peer
/// waits for the queue and for one packet of each other stream, however fast the others are.
async fn open_packets(
    mut packets: mpsc::Receiver<Received>,
    keys: watch::Receiver<EpochKeys>,
    opening: Lane,
    done: mpsc::Sender<Done>,
) {
    loop {
        let mut together = Vec::with_capacity(OPENED_TOGETHER);
        if packets.recv_many(&mut together, OPENED_TOGETHER).await == 0 {
            return;
        }
        let (keys, done) = (keys.clone(), done.clone());
        let open = move || {
            let keys = keys.borrow().clone();
            for Received { from, packet } in together {
                // The loop is gone only when the node is.
                let _ = done.blocking_send(Done::Opened(from, sphinx::peel(packet, &keys)));
            }
        };
        opening.run(open).await;
    }
}

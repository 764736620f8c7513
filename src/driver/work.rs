//! Slow work, which runs on other threads: opening packets, sealing messages, storing replay tags.

use std::panic::{AssertUnwindSafe, catch_unwind};

use keys::{Epoch, NodeId};
use mix::Tags;
use remailer::{SealedMessage, Sealing, SealingFailed, SubmissionId};
use sphinx::{EpochKeys, Peeled, Refusal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::machine::Machine;
use crate::net::Received;
use crate::store::TagKeeper;
use crate::workers::{Full, InOrder, Lane, OrderedJobs, in_order};

/// Results that wait for the loop.
const RESULTS: usize = 64;
/// Messages that wait to be sealed: more than there are SMTP sessions, each of which has one under
/// way.
const SEALING: usize = 512;
/// Orders about replay tags: at most one batch is under way, and a few epochs an hour.
const TAG_ORDERS: usize = 1024;

/// A result of work.
pub(super) enum Done {
    /// A packet of this previous hop was opened.
    Opened(NodeId, Result<Peeled, Refusal>),
    /// A message was sealed.
    Sealed(SubmissionId, Result<SealedMessage, SealingFailed>),
    /// Replay tags were made durable.
    TagsKept(u64),
    /// Replay tags could not be made durable.
    TagsLost(u64),
}

/// Takes orders for work on other threads.
pub(super) struct Work {
    keys: watch::Sender<EpochKeys>,
    sealing: Lane,
    tags: OrderedJobs<TagKeeper>,
    done: mpsc::Sender<Done>,
    machine: Machine,
}

impl Work {
    /// Starts opening `packets`. Returns where results come from, and the thread that has the
    /// database open.
    pub(super) fn start(
        machine: Machine,
        packets: mpsc::Receiver<Received>,
        keeper: TagKeeper,
    ) -> (Self, mpsc::Receiver<Done>, JoinHandle<()>) {
        let (done, results) = mpsc::channel(RESULTS);
        let (keys, accepted) = watch::channel(EpochKeys::default());
        let opening = machine.workers.lane(1);
        tokio::spawn(open_packets(packets, accepted, opening, done.clone()));
        let sealing = machine.workers.lane(SEALING);
        let InOrder { jobs: tags, thread } = in_order(keeper, TAG_ORDERS);
        (Self { keys, sealing, tags, done, machine }, results, thread)
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
        let (done, mut rng) = (self.done.clone(), self.machine.rng);
        room.run(move || {
            // A client that waits is answered whatever happens here.
            let lost = sealing.give_up();
            let seal = AssertUnwindSafe(move || sealing.run(&mut rng));
            let sealed = catch_unwind(seal).unwrap_or(Err(lost));
            // The loop is gone only when the node is.
            let _ = done.blocking_send(Done::Sealed(id, sealed));
        });
        Ok(())
    }

    /// Makes replay tags durable.
    ///
    /// # Errors
    /// If the disk is so slow that the queue is full.
    pub(super) fn keep_tags(&self, tags: Tags) -> Result<(), Full> {
        let done = self.done.clone();
        self.tags.try_run(move |keeper| {
            let kept = keeper.keep(&tags.tags);
            if let Err(error) = &kept {
                tracing::error!(%error, "replay tags cannot be kept");
            }
            let came = if kept.is_ok() { Done::TagsKept } else { Done::TagsLost };
            // The loop is gone only when the node is.
            let _ = done.blocking_send(came(tags.batch));
        })
    }

    /// Forgets the tags of the epochs before this one.
    pub(super) fn forget_tags(&self, oldest: Epoch) {
        self.order_tags(move |keeper| keeper.forget(oldest));
    }

    /// Forgets the tags of one epoch.
    pub(super) fn withdraw_tags(&self, epoch: Epoch) {
        self.order_tags(move |keeper| keeper.withdraw(epoch));
    }

    fn order_tags(
        &self,
        order: impl FnOnce(&mut TagKeeper) -> std::io::Result<()> + Send + 'static,
    ) {
        let queued = self.tags.try_run(move |keeper| {
            if let Err(error) = order(keeper) {
                tracing::error!(%error, "replay tags cannot be forgotten");
            }
        });
        if queued.is_err() {
            tracing::error!("the disk is too slow: replay tags stay until their epoch is over");
        }
    }
}

/// Opens each packet with the keys that are accepted when its turn comes.
async fn open_packets(
    mut packets: mpsc::Receiver<Received>,
    keys: watch::Receiver<EpochKeys>,
    opening: Lane,
    done: mpsc::Sender<Done>,
) {
    while let Some(Received { from, packet }) = packets.recv().await {
        let (keys, done) = (keys.clone(), done.clone());
        let open = move || {
            let keys = keys.borrow().clone();
            // The loop is gone only when the node is.
            let _ = done.blocking_send(Done::Opened(from, sphinx::peel(packet, &keys)));
        };
        opening.run(open).await;
    }
}

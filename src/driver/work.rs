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
    /// `None` until the node has said which it has.
    keys: watch::Sender<Option<EpochKeys>>,
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
        let (keys, accepted) = watch::channel(None);
        let opening = machine.workers.lane(1);
        tokio::spawn(open_packets(packets, accepted, opening, done.clone()));
        let sealing = machine.workers.lane(SEALING);
        let covering = machine.workers.lane(COVERING);
        let InOrder { jobs: disk, ended } = in_order(keeper, KEEPING);
        (Self { keys, sealing, covering, disk, done, machine }, results, ended)
    }

    /// Packets are opened with these keys from now on.
    pub(super) fn accept(&self, keys: EpochKeys) {
        self.keys.send_replace(Some(keys));
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
    mut keys: watch::Receiver<Option<EpochKeys>>,
    opening: Lane,
    done: mpsc::Sender<Done>,
) {
    // Peers send what they have kept for this node as soon as it is back.
    if keys.wait_for(Option::is_some).await.is_err() {
        return;
    }
    loop {
        let mut together = Vec::with_capacity(OPENED_TOGETHER);
        if packets.recv_many(&mut together, OPENED_TOGETHER).await == 0 {
            return;
        }
        let (keys, done) = (keys.clone(), done.clone());
        let open = move || {
            let keys = keys.borrow().clone().unwrap_or_default();
            for Received { from, packet } in together {
                // The loop is gone only when the node is.
                let _ = done.blocking_send(Done::Opened(from, sphinx::peel(packet, &keys)));
            }
        };
        opening.run(open).await;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a packet as a peer brings it")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use keys::{Epoch, Identity, MixSecret, MixSeed};
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use sphinx::{Body, EpochKey, Hop, Layer, wrap};
    use tokio::time::timeout;

    use super::*;
    use crate::workers::Workers;

    /// A node that was killed is back, and its peers are quicker than its own keys.
    #[tokio::test]
    async fn a_packet_that_comes_before_the_keys_waits_for_them() {
        let mut rng = StdRng::seed_from_u64(1);
        let epoch = Epoch::new(7);
        let mut hop = || {
            let node = Identity::generate(&mut rng).node();
            let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
            Arc::new(EpochKey::new(node, epoch, secret))
        };
        let route = [hop(), hop(), hop()];
        let delay = Duration::ZERO;
        let of = |key: &'_ Arc<EpochKey>| (key.node(), key.epoch());
        let hops: Vec<_> = route
            .iter()
            .map(|key| Hop { node: of(key).0, epoch: of(key).1, key: key.public(), delay })
            .collect();
        let packet = wrap(&hops, &Body::default(), &mut rng).unwrap();
        let (packets, incoming) = mpsc::channel(4);
        let (accepted, keys) = watch::channel(None);
        let (done, mut opened) = mpsc::channel(4);
        tokio::spawn(open_packets(incoming, keys, Workers::new().lane(1), done));
        let from = route[1].node();
        packets.send(Received { from, packet }).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        accepted.send_replace(Some(EpochKeys::new(vec![Arc::clone(&route[0])])));
        let soon = Duration::from_secs(20);
        match timeout(soon, opened.recv()).await.unwrap() {
            Some(Done::Opened(_, Ok(Peeled { outcome: Ok(Layer::Forward { to, .. }), .. }))) => {
                assert_eq!(to, route[1].node());
            }
            _ => panic!("not opened"),
        }
    }
}

//! The threads for slow work, which must not hold up an event loop: opening and sealing packets,
//! verifying statements, and waiting for the disk.
//!
//! Computing has one pool: as many jobs run at once as there are processors. Each kind of job has a
//! [`Lane`] of its own with a bounded queue, and lanes take turns, so that a flood of one kind
//! delays the others by one job and not by its whole queue. The disk has a thread of its own, on
//! which jobs run one after the other ([`in_order`]): a slow disk takes no processor away.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;

type Job = Box<dyn FnOnce() + Send>;

/// The pool.
#[derive(Clone)]
pub struct Workers {
    turns: Arc<Semaphore>,
}

/// A queue of jobs of one kind.
#[derive(Clone)]
pub struct Lane(mpsc::Sender<Job>);

/// There is no room in a queue; the job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Workers {
    /// A pool with one turn for each processor.
    #[must_use]
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_turns(processors)
    }

    fn with_turns(turns: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(turns)) }
    }

    /// A lane in which this many jobs wait at most. A job keeps its turn until it returns.
    #[must_use]
    pub fn lane(&self, waiting: usize) -> Lane {
        let (jobs_in, mut jobs) = mpsc::channel::<Job>(waiting);
        let turns = Arc::clone(&self.turns);
        tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
                spawn_blocking(move || {
                    job();
                    drop(turn);
                });
            }
        });
        Lane(jobs_in)
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self::new()
    }
}

impl Lane {
    /// Room for one job, if there is any now.
    #[must_use]
    pub fn try_room(&self) -> Option<Room<'_>> {
        self.0.try_reserve().ok().map(Room)
    }

    /// Queues a job as soon as there is room.
    pub async fn run(&self, job: impl FnOnce() + Send + 'static) {
        if let Some(room) = self.room().await {
            room.run(job);
        }
    }

    /// Waits for room for one job, so that the caller can choose the job then. `None` when the
    /// runtime is ending.
    pub async fn room(&self) -> Option<Room<'_>> {
        self.0.reserve().await.ok().map(Room)
    }
}

/// Room for one job.
pub struct Room<'a>(mpsc::Permit<'a, Job>);

impl Room<'_> {
    /// Queues the job.
    pub fn run(self, job: impl FnOnce() + Send + 'static) {
        self.0.send(Box::new(job));
    }
}

/// A thread on which jobs run one after the other, in the order in which they came, on a state of
/// their own. It ends with its state when the last sender is dropped.
pub struct InOrder<S> {
    /// Where jobs are queued.
    pub jobs: OrderedJobs<S>,
    /// Ends with the thread, which ends when nobody has jobs any more. Nothing else waits for it: a
    /// disk that hangs does not keep the program from ending.
    pub ended: oneshot::Receiver<()>,
}

/// Where jobs for a state are queued.
pub struct OrderedJobs<S>(mpsc::Sender<OrderedJob<S>>);

/// A place for a job on a state.
pub struct OrderedRoom<'a, S>(mpsc::Permit<'a, OrderedJob<S>>);

impl<S> OrderedRoom<'_, S> {
    /// Queues the job.
    pub fn run(self, job: impl FnOnce(&mut S) + Send + 'static) {
        self.0.send(Box::new(job));
    }
}

type OrderedJob<S> = Box<dyn FnOnce(&mut S) + Send>;

impl<S> OrderedJobs<S> {
    /// A place for a job, unless as many wait as may.
    #[must_use]
    pub fn try_room(&self) -> Option<OrderedRoom<'_, S>> {
        self.0.try_reserve().ok().map(OrderedRoom)
    }
}

/// Starts a thread for jobs on a state; this many wait at most.
pub fn in_order<S: Send + 'static>(mut state: S, waiting: usize) -> InOrder<S> {
    let (jobs, mut queued) = mpsc::channel::<OrderedJob<S>>(waiting);
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        while let Some(job) = queued.blocking_recv() {
            job(&mut state);
        }
        drop(state);
        drop(end);
    });
    InOrder { jobs: OrderedJobs(jobs), ended }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;

    use super::*;

    #[tokio::test]
    async fn a_full_lane_refuses_and_does_not_hold_the_others_up() {
        let workers = Workers::with_turns(1);
        let (busy, quiet) = (workers.lane(4), workers.lane(4));
        let (started_in, started) = blocking::channel();
        let (go_on, wait) = blocking::channel::<()>();
        let (done_in, mut done) = mpsc::unbounded_channel();
        busy.run(move || {
            started_in.send(()).unwrap();
            wait.recv().unwrap();
        })
        .await;
        spawn_blocking(move || started.recv().unwrap()).await.unwrap();
        let mut queued = 0;
        loop {
            let done = done_in.clone();
            let Some(room) = busy.try_room() else { break };
            room.run(move || done.send("busy").unwrap());
            queued += 1;
            // The lane's own task takes one out of the queue.
            tokio::task::yield_now().await;
        }
        assert!((4..=5).contains(&queued), "{queued}");
        let other = done_in.clone();
        quiet.run(move || other.send("quiet").unwrap()).await;
        go_on.send(()).unwrap();
        let mut order = Vec::new();
        for _ in 0..=queued {
            order.push(done.recv().await.unwrap());
        }
        let at = order.iter().position(|kind| *kind == "quiet").unwrap();
        assert!(at <= 2, "{order:?}");
    }

    #[tokio::test]
    async fn ordered_jobs_run_in_order_and_the_state_is_dropped_at_the_end() {
        let kept = Arc::new(());
        let InOrder { jobs, ended } = in_order((Arc::clone(&kept), Vec::new()), 8);
        let (seen_in, mut seen) = mpsc::unbounded_channel();
        for number in 0..8 {
            let seen = seen_in.clone();
            let job = move |state: &mut (Arc<()>, Vec<i32>)| {
                state.1.push(number);
                seen.send(state.1.clone()).unwrap();
            };
            jobs.try_room().unwrap().run(job);
        }
        for number in 0..8 {
            assert_eq!(seen.recv().await.unwrap(), (0..=number).collect::<Vec<_>>());
        }
        drop(jobs);
        ended.await.unwrap_err();
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}

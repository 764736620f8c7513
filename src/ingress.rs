//! The submission listener: it feeds sockets to [`smtp::Session`], and questions to the driver.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mail::Submission;
use record::Descriptor;
use remailer::{Cut, Refused};
use smtp::{Limits, RecipientAsk, Session, SessionEvent, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::failure::{Failure, FailureKind};
use crate::machine::Machine;
use crate::net::incoming::{Arrived, Incoming};
use crate::places::{Places, Rule, Seat};
use crate::workers::Lane;

/// Sessions at once, of both kinds. Each holds one message: all together 64 MiB, and [`SMALL`] octets
/// each.
pub(crate) const MAX_SESSIONS: usize = FROM_HERE + FROM_ONION;
/// Sessions of this machine, which callers of the onion cannot take.
const FROM_HERE: usize = 100;
const FROM_ONION: usize = 200;
/// Octets of messages that are coming to all sessions, or wait for their answer. Above that a message
/// of more than [`SMALL`] octets is not taken any further, and told 452 at its end. A buffer that grows
/// has at most twice the room, and each thread that cuts some six times its message.
const MAX_HELD: usize = 64 << 20;
const SMALL: usize = 240_000;
/// A client that finds no place waits this long for one, unnoticed, and is told 421 then. Beside
/// those that have one, so many wait.
const PATIENCE: Duration = Duration::from_secs(5);
const WAITING: usize = 64;
/// Who must go when all places are taken: whoever brings least, after three seconds, unless that is
/// two kilobytes a second. A client over Tor brings ten times as much.
const GRACE: Duration = Duration::from_secs(3);
const PACE: u64 = 2000;
const READ_OCTETS: usize = 8192;
/// Time for writing a reply: a client may not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// A question of a session to the driver.
pub enum Question {
    /// Is there a way to this recipient?
    Recipient(RecipientAsk, oneshot::Sender<Verdict>),
    /// What has become of the message with this id?
    Status([u8; 16], oneshot::Sender<Verdict>),
    /// Take this message, which was cut, or cannot be carried.
    Message(Result<Cut, Refused>, oneshot::Sender<Verdict>),
}

/// The channel for questions to the driver.
pub type Submissions = mpsc::Sender<Question>;

/// How submissions come through the onion service.
pub enum FromOnion {
    /// There is no onion service.
    None,
    /// To a listener of their own, on loopback.
    Socket,
    /// Sorted by their circuits.
    Sorted(Incoming),
}

/// Where submissions are taken.
pub struct Listening {
    /// On loopback, for this machine.
    pub here: SocketAddr,
    /// Where the onion service hands them over.
    pub onion: SocketAddr,
    /// The places of the sessions: of this machine, and of the onion's callers.
    pub places: [Arc<Places>; 2],
}

/// Listens on loopback, and for the onion service, and serves until the driver is gone.
///
/// # Errors
/// If the port is not available.
pub async fn listen(
    address: SocketAddr,
    from_onion: FromOnion,
    questions: Submissions,
    desk: Cutting,
) -> Result<Listening, Failure> {
    let clock = desk.machine.clock;
    let (listener, here) = bind(address).await?;
    let rule = |most| Rule { most, grace: GRACE, pace: PACE };
    let most = if matches!(from_onion, FromOnion::None) { MAX_SESSIONS } else { FROM_HERE };
    let places = [most, FROM_ONION].map(|most| Places::new(rule(most), clock));
    let [own, foreign] = &places;
    let door = |places: &Arc<Places>| Door {
        places: Arc::clone(places),
        waiting: Arc::new(Semaphore::new(WAITING)),
        questions: questions.clone(),
        desk: desk.clone(),
    };
    let (at, incoming) = match from_onion {
        FromOnion::None => (here, None),
        FromOnion::Sorted(incoming) => (here, Some(incoming)),
        FromOnion::Socket => {
            let (listener, at) = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
            (at, Some(Incoming::Socket(listener)))
        }
    };
    if let Some(incoming) = incoming {
        tokio::spawn(door(foreign).open(incoming));
    }
    tokio::spawn(door(own).open(Incoming::Socket(listener)));
    Ok(Listening { here, onion: at, places })
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::new(FailureKind::Port, format!("SMTP on {address}: {error}"))
            .remedy("stop what listens there, or choose another port")
    })?;
    let bound = listener.local_addr().map_err(|error| Failure::new(FailureKind::Port, error))?;
    Ok((listener, bound))
}

/// Where clients of one kind come in.
struct Door {
    places: Arc<Places>,
    waiting: Arc<Semaphore>,
    questions: Submissions,
    desk: Cutting,
}

/// What every session needs to have its messages cut.
#[derive(Clone)]
pub struct Cutting {
    machine: Machine,
    lane: Lane,
    descriptor: Arc<Descriptor>,
    /// Octets of the largest mail that is carried at present.
    carries: watch::Receiver<usize>,
    /// Octets that all sessions hold.
    held: Arc<AtomicUsize>,
}

impl Cutting {
    /// For the sessions of one node.
    #[must_use]
    pub fn new(
        machine: Machine,
        descriptor: Arc<Descriptor>,
        carries: watch::Receiver<usize>,
    ) -> Self {
        let lane = machine.workers.lane(MAX_SESSIONS);
        Self { machine, lane, descriptor, carries, held: Arc::default() }
    }

    /// Cuts a message on a thread that has time.
    async fn cut(&self, submission: Submission) -> Result<Cut, Refused> {
        let (done, cut) = oneshot::channel();
        let (descriptor, mut rng) = (Arc::clone(&self.descriptor), self.machine.rng);
        let job = move || {
            // The session may have gone.
            let _ = done.send(Cut::of(&submission, descriptor.parameters(), &mut rng));
        };
        self.lane.run(job).await;
        cut.await.unwrap_or(Err(Refused::Full))
    }
}

/// What one session holds of all that may be held, until it is dropped.
struct Share {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Share {
    fn set(&mut self, octets: usize) {
        if octets > self.own {
            self.all.fetch_add(octets - self.own, Ordering::Relaxed);
        } else {
            self.all.fetch_sub(self.own - octets, Ordering::Relaxed);
        }
        self.own = octets;
    }

    /// Whether the session may hold what it holds.
    fn fits(&self) -> bool {
        self.own <= SMALL || self.all.load(Ordering::Relaxed) <= MAX_HELD
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Door {
    async fn open(self, mut incoming: Incoming) {
        loop {
            // When all places to wait in are taken, others wait where the system keeps them.
            let accepted = async {
                let turn = Arc::clone(&self.waiting).acquire_owned().await;
                let turn = turn.map_err(io::Error::other)?;
                Ok((incoming.accept().await?, turn))
            };
            let accepted: io::Result<_> = tokio::select! {
                accepted = accepted => accepted,
                () = self.questions.closed() => return,
            };
            let Ok((stream, turn)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (places, questions) = (Arc::clone(&self.places), self.questions.clone());
            let desk = self.desk.clone();
            tokio::spawn(async move {
                let seat = places.take(PATIENCE).await;
                drop(turn);
                let limits = Limits::new(*desk.carries.borrow());
                let session = match seat {
                    Some(_) => Session::new(limits),
                    None => Session::refused(limits),
                };
                let start = desk.machine.clock.elapsed();
                let share = Share { all: Arc::clone(&desk.held), own: 0 };
                let mut connection = Connection { stream, session, desk, start, seat, share };
                // A client that disconnects in the middle leaves nothing behind.
                let _ = connection.serve(&questions).await;
            });
        }
    }
}

struct Connection {
    stream: Arrived,
    session: Session,
    desk: Cutting,
    start: Duration,
    seat: Option<Seat>,
    share: Share,
}

impl Connection {
    async fn serve(&mut self, questions: &Submissions) -> io::Result<()> {
        let mut octets = Zeroizing::new([0; READ_OCTETS]);
        loop {
            while let Some(event) = self.session.next_event() {
                match event {
                    SessionEvent::Write(reply) => {
                        let write = timeout(WRITE_TIMEOUT, self.stream.write_all(&reply));
                        tokio::select! {
                            written = write => written??,
                            // A client that reads nothing is told nothing.
                            () = crowded(self.seat.as_ref()) => return Ok(()),
                        }
                    }
                    SessionEvent::Recipient(ask) => {
                        let answer = put(questions, |to| Question::Recipient(ask, to)).await;
                        self.session.handle_answer(answer, self.now());
                    }
                    SessionEvent::Status(id) => {
                        let answer = put(questions, |to| Question::Status(id, to)).await;
                        self.session.handle_answer(answer, self.now());
                    }
                    SessionEvent::Message(submission) => {
                        self.share.set(submission.message.len());
                        let cut = self.desk.cut(submission).await;
                        if let Ok(cut) = &cut {
                            self.session.note_left(cut.left());
                        }
                        let answer = put(questions, |to| Question::Message(cut, to)).await;
                        self.share.set(0);
                        self.session.handle_answer(answer, self.now());
                    }
                    SessionEvent::Close => return self.stream.shutdown().await,
                }
                self.note_useful();
            }
            let left = self.session.poll_timeout().saturating_sub(self.now());
            tokio::select! {
                read = timeout(left, self.stream.read(octets.as_mut_slice())) => match read {
                    Err(_) => self.session.handle_timeout(self.now()),
                    Ok(read) => match octets.get(..read?) {
                        Some([]) | None => return Ok(()),
                        Some(octets) => {
                            self.session.handle_input(octets, self.now());
                            self.note_held();
                        }
                    },
                },
                () = crowded(self.seat.as_ref()) => {
                    self.seat = None;
                    self.session.handle_crowd();
                }
                () = questions.closed() => self.session.handle_shutdown(),
            }
            self.note_useful();
        }
    }

    /// Notes what the session holds of a message that is coming.
    fn note_held(&mut self) {
        self.share.set(self.session.held());
        if !self.share.fits() {
            self.session.handle_no_room();
            self.share.set(self.session.held());
        }
    }

    /// Tells what the session has brought, on which its place depends.
    fn note_useful(&self) {
        if let Some(seat) = &self.seat {
            seat.add(self.session.useful().saturating_sub(seat.useful()));
        }
    }

    fn now(&self) -> Duration {
        self.desk.machine.clock.elapsed().saturating_sub(self.start)
    }
}

/// Waits until a session has to go for another.
async fn crowded(seat: Option<&Seat>) {
    match seat {
        Some(seat) => seat.ended().await,
        None => std::future::pending().await,
    }
}

async fn put(
    questions: &Submissions,
    question: impl FnOnce(oneshot::Sender<Verdict>) -> Question,
) -> Verdict {
    let (to, answer) = oneshot::channel();
    match questions.send(question(to)).await {
        Ok(()) => answer.await.unwrap_or(Verdict::Full),
        Err(_) => Verdict::Full,
    }
}

//! The submission listener: it feeds sockets to [`smtp::Session`], and questions to the driver.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::Submission;
use smtp::{Limits, RecipientAsk, Session, SessionEvent, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::failure::{Failure, FailureKind};
use crate::net::incoming::{Arrived, Incoming};

/// Sessions at once; the next one is told 421. Each holds one message of at most
/// [`MAX_MESSAGE`] octets: 75 MB.
pub(crate) const MAX_SESSIONS: usize = 300;
/// Octets of a message: what the largest packet carries, less an envelope of some hundred
/// recipients.
const MAX_MESSAGE: usize = 240_000;
/// When only this many places are free, sessions that are idle for [`SHORT_IDLE`] are closed.
const CROWDED: usize = 75;
const SHORT_IDLE: Duration = Duration::from_secs(20);
/// How often a session that waits looks how crowded it is.
const LOOK_AROUND: Duration = Duration::from_secs(2);
const READ_OCTETS: usize = 8192;
/// Time for writing a reply: a client may not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// A question of a session to the driver.
pub enum Question {
    /// Is there a way to this recipient?
    Recipient(RecipientAsk, oneshot::Sender<Verdict>),
    /// Take this message.
    Message(Submission, oneshot::Sender<Verdict>),
}

/// The channel for questions to the driver.
pub type Submissions = mpsc::Sender<Question>;

/// Listens on loopback and serves until the driver is gone. Also serves streams of the onion
/// service that arrive elsewhere.
///
/// # Errors
/// If the port is not available.
pub async fn listen(
    address: SocketAddr,
    from_onion: Option<Incoming>,
    questions: Submissions,
    clock: Clock,
) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::new(FailureKind::Port, format!("SMTP on {address}: {error}"))
            .remedy("stop what listens there, or choose another port")
    })?;
    let bound = listener.local_addr().map_err(|error| Failure::new(FailureKind::Port, error))?;
    // Both listeners share one bound on sessions.
    let places = Arc::new(Semaphore::new(MAX_SESSIONS));
    if let Some(incoming) = from_onion {
        tokio::spawn(accept(incoming, Arc::clone(&places), questions.clone(), clock));
    }
    tokio::spawn(accept(Incoming::Socket(listener), places, questions, clock));
    Ok(bound)
}

async fn accept(
    mut incoming: Incoming,
    places: Arc<Semaphore>,
    questions: Submissions,
    clock: Clock,
) {
    loop {
        let accepted = tokio::select! {
            accepted = incoming.accept() => accepted,
            () = questions.closed() => return,
        };
        let Ok(stream) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let limits = Limits::new(MAX_MESSAGE);
        let place = Arc::clone(&places).try_acquire_owned();
        let mut connection = Connection {
            stream,
            session: Session::new(limits),
            clock,
            start: clock.elapsed(),
            places: Arc::clone(&places),
        };
        let questions = questions.clone();
        tokio::spawn(async move {
            if place.is_err() {
                connection.session.handle_shutdown();
            }
            // A client that disconnects in the middle leaves nothing behind.
            let _ = connection.serve(&questions).await;
            drop(place);
        });
    }
}

struct Connection {
    stream: Arrived,
    session: Session,
    clock: Clock,
    start: Duration,
    places: Arc<Semaphore>,
}

impl Connection {
    async fn serve(&mut self, questions: &Submissions) -> io::Result<()> {
        let mut octets = [0; READ_OCTETS];
        loop {
            if self.places.available_permits() <= CROWDED {
                self.session.handle_pressure(SHORT_IDLE, self.now());
            }
            while let Some(event) = self.session.next_event() {
                match event {
                    SessionEvent::Write(reply) => {
                        timeout(WRITE_TIMEOUT, self.stream.write_all(&reply)).await??;
                    }
                    SessionEvent::Recipient(ask) => {
                        let answer = put(questions, |to| Question::Recipient(ask, to)).await;
                        self.session.handle_answer(answer, self.now());
                    }
                    SessionEvent::Message(submission) => {
                        let answer = put(questions, |to| Question::Message(submission, to)).await;
                        self.session.handle_answer(answer, self.now());
                    }
                    SessionEvent::Close => return self.stream.shutdown().await,
                }
            }
            let left = self.session.poll_timeout().saturating_sub(self.now());
            tokio::select! {
                read = timeout(left.min(LOOK_AROUND), self.stream.read(&mut octets)) => match read {
                    Err(_) => self.session.handle_timeout(self.now()),
                    Ok(read) => match octets.get(..read?) {
                        Some([]) | None => return Ok(()),
                        Some(octets) => self.session.handle_input(octets, self.now()),
                    },
                },
                () = questions.closed() => self.session.handle_shutdown(),
            }
        }
    }

    fn now(&self) -> Duration {
        self.clock.elapsed().saturating_sub(self.start)
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

//! The local control socket: one JSON line in, one JSON line out, closed.
//!
//! It answers only users that may read the state folder: the socket is 0600, and its folder
//! 0700. A request has at most 64 KiB and two seconds; sixteen callers are served at once.

mod counts;
mod desk;
mod status;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::failure::{Failure, FailureKind};
use crate::startup::Awaited;
pub use counts::{PlaceKind, named, named_state, of_places, of_turned};
pub use desk::Desk;
pub use status::{
    Avoided, ClassesStatus, DayStatus, DiskTrouble, HealthStatus, HeldStatus, Lateness,
    LeavingStatus, NoMail, NodeUse, Peer, PeerList, PeerRole, ProvenBreach, Queue, QueuedMessage,
    ReachStatus, Status, ViewStatus, Warned, Warning,
};

const MAX_REQUEST: u64 = 64 * 1024;
pub(crate) const MAX_CALLERS: usize = 16;
const DEADLINE: Duration = Duration::from_secs(2);
/// `sun_path` less its final NUL (unix(7)).
const MAX_PATH: usize = 107;
const NAME: &str = "control.sock";

/// A request of a caller.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlRequest {
    /// Version of this protocol: 1.
    pub v: u32,
    /// The order.
    #[serde(rename = "do")]
    pub order: ControlOrder,
}

/// The orders. Nodes are named by their onion addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlOrder {
    /// Report the state of the node.
    Status,
    /// Report what the node knows of other nodes.
    Peers,
    /// Report the messages in custody.
    Queue,
    /// Report what has become of the message that was taken under this name.
    Message(String),
    /// Vouch for a node.
    Vouch(String),
    /// Withdraw a vouch.
    Unvouch(String),
    /// Say as a voter that a voter or root counts no more.
    Retire(String),
    /// Avoid a node in this node's own routes.
    Ban(String),
    /// Stop avoiding a node in this node's own routes.
    Unban(String),
    /// Make an invite.
    Invite,
    /// Leave, after so many milliseconds at the latest if a number is given.
    Drain(Option<u64>),
    /// Stay after all.
    Stay,
}

/// The response: one of these, under its name. It may hold an invite, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// The answer to [`ControlOrder::Status`].
    Status(Box<Status>),
    /// The same from a node that has not started yet.
    Starting(Starting),
    /// The answer to [`ControlOrder::Peers`].
    Peers(Vec<Peer>),
    /// The answer to [`ControlOrder::Queue`].
    Queue(Queue),
    /// The answer to [`ControlOrder::Message`]: what it is for how many recipients.
    Message(BTreeMap<String, u8>),
    /// The answer to an order that was carried out: the node it was about, or the new invite.
    Done(String),
    /// The answer to an invalid request.
    Error(String),
}

/// What a node says of itself while it starts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Starting {
    /// What it waits for.
    pub waits_for: Awaited,
    /// Milliseconds since it began to start.
    pub for_ms: u64,
}

/// An order on its way to the driver.
pub type Call = (ControlOrder, oneshot::Sender<Response>);

/// The socket of a state folder; removed when it is dropped.
pub struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Checks that the path of a state folder's socket is short enough to bind to.
///
/// # Errors
/// If it is too long.
pub fn check_path(folder: &Path) -> Result<(), Failure> {
    let path = folder.join(NAME);
    if path.as_os_str().len() <= MAX_PATH {
        return Ok(());
    }
    let cause = format!(
        "{}: longer than the {MAX_PATH} octets that a socket's path may have",
        path.display()
    );
    Err(Failure::new(FailureKind::State, cause).remedy("use a --state-dir with a shorter path"))
}

/// Listens in a state folder whose lock is held.
///
/// # Errors
/// If something other than a socket is in its place.
pub fn listen(folder: &Path, calls: mpsc::Sender<Call>) -> Result<Socket, Failure> {
    let path = folder.join(NAME);
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::State, format!("{}: {error}", path.display()))
    };
    match fs::symlink_metadata(&path) {
        // A killed node left this socket: the held lock shows that no other node serves it.
        Ok(found) if found.file_type().is_socket() => {
            fs::remove_file(&path).map_err(|error| fail(&error))?;
        }
        Ok(_) => return Err(fail(&"not a socket").remedy("remove it")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(&error)),
    }
    let listener = UnixListener::bind(&path).map_err(|error| fail(&error))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|error| fail(&error))?;
    tokio::spawn(accept(listener, calls));
    Ok(Socket(path))
}

/// Asks the node that runs on a state folder.
///
/// # Errors
/// If none runs there, or it does not answer.
pub async fn call(folder: &Path, order: ControlOrder) -> Result<Response, Failure> {
    let path = folder.join(NAME);
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::NoNode, format!("no answer at {}: {error}", path.display()))
            .remedy("a node that was stopped, or whose machine is too busy, does not answer: see its log")
    };
    let connected = UnixStream::connect(&path).await;
    let mut stream = connected.map_err(|error| no_socket(&path, &error))?;
    let mut line =
        serde_json::to_vec(&ControlRequest { v: 1, order }).map_err(|error| fail(&error))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(|error| fail(&error))?;
    let mut answer = Vec::new();
    let read = timeout(DEADLINE * 2, stream.read_to_end(&mut answer)).await;
    read.map_err(|error| fail(&error))?.map_err(|error| fail(&error))?;
    match serde_json::from_slice(&answer).map_err(|error| fail(&error))? {
        Response::Error(error) => Err(Failure::new(FailureKind::Usage, error)),
        answer @ (Response::Status(_)
        | Response::Starting(_)
        | Response::Peers(_)
        | Response::Queue(_)
        | Response::Message(_)
        | Response::Done(_)) => Ok(answer),
    }
}

/// Why there is nobody to ask.
fn no_socket(path: &Path, error: &io::Error) -> Failure {
    let says = format!("no node answers at {}: {error}", path.display());
    let failure = Failure::new(FailureKind::NoNode, says);
    if error.kind() == io::ErrorKind::PermissionDenied {
        return failure.remedy("it belongs to another user: ask as that user");
    }
    failure.remedy("start one, or name its folder with --state-dir")
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let places = Arc::new(Semaphore::new(MAX_CALLERS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = calls.closed() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(250)).await;
            continue;
        };
        // A seventeenth caller is hung up on.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let calls = calls.clone();
        tokio::spawn(async move {
            let _ = timeout(DEADLINE, serve(stream, calls)).await;
            drop(place);
        });
    }
}

async fn serve(mut stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    BufReader::new(reader.take(MAX_REQUEST)).read_until(b'\n', &mut line).await?;
    let answer = match serde_json::from_slice::<ControlRequest>(&line) {
        Ok(ControlRequest { v: 1, order }) => {
            let (to, answer) = oneshot::channel();
            calls.send((order, to)).await.map_err(io::Error::other)?;
            answer.await.map_err(io::Error::other)?
        }
        Ok(_) => Response::Error("version 1 is spoken here".to_owned()),
        Err(_) => Response::Error("not a request".to_owned()),
    };
    let mut answer = serde_json::to_vec(&answer)?;
    answer.push(b'\n');
    writer.write_all(&answer).await?;
    writer.shutdown().await
}

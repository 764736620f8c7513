//! The control socket while a node starts: it says what is waited for, until the node takes over.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use super::{Call, ControlOrder, Response, Socket, Starting, listen};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::startup::Startup;

/// Calls that wait to be answered.
const CALLS: usize = 64;

/// The socket of a node that starts.
pub struct Desk {
    socket: Socket,
    startup: Startup,
    node: Arc<OnceLock<mpsc::Sender<Call>>>,
}

impl Desk {
    /// Listens in a state folder whose lock is held.
    ///
    /// # Errors
    /// As [`listen`].
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, Failure> {
        let (calls_in, calls) = mpsc::channel(CALLS);
        let socket = listen(folder, calls_in)?;
        let (startup, node) = (Startup::default(), Arc::default());
        tokio::spawn(answer(calls, Arc::clone(&node), startup.clone(), clock));
        Ok(Self { socket, startup, node })
    }

    /// Where the start tells what it waits for.
    #[must_use]
    pub fn startup(&self) -> &Startup {
        &self.startup
    }

    /// Hands all further calls to the node, which keeps the socket.
    #[must_use]
    pub fn hand_over(self, node: mpsc::Sender<Call>) -> Socket {
        // It is handed over once: `self` is gone then.
        let _ = self.node.set(node);
        self.socket
    }
}

async fn answer(
    mut calls: mpsc::Receiver<Call>,
    node: Arc<OnceLock<mpsc::Sender<Call>>>,
    startup: Startup,
    clock: Clock,
) {
    let start = clock.elapsed();
    while let Some((order, to)) = calls.recv().await {
        if let Some(node) = node.get() {
            // The node is ending: so is this socket.
            let _ = node.send((order, to)).await;
            continue;
        }
        let for_ms = u64::try_from((clock.elapsed() - start).as_millis()).unwrap_or(u64::MAX);
        let starting = Starting { waits_for: startup.now(), for_ms };
        let _ = to.send(match order {
            ControlOrder::Status => Response::Starting(starting),
            ControlOrder::Peers
            | ControlOrder::Queue
            | ControlOrder::Message(_)
            | ControlOrder::Vouch(_)
            | ControlOrder::Unvouch(_)
            | ControlOrder::Retire(_)
            | ControlOrder::Ban(_)
            | ControlOrder::Unban(_)
            | ControlOrder::Invite
            | ControlOrder::Drain(_)
            | ControlOrder::Stay => Response::Error(
                "the node is starting: fog status says what it waits for".to_owned(),
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::call;
    use crate::startup::Awaited;

    #[tokio::test]
    async fn a_node_that_starts_says_what_it_waits_for_until_it_answers_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let status = async || call(path, ControlOrder::Status).await;
        let error = status().await.err().unwrap();
        assert!(error.hint().unwrap().contains("start one"), "{error}");
        let desk = Desk::open(path, Clock::start()).unwrap();
        for awaited in [Awaited::State, Awaited::Tor { percent: Some(45) }, Awaited::Onion] {
            desk.startup().set(awaited);
            let Ok(Response::Starting(starting)) = status().await else { panic!("{awaited:?}") };
            assert!(starting.waits_for == awaited && starting.for_ms < 60_000);
        }
        let refused = call(path, ControlOrder::Invite).await.err().unwrap();
        assert!(refused.to_string().contains("is starting"));
        let (calls_in, mut calls) = mpsc::channel(1);
        let socket = desk.hand_over(calls_in);
        tokio::spawn(async move {
            let (_, to) = calls.recv().await.unwrap();
            let _ = to.send(Response::Done("itself".to_owned()));
        });
        assert!(matches!(status().await, Ok(Response::Done(said)) if said == "itself"));
        drop(socket);
        assert!(status().await.is_err());
    }
}

//! Keeps one control connection, and the onion service that lives on it, for as long as the node
//! runs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use zeroize::Zeroizing;

use super::attach::{Attached, Mode, TorSettings, attach, broken};
use super::control::{Control, ControlFailed};
use super::socks::SocksPort;
use super::{Service, TorState};
use crate::clock::Clock;
use crate::entropy::Generator;
use crate::failure::{Failure, FailureKind};
use crate::startup::Startup;

/// A killed node's control connection may outlive it for a moment, and its onion service with it.
const COLLISION_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often Tor is asked whether it still answers.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
/// After the first directory has the descriptor, each further one gets this long.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Streams of one circuit to the service at once: mail programs open a few in parallel; a link is
/// one. Tor closes a circuit with more.
const MAX_STREAMS: u32 = 16;
/// control-spec, section 4: "Unspecified Tor error", here always a service that is there already.
const COLLISION: u16 = 550;

/// A service to publish, and the caller that waits to hear that Tor took it.
pub(super) type Request = (Service, oneshot::Sender<Result<(), Failure>>);

pub(super) struct Keeper {
    pub(super) settings: TorSettings,
    pub(super) folder: PathBuf,
    pub(super) clock: Clock,
    pub(super) rng: Generator,
    pub(super) state: watch::Sender<TorState>,
    /// The number of publications of the onion service so far.
    pub(super) publications: u32,
}

impl Keeper {
    /// Runs until the sender of the requests is dropped.
    pub(super) async fn run(
        mut self,
        mut attached: Attached,
        mut requests: mpsc::Receiver<Request>,
    ) {
        self.up(&attached);
        self.pin(&attached);
        let mut service = None;
        loop {
            let why = tokio::select! {
                why = self.hold(&mut attached.control, service.as_ref()) => why,
                // A node publishes one service, and asks for no other.
                request = requests.recv() => match (request, &service) {
                    (Some(request), None) => match take(&mut attached.control, request).await {
                        Some(taken) => {
                            service = Some(taken);
                            continue;
                        }
                        None => return end(attached).await,
                    },
                    (Some(_), Some(_)) | (None, _) => return end(attached).await,
                },
            };
            tracing::warn!(%why, "Tor is gone");
            self.state.send_modify(|state| {
                state.socks = None;
                state.published = None;
                state.trouble = Some(why);
            });
            // Tor must drop the old connection's onion service, or it would collide with the next.
            end(attached).await;
            // Nothing depends on Tor yet: the caller that asks for the service gets the error.
            let Some(service) = &service else { return };
            attached = tokio::select! {
                attached = self.attach_again(service) => {
                    tracing::warn!("Tor is back");
                    attached
                }
                () = closed(&mut requests) => return,
            };
        }
    }

    /// Keeps to the Tor that was used first: another Tor may have other guards, and no bridges.
    fn pin(&mut self, attached: &Attached) {
        match &attached.at {
            Some(at) => self.settings.control = Some(at.clone()),
            None => self.settings.mode = Mode::Own,
        }
    }

    /// Holds the connection until it breaks, and returns the reason.
    async fn hold(&mut self, control: &mut Control, service: Option<&Service>) -> Failure {
        let mut uploads = service.map(|service| Uploads::of(&service.label));
        let mut asked = Instant::now();
        loop {
            let upload = uploads.as_ref().and_then(|uploads| uploads.deadline);
            let alive = asked + ALIVE_EVERY;
            let deadline = upload.map_or(alive, |upload| upload.min(alive));
            match timeout_at(deadline, control.event()).await {
                Ok(Some(event)) => {
                    if let Some(uploads) = &mut uploads {
                        uploads.note(&event);
                    }
                }
                Ok(None) => return broken(&ControlFailed::Closed),
                Err(_) => {}
            }
            if uploads.as_ref().is_some_and(Uploads::are_done) {
                uploads = None;
                self.publications += 1;
                self.state.send_modify(|state| state.published = Some(self.publications));
            }
            if asked.elapsed() >= ALIVE_EVERY {
                if let Err(failed) = control.info("version").await {
                    return broken(&failed);
                }
                asked = Instant::now();
            }
        }
    }

    async fn attach_again(&mut self, service: &Service) -> Attached {
        let mut wait = FIRST_WAIT;
        loop {
            sleep(wait.mul_f64(self.rng.random_range(0.75..1.25))).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            match self.try_again(service).await {
                Ok(attached) => {
                    self.up(&attached);
                    return attached;
                }
                Err(failure) => self.state.send_modify(|state| state.trouble = Some(failure)),
            }
        }
    }

    async fn try_again(&mut self, service: &Service) -> Result<Attached, Failure> {
        let attached = {
            // Nobody waits for a Tor that comes back.
            let startup = Startup::default();
            attach(&self.settings, &self.folder, self.clock, &mut self.rng, &startup).await
        };
        let mut attached = attached?;
        match add(&mut attached.control, service, Instant::now()).await {
            Ok(()) => Ok(attached),
            Err(failure) => {
                end(attached).await;
                Err(failure)
            }
        }
    }

    /// Tells that there is a Tor, though the onion service cannot be found yet.
    fn up(&self, attached: &Attached) {
        let own = if attached.child.is_some() { ", own" } else { "" };
        let name = format!("tor {}{own}", attached.control.version());
        self.state.send_modify(|state| {
            // The control port has shown that this is Tor.
            state.socks = Some(SocksPort { at: attached.socks, owner: None });
            state.trouble = None;
            state.name = name;
        });
    }
}

/// Adds the service and tells the caller that asked; returns `None` if Tor refuses it.
async fn take(control: &mut Control, (service, answer): Request) -> Option<Service> {
    let added = add(control, &service, Instant::now()).await;
    let taken = added.is_ok().then_some(service);
    // The caller may have gone.
    let _ = answer.send(added);
    taken
}

/// Waits for the end of the requests: after the one service no other is asked for.
async fn closed(requests: &mut mpsc::Receiver<Request>) {
    while requests.recv().await.is_some() {}
}

/// The uploads of a service's descriptor to the directories. A client that asks a directory without
/// the descriptor tries others, but asks each only once in some minutes: so all uploads are waited
/// for, though not for long after the first.
struct Uploads {
    label: String,
    sent: u32,
    arrived: u32,
    /// The end of the wait for the other directories.
    deadline: Option<Instant>,
}

impl Uploads {
    fn of(label: &str) -> Self {
        Self { label: label.to_owned(), sent: 0, arrived: 0, deadline: None }
    }

    /// `HS_DESC UPLOADED <label> ...` (control-spec, section 4.1.25).
    fn note(&mut self, event: &str) {
        let mut words = event.split(' ');
        let (kind, what, of) = (words.next(), words.next(), words.next());
        if kind != Some("HS_DESC") || of != Some(self.label.as_str()) {
            return;
        }
        match what {
            Some("UPLOAD") => self.sent += 1,
            Some("FAILED") => self.sent = self.sent.saturating_sub(1),
            Some("UPLOADED") => {
                self.arrived += 1;
                self.deadline = Some(Instant::now() + UPLOAD_TIMEOUT);
            }
            Some(_) | None => {}
        }
    }

    fn are_done(&self) -> bool {
        let is_late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        self.arrived > 0 && (self.arrived >= self.sent || is_late)
    }
}

/// Closes the connection, and the onion service with it.
async fn end(Attached { control, child, .. }: Attached) {
    drop(control);
    if let Some(child) = child {
        child.stop().await;
    }
}

async fn add(control: &mut Control, service: &Service, since: Instant) -> Result<(), Failure> {
    loop {
        let defended = control.ask(&command(service, Defended::ByWork)).await;
        let added = match defended {
            // An old Tor, or one built without this defence, refuses the keyword.
            Err(ControlFailed::Refused { code, .. }) if code != COLLISION => {
                control.ask(&command(service, Defended::ByLimits)).await
            }
            other => other,
        };
        match added {
            Ok(_) => return Ok(()),
            Err(ControlFailed::Refused { code: COLLISION, text }) => {
                if since.elapsed() > COLLISION_TIMEOUT {
                    let cause = format!("this node's address is taken at this Tor ({text})");
                    return Err(Failure::new(FailureKind::Tor, cause)
                        .remedy("stop the other node that has the same identity"));
                }
                sleep(FIRST_WAIT).await;
            }
            Err(failed) => return Err(broken(&failed)),
        }
    }
}

enum Defended {
    /// Callers must do proof of work when there are many (Tor proposal 327).
    ByWork,
    ByLimits,
}

fn command(service: &Service, defended: Defended) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(512));
    // Writing to a string cannot fail.
    let _ = write!(line, "ADD_ONION ED25519-V3:{} Flags=MaxStreamsCloseCircuit", *service.key);
    let _ = write!(line, " MaxStreams={MAX_STREAMS}");
    if let Defended::ByWork = defended {
        line.push_str(" PoWDefensesEnabled=1");
    }
    for (port, target) in &service.ports {
        let _ = write!(line, " Port={port},{target}");
    }
    line
}

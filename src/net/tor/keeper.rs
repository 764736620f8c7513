//! Keeps one control connection, and the onion service that lives on it, for as long as the node runs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use super::attach::{Attached, TorSettings, attach, broken};
use super::control::{Control, ControlFailed};
use super::{Service, TorState};
use crate::clock::Clock;
use crate::failure::{Failure, Kind};

/// A killed node's control connection may outlive it for a moment, and its onion service with it.
const COLLISION_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often Tor is asked whether it still answers.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
/// Tor publishes a descriptor within seconds of being able to; from then on a dial to oneself tells more.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(120);
/// After the first directory has it, the others get so long for each further one.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Streams of one circuit to the service at once: mail programs open a few in parallel; a link is one.
/// Beyond them the circuit is closed.
const MAX_STREAMS: u32 = 64;
/// control-spec, section 4: "Unspecified Tor error", here always a service that is there already.
const COLLISION: u16 = 550;

/// A service to publish, and who waits to hear that Tor took it.
pub(super) type Request = (Service, oneshot::Sender<Result<(), Failure>>);

pub(super) struct Keeper {
    pub(super) settings: TorSettings,
    pub(super) folder: PathBuf,
    pub(super) clock: Clock,
    pub(super) rng: StdRng,
    pub(super) state: watch::Sender<TorState>,
}

impl Keeper {
    /// Until the requests' other end is dropped.
    pub(super) async fn run(
        mut self,
        mut attached: Attached,
        mut requests: mpsc::Receiver<Request>,
    ) {
        self.up(&attached);
        // Until there is a service nothing hangs on this connection.
        let request = requests.recv().await;
        let Some((service, answer)) = request else { return end(attached).await };
        let added = add(&mut attached.control, &service, Instant::now()).await;
        let refused = added.is_err();
        // Who asked may have gone.
        let _ = answer.send(added);
        if refused {
            return end(attached).await;
        }
        loop {
            let why = tokio::select! {
                why = self.hold(&mut attached.control, &service) => why,
                _ = requests.recv() => return end(attached).await,
            };
            tracing::warn!(%why, "Tor is gone");
            self.state.send_modify(|state| {
                state.socks = None;
                state.trouble = Some(why.to_string());
            });
            if let Some(child) = attached.child.take() {
                child.stop().await;
            }
            attached = tokio::select! {
                attached = self.attach_again(&service) => attached,
                _ = requests.recv() => return,
            };
        }
    }

    /// Until the connection breaks; says why.
    async fn hold(&mut self, control: &mut Control, service: &Service) -> Failure {
        match timeout(PUBLISH_TIMEOUT, published(control, &service.label)).await {
            Ok(false) => return broken(&ControlFailed::Closed),
            // Published, or else a dial to oneself will say what it is.
            Ok(true) | Err(_) => self.state.send_modify(|state| state.published += 1),
        }
        loop {
            match timeout(ALIVE_EVERY, control.event()).await {
                Ok(Some(_)) => {}
                Ok(None) => return broken(&ControlFailed::Closed),
                Err(_) => {
                    if let Err(failed) = control.info("version").await {
                        return broken(&failed);
                    }
                }
            }
        }
    }

    async fn attach_again(&mut self, service: &Service) -> Attached {
        let mut wait = FIRST_WAIT;
        loop {
            sleep(wait.mul_f64(self.rng.random_range(0.75..1.25))).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            let attached = attach(&self.settings, &self.folder, self.clock, &mut self.rng).await;
            let failure = match attached {
                Ok(mut attached) => {
                    match add(&mut attached.control, service, Instant::now()).await {
                        Ok(()) => {
                            self.up(&attached);
                            return attached;
                        }
                        Err(failure) => {
                            end(attached).await;
                            failure
                        }
                    }
                }
                Err(failure) => failure,
            };
            self.state.send_modify(|state| state.trouble = Some(failure.to_string()));
        }
    }

    fn up(&self, attached: &Attached) {
        let own = if attached.child.is_some() { ", own" } else { "" };
        let name = format!("tor {}{own}", attached.control.version());
        self.state.send_modify(|state| {
            state.socks = Some(attached.socks);
            state.trouble = None;
            state.name = name;
        });
    }
}

/// Waits until the service's descriptor is at all directories that it was sent to, or at some and the
/// others take their time: a client that asks one where it is not yet asks elsewhere, but each only once.
/// False if Tor hung up.
async fn published(control: &mut Control, label: &str) -> bool {
    let (mut sent, mut arrived) = (0_u32, 0);
    loop {
        let wait = if arrived > 0 { UPLOAD_TIMEOUT } else { PUBLISH_TIMEOUT };
        let event = match timeout(wait, control.event()).await {
            Ok(Some(event)) => event,
            Ok(None) => return false,
            Err(_) => return true,
        };
        let mut words = event.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HS_DESC"), Some("UPLOAD"), Some(of)) if of == label => sent += 1,
            (Some("HS_DESC"), Some("UPLOADED"), Some(of)) if of == label => arrived += 1,
            (Some("HS_DESC"), Some("FAILED"), Some(of)) if of == label => {
                sent = sent.saturating_sub(1);
            }
            _ => {}
        }
        if arrived > 0 && arrived >= sent {
            return true;
        }
    }
}

/// The onion service goes with its connection.
async fn end(attached: Attached) {
    let Attached { control, child, .. } = attached;
    drop(control);
    if let Some(child) = child {
        child.stop().await;
    }
}

async fn add(control: &mut Control, service: &Service, since: Instant) -> Result<(), Failure> {
    loop {
        let defended = control.ask(&command(service, Defended::ByWork)).await;
        let added = match defended {
            // An old Tor, or one built without it, does not know the word.
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
                    return Err(Failure::new(Kind::Tor, cause)
                        .remedy("stop the other node that has the same identity"));
                }
                sleep(FIRST_WAIT).await;
            }
            Err(failed) => return Err(broken(&failed)),
        }
    }
}

enum Defended {
    /// Callers do work when there are many (Tor proposal 327).
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

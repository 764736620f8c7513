//! `fog doctor`: what keeps a node from working, with a remedy for each problem.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use keys::Identity;
use record::{Admission, Descriptor, Parameters};
use serde::Serialize;
use tokio::time::timeout;

use super::init::quoted;
use super::{Interrupted, State, advice, generator, open_store, say, say_json, wording};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, ControlOrder, Response, Starting};
use crate::entropy::Generator;
use crate::exit::{ServerFault, probe};
use crate::failure::{Failure, FailureKind};
use crate::machine::Machine;
use crate::net::connect::Connector;
use crate::net::tor::{Mode, Tor, TorSettings};
use crate::net::{self, Reach};
use crate::startup::Startup;

/// Time for a throwaway onion service to be published and dialled.
/// How long the next mail server may take to answer: nobody watches a silent doctor for longer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
const SPEAK_EVERY: Duration = Duration::from_secs(10);
const REACH_TIMEOUT: Duration = Duration::from_secs(120);

/// One check and its result.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    says: String,
    remedy: Option<String>,
}

/// Prints each finding as it is made, or all of them together.
struct Report {
    json: bool,
    findings: Vec<Finding>,
    first: Option<Failure>,
}

impl Report {
    fn note(&mut self, what: &'static str, found: Result<String, Failure>) -> Result<(), Failure> {
        let finding = match &found {
            Ok(says) => Finding { what, ok: true, says: says.clone(), remedy: None },
            Err(failure) => Finding {
                what,
                ok: false,
                says: failure.to_string(),
                remedy: failure.hint().map(str::to_owned),
            },
        };
        if !self.json {
            let mark = if finding.ok { "ok  " } else { "FAIL" };
            say(&format!("{mark}  {what}: {}", finding.says))?;
            if let Some(remedy) = &finding.remedy {
                say(&format!("      {remedy}"))?;
            }
        }
        self.findings.push(finding);
        if let Err(failure) = found {
            self.first.get_or_insert(failure);
        }
        Ok(())
    }
}

/// Dropped when the program is told to end, and with it the folder that it made.
pub(super) async fn run(state: State, json: bool) -> Result<(), Failure> {
    let mut interrupted = Interrupted::new()?;
    tokio::select! {
        done = look(state, json) => done,
        () = interrupted.wait() => Err(Failure::new(FailureKind::Internal, "interrupted")),
    }
}

async fn look(state: State, json: bool) -> Result<(), Failure> {
    let mut report = Report { json, findings: Vec::new(), first: None };
    let folder = state.folder();
    let config = match (state.config_file().exists(), state.config.is_some()) {
        (false, false) => Config::default_settings(),
        _ => Config::read(&state.config_file()),
    };
    let said = config.as_ref().map(|_| "valid".to_owned());
    report.note("configuration", said.map_err(Failure::clone))?;
    report.note("state folder", check_modes(&folder))?;

    let answer = control::call(&folder, ControlOrder::Status).await;
    if let Ok(Response::Starting(starting)) = &answer {
        report.note("node", Ok(wording::starting(starting)))?;
    } else if let Ok(Response::Status(status)) = answer {
        report.note("node", Ok(format!("runs as {}", status.onion)))?;
        if let Some(failure) = status.tor_failure {
            report.note("tor", Err(failure))?;
        } else if let Some(tor) = status.tor {
            report.note("tor", Ok(tor))?;
        }
        let now = Clock::start().now().as_millis();
        for warned in &status.warnings {
            let says = format!("{}: {}", advice::fault(warned, now), advice::cost(&warned.warning));
            let failure = Failure::new(FailureKind::Network, says);
            report.note("node", Err(failure.remedy(advice::remedy(&warned.warning))))?;
        }
        if status.reach.reachable == Some(true) {
            report.note("onion", Ok("the node reaches itself".to_owned()))?;
        }
    } else if let Ok(config) = &config {
        if folder.join("version").exists() {
            // Opening checks the lock, the version and the database; the store is closed at once.
            let opened = open_store(&folder).map(|_| "opens; no node runs on it".to_owned());
            report.note("state folder", opened)?;
        }
        if config.devnet.is_none() {
            check_tor(&mut report, &config.tor, &folder).await?;
        }
    }
    if let Ok(Config { deliver: Some(target), .. }) = &config {
        let probed = timeout(PROBE_TIMEOUT, probe(target, Clock::start())).await;
        let probed = probed.unwrap_or(Err(ServerFault::Silent));
        let answered = probed.map(|_| format!("{target} takes mail")).map_err(|fault| {
            let says = format!("{target} {}", wording::server_fault(fault));
            Failure::new(FailureKind::Network, says).remedy(match fault {
                ServerFault::Silent => "start it, or correct exit.deliver",
                ServerFault::WantsTls | ServerFault::WantsAuth | ServerFault::Refuses => {
                    "have it take mail from this machine without, or correct exit.deliver"
                }
                ServerFault::CannotWrite => "make room, or give this user the right to write there",
            })
        });
        report.note("next mail server", answered)?;
    }
    if json {
        say_json(&report.findings)?;
    }
    match report.first {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

/// Checks that nothing in the state folder is open to other users.
fn check_modes(folder: &Path) -> Result<String, Failure> {
    if !folder.exists() {
        return Ok("not there yet".to_owned());
    }
    let mut left = vec![folder.to_owned()];
    let mut looked_at = 0;
    while let Some(path) = left.pop() {
        let fail = |error: std::io::Error| {
            Failure::new(FailureKind::State, format!("{}: {error}", path.display()))
        };
        let metadata = fs::symlink_metadata(&path).map_err(fail)?;
        if metadata.is_symlink() {
            continue;
        }
        looked_at += 1;
        if metadata.permissions().mode() & 0o077 != 0 {
            // A closed folder closes what is in it: for most files only its mode counts.
            if path == *folder {
                let cause = format!("{}: open to other users", path.display());
                return Err(Failure::new(FailureKind::State, cause)
                    .remedy(format!("chmod 700 {}", quoted(&path))));
            }
            let is_secret = path.ends_with("identity")
                || path.parent().is_some_and(|parent| parent.ends_with("epochs"));
            if is_secret {
                let cause = format!("{}: open to other users", path.display());
                return Err(Failure::new(FailureKind::State, cause)
                    .remedy(format!("chmod 600 {}", quoted(&path))));
            }
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(fail)? {
                left.push(entry.map_err(fail)?.path());
            }
        }
    }
    Ok(format!("closed to other users ({looked_at} files)"))
}

/// Checks the configured Tor, its clock, and an onion service by dialling it. Key and folder are
/// throwaway ones, except for a service in the operator's own torrc, which has the node's key.
async fn check_tor(
    report: &mut Report,
    settings: &TorSettings,
    state: &Path,
) -> Result<(), Failure> {
    let fail = |error| Failure::new(FailureKind::State, error);
    let mut rng = generator()?;
    let identity = match settings.mode {
        Mode::Manual if state.join("identity").exists() => open_store(state)?.identity(&mut rng)?,
        Mode::Auto | Mode::Running | Mode::Own | Mode::Manual => Identity::generate(&mut rng),
    };
    let folder = tempfile::Builder::new().prefix("fog-doctor-").tempdir().map_err(fail)?;
    let path = folder.path().join("tor");
    let local = state.join("tor/torrc.local");
    if local.exists() {
        // The node's own folder may hold settings that are needed here, such as bridges.
        fs::create_dir(&path).map_err(fail)?;
        fs::copy(&local, path.join("torrc.local")).map_err(fail)?;
    }
    let clock = Clock::start();
    let own_rng = rng;
    let startup = Startup::default();
    let started = Tor::start(settings.clone(), path, identity.node(), clock, own_rng, &startup);
    let mut tor = match speak(started, &startup).await {
        Ok(tor) => tor,
        Err(failure) => return report.note("tor", Err(failure)),
    };
    let name = tor.state().borrow().name.clone();
    let says = match settings.mode {
        Mode::Manual => name,
        Mode::Auto | Mode::Running | Mode::Own => {
            format!("{name}; it has circuits, and the clock agrees with it")
        }
    };
    report.note("tor", Ok(says))?;
    let reached = dial_oneself(&mut tor, &identity, clock, rng).await;
    let reached = reached.map(|after| format!("a service dialled itself after {after:.1} s"));
    report.note("onion", reached)?;
    tor.stop().await;
    Ok(())
}

/// Says every ten seconds what is waited for: a silent doctor looks like a hanging one.
async fn speak<T>(work: impl Future<Output = T>, startup: &Startup) -> T {
    let mut work = std::pin::pin!(work);
    let mut waited = 0;
    loop {
        match timeout(SPEAK_EVERY, &mut work).await {
            Ok(done) => return done,
            Err(_) => {
                waited += SPEAK_EVERY.as_secs();
                let starting = Starting { waits_for: startup.now(), for_ms: waited * 1000 };
                // If stderr is closed, nobody listens.
                let _ = writeln!(std::io::stderr(), "      {}", wording::starting(&starting));
            }
        }
    }
}

async fn dial_oneself(
    tor: &mut Tor,
    identity: &Identity,
    clock: Clock,
    rng: Generator,
) -> Result<f64, Failure> {
    let (parameters, voters) = (Parameters::main(), [identity.node()]);
    let fail = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Internal, error);
    let descriptor =
        Descriptor::create(identity, "none", clock.now(), &parameters, &voters, &Admission::Open)
            .map_err(|error| fail(&error))?;
    let connector = Connector::Tor(tor.connector());
    let (incoming, _) = tor.listen().await.map_err(|error| fail(&error))?;
    let mut net = net::spawn(
        identity,
        &descriptor,
        connector,
        incoming,
        net::Beginning::default(),
        Machine::new(clock, rng),
    )?;
    let start = clock.elapsed();
    let nowhere = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 1));
    tor.serve(identity, nowhere).await?;
    let reached = net.reach.wait_for(|reach| matches!(reach, Reach::Reachable { .. }));
    let reached = timeout(REACH_TIMEOUT, reached).await.is_ok_and(|reached| reached.is_ok());
    let last = *net.reach.borrow();
    if reached {
        return Ok((clock.elapsed() - start).as_secs_f64());
    }
    let why = match last {
        Reach::Unreachable { why, .. } => why.to_string(),
        Reach::Unknown | Reach::Reachable { .. } => "it is not published".to_owned(),
    };
    Err(Failure::new(FailureKind::Tor, format!("an onion service cannot be reached: {why}"))
        .remedy("see Tor's log; a network that blocks Tor needs bridges"))
}

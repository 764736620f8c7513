//! Finding a Tor, and making sure that it is suitable.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keys::Time;
use time::{Date, Month, PrimitiveDateTime};
use tokio::time::{Instant, timeout};

use super::child::{self, TorChild};
use super::control::{Control, ControlAddress, ControlFailed, Trust};
use crate::clock::Clock;
use crate::entropy::Generator;
use crate::failure::{Failure, FailureKind};
use crate::startup::{Awaited, Startup};

/// The oldest usable version: 0.4.7 has layered guards for onion services (vanguards-lite).
const OLDEST: [u64; 3] = [0, 4, 7];
/// A Tor that takes longer for one step of connecting to its network is given up.
const STEP_TIMEOUT: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A consensus may be this much older than it should be, on a machine that has just woken up.
const CONSENSUS_LATE: Duration = Duration::from_secs(6 * 3600);
/// A consensus may become valid this much later than now, by this machine's clock.
const CONSENSUS_EARLY: Duration = Duration::from_secs(3600);

/// How a node gets a Tor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A running Tor whose control port lets this user in, else a child process.
    Auto,
    /// A running Tor.
    Running,
    /// A child process of the node.
    Own,
    /// A Tor that its operator configures: no control port, and the onion service in its torrc.
    Manual,
}

/// The configuration of Tor.
#[derive(Clone, Debug)]
pub struct TorSettings {
    /// How the node gets a Tor.
    pub mode: Mode,
    /// Its control port.
    pub control: Option<ControlAddress>,
    /// Its SOCKS port; without it Tor is asked.
    pub socks: Option<SocketAddr>,
    /// Where the onion service's streams arrive if its operator configures it.
    pub listen: SocketAddr,
}

/// A Tor that is ready to be used.
pub(super) struct Attached {
    /// Its control port, unless it is a child of this node.
    pub(super) at: Option<ControlAddress>,
    pub(super) control: Control,
    pub(super) socks: SocketAddr,
    pub(super) child: Option<TorChild>,
}

/// Where Debian's tor has its control socket, and the port that is usual elsewhere.
fn usual_places() -> [ControlAddress; 2] {
    [
        ControlAddress::Unix(PathBuf::from("/run/tor/control")),
        ControlAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 9051))),
    ]
}

/// Finds or starts a Tor and waits until it has circuits, which is told to `startup`.
pub(super) async fn attach(
    settings: &TorSettings,
    folder: &Path,
    clock: Clock,
    rng: &mut Generator,
    startup: &Startup,
) -> Result<Attached, Failure> {
    let (at, mut control, child) = match (settings.mode, &settings.control) {
        (Mode::Own, _) => start(folder, rng).await?,
        (_, Some(at)) => {
            let opened = Control::open(at, Trust::Named, rng).await;
            (Some(at.clone()), opened.map_err(|failed| explain(at, &failed))?, None)
        }
        (mode, None) => match find_running(rng).await {
            Ok((at, control)) => (Some(at), control, None),
            Err(failures) if mode == Mode::Running => return Err(none_running(&failures)),
            Err(failures) if child::find().is_none() => return Err(no_tor(&failures)),
            Err(_) => start(folder, rng).await?,
        },
    };
    check_version(control.version())?;
    check_hops(&mut control).await?;
    check_socks(&mut control).await?;
    wait_until_ready(&mut control, startup).await?;
    check_clock(&mut control, clock).await?;
    let socks = match (settings.socks, &child) {
        (Some(socks), None) => socks,
        // A child's port is its own, whatever is configured for a running one.
        (_, _) => socks_port(&mut control).await?,
    };
    Ok(Attached { at, control, socks, child })
}

type Failures = Vec<(ControlAddress, ControlFailed)>;

async fn find_running(rng: &mut Generator) -> Result<(ControlAddress, Control), Failures> {
    let mut failures = Vec::new();
    for at in usual_places() {
        match Control::open(&at, Trust::Found, rng).await {
            Ok(control) => return Ok((at, control)),
            Err(failed) => failures.push((at, failed)),
        }
    }
    Err(failures)
}

type Started = (Option<ControlAddress>, Control, Option<TorChild>);

async fn start(folder: &Path, rng: &mut Generator) -> Result<Started, Failure> {
    let binary = child::find().ok_or_else(|| no_tor(&[]))?;
    let lines = "ControlPort 127.0.0.1:auto\n\
                 SocksPort 127.0.0.1:auto IsolateSOCKSAuth ExtendedErrors\n";
    let mut child = TorChild::start(&binary, folder, lines)?;
    let at = child.control().await?;
    let opened = Control::open(&at, Trust::Named, rng).await;
    let mut control = opened.map_err(|failed| explain(&at, &failed))?;
    // From here on the child ends when this connection does.
    control.ask("TAKEOWNERSHIP").await.map_err(|failed| explain(&at, &failed))?;
    Ok((None, control, Some(child)))
}

fn none_running(failures: &[(ControlAddress, ControlFailed)]) -> Failure {
    let tried: Vec<_> = failures.iter().map(|(at, why)| format!("{at}: {why}")).collect();
    Failure::new(FailureKind::Tor, format!("no running Tor lets us in ({})", tried.join("; "))).remedy(
        "start it with a control port (Debian: join the group debian-tor), or set tor.mode = \"own\"",
    )
}

fn no_tor(failures: &[(ControlAddress, ControlFailed)]) -> Failure {
    // A running Tor that keeps this node out is the most useful failure to report.
    let keeps_out = |why: &ControlFailed| match why {
        ControlFailed::Connect(error) => error.kind() == ErrorKind::PermissionDenied,
        ControlFailed::Cookie { .. }
        | ControlFailed::WrongCookie(_)
        | ControlFailed::NoMethod
        | ControlFailed::Refused { .. }
        | ControlFailed::Closed
        | ControlFailed::Silent
        | ControlFailed::NoTor => true,
    };
    let closed = failures.iter().find(|(_, why)| keeps_out(why));
    let cause = match closed {
        Some((at, why)) => format!("the Tor at {at} does not let us in: {why}"),
        None => "there is no Tor on this machine".to_owned(),
    };
    Failure::new(FailureKind::Tor, cause).remedy("install it (Debian: apt install tor)")
}

fn explain(at: &ControlAddress, failed: &ControlFailed) -> Failure {
    let failure = Failure::new(FailureKind::Tor, format!("Tor's control port {at}: {failed}"));
    match failed {
        ControlFailed::Connect(_) => failure
            .remedy("start Tor, give it ControlPort or ControlSocket, or correct tor.control"),
        ControlFailed::Cookie { .. } => failure.remedy(
            "let this user read it, and no others (Debian: join the group debian-tor), or set \
             tor.mode = \"own\"",
        ),
        ControlFailed::WrongCookie(_) => failure
            .remedy("restart that Tor; its CookieAuthFile must be its own, or correct tor.control"),
        ControlFailed::NoMethod => failure.remedy("set CookieAuthentication 1 in its torrc"),
        ControlFailed::Refused { .. } | ControlFailed::Closed | ControlFailed::Silent => {
            failure.remedy("see Tor's log")
        }
        ControlFailed::NoTor => failure.remedy("correct tor.control"),
    }
}

/// The failure of a control connection that had been opened.
pub(super) fn broken(failed: &ControlFailed) -> Failure {
    Failure::new(FailureKind::Tor, format!("Tor's control port: {failed}")).remedy("see Tor's log")
}

fn check_version(version: &str) -> Result<(), Failure> {
    let mut parts = version.split(['.', '-', ' ']).map_while(|part| part.parse::<u64>().ok());
    let parts: [u64; 3] = std::array::from_fn(|_| parts.next().unwrap_or(0));
    if parts >= OLDEST {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Tor,
        format!("this Tor is too old: {version}; 0.4.7 is the oldest"),
    )
    .remedy("upgrade it"))
}

/// Refuses a Tor with single-hop onion services: one hop from its clients, a service is not hidden.
async fn check_hops(control: &mut Control) -> Result<(), Failure> {
    for option in ["HiddenServiceSingleHopMode", "HiddenServiceNonAnonymousMode"] {
        let values = control.option(option).await.map_err(|failed| broken(&failed))?;
        if values.iter().any(|value| value != "0") {
            return Err(Failure::new(FailureKind::Tor, format!("this Tor has {option} set"))
                .remedy("remove it: its onion services are not hidden"));
        }
    }
    Ok(())
}

pub(super) async fn wait_until_ready(
    control: &mut Control,
    startup: &Startup,
) -> Result<(), Failure> {
    let told = control.ask("SETEVENTS STATUS_GENERAL STATUS_CLIENT HS_DESC").await;
    told.map_err(|failed| broken(&failed))?;
    let (mut furthest, mut since) = (None, Instant::now());
    loop {
        let info = control.info("status/bootstrap-phase").await;
        let phase = info.map_err(|failed| broken(&failed))?;
        let circuits = control.info("status/circuit-established").await;
        let circuits = circuits.map_err(|failed| broken(&failed))?;
        if phase.contains("PROGRESS=100") && circuits == "1" {
            return Ok(());
        }
        if phase.contains("REASON=CLOCK_SKEW") {
            return Err(clock_is_off("Tor cannot begin with it"));
        }
        let progress = progress(&phase);
        if progress > furthest {
            startup.set(Awaited::Tor { percent: progress });
            tracing::info!(phase = summary(&phase), "waiting for Tor");
            (furthest, since) = (progress, Instant::now());
        } else if since.elapsed() > STEP_TIMEOUT {
            let cause = format!("Tor gets no further: {}", summary(&phase));
            return Err(Failure::new(FailureKind::Tor, cause)
                .remedy("see its log; where Tor is blocked, it needs bridges"));
        }
        // An event may tell why Tor makes no progress.
        let wait = timeout(LOOK_AGAIN, control.event()).await;
        match wait {
            Ok(Some(event)) if event.contains("CLOCK_SKEW") => {
                return Err(clock_is_off("Tor cannot begin with it"));
            }
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => return Err(broken(&ControlFailed::Closed)),
        }
    }
}

/// Progress of connecting to the network, in percent.
fn progress(phase: &str) -> Option<u8> {
    let (_, rest) = phase.split_once("PROGRESS=")?;
    rest.split(' ').next()?.parse().ok()
}

/// `Loading relay descriptors` out of the phase's SUMMARY.
fn summary(phase: &str) -> &str {
    let summary = phase.split_once("SUMMARY=\"").and_then(|(_, rest)| rest.split_once('"'));
    summary.map_or(phase, |(summary, _)| summary)
}

/// Compares the clock with Tor's consensus, which is signed and tells when it is valid.
async fn check_clock(control: &mut Control, clock: Clock) -> Result<(), Failure> {
    let mut bounds = [None; 2];
    for (bound, key) in bounds.iter_mut().zip(["consensus/valid-after", "consensus/valid-until"]) {
        // An old Tor does not know these keys.
        *bound = control.info(key).await.ok().as_deref().and_then(time_of);
    }
    let [Some(after), Some(until)] = bounds else { return Ok(()) };
    let now = clock.now();
    let hours = |span: Duration| span.as_secs() / 3600;
    if now.plus(CONSENSUS_EARLY) < after {
        let by = hours(after.since(now));
        return Err(clock_is_off(&format!("it is {by} hours behind the Tor network's")));
    }
    if until.plus(CONSENSUS_LATE) < now {
        let by = hours(now.since(until));
        return Err(clock_is_off(&format!("it is {by} hours ahead of the Tor network's")));
    }
    Ok(())
}

fn clock_is_off(how: &str) -> Failure {
    Failure::new(FailureKind::Clock, format!("this machine's clock is wrong: {how}"))
        .remedy("set it, for example with: timedatectl set-ntp true")
}

/// `2026-11-21 14:00:00`, in UTC.
fn time_of(text: &str) -> Option<Time> {
    let mut numbers = text.split(['-', ' ', ':']).map(|part| part.parse::<u16>().ok());
    let mut next = || numbers.next().flatten();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let small = |number: u16| u8::try_from(number).ok();
    let month = Month::try_from(small(month)?).ok()?;
    let date = Date::from_calendar_date(year.into(), month, small(day)?).ok()?;
    let time = time::Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    Some(Time::from_millis(u64::try_from(seconds).ok()?.checked_mul(1000)?))
}

/// Refuses a Tor that is told to have no SOCKS port of TCP, before it is waited for.
async fn check_socks(control: &mut Control) -> Result<(), Failure> {
    let values = control.option("SocksPort").await.map_err(|failed| broken(&failed))?;
    // Without the option Tor has its usual port.
    let is_none = |value: &String| {
        let first = value.split(' ').next().unwrap_or_default();
        first == "0" || first.starts_with("unix:")
    };
    if !values.is_empty() && values.iter().all(is_none) { Err(no_socks()) } else { Ok(()) }
}

fn no_socks() -> Failure {
    Failure::new(FailureKind::Tor, "this Tor has no SOCKS port on loopback")
        .remedy("give it SocksPort 9050, or set tor.mode = \"own\"")
}

/// The first SOCKS port on loopback.
async fn socks_port(control: &mut Control) -> Result<SocketAddr, Failure> {
    let listeners = control.info("net/listeners/socks").await.map_err(|failed| broken(&failed))?;
    let mut ports = listeners.split(' ').filter_map(|word| word.trim_matches('"').parse().ok());
    ports.find(|address: &SocketAddr| address.ip().is_loopback()).ok_or_else(no_socks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused() {
        for good in ["0.4.7.1-alpha", "0.4.8.10", "0.4.9.11", "0.5.0.0", "1.0"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for old in ["0.4.6.12", "0.3.5.8 (git-5030edfb534245ed)", "0.2", "", "x"] {
            let failure = check_version(old).unwrap_err();
            assert!(failure.to_string().contains("too old"), "{old}");
        }
    }

    #[test]
    fn dates_of_a_consensus_are_read() {
        let time = time_of("2026-11-21 14:00:00").unwrap();
        assert_eq!(time.as_millis(), 1_795_269_600_000);
        for bad in ["", "2026-13-21 14:00:00", "2026-11-21", "1950-01-01 00:00:00", "a-b-c d:e:f"] {
            assert!(time_of(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_phase_is_told_by_its_summary() {
        let phase = "NOTICE BOOTSTRAP PROGRESS=45 TAG=x SUMMARY=\"Asking for relay descriptors\"";
        assert_eq!(summary(phase), "Asking for relay descriptors");
        assert_eq!((summary("odd"), progress("odd")), ("odd", None));
        assert_eq!(progress(phase), Some(45));
    }
}

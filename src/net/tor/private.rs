//! A private Tor network on one machine: authorities, relays and clients on loopback, for test
//! networks.
//!
//! It is separate from the public network, and none of its traffic leaves loopback: every socket
//! that goes out is bound to 127.0.0.1. The options are those of a `TestingTorNetwork` (tor(1)).

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rand::RngExt as _;
use rustix::fs::{FlockOperation, flock};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::attach::{broken, wait_until_ready};
use super::child::{TorChild, find_program, quoted};
use super::control::{Control, ControlAddress, Trust};
use crate::entropy::Generator;
use crate::failure::{Failure, FailureKind};
use crate::startup::Startup;

/// With three authorities, two still are a majority when the third votes late.
const AUTHORITIES: u16 = 3;
/// An onion circuit has up to four relays, and its two ends share none.
const RELAYS: u16 = 5;
/// Time until the authorities agree on a consensus with all relays: over two voting rounds.
const CONSENSUS_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Ports are looked for here: below those that systems give to outgoing connections.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 32_000;

const EVERYBODY: &str = "TestingTorNetwork 1
PathsNeededToBuildCircuits 0.67
TestingDirAuthVoteGuard *
TestingDirAuthVoteExit *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
V3AuthNIntervalsValid 3
LearnCircuitBuildTimeout 0
CircuitBuildTimeout 10
OutboundBindAddress 127.0.0.1
ShutdownWaitLength 0
";
const RELAY: &str = "Address 127.0.0.1
SocksPort 0
AssumeReachable 1
ServerDNSDetectHijacking 0
ServerDNSTestAddresses
ServerDNSResolvConfFile /dev/null
";
const AUTHORITY: &str = "ExitRelay 0
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
TestingV3AuthInitialVotingInterval 20
TestingV3AuthInitialVoteDelay 4
TestingV3AuthInitialDistDelay 4
V3AuthVotingInterval 20
V3AuthVoteDelay 4
V3AuthDistDelay 4
";
const EXIT: &str = "ExitRelay 1
ExitPolicyRejectPrivate 0
ExitPolicy accept *:*
";

/// A running private network; all of it is killed when this is dropped.
pub struct PrivateTor {
    relays: Vec<TorChild>,
    clients: Vec<PrivateClient>,
    _lock: File,
}

/// One of its clients: what an operator's Tor is in the public network.
pub struct PrivateClient {
    /// Its folder, with `torrc`.
    pub folder: PathBuf,
    /// Its SOCKS port.
    pub socks: SocketAddr,
    /// Its control port.
    pub control: SocketAddr,
    child: TorChild,
}

impl PrivateClient {
    /// Its process.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }
}

impl PrivateTor {
    /// Starts a network with this many clients in a folder and waits until they have circuits, for
    /// about half a minute.
    ///
    /// # Errors
    /// [`FailureKind::Tor`] if tor or tor-gencert is missing or the network does not come up.
    pub async fn start(folder: &Path, clients: u16, rng: &mut Generator) -> Result<Self, Failure> {
        let tor = program("tor")?;
        let lock = make_folder(folder)?;
        let mut ports = free_ports(2 * AUTHORITIES + RELAYS + 2 * clients, rng)?.into_iter();
        let mut port = || ports.next().unwrap_or_default();
        let mut authorities = Vec::new();
        for number in 0..AUTHORITIES {
            let authority = Authority {
                nick: format!("authority{number}"),
                folder: folder.join(format!("authority{number}")),
                or_port: port(),
                dir_port: port(),
            };
            authorities.push(authority);
        }
        let lines = make_keys(&tor, &authorities).await?;
        let common = format!("{EVERYBODY}{lines}");

        let mut relays = Vec::new();
        for authority in &authorities {
            let text = format!(
                "{common}{RELAY}{AUTHORITY}{AUTO_CONTROL}Nickname {}\nContactInfo none@test.invalid\n\
                 ORPort 127.0.0.1:{} IPv4Only\nDirPort 127.0.0.1:{}\n",
                authority.nick, authority.or_port, authority.dir_port
            );
            relays.push(TorChild::start(&tor, &authority.folder, &text)?);
        }
        for number in 0..RELAYS {
            let text = format!(
                "{common}{RELAY}{EXIT}{AUTO_CONTROL}Nickname relay{number}\n\
                 ContactInfo none@test.invalid\nORPort 127.0.0.1:{} IPv4Only\n",
                port()
            );
            relays.push(TorChild::start(&tor, &folder.join(format!("relay{number}")), &text)?);
        }
        // A client that takes a consensus from before all relays are in it keeps it for a minute.
        for authority in relays.iter_mut().take(AUTHORITIES.into()) {
            wait_for_consensus(authority, rng).await?;
        }
        let mut started = Vec::new();
        for number in 0..clients {
            let (socks, control) = (loopback(port()), loopback(port()));
            let folder = folder.join(format!("client{number}"));
            let text = format!(
                "{common}ControlPort {control}\nSocksPort {socks} IsolateSOCKSAuth ExtendedErrors\n"
            );
            let child = TorChild::start(&tor, &folder, &text)?;
            started.push(PrivateClient { folder, socks, control, child });
        }
        for client in &mut started {
            let mut control = open(&mut client.child, rng).await?;
            wait_until_ready(&mut control, &Startup::default()).await?;
        }
        Ok(Self { relays, clients: started, _lock: lock })
    }

    /// Its clients.
    #[must_use]
    pub fn clients(&self) -> &[PrivateClient] {
        &self.clients
    }

    /// Ends the whole network.
    pub async fn stop(self) {
        let clients = self.clients.into_iter().map(|client| client.child);
        let children: Vec<_> = clients.chain(self.relays).collect();
        let ending: Vec<_> = children.into_iter().map(|child| tokio::spawn(child.stop())).collect();
        for end in ending {
            // It errs only if it has panicked.
            let _ = end.await;
        }
    }
}

/// Makes a folder that is empty except for its locked marker: files of an earlier network would
/// name other ports. A folder that holds anything and has no marker is not this program's, and is
/// left alone.
fn make_folder(folder: &Path) -> Result<File, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::State, format!("{}: {error}", folder.display()))
    };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).map_err(|error| fail(&error))?;
    let marker = folder.join(MARKER);
    let entries = || fs::read_dir(folder).map_err(|error| fail(&error));
    if !marker.exists() && entries()?.next().is_some() {
        return Err(fail(&"not a private Tor network's folder").remedy("use another --state-dir"));
    }
    let lock = File::create(&marker).map_err(|error| fail(&error))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        fail(&"another devnet runs there").remedy("stop it, or use another --state-dir")
    })?;
    for entry in entries()? {
        let path = entry.map_err(|error| fail(&error))?.path();
        if path != marker {
            fs::remove_dir_all(&path).map_err(|error| fail(&error))?;
        }
    }
    Ok(lock)
}

const MARKER: &str = "private-tor-network";
const AUTO_CONTROL: &str = "ControlPort 127.0.0.1:auto\n";

struct Authority {
    nick: String,
    folder: PathBuf,
    or_port: u16,
    dir_port: u16,
}

fn program(name: &str) -> Result<PathBuf, Failure> {
    find_program(name).ok_or_else(|| {
        Failure::new(FailureKind::Tor, format!("{name} is not installed"))
            .remedy("install Tor (Debian: apt install tor)")
    })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Ports at which nothing listens now. If one is taken before its use, the network does not come
/// up, and reports that.
fn free_ports(count: u16, rng: &mut Generator) -> Result<Vec<u16>, Failure> {
    let span = LAST_PORT - FIRST_PORT;
    let offset = rng.random_range(0..span);
    let ports = (0..span).map(|step| FIRST_PORT + (offset + step) % span);
    let free = ports.filter(|port| TcpListener::bind(loopback(*port)).is_ok());
    let free: Vec<_> = free.take(count.into()).collect();
    if free.len() < count.into() {
        return Err(Failure::new(FailureKind::Port, "not enough free ports on loopback"));
    }
    Ok(free)
}

/// Makes the authorities' keys; returns the lines that tell every tor of them.
async fn make_keys(tor: &Path, authorities: &[Authority]) -> Result<String, Failure> {
    let gencert = program("tor-gencert")?;
    let making: Vec<_> = authorities
        .iter()
        .map(|authority| {
            let keys = authority.folder.join("data/keys");
            tokio::spawn(make_certificate(gencert.clone(), keys, authority.dir_port))
        })
        .collect();
    let mut lines = String::new();
    for (made, authority) in making.into_iter().zip(authorities) {
        let made = made.await.map_err(|error| Failure::new(FailureKind::Internal, error))?;
        let identity = made?;
        let fingerprint = fingerprint(tor, authority).await?;
        lines.push_str(&format!(
            "DirAuthority {} orport={} v3ident={identity} 127.0.0.1:{} {fingerprint}\n",
            authority.nick, authority.or_port, authority.dir_port
        ));
    }
    Ok(lines)
}

/// An authority's long-term and signing keys; returns the fingerprint of the former.
async fn make_certificate(
    gencert: PathBuf,
    keys: PathBuf,
    dir_port: u16,
) -> Result<String, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Tor, format!("cannot make the keys of an authority: {error}"))
    };
    fs::create_dir_all(&keys).map_err(|error| fail(&error))?;
    let certificate = keys.join("authority_certificate");
    let mut command = Command::new(gencert);
    command
        .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12", "-a"])
        .arg(loopback(dir_port).to_string())
        .arg("-i")
        .arg(keys.join("authority_identity_key"))
        .arg("-s")
        .arg(keys.join("authority_signing_key"))
        .arg("-c")
        .arg(&certificate)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| fail(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // The keys of a network that ends with this process: their passphrase guards nothing.
        stdin.write_all(b"private\n").await.map_err(|error| fail(&error))?;
    }
    let status = child.wait().await.map_err(|error| fail(&error))?;
    let text = fs::read_to_string(&certificate).map_err(|_| fail(&status))?;
    let mut lines = text.lines();
    let identity = lines.find_map(|line| line.strip_prefix("fingerprint "));
    identity.map(str::to_owned).ok_or_else(|| fail(&"no fingerprint in the certificate"))
}

/// The fingerprint of an authority's relay key, which tor makes when it is asked for it.
async fn fingerprint(tor: &Path, authority: &Authority) -> Result<String, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Tor, format!("cannot make the keys of an authority: {error}"))
    };
    let data = authority.folder.join("data");
    let torrc = authority.folder.join("torrc");
    let text = format!("DataDirectory {}\nORPort 1\nNickname {}\n", quoted(&data), authority.nick);
    fs::write(&torrc, text).map_err(|error| fail(&error))?;
    let mut command = Command::new(tor);
    let output = command
        .args(["--defaults-torrc", "/dev/null", "--hush", "--list-fingerprint", "-f"])
        .arg(&torrc)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| fail(&error))?;
    // `authority0 0123 4567 ...`: ten groups of four hex digits.
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().rfind(|line| line.starts_with(&authority.nick));
    let groups = last.and_then(|line| line.strip_prefix(&authority.nick)).unwrap_or_default();
    let fingerprint: String = groups.chars().filter(char::is_ascii_hexdigit).collect();
    if fingerprint.len() == 40 { Ok(fingerprint) } else { Err(fail(&"tor prints no fingerprint")) }
}

async fn open(child: &mut TorChild, rng: &mut Generator) -> Result<Control, Failure> {
    let at: ControlAddress = child.control().await?;
    Control::open(&at, Trust::Named, rng).await.map_err(|failed| broken(&failed))
}

async fn wait_for_consensus(authority: &mut TorChild, rng: &mut Generator) -> Result<(), Failure> {
    let mut control = open(authority, rng).await?;
    let everybody = usize::from(AUTHORITIES + RELAYS);
    let complete = async {
        loop {
            let listed = control.info("ns/all").await.map_err(|failed| broken(&failed))?;
            // Each relay's entry begins with an `r` line (dir-spec, section 3.4.1).
            if listed.lines().filter(|line| line.starts_with("r ")).count() >= everybody {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(CONSENSUS_TIMEOUT, complete).await.unwrap_or_else(|_| {
        Err(Failure::new(FailureKind::Tor, "the private Tor network does not come up")
            .remedy("see the logs in its folder; its ports may have been taken"))
    })
}

//! Streams to onion services through Tor's SOCKS port (RFC 1928, RFC 1929; Tor socks-extensions).
//!
//! Each peer and purpose has a user name of its own, so that Tor gives it circuits of its own;
//! after a circuit that led nowhere the password changes, and with it the circuits. Names are made
//! of digits and letters chosen here, never of foreign text: Tor gives a meaning to some names.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use keys::{NodeId, OnionAddress};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;
use tokio_util::io::InspectReader;

use super::SMTP_PORT;
use super::listener::listener;
use crate::net::onion::SWARM_PORT;

/// Tor's own bound is two minutes; most dials that take longer than this never end well, and a new
/// circuit does better.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(25);

/// What a stream is for. Streams for different purposes share no circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialPurpose {
    /// Links between nodes.
    Swarm,
    /// A node's test whether it can be reached itself.
    Reach,
    /// Fetching a network's descriptor.
    Join,
    /// Handing a decoy to a node's SMTP port.
    Submit,
}

impl DialPurpose {
    const fn name(self) -> &'static str {
        match self {
            Self::Swarm => "swarm",
            Self::Reach => "reach",
            Self::Join => "join",
            Self::Submit => "submit",
        }
    }

    /// The port that it goes to.
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::Swarm | Self::Reach | Self::Join => SWARM_PORT,
            Self::Submit => SMTP_PORT,
        }
    }
}

/// Whether a failed dial is worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Dial again after a while.
    Later,
    /// Never dial again: it would always fail.
    Never,
}

/// Where Tor's SOCKS port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocksPort {
    /// Its address, on loopback.
    pub at: SocketAddr,
    /// The user that must listen there, if nothing else shows that it is Tor.
    pub owner: Option<u32>,
}

/// Why a dial failed. It names no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum DialFailed {
    /// There is no SOCKS port to go through at present.
    #[error("there is no Tor to go through")]
    NoTor,
    /// Another user listens at the SOCKS port than did at the start.
    #[error("another user listens at Tor's SOCKS port than did at the start")]
    Usurped,
    /// Tor refused, with the code of its reply (RFC 1928, section 6; Tor proposal 304).
    #[error("Tor refused: {}", meaning(*.0))]
    Refused(u8),
    /// The SOCKS port takes no user names, so circuits would be shared between peers.
    #[error(
        "the SOCKS port takes no user names: remove PreferSOCKSNoAuth from Tor's configuration"
    )]
    NoIsolation,
    /// The dial took too long.
    #[error("no answer in {} seconds", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    /// The connection to the SOCKS port broke.
    #[error("the SOCKS port hung up")]
    HungUp,
}

impl DialFailed {
    /// Whether to dial again.
    #[must_use]
    pub const fn retry(self) -> Retry {
        match self {
            // 0xF6: not an onion address.
            Self::Refused(0xF6) => Retry::Never,
            Self::NoTor
            | Self::Usurped
            | Self::Refused(_)
            | Self::NoIsolation
            | Self::TimedOut
            | Self::HungUp => Retry::Later,
        }
    }

    /// Whether another circuit might do better.
    #[must_use]
    pub const fn is_of_circuit(self) -> bool {
        // Timed out, introduction failed, rendezvous failed, introduction timed out.
        matches!(self, Self::TimedOut | Self::Refused(0x06 | 0xF2 | 0xF3 | 0xF7))
    }

    /// The reason why a dial of this module failed, found in an error that wraps it.
    #[must_use]
    pub fn find(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(*found);
            }
            next = error.source();
        }
        None
    }
}

impl From<DialFailed> for io::Error {
    fn from(failed: DialFailed) -> Self {
        Self::other(Carried(failed))
    }
}

/// Makes the failure the source of another error: some wrappers, `Either` and `io::Error` among
/// them, give access only to the source of the error inside.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Carried(#[source] DialFailed);

const fn meaning(code: u8) -> &'static str {
    match code {
        0x01 => "the other side closed, or a general failure",
        0x02 => "not allowed",
        0x04 => "it cannot be reached",
        0x05 => "the port is not offered there",
        0x06 => "it took too long",
        0xF0 => "no descriptor is found: it is not up, or not yet",
        0xF1 => "its descriptor is not valid",
        0xF2 => "the introduction failed",
        0xF3 => "the rendezvous failed",
        0xF4 | 0xF5 => "it wants client authorization",
        0xF6 => "not an onion address",
        0xF7 => "the introduction took too long",
        _ => "an unknown code",
    }
}

/// Connects to a port of an onion service. `from` and `turn` make the name of the circuit: nodes
/// that share a Tor share no circuit, nor do two turns.
///
/// # Errors
/// [`DialFailed`]; Tor's code decides whether to try again.
pub async fn connect(
    socks: SocksPort,
    from: &NodeId,
    to: &OnionAddress,
    port: u16,
    purpose: DialPurpose,
    turn: u32,
) -> Result<TcpStream, DialFailed> {
    let user = user(purpose, from, &to.node());
    let password = turn.to_string();
    let connect = async {
        let mut stream = TcpStream::connect(socks.at).await.map_err(|_| DialFailed::NoTor)?;
        // Looked at after connecting: whoever took the port before is seen.
        if socks.owner.is_some() && listener(socks.at).ok().flatten() != socks.owner {
            return Err(DialFailed::Usurped);
        }
        // Frames are small, and a peer waits for each.
        stream.set_nodelay(true).map_err(|_| DialFailed::HungUp)?;
        // tokio-socks does not know Tor's codes. It reads a reply of at most 262 octets.
        let mut said = Vec::new();
        let socket =
            InspectReader::new(&mut stream, |octets: &[u8]| said.extend_from_slice(octets));
        let onion = to.to_string();
        let target = (onion.as_str(), port);
        let connected =
            Socks5Stream::connect_with_password_and_socket(socket, target, &user, &password).await;
        let connected = connected.map(drop);
        if said.get(1) == Some(&NO_AUTHENTICATION) {
            return Err(DialFailed::NoIsolation);
        }
        match (connected, said.get(REPLY_CODE)) {
            (Ok(()), _) => Ok(stream),
            (Err(_), Some(code)) if *code != 0 => Err(DialFailed::Refused(*code)),
            (Err(_), _) => Err(DialFailed::HungUp),
        }
    };
    timeout(CONNECT_TIMEOUT, connect).await.unwrap_or(Err(DialFailed::TimedOut))
}

fn user(purpose: DialPurpose, from: &NodeId, to: &NodeId) -> String {
    let mut user = format!("fog-{}-", purpose.name());
    for octet in from.as_bytes().iter().take(8).chain(to.as_bytes()) {
        // Writing to a string cannot fail.
        let _ = write!(user, "{octet:02x}");
    }
    user
}

const NO_AUTHENTICATION: u8 = 0;
/// Where the reply code is: after method selection (2 octets), answer to the user name (2) and
/// version.
const REPLY_CODE: usize = 5;

#[cfg(test)]
mod tests {
    use keys::Identity;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A SOCKS port that answers one caller with these octets, after method and authentication.
    async fn answering(method: u8, reply: &'static [u8]) -> (SocketAddr, OnionAddress) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut octets = [0; 512];
            stream.read_exact(&mut octets[..4]).await.unwrap();
            stream.write_all(&[5, method]).await.unwrap();
            if method == 2 {
                stream.read_exact(&mut octets[..2]).await.unwrap();
                let name = usize::from(octets[1]);
                stream.read_exact(&mut octets[..name + 1]).await.unwrap();
                assert!(octets.starts_with(b"fog-swarm-"));
                let password = usize::from(octets[name]);
                stream.read_exact(&mut octets[..password]).await.unwrap();
                stream.write_all(&[1, 0]).await.unwrap();
            }
            stream.read_exact(&mut octets[..5 + 62 + 2]).await.unwrap();
            stream.write_all(reply).await.unwrap();
        });
        (address, OnionAddress::of(Identity::from_seed(&[1; 32]).node()).unwrap())
    }

    async fn dial(method: u8, reply: &'static [u8]) -> Result<TcpStream, DialFailed> {
        let (at, onion) = answering(method, reply).await;
        let socks = SocksPort { at, owner: None };
        connect(socks, &NodeId::from_bytes([2; 32]), &onion, 9999, DialPurpose::Swarm, 1).await
    }

    #[tokio::test]
    async fn the_replys_code_says_what_failed() {
        assert!(dial(2, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.is_ok());
        for code in [1, 2, 4, 5, 6, 0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF6, 0xF7, 0x77] {
            let reply = Box::leak(Box::new([5, code, 0, 1, 0, 0, 0, 0, 0, 0]));
            let failed = dial(2, reply).await.unwrap_err();
            assert_eq!(failed, DialFailed::Refused(code));
            assert_eq!(failed.retry() == Retry::Never, code == 0xF6);
        }
    }

    #[tokio::test]
    async fn a_port_that_isolates_nothing_or_hangs_up_is_no_way() {
        let shared = dial(0, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await;
        assert_eq!(shared.unwrap_err(), DialFailed::NoIsolation);
        assert_eq!(dial(2, &[]).await.unwrap_err(), DialFailed::HungUp);
        assert_eq!(dial(2, &[4, 0, 0]).await.unwrap_err(), DialFailed::HungUp);
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let onion = OnionAddress::of(Identity::from_seed(&[1; 32]).node()).unwrap();
        let from = NodeId::from_bytes([2; 32]);
        let closed = SocksPort { at: closed, owner: None };
        let failed = connect(closed, &from, &onion, 1, DialPurpose::Swarm, 0).await;
        assert_eq!(failed.unwrap_err(), DialFailed::NoTor);
    }

    #[tokio::test]
    async fn another_user_at_the_port_learns_no_address() {
        let own = rustix::process::geteuid().as_raw();
        for (owner, is_right) in [(own, true), (own + 1, false)] {
            let (at, onion) = answering(2, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await;
            let (socks, from) = (SocksPort { at, owner: Some(owner) }, NodeId::from_bytes([2; 32]));
            let dialled = connect(socks, &from, &onion, 9999, DialPurpose::Swarm, 1).await;
            assert_eq!(dialled.is_ok(), is_right);
            assert!(is_right || dialled.unwrap_err() == DialFailed::Usurped);
        }
    }

    #[test]
    fn every_peer_and_purpose_has_its_own_name() {
        let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let name = user(DialPurpose::Swarm, &a, &b);
        assert!(name.len() <= 255 && name.starts_with("fog-swarm-0101"));
        assert_ne!(name, user(DialPurpose::Reach, &a, &b));
        assert!(user(DialPurpose::Submit, &a, &b).starts_with("fog-submit-0101"));
        assert_eq!([DialPurpose::Swarm.port(), DialPurpose::Submit.port()], [9999, 2525]);
        assert_ne!(name, user(DialPurpose::Swarm, &b, &b));
        assert_ne!(name, user(DialPurpose::Swarm, &a, &a));
    }

    #[test]
    fn a_failure_is_found_under_what_was_wrapped_around_it() {
        let failed = io::Error::from(DialFailed::Refused(0xF6));
        let error = io::Error::other(io::Error::other(failed));
        assert_eq!(DialFailed::find(&error), Some(DialFailed::Refused(0xF6)));
        assert_eq!(DialFailed::find(&io::Error::other("else")), None);
    }
}

//! A connection to a Tor's control port (Tor control-spec).
//!
//! One task reads, within bounds: replies go to the caller that asked, events to the caller that
//! waits for them.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use data_encoding::HEXUPPER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::CryptoRng;
use rustix::fs::OFlags;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::reply::{Reply, read};

/// Time for one reply. Tor answers at once, unless the machine is very busy.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Events that wait to be read; further events are dropped.
const EVENTS: usize = 256;
const COOKIE_LEN: usize = 32;
const NONCE_LEN: usize = 32;

/// Where a control port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAddress {
    /// A loopback port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for ControlAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("the path of a Unix socket begins with /"),
            None => match text.parse::<SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => Ok(Self::Tcp(address)),
                Ok(_) => Err("a control port on another machine would be given this node's key"),
                Err(_) => Err("say ADDRESS:PORT or unix:PATH"),
            },
        }
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a control port is believed to be Tor's. It will be given this node's secret key, and any
/// local user can listen at a free port: so a port must prove that it knows a cookie which other
/// users cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The operator named it: a Unix socket may let in every user that can open it.
    Named,
    /// It was found at a usual place.
    Found,
}

/// What went wrong with a control port.
#[derive(Debug, thiserror::Error)]
pub enum ControlFailed {
    /// Nothing listens there, or this user may not connect.
    #[error("{0}")]
    Connect(io::Error),
    /// The cookie that proves this node to Tor cannot be read.
    #[error("the cookie {}: {error}", path.display())]
    Cookie {
        /// The cookie's file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The cookie is not this Tor's.
    #[error("the cookie {} is not the one of this Tor", .0.display())]
    WrongCookie(PathBuf),
    /// It offers no way of authenticating that is accepted here.
    #[error("it lets nobody in by cookie")]
    NoMethod,
    /// It answered with another code than 2xx.
    #[error("Tor answers {code} {text}")]
    Refused {
        /// The code.
        code: u16,
        /// The text of the reply.
        text: String,
    },
    /// It hung up.
    #[error("Tor hung up")]
    Closed,
    /// It did not answer in time.
    #[error("Tor does not answer")]
    Silent,
    /// It sent something that is not a reply.
    #[error("what answers there is no Tor")]
    NoTor,
}

/// An authenticated connection.
pub struct Control {
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    replies: mpsc::Receiver<Reply>,
    events: mpsc::Receiver<Reply>,
    version: String,
    is_socket: bool,
    /// Replies still to come; more than one if a caller stopped waiting for its reply.
    owed: usize,
    reader: AbortHandle,
}

impl Drop for Control {
    /// The connection is closed when both its halves are gone, and Tor drops what belonged to it.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Control {
    /// Connects and authenticates.
    ///
    /// # Errors
    /// [`ControlFailed`].
    pub async fn open(
        at: &ControlAddress,
        trust: Trust,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, ControlFailed> {
        let connect = async {
            io::Result::Ok(match at {
                ControlAddress::Tcp(address) => split(TcpStream::connect(address).await?),
                ControlAddress::Unix(path) => split(UnixStream::connect(path).await?),
            })
        };
        let (reader, writer) = timeout(REPLY_TIMEOUT, connect)
            .await
            .map_err(|_| ControlFailed::Silent)?
            .map_err(ControlFailed::Connect)?;
        let (replies_in, replies) = mpsc::channel(1);
        let (events_in, events) = mpsc::channel(EVENTS);
        let reader = tokio::spawn(read(reader, replies_in, events_in)).abort_handle();
        let is_socket = matches!(at, ControlAddress::Unix(_));
        let version = String::new();
        let mut control = Self { writer, replies, events, version, is_socket, owed: 0, reader };
        control.authenticate(trust, rng).await?;
        Ok(control)
    }

    /// Tor's version, as it says it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Sends one line and waits for its reply.
    ///
    /// # Errors
    /// [`ControlFailed::Refused`] if its code is not 2xx.
    pub async fn ask(&mut self, line: &str) -> Result<Reply, ControlFailed> {
        // Allocated at full size: a buffer that grows leaves copies of the secret behind.
        let mut octets = Zeroizing::new(Vec::with_capacity(line.len() + 2));
        octets.extend_from_slice(line.as_bytes());
        octets.extend_from_slice(b"\r\n");
        // Counted before sending: this future may be dropped at any point.
        self.owed += 1;
        let asked = async {
            self.writer.write_all(&octets).await.map_err(|_| ControlFailed::Closed)?;
            self.writer.flush().await.map_err(|_| ControlFailed::Closed)?;
            loop {
                let reply = self.replies.recv().await.ok_or(ControlFailed::Closed)?;
                self.owed = self.owed.saturating_sub(1);
                if self.owed == 0 {
                    return Ok(reply);
                }
            }
        };
        let reply = timeout(REPLY_TIMEOUT, asked).await.map_err(|_| ControlFailed::Silent)??;
        if (200..300).contains(&reply.code) {
            return Ok(reply);
        }
        let text = reply.lines.into_iter().next().unwrap_or_default();
        Err(ControlFailed::Refused { code: reply.code, text })
    }

    /// The value of one `GETINFO` key.
    ///
    /// # Errors
    /// As [`Control::ask`]; [`ControlFailed::NoTor`] if the answer is for another key.
    pub async fn info(&mut self, key: &str) -> Result<String, ControlFailed> {
        let reply = self.ask(&format!("GETINFO {key}")).await?;
        let line = reply.lines.into_iter().next().unwrap_or_default();
        let value = line.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
        value.map(str::to_owned).ok_or(ControlFailed::NoTor)
    }

    /// The values of one option: one for each time it is set, empty if it is not set.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub async fn option(&mut self, name: &str) -> Result<Vec<String>, ControlFailed> {
        let reply = self.ask(&format!("GETCONF {name}")).await?;
        let values = reply.lines.iter().filter_map(|line| line.split_once('='));
        Ok(values.map(|(_, value)| value.to_owned()).collect())
    }

    /// The first line of the next event, without its code; `None` if Tor has hung up. Dropping
    /// this future loses no event.
    pub async fn event(&mut self) -> Option<String> {
        self.events.recv().await?.lines.into_iter().next()
    }

    async fn authenticate(
        &mut self,
        trust: Trust,
        rng: &mut impl CryptoRng,
    ) -> Result<(), ControlFailed> {
        let offered = match self.ask("PROTOCOLINFO 1").await {
            Ok(reply) => Offered::parse(&reply),
            // A program other than Tor may send anything, or nothing.
            Err(ControlFailed::Refused { .. }) => return Err(ControlFailed::NoTor),
            Err(failed) => return Err(failed),
        };
        self.version = offered.version.ok_or(ControlFailed::NoTor)?;
        match offered.cookie {
            Some(path) if offered.safe_cookie => self.prove_cookie(&path, rng).await,
            _ if offered.open && self.is_socket && trust == Trust::Named => {
                self.ask("AUTHENTICATE").await.map(drop)
            }
            _ => Err(ControlFailed::NoMethod),
        }
    }

    /// `SAFECOOKIE`: each side proves that it knows the cookie, and neither sends it.
    async fn prove_cookie(
        &mut self,
        path: &Path,
        rng: &mut impl CryptoRng,
    ) -> Result<(), ControlFailed> {
        let fail = |error| ControlFailed::Cookie { path: path.to_owned(), error };
        let wrong = || ControlFailed::WrongCookie(path.to_owned());
        let cookie = read_cookie(path).map_err(fail)?;
        let mut own_nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut own_nonce);
        let challenge = format!("AUTHCHALLENGE SAFECOOKIE {}", HEXUPPER.encode(&own_nonce));
        let reply = self.ask(&challenge).await?;
        let line = reply.lines.first().map(String::as_str).unwrap_or_default();
        let value = |key: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(key))?;
            HEXUPPER.decode(value.to_ascii_uppercase().as_bytes()).ok()
        };
        let (Some(hash), Some(nonce)) = (value("SERVERHASH="), value("SERVERNONCE=")) else {
            return Err(ControlFailed::NoTor);
        };
        // Labels of control-spec, section 3.24.
        let server = b"Tor safe cookie authentication server-to-controller hash";
        let client = b"Tor safe cookie authentication controller-to-server hash";
        let proof = |label: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(label).map_err(|_| wrong())?;
            mac.update(cookie.as_slice());
            mac.update(&own_nonce);
            mac.update(&nonce);
            Ok::<_, ControlFailed>(mac)
        };
        proof(server)?.verify_slice(&hash).map_err(|_| wrong())?;
        let own = HEXUPPER.encode(&proof(client)?.finalize().into_bytes());
        match self.ask(&format!("AUTHENTICATE {own}")).await {
            Err(ControlFailed::Refused { .. }) => Err(wrong()),
            other => other.map(drop),
        }
    }
}

fn split<S>(stream: S) -> (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    (Box::new(reader), Box::new(writer))
}

/// Reads a cookie. The listening program names the file, so it may be any file. A cookie proves
/// something only if no other user can read it, and none has made it.
fn read_cookie(path: &Path) -> io::Result<Zeroizing<[u8; COOKIE_LEN]>> {
    /// Ids below this are the system's own users (Debian policy 9.2.2).
    const FIRST_ORDINARY_USER: u32 = 1000;
    let mut options = fs::OpenOptions::new();
    // Opening a pipe would wait for its other end.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = options.read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() != COOKIE_LEN as u64 {
        return Err(io::Error::other("not a file of 32 octets"));
    }
    if metadata.mode() & 0o007 != 0 {
        return Err(io::Error::other("every user can read it, so it proves nothing"));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() >= FIRST_ORDINARY_USER {
        return Err(io::Error::other("it belongs to another user"));
    }
    let mut cookie = Zeroizing::new([0; COOKIE_LEN]);
    file.read_exact(cookie.as_mut_slice())?;
    Ok(cookie)
}

/// What `PROTOCOLINFO` offers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offered {
    version: Option<String>,
    safe_cookie: bool,
    open: bool,
    cookie: Option<PathBuf>,
}

impl Offered {
    fn parse(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in &reply.lines {
            if let Some(rest) = line.strip_prefix("VERSION Tor=") {
                offered.version = quoted(rest);
            }
            let Some(rest) = line.strip_prefix("AUTH METHODS=") else { continue };
            let methods = rest.split(' ').next().unwrap_or_default();
            offered.safe_cookie = methods.split(',').any(|method| method == "SAFECOOKIE");
            offered.open = methods.split(',').any(|method| method == "NULL");
            let file = rest.split_once(" COOKIEFILE=").and_then(|(_, file)| quoted(file));
            offered.cookie = file.map(PathBuf::from);
        }
        offered
    }
}

/// A QuotedString at the start of a text (control-spec, section 2.1.1).
fn quoted(text: &str) -> Option<String> {
    let mut characters = text.strip_prefix('"')?.chars();
    let mut value = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

    use super::*;

    #[test]
    fn protocolinfo_is_understood() {
        let reply = Reply {
            code: 250,
            lines: vec![
                "PROTOCOLINFO 1".into(),
                "AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE=\"/a \\\"b\\\\/c\"".into(),
                "VERSION Tor=\"0.4.9.11\"".into(),
                "OK".into(),
            ],
        };
        let offered = Offered::parse(&reply);
        assert_eq!(offered.cookie, Some("/a \"b\\/c".into()));
        assert!(offered.safe_cookie && !offered.open);
        assert_eq!(offered.version.as_deref(), Some("0.4.9.11"));
    }

    #[test]
    fn only_this_machines_ports_are_control_ports() {
        assert!("127.0.0.1:9051".parse::<ControlAddress>().is_ok());
        assert!("unix:/run/tor/control".parse::<ControlAddress>().is_ok());
        for bad in ["192.168.1.1:9051", "0.0.0.0:9051", "localhost:9051", "unix:x", "9051", ""] {
            assert!(bad.parse::<ControlAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cookie_that_others_can_read_proves_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cookie");
        let refused = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read_cookie(&path).err().map(|error| error.to_string()).unwrap_or_default()
        };
        fs::write(&path, [7; 32]).unwrap();
        assert_eq!(refused(0o600), "");
        assert_eq!(refused(0o640), "");
        assert!(refused(0o644).contains("every user"));
        fs::write(&path, [7; 33]).unwrap();
        assert!(refused(0o600).contains("32 octets"));
        if rustix::process::geteuid().is_root() {
            fs::write(&path, [7; 32]).unwrap();
            std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
            assert!(refused(0o600).contains("another user"));
        }
        assert!(read_cookie(Path::new("/dev/zero")).is_err());
    }

    #[tokio::test]
    async fn dropping_it_closes_the_connection() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let tor = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut octets = [0; 128];
            for answer in [
                "250-AUTH METHODS=NULL\r\n250-VERSION Tor=\"0.4.9.11\"\r\n250 OK\r\n",
                "250 OK\r\n",
            ] {
                assert!(stream.read(&mut octets).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            // Events that nobody reads do not keep it open.
            for _ in 0..1000 {
                if stream.write_all(b"650 STATUS_CLIENT\r\n").await.is_err() {
                    return 0;
                }
            }
            stream.read(&mut octets).await.unwrap_or(0)
        };
        let mut rng = rand::rngs::StdRng::from_seed([1; 32]);
        let at = ControlAddress::Unix(path.clone());
        let open = async { drop(Control::open(&at, Trust::Named, &mut rng).await.unwrap()) };
        let (read, ()) = tokio::join!(timeout(Duration::from_secs(5), tor), open);
        assert_eq!(read.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_open_port_is_no_proof() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let socket = tokio::net::UnixListener::bind(&path).unwrap();
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = ControlAddress::Tcp(port.local_addr().unwrap());
        let offer = b"250-AUTH METHODS=NULL\r\n250-VERSION Tor=\"0.4.9.11\"\r\n250 OK\r\n";
        tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let mut stream = BufReader::new(port.accept().await.unwrap().0);
                stream.read_until(b'\n', &mut Vec::new()).await.unwrap();
                stream.write_all(offer).await.unwrap();
                kept.push(stream);
            }
        });
        tokio::spawn(async move {
            let mut stream = BufReader::new(socket.accept().await.unwrap().0);
            stream.read_until(b'\n', &mut Vec::new()).await.unwrap();
            stream.write_all(offer).await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut rng = rand::rngs::StdRng::from_seed([1; 32]);
        let unix = ControlAddress::Unix(path);
        for (at, trust) in [(&tcp, Trust::Named), (&tcp, Trust::Found), (&unix, Trust::Found)] {
            let opened = Control::open(at, trust, &mut rng).await;
            assert!(matches!(opened, Err(ControlFailed::NoMethod)));
        }
    }
}

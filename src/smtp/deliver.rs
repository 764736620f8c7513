//! Where mail goes from an exit: a Maildir, or the next SMTP server.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mail::{Delivery, Needs};
use rand::Rng as _;
use record::{Capabilities, Domains, ExitPolicy};
use remailer::DeliveryOutcome;
use smtp::{Client, Offers, Outcome, Port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use crate::clock::Clock;
use crate::entropy::Generator;

/// What EHLO says, the same for every exit.
const EHLO_NAME: &str = "fog.invalid";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// What a server is taken to accept that announces no SIZE.
const DEFAULT_MAX_MESSAGE: u32 = 10 << 20;

/// Where an exit delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into a Maildir, one file for each recipient.
    Maildir(PathBuf),
    /// To an SMTP server at an address. No name is looked up for it.
    Smarthost(SocketAddr),
}

impl Target {
    /// The same from wherever the node is started.
    ///
    /// # Errors
    /// If the present folder is not known.
    pub fn absolute(self) -> io::Result<Self> {
        match self {
            Self::Maildir(folder) => std::path::absolute(folder).map(Self::Maildir),
            Self::Smarthost(address) => Ok(Self::Smarthost(address)),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(folder) = text.strip_prefix("maildir:").filter(|folder| !folder.is_empty()) {
            return Ok(Self::Maildir(folder.into()));
        }
        let address = text.strip_prefix("smtp://").map(|address| {
            address
                .strip_prefix("localhost:")
                .map_or(address.to_owned(), |port| format!("127.0.0.1:{port}"))
        });
        address
            .and_then(|address| address.parse().ok())
            .map(Self::Smarthost)
            .ok_or_else(|| "say maildir:DIR or smtp://ADDRESS:PORT".to_owned())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Maildir(folder) => write!(f, "maildir:{}", folder.display()),
            Self::Smarthost(address) => write!(f, "smtp://{address}"),
        }
    }
}

/// What can be delivered there; nothing if the server does not answer.
pub async fn probe(target: &Target, clock: Clock) -> Option<ExitPolicy> {
    let policy = match target {
        Target::Maildir(_) => ExitPolicy {
            offers: Capabilities::EIGHT_BIT | Capabilities::SMTP_UTF8 | Capabilities::KEEP_FROM,
            ..least()
        },
        Target::Smarthost(address) => {
            match converse(Client::probe(EHLO_NAME), *address, clock).await.0 {
                Outcome::Probed(offers) => ExitPolicy {
                    max_message: size(&offers),
                    offers: capabilities(&offers),
                    ..least()
                },
                Outcome::Delivered { .. } | Outcome::Refused | Outcome::Later => return None,
            }
        }
    };
    Some(policy)
}

/// What every server of RFC 5321 takes: seven bits. Said of one that has not answered yet.
#[must_use]
pub fn least() -> ExitPolicy {
    ExitPolicy {
        domains: Domains::Any,
        max_message: DEFAULT_MAX_MESSAGE,
        offers: Capabilities::KEEP_FROM,
    }
}

fn size(offers: &Offers) -> u32 {
    let announced = offers.max_message.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    announced.unwrap_or(DEFAULT_MAX_MESSAGE)
}

fn capabilities(offers: &Offers) -> Capabilities {
    let mut capabilities = Capabilities::KEEP_FROM;
    if offers.needs.contains(Needs::EIGHT_BIT) {
        capabilities = capabilities | Capabilities::EIGHT_BIT;
    }
    if offers.needs.contains(Needs::EIGHT_BIT | Needs::SMTP_UTF8) {
        capabilities = capabilities | Capabilities::SMTP_UTF8;
    }
    capabilities
}

/// Hands a message to a node as a user's program does; returns its reply.
///
/// # Errors
/// The reply of the node that did not take it; nothing if none answers there.
pub async fn submit(
    delivery: Delivery,
    node: SocketAddr,
    clock: Clock,
) -> Result<String, Option<String>> {
    let client = Client::deliver(EHLO_NAME, delivery);
    let (outcome, _, reply) = talk(client, node, clock).await;
    match outcome {
        Outcome::Delivered { refused: 0, later: 0, .. } => Ok(reply),
        Outcome::Delivered { .. } => Err(Some(format!("not every recipient was taken; {reply}"))),
        Outcome::Probed(_) | Outcome::Refused | Outcome::Later if reply.is_empty() => Err(None),
        Outcome::Probed(_) | Outcome::Refused | Outcome::Later => Err(Some(reply)),
    }
}

/// One attempt to deliver.
pub async fn deliver(
    target: &Target,
    delivery: Delivery,
    clock: Clock,
    rng: Generator,
) -> DeliveryOutcome {
    match target {
        Target::Maildir(folder) => {
            let folder = folder.clone();
            let written =
                tokio::task::spawn_blocking(move || into_maildir(&folder, delivery, clock, rng));
            match written.await {
                Ok(outcome) => outcome,
                // The thread was cancelled with the runtime: the node is ending.
                Err(_) => DeliveryOutcome::Done { taken: 0, refused: 0 },
            }
        }
        Target::Smarthost(address) => {
            let client = Client::deliver(EHLO_NAME, delivery);
            match converse(client, *address, clock).await {
                (Outcome::Delivered { taken, refused, later: 0 }, _) => {
                    DeliveryOutcome::Done { taken, refused }
                }
                (Outcome::Delivered { .. } | Outcome::Later, Some(delivery)) => {
                    DeliveryOutcome::Later(delivery)
                }
                (_, delivery) => {
                    let refused = delivery.map_or(0, |delivery| delivery.recipients.len());
                    DeliveryOutcome::Done { taken: 0, refused }
                }
            }
        }
    }
}

async fn converse(
    client: Client,
    address: SocketAddr,
    clock: Clock,
) -> (Outcome, Option<Delivery>) {
    let (outcome, delivery, _) = talk(client, address, clock).await;
    (outcome, delivery)
}

/// Runs a conversation over a connection; also returns the reply that decided.
async fn talk(
    mut client: Client,
    address: SocketAddr,
    clock: Clock,
) -> (Outcome, Option<Delivery>, String) {
    let start = clock.elapsed();
    let now = || clock.elapsed().saturating_sub(start);
    if let Ok(Ok(mut stream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        let mut octets = [0; 4096];
        while client.port() == Port::Open {
            let left = client.poll_timeout().saturating_sub(now());
            match timeout(left, stream.read(&mut octets)).await {
                Err(_) => client.handle_timeout(now()),
                Ok(Ok(read)) if read > 0 => {
                    client.handle_input(octets.get(..read).unwrap_or_default(), now());
                }
                Ok(_) => client.handle_lost(),
            }
            while let Some(output) = client.next_output() {
                let left = client.poll_timeout().saturating_sub(now());
                if !matches!(timeout(left, stream.write_all(&output)).await, Ok(Ok(()))) {
                    client.handle_lost();
                }
            }
        }
        let _ = stream.shutdown().await;
    } else {
        client.handle_lost();
    }
    let reply = client.decisive_reply().to_owned();
    let (outcome, delivery) = client.finish();
    (outcome, delivery, reply)
}

/// Writes a file for each recipient; those that could not be written are tried again.
fn into_maildir(
    folder: &Path,
    mut delivery: Delivery,
    clock: Clock,
    mut rng: Generator,
) -> DeliveryOutcome {
    let mut taken = 0;
    let message = delivery.message.clone();
    delivery.recipients.retain(|mailbox| {
        let name = format!("{}.{:016x}.fog", clock.now().as_millis() / 1000, rng.next_u64());
        let written = write_maildir(folder, &name, &mailbox.to_text(), &message);
        if let Err(error) = &written {
            tracing::warn!(%error, "cannot write into the maildir");
        }
        taken += usize::from(written.is_ok());
        written.is_err()
    });
    if delivery.recipients.is_empty() {
        DeliveryOutcome::Done { taken, refused: 0 }
    } else {
        DeliveryOutcome::Later(delivery)
    }
}

/// `tmp`, sync, rename into `new`, sync of the folder. Lines end in LF there, as mail readers expect.
fn write_maildir(folder: &Path, name: &str, recipient: &str, message: &[u8]) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    let builder = builder.recursive(true).mode(0o700);
    for part in ["tmp", "new", "cur"] {
        builder.create(folder.join(part))?;
    }
    let draft = folder.join("tmp").join(name);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
    let mut octets = format!("Delivered-To: {recipient}\n").into_bytes();
    // Every CR in a message stands before an LF.
    octets.extend(message.iter().filter(|octet| **octet != b'\r'));
    file.write_all(&octets)?;
    file.sync_all()?;
    let new = folder.join("new");
    fs::rename(&draft, new.join(name))?;
    File::open(new)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_and_write_the_same() {
        for text in ["maildir:/tmp/x", "smtp://127.0.0.1:25", "smtp://[::1]:2525"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        let local: Target = "smtp://localhost:2500".parse().unwrap();
        assert_eq!(local.to_string(), "smtp://127.0.0.1:2500");
        for bad in
            ["", "maildir:", "smtp://", "smtp://mx.example.org:25", "smtp://127.0.0.1", "/tmp"]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}

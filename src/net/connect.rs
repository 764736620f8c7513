//! How an onion address becomes a connection: the one thing that differs between networks.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use keys::OnionAddress;
use record::Descriptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::incoming::Incoming;
use super::tor::socks::DialPurpose;
use super::tor::{TorConnector, TorState};
use super::trial::Trial;
use crate::files::write_whole;

/// Dials onion addresses.
#[derive(Clone)]
pub enum Connector {
    /// A folder in which every node of a devnet writes the loopback ports it listens on, in files
    /// named after its onion address. Nodes of several processes can share it.
    Devnet(DevnetFolder),
    /// Onion addresses through Tor.
    Tor(TorConnector),
}

impl Connector {
    /// Connects to a node's swarm, or to its SMTP port.
    ///
    /// # Errors
    /// If the node is not known, or does not answer.
    pub async fn dial(&self, onion: &OnionAddress, purpose: DialPurpose) -> io::Result<TcpStream> {
        match self {
            Self::Tor(tor) => tor.dial(onion, purpose).await,
            Self::Devnet(folder) => {
                let port = folder.port(onion, purpose)?;
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
        }
    }

    /// Publishes the port at which a node takes mail. Behind Tor it has the same number at every node.
    ///
    /// # Errors
    /// If it cannot be published.
    pub fn publish_smtp(&self, onion: &OnionAddress, port: u16) -> io::Result<()> {
        match self {
            Self::Tor(_) => Ok(()),
            Self::Devnet(folder) => write_port(&folder.file(onion, DialPurpose::Submit), port),
        }
    }

    /// The state of its Tor, if it uses one.
    #[must_use]
    pub fn tor_state(&self) -> Option<watch::Receiver<TorState>> {
        match self {
            Self::Tor(tor) => Some(tor.state()),
            Self::Devnet(_) => None,
        }
    }

    /// What the links are put to.
    #[must_use]
    pub fn trial(&self) -> Trial {
        match self {
            Self::Tor(_) => Trial::default(),
            Self::Devnet(folder) => folder.trial.clone(),
        }
    }

    /// Withdraws a node's address, so that it can no longer be dialled.
    pub fn retire(&self, onion: &OnionAddress) {
        match self {
            // Tor removes the onion service when its control connection closes.
            Self::Tor(_) => {}
            Self::Devnet(folder) => folder.leave(onion),
        }
    }
}

const DESCRIPTOR: &str = "network";

/// The folder of a devnet: its descriptor, and two files for each node; and what its links are put to.
#[derive(Clone, Debug)]
pub struct DevnetFolder {
    path: PathBuf,
    trial: Trial,
}

impl DevnetFolder {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { path: folder.to_owned(), trial: Trial::default() })
    }

    /// The same folder, for nodes whose links are put to a trial.
    #[must_use]
    pub fn on_trial(self, trial: Trial) -> Self {
        Self { trial, ..self }
    }

    /// The devnet's descriptor, if somebody has made it.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn descriptor(&self) -> io::Result<Option<Descriptor>> {
        match std::fs::read(self.path.join(DESCRIPTOR)) {
            Ok(octets) => Descriptor::parse(&octets).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `descriptor` the descriptor of the devnet.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn found(&self, descriptor: &Descriptor) -> io::Result<()> {
        write_whole(&self.path.join(DESCRIPTOR), descriptor.octets())
    }

    /// Listens on loopback, and publishes the port in the folder under this address.
    ///
    /// # Errors
    /// If there is no free port, or it cannot be published.
    pub async fn listen(&self, onion: &OnionAddress) -> io::Result<Incoming> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        write_port(&self.file(onion, DialPurpose::Swarm), listener.local_addr()?.port())?;
        Ok(Incoming::Socket(listener))
    }

    fn port(&self, onion: &OnionAddress, purpose: DialPurpose) -> io::Result<u16> {
        let text = std::fs::read_to_string(self.file(onion, purpose))?;
        text.trim().parse().map_err(io::Error::other)
    }

    fn leave(&self, onion: &OnionAddress) {
        // A file left behind does little harm: nothing at the swarm's port answers with the right key, and what
        // listens at that of SMTP is on this machine.
        for purpose in [DialPurpose::Swarm, DialPurpose::Submit] {
            let _ = std::fs::remove_file(self.file(onion, purpose));
        }
    }

    fn file(&self, onion: &OnionAddress, purpose: DialPurpose) -> PathBuf {
        self.path.join(match purpose {
            DialPurpose::Swarm | DialPurpose::Reach | DialPurpose::Join => onion.to_string(),
            DialPurpose::Submit => format!("{onion}.smtp"),
        })
    }
}

/// The file is renamed into place, so that no other process reads half a number.
fn write_port(file: &Path, port: u16) -> io::Result<()> {
    write_whole(file, format!("{port}\n").as_bytes())
}

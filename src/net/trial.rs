//! What a devnet can do to its own links, to be measured: lose packets, and write down what each link
//! carries. A node behind Tor can do neither.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use keys::{NodeId, OnionAddress, Time};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::clock::Clock;

/// The trial that a devnet is put to; none by default.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Packets that its nodes lose.
    pub loss: Option<Loss>,
    /// Where is written down what its links carry.
    pub link_log: Option<LinkLog>,
}

/// Packets that every node takes, and drops without a word.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// The share of packets, from 0 to 1.
    pub share: f64,
    /// What the choice follows from, together with the node.
    pub seed: u64,
}

/// The choice of one node. It hides nothing and protects nothing: that it can be repeated is its use.
#[derive(Clone)]
pub(super) struct Losing(Option<(f64, Arc<Mutex<StdRng>>)>);

impl Losing {
    pub(super) fn new(loss: Option<Loss>, node: &NodeId) -> Self {
        Self(loss.map(|Loss { share, seed }| {
            let mut octets = *node.as_bytes();
            for (octet, seed) in octets.iter_mut().zip(seed.to_be_bytes()) {
                *octet ^= seed;
            }
            (share.clamp(0.0, 1.0), Arc::new(Mutex::new(StdRng::from_seed(octets))))
        }))
    }

    /// Whether the next packet is lost.
    pub(super) fn takes_next(&self) -> bool {
        let Some((share, rng)) = &self.0 else { return false };
        rng.lock().is_ok_and(|mut rng| rng.random_bool(*share))
    }
}

/// A file with a line for whatever a node sends on a stream for packets in one piece: milliseconds of
/// Unix time, its address, the peer's address and the octets. A line
/// with the word `decoy` before the octets is of a decoy that it hands to the peer by SMTP.
#[derive(Clone, Debug)]
pub struct LinkLog(Arc<Mutex<File>>);

impl LinkLog {
    /// Begins a file anew.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(b"milliseconds,from,to,octets\n")?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// Notes that a node begins to hand a decoy to another.
    pub fn note_decoy(&self, now: Time, ends: [&OnionAddress; 2], octets: usize) {
        let [from, to] = ends;
        self.note(&format!("{},{from},{to},decoy {octets}\n", now.as_millis()));
    }

    fn note(&self, line: &str) {
        // A full disk ends the log, not the node.
        if let Ok(mut file) = self.0.lock() {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// Listens in on the streams of one node.
#[derive(Clone)]
pub(super) struct Taps {
    own: NodeId,
    clock: Clock,
    log: Option<LinkLog>,
}

impl Taps {
    pub(super) fn new(own: NodeId, clock: Clock, log: Option<LinkLog>) -> Self {
        Self { own, clock, log }
    }

    /// The same stream, with what this node sends on it written down.
    pub(super) fn on<S>(&self, stream: S, peer: &NodeId) -> Tapped<S> {
        let address = |node| OnionAddress::of(node).map(|onion| onion.to_string());
        let tap = self.log.clone().and_then(|log| {
            let ends = [address(self.own).ok()?, address(*peer).ok()?].join(",");
            Some(Tap { log, ends, clock: self.clock, unflushed: 0 })
        });
        Tapped { stream, tap }
    }
}

struct Tap {
    log: LinkLog,
    ends: String,
    clock: Clock,
    /// Octets written since the last flush.
    unflushed: usize,
}

/// A stream on which somebody may listen in.
pub(super) struct Tapped<S> {
    stream: S,
    tap: Option<Tap>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, octets)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, octets))?;
        if let Some(tap) = &mut self.tap {
            tap.unflushed += written;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if let Some(tap) = &mut self.tap {
            let octets = core::mem::take(&mut tap.unflushed);
            if octets > 0 {
                let now = tap.clock.now().as_millis();
                tap.log.note(&format!("{now},{},{octets}\n", tap.ends));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

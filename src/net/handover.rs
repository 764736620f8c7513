//! Streams to peers without an address: `/fog/stream/1`.
//!
//! The peer opens one, and presents its tokens: their number (1 octet, 1 to 8) and 16 octets each.
//! What comes for them is handed over as frames: the number of a size class (1), the name of the reply
//! block that it answers, or zeros (16), and a payload of that class. The peer answers each with
//! [`TAKEN`], and keeps the stream open for as long as it wants more. A node hands over again, on the
//! next stream with the token, what it has no receipt for.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::{Stream, StreamProtocol};
use remailer::{Handed, MAX_TOKENS};
use sphinx::{SizeClass, StreamToken};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::handle::NetEvent;
use super::onion;
use super::streams::Opened;
use crate::clock::Clock;
use crate::places::{Places, Rule, Seat};

pub(crate) const HANDOVER: StreamProtocol = StreamProtocol::new("/fog/stream/1");

/// The receipt.
const TAKEN: u8 = 1;
/// Streams at once. When all are taken, the one that was handed least goes.
const MOST: usize = 128;
/// Nobody has to go who has just come.
const GRACE: Duration = Duration::from_secs(3);
/// Streams that one peer may hold open: the one in use, and one about to replace it.
const PER_PEER: usize = 2;
/// Time for presenting tokens.
const PRESENTING: Duration = Duration::from_secs(30);
/// Time for writing a frame, and for the receipt of the oldest.
const FRAME: Duration = Duration::from_secs(120);
/// Frames on their way to one stream: as many as the node hands over without a receipt.
const QUEUED: usize = 16;

/// What becomes of a stream that a peer opened.
pub enum StreamEvent {
    /// The peer has presented tokens.
    Opened {
        /// They.
        tokens: Vec<StreamToken>,
        /// Where what is for them goes.
        to: mpsc::Sender<Handed>,
    },
    /// The peer has taken the oldest that it was handed.
    Taken,
    /// The stream has ended.
    Ended {
        /// What the peer has not taken, the oldest first.
        left: Vec<Handed>,
    },
}

pub(crate) fn places(clock: Clock) -> Arc<Places> {
    Places::new(Rule { most: MOST, grace: GRACE, pace: u64::MAX }, clock)
}

/// Serves the streams that peers open.
pub(crate) async fn serve(mut opened: Opened, events: mpsc::Sender<NetEvent>, places: Arc<Places>) {
    let mut peers: BTreeMap<_, Arc<Semaphore>> = BTreeMap::new();
    let mut serial = 0;
    while let Some((peer, stream)) = opened.recv().await {
        let Some(node) = onion::node_id(&peer) else { continue };
        peers.retain(|_, streams| streams.available_permits() < PER_PEER);
        let own = peers.entry(node).or_insert_with(|| Arc::new(Semaphore::new(PER_PEER)));
        let Ok(own) = Arc::clone(own).try_acquire_owned() else { continue };
        let Some(seat) = places.try_take() else { continue };
        serial += 1;
        let desk = Desk { id: serial, events: events.clone() };
        tokio::spawn(async move {
            desk.serve(stream, own, &seat).await;
        });
    }
}

/// The node's side of one stream.
struct Desk {
    id: u64,
    events: mpsc::Sender<NetEvent>,
}

impl Desk {
    /// However it ends, the peer sees a closed stream and nothing else.
    // Its place among its peer's streams is free before the peer sees the stream closed: parameters are
    // dropped from the last to the first.
    async fn serve(self, mut stream: Stream, _own: OwnedSemaphorePermit, seat: &Seat) {
        let presented = tokio::select! {
            presented = timeout(PRESENTING, read_tokens(&mut stream)) => presented,
            () = seat.ended() => return,
        };
        let Ok(Ok(tokens)) = presented else { return };
        let (to, mut queued) = mpsc::channel(QUEUED);
        if !self.tell(StreamEvent::Opened { tokens, to }).await {
            return;
        }
        let mut untaken = VecDeque::new();
        tokio::select! {
            _ = self.hand_over(&mut stream, &mut queued, &mut untaken, seat) => {}
            () = seat.ended() => {}
        }
        queued.close();
        while let Some(handed) = queued.recv().await {
            untaken.push_back(handed);
        }
        self.tell(StreamEvent::Ended { left: untaken.into() }).await;
    }

    /// Hands over until the stream breaks. What has no receipt is in `untaken`.
    async fn hand_over(
        &self,
        stream: &mut Stream,
        queued: &mut mpsc::Receiver<Handed>,
        untaken: &mut VecDeque<Handed>,
        seat: &Seat,
    ) -> io::Result<()> {
        let (mut reader, mut writer) = stream.split();
        loop {
            let is_awaited = !untaken.is_empty();
            let mut receipt = [0];
            let receipt_or_end = async {
                let read = reader.read(&mut receipt);
                // A peer that awaits nothing may be silent for as long as it likes.
                if is_awaited { timeout(FRAME, read).await? } else { read.await }
            };
            tokio::select! {
                read = receipt_or_end => {
                    if read? != 1 || receipt != [TAKEN] {
                        return Ok(());
                    }
                    let taken = untaken.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                    seat.add(u64::try_from(taken.payload.len()).unwrap_or(u64::MAX));
                    drop(taken);
                    self.tell(StreamEvent::Taken).await;
                }
                next = queued.recv() => {
                    let Some(next) = next else { return Ok(()) };
                    untaken.push_back(next);
                    let Some(next) = untaken.back() else { return Ok(()) };
                    timeout(FRAME, write_frame(&mut writer, next)).await??;
                }
            }
        }
    }

    async fn tell(&self, event: StreamEvent) -> bool {
        self.events.send(NetEvent::Stream(self.id, event)).await.is_ok()
    }
}

async fn read_tokens(stream: &mut Stream) -> io::Result<Vec<StreamToken>> {
    let mut number = [0];
    stream.read_exact(&mut number).await?;
    let [number] = number;
    if !(1..=MAX_TOKENS).contains(&usize::from(number)) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut tokens = Vec::with_capacity(usize::from(number));
    for _ in 0..number {
        let mut token = [0; 16];
        stream.read_exact(&mut token).await?;
        tokens.push(StreamToken::from_bytes(token));
    }
    Ok(tokens)
}

async fn write_frame(
    writer: &mut (impl futures::AsyncWrite + Unpin),
    handed: &Handed,
) -> io::Result<()> {
    let length = handed.payload.len();
    let class = SizeClass::all().find(|class| class.payload_len() == length);
    let class = class.ok_or(io::ErrorKind::InvalidInput)?;
    writer.write_all(&[class.number()]).await?;
    let name = handed.name.map_or([0; 16], |name| *name.as_bytes());
    writer.write_all(&name).await?;
    writer.write_all(handed.payload.octets()).await?;
    writer.flush().await
}

//! Packets between two nodes: one stream in each direction, a receipt for each frame.
//!
//! A frame is the number of a size class (1 octet) and the packet. The receiver answers [`TAKEN`]
//! when the whole frame is read and queued: before opening it, and the same for every packet. Until
//! then the sender keeps the packet and sends it again on the next stream; replay refusal makes
//! copies harmless. When the receiver's key for it is gone the packet is dropped and reported as
//! expired.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use keys::{NodeId, Time};
use libp2p::swarm::{Stream, StreamProtocol};
use sphinx::{Packet, SizeClass};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::links::Links;
use super::onion;
use super::streams::{Opened, Opener};
use super::trial::{Losing, Tapped, Taps};
use crate::clock::Clock;
use crate::places::{Places, Rule, Seat};

pub(crate) const PACKETS: StreamProtocol = StreamProtocol::new("/fog/packets/1");

/// The receipt.
const TAKEN: u8 = 1;
/// Frames sent without a receipt yet, at most.
const WINDOW: usize = 16;
/// KiB queued for one peer, at most; a packet that exceeds this is dropped and reported.
const MAX_QUEUED_KIB: usize = 16 * 1024;
const MAX_QUEUED: usize = 1024;
/// KiB queued for all linked peers together.
const MAX_QUEUED_KIB_IN_ALL: usize = 256 * 1024;
/// KiB queued for one peer that was never linked, and for all such peers together: identities with
/// no node behind them must not take the room of nodes that are there.
const MAX_UNLINKED_KIB: usize = 1024;
const MAX_UNLINKED_KIB_IN_ALL: usize = 64 * 1024;
/// Streams that one peer may hold open to this node: the one in use, and one about to replace it.
const STREAMS_PER_PEER: usize = 2;
/// Streams of nodes of the list, and of others: strangers must not take the places of nodes that
/// mail goes through. Who must go when all are taken is the stream that has brought least.
const OF_LISTED: usize = 192;
const OF_STRANGERS: usize = 64;
/// Nobody has to go who has just come.
const GRACE: Duration = Duration::from_secs(3);
/// Time for opening a stream, with its dial. A dial that takes longer continues by itself.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for writing a frame, for reading the rest of a frame, or for a receipt.
const FRAME_TIMEOUT: Duration = Duration::from_secs(120);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A packet that was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailed {
    /// The receiver's key is gone.
    Expired,
    /// Too much is queued for that peer.
    QueueFull,
    /// Nothing is known of the receiver any more.
    Forgotten,
}

/// A packet for one peer, with its share of the peer's queue.
pub struct Outgoing {
    packet: Packet,
    until: Time,
    since: Time,
    _room: [OwnedSemaphorePermit; 2],
}

/// The queues to all peers.
pub struct PacketQueues {
    opener: Opener,
    taps: Taps,
    clock: Clock,
    failures: mpsc::Sender<SendFailed>,
    peers: BTreeMap<NodeId, Queue>,
    links: watch::Receiver<Links>,
    room: Arc<Semaphore>,
    room_for_unlinked: Arc<Semaphore>,
    slowest: Slowest,
}

/// The longest time between the order to send a packet and its receipt, in milliseconds.
#[derive(Clone, Default)]
struct Slowest(Arc<AtomicU64>);

impl Slowest {
    fn note(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_max(millis, Ordering::Relaxed);
    }
}

struct Queue {
    room: Arc<Semaphore>,
    packets: mpsc::Sender<Outgoing>,
    /// Whether the peer was ever linked when a packet was queued for it.
    was_linked: bool,
}

impl PacketQueues {
    pub(super) fn new(
        opener: Opener,
        taps: Taps,
        clock: Clock,
        failures: mpsc::Sender<SendFailed>,
        links: watch::Receiver<Links>,
    ) -> Self {
        let room_for_unlinked = Arc::new(Semaphore::new(MAX_UNLINKED_KIB_IN_ALL));
        let room = Arc::new(Semaphore::new(MAX_QUEUED_KIB_IN_ALL));
        Self {
            opener,
            taps,
            clock,
            failures,
            peers: BTreeMap::new(),
            links,
            room,
            room_for_unlinked,
            slowest: Slowest::default(),
        }
    }

    /// Queues a packet.
    ///
    /// # Errors
    /// [`SendFailed::QueueFull`]; the packet is dropped.
    pub fn send(&mut self, to: NodeId, packet: Packet, until: Time) -> Result<(), SendFailed> {
        self.peers.retain(|_, queue| !queue.packets.is_closed());
        let queue = self.peers.entry(to).or_insert_with(|| {
            let (packets, queued) = mpsc::channel(MAX_QUEUED);
            let sender = Sender {
                to,
                opener: self.opener.clone(),
                taps: self.taps.clone(),
                clock: self.clock,
                failures: self.failures.clone(),
                links: self.links.clone(),
                queued,
                kept: VecDeque::new(),
                slowest: self.slowest.clone(),
            };
            tokio::spawn(sender.run());
            let room = Arc::new(Semaphore::new(MAX_QUEUED_KIB));
            Queue { room, packets, was_linked: false }
        });
        let kib = u32::try_from(packet.octets().len().div_ceil(1024)).unwrap_or(u32::MAX);
        let take = |room: &Arc<Semaphore>| {
            let taken = Arc::clone(room).try_acquire_many_owned(kib);
            taken.map_err(|_| SendFailed::QueueFull)
        };
        // A peer that was linked before will be linked again once its Tor, or this node's, is back.
        queue.was_linked |= self.links.borrow().contains(&to);
        let queued = MAX_QUEUED_KIB.saturating_sub(queue.room.available_permits());
        if !queue.was_linked
            && queued.saturating_add(packet.octets().len() / 1024) > MAX_UNLINKED_KIB
        {
            return Err(SendFailed::QueueFull);
        }
        let all = if queue.was_linked { &self.room } else { &self.room_for_unlinked };
        let _room = [take(all)?, take(&queue.room)?];
        let outgoing = Outgoing { packet, until, since: self.clock.now(), _room };
        queue.packets.try_send(outgoing).map_err(|_| SendFailed::QueueFull)
    }

    /// The longest time between the order to send a packet and its receipt.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest.0.load(Ordering::Relaxed))
    }

    /// Forgets the queue to a peer that is no longer known; sending in progress ends by itself.
    pub fn forget(&mut self, node: &NodeId) {
        self.peers.remove(node);
    }
}

/// Hands over the packets for one peer.
struct Sender {
    to: NodeId,
    opener: Opener,
    taps: Taps,
    clock: Clock,
    failures: mpsc::Sender<SendFailed>,
    links: watch::Receiver<Links>,
    queued: mpsc::Receiver<Outgoing>,
    /// Packets taken from the queue that have no receipt yet.
    kept: VecDeque<Outgoing>,
    slowest: Slowest,
}

impl Sender {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            if self.kept.is_empty() {
                match self.queued.recv().await {
                    Some(outgoing) => self.kept.push_back(outgoing),
                    None => return,
                }
            }
            if let Ok(stream) = self.open().await {
                // Serving ends with an error or with the node; `kept` holds what has no receipt.
                if let Ok(answered) = self.serve(stream).await
                    && answered > 0
                {
                    wait = FIRST_WAIT;
                }
            }
            if self.queued.is_closed() {
                // Nothing is known of the peer any more: what it did not take is lost, and what it
                // is charged for free again.
                return self.give_up().await;
            }
            self.pause(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            self.drop_expired().await;
        }
    }

    /// Waits until the time is over, or until a peer that was not linked becomes linked.
    async fn pause(&mut self, wait: Duration) {
        let to = self.to;
        let is_linked = self.links.borrow_and_update().contains(&to);
        let linked = async {
            // While the link is there, or when the swarm has ended, only the time counts.
            if is_linked || self.links.wait_for(|links| links.contains(&to)).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = linked => {}
        }
    }

    async fn open(&mut self) -> io::Result<Tapped<Stream>> {
        let peer = onion::peer_id(&self.to).ok_or(io::ErrorKind::InvalidInput)?;
        let opened = timeout(OPEN_TIMEOUT, self.opener.open(peer, PACKETS)).await;
        Ok(self.taps.on(opened??, &self.to))
    }

    /// Sends until the stream breaks; returns the number of receipts.
    async fn serve(&mut self, stream: Tapped<Stream>) -> io::Result<usize> {
        let (mut reader, mut writer) = stream.split();
        let mut sent = 0;
        let mut answered = 0;
        loop {
            while sent < self.kept.len() && sent < WINDOW {
                let Some(outgoing) = self.kept.get(sent) else { break };
                if outgoing.until <= self.clock.now() {
                    self.kept.remove(sent);
                    let _ = self.failures.send(SendFailed::Expired).await;
                    continue;
                }
                let write = write_frame(&mut writer, &outgoing.packet);
                if !matches!(timeout(FRAME_TIMEOUT, write).await, Ok(Ok(()))) {
                    return Ok(answered);
                }
                sent += 1;
            }
            let mut receipt = [0];
            tokio::select! {
                read = timeout(FRAME_TIMEOUT, reader.read(&mut receipt)), if sent > 0 => {
                    if !matches!(read, Ok(Ok(1))) || receipt != [TAKEN] {
                        return Ok(answered);
                    }
                    if let Some(taken) = self.kept.pop_front() {
                        self.slowest.note(self.clock.now().since(taken.since));
                    }
                    sent -= 1;
                    answered += 1;
                }
                next = self.queued.recv(), if self.kept.len() < WINDOW => match next {
                    Some(outgoing) => self.kept.push_back(outgoing),
                    None if self.kept.is_empty() => return Ok(answered),
                    None => tokio::time::sleep(FIRST_WAIT).await,
                },
            }
        }
    }

    async fn give_up(&mut self) {
        while let Ok(outgoing) = self.queued.try_recv() {
            self.kept.push_back(outgoing);
        }
        for outgoing in core::mem::take(&mut self.kept) {
            drop(outgoing);
            let _ = self.failures.send(SendFailed::Forgotten).await;
        }
    }

    /// Drops expired packets, also those still in the queue: the queue of an unreachable peer must
    /// not hold dead packets.
    async fn drop_expired(&mut self) {
        while let Ok(outgoing) = self.queued.try_recv() {
            self.kept.push_back(outgoing);
        }
        let now = self.clock.now();
        let before = self.kept.len();
        self.kept.retain(|outgoing| outgoing.until > now);
        for _ in self.kept.len()..before {
            let _ = self.failures.send(SendFailed::Expired).await;
        }
    }
}

async fn write_frame(
    writer: &mut (impl futures::AsyncWrite + Unpin),
    packet: &Packet,
) -> io::Result<()> {
    writer.write_all(&[packet.class().number()]).await?;
    writer.write_all(packet.octets()).await?;
    writer.flush().await
}

/// A packet, and the previous hop that handed it over.
pub struct Received {
    /// The previous hop.
    pub from: NodeId,
    /// The packet.
    pub packet: Packet,
}

/// The places of incoming streams.
#[derive(Clone)]
pub(crate) struct StreamPlaces {
    pub(crate) of_listed: Arc<Places>,
    pub(crate) of_strangers: Arc<Places>,
}

impl StreamPlaces {
    pub(crate) fn new(clock: Clock) -> Self {
        let places = |most| Places::new(Rule { most, grace: GRACE, pace: u64::MAX }, clock);
        Self { of_listed: places(OF_LISTED), of_strangers: places(OF_STRANGERS) }
    }
}

/// Where what peers send is taken.
#[derive(Clone)]
pub(super) struct Intake {
    pub(super) packets: mpsc::Sender<Received>,
    /// Whether packets are taken at present.
    pub(super) takes: watch::Receiver<bool>,
    pub(super) taps: Taps,
    pub(super) losing: Losing,
}

/// Takes the streams that peers open, and queues what they send.
pub(super) async fn receive(
    mut incoming: Opened,
    intake: Intake,
    listed: watch::Receiver<BTreeSet<NodeId>>,
    places: StreamPlaces,
) {
    let mut peers: BTreeMap<NodeId, Arc<Semaphore>> = BTreeMap::new();
    while let Some((peer, stream)) = incoming.recv().await {
        let Some(node) = onion::node_id(&peer) else { continue };
        peers.retain(|_, streams| streams.available_permits() < STREAMS_PER_PEER);
        let own = peers.entry(node).or_insert_with(|| Arc::new(Semaphore::new(STREAMS_PER_PEER)));
        let Ok(own) = Arc::clone(own).try_acquire_owned() else { continue };
        let kind = match listed.borrow().contains(&node) {
            true => &places.of_listed,
            false => &places.of_strangers,
        };
        let Some(seat) = kind.try_take() else { continue };
        let intake = intake.clone();
        tokio::spawn(async move {
            // However it ends, the peer sees a closed stream and nothing else.
            tokio::select! {
                _ = intake.receive_frames(node, stream, &seat) => {}
                () = seat.ended() => {}
            }
            drop(own);
        });
    }
}

impl Intake {
    async fn receive_frames(mut self, from: NodeId, stream: Stream, seat: &Seat) -> io::Result<()> {
        let mut stream = self.taps.on(stream, &from);
        loop {
            self.takes.wait_for(|takes| *takes).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            let mut class = [0];
            if stream.read(&mut class).await? == 0 {
                return Ok(());
            }
            let [class] = class;
            let class = SizeClass::from_number(class).ok_or(io::ErrorKind::InvalidData)?;
            let mut octets = vec![0; class.packet_len()];
            timeout(FRAME_TIMEOUT, stream.read_exact(&mut octets)).await??;
            let packet = Packet::from_octets(octets).map_err(|_| io::ErrorKind::InvalidData)?;
            seat.add(u64::try_from(packet.octets().len()).unwrap_or(u64::MAX));
            if !self.losing.takes_next() {
                let received = Received { from, packet };
                self.packets.send(received).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            stream.write_all(&[TAKEN]).await?;
            stream.flush().await?;
        }
    }
}

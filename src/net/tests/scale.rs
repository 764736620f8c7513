//! Two hundred swarms in one process, and a joiner that has a thousand records to catch up with.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use keys::{Identity, OnionAddress};
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    DialOpts, ListenerId, MemoryTransport, TransportError, TransportEvent,
};
use libp2p::core::upgrade::Version;
use libp2p::gossipsub;
use libp2p::swarm::{Config, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, noise, yamux};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use record::Statement;
use remailer::{Judgement, Remailer, Setup};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::floods::Mint;
use super::hostile::status;
use super::tap::{Ear, Tap};
use super::world::World;
use crate::net::behaviour::{Behaviour, BehaviourEvent};
use crate::net::connect::DevnetFolder;
use crate::net::gossip::{Said, topic};
use crate::net::onion;
use crate::store::{Database, Store};

const SWARMS: usize = 200;
/// Each swarm dials this many others, and is dialled by as many: 16 links.
const DIALLED: usize = 8;
const RECORDS: usize = 20;

/// libp2p's memory transport, where onion addresses are ports.
pub(super) struct MemoryOnions {
    pub(super) inner: MemoryTransport,
    pub(super) ports: Arc<BTreeMap<Multiaddr, Multiaddr>>,
}

impl MemoryOnions {
    fn port(&self, onion: &Multiaddr) -> Multiaddr {
        let onion: Multiaddr = onion.iter().take(1).collect();
        self.ports.get(&onion).cloned().unwrap_or_else(Multiaddr::empty)
    }
}

impl Transport for MemoryOnions {
    type Output = <MemoryTransport as Transport>::Output;
    type Error = <MemoryTransport as Transport>::Error;
    type ListenerUpgrade = <MemoryTransport as Transport>::ListenerUpgrade;
    type Dial = <MemoryTransport as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        onion: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        let port = self.port(&onion);
        self.inner.listen_on(id, port)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        onion: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        let port = self.port(&onion);
        self.inner.dial(port, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A swarm, a statement that it heard, and when.
type Heard = (usize, directory::ItemId, Instant);

struct Member {
    number: usize,
    swarm: Swarm<Behaviour>,
    remailer: Remailer,
    world: Arc<World>,
    heard: mpsc::UnboundedSender<Heard>,
}

impl Member {
    /// Judges statements as a node does, and publishes those that it is given as orders.
    async fn run(mut self, mut orders: mpsc::Receiver<Vec<u8>>, mut end: oneshot::Receiver<()>) {
        let network = self.world.descriptor.id();
        let topic = topic(&network);
        loop {
            tokio::select! {
                _ = &mut end => return,
                Some(octets) = orders.recv() => {
                    let gossip = &mut self.swarm.behaviour_mut().gossip.inner;
                    gossip.publish(topic.clone(), octets).unwrap();
                }
                event = self.swarm.select_next_some() => {
                    if let SwarmEvent::Behaviour(BehaviourEvent::Gossip(Said::Gossip(
                        gossipsub::Event::Message { propagation_source, message_id, message },
                    ))) = event
                    {
                        let name = directory::ItemId::of(&message.data);
                        let checked = Statement::check(&message.data, &network);
                        let now = self.world.clock.now();
                        let rng = &mut StdRng::seed_from_u64(2);
                        let judged = self.remailer.handle_statement(checked, now, rng);
                        assert_eq!(judged, Judgement::Accept);
                        while self.remailer.next_command().is_some() {}
                        let gossip = &mut self.swarm.behaviour_mut().gossip.inner;
                        gossip.report_message_validation_result(
                            &message_id,
                            &propagation_source,
                            gossipsub::MessageAcceptance::Accept,
                        );
                        let _ = self.heard.send((self.number, name, Instant::now()));
                    }
                }
            }
        }
    }
}

pub(super) fn identity(number: usize) -> Identity {
    let mut seed = [5; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    Identity::from_seed(&seed)
}

pub(super) fn address(number: usize) -> Multiaddr {
    onion::multiaddr(&OnionAddress::of(identity(number).node()).unwrap())
}

/// A port of the process for each of so many swarms, which no other call is given.
pub(super) fn memory_ports(swarms: usize) -> Arc<BTreeMap<Multiaddr, Multiaddr>> {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let first = NEXT.fetch_add(swarms, Ordering::Relaxed);
    let port = |number| (address(number), format!("/memory/{}", first + number).parse().unwrap());
    Arc::new((0..swarms).map(port).collect())
}

/// Counts the octets that it hears.
pub(super) fn counting_ear() -> (Ear, Arc<AtomicU64>) {
    let octets = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&octets);
    let ear: Ear = Arc::new(move |heard| {
        counted.fetch_add(u64::try_from(heard.len()).unwrap(), Ordering::Relaxed);
    });
    (ear, octets)
}

pub(super) fn swarm(
    number: usize,
    world: &World,
    carrier: MemoryOnions,
    ear: Ear,
) -> Swarm<Behaviour> {
    let keypair = onion::keypair(&identity(number)).unwrap();
    let transport = carrier
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .map(move |(peer, muxer), _| {
            let inner = StreamMuxerBox::new(muxer);
            (peer, StreamMuxerBox::new(Tap { inner, ear: Arc::clone(&ear) }))
        })
        .boxed();
    let behaviour = Behaviour::new(&world.descriptor.id(), world.clock).unwrap();
    let peer = keypair.public().to_peer_id();
    Swarm::new(transport, behaviour, peer, Config::with_tokio_executor())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a process that has nothing else to do"]
async fn a_record_reaches_two_hundred_swarms() {
    let world = Arc::new(World::new());
    let mut rng = StdRng::seed_from_u64(1);
    let ports = memory_ports(SWARMS);
    let (ear, octets) = counting_ear();
    let (heard_in, mut heard) = mpsc::unbounded_channel();
    let (mut orders, mut ends) = (Vec::new(), Vec::new());
    for number in 0..SWARMS {
        let carrier = MemoryOnions { inner: MemoryTransport::new(), ports: Arc::clone(&ports) };
        let mut swarm = swarm(number, &world, carrier, Arc::clone(&ear));
        swarm.listen_on(address(number)).unwrap();
        let topic = topic(&world.descriptor.id());
        swarm.behaviour_mut().gossip.inner.subscribe(&topic).unwrap();
        let earlier = (0..number).sample(&mut rng, DIALLED);
        let peer =
            |number: &usize| -> PeerId { onion::peer_id(&identity(*number).node()).unwrap() };
        earlier.iter().for_each(|other| swarm.dial(peer(other)).unwrap());
        let setup = Setup::new(identity(number), Arc::new(world.descriptor.clone()));
        let remailer = Remailer::new(setup, world.clock.now(), &mut rng);
        let heard = heard_in.clone();
        let member = Member { number, swarm, remailer, world: Arc::clone(&world), heard };
        let (order, taken) = mpsc::channel(RECORDS);
        let (end, ended) = oneshot::channel();
        tokio::spawn(member.run(taken, ended));
        orders.push(order);
        ends.push(end);
    }
    // Meshes form with the heartbeats.
    tokio::time::sleep(Duration::from_secs(5)).await;

    let mut mint = Mint::new(&world);
    mint.keys = 3;
    let quiet = octets.load(Ordering::Relaxed);
    let (mut delays, mut size) = (Vec::new(), 0);
    for number in 0..RECORDS {
        let author = number * SWARMS / RECORDS;
        let record = mint.record(&identity(author), 1);
        let name = directory::ItemId::of(&record);
        size = record.len();
        let start = Instant::now();
        orders[author].send(record).await.unwrap();
        for _ in 1..SWARMS {
            let (who, what, when) = timeout(Duration::from_secs(30), heard.recv())
                .await
                .expect("it reaches all")
                .unwrap();
            assert!(what == name && who != author);
            delays.push(when.duration_since(start));
        }
    }
    delays.sort_unstable();
    let total = octets.load(Ordering::Relaxed) - quiet;
    let each = total / u64::try_from(SWARMS * RECORDS).unwrap();
    println!(
        "{SWARMS} swarms, {RECORDS} records of {size} octets: heard by all after {:.0?} (p50), {:.0?} (p99), \
         {:.0?} at most; {each} octets per node and record",
        delays[delays.len() / 2],
        delays[delays.len() * 99 / 100],
        delays[delays.len() - 1]
    );
    assert!(each < 12 * u64::try_from(size).unwrap(), "fewer copies than mesh links");
}

/// Passes a port on, and counts what goes by.
async fn counting_proxy(port: u16, octets: Arc<AtomicU64>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let octets = Arc::clone(&octets);
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let passed = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                let (up, down) = passed.unwrap_or_default();
                octets.fetch_add(up + down, Ordering::Relaxed);
            });
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a process that has nothing else to do"]
async fn a_joiner_catches_up_with_a_thousand_records() {
    const KNOWN: usize = 1000;
    let world = World::new();
    let mut mint = Mint::new(&world);
    mint.keys = 3;
    let mut size = 0;
    {
        let store = Store::open(&world.state()).unwrap();
        let mut database = Database::open(store.folder()).unwrap();
        for number in 0..KNOWN {
            let record = mint.record(&identity(number), 1);
            database.keep(&directory::ItemId::of(&record), &record).unwrap();
            size += record.len() as u64;
        }
    }
    let first = world.node("", None).await;
    let octets = Arc::new(AtomicU64::new(0));
    let devnet = world.folder.path().join("devnet");
    let port = std::fs::read_to_string(devnet.join(first.onion.to_string())).unwrap();
    let proxy = counting_proxy(port.trim().parse().unwrap(), Arc::clone(&octets)).await;
    let path = world.folder.path().join("other-devnet");
    let other = DevnetFolder::open(&path).unwrap();
    std::fs::write(path.join(first.onion.to_string()), format!("{proxy}\n")).unwrap();

    let start = Instant::now();
    let joiner = world.node_in(other, "joiner", &[first.onion]).await;
    let folder = world.folder.path().join("joiner");
    let caught_up = async {
        while status(&folder).await.known < KNOWN {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), caught_up).await.unwrap();
    let took = start.elapsed();
    joiner.stop().await.unwrap();
    first.stop().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let passed = octets.load(Ordering::Relaxed);
    println!(
        "a joiner with {KNOWN} records of a peer's directory: {took:.2?}, {passed} octets, {:.3} times those \
         of the records",
        passed as f64 / size as f64
    );
    assert!(passed * 10 < size * 13, "{passed} octets for {size}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

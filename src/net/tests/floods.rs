//! Peers that say too much, against a whole node.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use std::time::Duration;

use keys::{Epoch, Identity, MixPublic, Time};
use libp2p::swarm::StreamProtocol;
use record::{Draft, testing};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::hostile::{peers, status};
use super::raw::{MESHSUB, RawPeer, rpc};
use super::world::World;
use crate::clock::Clock;
use crate::driver::Node;
use crate::net::gossip::topic;

const SOON: Duration = Duration::from_secs(30);

fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Makes statements, all with one mix key: the cost of making keys is not what is tested.
pub(super) struct Mint {
    network: keys::NetworkId,
    epoch: Epoch,
    clock: Clock,
    key: MixPublic,
    pub(super) keys: u32,
}

impl Mint {
    pub(super) fn new(world: &World) -> Self {
        let (clock, now) = (world.clock, world.clock.now());
        let epoch = world.descriptor.parameters().schedule().epoch_at(now);
        let key = testing::key(1, epoch);
        Self { network: world.descriptor.id(), epoch, clock, key, keys: 1 }
    }

    pub(super) fn record(&self, identity: &Identity, sequence: u64) -> Vec<u8> {
        self.draft(sequence, self.epoch, self.clock.now()).sign(identity, &self.network).unwrap()
    }

    fn draft(&self, sequence: u64, epoch: Epoch, published_at: Time) -> Draft {
        let keys = (0..self.keys).map(|ahead| (epoch.plus(ahead), self.key.clone()));
        Draft { sequence, keys: keys.collect(), ..testing::blank(published_at) }
    }

    /// Makes, in turn, a bad signature, a record years old, and the first record of a new identity.
    fn statement(&self, number: u64) -> Vec<u8> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        seed[31] = 77;
        let identity = Identity::from_seed(&seed);
        match number % 4 {
            0 | 1 => {
                let mut forged = self.record(&Identity::from_seed(&[3; 32]), number);
                let last = forged.len() - 1;
                forged[last] ^= 0x01;
                forged
            }
            2 => {
                let draft = self.draft(number, Epoch::new(1), Time::from_millis(40_000_000));
                draft.sign(&Identity::from_seed(&[4; 32]), &self.network).unwrap()
            }
            _ => self.record(&identity, 1),
        }
    }
}

/// How long a client waits for the greeting and the answers to three commands.
async fn smtp_answers(node: &Node) -> Duration {
    let start = Instant::now();
    let stream = TcpStream::connect(node.smtp).await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader).lines();
    for command in ["", "HELO x\r\n", "MAIL FROM:<a@b.example>\r\n", "RCPT TO:<c@d.example>\r\n"] {
        writer.write_all(command.as_bytes()).await.unwrap();
        timeout(SOON, reader.next_line()).await.unwrap().unwrap().unwrap();
    }
    start.elapsed()
}

async fn knows(node: &std::path::Path, onion: &str) -> bool {
    let known = async {
        while !peers(node).await.iter().any(|peer| peer.onion == onion) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, known).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a process that has nothing else to do"]
async fn two_hundred_thousand_statements_end_their_link_and_harm_nobody() {
    const STATEMENTS: u64 = 200_000;
    let world = World::new();
    let node = world.node("", None).await;
    let second = world.node_at("second", &[node.onion]).await;
    assert!(knows(&world.state(), &second.onion.to_string()).await);
    let mut usual = Duration::ZERO;
    for _ in 0..10 {
        usual = usual.max(smtp_answers(&node).await);
    }
    let mint = Mint::new(&world);
    let topic = topic(&world.descriptor.id()).to_string();
    let before = memory_mib();
    let (mut sent, mut links) = (0, 0);
    let (mut slowest, mut most) = (Duration::ZERO, before);
    // One peer comes under one new name after the other: each link ends, and the next begins.
    let mut third = None;
    while sent < STATEMENTS && links < 200 {
        let identity = Identity::from_seed(&[100 + u8::try_from(links % 150).unwrap(); 32]);
        links += 1;
        let Some(mut flooder) = RawPeer::dial(&world, &identity, &node.onion).await else {
            continue;
        };
        let hello = rpc::frame(&rpc::subscribe(&topic));
        let statements = (sent..STATEMENTS).map(|n| rpc::publish(&topic, &mint.statement(n)));
        let frames = std::iter::once(hello).chain(statements.map(|rpc| rpc::frame(&rpc)));
        let write = flooder.write_all(MESHSUB, frames);
        let (written, answered) = tokio::join!(write, smtp_answers(&node));
        sent += written.saturating_sub(1) as u64;
        slowest = slowest.max(answered);
        most = most.max(memory_mib());
        assert!(flooder.is_hung_up_on().await, "after {written} statements");
        if links == 3 {
            // An honest newcomer joins in the middle of the flood.
            third = Some(world.node_at("third", &[second.onion]).await);
        }
    }
    let third = third.unwrap();
    assert!(knows(&world.state(), &third.onion.to_string()).await, "honest news gets through");
    assert!(knows(&world.folder.path().join("second"), &third.onion.to_string()).await);
    let linked = peers(&world.state()).await;
    let linked = linked.iter().find(|peer| peer.onion == second.onion.to_string());
    assert!(linked.is_some_and(|peer| peer.linked), "nobody else is hung up on");
    let grown = most.max(memory_mib()) - before;
    println!(
        "{sent} statements over {links} links: memory {before} MiB and {grown} more, SMTP answers within \
         {usual:.0?} as a rule, {slowest:.0?} now"
    );
    assert!(grown < 50, "{grown} MiB more");
    assert!(slowest < usual + Duration::from_secs(2), "{slowest:?}");
    let counts = status(&world.state()).await.counts;
    assert!(counts.contains_key("record refused: record not signed by its identity"));
    let hung_up = counts.get("peer hung up on for too much");
    assert!(hung_up.is_some(), "status shows it: {counts:?}");
    for node in [node, second, third] {
        node.stop().await.unwrap();
    }
}

fn ids(number: u64) -> Vec<[u8; 32]> {
    (0..400).map(|n| *blake3::hash(&(number * 400 + n).to_le_bytes()).as_bytes()).collect()
}

/// Frames that are made while they are written: the cost of making them is not measured.
type Frames = Box<dyn Iterator<Item = Vec<u8>> + Send>;

fn many(count: u64, make: impl Fn(u64) -> Vec<u8> + Send + 'static) -> Frames {
    Box::new((0..count).map(move |number| rpc::frame(&make(number))))
}

/// Packs a hundred messages into each frame.
fn hundreds(make: impl Fn(u64) -> Vec<u8> + Send + 'static) -> Frames {
    many(1000, move |at| (0..100).flat_map(|n| make(at * 100 + n)).collect())
}

fn raw(parts: [Vec<u8>; 2]) -> Frames {
    Box::new(parts.into_iter())
}

/// What a hostile peer sends, and whether the node hangs up on it for that.
fn abuses(ours: &str) -> Vec<(&'static str, StreamProtocol, bool, Frames)> {
    let other = |number: u64| format!("fog/other/{number}");
    let sync = StreamProtocol::new("/fog/sync/3");
    let packets = StreamProtocol::new("/fog/packets/1");
    let [pruned, grafted, offered] = [ours.to_owned(), ours.to_owned(), ours.to_owned()];
    vec![
        ("extreme backoffs", MESHSUB, false, many(100, move |n| rpc::prune(&pruned, u64::MAX - n))),
        ("100,000 topics", MESHSUB, true, hundreds(move |n| rpc::subscribe(&other(n)))),
        ("grafts of 100,000 topics", MESHSUB, true, hundreds(move |n| rpc::graft(&other(n)))),
        ("grafts of ours", MESHSUB, true, hundreds(move |_| rpc::graft(&grafted))),
        ("false offers", MESHSUB, false, many(2000, move |n| rpc::ihave(&offered, &ids(n)))),
        ("wishes for what nobody has", MESHSUB, false, many(2000, |n| rpc::iwant(&ids(n)))),
        ("refusals", MESHSUB, false, many(2000, |n| rpc::idontwant(&ids(n)))),
        ("empty frames", MESHSUB, true, many(100_000, |_| Vec::new())),
        ("a frame of 4 GiB", MESHSUB, false, raw([rpc::varint(1 << 32), vec![0; 100_000]])),
        ("half a frame", MESHSUB, false, raw([rpc::varint(20_000), vec![0; 10]])),
        ("no frame at all", MESHSUB, false, raw([vec![0xff; 1 << 20], vec![]])),
        ("a question of 4 GiB", sync.clone(), false, raw([vec![0xff; 4], vec![0; 100_000]])),
        ("half a question", sync, false, raw([vec![0, 0, 0, 9], vec![1]])),
        ("a packet of no class", packets.clone(), false, raw([vec![200; 100_000], vec![]])),
        ("half a packet", packets, false, raw([vec![0; 9000], vec![]])),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures a process that has nothing else to do"]
async fn abuses_of_gossip_and_streams_harm_nobody_else() {
    let world = World::new();
    let node = world.node("", None).await;
    let honest = world.node_at("honest", &[node.onion]).await;
    assert!(knows(&world.state(), &honest.onion.to_string()).await);
    let before = memory_mib();
    let topic = topic(&world.descriptor.id()).to_string();
    let mut abusers = Vec::new();
    for (number, (what, protocol, ends, frames)) in (1..).zip(abuses(&topic)) {
        let identity = Identity::from_seed(&[number; 32]);
        let mut abuser = RawPeer::dial(&world, &identity, &node.onion).await.unwrap();
        let hello = rpc::frame(&rpc::subscribe(&topic));
        let first = (protocol == MESHSUB).then_some(hello);
        abuser.write_all(protocol, first.into_iter().chain(frames)).await;
        if ends {
            assert!(abuser.is_hung_up_on().await, "{what}");
            let again = RawPeer::dial(&world, &identity, &node.onion).await;
            let mut again = match again {
                None => continue,
                Some(again) => again,
            };
            assert!(again.is_hung_up_on().await, "{what}: it is let in again");
        }
        abusers.push(abuser);
    }
    // A thousand streams are opened and abandoned.
    let mut opener = RawPeer::dial(&world, &Identity::from_seed(&[60; 32]), &node.onion).await;
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let opened = opener.as_mut().unwrap().open(StreamProtocol::new("/fog/packets/1"));
        if let Ok(Some(stream)) = timeout(Duration::from_millis(20), opened).await {
            streams.push(stream);
        }
        if streams.len() > 100 {
            break;
        }
    }
    assert!(streams.len() <= 100, "{} streams of one peer", streams.len());
    let grown = memory_mib().saturating_sub(before);
    println!("after {} kinds of abuse: {grown} MiB more", abusers.len() + 1);
    assert!(grown < 64, "{grown} MiB more");

    // The honest peer is still linked and hears new statements.
    let linked = peers(&world.state()).await;
    let linked = linked.iter().find(|peer| peer.onion == honest.onion.to_string()).unwrap();
    assert!(linked.linked && linked.score.unwrap_or_default() >= 0.0);
    let newcomer = world.node_at("newcomer", &[node.onion]).await;
    assert!(knows(&world.folder.path().join("honest"), &newcomer.onion.to_string()).await);
    for node in [node, honest, newcomer] {
        node.stop().await.unwrap();
    }
}

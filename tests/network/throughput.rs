//! How many packets a whole node passes on: stream in, opened, its tag kept on disk, pool, stream out,
//! over Noise on loopback.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use fog::clock::Clock;
use fog::net::Handle;
use keys::{Epoch, Identity, MixPublic, MixSecret, MixSeed, NodeId};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sphinx::{Body, End, EpochKey, EpochKeys, Hop, Packet, peel, wrap};

use crate::devnet::wait_for;
use crate::node::Node;
use crate::operate::{all_usable, network};
use crate::rotation::{id, seed, stranger};

const PACKETS: usize = 24_000;
/// Peers that bring them: one alone would fill its share of the node.
const PEERS: u8 = 4;

/// Keeps this thread, and what it starts from now on, on one processor.
fn stay_on(processor: &str) {
    let thread = fs::read_link("/proc/thread-self").unwrap();
    let mut command = std::process::Command::new("taskset");
    command.args(["-p", "-c", processor]).arg(thread.file_name().unwrap());
    assert!(command.output().unwrap().status.success());
}

/// A packet that the first node passes on to the second, which has no key for it yet and drops it at
/// once: the second costs what a link costs, and no more.
fn packet(nodes: [NodeId; 2], epoch: u32, keys: [&MixPublic; 2], rng: &mut StdRng) -> Packet {
    let hop = |node, epoch, key| Hop { node, epoch: Epoch::new(epoch), key, delay: Duration::ZERO };
    let [first, second] = nodes;
    let [of_first, of_second] = keys;
    let nobody = Identity::from_seed(&[99; 32]).node();
    let hops = [
        hop(first, epoch, of_first),
        hop(second, epoch + 2, of_second),
        hop(nobody, epoch + 2, of_second),
    ];
    wrap(&hops, &Body { end: End::Drop, ..Body::default() }, rng).unwrap()
}

/// Packets a second that one processor opens, and does nothing else.
fn opened(key: &Arc<EpochKey>, packet: &[u8]) -> f64 {
    let keys = EpochKeys::new(vec![Arc::clone(key)]);
    let (start, times) = (Instant::now(), 5000);
    for _ in 0..times {
        let packet = Packet::from_octets(packet.to_vec()).unwrap();
        assert!(peel(packet, &keys).unwrap().outcome.is_ok());
    }
    f64::from(times) / start.elapsed().as_secs_f64()
}

/// Processor time that a node has used.
fn processor_time(node: &Node) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.process())).unwrap();
    let ticks = stat.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Packets a second that arrive at the node behind.
fn passed_on(peers: &mut [Handle], to: NodeId, packets: &[Packet], end: &Node) -> f64 {
    let until = Clock::start().now().plus(Duration::from_secs(600));
    let counted = |end: &Node| end.count("packet dropped: early");
    let runtime = tokio::runtime::Handle::current();
    let mut sent = packets.chunks(PACKETS / usize::from(PEERS)).zip(peers);
    thread::scope(|scope| {
        for (packets, peer) in &mut sent {
            let runtime = runtime.clone();
            scope.spawn(move || {
                let _inside = runtime.enter();
                for packet in packets {
                    // A full queue drops what it does not take.
                    let again = || Packet::from_octets(packet.octets().to_vec()).unwrap();
                    while peer.queues.send(to, again(), until).is_err() {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
        let (first, most) = (PACKETS as u64 / 10, PACKETS as u64 * 9 / 10);
        let limit = Duration::from_secs(60);
        let from = wait_for("the beginning", limit, || {
            Some((counted(end), Instant::now())).filter(|(count, _)| *count >= first)
        });
        let mut last = from;
        wait_for("the end", limit, || {
            last = (counted(end), Instant::now());
            (last.0 >= most).then_some(())
        });
        (last.0 - from.0) as f64 / (last.1 - from.1).as_secs_f64()
    })
}

/// The node has a processor of its own; whoever brings packets to it, and the next node, have another.
#[test]
#[ignore = "a measurement"]
fn a_node_passes_on_a_share_of_what_a_processor_opens() {
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = network(&folder, 4, "300");
    for (node, processor) in nodes.iter_mut().zip(["0", "1", "1", "1"]) {
        stay_on(processor);
        node.start_in(&[("RUST_LOG", "warn".to_owned())]);
    }
    all_usable(&nodes);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let (first, second) = (id(&nodes[0]), id(&nodes[1]));
    let devnet = folder.path().join("devnet");
    let mut peers: Vec<_> = (0..PEERS)
        .map(|number| runtime.block_on(stranger(&devnet, &nodes[0], 200 + number)))
        .collect();
    // All of it has to happen in one epoch of 36 s.
    let epoch = wait_for("a young epoch", Duration::from_secs(60), || {
        let status = nodes[0].ask("status");
        let left = status["epoch_ends_in_ms"].as_u64().unwrap();
        (left > 33_000).then(|| u32::try_from(status["epoch"].as_u64().unwrap()).unwrap())
    });
    let mut rng = StdRng::seed_from_u64(1);
    let secret = MixSecret::from_seed(&seed(&nodes[0], epoch).unwrap());
    let key = Arc::new(EpochKey::new(first, Epoch::new(epoch), secret));
    let other = MixSecret::from_seed(&MixSeed::generate(&mut rng));
    let packets: Vec<_> = (0..PACKETS)
        .map(|_| packet([first, second], epoch, [key.public(), other.public()], &mut rng))
        .collect();
    let before = opened(&key, packets[0].octets());
    let used = processor_time(&nodes[0]);
    let passed = passed_on(&mut peers, first, &packets, &nodes[1]);
    let used = processor_time(&nodes[0]).saturating_sub(used);
    let after = opened(&key, packets[0].octets());
    let opened = f64::midpoint(before, after);
    let (each, alone) = (used.as_secs_f64() / PACKETS as f64, 1.0 / opened);
    println!(
        "packets of 16 KiB: opened by one processor in {:.0} µs; passed on by a node that has one for \
         itself {passed:.0} a second, in {:.0} µs of its time: {:.0} % of it is opening",
        1e6 * alone,
        1e6 * each,
        100.0 * alone / each
    );
    // What came after the end of its epoch was dropped before it was opened.
    assert!(nodes[0].count("packet relayed") * 10 > PACKETS as u64 * 9);
}

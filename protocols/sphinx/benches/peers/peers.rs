//! The packet of fog beside `sphinx-packet` (nym) and `mixnet` (parity), in one run and in turn: what
//! one hop costs from the octets that arrive to the octets that leave, and what a sender pays for five
//! hops. Prints ratios; above 1 fog is faster.
//!
//! `mixnet` has one size, 2 KiB of payload, and opens packets only as a part of its node: its figures
//! include its replay filter and queues, and larger contents are as many packets as they need.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use aes::Aes256;
use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use curve25519_dalek::montgomery::MontgomeryPoint;
use fog_keys::{Epoch, Identity, MixSecret, MixSeed};
use fog_sphinx::{Body, EpochKey, EpochKeys, Hop, Layer, Packet, SizeClass, peel, wrap};
use mixnet::core::{
    Config, Mixnet, Mixnode, NetworkStatus, PeerId, RelSessionIndex, SessionConfig, SessionPhase,
    SessionStatus,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use sphinx_packet::header::delays;
use sphinx_packet::packet::builder::SphinxPacketBuilder;
use sphinx_packet::route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes};
use sphinx_packet::{ProcessedPacketData, SphinxPacket};
use x25519_dalek::{PublicKey, StaticSecret};

const HOPS: usize = 5;
/// Octets of fog's header.
const HEADER_LEN: usize = 7_186;
/// Samples of each contender; a sample is some milliseconds of work.
const ROUNDS: usize = 60;
const SAMPLE: Duration = Duration::from_millis(4);

/// The median time of one call of each contender, sampled in turn. A contender prepares what a call
/// needs before the time starts.
fn medians(contenders: &mut [Box<dyn FnMut(u32) -> Duration + '_>]) -> Vec<f64> {
    let times: Vec<u32> = contenders
        .iter_mut()
        .map(|run| {
            run(3);
            let once = run(3).as_secs_f64() / 3.0;
            ((SAMPLE.as_secs_f64() / once) as u32).clamp(1, 64)
        })
        .collect();
    let mut samples = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for _ in 0..ROUNDS {
        for ((run, times), samples) in contenders.iter_mut().zip(&times).zip(&mut samples) {
            samples.push(run(*times).as_secs_f64() / f64::from(*times));
        }
    }
    samples
        .into_iter()
        .map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            samples[samples.len() / 2]
        })
        .collect()
}

fn timed(times: u32, mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        call();
    }
    start.elapsed()
}

struct Fog {
    route: Vec<Arc<EpochKey>>,
    first: EpochKeys,
    rng: ChaCha20Rng,
}

impl Fog {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let key = |_| {
            let node = Identity::generate(&mut rng).node();
            let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
            Arc::new(EpochKey::new(node, Epoch::new(1), secret))
        };
        let route: Vec<_> = (0..HOPS).map(key).collect();
        let first = EpochKeys::new(route[..1].to_vec());
        Self { route, first, rng }
    }

    fn wrap(&mut self, class: SizeClass, content: &[u8]) -> Packet {
        let delay = Duration::ZERO;
        let hop = |key: &'_ Arc<EpochKey>| (key.node(), key.epoch());
        let hops: Vec<_> = self
            .route
            .iter()
            .map(|key| Hop { node: hop(key).0, epoch: hop(key).1, key: key.public(), delay })
            .collect();
        wrap(&hops, &Body { class, content, ..Body::default() }, &mut self.rng).unwrap()
    }

    fn peeling(&mut self, class: SizeClass) -> impl FnMut(u32) -> Duration + use<> {
        let octets = self.wrap(class, &[]).octets().to_vec();
        let first = self.first.clone();
        move |times| {
            timed(times, || {
                let packet = Packet::from_octets(octets.to_vec()).unwrap();
                let peeled = peel(packet, &first).unwrap();
                assert!(matches!(peeled.outcome, Ok(Layer::Forward { .. })));
                black_box(peeled.tag);
            })
        }
    }

    fn wrapping(&mut self, class: SizeClass) -> impl FnMut(u32) -> Duration + '_ {
        let content = vec![7; class.capacity()];
        move |times| timed(times, || drop(black_box(self.wrap(class, &content))))
    }
}

struct Nym {
    route: Vec<Node>,
    first: StaticSecret,
}

impl Nym {
    fn new() -> Self {
        let secrets: Vec<_> = (0..HOPS).map(|at| StaticSecret::from([at as u8 + 1; 32])).collect();
        let node = |secret: &StaticSecret| {
            let public = PublicKey::from(secret);
            Node::new(NodeAddressBytes::from_bytes(*public.as_bytes()), public)
        };
        Self { route: secrets.iter().map(node).collect(), first: secrets[0].clone() }
    }

    /// A packet with this much payload; its header and payload overhead come on top.
    fn wrap(&self, payload: usize, content: &[u8]) -> SphinxPacket {
        let to = DestinationAddressBytes::from_bytes([3; 32]);
        let delays = delays::generate_from_average_duration(HOPS, Duration::from_millis(10));
        SphinxPacketBuilder::new()
            .with_payload_size(payload)
            .build_packet(content, &self.route, &Destination::new(to, [4; 16]), &delays)
            .unwrap()
    }

    /// The payload of a packet of this length on the wire.
    fn payload(&self, wire: usize) -> usize {
        2048 + wire - self.wrap(2048, &[7]).to_bytes().len()
    }

    fn peeling(&self, payload: usize) -> impl FnMut(u32) -> Duration + '_ {
        let octets = self.wrap(payload, &[7]).to_bytes();
        move |times| {
            timed(times, || {
                let packet = SphinxPacket::from_bytes(&octets).unwrap();
                match packet.process(&self.first).unwrap().data {
                    ProcessedPacketData::ForwardHop { next_hop_packet, .. } => {
                        black_box(next_hop_packet.to_bytes());
                    }
                    ProcessedPacketData::FinalHop { .. } => panic!("five hops"),
                }
            })
        }
    }

    fn wrapping(&self, payload: usize, content: usize) -> impl FnMut(u32) -> Duration + '_ {
        let content = vec![7; content];
        move |times| {
            timed(times, || {
                black_box(self.wrap(payload, &content).to_bytes());
            })
        }
    }
}

/// What one packet of `mixnet` carries, beside the fields of its fragments.
const OF_PARITY: usize = 2000;

struct Parity {
    sender: (PeerId, Mixnet<()>),
    relays: HashMap<PeerId, Mixnet<()>>,
    message: u64,
}

struct All(PeerId);

impl NetworkStatus for All {
    fn local_peer_id(&self) -> PeerId {
        self.0
    }

    fn is_connected(&self, _: &PeerId) -> bool {
        true
    }
}

impl Parity {
    fn new() -> Self {
        let config = || {
            let mut config = Config {
                gen_cover_packets: false,
                num_hops: HOPS,
                forward_packet_queue_capacity: 1 << 20,
                ..Config::default()
            };
            let queue = |session: &mut SessionConfig| {
                session.authored_packet_queue.capacity = 4096;
                session.authored_packet_queue.multiple_messages = true;
            };
            queue(&mut config.mixnode_session);
            config.non_mixnode_session.iter_mut().for_each(queue);
            config
        };
        let mut nodes: Vec<(PeerId, Mixnet<()>)> =
            (0..20).map(|at| ([at; 32], Mixnet::new(config()))).collect();
        let status = |current_index| SessionStatus {
            current_index,
            phase: SessionPhase::DisconnectFromPrev,
        };
        nodes.iter_mut().for_each(|(_, node)| node.set_session_status(status(0)));
        let mixnode = |(peer_id, node): &mut (PeerId, Mixnet<()>)| Mixnode {
            kx_public: *node.next_kx_public(),
            peer_id: *peer_id,
            extra: (),
        };
        let mixnodes: Vec<_> = nodes.iter_mut().skip(1).map(mixnode).collect();
        for (_, node) in &mut nodes {
            node.set_session_status(status(1));
            node.maybe_set_mixnodes(RelSessionIndex::Current, &mut || Ok(mixnodes.clone()));
        }
        let sender = nodes.remove(0);
        Self { sender, relays: nodes.into_iter().collect(), message: 0 }
    }

    fn wrap(&mut self) {
        self.message += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.message.to_be_bytes());
        let (own, node) = &mut self.sender;
        let content = [7; OF_PARITY];
        let sent = node.post_request(1, &mut None, &id, content[..].into(), 0, &All(*own));
        assert!(sent.is_ok());
    }

    /// The next packet that was wrapped. At times the node would send cover instead, and gives none.
    fn next(&mut self) -> (PeerId, Box<mixnet::core::Packet>) {
        let (own, node) = &mut self.sender;
        loop {
            if let Some(packet) = node.pop_next_authored_packet(&All(*own)) {
                return (packet.peer_id, packet.packet);
            }
        }
    }

    /// Packets for their first hop.
    fn packets(&mut self, number: usize) -> Vec<(PeerId, Box<mixnet::core::Packet>)> {
        (0..number)
            .map(|_| {
                self.wrap();
                self.next()
            })
            .collect()
    }

    fn peel(&mut self, packets: usize, times: u32) -> Duration {
        let all = self.packets(packets * times as usize);
        let start = Instant::now();
        for (to, packet) in &all {
            assert!(self.relays.get_mut(to).unwrap().handle_packet(packet).is_none());
        }
        let took = start.elapsed();
        let mut passed_on = 0;
        for node in self.relays.values_mut() {
            while node.pop_next_forward_packet().is_some() {
                passed_on += 1;
            }
        }
        assert_eq!(passed_on, all.len());
        took
    }

    fn wrapping(&mut self, packets: usize, times: u32) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..times {
            took += timed(packets as u32, || self.wrap());
            for _ in 0..packets {
                self.next();
            }
        }
        took
    }
}

fn micros(seconds: f64) -> String {
    format!("{:.0} µs", seconds * 1e6)
}

/// What one hop of fog is made of, each part by itself.
fn parts() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
    let (ciphertext, _) = secret.public().encapsulate(&mut rng).unwrap();
    let scalar = StaticSecret::from([7; 32]);
    let point = PublicKey::from(&StaticSecret::from([9; 32]));
    // The same by the Edwards form, and by graviola's assembler behind the check that the point is one
    // of the curve, as a mix key does it.
    let on_curve = || MontgomeryPoint(*black_box(&point).as_bytes()).to_edwards(0).unwrap();
    let edwards = || on_curve().mul_clamped([7; 32]).to_montgomery();
    let by_assembler = graviola::key_agreement::x25519::StaticPrivateKey::from_array(&[7; 32]);
    let peer = graviola::key_agreement::x25519::PublicKey::from_array(point.as_bytes());
    let header = [3; HEADER_LEN];
    let stream = |octets: &mut [u8]| {
        Ctr128BE::<Aes256>::new(&[5; 32].into(), &[0; 16].into()).apply_keystream(octets);
    };
    let names = [
        "X25519, ladder",
        "X25519, Edwards form",
        "X25519, assembler",
        "check that the point is on the curve",
        "decapsulation, both halves",
        "header MAC",
        "header stream",
    ];
    let mut region = [0; HEADER_LEN];
    let times = medians(&mut [
        Box::new(|times| {
            timed(times, || drop(black_box(scalar.diffie_hellman(black_box(&point)))))
        }),
        Box::new(|times| timed(times, || _ = black_box(edwards()))),
        Box::new(|times| {
            timed(times, || drop(black_box(by_assembler.diffie_hellman(black_box(&peer)))))
        }),
        Box::new(|times| timed(times, || _ = black_box(on_curve()))),
        Box::new(|times| {
            timed(times, || drop(black_box(secret.decapsulate(&ciphertext).unwrap())))
        }),
        Box::new(|times| timed(times, || _ = black_box(blake3::keyed_hash(&[4; 32], &header)))),
        Box::new(|times| timed(times, || stream(black_box(&mut region)))),
    ]);
    println!("| part | time |\n|---|---|");
    for (name, time) in names.iter().zip(times) {
        println!("| {name} | {} |", micros(time));
    }
    for kib in [16, 64, 256] {
        let mut payload = vec![0; kib * 1024 - HEADER_LEN];
        let cipher = Aes256Gcm::new(&[6; 32].into());
        let tag =
            cipher.encrypt_inout_detached(&[0; 12].into(), &[], payload.as_mut_slice().into());
        let (tag, sealed) = (tag.unwrap(), payload.clone());
        let mut copy = sealed.clone();
        let time = medians(&mut [Box::new(|times| {
            timed(times, || {
                copy.copy_from_slice(&sealed);
                let cipher = Aes256Gcm::new(&[6; 32].into());
                let opened = cipher.decrypt_inout_detached(
                    &[0; 12].into(),
                    &[],
                    copy.as_mut_slice().into(),
                    &tag,
                );
                opened.unwrap();
            })
        })]);
        println!("| payload of {kib} KiB | {} |", micros(time[0]));
    }
    println!();
}

/// Packets that this many threads open in a while, each with packets of its own.
fn opened_by(threads: usize, fog: &Fog, octets: &[u8]) -> f64 {
    const WHILE: Duration = Duration::from_millis(250);
    let opening = || {
        let (start, mut opened) = (Instant::now(), 0);
        while start.elapsed() < WHILE {
            for _ in 0..16 {
                let packet = Packet::from_octets(octets.to_vec()).unwrap();
                black_box(peel(packet, &fog.first).unwrap().tag);
                opened += 1;
            }
        }
        f64::from(opened) / start.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(opening)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// How much more all processors open than one does.
fn processors(fog: &mut Fog) {
    let all = thread::available_parallelism().map_or(1, usize::from);
    let octets = fog.wrap(SizeClass::of_packet(16 * 1024).unwrap(), &[]).octets().to_vec();
    let mut ratios: Vec<_> =
        (0..20).map(|_| opened_by(all, fog, &octets) / opened_by(1, fog, &octets)).collect();
    ratios.sort_by(f64::total_cmp);
    println!("\n{all} processors peel {:.2} times what one does.", ratios[ratios.len() / 2]);
}

fn main() {
    parts();
    let (mut fog, nym, mut parity) = (Fog::new(), Nym::new(), Parity::new());

    println!("Equal length on the wire:\n");
    println!(
        "| packet | fog peels | sphinx-packet | ratio | fog wraps 5 hops | sphinx-packet | ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    for kib in [16, 24, 64, 256] {
        let class = SizeClass::of_packet(kib * 1024).unwrap();
        let payload = nym.payload(kib * 1024);
        let peels = medians(&mut [Box::new(fog.peeling(class)), Box::new(nym.peeling(payload))]);
        let content = class.capacity();
        let wraps =
            medians(&mut [Box::new(fog.wrapping(class)), Box::new(nym.wrapping(payload, content))]);
        println!(
            "| {kib} KiB | {} | {} | {:.2} | {} | {} | {:.2} |",
            micros(peels[0]),
            micros(peels[1]),
            peels[1] / peels[0],
            micros(wraps[0]),
            micros(wraps[1]),
            wraps[1] / wraps[0],
        );
    }

    println!("\nEqual carried octets; fog in the smallest class that holds them:\n");
    println!(
        "| carried | fog peels | sphinx-packet / fog | mixnet / fog | fog wraps 5 hops | \
         sphinx-packet / fog | mixnet / fog |"
    );
    println!("|---|---|---|---|---|---|---|");
    for kib in [2, 16, 64] {
        let octets = kib * 1024;
        let class = SizeClass::holding(octets).unwrap();
        // Its plaintext has a security parameter of zeros, an address and an identifier before it.
        let payload = octets + 128;
        let packets = octets.div_ceil(OF_PARITY);
        let peels = medians(&mut [
            Box::new(fog.peeling(class)),
            Box::new(nym.peeling(payload)),
            Box::new(|times| parity.peel(packets, times)),
        ]);
        let wraps = medians(&mut [
            Box::new(fog.wrapping(class)),
            Box::new(nym.wrapping(payload, octets)),
            Box::new(|times| parity.wrapping(packets, times)),
        ]);
        println!(
            "| {kib} KiB | {} | {:.2} | {:.2} | {} | {:.2} | {:.2} |",
            micros(peels[0]),
            peels[1] / peels[0],
            peels[2] / peels[0],
            micros(wraps[0]),
            wraps[1] / wraps[0],
            wraps[2] / wraps[0],
        );
    }
    processors(&mut fog);
}

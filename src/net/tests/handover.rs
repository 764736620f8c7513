//! A peer without an address, and packets for the tokens that it presents.

use std::path::Path;
use std::time::Duration;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use keys::Identity;
use libp2p::swarm::Stream;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use record::{Record, Statement};
use sphinx::{Body, End, Hop, Payload, SizeClass, StreamToken, wrap};
use tokio::time::timeout;

use super::hostile::status;
use super::raw::RawPeer;
use super::world::World;
use crate::net::handover::HANDOVER;
use crate::net::packets::PACKETS;

/// Three windows of three seconds, and as many again.
const SOON: Duration = Duration::from_secs(60);

async fn record(world: &World, name: &str) -> Record {
    let path = world.folder.path().join(name).join("own");
    let network = world.descriptor.id();
    let read = || match Statement::check(&std::fs::read(&path).ok()?, &network).ok()? {
        Statement::Record(signed) => signed.timely(world.clock.now(), &world.schedule()).ok(),
        Statement::Vouch(_) | Statement::Proof(_) | Statement::Vote(_) => None,
    };
    let found = async {
        loop {
            if let Some(record) = read() {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, found).await.unwrap()
}

async fn known(state: &Path, nodes: usize) {
    let known = async {
        while status(state).await.known < nodes {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, known).await.unwrap();
}

/// Presents tokens; the octets that come first.
async fn present(peer: &mut RawPeer, number: u8, tokens: &[[u8; 16]]) -> Stream {
    let mut stream = peer.open(HANDOVER).await.unwrap();
    // A node that has hung up on nonsense takes no more of it.
    let _ = stream.write_all(&[number]).await;
    let _ = stream.write_all(&tokens.concat()).await;
    let _ = stream.flush().await;
    stream
}

async fn is_closed(stream: &mut Stream) -> bool {
    let read = timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

async fn frame(stream: &mut Stream) -> (u8, [u8; 16], Payload) {
    let (mut class, mut name) = ([0], [0; 16]);
    timeout(SOON, stream.read_exact(&mut class)).await.unwrap().unwrap();
    let [class] = class;
    stream.read_exact(&mut name).await.unwrap();
    let mut octets = vec![0; SizeClass::from_number(class).unwrap().payload_len()];
    stream.read_exact(&mut octets).await.unwrap();
    (class, name, Payload::from_octets(octets).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the sender is no node, and seals for itself")]
async fn a_peer_without_an_address_is_handed_what_comes_for_its_tokens() {
    let world = World::new();
    let first = world.node("", None).await;
    let bootstrap = [first.onion];
    let second = world.node_at("second", &bootstrap).await;
    let last = world.node_at("last", &bootstrap).await;
    let mut records = Vec::new();
    for name in ["state", "second", "last"] {
        records.push(record(&world, name).await);
        known(&world.folder.path().join(name), 3).await;
    }
    let epoch = world.schedule().epoch_at(world.clock.now());
    let mut rng = StdRng::seed_from_u64(1);
    let (token, old) = ([7; 16], [8; 16]);
    let mut packet = |number: u8| {
        let hop = |record: &'_ Record| (record.node(), record.key(epoch).unwrap().clone());
        let hops: Vec<_> = records.iter().map(hop).collect();
        let delay = Duration::ZERO;
        let hops: Vec<_> =
            hops.iter().map(|(node, key)| Hop { node: *node, epoch, key, delay }).collect();
        let end = End::Stream(StreamToken::from_bytes(token));
        let body = Body { end, content: &[9, number], ..Body::default() };
        wrap(&hops, &body, &mut rng).unwrap()
    };

    let identity = Identity::from_seed(&[77; 32]);
    let mut to_last = RawPeer::dial(&world, &identity, &last.onion).await.unwrap();
    let mut to_first = RawPeer::dial(&world, &identity, &first.onion).await.unwrap();
    let mut packets = to_first.open(PACKETS).await.unwrap();
    for number in 0..2 {
        let packet = packet(number);
        packets.write_all(&[packet.class().number()]).await.unwrap();
        packets.write_all(packet.octets()).await.unwrap();
        packets.flush().await.unwrap();
        packets.read_exact(&mut [0]).await.unwrap();
    }
    // Nonsense is answered with the end of the stream, and the place is free again.
    for number in [0, 9, 255] {
        let mut nonsense = present(&mut to_last, number, &[token]).await;
        assert!(is_closed(&mut nonsense).await, "{number} tokens");
    }

    let mut stream = present(&mut to_last, 2, &[old, token]).await;
    let mut spare = present(&mut to_last, 1, &[[9; 16]]).await;
    let mut third = present(&mut to_last, 1, &[[10; 16]]).await;
    assert!(is_closed(&mut third).await, "a third stream of one peer");
    spare.close().await.unwrap();
    drop(spare);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (class, name, payload) = frame(&mut stream).await;
        assert_eq!((class, name), (SizeClass::SMALLEST.number(), [0; 16]));
        seen.push(payload.content().unwrap()[1]);
    }
    stream.write_all(&[1]).await.unwrap();
    stream.flush().await.unwrap();
    let state = world.folder.path().join("last");
    let handed_over = async |times: u64| {
        let counted = async {
            while status(&state).await.counts.get("packet handed over on a stream") != Some(&times)
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SOON, counted).await.unwrap();
    };
    handed_over(1).await;
    assert_eq!(status(&state).await.held.for_streams, 1);

    // The second has no receipt: the next stream with the token is handed it again.
    drop(stream);
    let mut stream = present(&mut to_last, 1, &[token]).await;
    let (_, _, again) = frame(&mut stream).await;
    assert_eq!(again.content().unwrap()[1], seen[1]);
    stream.write_all(&[1]).await.unwrap();
    stream.flush().await.unwrap();
    handed_over(2).await;
    assert_eq!(status(&state).await.held.for_streams, 0);
    seen.sort_unstable();
    assert_eq!(seen, [0, 1]);

    // A receipt for nothing ends the stream.
    stream.write_all(&[1]).await.unwrap();
    stream.flush().await.unwrap();
    assert!(is_closed(&mut stream).await);
    for node in [first, second, last] {
        node.stop().await.unwrap();
    }
}

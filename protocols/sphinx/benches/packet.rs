//! Wrapping for five hops and peeling one layer, whole packets of the classes 16, 64 and 256 KiB.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fog_sphinx::{Body, EpochKey, EpochKeys, Hop, Packet, SizeClass, peel, wrap};
use keys::{Epoch, Identity, MixSecret, MixSeed};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;

fn packets(criterion: &mut Criterion) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let epoch = Epoch::new(1);
    let route: Vec<_> = (0..5)
        .map(|_| {
            let node = Identity::generate(&mut rng).node();
            let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
            Arc::new(EpochKey::new(node, epoch, secret))
        })
        .collect();
    let hops: Vec<_> = route
        .iter()
        .map(|key| Hop { node: key.node(), epoch, key: key.public(), delay: Duration::ZERO })
        .collect();
    let first = EpochKeys::new(route.iter().take(1).cloned().collect());

    // What one Diffie-Hellman costs on this machine: the measure for the rest.
    let scalar = x25519_dalek::StaticSecret::from([7; 32]);
    let point = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from([9; 32]));
    criterion.bench_function("x25519 ladder", |bencher| {
        bencher.iter(|| scalar.diffie_hellman(std::hint::black_box(&point)));
    });

    for kib in [16, 64, 256] {
        let class = SizeClass::of_packet(kib * 1024).unwrap();
        let content = vec![0; class.capacity()];
        let body = Body { class, content: &content, ..Body::default() };
        let octets = wrap(&hops, &body, &mut rng).unwrap().octets().to_vec();

        let mut group = criterion.benchmark_group("packet");
        group.throughput(Throughput::Bytes(octets.len() as u64));
        group.bench_function(BenchmarkId::new("wrap 5 hops", format!("{kib} KiB")), |bencher| {
            bencher.iter(|| wrap(&hops, &body, &mut rng).unwrap());
        });
        group.bench_function(BenchmarkId::new("peel", format!("{kib} KiB")), |bencher| {
            bencher.iter_batched(
                || Packet::from_octets(octets.clone()).unwrap(),
                |packet| peel(packet, &first).unwrap(),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, packets);
criterion_main!(benches);

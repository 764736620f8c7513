//! What it costs to verify a statement, beside one ed25519 verification.
#![allow(missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signer as _, SigningKey};
use fog_record::{Draft, Statement, VouchDraft, VouchRole, Word, testing};
use keys::{Checked, Epoch, Identity, NetworkId, Schedule};

const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);

fn statements(criterion: &mut Criterion) {
    let minute = Duration::from_secs(60);
    let schedule = Schedule::new(minute * 180, minute * 30, minute * 10);
    let now = schedule.start(Epoch::new(165_000));
    let identity = Identity::from_seed(&[1; 32]);
    let key = |ahead| {
        let epoch = Epoch::new(165_000).plus(ahead);
        (epoch, testing::key(1, epoch))
    };
    let draft = Draft { keys: (0..4).map(key).collect(), ..testing::blank(now) };
    let record = draft.sign(&identity, &NETWORK);
    let vouch = VouchDraft {
        word: Word::Vouch,
        subject: Identity::from_seed(&[2; 32]).node(),
        role: VouchRole::Exit,
        since: now,
        issued_at: now,
        expires_at: now.plus(minute),
        extensions: Vec::new(),
    };
    let vouch = vouch.sign(&identity, &NETWORK);
    let (Ok(record), Ok(vouch)) = (record, vouch) else { return };

    let signer = SigningKey::from_bytes(&[1; 32]);
    let message = vec![0; record.len()];
    let (verifier, signature) = (signer.verifying_key(), signer.sign(&message));
    criterion.bench_function("one ed25519 verification of 5 KB", |bencher| {
        bencher.iter(|| black_box(verifier.verify_strict(black_box(&message), &signature)));
    });
    criterion.bench_function("a record of four keys", |bencher| {
        bencher.iter(|| black_box(Statement::check(black_box(&record), &NETWORK)));
    });
    // Its next record: three of its four keys were in the one before.
    let mut known = Checked::default();
    let before = Statement::check_knowing(&record, &NETWORK, &mut known);
    let next = Draft {
        sequence: 2,
        keys: (1..5).map(key).collect(),
        ..testing::blank(now.plus(minute * 180))
    };
    let (Ok(_), Ok(next)) = (before, next.sign(&identity, &NETWORK)) else { return };
    criterion.bench_function("the next record of a known identity", |bencher| {
        // Its new key is new each time.
        bencher.iter_batched_ref(
            || {
                let mut known = Checked::default();
                let _ = Statement::check_knowing(&record, &NETWORK, &mut known);
                known
            },
            |known| black_box(Statement::check_knowing(black_box(&next), &NETWORK, known)),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("a vouch", |bencher| {
        bencher.iter(|| black_box(Statement::check(black_box(&vouch), &NETWORK)));
    });
}

criterion_group!(benches, statements);
criterion_main!(benches);

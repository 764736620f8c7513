//! A node's record: how it is made, how it is read, and what is refused.
//!
//! `cargo run --example read_a_record`
#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;
use std::time::Duration;

use keys::{Epoch, Identity, MixSecret, MixSeed, NetworkId};
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use record::{
    Capacity, Draft, Features, ListSketch, Parameters, Record, StatementError, StatementHash,
    Unverified,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng = StdRng::try_from_rng(&mut SysRng)?;
    let identity = Identity::generate(&mut rng);
    let network = NetworkId::from_bytes([7; 32]);
    let schedule = Parameters::main().schedule();
    let now = schedule.start(Epoch::new(165_000)).plus(Duration::from_secs(600));

    let epoch = schedule.epoch_at(now);
    let keys = (0..3)
        .map(|ahead| {
            let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
            (epoch.plus(ahead), secret.public().clone())
        })
        .collect();
    let draft = Draft {
        sequence: 1,
        previous: StatementHash::NONE,
        published_at: now,
        keys,
        withdrawn: Vec::new(),
        exit: None,
        contact: "operator@example.org".into(),
        family: Vec::new(),
        traffic: [0; 9],
        delivered: 0,
        features: Features::default(),
        limits: Capacity::default(),
        list: (schedule.hour_at(now), ListSketch::default()),
        extensions: Vec::new(),
    };
    let octets = draft.sign(&identity, &network)?;
    println!("a record of {} octets", octets.len());

    // The only way to a `Record`: parsed, then signed, then of its time.
    let read = |octets: &[u8], at| -> Result<Record, StatementError> {
        Unverified::parse(octets)?.check_signature(&network)?.timely(at, &schedule)
    };
    let record = read(&octets, now)?;
    println!("by {}", record.onion());
    let epochs: Vec<_> = record.epochs().map(Epoch::number).collect();
    println!("with mix keys for the epochs {epochs:?}, contact {}", record.contact());

    let mut altered = octets.clone();
    if let Some(octet) = altered.get_mut(100) {
        *octet ^= 1;
    }
    for (what, octets, at) in [
        ("with one bit changed", &altered, now),
        ("an hour before it was published", &octets, now.minus(Duration::from_secs(3600))),
        ("a day later", &octets, now.plus(Duration::from_secs(86_400))),
    ] {
        let refused = read(octets, at).err().ok_or("it was taken")?;
        println!("{what}: {refused}");
    }
    Ok(())
}

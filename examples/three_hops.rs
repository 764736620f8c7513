//! One packet over three hops, in memory: what each hop learns, and that nobody can change it
//! unnoticed.
//!
//! `cargo run --example three_hops`
#![allow(clippy::print_stdout, reason = "an example")]
#![expect(
    clippy::disallowed_methods,
    reason = "shows the packet layer by itself; a node seals routes"
)]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use keys::{Epoch, Identity, MixSecret, MixSeed, OnionAddress};
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use sphinx::{Body, EpochKey, EpochKeys, Hop, Layer, Packet, peel, wrap};

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng = StdRng::try_from_rng(&mut SysRng)?;
    let epoch = Epoch::new(165_000);

    // Three nodes, each with an identity and a mix key for the epoch.
    let nodes: Vec<Arc<EpochKey>> = (0..3)
        .map(|_| {
            let identity = Identity::generate(&mut rng);
            let secret = MixSecret::from_seed(&MixSeed::generate(&mut rng));
            Arc::new(EpochKey::new(identity.node(), epoch, secret))
        })
        .collect();

    // The sender knows their public halves, and draws a delay for each.
    let hops: Vec<Hop<'_>> = nodes
        .iter()
        .zip([12, 3, 25])
        .map(|(key, seconds)| Hop {
            node: key.node(),
            epoch,
            key: key.public(),
            delay: Duration::from_secs(seconds),
        })
        .collect();
    let body = Body { content: b"hello", ..Body::default() };
    let mut packet = wrap(&hops, &body, &mut rng)?;

    for (number, key) in (1..).zip(&nodes) {
        let keys = EpochKeys::new(vec![Arc::clone(key)]);
        println!("hop {number} receives {} octets", packet.octets().len());

        let mut altered = packet.octets().to_vec();
        if let Some(last) = altered.last_mut() {
            *last ^= 1;
        }
        let refused = peel(Packet::from_octets(altered)?, &keys)?.outcome.err();
        println!("  one bit changed on the way: refused for its {}", refused.ok_or("taken")?);

        match peel(packet, &keys)?.outcome? {
            Layer::Forward { to, delay, packet: next } => {
                println!("  to be held {delay:?}, then sent to {}", OnionAddress::of(to)?);
                packet = next;
            }
            Layer::End { payload, .. } => {
                println!("  the end: {:?}", String::from_utf8_lossy(payload.content()?));
                return Ok(());
            }
            Layer::Reply { .. } | Layer::Stream { .. } => return Err("it is no reply".into()),
        }
    }
    Err("nobody was the last hop".into())
}

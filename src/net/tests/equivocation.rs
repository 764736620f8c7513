//! A node that shows two halves of a network different keys, against twenty whole nodes.

use std::time::Duration;

use keys::{Identity, OnionAddress};
use record::{Draft, testing};
use tokio::time::{Instant, sleep, timeout_at};

use super::hostile::peers;
use super::raw::{MESHSUB, RawPeer, rpc};
use super::world::World;
use crate::control::{NodeUse, ProvenBreach};
use crate::net::gossip::topic;

const NODES: usize = 20;
/// One minute of a network that is ten times as fast as the main one.
const SCALED_MINUTE: Duration = Duration::from_secs(6);

fn record(world: &World, identity: &Identity, keys: u64) -> Vec<u8> {
    let now = world.clock.now();
    let schedule = world.descriptor.parameters().schedule();
    let draft = Draft { sequence: keys, ..testing::draft(keys, now, &schedule) };
    draft.sign(identity, &world.descriptor.id()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_keys_shown_to_two_halves_are_proved_to_all_and_routed_through_by_none() {
    let world = World::new();
    let mut nodes = vec![world.node("", None).await];
    for number in 1..NODES {
        nodes.push(world.node_at(&format!("n{number}"), &[nodes[0].onion]).await);
    }
    for node in &mut nodes {
        node.progress.wait_for(|progress| progress.linked >= NODES - 1).await.unwrap();
    }
    let liar = Identity::from_seed(&[66; 32]);
    let onion = OnionAddress::of(liar.node()).unwrap().to_string();
    let topic = topic(&world.descriptor.id()).to_string();
    let shown = [record(&world, &liar, 1), record(&world, &liar, 1000)];
    let mut links = Vec::new();
    for node in &nodes {
        links.push(RawPeer::dial(&world, &liar, &node.onion).await.unwrap());
    }
    let deadline = Instant::now() + SCALED_MINUTE;
    let hello = rpc::frame(&rpc::subscribe(&topic));
    let tell = links.iter_mut().zip(shown.iter().cycle()).map(|(link, record)| {
        let frames = [hello.clone(), rpc::frame(&rpc::publish(&topic, record))];
        link.write_all(MESHSUB, frames.into_iter())
    });
    futures::future::join_all(tell).await;

    let folders = (0..NODES).map(|number| match number {
        0 => world.state(),
        _ => world.folder.path().join(format!("n{number}")),
    });
    for folder in folders {
        let convicted = async {
            loop {
                let known = peers(&folder).await;
                let seen = known.iter().find(|peer| peer.onion == onion);
                match seen.and_then(|peer| peer.unusable) {
                    Some(NodeUse::Convicted { breach: ProvenBreach::TwoKeys, .. }) => return,
                    _ => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout_at(deadline, convicted).await.expect("within a scaled minute");
    }
    for node in nodes {
        node.stop().await.unwrap();
    }
}

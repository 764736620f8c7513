//! A peer that speaks as nodes do and publishes what it must not, against a whole node.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use keys::{Identity, NetworkId, Time};
use libp2p::Swarm;
use record::{Draft, testing};
use tokio::time::timeout;

use super::world::World;
use crate::control::{self, ControlOrder, Peer, Response, Status};
use crate::net::behaviour::Behaviour;
use crate::net::connect::Connector;
use crate::net::gossip::topic;
use crate::net::tor::socks::DialPurpose;
use crate::net::transport::OnionTransport;
use crate::net::{onion, swarm};

const SOON: Duration = Duration::from_secs(20);
const NAME: &str = "the victim's contact";

fn record(world: &World, identity: &Identity, at: Time) -> Vec<u8> {
    let schedule = world.descriptor.parameters().schedule();
    let number = u64::from(identity.seed()[0]);
    let draft = Draft { contact: NAME.to_owned(), ..testing::draft(number, at, &schedule) };
    draft.sign(identity, &world.descriptor.id()).unwrap()
}

pub(super) async fn status(state: &Path) -> Status {
    let answer = control::call(state, ControlOrder::Status).await.unwrap();
    let Response::Status(status) = answer else { panic!("no status") };
    *status
}

pub(super) async fn peers(state: &Path) -> Vec<Peer> {
    let answer = control::call(state, ControlOrder::Peers).await.unwrap();
    let Response::Peers(peers) = answer else { panic!("no peers") };
    peers
}

/// Publishes as soon as a peer listens, and again until the node has counted the statement.
async fn publish(
    swarm: &mut Swarm<Behaviour>,
    network: &NetworkId,
    octets: Vec<u8>,
    state: &Path,
    counted: &str,
    times: u64,
) {
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let mut octets = Some(octets);
    let done = async {
        loop {
            tokio::select! {
                _ = swarm.select_next_some() => {}
                _ = look.tick() => {
                    if let Some(now) = octets.take()
                        && swarm.behaviour_mut().gossip.inner.publish(topic(network), now.clone()).is_err()
                    {
                        octets = Some(now);
                    }
                    let counts = status(state).await.counts;
                    let like = counts.iter().filter(|(name, _)| name.starts_with(counted));
                    if like.map(|(_, count)| count).sum::<u64>() == times {
                        return;
                    }
                }
            }
        }
    };
    timeout(SOON, done).await.unwrap_or_else(|_| panic!("{counted}: not {times} times"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_about_nodes_are_refused_and_displace_nothing() {
    let world = World::new();
    let state = world.state();
    let node = world.node(NAME, None).await;
    let network = world.descriptor.id();
    let now = world.clock.now();
    let attacker = Identity::from_seed(&[2; 32]);
    let keypair = onion::keypair(&attacker).unwrap();
    let mut swarm = swarm::build(
        &keypair,
        OnionTransport::dialling(Connector::Devnet(world.devnet()), DialPurpose::Swarm),
        &network,
        world.clock,
    )
    .unwrap();
    swarm.behaviour_mut().gossip.inner.subscribe(&topic(&network)).unwrap();
    swarm.dial(onion::peer_id(&node.onion.node()).unwrap()).unwrap();

    // What is true is taken: the node's own record, and the attacker's, which may call itself the
    // same.
    let own = record(&world, &attacker, now);
    publish(&mut swarm, &network, own.clone(), &state, "record taken", 1).await;
    let known = peers(&state).await;
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].contact.as_str(), known[0].record_age_ms < 60_000), (NAME, true));

    // A key for another node's identity: the attacker's record with the other node's name.
    let mut stolen = own.clone();
    let at = stolen.windows(32).position(|w| w == attacker.node().as_bytes()).unwrap();
    stolen[at..at + 32].copy_from_slice(node.onion.node().as_bytes());
    // Tomorrow's record, which would be the newest for a day.
    let tomorrow = now.plus(Duration::from_secs(24 * 3600));
    let future = record(&world, &Identity::from_seed(&[3; 32]), tomorrow);
    let cut = own[..own.len() / 2].to_vec();
    let lies = [stolen, future, cut, vec![0; 1000], b"null".to_vec(), vec![0xff; 8192]];
    for (times, lie) in (1..).zip(lies) {
        publish(&mut swarm, &network, lie, &state, "record refused", times).await;
    }

    let after = peers(&state).await;
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].onion, known[0].onion);
    let status = status(&state).await;
    for reason in ["not signed by its identity", "from the future"] {
        assert_eq!(status.counts[&format!("record refused: record {reason}")], 1);
    }
    assert_eq!(status.counts["record published"], 1, "its own record is what it was");
    assert_eq!(status.known, 2);
    let score = timeout(SOON, async {
        loop {
            let score = peers(&state).await[0].score;
            match score {
                Some(score) if score < 0.0 => return score,
                _ => tokio::select! {
                    _ = swarm.select_next_some() => {}
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                },
            }
        }
    });
    assert!(score.await.unwrap() < 0.0, "who passes such things on has lost its standing");
    node.stop().await.unwrap();
}

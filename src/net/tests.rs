//! Swarms against each other on a devnet folder, and peers of every kind against whole nodes.

mod crowds;
mod equivocation;
mod floods;
mod handover;
mod hostile;
mod lists;
mod raw;
mod scale;
mod tap;
mod world;

use std::time::Duration;

use keys::Identity;
use libp2p::swarm::DialError;
use rand::SeedableRng as _;
use tokio::time::timeout;

use super::connect::DevnetFolder;
use super::tor::socks::DialPurpose;
use super::*;
use crate::clock::Clock;
use crate::failure::{Failure, FailureKind};
use crate::machine::Machine;

fn descriptor() -> record::Descriptor {
    let (maker, start) = (Identity::from_seed(&[9; 32]), keys::Time::from_millis(0));
    let (parameters, admission) = (record::Parameters::main(), record::Admission::Open);
    let voters = [maker.node()];
    record::Descriptor::create(&maker, "test", start, &parameters, &voters, &admission).unwrap()
}

const SOON: Duration = Duration::from_secs(20);

async fn start(seed: u8, folder: &std::path::Path, bootstrap: &[keys::OnionAddress]) -> Handle {
    let identity = Identity::from_seed(&[seed; 32]);
    let folder = DevnetFolder::open(folder).unwrap();
    let incoming = folder.listen(&onion(seed)).await.unwrap();
    let connector = connect::Connector::Devnet(folder);
    let rng = crate::entropy::generator().unwrap();
    let clock = Clock::start();
    let beginning = Beginning { bootstrap: bootstrap.to_vec(), chosen: Vec::new() };
    let machine = Machine::new(clock, rng);
    spawn(&identity, &descriptor(), connector, incoming, beginning, machine).unwrap()
}

fn onion(seed: u8) -> keys::OnionAddress {
    keys::OnionAddress::of(Identity::from_seed(&[seed; 32]).node()).unwrap()
}

async fn linked(handle: &mut Handle, count: usize) -> bool {
    timeout(SOON, handle.links.wait_for(|links| links.len() == count)).await.is_ok()
}

#[tokio::test]
async fn a_node_is_linked_by_its_address_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(1, folder.path(), &[]).await;
    let mut second = start(2, folder.path(), &[onion(1)]).await;
    assert!(linked(&mut first, 1).await && linked(&mut second, 1).await);
    assert!(first.links.borrow().contains(&onion(2).node()));
}

#[tokio::test]
async fn who_answers_with_another_key_is_not_linked() {
    let folder = tempfile::tempdir().unwrap();
    let mut impostor = start(1, folder.path(), &[]).await;
    // The folder now gives node 1's port for node 3.
    let port = std::fs::read(folder.path().join(onion(1).to_string())).unwrap();
    std::fs::write(folder.path().join(onion(3).to_string()), port).unwrap();

    let identity = Identity::from_seed(&[2; 32]);
    let keypair = onion::keypair(&identity).unwrap();
    let connector = connect::Connector::Devnet(DevnetFolder::open(folder.path()).unwrap());
    let mut swarm = swarm::build(
        &keypair,
        transport::OnionTransport::dialling(connector, DialPurpose::Swarm),
        &descriptor().id(),
        Clock::start(),
    )
    .unwrap();
    let peer = onion::peer_id(&onion(3).node()).unwrap();
    swarm.dial(peer).unwrap();
    let refused = async {
        use futures::StreamExt as _;
        loop {
            if let libp2p::swarm::SwarmEvent::OutgoingConnectionError { error, .. } =
                swarm.select_next_some().await
            {
                return error;
            }
        }
    };
    let error = timeout(SOON, refused).await.unwrap();
    assert!(matches!(error, DialError::WrongPeerId { .. }), "{error}");
    assert!(impostor.links.borrow_and_update().is_empty());
}

#[tokio::test]
async fn packets_are_kept_until_taken_and_sent_again_on_the_next_connection() {
    use sphinx::{Packet, SizeClass};
    let folder = tempfile::tempdir().unwrap();
    let mut sender = start(1, folder.path(), &[]).await;
    let packet =
        |number: u8| Packet::from_octets(vec![number; SizeClass::SMALLEST.packet_len()]).unwrap();
    let later = Clock::start().now().plus(Duration::from_secs(3600));
    // The receiver does not run yet.
    for number in 0..3 {
        sender.queues.send(onion(2).node(), packet(number), later).unwrap();
    }
    let mut receiver = start(2, folder.path(), &[]).await;
    for number in 0..3 {
        let got = timeout(SOON, receiver.packets.recv()).await.unwrap().unwrap();
        assert_eq!((got.from, got.packet.octets()[0]), (onion(1).node(), number));
    }
    // The receiver goes away without a word and comes back at another port.
    drop(receiver.orders);
    receiver.task.await.unwrap();
    sender.queues.send(onion(2).node(), packet(7), later).unwrap();
    let mut receiver = start(2, folder.path(), &[]).await;
    let got = timeout(SOON, receiver.packets.recv()).await.unwrap().unwrap();
    assert_eq!(got.packet.octets()[0], 7);
}

#[tokio::test]
async fn a_peer_that_comes_back_gets_its_packets_with_the_link() {
    use sphinx::{Packet, SizeClass};
    let folder = tempfile::tempdir().unwrap();
    let mut sender = start(1, folder.path(), &[]).await;
    let packet = Packet::from_octets(vec![5; SizeClass::SMALLEST.packet_len()]).unwrap();
    let later = Clock::start().now().plus(Duration::from_secs(3600));
    sender.queues.send(onion(2).node(), packet, later).unwrap();
    // By now the next attempt is some seconds away.
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let mut receiver = start(2, folder.path(), &[onion(1)]).await;
    assert!(linked(&mut receiver, 1).await);
    let got = timeout(Duration::from_secs(1), receiver.packets.recv()).await.unwrap().unwrap();
    assert_eq!(got.packet.octets()[0], 5);
}

#[tokio::test]
async fn a_packet_that_cannot_be_handed_over_expires_and_a_full_queue_refuses() {
    use sphinx::{Packet, SizeClass};
    let folder = tempfile::tempdir().unwrap();
    let mut sender = start(1, folder.path(), &[]).await;
    let class = SizeClass::LARGEST;
    let packet = || Packet::from_octets(vec![0; class.packet_len()]).unwrap();
    let past = Clock::start().now();
    let nobody = onion(2).node();
    let mut queued = 0;
    while sender.queues.send(nobody, packet(), past).is_ok() {
        queued += 1;
    }
    assert_eq!(queued, 4, "1 MiB of 256 KiB for a peer that is not there");
    for _ in 0..queued {
        let failure = timeout(SOON, sender.failures.recv()).await.unwrap();
        assert_eq!(failure, Some(SendFailed::Expired));
    }
    assert!(sender.queues.send(nobody, packet(), past).is_ok(), "there is room again");
}

#[tokio::test]
async fn what_is_queued_for_a_peer_that_is_forgotten_is_reported_and_frees_its_room() {
    use sphinx::{Packet, SizeClass};
    let folder = tempfile::tempdir().unwrap();
    let mut sender = start(1, folder.path(), &[]).await;
    let packet = || Packet::from_octets(vec![0; SizeClass::LARGEST.packet_len()]).unwrap();
    let later = Clock::start().now().plus(Duration::from_secs(3600));
    let nobody = onion(2).node();
    while sender.queues.send(nobody, packet(), later).is_ok() {}
    sender.queues.forget(&nobody);
    for _ in 0..4 {
        let failure = timeout(SOON, sender.failures.recv()).await.unwrap();
        assert_eq!(failure, Some(SendFailed::Forgotten));
    }
    assert!(sender.queues.send(nobody, packet(), later).is_ok(), "there is room again");
}

#[tokio::test]
async fn a_peer_that_was_linked_keeps_its_room_while_it_is_away() {
    use sphinx::{Packet, SizeClass};
    let folder = tempfile::tempdir().unwrap();
    let mut sender = start(1, folder.path(), &[onion(2)]).await;
    let mut receiver = start(2, folder.path(), &[]).await;
    assert!(linked(&mut sender, 1).await);
    let later = Clock::start().now().plus(Duration::from_secs(3600));
    let class = SizeClass::LARGEST;
    let packet = || Packet::from_octets(vec![0; class.packet_len()]).unwrap();
    sender.queues.send(onion(2).node(), packet(), later).unwrap();
    assert!(timeout(SOON, receiver.packets.recv()).await.unwrap().is_some());
    drop(receiver.orders);
    receiver.task.await.unwrap();
    assert!(linked(&mut sender, 0).await);
    for _ in 0..32 {
        assert!(sender.queues.send(onion(2).node(), packet(), later).is_ok());
    }
}

fn word_about(subject: u8) -> Vec<u8> {
    let draft = record::VouchDraft {
        word: record::Word::Vouch,
        subject: onion(subject).node(),
        role: record::VouchRole::Relay,
        since: keys::Time::from_millis(1),
        issued_at: keys::Time::from_millis(1),
        expires_at: keys::Time::from_millis(2),
        extensions: Vec::new(),
    };
    draft.sign(&Identity::from_seed(&[1; 32]), &descriptor().id()).unwrap()
}

#[tokio::test]
async fn gossip_reaches_others_only_when_it_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    // A line: 1 - 2 - 3.
    let first = start(1, folder.path(), &[]).await;
    let mut second = start(2, folder.path(), &[onion(1)]).await;
    let mut third = start(3, folder.path(), &[onion(2)]).await;
    assert!(linked(&mut second, 2).await && linked(&mut third, 1).await);
    for (subject, judgement) in [
        (7, remailer::Judgement::Reject),
        (8, remailer::Judgement::Ignore),
        (9, remailer::Judgement::Accept),
    ] {
        first.orders.send(SwarmOrder::Announce(word_about(subject))).await.unwrap();
        match timeout(SOON, second.events.recv()).await.unwrap() {
            Some(NetEvent::Statement { checked, judged }) => {
                assert_eq!(checked.unwrap().octets()[..], word_about(subject));
                second.orders.send(SwarmOrder::Judge(judged, judgement)).await.unwrap();
            }
            _ => panic!("something else than a statement"),
        }
    }
    match timeout(SOON, third.events.recv()).await.unwrap() {
        Some(NetEvent::Statement { checked, .. }) => {
            assert_eq!(checked.unwrap().octets()[..], word_about(9));
        }
        _ => panic!("something else than a statement"),
    }
}

#[tokio::test]
async fn a_joiner_takes_the_descriptor_from_a_bootstrap_and_no_other_network() {
    let folder = tempfile::tempdir().unwrap();
    let _first = start(1, folder.path(), &[]).await;
    let mut rng = rand::rngs::StdRng::seed_from_u64(5);
    let connector = || connect::Connector::Devnet(DevnetFolder::open(folder.path()).unwrap());
    let fetched =
        timeout(SOON, fetch_descriptor(connector(), &[onion(1)], |_| Ok(()), &mut rng)).await;
    let fetched = fetched.unwrap().unwrap();
    assert_eq!(fetched.octets(), descriptor().octets());
    let other = |_: &record::Descriptor| Err(Failure::new(FailureKind::Network, "not this one"));
    let refused = fetch_descriptor(connector(), &[onion(1)], other, &mut rng).await;
    assert_eq!(refused.unwrap_err().to_string(), "not this one");
    // The folder gives node 1's port for node 3.
    let port = std::fs::read(folder.path().join(onion(1).to_string())).unwrap();
    std::fs::write(folder.path().join(onion(3).to_string()), port).unwrap();
    let refused = fetch_descriptor(connector(), &[onion(3)], |_| Ok(()), &mut rng).await;
    assert!(refused.unwrap_err().to_string().contains("another key answers at"));
}

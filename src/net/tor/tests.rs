//! Swarms through a real tor, in a private Tor network. `tests/run` runs these; they need Debian's
//! tor.
#![allow(clippy::print_stdout, reason = "figures")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::StreamExt as _;
use keys::Identity;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use record::{Admission, Descriptor, Parameters};
use remailer::Judgement;
use tokio::time::{Instant, timeout};

use super::control::ControlAddress;
use super::private::PrivateTor;
use super::*;
use crate::machine::Machine;
use crate::net::connect::Connector;
use crate::net::dialling::dial_failed;
use crate::net::transport::OnionTransport;
use crate::net::{self, Handle, NetEvent, Reach, SwarmOrder, onion, swarm};

const PEERS: u8 = 40;

fn descriptor() -> Descriptor {
    let maker = Identity::from_seed(&[99; 32]);
    let start = keys::Time::from_millis(0);
    let (parameters, voters) = (Parameters::main(), [maker.node()]);
    Descriptor::create(&maker, "test", start, &parameters, &voters, &Admission::Open).unwrap()
}

async fn attach(seed: u8, client: &private::PrivateClient) -> (Identity, Tor) {
    let identity = Identity::from_seed(&[seed; 32]);
    let settings = TorSettings {
        mode: Mode::Running,
        control: Some(ControlAddress::Tcp(client.control)),
        socks: None,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    };
    let rng = crate::entropy::generator().unwrap();
    let folder = client.folder.join("unused");
    let (clock, startup) = (Clock::start(), Startup::default());
    let tor = Tor::start(settings, folder, identity.node(), clock, rng, &startup).await.unwrap();
    (identity, tor)
}

async fn start(identity: &Identity, tor: &mut Tor, bootstrap: &[OnionAddress]) -> Handle {
    let connector = Connector::Tor(tor.connector());
    let rng = crate::entropy::generator().unwrap();
    let (incoming, _) = tor.listen().await.unwrap();
    let clock = Clock::start();
    {
        let beginning = net::Beginning { bootstrap: bootstrap.to_vec(), chosen: Vec::new() };
        net::spawn(
            identity,
            &descriptor(),
            connector,
            incoming,
            beginning,
            Machine::new(clock, rng),
        )
    }
    .unwrap()
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tor"]
async fn through_one_tor() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let tor =
        PrivateTor::start(&folder.path().join("tor"), 2, &mut crate::entropy::generator().unwrap())
            .await
            .unwrap();
    forty_honest_peers_through_one_tor_keep_their_scores(&tor.clients()[0]).await;
    dials_of_dead_onions_leave_nothing_behind(&tor.clients()[1], &mut rng).await;
    tor.stop().await;
}

async fn forty_honest_peers_through_one_tor_keep_their_scores(client: &private::PrivateClient) {
    let (identity, mut tor) = attach(200, client).await;
    let own = OnionAddress::of(identity.node()).unwrap();
    let mut target = start(&identity, &mut tor, &[]).await;
    tor.serve(&identity, SocketAddr::from((Ipv4Addr::LOCALHOST, 1))).await.unwrap();
    let reachable = target.reach.wait_for(|reach| matches!(reach, Reach::Reachable { .. }));
    timeout(Duration::from_secs(60), reachable).await.unwrap().unwrap();

    let begun = Instant::now();
    let mut peers = Vec::new();
    for seed in 1..=PEERS {
        let (identity, mut tor) = attach(seed, client).await;
        peers.push((start(&identity, &mut tor, &[own]).await, tor));
    }
    let all = target.links.wait_for(|links| links.len() == usize::from(PEERS));
    timeout(Duration::from_secs(120), all).await.unwrap().unwrap();
    println!("{PEERS} inbound peers linked after {:.1?}", begun.elapsed());

    // Each peer sends a statement, which is accepted; then heartbeats pass.
    for (number, (peer, _)) in peers.iter().enumerate() {
        peer.orders
            .send(SwarmOrder::Announce(vec![u8::try_from(number).unwrap(); 100]))
            .await
            .unwrap();
    }
    let mut heard = 0;
    let mut lowest = f64::MAX;
    let end = Instant::now() + Duration::from_secs(45);
    while let Ok(event) = tokio::time::timeout_at(end, target.events.recv()).await {
        if let Some(NetEvent::Statement { judged, .. }) = event {
            heard += 1;
            target.orders.send(SwarmOrder::Judge(judged, Judgement::Accept)).await.unwrap();
        }
        lowest = target.scores.borrow().values().copied().fold(lowest, f64::min);
    }
    let scores = target.scores.borrow_and_update().clone();
    assert_eq!(heard, usize::from(PEERS), "everybody was heard");
    assert_eq!(scores.len(), usize::from(PEERS));
    let lowest = scores.values().copied().fold(lowest, f64::min);
    println!("lowest gossip score of {PEERS} honest peers through one Tor: {lowest:.2}");
    assert!(lowest >= 0.0, "{scores:?}");
}

/// Dials 300 addresses through tor, or 10,000 with `FOG_LONG` set: each costs the private network
/// a second of work; and 10,000 through a SOCKS port that gives tor's final answer at once.
async fn dials_of_dead_onions_leave_nothing_behind(
    client: &private::PrivateClient,
    rng: &mut StdRng,
) {
    let (identity, tor) = attach(201, client).await;
    let count = if std::env::var_os("FOG_LONG").is_some() { 10_000 } else { 300 };
    dial_dead_onions("tor", &identity, tor.connector(), count, rng).await;

    let socks = nobody_is_found().await;
    let (_state, state) = watch::channel(TorState {
        socks: Some(SocksPort { at: socks, owner: None }),
        ..TorState::default()
    });
    let connector = TorConnector::new(identity.node(), state, 0);
    dial_dead_onions("a SOCKS port", &identity, connector, 10_000, rng).await;
}

async fn dial_dead_onions(
    what: &str,
    identity: &Identity,
    connector: TorConnector,
    count: usize,
    rng: &mut StdRng,
) {
    const AT_ONCE: usize = 32;
    let keypair = onion::keypair(identity).unwrap();
    let mut swarm = swarm::build(
        &keypair,
        OnionTransport::dialling(Connector::Tor(connector), DialPurpose::Swarm),
        &descriptor().id(),
        Clock::start(),
    )
    .unwrap();
    let (mut begun, mut ended, mut early) = (0, 0, 0);
    let start = Instant::now();
    while ended < count {
        while begun < count && begun - ended < AT_ONCE {
            let dead = onion::peer_id(&Identity::generate(rng).node()).unwrap();
            swarm.dial(DialOpts::peer_id(dead).build()).unwrap();
            begun += 1;
        }
        let event = timeout(Duration::from_secs(120), swarm.select_next_some()).await.unwrap();
        if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
            let failed = dial_failed(&error);
            let failed = failed.unwrap_or_else(|| panic!("{error:?}"));
            assert!(matches!(failed, DialFailed::Refused(_) | DialFailed::TimedOut), "{failed}");
            ended += 1;
            if ended == count / 10 {
                early = memory_kib();
            }
        }
    }
    let late = memory_kib();
    println!(
        "through {what}: memory after {} dials of dead onions {early} KiB, after {count} {late} KiB, \
         {:.0?}",
        count / 10,
        start.elapsed()
    );
    assert!(late < early + 4 * 1024, "{early} KiB grew to {late} KiB");
}

/// A SOCKS port that finds no descriptor for any address.
async fn nobody_is_found() -> SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut octets = [0; 512];
                for answer in [&[5, 2][..], &[1, 0], &[5, 0xF0, 0, 1, 0, 0, 0, 0, 0, 0]] {
                    if stream.read(&mut octets).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    address
}

//! Joining: gets a network's descriptor from a node of which only the address is known.

use std::time::Duration;

use futures::StreamExt as _;
use keys::{Identity, OnionAddress};
use libp2p::request_response::{self, OutboundFailure};
use libp2p::swarm::{Config, DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{PeerId, Swarm, ping};
use rand::CryptoRng;
use record::Descriptor;
use tokio::time::{Instant, timeout_at};

use super::behaviour::{Addresses, DescriptorCodec, descriptor_exchange};
use super::connect::Connector;
use super::dialling::dial_failed;
use super::onion;
use super::tor::socks::{DialFailed, DialPurpose, Retry};
use super::transport::{OnionTransport, transport};
use crate::failure::{Failure, FailureKind};

/// Others find a bootstrap some seconds after its start; a bootstrap that is not found in this time
/// is down.
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// Bootstraps tried, at most.
const MAX_BOOTSTRAPS: usize = 16;

#[derive(NetworkBehaviour)]
struct Joining {
    addresses: Addresses,
    descriptor: request_response::Behaviour<DescriptorCodec>,
    /// Nodes hang up on a peer that does not answer pings.
    ping: ping::Behaviour,
}

/// Asks all bootstraps at once for their network's descriptor, and takes the first one that passes
/// `check`. The node asks under a throwaway key: it has no identity in the network yet.
///
/// # Errors
/// [`FailureKind::Network`] if no bootstrap answers in two minutes, or another key answers at a
/// bootstrap's address; or the failure of `check`.
pub async fn fetch_descriptor(
    connector: Connector,
    bootstrap: &[OnionAddress],
    check: impl Fn(&Descriptor) -> Result<(), Failure>,
    rng: &mut impl CryptoRng,
) -> Result<Descriptor, Failure> {
    let internal = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Internal, error);
    let keypair = onion::keypair(&Identity::generate(rng)).map_err(|error| internal(&error))?;
    let carrier = transport(&keypair, OnionTransport::dialling(connector, DialPurpose::Join));
    let carrier = carrier.map_err(|error| internal(&error))?;
    let behaviour = Joining {
        addresses: Addresses::default(),
        descriptor: descriptor_exchange(),
        ping: ping::Behaviour::default(),
    };
    let peer = keypair.public().to_peer_id();
    let mut swarm = Swarm::new(carrier, behaviour, peer, Config::with_tokio_executor());
    let mut asked: Vec<Asked> =
        bootstrap.iter().take(MAX_BOOTSTRAPS).filter_map(Asked::new).collect();

    let deadline = Instant::now() + JOIN_TIMEOUT;
    let mut wait = FIRST_WAIT;
    loop {
        for asked in asked.iter_mut().filter(|asked| asked.state == State::Due) {
            asked.state = State::UnderWay;
            // Sending a request also dials the peer.
            swarm.behaviour_mut().descriptor.send_request(&asked.peer, Vec::new());
        }
        let again = (Instant::now() + wait).min(deadline);
        wait = (wait * 2).min(LONGEST_WAIT);
        while asked.iter().any(|asked| asked.state != State::Over)
            && let Ok(event) = timeout_at(again, swarm.select_next_some()).await
        {
            if let Some((peer, octets)) = note(event, &mut asked) {
                let parsed = parse(&octets).and_then(|descriptor| {
                    check(&descriptor)?;
                    Ok(descriptor)
                });
                match parsed {
                    Ok(descriptor) => return Ok(descriptor),
                    Err(failure) => end(&mut asked, &peer, &failure),
                }
            }
        }
        if asked.iter().all(|asked| asked.state == State::Over) || Instant::now() >= deadline {
            let last = asked.into_iter().find_map(|asked| asked.failure);
            return Err(last.unwrap_or_else(|| nobody("it does not answer")));
        }
    }
}

struct Asked {
    onion: OnionAddress,
    peer: PeerId,
    state: State,
    failure: Option<Failure>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Due,
    UnderWay,
    /// Asking this bootstrap again would change nothing.
    Over,
}

impl Asked {
    fn new(onion: &OnionAddress) -> Option<Self> {
        let peer = onion::peer_id(&onion.node())?;
        Some(Self { onion: *onion, peer, state: State::Due, failure: None })
    }
}

fn end(asked: &mut [Asked], peer: &PeerId, failure: &Failure) {
    for asked in asked.iter_mut().filter(|asked| asked.peer == *peer) {
        asked.state = State::Over;
        asked.failure = Some(failure.clone());
    }
}

/// The peer and the octets of an answer, if the event is one.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others need nothing done")]
fn note(event: SwarmEvent<JoiningEvent>, asked: &mut [Asked]) -> Option<(PeerId, Vec<u8>)> {
    use request_response::{Event, Message};
    match event {
        SwarmEvent::Behaviour(JoiningEvent::Descriptor(event)) => match event {
            Event::Message { peer, message: Message::Response { response, .. }, .. } => {
                return Some((peer, response));
            }
            Event::OutboundFailure { peer, error, .. } => {
                let under_way = |asked: &&mut Asked| asked.state == State::UnderWay;
                for asked in asked.iter_mut().filter(|a| a.peer == peer).filter(under_way) {
                    asked.state = State::Due;
                    if let OutboundFailure::UnsupportedProtocols = error {
                        asked.failure = Some(nobody("it speaks another version of fog"));
                    }
                }
            }
            _ => {}
        },
        SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
            for asked in asked.iter_mut().filter(|asked| asked.peer == peer) {
                asked.note_dial(&error);
            }
        }
        _ => {}
    }
    None
}

impl Asked {
    fn note_dial(&mut self, error: &DialError) {
        if let DialError::WrongPeerId { .. } = error {
            self.state = State::Over;
            let cause = format!("another key answers at {}", self.onion);
            self.failure = Some(
                Failure::new(FailureKind::Network, cause)
                    .remedy("ask its operator where its onion service leads"),
            );
            return;
        }
        let why = dial_failed(error);
        if why == Some(DialFailed::NoTor) {
            self.state = State::Over;
            self.failure = Some(
                Failure::new(FailureKind::Tor, "Tor went away while a bootstrap was asked")
                    .remedy("see Tor's log, and try again"),
            );
            return;
        }
        if why.is_some_and(|why| why.retry() == Retry::Never) {
            self.state = State::Over;
        }
        self.failure = Some(match why {
            Some(why) => nobody(&why.to_string()),
            None => nobody("nobody answers there as a node does"),
        });
    }
}

fn nobody(why: &str) -> Failure {
    Failure::new(FailureKind::Network, format!("no bootstrap answers: {why}"))
        .remedy("see whether it runs, or name another with --bootstrap")
}

fn parse(octets: &[u8]) -> Result<Descriptor, Failure> {
    Descriptor::parse(octets).map_err(|error| {
        Failure::new(FailureKind::Network, format!("the bootstrap's network descriptor: {error}"))
            .remedy("name another with --bootstrap, or update this program")
    })
}

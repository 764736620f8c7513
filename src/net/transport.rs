//! A libp2p transport that knows onion addresses and nothing else.

use std::collections::VecDeque;
use std::future::{Future, Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use keys::OnionAddress;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, Transport, noise, yamux};
use tokio::time::Sleep;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use super::connect::Connector;
use super::incoming::{Arrived, Incoming};
use super::onion;
use super::tor::socks::DialPurpose;
use crate::clock::Clock;
use crate::places::{Places, Rule};

/// Pause after a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Time for a dial with its handshakes. It is long because dials wait for each other; the way
/// through Tor has a bound of its own.
const DIAL_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for a caller's handshakes: two round trips over two onion circuits.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(20);
/// Callers whose handshakes are under way. One that has not finished after some seconds goes when
/// another comes: it takes two round trips, and a caller that says nothing must not keep everybody
/// out.
const HANDSHAKES: Rule = Rule { most: 480, grace: Duration::from_secs(3), pace: u64::MAX };
/// How often a caller that waits looks for a place.
const SEAT_PAUSE: Duration = Duration::from_millis(50);
/// Octets that a caller has sent when its handshakes are over, at least: Noise's first message is 32
/// octets, and the third some 200.
const HANDSHAKE_OCTETS: u64 = 200;
/// Streams on one connection: gossip, packets, pings and catching up need fewer than ten.
pub(super) const MAX_STREAMS: usize = 32;

type Upgrade = Ready<io::Result<Compat<Arrived>>>;

/// Places for callers whose handshakes are under way.
pub(super) fn handshakes(clock: Clock) -> Arc<Places> {
    Places::new(HANDSHAKES, clock)
}

pub(crate) struct OnionTransport {
    connector: Connector,
    purpose: DialPurpose,
    /// The source of incoming streams, until listening starts.
    incoming: Option<(Incoming, Arc<Places>)>,
    listener: Option<Listener>,
    events: VecDeque<TransportEvent<Upgrade, io::Error>>,
    waker: Option<Waker>,
}

struct Listener {
    id: ListenerId,
    onion: OnionAddress,
    incoming: Incoming,
    handshakes: Arc<Places>,
    /// A caller that waits for a place. Others wait behind it, in the order in which they came.
    waiting: Option<Arrived>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl OnionTransport {
    /// A transport that only dials.
    pub(crate) fn dialling(connector: Connector, purpose: DialPurpose) -> Self {
        let events = VecDeque::new();
        Self { connector, purpose, incoming: None, listener: None, events, waker: None }
    }

    /// A transport for a swarm, which can listen, once, for the streams of `incoming`.
    pub(crate) fn listening(
        connector: Connector,
        incoming: Incoming,
        handshakes: Arc<Places>,
    ) -> Self {
        let incoming = Some((incoming, handshakes));
        Self { incoming, ..Self::dialling(connector, DialPurpose::Swarm) }
    }

    pub(crate) fn purpose(&self) -> DialPurpose {
        self.purpose
    }

    fn announce(&mut self, event: TransportEvent<Upgrade, io::Error>) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Transport for OnionTransport {
    type Output = Compat<Arrived>;
    type Error = io::Error;
    type ListenerUpgrade = Upgrade;
    type Dial = Pin<Box<dyn Future<Output = io::Result<Compat<Arrived>>> + Send>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        let Some(onion) = onion::onion_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let Some((incoming, handshakes)) = self.incoming.take() else {
            return Err(TransportError::Other(io::ErrorKind::AddrInUse.into()));
        };
        self.listener =
            Some(Listener { id, onion, incoming, handshakes, waiting: None, pause: None });
        let listen_addr = onion::multiaddr(&onion);
        self.announce(TransportEvent::NewAddress { listener_id: id, listen_addr });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(listener) = self.listener.take_if(|listener| listener.id == id) else {
            return false;
        };
        self.connector.retire(&listener.onion);
        self.announce(TransportEvent::ListenerClosed { listener_id: id, reason: Ok(()) });
        true
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some(onion) = onion::onion_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let (connector, purpose) = (self.connector.clone(), self.purpose);
        Ok(Box::pin(
            async move { Ok(Arrived::from(connector.dial(&onion, purpose).await?).compat()) },
        ))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Upgrade, io::Error>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        match &mut self.listener {
            Some(listener) => listener.poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Listener {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TransportEvent<Upgrade, io::Error>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let accepted = match self.waiting.take() {
            Some(waiting) => Ok(waiting),
            None => std::task::ready!(self.incoming.poll_accept(cx)),
        };
        let seated = match accepted {
            Ok(stream) => match self.handshakes.find() {
                Some(seat) => Ok(stream.until(seat, HANDSHAKE_OCTETS)),
                None => {
                    self.waiting = Some(stream);
                    let mut pause = Box::pin(tokio::time::sleep(SEAT_PAUSE));
                    // It is not over yet, and wakes this task when it is.
                    let _ = pause.as_mut().poll(cx);
                    self.pause = Some(pause);
                    return Poll::Pending;
                }
            },
            Err(error) => Err(error),
        };
        match seated {
            Ok(stream) => Poll::Ready(TransportEvent::Incoming {
                listener_id: self.id,
                upgrade: ready(Ok(stream.compat())),
                // Never the loopback socket: code that learns these addresses may pass them on.
                local_addr: onion::multiaddr(&self.onion),
                send_back_addr: Multiaddr::empty(),
            }),
            Err(error) => {
                self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                Poll::Ready(TransportEvent::ListenerError { listener_id: self.id, error })
            }
        }
    }
}

/// The transport of a swarm: onion addresses, Noise and yamux.
pub(super) fn transport(
    keypair: &Keypair,
    carrier: OnionTransport,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    let version = match carrier.purpose() {
        // Lazy negotiation saves one round trip each time, most of a dial through Tor.
        DialPurpose::Swarm | DialPurpose::Join | DialPurpose::Submit => Version::V1Lazy,
        // A lazy negotiation ends with the first data, and this connection carries none.
        DialPurpose::Reach => Version::V1,
    };
    let upgraded =
        carrier.upgrade(version).authenticate(noise::Config::new(keypair)?).multiplex(yamux);
    let outgoing = TransportTimeout::with_outgoing_timeout(upgraded, DIAL_TIMEOUT);
    Ok(TransportTimeout::with_ingoing_timeout(outgoing, ACCEPT_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed())
}

//! The one place where something becomes a packet.

use core::ops::RangeInclusive;
use core::time::Duration;

use directory::Route;
use keys::{Epoch, NodeId, Schedule, Time};
use mail::Fragment;
use rand::CryptoRng;
use rand_distr::{Distribution as _, Exp1};
use record::Parameters;
use sphinx::{Body, Hop, Kind, Packet, SizeClass, WrapError};

const _: () = assert!(Route::MIN == sphinx::MIN_HOPS && Route::MAX == sphinx::MAX_HOPS);

/// What a packet may carry.
pub enum Content<'a> {
    /// Mail for an exit.
    Mail(&'a Fragment),
}

/// A packet ready to leave, and how long its first hop can open it.
pub struct Sealed {
    pub(crate) first: NodeId,
    pub(crate) packet: Packet,
    pub(crate) until: Time,
}

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than the largest packet holds.
    #[error("too big for the largest packet")]
    TooBig,
    /// A node of the route has no key for the epoch of arrival.
    #[error("a hop without a key for its epoch")]
    NoKey,
    /// The packet layer refused.
    #[error(transparent)]
    Wrap(#[from] WrapError),
}

/// When a packet is to leave, and for how long each hop will hold it; drawn before the route, so that
/// the route can be chosen among nodes whose keys reach as far.
pub(crate) struct Plan {
    send: Time,
    delays: [Duration; Route::MAX],
    transit: Duration,
}

impl Plan {
    /// Draws a delay for every hop that a route can have: exponential, in whole milliseconds, capped.
    pub(crate) fn draw(
        send: Time,
        parameters: &Parameters,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let delays = core::array::from_fn(|_| {
            exponential(parameters.mean_delay, rng).min(parameters.max_delay)
        });
        Self { send, delays, transit: parameters.transit }
    }

    /// The epochs from leaving to arriving at the last of the most hops.
    pub(crate) fn epochs(&self, schedule: &Schedule) -> RangeInclusive<Epoch> {
        let last = self.arrivals().last().unwrap_or(self.send);
        schedule.epoch_at(self.send)..=schedule.epoch_at(last)
    }

    /// When the packet is planned to reach each hop.
    fn arrivals(&self) -> impl Iterator<Item = Time> + '_ {
        let mut at = self.send;
        self.delays.iter().map(move |delay| {
            let arrival = at;
            at = at.plus(*delay).plus(self.transit);
            arrival
        })
    }
}

/// The octets of a content and the smallest class that holds them.
pub(crate) struct Fitted {
    octets: zeroize::Zeroizing<Vec<u8>>,
    class: SizeClass,
}

impl Fitted {
    pub(crate) fn new(
        content: &Content<'_>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, SealError> {
        let Content::Mail(fragment) = content;
        let octets = fragment.encode(rng).map_err(|_| SealError::TooBig)?;
        let class = SizeClass::holding(octets.len()).ok_or(SealError::TooBig)?;
        Ok(Self { octets, class })
    }

    pub(crate) fn packet_len(&self) -> usize {
        self.class.packet_len()
    }
}

/// Wraps a content for a route.
pub(crate) fn seal(
    route: &Route,
    plan: &Plan,
    content: &Fitted,
    schedule: &Schedule,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Sealed, SealError> {
    let mut hops = Vec::with_capacity(Route::MAX);
    for ((record, delay), arrival) in route.hops().iter().zip(plan.delays).zip(plan.arrivals()) {
        let epoch = schedule.epoch_at(arrival);
        let key = record.key(epoch).ok_or(SealError::NoKey)?;
        hops.push(Hop { node: record.node(), epoch, key, delay });
    }
    let body = Body { kind: Kind::Deliver, class: content.class, content: &content.octets };
    let packet = sphinx::wrap(&hops, &body, rng)?;
    let first = hops.first().map(|hop| (hop.node, hop.epoch)).ok_or(SealError::NoKey)?;
    Ok(Sealed { first: first.0, packet, until: schedule.accepted_until(first.1) })
}

/// An exponential time in whole milliseconds.
pub(crate) fn exponential(mean: Duration, rng: &mut (impl CryptoRng + ?Sized)) -> Duration {
    let factor: f64 = Exp1.sample(rng);
    // Exp1 is finite and below 50 in practice; the bound keeps the product representable.
    let span = mean.mul_f64(factor.min(1000.0));
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

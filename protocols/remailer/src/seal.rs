//! The one place where something becomes a packet.

use core::ops::RangeInclusive;
use core::time::Duration;

use directory::Route;
use keys::{Epoch, NodeId, Schedule, Time};
use rand::CryptoRng;
use rand_distr::{Distribution as _, Exp1};
use record::Mixing;
use sphinx::{Body, End, Hop, Packet, ReplyBlock, ReplyEnd, WrapError};

use crate::content::{Fitted, TooBig};
use crate::loops::Walk;
use crate::outbox::Way;
use crate::replies::{Expected, Purpose};

const _: () = assert!(Route::MIN == sphinx::MIN_HOPS && Route::MAX == sphinx::MAX_HOPS);

/// Transits of a hop for which a loop is waited beyond its planned return.
const LOOP_PATIENCE: u32 = 10;

/// A tick of the clock on which a node's own packets leave. Two ticks may fall on one millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick {
    pub(crate) at: Time,
    pub(crate) serial: u64,
}

/// A tick that was reserved, and the octets of its packet.
#[derive(Clone, Copy)]
pub(crate) struct Reserved {
    pub(crate) tick: Tick,
    pub(crate) octets: usize,
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
    /// Too many messages wait to be sealed.
    #[error("no room")]
    NoRoom,
    /// The packet layer refused.
    #[error(transparent)]
    Wrap(#[from] WrapError),
}

/// When a packet is to leave, and for how long each hop will hold it; drawn before the route, so
/// that the route can be chosen among nodes whose keys reach as far.
#[derive(PartialEq)]
pub(crate) struct Plan {
    send: Time,
    delays: [Duration; Route::MAX],
    transit: Duration,
}

impl From<TooBig> for SealError {
    fn from(_: TooBig) -> Self {
        Self::TooBig
    }
}

impl Plan {
    /// Draws a delay for every hop that a route can have: exponential, in whole milliseconds,
    /// capped.
    pub(crate) fn draw(send: Time, mixing: &Mixing, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let delays =
            core::array::from_fn(|_| exponential(mixing.mean_delay, rng).min(mixing.max_delay));
        Self { send, delays, transit: mixing.transit }
    }

    /// The plan of an answer to a packet of this plan over a route of so many hops. It leaves at the
    /// earliest when the packet has come to its last hop and was held there; and it is planned for as
    /// much later as keys are accepted ahead of their time, so that it may come later still.
    pub(crate) fn back(
        &self,
        hops: usize,
        mixing: &Mixing,
        early: Duration,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let last = hops.saturating_sub(1);
        let arrival = self.arrivals().nth(last).unwrap_or(self.send);
        let held = self.delays.get(last).copied().unwrap_or_default();
        Self::draw(arrival.plus(held).plus(early), mixing, rng)
    }

    /// The epochs from leaving to arriving at the last hop of the longest route.
    pub(crate) fn epochs(&self, schedule: &Schedule) -> RangeInclusive<Epoch> {
        let last = self.arrivals().last().unwrap_or(self.send);
        schedule.epoch_at(self.send)..=schedule.epoch_at(last)
    }

    /// When the packet has come through the longest route, by plan.
    pub(crate) fn through(&self) -> Time {
        let last = self.arrivals().last().unwrap_or(self.send);
        last.plus(self.delays.last().copied().unwrap_or_default())
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

/// A packet that has its tick, plan and route, and is not sealed yet.
#[derive(PartialEq)]
pub(crate) struct Unsealed {
    pub(crate) tick: Tick,
    pub(crate) route: Route,
    pub(crate) plan: Plan,
    pub(crate) fitted: Fitted,
    /// What its last hop does with it.
    pub(crate) end: End,
    /// The way back of its answer, if there is one.
    pub(crate) back: Option<(Route, Plan)>,
    /// What is answered for.
    pub(crate) of: Purpose,
    /// Whether it is the second attempt at a piece.
    pub(crate) is_spare: bool,
}

/// A message whose packets have their ticks and routes, and are not sealed yet.
#[derive(PartialEq)]
pub struct Sealing {
    pub(crate) packets: Vec<Unsealed>,
    pub(crate) schedule: Schedule,
    /// Whether a domain takes several packets.
    pub(crate) is_large: bool,
}

/// The packets of a message, and what opens their answers.
pub struct SealedMessage {
    pub(crate) packets: Vec<SealedPacket>,
    /// When all have come through, by plan, if a domain takes several.
    pub(crate) through: Option<Time>,
}

/// A sealed packet, its tick, and what opens its answer.
pub(crate) struct SealedPacket {
    pub(crate) tick: Tick,
    pub(crate) of: Purpose,
    pub(crate) is_spare: bool,
    pub(crate) sealed: Sealed,
    pub(crate) expected: Option<Expected>,
}

impl SealedPacket {
    /// The way of its tick.
    pub(crate) fn way(&self) -> Way {
        if self.expected.is_some() { Way::Returning } else { Way::OneWay }
    }
}

/// A message that could not be sealed.
pub struct SealingFailed {
    pub(crate) reserved: Vec<Reserved>,
    pub(crate) why: SealError,
}

impl Sealing {
    /// Packets to seal.
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// What is reported of a message that is not sealed, for want of room or because its thread
    /// ended.
    #[must_use]
    pub fn give_up(&self) -> SealingFailed {
        self.failed(SealError::NoRoom)
    }

    fn failed(&self, why: SealError) -> SealingFailed {
        SealingFailed { reserved: self.packets.iter().map(Unsealed::reserved).collect(), why }
    }

    /// Seals every packet: some half a millisecond for each. A pure function, for whatever thread
    /// has time.
    ///
    /// # Errors
    /// [`SealingFailed`], for `Remailer::handle_sealed`.
    pub fn run(self, rng: &mut impl CryptoRng) -> Result<SealedMessage, SealingFailed> {
        let mut sealed = Vec::with_capacity(self.packets.len());
        for packet in &self.packets {
            match packet.seal(&self.schedule, rng) {
                Ok(packed) => sealed.push(packed),
                Err(why) => return Err(self.failed(why)),
            }
        }
        let through = self.packets.iter().map(|packet| packet.plan.through()).max();
        Ok(SealedMessage { packets: sealed, through: through.filter(|_| self.is_large) })
    }
}

impl Unsealed {
    /// The node that its route ends at.
    pub(crate) fn exit(&self) -> Option<NodeId> {
        self.route.hops().last().map(|record| record.node())
    }

    /// The node that it leaves for.
    pub(crate) fn first_hop(&self) -> Option<NodeId> {
        self.route.hops().first().map(|record| record.node())
    }

    pub(crate) fn reserved(&self) -> Reserved {
        Reserved { tick: self.tick, octets: self.fitted.packet_len() }
    }

    /// The others that it passes on its way out, and back over a route that ends at this node.
    fn walk(&self, back: &Route) -> Walk {
        let back = back.hops().split_last().map_or(&[][..], |(_, others)| others);
        let nodes = self.route.hops().iter().chain(back).map(|record| record.node()).collect();
        Walk { nodes, left: self.tick.at }
    }

    fn seal(
        &self,
        schedule: &Schedule,
        rng: &mut impl CryptoRng,
    ) -> Result<SealedPacket, SealError> {
        let (block, expected) = match &self.back {
            Some((route, plan)) => {
                let hops = hops(route, plan, schedule)?;
                let until = hops.last().map(|hop| schedule.accepted_until(hop.epoch));
                let mut until = until.ok_or(SealError::NoKey)?;
                if self.of.is_loop() {
                    until = until.min(plan.through().plus(plan.transit * LOOP_PATIENCE));
                }
                let class = self.fitted.class;
                let (block, keys) = sphinx::reply_block(&hops, ReplyEnd::Owner, class, rng)?;
                let walk = self.of.is_loop().then(|| self.walk(route));
                (Some(block), Some(Expected { keys, until, of: self.of, walk }))
            }
            None => (None, None),
        };
        let carried = (&self.fitted, self.end, block.as_ref());
        let sealed = seal(&self.route, &self.plan, carried, schedule, rng)?;
        let (tick, of, is_spare) = (self.tick, self.of, self.is_spare);
        Ok(SealedPacket { tick, of, is_spare, sealed, expected })
    }
}

fn hops<'a>(route: &'a Route, plan: &Plan, schedule: &Schedule) -> Result<Vec<Hop<'a>>, SealError> {
    let mut hops = Vec::with_capacity(Route::MAX);
    for ((record, delay), arrival) in route.hops().iter().zip(plan.delays).zip(plan.arrivals()) {
        let epoch = schedule.epoch_at(arrival);
        let key = record.key(epoch).ok_or(SealError::NoKey)?;
        hops.push(Hop { node: record.node(), epoch, key, delay });
    }
    Ok(hops)
}

/// Wraps a content for a route, with what it may be answered with.
pub(crate) fn seal(
    route: &Route,
    plan: &Plan,
    (content, end, reply): (&Fitted, End, Option<&ReplyBlock>),
    schedule: &Schedule,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Sealed, SealError> {
    let hops = hops(route, plan, schedule)?;
    let body = Body { end, class: content.class, content: &content.octets, reply };
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use directory::Directory;
    use keys::{Identity, MixSecret};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use record::{Admission, Descriptor, Parameters, Statement, testing};
    use sphinx::{EpochKey, EpochKeys, Layer, SizeClass};
    use zeroize::Zeroizing;

    use super::*;

    /// The number of an identity is the number of its mix keys.
    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    fn view(now: Time, parameters: &Parameters) -> directory::View {
        let schedule = parameters.schedule();
        let voters = [identity(1).node()];
        let rule = Admission::Open;
        let made = Descriptor::create(&identity(1), "n", now, parameters, &voters, &rule).unwrap();
        let mut directory = Directory::new(&made);
        for number in 1..=8 {
            let draft = record::Draft {
                exit: Some(record::ExitPolicy {
                    domains: record::Domains::Any,
                    max_message: 1000,
                    offers: record::Capabilities::NONE,
                }),
                ..testing::draft(number.into(), now, &schedule)
            };
            let octets = draft.sign(&identity(number), &made.id()).unwrap();
            let Ok(Statement::Record(signed)) = Statement::check(&octets, &made.id()) else {
                panic!("a record")
            };
            let record = signed.timely(now, &schedule).unwrap();
            directory.admit(record, directory::Source::Own, now).unwrap();
        }
        directory.restore_list(directory.propose_first(schedule.hour_at(now)));
        directory.view().unwrap().if_sufficient().unwrap()
    }

    #[test]
    fn the_delays_that_hops_find_are_exponential() {
        let parameters = Parameters::main();
        let schedule = parameters.schedule();
        let now = schedule.start(Epoch::new(165_000)).plus(Duration::from_secs(3600));
        let view = view(now, &parameters);
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let content = Fitted { octets: Zeroizing::new(vec![1, 2, 3]), class: SizeClass::SMALLEST };
        let mut found = Vec::new();
        while found.len() < 1500 {
            let plan = Plan::draw(now, &parameters.mixing, &mut rng);
            let epochs = plan.epochs(&schedule);
            let route = view.route(&[], &epochs, &mut rng, |_| true).unwrap();
            let mut packet =
                seal(&route, &plan, (&content, End::Deliver, None), &schedule, &mut rng)
                    .unwrap()
                    .packet;
            for record in route.hops() {
                let number = (1..=8).find(|n| identity(*n).node() == record.node()).unwrap();
                let epoch = packet.epoch();
                let secret = MixSecret::from_seed(&testing::seed(number.into(), epoch));
                let key = Arc::new(EpochKey::new(record.node(), epoch, secret));
                match sphinx::peel(packet, &EpochKeys::new(vec![key])).unwrap().outcome.unwrap() {
                    Layer::Forward { delay, packet: next, .. } => {
                        found.push(delay);
                        packet = next;
                    }
                    Layer::End { delay, .. } => {
                        found.push(delay);
                        break;
                    }
                    Layer::Reply { .. } | Layer::Stream { .. } => panic!("another end"),
                }
            }
        }
        let mean = parameters.mixing.mean_delay.as_secs_f64();
        let below = |delay: &Duration| 1.0 - (-delay.as_secs_f64() / mean).exp();
        let mut parts: Vec<f64> = found.iter().map(below).collect();
        parts.sort_by(f64::total_cmp);
        let count = f64::from(u32::try_from(parts.len()).unwrap());
        let distance = (0_u32..)
            .zip(&parts)
            .map(|(rank, part)| (part - f64::from(rank) / count).abs())
            .fold(0.0, f64::max);
        // Kolmogorov-Smirnov: 99.9 % of such samples lie below 1.95 / sqrt(n).
        assert!(distance < 1.95 / count.sqrt(), "{distance}");
    }
}

//! A node's own packets: any content gets a tick of the clock, a plan and a route, is sealed
//! elsewhere, and leaves on its tick.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::sync::Arc;

use directory::{Route, RouteError, View};
use keys::{Epoch, NodeId, Schedule, Time};
use mail::Needs;
use rand::{CryptoRng, RngExt as _};
use record::{Ask, Capabilities, Descriptor, Parameters, Record};
use sphinx::Kind;
use zeroize::Zeroizing;

use crate::command::{Command, Out};
use crate::content::Fitted;
use crate::count::Count;
use crate::cutting::piece_room;
use crate::outbox::Outbox;
use crate::seal::{Plan, Reserved, SealError, Sealed, Tick, Unsealed};

/// How long after the longest hold mail may wait for its tick, as a part of an hour: 30 minutes.
const PATIENCE: u32 = 2;

/// Octets of a packet of a mail that are not of its message, at most: the fields around a piece.
const AROUND_PIECE: usize = 64;
/// Octets that the envelope of a mail to a hundred recipients may have.
const ENVELOPE: usize = 8 * 1024;

/// The sender of a node's own packets.
pub(crate) struct Sender {
    descriptor: Arc<Descriptor>,
    schedule: Schedule,
    /// This node and the others that its operator runs: no route of its own goes through them.
    own: Vec<NodeId>,
    outbox: Outbox,
}

/// Why a packet cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// There is no route.
    Route(RouteError),
    /// It cannot be sealed.
    Seal(SealError),
    /// As much waits for its tick as is allowed.
    Full,
}

impl Sender {
    pub(crate) fn new(descriptor: Arc<Descriptor>, own: Vec<NodeId>, now: Time) -> Self {
        let schedule = descriptor.parameters().schedule();
        let gap = descriptor.parameters().sending.gaps[0];
        let outbox = Outbox::new(gap, now);
        Self { descriptor, schedule, own, outbox }
    }

    /// How many ticks a mail of this many packets may have beside those that wait. Mail of several
    /// packets shares half of the clock: a few such mails must not take it from everybody else for
    /// hours.
    pub(crate) fn share(&self, packets: usize) -> usize {
        let most = if packets > 1 { self.slots() / 2 } else { self.slots() };
        most.saturating_sub(self.outbox.len())
    }

    /// The clock jumped: what waits for its tick goes on waiting for as long.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        self.outbox.shift(millis);
    }

    /// How long mail may wait to leave, its hold included.
    fn longest_wait(&self) -> Duration {
        self.parameters().sending.max_hold + self.schedule.hour() / PATIENCE
    }

    /// Ticks within which mail leaves that is taken now, on average.
    fn slots(&self) -> usize {
        let gap = self.parameters().sending.gaps[0].as_millis().max(1);
        let slots = self.longest_wait().as_millis() / gap;
        usize::try_from(slots).unwrap_or(usize::MAX)
    }

    /// Whether there is a route at `now` that ends at a node that `allows` takes.
    pub(crate) fn reaches(
        &self,
        view: &View,
        now: Time,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<(), RouteError> {
        let epoch = self.schedule.epoch_at(now);
        view.reaches(&self.own, &(epoch..=epoch), allows)
    }

    /// Plans the pieces of a mail, each with a tick and a route of its own, to one exit. So many have a
    /// way back for what is answered of all that one of them is among any that are enough. On an error
    /// nothing is reserved.
    pub(crate) fn plan_all(
        &mut self,
        pieces: &[Zeroizing<Vec<u8>>],
        (view, owner): (&View, Option<&Arc<Record>>),
        now: Time,
        rng: &mut impl CryptoRng,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Unsealed>, NotSent> {
        let mut planned: Vec<Unsealed> = Vec::with_capacity(pieces.len());
        let mut exit: Option<NodeId> = None;
        // Of four pieces one is spare; with a block in one more than all that may be missing.
        let answering = pieces.len().div_ceil(4).saturating_add(1);
        for (number, piece) in pieces.iter().enumerate() {
            let takes =
                |record: &Record| exit.is_none_or(|exit| exit == record.node()) && allows(record);
            let owner = owner.filter(|_| number < answering);
            match self.plan(piece, (view, owner), now, rng, takes) {
                Ok(mut unsealed) => {
                    if let Some(first) = planned.first() {
                        unsealed.of = first.of;
                    }
                    exit = unsealed.route.hops().last().map(|record| record.node());
                    planned.push(unsealed);
                }
                Err(why) => {
                    self.release(planned.iter().map(Unsealed::reserved));
                    return Err(why);
                }
            }
        }
        Ok(planned)
    }

    /// Reserves the first free tick after a random hold, and draws a plan and a route for it that
    /// ends at a node that `allows` takes, with a way back to the `owner` of this record, if there is
    /// one. On an error nothing is reserved.
    fn plan(
        &mut self,
        piece: &[u8],
        (view, owner): (&View, Option<&Arc<Record>>),
        now: Time,
        rng: &mut impl CryptoRng,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Unsealed, NotSent> {
        let (_, stage) = self.parameters().stage_at(view.volume());
        let fitted = Fitted::mail(piece, stage).map_err(|why| NotSent::Seal(why.into()))?;
        let earliest = now.plus(self.hold(rng));
        let latest = now.plus(self.longest_wait()).max(earliest);
        let tick = self
            .outbox
            .reserve(earliest..=latest, fitted.packet_len(), rng)
            .ok_or(NotSent::Full)?;
        let plan = Plan::draw(tick.at, &self.parameters().mixing, rng);
        let epochs: RangeInclusive<Epoch> = plan.epochs(&self.schedule);
        match view.route(&self.own, &epochs, rng, allows) {
            Ok(route) => {
                let back = owner.and_then(|owner| self.back(&plan, &route, (view, owner), rng));
                Ok(Unsealed { tick, route, plan, fitted, back, of: tick.serial })
            }
            Err(why) => {
                self.outbox.release(tick, fitted.packet_len());
                Err(NotSent::Route(why))
            }
        }
    }

    /// The way back of an answer to a packet with this plan and route; `None` if there is none, which
    /// does not keep the packet from leaving.
    fn back(
        &self,
        plan: &Plan,
        route: &Route,
        (view, owner): (&View, &Arc<Record>),
        rng: &mut impl CryptoRng,
    ) -> Option<(Route, Plan)> {
        let exit = route.hops().last()?;
        let back =
            plan.back(route.hops().len(), &self.parameters().mixing, self.schedule.early(), rng);
        let epochs = back.epochs(&self.schedule);
        let relays = |record: &Record| record.features().has_kind(Kind::Reply.number());
        let route = view.route_back((&self.own, owner), exit, &epochs, rng, relays).ok()?;
        Some((route, back))
    }

    /// Uniform: the best guess of who watches submissions is then one in all that came within the
    /// longest hold.
    fn hold(&self, rng: &mut impl CryptoRng) -> Duration {
        self.parameters().sending.max_hold.mul_f64(rng.random::<f64>())
    }

    /// Puts a sealed packet on its tick.
    pub(crate) fn fill(&mut self, tick: Tick, packet: Sealed) {
        self.outbox.fill(tick, packet);
    }

    /// Gives back the ticks of packets that will not come.
    pub(crate) fn release(&mut self, reserved: impl IntoIterator<Item = Reserved>) {
        for Reserved { tick, octets } in reserved {
            self.outbox.release(tick, octets);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.outbox.poll_timeout()
    }

    /// Sends what has come to its tick.
    pub(crate) fn handle_timeout(&mut self, now: Time, out: &mut Out) {
        while let Some(Sealed { first, packet, until }) = self.outbox.next_due(now) {
            out.count(Count::PacketSent);
            out.push(Command::Send { to: first, packet, until });
        }
    }

    /// Packets that wait for their tick.
    pub(crate) fn held(&self) -> usize {
        self.outbox.len()
    }

    /// Octets of a mail that so many packets carry: of four packets one is spare.
    pub(crate) fn octets_of(&self, packets: usize) -> usize {
        let room = piece_room(self.parameters()).saturating_sub(AROUND_PIECE);
        (packets.saturating_mul(3) / 4).saturating_mul(room).saturating_sub(ENVELOPE)
    }

    /// Whether no route of this node ends there.
    pub(crate) fn is_own(&self, node: &NodeId) -> bool {
        self.own.contains(node)
    }

    /// Octets of the largest mail for which there are ticks while no other mail waits.
    pub(crate) fn carries(&self) -> usize {
        self.octets_of(self.slots() / 2)
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn parameters(&self) -> &Parameters {
        self.descriptor.parameters()
    }
}

/// What an exit's policy is asked about mail for a domain.
pub(crate) fn ask(domain: &str, octets: usize, needed: Needs) -> Ask<'_> {
    let pairs = [
        (Needs::EIGHT_BIT, Capabilities::EIGHT_BIT),
        (Needs::SMTP_UTF8, Capabilities::SMTP_UTF8),
        (Needs::KEEP_FROM, Capabilities::KEEP_FROM),
    ];
    let needs = pairs
        .into_iter()
        .filter(|(need, _)| needed.contains(*need))
        .fold(Capabilities::NONE, |needs, (_, capability)| needs | capability);
    Ask { domain, size: u32::try_from(octets).unwrap_or(u32::MAX), needs }
}

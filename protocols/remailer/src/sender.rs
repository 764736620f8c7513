//! A node's own packets: any content gets a tick of the clock, a plan and a route, is sealed
//! elsewhere, and leaves on its tick.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use directory::{Route, RouteError, View};
use keys::{Epoch, NodeId, Schedule, Time};
use mail::Needs;
use mix::TopUp;
use rand::{CryptoRng, RngExt as _};
use record::{Ask, Capabilities, Descriptor, Parameters, Record};
use sphinx::{End, Kind, Packet, SizeClass};
use zeroize::Zeroizing;

use crate::command::{Command, Out};
use crate::content::{ContentType, Fitted, open_class};
use crate::count::{Count, Dropped};
use crate::custody::Custody;
use crate::cutting::piece_room;
use crate::decoys::{Decoy, Decoys};
use crate::health::Shunned;
use crate::ingress::Fate;
use crate::outbox::{Due, Law, Leaving, Lot, Of, Outbox, Share, Way};
use crate::replies::{Expected, Purpose, Replies};
use crate::seal::{
    Plan, Reserved, SealError, Sealed, SealedMessage, SealedPacket, Sealing, SealingFailed, Tick,
    Unsealed,
};
use crate::spool::SpooledPacket;
use crate::traffic::{ByClass, Traffic};

/// How long after the longest hold mail may wait for its tick, as a part of an hour: 30 minutes.
const PATIENCE: u32 = 2;

/// Epochs after the present one whose keys all nodes have stated.
const KEYS_AHEAD: u32 = 2;
/// One in so many loops goes through nodes that are avoided for what they lose.
const RETRY: u32 = 4;
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
    /// These, and the nodes that do not pass on what they get.
    avoided: Vec<NodeId>,
    /// The same without those that are tried again by loops.
    tried: Vec<NodeId>,
    outbox: Outbox,
    decoys: Decoys,
    mail: Traffic,
    cover: Traffic,
}

/// Both ways.
pub(crate) const EITHER: &[Way] = &[Way::Returning, Way::OneWay];

/// The part of a submission that goes to one exit.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// Packets of the whole submission.
    pub(crate) of: usize,
    /// How long each packet may be held.
    pub(crate) hold: Duration,
    pub(crate) fate: Fate,
    /// Its number.
    pub(crate) number: u64,
}

/// When a packet may leave, and by which way.
#[derive(Clone)]
struct Attempt<'a> {
    ways: &'a [Way],
    within: RangeInclusive<Time>,
    part: Part,
    /// Which exit of its message it goes to.
    exit: u8,
    /// Whether it is the second at a piece.
    is_spare: bool,
    /// The first hop of the attempts before.
    through: Option<NodeId>,
}

/// A packet of this node's own that leaves.
pub(crate) struct Sends {
    pub(crate) to: NodeId,
    pub(crate) packet: Packet,
    /// When its first hop's key is gone.
    pub(crate) until: Time,
    /// Whether it leaves beside the clock, among packets of others.
    pub(crate) is_extra: bool,
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
    /// An answer has no way back.
    NoWayBack,
}

impl Sender {
    pub(crate) fn new(descriptor: Arc<Descriptor>, own: Vec<NodeId>, now: Time) -> Self {
        let schedule = descriptor.parameters().schedule();
        let outbox = Outbox::new(law(descriptor.parameters(), 0, 1), now);
        let sending = &descriptor.parameters().sending;
        let decoys = Decoys::new((sending.cover > 0).then_some(sending.decoy_gap));
        let (mail, cover) = (Traffic::default(), Traffic::default());
        let (avoided, tried) = (own.clone(), own.clone());
        Self { descriptor, schedule, own, avoided, tried, outbox, decoys, mail, cover }
    }

    /// No route goes through these nodes from now on; some loops try those again that only lose packets.
    pub(crate) fn avoid(&mut self, shunned: &BTreeMap<NodeId, Shunned>) {
        let down = shunned.iter().filter(|(_, why)| **why == Shunned::Down).map(|(node, _)| *node);
        self.tried = self.own.iter().copied().chain(down).collect();
        self.avoided = self.own.iter().chain(shunned.keys()).copied().collect();
    }

    /// The class of a packet for a piece of so many octets.
    pub(crate) fn class_for(&self, piece: usize, view: &View) -> SizeClass {
        let (_, stage) = self.parameters().stage_at(view.volume());
        open_class(piece.saturating_add(1), stage).unwrap_or(SizeClass::LARGEST)
    }

    /// Whether mail may wait for a tick at all.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// How many packets of a class a mail may take that takes several. It is told in eighths of the clock:
    /// whoever asks learns little of how much mail waits.
    pub(crate) fn share(
        &mut self,
        class: SizeClass,
        ways: &[Way],
        (now, hold): (Time, Duration),
        rng: &mut impl CryptoRng,
    ) -> usize {
        let until = now.plus(self.parameters().custody.horizon);
        self.outbox.draw_until(until, rng);
        let within = now.plus(hold).min(until)..=until;
        let open = self.outbox.open_to_several(within.clone(), class, ways);
        // One in four and one more has to return, whatever the others do.
        let returning = self.outbox.open_to_several(within, class, &[Way::Returning]);
        let step = (self.slots(class, ways) / 8).max(1);
        open.min(returning.saturating_sub(1) * 4) / step * step
    }

    /// The clock jumped: what waits for its tick goes on waiting for as long.
    pub(crate) fn handle_clock_jump(&mut self, millis: i64) {
        self.outbox.shift(millis);
        self.decoys.shift(millis);
    }

    /// Ticks of a class for these ways within the time for which a mail is tried, on average.
    fn slots(&self, class: SizeClass, ways: &[Way]) -> usize {
        let horizon = self.parameters().custody.horizon.as_millis();
        let slots = horizon / self.outbox.law().interval(class, ways).as_millis().max(1);
        usize::try_from(slots).unwrap_or(usize::MAX)
    }

    /// The clock goes as the hour's list says; whether it has changed for that.
    pub(crate) fn keep_pace(&mut self, view: &View, now: Time, rng: &mut impl CryptoRng) -> bool {
        let law = law(self.descriptor.parameters(), view.volume(), view.listed());
        let has_changed = law != *self.outbox.law();
        if has_changed {
            self.outbox.change(law, now, rng);
        }
        has_changed
    }

    /// Packets of each class in a round, where nodes mix in rounds.
    pub(crate) fn rounds(&self) -> [u16; SizeClass::COUNT] {
        rounds(self.parameters(), self.outbox.law())
    }

    /// Whether there is a route at `now` that ends at a node that `allows` takes.
    pub(crate) fn reaches(
        &self,
        view: &View,
        now: Time,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<(), RouteError> {
        let epoch = self.schedule.epoch_at(now);
        let reaches = |avoided: &[NodeId]| view.reaches(avoided, &(epoch..=epoch), &allows);
        reaches(&self.avoided).or_else(|_| reaches(&self.tried))
    }

    /// Plans all attempts of a mail, each with a tick and a route of its own. A mail of one packet goes to
    /// two exits in turn; the pieces of a larger one go to one, a second time as far as there are ticks, and
    /// so does what goes to several domains. All attempts of a packet have one first hop: each further one
    /// would be one more node that may be somebody's who watches. On an error nothing is reserved.
    pub(crate) fn plan_all(
        &mut self,
        pieces: &[Zeroizing<Vec<u8>>],
        part: Part,
        (view, owner): (&View, Option<&Arc<Record>>),
        now: Time,
        rng: &mut impl CryptoRng,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Unsealed>, NotSent> {
        self.outbox.draw_ahead(now, rng);
        let [piece] = pieces else {
            return self.plan_pieces(pieces, part, (view, owner), now, rng, allows);
        };
        let ways: &[Way] = if owner.is_some() { &[Way::Returning] } else { &[Way::OneWay] };
        let (earliest, latest) = self.span(part, now, rng);
        let mut attempt = Attempt {
            ways,
            within: earliest..=latest,
            part,
            exit: 0,
            is_spare: false,
            through: None,
        };
        let first = self.plan_or_one_way(piece, (view, owner), &attempt, rng, &allows)?;
        attempt.through = first.first_hop();
        let exits = [first.exit(), None];
        let times = self.later_attempts(first.tick.at, now, rng);
        let mut planned = vec![first];
        self.plan_later(piece, (view, owner), (attempt, exits, &times), rng, allows, &mut planned)?;
        Ok(planned)
    }

    /// The further attempts of a mail of one packet. One for whose time no keys are known is left out.
    fn plan_later(
        &mut self,
        piece: &[u8],
        from: (&View, Option<&Arc<Record>>),
        (mut attempt, mut exits, times): (Attempt<'_>, [Option<NodeId>; 2], &[Time]),
        rng: &mut impl CryptoRng,
        allows: impl Fn(&Record) -> bool,
        planned: &mut Vec<Unsealed>,
    ) -> Result<(), NotSent> {
        // A mail to many domains would take the whole clock.
        attempt.is_spare = attempt.part.of > 1;
        for (number, earliest) in (1_u8..).zip(times) {
            attempt.within = *earliest..=earliest.plus(self.patience());
            attempt.exit = number % 2;
            let [first, second] = exits;
            let goes = |record: &Record, exit: Option<NodeId>| {
                exit.is_none_or(|exit| exit == record.node()) && allows(record)
            };
            let is_second = attempt.exit == 1;
            let to_that = |record: &Record| match is_second {
                true => Some(record.node()) != first && goes(record, second),
                false => goes(record, first),
            };
            let mut made = self.plan_or_one_way(piece, from, &attempt, rng, to_that);
            if is_second && matches!(made, Err(NotSent::Route(_))) {
                // There is no other exit for it.
                attempt.exit = 0;
                made =
                    self.plan_or_one_way(piece, from, &attempt, rng, |record| goes(record, first));
            }
            match made {
                Ok(unsealed) => {
                    if let [_, second @ None] = &mut exits
                        && attempt.exit == 1
                    {
                        *second = unsealed.exit();
                    }
                    planned.push(unsealed);
                }
                Err(NotSent::Route(_) | NotSent::NoWayBack | NotSent::Seal(_)) => {}
                Err(NotSent::Full) if attempt.is_spare => {}
                Err(why @ NotSent::Full) => {
                    self.release(planned.iter().map(Unsealed::reserved));
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    /// The pieces of a mail, to one exit. So many have a way back for what is answered of all that one of
    /// them is among any that are enough.
    fn plan_pieces(
        &mut self,
        pieces: &[Zeroizing<Vec<u8>>],
        part: Part,
        (view, owner): (&View, Option<&Arc<Record>>),
        now: Time,
        rng: &mut impl CryptoRng,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Unsealed>, NotSent> {
        let mut planned: Vec<Unsealed> = Vec::with_capacity(pieces.len() * 2);
        let mut exit: Option<NodeId> = None;
        // Of four pieces one is spare; with a block in one more than all that may be missing.
        let answering = pieces.len().div_ceil(4).saturating_add(1);
        let ways = |number: usize| -> &[Way] {
            match owner {
                None => &[Way::OneWay],
                Some(_) if number < answering => &[Way::Returning],
                Some(_) => EITHER,
            }
        };
        for (number, piece) in pieces.iter().enumerate() {
            let takes =
                |record: &Record| exit.is_none_or(|exit| exit == record.node()) && allows(record);
            let (earliest, latest) = self.span(part, now, rng);
            let (ways, within) = (ways(number), earliest..=latest);
            let attempt = Attempt { ways, within, part, exit: 0, is_spare: false, through: None };
            match self.plan_or_one_way(piece, (view, owner), &attempt, rng, takes) {
                Ok(unsealed) => {
                    exit = unsealed.exit();
                    planned.push(unsealed);
                }
                Err(why) => {
                    self.release(planned.iter().map(Unsealed::reserved));
                    return Err(why);
                }
            }
        }
        let takes = |record: &Record| Some(record.node()) == exit && allows(record);
        let latest = self.last_attempt(now);
        for (number, piece) in pieces.iter().enumerate() {
            let Some(first) = planned.get(number) else { break };
            let earliest = first.tick.at.plus(self.parameters().custody.apart);
            let (within, through) = (earliest..=latest, first.first_hop());
            let attempt =
                Attempt { ways: ways(number), within, part, exit: 0, is_spare: true, through };
            let is_wanted = self.parameters().custody.fragment_attempts > 1;
            if is_wanted
                && let Ok(unsealed) =
                    self.plan_or_one_way(piece, (view, owner), &attempt, rng, takes)
            {
                planned.push(unsealed);
            }
        }
        Ok(planned)
    }

    /// When the first attempt of a packet may leave: after a uniform hold, for then the best guess of who
    /// watches submissions is one in all that came within the longest hold.
    fn span(&self, part: Part, now: Time, rng: &mut impl CryptoRng) -> (Time, Time) {
        // What is being sealed when its tick comes would be late for it.
        let hold = part.hold.mul_f64(rng.random::<f64>()).max(self.outbox.lead());
        let earliest = now.plus(hold);
        let soon = earliest.plus(self.patience());
        let horizon = now.plus(self.parameters().custody.horizon);
        // What is all of its submission is under way soon; one of several has as long as a mail is tried.
        (earliest, if part.of == 1 { soon } else { soon.max(horizon) })
    }

    fn patience(&self) -> Duration {
        self.schedule.hour() / PATIENCE
    }

    /// The time after which a packet is not planned to leave: there would be no keys for its way back.
    fn last_attempt(&self, now: Time) -> Time {
        let mixing = &self.parameters().mixing;
        let hops = u32::try_from(2 * Route::MAX).unwrap_or(u32::MAX);
        let trip = (mixing.mean_delay + mixing.transit) * hops + self.schedule.early();
        let known = self.schedule.end(self.schedule.epoch_at(now).plus(KEYS_AHEAD));
        now.plus(self.parameters().custody.horizon).min(known.minus(trip))
    }

    /// From when on each further attempt may leave, after a first one at this time: at random times that
    /// are far enough apart, as many as there is time for.
    fn later_attempts(&self, first: Time, now: Time, rng: &mut impl CryptoRng) -> Vec<Time> {
        let custody = &self.parameters().custody;
        let latest = self.last_attempt(now).minus(self.patience());
        let all = u32::from(custody.attempts).saturating_sub(1);
        let wanted = (0..=all).rev().find(|count| first.plus(custody.apart * *count) <= latest);
        let Some(wanted) = wanted else { return Vec::new() };
        let slack = latest.since(first.plus(custody.apart * wanted));
        let mut offsets: Vec<_> = (0..wanted).map(|_| slack.mul_f64(rng.random::<f64>())).collect();
        offsets.sort_unstable();
        let times = (1..).zip(offsets);
        times.map(|(count, offset)| first.plus(custody.apart * count).plus(offset)).collect()
    }

    /// Plans a packet; if there is no way back for it, on a tick for such packets.
    fn plan_or_one_way(
        &mut self,
        piece: &[u8],
        (view, owner): (&View, Option<&Arc<Record>>),
        attempt: &Attempt<'_>,
        rng: &mut impl CryptoRng,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Unsealed, NotSent> {
        match self.plan(piece, (view, owner), attempt, rng, &allows) {
            Err(NotSent::NoWayBack) => {
                let attempt = Attempt { ways: &[Way::OneWay], ..attempt.clone() };
                self.plan(piece, (view, None), &attempt, rng, &allows)
            }
            planned => planned,
        }
    }

    /// Reserves the first tick for it in its time, and draws a plan and a route that ends at a node that
    /// `allows` takes, with a way back to the `owner` of this record if the tick is one for what returns. On
    /// an error nothing is reserved.
    fn plan(
        &mut self,
        piece: &[u8],
        (view, owner): (&View, Option<&Arc<Record>>),
        attempt: &Attempt<'_>,
        rng: &mut impl CryptoRng,
        allows: impl Fn(&Record) -> bool,
    ) -> Result<Unsealed, NotSent> {
        let descriptor = Arc::clone(&self.descriptor);
        let Attempt { ways, within, part, exit, is_spare, through } = attempt;
        let share = match (is_spare, part.of) {
            (true, _) => Share::Spare,
            (false, 1) => Share::Any,
            (false, _) => Share::EveryOther,
        };
        let (_, stage) = descriptor.parameters().stage_at(view.volume());
        let mut fitted = Fitted::mail(piece, stage).map_err(|why| NotSent::Seal(why.into()))?;
        // A class that has opened just now has no ticks yet; then the next larger one does.
        let classes = SizeClass::all().filter(|class| *class >= fitted.class);
        let mut open = classes.filter(|class| stage.is_open(class.number()));
        let drawn = open.find(|class| self.outbox.has_drawn(*class, ways));
        fitted.class = drawn.unwrap_or(fitted.class);
        let (tick, way) = self
            .outbox
            .reserve(within.clone(), (fitted.class, ways), share, rng)
            .ok_or(NotSent::Full)?;
        if part.fate == Fate::Covers {
            let lot = Lot { class: fitted.class, way };
            let planned = self.plan_cover(tick, lot, (view, owner), rng);
            if planned.is_none() {
                self.outbox.release(tick, fitted.packet_len());
            }
            let of = Purpose::Decoy(part.number);
            return planned.map(|planned| Unsealed { of, ..planned }).ok_or(NotSent::NoWayBack);
        }
        let owner = owner.filter(|_| way == Way::Returning);
        let plan = Plan::draw(tick.at, &self.parameters().mixing, rng);
        let epochs: RangeInclusive<Epoch> = plan.epochs(&self.schedule);
        let route = |avoided: &[NodeId], rng: &mut _| match through {
            // A network may have too few nodes for another route through that one.
            Some(first) => view
                .route_through(first, avoided, &epochs, rng, &allows)
                .or_else(|_| view.route(avoided, &epochs, rng, &allows)),
            None => view.route(avoided, &epochs, rng, &allows),
        };
        // Where all exits for it lose packets one of them takes it all the same; none that is down does.
        let planned = route(&self.avoided, rng).or_else(|_| route(&self.tried, rng));
        let planned = planned.map_err(NotSent::Route).and_then(|route| {
            let back = owner.and_then(|owner| {
                let mut back = |avoided| self.back(&plan, &route, (view, owner), avoided, rng);
                back(&self.avoided).or_else(|| back(&self.tried))
            });
            // What leaves on a tick for what returns has to return.
            let returns = back.is_some() == (way == Way::Returning);
            if returns { Ok((route, back)) } else { Err(NotSent::NoWayBack) }
        });
        match planned {
            Ok((route, back)) => {
                let of = Purpose::Message { part: part.number, exit: *exit };
                let (end, is_spare) = (End::Deliver, *is_spare);
                Ok(Unsealed { tick, route, plan, fitted, end, back, of, is_spare })
            }
            Err(why) => {
                self.outbox.release(tick, fitted.packet_len());
                Err(why)
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
        avoided: &[NodeId],
        rng: &mut impl CryptoRng,
    ) -> Option<(Route, Plan)> {
        let exit = route.hops().last()?;
        let back =
            plan.back(route.hops().len(), &self.parameters().mixing, self.schedule.early(), rng);
        let epochs = back.epochs(&self.schedule);
        let relays = |record: &Record| record.features().has_kind(Kind::Reply.number());
        let route = view.route_back((avoided, owner), exit, &epochs, rng, relays).ok()?;
        Some((route, back))
    }

    /// Decides on cover for the ticks that come soon and that no mail has taken: a loop that turns at a
    /// random node on a tick for what returns, and a packet that ends at a random node on another.
    pub(crate) fn cover(
        &mut self,
        from: Option<(&View, Option<&Arc<Record>>)>,
        now: Time,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        self.outbox.draw_ahead(now, rng);
        while let Some((tick, lot)) = self.outbox.next_undecided(now) {
            // Cover that would be late shows as much as mail would.
            let from = from.filter(|_| tick.at > now);
            let planned = from.and_then(|from| {
                // A node that no list names has no way back in a larger network: what leaves is the same.
                let one_way = Lot { way: Way::OneWay, ..lot };
                let returning = self.plan_cover(tick, lot, from, rng);
                returning.or_else(|| self.plan_cover(tick, one_way, from, rng))
            });
            match planned {
                None => self.outbox.leave_empty(tick),
                Some(unsealed) => {
                    self.outbox.await_cover(tick);
                    let (packets, schedule) = (vec![unsealed], self.schedule);
                    out.push(Command::SealCover(Sealing { packets, schedule, is_large: false }));
                }
            }
        }
    }

    /// Has a decoy submitted that is due, to a random node that is not known to be down.
    pub(crate) fn submit_decoy(
        &mut self,
        view: Option<&View>,
        carries: usize,
        now: Time,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        if !self.decoys.take_due(now, rng) {
            return;
        }
        let nodes = view.into_iter().flat_map(View::iter).map(|record| record.node());
        let others: Vec<_> = nodes.filter(|node| !self.tried.contains(node)).collect();
        if others.is_empty() {
            return;
        }
        let law = self.outbox.law();
        let class = law.draw(rng).class;
        let mut smaller = SizeClass::all().filter(|open| *open < class);
        let below = smaller.rfind(|open| law.stage.is_open(open.number()));
        if let Some(to) = others.get(rng.random_range(0..others.len())) {
            let mut decoy = Decoy::draw(*to, class, below, rng);
            // No client brings more than a node says that it takes.
            decoy.octets = decoy.octets.min(carries);
            out.push(Command::Submit(decoy));
        }
    }

    fn plan_cover(
        &self,
        tick: Tick,
        lot: Lot,
        (view, owner): (&View, Option<&Arc<Record>>),
        rng: &mut impl CryptoRng,
    ) -> Option<Unsealed> {
        let plan = Plan::draw(tick.at, &self.parameters().mixing, rng);
        let epochs = plan.epochs(&self.schedule);
        let turns = |record: &Record| {
            let number = ContentType::TurningPoint.number();
            lot.way == Way::OneWay || record.features().has_content(number)
        };
        let retries = lot.way == Way::Returning
            && self.tried.len() < self.avoided.len()
            && rng.random_ratio(1, RETRY);
        let mut around = |avoided: &[NodeId], is_retry: bool| {
            let route = view.route(avoided, &epochs, rng, turns).ok()?;
            // A first hop that mail avoids would show that this is none.
            let first = route.hops().first()?.node();
            if is_retry && self.avoided.contains(&first) {
                return None;
            }
            let back = match lot.way {
                Way::OneWay => None,
                Way::Returning => Some(self.back(&plan, &route, (view, owner?), avoided, rng)?),
            };
            Some((route, back))
        };
        // A tick without cover would show which ticks carry mail: at last it goes through any node.
        let planned = retries.then(|| around(&self.tried, true)).flatten();
        let mut ways = [&self.avoided, &self.tried, &self.own].into_iter();
        let (route, back) = planned.or_else(|| ways.find_map(|avoided| around(avoided, false)))?;
        let (fitted, end) = match lot.way {
            Way::OneWay => (Fitted::nothing(lot.class), End::Drop),
            Way::Returning => (Fitted::turning_point(lot.class), End::Deliver),
        };
        let (of, is_spare) = (Purpose::Loop, false);
        Some(Unsealed { tick, route, plan, fitted, end, back, of, is_spare })
    }

    /// One more packet of cover leaves, among too few packets of others.
    pub(crate) fn top_up(&mut self, TopUp { class, at }: TopUp, way: Way) {
        self.outbox.add_extra(at, Lot { class, way });
    }

    /// Takes what came of [`Command::SealCover`].
    pub(crate) fn handle_cover_sealed(&mut self, sealed: Result<SealedMessage, SealingFailed>) {
        match sealed {
            Ok(SealedMessage { packets, .. }) => {
                for SealedPacket { tick, sealed, expected, .. } in packets {
                    self.outbox.cover(tick, sealed, expected);
                }
            }
            Err(SealingFailed { reserved, .. }) => {
                for Reserved { tick, .. } in reserved {
                    self.outbox.leave_empty(tick);
                }
            }
        }
    }

    /// Puts a sealed packet on its tick.
    pub(crate) fn fill(&mut self, tick: Tick, packet: Sealed, of: Of) {
        self.outbox.fill(tick, packet, of);
    }

    /// The same for the second attempt at a piece.
    pub(crate) fn fill_spare(&mut self, tick: Tick, packet: Sealed, of: Of) {
        self.outbox.fill_spare(tick, packet, of);
    }

    /// Puts what a decoy became on its tick.
    pub(crate) fn fill_decoy(&mut self, tick: Tick, sealed: (Sealed, Option<Expected>), of: Of) {
        self.outbox.fill_decoy(tick, sealed, of);
    }

    /// A tick for a packet that was sealed before a restart, for a time that may be past; `None` if there is
    /// none, or if its keys are gone by then.
    pub(crate) fn reserve_again(
        &mut self,
        packet: &SpooledPacket,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Option<Tick> {
        let lead = now.plus(self.outbox.lead());
        // Nodes accept what is as late as this.
        let grace =
            self.schedule.accepted_until(Epoch::new(0)).since(self.schedule.end(Epoch::new(0)));
        let earliest = packet.at.max(lead);
        let until = packet.sealed.as_ref()?.until;
        let latest = packet.at.max(now).plus(grace).min(until);
        self.outbox.draw_until(latest, rng);
        let class = packet.class;
        let within = earliest..=latest;
        let share = if packet.is_spare { Share::Spare } else { Share::Any };
        let reserved = self.outbox.reserve(within, (class, &[packet.way]), share, rng);
        reserved.map(|(tick, _)| tick)
    }

    /// Packets that have given way to other mail, each told once.
    pub(crate) fn take_displaced(&mut self) -> Vec<Of> {
        self.outbox.take_displaced()
    }

    /// Frees the ticks of packets that are not to leave any more.
    pub(crate) fn cancel(&mut self, packets: &BTreeSet<Of>, now: Time) {
        if !packets.is_empty() {
            self.outbox.cancel(packets, now);
        }
    }

    /// Gives back the ticks of packets that will not come.
    pub(crate) fn release(&mut self, reserved: impl IntoIterator<Item = Reserved>) {
        for Reserved { tick, octets } in reserved {
            self.outbox.release(tick, octets);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.outbox.poll_timeout().into_iter().chain(self.decoys.poll_timeout()).min()
    }

    /// What has come to its tick.
    /// `is_covered` says whether there is cover for ticks without mail.
    pub(crate) fn handle_timeout(
        &mut self,
        is_covered: bool,
        now: Time,
        (replies, custody): (&mut Replies, &mut Custody),
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) -> Vec<Sends> {
        let mut leaving = Vec::new();
        while let Some(due) = self.outbox.next_due(now, is_covered, rng) {
            let Leaving { sealed, cover, is_extra, of } = match due {
                Due::Leaves(leaving) => *leaving,
                Due::Empty => {
                    out.count(Count::TickEmpty);
                    continue;
                }
                Due::NoTopUp => {
                    out.count(Count::PacketLonely);
                    continue;
                }
                Due::Expired(of) => {
                    custody.handle_left(of, out);
                    out.count(Count::PacketDropped(Dropped::Expired));
                    continue;
                }
            };
            let Sealed { first, packet, until } = sealed;
            if let Some(of) = of {
                custody.handle_left(of, out);
            }
            let of_kind = if cover.is_none() { &mut self.mail } else { &mut self.cover };
            of_kind.note(packet.class(), self.schedule.hour_at(now));
            out.count(match &cover {
                _ if is_extra => Count::TopUpSent,
                None => Count::PacketSent,
                Some((Lot { way: Way::Returning, .. }, _)) => Count::LoopSent,
                Some((Lot { way: Way::OneWay, .. }, _)) => Count::DropSent,
            });
            if let Some((_, Some(expected))) = cover {
                replies.expect(expected, out);
            }
            leaving.push(Sends { to: first, packet, until, is_extra });
        }
        leaving
    }

    /// Packets of mail, and of cover, of each class that left in the last whole hour.
    pub(crate) fn traffic(&self, now: Time) -> [ByClass; 2] {
        [&self.mail, &self.cover].map(|traffic| traffic.last(self.schedule.hour_at(now)))
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
        self.octets_of(self.slots(SizeClass::LARGEST, EITHER) / 2)
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn parameters(&self) -> &Parameters {
        self.descriptor.parameters()
    }
}

/// How the clock goes while so many mails an hour are delivered in a network of so many nodes.
fn law(parameters: &Parameters, volume: u32, nodes: usize) -> Law {
    let sending = &parameters.sending;
    let each = volume / u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
    let passed = sending.pace_from.iter().filter(|from| each >= u32::from(**from));
    let [slowest, ..] = sending.gaps;
    let gap = sending.gaps.get(passed.count()).copied().unwrap_or(slowest);
    let (_, stage) = parameters.stage_at(volume);
    let ahead = sending.max_hold + parameters.schedule().hour() / PATIENCE;
    Law { gap, stage: stage.clone(), ahead, cover: sending.cover }
}

/// Packets of each class in a round: the floor is for the slowest clock, and a faster one makes rounds larger
/// in proportion. Without cover there are no dummies, and packets leave as they come.
fn rounds(parameters: &Parameters, law: &Law) -> [u16; SizeClass::COUNT] {
    let Parameters { mixing, sending, .. } = parameters;
    let [slowest, ..] = sending.gaps;
    let faster = slowest.as_secs_f64() / law.gap.as_secs_f64();
    let floor = if law.cover == 0 { 0.0 } else { f64::from(mixing.floor) * faster };
    law.stage.weights.map(|weight| (floor * f64::from(weight) / 100.0).ceil() as u16)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_have_room_for_what_comes_at_each_pace() {
        let parameters = Parameters::main().with_strategy(3);
        let of = |parameters: &Parameters, volume| {
            rounds(parameters, &law(parameters, volume, 20)).map(f64::from)
        };
        assert_eq!(of(&parameters, 0), [0.0, 15.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 3.0]);
        assert_eq!(of(&parameters.clone().quiet(), 0), [0.0; SizeClass::COUNT]);
        for volume in [0, 600, 900, 1800, 3000] {
            let law = law(&parameters, volume, 20);
            // A packet of each tick comes to 4.5 nodes, and to as many again if it returns.
            let ticks = parameters.mixing.window.as_secs_f64() / law.gap.as_secs_f64();
            let returning = 1.0 + f64::from(law.stage.returning) / 100.0;
            for (round, weight) in of(&parameters, volume).into_iter().zip(law.stage.weights) {
                let come = ticks * f64::from(weight) / 100.0 * 4.5 * returning;
                assert!(round >= come * 1.7 && round <= come * 2.6 + 1.0, "{round}, {come}");
            }
        }
    }

    #[test]
    fn the_clock_goes_as_fast_as_the_mails_of_an_hour_and_node_ask_for() {
        let parameters = Parameters::main();
        let goes = |volume, nodes| {
            let law = law(&parameters, volume, nodes);
            let open = SizeClass::all().filter(|class| law.stage.is_open(class.number()));
            (law.gap.as_millis(), open.count())
        };
        for (volume, nodes, gap, open) in [
            (0, 0, 15_000, 3),
            (0, 20, 15_000, 3),
            (599, 20, 15_000, 3),
            (600, 20, 10_000, 5),
            (900, 20, 5_000, 5),
            (1799, 20, 5_000, 5),
            (1800, 20, 2_500, 5),
            (3000, 20, 2_500, 9),
            (3000, 1000, 15_000, 9),
            (u32::MAX, 1, 2_500, 9),
        ] {
            assert_eq!(goes(volume, nodes), (gap, open), "{volume} mails, {nodes} nodes");
        }
        // An hour's ticks of the smallest class that return, in a network that has little mail.
        let smallest = SizeClass::from_number(1).unwrap();
        let law = law(&parameters, 0, 20);
        assert_eq!(law.interval(smallest, &[Way::Returning]), Duration::from_secs(50));
        assert_eq!(law.interval(smallest, EITHER), Duration::from_secs(25));
        assert_eq!(law.interval(SizeClass::LARGEST, EITHER), Duration::from_secs(150));
    }
}

//! A node's own packets and the one Poisson clock on which they leave.
//!
//! Each tick is drawn with what it carries, a size class and a way, before anybody looks what waits:
//! mail takes the first tick of its own kind, and cover every tick that no mail takes. So neither the
//! times nor the sizes of what leaves change when mail is submitted. Ticks are drawn ahead, so that a
//! packet's time of leaving is known when it is sealed (the epochs of its hops follow from it), at
//! every node as far as mail may wait that takes one packet. Mail that may wait longer draws more of
//! them here; those are drawn anew when the pace changes, as other nodes draw them only then.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use keys::Time;
use rand::{CryptoRng, RngExt as _};
use record::Stage;
use sphinx::SizeClass;

use crate::replies::Expected;
use crate::seal::{Sealed, Tick, exponential};

/// Packets of mail waiting, at most; a clock of 15 s has 1,440 ticks in six hours.
const MAX_PACKETS: usize = 8192;
/// Octets of mail waiting, at most. Beyond either bound a submission is refused for now.
const MAX_OCTETS: usize = 128 << 20;
/// How long before its tick cover is sealed, which takes a millisecond or two.
const LEAD: Duration = Duration::from_secs(2);
/// How late a packet may be for its tick. A machine that stalls for longer leaves ticks empty.
const LATE: Duration = Duration::from_secs(1);

/// Whether a packet is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It carries a reply block.
    Returning,
    /// It carries none.
    OneWay,
}

/// What a tick carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lot {
    pub(crate) class: SizeClass,
    pub(crate) way: Way,
}

/// How ticks are drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Law {
    /// Mean gap.
    pub(crate) gap: Duration,
    /// What they carry.
    pub(crate) stage: Stage,
    /// How far ahead they are drawn.
    pub(crate) ahead: Duration,
    /// Percent of them that get cover if no mail takes them.
    pub(crate) cover: u8,
}

pub(crate) struct Outbox {
    law: Law,
    drawn_to: Time,
    serial: u64,
    slots: BTreeMap<u64, Slot>,
    times: BTreeSet<(Time, u64)>,
    /// When there is something to do for a tick.
    agenda: BTreeSet<(Time, u64)>,
    /// Packets of mail and of decoys, and their octets.
    packets: usize,
    octets: usize,
    /// Packets that have given way to other mail, until [`Outbox::take_displaced`].
    displaced: Vec<Of>,
}

struct Slot {
    at: Time,
    lot: Lot,
    load: Load,
    /// Whether it is for cover alone, beside the clock.
    is_extra: bool,
}

enum Load {
    /// Nobody has decided on it yet.
    Free,
    /// It stays empty, unless mail takes it.
    Empty,
    /// Its cover is being sealed.
    Awaited,
    Cover(Sealed, Option<Expected>),
    /// Its mail is being sealed; whether it was to stay empty.
    Reserved(bool),
    Mail(Sealed, Of),
    /// The same of a further attempt at mail that takes many ticks, which gives way to other mail.
    Spare(Sealed, Of),
    /// What a decoy became: cover that was made when it was submitted.
    Decoy(Sealed, Option<Expected>, Of),
}

/// Which ticks a packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Any.
    Any,
    /// Every other: a few large mails must not keep everybody else waiting.
    EveryOther,
    /// Any, until other mail wants it.
    Spare,
}

/// A packet of a message in custody: the number of its part, and its place among the packets of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Of {
    pub(crate) part: u64,
    pub(crate) packet: u16,
}

/// What came of a tick.
pub(crate) enum Due {
    /// Its packet leaves.
    Leaves(Box<Leaving>),
    /// Nothing leaves on it.
    Empty,
    /// No loop leaves with a batch that is too small.
    NoTopUp,
    /// The key of its packet's first hop is gone.
    Expired(Of),
}

/// A packet whose tick has come.
pub(crate) struct Leaving {
    pub(crate) sealed: Sealed,
    /// What it is if it is cover, and what opens its answer.
    pub(crate) cover: Option<(Lot, Option<Expected>)>,
    /// Whether it leaves beside the clock.
    pub(crate) is_extra: bool,
    /// Of which message it is, if it is of one.
    pub(crate) of: Option<Of>,
}

impl Outbox {
    pub(crate) fn new(law: Law, now: Time) -> Self {
        Self {
            law,
            drawn_to: now,
            serial: 0,
            slots: BTreeMap::new(),
            times: BTreeSet::new(),
            agenda: BTreeSet::new(),
            packets: 0,
            octets: 0,
            displaced: Vec::new(),
        }
    }

    pub(crate) fn law(&self) -> &Law {
        &self.law
    }

    /// How long before its tick mail may take it at the latest: before cover is made for it.
    pub(crate) fn lead(&self) -> Duration {
        if self.law.cover == 0 { Duration::ZERO } else { LEAD }
    }

    /// Draws ticks in this way from now on. Those that every node has drawn stay. Of those that were
    /// drawn further ahead, because mail may wait so long here, the free ones are drawn anew; and for
    /// each that mail has taken the next new one of its lot goes, so that there are as many.
    pub(crate) fn change(&mut self, law: Law, now: Time, rng: &mut (impl CryptoRng + ?Sized)) {
        let kept_to = now.plus(self.law.ahead);
        self.law = law;
        if self.drawn_to <= kept_to {
            return;
        }
        let mut taken = Vec::new();
        for (at, serial) in self.times.range((kept_to, u64::MAX)..).copied().collect::<Vec<_>>() {
            match self.slots.get(&serial) {
                Some(slot) if !slot.load.gives_way() => taken.push((at, slot.lot)),
                Some(_) | None => drop(self.remove(serial)),
            }
        }
        let drawn_to = core::mem::replace(&mut self.drawn_to, kept_to);
        while self.drawn_to < drawn_to {
            self.draw(rng);
        }
        for (at, lot) in taken {
            if let Some(serial) = self.next_open(at..=drawn_to, |_, slot| slot.takes_lot(lot)) {
                self.remove(serial);
            }
        }
    }

    /// Draws ticks as far ahead as the law says. A machine that slept draws none for the time that it
    /// has slept through.
    pub(crate) fn draw_ahead(&mut self, now: Time, rng: &mut (impl CryptoRng + ?Sized)) {
        self.drawn_to = self.drawn_to.max(now);
        self.draw_until(now.plus(self.law.ahead), rng);
    }

    /// Draws ticks up to some time, for mail that may wait so long.
    pub(crate) fn draw_until(&mut self, until: Time, rng: &mut (impl CryptoRng + ?Sized)) {
        while self.drawn_to < until {
            self.draw(rng);
        }
    }

    /// Ticks within a span that mail of several packets may take.
    pub(crate) fn open_to_several(
        &self,
        within: RangeInclusive<Time>,
        class: SizeClass,
        ways: &[Way],
    ) -> usize {
        let span = (*within.start(), 0)..=(*within.end(), u64::MAX);
        let is_open = |serial: &u64| {
            self.slots
                .get(serial)
                .is_some_and(|slot| slot.may_take(class, ways) && is_for_several(*serial))
        };
        self.times.range(span).filter(|(_, serial)| is_open(serial)).count()
    }

    /// Reserves the first tick within a span that takes a packet of this class, going one of these
    /// ways; `None` if there is none, or no room. Where no tick is free, one with the second attempt at a
    /// piece of other mail is.
    pub(crate) fn reserve(
        &mut self,
        within: RangeInclusive<Time>,
        (class, ways): (SizeClass, &[Way]),
        share: Share,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<(Tick, Way)> {
        if !self.has_room() || self.octets + class.packet_len() > MAX_OCTETS {
            return None;
        }
        let takes = |serial: u64, slot: &Slot| {
            slot.takes_mail(class, ways) && (share != Share::EveryOther || is_for_several(serial))
        };
        let mut found = self.next_open(within.clone(), takes);
        // Mail that may wait longer than ticks are drawn ahead draws more of them.
        while found.is_none() && self.drawn_to < *within.end() {
            let drawn = self.draw(rng);
            let from = drawn.max(*within.start());
            found = self.next_open(from..=*within.end(), takes);
        }
        let serial = found.or_else(|| {
            let displaces = |serial: u64, slot: &Slot| {
                share != Share::Spare
                    && slot.may_take(class, ways)
                    && (share == Share::Any || is_for_several(serial))
            };
            self.next_open(within, displaces)
        })?;
        let slot = self.slots.get(&serial)?;
        if let Load::Spare(sealed, of) = &slot.load {
            self.displaced.push(*of);
            self.packets = self.packets.saturating_sub(1);
            self.octets = self.octets.saturating_sub(sealed.packet.octets().len());
        }
        let (tick, way) = (Tick { at: slot.at, serial }, slot.lot.way);
        let was_empty = matches!(slot.load, Load::Empty);
        self.turn(serial, Load::Reserved(was_empty), |_| true);
        self.packets += 1;
        self.octets += class.packet_len();
        Some((tick, way))
    }

    /// The first tick within a span that mail may take.
    fn next_open(
        &self,
        within: RangeInclusive<Time>,
        takes: impl Fn(u64, &Slot) -> bool,
    ) -> Option<u64> {
        // A range that ends before it begins is no range to a map.
        if within.is_empty() {
            return None;
        }
        let span = (*within.start(), 0)..=(*within.end(), u64::MAX);
        let mut serials = self.times.range(span).map(|(_, serial)| *serial);
        serials.find(|serial| self.slots.get(serial).is_some_and(|slot| takes(*serial, slot)))
    }

    /// Whether any tick of this lot's class and way is drawn.
    pub(crate) fn has_drawn(&self, class: SizeClass, ways: &[Way]) -> bool {
        let is_such = |slot: &Slot| slot.lot.class == class && ways.contains(&slot.lot.way);
        self.slots.values().any(|slot| is_such(slot) && !slot.is_extra)
    }

    /// Gives a tick another load if `may` says so of the one that it has.
    fn turn(&mut self, serial: u64, load: Load, may: impl Fn(&Load) -> bool) {
        if let Some(slot) = self.slots.get_mut(&serial)
            && may(&slot.load)
        {
            if let Some(at) = slot.load.due(slot.at) {
                self.agenda.remove(&(at, serial));
            }
            self.agenda.extend(load.due(slot.at).map(|at| (at, serial)));
            slot.load = load;
        }
    }

    fn remove(&mut self, serial: u64) -> Option<Slot> {
        let slot = self.slots.remove(&serial)?;
        self.times.remove(&(slot.at, serial));
        if let Some(at) = slot.load.due(slot.at) {
            self.agenda.remove(&(at, serial));
        }
        Some(slot)
    }

    /// Whether mail may wait at all.
    pub(crate) fn has_room(&self) -> bool {
        self.packets < MAX_PACKETS && self.octets < MAX_OCTETS
    }

    /// Puts mail on its reserved tick. If the tick is past already, it takes a later one of its lot when
    /// it is looked at: what leaves off the clock shows that it is mail.
    pub(crate) fn fill(&mut self, tick: Tick, sealed: Sealed, of: Of) {
        self.turn(tick.serial, Load::Mail(sealed, of), |load| matches!(load, Load::Reserved(_)));
    }

    /// The same for the second attempt at a piece.
    pub(crate) fn fill_spare(&mut self, tick: Tick, sealed: Sealed, of: Of) {
        self.turn(tick.serial, Load::Spare(sealed, of), |load| matches!(load, Load::Reserved(_)));
    }

    /// Packets that have given way to other mail, each told once.
    pub(crate) fn take_displaced(&mut self) -> Vec<Of> {
        core::mem::take(&mut self.displaced)
    }

    /// Frees the ticks of packets that are not to leave any more, for other mail or for cover. One that
    /// comes too soon for cover to be made carries its packet all the same.
    pub(crate) fn cancel(&mut self, packets: &BTreeSet<Of>, now: Time) {
        let soon = now.plus(self.lead());
        let is_cancelled = |(serial, slot): (&u64, &Slot)| {
            let (Load::Mail(_, of) | Load::Spare(_, of) | Load::Decoy(.., of)) = &slot.load else {
                return None;
            };
            (slot.at > soon && packets.contains(of)).then_some(*serial)
        };
        let cancelled: Vec<_> = self.slots.iter().filter_map(is_cancelled).collect();
        for serial in cancelled {
            let octets = self.slots.get(&serial).map_or(0, |slot| slot.lot.class.packet_len());
            self.packets = self.packets.saturating_sub(1);
            self.octets = self.octets.saturating_sub(octets);
            // Without cover on every tick, one without mail stays empty.
            let load = if self.law.cover >= 100 { Load::Free } else { Load::Empty };
            self.turn(serial, load, |_| true);
        }
    }

    /// Puts what a decoy became on its reserved tick.
    pub(crate) fn fill_decoy(
        &mut self,
        tick: Tick,
        (sealed, expected): (Sealed, Option<Expected>),
        of: Of,
    ) {
        let load = Load::Decoy(sealed, expected, of);
        self.turn(tick.serial, load, |load| matches!(load, Load::Reserved(_)));
    }

    /// Gives a reserved tick back.
    pub(crate) fn release(&mut self, tick: Tick, octets: usize) {
        self.packets = self.packets.saturating_sub(1);
        self.octets = self.octets.saturating_sub(octets);
        let was_empty = |slot: &Slot| matches!(slot.load, Load::Reserved(true));
        let load = match self.slots.get(&tick.serial).is_some_and(was_empty) {
            true => Load::Empty,
            false => Load::Free,
        };
        self.turn(tick.serial, load, |load| matches!(load, Load::Reserved(_)));
    }

    /// The next tick for which nobody has decided on cover yet, if it comes soon.
    pub(crate) fn next_undecided(&self, now: Time) -> Option<(Tick, Lot)> {
        let due = self.agenda.iter().take_while(|(at, _)| *at <= now);
        let slots = due.filter_map(|(_, serial)| Some((*serial, self.slots.get(serial)?)));
        let mut undecided = slots.filter(|(_, slot)| matches!(slot.load, Load::Free));
        undecided.next().map(|(serial, slot)| (Tick { at: slot.at, serial }, slot.lot))
    }

    /// Notes that cover is being sealed for a tick.
    pub(crate) fn await_cover(&mut self, tick: Tick) {
        self.turn(tick.serial, Load::Awaited, |load| matches!(load, Load::Free));
    }

    /// One more tick at this time, for cover alone.
    pub(crate) fn add_extra(&mut self, at: Time, lot: Lot) {
        self.add(at, lot, true);
    }

    fn add(&mut self, at: Time, lot: Lot, is_extra: bool) -> Tick {
        self.serial += 1;
        let serial = self.serial;
        self.slots.insert(serial, Slot { at, lot, load: Load::Free, is_extra });
        self.times.insert((at, serial));
        self.agenda.extend(Load::Free.due(at).map(|due| (due, serial)));
        Tick { at, serial }
    }

    /// Puts cover on its tick.
    pub(crate) fn cover(&mut self, tick: Tick, sealed: Sealed, expected: Option<Expected>) {
        let load = Load::Cover(sealed, expected);
        self.turn(tick.serial, load, |load| matches!(load, Load::Awaited));
    }

    /// No cover comes for a tick.
    pub(crate) fn leave_empty(&mut self, tick: Tick) {
        let may = |load: &Load| matches!(load, Load::Free | Load::Awaited);
        self.turn(tick.serial, Load::Empty, may);
    }

    /// Moves all ticks: the clock jumped, and what a machine slept through must not leave at once.
    pub(crate) fn shift(&mut self, millis: i64) {
        self.drawn_to = self.drawn_to.shifted(millis);
        for slot in self.slots.values_mut() {
            slot.at = slot.at.shifted(millis);
            // The keys of what is sealed do not wait: a loop that leaves so late proves nothing.
            if let Load::Cover(_, Some(expected)) | Load::Decoy(_, Some(expected), _) =
                &mut slot.load
            {
                expected.until = expected.until.shifted(millis);
                expected.walk = None;
            }
        }
        self.times = self.slots.iter().map(|(serial, slot)| (slot.at, *serial)).collect();
        let due = |(serial, slot): (&u64, &Slot)| Some((slot.load.due(slot.at)?, *serial));
        self.agenda = self.slots.iter().filter_map(due).collect();
    }

    /// When the next packet leaves, or cover has to be sealed.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// What comes of the next tick that has come by `now`. `is_covered` says whether other ticks get cover:
    /// while they do not, mail does not leave either, or it would show. What a machine was too slow for
    /// does not leave in a burst.
    pub(crate) fn next_due(
        &mut self,
        now: Time,
        is_covered: bool,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<Due> {
        loop {
            let past = self.times.range(..=(now, u64::MAX)).map(|(_, serial)| *serial);
            let stays = |slot: &Slot| matches!(slot.load, Load::Reserved(_));
            let serial = past.into_iter().find(|of| !self.slots.get(of).is_some_and(stays))?;
            let Slot { at, lot, load, is_extra } = self.remove(serial)?;
            let is_in_time = now.since(at) <= LATE;
            let (sealed, of) = match load {
                Load::Cover(sealed, expected) if is_in_time => {
                    let cover = Some((lot, expected));
                    let leaving = Leaving { sealed, cover, is_extra, of: None };
                    return Some(Due::Leaves(Box::new(leaving)));
                }
                // Nobody waits for it: late, it stays away as other cover does.
                Load::Decoy(sealed, expected, of) => {
                    self.packets = self.packets.saturating_sub(1);
                    self.octets = self.octets.saturating_sub(sealed.packet.octets().len());
                    let cover = Some((lot, expected));
                    return Some(match is_in_time && sealed.until > now {
                        true => {
                            let of = Some(of);
                            Due::Leaves(Box::new(Leaving { sealed, cover, is_extra, of }))
                        }
                        false => Due::Empty,
                    });
                }
                Load::Mail(sealed, of) | Load::Spare(sealed, of) => (sealed, of),
                Load::Free | Load::Empty | Load::Awaited | Load::Cover(..) | Load::Reserved(_) => {
                    return Some(if is_extra { Due::NoTopUp } else { Due::Empty });
                }
            };
            let octets = sealed.packet.octets().len();
            let is_late = !is_in_time || !(is_covered || self.law.cover == 0);
            if is_late && sealed.until > now {
                self.put_off((sealed, of), lot, now, rng);
                continue;
            }
            self.packets = self.packets.saturating_sub(1);
            self.octets = self.octets.saturating_sub(octets);
            if sealed.until <= now {
                return Some(Due::Expired(of));
            }
            let leaving = Leaving { sealed, cover: None, is_extra, of: Some(of) };
            return Some(Due::Leaves(Box::new(leaving)));
        }
    }

    /// Puts mail on a later tick of its lot.
    fn put_off(
        &mut self,
        (sealed, of): (Sealed, Of),
        lot: Lot,
        now: Time,
        rng: &mut (impl CryptoRng + ?Sized),
    ) {
        let earliest = now.plus(self.lead()).plus(Duration::from_millis(1));
        let serial = loop {
            let open = self.next_open(earliest..=self.drawn_to, |_, slot| slot.takes_lot(lot));
            match open {
                Some(serial) => break serial,
                // A lot that is not drawn any more: its tick is one of its own.
                None if self.drawn_to > now.plus(self.law.ahead) => {
                    break self.add(self.drawn_to, lot, false).serial;
                }
                None => _ = self.draw(rng),
            }
        };
        self.turn(serial, Load::Mail(sealed, of), |_| true);
    }

    /// Packets of mail that wait for their tick.
    pub(crate) fn len(&self) -> usize {
        let is_decoy = |slot: &&Slot| matches!(slot.load, Load::Decoy(..));
        self.packets.saturating_sub(self.slots.values().filter(is_decoy).count())
    }

    /// Draws one more tick; returns when it is.
    fn draw(&mut self, rng: &mut (impl CryptoRng + ?Sized)) -> Time {
        self.drawn_to = self.drawn_to.plus(exponential(self.law.gap, rng));
        let lot = self.law.draw(rng);
        let tick = self.add(self.drawn_to, lot, false);
        if rng.random_range(0..100) >= self.law.cover {
            self.leave_empty(tick);
        }
        tick.at
    }
}

/// Whether a tick is one of those that mail of several packets takes: every other.
fn is_for_several(serial: u64) -> bool {
    serial.is_multiple_of(2)
}

impl Slot {
    /// Whether it may take mail of this class that goes one of these ways.
    fn takes_mail(&self, class: SizeClass, ways: &[Way]) -> bool {
        let is_open = self.load.gives_way() && !self.is_extra;
        is_open && self.lot.class == class && ways.contains(&self.lot.way)
    }

    /// The same, or with what gives way to it.
    fn may_take(&self, class: SizeClass, ways: &[Way]) -> bool {
        let is_spare = matches!(self.load, Load::Spare(..));
        let is_such = self.lot.class == class && ways.contains(&self.lot.way);
        self.takes_mail(class, ways) || (is_spare && is_such)
    }

    fn takes_lot(&self, lot: Lot) -> bool {
        self.takes_mail(lot.class, &[lot.way])
    }
}

impl Load {
    /// When there is something to do for it, on a tick at this time.
    fn due(&self, at: Time) -> Option<Time> {
        match self {
            Self::Free => Some(at.minus(LEAD)),
            Self::Awaited
            | Self::Cover(..)
            | Self::Mail(..)
            | Self::Spare(..)
            | Self::Decoy(..) => Some(at),
            Self::Empty | Self::Reserved(_) => None,
        }
    }

    /// Whether mail may take the tick.
    fn gives_way(&self) -> bool {
        matches!(self, Self::Free | Self::Empty)
    }
}

impl Law {
    /// Mean gap of the ticks of a class for these ways.
    pub(crate) fn interval(&self, class: SizeClass, ways: &[Way]) -> Duration {
        let weight = self.stage.weights.get(usize::from(class.number())).copied();
        let returning = u32::from(self.stage.returning);
        let share: u32 = ways
            .iter()
            .map(|way| match way {
                Way::Returning => returning,
                Way::OneWay => 100_u32.saturating_sub(returning),
            })
            .sum();
        let ticks = u32::from(weight.unwrap_or_default()) * share;
        self.gap.saturating_mul(10_000) / ticks.max(1)
    }

    /// The class first, then the way.
    pub(crate) fn draw(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Lot {
        let mut point = rng.random_range(0..100);
        let mut class = SizeClass::LARGEST;
        for (candidate, weight) in SizeClass::all().zip(self.stage.weights) {
            if point < weight {
                class = candidate;
                break;
            }
            point -= weight;
        }
        let returns = rng.random_range(0..100) < self.stage.returning;
        Lot { class, way: if returns { Way::Returning } else { Way::OneWay } }
    }
}

#[cfg(test)]
mod tests {
    use keys::NodeId;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use record::Parameters;
    use sphinx::Packet;

    use super::*;

    const OF: Of = Of { part: 1, packet: 0 };

    const SECOND: Duration = Duration::from_secs(1);
    const START: Time = Time::from_millis(1_000_000_000);
    const EITHER: &[Way] = &[Way::Returning, Way::OneWay];

    fn outbox() -> Outbox {
        let [stage, ..] = Parameters::main().stages;
        Outbox::new(Law { gap: SECOND * 10, stage, ahead: SECOND * 3000, cover: 100 }, START)
    }

    fn class(number: u8) -> SizeClass {
        SizeClass::from_number(number).unwrap()
    }

    fn sealed(class: SizeClass) -> Sealed {
        let packet = Packet::from_octets(vec![0; class.packet_len()]).unwrap();
        Sealed { first: NodeId::from_bytes([0; 32]), packet, until: START.plus(SECOND * 90_000) }
    }

    /// What leaves in a time, and on what tick, with cover on every tick that mail does not take.
    fn run(outbox: &mut Outbox, span: Duration, rng: &mut ChaCha20Rng) -> Vec<(Time, SizeClass)> {
        let mut left = Vec::new();
        let end = START.plus(span);
        outbox.draw_ahead(START, rng);
        while let Some(now) = outbox.poll_timeout().filter(|at| *at <= end) {
            outbox.draw_ahead(now, rng);
            while let Some((tick, lot)) = outbox.next_undecided(now) {
                outbox.await_cover(tick);
                outbox.cover(tick, sealed(lot.class), None);
            }
            while let Some(due) = outbox.next_due(now, true, rng) {
                let Due::Leaves(leaving) = due else { panic!("every tick is covered") };
                left.push((now, leaving.sealed.packet.class()));
            }
        }
        left
    }

    #[test]
    fn gaps_are_exponential_and_lots_have_their_weights() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut outbox = outbox();
        outbox.draw_ahead(START, &mut rng);
        let mut lots = Vec::new();
        let mut gaps = Vec::new();
        let mut before = START;
        while lots.len() < 4000 {
            outbox.draw(&mut rng);
            let (at, serial) = outbox.times.first().copied().unwrap();
            gaps.push(at.since(before).as_secs_f64());
            before = at;
            lots.push(outbox.remove(serial).unwrap().lot);
        }
        // Kolmogorov-Smirnov against the exponential distribution; 1.95 / sqrt(n) is the 0.1 %
        // level.
        gaps.sort_by(f64::total_cmp);
        let n = gaps.len() as f64;
        let distance = gaps
            .iter()
            .enumerate()
            .map(|(rank, gap)| ((rank as f64 + 0.5) / n - (1.0 - (-gap / 10.0).exp())).abs())
            .fold(0.0, f64::max);
        assert!(distance < 1.95 / n.sqrt(), "{distance}");
        // Half of each class returns. Five degrees of freedom: 99.9 % of samples lie below 20.5.
        let mut chi_square = 0.0;
        for (number, percent) in [(1, 60.0), (4, 30.0), (8, 10.0)] {
            for way in [Way::Returning, Way::OneWay] {
                let lot = Lot { class: class(number), way };
                let found = lots.iter().filter(|found| **found == lot).count() as f64;
                let expected = n * percent / 200.0;
                chi_square += (found - expected).powi(2) / expected;
            }
        }
        assert!(chi_square < 20.5, "{chi_square}");
    }

    /// What a watcher sees of a node's own packets is the same octet for octet of time and size, however
    /// much mail waits.
    #[test]
    fn mail_changes_neither_when_something_leaves_nor_how_large_it_is() {
        let span = SECOND * 2500;
        let seen = |mails: usize| {
            let mut rng = ChaCha20Rng::seed_from_u64(2);
            let mut outbox = outbox();
            outbox.draw_ahead(START, &mut rng);
            let within = START.plus(LEAD)..=START.plus(SECOND * 3000);
            let mut taken = 0;
            for number in [1, 8, 4, 1, 8].into_iter().cycle().take(mails) {
                let class = class(number);
                let mut none = ChaCha20Rng::seed_from_u64(3);
                let reserved =
                    outbox.reserve(within.clone(), (class, EITHER), Share::Any, &mut none);
                let Some((tick, _)) = reserved else { continue };
                outbox.fill(tick, sealed(class), OF);
                taken += 1;
            }
            (run(&mut outbox, span, &mut rng), taken)
        };
        let (idle, none) = seen(0);
        assert!(idle.len() > 200 && none == 0);
        for mails in [1, 20, 150] {
            let (busy, taken) = seen(mails);
            assert!(taken >= mails.min(60), "{taken} of {mails}");
            assert!(busy == idle, "{mails} mails");
        }
    }

    #[test]
    fn mail_takes_ticks_of_its_own_kind_alone_and_gives_them_back() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let mut outbox = outbox();
        outbox.draw_ahead(START, &mut rng);
        let within = START..=START.plus(SECOND * 3000);
        let large = SizeClass::LARGEST;
        let mut taken = Vec::new();
        while let Some((tick, way)) =
            outbox.reserve(within.clone(), (large, &[Way::Returning]), Share::Any, &mut rng)
        {
            assert_eq!(way, Way::Returning);
            let lot = outbox.slots[&tick.serial].lot;
            assert_eq!(lot, Lot { class: large, way });
            taken.push(tick);
        }
        assert!(taken.len() > 5 && taken.is_sorted());
        assert_eq!(outbox.len(), taken.len());
        for tick in &taken {
            outbox.release(*tick, large.packet_len());
        }
        assert_eq!((outbox.packets, outbox.octets), (0, 0));
        let again = outbox.reserve(within, (large, EITHER), Share::Any, &mut rng).unwrap();
        assert!(again.0 <= taken[0]);
    }

    /// The times at which mail leaves of a clock that is looked at at these times only.
    fn mail_leaves(
        outbox: &mut Outbox,
        at: impl IntoIterator<Item = Time>,
        is_covered: bool,
        rng: &mut ChaCha20Rng,
    ) -> Vec<Time> {
        let mut left = Vec::new();
        for now in at {
            outbox.draw_ahead(now, rng);
            while let Some((tick, _)) = outbox.next_undecided(now) {
                outbox.leave_empty(tick);
            }
            while let Some(due) = outbox.next_due(now, is_covered, rng) {
                left.extend(matches!(due, Due::Leaves(_)).then_some(now));
            }
        }
        left
    }

    #[test]
    fn what_is_late_takes_another_tick_of_its_lot_and_leaves_in_no_burst() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut outbox = outbox();
        outbox.draw_ahead(START, &mut rng);
        let within = START..=START.plus(SECOND * 600);
        let mut taken = Vec::new();
        while let Some((tick, _)) =
            outbox.reserve(within.clone(), (class(1), EITHER), Share::Any, &mut rng)
        {
            taken.push(tick);
        }
        assert!(taken.len() > 20);
        // The first is sealed when its tick is past, and the machine stalls over all the others.
        let (first, others) = taken.split_first().unwrap();
        for tick in others {
            outbox.fill(*tick, sealed(class(1)), OF);
        }
        let stalled_to = START.plus(SECOND * 700);
        assert_eq!(mail_leaves(&mut outbox, [stalled_to], true, &mut rng), []);
        outbox.fill(*first, sealed(class(1)), OF);
        assert_eq!(mail_leaves(&mut outbox, [stalled_to], true, &mut rng), []);
        assert_eq!(outbox.len(), taken.len());
        let seconds = (700..6000).map(|second| START.plus(SECOND * second));
        let left = mail_leaves(&mut outbox, seconds, true, &mut rng);
        assert_eq!(left.len(), taken.len());
        let most = left.chunk_by(|one, other| one == other).map(<[Time]>::len).max();
        assert!(most <= Some(3), "in one second");
        assert_eq!((outbox.packets, outbox.octets), (0, 0));
    }

    #[test]
    fn without_cover_mail_does_not_leave_and_what_expires_is_told() {
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let mut outbox = outbox();
        outbox.draw_ahead(START, &mut rng);
        let within = START..=START.plus(SECOND * 600);
        let (tick, _) = outbox.reserve(within, (class(1), EITHER), Share::Any, &mut rng).unwrap();
        let until = START.plus(SECOND * 2000);
        outbox.fill(tick, Sealed { until, ..sealed(class(1)) }, OF);
        let seconds = (1..1999).map(|second| START.plus(SECOND * second));
        assert_eq!(mail_leaves(&mut outbox, seconds, false, &mut rng), []);
        assert_eq!(outbox.len(), 1);
        let mut expired = 0;
        for second in 1999..4000 {
            while let Some(due) = outbox.next_due(START.plus(SECOND * second), true, &mut rng) {
                expired += usize::from(matches!(due, Due::Expired(_)));
            }
        }
        assert_eq!((expired, outbox.len(), outbox.octets), (1, 0, 0));
    }

    #[test]
    fn a_clock_that_jumps_while_mail_is_sealed_loses_neither_mail_nor_room() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let mut outbox = outbox();
        outbox.draw_ahead(START, &mut rng);
        let within = START..=START.plus(SECOND * 600);
        let mut reserve =
            || outbox.reserve(within.clone(), (class(1), EITHER), Share::Any, &mut rng).unwrap().0;
        let (sent, given_back) = (reserve(), reserve());
        outbox.shift(3_600_000);
        outbox.fill(sent, sealed(class(1)), OF);
        outbox.release(given_back, class(1).packet_len());
        let later = sent.at.plus(SECOND * 3600);
        assert!(matches!(
            outbox.next_due(later.minus(SECOND), true, &mut rng),
            None | Some(Due::Empty)
        ));
        assert_eq!(mail_leaves(&mut outbox, [later], true, &mut rng), [later]);
        assert_eq!((outbox.packets, outbox.octets), (0, 0));
    }

    /// Mail that may wait for hours has drawn ticks for hours. When the list asks for another pace, there
    /// are as many ticks at any time as at a node without mail.
    #[test]
    fn another_pace_holds_for_ticks_that_mail_has_drawn() {
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        let mut outbox = outbox();
        outbox.draw_ahead(START, &mut rng);
        let large = SizeClass::LARGEST;
        let far = START.plus(SECOND * 3000)..=START.plus(SECOND * 300_000);
        for _ in 0..200 {
            outbox.reserve(far.clone(), (large, EITHER), Share::Any, &mut rng).unwrap();
        }
        let drawn_to = outbox.drawn_to;
        assert!(drawn_to > START.plus(SECOND * 18_000));
        let faster = Law { gap: SECOND * 5, ..outbox.law().clone() };
        outbox.change(faster, START, &mut rng);
        let span = START.plus(SECOND * 3000)..drawn_to;
        let all = outbox.slots.values().filter(|slot| span.contains(&slot.at));
        let (mut number, mut of_large) = (0, 0);
        for slot in all {
            number += 1;
            of_large += usize::from(slot.lot.class == large);
        }
        let expected = drawn_to.since(span.start).as_secs_f64() / 5.0;
        let off = (f64::from(number) - expected) / expected.sqrt();
        assert!(off.abs() < 4.0, "{number} of {expected}");
        let share = of_large as f64 / f64::from(number);
        assert!((0.08..0.12).contains(&share), "{share}");
        assert_eq!(outbox.len(), 200);
    }
}

//! A node's own packets and the one Poisson clock on which they leave.
//!
//! Each tick is drawn with what it carries, a size class and a way, before anybody looks what waits:
//! mail takes the first tick of its own kind, and cover every tick that no mail takes. So neither the
//! times nor the sizes of what leaves change when mail is submitted. Ticks are drawn ahead, so that a
//! packet's time of leaving is known when it is sealed (the epochs of its hops follow from it), and
//! as far ahead at every node, whether mail waits there or not.

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
const MAX_PACKETS: usize = 4096;
/// Octets of mail waiting, at most. Beyond either bound a submission is refused for now.
const MAX_OCTETS: usize = 64 << 20;
/// How long before its tick cover is sealed, which takes a millisecond or two.
const LEAD: Duration = Duration::from_secs(2);

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
    ticks: BTreeMap<Tick, Slot>,
    /// When there is something to do for a tick.
    agenda: BTreeSet<(Time, Tick)>,
    packets: usize,
    octets: usize,
}

struct Slot {
    lot: Lot,
    load: Load,
}

enum Load {
    /// Nobody has decided on it yet.
    Free,
    /// It stays empty, unless mail takes it.
    Empty,
    /// Its cover is being sealed.
    Awaited,
    Cover(Sealed, Option<Expected>),
    /// Its mail is being sealed.
    Reserved,
    Mail(Sealed),
}

/// A packet whose tick has come.
pub(crate) struct Leaving {
    pub(crate) sealed: Sealed,
    /// What it is if it is cover, and what opens its answer.
    pub(crate) cover: Option<(Lot, Option<Expected>)>,
}

impl Outbox {
    pub(crate) fn new(law: Law, now: Time) -> Self {
        let (ticks, agenda) = (BTreeMap::new(), BTreeSet::new());
        Self { law, drawn_to: now, serial: 0, ticks, agenda, packets: 0, octets: 0 }
    }

    pub(crate) fn law(&self) -> &Law {
        &self.law
    }

    /// Draws ticks in this way from now on; those that are drawn stay.
    pub(crate) fn change(&mut self, law: Law) {
        self.law = law;
    }

    /// Draws ticks as far ahead as the law says. A machine that slept draws none for the time that it
    /// has slept through.
    pub(crate) fn draw_ahead(&mut self, now: Time, rng: &mut (impl CryptoRng + ?Sized)) {
        self.drawn_to = self.drawn_to.max(now);
        let until = now.plus(self.law.ahead);
        while self.drawn_to < until {
            self.draw(rng);
        }
    }

    /// Reserves the first tick within a span that takes a packet of this class, going one of these
    /// ways; `None` if there is none, or no room.
    pub(crate) fn reserve(
        &mut self,
        within: RangeInclusive<Time>,
        class: SizeClass,
        ways: &[Way],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Option<(Tick, Way)> {
        if !self.has_room() || self.octets + class.packet_len() > MAX_OCTETS {
            return None;
        }
        // Mail that may wait longer than ticks are drawn ahead draws more of them.
        while self.drawn_to < *within.end() {
            self.draw(rng);
        }
        let from = Tick { at: *within.start(), serial: 0 };
        let to = Tick { at: *within.end(), serial: u64::MAX };
        let takes = |slot: &Slot| {
            slot.lot.class == class && ways.contains(&slot.lot.way) && slot.load.gives_way()
        };
        let (tick, slot) = self.ticks.range(from..=to).find(|(_, slot)| takes(slot))?;
        let (tick, way) = (*tick, slot.lot.way);
        self.turn(tick, Load::Reserved, |_| true);
        self.packets += 1;
        self.octets += class.packet_len();
        Some((tick, way))
    }

    /// Gives a tick another load if `may` says so of the one that it has.
    fn turn(&mut self, tick: Tick, load: Load, may: impl Fn(&Load) -> bool) {
        if let Some(slot) = self.ticks.get_mut(&tick)
            && may(&slot.load)
        {
            self.agenda.extend(load.due(tick).map(|at| (at, tick)));
            let before = core::mem::replace(&mut slot.load, load);
            if let Some(at) = before.due(tick)
                && slot.load.due(tick) != Some(at)
            {
                self.agenda.remove(&(at, tick));
            }
        }
    }

    /// Whether mail may wait at all.
    pub(crate) fn has_room(&self) -> bool {
        self.packets < MAX_PACKETS && self.octets < MAX_OCTETS
    }

    /// Puts mail on its reserved tick; if the tick is past already, it leaves at once.
    pub(crate) fn fill(&mut self, tick: Tick, sealed: Sealed) {
        self.turn(tick, Load::Mail(sealed), |_| true);
    }

    /// Gives a reserved tick back.
    pub(crate) fn release(&mut self, tick: Tick, octets: usize) {
        self.packets = self.packets.saturating_sub(1);
        self.octets = self.octets.saturating_sub(octets);
        self.turn(tick, Load::Free, |_| true);
    }

    /// The next tick for which nobody has decided on cover yet, if it comes soon.
    pub(crate) fn next_undecided(&self, now: Time) -> Option<(Tick, Lot)> {
        let due = self.agenda.iter().take_while(|(at, _)| *at <= now);
        let slots = due.filter_map(|(_, tick)| Some((*tick, self.ticks.get(tick)?)));
        let mut undecided = slots.filter(|(_, slot)| matches!(slot.load, Load::Free));
        undecided.next().map(|(tick, slot)| (tick, slot.lot))
    }

    /// Notes that cover is being sealed for a tick, or that it stays empty.
    pub(crate) fn decide(&mut self, tick: Tick, is_covered: bool) {
        let load = if is_covered { Load::Awaited } else { Load::Empty };
        self.turn(tick, load, |load| matches!(load, Load::Free));
    }

    /// One more tick at this time, for cover alone.
    pub(crate) fn add(&mut self, at: Time, lot: Lot) -> Tick {
        self.serial += 1;
        let tick = Tick { at, serial: self.serial };
        self.ticks.insert(tick, Slot { lot, load: Load::Free });
        self.agenda.extend(Load::Free.due(tick).map(|at| (at, tick)));
        tick
    }

    /// Puts cover on its tick, if no mail has taken that meanwhile.
    pub(crate) fn cover(&mut self, tick: Tick, sealed: Sealed, expected: Option<Expected>) {
        self.turn(tick, Load::Cover(sealed, expected), |load| matches!(load, Load::Awaited));
    }

    /// No cover comes for a tick.
    pub(crate) fn leave_empty(&mut self, tick: Tick) {
        self.turn(tick, Load::Empty, |load| matches!(load, Load::Awaited));
    }

    /// Moves all ticks: the clock jumped, and what a machine slept through must not leave at once.
    pub(crate) fn shift(&mut self, millis: i64) {
        self.drawn_to = self.drawn_to.shifted(millis);
        let ticks = core::mem::take(&mut self.ticks).into_iter();
        let shifted =
            |(tick, slot): (Tick, Slot)| (Tick { at: tick.at.shifted(millis), ..tick }, slot);
        self.ticks = ticks.map(shifted).collect();
        let due = |(tick, slot): (&Tick, &Slot)| slot.load.due(*tick).map(|at| (at, *tick));
        self.agenda = self.ticks.iter().filter_map(due).collect();
    }

    /// When the next packet leaves, or cover has to be sealed.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// The next packet whose tick has come. Returns with it how many ticks before it stayed empty.
    pub(crate) fn next_due(&mut self, now: Time) -> (usize, Option<Leaving>) {
        let mut empty = 0;
        let now = Tick { at: now, serial: u64::MAX };
        loop {
            let done = |slot: &Slot| !matches!(slot.load, Load::Awaited | Load::Reserved);
            let mut past = self.ticks.range(..=now);
            let Some(tick) = past.find(|(_, slot)| done(slot)).map(|(tick, _)| *tick) else {
                return (empty, None);
            };
            let Some(Slot { lot, load }) = self.ticks.remove(&tick) else { return (empty, None) };
            if let Some(at) = load.due(tick) {
                self.agenda.remove(&(at, tick));
            }
            match load {
                Load::Mail(sealed) => {
                    self.packets = self.packets.saturating_sub(1);
                    self.octets = self.octets.saturating_sub(sealed.packet.octets().len());
                    return (empty, Some(Leaving { sealed, cover: None }));
                }
                Load::Cover(sealed, expected) => {
                    return (empty, Some(Leaving { sealed, cover: Some((lot, expected)) }));
                }
                Load::Free | Load::Empty | Load::Awaited | Load::Reserved => empty += 1,
            }
        }
    }

    /// Packets of mail that wait for their tick.
    pub(crate) fn len(&self) -> usize {
        self.packets
    }

    fn draw(&mut self, rng: &mut (impl CryptoRng + ?Sized)) {
        self.drawn_to = self.drawn_to.plus(exponential(self.law.gap, rng));
        let lot = self.law.draw(rng);
        let tick = self.add(self.drawn_to, lot);
        if rng.random_range(0..100) >= self.law.cover {
            self.decide(tick, false);
        }
    }
}

impl Load {
    /// When there is something to do for it.
    fn due(&self, tick: Tick) -> Option<Time> {
        match self {
            Self::Free => Some(tick.at.minus(LEAD)),
            Self::Cover(..) | Self::Mail(_) => Some(tick.at),
            Self::Empty | Self::Awaited | Self::Reserved => None,
        }
    }

    /// Whether mail may take the tick.
    fn gives_way(&self) -> bool {
        matches!(self, Self::Free | Self::Empty | Self::Awaited | Self::Cover(..))
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
    fn draw(&self, rng: &mut (impl CryptoRng + ?Sized)) -> Lot {
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
        Sealed { first: NodeId::from_bytes([0; 32]), packet, until: START }
    }

    /// What leaves in a time, and on what tick, with cover on every tick that mail does not take.
    fn run(outbox: &mut Outbox, span: Duration, rng: &mut ChaCha20Rng) -> Vec<(Time, SizeClass)> {
        let mut left = Vec::new();
        let end = START.plus(span);
        outbox.draw_ahead(START, rng);
        while let Some(now) = outbox.poll_timeout().filter(|at| *at <= end) {
            outbox.draw_ahead(now, rng);
            while let Some((tick, lot)) = outbox.next_undecided(now) {
                outbox.decide(tick, true);
                outbox.cover(tick, sealed(lot.class), None);
            }
            while let (0, Some(leaving)) = outbox.next_due(now) {
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
            let (tick, slot) = outbox.ticks.pop_first().unwrap();
            gaps.push(tick.at.since(before).as_secs_f64());
            before = tick.at;
            lots.push(slot.lot);
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
            let within = START..=START.plus(SECOND * 3000);
            let mut taken = 0;
            for number in [1, 8, 4, 1, 8].into_iter().cycle().take(mails) {
                let class = class(number);
                let mut none = ChaCha20Rng::seed_from_u64(3);
                let reserved = outbox.reserve(within.clone(), class, EITHER, &mut none);
                let Some((tick, _)) = reserved else { continue };
                outbox.fill(tick, sealed(class));
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
            outbox.reserve(within.clone(), large, &[Way::Returning], &mut rng)
        {
            assert_eq!(way, Way::Returning);
            let lot = outbox.ticks[&tick].lot;
            assert_eq!(lot, Lot { class: large, way });
            taken.push(tick);
        }
        assert!(taken.len() > 5 && taken.is_sorted());
        assert_eq!(outbox.len(), taken.len());
        for tick in &taken {
            outbox.release(*tick, large.packet_len());
        }
        assert_eq!((outbox.packets, outbox.octets), (0, 0));
        let again = outbox.reserve(within, large, EITHER, &mut rng).unwrap();
        assert!(again.0 <= taken[0]);
    }

    #[test]
    fn cover_makes_room_for_mail_and_a_late_packet_leaves_at_once() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let mut outbox = outbox();
        outbox.draw_ahead(START, &mut rng);
        let first = outbox.poll_timeout().unwrap();
        let (tick, lot) = outbox.next_undecided(first).unwrap();
        outbox.decide(tick, true);
        let soon = START..=tick.at;
        assert_eq!(outbox.reserve(soon, lot.class, &[lot.way], &mut rng), Some((tick, lot.way)));
        // The cover comes, and is not wanted any more.
        outbox.cover(tick, sealed(lot.class), None);
        assert!(outbox.next_due(tick.at).1.is_none(), "its mail is not sealed yet");
        let later = tick.at.plus(SECOND);
        outbox.fill(tick, sealed(lot.class));
        assert!(outbox.poll_timeout().is_some_and(|at| at <= tick.at));
        let (empty, leaving) = outbox.next_due(later);
        assert!(empty == 0 && leaving.is_some_and(|leaving| leaving.cover.is_none()));

        let now = outbox.poll_timeout().unwrap();
        let (tick, lot) = outbox.next_undecided(now).unwrap();
        outbox.decide(tick, true);
        outbox.cover(tick, sealed(lot.class), None);
        let (_, leaving) = outbox.next_due(tick.at);
        assert!(leaving.is_some_and(|leaving| leaving.cover.is_some_and(|(of, _)| of == lot)));
        let now = outbox.poll_timeout().unwrap();
        let (tick, _) = outbox.next_undecided(now).unwrap();
        outbox.decide(tick, false);
        assert!(matches!(outbox.next_due(tick.at), (1, None)));
    }
}

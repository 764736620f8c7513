//! Mail in: from a submission to sealed packets on the clock, and its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use directory::{Directory, View};
use keys::Time;
use mail::Mailbox;
use rand::CryptoRng;
use record::{Ask, Capabilities, Record};

use crate::answer::{Refused, Taken};
use crate::command::{Command, Out};
use crate::count::Count;
use crate::custody::{Custody, KeptMessage, Pending};
use crate::cutting::Cut;
use crate::decoys::is_decoy;
use crate::ids::{MessageName, QueueId, SubmissionId};
use crate::leaving::Leaving;
use crate::outbox::{Of, Way};
use crate::replies::{Purpose, Replies};
use crate::seal::{
    Reserved, SealError, SealedMessage, SealedPacket, Sealing, SealingFailed, Tick, Unsealed,
};
use crate::sender::{EITHER, NotSent, Part, Sender, ask};
use crate::spool::{Spooled, SpooledPacket, SpooledPart};

/// What an exit adds to a message, at most: From, Date, Message-ID and the notice.
pub(crate) const REBUILT_OCTETS: usize = 1024;
/// Submissions sealed at once, at most. Above that the newest is refused for now.
const MAX_UNDER_WAY: usize = 1024;

/// What stands between a submission and its answer.
#[derive(Default)]
pub(crate) struct Ingress {
    under_way: BTreeMap<SubmissionId, UnderWay>,
    /// What this node has answered for.
    pub(crate) custody: Custody,
    /// How far this node has got with leaving, if it is: then it takes nothing more.
    pub(crate) leaving: Option<Leaving>,
}

/// A submission that is being sealed.
struct UnderWay {
    fate: Fate,
    parts: Vec<PlannedPart>,
}

/// The number of a part of a message, and of its recipients.
pub(crate) struct PlannedPart {
    number: u64,
    recipients: u8,
}

/// What becomes of the packets of a submission once they are sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is mail, for an exit.
    Carried,
    /// It is a decoy: they are cover, on ticks that it took as mail does. Whoever asks for ticks cannot tell
    /// whether mail has taken them.
    Covers,
}

impl Fate {
    /// Of a submission that was cut. One that goes to somebody too is mail.
    pub(crate) fn of(cut: &Result<Cut, Refused>) -> Self {
        let domains = cut.iter().flat_map(|cut| cut.domains());
        let is_mail = |domain: &str| !is_decoy(domain);
        if cut.is_err() || domains.into_iter().any(is_mail) { Self::Carried } else { Self::Covers }
    }
}

impl Ingress {
    /// Whether anything is taken.
    pub(crate) fn check_open(&self) -> Result<(), Refused> {
        if self.leaving.is_some() { Err(Refused::Leaving) } else { Ok(()) }
    }

    /// Whether one more message may be sealed under this name.
    pub(crate) fn check_room(&self, id: SubmissionId) -> Result<(), Refused> {
        let has_room = self.under_way.len() < MAX_UNDER_WAY && !self.under_way.contains_key(&id);
        if has_room { Ok(()) } else { Err(Refused::Full) }
    }

    /// Has a message sealed that could be planned, or answers why it is not taken.
    pub(crate) fn handle_planned(
        &mut self,
        id: SubmissionId,
        fate: Fate,
        planned: Result<(Sealing, Vec<PlannedPart>), Refused>,
        out: &mut Out,
    ) {
        match planned {
            Ok((sealing, parts)) => {
                self.under_way.insert(id, UnderWay { fate, parts });
                out.push(Command::Seal(id, sealing));
            }
            Err(why) => refuse(id, fate, why, out),
        }
    }

    /// Takes what came of sealing, and has it kept.
    pub(crate) fn handle_sealed(
        &mut self,
        id: SubmissionId,
        sealed: Result<SealedMessage, SealingFailed>,
        sender: &mut Sender,
        (now, rng): (Time, &mut impl CryptoRng),
        out: &mut Out,
    ) {
        let Some(UnderWay { fate, parts }) = self.under_way.remove(&id) else { return };
        match sealed {
            Ok(SealedMessage { packets, through }) => {
                let mut name = [0; 16];
                rng.fill_bytes(&mut name);
                let queue_id = QueueId::from_bytes(name);
                let (spooled, ticks) = spooled(queue_id, (fate, parts), packets, now);
                let pending = Pending { submission: id, id: queue_id, spooled, ticks, through };
                if let Err(pending) = self.custody.keep(pending, out) {
                    not_kept(*pending, Refused::TooBig, sender, out);
                }
            }
            Err(SealingFailed { reserved, why }) => {
                sender.release(reserved);
                refuse(id, fate, why.into(), out);
            }
        }
    }
}

/// Sealed packets as they are kept, and their ticks.
fn spooled(
    id: QueueId,
    (fate, planned): (Fate, Vec<PlannedPart>),
    packets: Vec<SealedPacket>,
    now: Time,
) -> (Spooled, Vec<Vec<Tick>>) {
    let part =
        |planned: &PlannedPart| SpooledPart { recipients: planned.recipients, packets: Vec::new() };
    let mut parts: Vec<_> = planned.iter().map(part).collect();
    let mut ticks = vec![Vec::new(); parts.len()];
    for packet in packets {
        let place = planned.iter().position(|part| Some(part.number) == packet.of.part());
        let Some((part, ticks)) = place.and_then(|p| parts.get_mut(p).zip(ticks.get_mut(p))) else {
            continue;
        };
        let exit = match packet.of {
            Purpose::Message { exit, .. } => exit,
            Purpose::Loop | Purpose::Decoy(_) => 0,
        };
        ticks.push(packet.tick);
        let way = packet.way();
        let SealedPacket { tick, is_spare, sealed, expected, .. } = packet;
        let answer = expected.map(|expected| (expected.keys, expected.until, expected.walk));
        part.packets.push(SpooledPacket {
            at: tick.at,
            way,
            exit,
            is_spare,
            class: sealed.packet.class(),
            sealed: Some(sealed),
            answer,
        });
    }
    let is_cover = fate == Fate::Covers;
    (Spooled { name: MessageName::of(&id), accepted: now, is_cover, parts }, ticks)
}

/// Takes a message that is kept: only now may it be answered for, and may its packets leave.
pub(crate) fn handle_kept(
    pending: Pending,
    (sender, replies, custody): (&mut Sender, &mut Replies, &mut Custody),
    now: Time,
    out: &mut Out,
) {
    let Pending { submission, id, spooled, ticks, through } = pending;
    let numbers: Vec<_> = spooled.parts.iter().map(|_| custody.next_part()).collect();
    custody.insert(&spooled, &numbers, &[], now);
    let is_cover = spooled.is_cover;
    for ((part, number), ticks) in spooled.parts.into_iter().zip(numbers).zip(ticks) {
        for ((place, packet), tick) in (0..).zip(part.packets).zip(ticks) {
            let of = Of { part: number, packet: place };
            let is_spare = packet.is_spare;
            let (Some(sealed), expected) = packet.expecting(number, is_cover) else { continue };
            if is_cover {
                sender.fill_decoy(tick, (sealed, expected), of);
                continue;
            }
            if let Some(expected) = expected {
                replies.expect(expected, out);
            }
            match is_spare {
                true => sender.fill_spare(tick, sealed, of),
                false => sender.fill(tick, sealed, of),
            }
        }
    }
    out.count(if is_cover { Count::DecoyTaken } else { Count::MessageTaken });
    out.push(Command::Answer(submission, Ok(Taken { name: id, through })));
}

/// Goes on with a message that was kept before a restart. A packet of it whose time is past leaves if nodes
/// take it as late as that.
pub(crate) fn restore(
    KeptMessage { spooled, marks }: KeptMessage,
    (sender, replies, custody): (&mut Sender, &mut Replies, &mut Custody),
    now: Time,
    rng: &mut impl CryptoRng,
    out: &mut Out,
) {
    // A node that was killed had no time to forget what has ended.
    if spooled.is_cover || custody.has_ended(&spooled.name) {
        return out.push(Command::ForgetMessage(spooled.name, None));
    }
    let numbers: Vec<_> = spooled.parts.iter().map(|_| custody.next_part()).collect();
    custody.insert(&spooled, &numbers, &marks, now);
    out.count(Count::MessageRestored);
    for (part, number) in spooled.parts.into_iter().zip(numbers) {
        for (place, packet) in (0..).zip(part.packets) {
            let of = Of { part: number, packet: place };
            let tick = match custody.awaits(of) {
                true => sender.reserve_again(&packet, now, rng),
                false => None,
            };
            let is_spare = packet.is_spare;
            let (sealed, expected) = packet.expecting(number, false);
            if let Some(expected) = expected.filter(|expected| expected.until > now) {
                replies.expect(expected, out);
            }
            match (tick, sealed) {
                (Some(tick), Some(sealed)) if is_spare => sender.fill_spare(tick, sealed, of),
                (Some(tick), Some(sealed)) => sender.fill(tick, sealed, of),
                (Some(_) | None, _) => custody.handle_left(of, out),
            }
        }
    }
}

/// Takes back a message that could not be kept.
pub(crate) fn not_kept(pending: Pending, why: Refused, sender: &mut Sender, out: &mut Out) {
    let Pending { submission, spooled, ticks, .. } = pending;
    for (part, ticks) in spooled.parts.iter().zip(ticks) {
        let reserved = part.packets.iter().zip(ticks);
        sender.release(
            reserved.map(|(packet, tick)| Reserved { tick, octets: packet.class.packet_len() }),
        );
    }
    let fate = if spooled.is_cover { Fate::Covers } else { Fate::Carried };
    refuse(submission, fate, why, out);
}

/// Whether mail of this many octets would be taken for this recipient.
pub(crate) fn check_recipient(
    recipient: &Mailbox,
    size: Option<u64>,
    (view, known): (&View, &Directory),
    sender: &Sender,
    now: Time,
) -> Result<(), Refused> {
    let needs =
        if recipient.is_international() { Capabilities::SMTP_UTF8 } else { Capabilities::NONE };
    let octets = size.map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
    let size = u32::try_from(octets.saturating_add(REBUILT_OCTETS)).unwrap_or(u32::MAX);
    let ask = Ask { domain: recipient.domain().as_str(), size, needs };
    let allows = |record: &Record| takes(record, &ask);
    sender.reaches(view, now, allows).map_err(|why| at_present(why.into(), (view, known), allows))
}

/// Whether mail that no exit takes is refused for now or for good: for now if there is no exit at all, or if one
/// that is known would take it and is not in use.
fn at_present(
    why: Refused,
    (view, known): (&View, &Directory),
    allows: impl Fn(&Record) -> bool,
) -> Refused {
    let may_pass = || view.exits().next().is_none() || known.iter().any(|record| allows(record));
    if why == Refused::NoExit && may_pass() { Refused::NoExitNow } else { why }
}

/// Whether an exit takes mail that is asked about. A decoy is taken if mail of its size would be, for whatever
/// domain: where no mail can go, one that goes past RCPT would show that it is none.
fn takes(record: &Record, ask: &Ask<'_>) -> bool {
    record.exit().is_some_and(|exit| match is_decoy(ask.domain) {
        true => ask.size <= exit.max_message,
        false => exit.allows(ask),
    })
}

/// A message that was cut, with a tick and a route for each packet. Of mail that goes to nobody as well, that
/// part is left out. On an error nothing is kept.
pub(crate) fn plan(
    (cut, fate): (Result<Cut, Refused>, Fate),
    (view, known): (Result<&View, Refused>, &Directory),
    owner: Option<&Arc<Record>>,
    (sender, custody): (&mut Sender, &mut Custody),
    now: Time,
    rng: &mut impl CryptoRng,
) -> Result<(Sealing, Vec<PlannedPart>), Refused> {
    if !custody.has_room() {
        return Err(Refused::Full);
    }
    let (mut cut, view) = (cut?, view?);
    if fate == Fate::Carried {
        cut.mails.retain(|mail| !is_decoy(&mail.domain));
    }
    for mail in cut.mails.iter().filter(|_| fate == Fate::Covers) {
        let ask = ask(&mail.domain, mail.octets + REBUILT_OCTETS, mail.needs);
        let allows = |record: &Record| takes(record, &ask);
        sender
            .reaches(view, now, allows)
            .map_err(|why| at_present(why.into(), (view, known), allows))?;
    }
    let packets = cut.packets();
    let is_large = cut.mails.iter().any(|mail| mail.pieces.len() > 1);
    let largest = cut.mails.iter().flat_map(|mail| &mail.pieces).map(|piece| piece.len()).max();
    let class = sender.class_for(largest.unwrap_or_default(), view);
    if packets > 1 {
        let ways = if is_large { EITHER } else { &[Way::Returning] };
        let share = sender.share(class, ways, (now, cut.hold), rng);
        if packets > share {
            return Err(full(&cut, share, sender));
        }
    }
    let mut planned: Vec<Unsealed> = Vec::with_capacity(packets);
    let mut parts = Vec::with_capacity(cut.mails.len());
    for mail in &cut.mails {
        let number = custody.next_part();
        let part = Part { of: packets, hold: cut.hold, fate, number };
        parts.push(PlannedPart { number, recipients: mail.recipients });
        let ask = ask(&mail.domain, mail.octets + REBUILT_OCTETS, mail.needs);
        let allows = |record: &Record| takes(record, &ask);
        match sender.plan_all(&mail.pieces, part, (view, owner), now, rng, allows) {
            Ok(unsealed) => planned.extend(unsealed),
            Err(why) => {
                sender.release(planned.iter().map(Unsealed::reserved));
                return Err(at_present(why.into(), (view, known), allows));
            }
        }
    }
    Ok((Sealing { packets: planned, schedule: *sender.schedule(), is_large }, parts))
}

/// Why a mail has too few ticks, with the size that would go if that is of use.
fn full(cut: &Cut, share: usize, sender: &Sender) -> Refused {
    let [mail] = cut.mails.as_slice() else { return Refused::Full };
    match u32::try_from(sender.octets_of(share)) {
        Ok(octets @ 1..) if mail.pieces.len() > 1 => Refused::FullFor(octets),
        Ok(_) | Err(_) => Refused::Full,
    }
}

fn refuse(id: SubmissionId, fate: Fate, why: Refused, out: &mut Out) {
    // A count is one of a fixed set, whatever the size, and wherever the fault.
    let counted = if let Refused::FullFor(_) = why {
        Refused::Full
    } else if let Refused::Unfit(refused) = why {
        Refused::Unfit(refused.why.into())
    } else {
        why
    };
    out.count(match fate {
        Fate::Carried => Count::MessageRefused(counted),
        Fate::Covers => Count::DecoyRefused,
    });
    out.push(Command::Answer(id, Err(why)));
}

impl From<SealError> for Refused {
    fn from(error: SealError) -> Self {
        match error {
            SealError::TooBig => Self::TooBig,
            SealError::NoRoom => Self::Full,
            SealError::NoKey | SealError::Wrap(_) => Self::TooFewNodes,
        }
    }
}

impl From<NotSent> for Refused {
    fn from(why: NotSent) -> Self {
        match why {
            NotSent::Route(error) => error.into(),
            NotSent::Seal(error) => error.into(),
            NotSent::Full | NotSent::NoWayBack => Self::Full,
        }
    }
}

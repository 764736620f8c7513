//! What this node has answered with 250, until its end is known.
//!
//! ```text
//!          handle_kept          its tick             an answer says so
//! sealed -------------> queued ---------> sent -----------------------> delivered, failed
//!                          |               |  '--> held --'   |
//!                          '---------------+------------------'-------> unknown, lost
//!                                             no answer can come any more
//! ```
//!
//! A message is tried several times with packets that were sealed when it was taken. What is here of it is
//! their number and times; neither it nor the files on the disk say for whom it is.

use std::collections::{BTreeMap, BTreeSet};

use keys::Time;
use mail::{Acknowledgement, DeliveryStatus};
use sphinx::SizeClass;

use crate::command::{Command, Out};
use crate::count::Count;
use crate::ids::{KeepId, MessageName, QueueId, SubmissionId};
use crate::outbox::Of;
use crate::seal::Tick;
use crate::spool::Spooled;

/// Messages in custody, at most. Above that submissions are refused for now.
const MAX_MESSAGES: usize = 16 * 1024;
/// Ends that are known, at most; the oldest goes. 48 octets each.
const MAX_ENDED: usize = 64 * 1024;
/// Hours for which the end of a message is known.
pub(crate) const ENDED_HOURS: u32 = 48;
/// Loops that do not return one after the other until nothing more is tried.
const SILENT_LOOPS: u32 = 12;

/// What is known of a message for some of its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageState {
    /// None of its packets has left.
    Queued,
    /// A packet of it has left.
    Sent,
    /// An exit holds it, and tries.
    Held,
    /// The next server has taken it.
    Delivered,
    /// It will not be delivered: for this reason.
    Failed(DeliveryStatus),
    /// An exit held it, and no answer can come any more.
    Unknown,
    /// No answer came, and none can come any more.
    Lost,
}

/// The end of a message: for how many recipients it was what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which message.
    pub name: MessageName,
    /// When its end was known.
    pub at: Time,
    delivered: u8,
    failed: u8,
    unknown: u8,
    lost: u8,
    /// The number of the status of those that failed.
    why: u8,
}

impl Ended {
    /// Octets of one.
    pub const LEN: usize = 29;

    /// The octets: name 16, time 8, then one each: recipients to whom it was delivered, for whom it failed,
    /// of whom nothing certain is known, for whom it is lost, and the number of the status of a failure.
    #[must_use]
    pub fn to_octets(&self) -> [u8; Self::LEN] {
        let Self { name, at, delivered, failed, unknown, lost, why } = self;
        let at = at.as_millis().to_be_bytes();
        let octets = name.as_bytes().iter().copied().chain(at);
        let octets = octets.chain([*delivered, *failed, *unknown, *lost, *why]);
        let mut all = [0; Self::LEN];
        all.iter_mut().zip(octets).for_each(|(to, from)| *to = from);
        all
    }

    /// Reads what [`Ended::to_octets`] gave.
    #[must_use]
    pub fn from_octets(octets: &[u8; Self::LEN]) -> Option<Self> {
        let (name, rest) = octets.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let [delivered, failed, unknown, lost, why] = *rest.first_chunk()?;
        let (name, at) = (MessageName::from_bytes(*name), u64::from_be_bytes(*at));
        Some(Self { name, at: Time::from_millis(at), delivered, failed, unknown, lost, why })
    }

    /// For how many recipients it is what.
    #[must_use]
    pub fn states(&self) -> Vec<(MessageState, u8)> {
        let all = [
            (MessageState::Delivered, self.delivered),
            (MessageState::Failed(DeliveryStatus::from_number(self.why)), self.failed),
            (MessageState::Unknown, self.unknown),
            (MessageState::Lost, self.lost),
        ];
        all.into_iter().filter(|(_, recipients)| *recipients > 0).collect()
    }

    fn count(&self) -> Count {
        match self {
            Self { lost: 1.., .. } => Count::MessageLost,
            Self { unknown: 1.., .. } => Count::MessageUnknown,
            Self { failed: 1.., .. } => Count::MessageFailed,
            Self { .. } => Count::MessageAcknowledged,
        }
    }
}

/// What an operator sees of a message in custody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// When it was taken.
    pub accepted: Time,
    /// The size class of its largest packet.
    pub class: SizeClass,
    /// Its packets.
    pub packets: usize,
    /// Those of them that have left.
    pub left: usize,
    /// When it ends without an answer.
    pub until: Time,
    /// Whether an exit has said that it holds it.
    pub is_held: bool,
}

/// Something that is to be kept on the disk of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its place among all marks of the message: its parts first, then the packets of each.
    pub place: u32,
    /// What it is: 1.
    pub what: u8,
}

/// A message as it was kept, with its marks.
pub struct KeptMessage {
    /// The message.
    pub(crate) spooled: Spooled,
    /// The marks, by their places; a place without one is 0.
    pub(crate) marks: Vec<u8>,
}

impl KeptMessage {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> MessageName {
        self.spooled.name
    }

    /// Its marks.
    #[must_use]
    pub fn marks(&self) -> &[u8] {
        &self.marks
    }
}

/// What was sealed, until it is kept.
pub(crate) struct Pending {
    pub(crate) submission: SubmissionId,
    pub(crate) id: QueueId,
    pub(crate) spooled: Spooled,
    /// The tick of each packet of each part.
    pub(crate) ticks: Vec<Vec<Tick>>,
    pub(crate) through: Option<Time>,
}

struct Message {
    accepted: Time,
    until: Time,
    is_cover: bool,
    class: SizeClass,
    parts: Vec<u64>,
}

/// The part of a message that goes to one domain.
struct Part {
    message: MessageName,
    recipients: u8,
    /// The place of its own mark, and of that of its first packet.
    places: (u32, u32),
    /// Which exit each packet goes to: the first of the message, or the second.
    exits: Vec<u8>,
    waiting: BTreeSet<u16>,
    heard: Heard,
}

/// What exits have said.
#[derive(Default)]
struct Heard {
    delivered: u8,
    refused: u8,
    is_held: bool,
    /// The last word of an exit that does not deliver to all.
    no: BTreeMap<u8, DeliveryStatus>,
}

/// What an exit said of a part of a message.
pub(crate) struct Word {
    pub(crate) part: u64,
    pub(crate) exit: u8,
    pub(crate) said: Acknowledgement,
}

/// What is not to happen any more.
#[derive(Default)]
pub(crate) struct Cancelled {
    /// Packets that are not to leave.
    pub(crate) packets: BTreeSet<Of>,
    /// Parts of which no answer is waited for.
    pub(crate) parts: Vec<u64>,
}

#[derive(Default)]
pub(crate) struct Custody {
    serial: u64,
    pending: BTreeMap<KeepId, Pending>,
    messages: BTreeMap<MessageName, Message>,
    parts: BTreeMap<u64, Part>,
    ends: BTreeSet<(Time, MessageName)>,
    ended: BTreeMap<MessageName, Ended>,
    ended_at: BTreeSet<(Time, MessageName)>,
    /// Loops that did not return since one did.
    silent: u32,
}

impl Part {
    fn state(&self) -> MessageState {
        match () {
            () if self.heard.is_held => MessageState::Held,
            () if self.waiting.len() < self.exits.len() => MessageState::Sent,
            () => MessageState::Queued,
        }
    }

    /// Recipients of whom no last word is known.
    fn open(&self) -> u8 {
        self.recipients.saturating_sub(self.heard.delivered).saturating_sub(self.heard.refused)
    }

    /// Whether each exit that it goes to has said no, and nothing is to be tried.
    fn has_failed(&self) -> bool {
        let refuses = |exit: &u8| match self.heard.no.get(exit) {
            Some(DeliveryStatus::RefusedHere) => true,
            // Another attempt may find another server.
            Some(_) => self.waiting.is_empty(),
            None => false,
        };
        self.exits.iter().all(refuses)
    }
}

impl Custody {
    /// Whether one more message may be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.messages.len().saturating_add(self.pending.len()) < MAX_MESSAGES
    }

    /// A number for one more part of a message.
    pub(crate) fn next_part(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Has a message kept that is sealed.
    ///
    /// # Errors
    /// The message, if it is larger than any may be.
    pub(crate) fn keep(&mut self, pending: Pending, out: &mut Out) -> Result<(), Box<Pending>> {
        let Some(octets) = pending.spooled.encode() else { return Err(Box::new(pending)) };
        let id = out.keep_id();
        out.push(Command::KeepMessage(id, pending.spooled.name, octets));
        self.pending.insert(id, pending);
        Ok(())
    }

    /// What was to be kept under this name, if it was a message.
    pub(crate) fn take_pending(&mut self, id: KeepId) -> Option<Pending> {
        self.pending.remove(&id)
    }

    /// Takes a message that is kept. `numbers` are those of its parts. Returns when it ends.
    pub(crate) fn insert(&mut self, spooled: &Spooled, numbers: &[u64], marks: &[u8], now: Time) {
        let packets = || spooled.parts.iter().flat_map(|part| &part.packets);
        // As long as an answer can come; to what has none, as long as it may leave.
        let ends = packets().map(|packet| match &packet.answer {
            Some((_, until, _)) => (*until).max(packet.at),
            None => packet.sealed.as_ref().map_or(packet.at, |sealed| sealed.until),
        });
        let until = ends.max().unwrap_or(now);
        let class = packets().map(|packet| packet.class).max();
        let parts = u32::try_from(spooled.parts.len()).unwrap_or(u32::MAX);
        let mut base = parts;
        let marked = |place: u32| {
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            marks.get(place).is_some_and(|mark| *mark != 0)
        };
        for ((place, part), number) in (0..).zip(&spooled.parts).zip(numbers) {
            let count = u16::try_from(part.packets.len()).unwrap_or(u16::MAX);
            let waiting = (0..count).filter(|packet| !marked(base + u32::from(*packet)));
            let heard = Heard { is_held: marked(place), ..Heard::default() };
            let kept = Part {
                message: spooled.name,
                recipients: part.recipients,
                places: (place, base),
                exits: part.packets.iter().map(|packet| packet.exit).collect(),
                waiting: waiting.collect(),
                heard,
            };
            self.parts.insert(*number, kept);
            base += u32::from(count);
        }
        self.ends.insert((until, spooled.name));
        let message = Message {
            accepted: spooled.accepted,
            until,
            is_cover: spooled.is_cover,
            class: class.unwrap_or(SizeClass::SMALLEST),
            parts: numbers.to_vec(),
        };
        self.messages.insert(spooled.name, message);
    }

    /// Takes the ends that are known from before.
    pub(crate) fn restore_ended(&mut self, ended: Vec<Ended>) {
        ended.into_iter().for_each(|ended| self.note_ended(ended));
    }

    /// Whether the end of a message is known.
    pub(crate) fn has_ended(&self, name: &MessageName) -> bool {
        self.ended.contains_key(name)
    }

    fn note_ended(&mut self, ended: Ended) {
        if self.ended.len() >= MAX_ENDED
            && let Some((_, oldest)) = self.ended_at.pop_first()
        {
            self.ended.remove(&oldest);
        }
        self.ended_at.insert((ended.at, ended.name));
        self.ended.insert(ended.name, ended);
    }

    /// Whether a packet of a part is still to leave.
    pub(crate) fn awaits(&self, of: Of) -> bool {
        self.parts.get(&of.part).is_some_and(|part| part.waiting.contains(&of.packet))
    }

    /// A packet has left, or will not.
    pub(crate) fn handle_left(&mut self, of: Of, out: &mut Out) {
        let Some(part) = self.parts.get_mut(&of.part) else { return };
        if part.waiting.remove(&of.packet) {
            let place = part.places.1.saturating_add(of.packet.into());
            out.push(Command::MarkMessage(part.message, Mark { place, what: 1 }));
        }
    }

    /// Takes what an exit said of a message, or that the loop of a decoy came back.
    pub(crate) fn handle_word(&mut self, word: &Word, now: Time, out: &mut Out) -> Cancelled {
        let Some(part) = self.parts.get_mut(&word.part) else { return Cancelled::default() };
        let mut cancelled = Cancelled::default();
        let heard = &mut part.heard;
        for (status, recipients) in word.said.iter() {
            let recipients = recipients.min(part.recipients);
            match status {
                DeliveryStatus::Delivered => heard.delivered = heard.delivered.max(recipients),
                DeliveryStatus::Refused => heard.refused = heard.refused.max(recipients),
                DeliveryStatus::Held | DeliveryStatus::Other { is_final: false } => {
                    if !heard.is_held {
                        heard.is_held = true;
                        let mark = Mark { place: part.places.0, what: 1 };
                        out.push(Command::MarkMessage(part.message, mark));
                    }
                }
                DeliveryStatus::RefusedHere
                | DeliveryStatus::GaveUp
                | DeliveryStatus::Other { is_final: true } => {
                    heard.no.insert(word.exit, status);
                }
            }
        }
        if heard.no.get(&word.exit) == Some(&DeliveryStatus::RefusedHere) {
            let refuses = |packet: &u16| {
                part.exits.get(usize::from(*packet)).is_some_and(|exit| *exit == word.exit)
            };
            let number = word.part;
            let gone = part.waiting.extract_if(.., |packet| refuses(packet));
            cancelled.packets.extend(gone.map(|packet| Of { part: number, packet }));
        }
        let is_over = part.open() == 0 || part.has_failed();
        let name = part.message;
        if is_over {
            let waiting = core::mem::take(&mut part.waiting);
            let of = |packet| Of { part: word.part, packet };
            cancelled.packets.extend(waiting.into_iter().map(of));
            cancelled.parts.push(word.part);
            if self.is_over(&name) {
                // Each of its parts was cancelled by the word that ended it.
                let _ = self.end(name, now, out);
            }
        }
        cancelled
    }

    /// A part's recipients by what became of them, if no more is heard.
    fn count_ends(part: &Part, ended: &mut Ended) {
        let open = part.open();
        ended.delivered = ended.delivered.saturating_add(part.heard.delivered);
        ended.failed = ended.failed.saturating_add(part.heard.refused);
        if part.heard.refused > 0 {
            ended.why = DeliveryStatus::Refused.number();
        }
        let no = part.heard.no.values().next_back();
        match no {
            Some(status) if open > 0 && part.has_failed() => {
                ended.failed = ended.failed.saturating_add(open);
                ended.why = status.number();
            }
            _ if part.heard.is_held => ended.unknown = ended.unknown.saturating_add(open),
            _ => ended.lost = ended.lost.saturating_add(open),
        }
    }

    fn is_over(&self, name: &MessageName) -> bool {
        let parts = self.messages.get(name).into_iter().flat_map(|message| &message.parts);
        let mut parts = parts.filter_map(|number| self.parts.get(number));
        parts.all(|part| part.open() == 0 || part.has_failed())
    }

    /// Ends a message, of which nothing is tried any more.
    fn end(&mut self, name: MessageName, now: Time, out: &mut Out) -> Cancelled {
        let mut cancelled = Cancelled::default();
        let Some(message) = self.messages.remove(&name) else { return cancelled };
        self.ends.remove(&(message.until, name));
        let mut ended =
            Ended { name, at: now, delivered: 0, failed: 0, unknown: 0, lost: 0, why: 0 };
        for number in message.parts {
            let Some(mut part) = self.parts.remove(&number) else { continue };
            let waiting = core::mem::take(&mut part.waiting).into_iter();
            cancelled.packets.extend(waiting.map(|packet| Of { part: number, packet }));
            cancelled.parts.push(number);
            Self::count_ends(&part, &mut ended);
        }
        if message.is_cover {
            out.push(Command::ForgetMessage(name, None));
        } else {
            out.count(ended.count());
            out.push(Command::ForgetMessage(name, Some(ended)));
            self.note_ended(ended);
        }
        cancelled
    }

    /// Notes what came of a loop. While none returns nothing is tried again: whoever silences answers
    /// wants to see that.
    pub(crate) fn note_loop(&mut self, has_returned: bool) {
        self.silent = if has_returned { 0 } else { self.silent.saturating_add(1) };
    }

    /// Whether nothing is sent because no loop returns.
    pub(crate) fn is_suspended(&self) -> bool {
        self.silent >= SILENT_LOOPS && !self.messages.is_empty()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Ends what no answer can come to any more. What ended before `forgotten` is forgotten.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Time,
        forgotten: Time,
        out: &mut Out,
    ) -> Cancelled {
        let mut cancelled = Cancelled::default();
        while let Some((until, name)) = self.ends.first().copied()
            && until <= now
        {
            let Cancelled { packets, parts } = self.end(name, now, out);
            cancelled.packets.extend(packets);
            cancelled.parts.extend(parts);
        }
        while let Some((at, name)) = self.ended_at.first().copied()
            && at <= forgotten
        {
            self.ended_at.remove(&(at, name));
            self.ended.remove(&name);
        }
        cancelled
    }

    /// The clock jumped: what is waited for is waited for as long.
    pub(crate) fn shift(&mut self, millis: i64) {
        self.ends.clear();
        for (name, message) in &mut self.messages {
            message.until = message.until.shifted(millis);
            self.ends.insert((message.until, *name));
        }
    }

    /// For how many recipients a message is what; `None` if nothing is known of it.
    pub(crate) fn states(&self, name: &MessageName) -> Option<Vec<(MessageState, u8)>> {
        if let Some(ended) = self.ended.get(name) {
            return Some(ended.states());
        }
        let message = self.messages.get(name).filter(|message| !message.is_cover)?;
        let mut states = BTreeMap::<MessageState, u8>::new();
        for part in message.parts.iter().filter_map(|number| self.parts.get(number)) {
            let failed = MessageState::Failed(DeliveryStatus::Refused);
            for (state, recipients) in [
                (MessageState::Delivered, part.heard.delivered),
                (failed, part.heard.refused),
                (part.state(), part.open()),
            ] {
                let all = states.entry(state).or_default();
                *all = all.saturating_add(recipients);
            }
        }
        Some(states.into_iter().filter(|(_, recipients)| *recipients > 0).collect())
    }

    /// The messages in custody, the oldest first.
    pub(crate) fn queue(&self) -> Vec<QueueEntry> {
        let mail = self.messages.values().filter(|message| !message.is_cover);
        let mut entries: Vec<_> = mail
            .map(|message| {
                let parts = || message.parts.iter().filter_map(|number| self.parts.get(number));
                let packets = parts().map(|part| part.exits.len()).sum();
                let waiting: usize = parts().map(|part| part.waiting.len()).sum();
                QueueEntry {
                    accepted: message.accepted,
                    class: message.class,
                    packets,
                    left: packets.saturating_sub(waiting),
                    until: message.until,
                    is_held: parts().any(|part| part.heard.is_held),
                }
            })
            .collect();
        entries.sort_by_key(|entry| entry.accepted);
        entries
    }

    /// How many messages are in custody, without decoys.
    pub(crate) fn len(&self) -> usize {
        self.messages.values().filter(|message| !message.is_cover).count()
    }
}

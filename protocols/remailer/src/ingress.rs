//! Mail in: from a submission to sealed packets on the clock, and its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use directory::View;
use keys::Time;
use mail::Mailbox;
use rand::CryptoRng;
use record::{Ask, Capabilities, Record};

use crate::answer::{Refused, Taken};
use crate::command::{Command, Out};
use crate::count::Count;
use crate::cutting::Cut;
use crate::decoys::is_decoy;
use crate::ids::{QueueId, SubmissionId};
use crate::outbox::Way;
use crate::replies::Replies;
use crate::seal::{SealError, SealedMessage, Sealing, SealingFailed, Unsealed};
use crate::sender::{EITHER, NotSent, Part, Sender, ask};

/// What an exit adds to a message, at most: From, Date, Message-ID and the notice.
pub(crate) const REBUILT_OCTETS: usize = 1024;
/// Submissions sealed at once, at most. Above that the newest is refused for now.
const MAX_UNDER_WAY: usize = 1024;

/// What stands between a submission and its answer.
#[derive(Default)]
pub(crate) struct Ingress {
    under_way: BTreeMap<SubmissionId, Fate>,
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
        planned: Result<Sealing, Refused>,
        out: &mut Out,
    ) {
        match planned {
            Ok(sealing) => {
                self.under_way.insert(id, fate);
                out.push(Command::Seal(id, sealing));
            }
            Err(why) => refuse(id, fate, why, out),
        }
    }

    /// Takes what came of sealing, and answers: only now may the message be answered for.
    pub(crate) fn handle_sealed(
        &mut self,
        id: SubmissionId,
        sealed: Result<SealedMessage, SealingFailed>,
        (sender, replies): (&mut Sender, &mut Replies),
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        let Some(fate) = self.under_way.remove(&id) else { return };
        match sealed {
            Ok(SealedMessage { packets, through }) => {
                for (tick, packet, expected) in packets {
                    if fate == Fate::Covers {
                        sender.fill_decoy(tick, packet, expected);
                        continue;
                    }
                    if let Some(expected) = expected {
                        replies.expect(expected, out);
                    }
                    sender.fill(tick, packet);
                }
                out.count(match fate {
                    Fate::Carried => Count::MessageTaken,
                    Fate::Covers => Count::DecoyTaken,
                });
                let mut name = [0; 16];
                rng.fill_bytes(&mut name);
                let taken = Taken { name: QueueId(name), through };
                out.push(Command::Answer(id, Ok(taken)));
            }
            Err(SealingFailed { reserved, why }) => {
                sender.release(reserved);
                refuse(id, fate, why.into(), out);
            }
        }
    }
}

/// Whether mail of this many octets would be taken for this recipient.
pub(crate) fn check_recipient(
    recipient: &Mailbox,
    size: Option<u64>,
    view: &View,
    sender: &Sender,
    now: Time,
) -> Result<(), Refused> {
    let needs =
        if recipient.is_international() { Capabilities::SMTP_UTF8 } else { Capabilities::NONE };
    let octets = size.map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
    let size = u32::try_from(octets.saturating_add(REBUILT_OCTETS)).unwrap_or(u32::MAX);
    let ask = Ask { domain: recipient.domain().as_str(), size, needs };
    let allows = |record: &Record| takes(record, &ask);
    Ok(sender.reaches(view, now, allows)?)
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
    view: Result<&View, Refused>,
    owner: Option<&Arc<Record>>,
    sender: &mut Sender,
    now: Time,
    rng: &mut impl CryptoRng,
) -> Result<Sealing, Refused> {
    let (mut cut, view) = (cut?, view?);
    if fate == Fate::Carried {
        cut.mails.retain(|mail| !is_decoy(&mail.domain));
    }
    for mail in cut.mails.iter().filter(|_| fate == Fate::Covers) {
        let ask = ask(&mail.domain, mail.octets + REBUILT_OCTETS, mail.needs);
        sender.reaches(view, now, |record: &Record| takes(record, &ask))?;
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
    let part = Part { of: packets, hold: cut.hold, fate };
    for mail in &cut.mails {
        let ask = ask(&mail.domain, mail.octets + REBUILT_OCTETS, mail.needs);
        let allows = |record: &Record| takes(record, &ask);
        match sender.plan_all(&mail.pieces, part, (view, owner), now, rng, allows) {
            Ok(unsealed) => planned.extend(unsealed),
            Err(why) => {
                sender.release(planned.iter().map(Unsealed::reserved));
                return Err(why.into());
            }
        }
    }
    Ok(Sealing { packets: planned, schedule: *sender.schedule(), is_large })
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
    // A count is one of a fixed set, whatever the size.
    let counted = if matches!(why, Refused::FullFor(_)) { Refused::Full } else { why };
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

//! Mail in: from a submission to packets on the clock.

use std::sync::Arc;

use directory::{RouteError, View};
use keys::Time;
use mail::{Fragment, Mailbox, MessageError, Needs, Submission};
use rand::CryptoRng;
use record::{Ask, Capabilities, Record};

use super::Remailer;
use crate::outbox::Tick;
use crate::seal::{Content, Fitted, Plan, SealError, Sealed, exponential, seal};

/// How long an ingress holds a mail, at most, in means: one in 55 draws is longer.
const LONGEST_HOLD: u32 = 4;
/// What an exit adds to a message, at most: From, Date, Message-ID and the notice.
const REBUILT_OCTETS: usize = 1024;

/// Why mail is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too few usable nodes; may change.
    #[error("too few nodes")]
    TooFewNodes,
    /// No exit delivers that.
    #[error("no exit")]
    NoExit,
    /// More than the largest packet holds.
    #[error("too big")]
    TooBig,
    /// No room in the outbox; will change.
    #[error("full")]
    Full,
    /// It cannot be carried as it is.
    #[error("{0}")]
    Unfit(MessageError),
}

impl Remailer {
    /// Whether there are enough usable nodes for a route to any exit.
    ///
    /// # Errors
    /// [`Refused::TooFewNodes`] or [`Refused::NoExit`].
    pub fn check_routes(&self, now: Time) -> Result<(), Refused> {
        let view = self.usable_view(now).ok_or(Refused::TooFewNodes)?;
        let epoch = self.schedule.epoch_at(now);
        Ok(view.reaches(&self.node, &(epoch..=epoch), |record| record.exit().is_some())?)
    }

    /// Whether mail of so many octets would be taken for this recipient.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check_recipient(
        &self,
        recipient: &Mailbox,
        size: Option<u64>,
        now: Time,
    ) -> Result<(), Refused> {
        let view = self.usable_view(now).ok_or(Refused::TooFewNodes)?;
        let needs =
            if recipient.is_international() { Capabilities::SMTP_UTF8 } else { Capabilities::NONE };
        let size = size.map_or(0, |size| u32::try_from(size).unwrap_or(u32::MAX));
        let ask = Ask { domain: recipient.domain().as_str(), size, needs };
        let epoch = self.schedule.epoch_at(now);
        let allows = |record: &Record| record.exit().is_some_and(|exit| exit.allows(&ask));
        Ok(view.reaches(&self.node, &(epoch..=epoch), allows)?)
    }

    /// Takes a message: scrubbed, cut, sealed, and put on the clock. Returns the name under which it
    /// was taken. On an error nothing of it is kept.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn handle_submission(
        &mut self,
        submission: &Submission,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<[u8; 16], Refused> {
        let taken = self.take(submission, now, rng);
        match &taken {
            Ok(_) => self.counts.add("message taken"),
            Err(Refused::Unfit(_)) => self.counts.add("message refused: unfit"),
            Err(why) => self.counts.add(&format!("message refused: {why}")),
        }
        taken
    }

    fn take(
        &mut self,
        submission: &Submission,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<[u8; 16], Refused> {
        let scrubbed = mail::scrub(submission).map_err(Refused::Unfit)?;
        let view = Arc::clone(self.usable_view(now).ok_or(Refused::TooFewNodes)?);
        let hour = u32::try_from(now.as_millis() / 3_600_000).unwrap_or(u32::MAX);
        let mut message_id = [0; 16];
        rng.fill_bytes(&mut message_id);

        let mut packets: Vec<(Tick, Sealed)> = Vec::with_capacity(scrubbed.len());
        let mut octets = 0;
        for scrubbed in scrubbed {
            let fragment = Fragment::cut(scrubbed, message_id, hour);
            let fitted = Fitted::new(&Content::Mail(&fragment), rng)?;
            octets += fitted.packet_len();
            if !self.outbox.has_room(packets.len() + 1, octets) {
                return Err(Refused::Full);
            }
            let ticks: Vec<_> = packets.iter().map(|(tick, _)| *tick).collect();
            let hold = self.parameters().mean_hold;
            let hold = exponential(hold, rng).min(hold * LONGEST_HOLD);
            let tick = self.outbox.free_tick(now.plus(hold), &ticks, rng);
            let sealed = self.seal_mail(&view, &fragment, &fitted, tick.0, rng)?;
            packets.push((tick, sealed));
        }
        for (tick, sealed) in packets {
            self.outbox.put(tick, sealed);
        }
        let mut name = [0; 16];
        rng.fill_bytes(&mut name);
        Ok(name)
    }

    fn seal_mail(
        &self,
        view: &View,
        fragment: &Fragment,
        fitted: &Fitted,
        send: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<Sealed, Refused> {
        let plan = Plan::draw(send, self.parameters(), rng);
        let epochs = plan.epochs(&self.schedule);
        let octets = fragment.size() + REBUILT_OCTETS;
        let ask = ask(fragment.envelope().domain().as_str(), octets, fragment.needs());
        let allows = |record: &Record| record.exit().is_some_and(|exit| exit.allows(&ask));
        let route = view.route(&self.node, &epochs, rng, allows)?;
        Ok(seal(&route, &plan, fitted, &self.schedule, rng)?)
    }
}

impl From<RouteError> for Refused {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::TooFewNodes => Self::TooFewNodes,
            RouteError::NoExit => Self::NoExit,
        }
    }
}

impl From<SealError> for Refused {
    fn from(error: SealError) -> Self {
        match error {
            SealError::TooBig => Self::TooBig,
            SealError::NoKey | SealError::Wrap(_) => Self::TooFewNodes,
        }
    }
}

pub(super) fn ask(domain: &str, octets: usize, needed: Needs) -> Ask<'_> {
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

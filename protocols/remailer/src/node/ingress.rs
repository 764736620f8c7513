//! Mail in: from a submission to packets on the clock.

use std::sync::Arc;

use directory::{Route, RouteError, View};
use keys::{Schedule, Time};
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
    /// This node's clock is not the network's.
    #[error("the clock is wrong")]
    ClockApart,
    /// This node sees another network than the others do, or half of what it saw.
    #[error("others see another network")]
    Divided,
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
        let view = self.sending_view(now)?;
        let epoch = self.schedule.epoch_at(now);
        Ok(view.reaches(&self.own, &(epoch..=epoch), |record| record.exit().is_some())?)
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
        let view = self.sending_view(now)?;
        let needs =
            if recipient.is_international() { Capabilities::SMTP_UTF8 } else { Capabilities::NONE };
        let size = size.map_or(0, |size| u32::try_from(size).unwrap_or(u32::MAX));
        let ask = Ask { domain: recipient.domain().as_str(), size, needs };
        let epoch = self.schedule.epoch_at(now);
        let allows = |record: &Record| record.exit().is_some_and(|exit| exit.allows(&ask));
        Ok(view.reaches(&self.own, &(epoch..=epoch), allows)?)
    }

    /// Begins to take a message: scrubbed, cut, a tick and a route for each packet. What is left is
    /// [`Sealing::run`], the costly part, on any thread; its outcome goes to
    /// [`Remailer::handle_sealed`]. On an error nothing is kept.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn handle_submission(
        &mut self,
        submission: &Submission,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<Sealing, Refused> {
        let mut sealing = Sealing { packets: Vec::new(), schedule: self.schedule };
        match self.plan(submission, &mut sealing, now, rng) {
            Ok(()) => Ok(sealing),
            Err(why) => {
                self.release_all(sealing.ticks());
                Err(self.count_refused(why))
            }
        }
    }

    /// Takes what came of sealing. Returns the name under which the message was taken: only now may it
    /// be answered for.
    ///
    /// # Errors
    /// [`Refused`]; nothing is kept then.
    pub fn handle_sealed(
        &mut self,
        sealed: Result<SealedMessage, SealingFailed>,
        rng: &mut impl CryptoRng,
    ) -> Result<[u8; 16], Refused> {
        match sealed {
            Ok(SealedMessage(packets)) => {
                for (tick, packet) in packets {
                    self.outbox.fill(tick, packet);
                }
                self.counts.add("message taken");
                let mut name = [0; 16];
                rng.fill_bytes(&mut name);
                Ok(name)
            }
            Err(SealingFailed { ticks, why }) => {
                self.release_all(ticks);
                Err(self.count_refused(why.into()))
            }
        }
    }

    fn plan(
        &mut self,
        submission: &Submission,
        sealing: &mut Sealing,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Refused> {
        let scrubbed = mail::scrub(submission).map_err(Refused::Unfit)?;
        let view = Arc::clone(self.sending_view(now)?);
        let hour = u32::try_from(now.as_millis() / 3_600_000).unwrap_or(u32::MAX);
        let mut message_id = [0; 16];
        rng.fill_bytes(&mut message_id);
        for scrubbed in scrubbed {
            let fragment = Fragment::cut(scrubbed, message_id, hour);
            let fitted = Fitted::new(&Content::Mail(&fragment), rng)?;
            let hold = self.parameters().mean_hold;
            let hold = exponential(hold, rng).min(hold * LONGEST_HOLD);
            let tick = self.outbox.reserve(now.plus(hold), fitted.packet_len(), rng);
            let tick = tick.ok_or(Refused::Full)?;
            let plan = Plan::draw(tick.0, self.parameters(), rng);
            let route = self.route(&view, &fragment, &plan, rng);
            match route {
                Ok(route) => sealing.packets.push(Unsealed { tick, route, plan, fitted }),
                Err(why) => {
                    self.outbox.release(tick, fitted.packet_len());
                    return Err(why.into());
                }
            }
        }
        Ok(())
    }

    fn sending_view(&self, now: Time) -> Result<&Arc<View>, Refused> {
        // Epochs are counted by the clock: packets for the wrong ones would be lost.
        if self.clock_apart(now).is_some() {
            return Err(Refused::ClockApart);
        }
        if self.is_divided() {
            return Err(Refused::Divided);
        }
        self.usable_view(now).ok_or(Refused::TooFewNodes)
    }

    fn route(
        &self,
        view: &View,
        fragment: &Fragment,
        plan: &Plan,
        rng: &mut impl CryptoRng,
    ) -> Result<Route, RouteError> {
        let epochs = plan.epochs(&self.schedule);
        let octets = fragment.size() + REBUILT_OCTETS;
        let ask = ask(fragment.envelope().domain().as_str(), octets, fragment.needs());
        let allows = |record: &Record| record.exit().is_some_and(|exit| exit.allows(&ask));
        view.route(&self.own, &epochs, rng, allows)
    }

    fn release_all(&mut self, ticks: Vec<(Tick, usize)>) {
        for (tick, octets) in ticks {
            self.outbox.release(tick, octets);
        }
    }

    fn count_refused(&mut self, why: Refused) -> Refused {
        match why {
            Refused::Unfit(_) => self.counts.add("message refused: unfit"),
            Refused::TooFewNodes
            | Refused::NoExit
            | Refused::ClockApart
            | Refused::Divided
            | Refused::TooBig
            | Refused::Full => {
                self.counts.add(&format!("message refused: {why}"));
            }
        }
        why
    }
}

/// A message whose packets have their ticks and routes, and are not sealed yet.
pub struct Sealing {
    packets: Vec<Unsealed>,
    schedule: Schedule,
}

struct Unsealed {
    tick: Tick,
    route: Route,
    plan: Plan,
    fitted: Fitted,
}

/// The packets of a message.
pub struct SealedMessage(Vec<(Tick, Sealed)>);

/// A message that could not be sealed.
pub struct SealingFailed {
    ticks: Vec<(Tick, usize)>,
    why: SealError,
}

impl Sealing {
    /// Seals every packet: some half a millisecond for each. A pure function, for whatever thread has
    /// time.
    ///
    /// # Errors
    /// [`SealingFailed`], for [`Remailer::handle_sealed`].
    pub fn run(self, rng: &mut impl CryptoRng) -> Result<SealedMessage, SealingFailed> {
        let mut sealed = Vec::with_capacity(self.packets.len());
        for packet in &self.packets {
            match seal(&packet.route, &packet.plan, &packet.fitted, &self.schedule, rng) {
                Ok(packed) => sealed.push((packet.tick, packed)),
                Err(why) => return Err(SealingFailed { ticks: self.ticks(), why }),
            }
        }
        Ok(SealedMessage(sealed))
    }

    fn ticks(&self) -> Vec<(Tick, usize)> {
        self.packets.iter().map(|packet| (packet.tick, packet.fitted.packet_len())).collect()
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

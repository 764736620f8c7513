//! From a submission to pieces, each of which fits a packet: scrubbed, compressed, cut. Slow for
//! large mail, and a pure function, for whatever thread has time.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeSet;

use mail::{
    Fragment, FragmentError, MAX_MESSAGE, Mailbox, MessageError, Needs, Scrubbed, Submission,
};
use rand::CryptoRng;
use record::Parameters;
use sphinx::SizeClass;
use zeroize::Zeroizing;

use crate::answer::Refused;

/// Minutes of an hour.
const MINUTES: u32 = 60;

/// A submission as it may be carried, for [`crate::Remailer::handle_submission`].
pub struct Cut {
    pub(crate) mails: Vec<CutMail>,
    /// How long it may be held, at most.
    pub(crate) hold: Duration,
    /// Fields that stay behind although people write them on purpose.
    left: Vec<&'static str>,
}

/// The pieces of a message for one domain.
pub(crate) struct CutMail {
    pub(crate) domain: Zeroizing<String>,
    pub(crate) needs: Needs,
    pub(crate) recipients: u8,
    /// Octets of header and body.
    pub(crate) octets: usize,
    pub(crate) pieces: Vec<Zeroizing<Vec<u8>>>,
}

impl Cut {
    /// Scrubs a submission, and cuts it so that each piece fits the largest class that is open at
    /// every stage.
    ///
    /// # Errors
    /// [`Refused::Unfit`], [`Refused::TooBig`].
    pub fn of(
        submission: &Submission,
        parameters: &Parameters,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, Refused> {
        let room = piece_room(parameters);
        // What takes several packets for each of many domains is as large as all of them together.
        let domains: BTreeSet<_> = submission.recipients.iter().map(Mailbox::domain).collect();
        let octets = submission.message.len();
        if octets > room && domains.len() > 1 && octets.saturating_mul(domains.len()) > MAX_MESSAGE
        {
            return Err(Refused::TooBig);
        }
        drop(domains);
        let scrubbed = mail::scrub(submission).map_err(Refused::Unfit)?;
        let hold = hold(scrubbed.first().and_then(Scrubbed::hold), parameters)?;
        let left = scrubbed.first().map(|mail| mail.left().to_vec()).unwrap_or_default();
        let mut message_id = [0; 16];
        rng.fill_bytes(&mut message_id);
        let cut = scrubbed.into_iter().map(|scrubbed| {
            let mut delivery = [0; 16];
            rng.fill_bytes(&mut delivery);
            let fragment = Fragment::cut(scrubbed, delivery, message_id);
            Ok(CutMail {
                domain: Zeroizing::new(fragment.envelope().domain().as_str().to_owned()),
                needs: fragment.needs(),
                recipients: u8::try_from(fragment.envelope().count()).unwrap_or(u8::MAX),
                octets: fragment.size(),
                pieces: fragment.pieces(room).map_err(|_: FragmentError| Refused::TooBig)?,
            })
        });
        let mails = cut.collect::<Result<_, Refused>>()?;
        Ok(Self { mails, hold, left })
    }

    /// The fields that stay behind although people write them on purpose.
    #[must_use]
    pub fn left(&self) -> &[&'static str] {
        &self.left
    }

    /// The domains that it goes to.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &str> {
        self.mails.iter().map(|mail| mail.domain.as_str())
    }

    /// How many packets it takes.
    pub(crate) fn packets(&self) -> usize {
        self.mails.iter().map(|mail| mail.pieces.len()).sum()
    }
}

/// How long mail may be held whose sender has asked for so many minutes, or for none.
fn hold(minutes: Option<u16>, parameters: &Parameters) -> Result<Duration, Refused> {
    let Some(minutes) = minutes else { return Ok(parameters.sending.max_hold) };
    // Minutes of the network: a test network has faster ones.
    let hold = parameters.schedule().hour() / MINUTES * u32::from(minutes);
    // A packet is sealed when it is taken, for keys that are known then.
    let reach = parameters.custody.horizon.min(parameters.sending.longest_hold);
    if hold > reach { Err(Refused::Unfit(MessageError::HoldTooLong.into())) } else { Ok(hold) }
}

/// Its size alone.
impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cut({} packets)", self.packets())
    }
}

/// Octets that a piece may have beside the type of its content.
pub(crate) fn piece_room(parameters: &Parameters) -> usize {
    let is_open =
        |class: &SizeClass| parameters.stages.iter().all(|stage| stage.is_open(class.number()));
    let largest = SizeClass::all().filter(is_open).map(SizeClass::capacity).max();
    largest.unwrap_or_default().saturating_sub(1)
}

//! Decoys: mail for nobody that a node hands to another as a user would, at the times of a Poisson process.
//!
//! An observer who sees submissions arrive counts them among the others. The node that takes one knows it, gives
//! it ticks of its clock as it gives them to mail, and has them carry cover.

use core::time::Duration;

use keys::{NodeId, Time};
use mail::{AddressError, Delivery, Mailbox, Needs};
use rand::{CryptoRng, RngExt as _};
use sphinx::SizeClass;

use crate::seal::exponential;

/// The domain of the recipients of decoys. No such domain will ever exist (RFC 6761, 6.4).
pub const DECOY_DOMAIN: &str = "decoy.fog.invalid";
/// Octets of the smallest decoy.
const LEAST: usize = 400;
/// Octets of a line, without its end: as programs that write base64 make them (RFC 2045, 6.8).
const LINE: usize = 76;
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A decoy to be handed to a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Decoy {
    /// The node that takes it.
    pub to: NodeId,
    /// Octets of its header and body.
    pub octets: usize,
}

impl Decoy {
    /// A decoy as large as mail that takes a packet of this class: any size between those of the class
    /// below and of this one, and each doubling is as likely as another.
    pub(crate) fn draw(
        to: NodeId,
        class: SizeClass,
        below: Option<SizeClass>,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Self {
        let least = below.map_or(LEAST, SizeClass::capacity).max(LEAST) as f64;
        let most = (class.capacity() as f64).max(least);
        let octets = least * (most / least).powf(rng.random::<f64>());
        Self { to, octets: octets as usize }
    }

    /// Its octets: text of random letters for a random name at [`DECOY_DOMAIN`].
    ///
    /// # Errors
    /// [`AddressError`], which a name of letters never is.
    pub fn delivery(&self, rng: &mut impl CryptoRng) -> Result<Delivery, AddressError> {
        let word = |least: usize, most: usize, rng: &mut dyn CryptoRng| {
            let count = rng.random_range(least..=most);
            (0..count).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect::<String>()
        };
        let recipient = format!("{}@{DECOY_DOMAIN}", word(3, 16, rng));
        let subject = word(3, 40, rng);
        let mut message = format!("To: {recipient}\r\nSubject: {subject}\r\n\r\n").into_bytes();
        // One call of the generator, which may be the system's, for a line.
        let mut drawn = [0; LINE];
        while message.len() < self.octets {
            let left = self.octets.saturating_sub(message.len()).saturating_sub(2).clamp(1, LINE);
            rng.fill_bytes(&mut drawn);
            let letters = drawn.iter().take(left);
            message.extend(letters.filter_map(|octet| LETTERS.get(usize::from(octet & 63))));
            message.extend_from_slice(b"\r\n");
        }
        let recipients = vec![Mailbox::parse(&recipient)?];
        Ok(Delivery { recipients, needs: Needs::NONE, message })
    }
}

/// What became of a decoy that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoyEnd {
    /// The other node took it.
    Taken,
    /// It refused it, or did not answer.
    NotTaken,
}

/// Whether mail for this domain is a decoy.
pub(crate) fn is_decoy(domain: &str) -> bool {
    domain == DECOY_DOMAIN
}

/// When a node hands out its next decoy.
pub(crate) struct Decoys {
    /// The mean time between two; `None` where there is no cover.
    gap: Option<Duration>,
    next: Option<Time>,
}

impl Decoys {
    pub(crate) fn new(gap: Option<Duration>) -> Self {
        Self { gap, next: None }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.next
    }

    /// Whether one is due; then the time of the next is drawn, from now on: what a machine has slept
    /// through does not come all at once.
    pub(crate) fn take_due(&mut self, now: Time, rng: &mut (impl CryptoRng + ?Sized)) -> bool {
        let Some(gap) = self.gap else { return false };
        let is_due = self.next.is_some_and(|next| next <= now);
        if is_due || self.next.is_none() {
            self.next = Some(now.plus(exponential(gap, rng)));
        }
        is_due
    }

    /// The clock jumped: the next is as far away as it was.
    pub(crate) fn shift(&mut self, millis: i64) {
        self.next = self.next.map(|next| next.shifted(millis));
    }
}

//! At the exit: the message as the next server gets it, from nothing that an ingress is trusted
//! for.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use zeroize::ZeroizeOnDrop;

use crate::address::Mailbox;
use crate::fragment::Fragment;
use crate::header::{self, MessageError};
use crate::scrub::{Needs, strip};

const NOTICE: &str = "This message came through an anonymous mail network. Its sender is not known \
                      to the server that delivered it.";
const NOTICE_FROM: &str = "This message came through an anonymous mail network. Its From is the \
                           sender's own claim; nobody vouches for it.";

/// A message for the next server. Its envelope sender is always empty: no failure comes back to
/// anybody. Zeroized on drop.
#[derive(PartialEq, Eq, ZeroizeOnDrop)]
pub struct Delivery {
    /// The recipients; all in one domain.
    pub recipients: Vec<Mailbox>,
    /// What the next server must be able to take.
    #[zeroize(skip)]
    pub needs: Needs,
    /// Header and body with CRLF line ends, dots not stuffed.
    pub message: Vec<u8>,
}

/// Parses what the fragment carries by the same rules as an ingress, and writes the header anew:
/// From (`anonymous`, unless the sender's own is to stand), Message-ID, Date and a notice are the
/// exit's. `hour` is Unix time in whole hours, by the exit's clock: the hour in which a message was
/// accepted tells more than it seems when it is delivered just after that hour.
///
/// # Errors
/// [`MessageError`] if no honest ingress can have made this.
pub fn rebuild(
    fragment: &Fragment,
    anonymous: &Mailbox,
    hour: u32,
) -> Result<Delivery, MessageError> {
    let keeps_from = fragment.needs.contains(Needs::KEEP_FROM);
    let mut message = Vec::with_capacity(fragment.message.len() + 512);
    let stripped = if keeps_from {
        header::write(&mut message, "X-Fog-Notice", NOTICE_FROM)?;
        let asked = [b"X-Fog-From: keep\r\n", fragment.message.as_slice()].concat();
        strip(&zeroize::Zeroizing::new(asked)).map_err(|refused| refused.why)?
    } else {
        header::write(&mut message, "X-Fog-Notice", NOTICE)?;
        let from = format!("Anonymous <{}>", anonymous.to_text());
        header::write(&mut message, "From", &from)?;
        let stripped = strip(&fragment.message).map_err(|refused| refused.why)?;
        // An ingress takes the wish out of the header and says it in the needs, where the policy
        // is.
        if stripped.needs.contains(Needs::KEEP_FROM) {
            return Err(MessageError::FogFrom);
        }
        stripped
    };
    header::write(&mut message, "Date", &date(hour)?)?;
    header::write(&mut message, "Message-ID", &message_id(&fragment.message_id))?;
    message.extend_from_slice(&stripped.message);

    let recipients = fragment.envelope.recipients().ok_or(MessageError::Recipients)?;
    if !fragment.envelope.domain().is_global() {
        return Err(MessageError::Recipients);
    }
    let international = recipients.iter().any(Mailbox::is_international);
    let utf8 = if international { Needs::SMTP_UTF8 } else { Needs::NONE };
    Ok(Delivery { recipients, needs: stripped.needs | utf8, message })
}

/// In UTC and to the hour.
fn date(hour: u32) -> Result<String, MessageError> {
    let at = OffsetDateTime::from_unix_timestamp(i64::from(hour) * 3600);
    at.ok().and_then(|at| at.format(&Rfc2822).ok()).ok_or(MessageError::Header)
}

fn message_id(octets: &[u8; 16]) -> String {
    format!("<{:032x}@fog.invalid>", u128::from_be_bytes(*octets))
}

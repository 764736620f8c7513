//! What the network carries of a submission: an allow-list, applied to the top-level header.
//!
//! The body is not touched: signatures over it verify at the far end, and parts inside it can
//! betray the program that made them.

use core::ops::{BitAnd, BitOr};
use std::collections::BTreeMap;

use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::address::{Domain, Mailbox};
use crate::ascii;
use crate::header::{self, Field, MessageError, NotCarried};
use crate::parameters::{Parameters, is_token, without_comments};

/// Recipients of one submission, at most.
pub const MAX_RECIPIENTS: usize = 100;

/// Fields that are carried, in the order in which they are written. The order of a program's fields
/// is its mark, as much as what is in them.
const CARRIED: &[&str] = &[
    "To",
    "Cc",
    "Subject",
    "In-Reply-To",
    "References",
    "Newsgroups",
    "Followup-To",
    "X-No-Archive",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
];

/// How a body can be encoded (RFC 2045, 6.1).
const ENCODINGS: &[&str] = &["7bit", "8bit", "binary", "quoted-printable", "base64"];

/// Parameters of Content-Type that are carried, in the order in which they are written.
const TYPE_PARAMETERS: &[&str] =
    &["charset", "boundary", "protocol", "micalg", "format", "delsp", "type", "start", "name"];
/// Parameters of Content-Disposition that are carried.
const DISPOSITION_PARAMETERS: &[&str] = &["filename"];

/// Fields carried only beside the sender's own From: programs write them without being asked.
const CARRIED_WITH_FROM: &[&str] = &["From", "Reply-To"];

/// Fields that people write on purpose and that stay behind: who submits is told.
const MISSED: &[&str] = &[
    "Reply-To",
    "Organization",
    "Importance",
    "X-Priority",
    "Disposition-Notification-To",
    "Return-Receipt-To",
    "List-Unsubscribe",
];
/// Fields that say how mail is to be carried, and the notice of an exit, which comes back in what is forwarded.
const WISHES: &[&str] = &["X-Fog-From", "X-Fog-Hold", "X-Fog-Notice"];

/// What SMTP handed over. The envelope's sender is not part of it: nothing may depend on it.
#[derive(ZeroizeOnDrop)]
pub struct Submission {
    /// The recipients, as SMTP named them.
    pub recipients: Vec<Mailbox>,
    /// Header and body, with CRLF line ends, dots unstuffed.
    pub message: Vec<u8>,
}

impl core::fmt::Debug for Submission {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Submission(..)")
    }
}

/// What carrying and delivering a message needs; one octet on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(u8);

impl Needs {
    /// Nothing beyond RFC 5321.
    pub const NONE: Self = Self(0);
    /// Octets above 127 in the body.
    pub const EIGHT_BIT: Self = Self(1);
    /// UTF-8 in the header or in an address.
    pub const SMTP_UTF8: Self = Self(2);
    /// An exit that lets the sender's own From stand.
    pub const KEEP_FROM: Self = Self(4);

    /// Whether everything in `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        if bits < 8 { Some(Self(bits)) } else { None }
    }
}

impl BitOr for Needs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Needs {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Recipients in one domain. Zeroized on drop.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct Envelope {
    pub(crate) domain: Domain,
    pub(crate) locals: Vec<String>,
}

impl Envelope {
    /// The domain they share.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// How many recipients it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.locals.len()
    }

    pub(crate) fn recipients(&self) -> Option<Vec<Mailbox>> {
        let mailbox = |local: &String| Mailbox::of(local, self.domain.clone()).ok();
        self.locals.iter().map(mailbox).collect()
    }
}

/// A message for the recipients in one domain, stripped to what the network carries. Made by
/// [`scrub`] only. Zeroized on drop.
#[derive(ZeroizeOnDrop)]
pub struct Scrubbed {
    pub(crate) envelope: Envelope,
    #[zeroize(skip)]
    pub(crate) needs: Needs,
    #[zeroize(skip)]
    pub(crate) hold: Option<u16>,
    #[zeroize(skip)]
    pub(crate) left: Vec<&'static str>,
    pub(crate) message: Vec<u8>,
}

impl Scrubbed {
    /// The fields that stay behind although people write them on purpose.
    #[must_use]
    pub fn left(&self) -> &[&'static str] {
        &self.left
    }

    /// For how many minutes at most its sender wants it to be held, if it has said so.
    #[must_use]
    pub fn hold(&self) -> Option<u16> {
        self.hold
    }

    /// The recipients that it is for.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// What delivering it needs.
    #[must_use]
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Octets of header and body.
    #[must_use]
    pub fn size(&self) -> usize {
        self.message.len()
    }
}

/// Strips a submission, and divides it by recipient domain.
///
/// # Errors
/// [`NotCarried`] if it cannot be carried; nothing of it is kept then.
pub fn scrub(submission: &Submission) -> Result<Vec<Scrubbed>, NotCarried> {
    let is_global = |recipient: &Mailbox| recipient.domain().is_global();
    if !(1..=MAX_RECIPIENTS).contains(&submission.recipients.len())
        || !submission.recipients.iter().all(is_global)
    {
        return Err(MessageError::Recipients.into());
    }
    let stripped = strip(&submission.message)?;
    let mut domains: BTreeMap<&Domain, Vec<&Mailbox>> = BTreeMap::new();
    for recipient in &submission.recipients {
        let known = domains.entry(recipient.domain()).or_default();
        if !known.contains(&recipient) {
            known.push(recipient);
        }
    }
    let scrubbed = domains.into_iter().map(|(domain, recipients)| {
        let international = recipients.iter().any(|mailbox| mailbox.is_international());
        let utf8 = if international { Needs::SMTP_UTF8 } else { Needs::NONE };
        let locals = recipients.iter().map(|mailbox| mailbox.local().to_owned()).collect();
        Scrubbed {
            envelope: Envelope { domain: domain.clone(), locals },
            needs: stripped.needs | utf8,
            hold: stripped.hold,
            left: stripped.left.clone(),
            message: stripped.message.clone(),
        }
    });
    Ok(scrubbed.collect())
}

/// A message with nothing in its header but what is carried.
#[derive(ZeroizeOnDrop)]
pub(crate) struct Stripped {
    #[zeroize(skip)]
    pub(crate) needs: Needs,
    #[zeroize(skip)]
    hold: Option<u16>,
    #[zeroize(skip)]
    left: Vec<&'static str>,
    pub(crate) message: Vec<u8>,
}

/// Whether anything depends on a field of this name.
fn is_wanted(name: &str) -> bool {
    let lists = [CARRIED, CARRIED_WITH_FROM, MISSED].into_iter().flatten();
    is_wish(name) || lists.into_iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn is_wish(name: &str) -> bool {
    name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("X-Fog-"))
}

pub(crate) fn strip(message: &[u8]) -> Result<Stripped, NotCarried> {
    let (fields, body) = header::parse(message, is_wanted)?;
    let is_known = |name: &str| WISHES.iter().any(|known| known.eq_ignore_ascii_case(name));
    if let Some(field) = fields.iter().find(|field| is_wish(field.name) && !is_known(field.name)) {
        return Err(NotCarried::at_line(MessageError::UnknownWish, field.line));
    }
    let keeps_from = keeps_from(&fields)?;
    let mut needs = if keeps_from { Needs::KEEP_FROM } else { Needs::NONE };
    if body.iter().any(|octet| !octet.is_ascii()) {
        needs = needs | Needs::EIGHT_BIT;
    }

    let with_from = if keeps_from { CARRIED_WITH_FROM } else { &[] };
    let is_left = |name: &&&str| {
        !with_from.contains(*name) && fields.iter().any(|f| f.name.eq_ignore_ascii_case(name))
    };
    let left = MISSED.iter().filter(is_left).copied().collect();
    let hold = hold(&fields)?;
    let mut stripped = Stripped { needs, hold, left, message: Vec::with_capacity(message.len()) };
    for name in with_from.iter().chain(CARRIED) {
        let Some(value) = joined(&fields, name)? else { continue };
        let Some(carried) = carried_value(name, &value)? else { continue };
        if !carried.is_ascii() {
            stripped.needs = stripped.needs | Needs::SMTP_UTF8;
        }
        header::write(&mut stripped.message, name, &carried)
            .map_err(|why| NotCarried::in_field(why, name))?;
    }
    stripped.message.extend_from_slice(b"\r\n");
    stripped.message.extend_from_slice(body);
    Ok(stripped)
}

/// A field's value in ASCII and without what names the program that wrote it; nothing for a field that says
/// nothing.
fn carried_value(name: &'static str, value: &str) -> Result<Option<Zeroizing<String>>, NotCarried> {
    let plain = || without_comments(value).trim().to_ascii_lowercase();
    let odd = NotCarried::in_field(MessageError::Value, name);
    let carried = match name {
        "To" | "Cc" | "From" | "Reply-To" => return Ok(Some(ascii::addresses(value))),
        "Subject" => return Ok(Some(ascii::text(value))),
        "In-Reply-To" | "References" | "Newsgroups" | "Followup-To" => {
            return Ok(Some(ascii::words(value)));
        }
        "MIME-Version" => match plain().as_str() {
            "1.0" => "1.0".to_owned(),
            _ => return Err(odd),
        },
        "Content-Transfer-Encoding" => {
            let plain = plain();
            let known = ENCODINGS.iter().find(|known| **known == plain);
            (*known.ok_or(odd)?).to_owned()
        }
        // The only value that archives know.
        "X-No-Archive" if plain() == "yes" => "yes".to_owned(),
        "X-No-Archive" => return Ok(None),
        "Content-Type" => {
            let parsed = Parameters::parse(value);
            let mut written = parsed.main.clone();
            match written.split_once('/') {
                Some((main, sub)) if is_token(main) && is_token(sub) => {}
                _ => return Err(odd),
            }
            if parsed.has_odd_boundary() {
                return Err(odd);
            }
            parsed.write(&mut written, TYPE_PARAMETERS);
            written
        }
        "Content-Disposition" => {
            let parsed = Parameters::parse(value);
            // RFC 2183, 2.8: what is not known is an attachment.
            let inline = parsed.main == "inline";
            let mut written = if inline { "inline" } else { "attachment" }.to_owned();
            parsed.write(&mut written, DISPOSITION_PARAMETERS);
            written
        }
        _ => return Ok(None),
    };
    Ok(Some(Zeroizing::new(carried)))
}

fn keeps_from(fields: &[Field<'_>]) -> Result<bool, NotCarried> {
    let refused = |why| NotCarried::in_field(why, "X-Fog-From");
    match joined(fields, "X-Fog-From")? {
        None => Ok(false),
        Some(wish) if !wish.eq_ignore_ascii_case("keep") => Err(refused(MessageError::FogFrom)),
        Some(_) => match joined(fields, "From") {
            Ok(Some(_)) => Ok(true),
            Err(odd) if odd.why == MessageError::Value => Err(odd),
            Ok(None) | Err(_) => Err(refused(MessageError::NoFrom)),
        },
    }
}

/// The longest hold that a sender may ask for: a day.
const MOST_MINUTES: u16 = 24 * 60;

fn hold(fields: &[Field<'_>]) -> Result<Option<u16>, NotCarried> {
    let Some(wish) = joined(fields, "X-Fog-Hold")? else { return Ok(None) };
    let is_number = wish.bytes().all(|octet| octet.is_ascii_digit());
    let minutes = wish.parse().ok().filter(|minutes| is_number && *minutes <= MOST_MINUTES);
    minutes.map(Some).ok_or(NotCarried::in_field(MessageError::FogHold, "X-Fog-Hold"))
}

/// The value of a field, if it is there. Each may stand once (RFC 5322, 3.6): the same value twice is one, and
/// the lists of To and of Cc are put together, as programs are known to divide them.
fn joined(
    fields: &[Field<'_>],
    name: &'static str,
) -> Result<Option<Zeroizing<String>>, NotCarried> {
    let of_name = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let mut values: Vec<&str> = Vec::new();
    for field in of_name {
        let refused = NotCarried::at_line(MessageError::Value, field.line);
        let value = field.value.as_ref().ok_or(refused)?.as_str();
        if !values.contains(&value) {
            values.push(value);
        }
    }
    match values.as_slice() {
        [] => Ok(None),
        [value] => Ok(Some(Zeroizing::new((*value).to_owned()))),
        values if matches!(name, "To" | "Cc") => {
            let lists: Vec<_> = values.iter().copied().filter(|list| !list.is_empty()).collect();
            Ok(Some(Zeroizing::new(lists.join(", "))))
        }
        _ => Err(NotCarried::in_field(MessageError::Repeated, name)),
    }
}

//! What the network carries of a submission: an allow-list, applied to the top-level header.
//!
//! The body is not touched: signatures over it verify at the far end, and parts inside it can
//! betray the program that made them.

use core::ops::{BitAnd, BitOr};
use std::collections::BTreeMap;

use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use crate::address::{Domain, Mailbox};
use crate::header::{self, Field, MessageError};
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
    pub(crate) message: Vec<u8>,
}

impl Scrubbed {
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
/// [`MessageError`] if it cannot be carried; nothing of it is kept then.
pub fn scrub(submission: &Submission) -> Result<Vec<Scrubbed>, MessageError> {
    if !(1..=MAX_RECIPIENTS).contains(&submission.recipients.len()) {
        return Err(MessageError::Recipients);
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
    pub(crate) message: Vec<u8>,
}

pub(crate) fn strip(message: &[u8]) -> Result<Stripped, MessageError> {
    let (mut fields, body) = header::parse(message)?;
    let keeps_from = keeps_from(&fields)?;
    let mut needs = if keeps_from { Needs::KEEP_FROM } else { Needs::NONE };
    if body.iter().any(|octet| !octet.is_ascii()) {
        needs = needs | Needs::EIGHT_BIT;
    }

    let hold = hold(&fields)?;
    let mut stripped = Stripped { needs, hold, message: Vec::with_capacity(message.len()) };
    let with_from = if keeps_from { CARRIED_WITH_FROM } else { &[] };
    for name in with_from.iter().chain(CARRIED) {
        if let Some(field) = single(&fields, name)? {
            if !field.value.is_ascii() {
                stripped.needs = stripped.needs | Needs::SMTP_UTF8;
            }
            if let Some(carried) = carried_value(name, &field.value)? {
                header::write(&mut stripped.message, name, &carried)?;
            }
        }
    }
    for field in &mut fields {
        field.value.zeroize();
    }
    stripped.message.extend_from_slice(b"\r\n");
    stripped.message.extend_from_slice(body);
    Ok(stripped)
}

/// A field's value without what names the program that wrote it; nothing for a field that says
/// nothing.
fn carried_value(name: &str, value: &str) -> Result<Option<Zeroizing<String>>, MessageError> {
    let plain = || without_comments(value).trim().to_ascii_lowercase();
    let carried = match name {
        "MIME-Version" => match plain().as_str() {
            "1.0" => "1.0".to_owned(),
            _ => return Err(MessageError::Header),
        },
        "Content-Transfer-Encoding" => {
            let plain = plain();
            let known = ENCODINGS.iter().find(|known| **known == plain);
            (*known.ok_or(MessageError::Header)?).to_owned()
        }
        // The only value that archives know.
        "X-No-Archive" if plain() == "yes" => "yes".to_owned(),
        "X-No-Archive" => return Ok(None),
        "Content-Type" => {
            let parsed = Parameters::parse(value);
            let mut written = parsed.main.clone();
            match written.split_once('/') {
                Some((main, sub)) if is_token(main) && is_token(sub) => {}
                _ => return Err(MessageError::Header),
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
        _ => value.to_owned(),
    };
    Ok(Some(Zeroizing::new(carried)))
}

fn keeps_from(fields: &[Field<'_>]) -> Result<bool, MessageError> {
    match single(fields, "X-Fog-From")? {
        None => Ok(false),
        Some(wish) if !wish.value.eq_ignore_ascii_case("keep") => Err(MessageError::FogFrom),
        Some(_) => match single(fields, "From") {
            Ok(Some(_)) => Ok(true),
            _ => Err(MessageError::NoFrom),
        },
    }
}

/// The longest hold that a sender may ask for: a day.
const MOST_MINUTES: u16 = 24 * 60;

fn hold(fields: &[Field<'_>]) -> Result<Option<u16>, MessageError> {
    let Some(wish) = single(fields, "X-Fog-Hold")? else { return Ok(None) };
    let is_number = wish.value.bytes().all(|octet| octet.is_ascii_digit());
    let minutes = wish.value.parse().ok().filter(|minutes| is_number && *minutes <= MOST_MINUTES);
    minutes.map(Some).ok_or(MessageError::FogHold)
}

/// The one field of this name, if there is one. Every carried field may stand once (RFC 5322, 3.6).
fn single<'a, 'b>(
    fields: &'b [Field<'a>],
    name: &str,
) -> Result<Option<&'b Field<'a>>, MessageError> {
    let mut same = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let first = same.next();
    if same.next().is_some() { Err(MessageError::Repeated) } else { Ok(first) }
}

//! Mail as the network may carry it: parsed, scrubbed, cut into payloads, joined again.
//!
//! ```text
//! Submission -> scrub -> Scrubbed -> fragment -> Fragment (octets of a payload)      at the ingress
//! octets -> Fragment -> rebuild -> Delivery                                          at the exit
//! ```
//!
//! A [`Fragment`] is made only from a [`Scrubbed`], and that only by [`scrub`]: nothing that a
//! submitter's program wrote beside the message itself can reach a payload. The exit parses and
//! builds the header again and trusts nothing that an ingress did.
//!
//! This crate knows no packet, no SMTP and no clock. None of its types prints an address, a header
//! or a body.

mod acknowledgement;
mod address;
mod ascii;
mod fragment;
mod header;
mod parameters;
mod quotes;
mod rebuild;
mod scrub;

pub use acknowledgement::{
    Acknowledgement, AcknowledgementError, DeliveryStatus, MAX_ACKNOWLEDGEMENT,
};
pub use address::{AddressError, Domain, Mailbox};
pub use fragment::{Assembly, Fragment, FragmentError, MAX_FRAGMENT, MAX_MESSAGE, Piece};
pub use header::{MessageError, NotCarried, Place};
pub use rebuild::{Delivery, rebuild};
pub use scrub::{Envelope, MAX_RECIPIENTS, Needs, Scrubbed, Submission, scrub};

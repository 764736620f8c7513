//! Typed fields of a later version, at the end of descriptors, records and words.

use bincode::{Decode, Encode};

const MAX_EXTENSIONS: usize = 16;

/// A typed field of a later version. Unknown ones are kept and stay signed. A statement with an
/// unknown critical one is held and passed on like any other, and not routed through.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Extension {
    /// Which field; strictly ascending within a statement.
    pub kind: u16,
    /// Whether a node that does not know the field must not act on the statement.
    pub critical: bool,
    /// Its octets.
    pub value: Vec<u8>,
}

impl Extension {
    /// In a record: what its mailbox keeps, for how long, and at which price. Not critical.
    pub const MAILBOX: u16 = 1;
    /// In a record: the mail domain at which an exit takes replies. Not critical.
    pub const REPLIES: u16 = 2;
    /// In a record: its author is about to leave, and no route is to go through it. Critical, so that a
    /// version which does not know it routes around the author too; without a value.
    pub const LEAVING: u16 = 3;
    /// In a descriptor: the bounds of mailboxes.
    pub const MAILBOXES: u16 = 1;

    /// Says that the author of a record is about to leave.
    #[must_use]
    pub const fn leaving() -> Self {
        Self { kind: Self::LEAVING, critical: true, value: Vec::new() }
    }

    /// In any other form it says nothing, or something that is not understood, as to a version before it: so
    /// voters of both list the same.
    pub(crate) fn is_leaving(&self) -> bool {
        self.kind == Self::LEAVING && self.critical && self.value.is_empty()
    }
}

/// Whether there are at most 16, ascending by kind.
pub(crate) fn well_formed(extensions: &[Extension]) -> bool {
    extensions.len() <= MAX_EXTENSIONS
        && extensions.is_sorted_by(|first, second| first.kind < second.kind)
}

/// The first critical one whose kind is not among those known.
pub(crate) fn unknown_critical<'a>(
    extensions: impl IntoIterator<Item = &'a Extension>,
    known: &[u16],
) -> Option<u16> {
    let unknown = |extension: &&Extension| extension.critical && !known.contains(&extension.kind);
    extensions.into_iter().find(unknown).map(|extension| extension.kind)
}

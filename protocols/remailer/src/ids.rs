//! Names that tie a command to the input that answers it, or an input to the command that does.

/// Names a submission, between an input and its answer. The caller chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubmissionId(pub u64);

/// The name that the submitter is told with the 250: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueId(pub(crate) [u8; 16]);

impl QueueId {
    /// The 16 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Takes the 16 octets that a submitter was told.
    #[must_use]
    pub const fn from_bytes(octets: [u8; 16]) -> Self {
        Self(octets)
    }
}

/// The name under which a node keeps what it knows of a message: BLAKE3 over its [`QueueId`], cut to 16
/// octets. A disk that is seized does not give away what submitters were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageName([u8; 16]);

impl MessageName {
    /// Of the message that was given this id.
    #[must_use]
    pub fn of(id: &QueueId) -> Self {
        let hash = blake3::derive_key("fog-v1 name of a message in custody", &id.0);
        Self(hash.first_chunk().copied().unwrap_or_default())
    }

    /// The 16 octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Takes 16 octets from where they were kept.
    #[must_use]
    pub const fn from_bytes(octets: [u8; 16]) -> Self {
        Self(octets)
    }
}

/// Names a delivery between a command and its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryId(pub(crate) u64);

/// Names something that is being kept, between a command and its confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeepId(pub(crate) u64);

/// Names a peer's question, between an input and its answer. The caller chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionId(pub u64);

/// Names a stream on which a peer presented tokens. The caller chooses it, and never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Names an order, between an input and its reply. The caller chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderId(pub u64);

//! The name of each count, as `fog status` prints it and its JSON carries it. Names are an
//! interface: scripts read them.

use std::collections::BTreeMap;
use std::sync::Arc;

use mail::{DeliveryStatus, FragmentError, MessageError};
use record::StatementError;
use remailer::{
    Count, Counts, Dropped, MessageState, NoAnswer, NotAnswered, NotDelivered, NotPublished,
    NotTaken, Refused,
};

use crate::net::{Turned, TurnedAway};
use crate::places::Places;

/// Counts by name. Kinds that have one name are added up.
#[must_use]
pub fn named(counts: &Counts) -> BTreeMap<String, u64> {
    let mut named = BTreeMap::new();
    for (count, times) in counts.iter() {
        *named.entry(name(count)).or_default() += times;
    }
    named
}

/// What callers have places for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceKind {
    /// A mail client of this machine.
    SessionFromHere,
    /// A mail client that came through the onion service.
    SessionFromOnion,
    /// A caller whose handshakes are under way.
    Handshake,
    /// A link of a node that no list names.
    StrangersLink,
    /// A stream of packets of a node that the list names.
    PacketStream,
    /// A stream of packets of another.
    StrangersPacketStream,
    /// A stream to a peer without an address.
    StreamToPeer,
}

impl PlaceKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SessionFromHere,
        Self::SessionFromOnion,
        Self::Handshake,
        Self::StrangersLink,
        Self::PacketStream,
        Self::StrangersPacketStream,
        Self::StreamToPeer,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::SessionFromHere => "SMTP session",
            Self::SessionFromOnion => "SMTP session from the onion",
            Self::Handshake => "handshake",
            Self::StrangersLink => "stranger's link",
            Self::PacketStream => "packet stream",
            Self::StrangersPacketStream => "stranger's packet stream",
            Self::StreamToPeer => "stream to a peer",
        }
    }
}

/// How many callers of each kind had to go for others, and how many found no place, by name; what
/// never happened is left out.
pub fn of_places<'a>(
    places: impl IntoIterator<Item = &'a (PlaceKind, Arc<Places>)>,
) -> impl Iterator<Item = (String, u64)> {
    let all = places.into_iter().flat_map(|(kind, places)| {
        let (ended, refused) = places.counts();
        let name = kind.name();
        [(format!("{name} ended for another"), ended), (format!("{name} refused"), refused)]
    });
    all.filter(|(_, times)| *times > 0)
}

/// What was turned away unread, by name; what never was is left out.
pub fn of_turned(turned: &TurnedAway) -> impl Iterator<Item = (String, u64)> {
    let name = |turned| match turned {
        Turned::Statement => "statement above its peer's allowance",
        Turned::Unverified => "statement dropped unverified",
        Turned::Question => "question unanswered",
        Turned::Peer => "peer hung up on for too much",
    };
    let all = turned.counts().map(move |(turned, times)| (name(turned).to_owned(), times));
    all.filter(|(_, times)| *times > 0)
}

fn name(count: Count) -> String {
    match count {
        Count::PacketReceived => "packet received".to_owned(),
        Count::PacketRelayed => "packet relayed".to_owned(),
        Count::PacketLonely => "packet without company".to_owned(),
        Count::PacketSent => "packet sent".to_owned(),
        Count::LoopSent => "loop sent".to_owned(),
        Count::TopUpSent => "loop sent for company".to_owned(),
        Count::LoopReturned => "loop returned".to_owned(),
        Count::LoopMissing => "loop missing".to_owned(),
        Count::LoopTurned => "loop turned".to_owned(),
        Count::DropSent => "cover sent".to_owned(),
        Count::TickEmpty => "tick without a packet".to_owned(),
        Count::PacketHandedOver => "packet handed over on a stream".to_owned(),
        Count::CoverEnded => "packet ended: cover".to_owned(),
        Count::PacketDropped(why) => format!("packet dropped: {}", dropped(why)),
        Count::MessageTaken => "message taken".to_owned(),
        Count::MessageRestored => "message in custody at the start".to_owned(),
        Count::MessageAcknowledged => "message over: delivered".to_owned(),
        Count::MessageFailed => "message over: failed".to_owned(),
        Count::MessageUnknown => "message over: unknown".to_owned(),
        Count::MessageLost => "message over: lost".to_owned(),
        Count::MessageAgain => "message came again".to_owned(),
        Count::MessageRefused(why) => format!("message refused: {}", refused(why)),
        Count::DecoyTaken => "decoy taken".to_owned(),
        Count::DecoyRefused => "decoy refused".to_owned(),
        Count::DecoySubmitted => "decoy submitted".to_owned(),
        Count::DecoyNotTaken => "decoy not taken by another node".to_owned(),
        Count::MessageToDeliver => "message to deliver".to_owned(),
        Count::MessageDelivered => "message delivered".to_owned(),
        Count::MessageRefusedByServer => "message refused by the next server".to_owned(),
        Count::DeliveryPostponed => "delivery postponed".to_owned(),
        Count::PieceSpare => "piece of a message: spare".to_owned(),
        Count::PieceTaken => "piece of a message".to_owned(),
        Count::MessageDropped(why) => format!("message dropped: {}", not_delivered(why)),
        Count::Acknowledged(status) => format!("recipient acknowledged: {}", acknowledged(status)),
        Count::AnswerReceived => "answer received".to_owned(),
        Count::AnswerMissing => "answer missing".to_owned(),
        Count::AnswerRefused(why) => format!("answer refused: {}", no_answer(why)),
        Count::AnswerSent => "answer sent".to_owned(),
        Count::NotAnswered(why) => format!("not answered: {}", not_answered(why)),
        Count::RecordTaken => "record taken".to_owned(),
        Count::WordTaken => "word taken".to_owned(),
        Count::VoteTaken => "vote taken".to_owned(),
        Count::VotePublished => "own vote published".to_owned(),
        Count::ProofTaken => "proof taken".to_owned(),
        Count::ProofMade => "proof made".to_owned(),
        Count::StatementRefused(why) => format!("record refused: {}", not_taken(why)),
        Count::RecordPublished => "record published".to_owned(),
        Count::OwnRecordRefused(NotPublished::NoKey) => "own record refused: no key".to_owned(),
        Count::OwnRecordRefused(NotPublished::NotKept) => {
            "own record refused: it could not be kept".to_owned()
        }
        Count::OwnRecordRefused(NotPublished::LastNumber) => {
            "own record refused: no higher number".to_owned()
        }
        Count::OwnRecordRefused(NotPublished::NotTaken(why)) => {
            format!("own record refused: {}", not_taken(why))
        }
        Count::KeyWithdrawn => "key withdrawn".to_owned(),
        Count::ClockJumped => "clock jumped".to_owned(),
        Count::VouchNotRenewed => "vouch not renewed".to_owned(),
    }
}

fn dropped(why: Dropped) -> &'static str {
    match why {
        Dropped::Length => "length",
        Dropped::Version => "version",
        Dropped::Late => "late",
        Dropped::Early => "early",
        Dropped::NoKey => "no key",
        Dropped::Ciphertext => "ciphertext",
        Dropped::Mac => "mac",
        Dropped::Payload => "payload",
        Dropped::Class => "class",
        Dropped::Kind => "kind",
        Dropped::Block => "block",
        Dropped::Replay => "replay",
        Dropped::SlotFull => "slot full",
        Dropped::UnknownHop => "unknown next hop",
        Dropped::NoStream => "no stream with its token",
        Dropped::StreamFull => "too much for its stream",
        Dropped::Delay => "delay",
        Dropped::PoolFull => "pool full",
        Dropped::NotKept => "tag not kept",
        Dropped::Expired => "expired",
        Dropped::QueueFull => "queue full",
    }
}

/// What a message is for some of its recipients.
pub fn named_state(state: MessageState) -> &'static str {
    match state {
        MessageState::Queued => "queued",
        MessageState::Sent => "sent",
        MessageState::Held => "held",
        MessageState::Delivered => "delivered",
        MessageState::Failed(DeliveryStatus::RefusedHere) => "failed: refused by every exit, 5.7.1",
        MessageState::Failed(DeliveryStatus::GaveUp) => "failed: given up, 4.4.7",
        MessageState::Failed(_) => "failed: refused by the next server, 5.0.0",
        MessageState::Unknown => "unknown",
        MessageState::Lost => "lost",
    }
}

fn acknowledged(status: DeliveryStatus) -> &'static str {
    match status {
        DeliveryStatus::Delivered => "delivered",
        DeliveryStatus::Refused => "refused by the next server",
        DeliveryStatus::RefusedHere => "refused by the exit",
        DeliveryStatus::GaveUp => "given up",
        DeliveryStatus::Held => "held",
        DeliveryStatus::Other { is_final: true } => "another end",
        DeliveryStatus::Other { is_final: false } => "on its way",
    }
}

fn no_answer(why: NoAnswer) -> &'static str {
    match why {
        NoAnswer::Unexpected => "not waited for",
        NoAnswer::Altered => "altered",
        NoAnswer::Malformed => "malformed",
        NoAnswer::ContentType => "of another type",
    }
}

fn not_answered(why: NotAnswered) -> &'static str {
    match why {
        NotAnswered::Malformed => "no reply block",
        NotAnswered::Expired => "the reply block has expired",
        NotAnswered::UnknownHop => "unknown first node",
        NotAnswered::Used => "the reply block was used",
        NotAnswered::NoRoom => "no room",
    }
}

fn refused(why: Refused) -> &'static str {
    match why {
        Refused::TooFewNodes => "too few nodes",
        Refused::NoExit => "no exit",
        Refused::NoExitNow => "no exit at present",
        Refused::ClockApart => "the clock is wrong",
        Refused::NoList => "no list of nodes",
        Refused::Leaving => "about to leave",
        Refused::TooBig => "too big",
        Refused::Full | Refused::FullFor(_) => "full",
        Refused::Unfit(_) => "unfit",
    }
}

fn not_delivered(why: NotDelivered) -> &'static str {
    match why {
        NotDelivered::NotAnExit => "not an exit",
        NotDelivered::NotInPolicy => "not in this exit's policy",
        NotDelivered::Payload => "block",
        NotDelivered::Fragment(FragmentError::TooLong) => "too long",
        NotDelivered::Fragment(FragmentError::Malformed) => "malformed",
        NotDelivered::Fragment(FragmentError::Unknown) => "unknown version",
        NotDelivered::Fragment(FragmentError::Envelope) => "bad envelope",
        NotDelivered::Fragment(FragmentError::News) => "news",
        NotDelivered::Fragment(FragmentError::Contradiction) => "contradicts another piece",
        NotDelivered::Fragment(FragmentError::Pieces) => "pieces that give no message",
        NotDelivered::Incomplete => "too few of its pieces",
        NotDelivered::ContentType => "of another type",
        NotDelivered::Message(why) => message(why),
        NotDelivered::NoRoom => "no room",
        NotDelivered::CutShort => "delivery cut short",
        NotDelivered::GaveUp => "gave up",
    }
}

fn message(why: MessageError) -> &'static str {
    match why {
        MessageError::BareLineEnd => "bare CR or LF",
        MessageError::Nul => "NUL octet",
        MessageError::LongLine => "line longer than 998 octets",
        MessageError::Header => "malformed header",
        MessageError::LargeHeader => "too many header fields, or too long",
        MessageError::Value => "a field with a value that it does not take",
        MessageError::Repeated => "a header field stands twice that may stand once",
        MessageError::NoFrom => "X-Fog-From: keep needs exactly one From field",
        MessageError::FogFrom => "X-Fog-From takes the value keep only",
        MessageError::FogHold => "X-Fog-Hold takes whole minutes, 0 to 1440",
        MessageError::HoldTooLong => "X-Fog-Hold: longer than any node can hold mail",
        MessageError::UnknownWish => "an X-Fog field that is not known",
        MessageError::Recipients => "no recipient, too many, or of no domain of the internet",
    }
}

fn not_taken(why: NotTaken) -> &'static str {
    match why {
        NotTaken::Bad(StatementError::TooLong) => "record over its size limit",
        NotTaken::Bad(StatementError::Malformed) => "malformed record",
        NotTaken::Bad(StatementError::NotCanonical) => "record not in its canonical encoding",
        NotTaken::Bad(StatementError::Unknown) => "record of an unknown version or kind",
        NotTaken::Bad(StatementError::OtherNetwork) => "record of another network",
        NotTaken::Bad(StatementError::BadSignature) => "record not signed by its identity",
        NotTaken::Bad(StatementError::BadKey) => "record with an unusable mix key",
        NotTaken::Bad(StatementError::Future) => "record from the future",
        NotTaken::Bad(StatementError::Stale) => "record whose epochs are past",
        NotTaken::Known => "known",
        NotTaken::Older => "older",
        NotTaken::TooSoon => "too soon",
        NotTaken::Broken => "its author broke its word",
        NotTaken::Full => "full",
        NotTaken::Crowded => "too many newcomers",
        NotTaken::Late => "late",
        NotTaken::Unreached => "of no consequence",
        NotTaken::Pointless => "vouches decide nothing here",
        NotTaken::NoVoter => "not from a voter",
        NotTaken::OtherHour => "a vote for another hour",
    }
}

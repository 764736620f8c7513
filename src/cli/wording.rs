//! The command line's sentences for the kinds and numbers that a node reports.

use time::OffsetDateTime;

use crate::control::{
    Avoided, HealthStatus, HeldStatus, LeavingStatus, NoMail, NodeUse, PeerList, PeerRole,
    ProvenBreach, Starting,
};
use crate::exit::ServerFault;
use crate::startup::Awaited;

/// What a node that starts says of itself.
pub(super) fn starting(starting: &Starting) -> String {
    let waits = match starting.waits_for {
        Awaited::State => "its state folder".to_owned(),
        Awaited::Tor { percent: None } => "Tor".to_owned(),
        Awaited::Tor { percent: Some(percent) } => format!("Tor, which has got to {percent} %"),
        Awaited::Network => "a bootstrap to send the network's descriptor".to_owned(),
        Awaited::NextServer => "the next mail server".to_owned(),
        Awaited::Onion => "Tor to take its onion service".to_owned(),
    };
    format!("starting {} s ago: it waits for {waits}", starting.for_ms / 1000)
}

/// What a node that leaves waits for at `now`, in Unix milliseconds.
pub(super) fn leaving(leaving: &LeavingStatus, held: &HeldStatus, now: u64) -> String {
    let LeavingStatus { until_ms, needed_until_ms, ends_ms, over, .. } = *leaving;
    let at = |millis| time_of_day(millis, now);
    let waits = match (needed_until_ms, ends_ms) {
        _ if over => return "it ends now".to_owned(),
        (None, _) => "a list has still to come that does not name it".to_owned(),
        (Some(until), _) if until > now => {
            format!("packets that others have planned may come until {}", at(until))
        }
        (Some(_), Some(ends)) => format!("it holds nothing any more, and ends at {}", at(ends)),
        (Some(_), None) => format!("it waits for {}", left(held)),
    };
    format!("{waits}; at the latest it ends at {}", at(until_ms))
}

/// What a node has answered for, or taken over from others, that would be missed.
pub(super) fn left(held: &HeldStatus) -> String {
    let all = [(held.messages, "in custody"), (held.delivering, "being delivered")];
    let some = all.into_iter().filter(|(count, _)| *count > 0);
    let some: Vec<_> = some.map(|(count, what)| format!("{count} {what}")).collect();
    if some.is_empty() { "nothing".to_owned() } else { format!("messages: {}", some.join(", ")) }
}

/// A time of day, of Unix milliseconds; with its date if it is a day or more after `now`.
pub(super) fn time_of_day(millis: u64, now: u64) -> String {
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else { return "?".to_owned() };
    let day = match millis.saturating_sub(now) {
        0..86_400_000 => String::new(),
        86_400_000.. => format!("{} ", time.date()),
    };
    format!("{day}{:02}:{:02} UTC", time.hour(), time.minute())
}

/// Why the next mail server takes nothing.
pub(super) fn server_fault(why: ServerFault) -> &'static str {
    match why {
        ServerFault::Silent => "does not answer: mail waits for it",
        ServerFault::WantsTls => {
            "wants TLS, which is not spoken here: nothing is offered, and mail waits until it takes \
             mail without"
        }
        ServerFault::WantsAuth => {
            "wants a password, and there is none here: nothing is offered, and mail waits until it \
             takes mail without"
        }
        ServerFault::Refuses => {
            "refuses this machine or mail with the null sender: nothing is offered, and mail waits"
        }
        ServerFault::CannotWrite => "is a Maildir into which nothing can be written: mail waits",
    }
}

/// Why mail is not taken.
pub(super) fn no_mail(why: NoMail) -> &'static str {
    match why {
        NoMail::TooFewNodes => "too few nodes",
        NoMail::NoExit => "no exit",
        NoMail::ClockApart => "the clock is wrong",
        NoMail::NoList => "no list of nodes that is new enough",
        NoMail::DiskFails => "the disk keeps nothing",
        NoMail::Leaving => "it is about to leave",
        NoMail::Full => "full",
    }
}

/// How routes use a node at `now`, in Unix milliseconds.
pub(super) fn node_use(used: &NodeUse, now: u64) -> String {
    let seconds = |then: u64| then.saturating_sub(now) / 1000;
    match used {
        NodeUse::Routable => "routes go through it".to_owned(),
        NodeUse::NotYetExit { from_ms } => {
            format!("no exit yet: on probation for another {} s", seconds(*from_ms))
        }
        NodeUse::Unsettled => "its record is too new for this hour".to_owned(),
        NodeUse::NoKey => "it has no key for this hour".to_owned(),
        NodeUse::NotVouched => "nobody vouches for it".to_owned(),
        NodeUse::Probation { until_ms } => {
            format!("on probation for another {} s", seconds(*until_ms))
        }
        NodeUse::Convicted { breach, routed } => {
            let until = if *routed { "; routes go through it until the next list" } else { "" };
            format!("it broke its word: {}{until}", proven(*breach))
        }
        NodeUse::Banned => "banned here".to_owned(),
        NodeUse::NoView => "there is no view".to_owned(),
        NodeUse::KeysRanOut => "its keys have run out".to_owned(),
        NodeUse::NotListed => "not listed yet".to_owned(),
        NodeUse::NotUnderstood => "its record needs a newer version of this program".to_owned(),
        NodeUse::Leaving => "it is about to leave".to_owned(),
        NodeUse::Retired => "the voters have retired it".to_owned(),
    }
}

fn proven(breach: ProvenBreach) -> &'static str {
    match breach {
        ProvenBreach::OneNumber => "two records with one number",
        ProvenBreach::Fork => "two records that follow one",
        ProvenBreach::TwoKeys => "two keys for one epoch",
        ProvenBreach::TooClose => "two records too close to each other",
        ProvenBreach::TwoVotes => "two votes for one hour",
    }
}

pub(super) fn role(role: PeerRole) -> &'static str {
    match role {
        PeerRole::Relay => "relay",
        PeerRole::Exit => "exit",
    }
}

/// How a node's list compares with this node's.
pub(super) fn list(list: PeerList) -> String {
    match list {
        PeerList::Same => "same".to_owned(),
        PeerList::Apart { parts } => format!("other ({parts} of 32 parts differ)"),
        PeerList::Unknown => "unknown".to_owned(),
    }
}

/// What loops say of a node.
pub(super) fn health(health: &HealthStatus) -> String {
    let HealthStatus { loss, loops, latency_ms, avoided, .. } = health;
    let avoided = match avoided {
        None => "",
        Some(Avoided::Down) => ", avoided: no link",
        Some(Avoided::Losing) => ", avoided: loses packets",
    };
    if *loops == 0 {
        return format!("no loops yet{avoided}");
    }
    let latency = latency_ms.map(|millis| format!(", {} s a hop", millis.div_ceil(1000)));
    let latency = latency.unwrap_or_default();
    format!("loses {:.0} % by {loops} loops{latency}{avoided}", loss * 100.0)
}

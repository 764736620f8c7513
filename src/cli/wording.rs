//! The command line's sentences for the kinds and numbers that a node reports.

use crate::control::{
    DiskTrouble, NoMail, NodeUse, PeerList, PeerRole, ProvenBreach, Starting, Warning,
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

/// A warning for the operator.
pub(super) fn warning(warning: &Warning) -> String {
    match warning {
        Warning::DiskFails { why, times, .. } => format!(
            "the disk of the state folder {}: no mail and no packets are taken, and nothing is \
             published; {times} times something was not kept",
            match why {
                DiskTrouble::Full => "is full",
                DiskTrouble::ReadOnly => "is mounted read-only",
                DiskTrouble::Denied => "lets this user write nothing",
                DiskTrouble::Hangs => "does not answer",
                DiskTrouble::Fails => "fails: see the log",
            }
        ),
        Warning::Unreachable { why } => format!("peers cannot reach this node: {why}"),
        Warning::NoLinks => "no link to any node: it hears nothing, and nobody hears it".to_owned(),
        Warning::NoMail { why } => format!("no mail is taken: {}", no_mail(*why)),
        Warning::NextServer { why } => format!("the next mail server {}", server_fault(*why)),
        Warning::ClockApart { ahead_ms } => format!(
            "the clock of this machine is {} s {} that of the network: no mail is taken",
            ahead_ms.unsigned_abs() / 1000,
            if *ahead_ms > 0 { "behind" } else { "ahead of" }
        ),
        Warning::ClockSuspect { behind } => format!(
            "the clock of this machine seems to be wrong: all that others publish lies in the {}; set \
             it (timedatectl), and the node follows",
            if *behind { "future" } else { "past" }
        ),
        Warning::Rival => "another node runs with this identity: stop one of them".to_owned(),
        Warning::Convicted => {
            "there is a proof that this identity said two different things: from the next list on no \
             route goes through it"
                .to_owned()
        }
        Warning::NoList { hours, missing } => {
            let age = match hours {
                Some(hours) => format!("the list of nodes is {hours} hours out of date"),
                None => "there is no list of nodes yet".to_owned(),
            };
            match missing.as_slice() {
                [] => format!("{age}: its entries are being asked for"),
                voters => format!("{age}; no vote is known of: {}", voters.join(", ")),
            }
        }
        Warning::AwaitsWitnesses { heard, needed } => format!(
            "nothing is published before {needed} nodes that knew this one have told what they \
             know of it; {heard} have"
        ),
        Warning::AnotherList { other, same } => format!(
            "{other} of {} nodes asked use another list for this hour: see fog peers --lists",
            other + same
        ),
        Warning::Halved { before, after } => {
            format!("within an hour the view went from {before} nodes to {after}")
        }
        Warning::InviteRefused => "the invite was not taken: ask for another".to_owned(),
        Warning::NotVouched => "nobody vouches for this node: no route goes through it".to_owned(),
        Warning::NoRecord => "this node has no valid record: see its clock".to_owned(),
    }
}

/// What the operator can do about a warning.
pub(super) fn remedy(warning: &Warning) -> &'static str {
    match warning {
        Warning::DiskFails { why, .. } => match why {
            DiskTrouble::Full => "make room there: the node goes on by itself",
            DiskTrouble::ReadOnly => "see the system's log for why, and mount it again",
            DiskTrouble::Denied => "give the state folder back to this user",
            DiskTrouble::Hangs | DiskTrouble::Fails => {
                "see the system's log, and keep a copy of the state folder's identity"
            }
        },
        Warning::Unreachable { .. } => "see Tor's log; the node tries again every three minutes",
        Warning::NoLinks => "see that the bootstraps run, and that this machine's Tor reaches them",
        Warning::NoMail { why } => match why {
            NoMail::TooFewNodes => "wait for more nodes: fog peers says why one is not used",
            NoMail::NoExit => {
                "wait: an exit is used as one from its probation on, which fog peers shows"
            }
            NoMail::ClockApart => "set the clock, for example with: timedatectl set-ntp true",
            NoMail::NoList => "wait for the next hour's list; ask the voters that are named",
            NoMail::DiskFails => "see to the disk of the state folder",
            NoMail::Full => "wait: mail leaves on a clock of its own",
        },
        Warning::NextServer { .. } => "see to that server, or correct exit.deliver",
        Warning::ClockApart { .. } | Warning::ClockSuspect { .. } => {
            "set the clock, for example with: timedatectl set-ntp true; the node follows"
        }
        Warning::Rival => "stop one of them; the one that goes on is started again",
        Warning::Convicted => {
            "its operator has to be vouched for again, with a later date; a voter or root is none any \
             more"
        }
        Warning::NoList { .. } => "wait, or ask the operators of the voters that are named",
        Warning::AwaitsWitnesses { .. } => "wait for links to voters, or to nodes that it knew",
        Warning::AnotherList { .. } => "compare clocks and Tors with those nodes' operators",
        Warning::Halved { .. } => "ask others whether they see the same: many nodes may be down",
        Warning::InviteRefused => "ask for another invite",
        Warning::NotVouched => "ask a node's operator for an invite, or for a vouch",
        Warning::NoRecord => "wait for a minute; then see the log, the clock and the disk",
    }
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

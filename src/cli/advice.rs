//! The command line's sentences for a warning: what is wrong, what it costs, what to do.

use crate::control::{DiskTrouble, NoMail, Warned, Warning};

use super::wording::{no_mail, server_fault};

/// What is wrong, and since when, for a reader at `now` in Unix milliseconds.
pub(super) fn fault(warned: &Warned, now: u64) -> String {
    let seconds = now.saturating_sub(warned.since_ms) / 1000;
    let since = match seconds {
        0..60 => format!("{seconds} s"),
        60..7200 => format!("{} min", seconds / 60),
        7200.. => format!("{} h", seconds / 3600),
    };
    format!("{} (for {since})", wrong(&warned.warning))
}

fn wrong(warning: &Warning) -> String {
    match warning {
        Warning::DiskFails { why, times } => {
            let disk = match why {
                DiskTrouble::Full => "is full",
                DiskTrouble::ReadOnly => "is mounted read-only",
                DiskTrouble::Denied => "lets this user write nothing",
                DiskTrouble::Hangs => "does not answer",
                DiskTrouble::Fails => "fails: see the log",
            };
            format!("the disk of the state folder {disk}; {times} times something was not kept")
        }
        Warning::Unreachable { why } => format!("peers cannot reach this node: {why}"),
        Warning::NoLinks => "no link to any node".to_owned(),
        Warning::NoMail { why } => format!("no mail is taken: {}", no_mail(*why)),
        Warning::NextServer { why } => format!("the next mail server {}", server_fault(*why)),
        Warning::ClockApart { ahead_ms } => format!(
            "the clock of this machine is {} s {} that of the network",
            ahead_ms.unsigned_abs() / 1000,
            if *ahead_ms > 0 { "behind" } else { "ahead of" }
        ),
        Warning::ClockSuspect { behind } => format!(
            "the clock of this machine seems to be wrong: all that others publish lies in the {}",
            if *behind { "future" } else { "past" }
        ),
        Warning::Besieged => {
            "loops of this node stopped coming back while as many packets came as ever".to_owned()
        }
        Warning::Silenced => "no loop of this node returns".to_owned(),
        Warning::Rival => "another node runs with this identity".to_owned(),
        Warning::Convicted => {
            "there is a proof that this identity said two different things".to_owned()
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
            "{heard} of the {needed} nodes that knew this one and are needed as witnesses have told \
             what they know of it"
        ),
        Warning::AnotherList { other, same } => format!(
            "{other} of {} nodes asked use another list for this hour: see fog peers --lists",
            other + same
        ),
        Warning::Halved { before, after } => {
            format!("within an hour the view went from {before} nodes to {after}")
        }
        Warning::InviteRefused => "the invite was not taken".to_owned(),
        Warning::Losing { losing } => {
            format!("{losing} nodes lose packets or cannot be reached: more than routes may avoid")
        }
        Warning::NotVouched => "nobody vouches for this node".to_owned(),
        Warning::NoRecord => "this node has no valid record".to_owned(),
    }
}

/// What it costs.
pub(super) fn cost(warning: &Warning) -> &'static str {
    match warning {
        Warning::DiskFails { .. } => {
            "no mail and no packets are taken, and nothing is published; what was taken before is \
             still sent and delivered"
        }
        Warning::Unreachable { .. } => "routes leave this node out once its record is too old",
        Warning::NoLinks => "it hears nothing, and nobody hears it",
        Warning::NoMail { why } => match why {
            NoMail::Full => "who submits mail is told to try again later",
            NoMail::TooFewNodes
            | NoMail::NoExit
            | NoMail::ClockApart
            | NoMail::NoList
            | NoMail::Leaving
            | NoMail::DiskFails => {
                "who submits mail is told to try again later; packets of others are still relayed \
                 where that is possible"
            }
        },
        Warning::NextServer { .. } => {
            "what this node has promised to deliver waits, for six hours at most"
        }
        Warning::ClockApart { .. } | Warning::ClockSuspect { .. } => {
            "no mail is taken, and others may not use what this node publishes"
        }
        Warning::Besieged => {
            "somebody may keep others' packets from it, to follow one; it kept all for ten minutes"
        }
        Warning::Silenced => {
            "what is in its custody waits: somebody may silence answers to see it tried again"
        }
        Warning::Rival => {
            "two nodes with one identity contradict each other, and a proof of that ends it for good"
        }
        Warning::Convicted => "from the next list on no route goes through it",
        Warning::NoList { .. } => "no mail is taken once the list is six hours out of date",
        Warning::AwaitsWitnesses { .. } => "nothing is published, and no route goes through it",
        Warning::AnotherList { .. } => {
            "whoever chooses the list that a sender uses may know the routes of its mail"
        }
        Warning::Halved { .. } => "mail hides among fewer nodes",
        Warning::Losing { .. } => "mail goes through some of them, and may be lost",
        Warning::InviteRefused | Warning::NotVouched => "no route goes through it",
        Warning::NoRecord => "others do not know its keys: no route goes through it",
    }
}

/// What the operator can do about it.
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
            NoMail::Leaving => "fog drain --cancel, if it is to stay",
            NoMail::DiskFails => "see to the disk of the state folder",
            NoMail::Full => "wait: mail leaves on a clock of its own",
        },
        Warning::NextServer { .. } => "see to that server, or correct exit.deliver",
        Warning::ClockApart { .. } | Warning::ClockSuspect { .. } => {
            "set the clock, for example with: timedatectl set-ntp true; the node follows"
        }
        Warning::Besieged => {
            "see fog peers for what is lost, and ask others whether they see it too"
        }
        Warning::Silenced => "see fog peers for what is lost, and whether this node has links",
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
        Warning::Losing { .. } => {
            "see fog peers; if others see those nodes up, look at this node's own network"
        }
        Warning::NotVouched => "ask a node's operator for an invite, or for a vouch",
        Warning::NoRecord => "wait for a minute; then see the log, the clock and the disk",
    }
}

//! A node's report on itself and on others, in kinds and numbers. The sentences that a person reads
//! are made where they are printed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::exit::ServerFault;
use crate::failure::Failure;
use crate::net::Unreachable;

/// The state of a node. It holds no secret and nothing about any mail.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Warnings for its operator, the most urgent first.
    pub warnings: Vec<Warned>,
    /// Its onion address.
    pub onion: String,
    /// The network id.
    pub network: String,
    /// Whether routes go through everybody in it: then it hides nobody.
    pub open: bool,
    /// The present epoch.
    pub epoch: u32,
    /// Milliseconds to the end of the present epoch.
    pub epoch_ends_in_ms: u64,
    /// Why mail is not taken; `None` if it is.
    pub unusable: Option<NoMail>,
    /// Whether peers can reach it.
    pub reach: ReachStatus,
    /// The Tor that the node uses; `None` while there is none, and in a devnet without Tor.
    pub tor: Option<String>,
    /// Why there is no Tor.
    pub tor_failure: Option<Failure>,
    /// How routes use this node; `None` before it has a record.
    pub standing: Option<NodeUse>,
    /// Nodes known.
    pub known: usize,
    /// Nodes linked.
    pub linked: usize,
    /// The view that routes come from.
    pub view: Option<ViewStatus>,
    /// Which size classes are open, and how many packets of each were passed on.
    pub classes: ClassesStatus,
    /// Mails among which one hides that is handed to a node which an observer sees, with the usual hold.
    pub hides_among: u32,
    /// Packets and messages that the node holds.
    pub held: HeldStatus,
    /// How far it has got with leaving, if it is.
    pub leaving: Option<LeavingStatus>,
    /// How late things were, at worst, since the start.
    pub lateness: Lateness,
    /// Counts by name: of what arrived, left, or was refused or dropped, with the reason.
    pub counts: BTreeMap<String, u64>,
}

/// A warning, and how long it has been true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    /// The warning.
    #[serde(flatten)]
    pub warning: Warning,
    /// Since when there has been one of its kind, in Unix milliseconds.
    pub since_ms: u64,
}

/// Something that needs the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Warning {
    /// The disk does not keep what it is given: no mail and no packets are taken.
    DiskFails {
        /// Why.
        why: DiskTrouble,
        /// How often something was not kept, since the start.
        times: u64,
    },
    /// Peers cannot reach this node.
    Unreachable {
        /// Why.
        why: Unreachable,
    },
    /// There is no link to any node.
    NoLinks,
    /// No mail is taken.
    NoMail {
        /// Why.
        why: NoMail,
    },
    /// The next mail server takes nothing from this node.
    NextServer {
        /// Why.
        why: ServerFault,
    },
    /// The clock of this machine differs from the network's.
    ClockApart {
        /// By how many milliseconds the network's is ahead.
        ahead_ms: i64,
    },
    /// No record of others could be used for its date.
    ClockSuspect {
        /// Whether this machine's clock is behind, or else ahead.
        behind: bool,
    },
    /// Another node publishes with this identity.
    Rival,
    /// Within the last hour loops of this node's own stopped coming back while as many packets came as
    /// ever.
    Besieged,
    /// No loop of this node's own returns.
    Silenced,
    /// There is a proof that this identity said two different things.
    Convicted,
    /// There is no list of nodes for the present hour.
    NoList {
        /// For how many hours the list in use has been out of date; `None` if there is none.
        hours: Option<u64>,
        /// The voters whose votes for this hour are not known.
        missing: Vec<String>,
    },
    /// This node publishes nothing before others that knew it have told what they know of it.
    AwaitsWitnesses {
        /// Those that have.
        heard: usize,
        /// As many as it needs.
        needed: usize,
    },
    /// Listed nodes that were asked in this hour use another list.
    AnotherList {
        /// Nodes that use another.
        other: usize,
        /// Nodes that use the same.
        same: usize,
    },
    /// Within an hour the view lost half of its nodes or more.
    Halved {
        /// Nodes before.
        before: usize,
        /// Nodes after.
        after: usize,
    },
    /// The invite that this node was given was refused.
    InviteRefused,
    /// More nodes lose packets, or cannot be reached, than routes may avoid.
    Losing {
        /// How many do.
        losing: usize,
    },
    /// Nobody vouches for this node.
    NotVouched,
    /// Peers can reach this node, and it has no valid record.
    NoRecord,
}

impl Warning {
    /// Its kind, as JSON carries it.
    #[must_use]
    pub fn kind(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned()
    }
}

/// Why the disk keeps nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskTrouble {
    /// There is too little room.
    Full,
    /// It is mounted read-only.
    ReadOnly,
    /// This user lacks the permission.
    Denied,
    /// It does not answer.
    Hangs,
    /// The system reports another error.
    Fails,
}

/// Why mail is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoMail {
    /// There are too few nodes to route through.
    TooFewNodes,
    /// No node delivers.
    NoExit,
    /// This node's clock differs from the network's.
    ClockApart,
    /// There is no list of nodes that is new enough.
    NoList,
    /// The disk does not keep what it is given.
    DiskFails,
    /// This node is about to leave.
    Leaving,
    /// There is no room.
    Full,
}

/// Whether peers can reach a node, as its dials to itself show.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReachStatus {
    /// Whether peers can reach it; `None` before the first dial.
    pub reachable: Option<bool>,
    /// Start of this state, Unix milliseconds.
    pub since_ms: Option<u64>,
    /// Why peers cannot reach it.
    pub why: Option<Unreachable>,
}

/// A view.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ViewStatus {
    /// Nodes in it.
    pub nodes: usize,
    /// When it was taken, Unix milliseconds.
    pub taken_ms: u64,
}

/// The stage of size classes: the same at every node with the same list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClassesStatus {
    /// Its number, from 1.
    pub stage: usize,
    /// Mails an hour in the whole network, as the exits of the list state.
    pub volume: u32,
    /// The classes in which mail leaves, in KiB.
    pub open: Vec<usize>,
    /// Packets that this node passed on in the last whole hour, by class in KiB.
    pub passed: BTreeMap<usize, u32>,
    /// Ticks of its clock in that hour that mail took.
    pub mail: u32,
    /// Ticks that cover took.
    pub cover: u32,
    /// Octets of all these packets. As many are received.
    pub octets: u64,
}

/// The messages in a node's custody.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// How many there are.
    pub messages: usize,
    /// How many were set aside at the start because they cannot be read.
    pub damaged: usize,
    /// Whether all of it waits because no loop of the node returns.
    pub suspended: bool,
    /// The oldest, a hundred at most.
    pub oldest: Vec<QueuedMessage>,
}

/// What a node knows of a message in its custody.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct QueuedMessage {
    /// When it was taken, in Unix milliseconds.
    pub accepted_ms: u64,
    /// When it is over without an answer.
    pub until_ms: u64,
    /// The size of its packets, in KiB.
    pub class_kib: usize,
    /// Its packets.
    pub packets: usize,
    /// Those of them that have left.
    pub left: usize,
    /// Whether an exit has said that it holds it.
    pub held: bool,
}

/// How far a node has got with leaving, in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingStatus {
    /// When its operator ordered it.
    pub since_ms: u64,
    /// When it leaves at the latest.
    pub until_ms: u64,
    /// How long packets may come that others have planned; `None` while the list in use names it.
    pub needed_until_ms: Option<u64>,
    /// When it ends, if nothing more comes that it has to hold.
    pub ends_ms: Option<u64>,
    /// Whether it is over: the node ends within seconds.
    pub over: bool,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStatus {
    /// Packets in the mix.
    pub mixing: usize,
    /// Its own packets that wait for their tick.
    pub waiting: usize,
    /// Messages being delivered.
    pub delivering: usize,
    /// Messages of which some pieces are here.
    pub assembling: usize,
    /// Answers of exits that are waited for.
    pub answers: usize,
    /// Messages in custody.
    pub messages: usize,
    /// Packets for peers without an address that wait for their stream.
    pub for_streams: usize,
}

/// The longest delays since the start, in milliseconds. A machine that is too busy shows in the
/// first two; packets that its peers planned wrongly show in the last alone.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Lateness {
    /// Between the due time of a timer and its handling.
    pub timer_ms: u64,
    /// Between the order to send a packet and its receipt.
    pub handover_ms: u64,
    /// Between the end of a key and the arrival of a packet for it.
    pub packet_ms: Option<u64>,
}

/// A node's knowledge of another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Its onion address.
    pub onion: String,
    /// How to reach its operator, from its record.
    pub contact: String,
    /// Its roles.
    pub roles: Vec<PeerRole>,
    /// Epochs for which its keys are known.
    pub epochs: Vec<u32>,
    /// Milliseconds since its record was published.
    pub record_age_ms: u64,
    /// Whether there is a link to it.
    pub linked: bool,
    /// Its gossip score while linked; a node below zero has misbehaved.
    pub score: Option<f64>,
    /// Whether it uses the same list as this node.
    pub list: PeerList,
    /// The nodes that vouch for it.
    pub vouchers: Vec<String>,
    /// Why no route goes through it; `None` if routes may.
    pub unusable: Option<NodeUse>,
    /// What loops through it and the link to it show.
    pub health: HealthStatus,
}

/// What a node's loops through another and its link to it show.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthStatus {
    /// The share of packets that it loses, from 0 to 1.
    pub loss: f64,
    /// Loops that this rests on.
    pub loops: u32,
    /// How long a packet takes for a hop, on average of the loops through it.
    pub latency_ms: Option<u64>,
    /// Why the reporting node's routes avoid it, if they do.
    pub avoided: Option<Avoided>,
    /// Its last days, the latest first, without those before the first.
    pub days: Vec<DayStatus>,
}

/// Why routes avoid a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Avoided {
    /// There is no link to it.
    Down,
    /// Its loops are lost.
    Losing,
}

/// The loops of one day through a node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DayStatus {
    /// How many.
    pub loops: u32,
    /// How many of them were lost there: a loop that may have been lost at any of several nodes counts for
    /// each in part.
    pub lost: f64,
    /// How long a packet took for a hop, on average.
    pub latency_ms: Option<u64>,
}

/// What a node does for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerRole {
    /// It passes packets on.
    Relay,
    /// It delivers mail.
    Exit,
}

/// Whether a peer uses the same list as this node, by what it last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PeerList {
    /// It uses the same.
    Same,
    /// Of the 32 parts of its list for the same hour, some differ.
    Apart {
        /// How many.
        parts: usize,
    },
    /// It has not said, or speaks of an hour that this node does not remember.
    Unknown,
}

/// How routes use a node, and why they do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NodeUse {
    /// Routes go through it.
    Routable,
    /// Routes go through it, but end there only from this time on.
    NotYetExit {
        /// Unix milliseconds.
        from_ms: u64,
    },
    /// Its record is too new for this hour.
    Unsettled,
    /// It has no key for this hour.
    NoKey,
    /// Nobody vouches for it.
    NotVouched,
    /// It is listed, and relays from this time on.
    Probation {
        /// Unix milliseconds.
        until_ms: u64,
    },
    /// It signed two statements of which it may sign only one.
    Convicted {
        /// The breach that was proven.
        breach: ProvenBreach,
        /// Whether routes go through it all the same, until the next list.
        routed: bool,
    },
    /// The operator of the reporting node banned it.
    Banned,
    /// There is no view.
    NoView,
    /// Its keys in the view have run out.
    KeysRanOut,
    /// It is not in the list in use; the next votes are expected to name it.
    NotListed,
    /// Its record says something that this version does not understand.
    NotUnderstood,
    /// It is about to leave.
    Leaving,
    /// The voters have retired it.
    Retired,
}

/// What a proof shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProvenBreach {
    /// Two records with one number.
    OneNumber,
    /// Two records that follow one.
    Fork,
    /// Two keys for one epoch.
    TwoKeys,
    /// Two records dated closer to each other than the network allows.
    TooClose,
    /// Two votes for one hour.
    TwoVotes,
}

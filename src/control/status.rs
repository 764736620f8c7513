//! What a node says of itself and of others: kinds and numbers. The sentences that a person reads
//! are made where they are printed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::net::Unreachable;

/// How a node is. No secret and nothing of any mail.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// What needs its operator, the most urgent first.
    pub warnings: Vec<Warning>,
    /// Its onion address.
    pub onion: String,
    /// The network id.
    pub network: String,
    /// The present epoch.
    pub epoch: u32,
    /// Milliseconds to its end.
    pub epoch_ends_in_ms: u64,
    /// Why mail is not taken; none if it is.
    pub unusable: Option<NoMail>,
    /// Whether peers can reach it.
    pub reach: ReachStatus,
    /// Which Tor it uses; none while there is none, and in a devnet without.
    pub tor: Option<String>,
    /// Why there is no Tor.
    pub tor_failure: Option<Failure>,
    /// How routes use this node; none before it has a record that is settled.
    pub standing: Option<NodeUse>,
    /// Nodes known.
    pub known: usize,
    /// Nodes linked.
    pub linked: usize,
    /// The view that routes come from.
    pub view: Option<ViewStatus>,
    /// What is held.
    pub held: HeldStatus,
    /// How late things were, at worst, since the start.
    pub lateness: Lateness,
    /// Counts by name: what came, what left, what was refused or dropped, and why.
    pub counts: BTreeMap<String, u64>,
}

/// Something that needs the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Warning {
    /// The disk has failed.
    DiskFailed {
        /// How often since the start.
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
    /// The next mail server does not answer.
    NextServerDown,
    /// The clock of this machine is not the network's.
    ClockApart {
        /// By how many milliseconds the network's is ahead.
        ahead_ms: i64,
    },
    /// Another node publishes with this identity.
    Rival,
    /// There is a proof that this identity said two different things.
    Convicted,
    /// For hours, others have had another directory.
    AnotherView {
        /// How many differ.
        other: usize,
        /// How many agree.
        same: usize,
    },
    /// Within an hour the view lost half of its nodes or more.
    Halved {
        /// Nodes before.
        before: usize,
        /// Nodes after.
        after: usize,
    },
    /// The invite that this node was given was not taken.
    InviteRefused,
    /// Nobody vouches for this node.
    NotVouched,
    /// Peers can reach this node, and it has no valid record.
    NoRecord,
}

/// Why mail is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoMail {
    /// There are too few nodes to route through.
    TooFewNodes,
    /// No node delivers.
    NoExit,
    /// This node's clock is not the network's.
    ClockApart,
    /// Others see another network.
    Divided,
    /// There is no room.
    Full,
}

/// Whether peers can reach a node, by its own dials to itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReachStatus {
    /// Whether they can; none before the first dial.
    pub reachable: Option<bool>,
    /// Since when, Unix milliseconds.
    pub since_ms: Option<u64>,
    /// Why not.
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

/// What a node holds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HeldStatus {
    /// Packets in the mix.
    pub mixing: usize,
    /// Its own packets that wait for their tick.
    pub waiting: usize,
    /// Messages being delivered.
    pub delivering: usize,
}

/// How late things were, at worst, since the start, in milliseconds. A machine that is too busy
/// shows in the first two; packets that its peers planned wrongly show in the last alone.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Lateness {
    /// A timer after its time.
    pub timer_ms: u64,
    /// A packet between leaving here and its receipt.
    pub handover_ms: u64,
    /// A packet that arrived after the end of its key.
    pub packet_ms: Option<u64>,
}

/// What a node knows of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Its onion address.
    pub onion: String,
    /// How to reach its operator, as it says.
    pub contact: String,
    /// What it does.
    pub roles: Vec<PeerRole>,
    /// Epochs whose keys are known.
    pub epochs: Vec<u32>,
    /// Milliseconds since its record was published.
    pub record_age_ms: u64,
    /// Whether there is a link to it.
    pub linked: bool,
    /// Its gossip score while linked; below zero it has misbehaved.
    pub score: Option<f64>,
    /// Whether its directory is the same as this node's.
    pub view: PeerView,
    /// The nodes that vouch for it.
    pub vouchers: Vec<String>,
    /// Why no route goes through it; none if routes may.
    pub unusable: Option<NodeUse>,
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

/// Whether a peer's directory is the same as this node's, in the hour of its newest record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerView {
    /// It is.
    Same,
    /// It is not.
    Other,
    /// It is not known yet.
    Unknown,
}

/// How routes use a node, and why they do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NodeUse {
    /// They go through it.
    Routable,
    /// They go through it, and end there from this time on only.
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
    /// It is vouched for, and relays from this time on.
    Probation {
        /// Unix milliseconds.
        until_ms: u64,
    },
    /// It said two things of which it may say one.
    Convicted {
        /// Which.
        breach: ProvenBreach,
    },
    /// Its operator here banned it.
    Banned,
    /// There is no view.
    NoView,
    /// The keys that the view has of it have run out.
    KeysRanOut,
    /// It is not in this hour's view.
    NotInView,
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
}

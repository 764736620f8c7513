//! What a node begins with.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use keys::{Epoch, Identity, MixSeed, NodeId};
use record::Descriptor;
use sphinx::ReplayTag;

use crate::custody::{Ended, KeptMessage};
use crate::exit::ExitOffer;
use crate::invite::{Invite, OpenInvite};
use crate::leaving::Leaving;
use crate::over::OverIn;

/// What a node begins with.
pub struct Setup {
    /// Its long-term key.
    pub identity: Identity,
    /// Its network.
    pub descriptor: Arc<Descriptor>,
    /// Whether it relays.
    pub role: Role,
    /// What it delivers, if it is an exit.
    pub exit: Option<ExitOffer>,
    /// How to reach the operator.
    pub contact: String,
    /// Other nodes of the same operator.
    pub family: Vec<NodeId>,
    /// What became of the mix keys made before.
    pub epochs: Vec<(Epoch, Kept)>,
    /// What it may have published before.
    pub past: Past,
    /// What it knew of its network.
    pub known: Known,
    /// How long a node that has never published waits with its first record for a catch-up.
    pub first_record_after: Duration,
    /// Nodes that its own routes avoid.
    pub banned: BTreeSet<NodeId>,
    /// What it has handed out and been given of invites.
    pub invites: InvitesKept,
}

impl Setup {
    /// A relay that has never run, knows nobody and waits for nothing.
    #[must_use]
    pub fn new(identity: Identity, descriptor: Arc<Descriptor>) -> Self {
        Self {
            identity,
            descriptor,
            role: Role::Relay,
            exit: None,
            contact: String::new(),
            family: Vec::new(),
            epochs: Vec::new(),
            past: Past::None,
            known: Known::default(),
            first_record_after: Duration::ZERO,
            banned: BTreeSet::new(),
            invites: InvitesKept::default(),
        }
    }
}

/// A jump of the clock that a node counts by: it was set, or the machine slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockJump {
    /// By how many milliseconds it went ahead, or back if they are negative.
    pub millis: i64,
    /// For how long the machine slept meanwhile: so much has passed for the peers as well.
    pub slept: Duration,
}

impl ClockJump {
    pub(crate) fn slept_ms(&self) -> i64 {
        i64::try_from(self.slept.as_millis()).unwrap_or(i64::MAX)
    }
}

/// What a node does for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has mix keys, publishes records and passes packets on.
    Relay,
    /// Nothing: it has no mix key, publishes no record, and only sends.
    Client,
}

/// What a node knew before it stopped. All that others have signed is checked again.
#[derive(Default)]
pub struct Known {
    /// The statements that it held.
    pub statements: Vec<Vec<u8>>,
    /// The list that it used last, as [`crate::Command::KeepList`] gave it.
    pub list: Option<Vec<u8>>,
    /// The last vote that it signed or was about to publish.
    pub vote: Option<Vec<u8>>,
    /// What it knew of the health of other nodes, as [`crate::Command::KeepHealth`] gave it.
    pub health: Option<Vec<u8>>,
    /// The messages in its custody, and what became of others.
    pub custody: CustodyKept,
    /// How far it had got with leaving, as [`crate::Command::KeepLeaving`] gave it.
    pub leaving: Option<Leaving>,
}

/// What a node has in custody, and what it has done with messages, over a restart.
#[derive(Default)]
pub struct CustodyKept {
    /// Messages that it has answered for.
    pub messages: Vec<KeptMessage>,
    /// The ends of such messages.
    pub ended: Vec<Ended>,
    /// Deliveries that are over.
    pub over: Vec<OverIn>,
}

/// Invites that outlive a restart.
#[derive(Default)]
pub struct InvitesKept {
    /// Those that this node has handed out.
    pub open: Vec<OpenInvite>,
    /// The one that this node was given and has not shown yet.
    pub given: Option<Invite>,
}

/// What a node knows of its own records.
pub enum Past {
    /// Its identity was made for this network and has published nothing.
    None,
    /// It may have published, and does not know what: the identity was restored alone.
    Forgotten,
    /// The last record that it published or was about to publish.
    Known(Vec<u8>),
}

/// What was kept of an epoch.
pub enum Kept {
    /// Its key, and the replay tags of all that it has opened.
    Key {
        /// What the key is made from.
        seed: MixSeed,
        /// The tags.
        seen: BTreeSet<ReplayTag>,
    },
    /// A mark that its key was given up. There is never another key.
    Withdrawn,
}

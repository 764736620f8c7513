//! The links of a node, as the swarm reports them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keys::NodeId;

/// The nodes linked at present.
pub type Links = Arc<BTreeSet<NodeId>>;

/// The gossip score of each linked node; a node below zero has misbehaved.
pub type Scores = BTreeMap<NodeId, f64>;

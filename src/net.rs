//! The swarm: links between nodes addressed by onion address, over Tor or a devnet.
//!
//! A node's only multiaddress is its `/onion3/...`. The transport dials and listens for such
//! addresses alone; what differs between a devnet and Tor is its [`connect::Connector`]. On the
//! swarm ride a gossip topic for statements, a request-response protocol for catching up, and one
//! stream to each peer for packets.

mod behaviour;
pub mod connect;
mod dialling;
mod gossip;
mod handle;
mod handover;
pub(crate) mod incoming;
mod join;
mod limits;
mod links;
mod meters;
mod onion;
mod packets;
mod reach;
mod statements;
mod strangers;
mod streams;
mod swarm;
#[cfg(test)]
mod tests;
pub mod tor;
mod transport;
mod trial;
mod turned;
mod verify;
mod waiting;
mod wanted;

pub use handle::{Beginning, Entrances, Handle, Judged, NetEvent, Reception, SwarmOrder};
pub use handover::StreamEvent;
pub use join::fetch_descriptor;
pub(crate) use limits::MAX_SOCKETS;
pub use links::{Links, Scores};
pub use packets::{Outgoing, PacketQueues, Received, SendFailed};
pub use reach::{Reach, Unreachable};
pub use swarm::spawn;
pub use trial::{LinkLog, Loss, Trial};
pub use turned::{Turned, TurnedAway};

//! The swarm: links between nodes that are onion services, whatever carries them.
//!
//! A node's only multiaddress is its `/onion3/...`. The transport dials and listens for such
//! addresses alone; what differs between a devnet and Tor is its [`connect::Connector`]. On the swarm
//! ride a gossip topic for statements, a request-response protocol for catching up, and one stream to
//! each peer for packets.

mod behaviour;
pub mod connect;
#[cfg(test)]
mod equivocation;
#[cfg(test)]
mod floods;
mod gossip;
#[cfg(test)]
mod hostile;
mod join;
mod links;
mod meters;
mod onion;
mod packets;
#[cfg(test)]
mod raw;
mod reach;
#[cfg(test)]
mod scale;
mod statements;
mod swarm;
#[cfg(test)]
mod tap;
#[cfg(test)]
mod tests;
pub mod tor;
mod transport;
mod waiting;
#[cfg(test)]
mod world;

pub use behaviour::INVITED;
pub use join::fetch_descriptor;
pub use packets::{Outgoing, PacketQueues, SendFailed};
pub use reach::{Reach, Unreachable};
pub use swarm::{Beginning, Event, Handle, Links, Order, Scores, spawn};

//! The seam between the driver and the swarm: events for the driver, orders for the swarm.

use std::collections::BTreeSet;
use std::sync::Arc;

use directory::{Answer, Request};
use keys::{NodeId, OnionAddress};
use libp2p::PeerId;
use libp2p::gossipsub::MessageId;
use libp2p::request_response::ResponseChannel;
use record::{Statement, StatementError};
use remailer::{InviteAnswer, Judgement, Token};
use tokio::sync::{mpsc, watch};

use super::handover::StreamEvent;
use super::links::{Links, Scores};
use super::packets::{PacketQueues, Received, SendFailed};
use super::reach::Reach;
use super::turned::TurnedAway;
use crate::places::Places;

/// An event of the network, for the driver.
pub enum NetEvent {
    /// A gossiped statement was checked, and waits for its judgement.
    Statement {
        /// The result of the check.
        checked: Result<Statement, StatementError>,
        /// The message that the judgement is about.
        judged: Judged,
    },
    /// A peer asks for statements that it lacks.
    SyncRequest {
        /// Its question.
        octets: Vec<u8>,
        /// Where the answer goes.
        answer: ResponseChannel<Vec<u8>>,
    },
    /// A peer that was asked has answered.
    SyncAnswer {
        /// The peer.
        peer: NodeId,
        /// Its answer, with the signatures in it checked.
        answer: Answer,
    },
    /// A peer that was asked gives no answer, or no valid one.
    SyncFailed(NodeId),
    /// What becomes of a stream that a peer without an address opened. Its number is never used
    /// again.
    Stream(u64, StreamEvent),
    /// A peer shows the token of an invite.
    InviteShown {
        /// The peer.
        peer: NodeId,
        /// The token.
        token: Vec<u8>,
        /// Where the answer goes.
        answer: ResponseChannel<Vec<u8>>,
    },
    /// A peer that was shown a token says whether it is good.
    InviteAnswered {
        /// The peer.
        peer: NodeId,
        /// Whether it vouches for this node now.
        answer: InviteAnswer,
    },
}

/// Names a gossiped message.
pub struct Judged {
    pub(super) id: MessageId,
    pub(super) source: PeerId,
}

/// An order of the driver to the swarm.
pub enum SwarmOrder {
    /// Publish a statement, now or as soon as a peer is there to hear it.
    Announce(Vec<u8>),
    /// Pass a statement on or not.
    Judge(Judged, Judgement),
    /// Answer a peer that asked for statements that it lacks.
    Answer(ResponseChannel<Vec<u8>>, Vec<u8>),
    /// Ask a peer for its statements.
    Ask(NodeId, Request),
    /// Show a peer the token of an invite.
    ShowInvite(NodeId, Token),
    /// Answer a peer that showed an invite.
    AnswerInvite(ResponseChannel<Vec<u8>>, InviteAnswer),
    /// End the links to a peer that breaks the protocol, and refuse it for a while.
    HangUp(NodeId),
    /// Hold a link to a node that has just become known.
    Link(NodeId),
    /// Hold links to these nodes, and to the bootstraps.
    Links(Vec<NodeId>),
    /// Hold no link to this node any more.
    Unlink(NodeId),
}

/// The driver's side of the network.
pub struct Handle {
    /// Events of the network.
    pub events: mpsc::Receiver<NetEvent>,
    /// Packets received, unopened.
    pub packets: mpsc::Receiver<Received>,
    /// What is taken from peers.
    pub reception: Reception,
    /// Where callers come in.
    pub entrances: Entrances,
    /// Orders to the swarm.
    pub orders: mpsc::Sender<SwarmOrder>,
    /// Packets to send.
    pub queues: PacketQueues,
    /// Packets that were not handed over.
    pub failures: mpsc::Receiver<SendFailed>,
    /// The nodes linked at present.
    pub links: watch::Receiver<Links>,
    /// The gossip scores of the linked nodes.
    pub scores: watch::Receiver<Scores>,
    /// Whether peers can reach this node.
    pub reach: watch::Receiver<Reach>,
    /// The nodes that this one chose to link to, for the next start.
    pub chosen: watch::Receiver<Vec<NodeId>>,
    /// The task of the swarm. When `orders` is dropped, it withdraws the address and ends.
    pub task: tokio::task::JoinHandle<()>,
}

/// Where callers come in, with what is turned away there.
pub struct Entrances {
    /// The places of handshakes, of strangers' links, and of packet streams of listed nodes and of
    /// strangers, and of streams to peers without an address.
    pub places: [Arc<Places>; 5],
    /// What was turned away unread.
    pub turned: TurnedAway,
}

/// What is taken from peers, as the driver says.
pub struct Reception {
    /// Whether packets are taken. While they are not, peers get no receipts, and keep what they
    /// have for this node.
    pub takes_packets: watch::Sender<bool>,
    /// The nodes of the list, whose places strangers cannot take.
    pub listed: watch::Sender<BTreeSet<NodeId>>,
}

/// The nodes that are dialled first.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// Nodes that the operator named.
    pub bootstrap: Vec<OnionAddress>,
    /// Nodes that this one had chosen when it ran before.
    pub chosen: Vec<NodeId>,
}

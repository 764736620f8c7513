//! The seam between the driver and the swarm: what the one is told, what the other is ordered.

use directory::{Answer, Request};
use keys::{NodeId, OnionAddress};
use libp2p::PeerId;
use libp2p::gossipsub::MessageId;
use libp2p::request_response::ResponseChannel;
use record::{Statement, StatementError};
use remailer::{InviteAnswer, Judgement, Token};
use sphinx::Packet;
use tokio::sync::{mpsc, watch};

use super::links::{Links, Scores};
use super::packets::{PacketQueues, SendFailed};
use super::reach::Reach;

/// What the driver is told.
pub enum NetEvent {
    /// A gossiped statement was looked at, and waits for its judgement.
    Statement {
        /// What came of looking at it.
        checked: Result<Statement, StatementError>,
        /// Where the judgement goes.
        judged: Judged,
    },
    /// A peer asks for what it lacks.
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
    /// A peer that was asked does not answer, or with something else.
    SyncFailed(NodeId),
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

/// What the driver wants.
pub enum SwarmOrder {
    /// Publish a statement, now or as soon as a peer is there to hear it.
    Announce(Vec<u8>),
    /// Pass a statement on or not.
    Judge(Judged, Judgement),
    /// Answer a peer that asked for what it lacks.
    Answer(ResponseChannel<Vec<u8>>, Vec<u8>),
    /// Ask a peer for what it has.
    Ask(NodeId, Request),
    /// Show a peer the token of an invite.
    ShowInvite(NodeId, Token),
    /// Answer a peer that showed an invite.
    AnswerInvite(ResponseChannel<Vec<u8>>, InviteAnswer),
    /// End the links to a peer that breaks the protocol, and do not let it in for a while.
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
    /// What happened.
    pub events: mpsc::Receiver<NetEvent>,
    /// Packets received, unopened.
    pub packets: mpsc::Receiver<Packet>,
    /// What is wanted.
    pub orders: mpsc::Sender<SwarmOrder>,
    /// Packets to send.
    pub queues: PacketQueues,
    /// Packets that were not handed over.
    pub failures: mpsc::Receiver<SendFailed>,
    /// The nodes linked at present.
    pub links: watch::Receiver<Links>,
    /// Their scores.
    pub scores: watch::Receiver<Scores>,
    /// Whether peers can reach this node.
    pub reach: watch::Receiver<Reach>,
    /// The nodes that this one chose to link to, for the next start.
    pub chosen: watch::Receiver<Vec<NodeId>>,
    /// Ends when `orders` is dropped; the address is taken back then.
    pub task: tokio::task::JoinHandle<()>,
}

/// The nodes that are dialled first.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// Those that the operator named.
    pub bootstrap: Vec<OnionAddress>,
    /// Those that this node had chosen when it ran before.
    pub chosen: Vec<NodeId>,
}

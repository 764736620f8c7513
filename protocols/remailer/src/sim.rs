//! Many nodes in virtual time: a discrete-event simulation of a whole network.
//!
//! Every node is the real [`Remailer`]; every packet, statement, question and answer has the real
//! octets. Nodes begin with the first one as their bootstrap, and link, gossip, ask, hang up and
//! show invites as their commands say. What is simulated is the world: links with a random latency,
//! gossip that goes to all links, a next server that takes everything, a disk that keeps
//! everything, and clocks that agree. The caller brings the randomness; the same generator gives
//! the same run.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use directory::Answer;
use keys::{Identity, NodeId, Time};
use mail::{Delivery, Mailbox, Submission};
use rand::{CryptoRng, RngExt as _};
use record::{
    Admission, Capabilities, Descriptor, DescriptorError, Domains, ExitPolicy, Parameters,
    Statement,
};
use sphinx::{EpochKeys, Kind, Layer, Packet, Peeled, StreamToken};
use zeroize::Zeroizing;

use crate::answer::{DeliveryOutcome, Done, InviteAnswer, NotDone, Refused, Taken};
use crate::command::Command;
use crate::content::ContentType;
use crate::cutting::Cut;
use crate::decoys::{Decoy, DecoyEnd};
use crate::exit::ExitOffer;
use crate::ids::{DeliveryId, MessageName, OrderId, QuestionId, StreamId, SubmissionId};
use crate::node::Remailer;
use crate::operator::OperatorOrder;
use crate::setup::{ClockJump, Setup};
use crate::statements::Judgement;
use crate::streams::Handed;

/// Voters of a network that [`Simulation::new`] makes.
const VOTERS: usize = 3;
/// The first octet of a vote.
const VOTE: u8 = 5;
/// For how long a peer that was hung up on is not linked again.
const BLOCKED_FOR: Duration = Duration::from_secs(600);
/// Statements that wait for a peer to hear them. Above that number the oldest goes.
const MAX_UNHEARD: usize = 64;

/// A network in virtual time.
pub struct Simulation<R> {
    descriptor: Arc<Descriptor>,
    now: Time,
    rng: R,
    nodes: Vec<Remailer>,
    around: Vec<Surroundings>,
    ids: BTreeMap<NodeId, usize>,
    /// What happens when, and to which node.
    events: BTreeMap<(Time, u64), (usize, Event)>,
    serial: u64,
    seen: Seen,
}

/// What the next server of an exit does with mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextServer {
    /// It takes all of it.
    #[default]
    Takes,
    /// It never says anything.
    Silent,
    /// It refuses all of it by a policy of its own.
    RefusesHere,
    /// It refuses all of it, as any other would.
    Refuses,
    /// It takes none of it at the first attempt, and all of it later.
    Postpones,
}

/// What surrounds one node.
#[derive(Default)]
struct Surroundings {
    keys: EpochKeys,
    linked: BTreeSet<usize>,
    wanted: BTreeSet<usize>,
    /// Peers that it hung up on, until when.
    blocked: BTreeMap<usize, Time>,
    /// Statements of its own that no peer was there to hear.
    unheard: VecDeque<Vec<u8>>,
    /// The messages in its custody, as its disk has them.
    custody: BTreeMap<MessageName, Zeroizing<Vec<u8>>>,
    /// Streams on which peers presented tokens.
    streams: Vec<StreamId>,
    next_server: NextServer,
    /// Deliveries that it has postponed.
    postponed: BTreeSet<DeliveryId>,
    is_stopped: bool,
    /// Whether its peers show it no votes and answer none of its questions.
    is_eclipsed: bool,
}

/// What an observer of everything has seen.
#[derive(Default)]
struct Seen {
    delivered: Vec<Delivered>,
    decoys: Vec<Decoyed>,
    sent: Vec<Sent>,
    /// Of which packet each one was made that a node holds, by its first octets.
    inside: BTreeMap<Beginning, usize>,
    last: Option<(usize, Vec<u8>)>,
    answers: BTreeMap<SubmissionId, Result<Taken, Refused>>,
    replies: BTreeMap<OrderId, Result<Done, NotDone>>,
    handed: Vec<Handed>,
    /// Of a thousand packets so many are lost.
    loses: u32,
    lost: usize,
    /// Nodes that take packets and drop so many of a thousand.
    droppers: BTreeMap<usize, u32>,
}

/// A message that reached the next server of an exit.
pub struct Delivered {
    /// When it was delivered.
    pub at: Time,
    /// The node that delivered it.
    pub exit: usize,
    /// The message.
    pub delivery: Delivery,
}

/// A decoy that a node took from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoyed {
    /// When.
    pub at: Time,
    /// The node that submitted it.
    pub from: usize,
    /// The node that took it.
    pub to: usize,
    /// Octets of header and body.
    pub octets: usize,
}

/// A packet on a link, as an observer of the link sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When.
    pub at: Time,
    /// The node that sent it.
    pub from: usize,
    /// The node that receives it.
    pub to: usize,
    /// Its size.
    pub octets: usize,
    /// When it is there.
    pub arrives: Time,
    /// The number of the packet, among all that were sent, of which its sender made it by opening; `None`
    /// if it was wrapped there. An observer of links does not see that, and whoever runs the node does.
    pub after: Option<usize>,
    /// Whether its route ended where it went, and it carried mail, as whoever runs that node sees.
    pub is_mail: bool,
}

impl Seen {
    /// Notes what a packet is to the node that opened it.
    fn note_inside(&mut self, layer: &Layer, number: usize) {
        match layer {
            Layer::Forward { packet, .. } => {
                let beginning = beginning(packet.octets());
                self.inside.extend(beginning.map(|beginning| (beginning, number)));
            }
            Layer::End { kind: Kind::Deliver, payload, .. } => {
                if let Some(sent) = self.sent.get_mut(number) {
                    sent.is_mail = !ContentType::is_turning_point(payload);
                }
            }
            Layer::End { .. } | Layer::Reply { .. } | Layer::Stream { .. } => {}
        }
    }
}

/// The octets of a packet by which it is told from all others: no two have the same ciphertext.
type Beginning = [u8; 64];

enum Event {
    /// The number among all that were sent, if a node sent it.
    Packet {
        from: NodeId,
        octets: Vec<u8>,
        number: Option<usize>,
    },
    Statement {
        from: usize,
        octets: Vec<u8>,
    },
    Dial {
        from: usize,
    },
    Linked {
        from: usize,
    },
    Question {
        from: usize,
        octets: Vec<u8>,
    },
    Answer {
        from: usize,
        octets: Option<Vec<u8>>,
    },
    InviteShown {
        from: usize,
        token: Vec<u8>,
    },
    InviteAnswered {
        from: usize,
        answer: InviteAnswer,
    },
}

impl<R: CryptoRng> Simulation<R> {
    /// An open network of `count` nodes, all relays and exits, started at `now`; the first three of
    /// them vote.
    ///
    /// # Errors
    /// [`DescriptorError`] if the parameters make no valid descriptor.
    pub fn new(
        count: u16,
        parameters: &Parameters,
        now: Time,
        mut rng: R,
    ) -> Result<Self, DescriptorError> {
        let maker = Identity::generate(&mut rng);
        let identities: Vec<_> = (0..count).map(|_| Identity::generate(&mut rng)).collect();
        let voters: Vec<_> = identities.iter().take(VOTERS).map(Identity::node).collect();
        let rule = Admission::Open;
        let descriptor = Descriptor::create(&maker, "simulation", now, parameters, &voters, &rule)?;
        let mut simulation = Self::empty(descriptor, now, rng);
        for identity in identities {
            let setup = Setup::new(identity, Arc::clone(&simulation.descriptor));
            simulation.join(Setup { exit: exit(), ..setup });
        }
        Ok(simulation)
    }

    /// A network that has no node yet.
    pub fn empty(descriptor: Descriptor, now: Time, rng: R) -> Self {
        Self {
            descriptor: Arc::new(descriptor),
            now,
            rng,
            nodes: Vec::new(),
            around: Vec::new(),
            ids: BTreeMap::new(),
            events: BTreeMap::new(),
            serial: 0,
            seen: Seen::default(),
        }
    }

    /// Starts one more node, with the first as its bootstrap. Returns its number.
    pub fn join(&mut self, setup: Setup) -> usize {
        let number = self.nodes.len();
        let mut node = Remailer::new(setup, self.now, &mut self.rng);
        node.handle_reachable();
        self.ids.insert(node.node(), number);
        self.nodes.push(node);
        self.around.push(Surroundings::default());
        if number > 0 {
            self.want(number, 0);
        }
        self.carry_out(number);
        number
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The network.
    #[must_use]
    pub fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Remailer] {
        &self.nodes
    }

    /// The numbers of the nodes that a node is linked to.
    #[must_use]
    pub fn linked(&self, node: usize) -> BTreeSet<usize> {
        self.around.get(node).map(|around| around.linked.clone()).unwrap_or_default()
    }

    /// The octets that the disk of a node has of the messages in its custody, decoys included.
    pub fn in_custody(&self, node: usize) -> impl Iterator<Item = (&MessageName, &[u8])> {
        let kept = self.around.get(node).into_iter().flat_map(|around| &around.custody);
        kept.map(|(name, octets)| (name, octets.as_slice()))
    }

    /// How many packets links have lost so far.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.seen.lost
    }

    /// What was delivered so far.
    #[must_use]
    pub fn delivered(&self) -> &[Delivered] {
        &self.seen.delivered
    }

    /// The decoys that nodes took so far.
    #[must_use]
    pub fn decoys(&self) -> &[Decoyed] {
        &self.seen.decoys
    }

    /// What an observer of all links saw of packets so far.
    #[must_use]
    pub fn sent(&self) -> &[Sent] {
        &self.seen.sent
    }

    /// The octets of the last packet on any link, and the node it goes to.
    #[must_use]
    pub fn last_packet(&self) -> Option<(usize, &[u8])> {
        self.seen.last.as_ref().map(|(to, octets)| (*to, octets.as_slice()))
    }

    /// Hands a message to a node.
    ///
    /// # Errors
    /// [`Refused`]; a node that does not exist has no room.
    pub fn submit(&mut self, node: usize, submission: &Submission) -> Result<Taken, Refused> {
        let id = SubmissionId(self.number());
        if let Some(remailer) = self.nodes.get_mut(node) {
            let cut = Cut::of(submission, self.descriptor.parameters(), &mut self.rng);
            remailer.handle_submission(id, cut, self.now, &mut self.rng);
        }
        self.carry_out(node);
        self.seen.answers.remove(&id).unwrap_or(Err(Refused::Full))
    }

    /// From now on, links lose this share of the packets, in thousandths.
    pub fn lose(&mut self, thousandths: u32) {
        self.seen.loses = thousandths;
    }

    /// From now on, this share of what other nodes send to a node is dropped without a word, in thousandths.
    pub fn drop_at(&mut self, node: usize, thousandths: u32) {
        self.seen.droppers.insert(node, thousandths);
    }

    /// From now on, the next server of a node does this with mail.
    pub fn serve(&mut self, node: usize, next_server: NextServer) {
        if let Some(around) = self.around.get_mut(node) {
            around.next_server = next_server;
        }
    }

    /// A peer without an address presents tokens to a node, and takes at once what it is handed.
    pub fn present(&mut self, node: usize, tokens: &[StreamToken]) {
        let id = StreamId(self.number());
        if let Some(remailer) = self.nodes.get_mut(node) {
            remailer.handle_stream_opened(id, tokens, self.now);
        }
        if let Some(around) = self.around.get_mut(node) {
            around.streams.push(id);
        }
        self.carry_out(node);
    }

    /// Ends the streams on which peers presented tokens to a node.
    pub fn drop_streams(&mut self, node: usize) {
        let open = self.around.get_mut(node).map(|around| core::mem::take(&mut around.streams));
        for stream in open.unwrap_or_default() {
            if let Some(remailer) = self.nodes.get_mut(node) {
                remailer.handle_stream_ended(stream, Vec::new(), self.now);
            }
        }
    }

    /// What peers without an address were handed so far.
    #[must_use]
    pub fn handed(&self) -> &[Handed] {
        &self.seen.handed
    }

    /// Has a node's operator order something.
    ///
    /// # Errors
    /// [`NotDone`]; a node that does not exist keeps nothing.
    pub fn order(&mut self, node: usize, order: OperatorOrder) -> Result<Done, NotDone> {
        let id = OrderId(self.number());
        if let Some(remailer) = self.nodes.get_mut(node) {
            remailer.handle_order(id, order, self.now, &mut self.rng);
        }
        self.carry_out(node);
        self.seen.replies.remove(&id).unwrap_or(Err(NotDone::NotKept))
    }

    /// Puts octets on a link to a node, as anybody can.
    pub fn inject(&mut self, to: usize, octets: Vec<u8>) {
        self.later(to, Event::Packet { from: NodeId::from_bytes([0; 32]), octets, number: None });
    }

    /// Shows a statement to a node alone: whatever it makes of it, it does not pass it on.
    pub fn show(&mut self, to: usize, octets: &[u8]) -> Judgement {
        if self.is_stopped(to) {
            return Judgement::Ignore;
        }
        let checked = Statement::check(octets, &self.descriptor.id());
        let Some(node) = self.nodes.get_mut(to) else { return Judgement::Ignore };
        let judgement = node.handle_statement(checked, self.now, &mut self.rng);
        self.carry_out(to);
        judgement
    }

    /// Offers a statement to a node and returns what it makes of it.
    pub fn gossip(&mut self, to: usize, octets: &[u8]) -> Judgement {
        self.hear(to, to, octets)
    }

    /// A node passes a statement on to all that are linked to it.
    pub fn pass_on(&mut self, from: usize, octets: &[u8]) {
        for to in self.linked(from) {
            self.later(to, Event::Statement { from, octets: octets.to_vec() });
        }
    }

    /// Cuts the links of a node; the peers that want them dial again.
    pub fn cut(&mut self, node: usize) {
        for peer in self.linked(node) {
            self.unlink(node, peer);
        }
    }

    /// Stops a node for good or until [`Simulation::go_on`]: it is silent, and nothing reaches it.
    pub fn stop(&mut self, node: usize) {
        self.cut(node);
        if let Some(around) = self.around.get_mut(node) {
            around.is_stopped = true;
        }
    }

    /// Lets a stopped node go on with what it knew.
    pub fn go_on(&mut self, node: usize) {
        if let Some(around) = self.around.get_mut(node) {
            around.is_stopped = false;
        }
        for peer in 0..self.nodes.len() {
            self.later(peer, Event::Dial { from: node });
            self.later(node, Event::Dial { from: peer });
        }
    }

    /// Lets a stopped node go on whose machine has slept since, and whose clock has been set on for it.
    pub fn wake(&mut self, node: usize, slept: Duration) {
        let millis = i64::try_from(slept.as_millis()).unwrap_or(i64::MAX);
        if let Some(remailer) = self.nodes.get_mut(node) {
            remailer.handle_clock_jump(ClockJump { millis, slept }, self.now, &mut self.rng);
        }
        self.go_on(node);
        self.carry_out(node);
    }

    /// From now on, all peers of a node keep votes from it and answer none of its questions.
    pub fn eclipse(&mut self, node: usize) {
        if let Some(around) = self.around.get_mut(node) {
            around.is_eclipsed = true;
        }
    }

    /// Lets the peers of a node behave again.
    pub fn end_eclipse(&mut self, node: usize) {
        if let Some(around) = self.around.get_mut(node) {
            around.is_eclipsed = false;
        }
    }

    fn is_stopped(&self, node: usize) -> bool {
        self.around.get(node).is_some_and(|around| around.is_stopped)
    }

    fn is_eclipsed(&self, node: usize) -> bool {
        self.around.get(node).is_some_and(|around| around.is_eclipsed)
    }

    /// Lets this much time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now.plus(span);
        loop {
            let running = self.nodes.iter().zip(&self.around).filter(|(_, a)| !a.is_stopped);
            let timer = running.map(|(node, _)| node.poll_timeout()).min();
            let event = self.events.keys().next().map(|(at, _)| *at);
            let Some(next) = [timer, event].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        while let Some(first) = self.events.first_entry() {
            if first.key().0 > self.now {
                break;
            }
            let (to, event) = first.remove();
            self.happen(to, event);
            self.carry_out(to);
        }
        for index in 0..self.nodes.len() {
            if !self.is_stopped(index)
                && let Some(node) = self.nodes.get_mut(index)
                && node.poll_timeout() <= self.now
            {
                node.handle_timeout(self.now, &mut self.rng);
                self.carry_out(index);
            }
        }
    }

    fn happen(&mut self, to: usize, event: Event) {
        if self.is_stopped(to) {
            return;
        }
        match event {
            Event::Packet { from, octets, number } => self.receive(to, from, octets, number),
            Event::Statement { from, octets } => {
                self.hear(to, from, &octets);
            }
            Event::Dial { from } => self.dial(from, to),
            Event::Linked { from } => self.link_up(to, from),
            Event::Question { from, octets } => {
                // The asker may have heard of the link first.
                let is_linked = self.is_linked(to, from) || self.is_linked(from, to);
                let answerer = self.nodes.get(to).filter(|_| is_linked);
                let octets = answerer.and_then(|node| node.handle_sync_request(&octets, self.now));
                self.later(from, Event::Answer { from: to, octets });
            }
            Event::Answer { from, octets } => self.take_answer(to, from, octets),
            Event::InviteShown { from, token } => {
                let id = QuestionId(u64::try_from(from).unwrap_or(u64::MAX));
                let now = self.now;
                if let Some(((node, rng), peer)) = self.node_and_peer(to, from) {
                    node.handle_invite_shown(id, peer, &token, now, rng);
                }
            }
            Event::InviteAnswered { from, answer } => {
                let now = self.now;
                if let Some(((node, rng), peer)) = self.node_and_peer(to, from) {
                    node.handle_invite_answered(peer, answer, now, rng);
                }
            }
        }
    }

    /// A node with the randomness for its next input, and the identity of another.
    fn node_and_peer(
        &mut self,
        node: usize,
        peer: usize,
    ) -> Option<((&mut Remailer, &mut R), NodeId)> {
        let peer = self.nodes.get(peer)?.node();
        Some(((self.nodes.get_mut(node)?, &mut self.rng), peer))
    }

    fn receive(&mut self, to: usize, from: NodeId, octets: Vec<u8>, number: Option<usize>) {
        let (Some(node), Some(around)) = (self.nodes.get_mut(to), self.around.get(to)) else {
            return;
        };
        let packet = Packet::from_octets(octets);
        let peeled = packet.and_then(|packet| sphinx::peel(packet, &around.keys));
        if let (Ok(Peeled { outcome: Ok(layer), .. }), Some(number)) = (&peeled, number) {
            self.seen.note_inside(layer, number);
        }
        node.handle_peeled(from, peeled, self.now);
    }

    /// A node hears a statement, and passes it on to all others if it is good.
    fn hear(&mut self, to: usize, from: usize, octets: &[u8]) -> Judgement {
        let is_vote = octets.first() == Some(&VOTE);
        if self.is_stopped(to) || (is_vote && self.is_eclipsed(to)) {
            return Judgement::Ignore;
        }
        let checked = Statement::check(octets, &self.descriptor.id());
        let Some(node) = self.nodes.get_mut(to) else { return Judgement::Ignore };
        let judgement = node.handle_statement(checked, self.now, &mut self.rng);
        self.carry_out(to);
        if judgement == Judgement::Accept {
            for peer in self.linked(to).into_iter().filter(|peer| *peer != from) {
                self.later(peer, Event::Statement { from: to, octets: octets.to_vec() });
            }
        }
        judgement
    }

    fn take_answer(&mut self, to: usize, from: usize, octets: Option<Vec<u8>>) {
        let network = self.descriptor.id();
        let is_linked = self.is_linked(to, from) && !self.is_eclipsed(to);
        let now = self.now;
        let Some(((node, rng), peer)) = self.node_and_peer(to, from) else { return };
        let octets = octets.filter(|_| is_linked);
        match octets.map(|octets| Answer::check(&octets, &network)) {
            Some(Ok(answer)) => node.handle_sync_answer(peer, answer, now, rng),
            Some(Err(_)) | None => node.handle_sync_failed(&peer, now, rng),
        }
    }

    // Links.

    fn is_linked(&self, node: usize, peer: usize) -> bool {
        self.around.get(node).is_some_and(|around| around.linked.contains(&peer))
    }

    fn want(&mut self, from: usize, to: usize) {
        if let Some(around) = self.around.get_mut(from)
            && from != to
            && around.wanted.insert(to)
        {
            self.later(to, Event::Dial { from });
        }
    }

    fn dial(&mut self, from: usize, to: usize) {
        let wants = self.around.get(from).is_some_and(|around| around.wanted.contains(&to));
        let may = wants && !self.is_stopped(from) && !self.is_blocked(from, to);
        if may && !self.is_linked(from, to) {
            self.link_up(to, from);
            self.later(from, Event::Linked { from: to });
        }
    }

    fn is_blocked(&self, one: usize, other: usize) -> bool {
        let blocks = |node: usize, peer: usize| {
            let until = self.around.get(node).and_then(|around| around.blocked.get(&peer));
            until.is_some_and(|until| *until > self.now)
        };
        blocks(one, other) || blocks(other, one)
    }

    fn link_up(&mut self, node: usize, peer: usize) {
        if let Some(around) = self.around.get_mut(node)
            && around.linked.insert(peer)
        {
            let unheard = core::mem::take(&mut around.unheard);
            let now = self.now;
            if let Some(((up, rng), id)) = self.node_and_peer(node, peer) {
                up.handle_peers_up(&[id], now, rng);
            }
            for octets in unheard {
                self.later(peer, Event::Statement { from: node, octets });
            }
        }
        self.carry_out(node);
    }

    fn unlink(&mut self, one: usize, other: usize) {
        for (at, to) in [(one, other), (other, one)] {
            let Some(around) = self.around.get_mut(at) else { continue };
            if around.linked.remove(&to)
                && let Some(((node, _), peer)) = self.node_and_peer(at, to)
            {
                node.handle_peer_down(&peer);
            }
            self.dial_again(at, to);
        }
    }

    /// Dials again when no peer is blocked any more.
    fn dial_again(&mut self, from: usize, to: usize) {
        if self.around.get(from).is_some_and(|around| around.wanted.contains(&to)) {
            self.serial += 1;
            let at = self.now.plus(BLOCKED_FOR);
            self.events.insert((at, self.serial), (to, Event::Dial { from }));
        }
    }

    // Commands.

    fn carry_out(&mut self, index: usize) {
        while let Some(command) = self.nodes.get_mut(index).and_then(Remailer::next_command) {
            self.obey(index, command);
        }
    }

    fn obey(&mut self, index: usize, command: Command) {
        let now = self.now;
        match command {
            Command::Send { to, packet, .. } => self.send(index, &to, &packet),
            Command::HandOver(id, handed) => {
                self.seen.handed.push(handed);
                if let Some(node) = self.nodes.get_mut(index) {
                    node.handle_stream_taken(id);
                }
            }
            Command::Announce(octets) => self.announce(index, octets),
            Command::Link(node) => self.want_all(index, &[node]),
            Command::Links(nodes) => self.want_all(index, &nodes),
            Command::Unlink(node) => {
                let to = self.ids.get(&node).filter(|to| **to != 0).copied();
                if let (Some(to), Some(around)) = (to, self.around.get_mut(index)) {
                    around.wanted.remove(&to);
                }
            }
            Command::Ask(peer, request) => {
                if let (Some(to), Ok(octets)) = (self.ids.get(&peer), request.encode()) {
                    self.later(*to, Event::Question { from: index, octets });
                }
            }
            Command::HangUp(peer) => {
                let peer = self.ids.get(&peer).copied();
                if let (Some(peer), Some(around)) = (peer, self.around.get_mut(index)) {
                    around.blocked.insert(peer, now.plus(BLOCKED_FOR));
                    self.unlink(index, peer);
                }
            }
            Command::ShowInvite(peer, token) => {
                if let Some(to) = self.ids.get(&peer).copied() {
                    let token = token.as_bytes().to_vec();
                    self.later(to, Event::InviteShown { from: index, token });
                }
            }
            Command::AnswerInvite(QuestionId(peer), answer) => {
                let to = usize::try_from(peer).unwrap_or(usize::MAX);
                self.later(to, Event::InviteAnswered { from: index, answer });
            }
            Command::Deliver(..)
            | Command::Seal(..)
            | Command::SealCover(_)
            | Command::Accept(_)
            | Command::KeepTags(_)
            | Command::KeepSeed(..)
            | Command::KeepMessage(..)
            | Command::KeepOwn(..)
            | Command::KeepVote(..)
            | Command::KeepBanned(..)
            | Command::KeepLeaving(..)
            | Command::KeepInvites(..) => self.report(index, command),
            Command::Submit(decoy) => self.submit_decoy(index, decoy),
            Command::ForgetMessage(name, _) => {
                if let Some(around) = self.around.get_mut(index) {
                    around.custody.remove(&name);
                }
            }
            Command::Answer(id, answer) => {
                self.seen.answers.insert(id, answer);
            }
            Command::Reply(id, reply) => {
                self.seen.replies.insert(id, reply);
            }
            // The disk keeps and forgets everything, and nobody looks at views but their node.
            Command::WithdrawSeed(_)
            | Command::ForgetSeeds(_)
            | Command::KeepList(_)
            | Command::KeepHealth(_)
            | Command::KeepStatement(..)
            | Command::ForgetStatements(_)
            | Command::ForgetInvite(_)
            | Command::MarkMessage(..)
            | Command::KeepOver(_)
            | Command::ForgetOver(_)
            | Command::ViewTaken(_) => {}
        }
    }

    fn submit_decoy(&mut self, from: usize, decoy: Decoy) {
        let to = self.ids.get(&decoy.to).copied().filter(|to| !self.is_stopped(*to));
        let taken = to.zip(decoy.delivery(&mut self.rng).ok()).map(|(to, delivery)| {
            let (recipients, message) = (delivery.recipients.clone(), delivery.message.clone());
            let octets = message.len();
            let is_taken = self.submit(to, &Submission { recipients, message }).is_ok();
            self.seen.decoys.extend(is_taken.then_some(Decoyed { at: self.now, from, to, octets }));
            is_taken
        });
        if let Some(node) = self.nodes.get_mut(from) {
            node.handle_decoy_submitted(match taken {
                Some(true) => DecoyEnd::Taken,
                Some(false) | None => DecoyEnd::NotTaken,
            });
        }
    }

    /// Commands of which a node is told at once what came of them.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller tells these from the others")]
    fn report(&mut self, index: usize, command: Command) {
        let (Some(node), Some(around)) = (self.nodes.get_mut(index), self.around.get_mut(index))
        else {
            return;
        };
        match command {
            Command::Accept(keys) => around.keys = keys,
            Command::KeepTags(tags) => node.handle_tags_kept(tags.batch, self.now),
            Command::Seal(id, sealing) => {
                let sealed = sealing.run(&mut self.rng);
                node.handle_sealed(id, sealed, self.now, &mut self.rng);
            }
            Command::SealCover(sealing) => {
                let sealed = sealing.run(&mut self.rng);
                node.handle_cover_sealed(sealed);
            }
            Command::Deliver(id, delivery) => {
                let all = delivery.recipients.len();
                let done = |[taken, refused, refused_here]: [usize; 3]| {
                    Some(DeliveryOutcome::Done { taken, refused, refused_here })
                };
                let outcome = match around.next_server {
                    NextServer::Silent => None,
                    NextServer::RefusesHere => done([0, 0, all]),
                    NextServer::Refuses => done([0, all, 0]),
                    NextServer::Postpones if around.postponed.insert(id) => {
                        let (taken, refused, refused_here) = (0, 0, 0);
                        Some(DeliveryOutcome::Later { delivery, taken, refused, refused_here })
                    }
                    NextServer::Takes | NextServer::Postpones => {
                        self.seen.delivered.push(Delivered { at: self.now, exit: index, delivery });
                        done([all, 0, 0])
                    }
                };
                if let Some(outcome) = outcome {
                    node.handle_delivery(id, outcome, self.now, &mut self.rng);
                }
            }
            Command::KeepMessage(id, name, octets) => {
                around.custody.insert(name, octets);
                node.handle_kept(id, self.now, &mut self.rng);
            }
            Command::KeepSeed(id, ..)
            | Command::KeepOwn(id, _)
            | Command::KeepVote(id, _)
            | Command::KeepBanned(id, _)
            | Command::KeepLeaving(id, _)
            | Command::KeepInvites(id, _) => {
                node.handle_kept(id, self.now, &mut self.rng);
            }
            _ => {}
        }
    }

    fn send(&mut self, from: usize, to: &NodeId, packet: &Packet) {
        let Some(to) = self.ids.get(to).copied() else { return };
        let octets = packet.octets().to_vec();
        let after = beginning(&octets).and_then(|beginning| self.seen.inside.remove(&beginning));
        let (at, number) = (self.now, self.seen.sent.len());
        let arrives = at.plus(self.latency());
        self.seen.sent.push(Sent {
            at,
            from,
            to,
            octets: octets.len(),
            arrives,
            after,
            is_mail: false,
        });
        self.seen.last = Some((to, octets.clone()));
        let dropped = self.seen.droppers.get(&to).copied().unwrap_or_default();
        let loses = self.seen.loses.max(dropped);
        if loses > 0 && self.rng.random_range(0..1000) < loses {
            self.seen.lost += 1;
            return;
        }
        if let Some(from) = self.nodes.get(from).map(Remailer::node) {
            let number = Some(number);
            self.at(arrives, to, Event::Packet { from, octets, number });
        }
    }

    fn announce(&mut self, from: usize, octets: Vec<u8>) {
        let Some(around) = self.around.get_mut(from) else { return };
        if !around.linked.is_empty() {
            return self.pass_on(from, &octets);
        }
        if around.unheard.len() >= MAX_UNHEARD {
            around.unheard.pop_front();
        }
        around.unheard.push_back(octets);
    }

    fn want_all(&mut self, from: usize, nodes: &[NodeId]) {
        for node in nodes {
            if let Some(to) = self.ids.get(node).copied() {
                self.want(from, to);
            }
        }
    }

    fn later(&mut self, to: usize, event: Event) {
        let latency = self.latency();
        self.at(self.now.plus(latency), to, event);
    }

    /// From 5 to 50 ms.
    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(5..=50))
    }

    fn at(&mut self, at: Time, to: usize, event: Event) {
        let serial = self.number();
        self.events.insert((at, serial), (to, event));
    }

    fn number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

fn beginning(octets: &[u8]) -> Option<Beginning> {
    octets.first_chunk().copied()
}

fn exit() -> Option<ExitOffer> {
    let anonymous = Mailbox::parse("anonymous@fog.invalid").ok()?;
    let policy = ExitPolicy {
        domains: Domains::Any,
        max_message: 16 << 20,
        offers: Capabilities::EIGHT_BIT | Capabilities::SMTP_UTF8 | Capabilities::KEEP_FROM,
    };
    Some(ExitOffer { policy, anonymous })
}

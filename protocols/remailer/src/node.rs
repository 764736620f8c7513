//! The node: its parts, its inputs, and the order of things at a timeout.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use directory::{Answer, Directory, HourList, ItemId, Source, Standing, Unwanted, View};
use keys::{Epoch, NodeId, OnionAddress, Schedule, Time};
use mail::{MAX_MESSAGE, Mailbox};
use mix::NoRoom;
use rand::CryptoRng;
use record::{Descriptor, Record, Statement, StatementError};
use sphinx::{Peeled, Refusal, SizeClass, StreamToken};

use crate::answer::{DeliveryOutcome, InviteAnswer, Refused};
use crate::answers::{Answers, Reply};
use crate::author::{Author, Reach};
use crate::catch_up::CatchUp;
use crate::command::{Command, Out};
use crate::content::ContentType;
use crate::count::{Count, Counts, Dropped, NotAnswered, NotDelivered, NotTaken};
use crate::custody::{Cancelled, ENDED_HOURS, MessageState, QueueEntry};
use crate::cutting::{Cut, piece_room};
use crate::decoys::DecoyEnd;
use crate::exit::{Exit, ExitOffer};
use crate::health::{Health, PeerHealth};
use crate::ids::{
    DeliveryId, KeepId, MessageName, OrderId, QuestionId, QueueId, StreamId, SubmissionId,
};
use crate::ingress::{self, Fate, Ingress};
use crate::invite::GivenInvite;
use crate::leaving::Leaving;
use crate::operator::{self, Operator, OperatorOrder};
use crate::outbox::Way;
use crate::outlook::{Agreement, Alarm, Outlook, Suspicion};
use crate::relay::{Arrival, Relay};
use crate::replies::Replies;
use crate::seal::{SealedMessage, SealingFailed, exponential};
use crate::sender::{Sender, Sends};
use crate::setup::{ClockJump, CustodyKept, Kept, Known, Past, Role, Setup};
use crate::statements::{Hearing, Judgement, Rejected};
use crate::streams::Handed;
use crate::traffic::{Carried, blurred};

/// For how many hours a route is planned, at most.
const ROUTE_HOURS: u32 = 2;
/// In how many hours at the latest a list without a node that leaves has come, if the lists are in time, and the
/// hour has begun with which it ends: its record may be too late for the votes for the next.
const LISTS_HOURS: u32 = 4;
/// Under whose name loops that turn here have their share of the pool: they must not take that of word of
/// messages. It is nobody's identity.
const OF_LOOPS: NodeId = NodeId::from_bytes([0; 32]);
/// Statements refused for their date, and none taken, that make a clock suspect.
const SUSPICIOUS: usize = 3;

/// One node.
pub struct Remailer {
    outlook: Outlook,
    catch_up: CatchUp,
    author: Author,
    /// What a client has not.
    relay: Option<Relay>,
    sender: Sender,
    ingress: Ingress,
    replies: Replies,
    health: Health,
    exit: Option<Exit>,
    answers: Answers,
    operator: Operator,
    out: Out,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Packets in the mix.
    pub mixing: usize,
    /// Its own packets that wait for their tick.
    pub waiting: usize,
    /// Messages being delivered.
    pub delivering: usize,
    /// Messages of which an exit has some pieces.
    pub assembling: usize,
    /// Answers of exits that are waited for.
    pub answers: usize,
    /// Messages in custody.
    pub messages: usize,
    /// Packets that wait for a stream with their token.
    pub for_streams: usize,
}

/// Which size classes are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The number of the stage, from 0.
    pub stage: usize,
    /// Mails an hour in the whole network, as the exits of the list say.
    pub volume: u32,
    /// The classes in which mail leaves.
    pub open: Vec<SizeClass>,
    /// Packets of each class that this node passed on in the last whole hour.
    pub packets: [u32; SizeClass::COUNT],
    /// The same of this node's own mail.
    pub mail: [u32; SizeClass::COUNT],
    /// The same of its cover.
    pub cover: [u32; SizeClass::COUNT],
}

impl Classes {
    /// Octets of packets that this node sent in the last whole hour, whoever made them.
    #[must_use]
    pub fn octets(&self) -> u64 {
        let sent = self.packets.iter().zip(self.mail).zip(self.cover);
        let sent = sent
            .map(|((passed, mail), cover)| u64::from(*passed) + u64::from(mail) + u64::from(cover));
        SizeClass::all().zip(sent).fold(0, |octets, (class, sent)| {
            let each = u64::try_from(class.packet_len()).unwrap_or(u64::MAX);
            each.saturating_mul(sent).saturating_add(octets)
        })
    }
}

impl Remailer {
    /// A node that starts at `now`.
    pub fn new(setup: Setup, now: Time, rng: &mut impl CryptoRng) -> Self {
        let Setup { identity, descriptor, role, exit, contact, family, .. } = setup;
        let parameters = descriptor.parameters();
        let schedule = parameters.schedule();
        let (node, network) = (identity.node(), descriptor.id());
        let own = [node].into_iter().chain(family.iter().copied()).collect();
        let first_record_at = now.plus(setup.first_record_after);
        let room = piece_room(parameters);
        let spacing = parameters.bounds.spacing;
        let mut author =
            Author::new(identity, network, schedule, spacing, setup.invites, first_record_at);
        author.run_by(contact, family);
        let health = Health::new(schedule, &parameters.sending, now);
        let mut remailer = Self {
            outlook: Outlook::new(node, Arc::clone(&descriptor), setup.banned, now),
            catch_up: CatchUp::new(&schedule, now),
            author,
            relay: match role {
                Role::Relay => Some(Relay::new(schedule, &parameters.mixing, now, rng)),
                Role::Client => None,
            },
            sender: Sender::new(descriptor, own, now),
            ingress: Ingress::default(),
            replies: Replies::default(),
            health,
            answers: Answers::default(),
            exit: exit.map(|offer| Exit::new(offer, room, schedule)),
            operator: Operator::default(),
            out: Out::default(),
        };
        if let Some(relay) = &mut remailer.relay {
            relay.set_rounds(remailer.sender.rounds());
        }
        remailer.outlook.begin_hour(now, &mut remailer.out);
        remailer.restore_keys(setup.epochs, now);
        let Known { statements, list, vote, health, custody, leaving } = setup.known;
        match leaving {
            Some(leaving) if leaving.until > now => {
                remailer.ingress.leaving = Some(leaving);
                remailer.author.set_leaving(true, now);
            }
            // It was over while the node did not run: who starts it again wants it back.
            Some(_) => {
                let id = remailer.out.keep_id();
                remailer.out.push(Command::KeepLeaving(id, None));
            }
            None => {}
        }
        if let Some(health) = health {
            remailer.health.restore(&health, now);
        }
        let known_before = statements.len();
        remailer.restore_list(list.as_deref(), now);
        let lapsed = remailer.restore(setup.past, statements, now, rng);
        remailer.outlook.begin_with_leftovers(lapsed, known_before, now);
        remailer.outlook.use_kept_list(now, rng, &mut remailer.out);
        remailer.restore_vote(vote.as_deref(), now, rng);
        remailer.note_witnesses(now);
        remailer.put_list_together(now, rng);
        remailer.restore_custody(custody, now, rng);
        remailer
    }

    /// Goes on with the messages that this node has answered for.
    fn restore_custody(&mut self, kept: CustodyKept, now: Time, rng: &mut impl CryptoRng) {
        if let Some(exit) = &mut self.exit {
            exit.restore(kept.over);
        }
        self.ingress.custody.restore_ended(kept.ended);
        for kept in kept.messages {
            let parts = (&mut self.sender, &mut self.replies, &mut self.ingress.custody);
            ingress::restore(kept, parts, now, rng, &mut self.out);
        }
    }

    fn restore_keys(&mut self, epochs: Vec<(Epoch, Kept)>, now: Time) {
        let oldest = self.schedule().oldest_held(now);
        let Some(relay) = &mut self.relay else { return };
        for (epoch, kept) in epochs {
            match kept {
                Kept::Key { seed, seen } if epoch >= oldest => {
                    relay.insert_key(self.author.make_key(epoch, &seed), seen);
                }
                Kept::Withdrawn if epoch >= oldest => {
                    self.author.withdraw(epoch);
                }
                Kept::Key { .. } | Kept::Withdrawn => {}
            }
        }
        relay.offer_keys(now, &mut self.out);
    }

    /// Goes on with the list that was kept, unless a clock that was wrong made it for an hour far
    /// ahead. What is restored after it knows who is listed.
    fn restore_list(&mut self, list: Option<&[u8]>, now: Time) {
        if let Some(list) = list.and_then(HourList::from_octets)
            && list.hour() <= self.schedule().hour_at(now).plus(1)
        {
            self.outlook.directory.restore_list(list);
        }
    }

    /// Returns the names of stored statements that are not valid at `now`.
    fn restore(
        &mut self,
        past: Past,
        mut statements: Vec<Vec<u8>>,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Vec<ItemId> {
        let network = self.descriptor().id();
        if !matches!(past, Past::None) {
            self.author.wait(now);
        }
        let mut hearing = self.hearing(now, rng);
        if let Past::Known(own) = past
            && let Ok(Statement::Record(own)) = Statement::check(&own, &network)
            && own.node() == hearing.outlook.node()
        {
            hearing.author.resume(&own, now);
            hearing.give_up_lost_keys(&own);
        }
        let all: Vec<_> = statements.iter().map(|octets| ItemId::of(octets)).collect();
        // Records go first; words depend on each other, and are tried again while that helps.
        statements.sort_by_key(|octets| octets.first().copied());
        let mut before = usize::MAX;
        while !statements.is_empty() && statements.len() < before {
            before = statements.len();
            statements.retain(|octets| {
                let Ok(statement) = Statement::check(octets, &network) else { return false };
                let taken = hearing.take(statement, Source::CatchUp);
                matches!(taken, Err(Rejected::Unwanted(Unwanted::Unreached)))
            });
        }
        all.into_iter().filter(|name| !self.outlook.directory.holds(name)).collect()
    }

    /// Goes on after the vote that was kept: there is never another for its hour.
    fn restore_vote(&mut self, vote: Option<&[u8]>, now: Time, rng: &mut impl CryptoRng) {
        let network = self.descriptor().id();
        if let Some(Ok(Statement::Vote(vote))) = vote.map(|vote| Statement::check(vote, &network))
            && vote.voter() == self.node()
        {
            self.author.note_voted(vote.hour());
            // Peers that have not heard of it ask for it.
            let _ = self.hearing(now, rng).take(Statement::Vote(vote), Source::CatchUp);
        }
    }

    // What is known.

    /// Its identity.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.outlook.node()
    }

    /// Its own address.
    #[must_use]
    pub fn onion(&self) -> Option<OnionAddress> {
        OnionAddress::of(self.node()).ok()
    }

    /// Its network.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        self.outlook.descriptor()
    }

    /// All verified statements.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.outlook.directory
    }

    /// The view that routes come from, if there is one.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        self.outlook.view()
    }

    /// When epochs begin.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        self.outlook.schedule()
    }

    /// How often each thing happened.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.out.counts
    }

    /// What it holds.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            mixing: self.relay.as_ref().map_or(0, Relay::held),
            waiting: self.sender.held(),
            delivering: self.exit.as_ref().map_or(0, Exit::held),
            assembling: self.exit.as_ref().map_or(0, Exit::assembling),
            answers: self.replies.waiting(),
            messages: self.ingress.custody.len(),
            for_streams: self.relay.as_ref().map_or(0, Relay::for_streams),
        }
    }

    /// Which size classes are open, and what this node has passed on of each.
    #[must_use]
    pub fn classes(&self, now: Time) -> Classes {
        let volume = self.view().map_or(0, |view| view.volume());
        let (stage, of) = self.descriptor().parameters().stage_at(volume);
        let packets = self.relay.as_ref().map(|relay| relay.traffic(now)).unwrap_or_default();
        let open = SizeClass::all().filter(|class| of.is_open(class.number())).collect();
        let [mail, cover] = self.sender.traffic(now);
        Classes { stage, volume, open, packets, mail, cover }
    }

    /// Mails among which one hides from an observer of all submissions, deliveries and links: those that
    /// are submitted within the usual hold, in the whole network, if all have one size and no node is the
    /// observer's. Itself is one of them; decoys are not.
    #[must_use]
    pub fn hides_among(&self) -> u32 {
        let volume = self.view().map_or(0, |view| view.volume());
        let hold = self.descriptor().parameters().sending.max_hold.as_millis();
        let within = u128::from(volume) * hold / self.schedule().hour().as_millis().max(1);
        u32::try_from(within).unwrap_or(u32::MAX)
    }

    /// How long after the end of its key the latest packet came, if one ever did.
    #[must_use]
    pub fn latest_packet(&self) -> Option<Duration> {
        self.relay.as_ref().and_then(Relay::latest)
    }

    /// The end of any one window of its mix; `None` for a client, and if its mix has none. An observer who
    /// measures for long enough knows it too.
    #[must_use]
    pub fn phase(&self) -> Option<Time> {
        self.relay.as_ref().and_then(Relay::phase)
    }

    /// The oldest epoch whose key is not destroyed yet.
    #[must_use]
    pub fn oldest_key(&self) -> Option<Epoch> {
        self.relay.as_ref().and_then(Relay::oldest_key)
    }

    /// Whether peers have to be asked before this node may publish.
    #[must_use]
    pub fn wants_witnesses(&self) -> bool {
        self.author.waits()
    }

    /// Whether this node's routes avoid another.
    #[must_use]
    pub fn bans(&self, node: &NodeId) -> bool {
        self.outlook.banned().contains(node)
    }

    /// How every known node stands in the present hour.
    #[must_use]
    pub fn standings(&self, now: Time) -> BTreeMap<NodeId, Standing> {
        self.outlook.standings(now)
    }

    /// What this node's loops and links say of another.
    #[must_use]
    pub fn health(&self, node: &NodeId, now: Time) -> PeerHealth {
        self.health.of(node, now)
    }

    /// Whether a node uses the same list as this one, by what it last said.
    #[must_use]
    pub fn agreement(&self, node: &NodeId) -> Agreement {
        self.outlook.agreement(node)
    }

    /// The voters whose votes for the present hour are not known, if its list is not.
    #[must_use]
    pub fn missing_voters(&self, now: Time) -> Vec<NodeId> {
        self.outlook.missing_voters(now)
    }

    /// What the operator has to know, the most urgent first.
    #[must_use]
    pub fn alarms(&self, now: Time) -> Vec<Alarm> {
        let rival = self.author.has_rival().then_some(Alarm::Rival);
        // Whoever vouches for it by hand makes good for the invite.
        let is_refused = matches!(self.author.invites.given, GivenInvite::Refused)
            && self.outlook.directory.vouchers_of(&self.node()).next().is_none();
        let refused = is_refused.then_some(Alarm::InviteRefused);
        let needed = self.outlook.voices().needed();
        let waits = Alarm::AwaitsWitnesses { heard: self.catch_up.heard(), needed };
        let waits = self.author.awaits_witnesses().then_some(waits);
        let beyond = self.health.too_many().map(|losing| Alarm::Losing { losing });
        let is_besieged = self.relay.as_ref().is_some_and(|relay| relay.is_besieged(now));
        let besieged = is_besieged.then_some(Alarm::Besieged);
        let silenced = self.ingress.custody.is_suspended().then_some(Alarm::Silenced);
        let own = [self.clock_suspect(), rival, besieged, silenced, refused, waits, beyond];
        let own = own.into_iter().flatten();
        let mut alarms: Vec<_> = self.outlook.alarms(now).chain(own).collect();
        alarms.sort_unstable();
        alarms
    }

    /// Whether no record of others could be used for its date: then it is this clock that is wrong,
    /// whatever peers with a say have told, of which a node without a list may know none.
    fn clock_suspect(&self) -> Option<Alarm> {
        let refused = |why| {
            let count = Count::StatementRefused(NotTaken::Bad(why));
            usize::try_from(self.out.counts.get(count)).unwrap_or(usize::MAX)
        };
        let others = self.outlook.directory.iter().any(|record| record.node() != self.node());
        if others || self.outlook.view().is_some() {
            return None;
        }
        let (later, earlier) = (refused(StatementError::Future), refused(StatementError::Stale));
        match () {
            () if later >= SUSPICIOUS && later > earlier => {
                Some(Alarm::ClockSuspect(Suspicion::Behind))
            }
            () if earlier >= SUSPICIOUS => Some(Alarm::ClockSuspect(Suspicion::Ahead)),
            () => None,
        }
    }

    // Packets.

    /// Takes what came of opening a packet that a previous hop handed over.
    pub fn handle_peeled(&mut self, from: NodeId, peeled: Result<Peeled, Refusal>, now: Time) {
        if let Some(relay) = &mut self.relay {
            let known = |node: &NodeId| self.outlook.directory.knows(node);
            relay.handle_peeled(peeled, from, now, known, &mut self.out);
        }
    }

    /// Replay tags are durable: their packets go on.
    pub fn handle_tags_kept(&mut self, batch: u64, now: Time) {
        if let Some(relay) = &mut self.relay {
            relay.handle_tags_kept(batch, now, &mut self.out);
        }
    }

    /// Replay tags could not be made durable: their packets go no further.
    pub fn handle_tags_lost(&mut self, batch: u64) {
        if let Some(relay) = &mut self.relay {
            relay.handle_tags_lost(batch, &mut self.out);
        }
    }

    /// A packet could not be handed over.
    pub fn handle_send_failed(&mut self, why: Dropped) {
        self.out.count(Count::PacketDropped(why));
    }

    // Mail.

    /// Whether there are enough usable nodes for a route to any exit.
    ///
    /// # Errors
    /// [`Refused`]; mail would be refused for the same reason.
    pub fn check_routes(&self, now: Time) -> Result<(), Refused> {
        let view = self.outlook.sending_view(now)?;
        self.sender.reaches(view, now, |record: &Record| record.exit().is_some())?;
        // That comes last: its operator knows it.
        if self.sender.has_room() { self.ingress.check_open() } else { Err(Refused::Full) }
    }

    /// Whether mail of this many octets would be taken for this recipient.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check_recipient(
        &self,
        recipient: &Mailbox,
        size: Option<u64>,
        now: Time,
    ) -> Result<(), Refused> {
        self.ingress.check_open()?;
        let view = self.outlook.sending_view(now)?;
        let known = &self.outlook.directory;
        ingress::check_recipient(recipient, size, (view, known), &self.sender, now)
    }

    /// Octets of the largest mail that some exit of the view takes, and that the clock carries.
    #[must_use]
    pub fn carries(&self) -> usize {
        let others = |record: &&Arc<Record>| !self.sender.is_own(&record.node());
        let exits = self.view().into_iter().flat_map(|view| view.exits()).filter(others);
        let most = exits.filter_map(|record| record.exit()).map(|policy| policy.max_message).max();
        // Without a view nothing is taken, whatever its size.
        let most = most.map_or(MAX_MESSAGE, |most| {
            usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(ingress::REBUILT_OCTETS)
        });
        // SIZE 0 would say that there is no limit (RFC 1870, 4).
        most.min(MAX_MESSAGE).min(self.sender.carries()).max(1)
    }

    /// Begins to take a message, or learns why it cannot be carried; it is answered by
    /// [`Command::Answer`].
    pub fn handle_submission(
        &mut self,
        id: SubmissionId,
        cut: Result<Cut, Refused>,
        now: Time,
        rng: &mut impl CryptoRng,
    ) {
        let view = self.outlook.sending_view(now).map(AsRef::as_ref);
        let owner = owner(self.relay.as_ref(), &self.outlook);
        let fate = Fate::of(&cut);
        let may = self.ingress.check_open().and_then(|()| self.ingress.check_room(id));
        let planned = may.and_then(|()| {
            let parts = (&mut self.sender, &mut self.ingress.custody);
            let known = (view, &self.outlook.directory);
            ingress::plan((cut, fate), known, owner, parts, now, rng)
        });
        for of in self.sender.take_displaced() {
            self.ingress.custody.handle_left(of, &mut self.out);
        }
        self.ingress.handle_planned(id, fate, planned, &mut self.out);
    }

    /// Takes what came of [`Command::Seal`].
    pub fn handle_sealed(
        &mut self,
        id: SubmissionId,
        sealed: Result<SealedMessage, SealingFailed>,
        now: Time,
        rng: &mut impl CryptoRng,
    ) {
        let clock = (now, rng);
        self.ingress.handle_sealed(id, sealed, &mut self.sender, clock, &mut self.out);
    }

    /// For how many recipients a message is what that this node has answered for; `None` if it knows nothing
    /// of it.
    #[must_use]
    pub fn message(&self, id: &QueueId) -> Option<Vec<(MessageState, u8)>> {
        self.ingress.custody.states(&MessageName::of(id))
    }

    /// Whether what is in its custody waits because no loop of its own returns.
    #[must_use]
    pub fn is_silenced(&self) -> bool {
        self.ingress.custody.is_suspended()
    }

    /// The messages in its custody, the oldest first.
    #[must_use]
    pub fn queue(&self) -> Vec<QueueEntry> {
        self.ingress.custody.queue()
    }

    /// Takes what came of [`Command::SealCover`].
    pub fn handle_cover_sealed(&mut self, sealed: Result<SealedMessage, SealingFailed>) {
        self.sender.handle_cover_sealed(sealed);
    }

    /// Takes what came of [`Command::Submit`]: whether the other node took it.
    pub fn handle_decoy_submitted(&mut self, end: DecoyEnd) {
        self.out.count(match end {
            DecoyEnd::Taken => Count::DecoySubmitted,
            DecoyEnd::NotTaken => Count::DecoyNotTaken,
        });
    }

    /// Takes what came of an attempt to deliver.
    pub fn handle_delivery(
        &mut self,
        id: DeliveryId,
        outcome: DeliveryOutcome,
        now: Time,
        rng: &mut impl CryptoRng,
    ) {
        if let Some(exit) = &mut self.exit {
            let hour = self.outlook.schedule().hour_at(now);
            exit.handle_delivery(id, outcome, (now, hour), rng, &mut self.out);
        }
        self.answer(now, rng);
    }

    /// The next server takes nothing from this node until its operator has changed something: the
    /// next record says that it delivers nothing. What is here for delivery waits.
    pub fn handle_exit_barred(&mut self, now: Time) {
        if let Some(exit) = &mut self.exit {
            exit.bar();
        }
        self.author.hasten(now);
    }

    /// What the next server takes has changed: the next record says so.
    pub fn handle_exit_changed(&mut self, offer: ExitOffer, now: Time) {
        match &mut self.exit {
            Some(exit) => exit.change(offer),
            None => {
                let room = piece_room(self.outlook.descriptor().parameters());
                self.exit = Some(Exit::new(offer, room, *self.outlook.schedule()));
            }
        }
        self.author.hasten(now);
    }

    // Peers.

    /// Notes that peers can reach this node: its records may be published.
    pub fn handle_reachable(&mut self) {
        self.author.set_reach(Reach::Reachable);
    }

    /// Notes that peers cannot reach this node any more: it publishes no record until they can.
    pub fn handle_unreachable(&mut self) {
        self.author.set_reach(Reach::Unreachable);
    }

    /// Links to these peers have come up together: none is asked first for its key.
    pub fn handle_peers_up(&mut self, peers: &[NodeId], now: Time, rng: &mut impl CryptoRng) {
        for peer in peers {
            if self.health.handle_up(peer, now) {
                self.sender.avoid(self.health.shunned());
            }
            operator::show_invite(*peer, &mut self.hearing(now, rng));
        }
        self.catch_up.handle_peers_up(peers, now, rng, &mut self.out);
    }

    /// The last link to a peer is down.
    pub fn handle_peer_down(&mut self, peer: &NodeId) {
        self.health.links.down(peer);
        self.catch_up.handle_peer_down(peer);
    }

    /// Takes a gossiped statement that [`Statement::check`] looked at, and says what is to become
    /// of it.
    pub fn handle_statement(
        &mut self,
        checked: Result<Statement, StatementError>,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Judgement {
        let judgement = self.hearing(now, rng).handle_gossip(checked);
        self.put_list_together(now, rng);
        judgement
    }

    /// Answers a peer that asks for what it lacks; nothing if its question is malformed.
    #[must_use]
    pub fn handle_sync_request(&self, octets: &[u8], now: Time) -> Option<Vec<u8>> {
        self.outlook.directory.answer(octets, now).ok()
    }

    /// Takes a peer's answer to [`Command::Ask`] that [`Answer::check`] looked at.
    pub fn handle_sync_answer(
        &mut self,
        peer: NodeId,
        mut answer: Answer,
        now: Time,
        rng: &mut impl CryptoRng,
    ) {
        if let Answer::Items(items) = &mut answer
            && self.take_items(items, now, rng) == Judgement::Reject
        {
            return self.catch_up.handle_bad(peer, now, rng, &mut self.out);
        }
        if let Answer::Entries(buckets) = &answer {
            for entries in buckets {
                self.outlook.directory.take_bucket(entries);
            }
        }
        self.put_list_together(now, rng);
        let (directory, out) = (&self.outlook.directory, &mut self.out);
        let told = self.catch_up.handle_answer(peer, &answer, directory, now, rng, out);
        let Some(told) = told else { return };
        self.author.note_witness(now);
        if self.outlook.has_a_say(&peer) {
            self.outlook.note_told(peer, told, now);
            self.catch_up.note_witness(peer);
        } else if self.outlook.voices().others == 0 {
            // The only voter of a network without a list has strangers alone to ask what it has
            // published.
            self.catch_up.note_witness(peer);
        }
        self.note_witnesses(now);
    }

    /// Puts the list of the hour together as far as possible, and votes for what has fallen due.
    fn put_list_together(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.outlook.assemble(now, rng, &mut self.out);
        if self.relay.is_some() && self.outlook.shares_the_clock() {
            self.hearing(now, rng).vote();
            // A vote may be the one that makes a majority.
            self.outlook.assemble(now, rng, &mut self.out);
        }
        self.catch_up.set_urgent(self.outlook.directory.lacks_list(), now);
    }

    /// Takes the statements of an answer; rejects all of them for one that no honest peer sends.
    fn take_items(
        &mut self,
        items: &mut Vec<(ItemId, Result<Statement, StatementError>)>,
        now: Time,
        rng: &mut impl CryptoRng,
    ) -> Judgement {
        let mut worst = Judgement::Accept;
        for (name, checked) in items {
            let checked = core::mem::replace(checked, Err(StatementError::Unknown));
            let mut hearing = self.hearing(now, rng);
            let taken = checked.map_err(Rejected::from);
            let taken = taken.and_then(|item| hearing.take(item, Source::CatchUp));
            // A word whose voucher is not known yet is asked for again.
            let waits = matches!(taken, Err(Rejected::Unwanted(Unwanted::Unreached)));
            let is_refused = taken.is_err() && !waits;
            if hearing.judge(taken) == Judgement::Reject {
                worst = Judgement::Reject;
            }
            if is_refused {
                self.catch_up.refuse(*name);
            }
        }
        worst
    }

    fn note_witnesses(&mut self, now: Time) {
        if self.catch_up.has_enough(self.outlook.voices()) {
            self.author.note_witnesses(now);
            self.outlook.directory.note_caught_up();
        }
    }

    /// Takes note that a peer did not answer, or answered with octets that are no answer.
    pub fn handle_sync_failed(&mut self, peer: &NodeId, now: Time, rng: &mut impl CryptoRng) {
        self.catch_up.handle_failed(peer, now, rng, &mut self.out);
    }

    /// A peer shows the token of an invite; it is answered by [`Command::AnswerInvite`].
    pub fn handle_invite_shown(
        &mut self,
        id: QuestionId,
        peer: NodeId,
        token: &[u8],
        now: Time,
        rng: &mut impl CryptoRng,
    ) {
        operator::handle_invite_shown(id, peer, token, &mut self.hearing(now, rng));
    }

    /// A peer answers to the invite that it was shown.
    pub fn handle_invite_answered(
        &mut self,
        peer: NodeId,
        answer: InviteAnswer,
        now: Time,
        rng: &mut impl CryptoRng,
    ) {
        operator::handle_invite_answered(peer, answer, &mut self.hearing(now, rng));
    }

    // Peers without an address.

    /// A peer presents tokens on a stream, [`MAX_TOKENS`](crate::MAX_TOKENS) at most: what comes for
    /// them is handed over there by [`Command::HandOver`].
    pub fn handle_stream_opened(&mut self, stream: StreamId, tokens: &[StreamToken], now: Time) {
        if let Some(relay) = &mut self.relay {
            relay.handle_stream_opened(stream, tokens, now, &mut self.out);
        }
    }

    /// The peer has taken the oldest that its stream was handed.
    pub fn handle_stream_taken(&mut self, stream: StreamId) {
        if let Some(relay) = &mut self.relay {
            relay.handle_stream_taken(stream, &mut self.out);
        }
    }

    /// A stream ended, with what its peer has not taken, the oldest first.
    pub fn handle_stream_ended(&mut self, stream: StreamId, left: Vec<Handed>, now: Time) {
        if let Some(relay) = &mut self.relay {
            relay.handle_stream_ended(stream, left, now, &mut self.out);
        }
    }

    // The operator.

    /// Carries out an order, or begins to; it is answered by [`Command::Reply`].
    pub fn handle_order(
        &mut self,
        id: OrderId,
        order: OperatorOrder,
        now: Time,
        rng: &mut impl CryptoRng,
    ) {
        if let OperatorOrder::Leave(limit) = order {
            self.leave(limit, now);
        } else if order == OperatorOrder::Stay {
            self.ingress.leaving = None;
            self.author.set_leaving(false, now);
        }
        let leaving = self.ingress.leaving.filter(|leaving| !leaving.is_over);
        let (operator, mut hearing) = self.operator_and_hearing(now, rng);
        operator.handle_order(id, (order, leaving), &mut hearing);
    }

    fn leave(&mut self, limit: Option<Duration>, now: Time) {
        match (&mut self.ingress.leaving, limit) {
            (Some(leaving), Some(limit)) => leaving.limit(limit, now),
            (Some(_), None) => {}
            (None, limit) => {
                let most = self.reach() + self.schedule().hour() * LISTS_HOURS;
                self.ingress.leaving = Some(Leaving::begin(limit.unwrap_or(most), now));
            }
        }
        self.author.set_leaving(true, now);
        self.look_at_leaving(now);
    }

    /// How far this node has got with leaving, if it is.
    #[must_use]
    pub fn leaving(&self) -> Option<Leaving> {
        self.ingress.leaving
    }

    /// How far ahead others plan with a node: as long as mail is tried, and a route takes.
    fn reach(&self) -> Duration {
        self.descriptor().parameters().custody.horizon + self.schedule().hour() * ROUTE_HOURS
    }

    fn look_at_leaving(&mut self, now: Time) {
        if self.ingress.leaving.is_none() {
            return;
        }
        // Nodes whose list is too short for routes keep the view that they had, as this one does.
        let is_listed = self.view().is_some_and(|view| view.get(&self.node()).is_some());
        // What others hand to it after they cannot have planned that any more keeps it no longer.
        let delivering = self.exit.as_ref().map_or(0, Exit::held);
        let holds = delivering + self.ingress.custody.len() > 0;
        let (reach, schedule) = (self.reach(), *self.schedule());
        let Some(leaving) = &mut self.ingress.leaving else { return };
        if leaving.look((is_listed, holds), reach, &schedule, now) {
            let kept = Some(*leaving).filter(|leaving| !leaving.is_over);
            let id = self.out.keep_id();
            self.out.push(Command::KeepLeaving(id, kept));
        }
    }

    /// Notes that what was to be kept under this name is on the disk.
    pub fn handle_kept(&mut self, id: KeepId, now: Time, rng: &mut impl CryptoRng) {
        if let Some(pending) = self.ingress.custody.take_pending(id) {
            let parts = (&mut self.sender, &mut self.replies, &mut self.ingress.custody);
            return ingress::handle_kept(pending, parts, now, &mut self.out);
        }
        let (operator, mut hearing) = self.operator_and_hearing(now, rng);
        operator.handle_kept(id, &mut hearing);
        if hearing.handle_kept(id) {
            // The record waited for the last of its keys.
            self.publish_if_due(now, rng);
            self.put_list_together(now, rng);
        }
    }

    /// Notes that what was to be kept under this name could not be kept. What may be on the disk
    /// all the same is neither stated nor announced.
    pub fn handle_keep_failed(&mut self, id: KeepId, now: Time, rng: &mut impl CryptoRng) {
        if let Some(pending) = self.ingress.custody.take_pending(id) {
            return ingress::not_kept(pending, Refused::Full, &mut self.sender, &mut self.out);
        }
        let (operator, mut hearing) = self.operator_and_hearing(now, rng);
        operator.handle_keep_failed(id, &mut hearing);
        hearing.handle_keep_failed(id);
    }

    // Time.

    /// When [`Remailer::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let next_hour = self.outlook.next_hour();
        let dues = [
            self.relay.as_ref().and_then(Relay::poll_timeout),
            self.sender.poll_timeout(),
            self.replies.poll_timeout(),
            self.ingress.custody.poll_timeout(),
            self.ingress.leaving.as_ref().and_then(Leaving::poll_timeout),
            self.exit.as_ref().and_then(Exit::poll_timeout),
            self.outlook.destroys_at(self.oldest_key()),
            self.publishes_at(),
            self.votes_at(),
            Some(self.catch_up.poll_timeout()),
            Some(self.health.poll_timeout()),
        ];
        dues.into_iter().flatten().min().map_or(next_hour, |due| due.min(next_hour))
    }

    /// Notes that the clock jumped, and is `now` at this. Nothing fires in a burst for it: what waits
    /// goes on waiting for as long as it had to, the hour begins that it is by now, and peers are
    /// asked for their time.
    pub fn handle_clock_jump(&mut self, jump: ClockJump, now: Time, rng: &mut impl CryptoRng) {
        if let Some(relay) = &mut self.relay {
            relay.handle_clock_jump(jump.millis, now, &mut self.out);
        }
        self.sender.handle_clock_jump(jump.millis);
        self.replies.handle_clock_jump(jump.millis);
        self.ingress.custody.shift(jump.millis);
        if let Some(leaving) = &mut self.ingress.leaving {
            leaving.shift(jump.millis);
        }
        self.health.handle_clock_jump(jump.millis);
        if let Some(exit) = &mut self.exit {
            exit.handle_clock_jump(jump.millis);
        }
        self.author.handle_clock_jump(jump.millis);
        self.outlook.handle_clock_jump(jump, now);
        self.catch_up.handle_clock_jump(now);
        self.out.count(Count::ClockJumped);
        self.handle_timeout(now, rng);
    }

    /// Does what has fallen due by `now`, in this order:
    ///
    /// 1. the clock is compared with the peers', and what is past is destroyed
    /// 2. the node's own record is published
    /// 3. an hour begins: its list is put together, and votes that are due are signed
    /// 4. peers are asked for what they have
    /// 5. packets leave the mix, and messages that ended here begin to be delivered
    /// 6. the node's own packets leave, and cover is made for its next ticks; a decoy is submitted
    /// 7. deliveries are tried again
    /// 8. answers that cannot come any more are given up, and with the last of them a message
    /// 9. what became of loops is looked at
    /// 10. a node that leaves looks whether anything keeps it
    pub fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.outlook.note_clocks(now);
        self.forget_past(now);
        self.publish_if_due(now, rng);
        if self.outlook.next_hour() <= now {
            self.catch_up.turn_hour();
            self.outlook.begin_hour(now, &mut self.out);
        }
        self.put_list_together(now, rng);
        let schedule = *self.schedule();
        self.catch_up.handle_timeout(&self.health.links, &schedule, now, rng, &mut self.out);
        self.relay_packets(now, rng);
        let is_covered = self.cover(now, rng);
        let leaves = is_covered && !self.ingress.custody.is_suspended();
        let parts = (&mut self.replies, &mut self.ingress.custody);
        let leaving = self.sender.handle_timeout(leaves, now, parts, rng, &mut self.out);
        self.send(leaving, now);
        if let Some(exit) = &mut self.exit {
            exit.handle_timeout(now, &mut self.out);
        }
        self.replies.handle_timeout(now, &mut self.out);
        self.hear(now);
        self.look_at_health(now);
        self.look_at_leaving(now);
    }

    /// Takes what exits have said of messages in custody, and ends those of which nothing more is heard.
    fn hear(&mut self, now: Time) {
        for word in self.replies.take_words() {
            let cancelled = self.ingress.custody.handle_word(&word, now, &mut self.out);
            self.cancel(&cancelled, now);
        }
        let forgotten = now.minus(self.schedule().hour() * ENDED_HOURS);
        let cancelled = self.ingress.custody.handle_timeout(now, forgotten, &mut self.out);
        self.cancel(&cancelled, now);
    }

    fn cancel(&mut self, cancelled: &Cancelled, now: Time) {
        self.sender.cancel(&cancelled.packets, now);
        for part in &cancelled.parts {
            self.replies.forget_part(*part);
        }
    }

    /// Routes avoid the nodes that lose packets.
    fn look_at_health(&mut self, now: Time) {
        for walked in self.replies.take_walked() {
            self.ingress.custody.note_loop(walked.took.is_some());
            self.health.note(walked, now);
        }
        if self.health.poll_timeout() > now {
            return;
        }
        let own = self.node();
        let view = self.outlook.view();
        let nodes = view.into_iter().flat_map(|view| view.iter()).map(|record| record.node());
        let listed: BTreeSet<_> = nodes.filter(|node| *node != own).collect();
        // In a larger network those that the graph of links says; a node outside it wants some of all.
        let wanted = match view.map(|view| (view.links_of(&own), view.is_complete())) {
            Some((Some(links), _)) => {
                links.into_iter().filter(|node| listed.contains(node)).collect()
            }
            Some((None, true)) => listed.clone(),
            Some((None, false)) | None => BTreeSet::new(),
        };
        let kept = self.health.look(&listed, &wanted, now);
        self.out.extend(kept.map(Command::KeepHealth));
        self.sender.avoid(self.health.shunned());
        if let Some(relay) = &mut self.relay {
            let loops = self.out.counts.get(Count::LoopReturned);
            relay.look(loops, self.health.has_outage(now), now);
        }
    }

    /// This node's own packets leave, beside those of others or with them.
    fn send(&mut self, leaving: Vec<Sends>, now: Time) {
        let own = self.node();
        for Sends { to, packet, until, is_extra } in leaving {
            match self.relay.as_mut().filter(|relay| relay.takes_own() && !is_extra) {
                Some(relay) => {
                    if let Err(NoRoom) = relay.hold_answer((to, packet), own, now) {
                        self.out.count(Count::PacketDropped(Dropped::PoolFull));
                    }
                }
                None => self.out.push(Command::Send { to, packet, until }),
            }
        }
    }

    /// The next thing to do, in the order in which it must be done.
    pub fn next_command(&mut self) -> Option<Command> {
        self.out.next()
    }

    fn publish_if_due(&mut self, now: Time, rng: &mut impl CryptoRng) {
        if self.publishes_at().is_some_and(|at| at <= now) {
            let offer = self.exit.as_ref().and_then(Exit::published).cloned();
            let carried = self.carried(now, rng);
            self.hearing(now, rng).publish(offer.as_ref(), carried);
        }
    }

    /// What the record says of what this node has carried.
    fn carried(&mut self, now: Time, rng: &mut impl CryptoRng) -> Carried {
        let packets = self.relay.as_ref().map(|relay| relay.traffic(now)).unwrap_or_default();
        let hour = self.schedule().hour_at(now);
        let delivered = self.exit.as_mut().map_or(0, |exit| exit.delivered(hour));
        Carried {
            packets: packets.map(|count| blurred(count, rng)),
            delivered: blurred(delivered, rng),
        }
    }

    /// A clock that no peer shares must not date anything.
    fn publishes_at(&self) -> Option<Time> {
        self.author.next().filter(|_| self.relay.is_some() && self.outlook.shares_the_clock())
    }

    /// When this node votes next, if it may.
    fn votes_at(&self) -> Option<Time> {
        let may = self.relay.is_some() && self.outlook.shares_the_clock();
        let next = self.author.next_vote().filter(|_| may)?;
        let directory = &self.outlook.directory;
        let coming = self.schedule().hour_at(self.outlook.next_hour());
        directory.is_voter(&self.node()).then(|| directory.votes_at(next.max(coming)))
    }

    /// Has cover made for the ticks that come soon and for batches that are too small; whether there are
    /// routes for it.
    fn cover(&mut self, now: Time, rng: &mut impl CryptoRng) -> bool {
        if let Some(relay) = &mut self.relay {
            // Rounds of a fixed number have no room for dummies that come back: each takes that of others.
            let way = if relay.takes_own() { Way::OneWay } else { Way::Returning };
            for top_up in relay.take_top_ups(&mut self.out) {
                self.sender.top_up(top_up, way);
            }
        }
        let carries = self.carries();
        let view = self.outlook.sending_view(now).ok().map(AsRef::as_ref);
        if let Some(view) = view {
            let has_changed = self.sender.keep_pace(view, now, rng);
            if let Some(relay) = self.relay.as_mut().filter(|_| has_changed) {
                relay.set_rounds(self.sender.rounds());
            }
        }
        let from = view.map(|view| (view, owner(self.relay.as_ref(), &self.outlook)));
        self.sender.cover(from, now, rng, &mut self.out);
        self.sender.submit_decoy(view, carries, now, rng, &mut self.out);
        from.is_some()
    }

    fn relay_packets(&mut self, now: Time, rng: &mut impl CryptoRng) {
        // By then all pieces of an honest sender have come.
        let pieces_until = now.plus(self.reach());
        let Some(relay) = &mut self.relay else { return };
        relay.handle_timeout(now, rng, &mut self.out);
        let known = |node: &NodeId| self.outlook.directory.knows(node);
        while let Some(arrival) = relay.next_arrival(now, known, &mut self.out) {
            match (arrival, &mut self.exit) {
                (Arrival::Mail(payload), _) if ContentType::is_turning_point(&payload) => {
                    self.out.count(Count::LoopTurned);
                    if let Err(why) = self.answers.turn(&payload) {
                        self.out.count(Count::NotAnswered(why));
                    }
                }
                (Arrival::Mail(payload), Some(exit)) => {
                    exit.handle_payload(&payload, (now, pieces_until), &mut self.out);
                }
                (Arrival::Mail(_), None) => {
                    self.out.count(Count::MessageDropped(NotDelivered::NotAnExit));
                }
                (Arrival::Reply(name, payload), _) => {
                    self.replies.handle_reply(name, payload, now, &mut self.out);
                }
            }
        }
        self.answer(now, rng);
    }

    /// Answers for what the exit knows the end of, and turns loops.
    fn answer(&mut self, now: Time, rng: &mut impl CryptoRng) {
        let acknowledged = self.exit.as_mut().map(Exit::take_answers).unwrap_or_default();
        let acknowledged =
            acknowledged.into_iter().map(|(block, said)| (block, Reply::Became(said)));
        // Of several blocks that came with one message one says what became of it. The others turn like
        // loops: what leaves for an answer gets one.
        let spare = self.exit.as_mut().map(Exit::take_spare).unwrap_or_default();
        let turned = self.answers.take_turned().into_iter().chain(spare);
        let turned = turned.map(|block| (block, Reply::Turned));
        let answers: Vec<_> = acknowledged.chain(turned).collect();
        let (schedule, own) = (*self.schedule(), self.node());
        let mean = self.descriptor().parameters().mixing.mean_delay;
        let most = self.descriptor().parameters().mixing.max_delay;
        for (block, reply) in answers {
            let Some(relay) = &mut self.relay else { return };
            let known = |node: &NodeId| *node != own && self.outlook.directory.knows(node);
            let made = self.answers.answer(block, &reply, &schedule, now, known);
            let held = made.and_then(|answer| {
                let due = now.plus(exponential(mean, rng).min(most));
                let whose = if reply == Reply::Turned { OF_LOOPS } else { own };
                relay.hold_answer(answer, whose, due).map_err(|NoRoom| NotAnswered::NoRoom)
            });
            self.out.count(match held {
                Ok(()) => Count::AnswerSent,
                Err(why) => Count::NotAnswered(why),
            });
        }
    }

    fn forget_past(&mut self, now: Time) {
        let Some(past) = self.outlook.forget_past(now) else { return };
        let had_keys = self.relay.as_mut().is_some_and(|relay| relay.forget_before(past.oldest));
        if had_keys || past.lapsed.is_some() {
            self.out.push(Command::ForgetSeeds(past.oldest));
        }
        // A walk over all that is known, which is not for every packet that leaves.
        let expires = had_keys || past.lapsed.is_some() || self.outlook.next_hour() <= now;
        if let Some(lapsed) = past.lapsed {
            self.out.push(Command::ForgetStatements(lapsed));
        }
        if let Some(relay) = &mut self.relay {
            relay.offer_keys(now, &mut self.out);
        }
        self.author.forget_before(past.oldest);
        if expires {
            self.outlook.expire(now, &mut self.out);
        }
    }

    fn hearing<'a, R>(&'a mut self, now: Time, rng: &'a mut R) -> Hearing<'a, R> {
        self.operator_and_hearing(now, rng).1
    }

    fn operator_and_hearing<'a, R>(
        &'a mut self,
        now: Time,
        rng: &'a mut R,
    ) -> (&'a mut Operator, Hearing<'a, R>) {
        let hearing = Hearing {
            outlook: &mut self.outlook,
            author: &mut self.author,
            relay: self.relay.as_mut(),
            out: &mut self.out,
            now,
            rng,
        };
        (&mut self.operator, hearing)
    }
}

/// The record that the answers to this node's own packets are sealed for. A client has no key for them.
fn owner<'a>(relay: Option<&Relay>, outlook: &'a Outlook) -> Option<&'a Arc<Record>> {
    let own = relay.and(outlook.directory.newest(&outlook.node()));
    own.filter(|_| outlook.shares_the_clock())
}

//! Reconciliation with peers: which to ask and when, what comes of it, and what waits for it.
//!
//! ```text
//! a peer is linked --.
//! now and then ------+-> to ask -> Command::Ask -> answer -> ... -> done: the peer is a witness
//! ```

use std::collections::BTreeSet;

use directory::{Answer, Directory, ItemId, Reconciliation, Step, Told};
use keys::{NodeId, Schedule, Time};
use rand::seq::SliceRandom as _;
use rand::{CryptoRng, RngExt as _};

use crate::command::{Command, Out};
use crate::links::Links;

/// Peers that a node with a past asks for its own newest record before it publishes.
pub(crate) const WITNESSES: usize = 3;
/// How long after a round the next one is while something is wanted of the coming list, as a part
/// of an hour: a minute.
const URGENT: u32 = 60;
/// Peers drawn at each round.
const ASKED: usize = 3;

/// Which peers are asked for what they have.
pub(crate) struct CatchUp {
    reconciliation: Reconciliation,
    /// Linked peers that have not been asked yet. A part of the links, which are bounded.
    to_ask: BTreeSet<NodeId>,
    /// When the next peers are drawn.
    next_round: Time,
    /// Peers with a say that have told all that they have; no more than are waited for.
    witnesses: BTreeSet<NodeId>,
    /// Whether entries or records of the coming list are wanted.
    is_urgent: bool,
}

impl CatchUp {
    pub(crate) fn new(schedule: &Schedule, now: Time) -> Self {
        Self {
            reconciliation: Reconciliation::default(),
            to_ask: BTreeSet::new(),
            next_round: now.plus(schedule.hour() / 4),
            witnesses: BTreeSet::new(),
            is_urgent: false,
        }
    }

    /// Notes whether entries or records of the coming list are wanted: while they are, peers are
    /// asked at once and every minute.
    pub(crate) fn set_urgent(&mut self, is_urgent: bool, now: Time) {
        if is_urgent && !self.is_urgent {
            self.next_round = now;
        }
        self.is_urgent = is_urgent;
    }

    /// Asks a peer that has just been linked for what it has.
    pub(crate) fn handle_peers_up(
        &mut self,
        peers: &[NodeId],
        now: Time,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        self.to_ask.extend(peers);
        self.ask_next(now, rng, out);
    }

    pub(crate) fn handle_peer_down(&mut self, peer: &NodeId) {
        self.to_ask.remove(peer);
    }

    pub(crate) fn poll_timeout(&self) -> Time {
        self.next_round
    }

    /// The clock jumped: conversations cannot tell any more how long they have lasted, and peers are
    /// asked anew, for their time as well.
    pub(crate) fn handle_clock_jump(&mut self, now: Time) {
        self.reconciliation = Reconciliation::default();
        self.next_round = now;
    }

    /// Now and then asks some of the linked peers.
    pub(crate) fn handle_timeout(
        &mut self,
        links: &Links,
        schedule: &Schedule,
        now: Time,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        if self.next_round <= now {
            let gap = match self.is_urgent {
                true => schedule.hour() / URGENT,
                false => schedule.hour().mul_f64(rng.random_range(0.05..0.15)),
            };
            self.next_round = now.plus(gap);
            self.to_ask.extend(links.draw(ASKED, rng));
            self.ask_next(now, rng, out);
        }
    }

    /// Asks as many peers as is allowed at once, in an order that does not follow from their keys.
    fn ask_next(&mut self, now: Time, rng: &mut impl CryptoRng, out: &mut Out) {
        let mut peers: Vec<_> = self.to_ask.iter().copied().collect();
        peers.shuffle(rng);
        for peer in peers {
            if !self.reconciliation.is_asking(&peer, now) {
                let Some(request) = self.reconciliation.begin(peer, now) else { return };
                out.push(Command::Ask(peer, request));
            }
            self.to_ask.remove(&peer);
        }
    }

    /// Notes that a peer's statement was not taken in: it is not asked for again in this hour.
    pub(crate) fn refuse(&mut self, name: ItemId) {
        self.reconciliation.refuse(name);
    }

    /// Lets refused statements be asked for again: another hour may take them.
    pub(crate) fn turn_hour(&mut self) {
        self.reconciliation.turn_hour();
    }

    /// Takes an answer whose statements have been taken in or refused already. Returns what the
    /// peer told of itself, when it has told all.
    pub(crate) fn handle_answer(
        &mut self,
        peer: NodeId,
        answer: &Answer,
        directory: &Directory,
        now: Time,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) -> Option<Told> {
        match self.reconciliation.handle_answer(&peer, answer, directory, now) {
            Step::Ask(request) => {
                out.push(Command::Ask(peer, request));
                None
            }
            Step::Done(told) => {
                self.ask_next(now, rng, out);
                Some(told)
            }
            Step::Late => {
                self.ask_next(now, rng, out);
                None
            }
            Step::Bad => {
                self.handle_bad(peer, now, rng, out);
                None
            }
        }
    }

    /// A peer broke the protocol.
    pub(crate) fn handle_bad(
        &mut self,
        peer: NodeId,
        now: Time,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        self.reconciliation.fail(&peer);
        out.push(Command::HangUp(peer));
        self.ask_next(now, rng, out);
    }

    /// A peer that was asked does not answer.
    pub(crate) fn handle_failed(
        &mut self,
        peer: &NodeId,
        now: Time,
        rng: &mut impl CryptoRng,
        out: &mut Out,
    ) {
        self.reconciliation.fail(peer);
        self.ask_next(now, rng, out);
    }

    /// A peer with a say has told all that it has.
    pub(crate) fn note_witness(&mut self, peer: NodeId) {
        if self.witnesses.len() < WITNESSES {
            self.witnesses.insert(peer);
        }
    }

    /// Whether as many as are waited for have told all that they have.
    pub(crate) fn has_enough(&self, voices: Voices) -> bool {
        self.witnesses.len() >= voices.needed()
    }

    /// Those that have told all that they have.
    pub(crate) fn heard(&self) -> usize {
        self.witnesses.len()
    }
}

/// Who has a say, by what a node knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voices {
    /// Others that have.
    pub(crate) others: usize,
    /// Whether there is a list; a node without one may have forgotten who has.
    pub(crate) has_list: bool,
}

impl Voices {
    /// How many witnesses are waited for: three, or in a small network all but one, so that a node
    /// that is gone for good does not silence those that start again.
    pub(crate) fn needed(self) -> usize {
        match self.others {
            0 => usize::from(!self.has_list),
            1 => 1,
            2.. => (self.others - 1).min(WITNESSES),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use directory::Request;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;
    use record::{Admission, Parameters};

    use super::*;

    fn directory() -> Directory {
        let maker = keys::Identity::from_seed(&[1; 32]);
        let (voters, parameters) = ([maker.node()], Parameters::main());
        let at = Time::default();
        let rule = Admission::Open;
        let made = record::Descriptor::create(&maker, "n", at, &parameters, &voters, &rule);
        Directory::new(&made.unwrap())
    }

    fn peer(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn asked(out: &mut Out) -> Vec<NodeId> {
        let commands = core::iter::from_fn(|| out.next());
        let asked = commands.map(|command| {
            let Command::Ask(peer, Request::Summary) = command else { panic!("{command:?}") };
            peer
        });
        asked.collect()
    }

    #[test]
    fn each_peer_is_asked_once_and_four_at_a_time() {
        let schedule = Parameters::main().schedule();
        let directory = directory();
        let (now, mut out) = (Time::from_millis(1_000_000_000_000), Out::default());
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut catch_up = CatchUp::new(&schedule, now);
        for number in 0..10 {
            catch_up.handle_peers_up(&[peer(number)], now, &mut rng, &mut out);
        }
        let first = asked(&mut out);
        assert_eq!(first.len(), 4);
        // The next peer takes the place of one that fails, and of one that has told all.
        catch_up.handle_failed(&first[0], now, &mut rng, &mut out);
        let next = asked(&mut out);
        assert_eq!(next.len(), 1);
        let octets = directory.answer(&Request::Summary.encode().unwrap(), now);
        let network = keys::NetworkId::from_bytes([1; 32]);
        let summary = Answer::check(&octets.unwrap(), &network).unwrap();
        let done = catch_up.handle_answer(next[0], &summary, &directory, now, &mut rng, &mut out);
        assert!(done.is_some(), "two empty directories have nothing to tell each other");
        let after = asked(&mut out);
        assert_eq!(after.len(), 1);
        for gone in 0..10 {
            catch_up.handle_peer_down(&peer(gone));
        }
        for node in first[1..].iter().chain(&after) {
            catch_up.handle_failed(node, now, &mut rng, &mut out);
        }
        assert!(asked(&mut out).is_empty(), "a peer that is gone is not asked");
    }

    #[test]
    fn of_peers_that_come_together_none_is_asked_first_for_its_key() {
        let schedule = Parameters::main().schedule();
        let now = Time::from_millis(1_000_000_000_000);
        let peers: Vec<_> = (0..20).map(peer).collect();
        let mut first = BTreeSet::new();
        for seed in 0..50 {
            let (mut out, mut rng) = (Out::default(), ChaCha20Rng::seed_from_u64(seed));
            CatchUp::new(&schedule, now).handle_peers_up(&peers, now, &mut rng, &mut out);
            first.extend(asked(&mut out));
        }
        assert_eq!(first.len(), 20, "each is among the first four in some draw");
    }

    #[test]
    fn rounds_come_every_few_minutes_and_ask_linked_peers() {
        let schedule = Parameters::main().schedule();
        let start = Time::from_millis(1_000_000_000_000);
        let (mut out, mut rng) = (Out::default(), ChaCha20Rng::seed_from_u64(2));
        let mut catch_up = CatchUp::new(&schedule, start);
        let mut links = Links::default();
        for number in 0..20 {
            links.up(peer(number));
        }
        let mut now = start;
        for _ in 0..20 {
            let next = catch_up.poll_timeout();
            let gap = next.since(now);
            assert!(gap >= Duration::from_secs(180) && gap <= Duration::from_secs(900));
            now = next;
            catch_up.handle_timeout(&links, &schedule, now, &mut rng, &mut out);
            assert_eq!(asked(&mut out).len(), ASKED);
        }
    }

    #[test]
    fn witnesses_are_all_but_one_and_at_most_three() {
        let schedule = Parameters::main().schedule();
        let start = Time::from_millis(0);
        let enough = |others, has_list| {
            let mut catch_up = CatchUp::new(&schedule, start);
            let mut count = 0;
            while !catch_up.has_enough(Voices { others, has_list }) {
                for _ in 0..2 {
                    catch_up.note_witness(peer(count));
                }
                count += 1;
            }
            assert_eq!(catch_up.heard(), usize::from(count));
            count
        };
        for (others, needed) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3), (1000, 3)] {
            assert_eq!([enough(others, true), enough(others, false)], [needed; 2], "of {others}");
        }
        assert_eq!((enough(0, true), enough(0, false)), (0, 1), "somebody may know of a list");
    }

    #[test]
    fn what_the_coming_list_lacks_is_asked_for_at_once_and_every_minute() {
        let schedule = Parameters::main().schedule();
        let now = Time::from_millis(1_000_000_000_000);
        let (mut out, mut rng) = (Out::default(), ChaCha20Rng::seed_from_u64(2));
        let mut catch_up = CatchUp::new(&schedule, now);
        catch_up.set_urgent(true, now);
        assert_eq!(catch_up.poll_timeout(), now);
        catch_up.handle_timeout(&Links::default(), &schedule, now, &mut rng, &mut out);
        let minute = Duration::from_secs(60);
        catch_up.set_urgent(true, now);
        assert_eq!(catch_up.poll_timeout(), now.plus(minute));
        catch_up.set_urgent(false, now);
        catch_up.handle_timeout(&Links::default(), &schedule, now.plus(minute), &mut rng, &mut out);
        assert!(catch_up.poll_timeout() > now.plus(minute * 2));
    }
}

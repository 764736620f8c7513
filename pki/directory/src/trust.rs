//! Which nodes vouch for which, and which nodes that makes routable in the eyes of a voter.
//!
//! An open network needs no vouches. In a vouched one, chains of words begin at the descriptor's
//! roots; the descriptor bounds their length, and for how many others each node in them speaks.

use core::time::Duration;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use keys::{NodeId, Time};
use record::{Admission, StatementHash, Vouch, VouchRole, Word};

use crate::settled::Settled;
use crate::verdict::{Source, Unwanted};

/// Words about one subject by one voucher: the one that the present view needs, and newer ones.
const MAX_WORDS: usize = 8;
/// Words of one pair, or of one voucher in the place of others, that catch-ups may bring in one
/// hour closer to each other than gossip allows.
const MAX_FILLED: u8 = 8;
/// Subjects of one voucher that words are kept about, as a multiple of those that count: some are
/// revoked.
const SUBJECTS: usize = 2;
/// Of how many parts of its room the branch that has most gives up one, when all is taken.
const PARTS: usize = 256;
/// Pairs that words are kept about, shared by the branches that begin with the roots' words: with one word of 200 octets each, as honest nodes have, 4 MB;
/// with as many and as long words as are allowed, 180 MB.
const MAX_PAIRS: usize = 20_000;

/// How chains reach a node in a vouched network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    depth: u8,
    /// What it may be used as: the most that a word which counts says.
    pub(crate) role: VouchRole,
    /// The node that a root vouches for and whose chain reaches this one; of a root itself.
    branch: NodeId,
}

impl Reached {
    fn root(node: NodeId) -> Self {
        Self { depth: 0, role: VouchRole::Exit, branch: node }
    }

    /// How its word reaches another.
    fn reach(&self, subject: NodeId, role: VouchRole) -> Self {
        let branch = if self.is_root() { subject } else { self.branch };
        Self { depth: self.depth.saturating_add(1), role, branch }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.depth == 0
    }
}

/// Whether a word may be kept beside the others of its pair.
fn check(
    words: &[Arc<Vouch>],
    vouch: &Vouch,
    source: Source,
    spacing: Duration,
    is_settled: impl Fn(&Vouch) -> bool,
) -> Result<(), Unwanted> {
    if words.iter().any(|known| known.hash() == vouch.hash()) {
        return Err(Unwanted::Known);
    }
    let Some(last) = words.last() else { return Ok(()) };
    if !vouch.supersedes(last) {
        // A catch-up may bring an older word if this hour's view needs it.
        let mut others = words.iter().filter(|word| is_settled(word));
        let fills_a_gap = is_settled(vouch) && others.all(|word| vouch.supersedes(word));
        let may = source == Source::CatchUp && fills_a_gap;
        return if may { Ok(()) } else { Err(Unwanted::Older) };
    }
    // A vouch may be revoked at once; any other word has to wait its time.
    let is_turn = vouch.word() == Word::Revocation && last.word() == Word::Vouch;
    if !is_turn && vouch.issued_at() < last.issued_at().plus(spacing) {
        return Err(Unwanted::TooSoon);
    }
    Ok(())
}

fn is_settled(late: &BTreeMap<StatementHash, Time>, word: &Vouch, settled: Settled) -> bool {
    settled.counts(word.issued_at(), late.get(&word.hash()))
}

pub(crate) struct Words {
    rule: Option<Rule>,
    /// Pairs that are kept, at most.
    most: usize,
    /// By voucher and subject; ascending by date.
    pairs: BTreeMap<(NodeId, NodeId), Vec<Arc<Vouch>>>,
    /// The nodes that chains of the newest words reach, whatever the words' dates, and those that
    /// such chains reached since the hour began: whose words are taken in.
    known: BTreeMap<NodeId, Reached>,
    /// How many pairs each branch has; those of vouchers that no chain reaches under `None`.
    sizes: BTreeMap<Option<NodeId>, usize>,
    /// How many words catch-ups have brought in this hour, by pair; under a voucher paired with
    /// itself, how many of its words took the place of others.
    filled: BTreeMap<(NodeId, NodeId), u8>,
    /// When catch-ups brought what gossip would have refused as late.
    late: BTreeMap<StatementHash, Time>,
}

struct Rule {
    roots: Vec<NodeId>,
    depth: u8,
    fan_out: usize,
}

impl Words {
    pub(crate) fn new(admission: &Admission) -> Self {
        let rule = match admission {
            Admission::Open => None,
            Admission::Vouched { roots, depth, fan_out } => {
                Some(Rule { roots: roots.clone(), depth: *depth, fan_out: usize::from(*fan_out) })
            }
        };
        let mut words = Self {
            rule,
            most: MAX_PAIRS,
            pairs: BTreeMap::new(),
            known: BTreeMap::new(),
            sizes: BTreeMap::new(),
            filled: BTreeMap::new(),
            late: BTreeMap::new(),
        };
        words.note_known();
        words
    }

    /// Whether vouches decide anything here.
    pub(crate) fn matter(&self) -> bool {
        self.rule.is_some()
    }

    /// Whether a chain of the newest words reaches this node, or did in this hour.
    pub(crate) fn is_known(&self, node: &NodeId) -> bool {
        self.known.contains_key(node)
    }

    /// Whether this node's word counts at present: a chain reaches it that may grow longer.
    pub(crate) fn may_vouch(&self, node: &NodeId) -> bool {
        let Some(rule) = &self.rule else { return false };
        self.reach_by_newest(rule).get(node).is_some_and(|reached| reached.depth < rule.depth)
    }

    /// Takes in a word, and returns those that it makes superfluous.
    pub(crate) fn insert(
        &mut self,
        vouch: &Arc<Vouch>,
        source: Source,
        spacing: Duration,
        settled: Settled,
        late: Option<Time>,
    ) -> Result<Vec<Arc<Vouch>>, Unwanted> {
        let rule = self.rule.as_ref().ok_or(Unwanted::Pointless)?;
        let (voucher, pair) = (vouch.voucher(), (vouch.voucher(), vouch.subject()));
        let reaches = match self.known.get(&voucher) {
            Some(known) if known.depth < rule.depth => known.reach(vouch.subject(), vouch.role()),
            Some(_) | None => return Err(Unwanted::Unreached),
        };
        let fan_out = rule.fan_out;
        let mut gone = Vec::new();
        // Of two words too close together, nodes may have heard either first: a catch-up brings
        // both to all.
        let filled = |of: (NodeId, NodeId)| self.filled.get(&of).copied().unwrap_or_default();
        let is_filling = source == Source::CatchUp;
        if is_filling && filled(pair) >= MAX_FILLED {
            return Err(Unwanted::TooSoon);
        }
        let spacing = if is_filling { Duration::ZERO } else { spacing };
        match self.pairs.get(&pair) {
            Some(words) => {
                let is_settled = |word: &Vouch| is_settled(&self.late, word, settled);
                check(words, vouch, source, spacing, is_settled)?;
            }
            None => {
                let most = fan_out.saturating_mul(SUBJECTS);
                if is_filling && filled((voucher, voucher)) >= MAX_FILLED {
                    return Err(Unwanted::TooSoon);
                }
                let replaced = self.make_room(vouch, reaches.branch, most, spacing)?;
                if is_filling && !replaced.is_empty() {
                    *self.filled.entry((voucher, voucher)).or_default() += 1;
                }
                gone.extend(replaced);
            }
        }
        if is_filling {
            *self.filled.entry(pair).or_default() += 1;
        }
        if let Some(at) = late {
            self.late.insert(vouch.hash(), at);
        }
        let branch = Some(reaches.branch);
        let words = match self.pairs.entry(pair) {
            Entry::Occupied(words) => words.into_mut(),
            Entry::Vacant(place) => {
                *self.sizes.entry(branch).or_default() += 1;
                place.insert(Vec::new())
            }
        };
        let at = words.partition_point(|known| vouch.supersedes(known));
        words.insert(at, Arc::clone(vouch));
        if words.len() > MAX_WORDS {
            let needed = words.iter().rposition(|word| is_settled(&self.late, word, settled));
            gone.push(words.remove(usize::from(needed == Some(0))));
        }
        for word in &gone {
            self.late.remove(&word.hash());
        }
        let subject = vouch.subject();
        if self.counted(&voucher, fan_out).iter().any(|(counted, _)| *counted == subject) {
            self.extend(subject, reaches);
        }
        Ok(gone)
    }

    /// The subjects that count of one voucher by its newest words, and as what.
    fn counted(&self, voucher: &NodeId, fan_out: usize) -> Vec<(NodeId, VouchRole)> {
        let mut said: Vec<_> = self.by_newest(voucher).collect();
        said.sort_unstable_by_key(|word| (word.since(), word.subject()));
        said.truncate(fan_out);
        said.into_iter().map(|word| (word.subject(), word.role())).collect()
    }

    /// Notes that a chain reaches a node, and where others go on from it. Each node's chain only
    /// ever gets shorter within an hour, so that no flood of words makes this walk far.
    fn extend(&mut self, node: NodeId, reached: Reached) {
        let Some((depth, fan_out)) = self.rule.as_ref().map(|rule| (rule.depth, rule.fan_out))
        else {
            return;
        };
        let mut left = vec![(node, reached)];
        while let Some((node, reached)) = left.pop() {
            let before = self.known.get(&node).copied();
            if before.is_some_and(|known| known.depth <= reached.depth) {
                continue;
            }
            let own = self.by(&node).count();
            self.resize(before.map(|known| known.branch), |size| size.saturating_sub(own));
            self.resize(Some(reached.branch), |size| size + own);
            self.known.insert(node, reached);
            if reached.depth < depth {
                let next = self.counted(&node, fan_out).into_iter();
                left.extend(next.map(|(subject, role)| (subject, reached.reach(subject, role))));
            }
        }
    }

    fn resize(&mut self, branch: Option<NodeId>, change: impl FnOnce(usize) -> usize) {
        let size = change(self.sizes.get(&branch).copied().unwrap_or_default());
        match size {
            0 => self.sizes.remove(&branch),
            _ => self.sizes.insert(branch, size),
        };
    }

    /// The branch that a pair belongs to; `None` if no chain reaches its voucher.
    fn branch_of(&self, (voucher, subject): &(NodeId, NodeId)) -> Option<NodeId> {
        self.known.get(voucher).map(|known| known.reach(*subject, known.role).branch)
    }

    fn drop_pair(&mut self, pair: &(NodeId, NodeId)) -> Vec<Arc<Vouch>> {
        let Some(words) = self.pairs.remove(pair) else { return Vec::new() };
        self.resize(self.branch_of(pair), |size| size.saturating_sub(1));
        words
    }

    /// Makes room for words about another subject: if a voucher has too many, the first by (since,
    /// subject) stay, whichever were heard first.
    fn make_room(
        &mut self,
        vouch: &Vouch,
        branch: NodeId,
        most: usize,
        spacing: Duration,
    ) -> Result<Vec<Arc<Vouch>>, Unwanted> {
        let rank = |word: &Vouch| (word.since(), word.subject());
        let voucher = vouch.voucher();
        let own = self.by(&voucher).filter_map(|words| words.last());
        let (count, last) =
            own.fold((0, None), |(count, last): (usize, Option<&Arc<Vouch>>), word| {
                (count + 1, Some(last.filter(|last| rank(last) > rank(word)).unwrap_or(word)))
            });
        if count < most {
            let is_room = self.pairs.len() < self.most;
            return if is_room { Ok(Vec::new()) } else { self.drop_of_largest(branch) };
        }
        let last = last.filter(|last| rank(last) > rank(vouch)).ok_or(Unwanted::Full)?;
        // Without this, one voucher could have every node pass on ever earlier words.
        let newest = self.by(&voucher).flatten().map(|word| word.issued_at()).max();
        if newest.is_some_and(|newest| vouch.issued_at() < newest.plus(spacing)) {
            return Err(Unwanted::TooSoon);
        }
        let pair = (last.voucher(), last.subject());
        Ok(self.drop_pair(&pair))
    }

    /// Makes room for a pair of this branch when as many are held as may be. First goes what no
    /// chain reaches any more; then the branch that has most gives up the pairs at the ends of its
    /// longest chains, some at once. A branch never loses to one that has nearly as much.
    fn drop_of_largest(&mut self, branch: NodeId) -> Result<Vec<Arc<Vouch>>, Unwanted> {
        let some = (self.most / PARTS).max(1);
        let own = self.sizes.get(&Some(branch)).copied().unwrap_or_default();
        let enough = own.saturating_add(some * 2);
        let larger = self.sizes.iter().filter(|(_, size)| **size >= enough);
        let largest = larger.max_by_key(|(_, size)| **size).map(|(branch, _)| *branch);
        let from = if self.sizes.contains_key(&None) { Some(None) } else { largest };
        let from = from.ok_or(Unwanted::Full)?;
        let theirs = self.pairs.iter().filter(|(pair, _)| self.branch_of(pair) == from);
        let ranked = theirs.map(|((voucher, subject), words)| {
            let depth = self.known.get(voucher).map_or(0, |known| known.depth);
            (depth, words.last().map(|word| word.since()), *subject, *voucher)
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_unstable_by(|one, other| other.cmp(one));
        ranked.truncate(some);
        let ends = ranked.into_iter().map(|(_, _, subject, voucher)| (voucher, subject));
        Ok(ends.flat_map(|pair| self.drop_pair(&pair)).collect())
    }

    /// Removes the words before the newest settled one of each pair.
    pub(crate) fn prune(&mut self, settled: Settled) -> Vec<StatementHash> {
        self.filled.clear();
        let mut gone = Vec::new();
        for words in self.pairs.values_mut() {
            let needed = words.iter().rposition(|word| is_settled(&self.late, word, settled));
            gone.extend(words.drain(..needed.unwrap_or(0)).map(|word| word.hash()));
        }
        self.forget_late(&gone);
        self.note_known();
        gone
    }

    pub(crate) fn expire(&mut self, now: Time) -> Vec<StatementHash> {
        let mut gone = Vec::new();
        self.pairs.retain(|_, words| {
            gone.extend(
                words.extract_if(.., |word| word.expires_at() <= now).map(|word| word.hash()),
            );
            !words.is_empty()
        });
        if !gone.is_empty() {
            self.forget_late(&gone);
            self.note_known();
        }
        gone
    }

    fn forget_late(&mut self, gone: &[StatementHash]) {
        for hash in gone {
            self.late.remove(hash);
        }
    }

    /// Whether a vouch for this node is dated no later than `dated`.
    pub(crate) fn any_before(&self, node: &NodeId, dated: Time) -> bool {
        self.about(node).any(|vouch| vouch.issued_at() <= dated)
    }

    /// The nodes reached by chains of settled words that hold at `taken`; `None` in an
    /// open network. For a node that broke its word, only words said after that count; a root that
    /// did, or that `is_retired`, is none any more.
    pub(crate) fn reached(
        &self,
        settled: Settled,
        taken: Time,
        broke: impl Fn(&NodeId) -> Option<Time>,
        is_retired: impl Fn(&NodeId) -> bool,
    ) -> Option<BTreeMap<NodeId, Reached>> {
        let holds = |words: &[Arc<Vouch>]| {
            let word = words.iter().rev().find(|word| is_settled(&self.late, word, settled))?;
            let is_later = broke(&word.subject()).is_none_or(|dated| word.issued_at() > dated);
            let holds = word.word() == Word::Vouch && word.expires_at() > taken && is_later;
            let counts = holds && word.is_understood() && !is_retired(&word.subject());
            counts.then(|| Arc::clone(word))
        };
        let is_root = |root: &NodeId| broke(root).is_none() && !is_retired(root);
        self.rule.as_ref().map(|rule| self.reach(rule, is_root, holds))
    }

    fn note_known(&mut self) {
        let Some(rule) = &self.rule else { return };
        self.known = self.reach_by_newest(rule);
        self.sizes = BTreeMap::new();
        for pair in self.pairs.keys() {
            *self.sizes.entry(self.branch_of(pair)).or_default() += 1;
        }
    }

    fn reach_by_newest(&self, rule: &Rule) -> BTreeMap<NodeId, Reached> {
        let newest = |words: &[Arc<Vouch>]| {
            words.last().filter(|word| word.word() == Word::Vouch).map(Arc::clone)
        };
        self.reach(rule, |_| true, newest)
    }

    /// Goes level by level from the roots. Of each voucher those subjects count that it says it has
    /// vouched for longest, as many as the network allows.
    fn reach(
        &self,
        rule: &Rule,
        is_root: impl Fn(&NodeId) -> bool,
        holds: impl Fn(&[Arc<Vouch>]) -> Option<Arc<Vouch>>,
    ) -> BTreeMap<NodeId, Reached> {
        let mut by_voucher: BTreeMap<NodeId, Vec<(Time, NodeId, VouchRole)>> = BTreeMap::new();
        for ((voucher, subject), words) in &self.pairs {
            if let Some(vouch) = holds(words) {
                let said = (vouch.since(), *subject, vouch.role());
                by_voucher.entry(*voucher).or_default().push(said);
            }
        }
        let roots = rule.roots.iter().copied().filter(is_root);
        let mut level: Vec<_> = roots.map(|node| (node, Reached::root(node))).collect();
        let mut reached: BTreeMap<_, _> = level.iter().copied().collect();
        for _ in 0..rule.depth {
            let mut next = Vec::new();
            for (voucher, way) in &level {
                let Some(mut subjects) = by_voucher.remove(voucher) else { continue };
                subjects.sort_unstable();
                for (_, subject, role) in subjects.into_iter().take(rule.fan_out) {
                    let known = reached.entry(subject).or_insert_with(|| {
                        let longer = way.reach(subject, role);
                        next.push((subject, longer));
                        longer
                    });
                    // Another voucher's word takes nothing from the node.
                    known.role = known.role.max(role);
                }
            }
            level = next;
        }
        reached
    }

    /// The newest words of one voucher that are vouches, for a node that renews its own.
    pub(crate) fn by_newest(&self, voucher: &NodeId) -> impl Iterator<Item = &Arc<Vouch>> {
        self.by(voucher).filter_map(|words| words.last()).filter(|w| w.word() == Word::Vouch)
    }

    fn by(&self, voucher: &NodeId) -> impl Iterator<Item = &Vec<Arc<Vouch>>> {
        let first = (*voucher, NodeId::from_bytes([0; 32]));
        let last = (*voucher, NodeId::from_bytes([0xff; 32]));
        self.pairs.range(first..=last).map(|(_, words)| words)
    }

    /// The newest words about one subject that are vouches.
    pub(crate) fn about(&self, subject: &NodeId) -> impl Iterator<Item = &Arc<Vouch>> {
        let subject = *subject;
        let about = self.pairs.iter().filter(move |((_, whom), _)| *whom == subject);
        about.filter_map(|(_, words)| words.last()).filter(|word| word.word() == Word::Vouch)
    }
}

#[cfg(test)]
mod tests {
    use keys::{Identity, NetworkId};
    use record::{Statement, VouchDraft};

    use super::*;

    const NETWORK: NetworkId = NetworkId::from_bytes([7; 32]);
    const AT: Time = Time::from_millis(1_782_000_000_000);

    fn identity(number: u32) -> Identity {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Identity::from_seed(&seed)
    }

    fn say(words: &mut Words, voucher: u32, subject: u32) -> Result<Vec<Arc<Vouch>>, Unwanted> {
        let draft = VouchDraft {
            word: Word::Vouch,
            subject: identity(subject).node(),
            role: VouchRole::Exit,
            since: AT.minus(Duration::from_secs(u64::from(10_000 - subject))),
            issued_at: AT,
            expires_at: AT.plus(Duration::from_secs(86_400)),
            extensions: Vec::new(),
        };
        let octets = draft.sign(&identity(voucher), &NETWORK).unwrap();
        let Ok(Statement::Vouch(signed)) = Statement::check(&octets, &NETWORK) else {
            panic!("it is a word")
        };
        let schedule = record::Parameters::main().schedule();
        let vouch = Arc::new(signed.timely(AT, &schedule, 1000).unwrap());
        let settled = Settled { deadline: AT, known_by: AT };
        words.insert(&vouch, Source::Gossip, Duration::ZERO, settled, None)
    }

    #[test]
    fn branches_that_fill_all_room_leave_every_other_its_share() {
        let roots = vec![identity(0).node()];
        let mut words = Words::new(&Admission::Vouched { roots, depth: 3, fan_out: 4 });
        words.most = 60;
        for branch in 1..=4 {
            say(&mut words, 0, branch).unwrap();
        }
        // Three branches speak for as many as anybody lets them.
        for branch in 1..=3 {
            for second in 0..8 {
                let _ = say(&mut words, branch, branch * 100 + second);
            }
            for second in 0..4 {
                for third in 0..8 {
                    let _ =
                        say(&mut words, branch * 100 + second, branch * 1000 + second * 10 + third);
                }
            }
        }
        assert_eq!(words.pairs.len(), 60);
        // The fourth has one word, and says ten more.
        for subject in 0..4 {
            assert!(say(&mut words, 4, 400 + subject).is_ok(), "{subject}");
        }
        for subject in 0..6 {
            assert!(say(&mut words, 400, 4000 + subject).is_ok(), "{subject}");
        }
        assert_eq!(words.pairs.len(), 60);
        for subject in (400..404).chain(4000..4004) {
            assert!(words.is_known(&identity(subject).node()), "{subject}");
        }
        let of = |branch: u32| {
            let branch = identity(branch).node();
            let known = words.known.values().filter(|reached| reached.branch == branch);
            known.count()
        };
        assert!((1..=3).all(|branch| of(branch) >= 4), "the others keep what is nearest the root");
        // Counted one by one, or anew when the hour turns.
        let sizes = words.sizes.clone();
        words.prune(Settled { deadline: AT, known_by: AT });
        assert_eq!(sizes.values().sum::<usize>(), 60);
        assert_eq!(words.sizes.values().sum::<usize>(), 60);
        assert_eq!(words.sizes.get(&Some(identity(4).node())), Some(&11));
    }
}

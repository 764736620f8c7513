//! Which nodes vouch for which, and which nodes that makes routable in the eyes of a voter.
//!
//! An open network needs no vouches. In a vouched one, chains of words begin at the descriptor's
//! roots; the descriptor bounds their length, and for how many others each node in them speaks.

use core::time::Duration;
use std::collections::BTreeMap;
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
/// Pairs that words are kept about: with one word of 200 octets each, as honest nodes have, 4 MB;
/// with as many and as long words as are allowed, 180 MB.
const MAX_PAIRS: usize = 20_000;

/// How chains reach a node in a vouched network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    depth: u8,
    /// What it may be used as: the most that a word which counts says.
    pub(crate) role: VouchRole,
}

impl Reached {
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
    /// By voucher and subject; ascending by date.
    pairs: BTreeMap<(NodeId, NodeId), Vec<Arc<Vouch>>>,
    /// The nodes that chains of the newest words reach, whatever the words' dates.
    known: BTreeMap<NodeId, Reached>,
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
            pairs: BTreeMap::new(),
            known: BTreeMap::new(),
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

    /// Whether a chain of the newest words reaches this node.
    pub(crate) fn is_known(&self, node: &NodeId) -> bool {
        self.known.contains_key(node)
    }

    /// Whether this node's word counts: a chain reaches it that may grow longer.
    pub(crate) fn may_vouch(&self, node: &NodeId) -> bool {
        let known = self.known.get(node).zip(self.rule.as_ref());
        known.is_some_and(|(reached, rule)| reached.depth < rule.depth)
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
        let depth = match self.known.get(&voucher) {
            Some(reached) if reached.depth < rule.depth => reached.depth.saturating_add(1),
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
                let replaced = self.make_room(vouch, most, spacing)?;
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
        let words = self.pairs.entry(pair).or_default();
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
        let is_news = self.known.get(&subject).is_none_or(|known| known.depth > depth);
        let speaks = self.by(&subject).next().is_some();
        if vouch.word() == Word::Vouch && self.by_newest(&voucher).count() <= fan_out && !speaks {
            if is_news {
                self.known.insert(subject, Reached { depth, role: vouch.role() });
            }
        } else {
            self.note_known();
        }
        Ok(gone)
    }

    /// Makes room for words about another subject: if a voucher has too many, the first by (since,
    /// subject) stay, whichever were heard first.
    fn make_room(
        &mut self,
        vouch: &Vouch,
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
            return if self.pairs.len() < MAX_PAIRS { Ok(Vec::new()) } else { Err(Unwanted::Full) };
        }
        let last = last.filter(|last| rank(last) > rank(vouch)).ok_or(Unwanted::Full)?;
        // Without this, one voucher could have every node pass on ever earlier words.
        let newest = self.by(&voucher).flatten().map(|word| word.issued_at()).max();
        if newest.is_some_and(|newest| vouch.issued_at() < newest.plus(spacing)) {
            return Err(Unwanted::TooSoon);
        }
        let pair = (last.voucher(), last.subject());
        Ok(self.pairs.remove(&pair).unwrap_or_default())
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
        let newest = |words: &[Arc<Vouch>]| {
            words.last().filter(|word| word.word() == Word::Vouch).map(Arc::clone)
        };
        self.known = self.reach(rule, |_| true, newest);
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
        let root = Reached { depth: 0, role: VouchRole::Exit };
        let mut level: Vec<_> = rule.roots.iter().copied().filter(is_root).collect();
        let mut reached: BTreeMap<_, _> = level.iter().map(|node| (*node, root)).collect();
        for depth in 1..=rule.depth {
            let mut next = Vec::new();
            for voucher in &level {
                let Some(mut subjects) = by_voucher.remove(voucher) else { continue };
                subjects.sort_unstable();
                for (_, subject, role) in subjects.into_iter().take(rule.fan_out) {
                    let known = reached.entry(subject).or_insert_with(|| {
                        next.push(subject);
                        Reached { depth, role }
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

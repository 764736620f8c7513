//! Which nodes this one is linked to, and which it wants to be.
//!
//! With up to 64 routable nodes, every node keeps a link to every other; in a larger network a link
//! to each of its 16 neighbours in the graph that follows from the list. Beside the links wanted
//! here, the caller that carries the commands out keeps dialling its bootstraps and
//! some nodes that it chose before: which may be dialled again, and when, is known where dials
//! fail.

use std::collections::BTreeSet;

use directory::View;
use keys::NodeId;
use rand::CryptoRng;
use rand::seq::{IteratorRandom as _, SliceRandom as _};

use crate::command::{Command, Out};

/// Links wanted, at most.
pub const MAX_LINKS: usize = directory::COMPLETE;

/// The linked nodes.
#[derive(Default)]
pub(crate) struct Links {
    linked: BTreeSet<NodeId>,
}

impl Links {
    pub(crate) fn up(&mut self, peer: NodeId) {
        self.linked.insert(peer);
    }

    pub(crate) fn down(&mut self, peer: &NodeId) {
        self.linked.remove(peer);
    }

    /// The linked nodes.
    pub(crate) fn linked(&self) -> &BTreeSet<NodeId> {
        &self.linked
    }

    /// Some of the linked nodes, drawn anew each time.
    pub(crate) fn draw(&self, count: usize, rng: &mut impl CryptoRng) -> Vec<NodeId> {
        self.linked.iter().copied().sample(rng, count)
    }
}

/// Wants the links of a view, and those of the view `before` it, over which packets are still under
/// way, as far as both name the node. A node that is in no graph of links wants any: in an order
/// that does not follow from keys, so that no node can choose to be among the first.
pub(crate) fn want(
    view: &View,
    before: Option<&View>,
    own: NodeId,
    rng: &mut impl CryptoRng,
    out: &mut Out,
) {
    let any = || view.iter().map(|record| record.node()).filter(|node| *node != own).collect();
    let mut wanted: Vec<_> = view.links_of(&own).unwrap_or_else(any);
    wanted.shuffle(rng);
    if !view.is_complete() {
        let earlier = before.and_then(|before| before.links_of(&own)).unwrap_or_default();
        let earlier = earlier.into_iter().filter(|node| view.get(node).is_some());
        let earlier: Vec<_> = earlier.filter(|node| !wanted.contains(node)).collect();
        wanted.extend(earlier);
    }
    out.push(Command::Links(wanted));
}

/// Wants a link to a node whose first record has just been taken in, unless a graph of links says
/// who is linked to whom.
pub(crate) fn want_newcomer(node: NodeId, view: Option<&View>, out: &mut Out) {
    if view.is_none_or(View::is_complete) {
        out.push(Command::Link(node));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn a_node_wants_its_neighbours_and_those_that_it_had_and_one_without_any_wants_all() {
        use record::{Admission, Descriptor, Parameters, Statement, testing};
        let parameters = Parameters::main();
        let schedule = parameters.schedule();
        let now = schedule.start(keys::Epoch::new(165_000));
        let maker = keys::Identity::from_seed(&[0; 32]);
        let (voters, rule) = ([maker.node()], Admission::Open);
        let made = Descriptor::create(&maker, "n", now, &parameters, &voters, &rule).unwrap();
        let mut directory = directory::Directory::new(&made);
        for number in 0..70 {
            let identity = keys::Identity::from_seed(&[number; 32]);
            let octets = testing::draft(1, now, &schedule).sign(&identity, &made.id()).unwrap();
            let Statement::Record(signed) = Statement::check(&octets, &made.id()).unwrap() else {
                panic!("a record")
            };
            let record = signed.timely(now, &schedule).unwrap();
            directory.admit(record, directory::Source::Own, now).unwrap();
        }
        let mut view = |hour| {
            let list = directory.propose_first(hour);
            directory.restore_list(list);
            directory.view().unwrap().if_sufficient().unwrap()
        };
        let hour = schedule.hour_at(now);
        let (before, view) = (view(hour), view(hour.plus(1)));
        let own = keys::Identity::from_seed(&[0; 32]).node();
        let stranger = keys::Identity::from_seed(&[99; 32]).node();
        let (mut rng, mut out) = (ChaCha20Rng::seed_from_u64(3), Out::default());
        let mut wanted = |node, before: Option<&View>| {
            want(&view, before, node, &mut rng, &mut out);
            let Some(Command::Links(wanted)) = out.next() else { panic!("no links") };
            assert!(
                !wanted.contains(&node) && !wanted.is_sorted(),
                "in an order that no key decides"
            );
            assert_eq!(wanted.iter().collect::<BTreeSet<_>>().len(), wanted.len());
            wanted
        };
        let mut links = view.links_of(&own).unwrap();
        let mut first = wanted(own, None);
        first.sort_unstable();
        assert_eq!(first, links);
        links.extend(before.links_of(&own).unwrap());
        let both: BTreeSet<_> = links.into_iter().collect();
        assert!(both.len() > first.len(), "another list, other neighbours");
        assert_eq!(wanted(own, Some(&before)).into_iter().collect::<BTreeSet<_>>(), both);
        assert_eq!(wanted(stranger, Some(&before)).len(), 70);

        want_newcomer(stranger, Some(&view), &mut out);
        assert!(out.next().is_none(), "the graph says who is linked to whom");
        want_newcomer(stranger, None, &mut out);
        assert!(matches!(out.next(), Some(Command::Link(node)) if node == stranger));
    }

    #[test]
    fn those_drawn_are_linked_and_none_twice() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut links = Links::default();
        assert!(links.draw(3, &mut rng).is_empty());
        for number in 0..10 {
            links.up(NodeId::from_bytes([number; 32]));
        }
        links.down(&NodeId::from_bytes([4; 32]));
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            let drawn: BTreeSet<_> = links.draw(3, &mut rng).into_iter().collect();
            assert_eq!(drawn.len(), 3);
            seen.extend(drawn);
        }
        assert_eq!(seen, links.linked, "each is drawn sooner or later");
    }
}

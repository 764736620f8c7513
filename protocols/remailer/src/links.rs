//! Which nodes this one is linked to, and which it wants to be.
//!
//! With up to [`MAX_LINKS`] routable nodes, every node keeps a link to every other. Beside the
//! links wanted here, the caller that carries the commands out keeps dialling its bootstraps and
//! some nodes that it chose before: which may be dialled again, and when, is known where dials
//! fail.

use std::collections::BTreeSet;

use directory::View;
use keys::NodeId;
use rand::CryptoRng;
use rand::seq::{IteratorRandom as _, SliceRandom as _};

use crate::command::{Command, Out};

/// Links wanted, at most.
pub const MAX_LINKS: usize = 64;

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

    /// Some of the linked nodes, drawn anew each time.
    pub(crate) fn draw(&self, count: usize, rng: &mut impl CryptoRng) -> Vec<NodeId> {
        self.linked.iter().copied().sample(rng, count)
    }
}

/// Wants links to the nodes of a view, in an order that does not follow from their keys: where
/// there are more than can be linked, no node can choose to be among the first.
pub(crate) fn want(view: &View, own: NodeId, rng: &mut impl CryptoRng, out: &mut Out) {
    let others = view.iter().map(|record| record.node()).filter(|node| *node != own);
    let mut others: Vec<_> = others.collect();
    others.shuffle(rng);
    out.push(Command::Links(others));
}

/// Wants a link to a node whose first record has just been taken in.
pub(crate) fn want_newcomer(node: NodeId, out: &mut Out) {
    out.push(Command::Link(node));
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn all_nodes_of_a_view_are_named_so_that_links_of_before_are_kept() {
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
        let list = directory.propose_first(schedule.hour_at(now));
        directory.restore_list(list);
        let view = directory.view().unwrap().if_sufficient().unwrap();
        let own = keys::Identity::from_seed(&[0; 32]).node();
        let (mut rng, mut out) = (ChaCha20Rng::seed_from_u64(3), Out::default());
        want(&view, own, &mut rng, &mut out);
        let Some(Command::Links(wanted)) = out.next() else { panic!("no links") };
        let distinct: BTreeSet<_> = wanted.iter().collect();
        assert_eq!((wanted.len(), distinct.len(), distinct.contains(&own)), (69, 69, false));
        assert!(!wanted.is_sorted(), "in an order that no key decides");
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

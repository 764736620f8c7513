//! Room that is shared by those who take it, so that none of them has it all.

use std::collections::BTreeMap;

/// Room of so many octets, of which no owner has more than its share. Whoever comes first must not
/// decide who is turned away: when all is taken, an owner with less takes the place of one with
/// more. An owner stands in the map for as long as it has something.
pub struct Shares<K> {
    most: usize,
    most_each: usize,
    taken: usize,
    each: BTreeMap<K, usize>,
}

/// There is no room, and nobody who has more gives any up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl<K: Ord + Clone> Shares<K> {
    /// `most` octets, and `most_each` for each owner.
    #[must_use]
    pub fn new(most: usize, most_each: usize) -> Self {
        Self { most, most_each, taken: 0, each: BTreeMap::new() }
    }

    /// Octets that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Octets that an owner has.
    #[must_use]
    pub fn of(&self, owner: &K) -> usize {
        self.each.get(owner).copied().unwrap_or_default()
    }

    /// Whether an owner's share leaves so many octets more.
    #[must_use]
    pub fn allow(&self, owner: &K, octets: usize) -> bool {
        self.of(owner).saturating_add(octets) <= self.most_each
    }

    /// Takes room for an owner. While there is none, `drop_one` gives up one thing of the owner
    /// that it is called with and returns its octets, or nothing if that owner has none to give up:
    /// first of whoever has most, and never of one that would be left with less than the taker
    /// gets.
    ///
    /// # Errors
    /// [`NoRoom`]; what was given up is gone all the same.
    pub fn take(
        &mut self,
        owner: K,
        octets: usize,
        mut drop_one: impl FnMut(&K) -> Option<usize>,
    ) -> Result<(), NoRoom> {
        if !self.allow(&owner, octets) {
            return Err(NoRoom);
        }
        while self.taken.saturating_add(octets) > self.most {
            let own = self.of(&owner).saturating_add(octets);
            let more = self.each.iter().filter(|(_, theirs)| **theirs > own);
            let mut more: Vec<_> = more.map(|(other, theirs)| (*theirs, other.clone())).collect();
            more.sort_unstable_by(|one, other| other.cmp(one));
            let dropped = more.into_iter().find_map(|(_, other)| Some((drop_one(&other)?, other)));
            let (theirs, other) = dropped.ok_or(NoRoom)?;
            self.give_back(&other, theirs);
        }
        self.taken = self.taken.saturating_add(octets);
        *self.each.entry(owner).or_default() += octets;
        Ok(())
    }

    /// Gives back room that was taken.
    pub fn give_back(&mut self, owner: &K, octets: usize) {
        let Some(share) = self.each.get_mut(owner) else { return };
        let octets = octets.min(*share);
        *share -= octets;
        self.taken -= octets;
        if *share == 0 {
            self.each.remove(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_its_share_and_room_comes_back() {
        let mut shares = Shares::new(10, 4);
        let nothing = |_: &char| panic!("there is room");
        assert_eq!(shares.take('a', 4, nothing), Ok(()));
        assert_eq!(shares.take('a', 1, nothing), Err(NoRoom));
        assert_eq!(shares.take('b', 5, nothing), Err(NoRoom));
        assert!(shares.allow(&'b', 4) && !shares.allow(&'b', 5));
        assert_eq!(shares.take('b', 3, nothing), Ok(()));
        shares.give_back(&'a', 1);
        assert_eq!((shares.taken(), shares.of(&'a')), (6, 3));
        // Never more than was taken, and of nobody who took nothing.
        shares.give_back(&'a', 100);
        shares.give_back(&'c', 1);
        assert_eq!((shares.taken(), shares.each.len()), (3, 1));
    }

    #[test]
    fn who_has_most_gives_up_first_and_who_cannot_is_passed_over() {
        let mut shares = Shares::new(10, 5);
        for (owner, octets) in [('a', 5), ('b', 4), ('c', 1)] {
            shares.take(owner, octets, |_| None).unwrap();
        }
        let mut asked = Vec::new();
        let taken = shares.take('d', 1, |owner| {
            asked.push(*owner);
            (*owner == 'b').then_some(2)
        });
        assert_eq!((taken, asked), (Ok(()), vec!['a', 'b']));
        assert_eq!((shares.taken(), shares.of(&'b')), (9, 2));
        // Two for the taker: of `b`, which has no more than that, nothing is asked.
        let mut asked = Vec::new();
        let refused = shares.take('c', 2, |owner| {
            asked.push(*owner);
            None
        });
        assert_eq!((refused, asked), (Err(NoRoom), vec!['a']));
        assert_eq!((shares.taken(), shares.of(&'c')), (9, 1));
    }
}

//! What happened how often, by reason. Reasons are a fixed set of words: never an address, an
//! identity or a packet.

use std::collections::BTreeMap;

/// Counters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// One more.
    pub fn add(&mut self, name: &str) {
        match self.0.get_mut(name) {
            Some(count) => *count = count.saturating_add(1),
            None => {
                self.0.insert(name.to_owned(), 1);
            }
        }
    }

    /// How often.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }
}

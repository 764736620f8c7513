//! Verified statements. A statement lost here is fetched from peers again.

use directory::ItemId;

use super::Store;
use super::error::Error;

impl Store {
    /// All statements kept here.
    #[must_use]
    pub fn statements(&self) -> Vec<Vec<u8>> {
        let octets = self.statements.iter().values().filter_map(Result::ok);
        octets.map(|octets| octets.to_vec()).collect()
    }

    /// Stores a statement. If a crash loses it, it is fetched from peers again.
    ///
    /// # Errors
    /// If the database fails.
    pub fn keep_statement(&self, name: &ItemId, octets: &[u8]) -> Result<(), Error> {
        let kept = self.statements.insert(name.as_bytes(), octets);
        kept.map(drop).map_err(|error| self.database(&error))
    }

    /// Forgets statements.
    ///
    /// # Errors
    /// If the database fails.
    pub fn forget_statements(&self, names: &[ItemId]) -> Result<(), Error> {
        for name in names {
            self.statements.remove(name.as_bytes()).map_err(|error| self.database(&error))?;
        }
        Ok(())
    }
}

//! The identity of this node: its long-term key, its network, and the last record it published.

use std::io;
use std::path::PathBuf;

use keys::{Identity, NodeId};
use rand::CryptoRng;
use record::{Descriptor, MAX_DESCRIPTOR, MAX_RECORD, MAX_STATEMENT, Unverified};
use remailer::Past;

use super::Store;
use super::error::{Error, Fault};
use crate::files::{read_bounded, read_exactly};

impl Store {
    /// The stored identity; at the first start, a new one.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn identity(&self, rng: &mut impl CryptoRng) -> Result<Identity, Error> {
        let path = self.folder.join("identity");
        match read_exactly::<{ Identity::SEED_LEN }>(&path) {
            Ok(seed) => Ok(Identity::from_seed(&seed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity::generate(rng);
                // `own` is written first: an identity without it was restored from a backup, alone.
                self.write("own", identity.node().as_bytes())?;
                self.write("identity", identity.seed().as_slice())?;
                Ok(identity)
            }
            Err(error) => Err(Error::io(&path, &error)
                .remedy("restore the file from a backup; a new identity is another node")),
        }
    }

    /// Checks that what this folder's node published was published by this identity.
    ///
    /// # Errors
    /// If it was another's, or cannot be read.
    pub fn bind(&self, node: &NodeId) -> Result<(), Error> {
        let (path, own) = self.own()?;
        let author = match own.as_deref() {
            Some(octets) if octets.len() == NodeId::LEN => octets.try_into().ok(),
            Some(octets) => {
                Unverified::parse(octets).ok().map(|own| *own.claimed_node().as_bytes())
            }
            None => None,
        };
        if author.is_some_and(|author| NodeId::from_bytes(author) != *node) {
            let foreign = Error::new(&path, Fault::Foreign, "the folder of another identity");
            return Err(
                foreign.remedy("put its own identity file back, or use another --state-dir")
            );
        }
        Ok(())
    }

    fn own(&self) -> Result<(PathBuf, Option<Vec<u8>>), Error> {
        let path = self.folder.join("own");
        let own = read_bounded(&path, MAX_RECORD).map_err(|error| Error::io(&path, &error))?;
        Ok((path, own))
    }

    /// Pins the network: the first call stores it, and later calls must name the same one.
    ///
    /// # Errors
    /// If the folder belongs to another network, or cannot be read or written.
    pub fn pin_network(&self, descriptor: &Descriptor) -> Result<(), Error> {
        match self.network()? {
            None => self.write("network", descriptor.octets()),
            Some(pinned) if pinned.id() == descriptor.id() => Ok(()),
            Some(_) => Err(Error::new(&self.folder, Fault::Foreign, "belongs to another network")
                .remedy("use another --state-dir")),
        }
    }

    /// The network pinned here.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn network(&self) -> Result<Option<Descriptor>, Error> {
        let path = self.folder.join("network");
        let octets = read_bounded(&path, MAX_DESCRIPTOR + 1);
        let Some(octets) = octets.map_err(|error| Error::io(&path, &error))? else {
            return Ok(None);
        };
        let descriptor = Descriptor::parse(&octets);
        descriptor.map(Some).map_err(|error| {
            let remedy = "remove it and say --bootstrap, or put it back from a backup";
            Error::new(&path, Fault::Corrupt, error).remedy(remedy)
        })
    }

    /// What this node may have published before.
    ///
    /// # Errors
    /// If the last record is stored here and cannot be read.
    pub fn past(&self, node: &NodeId) -> Result<Past, Error> {
        let Some(octets) = self.own()?.1 else { return Ok(Past::Forgotten) };
        Ok(match octets.len() {
            NodeId::LEN if octets == node.as_bytes() => Past::None,
            0..=NodeId::LEN => Past::Forgotten,
            _ => Past::Known(octets),
        })
    }

    /// Stores the last record of this node, which is on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_own(&self, octets: &[u8]) -> Result<(), Error> {
        self.write("own", octets)
    }

    /// The last vote that this node signed, if it ever voted.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn vote(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = self.folder.join("vote");
        read_bounded(&path, MAX_STATEMENT).map_err(|error| Error::io(&path, &error))
    }

    /// Stores the last vote of this node, which is on disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_vote(&self, octets: &[u8]) -> Result<(), Error> {
        self.write("vote", octets)
    }
}

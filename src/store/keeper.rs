//! The one owner of the disk while a node runs: what is to be kept or forgotten, one after the
//! other, on a thread of its own.

use std::collections::BTreeSet;

use directory::ItemId;
use keys::{Epoch, MixSeed, OnionAddress};
use remailer::{Ended, Leaving, Mark, MessageName, OpenInvite, Over};
use sphinx::ReplayTag;
use zeroize::Zeroizing;

use super::database::Database;
use super::epochs::EPOCHS;
use super::error::Error;
use super::lists::List;
use super::spool::Spool;
use super::tags::Tags;
use super::{Store, room};
use crate::files::{remove, write_whole};

/// What is to be kept or forgotten.
pub enum Job {
    /// The seed of an epoch's key.
    Seed(Epoch, MixSeed),
    /// That an epoch has no key.
    Withdrawal(Epoch),
    /// Only the keys of this epoch and later ones.
    SeedsFrom(Epoch),
    /// The last record of this node.
    Own(Vec<u8>),
    /// The last vote of this node.
    Vote(Vec<u8>),
    /// The list in use.
    HourList(Vec<u8>),
    /// What is known of the health of other nodes.
    Health(Vec<u8>),
    /// How far this node has got with leaving, if it is.
    Leaving(Option<Leaving>),
    /// A statement.
    Statement(ItemId, std::sync::Arc<[u8]>),
    /// No longer these statements.
    NoStatements(Vec<ItemId>),
    /// The nodes that routes avoid.
    Banned(Vec<OnionAddress>),
    /// The nodes that are dialled first.
    Peers(Vec<OnionAddress>),
    /// The invites that are open, after all that was kept before.
    Invites(Vec<OpenInvite>),
    /// No longer the invite that this node was given.
    NoInvite,
    /// A message in custody.
    Message(MessageName, Zeroizing<Vec<u8>>),
    /// A mark of one.
    Mark(MessageName, Mark),
    /// No longer a message; its end, if it has one.
    NoMessage(MessageName, Option<Ended>),
    /// That a delivery is over.
    Over(Over),
    /// Only the deliveries that were over in this epoch and later ones.
    OverFrom(Epoch),
    /// Replay tags.
    Tags(Vec<(Epoch, ReplayTag)>),
    /// Nothing: whether there is room, and, if asked, whether anything can be written.
    Look {
        /// Whether a file is written and removed.
        writes: bool,
    },
}

/// The owner of the disk.
pub struct DiskKeeper {
    store: Store,
    database: Database,
    tags: Tags,
    spool: Spool,
    /// Epochs whose withdrawal could not be kept: it is tried again before anything else.
    unkept: BTreeSet<Epoch>,
    /// The oldest epoch whose key is to be there, if older ones could not be destroyed.
    undestroyed: Option<Epoch>,
}

impl DiskKeeper {
    /// Takes a state folder over.
    #[must_use]
    pub fn new(store: Store, database: Database) -> Self {
        let tags = Tags::new(store.folder.join(EPOCHS));
        let spool = Spool::new(&store.folder);
        Self { store, database, tags, spool, unkept: BTreeSet::new(), undestroyed: None }
    }

    /// Carries a job out; it is on the disk when this returns.
    ///
    /// # Errors
    /// If it is not. A withdrawal is tried again before the next job, and fails that as well: no
    /// record may be kept that says less than the disk.
    pub fn run(&mut self, job: &Job) -> Result<(), Error> {
        while let Some(epoch) = self.unkept.first().copied() {
            self.withdraw(epoch)?;
            self.unkept.remove(&epoch);
        }
        let (store, database) = (&self.store, &mut self.database);
        match job {
            Job::Seed(epoch, seed) => store.keep_seed(*epoch, seed),
            Job::Withdrawal(epoch) => {
                self.unkept.insert(*epoch);
                self.withdraw(*epoch)?;
                self.unkept.remove(epoch);
                Ok(())
            }
            Job::SeedsFrom(oldest) => {
                self.undestroyed = self.undestroyed.max(Some(*oldest));
                self.destroy_past()
            }
            Job::Own(octets) => store.write("own", octets),
            Job::Vote(octets) => store.write("vote", octets),
            Job::HourList(octets) => store.write("list", octets),
            Job::Health(octets) => store.write("health", octets),
            Job::Leaving(leaving) => store.keep_list(List::Leaving, leaving.as_slice()),
            Job::Statement(name, octets) => database.keep(name, octets),
            Job::NoStatements(names) => database.forget(names),
            Job::Banned(onions) => store.keep_list(List::Banned, onions),
            Job::Peers(onions) => store.keep_list(List::Peers, onions),
            Job::Invites(open) => {
                database.flush()?;
                store.keep_list(List::Invites, open)
            }
            Job::NoInvite => store.keep_list::<String>(List::Invite, &[]),
            Job::Message(name, octets) => {
                room::check(&store.folder)?;
                self.spool.keep(name, octets).map_err(|error| self.no_spool(&error))
            }
            Job::Mark(name, mark) => {
                self.spool.mark(name, *mark).map_err(|error| self.no_spool(&error))
            }
            Job::NoMessage(name, ended) => {
                let forgotten = self.spool.forget(name, ended.as_ref());
                forgotten.map_err(|error| self.no_spool(&error))
            }
            Job::Over(over) => self.spool.over(over).map_err(|error| self.no_spool(&error)),
            Job::OverFrom(oldest) => {
                self.spool.forget_over(*oldest).map_err(|error| self.no_spool(&error))
            }
            Job::Tags(tags) => self.tags.keep(tags).map_err(|error| self.no_tags(&error)),
            Job::Look { writes } => self.look(*writes),
        }
    }

    fn withdraw(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.store.withdraw_seed(epoch)?;
        self.tags.withdraw(epoch).map_err(|error| self.no_tags(&error))
    }

    fn destroy_past(&mut self) -> Result<(), Error> {
        let Some(oldest) = self.undestroyed else { return Ok(()) };
        let forgotten = self.tags.forget(oldest);
        self.store.forget_seeds(oldest)?;
        forgotten.map_err(|error| self.no_tags(&error))?;
        self.undestroyed = None;
        Ok(())
    }

    fn no_tags(&self, error: &std::io::Error) -> Error {
        Error::io(&self.store.folder.join(EPOCHS), error)
    }

    fn no_spool(&self, error: &std::io::Error) -> Error {
        Error::io(&self.store.folder.join("spool"), error)
    }

    fn look(&mut self, writes: bool) -> Result<(), Error> {
        // It takes no room, and past keys are to be gone.
        self.destroy_past()?;
        room::check(&self.store.folder)?;
        if !writes {
            return Ok(());
        }
        let path = self.store.folder.join("trial");
        let tried = write_whole(&path, b"fog").and_then(|()| remove(&path));
        tried.map_err(|error| Error::io(&path, &error))
    }
}

impl Drop for DiskKeeper {
    fn drop(&mut self) {
        if let Err(error) = self.database.flush() {
            tracing::warn!(%error, "the database could not be flushed");
        }
    }
}

//! Small lists that outlive a restart, one line for each entry, and the list of the hour.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use super::Store;
use super::error::{Error, Fault};
use crate::files::{destroy, read_bounded};

/// Octets of an hour's list, at most: 16,384 entries of 73.
const MAX_HOUR_LIST: usize = 2 << 20;
/// Octets of what is known of the health of other nodes, at most: 2,048 of them with 12 days each.
const MAX_HEALTH: usize = 1 << 20;

/// The lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Nodes that this node's routes avoid.
    Banned,
    /// Nodes that this node chose to link to, and dials first.
    Peers,
    /// Tokens that this node has handed out.
    Invites,
    /// The invite that this node was given and has not shown yet.
    Invite,
    /// How far this node has got with leaving.
    Leaving,
}

impl List {
    /// Whether the node can do without what it held: then a damaged file is set aside.
    const fn is_spare(self) -> bool {
        matches!(self, Self::Peers)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Peers => "peers",
            Self::Invites => "invites",
            Self::Invite => "invite",
            Self::Leaving => "leaving",
        }
    }
}

impl Store {
    /// The entries of a list; empty if its file does not exist.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn list<T: FromStr>(&self, list: List) -> Result<Vec<T>, Error> {
        let path = self.folder.join(list.name());
        match fs::read_to_string(&path) {
            Ok(text) => {
                let lines = text.lines().map(|line| line.parse::<T>().ok());
                let lines: Option<Vec<T>> = lines.collect();
                if lines.is_none() && list.is_spare() {
                    tracing::warn!(file = list.name(), "not what was written: it is left aside");
                    return Ok(Vec::new());
                }
                lines.ok_or_else(|| {
                    Error::new(&path, Fault::Corrupt, "not a list of what it should hold")
                        .remedy("correct or remove it")
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io(&path, &error)),
        }
    }

    /// The hour's list that this node used last.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn hour_list(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = self.folder.join("list");
        read_bounded(&path, MAX_HOUR_LIST).map_err(|error| Error::io(&path, &error))
    }

    /// What this node knew of the health of others. It can do without: a file that cannot be read is left
    /// aside.
    #[must_use]
    pub fn health(&self) -> Option<Vec<u8>> {
        let read = read_bounded(&self.folder.join("health"), MAX_HEALTH);
        read.inspect_err(|error| tracing::warn!(%error, "the health of other nodes is not known"))
            .ok()
            .flatten()
    }

    /// Writes the hour's list that this node uses.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_hour_list(&self, octets: &[u8]) -> Result<(), Error> {
        self.write("list", octets)
    }

    /// Writes a list; an empty list has no file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_list<T: fmt::Display>(&self, list: List, lines: &[T]) -> Result<(), Error> {
        let path = self.folder.join(list.name());
        if lines.is_empty() {
            return destroy(&path).map_err(|error| Error::io(&path, &error));
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.write(list.name(), text.as_bytes())
    }
}

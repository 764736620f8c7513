//! What a node says of itself and of others over the control socket.

use keys::{Epoch, Time};
use record::Record;

use super::Driver;
use crate::control::{Held, Peer, ReachStatus, Status, ViewStatus};
use crate::net::Reach;

impl Driver {
    pub(super) fn status(&self) -> Status {
        let now = self.clock.now();
        let schedule = self.remailer.schedule();
        let epoch = schedule.epoch_at(now);
        let left = schedule.end(epoch).since(now).as_millis();
        let (mixing, waiting, delivering) = self.remailer.held();
        let unusable = self.remailer.check_routes(now).err().map(|why| why.to_string());
        Status {
            warnings: self.warnings(unusable.as_deref()),
            onion: self.remailer.onion().map(|onion| onion.to_string()).unwrap_or_default(),
            network: self.network.clone(),
            epoch: epoch.number(),
            epoch_ends_in_ms: u64::try_from(left).unwrap_or(u64::MAX),
            unusable,
            reach: self.reach(),
            tor: self.net.tor.as_ref().and_then(|tor| {
                let tor = tor.borrow();
                tor.socks.map(|_| tor.name.clone())
            }),
            tor_failure: self.net.tor.as_ref().and_then(|tor| tor.borrow().trouble.clone()),
            known: self.remailer.directory().len(),
            linked: self.linked.len(),
            view: self
                .remailer
                .view()
                .map(|view| ViewStatus { nodes: view.len(), taken_ms: view.taken().as_millis() }),
            held: Held { mixing, waiting, delivering },
            counts: self.remailer.counts().iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        }
    }

    fn reach(&self) -> ReachStatus {
        match *self.net.reach.borrow() {
            Reach::Unknown => ReachStatus { reachable: None, since_ms: None, why: None },
            Reach::Reachable { since } => {
                ReachStatus { reachable: Some(true), since_ms: Some(since.as_millis()), why: None }
            }
            Reach::Unreachable { since, why } => ReachStatus {
                reachable: Some(false),
                since_ms: Some(since.as_millis()),
                why: Some(why.to_string()),
            },
        }
    }

    fn warnings(&self, unusable: Option<&str>) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.unkept > 0 {
            warnings.push(format!("{} times the disk failed: see the log", self.unkept));
        }
        let reach = self.reach();
        if let Some(why) = &reach.why {
            warnings.push(format!("peers cannot reach this node: {why}"));
        }
        if self.linked.is_empty() {
            warnings.push("no link to any node: see network.bootstrap".to_owned());
        }
        if let Some(why) = unusable {
            warnings.push(format!("no mail is taken: {why}"));
        }
        if self.next_server_is_down {
            warnings.push("the next mail server does not answer".to_owned());
        }
        let has_record = self.remailer.directory().newest(&self.remailer.node()).is_some();
        if !has_record && reach.reachable == Some(true) {
            warnings.push("this node has no valid record: see its clock".to_owned());
        }
        warnings
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        let now = self.clock.now();
        let others = self.remailer.directory().iter();
        let others = others.filter(|record| record.node() != self.remailer.node());
        others.map(|record| self.peer(record, now)).collect()
    }

    fn peer(&self, record: &Record, now: Time) -> Peer {
        let mut roles = vec!["relay".to_owned()];
        if record.exit().is_some() {
            roles.push("exit".to_owned());
        }
        let node = record.node();
        let epoch = self.remailer.schedule().epoch_at(now);
        let unusable = match self.remailer.view() {
            None => Some("there is no view"),
            Some(view) if view.get(&node).is_none() => Some("not in this hour's view"),
            Some(view) if view.get(&node).is_none_or(|seen| seen.key(epoch).is_none()) => {
                Some("its keys have run out")
            }
            Some(_) => None,
        };
        let age = now.since(record.published_at()).as_millis();
        Peer {
            onion: record.onion().to_string(),
            contact: record.contact().to_owned(),
            roles,
            epochs: record.epochs().map(Epoch::number).collect(),
            record_age_ms: u64::try_from(age).unwrap_or(u64::MAX),
            linked: self.linked.contains(&node),
            score: self.net.scores.borrow().get(&node).copied(),
            unusable: unusable.map(str::to_owned),
        }
    }
}

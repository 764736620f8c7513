//! What a node says of itself and of others over the control socket.

use directory::Standing;
use keys::{Epoch, NodeId, OnionAddress, Time};
use record::{Breach, Record};
use remailer::{Agreement, Alarm};

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
            standing: self.standing(now),
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

    /// How this node stands with the others.
    fn standing(&self, now: Time) -> Option<String> {
        let standing = self.remailer.standings(now).get(&self.remailer.node()).copied()?;
        Some(stands(standing, now).unwrap_or_else(|| "routes go through it".to_owned()))
    }

    fn warnings(&self, unusable: Option<&str>) -> Vec<String> {
        let now = self.clock.now();
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
        warnings.extend(self.remailer.alarms(now).iter().map(alarm));
        if self.invite_refused {
            warnings.push("the invite was not taken: ask for another".to_owned());
        }
        let standing = self.remailer.standings(now).get(&self.remailer.node()).copied();
        if let Some(Standing::NotVouched) = standing {
            warnings.push("nobody vouches for this node: no route goes through it".to_owned());
        }
        let has_record = self.remailer.directory().newest(&self.remailer.node()).is_some();
        if !has_record && reach.reachable == Some(true) {
            warnings.push("this node has no valid record: see its clock".to_owned());
        }
        warnings
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        let now = self.clock.now();
        let standings = self.remailer.standings(now);
        let others = self.remailer.directory().iter();
        let others = others.filter(|record| record.node() != self.remailer.node());
        others.map(|record| self.peer(record, standings.get(&record.node()), now)).collect()
    }

    fn peer(&self, record: &Record, standing: Option<&Standing>, now: Time) -> Peer {
        let mut roles = vec!["relay".to_owned()];
        if record.exit().is_some() {
            roles.push("exit".to_owned());
        }
        let node = record.node();
        let age = now.since(record.published_at()).as_millis();
        let vouchers = self.remailer.directory().vouchers_of(&node);
        let view = match self.remailer.agreement(&node, now) {
            Agreement::Same => "same",
            Agreement::Other => "other",
            Agreement::Unknown => "unknown",
        };
        Peer {
            onion: record.onion().to_string(),
            contact: record.contact().to_owned(),
            roles,
            epochs: record.epochs().map(Epoch::number).collect(),
            record_age_ms: u64::try_from(age).unwrap_or(u64::MAX),
            linked: self.linked.contains(&node),
            score: self.net.scores.borrow().get(&node).copied(),
            view: view.to_owned(),
            vouchers: vouchers
                .filter_map(|node| OnionAddress::of(node).ok().map(|onion| onion.to_string()))
                .collect(),
            unusable: self.unusable(&node, standing, now),
        }
    }

    fn unusable(&self, node: &NodeId, standing: Option<&Standing>, now: Time) -> Option<String> {
        if self.banned.contains(node) {
            return Some("banned here".to_owned());
        }
        if let Some(proof) = self.remailer.directory().conviction(node, now) {
            return stands(Standing::Convicted(proof.breach()), now);
        }
        let epoch = self.remailer.schedule().epoch_at(now);
        let seen = self.remailer.view().map(|view| view.get(node));
        let why = match (seen, standing) {
            (None, _) => "there is no view",
            (Some(Some(seen)), _) if seen.key(epoch).is_none() => "its keys have run out",
            (Some(Some(_)), _) => return None,
            (Some(None), Some(standing)) => {
                let why = stands(*standing, now);
                return Some(why.unwrap_or_else(|| "not in this hour's view".to_owned()));
            }
            (Some(None), None) => "not in this hour's view",
        };
        Some(why.to_owned())
    }
}

/// Why routes do not go through a node, or not to it; none if they do.
fn stands(standing: Standing, now: Time) -> Option<String> {
    let in_seconds = |then: Time| then.since(now).as_secs();
    match standing {
        Standing::Routable => None,
        Standing::NotYetExit(then) => {
            Some(format!("no exit yet: on probation for another {} s", in_seconds(then)))
        }
        Standing::Unsettled => Some("its record is too new for this hour".to_owned()),
        Standing::NoKey => Some("it has no key for this hour".to_owned()),
        Standing::NotVouched => Some("nobody vouches for it".to_owned()),
        Standing::Probation(then) => {
            Some(format!("on probation for another {} s", in_seconds(then)))
        }
        Standing::Convicted(breach) => Some(format!("it broke its word: {}", said(breach))),
    }
}

fn said(breach: Breach) -> &'static str {
    match breach {
        Breach::OneNumber => "two records with one number",
        Breach::Fork => "two records that follow one",
        Breach::TwoKeys => "two keys for one epoch",
    }
}

fn alarm(alarm: &Alarm) -> String {
    match alarm {
        Alarm::ClockApart(ms) => format!(
            "the clock of this machine is {} s {} that of the network: no mail is taken",
            ms.unsigned_abs() / 1000,
            if *ms > 0 { "behind" } else { "ahead of" }
        ),
        Alarm::Rival => "another node runs with this identity: stop one of them".to_owned(),
        Alarm::Convicted => {
            "there is a proof that this identity said two different things: others route around it"
                .to_owned()
        }
        Alarm::AnotherView { other, same } => format!(
            "for hours {other} of {} nodes have had another directory: see fog peers --views",
            other + same
        ),
        Alarm::Halved { before, after } => {
            format!("within an hour the view went from {before} nodes to {after}")
        }
    }
}

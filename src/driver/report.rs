//! A node's reports on itself and on others over the control socket.

use directory::Standing;
use keys::{Epoch, NodeId, OnionAddress, Time};
use record::{Admission, Breach, Record};
use remailer::{Agreement, Classes, PeerHealth, QueueId, Refused, Shunned};
use sphinx::SizeClass;

use super::Driver;
use crate::control::{
    Avoided, ClassesStatus, DayStatus, HealthStatus, HeldStatus, Lateness, LeavingStatus, NoMail,
    NodeUse, Peer, PeerList, PeerRole, ProvenBreach, Queue, QueuedMessage, ReachStatus, Response,
    Status, ViewStatus, named, named_state, of_places, of_turned,
};
use crate::net::Reach;

/// Messages of the queue that are shown, at most.
const SHOWN: usize = 100;

impl Driver {
    pub(super) fn queue(&self) -> Queue {
        let entries = self.remailer.queue();
        let oldest = entries.iter().take(SHOWN).map(|entry| QueuedMessage {
            accepted_ms: entry.accepted.as_millis(),
            until_ms: entry.until.as_millis(),
            class_kib: entry.class.packet_len() / 1024,
            packets: entry.packets,
            left: entry.left,
            held: entry.is_held,
        });
        Queue {
            messages: entries.len(),
            damaged: self.disk.damaged,
            suspended: self.remailer.is_silenced(),
            oldest: oldest.collect(),
        }
    }

    /// What has become of the message that was taken under a name.
    pub(super) fn message(&self, name: &str) -> Response {
        let id = u128::from_str_radix(name, 16).ok().filter(|_| name.len() == 32);
        let Some(id) = id else {
            return Response::Error("not a name: 32 hexadecimal digits, from the reply".to_owned());
        };
        let id = QueueId::from_bytes(id.to_be_bytes());
        let Some(states) = self.remailer.message(&id) else {
            return Response::Error("no such message is known here".to_owned());
        };
        let said = states.into_iter().map(|(state, all)| (named_state(state).to_owned(), all));
        Response::Message(said.collect())
    }

    pub(super) fn status(&self) -> Status {
        let now = self.now();
        let schedule = self.remailer.schedule();
        let epoch = schedule.epoch_at(now);
        let held = self.remailer.held();
        let unusable = self.no_mail();
        let tor = self.net.tor.as_ref().map(|tor| tor.borrow());
        Status {
            warnings: self.warned(unusable),
            onion: self.remailer.onion().map(|onion| onion.to_string()).unwrap_or_default(),
            network: self.remailer.descriptor().id().to_string(),
            open: matches!(self.remailer.descriptor().admission(), Admission::Open),
            epoch: epoch.number(),
            epoch_ends_in_ms: millis(schedule.end(epoch).since(now)),
            unusable,
            reach: self.reach(),
            tor: tor.as_ref().and_then(|tor| tor.socks.map(|_| tor.name.clone())),
            tor_failure: tor.as_ref().and_then(|tor| tor.trouble.clone()),
            standing: self.standing(now),
            known: self.remailer.directory().len(),
            linked: self.net.linked.len(),
            view: self
                .remailer
                .view()
                .map(|view| ViewStatus { nodes: view.len(), taken_ms: view.taken().as_millis() }),
            classes: classes(&self.remailer.classes(now)),
            hides_among: self.remailer.hides_among(),
            held: HeldStatus {
                mixing: held.mixing,
                waiting: held.waiting,
                delivering: held.delivering,
                assembling: held.assembling,
                answers: held.answers,
                messages: held.messages,
                for_streams: held.for_streams,
            },
            leaving: self.remailer.leaving().map(|leaving| LeavingStatus {
                since_ms: leaving.since.as_millis(),
                until_ms: leaving.until.as_millis(),
                needed_until_ms: leaving.needed_until.map(Time::as_millis),
                ends_ms: leaving.ends.map(Time::as_millis),
                over: leaving.is_over,
            }),
            lateness: Lateness {
                timer_ms: millis(self.troubles.late_timer),
                handover_ms: millis(self.net.queues.slowest()),
                packet_ms: self.remailer.latest_packet().map(millis),
            },
            counts: named(self.remailer.counts())
                .into_iter()
                .chain(of_places(&self.places))
                .chain(of_turned(&self.net.turned))
                .collect(),
        }
    }

    /// Why no mail is taken.
    pub(super) fn no_mail(&self) -> Option<NoMail> {
        let disk_fails = self.disk.failing().map(|_| NoMail::DiskFails);
        disk_fails.or_else(|| self.remailer.check_routes(self.now()).err().map(no_mail))
    }

    pub(super) fn reach(&self) -> ReachStatus {
        match *self.net.reach.borrow() {
            Reach::Unknown => ReachStatus { reachable: None, since_ms: None, why: None },
            Reach::Reachable { since } => {
                ReachStatus { reachable: Some(true), since_ms: Some(since.as_millis()), why: None }
            }
            Reach::Unreachable { since, why } => ReachStatus {
                reachable: Some(false),
                since_ms: Some(since.as_millis()),
                why: Some(why),
            },
        }
    }

    /// How routes use this node.
    pub(super) fn standing(&self, now: Time) -> Option<NodeUse> {
        self.remailer.standings(now).get(&self.remailer.node()).copied().map(node_use)
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        let now = self.now();
        let standings = self.remailer.standings(now);
        let others = self.remailer.directory().iter();
        let others = others.filter(|record| record.node() != self.remailer.node());
        others.map(|record| self.peer(record, standings.get(&record.node()), now)).collect()
    }

    fn peer(&self, record: &Record, standing: Option<&Standing>, now: Time) -> Peer {
        let node = record.node();
        let vouchers = self.remailer.directory().vouchers_of(&node);
        let exit = record.exit().map(|_| PeerRole::Exit);
        Peer {
            onion: record.onion().to_string(),
            contact: record.contact().to_owned(),
            roles: [PeerRole::Relay].into_iter().chain(exit).collect(),
            epochs: record.epochs().map(Epoch::number).collect(),
            record_age_ms: millis(now.since(record.published_at())),
            linked: self.net.linked.contains(&node),
            score: self.net.scores.borrow().get(&node).copied(),
            list: match self.remailer.agreement(&node) {
                Agreement::Same => PeerList::Same,
                Agreement::Apart(parts) => PeerList::Apart { parts },
                Agreement::Unknown => PeerList::Unknown,
            },
            vouchers: vouchers
                .filter_map(|node| OnionAddress::of(node).ok().map(|onion| onion.to_string()))
                .collect(),
            unusable: self.unusable(&node, standing, now),
            health: health(&self.remailer.health(&node, now)),
        }
    }

    fn unusable(&self, node: &NodeId, standing: Option<&Standing>, now: Time) -> Option<NodeUse> {
        if self.remailer.bans(node) {
            return Some(NodeUse::Banned);
        }
        let epoch = self.remailer.schedule().epoch_at(now);
        let view = self.remailer.view();
        let seen = view.and_then(|view| view.get(node));
        if let Some(proof) = self.remailer.directory().conviction(node, now) {
            let breach = proven(proof.breach());
            return Some(NodeUse::Convicted { breach, routed: seen.is_some() });
        }
        if view.is_none() {
            return Some(NodeUse::NoView);
        }
        match (seen, standing.copied()) {
            (Some(seen), _) if seen.key(epoch).is_none() => Some(NodeUse::KeysRanOut),
            (Some(_), _) => None,
            (None, None | Some(Standing::Routable)) => Some(NodeUse::NotListed),
            (None, Some(standing)) => Some(node_use(standing)),
        }
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn classes(classes: &Classes) -> ClassesStatus {
    let kib = |class: SizeClass| class.packet_len() / 1024;
    let sum = |packets: &[u32]| packets.iter().fold(0, |sum: u32, of| sum.saturating_add(*of));
    ClassesStatus {
        mail: sum(&classes.mail),
        cover: sum(&classes.cover),
        octets: classes.octets(),
        stage: classes.stage.saturating_add(1),
        volume: classes.volume,
        open: classes.open.iter().copied().map(kib).collect(),
        passed: SizeClass::all().map(kib).zip(classes.packets).collect(),
    }
}

fn node_use(standing: Standing) -> NodeUse {
    match standing {
        Standing::Routable => NodeUse::Routable,
        Standing::NotListed => NodeUse::NotListed,
        Standing::NotUnderstood => NodeUse::NotUnderstood,
        Standing::Leaving => NodeUse::Leaving,
        Standing::Retired => NodeUse::Retired,
        Standing::NotYetExit(from) => NodeUse::NotYetExit { from_ms: from.as_millis() },
        Standing::Unsettled => NodeUse::Unsettled,
        Standing::NoKey => NodeUse::NoKey,
        Standing::NotVouched => NodeUse::NotVouched,
        Standing::Probation(until) => NodeUse::Probation { until_ms: until.as_millis() },
        Standing::Convicted(breach) => NodeUse::Convicted { breach: proven(breach), routed: false },
    }
}

fn proven(breach: Breach) -> ProvenBreach {
    match breach {
        Breach::OneNumber => ProvenBreach::OneNumber,
        Breach::Fork => ProvenBreach::Fork,
        Breach::TwoKeys => ProvenBreach::TwoKeys,
        Breach::TooClose => ProvenBreach::TooClose,
        Breach::TwoVotes => ProvenBreach::TwoVotes,
    }
}

fn no_mail(why: Refused) -> NoMail {
    match why {
        Refused::TooFewNodes => NoMail::TooFewNodes,
        Refused::NoExit | Refused::NoExitNow => NoMail::NoExit,
        Refused::ClockApart => NoMail::ClockApart,
        Refused::NoList => NoMail::NoList,
        Refused::Leaving => NoMail::Leaving,
        Refused::Full | Refused::FullFor(_) | Refused::TooBig | Refused::Unfit(_) => NoMail::Full,
    }
}

fn health(health: &PeerHealth) -> HealthStatus {
    let known = health.days.iter().rposition(|day| day.loops > 0).map_or(0, |last| last + 1);
    let days = health.days.iter().take(known).map(|day| DayStatus {
        loops: day.loops,
        lost: f64::from(day.lost) / 1000.0,
        latency_ms: day.latency.map(millis),
    });
    HealthStatus {
        loss: health.loss,
        loops: health.loops,
        latency_ms: health.latency.map(millis),
        avoided: health.shunned.map(|why| match why {
            Shunned::Down => Avoided::Down,
            Shunned::Losing => Avoided::Losing,
        }),
        days: days.collect(),
    }
}

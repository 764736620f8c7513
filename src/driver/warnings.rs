//! What a node warns its operator of.

use std::collections::BTreeMap;

use keys::{OnionAddress, Time};
use remailer::{Alarm, Suspicion};

use super::Driver;
use crate::control::{NoMail, NodeUse, Warned, Warning};

impl Driver {
    /// The warnings of this moment, the most urgent first.
    pub(super) fn warned(&self, unusable: Option<NoMail>) -> Vec<Warned> {
        let now = self.now().as_millis();
        let warned = |warning: Warning| {
            // One that began after the last look began now.
            let since_ms =
                self.troubles.warned.get(&warning.kind()).map_or(now, |at| at.as_millis());
            Warned { warning, since_ms }
        };
        self.warnings(unusable).into_iter().map(warned).collect()
    }

    /// Notes which warnings begin and which are over, and says so in the log by their kinds: what a
    /// warning says may name nodes.
    pub(super) fn look_at_warnings(&mut self) {
        let now = self.now();
        let kinds = self.warnings(self.no_mail()).into_iter().map(|warning| warning.kind());
        let known = &self.troubles.warned;
        let warned: BTreeMap<_, _> =
            kinds.map(|kind| (kind.clone(), known.get(&kind).copied().unwrap_or(now))).collect();
        for kind in warned.keys().filter(|kind| !known.contains_key(*kind)) {
            tracing::warn!(kind, "a warning begins: see fog status");
        }
        for kind in known.keys().filter(|kind| !warned.contains_key(*kind)) {
            tracing::warn!(kind, "a warning is over");
        }
        self.troubles.warned = warned;
    }

    fn warnings(&self, unusable: Option<NoMail>) -> Vec<Warning> {
        let now = self.now();
        // Its operator has ordered that.
        let unusable = unusable.filter(|why| *why != NoMail::Leaving);
        let reach = self.reach();
        // The first node of a network has nobody to be linked to.
        let expects_links = self.net.has_bootstrap || self.remailer.directory().len() > 1;
        let is_cut_off = self.net.linked.is_empty() && expects_links;
        let fault = self.exit.as_ref().and_then(crate::exit::Exit::fault);
        let is_alone = matches!(self.standing(now), Some(NodeUse::NotVouched));
        let has_record = self.remailer.directory().newest(&self.remailer.node()).is_some();
        let disk = self
            .disk
            .failing()
            .map(|failing| Warning::DiskFails { why: failing.why, times: self.disk.times });
        let first = [
            disk,
            reach.why.map(|why| Warning::Unreachable { why }),
            is_cut_off.then_some(Warning::NoLinks),
            unusable.map(|why| Warning::NoMail { why }),
            fault.map(|why| Warning::NextServer { why }),
        ];
        let last = [
            is_alone.then_some(Warning::NotVouched),
            (!has_record && reach.reachable == Some(true)).then_some(Warning::NoRecord),
        ];
        let alarms = self.remailer.alarms(now).into_iter().map(|alarm| self.warning(alarm, now));
        first.into_iter().flatten().chain(alarms).chain(last.into_iter().flatten()).collect()
    }

    fn warning(&self, alarm: Alarm, now: Time) -> Warning {
        match alarm {
            Alarm::ClockApart(ahead_ms) => Warning::ClockApart { ahead_ms },
            Alarm::ClockSuspect(Suspicion::Behind) => Warning::ClockSuspect { behind: true },
            Alarm::ClockSuspect(Suspicion::Ahead) => Warning::ClockSuspect { behind: false },
            Alarm::Rival => Warning::Rival,
            Alarm::Besieged => Warning::Besieged,
            Alarm::Silenced => Warning::Silenced,
            Alarm::Convicted => Warning::Convicted,
            Alarm::NoList { hours } => {
                let voters = self.remailer.missing_voters(now).into_iter();
                let voters = voters.filter_map(|voter| OnionAddress::of(voter).ok());
                let missing = voters.map(|onion| onion.to_string()).collect();
                Warning::NoList { hours, missing }
            }
            Alarm::AwaitsWitnesses { heard, needed } => Warning::AwaitsWitnesses { heard, needed },
            Alarm::AnotherList { other, same } => Warning::AnotherList { other, same },
            Alarm::Halved { before, after } => Warning::Halved { before, after },
            Alarm::InviteRefused => Warning::InviteRefused,
            Alarm::Losing { losing } => Warning::Losing { losing },
        }
    }
}

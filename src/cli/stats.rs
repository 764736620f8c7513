//! `fog stats`: what the loops of a running node say of the others, as pingers of remailers print it.

use clap::ValueEnum;
use time::OffsetDateTime;

use super::{State, say, say_json, wording};
use crate::clock::Clock;
use crate::control::{self, ControlOrder, DayStatus, HealthStatus, Peer, PeerRole, Response};
use crate::failure::{Failure, FailureKind};

/// Days of a history, one character for each.
const DAYS: usize = remailer::DAYS;
/// Characters of a name.
const NAME: usize = 12;

/// How statistics are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A line for each node.
    Table,
    /// The table of pingers, second version: twelve days, the last one at the right.
    Mlist2,
}

pub(super) async fn run(state: State, format: Format, json: bool) -> Result<(), Failure> {
    let answer = control::call(&state.folder(), ControlOrder::Peers).await?;
    let Response::Peers(mut peers) = answer else {
        return Err(Failure::new(FailureKind::Internal, "the node answered something else"));
    };
    if json {
        let health = peers.iter().map(|peer| (&peer.onion, &peer.health));
        return say_json(&health.collect::<std::collections::BTreeMap<_, _>>());
    }
    peers.sort_by(|one, other| one.onion.cmp(&other.onion));
    match format {
        Format::Table if peers.is_empty() => say("no other node is known"),
        Format::Table => peers.iter().try_for_each(|peer| {
            say(&format!("{}  {}", peer.onion, wording::health(&peer.health)))
        }),
        Format::Mlist2 => {
            let now = Clock::start().now().as_millis() / 1000;
            mlist2(&peers, now).iter().try_for_each(|line| say(line))
        }
    }
}

/// The table, with the date in seconds of Unix time.
fn mlist2(peers: &[Peer], now: u64) -> Vec<String> {
    let date =
        i64::try_from(now).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
    let date = date.map_or(String::new(), |date| {
        let (weekday, month) = (date.weekday().to_string(), date.month().to_string());
        let (hour, minute, second) = date.to_hms();
        format!(
            "{weekday:.3} {:02} {month:.3} {} {hour:02}:{minute:02}:{second:02} GMT",
            date.day(),
            date.year()
        )
    });
    let head = "Mixmaster    Latent-Hist   Latent  Uptime-Hist   Uptime  Options";
    let mut lines = vec![
        "Stats-Version: 2.0".to_owned(),
        format!("Generated: {date}"),
        head.to_owned(),
        "-".repeat(head.len()),
    ];
    lines.extend(peers.iter().map(row));
    lines
}

fn row(peer: &Peer) -> String {
    let HealthStatus { days, latency_ms, .. } = &peer.health;
    let name: String = peer.onion.chars().take(NAME).collect();
    let history = |character: fn(&DayStatus) -> Option<char>| -> String {
        let of = |ago| days.get(ago).and_then(character).unwrap_or('?');
        (0..DAYS).rev().map(of).collect()
    };
    let loops: u32 = days.iter().map(|day| day.loops).sum();
    let lost: f64 = days.iter().map(|day| day.lost).sum();
    let uptime = if loops == 0 { 0.0 } else { 100.0 * (1.0 - lost / f64::from(loops)).max(0.0) };
    let is_exit = peer.roles.contains(&PeerRole::Exit);
    let options = if is_exit { "" } else { "M" };
    let line = format!(
        "{name:<NAME$} {:<DAYS$} {:>7}  {:<DAYS$}  {uptime:>5.1}%  {options}",
        history(latent),
        latency_ms.map_or(String::new(), hours_and_minutes),
        history(uptime_of),
    );
    line.trim_end().to_owned()
}

/// 0 for less than five minutes, 1 for an hour, 2 for four, 3 for a day, 4 for two, and 5 for longer.
fn latent(day: &DayStatus) -> Option<char> {
    const MINUTE: u64 = 60_000;
    let steps = [5 * MINUTE, 60 * MINUTE, 240 * MINUTE, 1440 * MINUTE, 2880 * MINUTE];
    let step = day.latency_ms.map(|millis| steps.iter().filter(|step| millis >= **step).count())?;
    u32::try_from(step).ok().and_then(|step| char::from_digit(step, 10))
}

/// `+` for all, or tenths.
fn uptime_of(day: &DayStatus) -> Option<char> {
    if day.loops == 0 {
        return None;
    }
    let tenths = (0..10).filter(|tenth| {
        1.0 - day.lost / f64::from(day.loops) >= 0.995_f64.min(f64::from(tenth + 1) / 10.0)
    });
    u32::try_from(tenths.count()).ok().map(|tenths| char::from_digit(tenths, 10).unwrap_or('+'))
}

fn hours_and_minutes(millis: u64) -> String {
    let minutes = millis.div_ceil(60_000);
    match minutes / 60 {
        0 => format!(":{minutes:02}"),
        hours => format!("{hours}:{:02}", minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::PeerList;

    #[test]
    fn the_table_is_that_of_pingers() {
        let day = |loops, lost, seconds: u64| DayStatus {
            loops,
            lost,
            latency_ms: Some(seconds * 1000).filter(|millis| *millis > 0),
        };
        let peer = |onion: &str, roles: &[PeerRole], days: &[DayStatus]| Peer {
            onion: onion.to_owned(),
            contact: String::new(),
            roles: roles.to_vec(),
            epochs: Vec::new(),
            record_age_ms: 0,
            linked: true,
            score: None,
            list: PeerList::Same,
            vouchers: Vec::new(),
            unusable: None,
            health: HealthStatus {
                loss: 0.0,
                loops: 0,
                latency_ms: days.first().and_then(|day| day.latency_ms),
                avoided: None,
                days: days.to_vec(),
            },
        };
        let peers = [
            peer(
                "abcdefghijklmnopqrstuvwxyz.onion",
                &[PeerRole::Relay, PeerRole::Exit],
                &[day(100, 0.0, 61), day(0, 0.0, 0), day(100, 50.0, 3900), day(10, 10.0, 0)],
            ),
            peer("bb.onion", &[PeerRole::Relay], &[]),
        ];
        assert_eq!(
            mlist2(&peers, 1_795_824_000),
            [
                "Stats-Version: 2.0",
                "Generated: Sat 28 Nov 2026 00:00:00 GMT",
                "Mixmaster    Latent-Hist   Latent  Uptime-Hist   Uptime  Options",
                "----------------------------------------------------------------",
                "abcdefghijkl ?????????2?0     :02  ????????05?+   71.4%",
                "bb.onion     ????????????          ????????????    0.0%  M",
            ]
        );
    }
}

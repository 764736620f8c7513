//! `fog drain`: has a node leave the network so that nothing is lost, and says what it waits for.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use super::{State, say, say_json, wording};
use crate::clock::Clock;
use crate::control::{self, ControlOrder, HeldStatus, Response, Status};
use crate::failure::{Failure, FailureKind};

/// How often the node is asked how far it has got.
const ASKED_EVERY: Duration = Duration::from_millis(500);
/// Questions in a row without an answer after which the node is gone.
const GONE_AFTER: u32 = 3;
/// How often what is waited for is said again.
const SAID_EVERY: Duration = Duration::from_secs(600);
/// With as many nodes as this, or fewer, one less may be too few for routes.
const FEW: usize = 4;

#[derive(Args)]
pub(super) struct Arguments {
    /// End after so long at the latest, for example 30m or 8h, whatever is left [default: 12 hours of the
    /// network, of which ten are needed as a rule].
    #[arg(long, value_name = "TIME", value_parser = span)]
    limit: Option<Duration>,
    /// Order it, and do not wait for the end.
    #[arg(long)]
    no_wait: bool,
    /// Stay after all.
    #[arg(long, conflicts_with_all = ["limit", "no_wait"])]
    cancel: bool,
}

/// A number of seconds, minutes or hours.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "a whole number and one of s, m and h".to_owned();
    let split = text.split_at_checked(text.len().saturating_sub(1));
    let (number, unit) = split.ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(unit * u64::from(number)))
}

/// How it ended.
#[derive(Serialize)]
struct Ended {
    left: HeldStatus,
    /// How long packets may come that others have planned with the node, if they may.
    planned_until_ms: Option<u64>,
    /// Messages of which nothing certain is known, or nothing at all, since it was asked.
    unknown: u64,
    lost: u64,
}

pub(super) async fn run(state: State, arguments: Arguments, json: bool) -> Result<(), Failure> {
    let before = ask(&state, ControlOrder::Status).await?;
    if arguments.cancel {
        order(&state, ControlOrder::Stay).await?;
        let status = ask(&state, ControlOrder::Status).await?;
        return match (json, before.leaving) {
            (true, _) => say_json(&status.leaving),
            (false, None) => say("it was not leaving"),
            (false, Some(_)) => say(
                "it stays, and its next record says so. If a list was made without it, it is on probation again",
            ),
        };
    }
    let limit = arguments.limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    order(&state, ControlOrder::Drain(limit)).await?;
    let mut status = ask(&state, ControlOrder::Status).await?;
    if !json {
        say(
            "no mail is taken any more, and the next record says that this node leaves; it goes on with \
             that without this command too",
        )?;
        if status.view.is_some_and(|view| view.nodes <= FEW) {
            say("there are few nodes: without this one the others may have too few for routes")?;
        }
    }
    if arguments.no_wait {
        return if json { say_json(&status.leaving) } else { Ok(()) };
    }
    let clock = Clock::start();
    let (mut said, mut say_again, mut unanswered) = (None, SAID_EVERY, 0);
    while let Some(leaving) = status.leaving
        && !leaving.over
    {
        let now = Clock::start().now().as_millis();
        // A phase is told by what is waited for; what is held changes all the time.
        let phase = (leaving.needed_until_ms.map(|until| until > now), leaving.ends_ms);
        if !json && (said != Some(phase) || clock.elapsed() >= say_again) {
            say(&wording::leaving(&leaving, &status.held, now))?;
            (said, say_again) = (Some(phase), clock.elapsed() + SAID_EVERY);
        }
        sleep(ASKED_EVERY).await;
        match ask(&state, ControlOrder::Status).await {
            Ok(answer) => (status, unanswered) = (answer, 0),
            Err(_) if unanswered + 1 < GONE_AFTER => unanswered += 1,
            Err(error) => {
                let what = format!("the node has ended, or does not answer: {error}");
                let hint = "fog run goes on with leaving, and with what is in its custody";
                return Err(Failure::new(FailureKind::Undone, what).remedy(hint));
            }
        }
    }
    let Some(leaving) = status.leaving else {
        return Err(Failure::new(FailureKind::Undone, "it stays: the order was taken back"));
    };
    let now = Clock::start().now().as_millis();
    let count = |name: &str| {
        let of = |status: &Status| status.counts.get(name).copied().unwrap_or_default();
        of(&status).saturating_sub(of(&before))
    };
    let ended = Ended {
        left: status.held,
        planned_until_ms: leaving.needed_until_ms.filter(|until| *until > now),
        unknown: count("message over: unknown"),
        lost: count("message over: lost"),
    };
    end(&ended, leaving.needed_until_ms.is_some(), now, json)
}

/// Says what was left.
fn end(ended: &Ended, is_unlisted: bool, now: u64, json: bool) -> Result<(), Failure> {
    if json {
        say_json(ended)?;
    }
    let Ended { left, planned_until_ms, unknown, lost } = ended;
    let held = wording::left(left);
    let all = [
        (held != wording::left(&HeldStatus::default())).then_some(held),
        (!is_unlisted).then(|| "a list that names it".to_owned()),
        planned_until_ms.map(|until| {
            format!("what others have planned with it until {}", wording::time_of_day(until, now))
        }),
        (*unknown > 0).then(|| format!("{unknown} messages that ended unknown")),
        (*lost > 0).then(|| format!("{lost} that are lost")),
    ];
    let all: Vec<_> = all.into_iter().flatten().collect();
    if all.is_empty() {
        return if json { Ok(()) } else { say("left: nothing was left behind") };
    }
    let hint =
        "fog run goes on with messages in custody while they are good; senders try the rest again";
    let what = format!("left, and behind was left: {}", all.join("; "));
    Err(Failure::new(FailureKind::Undone, what).remedy(hint))
}

/// Gives an order, which is on the disk when this returns.
async fn order(state: &State, order: ControlOrder) -> Result<(), Failure> {
    let Response::Done(_) = control::call(&state.folder(), order).await? else {
        return Err(Failure::new(FailureKind::Internal, "the node answered something else"));
    };
    Ok(())
}

async fn ask(state: &State, order: ControlOrder) -> Result<Status, Failure> {
    match control::call(&state.folder(), order).await? {
        Response::Status(status) => Ok(*status),
        Response::Starting(starting) => {
            Err(Failure::new(FailureKind::NoNode, wording::starting(&starting)))
        }
        Response::Peers(_)
        | Response::Message(_)
        | Response::Queue(_)
        | Response::Done(_)
        | Response::Error(_) => {
            Err(Failure::new(FailureKind::Internal, "the node answered something else"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_and_its_unit() {
        for (text, seconds) in [("30s", 30), ("90m", 5400), ("8h", 28_800), ("0s", 0)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "8", "h", "-1h", "1.5h", "8 h", "8d", "99999999999h"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}

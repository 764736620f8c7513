//! `fog status`: the state of a running node, with what needs the operator's attention first.

use super::{State, advice, say, say_json, wording};
use crate::clock::Clock;
use crate::control::{self, ControlOrder, Response, Status};
use crate::failure::{Failure, FailureKind};

pub(super) async fn run(state: State, json: bool) -> Result<(), Failure> {
    let answer = control::call(&state.folder(), ControlOrder::Status).await?;
    let status = match answer {
        Response::Status(status) => status,
        Response::Starting(starting) if json => return say_json(&starting),
        Response::Starting(starting) => return say(&wording::starting(&starting)),
        Response::Peers(_)
        | Response::Message(_)
        | Response::Queue(_)
        | Response::Done(_)
        | Response::Error(_) => {
            return Err(Failure::new(FailureKind::Internal, "the node answered something else"));
        }
    };
    if json {
        return say_json(&status);
    }
    for line in lines(&status, Clock::start()) {
        say(&line)?;
    }
    Ok(())
}

/// Says what has become of a message.
pub(super) async fn message(state: State, name: String, json: bool) -> Result<(), Failure> {
    let order = ControlOrder::Message(name);
    let Response::Message(states) = control::call(&state.folder(), order).await? else {
        return Err(Failure::new(FailureKind::Internal, "the node answered something else"));
    };
    if json {
        return say_json(&states);
    }
    for (what, recipients) in states {
        say(&format!("{recipients} {what}"))?;
    }
    Ok(())
}

/// Fewer than this are little.
const MANY: u32 = 20;

/// Among how many mails a submitted one hides, and what would help if these are few.
fn hides(among: u32) -> String {
    let others = match among {
        0 => "no other that is known of".to_owned(),
        mails => format!("up to {mails} of its size"),
    };
    let helps = "; that is little: more mail in the network helps, and a longer X-Fog-Hold";
    format!("hides    a mail among {others}{}", if among < MANY { helps } else { "" })
}

/// What is to be known of a network whose admission is open.
const OPEN: &str = ", open to everybody: it hides nobody";

/// What went into this node's custody since its start, and what came out of it.
fn custody(status: &Status) -> String {
    let count = |name: &str| status.counts.get(name).copied().unwrap_or_default();
    format!(
        "custody  {} taken and {} found at the start: {} delivered, {} failed, {} unknown, {} lost, {} \
         held",
        count("message taken"),
        count("message in custody at the start"),
        count("message over: delivered"),
        count("message over: failed"),
        count("message over: unknown"),
        count("message over: lost"),
        status.held.messages,
    )
}

fn lines(status: &Status, clock: Clock) -> Vec<String> {
    let seconds = |millis: u64| millis / 1000;
    let no_tor = status.tor_failure.as_ref().map(|failure| {
        let remedy = failure.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("WARNING  no Tor: {failure}{remedy}")
    });
    let now = clock.now().as_millis();
    let warnings = status.warnings.iter().flat_map(|warned| {
        [
            format!("WARNING  {}", advice::fault(warned, now)),
            format!("    cost {}", advice::cost(&warned.warning)),
            format!("      do {}", advice::remedy(&warned.warning)),
        ]
    });
    let mut lines: Vec<_> = no_tor.into_iter().chain(warnings).collect();
    let usable = match &status.unusable {
        None => "yes, mail is taken".to_owned(),
        Some(why) => format!("no, {}", wording::no_mail(*why)),
    };
    let view = status.view.map_or("none".to_owned(), |view| {
        let age = clock.now().as_millis().saturating_sub(view.taken_ms);
        format!("{} nodes, taken {} s ago", view.nodes, seconds(age))
    });
    let held = status.held;
    let since = status.reach.since_ms.map(|since| clock.now().as_millis().saturating_sub(since));
    let since = since.map_or(String::new(), |since| format!(" since {} s", seconds(since)));
    let reach = match status.reach.reachable {
        None => "not tried yet".to_owned(),
        Some(true) => format!("reachable{since}"),
        Some(false) => format!("unreachable{since}"),
    };
    let classes = &status.classes;
    let open: Vec<_> = classes.open.iter().map(ToString::to_string).collect();
    let passed = classes.passed.iter().filter(|(_, count)| **count > 0);
    let passed: Vec<_> = passed.map(|(kib, count)| format!("{count} of {kib} KiB")).collect();
    let passed = if passed.is_empty() { "nothing".to_owned() } else { passed.join(", ") };
    let standing = status.standing.as_ref();
    let standing = standing
        .map_or("not in the directory yet".to_owned(), |standing| wording::node_use(standing, now));
    if let Some(tor) = &status.tor {
        lines.push(format!("tor      {tor}"));
    }
    lines.extend([
        format!("node     {}", status.onion),
        format!("network  {}{}", status.network, if status.open { OPEN } else { "" }),
        format!("epoch    {}, ends in {} s", status.epoch, seconds(status.epoch_ends_in_ms)),
        format!("usable   {usable}"),
        format!("peers    {reach}"),
        format!("standing {}", standing),
        format!("known    {} nodes, {} linked", status.known, status.linked),
        format!("view     {view}"),
        format!(
            "classes  {} KiB: stage {}, for {} mails an hour in the whole network",
            open.join(", "),
            classes.stage,
            classes.volume
        ),
        hides(status.hides_among),
        format!("passed   {passed} in the last whole hour"),
        format!(
            "clock    {} of mail and {} of cover in that hour; {:.1} MB sent in all",
            classes.mail,
            classes.cover,
            classes.octets as f64 / 1e6
        ),
        format!(
            "held     {} packets in the mix, {} own waiting, {} messages being delivered, {} in \
             pieces, {} answers awaited, {} packets for streams",
            held.mixing,
            held.waiting,
            held.delivering,
            held.assembling,
            held.answers,
            held.for_streams
        ),
        custody(status),
    ]);
    lines.extend(
        status
            .leaving
            .map(|leaving| format!("leaving  {}", wording::leaving(&leaving, &status.held, now))),
    );
    lines.extend(status.counts.iter().map(|(name, count)| format!("{count:>8} {name}")));
    lines
}

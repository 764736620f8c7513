//! `fog queue`: the messages in a node's custody, as far as the node itself knows them.

use super::{State, say, say_json};
use crate::clock::Clock;
use crate::control::{self, ControlOrder, Queue, Response};
use crate::failure::{Failure, FailureKind};

pub(super) async fn run(state: State, json: bool) -> Result<(), Failure> {
    let Response::Queue(queue) = control::call(&state.folder(), ControlOrder::Queue).await? else {
        return Err(Failure::new(FailureKind::Internal, "the node answered something else"));
    };
    if json {
        return say_json(&queue);
    }
    for line in lines(&queue, Clock::start().now().as_millis()) {
        say(&line)?;
    }
    Ok(())
}

fn lines(queue: &Queue, now: u64) -> Vec<String> {
    let minutes = |millis: u64| millis / 60_000;
    let mut lines = vec![format!("{} messages in custody", queue.messages)];
    if queue.damaged > 0 {
        lines.push(format!("{} that cannot be read are in spool/bad", queue.damaged));
    }
    if queue.suspended {
        lines.push("no loop returns: all of it waits".to_owned());
    }
    if !queue.oldest.is_empty() {
        lines.push("   taken   class  packets  left  held  over in".to_owned());
    }
    lines.extend(queue.oldest.iter().map(|message| {
        format!(
            "{:>4} min {:>3} KiB  {:>7}  {:>4}  {:>4}  {:>3} min",
            minutes(now.saturating_sub(message.accepted_ms)),
            message.class_kib,
            message.packets,
            message.left,
            if message.held { "yes" } else { "-" },
            minutes(message.until_ms.saturating_sub(now)),
        )
    }));
    let more = queue.messages.saturating_sub(queue.oldest.len());
    if more > 0 {
        lines.push(format!("and {more} younger ones"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::QueuedMessage;

    #[test]
    fn a_line_says_when_and_how_large_and_nothing_else() {
        let message = QueuedMessage {
            accepted_ms: 600_000,
            until_ms: 20_000_000,
            class_kib: 16,
            packets: 4,
            left: 1,
            held: false,
        };
        let queue = Queue { messages: 3, damaged: 1, suspended: false, oldest: vec![message] };
        assert_eq!(
            lines(&queue, 1_800_000),
            [
                "3 messages in custody",
                "1 that cannot be read are in spool/bad",
                "   taken   class  packets  left  held  over in",
                "  20 min  16 KiB        4     1     -  303 min",
                "and 2 younger ones",
            ]
        );
    }
}

//! A devnet in real time, with the same mail as a simulated network.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Exp1};
use serde::Deserialize;

use crate::Failed;
use crate::law::Millis;
use crate::trace::{Delivered, Submitted, Trace};
use crate::world::World;

/// How long cover goes before the first mail, and how long mail is waited for after the last, in hours of the
/// network.
const BEFORE: f64 = 0.1;
const AFTER: f64 = 1.2;

/// What a devnet prints once it is ready.
#[derive(Deserialize)]
struct Ready {
    nodes: Vec<ReadyNode>,
}

#[derive(Deserialize)]
struct ReadyNode {
    onion: String,
    smtp: String,
}

/// It ends with its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a devnet with the program `fog`, so many times faster than a network goes, and says what an observer
/// of everything saw.
pub fn run(world: &World, fog: &Path, speed: u32) -> Result<Trace, Failed> {
    let folder = tempfile::tempdir()?;
    let (state, links) = (folder.path().join("state"), folder.path().join("links"));
    let (nodes, of_speed) = (world.nodes.to_string(), speed.to_string());
    let port = (10_000 + std::process::id() % 20_000).to_string();
    let mut command = Command::new(fog);
    command.args(["devnet", "--json", "--mail-apart", "--nodes", &nodes, "--speed", &of_speed]);
    command.args(["--smtp-port", &port]).arg("--link-log").arg(&links);
    command.arg("--state-dir").arg(&state).stdout(Stdio::piped());
    let mut child = Running(command.spawn()?);
    let mut line = String::new();
    let out = child.0.stdout.take().ok_or("the devnet says nothing")?;
    BufReader::new(out).read_line(&mut line)?;
    let Ready { nodes } = serde_json::from_str(&line)?;
    let hours = |count: f64| Duration::from_secs_f64(count * 3600.0 / f64::from(speed));
    sleep(hours(BEFORE));
    let mut rng = StdRng::seed_from_u64(!world.seed);
    let (mut submitted, begin) = (Vec::new(), SystemTime::now());
    let mut due = Duration::ZERO;
    loop {
        let gap: f64 = Exp1.sample(&mut rng);
        due += hours(gap / world.mails);
        if due > hours(world.hours) {
            break;
        }
        sleep(due.saturating_sub(begin.elapsed().unwrap_or_default()));
        let node = rng.random_range(0..nodes.len());
        if submit(fog, &nodes[node].smtp, submitted.len())? {
            let at = millis(SystemTime::now()) * u64::from(speed);
            submitted.push(Submitted { at, node, class: 1 });
        }
    }
    sleep(hours(AFTER));
    drop(child);
    let names: Vec<_> = nodes.into_iter().map(|node| node.onion).collect();
    let mut trace = Trace::read(&links, &names, speed.into())?;
    let last = submitted.last().map_or(0, |mail: &Submitted| mail.at);
    // A simulation ends with its last submission too.
    trace.links.retain(|link| link.sent <= last);
    trace.decoys.retain(|decoy| decoy.at <= last);
    trace.submitted = submitted;
    for exit in 0..names.len() {
        let new = state.join("mail").join(format!("n{}", exit + 1)).join("new");
        // A node that has delivered nothing has no folder.
        for file in fs::read_dir(new).into_iter().flatten() {
            let path = file?.path();
            let at = millis(fs::metadata(&path)?.modified()?) * u64::from(speed);
            let text = fs::read_to_string(&path)?;
            let number = text.lines().find_map(|line| line.strip_prefix("Subject: r"));
            let of = number.ok_or("a mail that nobody submitted")?.parse()?;
            if at <= last {
                trace.delivered.push(Delivered { at, exit, of });
            }
        }
    }
    trace.delivered.sort_by_key(|delivered| delivered.at);
    Ok(trace)
}

fn millis(time: SystemTime) -> Millis {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Hands a mail to a node; whether it takes it.
fn submit(fog: &Path, node: &str, number: usize) -> Result<bool, Failed> {
    let mut command = Command::new(fog);
    command.args(["send", "-", "--to", &format!("r{number}@b.example"), "--via", node]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut message = child.stdin.take().ok_or("fog send takes nothing")?;
    message.write_all(format!("Subject: r{number}\r\n\r\n").as_bytes())?;
    drop(message);
    Ok(child.wait()?.success())
}

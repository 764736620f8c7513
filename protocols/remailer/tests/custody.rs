//! What becomes of mail that a node has answered for, in whole networks: it arrives once, by another exit if
//! it must, or the node says what it knows; and nobody sees it tried again.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use fog_remailer::sim::{NextServer, Simulation};
use fog_remailer::{Alarm, Count, Leaving, MessageState, OperatorOrder, QueueId, Refused};
use keys::Epoch;
use mail::{DeliveryStatus, Mailbox, Submission};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use record::Parameters;

const HOUR: Duration = Duration::from_secs(3600);

/// A network in which mail is taken, two hours after its start.
fn network(nodes: u16, parameters: &Parameters, seed: u64) -> Simulation<ChaCha20Rng> {
    let start = parameters.schedule().start(Epoch::new(165_000));
    let rng = ChaCha20Rng::seed_from_u64(seed);
    let mut network = Simulation::new(nodes, parameters, start, rng).unwrap();
    network.run(HOUR * 2);
    network
}

fn quiet(nodes: u16) -> Parameters {
    Parameters::main().with_first_list(nodes).quiet()
}

fn submit(network: &mut Simulation<ChaCha20Rng>, node: usize, number: usize) -> QueueId {
    let recipients = vec![Mailbox::parse("a@b.example").unwrap()];
    let message = format!("To: a@b.example\r\nSubject: {number}\r\n\r\nbody\r\n").into_bytes();
    network.submit(node, &Submission { recipients, message }).unwrap().name
}

/// How often each mail was delivered, by its subject.
fn delivered(network: &Simulation<ChaCha20Rng>) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for delivered in network.delivered() {
        let text = String::from_utf8_lossy(&delivered.delivery.message).into_owned();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
        *times.entry(subject.unwrap().to_owned()).or_default() += 1;
    }
    times
}

/// The states of messages, each of one recipient, and how often each is met.
fn states(
    network: &Simulation<ChaCha20Rng>,
    ids: &[(usize, QueueId)],
) -> BTreeMap<MessageState, usize> {
    let mut met = BTreeMap::new();
    for (node, id) in ids {
        let states = network.nodes()[*node].message(id).unwrap();
        assert_eq!(states.len(), 1);
        *met.entry(states[0].0).or_default() += 1;
    }
    met
}

/// What was taken or found is over or in custody, at every node.
fn assert_sums(network: &Simulation<ChaCha20Rng>) {
    for node in network.nodes() {
        let count = |count| node.counts().get(count);
        let over = [
            Count::MessageAcknowledged,
            Count::MessageFailed,
            Count::MessageUnknown,
            Count::MessageLost,
        ];
        let over: u64 = over.into_iter().map(count).sum();
        let held = u64::try_from(node.held().messages).unwrap();
        assert_eq!(count(Count::MessageTaken) + count(Count::MessageRestored), over + held);
    }
}

#[test]
fn what_arrives_is_acknowledged_and_not_tried_again() {
    let mut network = network(8, &quiet(8), 1);
    let ids: Vec<_> = (0..24).map(|n| (n % 8, submit(&mut network, n % 8, n))).collect();
    assert_eq!(states(&network, &ids), BTreeMap::from([(MessageState::Queued, 24)]));
    network.run(HOUR);
    assert_eq!(states(&network, &ids), BTreeMap::from([(MessageState::Delivered, 24)]));
    network.run(HOUR * 8);
    assert!(delivered(&network).values().all(|times| *times == 1));
    assert_eq!(network.delivered().len(), 24);
    let sent = |node: &fog_remailer::Remailer| node.counts().get(Count::PacketSent);
    assert_eq!(network.nodes().iter().map(sent).sum::<u64>(), 24, "each left once");
    assert_sums(&network);
    for node in 0..8 {
        assert_eq!(network.in_custody(node).count(), 0, "its disk has forgotten them");
        assert_eq!(network.nodes()[node].held().waiting, 0);
    }
}

/// Every link loses one packet in ten, so four mails in ten do not arrive at the first attempt.
#[test]
fn packets_that_are_lost_are_sent_again() {
    let mut network = network(8, &quiet(8), 2);
    network.lose(100);
    let ids: Vec<_> = (0..80).map(|n| (n % 8, submit(&mut network, n % 8, n))).collect();
    network.run(HOUR);
    let first = delivered(&network).len();
    assert!(first < 65, "{first} at once");
    network.run(HOUR * 9);
    let times = delivered(&network);
    let states = states(&network, &ids);
    let lost = states.get(&MessageState::Lost).copied().unwrap_or_default();
    assert!(times.len() >= 76, "{} of 80", times.len());
    // What is not said to be delivered may be; what is lost is said to be.
    assert!(lost >= 80 - times.len(), "{states:?}");
    let acknowledged = states[&MessageState::Delivered];
    assert!(acknowledged <= times.len() && acknowledged + lost == 80, "{states:?}");
    // One more from the second exit at most: the first remembers what it has delivered.
    assert!(times.values().all(|times| *times <= 2));
    assert_sums(&network);
}

/// An exit that is gone for good, one that takes packets and drops them, and one that may not deliver.
#[test]
fn an_exit_that_fails_is_not_the_only_one() {
    let mut network = network(16, &quiet(16), 3);
    network.serve(13, NextServer::RefusesHere);
    network.serve(14, NextServer::Silent);
    let ids: Vec<_> = (0..60).map(|n| (n % 5, submit(&mut network, n % 5, n))).collect();
    network.run(HOUR / 6);
    network.stop(15);
    network.run(HOUR * 9);
    let times = delivered(&network);
    let states = states(&network, &ids);
    let silent = ids.len() - times.len();
    // A mail is lost whose first hop is the node that is gone, or whose exits are two of the three; and few
    // others. None is silently gone.
    assert!(silent <= 12, "{states:?}");
    let said = |state| states.get(&state).copied().unwrap_or_default();
    let failed = said(MessageState::Failed(DeliveryStatus::RefusedHere));
    assert!(
        failed + said(MessageState::Unknown) + said(MessageState::Lost) >= silent,
        "{states:?}"
    );
    assert_eq!(states.values().sum::<usize>(), 60);
    // Where the word of one exit went through the node that is gone, the other has delivered it too.
    assert!(times.values().all(|times| *times <= 2));
    assert_sums(&network);
}

#[test]
fn what_no_server_takes_fails_and_is_said_to() {
    let mut network = network(8, &quiet(8), 4);
    for node in 0..8 {
        let refuses = if node < 4 { NextServer::Refuses } else { NextServer::Postpones };
        network.serve(node, refuses);
    }
    let ids: Vec<_> = (0..40).map(|n| (n % 8, submit(&mut network, n % 8, n))).collect();
    network.run(HOUR * 2);
    let states = states(&network, &ids);
    let refused = MessageState::Failed(DeliveryStatus::Refused);
    assert_eq!(states.len(), 2, "{states:?}");
    assert_eq!(states[&refused] + states[&MessageState::Delivered], 40);
    assert_eq!(states[&MessageState::Delivered], delivered(&network).len());
    assert_sums(&network);
    // Words of it are forgotten after two days.
    network.run(HOUR * 49);
    assert!(ids.iter().all(|(node, id)| network.nodes()[*node].message(id).is_none()));
}

/// What further attempts cost a mail that needs none of them, and bring one that does: minutes from submission
/// to delivery, with one attempt and with four.
#[test]
fn further_attempts_cost_a_mail_no_time() {
    let minutes = |attempts: u8, loss: u32| {
        let mut parameters = quiet(8);
        parameters.custody.attempts = attempts;
        let mut network = network(8, &parameters, 11);
        network.lose(loss);
        let mut times = BTreeMap::new();
        for number in 0..160 {
            times.insert(number.to_string(), network.now());
            submit(&mut network, number % 8, number);
            network.run(HOUR / 60);
        }
        network.run(HOUR * 7);
        let mut taken = BTreeMap::new();
        for delivered in network.delivered() {
            let text = String::from_utf8_lossy(&delivered.delivery.message).into_owned();
            let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
            let subject = subject.unwrap().to_owned();
            let took = delivered.at.since(times[&subject]).as_secs_f64() / 60.0;
            taken.entry(subject).or_insert(took);
        }
        let mut taken: Vec<f64> = taken.into_values().collect();
        taken.sort_by(f64::total_cmp);
        let at = |part: usize| taken[(taken.len() - 1) * part / 100];
        println!(
            "{attempts} attempts, {loss} of 1000 lost on a link: {} of 160 arrive; median {:.1} min, 90 % \
             within {:.1}, the last {:.1}",
            taken.len(),
            at(50),
            at(90),
            at(100)
        );
        (taken.len(), at(50))
    };
    let ((one, once), (four, tried)) = (minutes(1, 0), minutes(4, 0));
    assert!(one == 160 && four == 160);
    assert!((once - tried).abs() < once / 5.0, "{once} and {tried} minutes");
    let ((few, _), (more, _)) = (minutes(1, 20), minutes(4, 20));
    assert!(few < 155 && more >= 158, "{few} and {more}");
}

/// While no loop returns nothing is tried; then it goes on.
#[test]
fn who_silences_answers_sees_nothing_tried_again() {
    let mut network = network(6, &Parameters::main().with_first_list(6), 7);
    network.run(HOUR / 2);
    network.lose(1000);
    let ids: Vec<_> = (0..4).map(|number| (2, submit(&mut network, 2, number))).collect();
    network.run(HOUR);
    let node = |network: &Simulation<ChaCha20Rng>| {
        let node = &network.nodes()[2];
        let is_silenced = node.alarms(network.now()).contains(&Alarm::Silenced);
        (is_silenced, node.counts().get(Count::PacketSent))
    };
    let (is_silenced, sent) = node(&network);
    assert!(is_silenced && sent <= 8, "{sent}");
    network.run(HOUR);
    assert_eq!(node(&network), (true, sent));
    network.lose(0);
    network.run(HOUR * 5);
    assert!(!node(&network).0);
    assert_eq!(states(&network, &ids), BTreeMap::from([(MessageState::Delivered, 4)]));
}

/// A large mail where every link loses one packet in ten, so that four pieces in ten do not arrive at once, and
/// one of which two nodes die after it was taken.
#[test]
fn pieces_under_fire_make_a_whole() {
    let mut fires = vec![(14, 10 << 20, 100, 0, 8)];
    if std::env::var_os("FOG_LONG").is_some() {
        fires.push((24, 9 << 20, 0, 2, 9));
    }
    for (nodes, octets, loss, dead, seed) in fires {
        let mut network = network(nodes, &quiet(nodes), seed);
        network.lose(loss);
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut message = b"To: a@b.example\r\nSubject: large\r\nX-Fog-Hold: 0\r\n\r\n".to_vec();
        let mut line = [0; 76];
        while message.len() + 78 <= octets - 200 {
            rng.fill_bytes(&mut line);
            message.extend(line.iter().map(|octet| (octet & 0x7f).max(33)));
            message.extend_from_slice(b"\r\n");
        }
        let recipients = vec![Mailbox::parse("a@b.example").unwrap()];
        let body = message.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap();
        let body = message[body..].to_vec();
        let id = network.submit(1, &Submission { recipients, message }).unwrap().name;
        network.run(HOUR / 6);
        for number in 0..dead {
            network.stop(usize::from(nodes) - 1 - number);
        }
        network.run(HOUR * 7);
        assert_eq!(network.delivered().len(), 1, "{octets} octets");
        assert!(network.delivered()[0].delivery.message.ends_with(&body), "octet for octet");
        let said = network.nodes()[1].message(&id).unwrap();
        assert_eq!(said, [(MessageState::Delivered, 1)]);
    }
}

/// A node leaves while mail that it has taken is under way, and while others have planned theirs through it and
/// to it, of which a part is lost and sent again for hours: packets come as long as they were planned, none after
/// that, and none of the mail is lost by its leaving. It ends with an hour, and before its limit.
#[test]
fn a_node_leaves_and_nothing_is_lost() {
    const NODE: usize = 3;
    let mut networks = vec![(quiet(8), 60, 12)];
    // With cover, which a node makes until it ends.
    if std::env::var_os("FOG_LONG").is_some() {
        networks.push((Parameters::main().with_first_list(8), 0, 14));
    }
    for (parameters, loss, seed) in networks {
        let mut network = network(8, &parameters, seed);
        network.lose(loss);
        let node = network.nodes()[NODE].node();
        let mut ids: Vec<_> = (0..24).map(|n| (n % 8, submit(&mut network, n % 8, n))).collect();
        network.order(NODE, OperatorOrder::Leave(None)).ok().unwrap();
        let recipients = vec![Mailbox::parse("a@b.example").unwrap()];
        let message = b"To: a@b.example\r\n\r\nx\r\n".to_vec();
        let refused = network.submit(NODE, &Submission { recipients, message });
        assert_eq!(refused.unwrap_err(), Refused::Leaving);
        assert_eq!(network.nodes()[NODE].check_routes(network.now()), Err(Refused::Leaving));
        let names = |network: &Simulation<ChaCha20Rng>| {
            let views = network.nodes().iter().filter_map(|of| of.view());
            views.filter(|view| view.get(&node).is_some()).count()
        };
        let begun = network.now();
        let mut unlisted = None;
        while !network.nodes()[NODE].leaving().unwrap().is_over {
            if names(&network) > 0 {
                for by in (0..8).filter(|by| *by != NODE) {
                    ids.push((by, submit(&mut network, by, ids.len())));
                }
            } else {
                unlisted.get_or_insert(network.now());
            }
            network.run(HOUR / 4);
        }
        let (waited, unlisted) = (network.now().since(begun), unlisted.unwrap());
        assert_eq!(names(&network), 0, "no list names it");
        assert!(waited > HOUR * 9 && waited < HOUR * 11, "{waited:?}");
        let Leaving { needed_until, ends, .. } = network.nodes()[NODE].leaving().unwrap();
        let (needed, ends) = (needed_until.unwrap(), ends.unwrap());
        let schedule = parameters.schedule();
        assert_eq!(schedule.hour_start(schedule.hour_at(ends)), ends);
        let came = |from, to| {
            let is_such = |sent: &&fog_remailer::sim::Sent| {
                sent.to == NODE && sent.from != NODE && (from..to).contains(&sent.arrives)
            };
            network.sent().iter().filter(is_such).count()
        };
        if loss > 0 {
            let hours: Vec<_> = (0..10)
                .map(|hour| came(unlisted.plus(HOUR * hour), unlisted.plus(HOUR * (hour + 1))))
                .collect();
            assert!(hours[..4].iter().all(|packets| *packets > 0), "{hours:?}");
            assert_eq!(came(needed, ends), 0, "{hours:?}");
        }
        assert_eq!(network.nodes()[NODE].held().messages, 0);
        network.stop(NODE);
        network.run(HOUR * 7);
        let met = states(&network, &ids);
        let times = delivered(&network);
        match loss {
            0 => assert_eq!(met, BTreeMap::from([(MessageState::Delivered, ids.len())])),
            // Of four attempts at each all are lost for one in some hundred, whoever leaves.
            _ => assert!(met[&MessageState::Delivered] * 100 >= ids.len() * 95, "{met:?}"),
        }
        assert!(
            ids.len() > 30 && times.values().all(|times| *times <= if loss > 0 { 2 } else { 1 })
        );
        assert_sums(&network);
    }
}

/// A node that stays after all takes mail at once, and is named by the next list but one.
#[test]
fn a_node_that_stays_after_all_is_used_again() {
    const NODE: usize = 3;
    let mut network = network(8, &quiet(8), 13);
    network.order(NODE, OperatorOrder::Leave(None)).ok().unwrap();
    network.run(HOUR * 2);
    let node = network.nodes()[NODE].node();
    let is_named = |network: &Simulation<ChaCha20Rng>| {
        network.nodes()[0].directory().list().unwrap().get(&node).is_some()
    };
    assert!(!is_named(&network));
    network.order(NODE, OperatorOrder::Stay).ok().unwrap();
    assert_eq!(network.nodes()[NODE].leaving(), None);
    let id = submit(&mut network, NODE, 1);
    network.run(HOUR * 2);
    assert!(is_named(&network));
    assert_eq!(states(&network, &[(NODE, id)]), BTreeMap::from([(MessageState::Delivered, 1)]));
}

/// The largest distance between the shares of two samples that lie below a point (Kolmogorov-Smirnov), in
/// units of what chance makes of it.
fn apart(one: &mut [f64], other: &mut [f64]) -> f64 {
    one.sort_by(f64::total_cmp);
    other.sort_by(f64::total_cmp);
    let share = |of: &[f64], point: f64| {
        of.partition_point(|value| *value <= point) as f64 / of.len() as f64
    };
    let points = one.iter().chain(other.iter());
    let most = points.map(|point| (share(one, *point) - share(other, *point)).abs());
    let (n, m) = (one.len() as f64, other.len() as f64);
    most.fold(0.0, f64::max) * (n * m / (n + m)).sqrt()
}

/// With no word from any next server, all that a node has taken is tried four times; otherwise once. What the
/// node's links carry is the same: how many packets, of which sizes, and when.
#[test]
fn trying_again_shows_nothing() {
    const NODE: usize = 2;
    let parameters = Parameters::main().with_first_list(6);
    let watch = |serves: NextServer, seed: u64| {
        let mut network = network(6, &parameters, seed);
        for node in 0..6 {
            network.serve(node, serves);
        }
        let from = network.now();
        let mut taken = 0;
        for round in 0..6 {
            for number in 0..2 {
                submit(&mut network, NODE, round * 2 + number);
                taken += 1;
            }
            network.run(HOUR / 3);
        }
        network.run(HOUR);
        let mail = network.nodes()[NODE].counts().get(Count::PacketSent);
        let own = |sent: &&fog_remailer::sim::Sent| {
            sent.at >= from && sent.from == NODE && sent.after.is_none()
        };
        let sent: Vec<_> = network.sent().iter().filter(own).map(|s| (s.at, s.octets)).collect();
        let gaps = sent.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_secs_f64());
        let sizes = sent.iter().map(|(_, octets)| *octets as f64);
        (mail, taken, gaps.collect::<Vec<_>>(), sizes.collect::<Vec<_>>(), sent.len() as f64)
    };
    let (once, taken, mut gaps, mut sizes, all) = watch(NextServer::Takes, 5);
    let (again, _, mut gaps_again, mut sizes_again, all_again) = watch(NextServer::Silent, 6);
    assert!(
        once <= taken + 2 && again * 2 >= taken * 3,
        "{once} and {again} packets of {taken} mails"
    );
    // 99.9 % of samples of one law lie below 1.95.
    let (time, size) = (apart(&mut gaps, &mut gaps_again), apart(&mut sizes, &mut sizes_again));
    assert!(time < 1.95 && size < 1.95, "{time:.2}, {size:.2}");
    // A Poisson count varies by its root.
    let count = (all - all_again).abs() / (all + all_again).sqrt();
    assert!(count < 3.3, "{all} and {all_again} packets");
}

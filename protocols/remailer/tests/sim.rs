//! Whole networks in virtual time: what users, observers and attackers see.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{MINUTE, mail, network, total};
use fog_remailer::sim::Simulation;
use fog_remailer::{
    Command, Count, Dropped, Judgement, NoAnswer, NotAnswered, NotTaken, Refused, Remailer, Setup,
};
use keys::{Epoch, Identity, NetworkId, Time};
use mail::{Acknowledgement, DeliveryStatus, Fragment, Mailbox, MessageError, Submission, scrub};
use rand::RngExt as _;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use record::{
    Capabilities, Domains, Draft, ExitPolicy, Parameters, Sending, StatementError, testing,
};
use sphinx::{
    Body, End, Hop, Payload, ReplyBlock, ReplyEnd, SizeClass, StreamToken, reply_block, wrap,
};

fn main_network(nodes: u16) -> Parameters {
    Parameters::main().with_first_list(nodes).quiet()
}

fn is_loss(count: Count) -> bool {
    matches!(count, Count::PacketDropped(_) | Count::MessageDropped(_))
}

#[test]
fn a_mail_crosses_three_to_six_other_nodes() {
    for seed in 0..20 {
        let mut simulation = network(9, &main_network(9), seed);
        simulation.submit(0, &mail("a@b.example", "body")).unwrap();
        simulation.run(MINUTE * 60);
        let [delivered] = simulation.delivered() else {
            panic!("{}", simulation.delivered().len())
        };
        assert_ne!(delivered.exit, 0);
        assert!(delivered.delivery.message.ends_with(b"\r\n\r\nbody\r\n"));
        let links = simulation.sent();
        assert!(links.iter().all(|link| link.octets == links[0].octets));
        // One path to the exit and another back, no node twice on either.
        let mut ends = vec![0];
        let mut visited = vec![0];
        for link in links {
            assert_eq!(link.from, *visited.last().unwrap());
            assert!(!visited.contains(&link.to) || link.to == 0);
            visited.push(link.to);
            if link.to == delivered.exit || link.to == 0 {
                assert!((4..=7).contains(&visited.len()), "{visited:?}");
                visited = vec![link.to];
                ends.push(link.to);
            }
        }
        assert_eq!(ends, [0, delivered.exit, 0]);
        let acknowledged = Count::Acknowledged(DeliveryStatus::Delivered);
        assert_eq!(simulation.nodes()[0].counts().get(acknowledged), 1);
        assert_eq!(total(&simulation, acknowledged), 1);
        assert_eq!(simulation.nodes()[0].held().answers, 0);
    }
}

/// Lengths of the packets that were sent since there were `before`, in KiB.
fn kib(simulation: &Simulation<ChaCha20Rng>, before: usize) -> BTreeSet<usize> {
    simulation.sent()[before..].iter().map(|link| link.octets / 1024).collect()
}

#[test]
fn more_classes_open_when_the_exits_have_delivered_enough_and_for_all_at_once() {
    let mut parameters = main_network(9);
    for (stage, from) in parameters.stages.iter_mut().zip([0, 1, 10_000]) {
        stage.from = from;
    }
    let mut simulation = network(9, &parameters, 4);
    let stages = |simulation: &Simulation<ChaCha20Rng>| {
        let of = |node: &Remailer| {
            let classes = node.classes(simulation.now());
            let open: Vec<_> = classes.open.iter().map(|class| class.packet_len() / 1024).collect();
            (classes.stage, open)
        };
        simulation.nodes().iter().map(of).collect::<BTreeSet<_>>()
    };
    assert_eq!(stages(&simulation), [(0, vec![24, 64, 256])].into());
    simulation.submit(0, &mail("a@b.example", "body")).unwrap();
    simulation.run(MINUTE * 50);
    assert_eq!(kib(&simulation, 0), [24].into());
    let before = simulation.sent().len();
    simulation.submit(0, &mail("a@b.example", &"body\r\n".repeat(4000))).unwrap();
    simulation.run(MINUTE * 50);
    // The answer returns in the class of the packet that asked for it.
    assert_eq!(kib(&simulation, before), [64].into());

    for sender in 0..9 {
        for _ in 0..8 {
            simulation.submit(sender, &mail("a@b.example", "body")).unwrap();
        }
    }
    simulation.run(MINUTE * 60 * 8);
    assert_eq!(simulation.delivered().len(), 74);
    assert_eq!(stages(&simulation), [(1, vec![16, 24, 48, 96, 256])].into());
    let before = simulation.sent().len();
    simulation.submit(0, &mail("a@b.example", "body")).unwrap();
    simulation.run(MINUTE * 50);
    assert_eq!(kib(&simulation, before), [16].into());
    let passed = |simulation: &Simulation<ChaCha20Rng>| -> u32 {
        simulation.nodes().iter().map(|node| node.classes(simulation.now()).packets[0]).sum()
    };
    let mut minutes = 0;
    while passed(&simulation) == 0 {
        minutes += 5;
        assert!(minutes < 60, "packets of 16 KiB in the last whole hour");
        simulation.run(MINUTE * 5);
    }
}

/// A peer that is no node sends a mail, with a reply block whose way ends on a stream of its own.
#[test]
fn a_peer_without_an_address_hears_on_its_stream_what_became_of_its_mail() {
    let mut simulation = network(9, &main_network(9), 6);
    let mut rng = ChaCha20Rng::seed_from_u64(60);
    let now = simulation.now();
    let epoch = simulation.descriptor().parameters().schedule().epoch_at(now);
    let records: Vec<_> = simulation
        .nodes()
        .iter()
        .map(|node| simulation.nodes()[0].directory().newest(&node.node()).unwrap().clone())
        .collect();
    let way = |of: [usize; 3]| {
        of.map(|number| {
            let record = &records[number];
            Hop { node: record.node(), epoch, key: record.key(epoch).unwrap(), delay: MINUTE }
        })
    };
    let class = SizeClass::all().nth(1).unwrap();
    let token = StreamToken::from_bytes([3; 16]);
    let mut send = |simulation: &mut Simulation<ChaCha20Rng>, id: u8| {
        let end = ReplyEnd::Stream(token);
        let (block, keys) = reply_block(&way([3, 4, 5]), end, class, &mut rng).unwrap();
        let scrubbed = scrub(&mail("a@b.example", "body")).unwrap().pop().unwrap();
        let fragment = Fragment::cut(scrubbed, [id; 16], [id; 16]);
        let content = [&[1][..], &fragment.encode().unwrap()].concat();
        let body = Body { end: End::Deliver, class, content: &content, reply: Some(&block) };
        let packet = wrap(&way([0, 1, 2]), &body, &mut rng).unwrap();
        simulation.inject(0, packet.octets().to_vec());
        keys
    };

    // The stream is there when the answer comes.
    simulation.present(5, &[StreamToken::from_bytes([9; 16]), token]);
    let keys = send(&mut simulation, 1);
    simulation.run(MINUTE * 20);
    assert_eq!(simulation.delivered().len(), 1);
    let [handed] = simulation.handed() else { panic!("{}", simulation.handed().len()) };
    assert!(handed.token == token && handed.name == Some(keys.name()));
    let payload = Payload::from_octets(handed.payload.octets().to_vec()).unwrap();
    let content = keys.open(payload).unwrap();
    assert_eq!(content[0], 2);
    let said = Acknowledgement::decode(&content[1..]).unwrap();
    assert_eq!(said.iter().collect::<Vec<_>>(), [(DeliveryStatus::Delivered, 1)]);

    // While the stream is not there the answer is kept, for ten minutes.
    simulation.drop_streams(5);
    for (id, back_after, handed) in [(2, MINUTE * 8, 2), (3, MINUTE * 14, 2)] {
        send(&mut simulation, id);
        while simulation.nodes()[5].held().for_streams == 0 {
            simulation.run(MINUTE / 6);
        }
        simulation.run(back_after);
        simulation.present(5, &[token]);
        assert_eq!(simulation.handed().len(), handed);
        simulation.drop_streams(5);
    }
    let dropped = Count::PacketDropped(Dropped::NoStream);
    assert_eq!(simulation.nodes()[5].counts().get(dropped), 1);
}

/// Strangers send loops of their own making: what no sender of the network makes is turned nowhere.
#[test]
fn loops_of_strangers_are_turned_once_in_their_own_class_and_in_their_time() {
    let mut simulation = network(9, &main_network(9), 61);
    let mut rng = ChaCha20Rng::seed_from_u64(62);
    let now = simulation.now();
    let epoch = simulation.descriptor().parameters().schedule().epoch_at(now);
    let newest = |node: &Remailer| simulation.nodes()[0].directory().newest(&node.node()).cloned();
    let records: Vec<_> = simulation.nodes().iter().map(|node| newest(node).unwrap()).collect();
    let way = |of: [usize; 3]| {
        of.map(|number| {
            let record = &records[number];
            let key = record.key(epoch).unwrap();
            Hop { node: record.node(), epoch, key, delay: Duration::ZERO }
        })
    };
    let class = |number| SizeClass::all().nth(number).unwrap();
    let mut block = |of| reply_block(&way([3, 4, 5]), ReplyEnd::Owner, of, &mut rng).unwrap().0;
    let (small, large, used) = (block(class(1)), block(class(8)), block(class(1)));
    let again = ReplyBlock::from_octets(&used.to_octets()).unwrap();
    let mut send = |simulation: &mut Simulation<ChaCha20Rng>, reply: Option<&ReplyBlock>| {
        let body = Body { end: End::Deliver, class: class(1), content: &[3], reply };
        let packet = wrap(&way([0, 1, 2]), &body, &mut rng).unwrap();
        simulation.inject(0, packet.octets().to_vec());
        simulation.run(MINUTE * 5);
    };
    let counted = |simulation: &Simulation<ChaCha20Rng>| {
        let turning = simulation.nodes()[2].counts();
        let refused = |why| turning.get(Count::NotAnswered(why));
        let sent = turning.get(Count::AnswerSent);
        [sent, refused(NotAnswered::Malformed), refused(NotAnswered::Used)]
    };
    send(&mut simulation, Some(&small));
    assert_eq!(counted(&simulation), [1, 0, 0]);
    // A small packet becomes no large one, and one without a block comes back to nobody.
    send(&mut simulation, Some(&large));
    send(&mut simulation, None);
    assert_eq!(counted(&simulation), [1, 2, 0]);
    send(&mut simulation, Some(&used));
    send(&mut simulation, Some(&again));
    assert_eq!(counted(&simulation), [2, 2, 1]);
    assert_eq!(simulation.nodes()[2].counts().get(Count::LoopTurned), 5);
    // Their owner has not asked for any.
    let unexpected = Count::AnswerRefused(NoAnswer::Unexpected);
    assert_eq!(simulation.nodes()[5].counts().get(unexpected), 2);
}

/// Nobody mails anything, and packets of all open classes are on all links: loops that come back, and
/// packets that end somewhere.
#[test]
fn a_network_without_mail_carries_loops_that_come_back_and_cover_that_ends() {
    let parameters = Parameters::main().with_first_list(9);
    let mut simulation = network(9, &parameters, 21);
    simulation.run(MINUTE * 90);
    let [ticks, beside, drops] =
        [Count::LoopSent, Count::TopUpSent, Count::DropSent].map(|count| total(&simulation, count));
    // 240 ticks an hour and node, half of them of each kind; loops fill up batches beside.
    assert!((1400..1850).contains(&ticks) && beside < 200, "{ticks} and {beside}");
    let loops = ticks + beside;
    assert!((1400..1850).contains(&drops), "{drops}");
    assert_eq!(total(&simulation, Count::PacketSent), 0);
    let returned = total(&simulation, Count::LoopReturned);
    let held = simulation.nodes().iter().map(|node| node.held().answers as u64).sum::<u64>();
    assert_eq!(total(&simulation, Count::LoopMissing), 0);
    assert_eq!(returned + held, loops, "{returned} returned, {held} on their way");
    assert!(returned * 10 > loops * 8, "{returned} of {loops}");
    assert_eq!(total(&simulation, Count::LoopTurned), total(&simulation, Count::AnswerSent));
    assert_eq!(kib(&simulation, 0), [24, 64, 256].into());
    let lonely = total(&simulation, Count::PacketLonely);
    let relayed = total(&simulation, Count::PacketRelayed);
    assert!(lonely * 20 < relayed, "{lonely} of {relayed} without company");
    // What each node sends in an hour.
    let octets: usize = simulation.sent().iter().map(|link| link.octets).sum();
    let each = octets / 9 * 60 / 90;
    assert!((95_000_000..105_000_000).contains(&each), "{each} octets");
}

/// Lines that no code makes much shorter.
fn noise(octets: usize, seed: u64) -> String {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut text = String::with_capacity(octets + 80);
    while text.len() < octets {
        let line = [0; 76].map(|_: u8| char::from(rng.random_range(33_u8..127)));
        text.extend(line);
        text.push_str("\r\n");
    }
    text
}

#[test]
fn ten_megabytes_cross_a_network_that_loses_two_of_a_hundred_packets() {
    let mut simulation = network(9, &main_network(9), 8);
    simulation.lose(20);
    let body = noise((10 << 20) - 400, 1);
    let now = simulation.now();
    let taken = simulation.submit(0, &mail("a@b.example", &body)).unwrap();
    let through = taken.through.unwrap();
    assert!(through > now.plus(MINUTE * 120) && through < now.plus(MINUTE * 400));

    // The clock has too few ticks for another like it; for a smaller one it has.
    let full = simulation.submit(0, &mail("a@b.example", &body)).unwrap_err();
    let Refused::FullFor(octets) = full else { panic!("{full}") };
    assert!((240_000..6 << 20).contains(&octets), "{octets}");
    let counts = simulation.nodes()[0].counts();
    assert_eq!(counts.get(Count::MessageRefused(Refused::Full)), 1);
    let smaller = noise(usize::try_from(octets).unwrap() - 1000, 2);
    simulation.submit(0, &mail("c@d.example", &smaller)).unwrap();
    let over = noise((10 << 20) + 1, 3);
    assert_eq!(simulation.submit(1, &mail("a@b.example", &over)), Err(Refused::TooBig));

    simulation.run(MINUTE * 450);
    assert!(simulation.lost() >= 3, "{}", simulation.lost());
    let ends: Vec<_> = simulation.delivered().iter().map(|one| &one.delivery.message).collect();
    assert_eq!(ends.len(), 2);
    for body in [&body, &smaller] {
        let whole = [b"\r\n\r\n", body.as_bytes()].concat();
        assert!(
            ends.iter().any(|message| message.strip_suffix(b"\r\n").unwrap().ends_with(&whole))
        );
    }
    // All pieces of a mail went to one exit, and came in the largest class.
    let pieces = |node: &Remailer| node.counts().get(Count::PieceTaken);
    let exits = simulation.nodes().iter().filter(|node| pieces(node) > 0);
    assert!(exits.count() <= 3);
    // On no link, in either direction, is a packet of another length than those of the open classes.
    assert_eq!(kib(&simulation, 0), [256].into());
    assert!(simulation.sent().iter().all(|link| link.octets == 256 * 1024));
    // Of each mail one answer came back, unless that was lost.
    simulation.run(MINUTE * 400);
    let delivered = total(&simulation, Count::Acknowledged(DeliveryStatus::Delivered));
    assert_eq!(delivered + total(&simulation, Count::AnswerMissing), 2);
    assert!(delivered >= 1, "{delivered}");
    assert_eq!(simulation.nodes()[0].held().answers, 0);
    let held: Vec<_> = simulation.nodes().iter().map(|node| node.held().assembling).collect();
    assert_eq!(held, [0; 9]);
}

#[test]
fn in_a_network_of_more_than_64_packets_take_no_way_but_the_links_of_the_list() {
    let mut simulation = network(70, &main_network(70), 1);
    let view = std::sync::Arc::clone(simulation.nodes()[0].view().unwrap());
    assert!(view.len() == 70 && !view.is_complete());
    for from in 0..20 {
        simulation.submit(from, &mail("a@b.example", "body")).unwrap();
    }
    simulation.run(MINUTE * 40);
    assert_eq!(simulation.delivered().len(), 20);
    let nodes: Vec<_> = simulation.nodes().iter().map(Remailer::node).collect();
    for link in simulation.sent() {
        let near = view.links_of(&nodes[link.from]).unwrap();
        assert!(
            near.len() <= 16 && near.contains(&nodes[link.to]),
            "no link is opened for a packet"
        );
    }
}

#[test]
fn with_too_few_nodes_nothing_is_taken_and_nothing_leaves() {
    for nodes in 1..=3 {
        let mut simulation = network(nodes, &main_network(nodes), 1);
        let refused = simulation.submit(0, &mail("a@b.example", "body"));
        assert_eq!(refused, Err(Refused::TooFewNodes), "{nodes} nodes");
        simulation.run(MINUTE * 300);
        assert!(simulation.delivered().is_empty() && simulation.sent().is_empty());
    }
    let mut simulation = network(4, &main_network(4), 1);
    simulation.submit(0, &mail("a@b.example", "body")).unwrap();
    simulation.run(MINUTE * 60);
    // Three hops there, and three back.
    assert_eq!((simulation.delivered().len(), simulation.sent().len()), (1, 6));
}

#[test]
fn mail_to_many_domains_takes_half_of_the_clock_and_no_more() {
    let mut simulation = network(7, &main_network(7), 3);
    let to = |number: usize, count: usize| {
        let recipient = |at| Mailbox::parse(&format!("a@d{at}.m{number}.example")).unwrap();
        let message = b"Subject: s\r\n\r\nbody\r\n".to_vec();
        Submission { recipients: (0..count).map(recipient).collect(), message }
    };
    let flood: Vec<_> = (0..20).map(|number| simulation.submit(0, &to(number, 100))).collect();
    let in_flood = flood.iter().filter(|taken| taken.is_ok()).count();
    assert!((1..=2).contains(&in_flood));
    assert!(flood[in_flood..].iter().all(|refused| *refused == Err(Refused::Full)), "452");
    // Anybody else's mail is taken, and leaves within its hold and half an hour.
    for number in 20..36 {
        simulation.submit(0, &to(number, 1)).unwrap();
    }
    simulation.run(MINUTE * 75);
    let of_flood = |message: &&fog_remailer::sim::Delivered| {
        let domain = message.delivery.recipients[0].domain().as_str();
        domain.contains(".m0.") || domain.contains(".m1.")
    };
    let flood = simulation.delivered().iter().filter(of_flood).count();
    let alone = simulation.delivered().len() - flood;
    assert!(flood < 100 && alone == 16, "{flood} of the flood, {alone} others");
    simulation.run(MINUTE * 400);
    assert_eq!(simulation.delivered().len(), 16 + in_flood * 100);
    // More than leaves in that time is refused, and said.
    let mut taken = 0;
    while simulation.submit(0, &to(60 + taken, 1)).is_ok() {
        taken += 1;
        assert!(taken < 300);
    }
    assert!((20..150).contains(&taken), "{taken}");
}

#[test]
fn rotation_loses_nothing_over_many_epochs() {
    for (parameters, gap) in [
        (main_network(8), MINUTE * 7),
        (Parameters::scaled(540, 8).quiet(), Duration::from_millis(900)),
    ] {
        let mut simulation = network(8, &parameters, 3);
        let schedule = parameters.schedule();
        let first = schedule.epoch_at(simulation.now());
        let mut submitted = 0;
        while schedule.epoch_at(simulation.now()) < first.plus(5) {
            simulation.submit(submitted % 8, &mail("a@b.example", "body")).unwrap();
            submitted += 1;
            simulation.run(gap);
        }
        simulation.run(gap * 12);
        assert_eq!(simulation.delivered().len(), submitted);
        let received = total(&simulation, Count::PacketReceived);
        let relayed = total(&simulation, Count::PacketRelayed);
        assert_eq!(received, relayed + submitted as u64, "nothing was dropped on the way");
        for node in simulation.nodes() {
            assert!(node.counts().get(Count::RecordPublished) >= 15);
            assert!(node.counts().iter().all(|(count, _)| !is_loss(count)));
        }
    }
}

#[test]
fn bad_packets_are_dropped_silently_and_counted_by_reason() {
    let mut simulation = network(7, &main_network(7), 4);
    simulation.submit(0, &mail("a@b.example", "body")).unwrap();
    while simulation.last_packet().is_none() {
        simulation.run(Duration::from_secs(1));
    }
    let (to, packet) = simulation.last_packet().unwrap();
    let packet = packet.to_vec();
    simulation.run(MINUTE * 60);
    let sent = simulation.sent().len();
    let altered = |at: usize| {
        let mut altered = packet.clone();
        altered[at] ^= 1;
        altered
    };
    let octets = |length| vec![1; length];
    for (bad, reason) in [
        (packet.clone(), Dropped::Replay),
        (octets(1000), Dropped::Length),
        (octets(16 * 1024 + 1), Dropped::Length),
        (altered(0), Dropped::Version),
        (altered(4), Dropped::Early),
        (altered(1500), Dropped::Mac),
        (altered(packet.len() - 1), Dropped::Replay),
    ] {
        let count = Count::PacketDropped(reason);
        let before = simulation.nodes()[to].counts().get(count);
        simulation.inject(to, bad);
        simulation.run(MINUTE);
        assert_eq!(simulation.nodes()[to].counts().get(count), before + 1, "{reason:?}");
    }
    simulation.run(MINUTE * 60);
    assert_eq!(simulation.delivered().len(), 1);
    assert_eq!(simulation.sent().len(), sent);

    // The key is gone: the packet is too late for ever.
    simulation.run(MINUTE * 240);
    assert_eq!(simulation.nodes()[to].latest_packet(), None);
    simulation.inject(to, packet);
    simulation.run(MINUTE);
    let node = &simulation.nodes()[to];
    assert_eq!(node.counts().get(Count::PacketDropped(Dropped::Late)), 1);
    assert!(node.latest_packet() > Some(MINUTE * 60), "and that is measured");
}

#[test]
fn an_altered_payload_dies_at_the_next_hop_and_its_header_counts_as_seen() {
    let mut simulation = network(7, &main_network(7), 5);
    simulation.submit(0, &mail("a@b.example", "body")).unwrap();
    while simulation.last_packet().is_none() {
        simulation.run(Duration::from_millis(1));
    }
    // Faster than the honest link: altered first, honest second.
    let (to, packet) = simulation.last_packet().unwrap();
    let mut altered = packet.to_vec();
    *altered.last_mut().unwrap() ^= 1;
    for _ in 0..20 {
        simulation.inject(to, altered.clone());
    }
    simulation.run(MINUTE * 60);
    // 21 copies of one header: the first one decides, all others are replays.
    let count = |why| simulation.nodes()[to].counts().get(Count::PacketDropped(why));
    assert_eq!(count(Dropped::Replay), 20);
    assert_eq!(count(Dropped::Payload) + simulation.delivered().len() as u64, 1);
}

#[test]
fn the_first_packet_of_a_mail_leaves_after_a_uniform_hold() {
    let parameters = main_network(7);
    let hold = parameters.sending.max_hold;
    let mut simulation = network(7, &parameters, 40);
    // One mail at a time, at a node that sends nothing else: its first packet is the mail's.
    let mut held = Vec::new();
    for number in 0..250 {
        let (from, before) = (number % 7, simulation.sent().len());
        let submitted = simulation.now();
        simulation.submit(from, &mail("a@b.example", "body")).unwrap();
        // Long enough for its answer to be back.
        simulation.run(MINUTE * 90);
        let first = &simulation.sent()[before];
        assert_eq!(first.from, from);
        held.push(first.at.since(submitted).as_secs_f64() / hold.as_secs_f64());
    }
    held.sort_by(f64::total_cmp);
    let count = held.len() as f64;
    let distance = held.iter().enumerate().map(|(rank, at)| (at - rank as f64 / count).abs());
    let distance = distance.fold(0.0, f64::max);
    // Kolmogorov-Smirnov: 99.9 % of uniform samples lie below 1.95 / sqrt(n). The wait for a tick
    // is less than a minute of the twenty.
    assert!(distance < 1.95 / count.sqrt() + 0.02, "{distance}");
}

/// A sender decides how long its mail is held at most, as long as keys reach.
#[test]
fn a_hold_that_is_asked_for_is_kept_to() {
    let mut simulation = network(7, &main_network(7), 41);
    let asking = |minutes: u64| {
        let mut mail = mail("a@b.example", "body");
        mail.message.splice(0..0, format!("X-Fog-Hold: {minutes}\r\n").into_bytes());
        mail
    };
    for (minutes, of) in [(0, 6), (300, 20)] {
        let submitted = simulation.now();
        let before = simulation.sent().len();
        for _ in 0..of {
            simulation.submit(0, &asking(minutes)).unwrap();
        }
        simulation.run(MINUTE * 400);
        let own = simulation.sent()[before..].iter().filter(|link| link.from == 0);
        let mut held: Vec<_> = own.map(|link| link.at.since(submitted)).collect();
        held.sort_unstable();
        let (first, last) = (held[0], held[usize::try_from(of).unwrap() - 1]);
        // A tick of its own kind comes every 50 s, and there are six of them for the first six.
        let most = MINUTE * if minutes == 0 { 15 } else { 330 };
        assert!(last <= most, "{last:?}");
        assert!(minutes == 0 || last - first > MINUTE * 60, "{first:?} to {last:?}");
    }
    let too_long = Err(Refused::Unfit(MessageError::HoldTooLong.into()));
    assert_eq!(simulation.submit(0, &asking(361)), too_long);
}

/// The next thing to be done, where the disk keeps everything at once.
fn next(node: &mut Remailer, now: Time) -> Option<Command> {
    let command = node.next_command()?;
    if let Command::KeepSeed(id, ..) | Command::KeepOwn(id, _) | Command::KeepVote(id, _) = &command
    {
        let mut rng = ChaCha20Rng::seed_from_u64(now.as_millis());
        node.handle_kept(*id, now, &mut rng);
    }
    Some(command)
}

/// What a node of its own begins with, in a network of these parameters.
fn lone(identity: Identity, parameters: &Parameters, start: Time) -> Setup {
    let maker = Identity::from_seed(&[77; 32]);
    let (voters, rule) = ([identity.node()], record::Admission::Open);
    let descriptor = record::Descriptor::create(&maker, "n", start, parameters, &voters, &rule);
    let setup = Setup::new(identity, std::sync::Arc::new(descriptor.unwrap()));
    Setup { first_record_after: MINUTE, ..setup }
}

#[test]
fn a_past_key_is_destroyed_when_its_grace_ends_though_nothing_happens() {
    let mut rng = ChaCha20Rng::seed_from_u64(10);
    let parameters = Parameters::main().quiet();
    let schedule = parameters.schedule();
    let start = schedule.start(Epoch::new(165_000)).plus(MINUTE * 20);
    let setup = lone(Identity::generate(&mut rng), &parameters, start);
    let mut node = Remailer::new(setup, start, &mut rng);
    node.handle_reachable();
    let mut forgotten = Vec::new();
    let mut now = start;
    while now < start.plus(MINUTE * 600) {
        now = node.poll_timeout().max(now);
        node.handle_timeout(now, &mut rng);
        while let Some(command) = next(&mut node, now) {
            if let Command::ForgetSeeds(oldest) = command {
                forgotten.push((now, oldest));
            }
        }
    }
    // The first is the clean-up at the start.
    let grace_end = |epoch| schedule.accepted_until(Epoch::new(epoch));
    assert_eq!(forgotten[1], (grace_end(165_000), Epoch::new(165_001)));
    assert_eq!(forgotten[2], (grace_end(165_001), Epoch::new(165_002)));
}

#[test]
fn mail_that_cannot_be_carried_is_refused_with_its_reason() {
    let mut simulation = network(7, &main_network(7), 6);
    let big = mail("a@b.example", &"x\r\n".repeat(4_000_000));
    assert_eq!(simulation.submit(0, &big), Err(Refused::TooBig));
    let mut unfit = mail("a@b.example", "body");
    unfit.message.push(0);
    assert!(matches!(simulation.submit(0, &unfit), Err(Refused::Unfit(_))));
    simulation.run(MINUTE * 60);
    assert!(simulation.sent().is_empty());
}

#[test]
fn a_flood_of_submissions_is_refused_at_the_bound_and_what_was_taken_arrives() {
    let main = main_network(7);
    let parameters = Parameters {
        sending: Sending {
            gaps: [Duration::from_millis(150); record::PACES],
            max_hold: Duration::from_secs(60),
            ..main.sending
        },
        ..main
    };
    let mut simulation = network(7, &parameters, 7);
    let mut taken = 0;
    while simulation.submit(0, &mail("a@b.example", &"x\r\n".repeat(30_000))).is_ok() {
        taken += 1;
        assert!(taken < 2000);
    }
    assert_eq!(
        simulation.submit(0, &mail("a@b.example", &"x\r\n".repeat(30_000))),
        Err(Refused::Full)
    );
    simulation.run(MINUTE * 60);
    assert_eq!(simulation.delivered().len(), taken);
}

struct Forger {
    identity: Identity,
    network: NetworkId,
    parameters: Parameters,
}

impl Forger {
    fn record(&self, sequence: u64, at: Time, key_seed: u64) -> Vec<u8> {
        let schedule = self.parameters.schedule();
        let draft = Draft { sequence, ..testing::draft(key_seed, at, &schedule) };
        draft.sign(&self.identity, &self.network).unwrap()
    }
}

#[test]
fn bad_records_are_refused_not_forwarded_and_counted_by_reason() {
    let parameters = main_network(4);
    let mut simulation = network(4, &parameters, 8);
    let network = record::Unverified::parse(
        simulation.nodes()[0].directory().iter().next().unwrap().octets(),
    )
    .unwrap()
    .claimed_network();
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let forger = Forger { identity: Identity::generate(&mut rng), network, parameters };
    let now = simulation.now();
    let honest = forger.record(5, now, 100);
    let mut unsigned = honest.clone();
    let body = unsigned.len() - 64;
    unsigned[body..].fill(0);
    let mut altered = honest.clone();
    altered[2000] ^= 1;
    let elsewhere = Forger {
        identity: Identity::from_seed(&forger.identity.seed()),
        network: NetworkId::from_bytes([1; 32]),
        parameters: forger.parameters.clone(),
    };
    assert_eq!(simulation.gossip(0, &honest), Judgement::Accept);
    assert_eq!(simulation.gossip(0, &honest), Judgement::Ignore);
    for (octets, judgement, reason) in [
        (unsigned, Judgement::Reject, NotTaken::Bad(StatementError::BadSignature)),
        (altered, Judgement::Reject, NotTaken::Bad(StatementError::BadSignature)),
        (
            elsewhere.record(6, now, 100),
            Judgement::Reject,
            NotTaken::Bad(StatementError::OtherNetwork),
        ),
        (
            forger.record(6, now.plus(MINUTE * 11), 100),
            Judgement::Ignore,
            NotTaken::Bad(StatementError::Future),
        ),
        (
            forger.record(6, now.minus(MINUTE * 700), 300),
            Judgement::Ignore,
            NotTaken::Bad(StatementError::Stale),
        ),
        (forger.record(6, now.minus(MINUTE * 5), 100), Judgement::Ignore, NotTaken::TooSoon),
        (forger.record(4, now.minus(MINUTE * 5), 100), Judgement::Ignore, NotTaken::Older),
        (forger.record(6, now.plus(MINUTE * 4), 100), Judgement::Ignore, NotTaken::Broken),
        (forger.record(5, now.minus(MINUTE), 100), Judgement::Ignore, NotTaken::Broken),
        (forger.record(6, now, 200), Judgement::Ignore, NotTaken::Broken),
        (forger.record(4, now, 200), Judgement::Ignore, NotTaken::Broken),
        (vec![1; 9000], Judgement::Reject, NotTaken::Bad(StatementError::TooLong)),
        (vec![1; 100], Judgement::Reject, NotTaken::Bad(StatementError::Malformed)),
        (vec![], Judgement::Reject, NotTaken::Bad(StatementError::Malformed)),
    ] {
        let count = Count::StatementRefused(reason);
        let before = simulation.nodes()[0].counts().get(count);
        assert_eq!(simulation.gossip(0, &octets), judgement, "{reason:?}");
        assert_eq!(simulation.nodes()[0].counts().get(count), before + 1, "{reason:?}");
    }
    let known = simulation.nodes()[0].directory().newest(&forger.identity.node()).unwrap();
    assert_eq!(known.octets()[..], honest[..], "nothing displaced it");
    // The first that is dated latest stays.
    assert_eq!(simulation.nodes()[0].counts().get(Count::ProofMade), 1);
    let renewed = forger.record(6, now.plus(MINUTE * 5), 100);
    assert_eq!(simulation.gossip(0, &renewed), Judgement::Accept);
}

#[test]
fn nobody_is_told_of_a_node_that_cannot_be_reached() {
    let mut rng = ChaCha20Rng::seed_from_u64(12);
    let parameters = Parameters::main().quiet();
    let start = parameters.schedule().start(Epoch::new(165_000)).plus(MINUTE * 20);
    let mut setup = lone(Identity::generate(&mut rng), &parameters, start);
    setup.first_record_after = Duration::ZERO;
    let mut node = Remailer::new(setup, start, &mut rng);
    let mut now = start;
    let mut announced = |node: &mut Remailer, until: Time| {
        let mut count = 0;
        while now < until {
            now = node.poll_timeout().max(now.plus(Duration::from_millis(1))).min(until);
            node.handle_timeout(now, &mut rng);
            let commands = std::iter::from_fn(|| next(node, now));
            let is_record = |octets: &[u8]| octets.first() == Some(&1);
            count += commands
                .filter(|c| matches!(c, Command::Announce(octets) if is_record(octets)))
                .count();
        }
        count
    };
    let hours = |count: u32| start.plus(MINUTE * 60 * count);
    assert_eq!(announced(&mut node, hours(3)), 0);
    node.handle_reachable();
    let count = announced(&mut node, hours(6));
    assert!((3..=4).contains(&count), "one at once and one an hour: {count}");
    node.handle_unreachable();
    assert_eq!(announced(&mut node, hours(9)), 0);
    node.handle_reachable();
    assert!(announced(&mut node, hours(9).plus(MINUTE)) == 1);
}

#[test]
fn what_an_operator_runs_beside_a_node_is_in_none_of_its_routes() {
    let parameters = Parameters::main().with_first_list(4).quiet();
    let start = parameters.schedule().start(Epoch::new(165_000)).plus(MINUTE * 20);
    let others = [20, 21, 22].map(|seed| Identity::from_seed(&[seed; 32]));
    for (family, why) in [(0, Refused::NoExit), (1, Refused::TooFewNodes)] {
        let mut rng = ChaCha20Rng::seed_from_u64(13);
        let mut setup = lone(Identity::generate(&mut rng), &parameters, start);
        setup.first_record_after = Duration::ZERO;
        setup.family = others.iter().take(family).map(Identity::node).collect();
        let network = setup.descriptor.id();
        let mut node = Remailer::new(setup, start, &mut rng);
        node.handle_reachable();
        node.handle_timeout(start, &mut rng);
        while next(&mut node, start).is_some() {}
        for other in &others {
            let identity = Identity::from_seed(&other.seed());
            let forger = Forger { identity, network, parameters: parameters.clone() };
            let record = forger.record(1, start, 200);
            let checked = record::Statement::check(&record, &network);
            assert_eq!(node.handle_statement(checked, start, &mut rng), Judgement::Accept);
        }
        let commands = std::iter::from_fn(|| next(&mut node, start));
        assert!(commands.into_iter().any(|c| matches!(c, Command::ViewTaken(_))));
        // None of them is an exit: with three to choose from that is what is missing.
        assert_eq!(node.check_routes(start).err(), Some(why));
    }
}

/// Mail that no exit takes: for now if none is known that would at all, or if one is that the list does not name
/// yet; for good if all that are known say no.
#[test]
fn mail_that_no_exit_takes_is_refused_for_now_or_for_good() {
    let parameters = Parameters::main().with_first_list(4).quiet();
    let start = parameters.schedule().start(Epoch::new(165_000)).plus(MINUTE * 20);
    let recipient = Mailbox::parse("a@c.example").unwrap();
    let only = |name: &str| {
        let domains = Domains::Only(vec![name.to_owned()]);
        Some(ExitPolicy { domains, max_message: 1 << 20, offers: Capabilities::NONE })
    };
    for (listed, later, why) in [
        (None, None, Some(Refused::NoExitNow)),
        (only("b.example"), None, Some(Refused::NoExit)),
        (only("b.example"), only("d.example"), Some(Refused::NoExit)),
        (only("b.example"), only("c.example"), Some(Refused::NoExitNow)),
        (only("c.example"), None, None),
    ] {
        let mut rng = ChaCha20Rng::seed_from_u64(13);
        let mut setup = lone(Identity::generate(&mut rng), &parameters, start);
        setup.first_record_after = Duration::ZERO;
        // Its own offer is none that its mail could take.
        setup.exit = None;
        let network = setup.descriptor.id();
        let mut node = Remailer::new(setup, start, &mut rng);
        node.handle_reachable();
        node.handle_timeout(start, &mut rng);
        while next(&mut node, start).is_some() {}
        let mut hear = |seed: u8, exit: Option<ExitPolicy>| {
            let draft = testing::draft(u64::from(seed), start, &parameters.schedule());
            let draft = Draft { exit, ..draft };
            let record = draft.sign(&Identity::from_seed(&[seed; 32]), &network).unwrap();
            let checked = record::Statement::check(&record, &network);
            assert_eq!(node.handle_statement(checked, start, &mut rng), Judgement::Accept);
            std::iter::from_fn(|| next(&mut node, start)).count()
        };
        for seed in [20, 21, 22] {
            hear(seed, listed.clone());
        }
        if later.is_some() {
            hear(23, later);
        }
        assert_eq!(node.check_recipient(&recipient, None, start).err(), why);
    }
}

/// A node goes on with leaving when it is started again, unless its time was over while it did not run.
#[test]
fn a_node_goes_on_with_leaving_while_its_time_is_not_over() {
    let parameters = Parameters::main().with_first_list(1).quiet();
    let start = parameters.schedule().start(Epoch::new(165_000));
    for (until, leaves) in [(start.plus(MINUTE), true), (start, false)] {
        let mut rng = ChaCha20Rng::seed_from_u64(13);
        let mut setup = lone(Identity::generate(&mut rng), &parameters, start);
        let line = format!("{} {} 0", start.minus(MINUTE).as_millis(), until.as_millis());
        setup.known.leaving = Some(line.parse().unwrap());
        let mut node = Remailer::new(setup, start, &mut rng);
        assert_eq!(node.leaving().is_some(), leaves);
        let mut commands = std::iter::from_fn(|| node.next_command());
        let is_forgotten = commands.any(|c| matches!(c, Command::KeepLeaving(_, None)));
        assert_eq!(is_forgotten, !leaves);
    }
}

#[test]
fn two_keys_shown_to_two_halves_of_a_network_are_known_to_all_within_a_minute() {
    let parameters = main_network(20);
    let mut simulation = network(20, &parameters, 14);
    let network = simulation.nodes()[0].descriptor().id();
    let mut rng = ChaCha20Rng::seed_from_u64(15);
    let liar = Forger { identity: Identity::generate(&mut rng), network, parameters };
    let node = liar.identity.node();
    let now = simulation.now();
    let shown = [liar.record(1, now, 100), liar.record(1, now, 200)];
    // Before the others' gossip can cross.
    for to in 0..20 {
        assert_eq!(simulation.gossip(to, &shown[to % 2]), Judgement::Accept);
    }
    for from in 0..20 {
        simulation.pass_on(from, &shown[from % 2]);
    }
    simulation.run(MINUTE);
    for holder in simulation.nodes() {
        let proof = holder.directory().conviction(&node, simulation.now());
        assert_eq!(proof.map(|proof| proof.breach()), Some(record::Breach::OneNumber));
    }
    simulation.run(MINUTE * 60);
    let list = |holder: &Remailer| holder.directory().list().unwrap().hash();
    for holder in simulation.nodes() {
        let view = holder.view().unwrap();
        assert!(view.get(&node).is_none() && view.len() == 20);
        assert_eq!(list(holder), list(&simulation.nodes()[0]));
    }

    // One that everybody lists already, and that shows half of them another key: out with the next
    // list.
    let liar = Forger { identity: Identity::generate(&mut rng), ..liar };
    let node = liar.identity.node();
    let first = liar.record(1, simulation.now(), 100);
    for to in 0..20 {
        simulation.gossip(to, &first);
    }
    let lists_it = |holder: &Remailer| holder.directory().list().unwrap().get(&node).is_some();
    simulation.run(MINUTE * 120);
    assert!(simulation.nodes().iter().all(lists_it));
    let second = liar.record(2, simulation.now(), 200);
    for to in 0..10 {
        assert_eq!(simulation.gossip(to, &second), Judgement::Ignore);
    }
    simulation.run(MINUTE);
    for holder in simulation.nodes() {
        assert!(holder.directory().conviction(&node, simulation.now()).is_some());
    }
    simulation.run(MINUTE * 60);
    assert!(!simulation.nodes().iter().any(lists_it), "no route goes through it");
}

#[test]
fn a_late_joiner_is_told_of_all_by_reconciliation_and_links_to_all() {
    let mut simulation = network(12, &main_network(12), 20);
    // Nobody publishes in the seconds that follow: what the joiner learns it is told when it asks.
    let published = total(&simulation, Count::RecordPublished);
    let descriptor = std::sync::Arc::clone(simulation.descriptor());
    let setup = Setup::new(Identity::from_seed(&[200; 32]), descriptor);
    let late = simulation.join(Setup { first_record_after: MINUTE, ..setup });
    simulation.run(Duration::from_secs(5));
    assert_eq!(total(&simulation, Count::RecordPublished) - published, 1, "its own");
    assert_eq!(simulation.nodes()[late].directory().len(), 13);
    assert_eq!(simulation.linked(late).len(), 12);
    for node in 0..12 {
        assert!(simulation.nodes()[node].directory().len() == 13, "and it is known to all");
        assert!(simulation.linked(node).contains(&late));
    }
}

#[test]
fn a_node_whose_links_were_cut_links_again_and_catches_up_with_what_it_missed() {
    let mut simulation = network(8, &main_network(8), 21);
    simulation.cut(3);
    assert!(simulation.linked(3).is_empty());
    let network = simulation.descriptor().id();
    let mut rng = ChaCha20Rng::seed_from_u64(22);
    let parameters = main_network(8);
    let forger = Forger { identity: Identity::generate(&mut rng), network, parameters };
    let record = forger.record(1, simulation.now(), 100);
    assert_eq!(simulation.gossip(0, &record), Judgement::Accept);
    simulation.run(MINUTE);
    let node = forger.identity.node();
    let knows = |simulation: &Simulation<ChaCha20Rng>, number: usize| {
        simulation.nodes()[number].directory().knows(&node)
    };
    assert!(knows(&simulation, 7) && !knows(&simulation, 3), "it was away");
    simulation.run(MINUTE * 10);
    assert_eq!(simulation.linked(3).len(), 7);
    assert!(knows(&simulation, 3));
}

#[test]
fn a_banned_node_is_in_no_route_of_the_node_that_bans_it() {
    use fog_remailer::{NotDone, OperatorOrder};
    let mut simulation = network(6, &main_network(6), 23);
    let banned = simulation.nodes()[2].node();
    assert!(simulation.order(0, OperatorOrder::Ban(banned)).is_ok());
    for from in [0, 1] {
        let before = simulation.nodes()[2].counts().get(Count::PacketReceived);
        for _ in 0..20 {
            simulation.submit(from, &mail("a@b.example", "body")).unwrap();
        }
        simulation.run(MINUTE * 100);
        let received = simulation.nodes()[2].counts().get(Count::PacketReceived) - before;
        assert_eq!(received > 0, from == 1, "others go on to use it");
    }
    assert_eq!(simulation.delivered().len(), 40);
    assert_eq!(simulation.order(0, OperatorOrder::Unban(banned)).err(), None);
    assert_eq!(simulation.order(0, OperatorOrder::Unban(banned)).err(), Some(NotDone::NotBanned));
}

//! Mail that takes several packets, through real listeners.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::devnet::{Devnet, wait_for};

/// An SMTP client that says what a test wants said.
pub(crate) struct Session(BufReader<TcpStream>);

impl Session {
    pub(crate) fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut session = Self(BufReader::new(stream));
        assert!(session.replies().starts_with("220"));
        session
    }

    pub(crate) fn say(&mut self, octets: &[u8]) -> String {
        self.0.get_mut().write_all(octets).unwrap();
        self.replies()
    }

    /// All lines of one reply.
    fn replies(&mut self) -> String {
        let mut text = String::new();
        loop {
            let start = text.len();
            assert!(self.0.read_line(&mut text).unwrap() > 3, "{text}");
            if text.as_bytes()[start + 3] == b' ' {
                return text;
            }
        }
    }

    fn data(&mut self) {
        for line in ["MAIL FROM:<a@b.example> SIZE=10400000", "RCPT TO:<c@d.example>"] {
            let reply = self.say(format!("{line}\r\n").as_bytes());
            assert!(reply.starts_with("250"), "{reply}");
        }
        assert!(self.say(b"DATA\r\n").starts_with("354"));
    }
}

/// The nine sizes of packets.
const KIB: [usize; 9] = [16, 24, 32, 48, 64, 96, 128, 192, 256];

/// What was sent on the streams between nodes is packets of the nine sizes, each behind one octet, and
/// receipts of one octet. Returns the sizes that occurred, and between how many pairs of nodes.
fn lengths_on(link_log: &Path) -> (BTreeSet<usize>, usize) {
    let (mut sizes, mut pairs) = (BTreeSet::new(), BTreeSet::new());
    for line in fs::read_to_string(link_log).unwrap().lines().skip(1) {
        let fields: Vec<_> = line.split(',').collect();
        let [_, from, to, octets] = fields[..] else { panic!("{line}") };
        // A decoy goes another way.
        if octets.starts_with("decoy ") {
            continue;
        }
        pairs.insert([from.to_owned(), to.to_owned()]);
        match octets.parse::<usize>().unwrap() {
            1 => {}
            frame => {
                let size = (frame - 1) / 1024;
                assert!(frame % 1024 == 1 && KIB.contains(&size), "{octets} octets on a stream");
                sizes.insert(size);
            }
        }
    }
    (sizes, pairs.len())
}

/// Every node loses a packet in fifty, and nobody who watches a link sees how large a mail is.
#[test]
fn ten_megabytes_arrive_octet_for_octet_while_packets_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let link_log = folder.path().join("links");
    let trial = ["--lose", "0.02", "--seed", "1", "--link-log", link_log.to_str().unwrap()];
    let devnet = Devnet::start_with(200, None, &trial);
    let mut rng = StdRng::seed_from_u64(1);
    let mut body = Vec::new();
    while body.len() < 10_400_000 {
        body.extend((0..76).map(|_| rng.random_range(33_u8..127)));
        body.extend_from_slice(b"\r\n");
    }
    let mut session = Session::open(devnet.port);
    let hello = session.say(b"EHLO x\r\n");
    let announced = hello.lines().find_map(|line| line.strip_prefix("250-SIZE "));
    assert_eq!(announced, Some("10485760"));
    assert!(session.say(b"MAIL FROM:<> SIZE=10485761\r\n").starts_with("552"));
    session.data();
    // Dots at the beginnings of lines are doubled, as a client does.
    let mut sent = b"To: c@d.example\r\nSubject: large\r\n\r\n".to_vec();
    for line in body.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            sent.push(b'.');
        }
        sent.extend_from_slice(line);
    }
    sent.extend_from_slice(b".\r\n");
    // A clock draws its ticks at random: now and then it has too few for so much, and a client comes again.
    let taken = wait_for("ticks enough", Duration::from_secs(60), || {
        let said = session.say(&sent);
        if said.starts_with("452 4.3.1 ") {
            std::thread::sleep(Duration::from_secs(5));
            session.data();
            return None;
        }
        Some(said)
    });
    assert!(
        taken.starts_with("250 2.0.0 taken as ") && taken.contains("; large, so through in about "),
        "{taken}"
    );

    // Smaller ones of all sizes beside it. Each is one packet, and may be lost.
    for (number, size) in [1_000, 6_000, 20_000, 50_000, 90_000, 200_000].into_iter().enumerate() {
        let mut session = Session::open(devnet.port + u16::try_from(number).unwrap());
        assert!(session.say(b"EHLO x\r\n").starts_with("250"));
        session.data();
        let line = [b'x'; 70];
        let small = [&line[..], b"\r\n"].concat().repeat(size / 72);
        let small = [b"To: c@d.example\r\n\r\n".as_slice(), &small, b".\r\n"].concat();
        assert!(session.say(&small).starts_with("250"));
    }

    let mails = wait_for("the mail", Duration::from_secs(120), || {
        let large = devnet.mails().into_iter().filter(|mail| mail.len() > 10_000_000);
        Some(large.collect::<Vec<_>>()).filter(|mails| !mails.is_empty())
    });
    // A file of a Maildir has the line ends of the system.
    let body: Vec<u8> = body.into_iter().filter(|octet| *octet != b'\r').collect();
    for mail in mails {
        let plain: Vec<u8> = mail.into_iter().filter(|octet| *octet != b'\r').collect();
        let whole = [b"\n\n".as_slice(), &body].concat();
        assert!(plain.ends_with(&whole), "{} octets", plain.len());
    }
    assert!(devnet.count("piece of a message") >= 32);
    let relayed = devnet.count("packet relayed");
    let (sizes, pairs) = lengths_on(&link_log);
    println!("{relayed} packets of {sizes:?} KiB between {pairs} pairs of seven nodes");
    assert!(sizes.len() >= 3 && pairs == 7 * 6, "{sizes:?} KiB between {pairs} pairs");
    // Some pieces are spare, and the last ones are still under way.
    assert!(devnet.memory_kib() < 700 * 1024, "{} KiB", devnet.memory_kib());
}

#[test]
fn large_messages_that_do_not_end_leave_room_for_small_ones() {
    let devnet = Devnet::start(100, None);
    let before = devnet.memory_kib();
    let chunk = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234567890\r\n";
    let nine =
        [b"To: c@d.example\r\n\r\n".as_slice(), &chunk.repeat(9_000_000 / chunk.len())].concat();
    let mut held: Vec<_> = (0..14)
        .map(|_| {
            let mut session = Session::open(devnet.port);
            assert!(session.say(b"EHLO x\r\n").starts_with("250"));
            session.data();
            session.0.get_mut().write_all(&nine).unwrap();
            session
        })
        .collect();
    let mut small = Session::open(devnet.port);
    assert!(small.say(b"EHLO x\r\n").starts_with("250"));
    small.data();
    let taken = small.say(b"To: c@d.example\r\n\r\nsmall\r\n.\r\n");
    assert!(taken.starts_with("250"), "{taken}");
    // A buffer that grows has at most twice the room that it needs.
    let grown = devnet.memory_kib().saturating_sub(before);
    assert!(grown < 200 * 1024, "{grown} KiB");
    let ends: Vec<_> = held.iter_mut().map(|session| session.say(b".\r\n")).collect();
    let refused = ends.iter().filter(|end| end.starts_with("452 4.3.1")).count();
    assert!(refused >= 14 - 7, "{ends:?}");
    assert!(ends.iter().all(|end| end.starts_with("452") || end.starts_with("250")), "{ends:?}");
}

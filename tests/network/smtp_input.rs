//! Clients that are confused, hostile, slow or many, against real listeners.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::devnet::{Devnet, wait_for};

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Self(BufReader::new(stream));
        assert_eq!(client.reply(), "220 fog ESMTP");
        client
    }

    /// Connects, unless the server turns the client away.
    fn try_connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Self(BufReader::new(stream));
        client.reply();
        (client.say("NOOP") == "250 2.0.0 ok").then_some(client)
    }

    /// The last line of a reply.
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).is_err() {
                return String::new();
            }
            if line.len() < 4 || line.as_bytes()[3] == b' ' {
                return line.trim_end().to_owned();
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        // A server that has hung up is seen in the reply.
        let _ = self.0.get_mut().write_all(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    fn open(&mut self) {
        for (line, code) in [
            ("EHLO x", "250"),
            ("MAIL FROM:<x@y.example>", "250"),
            ("RCPT TO:<a@b.example>", "250"),
            ("DATA", "354"),
        ] {
            assert!(self.say(line).starts_with(code), "{line}");
        }
    }
}

#[test]
fn hostile_clients_harm_nobody_else() {
    let devnet = Devnet::start(1000, None);
    let port = devnet.port;

    let mut smuggler = Client::connect(port);
    smuggler.open();
    let hidden = "a\r\n\r\nb\n.\nMAIL FROM:<s@x>\n.\r\nRCPT TO:<s@x>\r.\rDATA\r\n.\r\r\nmore\r\n.";
    assert!(smuggler.say(hidden).starts_with("550 5.6.0"));
    assert_eq!(smuggler.say("NOOP"), "250 2.0.0 ok");

    let mut browser = Client::connect(port);
    assert!(browser.say("GET / HTTP/1.1").starts_with("554"));
    assert_eq!(browser.0.read(&mut [0; 10]).unwrap(), 0, "closed");

    let mut endless = Client::connect(port);
    let before = devnet.memory_kib();
    for _ in 0..160 {
        endless.0.get_mut().write_all(&[b'x'; 65536]).unwrap();
    }
    assert!(endless.say("").starts_with("500"));
    let grown = devnet.memory_kib().saturating_sub(before);
    assert!(grown < 4096, "10 MiB without a line end took {grown} KiB");

    let mut big = Client::connect(port);
    assert!(big.say("EHLO x").starts_with("250"));
    assert!(big.say("MAIL FROM:<> SIZE=20000000").starts_with("552"));
    let mut bigger = Client::connect(port);
    bigger.open();
    let data = "0123456789\r\n".repeat(1_000_000);
    assert!(bigger.say(&format!("{data}.")).starts_with("552"));

    let mut aborted = Client::connect(port);
    aborted.open();
    aborted.0.get_mut().write_all(b"To: a@b.example\r\n\r\nhalf").unwrap();
    drop(aborted);

    // 300 sessions only send NOOP. Soon the server ends them, and mail gets in.
    drop((smuggler, browser, endless, big, bigger));
    let mut held: Vec<_> = (0..300).map(|_| Client::connect(port)).collect();
    let mut honest = wait_for("a place", Duration::from_secs(40), || {
        for client in &mut held {
            // Writing fails once the server has ended the session.
            let _ = client.0.get_mut().write_all(b"NOOP\r\n");
        }
        std::thread::sleep(Duration::from_secs(1));
        Client::try_connect(port)
    });
    honest.open();
    assert!(honest.say("To: a@b.example\r\nSubject: honest\r\n\r\nhonest\r\n.").starts_with("250"));
    wait_for("the honest mail", Duration::from_secs(20), || {
        (devnet.mails().len() == 1).then_some(())
    });
    drop(held);
    assert_eq!(devnet.count("message taken"), 1);
}

#[test]
fn of_three_hundred_and_one_sessions_one_is_sent_away() {
    let devnet = Devnet::start(1000, None);
    let mut held: Vec<_> = (0..300).map(|_| Client::connect(devnet.port)).collect();
    let stream = TcpStream::connect(("127.0.0.1", devnet.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut last = Client(BufReader::new(stream));
    let greeting = last.reply();
    // Either the last one, or one that had a place for some time and did nothing with it.
    if greeting.starts_with("220") {
        let away = held.iter_mut().filter_map(|client| {
            client.0.get_mut().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            Some(client.reply()).filter(|reply| !reply.is_empty())
        });
        assert!(away.inspect(|reply| assert!(reply.starts_with("421"), "{reply}")).count() > 0);
    } else {
        assert!(greeting.starts_with("421 4.3.2"), "{greeting}");
    }
    drop(held);
    wait_for("a free place", Duration::from_secs(10), || {
        let stream = TcpStream::connect(("127.0.0.1", devnet.port)).unwrap();
        let mut line = String::new();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut line).unwrap();
        reader.get_mut().write_all(b"NOOP\r\n").unwrap();
        line.clear();
        reader.read_line(&mut line).unwrap();
        line.starts_with("250").then_some(())
    });
}

//! Mail submitted by swaks, across the network, delivered to Postfix or a Maildir.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::devnet::{Devnet, wait_for};
use crate::postfix::Postfix;

/// Stands in every field that must not arrive, and in what swaks tells of its machine.
const MARKER: &str = "PLANTED-MARKER";

/// A header full of fields that must not arrive.
fn header(number: usize, extra: &str) -> String {
    format!(
        "Received: from {MARKER}.home.example ([10.9.8.7])\r\n\tby {MARKER}.home.example; \
         Mon, 2 Nov 2026 10:11:12 +0545\r\nReturn-Path: <{MARKER}@home.example>\r\n\
         From: {MARKER} <{MARKER}@home.example>\r\nSender: {MARKER}@home.example\r\n\
         Reply-To: {MARKER}@home.example\r\nDate: Mon, 2 Nov 2026 10:11:12 +0545\r\n\
         Message-ID: <{MARKER}.{number}@home.example>\r\nUser-Agent:\r\n {MARKER}/1.0\r\n\
         X-Mailer: {MARKER}\r\nX-Originating-IP: [10.9.8.7] {MARKER}\r\n\
         Bcc: {MARKER}@home.example\r\nOrganization: {MARKER}\r\n\
         To: user@b.example\r\nSubject: mail {number}\r\n{extra}\r\n"
    )
}

/// Hands a message to a node as a user would; checks that it was taken.
fn submit(port: u16, message: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    // swaks writes CRLF for each LF itself, doubles dots, and ends the last line.
    let lines = message.strip_suffix("\r\n").unwrap().replace("\r\n", "\n");
    fs::write(file.path(), lines).unwrap();
    let output = Command::new("swaks")
        .args(["--server", &format!("127.0.0.1:{port}"), "--helo"])
        .arg(format!("{MARKER}.home.example"))
        .args(["--from", &format!("{MARKER}@home.example"), "--to", "user@b.example"])
        .arg("--data")
        .arg(format!("@{}", file.path().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("250 2.0.0 taken"), "{said}");
}

fn body(message: &[u8]) -> &[u8] {
    let end = message.windows(2).position(|pair| pair == b"\n\n").unwrap();
    &message[end + 2..]
}

fn with_subject(mails: &[Vec<u8>], number: usize) -> &[u8] {
    let subject = format!("\nSubject: mail {number}\n");
    let found = mails.iter().filter(|mail| contains(mail, subject.as_bytes()));
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), 1, "mail {number} arrived {} times", found.len());
    found[0]
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn assert_clean(mail: &[u8]) {
    for planted in [MARKER, "home.example", "10.9.8.7", "+0545", "10:11:12", "Nov 2 "] {
        assert!(
            !contains(mail, planted.as_bytes()),
            "{planted} in {}",
            String::from_utf8_lossy(mail)
        );
    }
    assert!(contains(mail, b"\nFrom: Anonymous <anonymous@fog.invalid>\n"));
}

struct Gpg(tempfile::TempDir);

impl Gpg {
    fn new() -> Self {
        let gpg = Self(tempfile::tempdir().unwrap());
        let user = "fog test <test@fog.invalid>";
        let mut command = gpg.command();
        command.args(["--passphrase", "", "--quick-gen-key", user, "ed25519", "sign", "never"]);
        assert!(command.output().unwrap().status.success());
        gpg
    }

    fn command(&self) -> Command {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--homedir"]);
        command.arg(self.0.path()).stdin(Stdio::null());
        command
    }

    /// A multipart/signed message (RFC 3156, 5): what it adds to the header, and the body.
    fn signed(&self) -> (String, String) {
        let part =
            "Content-Type: text/plain; charset=utf-8\r\n\r\nsigned: dots\r\n..\r\nand grüße\r\n";
        let file = self.0.path().join("part");
        fs::write(&file, part).unwrap();
        let output =
            self.command().args(["--armor", "--detach-sign", "-o", "-"]).arg(&file).output();
        let signature = String::from_utf8(output.unwrap().stdout).unwrap().replace('\n', "\r\n");
        let header = "MIME-Version: 1.0\r\nContent-Type: multipart/signed; micalg=pgp-sha512;\r\n \
                      protocol=\"application/pgp-signature\"; boundary=\"=-b\"\r\n";
        let body = format!(
            "--=-b\r\n{part}\r\n--=-b\r\nContent-Type: application/pgp-signature\r\n\r\n\
             {signature}\r\n--=-b--\r\n"
        );
        (header.to_owned(), body)
    }

    /// Verifies what arrived, as a mail reader does.
    fn verifies(&self, mail: &[u8]) -> bool {
        let text = String::from_utf8(mail.to_vec()).unwrap();
        assert!(text.contains("boundary=\"=-b\""));
        let parts: Vec<_> = text.split("\n--=-b").collect();
        let part = parts[1].strip_prefix('\n').unwrap().replace('\n', "\r\n");
        let signature = parts[2].split_once("\n\n").unwrap().1;
        let (part_file, signature_file) =
            (self.0.path().join("got"), self.0.path().join("got.asc"));
        fs::write(&part_file, part).unwrap();
        fs::write(&signature_file, signature).unwrap();
        verify(self, &signature_file, &part_file)
    }
}

fn verify(gpg: &Gpg, signature: &Path, part: &Path) -> bool {
    gpg.command().arg("--verify").arg(signature).arg(part).output().unwrap().status.success()
}

/// Twenty mails: their extra header fields and their bodies.
fn twenty(gpg: &Gpg) -> Vec<(String, String)> {
    let utf8 = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
                Content-Transfer-Encoding: 8bit\r\n";
    let line = "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ ~!?\r\n";
    let mut mails = vec![
        (utf8.to_owned(), "Grüße aus dem Nebel — 霧の中から\r\n".to_owned()),
        gpg.signed(),
        (String::new(), ".\r\n..\r\n...dots\r\n.hidden\r\n\r\n.\r\nend\r\n".to_owned()),
        (String::new(), line.repeat(100 * 1024 / line.len() + 1)),
    ];
    mails.extend((mails.len()..20).map(|number| (String::new(), format!("body {number}\r\n"))));
    mails
}

#[test]
fn twenty_mails_by_swaks_reach_postfix() {
    let gpg = Gpg::new();
    let postfix = Postfix::start();
    let mut devnet = Devnet::start(100, Some(&postfix.target()));
    let sent = twenty(&gpg);
    for (number, (extra, body)) in sent.iter().enumerate() {
        let node = u16::try_from(number).unwrap() % devnet.nodes;
        submit(devnet.port + node, &format!("{}{body}", header(number, extra)));
    }
    let limit = Duration::from_secs(120);
    wait_for("20 mails", limit, || (postfix.mails().len() >= sent.len()).then_some(()));
    let arrived = postfix.mails();
    for (number, (_, sent)) in sent.iter().enumerate() {
        let mail = with_subject(&arrived, number);
        assert_clean(mail);
        // A Maildir has LF where SMTP has CRLF.
        let lines: Vec<_> =
            sent.as_bytes().iter().copied().filter(|octet| *octet != b'\r').collect();
        let got = body(mail);
        assert!(got == lines, "body of mail {number}: {} octets, {} sent", got.len(), lines.len());
    }
    assert!(gpg.verifies(with_subject(&arrived, 1)), "the signature does not verify");
    assert_eq!(arrived.len(), 20);
    // Whoever took the mail hears what became of it.
    wait_for("20 acknowledgements", limit, || {
        (devnet.count("recipient acknowledged: delivered") == 20).then_some(())
    });
    assert_eq!((devnet.count("answer sent"), devnet.count("answer missing")), (20, 0));
    // Each mail crossed at least three nodes, of which the last does not relay it; so did its
    // acknowledgement, which the exit sends.
    let relayed = devnet.count("packet relayed");
    assert!((100..=220).contains(&relayed), "{relayed} times relayed");
    assert_eq!(devnet.count("packet received"), relayed + 20);
    println!("20 of 20 mails arrived; memory of 7 nodes {} MiB", devnet.memory_kib() / 1024);

    // Even the finest log holds nothing of any mail, and nothing of a packet's way.
    let log = devnet.log();
    assert!(log.contains(" TRACE fog"), "the log is written");
    for word in [MARKER, "b.example", "mail 3", "body 7", "home.example", ".onion", "12D3Koo"] {
        assert!(!log.contains(word), "{word} in the log");
    }
    for node in 1..=devnet.nodes {
        let onion = devnet.status(node)["onion"].as_str().unwrap().to_owned();
        assert!(!log.contains(&onion[..16]), "an onion address in the log");
    }
    let (status, _) = devnet.stop();
    assert!(status.success());
}

#[test]
fn mails_cross_four_epoch_changes() {
    let postfix = Postfix::start();
    // Epochs of 20 seconds, the shortest there are.
    let devnet = Devnet::start(540, Some(&postfix.target()));
    let epoch = || devnet.status(1)["epoch"].as_u64().unwrap();
    let first = epoch();
    let mut submitted = 0_usize;
    while epoch() < first + 5 {
        let node = u16::try_from(submitted).unwrap() % devnet.nodes;
        submit(devnet.port + node, &format!("{}body\r\n", header(submitted, "")));
        submitted += 1;
        let next = Instant::now() + Duration::from_secs(4);
        wait_for("the next mail's time", Duration::from_secs(5), || {
            (Instant::now() > next).then_some(())
        });
    }
    let limit = Duration::from_secs(60);
    wait_for("all mails", limit, || (postfix.mails().len() >= submitted).then_some(()));
    let arrived = postfix.mails();
    assert_eq!(arrived.len(), submitted);
    for number in 0..submitted {
        assert_clean(with_subject(&arrived, number));
    }
    for reason in
        ["late", "early", "no key", "mac", "payload", "replay", "expired", "unknown next hop"]
    {
        assert_eq!(devnet.count(&format!("packet dropped: {reason}")), 0, "{reason}");
    }
    println!("{submitted} of {submitted} mails arrived over 5 epochs");
}

#[test]
fn at_speed_1000_a_mail_takes_under_ten_seconds() {
    let devnet = Devnet::start(1000, None);
    assert!(devnet.ready_after < Duration::from_secs(10), "ready after {:?}", devnet.ready_after);
    let start = Instant::now();
    submit(devnet.port + 3, &format!("{}hello\r\n", header(0, "")));
    let limit = Duration::from_secs(10);
    wait_for("the mail", limit, || (devnet.mails().len() == 1).then_some(()));
    println!(
        "ready after {:?}, a mail took {:?}, memory of 7 nodes {} MiB",
        devnet.ready_after,
        start.elapsed(),
        devnet.memory_kib() / 1024
    );
    assert_clean(&devnet.mails()[0]);
}

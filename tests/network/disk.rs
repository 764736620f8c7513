//! Nodes on disks that are full, read-only, or out of files and descriptors: real ones.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::devnet::{fog, maildir, wait_for};
use crate::node::Node;
use crate::operate::{all_usable, network};

const SOON: Duration = Duration::from_secs(30);

/// A file system of its own in memory.
pub(crate) struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    pub(crate) fn mount(path: &'a Path, options: &str) -> Self {
        fs::create_dir(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("mode=0700,{options}"), "fog-test"])
            .arg(path)
            .status();
        assert!(mounted.unwrap().success(), "these tests run as root");
        Self(path)
    }

    /// Leaves this many octets free.
    pub(crate) fn fill(&self, leave: u64) {
        let output = Command::new("df").args(["-B1", "--output=avail"]).arg(self.0).output();
        let says = String::from_utf8(output.unwrap().stdout).unwrap();
        let free: u64 = says.lines().nth(1).unwrap().trim().parse().unwrap();
        let mut file = fs::File::create(self.0.join("ballast")).unwrap();
        // The last of it may find no room, which is what is wanted.
        let _ = file.write_all(&vec![1; usize::try_from(free.saturating_sub(leave)).unwrap()]);
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// The kinds of a node's warnings about its disk.
fn trouble(node: &Node) -> Option<String> {
    let status = node.ask("status");
    let warnings = status["warnings"].as_array().unwrap();
    let disk = warnings.iter().find(|warning| warning["kind"] == "disk_fails")?;
    assert!(disk["since_ms"].as_u64().unwrap() > 0 && status["unusable"] == "disk_fails");
    Some(disk["why"].as_str().unwrap().to_owned())
}

/// The reply to a mail.
fn send(node: &Node, subject: &str) -> String {
    let mut child = fog()
        .args(["send", "-", "--to", "user@b.example", "--via", &format!("127.0.0.1:{}", node.port)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let message = format!("Subject: {subject}\n\nbody\n");
    child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn delivered(mail: &Path) -> usize {
    maildir(mail).len()
}

#[test]
fn a_full_disk_loses_nothing_and_ruins_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mail) = (folder.path().join("n1"), folder.path().join("mail"));
    let disk = Disk::mount(&path, "size=48m");
    let mut nodes = network(&folder, 4, "540");
    for node in &mut nodes {
        node.start();
    }
    all_usable(&nodes);
    assert!(send(&nodes[1], "before").contains("250 2.0.0"));
    wait_for("the first mail", SOON, || (delivered(&mail) == 1).then_some(()));

    // Little is left: for its own, and nothing for others.
    disk.fill(4 << 20);
    wait_for("a warning", SOON, || (trouble(&nodes[1]).as_deref() == Some("full")).then_some(()));
    let refused = send(&nodes[1], "refused");
    assert!(refused.contains("452 4.3.1"), "{refused}");
    // Three nodes are too few without it: what is sent waits for it, at its peers.
    let mut taken = 1;
    for number in 0..6 {
        taken += usize::from(send(&nodes[0], &format!("during {number}")).contains("250 2.0.0"));
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(taken > 1);
    disk.free();
    wait_for("the end of the warning", SOON, || trouble(&nodes[1]).is_none().then_some(()));
    wait_for("all mail", SOON * 2, || (delivered(&mail) == taken).then_some(()));
    assert_eq!(nodes[1].count("packet dropped"), 0);

    // Nothing is left, for longer than its keys last: it lives, and comes back by itself.
    disk.fill(0);
    wait_for("a warning", SOON, || trouble(&nodes[1]).map(drop));
    std::thread::sleep(Duration::from_secs(25));
    assert!(nodes[1].count("own record refused: it could not be kept") > 0);
    disk.free();
    wait_for("the end of the warning", SOON, || trouble(&nodes[1]).is_none().then_some(()));
    all_usable(&nodes);

    // Killed, and started on a full disk: it says why, whoever opens the folder how often.
    disk.fill(0);
    nodes[1].signal("-KILL");
    for _ in 0..2 {
        let (code, said) = nodes[1].fails();
        assert!(code == 4 && said.contains("MiB are free"), "{code}: {said}");
        assert!(said.contains("make room on that file system"), "{said}");
        let doctor = fog().args(["doctor", "--state-dir"]).arg(&path).output().unwrap();
        assert!(!String::from_utf8_lossy(&doctor.stdout).contains("corrupt"));
    }
    disk.free();
    nodes[1].start();
    all_usable(&nodes);
    assert!(send(&nodes[1], "after").contains("250 2.0.0"));
    assert!(!path.join("db.damaged").exists());
    for node in &nodes {
        assert!(!node.ask("peers").to_string().contains("convicted"));
    }
}

#[test]
fn out_of_files_out_of_descriptors_and_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n0");
    let disk = Disk::mount(&path, "size=64m,nr_inodes=120");
    let mut nodes = network(&folder, 4, "540");
    for node in &mut nodes {
        node.start();
    }
    all_usable(&nodes);
    let mut made = Vec::new();
    for number in 0..200 {
        let file = path.join(format!("spare{number}"));
        match fs::File::create(&file) {
            Ok(_) => made.push(file),
            Err(_) => break,
        }
    }
    assert!(made.len() < 200, "the disk has no room for more files");
    wait_for("a warning", SOON, || (trouble(&nodes[0]).as_deref() == Some("full")).then_some(()));
    for file in made {
        fs::remove_file(file).unwrap();
    }
    wait_for("the end of the warning", SOON, || trouble(&nodes[0]).is_none().then_some(()));

    // For longer than an epoch it can open nothing.
    let limit = |most: &str| {
        let of = nodes[0].process().to_string();
        let set =
            Command::new("prlimit").args(["--pid", &of, &format!("--nofile={most}")]).status();
        assert!(set.unwrap().success());
    };
    limit("20:");
    std::thread::sleep(Duration::from_secs(25));
    limit("2100:");
    all_usable(&nodes);
    assert!(send(&nodes[0], "after").contains("250 2.0.0"));

    nodes[0].signal("-TERM");
    let fog_binary = fog();
    let script = format!(
        "mount --bind {0} {0} && mount -o remount,ro,bind {0} && exec {1} run --as-root --state-dir {0}",
        path.display(),
        fog_binary.get_program().to_str().unwrap()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("mounted read-only"), "{said}");
    nodes[0].start();
    all_usable(&nodes);
    drop(disk);
}

//! A Debian Postfix for the tests, on a loopback port, in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::devnet::{free_ports, maildir, wait_for};

pub(crate) struct Postfix {
    folder: TempDir,
    pub(crate) port: u16,
}

impl Postfix {
    /// Takes mail for every recipient in `b.example` into one Maildir.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let port = free_ports(1);
        for part in ["etc", "queue", "data", "mail"] {
            fs::create_dir(path.join(part)).unwrap();
        }
        // Its own processes run as `postfix` and deliver as `nobody`.
        for part in ["", "etc", "queue", "mail"] {
            fs::set_permissions(path.join(part), fs::Permissions::from_mode(0o755)).unwrap();
        }
        own(path.join("data"), "postfix");
        own(path.join("mail"), "nobody");
        let dir = path.display();
        let main = format!(
            "compatibility_level = 3.6\n\
             queue_directory = {dir}/queue\ndata_directory = {dir}/data\n\
             maillog_file = {dir}/data/log\nmaillog_file_prefixes = {dir}\n\
             inet_interfaces = 127.0.0.1\nmyhostname = next.b.example\nmydestination =\n\
             virtual_mailbox_domains = b.example\nvirtual_mailbox_base = {dir}/mail\n\
             virtual_mailbox_maps = static:inbox/\nvirtual_minimum_uid = 100\n\
             virtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\n\
             local_recipient_maps =\nalias_maps =\nalias_database =\n\
             smtpd_recipient_restrictions = reject_unauth_destination\n\
             smtputf8_enable = yes\nsmtpd_peername_lookup = no\n"
        );
        let master = format!(
            "127.0.0.1:{port} inet n - n - - smtpd\n\
             pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\nrewrite unix - - n - - trivial-rewrite\n\
             bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
             trace unix - - n - 0 bounce\nverify unix - - n - 1 verify\n\
             error unix - - n - - error\nretry unix - - n - - error\n\
             virtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\n\
             proxymap unix - - n - - proxymap\npostlog unix-dgram n - n - 1 postlogd\n"
        );
        fs::write(path.join("etc/main.cf"), main).unwrap();
        fs::write(path.join("etc/master.cf"), master).unwrap();
        let postfix = Self { folder, port };
        postfix.control("start");
        wait_for("postfix", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        postfix
    }

    pub(crate) fn target(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    pub(crate) fn mails(&self) -> Vec<Vec<u8>> {
        maildir(&self.folder.path().join("mail/inbox"))
    }

    fn control(&self, order: &str) {
        let mut command = Command::new("postfix");
        let output =
            command.arg("-c").arg(self.folder.path().join("etc")).arg(order).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("data/log")).unwrap_or_default();
            println!("postfix: {log}");
        }
        self.control("stop");
    }
}

fn own(path: PathBuf, user: &str) {
    assert!(Command::new("chown").arg(user).arg(path).status().unwrap().success());
}

//! A private Tor network for these tests: `fog devnet --tor --nodes 0`, started once.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use data_encoding::HEXUPPER;
use serde_json::Value;

use crate::devnet::{fog, wait_for};

/// Tors that nodes use. The last three are for tests that harm theirs.
const TORS: usize = 6;
pub(crate) const SHARED: usize = 3;

/// One Tor, in the place of an operator's Tor in the public network.
pub(crate) struct Tor {
    pub(crate) socks: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) folder: PathBuf,
}

/// The Tors of the network. The network ends with this process, however that ends.
pub(crate) fn tors() -> &'static [Tor] {
    static NETWORK: OnceLock<Vec<Tor>> = OnceLock::new();
    NETWORK.get_or_init(|| {
        let (ready, started) = std::sync::mpsc::channel();
        // The child ends with the thread that started it, so that must not be a test's thread.
        std::thread::spawn(move || start(&ready).wait());
        started.recv().expect("the private Tor network")
    })
}

fn start(ready: &std::sync::mpsc::Sender<Vec<Tor>>) -> Child {
    let folder = tempfile::Builder::new().prefix("fog-tor-").tempdir().unwrap().keep();
    let binary = fog().get_program().to_owned();
    let began = Instant::now();
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .arg(binary)
        .args(["devnet", "--tor", "--nodes", "0", "--json", "--tors", &TORS.to_string()])
        .arg("--state-dir")
        .arg(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    println!("a private Tor network is up after {:.1?}", began.elapsed());
    let said: Value = serde_json::from_str(&line).expect("the private Tor network");
    let tor = |tor: &Value| Tor {
        socks: tor["socks"].as_str().unwrap().parse().unwrap(),
        control: tor["control"].as_str().unwrap().parse().unwrap(),
        folder: tor["folder"].as_str().unwrap().into(),
    };
    ready.send(said["tor"].as_array().unwrap().iter().map(tor).collect()).unwrap();
    child
}

impl Tor {
    /// Options of `fog init`.
    pub(crate) fn options(&self) -> [String; 2] {
        ["--tor-control".to_owned(), self.control.to_string()]
    }

    /// An authenticated control connection; services added over it end with it.
    pub(crate) fn connect(&self) -> Control {
        let stream = TcpStream::connect(self.control).unwrap();
        let mut control = Control(BufReader::new(stream));
        let cookie = fs::read(self.folder.join("cookie")).unwrap();
        control.ask(&format!("AUTHENTICATE {}", HEXUPPER.encode(&cookie)));
        control
    }

    pub(crate) fn process(&self) -> String {
        self.connect().ask("GETINFO process/pid")[0].trim_start_matches("process/pid=").to_owned()
    }

    pub(crate) fn kill(&self, process: &str) {
        assert!(Command::new("kill").args(["-KILL", process]).status().unwrap().success());
        wait_for("the end of a tor", Duration::from_secs(5), || {
            TcpStream::connect(self.control).err()
        });
    }

    /// Starts it again after [`Tor::kill`], in the same way, and waits until its control port is
    /// there.
    pub(crate) fn restart(&self) {
        let mut command = Command::new("tor");
        command.args(["--defaults-torrc", "/dev/null", "-f"]).arg(self.folder.join("torrc"));
        // The Tor ends with the network's process, which owns it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::spawn(move || child.wait());
        wait_for("a tor", Duration::from_secs(20), || TcpStream::connect(self.control).ok());
    }

    /// The options that make a tor a client of this network.
    pub(crate) fn private_options(&self) -> String {
        let torrc = fs::read_to_string(self.folder.join("torrc")).unwrap();
        let shared = ["Testing", "Paths", "V3Auth", "Learn", "Circuit", "Outbound", "DirAuthority"];
        let is_shared = |line: &&str| shared.iter().any(|name| line.starts_with(name));
        torrc.lines().filter(is_shared).map(|line| format!("{line}\n")).collect()
    }
}

pub(crate) struct Control(BufReader<TcpStream>);

impl Control {
    /// The lines of the reply, without codes; it must be a good one.
    pub(crate) fn ask(&mut self, line: &str) -> Vec<String> {
        write!(self.0.get_mut(), "{line}\r\n").unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            assert!(line.starts_with("250"), "{line}");
            lines.push(line[4..].trim_end().to_owned());
            if line.as_bytes()[3] == b' ' {
                return lines;
            }
        }
    }
}

/// The loopback ports at which a process listens.
pub(crate) fn listening(process: u32) -> Vec<u16> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd")).unwrap() {
        let Ok(link) = fs::read_link(entry.unwrap().path()) else { continue };
        let link = link.to_string_lossy().into_owned();
        sockets.extend(
            link.strip_prefix("socket:[").map(|rest| rest.trim_end_matches(']').to_owned()),
        );
    }
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
    let mut ports = Vec::new();
    for line in table.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        // Local address, remote address, state (0A: listening), ..., inode (proc(5)).
        if words[3] == "0A" && sockets.iter().any(|inode| inode == words[9]) {
            ports.push(u16::from_str_radix(words[1].split_once(':').unwrap().1, 16).unwrap());
        }
    }
    ports
}

/// A Unix socket that answers as the control port of a Tor of this version and with this mode of
/// its onion services; returns its value for `tor.control`.
pub(crate) fn false_control_port(
    path: &Path,
    version: &'static str,
    single_hop: &'static str,
) -> String {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut octets = [0; 512];
            while let Ok(read @ 1..) = stream.read(&mut octets) {
                let asked = String::from_utf8_lossy(&octets[..read]).into_owned();
                let answer = match asked.trim_end().split_once(' ') {
                    Some(("PROTOCOLINFO", _)) => format!(
                        "250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n\
                         250-VERSION Tor=\"{version}\"\r\n250 OK\r\n"
                    ),
                    Some(("GETCONF", option)) => format!("250 {option}={single_hop}\r\n"),
                    _ => "250 OK\r\n".to_owned(),
                };
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    format!("unix:{}", path.display())
}

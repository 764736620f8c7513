//! Who listens at Tor's SOCKS port, where no control port proves that it is Tor.
//!
//! While Tor is down, any user of the machine can take its port and learn whom a node dials. The
//! kernel says which user listens: it must be one that could be Tor's, and always the same.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::failure::{Failure, FailureKind};

/// Users from here on are people (`UID_MIN` of login.defs), below are the system's.
const FIRST_PERSON: u32 = 1000;
/// The state of a socket that listens (`TCP_LISTEN` in the kernel's tcp_states.h).
const LISTENS: &str = "0A";

/// The user that listens at a port of loopback; `None` if nobody does.
///
/// # Errors
/// If the kernel's table cannot be read.
pub(super) fn listener(at: SocketAddr) -> io::Result<Option<u32>> {
    let table = match at.ip() {
        IpAddr::V4(_) => "/proc/self/net/tcp",
        IpAddr::V6(_) => "/proc/self/net/tcp6",
    };
    Ok(find(&std::fs::read_to_string(table)?, at))
}

/// Finds a listener in the kernel's table (proc(5)): each line has a number, the local and the remote
/// address in hexadecimal, the state, two pairs of queues and timers, a count, and the user.
fn find(table: &str, at: SocketAddr) -> Option<u32> {
    let users = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let local = words.nth(1)?;
        let state = words.nth(1)?;
        let user = words.nth(3)?;
        let (address, port) = local.split_once(':')?;
        let is_here = address == hex(at.ip()) || address.bytes().all(|digit| digit == b'0');
        let is_it = is_here && u16::from_str_radix(port, 16) == Ok(at.port()) && state == LISTENS;
        is_it.then(|| user.parse().ok()).flatten()
    });
    // One that listens at every address gets what nobody takes at this one.
    users.max()
}

/// An address as the table has it: words of 32 bits, in the machine's order.
fn hex(ip: IpAddr) -> String {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let word = |octets: &[u8]| octets.try_into().map_or(0, u32::from_ne_bytes);
    octets.chunks_exact(4).map(|octets| format!("{:08X}", word(octets))).collect()
}

/// The user that listens at Tor's SOCKS port, if it can be Tor's.
///
/// # Errors
/// [`FailureKind::Tor`] if nobody listens, or a person does who is not this node's user.
pub(super) fn check(at: SocketAddr) -> Result<u32, Failure> {
    let tor = |cause: String, remedy: &str| Failure::new(FailureKind::Tor, cause).remedy(remedy);
    let owner = listener(at).map_err(|error| {
        tor(format!("who listens at {at} cannot be seen: {error}"), "mount /proc")
    })?;
    let own = rustix::process::geteuid().as_raw();
    match owner {
        Some(user) if user < FIRST_PERSON || user == own => Ok(user),
        Some(user) => Err(tor(
            format!("user {user} listens at {at}, and is neither a system user nor this node's"),
            "see whether that is Tor; run Tor as a user of the system, or as this node's user",
        )),
        None => Err(tor(
            format!("no SOCKS port at {at}: nobody listens there"),
            "start Tor, or correct tor.socks",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:235A 00000000:0000 0A 00000000:00000000 00:00000000 00000000   103        0 1060 1 0 100 0 0 10 0
   1: 0100007F:235A 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1001        0 1061 1 0 100 0 0 10 0
   2: 00000000:235B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1002        0 1062 1 0 100 0 0 10 0
   3: 0200007F:235C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1063 1 0 100 0 0 10 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_user_of_a_listener_is_found() {
        let at = |port| find(TABLE, SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(at(9050), Some(103), "the connection of user 1001 is no listener");
        assert_eq!(at(9051), Some(1002), "one at every address is one at this");
        assert_eq!(at(9052), None, "one at another address is not");
        assert_eq!(find("", SocketAddr::from(([127, 0, 0, 1], 1))), None);
        assert_eq!(find("\n0: x\n1: a:b c d\n", SocketAddr::from(([127, 0, 0, 1], 1))), None);
    }

    #[test]
    fn a_listener_of_this_process_is_its_users() {
        for ip in ["127.0.0.1", "[::1]"] {
            let Ok(here) = TcpListener::bind(format!("{ip}:0")) else { continue };
            let at = here.local_addr().unwrap();
            let own = rustix::process::geteuid().as_raw();
            assert_eq!(listener(at).unwrap(), Some(own));
            assert_eq!(check(at).unwrap(), own);
            drop(here);
            assert!(check(at).unwrap_err().to_string().contains("nobody listens"));
        }
    }
}

//! The octets between DATA and its end.
//!
//! The end is CR LF `.` CR LF and nothing else; the CR LF of the DATA command counts as the first.
//! Any CR or LF outside CR LF spoils the message, but not the count: the true end is still waited
//! for, so that nothing of a refused message is ever taken for a command.

use zeroize::Zeroizing;

/// What spoils a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    TooBig,
    /// The server has no room for the rest.
    NoRoom,
    /// In this line, the first of which is 1.
    BareLineEnd(u32),
    Nul(u32),
}

/// What came of the octets given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All were taken; the end was not among them.
    More,
    /// The end was reached after this many octets.
    End(usize),
}

/// Half of the octets for which there is room at first.
const FIRST: usize = 1024;

/// Adds octets to what there is of a message. A buffer that grows by itself leaves copies of what it held.
pub(crate) fn append(message: &mut Zeroizing<Vec<u8>>, octets: &[u8]) {
    let needed = message.len() + octets.len();
    if needed > message.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(FIRST) * 2));
        larger.extend_from_slice(message);
        *message = larger;
    }
    message.extend_from_slice(octets);
}

/// Collects one message.
pub(crate) struct Data {
    at: At,
    message: Zeroizing<Vec<u8>>,
    max: usize,
    line: u32,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    /// `.` at the start of a line.
    Dot,
    /// `.` CR at the start of a line.
    DotCr,
    Text,
    Cr,
}

impl Data {
    pub(crate) fn new(max: usize) -> Self {
        Self { at: At::LineStart, message: Zeroizing::default(), max, line: 1, fault: None }
    }

    pub(crate) fn take(&mut self, octets: &[u8]) -> Progress {
        for (index, &octet) in octets.iter().enumerate() {
            if self.at == At::DotCr && octet == b'\n' {
                return Progress::End(index + 1);
            }
            self.step(octet);
        }
        Progress::More
    }

    /// Octets kept so far.
    pub(crate) fn len(&self) -> usize {
        self.message.len()
    }

    /// Keeps nothing of the message any more; its end is still waited for.
    pub(crate) fn give_up(&mut self) {
        self.spoil(Fault::NoRoom);
    }

    /// The message with its dots unstuffed, or what spoiled it.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Fault> {
        match self.fault {
            None => Ok(core::mem::take(&mut *self.message)),
            Some(fault) => Err(fault),
        }
    }

    fn step(&mut self, octet: u8) {
        self.at = match (self.at, octet) {
            (At::LineStart, b'.') => At::Dot,
            (At::Dot, b'\r') => At::DotCr,
            (At::LineStart | At::Text, b'\r') => At::Cr,
            (At::Cr, b'\n') => {
                self.push(b"\r\n");
                self.line = self.line.saturating_add(1);
                At::LineStart
            }
            (At::Cr | At::DotCr, b'\r') => {
                self.spoil(Fault::BareLineEnd(self.line));
                At::Cr
            }
            (At::Cr | At::DotCr, _) | (_, b'\n') => {
                self.spoil(Fault::BareLineEnd(self.line));
                At::Text
            }
            (_, 0) => {
                self.spoil(Fault::Nul(self.line));
                At::Text
            }
            (At::LineStart | At::Dot | At::Text, other) => {
                self.push(&[other]);
                At::Text
            }
        };
    }

    fn push(&mut self, octets: &[u8]) {
        if self.message.len() + octets.len() > self.max {
            self.spoil(Fault::TooBig);
        }
        if self.fault.is_none() {
            append(&mut self.message, octets);
        }
    }

    /// Only the first fault is reported; from then on nothing is kept.
    fn spoil(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.message = Zeroizing::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(octets: &[u8]) -> Option<(usize, Result<Vec<u8>, Fault>)> {
        let mut data = Data::new(10_000);
        match data.take(octets) {
            Progress::End(length) => Some((length, data.finish())),
            Progress::More => None,
        }
    }

    #[test]
    fn the_end_is_crlf_dot_crlf_alone() {
        assert_eq!(read(b".\r\n"), Some((3, Ok(vec![]))));
        assert_eq!(read(b"a\r\n.\r\nrest"), Some((6, Ok(b"a\r\n".to_vec()))));
        for not_an_end in [
            &b"a\n.\n"[..],
            b"a\n.\r\n",
            b"a\r\n.\n",
            b"a\r.\r",
            b"a\r.\r\n",
            b"a\r\n.\r",
            b"a\r\n.\r\r\n",
            b"a\r\n .\r\n",
            b"a\r\n. \r\n",
            b"a\r\n.\0\r\n",
            b"a\r\n\0.\r\n",
            b".\n",
            b"\n.\r\n",
            b"a\r\n..\r\n",
        ] {
            assert_eq!(read(not_an_end), None, "{:?}", String::from_utf8_lossy(not_an_end));
        }
    }

    #[test]
    fn a_spoilt_message_is_swallowed_to_its_true_end() {
        let smuggled = b"a\n.\nMAIL FROM:<x>\r\n.\r\nNOOP\r\n";
        let (length, outcome) = read(smuggled).unwrap();
        assert_eq!(&smuggled[length..], b"NOOP\r\n");
        assert_eq!(outcome, Err(Fault::BareLineEnd(1)));
        assert_eq!(read(b"a\r\nb\0\r\n.\r\n").unwrap().1, Err(Fault::Nul(2)));
        let big = [b"0123456789\r\n".repeat(1000), b".\r\n".to_vec()].concat();
        assert_eq!(read(&big).unwrap(), (12_003, Err(Fault::TooBig)));
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_matter(
            octets in proptest::collection::vec(prop_oneof![
                Just(b'\r'), Just(b'\n'), Just(b'.'), Just(0), Just(b' '), Just(b'a')], 0..40),
            cut in 0usize..40,
        ) {
            let (first, second) = octets.split_at(cut.min(octets.len()));
            let mut data = Data::new(10_000);
            let parts = match data.take(first) {
                Progress::End(length) => Some(length),
                Progress::More => match data.take(second) {
                    Progress::End(length) => Some(first.len() + length),
                    Progress::More => None,
                },
            };
            let ended = parts.is_some();
            let parts = parts.map(|length| (length, data.finish()));
            prop_assert_eq!(&parts, &read(&octets));
            // The end is at the first CRLF . CRLF, wherever that is.
            let with_start = [b"\r\n", octets.as_slice()].concat();
            let end = with_start.windows(5).position(|window| window == b"\r\n.\r\n");
            prop_assert_eq!(ended, end.is_some());
            if let (Some((length, _)), Some(at)) = (parts, end) {
                prop_assert_eq!(length, at + 3);
            }
        }

        #[test]
        fn stuffed_dots_come_off(lines in proptest::collection::vec("[.a]{0,5}", 0..10)) {
            let plain: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let stuffed: String = lines
                .iter()
                .map(|line| if line.starts_with('.') { format!(".{line}\r\n") } else { format!("{line}\r\n") })
                .collect();
            let (_, message) = read(format!("{stuffed}.\r\n").as_bytes()).unwrap();
            prop_assert_eq!(message.unwrap(), plain.into_bytes());
        }
    }
}

//! Replies of a control port, from its lines (Tor control-spec, section 2.3).
//!
//! The length of a line, and of a reply with its data, is checked before either is parsed.

use std::collections::VecDeque;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;

const MAX_LINE: u64 = 64 * 1024;
/// Octets of one reply with its data.
const MAX_REPLY: usize = 1 << 20;

/// A reply: its code, and the text of each line, with its data block below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits; 6xx is an event.
    pub code: u16,
    /// At least one.
    pub lines: Vec<String>,
}

/// Reads until the other side hangs up or sends something that is not a reply. Replies go to the
/// caller that asked, events to the caller that waits for them.
pub(super) async fn read(
    reader: impl AsyncRead + Unpin,
    replies: mpsc::Sender<Reply>,
    events: mpsc::Sender<Reply>,
) {
    let mut reader = BufReader::new(reader);
    let mut assembly = Assembly::default();
    loop {
        let mut line = Vec::new();
        // A longer line is cut off, and the rest does not parse as a reply.
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        match assembly.line(&line) {
            Ok(None) => {}
            Ok(Some(event)) if event.code >= 600 => {
                // A caller that waits for an event asks Tor again from time to time.
                let _ = events.try_send(event);
            }
            Ok(Some(reply)) => {
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
            Err(Garbled) => return,
        }
    }
}

/// Puts replies together from lines.
#[derive(Default)]
struct Assembly {
    code: u16,
    lines: VecDeque<String>,
    octets: usize,
    in_data: bool,
}

/// The input is not the control protocol.
#[derive(Debug, PartialEq, Eq)]
struct Garbled;

impl Assembly {
    fn line(&mut self, octets: &[u8]) -> Result<Option<Reply>, Garbled> {
        let octets = octets.strip_suffix(b"\n").ok_or(Garbled)?;
        let octets = octets.strip_suffix(b"\r").unwrap_or(octets);
        let line = String::from_utf8_lossy(octets);
        self.octets = self.octets.saturating_add(line.len());
        if self.octets > MAX_REPLY {
            return Err(Garbled);
        }
        if self.in_data {
            if line == "." {
                self.in_data = false;
            } else if let Some(last) = self.lines.back_mut() {
                last.push('\n');
                last.push_str(line.strip_prefix('.').unwrap_or(&line));
            }
            return Ok(None);
        }
        let (code, rest) = line.split_at_checked(3).ok_or(Garbled)?;
        let code: u16 = code.parse().map_err(|_| Garbled)?;
        let is_first = self.lines.is_empty();
        if !(100..700).contains(&code) || (!is_first && code != self.code) {
            return Err(Garbled);
        }
        self.code = code;
        let mut rest = rest.chars();
        let separator = rest.next();
        self.lines.push_back(rest.as_str().to_owned());
        match separator {
            Some('-') => Ok(None),
            Some('+') => {
                self.in_data = true;
                Ok(None)
            }
            Some(' ') => {
                self.octets = 0;
                Ok(Some(Reply { code, lines: std::mem::take(&mut self.lines).into() }))
            }
            _ => Err(Garbled),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assemble(text: &str) -> Result<Vec<Reply>, Garbled> {
        let mut assembly = Assembly::default();
        let mut replies = Vec::new();
        for line in text.split_inclusive('\n') {
            replies.extend(assembly.line(line.as_bytes())?);
        }
        Ok(replies)
    }

    #[test]
    fn replies_of_all_three_shapes_are_read() {
        let replies = assemble(
            "250-version=0.4.9.11\r\n250+ns/all=\r\nr a\r\n..dot\r\n.\r\n250 OK\r\n\
             650 HS_DESC UPLOADED x\r\n552 Unrecognized key\r\n",
        )
        .unwrap();
        assert_eq!(replies[0].lines, ["version=0.4.9.11", "ns/all=\nr a\n.dot", "OK"]);
        assert_eq!((replies[1].code, replies[2].code), (650, 552));
        for bad in ["", "250", "25", "abc OK\r\n", "250xOK\r\n", "250-a\r\n550 b\r\n", "250 cut"] {
            let result = assemble(bad);
            assert!(result.is_err() || result.unwrap().is_empty(), "{bad}");
        }
    }

    #[test]
    fn a_reply_without_end_is_not_kept() {
        let mut assembly = Assembly::default();
        let line = format!("250-{}\n", "x".repeat(60_000));
        let taken = (0..100).take_while(|_| assembly.line(line.as_bytes()).is_ok()).count();
        assert!(taken * line.len() <= MAX_REPLY);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic(octets: Vec<u8>) {
            let mut assembly = Assembly::default();
            for line in octets.split_inclusive(|octet| *octet == b'\n') {
                if assembly.line(line).is_err() {
                    break;
                }
            }
        }
    }
}

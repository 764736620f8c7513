//! What is fuzzed: the decoders of what an exit is sent. Whatever octets come, nothing panics, and a
//! message stays within its bounds.

use fog_mail::{Acknowledgement, Assembly, MAX_MESSAGE, Mailbox, Piece, rebuild};

/// What is done with any octets.
pub(crate) type Target = fn(&[u8]);

/// Names the targets; each has a corpus of that name.
pub(crate) const TARGETS: [(&str, Target); 2] =
    [("pieces", pieces), ("acknowledgement", acknowledgement)];

/// Parts, each after its length in 2 octets.
fn parts(mut octets: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = octets.split_first_chunk() {
        let (part, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        parts.push(part);
        octets = rest;
    }
    parts
}

/// Pieces that come to one exit, in this order: how many octets the message has, if they give one.
pub(crate) fn assemble(octets: &[u8]) -> Option<usize> {
    let mut assembly: Option<Assembly> = None;
    for part in parts(octets) {
        let Ok(piece) = Piece::decode(part) else { continue };
        let Ok(again) = piece.to_octets() else { panic!("a piece that was read is written") };
        assert!(again.as_slice() == part);
        match &mut assembly {
            None => assembly = Some(Assembly::begin(piece)),
            Some(known) => {
                let _ = known.add(piece);
            }
        }
    }
    let fragment = assembly?.finish().ok()?;
    assert!(fragment.size() <= MAX_MESSAGE);
    let Ok(anonymous) = Mailbox::parse("anonymous@exit.example") else { return None };
    let delivery = rebuild(&fragment, &anonymous, 495_000).ok()?;
    Some(delivery.message.len())
}

pub(crate) fn pieces(octets: &[u8]) {
    let _ = assemble(octets);
}

pub(crate) fn acknowledgement(octets: &[u8]) {
    if let Ok(said) = Acknowledgement::decode(octets) {
        assert!(said.encode().as_slice() == octets);
    }
}

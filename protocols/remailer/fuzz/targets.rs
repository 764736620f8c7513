//! What is fuzzed: the decoders of what a disk returns. Whatever octets come, nothing panics, and what was read
//! is what would be written.

use fog_remailer::{Ended, Spooled};

/// What is done with any octets.
pub(crate) type Target = fn(&[u8]);

/// Names the targets; each has a corpus of that name.
pub(crate) const TARGETS: [(&str, Target); 2] = [("spooled", spooled), ("ended", ended)];

/// Octets with the check that a message in custody ends with, which no fuzzer finds.
pub(crate) fn checked(body: &[u8]) -> Vec<u8> {
    let hash = blake3::derive_key("fog-v1 check of a spooled message", body);
    body.iter().chain(hash.iter().take(16)).copied().collect()
}

/// A message in custody without its check: how many packets it has, if it is one.
pub(crate) fn packets(body: &[u8]) -> Option<usize> {
    let octets = checked(body);
    let spooled = Spooled::decode(&octets).ok()?;
    let Some(again) = spooled.encode() else { panic!("a message that was read is written") };
    assert!(again.as_slice() == octets.as_slice());
    let packets = spooled.packets().count();
    let marked = spooled.marked(body.to_vec());
    assert!(marked.marks() == body);
    Some(packets)
}

pub(crate) fn spooled(body: &[u8]) {
    // Without the check it is no message, whatever it says.
    assert!(body.is_empty() || Spooled::decode(body).is_err());
    let _ = packets(body);
}

pub(crate) fn ended(octets: &[u8]) {
    if let Ok(octets) = octets.try_into()
        && let Some(ended) = Ended::from_octets(octets)
    {
        assert!(ended.to_octets() == *octets && ended.states().len() <= 4);
    }
}

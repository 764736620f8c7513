//! Delivery into a Maildir: one file for each recipient.

use std::io;
use std::path::Path;

use mail::Delivery;
use rand::Rng as _;
use remailer::DeliveryOutcome;

use super::ServerFault;
use crate::files::{make_folder, remove, rename_synced, write_new, write_whole};
use crate::machine::Machine;

/// Writes a file for each recipient; those that could not be written are tried again.
pub(super) fn deliver(
    folder: &Path,
    mut delivery: Delivery,
    machine: &Machine,
) -> (DeliveryOutcome, Result<(), ServerFault>) {
    let mut rng = machine.rng;
    let mut taken = 0;
    let message = delivery.message.clone();
    delivery.recipients.retain(|mailbox| {
        let seconds = machine.clock.now().as_millis() / 1000;
        let name = format!("{seconds}.{:016x}.fog", rng.next_u64());
        let written = write(folder, &name, &mailbox.to_text(), &message);
        if let Err(error) = &written {
            tracing::warn!(%error, "cannot write into the maildir");
        }
        taken += usize::from(written.is_ok());
        written.is_err()
    });
    if delivery.recipients.is_empty() {
        (DeliveryOutcome::Done { taken, refused: 0, refused_here: 0 }, Ok(()))
    } else {
        let outcome = DeliveryOutcome::Later { delivery, taken, refused: 0, refused_here: 0 };
        (outcome, Err(ServerFault::CannotWrite))
    }
}

/// Whether a file can be written into the Maildir: one is, and removed.
pub(super) fn probe(folder: &Path) -> Result<(), ServerFault> {
    let path = folder.join("tmp/probe.fog");
    let tried = make_folder(&folder.join("tmp"))
        .and_then(|()| write_whole(&path, b"From: fog\n\n"))
        .and_then(|()| remove(&path));
    tried.map_err(|error| {
        tracing::warn!(%error, "cannot write into the maildir");
        ServerFault::CannotWrite
    })
}

/// Writes a file to `tmp`, syncs it, renames it into `new`, and syncs the folder. Lines end in LF
/// in a Maildir, as mail readers expect.
fn write(folder: &Path, name: &str, recipient: &str, message: &[u8]) -> io::Result<()> {
    for part in ["tmp", "new", "cur"] {
        make_folder(&folder.join(part))?;
    }
    let draft = folder.join("tmp").join(name);
    let mut octets = format!("Delivered-To: {recipient}\n").into_bytes();
    // Every CR in a message stands before an LF.
    octets.extend(message.iter().filter(|octet| **octet != b'\r'));
    write_new(&draft, &octets)?;
    let placed = rename_synced(&draft, &folder.join("new").join(name));
    if placed.is_err() {
        // It is written again with the next attempt: mail must not lie about in pieces.
        let _ = remove(&draft);
    }
    placed
}

//! Delivery into a Maildir: one file for each recipient.

use std::io;
use std::path::Path;

use mail::Delivery;
use rand::Rng as _;
use remailer::DeliveryOutcome;

use crate::files::{make_folder, rename_synced, write_new};
use crate::machine::Machine;

/// Writes a file for each recipient; those that could not be written are tried again.
pub(super) fn deliver(folder: &Path, mut delivery: Delivery, machine: &Machine) -> DeliveryOutcome {
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
        DeliveryOutcome::Done { taken, refused: 0 }
    } else {
        DeliveryOutcome::Later(delivery)
    }
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
    rename_synced(&draft, &folder.join("new").join(name))
}

//! Mail at both ends: the listener that takes submissions, and what delivers.

mod deliver;
mod listen;

pub use deliver::{Target, deliver, least, probe, submit};
pub use listen::{Question, Submissions, listen};

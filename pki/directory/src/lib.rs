#![doc = include_str!("../README.md")]

mod admit;
mod assembly;
mod entry;
mod graph;
mod heard;
mod hourly;
mod item;
mod list;
mod settled;
mod sync;
mod trust;
mod verdict;
mod view;
mod votes;

pub use admit::Directory;
pub use graph::COMPLETE;
pub use heard::{Heard, MAX_APART};
pub use item::ItemId;
pub use list::{HourList, ListEntry};
pub use sync::{
    Answer, MAX_ANSWER, MAX_REQUEST, Reconciliation, Request, Rest, Step, Summary, Told,
};
pub use verdict::{Admitted, Source, Unwanted};
pub use view::{PartialView, Route, RouteError, Standing, View};

//! All verified statements, what they say for one hour, and the choice of a route from that.
//!
//! ```text
//! Record -> admit ---.
//! Vouch  -> note_word -> Directory -> partial_view(hour) -> PartialView -> if_sufficient -> View -> route
//! Proof  -> convict -'
//! ```
//!
//! A [`Directory`] changes with every statement heard. A [`View`] does not change: it is a function
//! of the statements and an hour, the same for every node that has the same statements, and routes
//! come from it alone. [`View::route`] is the only maker of a [`Route`].
//!
//! This crate talks to nobody: the octets of reconciliation are made and read here, and sent
//! elsewhere.

mod admit;
mod clocks;
mod entry;
mod item;
mod sync;
mod trust;
mod verdict;
mod view;

pub use admit::{Directory, spacing};
pub use clocks::{Clocks, MAX_APART};
pub use item::ItemId;
pub use sync::{
    Answer, MAX_ANSWER, MAX_REQUEST, Reconciliation, Request, Rest, Step, Summary, Told,
};
pub use trust::{EXIT_PROBATION, RELAY_PROBATION};
pub use verdict::{Admitted, Source, Unwanted};
pub use view::{PartialView, Route, RouteError, Standing, View};

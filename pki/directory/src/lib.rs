//! All verified records, what they say for one hour, and the choice of a route from that.
//!
//! ```text
//! Record -> admit -> Directory -> partial_view(hour) -> PartialView -> if_sufficient -> View -> route
//! ```
//!
//! A [`Directory`] changes with every record heard. A [`View`] does not change: it is a function of the
//! records and an hour, the same for everybody who has the same records, and routes come from it alone.
//! [`View::route`] is the only maker of a [`Route`].
//!
//! This crate talks to nobody: the octets of reconciliation are made and read here, and sent elsewhere.

mod admit;
mod sync;
mod view;

pub use admit::{Admitted, Directory, Unwanted, spacing};
pub use sync::{MAX_PAGE, MAX_REQUEST, Page, Request};
pub use view::{PartialView, Route, RouteError, View};

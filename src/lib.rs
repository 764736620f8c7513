//! A node of the fog network: anonymous mail over Tor, libp2p and Sphinx.
//!
//! Everything under `protocols/` and `pki/` is pure; all input and output is here. The
//! [`driver`] is the one event loop of a node: it feeds a [`remailer::Remailer`] and carries out
//! its commands through [`net`], [`exit`] and [`store`]; [`ingress`] brings it submissions. The
//! only shared state is bounded channels and snapshots that are replaced as a whole.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod driver;
pub mod entropy;
pub mod exit;
pub mod failure;
pub mod files;
pub mod ingress;
pub mod machine;
pub mod net;
pub mod places;
pub mod startup;
pub mod store;
pub mod workers;

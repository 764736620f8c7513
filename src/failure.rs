//! Failures that an operator sees: a line with the cause, a line with the remedy, and an exit code
//! for each kind.

use core::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// A failure that ends the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    kind: FailureKind,
    cause: String,
    remedy: Option<String>,
}

/// Its kind, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// 1: a fault of fog itself.
    Internal,
    /// 2: command line or configuration.
    Usage,
    /// 3: no running node to talk to.
    NoNode,
    /// 4: the state folder.
    State,
    /// 5: Tor.
    Tor,
    /// 6: the network, or a wrong key.
    Network,
    /// 7: the clock.
    Clock,
    /// 8: a port that is taken.
    Port,
    /// 9: something was left undone.
    Undone,
}

impl Failure {
    /// A failure with its cause.
    #[must_use]
    pub fn new(kind: FailureKind, cause: impl fmt::Display) -> Self {
        Self { kind, cause: cause.to_string(), remedy: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(self, remedy: impl fmt::Display) -> Self {
        Self { remedy: Some(remedy.to_string()), ..self }
    }

    /// What to do, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The code that the program exits with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            FailureKind::Internal => 1,
            FailureKind::Usage => 2,
            FailureKind::NoNode => 3,
            FailureKind::State => 4,
            FailureKind::Tor => 5,
            FailureKind::Network => 6,
            FailureKind::Clock => 7,
            FailureKind::Port => 8,
            FailureKind::Undone => 9,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl core::error::Error for Failure {}

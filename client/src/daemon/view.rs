//! What of the daemon's state is watched by others.

use crate::ipc::{Failure, StateName};

/// The state, for those who wait for it to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) state: StateName,
    pub(crate) problem: Option<Failure>,
}

impl Default for Summary {
    fn default() -> Self {
        Self { state: StateName::Disconnected, problem: None }
    }
}

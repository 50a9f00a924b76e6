//! Whether the control plane answers, and since when.

use adit_proto::Timestamp;
use adit_tunnel::ControlPlaneError;

use super::obstacle;

#[derive(Debug, Default)]
pub(crate) struct Reachability {
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    is_reachable: bool,
    since: Timestamp,
    error: Option<String>,
}

impl Reachability {
    /// Notes an answer, or that there was none. A refusal is an answer.
    pub(crate) fn note<T>(&mut self, result: &Result<T, ControlPlaneError>, now: Timestamp) {
        let error = match result {
            Ok(_) => None,
            Err(ControlPlaneError::Refused(_)) => None,
            Err(error) => Some(obstacle::chain(error)),
        };
        let is_reachable = error.is_none();
        match &mut self.known {
            Some(known) if known.is_reachable == is_reachable => known.error = error,
            Some(_) | None => {
                if let Some(error) = &error {
                    tracing::warn!(error, "Control plane cannot be reached");
                } else {
                    tracing::info!("Control plane answers");
                }
                self.known = Some(Known { is_reachable, since: now, error });
            }
        }
    }

    pub(crate) fn is_reachable(&self) -> Option<bool> {
        self.known.as_ref().map(|known| known.is_reachable)
    }

    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.known.as_ref().map(|known| known.since)
    }

    pub(crate) fn error(&self) -> Option<&str> {
        self.known.as_ref()?.error.as_deref()
    }
}

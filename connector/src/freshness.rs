//! How long a bundle may be trusted without word from the control plane.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    clock::Now,
    enforced::{Enforced, Standing},
    state_dir::StateDir,
};

/// What is known when the connector starts, and what control says while it runs.
pub(crate) struct Freshness {
    pub(crate) state: StateDir,
    pub(crate) held: watch::Receiver<Option<Arc<Enforced>>>,
    pub(crate) last_contact: watch::Receiver<Timestamp>,
    pub(crate) standing: watch::Sender<Standing>,
}

/// Judges the bundle that is held by when the control plane was last heard.
pub(crate) fn judge(
    held: Option<&Arc<Enforced>>,
    last_contact: Timestamp,
    now: Timestamp,
) -> Standing {
    match held {
        None => Standing::Waiting,
        Some(enforced) => {
            let silence = now.saturating_duration_since(last_contact);
            if silence > enforced.bundle().max_offline() {
                Standing::Stale(Arc::clone(enforced))
            } else {
                Standing::Live(Arc::clone(enforced))
            }
        }
    }
}

impl Freshness {
    /// Publishes the standing whenever it changes, and keeps the last contact on disk.
    pub(crate) async fn run(mut self) {
        /// How precisely the last contact survives a crash.
        const PERSIST_INTERVAL: Duration = Duration::from_secs(60);
        const TICK: Duration = Duration::from_secs(1);

        let mut persisted: Option<(Instant, Timestamp)> = None;
        loop {
            let now = Now::read();
            let contact = *self.last_contact.borrow_and_update();
            let judged = judge(self.held.borrow_and_update().as_ref(), contact, now.wall);
            self.publish(judged);

            let due = persisted.is_none_or(|(at, kept)| {
                kept != contact && now.monotonic.duration_since(at) >= PERSIST_INTERVAL
            });
            if due {
                persisted = Some((now.monotonic, contact));
                self.persist(contact);
            }
            tokio::select! {
                changed = self.held.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.last_contact.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn publish(&self, judged: Standing) {
        self.standing.send_if_modified(|standing| {
            let is_same = match (&*standing, &judged) {
                (Standing::Live(old), Standing::Live(new))
                | (Standing::Stale(old), Standing::Stale(new)) => Arc::ptr_eq(old, new),
                (Standing::Waiting, Standing::Waiting) => true,
                _ => false,
            };
            if is_same {
                return false;
            }
            match (&*standing, &judged) {
                (_, Standing::Stale(enforced)) => warn!(
                    sequence = enforced.bundle().sequence,
                    max_offline = ?enforced.bundle().max_offline(),
                    "Control plane was silent for too long; every flow is denied until it is heard"
                ),
                (Standing::Stale(_), Standing::Live(_)) => info!("Control plane is heard again"),
                _ => {}
            }
            *standing = judged;
            true
        });
    }

    fn persist(&self, contact: Timestamp) {
        if let Err(error) = self.state.write_last_contact(contact) {
            let error: &dyn std::error::Error = &error;
            warn!(error, "Failed to note when the control plane was last heard");
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::{Bundle, ConnectorId, OrganisationId, SiteId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_bundle_is_stale_after_its_time_and_live_again_on_contact() {
        let held = Arc::new(Enforced::try_new(bundle(3600)).unwrap());
        let at = |secs: i64| Timestamp::from_millis(secs * 1000);
        let judged = |contact, now| judge(Some(&held), at(contact), at(now));
        assert!(matches!(judged(0, 3600), Standing::Live(_)));
        assert!(matches!(judged(0, 3601), Standing::Stale(_)));
        assert!(matches!(judged(3601, 3602), Standing::Live(_)));
    }

    #[test]
    fn without_a_bundle_there_is_nothing_to_judge() {
        let now = Timestamp::from_millis(0);
        assert!(matches!(judge(None, now, now), Standing::Waiting));
    }

    fn bundle(max_offline_s: u64) -> Bundle {
        Bundle {
            organisation_id: OrganisationId::from_uuid(Uuid::nil()),
            connector_id: ConnectorId::from_uuid(Uuid::nil()),
            site_id: SiteId::from_uuid(Uuid::nil()),
            sequence: 1,
            issued_at: Timestamp::from_millis(0),
            max_offline_s,
            device_ranges: Vec::new(),
            organisation_keys: Vec::new(),
            resources: Vec::new(),
            policies: Vec::new(),
            revocations: Vec::new(),
            wireguard_devices: Vec::new(),
        }
    }
}

//! A flow that the connector dials for a device: decided before it exists, and as long as it does.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use adit_policy::{Authorization, Denial};
use adit_proto::{
    DeviceId, FlowTuple, PolicyId, Protocol, Reason, ResourceId, Timestamp, UserId, Verdict,
};
use tokio::{sync::watch, time::MissedTickBehavior};

use super::RequestServer;
use crate::{
    data_plane::{Losses, RecordSinks},
    enforced::{Standing, destination_of},
    flow_table::Volume,
    forwarder::FlowRecord,
    own_addresses::OwnAddresses,
    sessions::Member,
};

/// A flow that may exist. Its end is recorded when this is dropped.
pub(super) struct AuthorizedFlow {
    authorization: Authorization,
    judge: Judge,
    log: Log,
    began: Instant,
    cut_by: Option<Denial>,
    traffic: Arc<Traffic>,
}

/// What has gone through a flow.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) from_device: Counter,
    pub(super) to_device: Counter,
}

/// One direction of it.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) bytes: AtomicU64,
    datagrams: AtomicU64,
}

impl Counter {
    pub(super) fn count_datagram(&self, len: usize) {
        self.datagrams.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(u64::try_from(len).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn volume(&self) -> Volume {
        Volume {
            packets: self.datagrams.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Everything that a decision depends on.
struct Judge {
    flow: FlowTuple,
    member: Member,
    standing: watch::Receiver<Standing>,
    own_addresses: watch::Receiver<OwnAddresses>,
}

/// Where records of the flow go.
struct Log {
    device_id: DeviceId,
    user_id: UserId,
    flow: FlowTuple,
    sinks: RecordSinks,
}

impl AuthorizedFlow {
    /// Decides about a flow to a service, and records what was decided.
    pub(super) fn try_new(
        server: &RequestServer,
        member: Member,
        protocol: Protocol,
        service: SocketAddr,
    ) -> Result<Self, Denial> {
        let device = member.device().map_err(|reason| Denial {
            reason,
            resource_id: None,
            policy_id: None,
        })?;
        let flow = FlowTuple {
            protocol,
            source: source_of(&device.addresses, service.ip()),
            // A stream has none.
            source_port: 0,
            destination: service.ip(),
            destination_port: service.port(),
        };
        let log = Log {
            device_id: device.subject.device_id,
            user_id: device.subject.user_id,
            flow,
            sinks: server.sinks.clone(),
        };
        let judge = Judge {
            flow,
            member,
            standing: server.verifier.standing.clone(),
            own_addresses: server.own_addresses.clone(),
        };
        let authorization = judge.decide().inspect_err(|denial| {
            let (began, traffic) = (Instant::now(), Traffic::default());
            log.record(Verdict::Deny, Why::from(*denial), began, &traffic);
        })?;
        let (began, traffic) = (Instant::now(), Arc::<Traffic>::default());
        log.record(Verdict::Allow, permitted_by(&authorization), began, &traffic);
        Ok(Self { authorization, judge, log, began, cut_by: None, traffic })
    }

    /// What goes through the flow is counted here.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Returns when the flow may no longer exist; its end then is a cut.
    ///
    /// # Cancel safety
    ///
    /// Nothing is missed when the future is dropped.
    pub(super) async fn cut(&mut self) {
        /// What ends with the time is looked at so often.
        const LOOK: Duration = Duration::from_millis(250);

        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.judge.changed() => {}
                _at = look.tick() => {
                    if self.authorization.is_live(now()) {
                        continue;
                    }
                }
            }
            match self.judge.decide() {
                Ok(authorization) => self.authorization = authorization,
                Err(denial) => {
                    self.cut_by = Some(denial);
                    return;
                }
            }
        }
    }
}

impl Drop for AuthorizedFlow {
    fn drop(&mut self) {
        let permitted = permitted_by(&self.authorization);
        let (verdict, why) = match self.cut_by {
            None => (Verdict::Closed, permitted),
            Some(denial) => (
                Verdict::Cut,
                Why {
                    reason: denial.reason,
                    resource_id: permitted.resource_id,
                    policy_id: denial.policy_id.or(permitted.policy_id),
                },
            ),
        };
        self.log.record(verdict, why, self.began, &self.traffic);
    }
}

impl Judge {
    fn decide(&self) -> Result<Authorization, Denial> {
        let denied = |reason| Denial { reason, resource_id: None, policy_id: None };
        let device = self.member.device().map_err(denied)?;
        let standing = self.standing.borrow();
        let enforced = standing.live().ok_or_else(|| denied(Reason::BundleStale))?;
        let own_addresses = self.own_addresses.borrow();
        enforced.decide(&device.subject, &destination_of(&self.flow), &own_addresses, now())
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = self.member.changed() => {}
            Ok(()) = self.standing.changed() => {}
            Ok(()) = self.own_addresses.changed() => {}
        }
    }
}

impl Log {
    fn record(&self, verdict: Verdict, why: Why, began: Instant, traffic: &Traffic) {
        let record = FlowRecord {
            at: now(),
            device_id: self.device_id,
            user_id: self.user_id,
            flow: self.flow,
            verdict,
            reason: why.reason,
            resource_id: why.resource_id,
            policy_id: why.policy_id,
            from_device: traffic.from_device.volume(),
            to_device: traffic.to_device.volume(),
            duration: began.elapsed(),
        };
        let mut losses = Losses::default();
        self.sinks.hand_on(record, &mut losses);
        if losses.records > 0 {
            tracing::debug!("More access events than the queue holds");
        }
    }
}

/// Why a record says what it says.
#[derive(Debug, Clone, Copy)]
struct Why {
    reason: Reason,
    resource_id: Option<ResourceId>,
    policy_id: Option<PolicyId>,
}

impl From<Denial> for Why {
    fn from(denial: Denial) -> Self {
        let Denial { reason, resource_id, policy_id } = denial;
        Self { reason, resource_id, policy_id }
    }
}

fn permitted_by(authorization: &Authorization) -> Why {
    Why {
        reason: Reason::PolicyPermits,
        resource_id: Some(authorization.resource_id()),
        policy_id: Some(authorization.policy_id()),
    }
}

/// The device's address of the family of the service.
fn source_of(addresses: &[IpAddr], service: IpAddr) -> IpAddr {
    let same = addresses.iter().find(|address| address.is_ipv4() == service.is_ipv4());
    // A device has an address at least: admission demands it.
    same.or(addresses.first()).copied().unwrap_or(service)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

//! Decides about every packet: a state machine without input and output.

mod denials;
mod probe;
mod reminders;
mod reset;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use adit_policy::{Authorization, Denial, Subject};
use adit_proto::{DeviceId, FlowTuple, PolicyId, Reason, ResourceId, Timestamp, UserId, Verdict};
use adit_tunnel::{Packet, PeerId, Refusal, Transport, refuse};

use self::{denials::RecentDenials, probe::RecentProbes, reminders::Reminders};
pub(crate) use self::{probe::Probe, reset::Reset};
use crate::{
    clock::Now,
    enforced::{Standing, destination_of},
    flow_table::{Flow, FlowTable, Limits, Slot, Volume},
    own_addresses::OwnAddresses,
};

/// What becomes of a packet that a device sent.
#[derive(Debug)]
pub(crate) enum Inner<'f> {
    /// It goes on to the service; the proof is to be shown to whoever carries it.
    Forward(&'f Authorization),
    /// It ends here, and this packet goes back to the device.
    Reply(Vec<u8>),
    /// It ends here.
    Drop,
}

/// What becomes of a packet that a service sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// It goes to this device.
    Send(PeerId),
    /// It ends here, but may be of a connection that a restart made us forget: see
    /// [`Forwarder::probe`].
    Orphan,
    /// It ends here.
    Drop,
}

/// A packet of our own that both ends of a flow that was cut are told by.
#[derive(Debug)]
pub(crate) enum Notice {
    ToDevice(PeerId, Reset),
    ToService(Reset),
}

/// Something for the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FlowRecord {
    pub(crate) at: Timestamp,
    pub(crate) device_id: DeviceId,
    pub(crate) user_id: UserId,
    pub(crate) flow: FlowTuple,
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    pub(crate) resource_id: Option<ResourceId>,
    pub(crate) policy_id: Option<PolicyId>,
    pub(crate) from_device: Volume,
    pub(crate) to_device: Volume,
    pub(crate) duration: Duration,
}

/// The counters that an administrator watches.
#[derive(Debug, Clone, Default)]
pub(crate) struct ForwarderCounters {
    /// Decisions about flows, by their reason.
    pub(crate) decisions: BTreeMap<Reason, u64>,
    /// Packets that ended here, by the reason.
    pub(crate) drops: BTreeMap<Reason, u64>,
    pub(crate) from_devices: Volume,
    pub(crate) to_devices: Volume,
}

struct Device {
    subject: Subject,
    /// When the subject last changed, on the same scale as the generation of policy.
    generation: u64,
}

/// All flows of all devices.
///
/// - `handle_*`, `upsert_device` and `remove_device` put something in;
/// - after any of them, [`poll_notice`](Self::poll_notice) and [`poll_record`](Self::poll_record)
///   until both are empty, then sleep until [`poll_timeout`](Self::poll_timeout).
///
/// INVARIANT: a packet is never let through by a decision older than the newest policy or the
/// newest credential of its device: generations are compared at every packet, the sweep only
/// finds the silent flows.
pub(crate) struct Forwarder {
    standing: Standing,
    own_addresses: OwnAddresses,
    devices: HashMap<PeerId, Device>,
    flows: FlowTable,
    recent_denials: RecentDenials,
    recent_probes: RecentProbes,
    reminders: Reminders,
    /// Grows with every change of policy or of a subject.
    generation: u64,
    policy_generation: u64,
    sweep: Sweep,
    counters: ForwarderCounters,
    notices: VecDeque<Notice>,
    records: VecDeque<FlowRecord>,
}

struct Sweep {
    place: usize,
    due: Instant,
}

/// Why a packet ends here, and whether its sender hears of it.
enum Rejection {
    Silent(Reason),
    Told(Reason),
}

/// How often silent flows are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Forwarder {
    pub(crate) fn new(limits: Limits, now: Now) -> Self {
        Self {
            standing: Standing::Waiting,
            own_addresses: OwnAddresses::default(),
            devices: HashMap::new(),
            flows: FlowTable::new(limits),
            recent_denials: RecentDenials::default(),
            recent_probes: RecentProbes::default(),
            reminders: Reminders::default(),
            generation: 0,
            policy_generation: 0,
            sweep: Sweep { place: 0, due: now.monotonic + SWEEP_INTERVAL },
            counters: ForwarderCounters::default(),
            notices: VecDeque::new(),
            records: VecDeque::new(),
        }
    }

    pub(crate) fn flow_count(&self) -> usize {
        self.flows.len()
    }

    pub(crate) const fn counters(&self) -> &ForwarderCounters {
        &self.counters
    }

    /// Enforces another bundle, or none: every flow is decided anew.
    pub(crate) fn handle_standing(&mut self, standing: Standing, now: Now) {
        self.standing = standing;
        self.forget_decisions(now);
    }

    /// The connector's own addresses have changed.
    pub(crate) fn handle_own_addresses(&mut self, own_addresses: OwnAddresses, now: Now) {
        if own_addresses != self.own_addresses {
            self.own_addresses = own_addresses;
            self.forget_decisions(now);
        }
    }

    /// Adds a device, or changes who it is; its flows are decided anew if that changed anything.
    pub(crate) fn upsert_device(&mut self, peer: PeerId, subject: Subject, now: Now) {
        self.generation += 1;
        let source = self.devices.get(&peer).and_then(|device| device.subject.source);
        let subject = Subject { source: subject.source.or(source), ..subject };
        self.devices.insert(peer, Device { subject, generation: self.generation });
        self.start_redeciding(now);
    }

    /// The outer address of a device is this one.
    pub(crate) fn handle_source(&mut self, peer: PeerId, source: IpAddr, now: Now) {
        let Some(device) = self.devices.get_mut(&peer) else { return };
        if device.subject.source != Some(source) {
            device.subject.source = Some(source);
            self.generation += 1;
            device.generation = self.generation;
            self.start_redeciding(now);
        }
    }

    /// Removes a device and cuts its flows.
    pub(crate) fn remove_device(&mut self, peer: PeerId, reason: Reason, now: Now) {
        while let Some(slot) = self.flows.newest_of(peer) {
            self.cut(slot, &Denial { reason, resource_id: None, policy_id: None }, now);
        }
        self.devices.remove(&peer);
    }

    /// Decides about a packet whose source address belongs to `peer`.
    ///
    /// The packet may stand for a run of many that were merged into it: `volume` is theirs, as they
    /// were before.
    pub(crate) fn handle_inner_packet(
        &mut self,
        peer: PeerId,
        packet: &Packet<'_>,
        volume: Volume,
        now: Now,
    ) -> Inner<'_> {
        match self.admit_inner(peer, packet, volume, now) {
            Ok(slot) => {
                self.counters.from_devices += volume;
                Inner::Forward(&self.flows.flow(slot).authorization)
            }
            Err(Rejection::Silent(reason)) => {
                self.count_drops(reason, volume.packets);
                Inner::Drop
            }
            Err(Rejection::Told(reason)) => {
                self.count_drops(reason, volume.packets);
                match refuse(packet, Refusal::Prohibited, None) {
                    Some(reply) => Inner::Reply(reply),
                    None => Inner::Drop,
                }
            }
        }
    }

    /// Notes a packet whose source address is not its sender's; it is already dropped.
    pub(crate) fn handle_spoofed(&mut self, peer: PeerId, packet: &Packet<'_>, now: Now) {
        self.count_drops(Reason::SourceSpoofed, 1);
        let denial = Denial { reason: Reason::SourceSpoofed, resource_id: None, policy_id: None };
        if let Some(tuple) = packet.flow() {
            self.deny(peer, tuple, denial, now);
        }
    }

    /// Notes bytes from a device that are no packet.
    pub(crate) fn handle_malformed(&mut self) {
        self.count_drops(Reason::PacketUnsupported, 1);
    }

    /// Decides about a packet that a service, or a router before it, sent to a device.
    ///
    /// The packet may stand for a run of many, as in [`Self::handle_inner_packet`].
    pub(crate) fn handle_service_packet(
        &mut self,
        packet: &Packet<'_>,
        volume: Volume,
        now: Now,
    ) -> Service {
        match self.admit_service(packet, volume, now) {
            Ok(peer) => {
                self.counters.to_devices += volume;
                Service::Send(peer)
            }
            Err(reason) => {
                self.count_drops(reason, volume.packets);
                let goes_on = packet
                    .tcp_flags()
                    .is_some_and(|flags| flags.ack() && !flags.syn() && !flags.rst());
                if goes_on && reason == Reason::FlowUnknown {
                    Service::Orphan
                } else {
                    Service::Drop
                }
            }
        }
    }

    /// What to send to the owner of an orphan's destination.
    ///
    /// Nothing that a service sends passes before the device itself has sent something, which is
    /// then decided about like any new flow. But when a restart comes in the middle of a download
    /// the device has nothing to send, so it is asked.
    pub(crate) fn probe(&mut self, owner: PeerId, orphan: &Packet<'_>, now: Now) -> Option<Probe> {
        let tuple = orphan.flow()?.reversed();
        if !self.recent_probes.is_due(tuple, now.monotonic) {
            return None;
        }
        self.decide(owner, &tuple, now).ok()?;
        Probe::try_new(orphan)
    }

    /// Looks at the next flows in the row: ends the silent ones, decides the outdated ones anew.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        /// A decision costs some ten microseconds; packets must not wait for many of them.
        const REDECIDED_AT_ONCE: usize = 128;
        const SWEPT_AT_ONCE: usize = 8_192;

        if now.monotonic < self.sweep.due {
            return;
        }
        let mut budget = REDECIDED_AT_ONCE;
        for _ in 0..SWEPT_AT_ONCE {
            if self.sweep.place >= self.flows.slots() {
                self.recent_denials.expire(now.monotonic);
                self.recent_probes.expire(now.monotonic);
                self.remind(now);
                self.sweep = Sweep { place: 0, due: now.monotonic + SWEEP_INTERVAL };
                return;
            }
            if let Some(slot) = self.flows.slot_at(self.sweep.place) {
                if self.flows.flow(slot).is_idle(now.monotonic) {
                    self.end(slot, now);
                } else if !self.is_current(slot, now) {
                    if budget == 0 {
                        return;
                    }
                    budget -= 1;
                    // A flow that fell is told of by its record.
                    let _cut: Result<(), Denial> = self.bring_up_to_date(slot, now);
                }
            }
            self.sweep.place += 1;
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) const fn poll_timeout(&self) -> Instant {
        self.sweep.due
    }

    /// Ends every flow, because the connector stops.
    pub(crate) fn drain(&mut self, now: Now) {
        for place in 0..self.flows.slots() {
            if let Some(slot) = self.flows.slot_at(place) {
                self.end(slot, now);
            }
        }
    }

    pub(crate) fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    pub(crate) fn poll_record(&mut self) -> Option<FlowRecord> {
        self.records.pop_front()
    }

    fn admit_inner(
        &mut self,
        peer: PeerId,
        packet: &Packet<'_>,
        volume: Volume,
        now: Now,
    ) -> Result<Slot, Rejection> {
        let flags = match packet.transport() {
            Transport::Tcp(flags) => Some(flags),
            Transport::Udp | Transport::IcmpEchoRequest => None,
            Transport::IcmpError => return self.admit_inner_error(peer, packet, volume, now),
            Transport::IcmpEchoReply => return Err(Rejection::Silent(Reason::FlowUnknown)),
            Transport::Unsupported { .. } => {
                return Err(Rejection::Told(Reason::PacketUnsupported));
            }
        };
        if packet.is_first_fragment() {
            return Err(Rejection::Told(Reason::PacketUnsupported));
        }
        let tuple = packet.flow().ok_or(Rejection::Silent(Reason::PacketUnsupported))?;

        let mut known = self.flows.find(&tuple);
        if let Some(slot) = known {
            let flow = self.flows.flow(slot);
            if flow.peer != peer {
                return Err(Rejection::Silent(Reason::SourceSpoofed));
            }
            if flow.is_finished() && flags.is_some_and(|flags| flags.is_initial()) {
                self.end(slot, now);
                known = None;
            }
        }
        let slot = match known {
            Some(slot) => {
                self.bring_up_to_date(slot, now)
                    .map_err(|denial| Rejection::Told(denial.reason))?;
                slot
            }
            None if flags.is_some_and(|flags| flags.rst()) => {
                return Err(Rejection::Silent(Reason::FlowUnknown));
            }
            None => self.open(peer, tuple, now).map_err(Rejection::Told)?,
        };

        let flow = self.flows.flow_mut(slot);
        flow.last_seen = now.monotonic;
        flow.from_device.volume += volume;
        if let Some(flags) = flags {
            flow.note_flags(flags, true);
            reset::note_sequence(&mut flow.from_device.next_sequence, packet);
        }
        Ok(slot)
    }

    /// An ICMP error from a device passes if it speaks of a flow of that device.
    fn admit_inner_error(
        &mut self,
        peer: PeerId,
        packet: &Packet<'_>,
        volume: Volume,
        now: Now,
    ) -> Result<Slot, Rejection> {
        let slot = packet
            .related_flow()
            .and_then(|quoted| self.flows.find(&quoted.reversed()))
            .filter(|slot| self.flows.flow(*slot).peer == peer)
            .ok_or(Rejection::Silent(Reason::FlowUnknown))?;
        self.bring_up_to_date(slot, now).map_err(|denial| Rejection::Silent(denial.reason))?;
        self.flows.flow_mut(slot).from_device.volume += volume;
        Ok(slot)
    }

    fn admit_service(
        &mut self,
        packet: &Packet<'_>,
        volume: Volume,
        now: Now,
    ) -> Result<PeerId, Reason> {
        let flags = packet.tcp_flags();
        let is_error = packet.transport() == Transport::IcmpError;
        let tuple = match packet.transport() {
            Transport::Tcp(_) | Transport::Udp | Transport::IcmpEchoReply => {
                packet.flow().map(FlowTuple::reversed)
            }
            // The device sent the packet that the error quotes.
            Transport::IcmpError => packet.related_flow(),
            Transport::IcmpEchoRequest => None,
            Transport::Unsupported { .. } => return Err(Reason::PacketUnsupported),
        };
        let slot = tuple.and_then(|tuple| self.flows.find(&tuple)).ok_or(Reason::FlowUnknown)?;
        self.bring_up_to_date(slot, now).map_err(|denial| denial.reason)?;

        let flow = self.flows.flow_mut(slot);
        flow.to_device.volume += volume;
        if !is_error {
            flow.last_seen = now.monotonic;
        }
        if let Some(flags) = flags {
            flow.note_flags(flags, false);
            reset::note_sequence(&mut flow.to_device.next_sequence, packet);
        }
        Ok(flow.peer)
    }

    /// Decides about a flow that is not in the table.
    fn open(&mut self, peer: PeerId, tuple: FlowTuple, now: Now) -> Result<Slot, Reason> {
        if let Some(reason) =
            self.recent_denials.recall(peer, &tuple, self.generation, now.monotonic)
        {
            return Err(reason);
        }
        let decision = self.decide(peer, &tuple, now).and_then(|authorization| {
            let resource_id = Some(authorization.resource_id());
            let flow = Flow::new(tuple, peer, authorization, self.generation, now.monotonic);
            self.flows.insert(flow).map_err(|_full| Denial {
                reason: Reason::FlowTableFull,
                resource_id,
                policy_id: None,
            })
        });
        match decision {
            Ok(slot) => {
                self.count_decision(Reason::PolicyPermits);
                let flow = self.flows.flow(slot);
                let record = self.record_of(flow, Verdict::Allow, Reason::PolicyPermits, now);
                self.records.extend(record);
                Ok(slot)
            }
            Err(denial) => {
                let reason = denial.reason;
                self.count_decision(reason);
                self.deny(peer, tuple, denial, now);
                Err(reason)
            }
        }
    }

    /// Decides a flow anew if policy, subject or time have moved on, and cuts it if it falls.
    fn bring_up_to_date(&mut self, slot: Slot, now: Now) -> Result<(), Denial> {
        if self.is_current(slot, now) {
            return Ok(());
        }
        let flow = self.flows.flow(slot);
        let (peer, tuple) = (flow.peer, flow.tuple);
        match self.decide(peer, &tuple, now) {
            Ok(authorization) => {
                self.count_decision(Reason::PolicyPermits);
                let generation = self.generation;
                let flow = self.flows.flow_mut(slot);
                flow.authorization = authorization;
                flow.generation = generation;
                Ok(())
            }
            Err(denial) => {
                self.count_decision(denial.reason);
                self.cut(slot, &denial, now);
                Err(denial)
            }
        }
    }

    fn is_current(&self, slot: Slot, now: Now) -> bool {
        let flow = self.flows.flow(slot);
        let Some(device) = self.devices.get(&flow.peer) else { return false };
        flow.generation >= device.generation.max(self.policy_generation)
            && flow.authorization.is_live(now.wall)
    }

    fn decide(&self, peer: PeerId, tuple: &FlowTuple, now: Now) -> Result<Authorization, Denial> {
        let denied = |reason| Err(Denial { reason, resource_id: None, policy_id: None });
        let Some(enforced) = self.standing.live() else { return denied(Reason::BundleStale) };
        let Some(Device { subject, .. }) = self.devices.get(&peer) else {
            return denied(Reason::CredentialInvalid);
        };
        if subject.expires_at.is_some_and(|expires_at| expires_at <= now.wall) {
            return denied(Reason::CredentialExpired);
        }
        enforced.decide(subject, &destination_of(tuple), &self.own_addresses, now.wall)
    }

    fn deny(&mut self, peer: PeerId, tuple: FlowTuple, denial: Denial, now: Now) {
        let is_news = self.recent_denials.remember(
            peer,
            tuple,
            denial.reason,
            self.generation,
            now.monotonic,
        );
        let Some(Device { subject, .. }) = self.devices.get(&peer) else { return };
        if is_news {
            self.records.push_back(FlowRecord {
                at: now.wall,
                device_id: subject.device_id,
                user_id: subject.user_id,
                flow: tuple,
                verdict: Verdict::Deny,
                reason: denial.reason,
                resource_id: denial.resource_id,
                policy_id: denial.policy_id,
                from_device: Volume::default(),
                to_device: Volume::default(),
                duration: Duration::ZERO,
            });
        }
    }

    /// Ends a flow against its will: both ends are told.
    fn cut(&mut self, slot: Slot, denial: &Denial, now: Now) {
        let flow = self.flows.remove(slot);
        let record = self.record_of(&flow, Verdict::Cut, denial.reason, now);
        self.records.extend(record.map(|record| FlowRecord {
            policy_id: denial.policy_id.or(record.policy_id),
            ..record
        }));
        if let Some(reset) = Reset::to_initiator(&flow) {
            self.reminders.insert(flow.tuple, flow.peer, reset.clone(), now.monotonic);
            self.notices.push_back(Notice::ToDevice(flow.peer, reset));
        }
        if let Some(reset) = Reset::to_service(&flow) {
            self.notices.push_back(Notice::ToService(reset));
        }
    }

    fn remind(&mut self, now: Now) {
        let Self { reminders, flows, notices, .. } = self;
        let is_live = |tuple: &FlowTuple| flows.find(tuple).is_some();
        while let Some((peer, reset)) = reminders.pop_due(now.monotonic, is_live) {
            notices.push_back(Notice::ToDevice(peer, reset));
        }
    }

    /// Notes that a flow has ended by itself.
    fn end(&mut self, slot: Slot, now: Now) {
        let flow = self.flows.remove(slot);
        let record = self.record_of(&flow, Verdict::Closed, Reason::PolicyPermits, now);
        self.records.extend(record);
    }

    fn record_of(
        &self,
        flow: &Flow,
        verdict: Verdict,
        reason: Reason,
        now: Now,
    ) -> Option<FlowRecord> {
        let Device { subject, .. } = self.devices.get(&flow.peer)?;
        Some(FlowRecord {
            at: now.wall,
            device_id: subject.device_id,
            user_id: subject.user_id,
            flow: flow.tuple,
            verdict,
            reason,
            resource_id: Some(flow.authorization.resource_id()),
            policy_id: Some(flow.authorization.policy_id()),
            from_device: flow.from_device.volume,
            to_device: flow.to_device.volume,
            duration: now.monotonic.saturating_duration_since(flow.started),
        })
    }

    fn forget_decisions(&mut self, now: Now) {
        self.generation += 1;
        self.policy_generation = self.generation;
        self.start_redeciding(now);
    }

    fn start_redeciding(&mut self, now: Now) {
        self.sweep = Sweep { place: 0, due: now.monotonic };
    }

    fn count_drops(&mut self, reason: Reason, packets: u64) {
        *self.counters.drops.entry(reason).or_default() += packets;
    }

    fn count_decision(&mut self, reason: Reason) {
        *self.counters.decisions.entry(reason).or_default() += 1;
    }
}

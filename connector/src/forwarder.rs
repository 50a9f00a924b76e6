//! Decides about every packet: a state machine without input and output.

mod allowance;
mod denials;
mod devices;
mod probe;
mod recent;
mod reminders;
mod reset;
mod slow_path;
mod sweep;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    ops::AddAssign,
    time::{Duration, Instant},
};

use adit_policy::{Authorization, Denial, Subject};
use adit_proto::{DeviceId, FlowTuple, PolicyId, Reason, ResourceId, Timestamp, UserId, Verdict};
use adit_tunnel::{Packet, PeerId, Refusal, TcpFlags, Transport, refuse};

use self::{
    denials::{RecentDenials, ReportsDue},
    devices::Devices,
    probe::RecentProbes,
    reminders::Reminders,
    sweep::Sweep,
};
pub(crate) use self::{probe::Probe, reset::Reset};
use crate::{
    clock::Now,
    enforced::Standing,
    flow_table::{FlowTable, Limits, Slot, Volume},
    own_addresses::OwnAddresses,
};

/// What becomes of a packet that a device sent.
#[derive(Debug)]
pub enum Inner<'f> {
    /// It goes on to the service; the proof is to be shown to whoever carries it.
    Forward(&'f Authorization),
    /// It ends here, and this packet goes back to the device.
    Reply(Vec<u8>),
    /// It ends here.
    Drop,
}

/// What becomes of a packet that a service sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Service {
    /// It goes to this device.
    Send(PeerId),
    /// The same, of a TCP segment that has gone there before.
    SendAgain(PeerId),
    /// The same, of a flow that was silent both ways before, so that a NAT may have forgotten it.
    SendAfterSilence(PeerId),
    /// It ends here, but may be of a connection that a restart made us forget: see
    /// `Forwarder::probe`.
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
pub struct FlowRecord {
    /// When it happened.
    pub at: Timestamp,
    /// Whose device.
    pub device_id: DeviceId,
    /// Whose.
    pub user_id: UserId,
    /// Addresses and ports; of many refusals those of the last.
    pub flow: FlowTuple,
    /// What was decided.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What for, when a resource was found.
    pub resource_id: Option<ResourceId>,
    /// The policy that decided, when one did.
    pub policy_id: Option<PolicyId>,
    /// What the device sent, at the end of a flow; of many refusals, what was refused.
    pub from_device: Volume,
    /// What was sent to the device, at the end of a flow.
    pub to_device: Volume,
    /// How long the flow lived, or the refusals went on.
    pub duration: Duration,
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

impl AddAssign<&Self> for ForwarderCounters {
    fn add_assign(&mut self, other: &Self) {
        for (mine, others) in
            [(&mut self.decisions, &other.decisions), (&mut self.drops, &other.drops)]
        {
            for (reason, count) in others {
                *mine.entry(*reason).or_default() += count;
            }
        }
        self.from_devices += other.from_devices;
        self.to_devices += other.to_devices;
    }
}

/// All flows of all devices.
///
/// - `handle_*`, `upsert_device` and `remove_device` put something in;
/// - after any of them, `poll_notice` and [`poll_record`](Self::poll_record) until both are empty,
///   then sleep until [`poll_timeout`](Self::poll_timeout).
///
/// A packet of a flow that is in the table and up to date takes the fast path, which allocates
/// nothing and asks nobody; everything else is in `slow_path`.
///
/// INVARIANT: a packet is never let through by a decision older than the newest policy or the
/// newest credential of its device: generations are compared at every packet, the sweep only
/// finds the silent flows.
pub struct Forwarder {
    standing: Standing,
    own_addresses: OwnAddresses,
    devices: Devices,
    flows: FlowTable,
    recent_denials: RecentDenials,
    recent_probes: RecentProbes,
    reminders: Reminders,
    reports_due: ReportsDue,
    /// Grows with every change of policy or of a subject.
    generation: u64,
    policy_generation: u64,
    sweep: Sweep,
    counters: ForwarderCounters,
    notices: VecDeque<Notice>,
    records: VecDeque<FlowRecord>,
}

/// Why a packet ends here, and whether its sender hears of it.
enum Rejection {
    Silent(Reason),
    Told(Reason),
}

impl Forwarder {
    /// Lets nothing through until there is something to enforce.
    pub fn new(limits: Limits, now: Now) -> Self {
        Self {
            standing: Standing::Waiting,
            own_addresses: OwnAddresses::default(),
            devices: Devices::default(),
            flows: FlowTable::new(limits),
            recent_denials: RecentDenials::new(),
            recent_probes: RecentProbes::new(),
            reminders: Reminders::default(),
            reports_due: ReportsDue::default(),
            generation: 0,
            policy_generation: 0,
            sweep: Sweep::new(now.monotonic),
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

    /// How many TCP connections of a device are open, or may be in a moment.
    pub(crate) fn connections_of(&self, peer: PeerId, now: Now) -> usize {
        let place = self.devices.place_of(peer);
        place.map_or(0, |place| self.flows.connections_of(place, now.monotonic))
    }

    /// Whether a flow is known and its authorization holds: what every packet asks first.
    pub fn is_live(&self, flow: &FlowTuple, now: Now) -> bool {
        self.flows.find(flow).is_some_and(|slot| self.is_current(slot, now))
    }

    /// Enforces another bundle, or none: every flow is decided anew.
    ///
    /// What was enforced before is handed back, to be dropped where no packet waits.
    pub fn handle_standing(&mut self, standing: Standing, now: Now) -> Standing {
        self.forget_decisions(now);
        std::mem::replace(&mut self.standing, standing)
    }

    /// The connector's own addresses have changed.
    pub(crate) fn handle_own_addresses(&mut self, own_addresses: OwnAddresses, now: Now) {
        if own_addresses != self.own_addresses {
            self.own_addresses = own_addresses;
            self.forget_decisions(now);
        }
    }

    /// Adds a device, or changes who it is; its flows are decided anew if that changed anything.
    pub fn upsert_device(&mut self, peer: PeerId, subject: Subject, now: Now) {
        self.reminders.handle_readmitted(subject.device_id, peer);
        let Some(place) = self.devices.place_of(peer) else {
            self.generation += 1;
            self.devices.insert(peer, subject, self.generation, now.monotonic);
            return;
        };
        let Some(device) = self.devices.device(place) else { return };
        let known = device.subject();
        let subject = Subject { source: subject.source.or(known.source), ..subject };
        if subject != *known {
            self.generation += 1;
            self.devices.change(place, subject, self.generation);
            self.sweep.start_round(self.flows.row_len(), now.monotonic);
        }
    }

    /// The outer address of a device is this one.
    pub(crate) fn handle_source(&mut self, peer: PeerId, source: IpAddr, now: Now) {
        let device = self.devices.place_of(peer).and_then(|place| self.devices.device(place));
        let Some(device) = device else { return };
        let subject = Subject { source: Some(source), ..device.subject().clone() };
        self.upsert_device(peer, subject, now);
    }

    /// Removes a device: no packet of it passes from now on, and its flows are cut.
    pub(crate) fn remove_device(&mut self, peer: PeerId, reason: Reason, now: Now) {
        let Some(place) = self.devices.remove(peer, reason) else { return };
        let denial = Denial { reason, resource_id: None, policy_id: None };
        for _ in 0..Self::SLOW_AT_ONCE {
            let Some(slot) = self.flows.dearest_of(place) else { break };
            self.cut(slot, &denial, now);
        }
        if self.flows.held_by(place) > 0 {
            self.sweep.start_round(self.flows.row_len(), now.monotonic);
        }
        self.release_if_empty(place);
    }

    /// Decides about a packet whose source address belongs to `peer`.
    ///
    /// The packet may stand for a run of many that were merged into it: `volume` is theirs, as they
    /// were before.
    pub fn handle_inner_packet(
        &mut self,
        peer: PeerId,
        packet: &Packet<'_>,
        volume: Volume,
        now: Now,
    ) -> Inner<'_> {
        match self.admit_inner(peer, packet, volume, now) {
            Ok(slot) => {
                self.counters.from_devices += volume;
                Inner::Forward(&self.flows.details(slot).authorization)
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
        if let (Some(place), Some(tuple)) = (self.devices.place_of(peer), packet.flow()) {
            self.deny(place, tuple, denial, Volume::of(packet), now);
        }
    }

    /// Notes bytes from a device that are no packet.
    pub(crate) fn handle_malformed(&mut self) {
        self.count_drops(Reason::PacketUnsupported, 1);
    }

    /// Decides about a packet that a service, or a router before it, sent to a device.
    ///
    /// The packet may stand for a run of many, as in [`Self::handle_inner_packet`].
    pub fn handle_service_packet(
        &mut self,
        packet: &Packet<'_>,
        volume: Volume,
        now: Now,
    ) -> Service {
        match self.admit_service(packet, volume, now) {
            Ok(service) => {
                self.counters.to_devices += volume;
                service
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
        let place = self.devices.place_of(owner)?;
        if !self.recent_probes.is_due(place, &tuple, now.monotonic) {
            return None;
        }
        self.decide(place, &tuple, now).ok()?;
        Probe::try_new(orphan)
    }

    /// Looks at the next flows in the row: ends the silent ones, decides the outdated ones anew.
    pub fn handle_timeout(&mut self, now: Now) {
        self.recent_denials.expire(Self::SEEN_AT_ONCE, now.monotonic);
        self.recent_probes.expire(Self::SEEN_AT_ONCE, now.monotonic);
        self.report_gathered(now);
        self.remind(now);
        if now.monotonic >= self.sweep.due() {
            self.sweep_slice(now);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Instant {
        let others = [self.reports_due.next(), self.reminders.next()];
        others.into_iter().flatten().fold(self.sweep.due(), Instant::min)
    }

    /// Ends every flow, because the connector stops.
    pub(crate) fn drain(&mut self, now: Now) {
        for place in 0..self.flows.row_len() {
            if let Some(slot) = self.flows.slot_at(place) {
                self.end(slot, now);
            }
        }
    }

    pub(crate) fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// The next record for the access log.
    pub fn poll_record(&mut self) -> Option<FlowRecord> {
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
            if !self.is_of(slot, peer) {
                self.cut_if_gone(slot, now).map_err(Rejection::Silent)?;
                known = None;
            } else if flags.is_some_and(TcpFlags::is_initial) && self.flows.flow(slot).is_finished()
            {
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
            None if flags.is_some_and(TcpFlags::rst) => {
                return Err(Rejection::Silent(Reason::FlowUnknown));
            }
            None => self.open(peer, tuple, volume, now).map_err(|reason| {
                // A connection from before a restart need only wait, so it is not reset.
                let goes_on = flags.is_some_and(|flags| !flags.is_initial());
                if goes_on && reason == Reason::FlowRateExceeded {
                    Rejection::Silent(reason)
                } else {
                    Rejection::Told(reason)
                }
            })?,
        };

        let flow = self.flows.flow_mut(slot);
        flow.last_seen = now.monotonic;
        flow.from_device.volume += volume;
        if let Some(flags) = flags {
            reset::note_sequence(&mut flow.from_device.next_sequence, packet);
            if flags.fin() || flags.rst() {
                flow.note_flags(flags, true);
                self.flows.settle(slot);
            }
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
            .filter(|slot| self.is_of(*slot, peer))
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
    ) -> Result<Service, Reason> {
        /// Few NATs forget sooner (RFC 4787 §4.3 demands two minutes).
        const SILENCE: Duration = Duration::from_millis(1_500);

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
        let is_first = flow.to_device.volume.packets == 0;
        let was_silent = now.monotonic.saturating_duration_since(flow.last_seen) >= SILENCE;
        flow.to_device.volume += volume;
        if !is_error {
            flow.last_seen = now.monotonic;
        }
        let (mut ends, mut is_repeated) = (false, false);
        if let Some(flags) = flags {
            is_repeated = reset::is_repeated(flow.to_device.next_sequence, packet);
            reset::note_sequence(&mut flow.to_device.next_sequence, packet);
            flow.note_flags(flags, false);
            ends = flags.fin() || flags.rst();
        }
        if is_first || ends {
            self.flows.settle(slot);
        }
        let device = self.flows.flow(slot).device;
        let seat = self.devices.seat(device).ok_or(Reason::FlowUnknown)?;
        Ok(if is_repeated {
            Service::SendAgain(seat.peer)
        } else if was_silent && !is_error {
            Service::SendAfterSilence(seat.peer)
        } else {
            Service::Send(seat.peer)
        })
    }

    fn is_of(&self, slot: Slot, peer: PeerId) -> bool {
        let device = self.flows.flow(slot).device;
        self.devices.seat(device).is_some_and(|seat| seat.peer == peer)
    }

    fn is_current(&self, slot: Slot, now: Now) -> bool {
        let flow = self.flows.flow(slot);
        let Some(seat) = self.devices.seat(flow.device) else { return false };
        flow.generation >= seat.generation.max(self.policy_generation) && now.wall < flow.expires_at
    }

    fn forget_decisions(&mut self, now: Now) {
        self.generation += 1;
        self.policy_generation = self.generation;
        self.sweep.start_round(self.flows.row_len(), now.monotonic);
    }

    fn count_drops(&mut self, reason: Reason, packets: u64) {
        *self.counters.drops.entry(reason).or_default() += packets;
    }

    fn count_decision(&mut self, reason: Reason) {
        *self.counters.decisions.entry(reason).or_default() += 1;
    }
}

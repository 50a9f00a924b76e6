//! What becomes of flows that are not in the table, or not up to date, or not seen any more.
//!
//! It shares a thread with the packets of live flows, so each turn is bounded. Nothing passes by an
//! older decision however long the turns take, since the fast path looks at generations itself.

use adit_policy::{Authorization, Denial};
use adit_proto::{FlowTuple, Reason, Verdict};

use super::{FlowRecord, Forwarder, Notice, Reset, denials::Report, devices::Device};
use crate::{
    clock::Now,
    enforced::destination_of,
    flow_table::{Details, DevicePlace, Flow, Slot, Volume},
};

impl Forwarder {
    /// Decisions that nothing remembers, and cuts, each of which costs some 10 µs with the two
    /// resets that it sends: 2.5 ms a turn, and 2 ms for packets before the next. So a second is
    /// enough for 50,000 of them, and for all of a full table if its flows share some ten thousand
    /// pairs of device and resource. Of more than that the silent ones are told later.
    pub(super) const SLOW_AT_ONCE: usize = 256;
    /// Places that are looked at, at some 100 ns each since they are in no cache: 0.4 ms a turn,
    /// and 64 turns for a full table.
    pub(super) const SEEN_AT_ONCE: usize = 4096;

    /// Decides about a flow that is not in the table.
    pub(super) fn open(
        &mut self,
        peer: adit_tunnel::PeerId,
        tuple: FlowTuple,
        volume: Volume,
        now: Now,
    ) -> Result<Slot, Reason> {
        let place = self.devices.place_of(peer).ok_or(Reason::CredentialInvalid)?;
        let generation = self.generation_of(place);
        if let Some(reason) = self.recent_denials.recall(place, &tuple, generation, now.monotonic) {
            return Err(reason);
        }
        let device = self.devices.device_mut(place).ok_or(Reason::CredentialInvalid)?;
        if !device.may_open(now.monotonic) {
            let reason = Reason::FlowRateExceeded;
            self.count_decision(reason);
            // Not remembered as denied: in a moment it may be allowed.
            let denial = Denial { reason, resource_id: None, policy_id: None };
            self.report(place, tuple, denial, volume, now);
            return Err(reason);
        }
        match self.decide(place, &tuple, now) {
            Ok(authorization) => {
                self.count_decision(Reason::PolicyPermits);
                while let Some(slot) = self.flows.must_give_way(place) {
                    self.evict(slot, now);
                }
                let slot =
                    self.flows.insert(&tuple, place, authorization, self.generation, now.monotonic);
                let (flow, details) = (self.flows.flow(slot), self.flows.details(slot));
                let record =
                    self.record_of(flow, details, Verdict::Allow, Reason::PolicyPermits, now);
                self.records.extend(record);
                Ok(slot)
            }
            Err(denial) => {
                self.count_decision(denial.reason);
                self.deny(place, tuple, denial, volume, now);
                Err(denial.reason)
            }
        }
    }

    /// Decides a flow anew if policy, subject or time have moved on, and cuts it if it falls.
    pub(super) fn bring_up_to_date(&mut self, slot: Slot, now: Now) -> Result<(), Denial> {
        if self.is_current(slot, now) {
            return Ok(());
        }
        self.decide_anew(slot, now)
    }

    #[cold]
    fn decide_anew(&mut self, slot: Slot, now: Now) -> Result<(), Denial> {
        let flow = self.flows.flow(slot);
        let (place, tuple) = (flow.device, flow.tuple());
        match self.decide(place, &tuple, now) {
            Ok(authorization) => {
                self.count_decision(Reason::PolicyPermits);
                self.flows.authorize(slot, authorization, self.generation);
                Ok(())
            }
            Err(denial) => {
                self.count_decision(denial.reason);
                // What was on its way is refused like any retry, and the cut is all the news.
                let generation = self.generation_of(place);
                let reason = denial.reason;
                self.recent_denials.remember(place, &tuple, reason, generation, now.monotonic);
                self.cut(slot, &denial, now);
                Err(denial)
            }
        }
    }

    pub(super) fn decide(
        &mut self,
        place: DevicePlace,
        tuple: &FlowTuple,
        now: Now,
    ) -> Result<Authorization, Denial> {
        let denied = |reason| Err(Denial { reason, resource_id: None, policy_id: None });
        let Some(device) = self.devices.device_mut(place) else {
            return denied(Reason::CredentialInvalid);
        };
        if let Some(reason) = device.gone {
            return denied(reason);
        }
        let Some(enforced) = self.standing.live() else { return denied(Reason::BundleStale) };
        if device.subject().expires_at.is_some_and(|expires_at| expires_at <= now.wall) {
            return denied(Reason::CredentialExpired);
        }
        let destination = destination_of(tuple);
        enforced.decide_for(&mut device.principal, &destination, &self.own_addresses, now.wall)
    }

    pub(super) fn deny(
        &mut self,
        place: DevicePlace,
        tuple: FlowTuple,
        denial: Denial,
        volume: Volume,
        now: Now,
    ) {
        let generation = self.generation_of(place);
        let reason = denial.reason;
        if self.recent_denials.remember(place, &tuple, reason, generation, now.monotonic) {
            self.report(place, tuple, denial, volume, now);
        }
    }

    fn report(
        &mut self,
        place: DevicePlace,
        tuple: FlowTuple,
        denial: Denial,
        volume: Volume,
        now: Now,
    ) {
        let Some(device) = self.devices.device_mut(place) else { return };
        let were_gathered = device.reports.are_gathered();
        let report = device.reports.add(denial, tuple, volume, now);
        if !were_gathered && device.reports.are_gathered() {
            self.reports_due.push(place, now.monotonic);
        }
        if let Some(report) = report {
            self.records.push_back(record_of_report(device, report));
        }
    }

    pub(super) fn report_gathered(&mut self, now: Now) {
        for _ in 0..Self::SLOW_AT_ONCE {
            let Some(place) = self.reports_due.pop(now.monotonic) else { return };
            let Some(device) = self.devices.device_mut(place) else { continue };
            let gathered = device.reports.take();
            self.records.extend(gathered.into_iter().map(|it| record_of_report(device, it)));
        }
    }

    /// Makes room.
    fn evict(&mut self, slot: Slot, now: Now) {
        if self.flows.flow(slot).is_finished() {
            self.end(slot, now);
        } else {
            let reason = Reason::FlowTableFull;
            self.cut(slot, &Denial { reason, resource_id: None, policy_id: None }, now);
        }
    }

    /// Cuts a flow if its device is gone, whose address another peer may have by then.
    pub(super) fn cut_if_gone(&mut self, slot: Slot, now: Now) -> Result<(), Reason> {
        let place = self.flows.flow(slot).device;
        let gone = self.devices.device(place).and_then(|device| device.gone);
        let reason = gone.ok_or(Reason::SourceSpoofed)?;
        self.cut(slot, &Denial { reason, resource_id: None, policy_id: None }, now);
        Ok(())
    }

    /// Ends a flow against its will: both ends are told.
    pub(super) fn cut(&mut self, slot: Slot, denial: &Denial, now: Now) {
        let (flow, details) = self.flows.remove(slot);
        let record = self.record_of(&flow, &details, Verdict::Cut, denial.reason, now);
        self.records.extend(record.map(|record| FlowRecord {
            policy_id: denial.policy_id.or(record.policy_id),
            ..record
        }));
        if let Some(reset) = Reset::to_initiator(&flow)
            && let Some(seat) = self.devices.seat(flow.device)
            && let Some(device) = self.devices.device(flow.device)
        {
            let (peer, device_id) = (seat.peer, device.subject().device_id);
            let told = (device_id, peer);
            self.reminders.insert(flow.tuple(), told, reset.clone(), now.monotonic);
            self.notices.push_back(Notice::ToDevice(peer, reset));
        }
        if let Some(reset) = Reset::to_service(&flow) {
            self.notices.push_back(Notice::ToService(reset));
        }
        self.release_if_empty(flow.device);
    }

    pub(super) fn remind(&mut self, now: Now) {
        let Self { reminders, flows, notices, .. } = self;
        let is_live = |tuple: &FlowTuple| flows.find(tuple).is_some();
        for _ in 0..Self::SLOW_AT_ONCE {
            let Some((peer, reset)) = reminders.pop_due(now.monotonic, is_live) else { return };
            notices.push_back(Notice::ToDevice(peer, reset));
        }
    }

    /// Notes that a flow has ended by itself.
    pub(super) fn end(&mut self, slot: Slot, now: Now) {
        let (flow, details) = self.flows.remove(slot);
        let record = self.record_of(&flow, &details, Verdict::Closed, Reason::PolicyPermits, now);
        self.records.extend(record);
        self.release_if_empty(flow.device);
    }

    /// One slice of a round through all flows.
    pub(super) fn sweep_slice(&mut self, now: Now) {
        let row_len = self.flows.row_len();
        let mut slow = 0;
        self.sweep.start_slice(row_len, now.monotonic);
        for _ in 0..Self::SEEN_AT_ONCE {
            if slow >= Self::SLOW_AT_ONCE {
                break;
            }
            let Some(place) = self.sweep.next_place(row_len) else { break };
            let Some(slot) = self.flows.slot_at(place) else { continue };
            if self.flows.flow(slot).is_idle(now.monotonic) {
                self.end(slot, now);
            } else if !self.is_current(slot, now) {
                let device = self.flows.flow(slot).device;
                let judged = self.judged_of(device);
                match self.decide_anew(slot, now) {
                    Ok(()) => slow += usize::from(self.judged_of(device) != judged),
                    Err(_cut) => slow += 1,
                }
            }
        }
        self.sweep.end_slice(now.monotonic);
    }

    /// Forgets a device that is gone, once it has no flows.
    pub(super) fn release_if_empty(&mut self, place: DevicePlace) {
        if self.flows.held_by(place) > 0 {
            return;
        }
        if let Some(mut device) = self.devices.release(place) {
            let gathered = device.reports.take();
            self.records.extend(gathered.into_iter().map(|it| record_of_report(&device, it)));
        }
    }

    /// The oldest generation that a decision about a device may be from.
    fn generation_of(&self, place: DevicePlace) -> u64 {
        let seat = self.devices.seat(place);
        seat.map_or(u64::MAX, |seat| seat.generation.max(self.policy_generation))
    }

    fn judged_of(&self, place: DevicePlace) -> u64 {
        self.devices.device(place).map_or(0, |device| device.principal.judged())
    }

    fn record_of(
        &self,
        flow: &Flow,
        details: &Details,
        verdict: Verdict,
        reason: Reason,
        now: Now,
    ) -> Option<FlowRecord> {
        let subject = self.devices.device(flow.device)?.subject();
        Some(FlowRecord {
            at: now.wall,
            device_id: subject.device_id,
            user_id: subject.user_id,
            flow: flow.tuple(),
            verdict,
            reason,
            resource_id: Some(details.authorization.resource_id()),
            policy_id: Some(details.authorization.policy_id()),
            from_device: flow.from_device.volume,
            to_device: flow.to_device.volume,
            duration: now.monotonic.saturating_duration_since(details.started),
        })
    }
}

fn record_of_report(device: &Device, report: Report) -> FlowRecord {
    let Report { denial, tuple, at, volume, duration, .. } = report;
    FlowRecord {
        at,
        device_id: device.subject().device_id,
        user_id: device.subject().user_id,
        flow: tuple,
        verdict: Verdict::Deny,
        reason: denial.reason,
        resource_id: denial.resource_id,
        policy_id: denial.policy_id,
        from_device: volume,
        to_device: Volume::default(),
        duration,
    }
}

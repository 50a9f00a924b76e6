//! Two devices before a connector.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adit_policy::Subject;
use adit_proto::{
    Bundle, ConnectorId, DeviceId, OrganisationId, PolicyId, PortRange, Protocol, Reason,
    ResourceId, SiteId, Timestamp, UserId, Verdict,
    api::{Conditions, Effect, Policy, PortFilter, Resource, ResourceSelector, SubjectSelector},
};
use adit_tunnel::{Packet, PeerConfig, PeerId, Tunnel, WireguardSecret};
use ipnet::IpNet;
use uuid::Uuid;

use super::packet::{SYN, segment, tcp};
use crate::{
    clock::Now,
    enforced::{Enforced, Standing},
    flow_table::{Limits, Volume},
    forwarder::{FlowRecord, Forwarder, Inner, Notice, Reset, Service},
};

pub(super) const LAPTOP: &str = "100.80.0.1";
pub(super) const PHONE: &str = "100.80.0.2";
pub(super) const WEB: &str = "10.9.0.2";
pub(super) const DATABASE: &str = "10.9.0.3";

pub(super) const WEB_ID: u128 = 1;
pub(super) const DATABASE_ID: u128 = 2;

/// Two devices before a connector, and time that moves by hand.
pub(super) struct World {
    pub(super) forwarder: Forwarder,
    pub(super) laptop: PeerId,
    pub(super) phone: PeerId,
    pub(super) now: Now,
}

pub(super) enum Outcome {
    Forwarded,
    Replied(Vec<u8>),
    Dropped,
}

impl World {
    pub(super) fn permitting_web() -> Self {
        Self::with(vec![policy(1, Effect::Permit, only(WEB_ID))])
    }

    pub(super) fn with(policies: Vec<Policy>) -> Self {
        Self::with_limits(policies, Limits::default())
    }

    pub(super) fn with_limits(policies: Vec<Policy>, limits: Limits) -> Self {
        let now =
            Now { monotonic: Instant::now(), wall: Timestamp::from_millis(1_767_225_600_000) };
        let mut tunnel = Tunnel::new(WireguardSecret::try_generate().unwrap(), 1420, now.monotonic);
        let mut peer = || {
            let public_key = WireguardSecret::try_generate().unwrap().public_key();
            let config =
                PeerConfig { public_key, allowed_ips: vec![], endpoint: None, keepalive: None };
            tunnel.upsert(config, now.monotonic).unwrap()
        };
        let (laptop, phone) = (peer(), peer());
        let mut forwarder = Forwarder::new(limits, now);
        forwarder.upsert_device(laptop, subject(1), now);
        forwarder.upsert_device(phone, subject(2), now);
        let mut world = Self { forwarder, laptop, phone, now };
        world.enforce_policies(policies);
        world
    }

    pub(super) fn enforce_policies(&mut self, policies: Vec<Policy>) {
        let enforced = Enforced::try_new(bundle(policies)).unwrap();
        self.enforce(Standing::Live(Arc::new(enforced)));
    }

    pub(super) fn enforce(&mut self, standing: Standing) {
        self.forwarder.handle_standing(standing, self.now);
    }

    pub(super) fn upsert_laptop(&mut self, subject: Subject) {
        self.forwarder.upsert_device(self.laptop, subject, self.now);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall = self.now.wall.saturating_add(time);
    }

    pub(super) fn timeout(&mut self) {
        self.forwarder.handle_timeout(self.now);
    }

    /// Waits until something is due, and lets it be done.
    pub(super) fn turn(&mut self) {
        let due = self.forwarder.poll_timeout();
        self.pass(due.saturating_duration_since(self.now.monotonic));
        self.timeout();
    }

    pub(super) fn syn(&mut self, to: &str, port: u16) -> Outcome {
        self.device_sends(&segment(LAPTOP, to, (4000, port), (100, 0, SYN), &[]))
    }

    pub(super) fn tcp_from_device(&mut self, to: &str, port: u16, flags: u8) -> Outcome {
        self.device_sends(&tcp(LAPTOP, to, 4000, port, flags))
    }

    pub(super) fn phone_syn(&mut self, to: &str, port: u16) -> Outcome {
        self.sends(self.phone, &segment(PHONE, to, (4000, port), (100, 0, SYN), &[]))
    }

    pub(super) fn device_sends(&mut self, packet: &[u8]) -> Outcome {
        self.sends(self.laptop, packet)
    }

    pub(super) fn device_sends_run(&mut self, packet: &[u8], volume: Volume) -> Outcome {
        self.sends_run(self.laptop, packet, volume)
    }

    pub(super) fn sends(&mut self, peer: PeerId, packet: &[u8]) -> Outcome {
        self.sends_run(peer, packet, Volume::of(&Packet::try_parse(packet).unwrap()))
    }

    fn sends_run(&mut self, peer: PeerId, packet: &[u8], volume: Volume) -> Outcome {
        let packet = Packet::try_parse(packet).unwrap();
        match self.forwarder.handle_inner_packet(peer, &packet, volume, self.now) {
            Inner::Forward(_authorization) => Outcome::Forwarded,
            Inner::Reply(reply) => Outcome::Replied(reply),
            Inner::Drop => Outcome::Dropped,
        }
    }

    pub(super) fn service_sends(&mut self, packet: &[u8]) -> Service {
        self.service_sends_run(packet, Volume::of(&Packet::try_parse(packet).unwrap()))
    }

    pub(super) fn service_sends_run(&mut self, packet: &[u8], volume: Volume) -> Service {
        let packet = Packet::try_parse(packet).unwrap();
        self.forwarder.handle_service_packet(&packet, volume, self.now)
    }

    /// What the devices were told since the last call.
    pub(super) fn resets_to_device(&mut self) -> Vec<Reset> {
        std::iter::from_fn(|| self.forwarder.poll_notice())
            .filter_map(|notice| match notice {
                Notice::ToDevice(_peer, reset) => Some(reset),
                Notice::ToService(_) => None,
            })
            .collect()
    }

    /// All that was logged since the last call.
    pub(super) fn records(&mut self) -> Vec<FlowRecord> {
        std::iter::from_fn(|| self.forwarder.poll_record()).collect()
    }

    /// What was logged since the last call.
    pub(super) fn verdicts(&mut self) -> Vec<(Verdict, Reason)> {
        self.records().into_iter().map(|record| (record.verdict, record.reason)).collect()
    }
}

impl Outcome {
    #[track_caller]
    pub(super) fn assert_forwarded(self) {
        assert!(matches!(self, Self::Forwarded), "not forwarded");
    }

    #[track_caller]
    pub(super) fn assert_dropped(self) {
        assert!(matches!(self, Self::Dropped), "not dropped");
    }

    #[track_caller]
    pub(super) fn reply(self) -> Vec<u8> {
        let Self::Replied(reply) = self else { panic!("no reply") };
        reply
    }
}

pub(super) fn bundle(policies: Vec<Policy>) -> Bundle {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let ports = |protocol, ports: &[(u16, u16)]| PortFilter {
        protocol,
        ports: ports.iter().map(|(a, b)| PortRange::try_new(*a, *b).unwrap()).collect(),
    };
    Bundle {
        organisation_id: OrganisationId::from_uuid(Uuid::nil()),
        connector_id: ConnectorId::from_uuid(Uuid::nil()),
        site_id: site_id(),
        sequence: 1,
        issued_at: Timestamp::from_millis(0),
        max_offline_s: 3600,
        device_ranges: vec![net("100.80.0.0/12"), net("fd00:1::/48")],
        organisation_keys: Vec::new(),
        resources: vec![
            resource(WEB_ID, vec![net("10.9.0.2/32"), net("fd00:9::/64")], Vec::new()),
            resource(
                DATABASE_ID,
                vec![net("10.9.0.3/32")],
                vec![ports(Protocol::Tcp, &[(5432, 5432)]), ports(Protocol::Udp, &[])],
            ),
            resource(3, vec![net("10.10.0.0/16")], Vec::new()),
            resource(4, vec![net("100.64.0.0/10")], Vec::new()),
        ],
        policies,
        revocations: Vec::new(),
        wireguard_devices: Vec::new(),
    }
}

pub(super) fn resource(number: u128, addresses: Vec<IpNet>, filters: Vec<PortFilter>) -> Resource {
    Resource {
        id: id(number),
        name: format!("resource {number}"),
        site_id: site_id(),
        addresses,
        filters,
        tags: Vec::new(),
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
    }
}

pub(super) fn policy(number: u128, effect: Effect, resources: ResourceSelector) -> Policy {
    Policy {
        id: PolicyId::from_uuid(Uuid::from_u128(number)),
        name: format!("policy {number}"),
        effect,
        subjects: SubjectSelector { everyone: true, ..SubjectSelector::default() },
        resources,
        conditions: Conditions::default(),
        disabled: false,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
    }
}

pub(super) fn only(resource: u128) -> ResourceSelector {
    ResourceSelector { ids: vec![id(resource)], ..ResourceSelector::default() }
}

pub(super) fn id(resource: u128) -> ResourceId {
    ResourceId::from_uuid(Uuid::from_u128(resource))
}

pub(super) fn site_id() -> SiteId {
    SiteId::from_uuid(Uuid::nil())
}

pub(super) fn device_id(number: u128) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn subject(number: u128) -> Subject {
    Subject {
        device_id: device_id(number),
        user_id: UserId::from_uuid(Uuid::from_u128(number)),
        groups: Vec::new(),
        posture: Vec::new(),
        source: None,
        authentication: None,
        expires_at: None,
    }
}

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_policy::Subject;
use adit_proto::{
    Bundle, ConnectorId, DeviceId, FlowTuple, OrganisationId, PolicyId, PortRange, Protocol,
    Reason, ResourceId, SiteId, Timestamp, UserId, Verdict,
    api::{Conditions, Effect, Policy, PortFilter, Resource, ResourceSelector, SubjectSelector},
};
use adit_tunnel::{Packet, PeerConfig, PeerId, Transport, Tunnel, WireguardSecret};
use ipnet::IpNet;
use uuid::Uuid;

use super::{FlowRecord, Forwarder, Inner, Notice, Reset, Service};
use crate::{
    clock::Now,
    enforced::{Enforced, Standing},
    flow_table::{Limits, Volume},
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const SYN_ACK: u8 = 0x12;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

const LAPTOP: &str = "100.80.0.1";
const PHONE: &str = "100.80.0.2";
const WEB: &str = "10.9.0.2";
const DATABASE: &str = "10.9.0.3";

#[test]
fn a_permitted_flow_passes_both_ways() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    assert_eq!(
        world.service_sends(&tcp(WEB, LAPTOP, 80, 4000, SYN_ACK)),
        Service::Send(world.laptop)
    );
    assert_eq!(world.verdicts(), [(Verdict::Allow, Reason::PolicyPermits)]);
}

#[test]
fn a_flow_over_ipv6_passes_both_ways() {
    let mut world = World::permitting_web();
    let (device, service) = ("fd00:1::1", "fd00:9::2");
    world.device_sends(&udp(device, service, 4000, 53)).assert_forwarded();
    let answer = udp(service, device, 53, 4000);
    assert_eq!(world.service_sends(&answer), Service::Send(world.laptop));
}

#[test]
fn a_denied_connection_is_reset_at_once() {
    let mut world = World::permitting_web();
    let reply = world.syn(DATABASE, 5432).reply();
    let reply = Packet::try_parse(&reply).unwrap();
    assert!(reply.tcp_flags().unwrap().rst());
    assert_eq!(reply.destination(), address(LAPTOP));
    assert_eq!(world.verdicts(), [(Verdict::Deny, Reason::NoPolicyPermits)]);
}

#[test]
fn a_denied_datagram_is_answered_by_an_icmp_error() {
    let mut world = World::permitting_web();
    let reply = world.device_sends(&udp(LAPTOP, DATABASE, 4000, 53)).reply();
    let reply = Packet::try_parse(&reply).unwrap();
    assert_eq!(reply.transport(), Transport::IcmpError);
}

#[test]
fn retries_of_a_denied_flow_are_answered_but_logged_once() {
    let mut world = World::permitting_web();
    for _ in 0..3 {
        world.syn(DATABASE, 5432).reply();
    }
    assert_eq!(world.verdicts().len(), 1);
    world.pass(Duration::from_secs(6));
    world.syn(DATABASE, 5432).reply();
    assert_eq!(world.verdicts().len(), 1);
}

#[test]
fn a_forbid_beats_a_permit() {
    let mut world = World::with(vec![
        policy(1, Effect::Permit, ResourceSelector { all: true, ..Default::default() }),
        policy(2, Effect::Forbid, only(WEB_ID)),
    ]);
    world.syn(WEB, 80).reply();
    assert_eq!(world.verdicts(), [(Verdict::Deny, Reason::PolicyForbids)]);
    world.syn(DATABASE, 5432).assert_forwarded();
}

#[test]
fn what_is_no_resource_is_denied() {
    let mut world = World::permitting_web();
    world.syn("10.9.0.99", 80).reply();
    assert_eq!(world.verdicts(), [(Verdict::Deny, Reason::ResourceUnknown)]);
}

#[test]
fn the_connector_itself_is_no_destination() {
    let mut world = World::with(vec![policy(
        1,
        Effect::Permit,
        ResourceSelector { all: true, ..Default::default() },
    )]);
    let now = world.now;
    let own = ["10.10.0.1"].iter().map(|own| own.parse().unwrap()).collect();
    world.forwarder.handle_own_addresses(own, now);
    world.syn("10.10.0.1", 22).reply();
    assert_eq!(world.verdicts(), [(Verdict::Deny, Reason::AddressReserved)]);
    world.syn("10.10.0.2", 22).assert_forwarded();
}

#[test]
fn a_device_is_no_destination_of_another() {
    let mut world = World::with(vec![policy(
        1,
        Effect::Permit,
        ResourceSelector { all: true, ..Default::default() },
    )]);
    world.syn(PHONE, 22).reply();
    assert_eq!(world.verdicts(), [(Verdict::Deny, Reason::AddressReserved)]);
}

#[test]
fn without_a_bundle_nothing_passes() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    world.enforce(Standing::Waiting);
    world.tcp_from_device(WEB, 80, ACK).reply();
    world.syn(WEB, 81).reply();
    let stale = Reason::BundleStale;
    assert_eq!(
        world.verdicts(),
        [(Verdict::Allow, Reason::PolicyPermits), (Verdict::Cut, stale), (Verdict::Deny, stale)]
    );
}

#[test]
fn a_narrowed_policy_cuts_that_flow_and_keeps_the_other() {
    let both = ResourceSelector { ids: vec![id(WEB_ID), id(DATABASE_ID)], ..Default::default() };
    let mut world = World::with(vec![policy(1, Effect::Permit, both)]);
    world.syn(WEB, 80).assert_forwarded();
    world.syn(DATABASE, 5432).assert_forwarded();
    world.service_sends(&tcp(WEB, LAPTOP, 80, 4000, SYN_ACK));
    world.verdicts();

    world.enforce_policies(vec![policy(1, Effect::Permit, only(DATABASE_ID))]);
    // Nothing is sent: the sweep alone finds it.
    world.timeout();
    assert_eq!(world.verdicts(), [(Verdict::Cut, Reason::NoPolicyPermits)]);
    assert_eq!(world.service_sends(&tcp(WEB, LAPTOP, 80, 4000, ACK)), Service::Orphan);
    let other = tcp(DATABASE, LAPTOP, 5432, 4000, SYN_ACK);
    assert_eq!(world.service_sends(&other), Service::Send(world.laptop));
}

#[test]
fn both_ends_of_a_cut_connection_are_reset_where_they_are() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    world.service_sends(&segment(WEB, LAPTOP, (80, 4000), (500, 101, ACK), &[0; 100]));
    // Late and out of order: the newest stays the newest.
    world.service_sends(&segment(WEB, LAPTOP, (80, 4000), (400, 101, ACK), &[0; 100]));
    world.enforce_policies(Vec::new());
    world.timeout();

    let mut resets = Vec::new();
    while let Some(notice) = world.forwarder.poll_notice() {
        let reset = match notice {
            Notice::ToDevice(peer, reset) => {
                assert_eq!(peer, world.laptop);
                reset
            }
            Notice::ToService(reset) => reset,
        };
        let packet = Packet::try_parse(reset.bytes()).unwrap();
        assert!(packet.tcp_flags().unwrap().rst());
        let sequence = u32::from_be_bytes(reset.bytes()[24..28].try_into().unwrap());
        resets.push((packet.destination(), sequence));
    }
    assert_eq!(resets, [(address(LAPTOP), 600), (address(WEB), 101)]);
}

#[test]
fn a_packet_never_passes_by_an_older_policy_even_before_the_sweep() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    world.enforce_policies(Vec::new());
    assert_eq!(world.service_sends(&tcp(WEB, LAPTOP, 80, 4000, ACK)), Service::Drop);
}

#[test]
fn a_removed_device_loses_its_flows_and_no_other() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    let (phone, now) = (world.phone, world.now);
    let packet = tcp(PHONE, WEB, 4000, 80, SYN);
    let parsed = Packet::try_parse(&packet).unwrap();
    assert!(matches!(
        world.forwarder.handle_inner_packet(phone, &parsed, Volume::of(&parsed), now),
        Inner::Forward(_)
    ));
    world.verdicts();

    world.forwarder.remove_device(world.laptop, Reason::DeviceRevoked, now);
    assert_eq!(world.verdicts(), [(Verdict::Cut, Reason::DeviceRevoked)]);
    assert_eq!(world.service_sends(&tcp(WEB, LAPTOP, 80, 4000, ACK)), Service::Orphan);
    assert_eq!(world.service_sends(&tcp(WEB, PHONE, 80, 4000, ACK)), Service::Send(phone));
}

#[test]
fn what_a_removed_device_still_sends_is_refused() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    world.forwarder.remove_device(world.laptop, Reason::DeviceRevoked, world.now);
    world.verdicts();

    for packet in [tcp(LAPTOP, WEB, 4000, 80, ACK), tcp(LAPTOP, WEB, 4001, 80, SYN)] {
        let reply = world.device_sends(&packet).reply();
        assert!(Packet::try_parse(&reply).unwrap().tcp_flags().unwrap().rst());
    }
    let reply = world.device_sends(&udp(LAPTOP, WEB, 4000, 53)).reply();
    assert_eq!(Packet::try_parse(&reply).unwrap().transport(), Transport::IcmpError);
    assert_eq!(world.forwarder.flow_count(), 0);
    assert_eq!(world.verdicts(), []);
}

#[test]
fn a_device_is_reset_again_in_case_the_first_was_lost() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    world.service_sends(&tcp(WEB, LAPTOP, 80, 4000, SYN_ACK));
    world.forwarder.remove_device(world.laptop, Reason::DeviceRevoked, world.now);
    let first = world.resets_to_device();
    assert_eq!(first.len(), 1);
    world.timeout();
    assert_eq!(world.resets_to_device(), []);

    let mut again = Vec::new();
    for _ in 0..10 {
        world.pass(Duration::from_secs(1));
        world.timeout();
        again.extend(world.resets_to_device());
    }
    assert_eq!(again, vec![first[0].clone(); 3]);
}

#[test]
fn a_connection_that_was_opened_anew_is_not_reset() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    world.service_sends(&tcp(WEB, LAPTOP, 80, 4000, SYN_ACK));
    world.enforce_policies(Vec::new());
    world.timeout();
    assert_eq!(world.resets_to_device().len(), 1);

    world.enforce_policies(vec![policy(1, Effect::Permit, only(WEB_ID))]);
    world.syn(WEB, 80).assert_forwarded();
    world.pass(Duration::from_secs(2));
    world.timeout();
    assert_eq!(world.resets_to_device(), []);
}

#[test]
fn an_expired_credential_ends_its_flows() {
    let mut world = World::permitting_web();
    let expires_at = world.now.wall.saturating_add(Duration::from_secs(60));
    world.upsert_laptop(Subject { expires_at: Some(expires_at), ..subject(1) });
    world.syn(WEB, 80).assert_forwarded();
    world.pass(Duration::from_secs(61));
    world.verdicts();
    world.tcp_from_device(WEB, 80, ACK).reply();
    assert_eq!(world.verdicts()[0], (Verdict::Cut, Reason::CredentialExpired));
}

#[test]
fn a_refreshed_credential_keeps_its_flows() {
    let mut world = World::permitting_web();
    let in_secs =
        |world: &World, secs| Some(world.now.wall.saturating_add(Duration::from_secs(secs)));
    let expires_at = in_secs(&world, 60);
    world.upsert_laptop(Subject { expires_at, ..subject(1) });
    world.syn(WEB, 80).assert_forwarded();
    let expires_at = in_secs(&world, 120);
    world.upsert_laptop(Subject { expires_at, ..subject(1) });
    world.pass(Duration::from_secs(61));
    world.tcp_from_device(WEB, 80, ACK).assert_forwarded();
}

#[test]
fn return_traffic_without_a_flow_is_dropped() {
    let mut world = World::permitting_web();
    for packet in [
        tcp(WEB, LAPTOP, 80, 4000, SYN),
        tcp(WEB, LAPTOP, 80, 4000, RST),
        udp(WEB, LAPTOP, 53, 4000),
        echo(WEB, LAPTOP, true),
        echo(WEB, LAPTOP, false),
    ] {
        assert_eq!(world.service_sends(&packet), Service::Drop);
    }
    assert_eq!(world.forwarder.counters().drops[&Reason::FlowUnknown], 5);
}

#[test]
fn an_echo_is_answered_by_its_reply_alone() {
    let mut world = World::permitting_web();
    world.device_sends(&echo(LAPTOP, WEB, true)).assert_forwarded();
    assert_eq!(world.service_sends(&echo(WEB, LAPTOP, false)), Service::Send(world.laptop));
    assert_eq!(world.service_sends(&echo(WEB, LAPTOP, true)), Service::Drop);
}

#[test]
fn an_icmp_error_about_a_live_flow_passes() {
    let mut world = World::permitting_web();
    let sent = udp(LAPTOP, WEB, 4000, 53);
    world.device_sends(&sent).assert_forwarded();
    let about_it = icmp_error("10.9.0.254", LAPTOP, &sent);
    assert_eq!(world.service_sends(&about_it), Service::Send(world.laptop));

    let unsent = udp(LAPTOP, WEB, 4001, 53);
    let about_nothing = icmp_error("10.9.0.254", LAPTOP, &unsent);
    assert_eq!(world.service_sends(&about_nothing), Service::Drop);

    let answer = udp(WEB, LAPTOP, 53, 4000);
    world.device_sends(&icmp_error(LAPTOP, WEB, &answer)).assert_forwarded();
    world.device_sends(&icmp_error(LAPTOP, DATABASE, &answer)).assert_dropped();
}

#[test]
fn a_spoofed_packet_is_logged_as_its_senders() {
    let mut world = World::permitting_web();
    let packet = tcp(PHONE, WEB, 4000, 80, SYN);
    let parsed = Packet::try_parse(&packet).unwrap();
    world.forwarder.handle_spoofed(world.laptop, &parsed, world.now);
    let record = world.forwarder.poll_record().unwrap();
    assert_eq!((record.device_id, record.reason), (device_id(1), Reason::SourceSpoofed));
}

#[test]
fn a_device_cannot_send_on_a_flow_of_another() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    let packet = tcp(LAPTOP, WEB, 4000, 80, ACK);
    let parsed = Packet::try_parse(&packet).unwrap();
    let inner =
        world.forwarder.handle_inner_packet(world.phone, &parsed, Volume::of(&parsed), world.now);
    assert!(matches!(inner, Inner::Drop), "{inner:?}");
}

#[test]
fn a_full_table_refuses_the_next_flow_and_says_so() {
    let mut world = World::with_limits(
        vec![policy(1, Effect::Permit, only(WEB_ID))],
        Limits { flows: 3, flows_per_peer: 2 },
    );
    world.syn(WEB, 80).assert_forwarded();
    world.syn(WEB, 81).assert_forwarded();
    world.syn(WEB, 82).reply();
    assert_eq!(world.verdicts().last(), Some(&(Verdict::Deny, Reason::FlowTableFull)));
    world.tcp_from_device(WEB, 80, ACK).assert_forwarded();
}

#[test]
fn a_silent_flow_ends_and_its_place_is_free_again() {
    let mut world = World::permitting_web();
    world.device_sends(&udp(LAPTOP, WEB, 4000, 53)).assert_forwarded();
    world.pass(Duration::from_secs(181));
    world.timeout();
    assert_eq!(world.forwarder.flow_count(), 0);
    assert_eq!(world.verdicts().last(), Some(&(Verdict::Closed, Reason::PolicyPermits)));
}

#[test]
fn a_finished_connection_ends_soon_and_its_ports_can_be_used_again() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    world.service_sends(&tcp(WEB, LAPTOP, 80, 4000, FIN_ACK));
    world.tcp_from_device(WEB, 80, FIN_ACK).assert_forwarded();
    world.syn(WEB, 80).assert_forwarded();
    let verdicts: Vec<Verdict> = world.verdicts().into_iter().map(|(verdict, _)| verdict).collect();
    assert_eq!(verdicts, [Verdict::Allow, Verdict::Closed, Verdict::Allow]);
}

#[test]
fn a_connection_from_before_a_restart_goes_on() {
    let mut world = World::permitting_web();
    world.tcp_from_device(WEB, 80, ACK).assert_forwarded();
    world.tcp_from_device(WEB, 81, RST).assert_dropped();
}

#[test]
fn a_device_is_asked_about_a_download_from_before_a_restart() {
    let mut world = World::permitting_web();
    let segment = segment(WEB, LAPTOP, (80, 4000), (500, 101, ACK), &[7; 100]);
    let orphan = Packet::try_parse(&segment).unwrap();
    let (laptop, now) = (world.laptop, world.now);
    assert_eq!(
        world.forwarder.handle_service_packet(&orphan, Volume::of(&orphan), now),
        Service::Orphan
    );
    let probe = world.forwarder.probe(laptop, &orphan, now).unwrap();
    let probe = Packet::try_parse(probe.bytes()).unwrap();
    assert_eq!((probe.flow(), probe.payload_len()), (orphan.flow(), 0));
    assert_eq!(probe.bytes()[24..28], 499_u32.to_be_bytes());
    assert!(world.forwarder.probe(laptop, &orphan, now).is_none(), "asked twice at once");

    // The device acknowledges, and so the service's next packet belongs to a flow.
    world.tcp_from_device(WEB, 80, ACK).assert_forwarded();
    assert_eq!(world.service_sends(&segment), Service::Send(laptop));
}

#[test]
fn nobody_is_asked_about_what_policy_denies() {
    let mut world = World::permitting_web();
    let segment = segment(DATABASE, LAPTOP, (5432, 4000), (500, 101, ACK), &[7; 100]);
    let orphan = Packet::try_parse(&segment).unwrap();
    assert!(world.forwarder.probe(world.laptop, &orphan, world.now).is_none());
}

#[test]
fn a_policy_about_networks_is_decided_anew_when_the_device_roams() {
    let conditions = Conditions {
        source_networks: vec!["192.0.2.0/24".parse().unwrap()],
        ..Conditions::default()
    };
    let mut world =
        World::with(vec![Policy { conditions, ..policy(1, Effect::Permit, only(WEB_ID)) }]);
    let (laptop, now) = (world.laptop, world.now);
    world.forwarder.handle_source(laptop, address("192.0.2.7"), now);
    world.syn(WEB, 80).assert_forwarded();
    world.forwarder.handle_source(laptop, address("198.51.100.7"), now);
    world.tcp_from_device(WEB, 80, ACK).reply();
}

#[test]
fn the_record_of_an_end_holds_what_was_carried() {
    let mut world = World::permitting_web();
    let out = udp(LAPTOP, WEB, 4000, 53);
    world.device_sends(&out).assert_forwarded();
    world.service_sends(&udp(WEB, LAPTOP, 53, 4000));
    world.service_sends(&udp(WEB, LAPTOP, 53, 4000));
    world.pass(Duration::from_secs(5));
    world.forwarder.drain(world.now);
    let records: Vec<FlowRecord> = std::iter::from_fn(|| world.forwarder.poll_record()).collect();
    let end = records.last().unwrap();
    assert_eq!(end.verdict, Verdict::Closed);
    assert_eq!((end.from_device.packets, end.to_device.packets), (1, 2));
    assert_eq!(end.from_device.bytes, u64::try_from(out.len()).unwrap());
    assert_eq!(end.duration, Duration::from_secs(5));
    assert_eq!(
        end.flow,
        FlowTuple {
            protocol: Protocol::Udp,
            source: address(LAPTOP),
            source_port: 4000,
            destination: address(WEB),
            destination_port: 53,
        }
    );
}

#[test]
fn a_run_counts_as_the_packets_that_were_merged_into_it() {
    let mut world = World::permitting_web();
    let three = Volume { packets: 3, bytes: 3 * 40 + 2500 };
    let two = Volume { packets: 2, bytes: 2 * 40 + 1100 };
    world.syn(WEB, 80).assert_forwarded();
    world
        .device_sends_run(&segment(LAPTOP, WEB, (4000, 80), (101, 1, ACK), &[0; 2500]), three)
        .assert_forwarded();
    world.service_sends_run(&segment(WEB, LAPTOP, (80, 4000), (1, 2601, ACK), &[0; 1100]), two);
    // What ends here counts as well.
    world.service_sends_run(&segment(WEB, LAPTOP, (81, 4000), (1, 1, ACK), &[0; 1100]), two);
    world.forwarder.drain(world.now);

    let records: Vec<FlowRecord> = std::iter::from_fn(|| world.forwarder.poll_record()).collect();
    let end = records.last().unwrap();
    assert_eq!(end.from_device, Volume { packets: 4, bytes: 4 * 40 + 2500 });
    assert_eq!(end.to_device, two);
    let counters = world.forwarder.counters();
    assert_eq!((counters.from_devices, counters.to_devices), (end.from_device, end.to_device));
    assert_eq!(counters.drops[&Reason::FlowUnknown], 2);
}

#[test]
fn a_cut_connection_is_reset_behind_the_last_segment_of_a_run() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    let many = Volume { packets: 40, bytes: 40 * 1500 };
    world.service_sends_run(&segment(WEB, LAPTOP, (80, 4000), (500, 101, ACK), &[0; 58_400]), many);
    world.enforce_policies(Vec::new());
    world.timeout();
    let Some(Notice::ToDevice(_, reset)) = world.forwarder.poll_notice() else {
        panic!("no reset")
    };
    assert_eq!(reset.bytes()[24..28], 58_900_u32.to_be_bytes());
}

#[test]
fn many_flows_are_decided_anew_in_slices_until_none_is_left() {
    let mut world = World::permitting_web();
    for port in 1..=1000 {
        world.syn(WEB, port).assert_forwarded();
    }
    world.enforce_policies(Vec::new());
    let mut slices = 0;
    while world.forwarder.flow_count() > 0 {
        world.timeout();
        slices += 1;
        assert!(slices < 100, "the sweep does not end");
    }
    assert!(slices > 1, "all were decided at once");
}

const WEB_ID: u128 = 1;
const DATABASE_ID: u128 = 2;

/// Two devices before a connector, and time that moves by hand.
struct World {
    forwarder: Forwarder,
    laptop: PeerId,
    phone: PeerId,
    now: Now,
}

enum Outcome {
    Forwarded,
    Replied(Vec<u8>),
    Dropped,
}

impl World {
    fn permitting_web() -> Self {
        Self::with(vec![policy(1, Effect::Permit, only(WEB_ID))])
    }

    fn with(policies: Vec<Policy>) -> Self {
        Self::with_limits(policies, Limits::default())
    }

    fn with_limits(policies: Vec<Policy>, limits: Limits) -> Self {
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

    fn enforce_policies(&mut self, policies: Vec<Policy>) {
        let enforced = Enforced::try_new(bundle(policies)).unwrap();
        self.enforce(Standing::Live(Arc::new(enforced)));
    }

    fn enforce(&mut self, standing: Standing) {
        self.forwarder.handle_standing(standing, self.now);
    }

    fn upsert_laptop(&mut self, subject: Subject) {
        self.forwarder.upsert_device(self.laptop, subject, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall = self.now.wall.saturating_add(time);
    }

    fn timeout(&mut self) {
        self.forwarder.handle_timeout(self.now);
    }

    fn syn(&mut self, to: &str, port: u16) -> Outcome {
        self.device_sends(&segment(LAPTOP, to, (4000, port), (100, 0, SYN), &[]))
    }

    fn tcp_from_device(&mut self, to: &str, port: u16, flags: u8) -> Outcome {
        self.device_sends(&tcp(LAPTOP, to, 4000, port, flags))
    }

    fn device_sends(&mut self, packet: &[u8]) -> Outcome {
        self.device_sends_run(packet, Volume::of(&Packet::try_parse(packet).unwrap()))
    }

    fn device_sends_run(&mut self, packet: &[u8], volume: Volume) -> Outcome {
        let packet = Packet::try_parse(packet).unwrap();
        match self.forwarder.handle_inner_packet(self.laptop, &packet, volume, self.now) {
            Inner::Forward(_authorization) => Outcome::Forwarded,
            Inner::Reply(reply) => Outcome::Replied(reply),
            Inner::Drop => Outcome::Dropped,
        }
    }

    fn service_sends(&mut self, packet: &[u8]) -> Service {
        self.service_sends_run(packet, Volume::of(&Packet::try_parse(packet).unwrap()))
    }

    fn service_sends_run(&mut self, packet: &[u8], volume: Volume) -> Service {
        let packet = Packet::try_parse(packet).unwrap();
        self.forwarder.handle_service_packet(&packet, volume, self.now)
    }

    /// What the devices were told since the last call.
    fn resets_to_device(&mut self) -> Vec<Reset> {
        std::iter::from_fn(|| self.forwarder.poll_notice())
            .filter_map(|notice| match notice {
                Notice::ToDevice(_peer, reset) => Some(reset),
                Notice::ToService(_) => None,
            })
            .collect()
    }

    /// What was logged since the last call.
    fn verdicts(&mut self) -> Vec<(Verdict, Reason)> {
        std::iter::from_fn(|| self.forwarder.poll_record())
            .map(|record| (record.verdict, record.reason))
            .collect()
    }
}

impl Outcome {
    #[track_caller]
    fn assert_forwarded(self) {
        assert!(matches!(self, Self::Forwarded), "not forwarded");
    }

    #[track_caller]
    fn assert_dropped(self) {
        assert!(matches!(self, Self::Dropped), "not dropped");
    }

    #[track_caller]
    fn reply(self) -> Vec<u8> {
        let Self::Replied(reply) = self else { panic!("no reply") };
        reply
    }
}

fn bundle(policies: Vec<Policy>) -> Bundle {
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

fn resource(number: u128, addresses: Vec<IpNet>, filters: Vec<PortFilter>) -> Resource {
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

fn policy(number: u128, effect: Effect, resources: ResourceSelector) -> Policy {
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

fn only(resource: u128) -> ResourceSelector {
    ResourceSelector { ids: vec![id(resource)], ..ResourceSelector::default() }
}

fn id(resource: u128) -> ResourceId {
    ResourceId::from_uuid(Uuid::from_u128(resource))
}

fn site_id() -> SiteId {
    SiteId::from_uuid(Uuid::nil())
}

fn device_id(number: u128) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(number))
}

fn subject(number: u128) -> Subject {
    Subject {
        device_id: device_id(number),
        user_id: UserId::from_uuid(Uuid::from_u128(number)),
        groups: Vec::new(),
        posture: Vec::new(),
        source: None,
        authenticated_at: None,
        expires_at: None,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp(from: &str, to: &str, from_port: u16, to_port: u16, flags: u8) -> Vec<u8> {
    segment(from, to, (from_port, to_port), (100, 100, flags), &[])
}

fn segment(
    from: &str,
    to: &str,
    ports: (u16, u16),
    (sequence, acknowledged, flags): (u32, u32, u8),
    payload: &[u8],
) -> Vec<u8> {
    let mut body = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    body.extend_from_slice(&sequence.to_be_bytes());
    body.extend_from_slice(&acknowledged.to_be_bytes());
    body.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    body.extend_from_slice(payload);
    ip(from, to, 6, &body)
}

fn udp(from: &str, to: &str, from_port: u16, to_port: u16) -> Vec<u8> {
    let mut body = [from_port, to_port, 12, 0].map(u16::to_be_bytes).concat();
    body.extend_from_slice(b"data");
    ip(from, to, 17, &body)
}

fn echo(from: &str, to: &str, is_request: bool) -> Vec<u8> {
    ip(from, to, 1, &[if is_request { 8 } else { 0 }, 0, 0, 0, 0, 7, 0, 1])
}

fn icmp_error(from: &str, to: &str, about: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(about);
    ip(from, to, 1, &body)
}

/// Checksums stay zero: nothing here looks at them.
fn ip(from: &str, to: &str, protocol: u8, body: &[u8]) -> Vec<u8> {
    let len = |header: usize| u16::try_from(header + body.len()).unwrap().to_be_bytes();
    let mut packet = match (address(from), address(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = len(20);
            let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = len(0);
            let mut header = vec![0x60, 0, 0, 0, high, low, protocol, 64];
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            header
        }
        (from, to) => panic!("{from} and {to} are of different families"),
    };
    packet.extend_from_slice(body);
    packet
}

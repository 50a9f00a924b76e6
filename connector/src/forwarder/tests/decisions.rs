//! Which flows are let through, and what the others hear.

use std::time::Duration;

use adit_proto::{
    Reason, Verdict,
    api::{Effect, ResourceSelector},
};
use adit_tunnel::{Packet, Transport};

use super::{
    packet::{ACK, SYN, SYN_ACK, address, tcp, udp},
    world::{DATABASE, LAPTOP, PHONE, WEB, WEB_ID, World, device_id, only, policy},
};
use crate::{
    enforced::Standing,
    flow_table::Volume,
    forwarder::{Inner, Service},
};

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

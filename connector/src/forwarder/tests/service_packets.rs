//! What services send.

use std::time::Duration;

use adit_proto::Reason;
use adit_tunnel::Packet;

use super::{
    packet::{ACK, RST, SYN, echo, icmp_error, segment, tcp, udp},
    world::{DATABASE, LAPTOP, WEB, World},
};
use crate::{flow_table::Volume, forwarder::Service};

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
fn a_segment_that_carries_nothing_new_is_known_as_repeated() {
    let mut world = World::permitting_web();
    world.tcp_from_device(WEB, 80, ACK).assert_forwarded();
    let from_web =
        |sequence, payload: &[u8]| segment(WEB, LAPTOP, (80, 4000), (sequence, 100, ACK), payload);
    let (new, again) = (Service::Send(world.laptop), Service::SendAgain(world.laptop));
    assert_eq!(world.service_sends(&from_web(500, b"first")), new);
    assert_eq!(world.service_sends(&from_web(505, b"second")), new);
    assert_eq!(world.service_sends(&from_web(500, b"first")), again);
    assert_eq!(world.service_sends(&from_web(505, b"second")), again);
    assert_eq!(world.service_sends(&from_web(511, b"")), new, "an acknowledgement");
    assert_eq!(world.service_sends(&from_web(505, b"second and more")), new);
}

#[test]
fn what_a_service_sends_after_a_silence_is_known() {
    let mut world = World::permitting_web();
    world.device_sends(&udp(LAPTOP, WEB, 4000, 53)).assert_forwarded();
    let answer = udp(WEB, LAPTOP, 53, 4000);
    let (sent, after) = (Service::Send(world.laptop), Service::SendAfterSilence(world.laptop));
    assert_eq!(world.service_sends(&answer), sent);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.service_sends(&answer), after);
    assert_eq!(world.service_sends(&answer), sent, "the second at once");
    world.pass(Duration::from_secs(2));
    world.device_sends(&udp(LAPTOP, WEB, 4000, 53)).assert_forwarded();
    assert_eq!(world.service_sends(&answer), sent, "the device has just spoken");
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

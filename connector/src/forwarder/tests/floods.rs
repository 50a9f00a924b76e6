//! Devices that open more flows than is good for others.

use std::time::Duration;

use adit_proto::{Reason, Verdict};
use adit_tunnel::Packet;

use super::{
    packet::{ACK, SYN, segment},
    world::{DATABASE, LAPTOP, PHONE, WEB, World},
};

/// How many flows a device may open at once.
const BURST: u16 = 4096;
/// How many denials are reported each.
const REPORTED: usize = 128;

#[test]
fn a_device_that_opens_flows_too_fast_is_told_so_and_may_go_on_in_a_moment() {
    let mut world = World::permitting_web();
    for port in 1..=BURST {
        world.syn(WEB, port).assert_forwarded();
    }
    world.verdicts();
    let reply = world.syn(WEB, BURST + 1).reply();
    assert!(Packet::try_parse(&reply).unwrap().tcp_flags().unwrap().rst());
    assert_eq!(world.verdicts(), [(Verdict::Deny, Reason::FlowRateExceeded)]);
    assert_eq!(world.forwarder.counters().drops[&Reason::FlowRateExceeded], 1);
    world.phone_syn(WEB, 80).assert_forwarded();
    world.tcp_from_device(WEB, 1, ACK).assert_forwarded();

    world.pass(Duration::from_millis(1));
    world.syn(WEB, BURST + 1).assert_forwarded();
}

#[test]
fn connections_from_before_a_restart_wait_for_their_turn_and_are_not_reset() {
    let mut world = World::permitting_web();
    for port in 1..=BURST {
        world.tcp_from_device(WEB, port, ACK).assert_forwarded();
    }
    world.tcp_from_device(WEB, BURST + 1, ACK).assert_dropped();
    world.pass(Duration::from_millis(1));
    world.tcp_from_device(WEB, BURST + 1, ACK).assert_forwarded();
}

#[test]
fn a_scan_of_all_ports_fills_no_log_and_costs_others_nothing() {
    let mut world = World::permitting_web();
    world.sends(world.phone, &phone_to_database()).reply();
    let mut reported = world.records().len();
    for port in 0..=u16::MAX {
        world.syn(DATABASE, port).reply();
        if port % 1000 == 0 {
            world.pass(Duration::from_millis(10));
            world.timeout();
            world.phone_syn(WEB, port).assert_forwarded();
        }
    }
    // A retry, as before.
    world.sends(world.phone, &phone_to_database()).reply();
    world.pass(Duration::from_secs(10));
    world.timeout();

    let mut denied = 0;
    for record in world.records() {
        if record.verdict == Verdict::Deny {
            reported += 1;
            // One of few, or the sum of many.
            denied += record.from_device.packets.max(1);
        }
    }
    assert!(reported < REPORTED + 20, "{reported} reports");
    assert_eq!(denied, 65_536);
    let drops = &world.forwarder.counters().drops;
    let dropped: u64 = drops.values().sum();
    assert_eq!(dropped, 65_536 + 2);
    assert!(drops[&Reason::FlowRateExceeded] > 50_000, "{drops:?}");
}

#[test]
fn gathered_denials_of_a_device_that_is_removed_are_reported() {
    let mut world = World::permitting_web();
    for port in 1..=1000 {
        world.syn(DATABASE, port).reply();
    }
    world.verdicts();
    world.forwarder.remove_device(world.laptop, Reason::DeviceRevoked, world.now);
    let gathered: u64 = world.records().iter().map(|record| record.from_device.packets).sum();
    assert_eq!(gathered, 1000 - u64::try_from(REPORTED).unwrap());
}

#[test]
fn orphans_without_number_make_few_probes_for_a_device_and_leave_some_for_others() {
    let mut world = World::permitting_web();
    let (laptop, phone, now) = (world.laptop, world.phone, world.now);
    let mut probed = |peer, to: &str, port| {
        let orphan = segment(WEB, to, (port, 4000), (500, 101, ACK), &[7; 100]);
        world.forwarder.probe(peer, &Packet::try_parse(&orphan).unwrap(), now).is_some()
    };
    assert_eq!((1..=u16::MAX).filter(|port| probed(laptop, LAPTOP, *port)).count(), 64);
    assert!(probed(phone, PHONE, 80));
}

fn phone_to_database() -> Vec<u8> {
    segment(PHONE, DATABASE, (4000, 1), (100, 0, SYN), &[])
}

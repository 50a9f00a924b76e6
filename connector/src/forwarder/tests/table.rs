//! How flows come and go.

use std::time::Duration;

use adit_proto::{Reason, Verdict, api::Effect};

use super::{
    packet::{ACK, FIN_ACK, SYN_ACK, tcp, udp},
    world::{LAPTOP, PHONE, WEB, WEB_ID, World, device_id, only, policy},
};
use crate::{
    flow_table::Limits,
    forwarder::{FlowRecord, Service},
};

#[test]
fn a_device_at_its_limit_loses_the_flow_that_is_worth_least() {
    let mut world = World::with_limits(
        vec![policy(1, Effect::Permit, only(WEB_ID))],
        Limits { flows: 100, flows_per_device: 3 },
    );
    for port in [80, 81] {
        world.syn(WEB, port).assert_forwarded();
        world.service_sends(&tcp(WEB, LAPTOP, port, 4000, SYN_ACK));
    }
    world.syn(WEB, 82).assert_forwarded();
    world.verdicts();

    // Nothing has come back from port 82.
    world.syn(WEB, 83).assert_forwarded();
    assert_eq!(given_way(&mut world), [(82, Verdict::Cut, Reason::FlowTableFull)]);
    // What is finished goes before what is opening.
    world.service_sends(&tcp(WEB, LAPTOP, 80, 4000, FIN_ACK));
    world.tcp_from_device(WEB, 80, FIN_ACK).assert_forwarded();
    world.syn(WEB, 84).assert_forwarded();
    assert_eq!(given_way(&mut world), [(80, Verdict::Closed, Reason::PolicyPermits)]);
    // Of those that are opening the first.
    world.syn(WEB, 85).assert_forwarded();
    assert_eq!(given_way(&mut world), [(83, Verdict::Cut, Reason::FlowTableFull)]);
    world.tcp_from_device(WEB, 81, ACK).assert_forwarded();
}

#[test]
fn of_open_flows_the_one_that_was_silent_longest_gives_way() {
    let mut world = World::with_limits(
        vec![policy(1, Effect::Permit, only(WEB_ID))],
        Limits { flows: 100, flows_per_device: 3 },
    );
    for port in [80, 81, 82] {
        world.syn(WEB, port).assert_forwarded();
        world.service_sends(&tcp(WEB, LAPTOP, port, 4000, SYN_ACK));
        world.pass(Duration::from_secs(1));
    }
    world.tcp_from_device(WEB, 80, ACK).assert_forwarded();
    world.verdicts();
    world.syn(WEB, 83).assert_forwarded();
    assert_eq!(given_way(&mut world), [(81, Verdict::Cut, Reason::FlowTableFull)]);
}

#[test]
fn a_device_that_floods_cannot_end_a_flow_of_another() {
    let mut world = World::with_limits(
        vec![policy(1, Effect::Permit, only(WEB_ID))],
        Limits { flows: 100, flows_per_device: 1000 },
    );
    for port in 1..=10 {
        world.phone_syn(WEB, port).assert_forwarded();
    }
    for port in 1..=1000 {
        world.syn(WEB, port).assert_forwarded();
    }
    assert_eq!(world.forwarder.flow_count(), 100);
    let cut = world.records().into_iter().filter(|record| record.verdict == Verdict::Cut);
    assert!(cut.map(|record| record.device_id).all(|device| device == device_id(1)));
    for port in 1..=10 {
        let answer = tcp(WEB, PHONE, port, 4000, SYN_ACK);
        assert_eq!(world.service_sends(&answer), Service::Send(world.phone));
    }
}

#[test]
fn a_full_table_is_shared_in_equal_parts() {
    let mut world = World::with_limits(
        vec![policy(1, Effect::Permit, only(WEB_ID))],
        Limits { flows: 10, flows_per_device: 1000 },
    );
    for port in 1..=20 {
        world.syn(WEB, port).assert_forwarded();
    }
    for port in 1..=20 {
        world.phone_syn(WEB, port).assert_forwarded();
    }
    for port in 21..=40 {
        world.syn(WEB, port).assert_forwarded();
    }
    let held = |records: &[FlowRecord], device| -> i32 {
        let of_device = records.iter().filter(|record| record.device_id == device_id(device));
        of_device.map(|record| if record.verdict == Verdict::Allow { 1 } else { -1 }).sum()
    };
    let records = world.records();
    assert_eq!((held(&records, 1), held(&records, 2)), (5, 5));
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

/// The ports of the flows that ended since the last call.
fn given_way(world: &mut World) -> Vec<(u16, Verdict, Reason)> {
    let records = world.records().into_iter();
    records
        .filter(|record| record.verdict != Verdict::Allow)
        .map(|record| (record.flow.destination_port, record.verdict, record.reason))
        .collect()
}

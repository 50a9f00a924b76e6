//! What is counted.

use std::time::Duration;

use adit_proto::{FlowTuple, Protocol, Reason, Verdict};

use super::{
    packet::{ACK, address, segment, udp},
    world::{LAPTOP, WEB, World},
};
use crate::{flow_table::Volume, forwarder::FlowRecord};

#[test]
fn the_record_of_an_end_holds_what_was_carried() {
    let mut world = World::permitting_web();
    let out = udp(LAPTOP, WEB, 4000, 53);
    world.device_sends(&out).assert_forwarded();
    world.service_sends(&udp(WEB, LAPTOP, 53, 4000));
    world.service_sends(&udp(WEB, LAPTOP, 53, 4000));
    world.pass(Duration::from_secs(5));
    world.forwarder.drain(world.now);
    let records: Vec<FlowRecord> = world.records();
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

    let records: Vec<FlowRecord> = world.records();
    let end = records.last().unwrap();
    assert_eq!(end.from_device, Volume { packets: 4, bytes: 4 * 40 + 2500 });
    assert_eq!(end.to_device, two);
    let counters = world.forwarder.counters();
    assert_eq!((counters.from_devices, counters.to_devices), (end.from_device, end.to_device));
    assert_eq!(counters.drops[&Reason::FlowUnknown], 2);
}

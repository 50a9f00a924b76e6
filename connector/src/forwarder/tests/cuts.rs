//! Flows that end against their will.

use std::time::Duration;

use adit_policy::Subject;
use adit_proto::{
    GroupId, Reason, Verdict,
    api::{Conditions, Effect, Policy, ResourceSelector},
};
use adit_tunnel::{Packet, Transport};
use uuid::Uuid;

use super::{
    packet::{ACK, SYN, SYN_ACK, address, segment, tcp, udp},
    world::{
        DATABASE, DATABASE_ID, LAPTOP, Outcome, PHONE, WEB, WEB_ID, World, device_id, id, only,
        policy, subject,
    },
};
use crate::{
    flow_table::Volume,
    forwarder::{Inner, Notice, Service},
};

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
fn packets_on_their_way_when_a_flow_is_cut_are_refused_and_reported_as_the_cut_alone() {
    let mut world = World::permitting_web();
    world.syn(WEB, 80).assert_forwarded();
    world.verdicts();
    world.enforce_policies(Vec::new());
    world.timeout();
    assert!(matches!(world.tcp_from_device(WEB, 80, ACK), Outcome::Replied(_reset)));
    assert_eq!(world.verdicts(), [(Verdict::Cut, Reason::NoPolicyPermits)]);
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
fn many_flows_are_cut_in_slices_until_none_is_left() {
    let mut world = World::permitting_web();
    for port in 1..=1000 {
        world.syn(WEB, port).assert_forwarded();
    }
    let before = world.now.monotonic;
    world.enforce_policies(Vec::new());
    let mut left = world.forwarder.flow_count();
    while left > 0 {
        world.turn();
        let now_left = world.forwarder.flow_count();
        assert!((1..=256).contains(&(left - now_left)), "{left} to {now_left}");
        left = now_left;
    }
    assert!(world.now.monotonic - before < Duration::from_secs(1));
}

#[test]
fn many_flows_that_stay_are_decided_anew_in_a_few_turns() {
    let mut world = World::permitting_web();
    for port in 1..=4096 {
        world.syn(WEB, port).assert_forwarded();
    }
    let decided = |world: &World| world.forwarder.counters().decisions[&Reason::PolicyPermits];
    let before = decided(&world);
    world.enforce_policies(vec![policy(2, Effect::Permit, only(WEB_ID))]);
    for _ in 0..2 {
        world.turn();
    }
    assert_eq!(decided(&world) - before, 4096);
}

#[test]
fn changes_without_end_keep_no_flow_from_being_cut() {
    let mut world = World::permitting_web();
    for port in 1..=4096 {
        world.syn(WEB, port).assert_forwarded();
    }
    world.enforce_policies(Vec::new());
    for change in 0.. {
        let groups = vec![GroupId::from_uuid(Uuid::from_u128(change))];
        world.forwarder.upsert_device(world.phone, Subject { groups, ..subject(2) }, world.now);
        world.turn();
        if world.forwarder.flow_count() == 0 {
            break;
        }
        assert!(change < 20, "{} flows are left", world.forwarder.flow_count());
    }
}

#[test]
fn a_device_with_many_flows_is_removed_in_slices_but_lets_nothing_through() {
    let mut world = World::permitting_web();
    for port in 1..=2000 {
        world.syn(WEB, port).assert_forwarded();
    }
    world.forwarder.remove_device(world.laptop, Reason::DeviceRevoked, world.now);
    let left = world.forwarder.flow_count();
    assert_eq!(left, 2000 - 256);
    for port in 1..=2000 {
        let sent = world.service_sends(&tcp(WEB, LAPTOP, port, 4000, ACK));
        assert!(matches!(sent, Service::Drop | Service::Orphan), "{sent:?}");
    }
    world.forwarder.remove_device(world.phone, Reason::DeviceRevoked, world.now);
    while world.forwarder.flow_count() > 0 {
        world.turn();
    }
    let cut = (Verdict::Cut, Reason::DeviceRevoked);
    assert_eq!(world.verdicts().into_iter().filter(|verdict| *verdict == cut).count(), 2000);
}

#[test]
fn who_takes_over_the_address_of_a_removed_device_is_not_taken_for_it() {
    let mut world = World::permitting_web();
    for port in 1..=2000 {
        world.syn(WEB, port).assert_forwarded();
    }
    world.forwarder.remove_device(world.laptop, Reason::CredentialInvalid, world.now);
    world.verdicts();
    for port in 1..=2000 {
        let packet = tcp(LAPTOP, WEB, 4000, port, SYN);
        world.sends(world.phone, &packet).assert_forwarded();
        let answer = tcp(WEB, LAPTOP, port, 4000, SYN_ACK);
        assert_eq!(world.service_sends(&answer), Service::Send(world.phone));
    }
    let of_laptop = world.records().into_iter().filter(|record| record.device_id == device_id(1));
    assert!(of_laptop.clone().count() == 2000 - 256, "{}", of_laptop.count());
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

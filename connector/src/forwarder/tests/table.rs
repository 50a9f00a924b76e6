//! How flows come and go.

use std::time::Duration;

use adit_proto::{Reason, Verdict, api::Effect};

use super::{
    packet::{ACK, FIN_ACK, tcp, udp},
    world::{LAPTOP, WEB, WEB_ID, World, only, policy},
};
use crate::flow_table::Limits;

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

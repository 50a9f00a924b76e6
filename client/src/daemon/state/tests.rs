use std::time::Duration;

use super::*;

const REACHED: Progress = Progress { total: 1, established: 1, unsettled: 0 };
const LOST: Progress = Progress { total: 1, established: 0, unsettled: 0 };

struct Fixture {
    machine: StateMachine,
    now: Now,
}

impl Fixture {
    fn new() -> Self {
        let now = Now::read();
        Self { machine: StateMachine::new(now), now }
    }

    fn connected() -> Self {
        let mut fixture = Self::new();
        fixture.machine.handle_up(fixture.now);
        fixture.machine.handle_material(fixture.now);
        fixture.machine.handle_tunnel_opened(fixture.now);
        fixture.machine.handle_progress(REACHED, fixture.now);
        assert_eq!(fixture.machine.name(), StateName::Connected);
        fixture.commands();
        fixture
    }

    fn commands(&mut self) -> Vec<StateCommand> {
        std::iter::from_fn(|| self.machine.poll_command()).collect()
    }
}

fn obstacle(code: FailureCode) -> Failure {
    Failure::new(code, "it does not work", "repair it")
}

#[test]
fn up_leads_step_by_step_to_connected() {
    let mut fixture = Fixture::new();

    fixture.machine.handle_up(fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connecting);
    assert_eq!(fixture.commands(), [StateCommand::StartRefresh]);

    fixture.machine.handle_material(fixture.now);
    fixture.machine.handle_material(fixture.now);
    assert_eq!(fixture.commands(), [StateCommand::OpenTunnel]);

    fixture.machine.handle_tunnel_opened(fixture.now);
    assert_eq!(fixture.commands(), [StateCommand::StartSessions]);
    assert_eq!(fixture.machine.name(), StateName::Connecting);

    fixture.machine.handle_progress(REACHED, fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connected);
}

#[test]
fn progress_before_the_tunnel_is_open_connects_nothing() {
    let mut fixture = Fixture::new();
    fixture.machine.handle_up(fixture.now);
    fixture.machine.handle_progress(REACHED, fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connecting);
}

#[test]
fn a_site_that_is_not_settled_is_waited_for() {
    let mut fixture = Fixture::new();
    fixture.machine.handle_up(fixture.now);
    fixture.machine.handle_material(fixture.now);
    fixture.machine.handle_tunnel_opened(fixture.now);
    let one_of_two = Progress { total: 2, established: 1, unsettled: 1 };
    fixture.machine.handle_progress(one_of_two, fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connecting);

    fixture.machine.handle_progress(Progress { unsettled: 0, ..one_of_two }, fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connected);
}

#[test]
fn losing_every_site_is_connecting_again() {
    let mut fixture = Fixture::connected();
    fixture.machine.handle_progress(LOST, fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connecting);
    assert_eq!(fixture.commands(), []);

    fixture.machine.handle_progress(REACHED, fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connected);
}

#[test]
fn down_takes_everything_away() {
    let mut fixture = Fixture::connected();
    fixture.machine.handle_down(fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Disconnecting);
    assert_eq!(fixture.commands(), [StateCommand::StopRefresh, StateCommand::CloseTunnel]);

    fixture.machine.handle_tunnel_closed(fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Disconnected);
}

#[test]
fn up_while_going_down_connects_again() {
    let mut fixture = Fixture::connected();
    fixture.machine.handle_down(fixture.now);
    fixture.commands();
    fixture.machine.handle_up(fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Disconnecting);

    fixture.machine.handle_tunnel_closed(fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connecting);
    assert_eq!(fixture.commands(), [StateCommand::StartRefresh]);
}

#[test]
fn a_control_plane_that_is_away_does_not_end_a_tunnel_that_works() {
    let mut fixture = Fixture::connected();
    fixture.machine.handle_obstacle(obstacle(FailureCode::ControlPlaneUnreachable), fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connected);
    assert_eq!(fixture.machine.obstacle(), None);
}

#[test]
fn a_revoked_device_ends_in_error_and_is_tried_again() {
    let mut fixture = Fixture::connected();
    fixture.machine.handle_obstacle(obstacle(FailureCode::DeviceRevoked), fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Disconnecting);
    fixture.commands();

    fixture.machine.handle_tunnel_closed(fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Error);
    assert_eq!(
        fixture.machine.obstacle().map(|obstacle| obstacle.code),
        Some(FailureCode::DeviceRevoked)
    );

    fixture.machine.handle_timeout(fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Error);
    let later = fixture.now.after(Duration::from_secs(20));
    assert!(fixture.machine.poll_timeout().unwrap() <= later.instant);
    fixture.machine.handle_timeout(later);
    assert_eq!(fixture.machine.name(), StateName::Connecting);
    assert_eq!(fixture.commands(), [StateCommand::StartRefresh]);
}

#[test]
fn an_obstacle_is_shown_until_it_is_gone() {
    let mut fixture = Fixture::new();
    fixture.machine.handle_up(fixture.now);
    fixture.machine.handle_obstacle(obstacle(FailureCode::DevicePending), fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Connecting);
    assert!(fixture.machine.obstacle().is_some());

    fixture.machine.handle_obstacle_gone();
    assert!(fixture.machine.obstacle().is_none());
}

#[test]
fn down_in_error_is_disconnected_at_once() {
    let mut fixture = Fixture::connected();
    fixture.machine.handle_obstacle(obstacle(FailureCode::Interface), fixture.now);
    fixture.machine.handle_tunnel_closed(fixture.now);
    fixture.machine.handle_down(fixture.now);
    assert_eq!(fixture.machine.name(), StateName::Disconnected);
    assert_eq!(fixture.machine.poll_timeout(), None);
}

//! The tunnel is wanted, and no site can be reached yet, or no more.

use super::{
    Commands, Progress, State, StateCommand, connected::Connected, disconnecting::Disconnecting,
    ends_the_tunnel,
};
use crate::ipc::Failure;

#[derive(Debug)]
pub(super) struct Connecting {
    step: Step,
    obstacle: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Waits for configuration and credential.
    Configuring,
    /// Waits for interface and routes.
    Opening,
    /// Waits for sessions.
    Seeking,
}

impl Connecting {
    pub(super) fn from_nothing() -> Self {
        Self { step: Step::Configuring, obstacle: None }
    }

    pub(super) fn from_connected() -> Self {
        Self { step: Step::Seeking, obstacle: None }
    }

    pub(super) fn obstacle(&self) -> Option<&Failure> {
        self.obstacle.as_ref()
    }

    pub(super) fn handle_material(mut self, commands: &mut Commands) -> State {
        if self.step == Step::Configuring {
            commands.push_back(StateCommand::OpenTunnel);
            self.step = Step::Opening;
        }
        State::Connecting(self)
    }

    pub(super) fn handle_tunnel_opened(mut self, commands: &mut Commands) -> State {
        if self.step == Step::Opening {
            commands.push_back(StateCommand::StartSessions);
            self.step = Step::Seeking;
        }
        State::Connecting(self)
    }

    pub(super) fn handle_progress(self, progress: Progress) -> State {
        let reached = progress.established > 0 || progress.total == 0;
        if self.step == Step::Seeking && reached && progress.unsettled == 0 {
            return State::Connected(Connected);
        }
        State::Connecting(self)
    }

    pub(super) fn handle_obstacle(mut self, obstacle: Failure, commands: &mut Commands) -> State {
        if ends_the_tunnel(obstacle.code) {
            return State::Disconnecting(Disconnecting::to_error(obstacle, commands));
        }
        self.obstacle = Some(obstacle);
        State::Connecting(self)
    }

    pub(super) fn handle_obstacle_gone(&mut self) {
        self.obstacle = None;
    }

    pub(super) fn handle_down(self, commands: &mut Commands) -> State {
        State::Disconnecting(Disconnecting::to_disconnected(commands))
    }
}

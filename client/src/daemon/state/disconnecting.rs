//! Sessions, routes and interface are being taken away.

use std::time::Instant;

use super::{
    Commands, State, StateCommand, connecting::Connecting, disconnected::Disconnected,
    error::Failed,
};
use crate::ipc::Failure;

#[derive(Debug)]
pub(super) struct Disconnecting {
    then: Then,
}

/// What comes after.
#[derive(Debug)]
enum Then {
    Disconnected,
    Connecting,
    Error(Failure),
}

impl Disconnecting {
    pub(super) fn to_disconnected(commands: &mut Commands) -> Self {
        Self::to(Then::Disconnected, commands)
    }

    pub(super) fn to_error(obstacle: Failure, commands: &mut Commands) -> Self {
        Self::to(Then::Error(obstacle), commands)
    }

    fn to(then: Then, commands: &mut Commands) -> Self {
        commands.push_back(StateCommand::StopRefresh);
        commands.push_back(StateCommand::CloseTunnel);
        Self { then }
    }

    pub(super) fn obstacle(&self) -> Option<&Failure> {
        match &self.then {
            Then::Error(obstacle) => Some(obstacle),
            Then::Disconnected => None,
            Then::Connecting => None,
        }
    }

    pub(super) fn handle_up(self) -> State {
        State::Disconnecting(Self { then: Then::Connecting })
    }

    pub(super) fn handle_down(self) -> State {
        State::Disconnecting(Self { then: Then::Disconnected })
    }

    pub(super) fn handle_tunnel_closed(self, commands: &mut Commands, retry_at: Instant) -> State {
        match self.then {
            Then::Disconnected => State::Disconnected(Disconnected),
            Then::Connecting => {
                commands.push_back(StateCommand::StartRefresh);
                State::Connecting(Connecting::from_nothing())
            }
            Then::Error(obstacle) => State::Error(Failed::new(obstacle, retry_at)),
        }
    }
}

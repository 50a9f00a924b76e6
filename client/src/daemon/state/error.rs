//! The tunnel is wanted and cannot be; it is tried again at times.

use std::time::Instant;

use super::{Commands, State, StateCommand, connecting::Connecting, disconnected::Disconnected};
use crate::ipc::Failure;

#[derive(Debug)]
pub(super) struct Failed {
    obstacle: Failure,
    retry_at: Instant,
}

impl Failed {
    pub(super) const fn new(obstacle: Failure, retry_at: Instant) -> Self {
        Self { obstacle, retry_at }
    }

    pub(super) const fn obstacle(&self) -> &Failure {
        &self.obstacle
    }

    pub(super) const fn retry_at(&self) -> Instant {
        self.retry_at
    }

    pub(super) fn handle_up(self, commands: &mut Commands) -> State {
        commands.push_back(StateCommand::StartRefresh);
        State::Connecting(Connecting::from_nothing())
    }

    pub(super) fn handle_down(self) -> State {
        State::Disconnected(Disconnected)
    }

    pub(super) fn handle_timeout(self, commands: &mut Commands, now: Instant) -> State {
        if now < self.retry_at {
            return State::Error(self);
        }
        self.handle_up(commands)
    }
}

//! Packets reach at least one site, or there is no site to reach.

use super::{
    Commands, Progress, State, connecting::Connecting, disconnecting::Disconnecting,
    ends_the_tunnel,
};
use crate::ipc::Failure;

#[derive(Debug)]
pub(super) struct Connected;

impl Connected {
    pub(super) fn handle_progress(self, progress: Progress) -> State {
        if progress.total > 0 && progress.established == 0 {
            return State::Connecting(Connecting::from_connected());
        }
        State::Connected(self)
    }

    /// A control plane that is away is no obstacle to what works without it.
    pub(super) fn handle_obstacle(self, obstacle: Failure, commands: &mut Commands) -> State {
        if ends_the_tunnel(obstacle.code) {
            return State::Disconnecting(Disconnecting::to_error(obstacle, commands));
        }
        State::Connected(self)
    }

    pub(super) fn handle_down(self, commands: &mut Commands) -> State {
        State::Disconnecting(Disconnecting::to_disconnected(commands))
    }
}

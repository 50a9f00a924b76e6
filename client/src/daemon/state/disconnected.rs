//! Nothing is wanted and nothing is there.

use super::{Commands, State, StateCommand, connecting::Connecting};

#[derive(Debug)]
pub(super) struct Disconnected;

impl Disconnected {
    pub(super) fn handle_up(self, commands: &mut Commands) -> State {
        commands.push_back(StateCommand::StartRefresh);
        State::Connecting(Connecting::from_nothing())
    }
}

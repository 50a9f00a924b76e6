//! The tunnel as the user sees it: five states, one file each.
//!
//! ```text
//! Disconnected ─up─▶ Connecting ◀─────▶ Connected
//!      ▲                 │  ▲               │
//!      │                 │  └─retry─ Error  │ down, obstacle
//!      │                 ▼             ▲    ▼
//!      └──────────── Disconnecting ────┘◀───┘
//! ```

mod connected;
mod connecting;
mod disconnected;
mod disconnecting;
mod error;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use adit_proto::Timestamp;

use self::{
    connected::Connected, connecting::Connecting, disconnected::Disconnected,
    disconnecting::Disconnecting, error::Failed,
};
use super::clock::Now;
use crate::ipc::{Failure, FailureCode, StateName};

/// What the states ask the event loop to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateCommand {
    /// Ask the control plane for configuration and credential, from now on.
    StartRefresh,
    /// Ask it no more.
    StopRefresh,
    /// Make interface and routes, then call [`StateMachine::handle_tunnel_opened`].
    OpenTunnel,
    /// Look for connectors.
    StartSessions,
    /// End the sessions, take interface and routes away, then call
    /// [`StateMachine::handle_tunnel_closed`].
    CloseTunnel,
}

/// How far the sites have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Sites with resources.
    pub(crate) total: usize,
    /// Sites that packets can reach.
    pub(crate) established: usize,
    /// Sites of which it is not known yet whether they can be reached.
    pub(crate) unsettled: usize,
}

type Commands = VecDeque<StateCommand>;

#[derive(Debug)]
enum State {
    Disconnected(Disconnected),
    Connecting(Connecting),
    Connected(Connected),
    Disconnecting(Disconnecting),
    Error(Failed),
}

/// The state and what follows from each thing that happens.
///
/// In: the `handle_*` methods. Out: [`Self::poll_command`], until it is empty, after any of them;
/// [`Self::poll_timeout`] says when to call [`Self::handle_timeout`].
#[derive(Debug)]
pub(crate) struct StateMachine {
    state: State,
    since: Timestamp,
    commands: Commands,
    /// How long the next error lasts.
    error_lasts: Duration,
}

/// How soon an approval after a revocation, or a repaired interface, is noticed at first; twice as
/// long after each attempt that leads back to an error.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

impl StateMachine {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            state: State::Disconnected(Disconnected),
            since: now.time,
            commands: VecDeque::new(),
            error_lasts: FIRST_RETRY,
        }
    }

    pub(crate) const fn name(&self) -> StateName {
        match self.state {
            State::Disconnected(_) => StateName::Disconnected,
            State::Connecting(_) => StateName::Connecting,
            State::Connected(_) => StateName::Connected,
            State::Disconnecting(_) => StateName::Disconnecting,
            State::Error(_) => StateName::Error,
        }
    }

    pub(crate) const fn since(&self) -> Timestamp {
        self.since
    }

    /// What stands in the way.
    pub(crate) fn obstacle(&self) -> Option<&Failure> {
        match &self.state {
            State::Disconnected(_) => None,
            State::Connecting(connecting) => connecting.obstacle(),
            State::Connected(_) => None,
            State::Disconnecting(disconnecting) => disconnecting.obstacle(),
            State::Error(failed) => Some(failed.obstacle()),
        }
    }

    /// The user wants the tunnel.
    pub(crate) fn handle_up(&mut self, now: Now) {
        self.change(now, |state, commands| match state {
            State::Disconnected(disconnected) => disconnected.handle_up(commands),
            State::Connecting(_) => state,
            State::Connected(_) => state,
            State::Disconnecting(disconnecting) => disconnecting.handle_up(),
            State::Error(failed) => failed.handle_up(commands),
        });
    }

    /// The user does not want the tunnel.
    pub(crate) fn handle_down(&mut self, now: Now) {
        self.change(now, |state, commands| match state {
            State::Disconnected(_) => state,
            State::Connecting(connecting) => connecting.handle_down(commands),
            State::Connected(connected) => connected.handle_down(commands),
            State::Disconnecting(disconnecting) => disconnecting.handle_down(),
            State::Error(failed) => failed.handle_down(),
        });
    }

    /// A verified configuration and a credential that is still valid are at hand.
    pub(crate) fn handle_material(&mut self, now: Now) {
        self.change(now, |state, commands| match state {
            State::Connecting(connecting) => connecting.handle_material(commands),
            State::Disconnected(_) => state,
            State::Connected(_) => state,
            State::Disconnecting(_) => state,
            State::Error(_) => state,
        });
    }

    /// Interface and routes exist.
    pub(crate) fn handle_tunnel_opened(&mut self, now: Now) {
        self.change(now, |state, commands| match state {
            State::Connecting(connecting) => connecting.handle_tunnel_opened(commands),
            State::Disconnected(_) => state,
            State::Connected(_) => state,
            State::Disconnecting(_) => state,
            State::Error(_) => state,
        });
    }

    /// Interface and routes are gone.
    pub(crate) fn handle_tunnel_closed(&mut self, now: Now) {
        let retry_at = now.instant + self.error_lasts;
        self.change(now, |state, commands| match state {
            State::Disconnecting(disconnecting) => {
                disconnecting.handle_tunnel_closed(commands, retry_at)
            }
            State::Disconnected(_) => state,
            State::Connecting(_) => state,
            State::Connected(_) => state,
            State::Error(_) => state,
        });
    }

    /// Sessions came or went.
    pub(crate) fn handle_progress(&mut self, progress: Progress, now: Now) {
        self.change(now, |state, _commands| match state {
            State::Connecting(connecting) => connecting.handle_progress(progress),
            State::Connected(connected) => connected.handle_progress(progress),
            State::Disconnected(_) => state,
            State::Disconnecting(_) => state,
            State::Error(_) => state,
        });
    }

    /// Something stands in the way.
    pub(crate) fn handle_obstacle(&mut self, obstacle: Failure, now: Now) {
        self.change(now, |state, commands| match state {
            State::Connecting(connecting) => connecting.handle_obstacle(obstacle, commands),
            State::Connected(connected) => connected.handle_obstacle(obstacle, commands),
            State::Disconnected(_) => state,
            State::Disconnecting(_) => state,
            State::Error(_) => state,
        });
    }

    /// The control plane answered, so nothing it said before stands in the way.
    pub(crate) fn handle_obstacle_gone(&mut self) {
        if let State::Connecting(connecting) = &mut self.state {
            connecting.handle_obstacle_gone();
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.change(now, |state, commands| match state {
            State::Error(failed) => failed.handle_timeout(commands, now.instant),
            State::Disconnected(_) => state,
            State::Connecting(_) => state,
            State::Connected(_) => state,
            State::Disconnecting(_) => state,
        });
    }

    pub(crate) fn poll_command(&mut self) -> Option<StateCommand> {
        self.commands.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Error(failed) => Some(failed.retry_at()),
            State::Disconnected(_) => None,
            State::Connecting(_) => None,
            State::Connected(_) => None,
            State::Disconnecting(_) => None,
        }
    }

    fn change(&mut self, now: Now, step: impl FnOnce(State, &mut Commands) -> State) {
        let before = self.name();
        let state = std::mem::replace(&mut self.state, State::Disconnected(Disconnected));
        self.state = step(state, &mut self.commands);
        if self.name() != before {
            self.since = now.time;
            match self.state {
                State::Connected(_) | State::Disconnected(_) => self.error_lasts = FIRST_RETRY,
                State::Error(_) => self.error_lasts = LONGEST_RETRY.min(self.error_lasts * 2),
                State::Connecting(_) | State::Disconnecting(_) => {}
            }
            tracing::info!(
                from = before.as_str(),
                to = self.name().as_str(),
                "Tunnel changed its state"
            );
        }
    }
}

/// Whether only a person can take an obstacle away, so that waiting is of no use.
pub(crate) const fn waits_for_a_person(code: FailureCode) -> bool {
    match code {
        FailureCode::ControlPlaneUnreachable => false,
        FailureCode::ConnectorUnavailable => false,
        FailureCode::TimedOut => false,
        FailureCode::Busy => false,
        FailureCode::NotConnected => false,
        FailureCode::NotAllowed => true,
        FailureCode::Malformed => true,
        FailureCode::NotEnrolled => true,
        FailureCode::AlreadyEnrolled => true,
        FailureCode::KeyDamaged => true,
        FailureCode::JoinRefused => true,
        FailureCode::LoginDenied => true,
        FailureCode::PinMismatch => true,
        FailureCode::ControlPlaneRefused => true,
        FailureCode::DevicePending => true,
        FailureCode::DeviceRevoked => true,
        FailureCode::SessionExpired => true,
        FailureCode::Interface => true,
        FailureCode::Storage => true,
        FailureCode::Internal => true,
    }
}

/// Whether an obstacle takes the tunnel down, whatever still works.
const fn ends_the_tunnel(code: FailureCode) -> bool {
    matches!(
        code,
        FailureCode::DeviceRevoked | FailureCode::SessionExpired | FailureCode::Interface
    )
}

#[cfg(test)]
mod tests;

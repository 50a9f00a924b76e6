//! What is found out about the network when someone asks.

use std::{net::IpAddr, time::Duration};

use adit_proto::ClientConfig;
use tokio::sync::oneshot;

use super::{EventLoop, calls::answer, views::path_view};
use crate::{
    daemon::{
        echo::{self, EchoParts},
        identity::Enrolled,
        netcheck::{self, NetcheckParts},
        obstacle,
        task::Task,
    },
    ipc::{Failure, FailureCode, Ping, PingOutcome, Response, StateName},
};

/// Echoes under way; further ones are refused.
const MAX_ECHOES: usize = 64;

/// How long an echo may be waited for.
const LONGEST_PATIENCE: Duration = Duration::from_secs(20);

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    echoes: Vec<Task>,
    netcheck: Option<Task>,
}

impl EventLoop {
    /// Sends an echo through the tunnel, which the loop does not wait for.
    pub(super) fn ping(
        &mut self,
        destination: IpAddr,
        sequence: u16,
        patience: Duration,
        reply: oneshot::Sender<Response>,
    ) {
        if let Err(failure) = self.check_is_up() {
            return answer(reply, Err(failure));
        }
        self.diagnosis.echoes.retain(|echo| !echo.is_finished());
        if self.diagnosis.echoes.len() >= MAX_ECHOES {
            let failure =
                Failure::new(FailureCode::Busy, "too many ping at once", "try again in a moment");
            return answer(reply, Err(failure));
        }
        let respond = move |outcome, path| {
            let ping = Ping { destination, sequence, outcome, path };
            Ok(Response::Ping(Box::new(ping)))
        };
        let Some(view) = self.sites.site_at(destination) else {
            return answer(reply, respond(PingOutcome::NotBehindTunnel, None));
        };
        let path = path_view(&view);
        if path.carrier.is_none() {
            let problem = view.problem.unwrap_or_else(|| "no session yet".to_owned());
            return answer(reply, respond(PingOutcome::NoCarrier { problem }, Some(path)));
        }
        let source = self
            .source_toward(destination)
            .filter(|source| source.is_ipv4() == destination.is_ipv4());
        let Some(source) = source else {
            let problem = "this device has no address of that IP version in the tunnel".to_owned();
            return answer(reply, respond(PingOutcome::Unsendable { problem }, Some(path)));
        };
        let parts = EchoParts {
            destination,
            source,
            interface: self.interface.clone(),
            sequence,
            patience: patience.min(LONGEST_PATIENCE),
        };
        self.diagnosis.echoes.push(Task::spawn(async move {
            let outcome = echo::ping(parts).await;
            answer(reply, respond(outcome, Some(path)));
        }));
    }

    /// Checks the network, which the loop does not wait for.
    pub(super) fn netcheck(&mut self, reply: oneshot::Sender<Response>) {
        let is_under_way =
            self.diagnosis.netcheck.as_ref().is_some_and(|netcheck| !netcheck.is_finished());
        if is_under_way {
            let failure = Failure::new(
                FailureCode::Busy,
                "the network is being checked already",
                "try again in a moment",
            );
            return answer(reply, Err(failure));
        }
        let (enrolled, config) = match self.enrolled_and_configured() {
            Ok(both) => both,
            Err(failure) => return answer(reply, Err(failure)),
        };
        let parts = NetcheckParts {
            sites: config.sites.clone(),
            device_key: enrolled.device_key.clone(),
            control_plane: enrolled.control_plane.clone(),
            control_plane_url: enrolled.identity.control_plane_url.clone(),
            choice: self.sites.choice(),
            router: self.router.clone(),
            resolver: self.resolver.clone(),
        };
        self.diagnosis.netcheck = Some(Task::spawn(async move {
            let checked = netcheck::check(parts).await;
            answer(reply, checked.map(|netcheck| Response::Netcheck(Box::new(netcheck))));
        }));
    }

    fn enrolled_and_configured(&self) -> Result<(&Enrolled, &ClientConfig), Failure> {
        let enrolled = self.enrolled.as_ref().ok_or_else(obstacle::not_enrolled)?;
        let config = self.material.config().ok_or_else(|| {
            Failure::new(
                FailureCode::NotConnected,
                "the configuration was never fetched",
                "adit up",
            )
        })?;
        Ok((enrolled, config))
    }

    /// Whether the tunnel is there, if not yet connected.
    pub(super) fn check_is_up(&self) -> Result<&ClientConfig, Failure> {
        if self.enrolled.is_none() {
            return Err(obstacle::not_enrolled());
        }
        let is_up = match self.machine.name() {
            StateName::Connected | StateName::Connecting => true,
            StateName::Disconnected | StateName::Disconnecting | StateName::Error => false,
        };
        self.material
            .config()
            .filter(|_| is_up)
            .ok_or_else(|| Failure::new(FailureCode::NotConnected, "the tunnel is down", "adit up"))
    }
}

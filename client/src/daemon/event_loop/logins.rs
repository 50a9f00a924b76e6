//! Signing in and out.

use adit_proto::Timestamp;
use adit_tunnel::ControlPlaneError;
use tokio::sync::oneshot;

use super::{EventLoop, calls::answer};
use crate::{
    daemon::{
        clock::Now,
        enrollment::host_name,
        event::Event,
        login::{LoginEvent, Place, Purpose, SignedIn, log_in},
        obstacle,
        task::Task,
    },
    ipc::{Failure, FailureCode, LoginPrompt, Response},
};

/// How many may wait for the end of one sign-in.
const MAX_WAITING: usize = 8;

/// The latest sign-in, the session that came of it, and a sign-out under way.
#[derive(Default)]
pub(super) struct Logins {
    latest: Option<Login>,
    /// Grows with each, so that late events of an earlier one are told apart.
    number: u64,
    log_out: Option<Task>,
    session_ends_at: Option<Timestamp>,
}

struct Login {
    progress: Progress,
    _task: Task,
}

enum Progress {
    /// Codes are asked for; someone waits for them.
    Asking(oneshot::Sender<Response>),
    /// The user is to open a page; these wait for the end.
    Waiting(Vec<oneshot::Sender<Response>>),
    /// So it ended, and nobody has asked yet.
    Ended(Response),
}

impl Logins {
    /// When the user has to sign in again, as far as the control plane said.
    pub(super) const fn session_ends_at(&self) -> Option<Timestamp> {
        self.session_ends_at
    }

    pub(super) const fn note_session_end(&mut self, ends_at: Option<Timestamp>) {
        self.session_ends_at = ends_at;
    }

    fn begun(&mut self, prompt: LoginPrompt) {
        let Some(login) = &mut self.latest else { return };
        let waiting = Progress::Waiting(Vec::new());
        if let Progress::Asking(reply) = std::mem::replace(&mut login.progress, waiting) {
            answer(reply, Ok(Response::LoginBegun(prompt)));
        }
    }

    fn ended(&mut self, result: Result<Response, Failure>) {
        let Some(login) = &mut self.latest else { return };
        let response = result.unwrap_or_else(Response::Failure);
        let ended = Progress::Ended(response.clone());
        match std::mem::replace(&mut login.progress, ended) {
            Progress::Asking(reply) => answer(reply, Ok(response)),
            Progress::Waiting(waiting) => {
                for reply in waiting {
                    answer(reply, Ok(response.clone()));
                }
            }
            Progress::Ended(_) => {}
        }
    }
}

impl EventLoop {
    /// Begins a sign-in; one under way is forgotten.
    pub(super) fn log_in(
        &mut self,
        url: Option<&str>,
        name: Option<String>,
        replace: bool,
        reply: oneshot::Sender<Response>,
    ) {
        let purpose = match self.purpose_of_login(url, name, replace) {
            Ok(purpose) => purpose,
            Err(failure) => return answer(reply, Err(failure)),
        };
        self.logins.number += 1;
        let number = self.logins.number;
        let events = self.events.clone();
        let tell = move |event| {
            let events = events.clone();
            async move {
                let _ = events.send(Event::Login { number, event }).await;
            }
        };
        let task = Task::spawn(log_in(purpose, tell));
        self.logins.latest = Some(Login { progress: Progress::Asking(reply), _task: task });
    }

    fn purpose_of_login(
        &self,
        url: Option<&str>,
        name: Option<String>,
        replace: bool,
    ) -> Result<Purpose, Failure> {
        let place = url.map(Place::parse).transpose()?;
        match (&self.enrolled, place) {
            (Some(enrolled), place) if !replace => {
                let identity = &enrolled.identity;
                if place.is_some_and(|place| place.url != identity.control_plane_url) {
                    return Err(Failure::new(
                        FailureCode::AlreadyEnrolled,
                        format!("this device is enrolled at {}", identity.control_plane_url),
                        "adit login (or, to forget that: adit login --replace URL)",
                    ));
                }
                Ok(Purpose::Renew(enrolled.control_plane.clone()))
            }
            (_, Some(place)) => {
                let key_paths = self.store.joining_key_paths().map_err(|error| {
                    let next = "make room in the state directory, then: adit login";
                    Failure::new(FailureCode::Storage, obstacle::chain(&error), next)
                })?;
                let name = name.unwrap_or_else(host_name);
                Ok(Purpose::Enroll { place, name, key_paths })
            }
            (_, None) => Err(Failure::new(
                FailureCode::NotEnrolled,
                "it is not known where to sign in",
                "adit login https://CONTROL-PLANE (an administrator knows the URL)",
            )),
        }
    }

    /// Answers when the sign-in has ended.
    pub(super) fn await_login(&mut self, reply: oneshot::Sender<Response>) {
        match self.logins.latest.as_mut().map(|login| &mut login.progress) {
            Some(Progress::Ended(response)) => {
                let response = response.clone();
                answer(reply, Ok(response));
            }
            Some(Progress::Waiting(waiting)) if waiting.len() < MAX_WAITING => waiting.push(reply),
            Some(Progress::Waiting(_)) => {
                let next = "try again in a moment";
                let failure = Failure::new(FailureCode::Busy, "too many wait for this", next);
                answer(reply, Err(failure));
            }
            Some(Progress::Asking(_)) | None => {
                let message = "nobody is signing in";
                answer(reply, Err(Failure::new(FailureCode::NotConnected, message, "adit login")));
            }
        }
    }

    pub(super) async fn handle_login(&mut self, number: u64, event: LoginEvent, now: Now) {
        if number != self.logins.number {
            return;
        }
        match event {
            LoginEvent::Begun(prompt) => self.logins.begun(prompt),
            LoginEvent::Ended(Ok(SignedIn::Enrolled(enrollment))) => {
                let adopted = self.adopt(*enrollment, now).await;
                self.logins.ended(adopted);
            }
            LoginEvent::Ended(Ok(SignedIn::Renewed)) => {
                tracing::info!("Signed in");
                self.logins.ended(Ok(Response::Done { message: "Signed in".to_owned() }));
                // At once, whatever was tried and put off before.
                if self.store.wants_up().unwrap_or(false) {
                    self.machine.handle_up(now);
                    self.machine.handle_obstacle_gone();
                }
                self.fetches.ask_again(now.instant);
            }
            LoginEvent::Ended(Err(failure)) => self.logins.ended(Err(failure)),
        }
    }

    /// Ends the session at the control plane, which cuts what this device does.
    pub(super) fn log_out(&mut self, reply: oneshot::Sender<Response>) {
        let Some(enrolled) = &self.enrolled else {
            return answer(reply, Err(obstacle::not_enrolled()));
        };
        if self.logins.log_out.as_ref().is_some_and(|task| !task.is_finished()) {
            let next = "try again in a moment";
            let failure = Failure::new(FailureCode::Busy, "a sign-out is under way", next);
            return answer(reply, Err(failure));
        }
        let control_plane = enrolled.control_plane.clone();
        let (events, generation) = (self.events.clone(), self.generation);
        self.logins.log_out = Some(Task::spawn(async move {
            let result = control_plane.post("/v1/client/log-out", &()).await;
            let _ = events.send(Event::LoggedOut { generation, result, reply }).await;
        }));
    }

    pub(super) fn handle_logged_out(
        &mut self,
        result: Result<(), ControlPlaneError>,
        reply: oneshot::Sender<Response>,
        now: Now,
    ) {
        if let Err(error) = result {
            let failure = obstacle::from_control_plane(&error);
            let message = format!("not signed out: {}", failure.message);
            return answer(reply, Err(Failure { message, ..failure }));
        }
        tracing::info!("Signed out");
        self.forget_credential();
        self.machine.handle_obstacle(obstacle::session_expired(), now);
        let message = "Signed out; the device stays enrolled, next: adit login".to_owned();
        answer(reply, Ok(Response::Done { message }));
    }
}

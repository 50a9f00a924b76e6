//! Follows the control plane's event stream.

use std::time::Duration;

use adit_proto::api::StreamEvent;
use futures_util::{Stream, StreamExt as _, stream};
use http::{
    Method,
    header::{ACCEPT, CONTENT_TYPE},
};
use reqwest::Response;
use tokio::time::timeout;

use super::{
    ControlPlane, ControlPlaneError, REQUEST_TIMEOUT,
    server_sent_event::{EventParser, TooLong},
};

/// How long a stream may be silent. Its heartbeats come every 10 s, of which two may be late.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(25);

/// The event that tells of a bundle; others are for later versions.
const BUNDLE_EVENT: &str = "bundle";

pub(super) async fn open(
    control_plane: &ControlPlane,
    path: &str,
    last_event_id: Option<u64>,
) -> Result<
    impl Stream<Item = Result<StreamEvent, ControlPlaneError>> + Send + Unpin + use<>,
    ControlPlaneError,
> {
    let mut request =
        control_plane.request(Method::GET, path, Vec::new())?.header(ACCEPT, "text/event-stream");
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    let answered = timeout(REQUEST_TIMEOUT, request.send()).await;
    let response = match answered {
        Ok(result) => result.map_err(|error| control_plane.failed(error))?,
        Err(elapsed) => {
            return Err(ControlPlaneError::Unreachable {
                host: control_plane.host(),
                source: Box::new(elapsed),
            });
        }
    };
    let response = control_plane.check_status(response).await?;
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| value.starts_with("text/event-stream")) {
        return Err(control_plane.unexpected(response.status(), "it is no event stream"));
    }
    let follower =
        Follower { control_plane: control_plane.clone(), response, parser: EventParser::default() };
    let events = stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        match follower.next().await {
            Ok(Some(event)) => Some((Ok(event), Some(follower))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(events.boxed())
}

struct Follower {
    control_plane: ControlPlane,
    response: Response,
    parser: EventParser,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<StreamEvent>, ControlPlaneError> {
        loop {
            while let Some(event) = self.parser.next_event() {
                if event.name == BUNDLE_EVENT {
                    let event = serde_json::from_str(&event.data)
                        .map_err(|_error| self.unexpected("an event is of another shape"))?;
                    return Ok(Some(event));
                }
            }
            let Ok(chunk) = timeout(MAX_SILENCE, self.response.chunk()).await else {
                return Err(ControlPlaneError::Silent { host: self.control_plane.host() });
            };
            let Some(chunk) = chunk.map_err(|error| self.control_plane.failed(error))? else {
                return Ok(None);
            };
            self.parser
                .extend(&chunk)
                .map_err(|TooLong| self.unexpected("an event is too long"))?;
        }
    }

    fn unexpected(&self, reason: &'static str) -> ControlPlaneError {
        self.control_plane.unexpected(self.response.status(), reason)
    }
}

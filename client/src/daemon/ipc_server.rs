//! The Unix socket: who may ask, how much, and how long.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    os::unix::net::UnixStream as StdUnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use super::{event::Event, state::waits_for_a_person, task::Task, view::Summary};
use crate::{
    ipc::{
        Answer, Failure, FailureCode, MAX_REQUEST_LEN, Request, Response, StateName, read_line,
        to_line,
    },
    platform::{is_member, lookup_group},
};

/// The group whose members may change something.
const GROUP: &str = "adit";

/// Connections of those who may change something, and of all others: strangers must not keep root
/// from `adit down`.
const MAX_PRIVILEGED: usize = 16;
const MAX_OTHERS: usize = 48;

/// How long a connection may stay silent, and how long a reader may take for an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that `up` may wait.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// A request with the place for its answer.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Response>,
}

/// What someone at the socket may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    Change,
    Read,
}

/// The listening socket. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct IpcServer {
    path: PathBuf,
    _task: Task,
}

impl IpcServer {
    /// Listens at `path`. A socket that nobody listens at is replaced; one that lives is not.
    pub(crate) fn try_start(
        path: &Path,
        events: mpsc::Sender<Event>,
        summary: watch::Receiver<Summary>,
    ) -> anyhow::Result<Self> {
        let listener = bind(path)?;
        let group = lookup_group(GROUP);
        let task = Task::spawn(accept(listener, group, events, summary));
        Ok(Self { path: path.to_owned(), _task: task })
    }
}

impl Drop for IpcServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let shown = path.display();
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
        && !directory.exists()
    {
        fs::create_dir_all(directory)
            .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("failed to create {}", directory.display()))?;
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            bail!("{shown} is no socket; remove it, or choose another --socket");
        }
        Ok(_) => match StdUnixStream::connect(path) {
            Ok(_) => {
                bail!("another daemon listens at {shown}; stop it, or choose another --socket")
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path)
                    .with_context(|| format!("failed to remove the stale socket {shown}"))?;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("failed to look at {shown}"));
            }
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("failed to look at {shown}")),
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("failed to listen at {shown}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .with_context(|| format!("failed to open {shown} to all users"))?;
    Ok(listener)
}

async fn accept(
    listener: UnixListener,
    group: Option<u32>,
    events: mpsc::Sender<Event>,
    summary: watch::Receiver<Summary>,
) {
    let privileged = Arc::new(Semaphore::new(MAX_PRIVILEGED));
    let others = Arc::new(Semaphore::new(MAX_OTHERS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _address)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others may close some.
                tracing::warn!(%error, "Socket cannot accept");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let permission = match stream.peer_cred() {
            Ok(peer) => permission(peer.uid(), peer.gid(), group),
            Err(error) => {
                tracing::debug!(%error, "Peer has no credentials");
                continue;
            }
        };
        let slots = match permission {
            Permission::Change => &privileged,
            Permission::Read => &others,
        };
        let slot = Arc::clone(slots).try_acquire_owned();
        let (events, summary) = (events.clone(), summary.clone());
        tokio::spawn(async move {
            let ended = match slot {
                Ok(_slot) => serve(stream, permission, &events, summary).await,
                Err(_no_permits) => refuse(stream).await,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "Connection at the socket ended");
            }
        });
    }
}

/// Root may change everything, the group's members too, others may look.
fn permission(uid: u32, main_gid: u32, group: Option<u32>) -> Permission {
    if uid == 0 || group.is_some_and(|gid| is_member(uid, main_gid, gid)) {
        Permission::Change
    } else {
        Permission::Read
    }
}

async fn refuse(mut stream: UnixStream) -> io::Result<()> {
    let failure =
        Failure::new(FailureCode::Busy, "too many ask the daemon at once", "try again in a moment");
    write(&mut stream, Response::Failure(failure)).await
}

async fn serve(
    stream: UnixStream,
    permission: Permission,
    events: &mpsc::Sender<Event>,
    summary: watch::Receiver<Summary>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let line = match timeout(READ_TIMEOUT, read_line(&mut stream, MAX_REQUEST_LEN)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) => {
                let failure = malformed(&error.to_string());
                return write(stream.get_mut(), Response::Failure(failure)).await;
            }
        };
        let response = match serde_json::from_slice::<Request>(&line) {
            // What the line holds may be a key, so the parser's message, which quotes it, stays
            // here.
            Err(error) => {
                let place = format!("column {} of the line is no request", error.column());
                Response::Failure(malformed(&place))
            }
            Ok(request) => answer(request, permission, events, summary.clone()).await,
        };
        write(stream.get_mut(), response).await?;
    }
}

fn malformed(what: &str) -> Failure {
    Failure::new(FailureCode::Malformed, what, "use the `adit` command of the daemon's own version")
}

async fn write(stream: &mut UnixStream, response: Response) -> io::Result<()> {
    let line = to_line(&Answer::from(response));
    timeout(WRITE_TIMEOUT, stream.write_all(&line))
        .await
        .map_err(|_elapsed| io::Error::from(ErrorKind::TimedOut))?
}

async fn answer(
    request: Request,
    permission: Permission,
    events: &mpsc::Sender<Event>,
    summary: watch::Receiver<Summary>,
) -> Response {
    if let Err(failure) = check(&request, permission) {
        return Response::Failure(failure);
    }
    let wait = match &request {
        Request::Up { wait_ms } => Some(Duration::from_millis(*wait_ms).min(MAX_WAIT)),
        Request::Enroll { .. }
        | Request::Login { .. }
        | Request::AwaitLogin
        | Request::Logout
        | Request::Down
        | Request::SetCarrier { .. }
        | Request::Status
        | Request::Resources
        | Request::Explain { .. }
        | Request::Ping { .. }
        | Request::Netcheck => None,
    };
    let waits_for_down = request == Request::Down;
    let (reply, answer) = oneshot::channel();
    let call = Call { request, reply };
    let stopping = || {
        Response::Failure(Failure::new(
            FailureCode::Internal,
            "the daemon is stopping",
            "start it: sudo adit daemon",
        ))
    };
    if events.send(Event::Call(call)).await.is_err() {
        return stopping();
    }
    let response = answer.await.unwrap_or_else(|_closed| stopping());
    match (wait, &response) {
        (Some(wait), Response::Done { .. }) if !wait.is_zero() => {
            wait_until_up(wait, summary).await
        }
        (_, Response::Done { .. }) if waits_for_down => {
            wait_until_down(summary).await;
            response
        }
        _ => response,
    }
}

fn check(request: &Request, permission: Permission) -> Result<(), Failure> {
    if request.changes_something() && permission != Permission::Change {
        return Err(Failure::new(
            FailureCode::NotAllowed,
            "only root and members of the group `adit` may do this",
            "run it with sudo, or ask to be added: sudo usermod -aG adit $USER",
        ));
    }
    Ok(())
}

/// Waits until the tunnel is connected, or until only a person can help.
async fn wait_until_up(wait: Duration, mut summary: watch::Receiver<Summary>) -> Response {
    let settled = |summary: &Summary| match summary.state {
        StateName::Connected => true,
        // Someone else took it down meanwhile.
        StateName::Disconnected => true,
        StateName::Error => true,
        StateName::Connecting | StateName::Disconnecting => {
            summary.problem.as_ref().is_some_and(|problem| waits_for_a_person(problem.code))
        }
    };
    let waited = timeout(wait, summary.wait_for(settled)).await;
    let is_in_time = waited.is_ok();
    drop(waited);
    let Summary { state, problem, .. } = summary.borrow().clone();
    match (state, problem) {
        (StateName::Connected, _) => Response::Done { message: "Connected".to_owned() },
        (StateName::Disconnected, _) if is_in_time => Response::Failure(Failure::new(
            FailureCode::NotConnected,
            "the tunnel was taken down meanwhile",
            "adit up",
        )),
        (_, Some(problem)) => Response::Failure(problem),
        (_, None) => Response::Failure(Failure::new(
            FailureCode::TimedOut,
            format!("not connected after {} s; the daemon goes on trying", wait.as_secs()),
            "adit status",
        )),
    }
}

async fn wait_until_down(mut summary: watch::Receiver<Summary>) {
    let gone = |summary: &Summary| match summary.state {
        StateName::Disconnected => true,
        StateName::Connecting | StateName::Connected | StateName::Error => true,
        StateName::Disconnecting => false,
    };
    // Whatever comes of it, the answer is the same.
    let _ = timeout(Duration::from_secs(10), summary.wait_for(gone)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [fn() -> Request; 3] = [|| Request::Status, || Request::Resources, || Request::Down];

    #[test]
    fn root_may_do_everything() {
        assert_eq!(permission(0, 0, None), Permission::Change);
        for request in ALL {
            assert!(check(&request(), Permission::Change).is_ok());
        }
    }

    #[test]
    fn a_stranger_may_look_and_change_nothing() {
        assert_eq!(permission(54_321, 54_321, Some(12_345)), Permission::Read);
        assert!(check(&Request::Status, Permission::Read).is_ok());
        assert!(check(&Request::Resources, Permission::Read).is_ok());
        for request in [Request::Down, Request::Up { wait_ms: 0 }] {
            let failure = check(&request, Permission::Read).unwrap_err();
            assert_eq!(failure.code, FailureCode::NotAllowed);
        }
    }

    #[test]
    fn whoever_runs_with_the_group_may_change_things() {
        assert_eq!(permission(54_321, 12_345, Some(12_345)), Permission::Change);
        assert_eq!(permission(54_321, 12_345, None), Permission::Read);
    }

    #[tokio::test]
    async fn a_socket_that_lives_is_not_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("adit.sock");
        let _held = bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(error.to_string().contains("another daemon listens"), "{error}");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("adit.sock");
        drop(bind(&path).unwrap());
        assert!(path.exists());
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("adit.sock");
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn garbage_is_answered_and_the_connection_goes_on() {
        let (events, _receiver) = mpsc::channel(1);
        let (_sender, summary) = watch::channel(Summary::default());
        let (client, server) = UnixStream::pair().unwrap();
        let task = Task::spawn(async move {
            let _ = serve(server, Permission::Read, &events, summary).await;
        });
        let mut client = BufReader::new(client);
        for line in [&b"not json\n"[..], b"{\"type\":\"down\"}\n"] {
            client.write_all(line).await.unwrap();
            let answer = read_line(&mut client, MAX_REQUEST_LEN).await.unwrap().unwrap();
            let answer: Answer = serde_json::from_slice(&answer).unwrap();
            assert!(matches!(answer.response, Response::Failure(_)), "{answer:?}");
        }
        drop(task);
    }
}

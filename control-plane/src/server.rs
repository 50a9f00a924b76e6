//! HTTPS: accepts connections, bounds what each may take, and drains them at the end.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::{
    api::{self, PeerAddress},
    app::App,
    data_dir::Certificate,
};

/// Connections at a time; further ones wait in the kernel. Each connector holds one.
const MAX_CONNECTIONS: usize = 4096;

/// How long a TLS handshake, and after it the head of a request, may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// How long requests may go on once the program is to stop.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// A bound port.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: StdTcpListener,
    address: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let bind = || -> io::Result<Self> {
            let socket = StdTcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().with_context(|| {
            format!("failed to listen on {address}; choose another address with --listen")
        })
    }

    pub(crate) const fn local_address(&self) -> SocketAddr {
        self.address
    }
}

/// The task that accepts connections.
#[derive(Debug)]
pub(crate) struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Begins to answer requests.
    pub(crate) fn start(
        listener: Listener,
        certificate: &Certificate,
        app: App,
    ) -> anyhow::Result<Self> {
        let listener =
            TcpListener::from_std(listener.socket).context("failed to watch the socket")?;
        let acceptor = Acceptor {
            tls: TlsAcceptor::from(certificate.tls.clone()),
            http: Arc::new(http()),
            service: TowerToHyperService::new(api::router(app.clone())),
            app,
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, acceptor, stopped));
        Ok(Self { stop, task })
    }

    /// Lets requests finish, but not for ever.
    pub(crate) async fn drain(self) {
        // The receiver is gone only when the task is.
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            warn!(error = %error, "Server task failed");
        }
    }
}

#[derive(Clone)]
struct Acceptor {
    tls: TlsAcceptor,
    http: Arc<auto::Builder<TokioExecutor>>,
    service: TowerToHyperService<Router>,
    app: App,
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_PATIENCE)
        .max_buf_size(64 << 10);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .max_concurrent_streams(100)
        .max_header_list_size(32 << 10);
    http
}

async fn accept(listener: TcpListener, acceptor: Acceptor, mut stopped: oneshot::Receiver<()>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let permit = tokio::select! {
            permit = permits.clone().acquire_owned() => {
                permit.expect("the semaphore is never closed")
            }
            _ = &mut stopped => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(acceptor.clone().answer(stream, peer, permit, graceful.watcher()));
            }
            Err(error) => {
                // No file descriptors left, most likely: wait for connections to close.
                warn!(error = %error, "Failed to accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if timeout(DRAIN_PATIENCE, graceful.shutdown()).await.is_err() {
        warn!("Closing connections that have not finished");
    }
}

impl Acceptor {
    async fn answer(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        _permit: OwnedSemaphorePermit,
        watcher: hyper_util::server::graceful::Watcher,
    ) {
        let _open = self.app.metrics.open_connection();
        // Answers are small; waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        let stream = match timeout(HANDSHAKE_PATIENCE, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                debug!(%peer, error = %error, "TLS handshake failed");
                return;
            }
            Err(_) => {
                debug!(%peer, "TLS handshake took too long");
                return;
            }
        };
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(PeerAddress(peer.ip()));
            self.service.call(request)
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            debug!(%peer, error, "Connection ended with an error");
        }
    }
}

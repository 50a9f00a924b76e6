//! Where a connector awaits its clients.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::{Id, JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, warn};

use super::{
    ALPN, Http2Error,
    server::{Peer, Server},
};
use crate::{IncomingRequest, identity::KeyPair, tls};

/// Listens for clients. Handshakes run side by side, so that no stranger holds up the others.
///
/// Connections beyond the limits are dropped at once. Dropping the listener closes the port and
/// ends unfinished handshakes, not the requests it has given.
pub struct Http2Listener {
    incoming: mpsc::Receiver<IncomingRequest>,
    local_address: SocketAddr,
    acceptor: JoinHandle<()>,
}

/// Time from TCP connection to a session, or to a request by which the client is admitted.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at one time.
const MAX_HANDSHAKES: usize = 256;

/// Of these, from one IPv4 address or IPv6 network of 64 bits, behind which a whole office may be.
const MAX_HANDSHAKES_PER_SOURCE: usize = 64;

/// Requests that wait for [`Http2Listener::accept`]; further ones wait in their connections.
const MAX_WAITING: usize = 16;

/// Connections that wait in the kernel.
const BACKLOG: u32 = 1024;

/// Pause when the kernel has no connection to give, as when all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Http2Listener {
    /// Listens at an address; `[::]` stands for IPv4 too. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn try_bind(address: SocketAddr, identity: &KeyPair) -> io::Result<Self> {
        let listener = bind(address)?;
        let local_address = listener.local_addr()?;
        let (sender, incoming) = mpsc::channel(MAX_WAITING);
        let acceptor = Acceptor {
            listener,
            tls: TlsAcceptor::from(tls::server_config(identity, &[ALPN])),
            incoming: sender,
            handshakes: JoinSet::new(),
            sources: HashMap::new(),
        };
        Ok(Self { incoming, local_address, acceptor: tokio::spawn(acceptor.run()) })
    }

    /// The address with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// The next request, to be taken without delay; it may be for a session.
    ///
    /// The caller bounds how long a session may take to present its credential, and how many may do
    /// so at one time. Whoever has shown one is to be admitted, by
    /// [`SessionSender::admit`](crate::SessionSender::admit) or [`IncomingRequest::admit`].
    ///
    /// # Cancel safety
    ///
    /// None is lost when the future is dropped.
    pub async fn accept(&mut self) -> IncomingRequest {
        self.incoming.recv().await.expect("the acceptor runs as long as the listener exists")
    }
}

impl Drop for Http2Listener {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

struct Acceptor {
    listener: TcpListener,
    tls: TlsAcceptor,
    incoming: mpsc::Sender<IncomingRequest>,
    handshakes: JoinSet<()>,
    /// Where each of the handshakes comes from.
    sources: HashMap<Id, IpAddr>,
}

impl Acceptor {
    async fn run(mut self) {
        let mut is_failing = false;
        loop {
            tokio::select! {
                Some(finished) = self.handshakes.join_next_with_id() => {
                    let id = match finished {
                        Ok((id, ())) => id,
                        Err(error) => error.id(),
                    };
                    self.sources.remove(&id);
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((tcp, remote)) => {
                        is_failing = false;
                        self.handle_connection(tcp, remote);
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        // Once, however long the shortage lasts.
                        if !is_failing {
                            warn!(%error, "Failed to accept connections");
                        }
                        is_failing = true;
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn handle_connection(&mut self, tcp: TcpStream, remote: SocketAddr) {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let source = source_of(remote.ip());
        let of_source = self.sources.values().filter(|&&other| other == source).count();
        if self.handshakes.len() >= MAX_HANDSHAKES || of_source >= MAX_HANDSHAKES_PER_SOURCE {
            debug!(peer = %remote, "Dropped a connection, as too many handshakes are in flight");
            return;
        }
        let (acceptor, incoming) = (self.tls.clone(), self.incoming.clone());
        let handshake = self.handshakes.spawn(async move {
            let outcome = timeout(HANDSHAKE_TIMEOUT, shake_hands(tcp, remote, &acceptor, incoming))
                .await
                .unwrap_or(Err(HandshakeError::TimedOut));
            match outcome {
                Ok(server) => drop(tokio::spawn(server.run())),
                Err(error) => {
                    debug!(peer = %remote, error = format!("{:#}", anyhow::Error::from(error)),
                        "Handshake failed");
                }
            }
        });
        self.sources.insert(handshake.id(), source);
    }
}

#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("the handshake took more than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the TLS handshake failed")]
    Tls(#[from] io::Error),
    #[error("the client has shown no certificate")]
    NoCertificate,
    #[error("nothing was asked for that the client may have")]
    Http2(#[from] Http2Error),
}

/// Returns when others bound how long the client may stay.
async fn shake_hands(
    tcp: TcpStream,
    remote: SocketAddr,
    acceptor: &TlsAcceptor,
    incoming: mpsc::Sender<IncomingRequest>,
) -> Result<Server<TlsStream<TcpStream>>, HandshakeError> {
    tcp.set_nodelay(true)?;
    let stream = acceptor.accept(tcp).await?;
    let pin = tls::peer_pin(stream.get_ref().1).ok_or(HandshakeError::NoCertificate)?;
    let mut server = Server::try_new(stream, Peer { pin, remote }, incoming).await?;
    server.settle().await?;
    Ok(server)
}

/// What one party is likely to have at its disposal.
fn source_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

/// Whether the error is that of a connection that failed while it waited (`accept(2)`), so that
/// the next may be taken at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

use std::{net::SocketAddr, os::fd::AsFd as _, sync::mpsc, thread, time::Instant};

use adit_proto::Pin;
use adit_tunnel::{
    KeyPair, Offloads, QuicConnection, QuicEndpoint, QuicError, ReceiveBatch, UdpSocket, Waiter,
    Waker,
};
use anyhow::Context as _;
use tokio::sync::oneshot;

/// Opens QUIC connections to one connector, on a socket that a thread turns.
pub(super) struct Dialler {
    dials: mpsc::Sender<Dialled>,
    waker: Waker,
}

type Dialled = oneshot::Sender<Result<QuicConnection, QuicError>>;

impl Dialler {
    pub(super) fn start(key: &KeyPair, to: SocketAddr, pin: Pin) -> anyhow::Result<Self> {
        /// As of the interfaces of Adit.
        const PACKET_MTU: u16 = 1_436;

        let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0));
        let udp = UdpSocket::try_bind(any, Offloads::ALL).context("failed to open a socket")?;
        let (waiter, waker) = Waiter::try_new().context("failed to make a waker")?;
        let endpoint = QuicEndpoint::client(key.clone(), PACKET_MTU, waker.clone());
        let (dials, dialled) = mpsc::channel();
        thread::spawn(move || {
            if let Err(error) = turn(endpoint, udp, &waiter, &dialled, (to, pin)) {
                eprintln!("error: {error:#}");
            }
        });

        Ok(Self { dials, waker })
    }

    pub(super) async fn connect(&self) -> Result<QuicConnection, QuicError> {
        let (dialled, connection) = oneshot::channel();
        if self.dials.send(dialled).is_ok() {
            self.waker.wake();
        }
        connection.await.unwrap_or(Err(QuicError::Closed))
    }
}

/// Turns the connections until nobody can ask for more.
fn turn(
    mut endpoint: QuicEndpoint,
    mut udp: UdpSocket,
    waiter: &Waiter,
    dialled: &mpsc::Receiver<Dialled>,
    (to, pin): (SocketAddr, Pin),
) -> anyhow::Result<()> {
    let mut batch = ReceiveBatch::new();
    loop {
        let deadline = endpoint.poll_timeout();
        let ready = waiter
            .wait(None, Some(udp.as_fd()), deadline, Instant::now())
            .context("failed to wait")?;
        let now = Instant::now();
        loop {
            match dialled.try_recv() {
                Ok(dialled) => endpoint.connect(to, pin, dialled, now),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
            }
        }
        if ready.udp && udp.receive(&mut batch).context("failed to receive")? {
            for datagram in batch.datagrams() {
                endpoint.handle_datagram(&datagram, now);
            }
        }
        endpoint.handle_timeout(now);
        endpoint.flush(&mut udp, now);
        while endpoint.poll_event().is_some() {}
    }
}

//! Clients that do everything but show a credential.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto::Pin;
use adit_tunnel::{KeyPair, client_config};
use anyhow::Context as _;
use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig,
    EndpointEvent, Event, crypto::rustls::QuicClientConfig,
};

use super::{Count, Flood};

/// Connections that are attempted at one time. Their first words are sent again and again, which
/// costs less than making new ones, and tells who receives them as little.
const AT_ONE_TIME: usize = 16;

/// How long an attempt is made if it does not come to its end before: to who is asked for a credential
/// and has none. A proof of an address is good for longer.
const RENEWED_AFTER: Duration = Duration::from_secs(3);

/// Many attempts from one address.
pub(super) struct Attempts {
    socket: UdpSocket,
    client: Client,
    attempts: Vec<Attempt>,
    by_handle: HashMap<ConnectionHandle, usize>,
    next: usize,
}

struct Attempt {
    handle: ConnectionHandle,
    connection: Connection,
    /// Its first words.
    words: Vec<Vec<u8>>,
    since: Instant,
    is_over: bool,
}

/// Makes attempts.
pub(super) struct Client {
    to: SocketAddr,
    endpoint: Endpoint,
    config: ClientConfig,
}

impl Client {
    pub(super) fn new(to: SocketAddr, pin: Pin) -> anyhow::Result<Self> {
        let identity = KeyPair::try_generate().context("failed to make a key")?;
        let tls = client_config(pin, Some(&identity), &[b"h3"]);
        let crypto = QuicClientConfig::try_from(tls).context("failed to configure QUIC")?;
        let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);

        Ok(Self { to, endpoint, config: ClientConfig::new(Arc::new(crypto)) })
    }

    fn attempt(&mut self) -> anyhow::Result<Attempt> {
        let now = Instant::now();
        let connecting = self.endpoint.connect(now, self.config.clone(), self.to, "connector");
        let (handle, mut connection) = connecting.context("failed to connect")?;
        let words = datagrams_of(&mut connection, now);

        Ok(Attempt { handle, connection, words, since: now, is_over: false })
    }

    /// What a new client says first.
    pub(super) fn first_words(&mut self) -> anyhow::Result<Vec<Vec<u8>>> {
        let Attempt { handle, words, .. } = self.attempt()?;
        self.endpoint.handle_event(handle, EndpointEvent::drained());

        Ok(words)
    }
}

impl Attempts {
    pub(super) fn new(from: IpAddr, to: SocketAddr, pin: Pin) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((from, 0)).with_context(|| format!("no address {from}"))?;
        socket.connect(to).context("failed to connect")?;
        socket.set_nonblocking(true).context("failed to set options")?;
        let mut client = Client::new(to, pin)?;
        let attempts: Vec<Attempt> =
            (0..AT_ONE_TIME).map(|_| client.attempt()).collect::<anyhow::Result<_>>()?;
        let by_handle = attempts.iter().enumerate().map(|(at, attempt)| (attempt.handle, at));

        Ok(Self { by_handle: by_handle.collect(), socket, client, attempts, next: 0 })
    }

    fn handle_datagram(&mut self, bytes: &[u8], count: &mut Count) {
        let now = Instant::now();
        let mut unused = Vec::new();
        let to = self.client.to;
        let event =
            self.client.endpoint.handle(now, to, None, None, BytesMut::from(bytes), &mut unused);
        let Some(DatagramEvent::ConnectionEvent(handle, event)) = event else { return };
        let Some(at) = self.by_handle.get(&handle) else { return };
        let Attempt { connection, words, is_over, .. } = &mut self.attempts[*at];
        connection.handle_event(event);
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.client.endpoint.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            if let Event::Connected = event {
                count.handshakes += 1;
                *is_over = true;
            }
        }
        let datagrams = datagrams_of(connection, now);
        for datagram in &datagrams {
            // A full queue is the flood's own.
            count.sent += u64::from(self.socket.send(datagram).is_ok());
        }
        let is_retry = bytes.first().is_some_and(|first| first & 0xf0 == 0xf0);
        if is_retry && !datagrams.is_empty() {
            count.retries += 1;
            *words = datagrams;
        }
    }
}

impl Flood for Attempts {
    fn send(&mut self, at_least: u64, count: &mut Count) -> anyhow::Result<()> {
        let mut sent = 0;
        while sent < at_least {
            self.next = (self.next + 1) % self.attempts.len();
            let attempt = &mut self.attempts[self.next];
            if attempt.is_over || attempt.since.elapsed() > RENEWED_AFTER {
                self.client.endpoint.handle_event(attempt.handle, EndpointEvent::drained());
                self.by_handle.remove(&attempt.handle);
                *attempt = self.client.attempt()?;
                self.by_handle.insert(attempt.handle, self.next);
            }
            for datagram in &attempt.words {
                sent += 1;
                // A full queue is the flood's own.
                count.sent += u64::from(self.socket.send(datagram).is_ok());
            }
        }

        Ok(())
    }

    fn read(&mut self, count: &mut Count) -> anyhow::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    count.answers += 1;
                    self.handle_datagram(&buffer[..length], count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Tells of an earlier datagram.
                Err(_error) => {}
            }
        }
    }
}

fn datagrams_of(connection: &mut Connection, now: Instant) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    loop {
        let mut datagram = Vec::new();
        if connection.poll_transmit(now, 1, &mut datagram).is_none() {
            return datagrams;
        }
        datagrams.push(datagram);
    }
}

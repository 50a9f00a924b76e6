//! Datagrams that come, and the connections that they begin.

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;
use quinn_proto::{DatagramEvent, EcnCodepoint, Incoming};

use super::QuicEndpoint;
use crate::{
    Datagram, Ecn, Endpoint,
    quic::{
        connection::{CREDIT, Connection},
        initial::Initial,
        retry::Unproven,
    },
};

/// With so many newcomers and strangers, whoever comes has to prove its address first.
const BUSY: usize = 64;

impl QuicEndpoint {
    /// Takes a datagram from the network; none begins a connection.
    pub fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Instant) {
        if let Some(incoming) = self.handle(datagram.from, datagram.ecn, datagram.bytes, now) {
            self.quic.ignore(incoming);
        }
    }

    /// As [`Self::handle_datagram`], for a server, which clients connect to. Whoever is returned has
    /// to be asked for a proof of its address, for which a [`RetrySource`](crate::RetrySource) is
    /// there; that may be left undone.
    #[must_use]
    pub fn handle_client_datagram(
        &mut self,
        datagram: &Datagram<'_>,
        now: Instant,
    ) -> Option<Unproven> {
        if self.tokens.is_some() && Initial::leads(datagram.bytes) {
            return self.handle_initial(datagram, now);
        }
        self.handle_datagram(datagram, now);
        None
    }

    fn handle_initial(&mut self, datagram: &Datagram<'_>, now: Instant) -> Option<Unproven> {
        let Datagram { from, ecn, bytes } = *datagram;
        let initial = Initial::try_parse(bytes)?;
        if self.newcomers.join(datagram, &initial.to) {
            return None;
        }
        if self.strangers.expect_initial(from.remote()) {
            match self.handle(from, ecn, bytes, now) {
                None => return None,
                // It begins another connection.
                Some(incoming) => self.quic.ignore(incoming),
            }
        }
        if !initial.may_be_first() {
            return None;
        }
        let is_busy = self.newcomers.len() + self.strangers.len() >= BUSY;
        let is_proven =
            self.tokens.as_ref().is_some_and(|tokens| tokens.is_of(initial.token, from.remote()));
        if is_busy && !is_proven {
            self.counters.retries += 1;
            return Some(Unproven { from, to_id: initial.to, from_id: initial.from });
        }
        self.newcomers.push(datagram, initial.to, now);
        None
    }

    /// Gives a datagram to its connection; one that begins another is returned.
    fn handle(
        &mut self,
        from: Endpoint,
        ecn: Ecn,
        bytes: impl Into<BytesMut>,
        now: Instant,
    ) -> Option<Incoming> {
        let bytes = bytes.into();
        let len = bytes.len();
        let ecn = EcnCodepoint::from_bits(ecn.bits());
        let mut answer = Vec::new();
        let event = self.quic.handle(now, from.remote(), from.local(), ecn, bytes, &mut answer);
        match event? {
            DatagramEvent::ConnectionEvent(handle, event) => {
                if let Some(connection) = self.connections.at(handle.0) {
                    connection.handle_datagram(event, len, now);
                    self.connections.mark_receiving(handle.0);
                }
            }
            DatagramEvent::NewConnection(incoming) => return Some(incoming),
            DatagramEvent::Response(_transmit) => self.answers.push(from, answer, now),
        }
        None
    }

    /// Whether somebody waits for [`Self::begin_handshake`].
    pub const fn has_newcomers(&self) -> bool {
        self.newcomers.len() > 0
    }

    /// Begins one handshake, which takes some 300 µs, and again as much when the client answers.
    pub fn begin_handshake(&mut self, now: Instant) {
        let Some(newcomer) = self.newcomers.pop(now) else { return };
        let mut datagrams = newcomer.datagrams.into_iter();
        let first = datagrams.next();
        let len = first.as_ref().map_or(0, |(_ecn, bytes)| bytes.len());
        if let Some((ecn, bytes)) = first
            && let Some(incoming) = self.handle(newcomer.from, ecn, bytes, now)
            && self.accept(incoming, len, now)
        {
            for (ecn, bytes) in datagrams {
                if let Some(incoming) = self.handle(newcomer.from, ecn, bytes, now) {
                    self.quic.ignore(incoming);
                }
            }
        }
    }

    /// Accepts a connection whose first datagram has this length.
    fn accept(&mut self, incoming: Incoming, len: usize, now: Instant) -> bool {
        let credit = (!incoming.remote_address_validated()).then_some(CREDIT * len);
        let from = Endpoint::new(incoming.remote_address(), incoming.local_ip());
        let mut answer = Vec::new();
        self.counters.handshakes += 1;
        match self.quic.accept(incoming, now, &mut answer, None) {
            Ok((handle, quic)) => {
                let id = self.connections.next_id(handle.0);
                if let Some(evicted) = self.strangers.insert(id, from.remote(), now) {
                    self.counters.refused += 1;
                    self.forget(evicted, now);
                }
                let mut connection = Connection::new(id, quic, Arc::clone(&self.mailbox), None);
                connection.credit = credit;
                self.connections.insert(connection);
                true
            }
            Err(error) => {
                tracing::debug!(peer = %from, error = %error.cause, "Turned a connection away");
                if error.response.is_some() {
                    self.answers.push(from, answer, now);
                }
                false
            }
        }
    }
}

//! What is no handshake, and costs who sends it nothing.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use adit_tests::Random;
use anyhow::Context as _;

use super::{Count, Flood};

/// Sends junk from one address.
pub(super) struct Junk {
    socket: UdpSocket,
    random: Random,
}

impl Junk {
    pub(super) fn new(from: IpAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((from, 0)).with_context(|| format!("no address {from}"))?;
        socket.connect(to).context("failed to connect")?;
        socket.set_nonblocking(true).context("failed to set options")?;

        Ok(Self { socket, random: Random::from_seed(1) })
    }

    /// One of the things that a server of QUIC may stumble over.
    fn datagram(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut bytes: Vec<u8> = (0..150).flat_map(|_| random.number().to_le_bytes()).collect();
        match random.below(7) {
            0 => {
                // Another version, whose sender is to be told ours.
                bytes[0] |= 0xc0;
            }
            // An Initial packet that cannot be read, with a token that nobody made, or none.
            kind @ 1..=3 => {
                let token_len = if kind == 1 { 0 } else { 40 };
                // A client's name for us is not so short.
                let id_len = if kind == 3 { 4 } else { 8 + random.below(13) };
                bytes[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, id_len as u8]);
                bytes[6 + id_len] = 0;
                bytes[6 + id_len + 1] = token_len;
            }
            4 => {
                // A Handshake packet of no connection.
                bytes[..6].copy_from_slice(&[0xe0, 0, 0, 0, 1, 8]);
            }
            5 => {
                // Version negotiation, which only clients take.
                bytes[..6].copy_from_slice(&[0xc0, 0, 0, 0, 0, 8]);
            }
            _ => {
                // Of a connection that is gone, or the end of one.
                bytes[0] = 0x40 | bytes[0] & 0x3f;
                bytes.truncate(20 + random.below(1_180));
            }
        }

        bytes
    }
}

impl Flood for Junk {
    fn send(&mut self, at_least: u64, count: &mut Count) -> anyhow::Result<()> {
        for _ in 0..at_least {
            let datagram = self.datagram();
            // A full queue is the flood's own.
            count.sent += u64::from(self.socket.send(&datagram).is_ok());
        }

        Ok(())
    }

    fn read(&mut self, count: &mut Count) -> anyhow::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(_length) => count.answers += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Tells of an earlier datagram.
                Err(_error) => {}
            }
        }
    }
}

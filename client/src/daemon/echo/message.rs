//! An echo as it is sent, and what is heard of it.

use std::net::IpAddr;

use anyhow::Context as _;

const HEADER_LEN: usize = 8;
const NONCE_LEN: usize = 16;

/// As `ping` has it.
const PAYLOAD_LEN: usize = 56;

/// One echo. Its answer is known by identifier, sequence number and random content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Echo {
    destination: IpAddr,
    identifier: [u8; 2],
    sequence: u16,
    nonce: [u8; NONCE_LEN],
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The destination answers.
    Reply,
    /// An error of this name.
    Error(&'static str),
}

impl Echo {
    pub(super) fn try_new(destination: IpAddr, sequence: u16) -> anyhow::Result<Self> {
        let (mut identifier, mut nonce) = ([0; 2], [0; NONCE_LEN]);
        getrandom::fill(&mut identifier).context("failed to draw randomness")?;
        getrandom::fill(&mut nonce).context("failed to draw randomness")?;
        Ok(Self { destination, identifier, sequence, nonce })
    }

    /// The message without IP header. The kernel puts the checksum into that of IPv6.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = vec![0; HEADER_LEN + PAYLOAD_LEN];
        let kind = if self.destination.is_ipv4() { 8 } else { 128 };
        let parts = [&[kind, 0, 0, 0], &self.fields()[..], &self.nonce[..]].concat();
        for (byte, value) in message.iter_mut().zip(parts) {
            *byte = value;
        }
        if self.destination.is_ipv4() {
            let checksum = checksum(&message).to_be_bytes();
            for (byte, value) in message.iter_mut().skip(2).zip(checksum) {
                *byte = value;
            }
        }
        message
    }

    /// What a packet says about this echo. Of IPv4 the IP header is there, of IPv6 it is not, as
    /// the kernel gives them.
    pub(super) fn hear(&self, packet: &[u8], from: IpAddr) -> Option<Heard> {
        let message = match self.destination {
            IpAddr::V4(_) => body_of_ipv4(packet)?,
            IpAddr::V6(_) => packet,
        };
        let (&[kind, code, ..], rest) = message.split_first_chunk::<4>()?;
        let (fields, content) = rest.split_first_chunk::<4>()?;
        let is_reply =
            matches!((self.destination, kind), (IpAddr::V4(_), 0) | (IpAddr::V6(_), 129));
        if is_reply {
            let is_ours = *fields == self.fields() && content.starts_with(&self.nonce);
            return (is_ours && from == self.destination).then_some(Heard::Reply);
        }
        let name = match self.destination {
            IpAddr::V4(_) => error_of_ipv4(kind, code)?,
            IpAddr::V6(_) => error_of_ipv6(kind, code)?,
        };
        self.is_quoted_in(content).then_some(Heard::Error(name))
    }

    /// Whether an error is about this echo, by the packet that it quotes.
    fn is_quoted_in(&self, quote: &[u8]) -> bool {
        let quoted = match self.destination {
            IpAddr::V4(destination) => {
                let is_its =
                    quote.get(16..20) == Some(&destination.octets()) && quote.get(9) == Some(&1);
                body_of_ipv4(quote).filter(|_body| is_its)
            }
            IpAddr::V6(destination) => {
                let is_its =
                    quote.get(24..40) == Some(&destination.octets()) && quote.get(6) == Some(&58);
                quote.get(40..).filter(|_body| is_its)
            }
        };
        let kind = if self.destination.is_ipv4() { 8 } else { 128 };
        quoted.is_some_and(|message| {
            message.first() == Some(&kind) && message.get(4..8) == Some(&self.fields())
        })
    }

    fn fields(&self) -> [u8; 4] {
        let ([i0, i1], [s0, s1]) = (self.identifier, self.sequence.to_be_bytes());
        [i0, i1, s0, s1]
    }
}

fn body_of_ipv4(packet: &[u8]) -> Option<&[u8]> {
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    packet.get(header_len.max(20)..)
}

const fn error_of_ipv4(kind: u8, code: u8) -> Option<&'static str> {
    match (kind, code) {
        (3, 0 | 6 | 11) => Some("network unreachable"),
        (3, 1 | 7 | 12) => Some("host unreachable"),
        (3, 2) => Some("protocol unreachable"),
        (3, 3) => Some("port unreachable"),
        (3, 4) => Some("packet too big"),
        (3, 9 | 10 | 13) => Some("administratively prohibited"),
        (3, _) => Some("destination unreachable"),
        (11, _) => Some("time exceeded"),
        _ => None,
    }
}

const fn error_of_ipv6(kind: u8, code: u8) -> Option<&'static str> {
    match (kind, code) {
        (1, 0) => Some("no route to destination"),
        (1, 1) => Some("administratively prohibited"),
        (1, 3) => Some("address unreachable"),
        (1, 4) => Some("port unreachable"),
        (1, 5) => Some("source address failed policy"),
        (1, 6) => Some("route rejected"),
        (1, _) => Some("destination unreachable"),
        (2, _) => Some("packet too big"),
        (3, _) => Some("time exceeded"),
        _ => None,
    }
}

/// RFC 1071.
fn checksum(message: &[u8]) -> u16 {
    let sum: u32 = message
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            [high] => u32::from(*high) << 8,
            _ => 0,
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn echo(destination: &str) -> Echo {
        Echo::try_new(destination.parse().unwrap(), 7).unwrap()
    }

    /// As the kernel gives a message.
    fn packet(destination: IpAddr, message: &[u8]) -> Vec<u8> {
        match destination {
            IpAddr::V4(_) => [&[0x45; 1][..], &[0; 19], message].concat(),
            IpAddr::V6(_) => message.to_vec(),
        }
    }

    fn reply(echo: &Echo) -> Vec<u8> {
        let mut message = echo.encode();
        message[0] = if echo.destination.is_ipv4() { 0 } else { 129 };
        packet(echo.destination, &message)
    }

    /// An error that quotes an echo to this destination.
    fn error(echo: &Echo, kind: u8, code: u8, destination: IpAddr) -> Vec<u8> {
        let quoted = match destination {
            IpAddr::V4(address) => {
                [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 100, 80, 0, 1][..], &address.octets()]
                    .concat()
            }
            IpAddr::V6(address) => {
                [&[0x60, 0, 0, 0, 0, 0, 58, 64][..], &[0; 16], &address.octets()].concat()
            }
        };
        let message = [&[kind, code, 0, 0, 0, 0, 0, 0][..], &quoted, &echo.encode()].concat();
        packet(echo.destination, &message)
    }

    #[test]
    fn a_reply_is_known_by_all_that_was_sent() {
        for destination in ["10.9.0.2", "fd00:9::2"] {
            let echo = echo(destination);
            let from = echo.destination;
            assert_eq!(echo.hear(&reply(&echo), from), Some(Heard::Reply));
            let others = Echo { sequence: 8, ..echo.clone() };
            assert_eq!(others.hear(&reply(&echo), from), None);
            let forged = Echo { nonce: [0; NONCE_LEN], ..echo.clone() };
            assert_eq!(echo.hear(&reply(&forged), from), None);
            assert_eq!(echo.hear(&reply(&echo), "192.0.2.1".parse().unwrap()), None);
        }
    }

    #[test]
    fn errors_have_the_names_of_the_standards() {
        for (destination, kind, code) in [("10.9.0.2", 3, 13), ("fd00:9::2", 1, 1)] {
            let echo = echo(destination);
            let from = echo.destination;
            let expected = Some(Heard::Error("administratively prohibited"));
            assert_eq!(echo.hear(&error(&echo, kind, code, from), from), expected);
        }
    }

    #[test]
    fn errors_about_other_packets_are_of_no_account() {
        let echo = echo("10.9.0.2");
        let from = echo.destination;
        assert_eq!(echo.hear(&error(&echo, 3, 1, "10.9.0.3".parse().unwrap()), from), None);
        let others = Echo { identifier: [!echo.identifier[0], 0], ..echo.clone() };
        assert_eq!(echo.hear(&error(&others, 3, 1, from), from), None);
    }

    #[test]
    fn a_message_with_its_checksum_sums_up_to_nothing() {
        assert_eq!(checksum(&echo("10.9.0.2").encode()), 0);
    }

    proptest! {
        #[test]
        fn junk_does_no_harm(junk: Vec<u8>) {
            for destination in ["10.9.0.2", "fd00:9::2"] {
                let echo = echo(destination);
                prop_assert_eq!(echo.hear(&junk, echo.destination), None);
            }
        }
    }
}

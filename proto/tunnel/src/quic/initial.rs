//! What can be read of the first packet of a connection without any key.

use adit_proto::http3::decode_varint;
use quinn_proto::ConnectionId;

/// The one version that is spoken (RFC 9000 §15).
pub(super) const VERSION: u32 = 1;

/// The shortest datagram that carries such a packet (RFC 9000 §14.1).
const MIN_DATAGRAM_LEN: usize = 1200;

/// The shortest id by which a client may call a server that it does not know (RFC 9000 §7.2).
const MIN_ID_LEN: usize = 8;

/// RFC 9000 §17.2.
const MAX_ID_LEN: usize = 20;

/// The header of an Initial packet (RFC 9000 §17.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Initial<'a> {
    /// By what the client calls the server.
    pub(super) to: ConnectionId,
    /// By what it wants to be called.
    pub(super) from: ConnectionId,
    pub(super) token: &'a [u8],
}

impl<'a> Initial<'a> {
    /// Whether a datagram begins with such a packet, of our version.
    pub(super) const fn leads(datagram: &[u8]) -> bool {
        /// Long header, fixed bit, type.
        const KIND: u8 = 0xf0;

        matches!(datagram, [first, 0, 0, 0, 1, ..] if *first & KIND == 0xc0)
    }

    /// Reads the header; none: the datagram is to be dropped.
    pub(super) fn try_parse(datagram: &'a [u8]) -> Option<Self> {
        const FLAGS_AND_VERSION: usize = 1 + 4;

        if datagram.len() < MIN_DATAGRAM_LEN {
            return None;
        }
        let rest = datagram.get(FLAGS_AND_VERSION..)?;
        let (to, rest) = id(rest)?;
        let (from, rest) = id(rest)?;
        let (token_len, len) = decode_varint(rest)?;
        let token = rest.get(len..)?.get(..usize::try_from(token_len).ok()?)?;
        Some(Self { to, from, token })
    }

    /// Whether it may begin a connection: who was answered calls the server by the id in the answer,
    /// and everyone else by a long one.
    pub(super) fn may_be_first(&self) -> bool {
        self.to.len() >= MIN_ID_LEN
    }
}

fn id(bytes: &[u8]) -> Option<(ConnectionId, &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(*len))?;
    (id.len() <= MAX_ID_LEN).then(|| (ConnectionId::new(id), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(to: &[u8], from: &[u8], token: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xc3, 0, 0, 0, 1];
        for id in [to, from] {
            bytes.push(id.len() as u8);
            bytes.extend(id);
        }
        bytes.push(token.len() as u8);
        bytes.extend(token);
        bytes.resize(1200, 0);
        bytes
    }

    #[test]
    fn the_header_is_read() {
        let bytes = datagram(b"12345678", b"me", b"token");
        let expected = Initial {
            to: ConnectionId::new(b"12345678"),
            from: ConnectionId::new(b"me"),
            token: b"token",
        };
        assert!(Initial::leads(&bytes));
        assert_eq!(Initial::try_parse(&bytes), Some(expected));
    }

    #[test]
    fn what_no_client_may_send_is_dropped() {
        assert_eq!(Initial::try_parse(&datagram(&[0; 21], b"", b"")), None, "a long id");
        assert_eq!(Initial::try_parse(&datagram(b"12345678", &[0; 21], b"")), None);
        let bytes = datagram(b"12345678", b"", b"");
        assert_eq!(Initial::try_parse(&bytes[..1199]), None, "a short datagram");
        for len in 0..bytes.len() {
            assert_eq!(Initial::try_parse(&bytes[..len]), None);
        }
        let mut endless = datagram(b"12345678", b"", b"");
        endless[5 + 1 + 8 + 1..][..8].fill(0xff);
        assert_eq!(Initial::try_parse(&endless), None, "a token without an end");
    }

    #[test]
    fn a_short_id_is_of_one_who_was_answered() {
        for (id, may_be_first) in [(&b"1234"[..], false), (b"1234567", false), (b"12345678", true)]
        {
            let bytes = datagram(id, b"", b"");
            assert_eq!(Initial::try_parse(&bytes).unwrap().may_be_first(), may_be_first);
        }
    }

    #[test]
    fn other_packets_do_not_look_like_one() {
        for first in [0x40, 0x80, 0xd0, 0xe0, 0xf0] {
            assert!(!Initial::leads(&[first, 0, 0, 0, 1]), "{first:#x}");
        }
        assert!(!Initial::leads(&[0xc0, 0, 0, 0, 2]));
        assert!(!Initial::leads(&[0xc0]));
    }
}

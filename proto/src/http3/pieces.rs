//! What arrived of a stream and is not consumed yet.

use std::{collections::VecDeque, fmt, mem};

use bytes::{Buf as _, Bytes, BytesMut};

use crate::http3::varint::decode_varint;

/// Longest type and length of a frame or a capsule together, in bytes.
const MAX_HEADER_LEN: usize = 16;

/// A queue of pieces of a stream, from which frames and capsules are cut.
///
/// What lies within one piece is taken from it without a copy. What is spread over several is
/// gathered in a buffer of its own as it arrives, so that a peer that sends single bytes does not
/// hold on to the datagrams they came in.
#[derive(Default)]
pub(crate) struct Pieces {
    queue: VecDeque<Bytes>,
    gathered: BytesMut,
}

impl Pieces {
    /// Appends what arrived.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.queue.push_back(piece);
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.gathered.is_empty()
    }

    /// Takes the type and the length of a frame or a capsule, when both are there.
    pub(crate) fn take_header(&mut self) -> Option<(u64, u64)> {
        let mut header = [0; MAX_HEADER_LEN];
        let mut len = 0;
        for byte in self.queue.iter().flatten().take(MAX_HEADER_LEN) {
            header[len] = *byte;
            len += 1;
        }
        let (kind, kind_len) = decode_varint(&header[..len])?;
        let (payload_len, len_len) = decode_varint(&header[kind_len..len])?;
        let mut left = kind_len + len_len;
        while left > 0 {
            left -= self.take_up_to(left as u64)?.len();
        }
        Some((kind, payload_len))
    }

    /// Takes what is next, but no more than `max_len` bytes; never nothing.
    pub(crate) fn take_up_to(&mut self, max_len: u64) -> Option<Bytes> {
        let front = self.queue.front_mut()?;
        match usize::try_from(max_len) {
            Ok(0) => None,
            Ok(max_len) if max_len < front.remaining() => Some(front.split_to(max_len)),
            Ok(_) | Err(_) => self.queue.pop_front(),
        }
    }

    /// Takes exactly `len` bytes, when so many have arrived. Until they have, `len` must not change
    /// and nothing else be taken.
    pub(crate) fn take_exactly(&mut self, len: usize) -> Option<Bytes> {
        if self.gathered.is_empty() {
            if len == 0 {
                return Some(Bytes::new());
            }
            if self.queue.front()?.len() >= len {
                return self.take_up_to(len as u64);
            }
        }
        while self.gathered.len() < len {
            let piece = self.take_up_to((len - self.gathered.len()) as u64)?;
            self.gathered.extend_from_slice(&piece);
        }
        Some(mem::take(&mut self.gathered).freeze())
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued: usize = self.queue.iter().map(Bytes::len).sum();
        write!(f, "Pieces({} bytes)", self.gathered.len() + queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(parts: &[&'static [u8]]) -> Pieces {
        let mut pieces = Pieces::default();
        for part in parts {
            pieces.push(Bytes::from_static(part));
        }
        pieces
    }

    #[test]
    fn a_header_is_taken_only_when_it_is_whole() {
        let mut pieces = pieces(&[&[0x40], &[0x01, 0x80]]);
        assert_eq!(pieces.take_header(), None);
        pieces.push(Bytes::from_static(&[0, 0, 9, 7]));
        assert_eq!(pieces.take_header(), Some((1, 9)));
        assert_eq!(pieces.take_exactly(1).unwrap(), [7].as_slice());
        assert!(pieces.is_empty());
    }

    #[test]
    fn what_lies_in_one_piece_is_not_copied() {
        let whole = Bytes::from(vec![1, 2, 3]);
        let address = whole.as_ptr();
        let mut pieces = Pieces::default();
        pieces.push(whole);
        assert_eq!(pieces.take_exactly(2).unwrap().as_ptr(), address);
        assert_eq!(pieces.take_up_to(u64::MAX).unwrap(), [3].as_slice());
    }

    #[test]
    fn what_lies_in_several_pieces_is_gathered() {
        let mut pieces = pieces(&[b"ab", b"c"]);
        assert_eq!(pieces.take_exactly(5), None);
        assert!(!pieces.is_empty());
        pieces.push(Bytes::from_static(b"def"));
        assert_eq!(pieces.take_exactly(5).unwrap(), b"abcde".as_slice());
        assert_eq!(pieces.take_exactly(1).unwrap(), b"f".as_slice());
    }
}

//! Cuts what arrives into lines.

use adit_proto::MAX_SESSION_LINE_LEN;
use bytes::BytesMut;

use super::SessionError;

/// Holds what has arrived and is no whole line yet.
#[derive(Default)]
pub(super) struct LineBuffer {
    bytes: BytesMut,
    scanned: usize,
}

impl LineBuffer {
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next line with its line feed, if all of it is there.
    pub(super) fn next_line(&mut self) -> Result<Option<BytesMut>, SessionError> {
        let found = self.bytes.iter().skip(self.scanned).position(|&byte| byte == b'\n');
        let len = match found {
            Some(position) => self.scanned + position + 1,
            None => self.bytes.len() + 1,
        };
        if len > MAX_SESSION_LINE_LEN {
            return Err(SessionError::LineTooLong);
        }
        if found.is_none() {
            self.scanned = self.bytes.len();
            return Ok(None);
        }
        self.scanned = 0;
        Ok(Some(self.bytes.split_to(len)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(
            lines in prop::collection::vec("[a-z]{0,40}\n", 0..20),
            chunk_len in 1_usize..50,
        ) {
            let mut buffer = LineBuffer::default();
            let mut found = Vec::new();
            for chunk in lines.concat().as_bytes().chunks(chunk_len) {
                buffer.extend(chunk);
                while let Some(line) = buffer.next_line().unwrap() {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(found, lines);
        }
    }

    #[test]
    fn the_longest_line_passes_and_a_longer_one_does_not() {
        let mut line = vec![b'a'; MAX_SESSION_LINE_LEN];
        line[MAX_SESSION_LINE_LEN - 1] = b'\n';
        let mut buffer = LineBuffer::default();
        buffer.extend(&line);
        assert_eq!(buffer.next_line().unwrap().unwrap().len(), MAX_SESSION_LINE_LEN);

        buffer.extend(b"a");
        buffer.extend(&line);
        assert!(matches!(buffer.next_line(), Err(SessionError::LineTooLong)));
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
        let mut buffer = LineBuffer::default();
        buffer.extend(&vec![b'a'; MAX_SESSION_LINE_LEN - 1]);
        assert!(buffer.next_line().unwrap().is_none());
        buffer.extend(b"a");
        assert!(matches!(buffer.next_line(), Err(SessionError::LineTooLong)));
    }
}

//! Integers that begin in the middle of a byte (RFC 7541 §5.1, RFC 9204 §4.1.1).

/// Appends `value`, of which the lowest `prefix_bits` of the first byte hold a part; `flags` are the
/// bits above them.
pub(super) fn encode(value: u64, prefix_bits: u8, flags: u8, out: &mut Vec<u8>) {
    let limit = (1 << prefix_bits) - 1;
    if value < limit {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | limit as u8);
    let mut left = value - limit;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

/// Takes an integer from the front of `rest`; none when it is cut, or longer than any that
/// RFC 9204 §4.1.1 demands to be understood.
pub(super) fn take(prefix_bits: u8, rest: &mut &[u8]) -> Option<u64> {
    let (first, mut behind) = rest.split_first()?;
    let limit = (1 << prefix_bits) - 1;
    let mut value = u64::from(*first) & limit;
    if value == limit {
        for shift in (0..).step_by(7) {
            let (byte, next) = behind.split_first()?;
            behind = next;
            // Nine bytes hold 63 bits, so that the sum cannot overflow.
            if shift > 56 {
                return None;
            }
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = behind;
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        let examples: [(u64, u8, &[u8]); 3] =
            [(10, 5, &[0x0a]), (1337, 5, &[0x1f, 0x9a, 0x0a]), (42, 8, &[0x2a])];
        for (value, prefix_bits, bytes) in examples {
            let mut out = Vec::new();
            encode(value, prefix_bits, 0, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(take(prefix_bits, &mut out.as_slice()), Some(value));
        }
    }

    #[test]
    fn an_integer_without_end_is_refused() {
        assert_eq!(take(3, &mut [0xff; 64].as_slice()), None);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            value in 0..=crate::http3::varint::MAX_VARINT,
            prefix_bits in 3_u8..=7,
            behind: Vec<u8>,
        ) {
            let mut out = Vec::new();
            encode(value, prefix_bits, 0x80, &mut out);
            prop_assert_eq!(out[0] & 0x80, 0x80);
            out.extend_from_slice(&behind);
            let mut rest = out.as_slice();
            prop_assert_eq!(take(prefix_bits, &mut rest), Some(value));
            prop_assert_eq!(rest, behind);
        }
    }
}

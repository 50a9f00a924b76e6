//! Integers of one, two, four or eight bytes (RFC 9000 §16).

/// The greatest integer that can be written.
pub const MAX_VARINT: u64 = (1 << 62) - 1;

/// Appends `value` in the fewest bytes that hold it (RFC 9000 §16).
///
/// A value above [`MAX_VARINT`] is a mistake of the caller; [`MAX_VARINT`] is written for it.
pub fn encode_varint(value: u64, out: &mut Vec<u8>) {
    let value = value.min(MAX_VARINT);
    let len = varint_len(value);
    let len_bits = u64::from(len.trailing_zeros());
    let bytes = (value | len_bits << (8 * len - 2)).to_be_bytes();
    out.extend_from_slice(&bytes[bytes.len() - len..]);
}

/// The integer at the start of `bytes` and how many of them it takes (RFC 9000 §16); none when more
/// bytes are needed.
///
/// An integer need not be written in the fewest bytes.
pub fn decode_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = 1 << (first >> 6);
    let value = bytes
        .get(1..len)?
        .iter()
        .fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, len))
}

/// How many bytes [`encode_varint`] takes for `value` (RFC 9000 §16).
pub const fn varint_len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        0x4000_0000.. => 8,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode_varint(value, &mut out);
        out
    }

    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        let examples: [(u64, &[u8]); 4] = [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ];
        for (value, bytes) in examples {
            assert_eq!(encoded(value), bytes);
            assert_eq!(decode_varint(bytes), Some((value, bytes.len())));
        }
    }

    #[test]
    fn an_integer_may_take_more_bytes_than_it_needs() {
        assert_eq!(decode_varint(&[0x40, 0x25]), Some((37, 2)));
    }

    #[test]
    fn a_value_beyond_all_is_written_as_the_greatest() {
        assert_eq!(encoded(u64::MAX), [0xff; 8]);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(bits in 0_u32..=62, seed: u64, behind: Vec<u8>) {
            let value = seed & ((1_u64 << bits) - 1);
            let mut bytes = encoded(value);
            let len = bytes.len();
            prop_assert_eq!(len, varint_len(value));
            for cut in 0..len {
                prop_assert_eq!(decode_varint(&bytes[..cut]), None);
            }
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(decode_varint(&bytes), Some((value, len)));
        }
    }
}

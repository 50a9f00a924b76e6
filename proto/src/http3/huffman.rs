//! The Huffman code of strings (RFC 7541 appendix B).

use httlib_huffman::{DecoderSpeed, decode as decode_leniently, encode};

/// Decodes a string, and only if it is encoded as RFC 7541 §5.2 demands: with at most seven bits of
/// padding, all of them ones, and without the symbol that ends strings.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    decode_leniently(bytes, &mut decoded, DecoderSpeed::FourBits).ok()?;
    // There is exactly one right encoding of each string.
    let mut encoded = Vec::with_capacity(bytes.len());
    encode(&decoded, &mut encoded).ok()?;
    (encoded == bytes).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let examples: [(&[u8], &[u8]); 3] = [
            (
                b"www.example.com",
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
            ),
            (b"no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            (b"private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b]),
        ];
        for (text, bytes) in examples {
            assert_eq!(decode(bytes).unwrap(), text);
        }
    }

    #[test]
    fn padding_of_eight_bits_is_refused() {
        assert_eq!(decode(&[0xae, 0xc3, 0x77, 0x1a, 0x4b, 0xff]), None);
        assert_eq!(decode(&[0xff]), None);
    }

    #[test]
    fn padding_other_than_ones_is_refused() {
        // `a` is 00011; three bits of padding follow.
        assert_eq!(decode(&[0b0001_1111]).unwrap(), b"a");
        for padding in 0..7 {
            assert_eq!(decode(&[0b0001_1000 | padding]), None);
        }
    }

    #[test]
    fn the_end_of_string_symbol_is_refused() {
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(decode(&[0xff; 64]), None);
    }

    #[test]
    fn every_pair_of_bytes_is_read() {
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                let mut encoded = Vec::new();
                encode(&[first, second], &mut encoded).unwrap();
                assert_eq!(decode(&encoded).unwrap(), [first, second]);
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read(text: Vec<u8>) {
            let mut encoded = Vec::new();
            encode(&text, &mut encoded).unwrap();
            prop_assert_eq!(decode(&encoded), Some(text));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            drop(decode(&bytes));
        }
    }
}

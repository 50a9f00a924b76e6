//! Percent-encoding of what fills a template (RFC 3986 §2.1, RFC 6570 §3.2.2).

/// Encodes all but unreserved characters.
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// Decodes a segment of a path; none when a percent sign stands without two digits, or the result
/// is not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let ([high, low], behind) = rest.split_first_chunk()?;
        rest = behind;
        out.push(hex(*high)? << 4 | hex(*low)?);
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percent_sign_without_digits_is_refused() {
        for text in ["%", "a%2", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_is_encoded_as_the_rfc_has_it() {
        assert_eq!(encode("2001:db8::42"), "2001%3Adb8%3A%3A42");
        assert_eq!(decode("2001%3adb8::42").unwrap(), "2001:db8::42");
    }

    proptest! {
        #[test]
        fn text_survives_a_round_trip(text: String) {
            let out = encode(&text);
            prop_assert!(out.is_ascii() && !out.contains('/'));
            prop_assert_eq!(decode(&out), Some(text));
        }
    }
}

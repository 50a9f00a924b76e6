//! Fields as QPACK writes them (RFC 9204 §4.5), with the static table alone.

use crate::http3::{error::Http3Error, field::Field, huffman, prefix_integer, static_table};

/// Longest field section that is looked at, in bytes: as sent, and as RFC 9114 §4.2.2 counts it.
pub const MAX_FIELD_SECTION_LEN: usize = 16 << 10;

/// How many fields a message may have.
pub const MAX_FIELDS: usize = 64;

/// What each field counts beyond its name and value (RFC 9114 §4.2.2).
const FIELD_OVERHEAD: usize = 32;

/// Writes a field section (RFC 9204 §4.5). Names must be in lower case.
///
/// Credentials are marked never to be kept in a table (RFC 9204 §7.1.3).
pub fn encode_fields(fields: &[Field]) -> Vec<u8> {
    // Required insert count and base: no entry of a dynamic table is needed.
    let mut out = vec![0, 0];
    for field in fields {
        let never_indexed = field.is_credential();
        if !never_indexed && let Some(index) = static_table::index_of(&field.name, &field.value) {
            prefix_integer::encode(index, 6, 0b1100_0000, &mut out);
            continue;
        }
        if let Some(index) = static_table::index_of_name(&field.name) {
            let flags = if never_indexed { 0b0111_0000 } else { 0b0101_0000 };
            prefix_integer::encode(index, 4, flags, &mut out);
        } else {
            let flags = if never_indexed { 0b0011_0000 } else { 0b0010_0000 };
            prefix_integer::encode(field.name.len() as u64, 3, flags, &mut out);
            out.extend_from_slice(field.name.as_bytes());
        }
        prefix_integer::encode(field.value.len() as u64, 7, 0, &mut out);
        out.extend_from_slice(field.value.as_bytes());
    }
    out
}

/// Reads a field section (RFC 9204 §4.5).
///
/// # Errors
///
/// When the section refers to a dynamic table, is malformed or has more or longer fields than are
/// looked at, or when a field is malformed (RFC 9114 §4.2). Values that are not UTF-8 count as
/// malformed.
pub fn decode_fields(section: &[u8]) -> Result<Vec<Field>, Http3Error> {
    let mut rest = section;
    take_prefix(&mut rest)?;
    let mut fields = Vec::new();
    let mut len = 0;
    while !rest.is_empty() {
        if fields.len() == MAX_FIELDS {
            return Err(Http3Error::TooManyFields);
        }
        let (name, value) = take_line(&mut rest)?;
        len += name.len() + value.len() + FIELD_OVERHEAD;
        if len > MAX_FIELD_SECTION_LEN {
            return Err(Http3Error::FieldSectionTooLong);
        }
        fields.push(Field::try_from_bytes(name, value)?);
    }
    Ok(fields)
}

/// The prefix of a section (RFC 9204 §4.5.1), which must not refer to a dynamic table.
fn take_prefix(rest: &mut &[u8]) -> Result<(), Http3Error> {
    if take_integer(8, rest)? != 0 {
        return Err(Http3Error::FieldReference);
    }
    // A sign makes the base negative, whatever follows it.
    if rest.first().is_some_and(|byte| byte & 0x80 != 0) {
        return Err(Http3Error::FieldSection);
    }
    take_integer(7, rest)?;
    Ok(())
}

/// One field line (RFC 9204 §4.5.2 to §4.5.6).
fn take_line(rest: &mut &[u8]) -> Result<(Vec<u8>, Vec<u8>), Http3Error> {
    let first = *rest.first().ok_or(Http3Error::FieldSection)?;
    match first {
        // Indexed.
        0b1100_0000.. => {
            let (name, value) = take_reference(6, rest)?;
            Ok((name.into(), value.into()))
        }
        // A literal value for a name of the static table.
        0b0101_0000..=0b0101_1111 | 0b0111_0000..=0b0111_1111 => {
            let (name, _value) = take_reference(4, rest)?;
            Ok((name.into(), take_string(7, rest)?))
        }
        // A literal value for a literal name.
        0b0010_0000..=0b0011_1111 => {
            let name = take_string(3, rest)?;
            Ok((name, take_string(7, rest)?))
        }
        // All other forms refer to a dynamic table.
        0b0000_0000..=0b0001_1111
        | 0b0100_0000..=0b0100_1111
        | 0b0110_0000..=0b0110_1111
        | 0b1000_0000..=0b1011_1111 => Err(Http3Error::FieldReference),
    }
}

fn take_reference(
    prefix_bits: u8,
    rest: &mut &[u8],
) -> Result<(&'static str, &'static str), Http3Error> {
    static_table::entry(take_integer(prefix_bits, rest)?).ok_or(Http3Error::FieldReference)
}

/// A string whose length has `prefix_bits`, with the mark of the Huffman code above them (RFC 9204
/// §4.1.2).
fn take_string(prefix_bits: u8, rest: &mut &[u8]) -> Result<Vec<u8>, Http3Error> {
    let is_huffman = rest.first().is_some_and(|byte| byte & (1 << prefix_bits) != 0);
    let len = usize::try_from(take_integer(prefix_bits, rest)?)
        .map_err(|_error| Http3Error::FieldSection)?;
    let (string, behind) = rest.split_at_checked(len).ok_or(Http3Error::FieldSection)?;
    *rest = behind;
    if is_huffman { huffman::decode(string).ok_or(Http3Error::Huffman) } else { Ok(string.into()) }
}

fn take_integer(prefix_bits: u8, rest: &mut &[u8]) -> Result<u64, Http3Error> {
    prefix_integer::take(prefix_bits, rest).ok_or(Http3Error::FieldSection)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http3::code::Http3Code;

    fn error_code(section: &[u8]) -> Http3Code {
        decode_fields(section).expect_err(&format!("{section:x?}")).code()
    }

    /// A section of one literal field.
    fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0];
        prefix_integer::encode(name.len() as u64, 3, 0b0010_0000, &mut out);
        out.extend_from_slice(name);
        prefix_integer::encode(value.len() as u64, 7, 0, &mut out);
        out.extend_from_slice(value);
        out
    }

    #[test]
    fn the_example_of_the_rfc_is_read_and_written() {
        let section = b"\0\0\x51\x0b/index.html";
        let fields = [Field::new(":path", "/index.html")];
        assert_eq!(decode_fields(section).unwrap(), fields);
        assert_eq!(encode_fields(&fields), section);
    }

    #[test]
    fn a_known_field_takes_one_or_two_bytes() {
        let fields = [Field::new(":method", "CONNECT"), Field::new(":status", "421")];
        assert_eq!(encode_fields(&fields), [0, 0, 0xcf, 0xff, 0x06]);
    }

    #[test]
    fn strings_in_huffman_code_are_read() {
        // `:authority` of the static table, then `www.example.com`.
        let section = [
            0x00, 0x00, 0x50, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90,
            0xf4, 0xff,
        ];
        let fields = decode_fields(&section).unwrap();
        assert_eq!(fields, [Field::new(":authority", "www.example.com")]);
    }

    #[test]
    fn credentials_are_marked_never_to_be_indexed() {
        let line = |name: &str| encode_fields(&[Field::new(name, "")])[2];
        assert_eq!(line("authorization") & 0b1111_0000, 0b0111_0000);
        assert_eq!(line("cookie"), 0b0111_0101);
        assert_eq!(line("proxy-authorization") & 0b1111_0000, 0b0011_0000);
        assert_eq!(line("accept") & 0b1111_0000, 0b0101_0000);
    }

    #[test]
    fn references_to_a_dynamic_table_are_refused() {
        for section in [
            [2, 0, 0xd1].as_slice(),
            &[0, 0, 0b1000_0000],
            &[0, 0, 0b0001_0000],
            &[0, 0, 0b0100_0000, 0],
            &[0, 0, 0b0000_0000, 0],
        ] {
            assert_eq!(error_code(section), Http3Code::QpackDecompressionFailed);
        }
    }

    #[test]
    fn a_negative_base_is_refused() {
        assert_eq!(error_code(&[0, 0x80]), Http3Code::QpackDecompressionFailed);
    }

    #[test]
    fn an_entry_beyond_the_static_table_is_refused() {
        assert_eq!(error_code(&[0, 0, 0xff, 99 - 63]), Http3Code::QpackDecompressionFailed);
    }

    #[test]
    fn a_cut_section_is_refused_unless_it_is_cut_between_fields() {
        let whole = literal(b"name", b"value");
        for len in (0..2).chain(3..whole.len()) {
            assert_eq!(error_code(&whole[..len]), Http3Code::QpackDecompressionFailed);
        }
        assert_eq!(decode_fields(&whole[..2]).unwrap(), []);
    }

    #[test]
    fn a_malformed_field_is_a_message_error() {
        let fields: [(&[u8], &[u8]); 9] = [
            (b"", b"a"),
            (b":", b"a"),
            (b"Name", b"a"),
            (b"na me", b"a"),
            (b"a:b", b"a"),
            (b"name", b"a\0"),
            (b"name", b"a\r"),
            (b"name", b"\na"),
            (b"name", b"\xff"),
        ];
        for (name, value) in fields {
            assert_eq!(error_code(&literal(name, value)), Http3Code::MessageError);
        }
        assert!(decode_fields(&literal(b"name", "a\t é".as_bytes())).is_ok());
    }

    #[test]
    fn a_message_has_no_more_fields_than_allowed() {
        let mut section = vec![0, 0];
        section.resize(2 + MAX_FIELDS, 0xd1);
        assert_eq!(decode_fields(&section).unwrap().len(), MAX_FIELDS);
        section.push(0xd1);
        assert_eq!(error_code(&section), Http3Code::ExcessiveLoad);
    }

    #[test]
    fn a_section_counts_as_the_rfc_counts_it() {
        let room = MAX_FIELD_SECTION_LEN - FIELD_OVERHEAD - 1;
        assert!(decode_fields(&literal(b"a", &vec![b'a'; room])).is_ok());
        let error = decode_fields(&literal(b"a", &vec![b'a'; room + 1])).unwrap_err();
        assert_eq!(error, Http3Error::FieldSectionTooLong);
    }

    fn field() -> impl Strategy<Value = Field> {
        let name = prop_oneof![
            "[:]?[a-z0-9_-]{1,20}",
            (0_u64..99).prop_map(|index| static_table::entry(index).unwrap().0.to_owned()),
            Just("authorization".to_owned()),
        ];
        let value = prop_oneof![
            "[ -~é]{0,40}",
            (0_u64..99).prop_map(|index| static_table::entry(index).unwrap().1.to_owned()),
        ];
        (name, value).prop_map(|(name, value)| Field { name, value })
    }

    proptest! {
        #[test]
        fn fields_survive_a_round_trip(
            fields in proptest::collection::vec(field(), 0..=MAX_FIELDS),
        ) {
            prop_assert_eq!(decode_fields(&encode_fields(&fields)).unwrap(), fields);
        }

        #[test]
        fn any_section_is_survived(mut section: Vec<u8>, has_prefix: bool) {
            if has_prefix {
                section.splice(0..0, [0, 0]);
            }
            if let Ok(fields) = decode_fields(&section) {
                prop_assert_eq!(decode_fields(&encode_fields(&fields)).unwrap(), fields);
            }
        }
    }
}

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

//! What requests and responses have in common: pseudo-header fields, then header fields.

use crate::http3::{error::Http3Error, field::Field};

/// Parts the pseudo-header fields, of which only those of `names` may occur, from the header fields
/// (RFC 9114 §4.2, §4.3). The values come in the order of `names`.
pub(super) fn split<const N: usize>(
    fields: Vec<Field>,
    names: [&'static str; N],
) -> Result<([Option<String>; N], Vec<Field>), Http3Error> {
    let mut values = [const { None }; N];
    let mut headers = Vec::new();
    for field in fields {
        if !field.name.starts_with(':') {
            check_header(&field)?;
            headers.push(field);
            continue;
        }
        if !headers.is_empty() {
            return Err(Http3Error::PseudoFieldMisplaced);
        }
        let (name, value) = names
            .into_iter()
            .zip(&mut values)
            .find(|(name, _value)| *name == field.name)
            .ok_or(Http3Error::PseudoFieldUnknown)?;
        if value.replace(field.value).is_some() {
            return Err(Http3Error::PseudoFieldTwice { name });
        }
    }
    Ok((values, headers))
}

/// The value of the first header field of a name, whatever its case.
pub(super) fn header<'fields>(headers: &'fields [Field], name: &str) -> Option<&'fields str> {
    headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value.as_str())
}

fn check_header(field: &Field) -> Result<(), Http3Error> {
    match field.name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => {
            Err(Http3Error::ConnectionField)
        }
        "te" if field.value != "trailers" => Err(Http3Error::ConnectionField),
        _ => Ok(()),
    }
}

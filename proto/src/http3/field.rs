//! One field of a message's head.

use std::fmt;

use crate::http3::error::Http3Error;

/// A field line: a header field, or a pseudo-header field whose name begins with a colon (RFC 9114
/// §4.2, §4.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    /// In lower case.
    pub name: String,
    /// Without white space around it. Not shown by `Debug` when it is a credential.
    pub value: String,
}

impl Field {
    /// A field of this name and value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// From what was received.
    pub(super) fn try_from_bytes(name: Vec<u8>, value: Vec<u8>) -> Result<Self, Http3Error> {
        let token = name.strip_prefix(b":").unwrap_or(&name);
        if token.is_empty()
            || token.iter().any(|byte| !is_token(*byte) || byte.is_ascii_uppercase())
        {
            return Err(Http3Error::FieldName);
        }
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(Http3Error::FieldValue);
        }
        Ok(Self {
            name: String::from_utf8(name).map_err(|_error| Http3Error::FieldName)?,
            value: String::from_utf8(value).map_err(|_error| Http3Error::FieldValue)?,
        })
    }

    /// Whether the value is a credential, which nobody may keep in a table (RFC 7541 §7.1.3, 9204
    /// §7.1.3).
    pub fn is_credential(&self) -> bool {
        matches!(self.name.as_str(), "authorization" | "proxy-authorization" | "cookie")
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.is_credential() { "…" } else { &self.value };
        write!(f, "{}: {value:?}", self.name)
    }
}

/// Whether the byte may stand in a method or in a field's name (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_in_debug_output() {
        for name in ["authorization", "proxy-authorization", "cookie"] {
            let debug = format!("{:?}", Field::new(name, "s3cret"));
            assert!(debug.contains(name) && !debug.contains("s3cret"), "{debug}");
        }
        assert!(format!("{:?}", Field::new("accept", "text/css")).contains("text/css"));
    }
}

//! The head of a response.

use crate::http3::{error::Http3Error, field::Field, pseudo_fields};

const STATUS: &str = ":status";

/// A response's head, as HTTP/3 and HTTP/2 have it (RFC 9114 §4.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status: three digits.
    pub status: u16,
    /// The header fields.
    pub headers: Vec<Field>,
}

impl ResponseHead {
    /// Takes a response's fields apart.
    ///
    /// # Errors
    ///
    /// When the response is malformed by RFC 9114 §4.2 or §4.3.2, or switches protocols, which
    /// RFC 9114 §4.5 does not have.
    pub fn try_from_fields(fields: Vec<Field>) -> Result<Self, Http3Error> {
        let ([status], headers) = pseudo_fields::split(fields, [STATUS])?;
        let status = status.ok_or(Http3Error::PseudoFieldMissing { name: STATUS })?;
        let is_number = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
        match status.parse() {
            Ok(status) if is_number && status >= 100 && status != 101 => {
                Ok(Self { status, headers })
            }
            Ok(_) | Err(_) => Err(Http3Error::PseudoFieldValue { name: STATUS }),
        }
    }

    /// All fields, the status first.
    pub fn fields(&self) -> Vec<Field> {
        let status = Field::new(STATUS, format!("{:03}", self.status));
        std::iter::once(status).chain(self.headers.iter().cloned()).collect()
    }

    /// The value of the first header field of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        pseudo_fields::header(&self.headers, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http3::code::Http3Code;

    fn parsed(fields: &[(&str, &str)]) -> Result<ResponseHead, Http3Error> {
        ResponseHead::try_from_fields(
            fields.iter().map(|(name, value)| Field::new(*name, *value)).collect(),
        )
    }

    #[test]
    fn responses_survive_a_round_trip() {
        let head = parsed(&[(":status", "200"), ("capsule-protocol", "?1")]).unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("capsule-protocol"), Some("?1"));
        assert_eq!(ResponseHead::try_from_fields(head.fields()).unwrap(), head);
    }

    #[test]
    fn a_status_is_three_digits_and_switches_no_protocol() {
        for status in ["", "20", "2000", "+20", "099", "20a", "101"] {
            let error = parsed(&[(":status", status)]).expect_err(status);
            assert_eq!(error.code(), Http3Code::MessageError);
        }
    }

    #[test]
    fn a_response_has_one_status_and_nothing_of_a_request() {
        assert!(parsed(&[("server", "a")]).is_err());
        assert!(parsed(&[(":status", "200"), (":status", "200")]).is_err());
        assert!(parsed(&[(":status", "200"), (":path", "/")]).is_err());
    }
}

//! The head of a request.

use crate::http3::{
    error::Http3Error,
    field::{Field, is_token},
    pseudo_fields,
};

const METHOD: &str = ":method";
const PROTOCOL: &str = ":protocol";
const SCHEME: &str = ":scheme";
const AUTHORITY: &str = ":authority";
const PATH: &str = ":path";

/// A request's head, as HTTP/3 and HTTP/2 have it (RFC 9114 §4.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: String,
    /// What is to be spoken on the stream, for extended CONNECT alone (RFC 9220).
    pub protocol: Option<String>,
    /// The scheme; none for classic CONNECT (RFC 9114 §4.4).
    pub scheme: Option<String>,
    /// Host and port. Where there is none, a `host` header stands for it.
    pub authority: Option<String>,
    /// Path and query; none for classic CONNECT (RFC 9114 §4.4).
    pub path: Option<String>,
    /// The header fields.
    pub headers: Vec<Field>,
}

impl RequestHead {
    /// Takes a request's fields apart.
    ///
    /// # Errors
    ///
    /// When the request is malformed by RFC 9114 §4.2, §4.3.1 or §4.4, or by RFC 8441 §4, which RFC
    /// 9220 refers to.
    pub fn try_from_fields(fields: Vec<Field>) -> Result<Self, Http3Error> {
        let ([method, protocol, scheme, authority, path], headers) =
            pseudo_fields::split(fields, [METHOD, PROTOCOL, SCHEME, AUTHORITY, PATH])?;
        let method = method.ok_or(Http3Error::PseudoFieldMissing { name: METHOD })?;
        let head = Self { method, protocol, scheme, authority, path, headers };
        head.check_presence()?;
        head.check_values()?;
        head.check_host()?;
        Ok(head)
    }

    /// All fields, those of the pseudo-header first.
    pub fn fields(&self) -> Vec<Field> {
        let pseudo = [
            (METHOD, Some(&self.method)),
            (PROTOCOL, self.protocol.as_ref()),
            (SCHEME, self.scheme.as_ref()),
            (AUTHORITY, self.authority.as_ref()),
            (PATH, self.path.as_ref()),
        ];
        pseudo
            .into_iter()
            .filter_map(|(name, value)| Some(Field::new(name, value?)))
            .chain(self.headers.iter().cloned())
            .collect()
    }

    /// The value of the first header field of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        pseudo_fields::header(&self.headers, name)
    }

    fn check_presence(&self) -> Result<(), Http3Error> {
        let is_connect = self.method == "CONNECT";
        let is_classic_connect = is_connect && self.protocol.is_none();
        if self.protocol.is_some() && !is_connect {
            return Err(Http3Error::PseudoFieldForbidden { name: PROTOCOL });
        }
        for (name, value) in [(SCHEME, &self.scheme), (PATH, &self.path)] {
            if is_classic_connect && value.is_some() {
                return Err(Http3Error::PseudoFieldForbidden { name });
            }
            if !is_classic_connect && value.is_none() {
                return Err(Http3Error::PseudoFieldMissing { name });
            }
        }
        let has_authority = self.authority.is_some()
            || !is_connect && self.header("host").is_some_and(|host| !host.is_empty());
        if !has_authority && (is_connect || self.is_of_web()) {
            return Err(Http3Error::PseudoFieldMissing { name: AUTHORITY });
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), Http3Error> {
        let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let check = |name, value: Option<&str>, is_valid: &dyn Fn(&str) -> bool| match value {
            Some(value) if value.is_empty() || !is_visible(value) || !is_valid(value) => {
                Err(Http3Error::PseudoFieldValue { name })
            }
            Some(_) | None => Ok(()),
        };
        check(METHOD, Some(&self.method), &|method| method.bytes().all(is_token))?;
        check(PROTOCOL, self.protocol.as_deref(), &|_protocol| true)?;
        check(SCHEME, self.scheme.as_deref(), &|_scheme| true)?;
        check(AUTHORITY, self.authority.as_deref(), &|authority| !authority.contains('@'))?;
        check(PATH, self.path.as_deref(), &|path| {
            !self.is_of_web() || path.starts_with('/') || self.method == "OPTIONS" && path == "*"
        })
    }

    /// All that name the host must name the same.
    fn check_host(&self) -> Result<(), Http3Error> {
        let hosts = self.headers.iter().filter(|field| field.name == "host");
        let mut names =
            self.authority.iter().chain(hosts.map(|field| &field.value)).map(String::as_str);
        let first = names.next().unwrap_or_default();
        if names.all(|name| name.eq_ignore_ascii_case(first)) {
            Ok(())
        } else {
            Err(Http3Error::HostDiffers)
        }
    }

    /// Whether the scheme is one that demands an authority and a path.
    fn is_of_web(&self) -> bool {
        self.scheme
            .as_ref()
            .is_some_and(|s| s.eq_ignore_ascii_case("https") || s.eq_ignore_ascii_case("http"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http3::{
        code::Http3Code,
        field_section::{decode_fields, encode_fields},
    };

    fn parsed(fields: &[(&str, &str)]) -> Result<RequestHead, Http3Error> {
        RequestHead::try_from_fields(
            fields.iter().map(|(name, value)| Field::new(*name, *value)).collect(),
        )
    }

    fn assert_malformed(fields: &[(&str, &str)]) {
        let error = parsed(fields).expect_err(&format!("{fields:?}"));
        assert_eq!(error.code(), Http3Code::MessageError);
        assert!(error.is_of_stream());
    }

    const METHOD: (&str, &str) = (":method", "GET");
    const CONNECT: (&str, &str) = (":method", "CONNECT");
    const PROTOCOL: (&str, &str) = (":protocol", "connect-ip");
    const SCHEME: (&str, &str) = (":scheme", "https");
    const AUTHORITY: (&str, &str) = (":authority", "connector.example");
    const PATH: (&str, &str) = (":path", "/");

    #[test]
    fn requests_of_every_form_survive_a_round_trip() {
        let forms: [&[(&str, &str)]; 5] = [
            &[METHOD, SCHEME, AUTHORITY, PATH, ("te", "trailers")],
            &[METHOD, SCHEME, PATH, ("host", "connector.example")],
            &[(":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")],
            &[CONNECT, (":authority", "db.example:5432"), ("authorization", "Bearer x")],
            &[CONNECT, PROTOCOL, SCHEME, AUTHORITY, PATH, ("capsule-protocol", "?1")],
        ];
        for form in forms {
            let head = parsed(form).unwrap();
            let fields = decode_fields(&encode_fields(&head.fields())).unwrap();
            assert_eq!(RequestHead::try_from_fields(fields).unwrap(), head);
        }
    }

    #[test]
    fn a_header_is_found_whatever_its_case() {
        let head = parsed(&[METHOD, SCHEME, AUTHORITY, PATH, ("accept", "a"), ("accept", "b")]);
        let head = head.unwrap();
        assert_eq!(head.header("Accept"), Some("a"));
        assert_eq!(head.header(":path"), None);
    }

    #[test]
    fn a_request_must_say_what_it_wants_of_whom() {
        assert_malformed(&[]);
        assert_malformed(&[SCHEME, AUTHORITY, PATH]);
        assert_malformed(&[METHOD, AUTHORITY, PATH]);
        assert_malformed(&[METHOD, SCHEME, AUTHORITY]);
        assert_malformed(&[METHOD, SCHEME, PATH]);
        assert_malformed(&[METHOD, SCHEME, PATH, ("host", "")]);
    }

    #[test]
    fn a_classic_connect_has_an_authority_alone() {
        assert_malformed(&[CONNECT]);
        assert_malformed(&[CONNECT, ("host", "db.example:5432")]);
        assert_malformed(&[CONNECT, AUTHORITY, PATH]);
        assert_malformed(&[CONNECT, AUTHORITY, SCHEME]);
    }

    #[test]
    fn an_extended_connect_has_all_fields() {
        assert_malformed(&[CONNECT, PROTOCOL, SCHEME, AUTHORITY]);
        assert_malformed(&[CONNECT, PROTOCOL, AUTHORITY, PATH]);
        assert_malformed(&[CONNECT, PROTOCOL, SCHEME, PATH]);
    }

    #[test]
    fn only_connect_has_a_protocol() {
        assert_malformed(&[METHOD, PROTOCOL, SCHEME, AUTHORITY, PATH]);
    }

    #[test]
    fn pseudo_header_fields_come_first_and_once() {
        assert_malformed(&[METHOD, SCHEME, AUTHORITY, ("accept", "*/*"), PATH]);
        assert_malformed(&[METHOD, METHOD, SCHEME, AUTHORITY, PATH]);
    }

    #[test]
    fn a_request_has_no_pseudo_header_field_of_a_response() {
        assert_malformed(&[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")]);
    }

    #[test]
    fn values_are_what_they_can_be() {
        assert_malformed(&[(":method", "G T"), SCHEME, AUTHORITY, PATH]);
        assert_malformed(&[(":method", ""), SCHEME, AUTHORITY, PATH]);
        assert_malformed(&[METHOD, SCHEME, (":authority", ""), PATH]);
        assert_malformed(&[METHOD, SCHEME, (":authority", "user@connector.example"), PATH]);
        assert_malformed(&[METHOD, SCHEME, AUTHORITY, (":path", "")]);
        assert_malformed(&[METHOD, SCHEME, AUTHORITY, (":path", "a")]);
        assert_malformed(&[METHOD, SCHEME, AUTHORITY, (":path", "*")]);
        assert_malformed(&[METHOD, SCHEME, AUTHORITY, (":path", "/a b")]);
    }

    #[test]
    fn fields_about_a_connection_are_refused() {
        for field in [("connection", "close"), ("transfer-encoding", "chunked"), ("te", "gzip")] {
            assert_malformed(&[METHOD, SCHEME, AUTHORITY, PATH, field]);
        }
    }

    #[test]
    fn all_that_name_the_host_name_the_same() {
        let host = |name| [METHOD, SCHEME, AUTHORITY, PATH, ("host", name)];
        assert!(parsed(&host("Connector.example")).is_ok());
        assert_malformed(&host("other.example"));
        assert_malformed(&[METHOD, SCHEME, PATH, ("host", "a.example"), ("host", "b.example")]);
    }
}

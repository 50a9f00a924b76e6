//! The head of a request.

use crate::http3::{error::Http3Error, field::Field, pseudo_fields};

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
        check(METHOD, Some(&self.method), &|_method| true)?;
        check(PROTOCOL, self.protocol.as_deref(), &|_protocol| true)?;
        check(SCHEME, self.scheme.as_deref(), &|_scheme| true)?;
        check(AUTHORITY, self.authority.as_deref(), &|authority| !authority.contains('@'))?;
        check(PATH, self.path.as_deref(), &|path| {
            !self.is_of_web() || path.starts_with('/') || self.method == "OPTIONS" && path == "*"
        })
    }

    fn check_host(&self) -> Result<(), Http3Error> {
        match (&self.authority, self.header("host")) {
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
                Err(Http3Error::HostDiffers)
            }
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }

    /// Whether the scheme is one that demands an authority and a path.
    fn is_of_web(&self) -> bool {
        self.scheme
            .as_ref()
            .is_some_and(|s| s.eq_ignore_ascii_case("https") || s.eq_ignore_ascii_case("http"))
    }
}

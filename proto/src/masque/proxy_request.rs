//! Which request asks for what.

use ipnet::IpNet;

use crate::{
    http3::{Field, RequestHead},
    masque::{host, percent},
};

const CONNECT: &str = "CONNECT";
const CONNECT_IP: &str = "connect-ip";
const CONNECT_UDP: &str = "connect-udp";
const IP_PATH: &str = "/.well-known/masque/ip/";
const UDP_PATH: &str = "/.well-known/masque/udp/";
const CAPSULE_PROTOCOL: &str = "capsule-protocol";
const ANY: &str = "*";

/// What a request to a connector asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyRequest {
    /// To carry IP packets (RFC 9484 §4.6), at
    /// `/.well-known/masque/ip/{target}/{ipproto}/`.
    ConnectIp {
        /// Where to.
        target: IpTarget,
        /// The protocol of IP; none for all.
        protocol: Option<u8>,
    },
    /// To carry payloads of UDP (RFC 9298 §3), at
    /// `/.well-known/masque/udp/{target_host}/{target_port}/`.
    ConnectUdp {
        /// A name, or an address without brackets.
        host: String,
        /// The port; never 0.
        port: u16,
    },
    /// To carry a stream of TCP (RFC 9114 §4.4).
    ConnectTcp {
        /// A name, or an address without brackets.
        host: String,
        /// The port; never 0.
        port: u16,
    },
}

/// Where IP packets are to be carried (RFC 9484 §4.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpTarget {
    /// Wherever the client is let.
    Any,
    /// To these addresses. The bits that the prefix does not cover are zero.
    Prefix(IpNet),
    /// To the addresses of this name.
    Name(String),
}

/// Why a request asks for nothing that a connector could carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyRequestError {
    /// The method is not CONNECT.
    #[error("method is not CONNECT")]
    Method,
    /// What is to be spoken on the stream is neither `connect-ip` nor `connect-udp` (RFC 9220 §3).
    #[error("protocol of the request is not known")]
    Protocol,
    /// The path is not that of the protocol.
    #[error("path is not that of the protocol")]
    Path,
    /// The target is neither an address nor a name (RFC 9484 §4.6, RFC 9298 §2).
    #[error("target is malformed")]
    Target,
    /// The port is not from 1 to 65535 (RFC 9298 §2).
    #[error("port is malformed")]
    Port,
    /// The protocol of IP is neither `*` nor from 0 to 255 (RFC 9484 §4.6).
    #[error("protocol of IP is malformed")]
    IpProtocol,
    /// The authority of a classic CONNECT is not a host and a port (RFC 9114 §4.4).
    #[error("authority is not a host and a port")]
    Authority,
}

impl ProxyRequest {
    /// Reads what a request asks for.
    ///
    /// # Errors
    ///
    /// See [`ProxyRequestError`].
    pub fn try_from_head(head: &RequestHead) -> Result<Self, ProxyRequestError> {
        if head.method != CONNECT {
            return Err(ProxyRequestError::Method);
        }
        let path = head.path.as_deref().unwrap_or_default();
        match head.protocol.as_deref() {
            Some(CONNECT_IP) => {
                let (target, protocol) = segments(path, IP_PATH)?;
                Ok(Self::ConnectIp {
                    target: IpTarget::try_from_segment(target)?,
                    protocol: ip_protocol(protocol)?,
                })
            }
            Some(CONNECT_UDP) => {
                let (host, port) = segments(path, UDP_PATH)?;
                let host = percent::decode(host)
                    .filter(|host| host::is_host(host))
                    .ok_or(ProxyRequestError::Target)?;
                let port = percent::decode(port)
                    .and_then(|port| host::port(&port))
                    .ok_or(ProxyRequestError::Port)?;
                Ok(Self::ConnectUdp { host, port })
            }
            Some(_) => Err(ProxyRequestError::Protocol),
            None => {
                let authority = head.authority.as_deref().unwrap_or_default();
                let (host, port) =
                    host::split_authority(authority).ok_or(ProxyRequestError::Authority)?;
                Ok(Self::ConnectTcp { host: host.to_owned(), port })
            }
        }
    }

    /// The head of the request that asks for this, at a connector of this authority. A classic
    /// CONNECT has the authority of its target instead.
    pub fn head(&self, authority: &str) -> RequestHead {
        let extended = |protocol: &str, path| RequestHead {
            method: CONNECT.to_owned(),
            protocol: Some(protocol.to_owned()),
            scheme: Some("https".to_owned()),
            authority: Some(authority.to_owned()),
            path: Some(path),
            headers: vec![Field::new(CAPSULE_PROTOCOL, "?1")],
        };
        match self {
            Self::ConnectIp { target, protocol } => {
                let protocol = protocol.map_or(ANY.to_owned(), |protocol| protocol.to_string());
                extended(CONNECT_IP, format!("{IP_PATH}{}/{protocol}/", target.to_segment()))
            }
            Self::ConnectUdp { host, port } => {
                let host = percent::encode(host);
                extended(CONNECT_UDP, format!("{UDP_PATH}{host}/{port}/"))
            }
            Self::ConnectTcp { host, port } => RequestHead {
                method: CONNECT.to_owned(),
                protocol: None,
                scheme: None,
                authority: Some(host::join_authority(host, *port)),
                path: None,
                headers: Vec::new(),
            },
        }
    }
}

impl IpTarget {
    fn try_from_segment(segment: &str) -> Result<Self, ProxyRequestError> {
        let text = percent::decode(segment).ok_or(ProxyRequestError::Target)?;
        if text == ANY {
            return Ok(Self::Any);
        }
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(Self::Prefix(address.into()));
        }
        match text.parse::<IpNet>() {
            Ok(prefix) if prefix.network() == prefix.addr() => Ok(Self::Prefix(prefix)),
            Err(_) if host::is_name(&text) => Ok(Self::Name(text)),
            Ok(_) | Err(_) => Err(ProxyRequestError::Target),
        }
    }

    fn to_segment(&self) -> String {
        match self {
            Self::Any => ANY.to_owned(),
            Self::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                percent::encode(&prefix.addr().to_string())
            }
            Self::Prefix(prefix) => percent::encode(&prefix.trunc().to_string()),
            Self::Name(name) => percent::encode(name),
        }
    }
}

impl ProxyRequestError {
    /// The status to answer with (RFC 9110 §15.5, §15.6).
    pub const fn status(&self) -> u16 {
        match self {
            Self::Target | Self::Port | Self::IpProtocol | Self::Authority => 400,
            Self::Path => 404,
            Self::Method => 405,
            Self::Protocol => 501,
        }
    }
}

/// The two segments behind `prefix`, still encoded.
fn segments<'path>(
    path: &'path str,
    prefix: &str,
) -> Result<(&'path str, &'path str), ProxyRequestError> {
    path.strip_prefix(prefix)
        .and_then(|rest| rest.strip_suffix('/'))
        .and_then(|rest| rest.split_once('/'))
        .filter(|(_first, second)| !second.contains('/'))
        .ok_or(ProxyRequestError::Path)
}

fn ip_protocol(segment: &str) -> Result<Option<u8>, ProxyRequestError> {
    let text = percent::decode(segment).ok_or(ProxyRequestError::IpProtocol)?;
    if text == ANY {
        return Ok(None);
    }
    let is_number = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(protocol) if is_number => Ok(Some(protocol)),
        Ok(_) | Err(_) => Err(ProxyRequestError::IpProtocol),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extended(protocol: &str, path: &str) -> RequestHead {
        RequestHead {
            method: "CONNECT".to_owned(),
            protocol: Some(protocol.to_owned()),
            scheme: Some("https".to_owned()),
            authority: Some("connector.example".to_owned()),
            path: Some(path.to_owned()),
            headers: Vec::new(),
        }
    }

    fn ip(segments: &str) -> Result<ProxyRequest, ProxyRequestError> {
        ProxyRequest::try_from_head(&extended("connect-ip", &format!("{IP_PATH}{segments}")))
    }

    fn udp(segments: &str) -> Result<ProxyRequest, ProxyRequestError> {
        ProxyRequest::try_from_head(&extended("connect-udp", &format!("{UDP_PATH}{segments}")))
    }

    fn tcp(authority: &str) -> Result<ProxyRequest, ProxyRequestError> {
        let mut head = ProxyRequest::ConnectTcp { host: String::new(), port: 1 }.head("");
        head.authority = Some(authority.to_owned());
        ProxyRequest::try_from_head(&head)
    }

    #[test]
    fn a_whole_tunnel_is_asked_for_by_wildcards() {
        let request = ProxyRequest::ConnectIp { target: IpTarget::Any, protocol: None };
        let head = request.head("connector.example");
        assert_eq!(head.path.as_deref(), Some("/.well-known/masque/ip/*/*/"));
        assert_eq!(head.header("capsule-protocol"), Some("?1"));
        assert_eq!(ProxyRequest::try_from_head(&head), Ok(request.clone()));
        assert_eq!(ip("%2A/%2a/"), Ok(request));
    }

    #[test]
    fn a_tunnel_may_be_confined_to_a_prefix_and_a_protocol() {
        let request = ProxyRequest::ConnectIp {
            target: IpTarget::Prefix("2001:db8::/32".parse().unwrap()),
            protocol: Some(17),
        };
        let path = request.head("connector.example").path.unwrap();
        assert_eq!(path, "/.well-known/masque/ip/2001%3Adb8%3A%3A%2F32/17/");
        assert_eq!(ip("2001%3adb8%3a%3a%2f32/17/"), Ok(request));
    }

    #[test]
    fn a_tunnel_may_be_confined_to_a_name() {
        let target = IpTarget::Name("db.example".to_owned());
        assert_eq!(ip("db.example/*/"), Ok(ProxyRequest::ConnectIp { target, protocol: None }));
    }

    #[test]
    fn a_malformed_target_of_a_tunnel_is_a_bad_request() {
        for segments in [
            "/*/",
            "%/*/",
            "fe80%3A%3A1%25eth0/*/",
            "192.0.2.1%2F24/*/",
            "192.0.2.0%2F33/*/",
            "192.0.2.0%2F/*/",
            "a%2Fb/*/",
            "127.1/*/",
            "*//",
            "*/256/",
            "*/-1/",
            "*/+1/",
            "*/0006/",
        ] {
            assert_eq!(ip(segments).expect_err(segments).status(), 400, "{segments}");
        }
    }

    #[test]
    fn a_udp_target_is_a_host_and_a_port() {
        let request = |host: &str, port| ProxyRequest::ConnectUdp { host: host.to_owned(), port };
        assert_eq!(udp("192.0.2.6/443/"), Ok(request("192.0.2.6", 443)));
        assert_eq!(udp("2001%3Adb8%3A%3A42/443/"), Ok(request("2001:db8::42", 443)));
        assert_eq!(udp("ntp.example/123/"), Ok(request("ntp.example", 123)));
        for segments in ["/443/", "*/443/", "a/0/", "a/65536/", "a//", "a/https/", "[::1]/1/"] {
            assert_eq!(udp(segments).expect_err(segments).status(), 400, "{segments}");
        }
    }

    #[test]
    fn a_tcp_target_is_an_authority() {
        let request = |host: &str, port| ProxyRequest::ConnectTcp { host: host.to_owned(), port };
        assert_eq!(tcp("db.example:5432"), Ok(request("db.example", 5432)));
        assert_eq!(tcp("[2001:db8::1]:22"), Ok(request("2001:db8::1", 22)));
        for authority in ["", "db.example", "2001:db8::1", "127.1:80", "a:0"] {
            assert_eq!(tcp(authority).expect_err(authority).status(), 400, "{authority}");
        }
    }

    #[test]
    fn another_path_is_not_found() {
        for segments in ["", "*", "*/", "*/*", "*/*/*/", "*/*/?a"] {
            assert_eq!(ip(segments).expect_err(segments).status(), 404, "{segments}");
        }
        let crossed = extended("connect-udp", "/.well-known/masque/ip/*/*/");
        assert_eq!(ProxyRequest::try_from_head(&crossed), Err(ProxyRequestError::Path));
    }

    #[test]
    fn another_protocol_is_not_implemented() {
        let head = extended("websocket", "/.well-known/masque/ip/*/*/");
        assert_eq!(ProxyRequest::try_from_head(&head).unwrap_err().status(), 501);
    }

    #[test]
    fn another_method_is_not_allowed() {
        let mut head = extended("connect-ip", "/.well-known/masque/ip/*/*/");
        head.method = "GET".to_owned();
        assert_eq!(ProxyRequest::try_from_head(&head).unwrap_err().status(), 405);
    }

    /// A value that is not true is as good as none, and so is one that is no boolean (RFC 9297
    /// §3.4); what is asked for is made of capsules in any case.
    #[test]
    fn whatever_is_said_of_capsules_the_request_is_the_same() {
        for values in [[].as_slice(), &["?1"], &["?1;a=b"], &["?0"], &["1"], &["?1", "?0"], &[""]] {
            let mut head = extended("connect-ip", "/.well-known/masque/ip/*/*/");
            let fields = values.iter().map(|value| Field::new(CAPSULE_PROTOCOL, *value));
            head.headers = fields.collect();
            let asked = ProxyRequest::try_from_head(&head).unwrap();
            let any = ProxyRequest::ConnectIp { target: IpTarget::Any, protocol: None };
            assert_eq!(asked, any, "{values:?}");
        }
    }

    fn host() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]([a-z0-9-]{0,20}[.]){0,3}[a-z]{1,9}",
            any::<std::net::IpAddr>().prop_map(|address| address.to_string()),
        ]
        .prop_filter("no two dots together", |host| host::is_host(host))
    }

    fn request() -> impl Strategy<Value = ProxyRequest> {
        let target = prop_oneof![
            Just(IpTarget::Any),
            (any::<std::net::IpAddr>(), any::<u8>()).prop_map(|(address, len)| {
                let whole = IpNet::from(address);
                let len = len % (whole.max_prefix_len() + 1);
                IpTarget::Prefix(IpNet::new(address, len).unwrap().trunc())
            }),
            "[a-z]{1,9}[.]example".prop_map(IpTarget::Name),
        ];
        prop_oneof![
            (target, any::<Option<u8>>())
                .prop_map(|(target, protocol)| ProxyRequest::ConnectIp { target, protocol }),
            (host(), 1_u16..).prop_map(|(host, port)| ProxyRequest::ConnectUdp { host, port }),
            (host(), 1_u16..).prop_map(|(host, port)| ProxyRequest::ConnectTcp { host, port }),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive_a_round_trip(request in request()) {
            let fields = request.head("connector.example").fields();
            let head = RequestHead::try_from_fields(fields).unwrap();
            prop_assert_eq!(ProxyRequest::try_from_head(&head), Ok(request));
        }

        #[test]
        fn any_segments_are_survived(segments: String) {
            if let Ok(request) = ip(&segments) {
                let head = request.head("connector.example");
                prop_assert_eq!(ProxyRequest::try_from_head(&head), Ok(request));
            }
            drop(udp(&segments));
            drop(tcp(&segments));
        }
    }
}

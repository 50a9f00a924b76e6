//! What carries packets to a connector.

use serde::{Deserialize, Serialize};

/// A carrier. The first is the fastest; each later one passes where those before do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Carrier {
    /// Over UDP.
    Wireguard,
    /// CONNECT-IP in datagrams of QUIC, over UDP.
    Quic,
    /// CONNECT-IP in capsules on HTTP/2, over TCP.
    Http2,
}

impl Carrier {
    /// All of them, the best first.
    pub(crate) const ALL: [Self; 3] = [Self::Wireguard, Self::Quic, Self::Http2];

    /// How its keys are agreed on: the client offers TLS nothing else. Of WireGuard it depends.
    pub(crate) const fn key_exchange(self) -> Option<&'static str> {
        match self {
            Self::Wireguard => None,
            Self::Quic | Self::Http2 => Some("X25519MLKEM768"),
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Wireguard => "wireguard",
            Self::Quic => "quic",
            Self::Http2 => "http2",
        }
    }
}

impl std::fmt::Display for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What carries a session channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SessionCarrier {
    /// HTTP/2, over TCP.
    Http2,
    /// HTTP/3 on QUIC, over UDP.
    Quic,
}

impl std::fmt::Display for SessionCarrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http2 => "http2",
            Self::Quic => "quic",
        })
    }
}

/// Which carriers may be used.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CarrierChoice {
    /// The best that works.
    #[default]
    Auto,
    /// WireGuard alone.
    Wireguard,
    /// QUIC alone.
    Quic,
    /// HTTP/2 alone.
    Http2,
}

impl CarrierChoice {
    /// The only one that may be used; none: any.
    pub(crate) const fn only(self) -> Option<Carrier> {
        match self {
            Self::Auto => None,
            Self::Wireguard => Some(Carrier::Wireguard),
            Self::Quic => Some(Carrier::Quic),
            Self::Http2 => Some(Carrier::Http2),
        }
    }

    pub(crate) fn allows(self, carrier: Carrier) -> bool {
        self.only().is_none_or(|only| only == carrier)
    }

    /// What may carry a session channel, in the order in which it is tried, by what worked last. It
    /// passes where packets do not, so only who wants no UDP at all gets none.
    pub(crate) const fn of_sessions(
        self,
        remembered: Option<SessionCarrier>,
    ) -> &'static [SessionCarrier] {
        match (self, remembered) {
            (Self::Http2, _) => &[SessionCarrier::Http2],
            (Self::Quic, _) | (Self::Auto | Self::Wireguard, Some(SessionCarrier::Quic)) => {
                &[SessionCarrier::Quic, SessionCarrier::Http2]
            }
            (Self::Auto | Self::Wireguard, Some(SessionCarrier::Http2) | None) => {
                &[SessionCarrier::Http2, SessionCarrier::Quic]
            }
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self.only() {
            None => "auto",
            Some(carrier) => carrier.as_str(),
        }
    }
}

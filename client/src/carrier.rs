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
}

impl Carrier {
    /// All of them, the best first.
    pub(crate) const ALL: [Self; 2] = [Self::Wireguard, Self::Quic];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Wireguard => "wireguard",
            Self::Quic => "quic",
        }
    }
}

impl std::fmt::Display for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
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
}

impl CarrierChoice {
    pub(crate) const fn allows(self, carrier: Carrier) -> bool {
        match (self, carrier) {
            (Self::Auto, _) => true,
            (Self::Wireguard, Carrier::Wireguard) => true,
            (Self::Quic, Carrier::Quic) => true,
            (Self::Wireguard, Carrier::Quic) => false,
            (Self::Quic, Carrier::Wireguard) => false,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Wireguard => "wireguard",
            Self::Quic => "quic",
        }
    }
}

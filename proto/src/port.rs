//! Transport protocols and ranges of ports.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A protocol that policy can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// Echo requests of ICMP (RFC 792) and ICMPv6 (RFC 4443).
    Icmp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "icmp" => Ok(Self::Icmp),
            other => Err(format!("expected tcp, udp or icmp, not `{other}`")),
        }
    }
}

/// Ports from `first` to `last`, both included: `"443"` or `"8000-8100"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a string is not a range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    /// Not one port or two with a hyphen between, each from 1 to 65535.
    #[error("expected a port from 1 to 65535, or two with a hyphen between")]
    Syntax,
    /// The first port is above the last.
    #[error("the first port of a range is above its last")]
    Order,
}

impl PortRange {
    /// Ports from `first` to `last`, both included.
    ///
    /// # Errors
    ///
    /// When `first` is 0 or above `last`.
    pub fn try_new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first == 0 {
            return Err(PortRangeError::Syntax);
        }
        if first > last {
            return Err(PortRangeError::Order);
        }
        Ok(Self { first, last })
    }

    /// The smallest of these.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Whether `port` is one of these.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// How many ports these are.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Debug for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let port = |text: &str| {
            // `u16::from_str` takes a leading plus sign.
            if !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(PortRangeError::Syntax);
            }
            text.parse::<u16>().map_err(|_error| PortRangeError::Syntax)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::try_new(port(first)?, port(last)?)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for PortRange {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[0-9]{1,5}(-[0-9]{1,5})?$"))
            .examples(["8000-8100"])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for PortRange {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_both_its_ends() {
        let range: PortRange = "8000-8100".parse().unwrap();
        assert!(range.contains(8000) && range.contains(8100));
        assert!(!range.contains(7999) && !range.contains(8101));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "65536", "+1", "1-", "-1", "5-4", "1-2-3", "http", " 1"] {
            assert!(text.parse::<PortRange>().is_err(), "{text:?}");
        }
    }
}

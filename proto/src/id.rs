//! Names of things: a readable prefix, an underscore and 32 hexadecimal digits of a UUID.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Why a string is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The string begins with another prefix.
    #[error("expected an id that begins with `{expected}_`")]
    Prefix {
        /// The prefix of the expected kind, without its underscore.
        expected: &'static str,
    },
    /// What follows the prefix is not 32 lower-case hexadecimal digits.
    #[error("expected 32 lower-case hexadecimal digits after `{expected}_`")]
    Digits {
        /// The prefix of the expected kind, without its underscore.
        expected: &'static str,
    },
}

fn parse(text: &str, prefix: &'static str) -> Result<Uuid, IdError> {
    let digits = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .ok_or(IdError::Prefix { expected: prefix })?;
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 32 || !digits.bytes().all(lower_hex) {
        return Err(IdError::Digits { expected: prefix });
    }
    Uuid::try_parse(digits).map_err(|_error| IdError::Digits { expected: prefix })
}

macro_rules! define_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The readable prefix of this kind of id, without its underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Names a new thing by a UUID drawn elsewhere, since this crate has no randomness.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text, $prefix).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[0-9a-f]{32}$")))
                    .examples([concat!($prefix, "_0193f0a2b7c87d34a1e2c3d4e5f60718")])
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}

define_id!(/** The one organisation of a control plane. */ OrganisationId, "org");
define_id!(/** A person or service account. */ UserId, "usr");
define_id!(/** A set of users. */ GroupId, "grp");
define_id!(/** An enrolled laptop, or a plain WireGuard device. */ DeviceId, "dev");
define_id!(/** A place where connectors and the services behind them live. */ SiteId, "site");
define_id!(/** A site agent that reaches resources. */ ConnectorId, "conn");
define_id!(/** A token with which one connector joins. */ ConnectorTokenId, "ctok");
define_id!(/** What is reached: addresses with protocols and ports. */ ResourceId, "res");
define_id!(/** A rule that permits or forbids. */ PolicyId, "pol");
define_id!(/** A statement about policies that must hold. */ PolicyTestId, "ptest");
define_id!(/** A key with which devices join. */ EnrollmentKeyId, "ekey");
define_id!(/** A token for the REST API. */ ApiTokenId, "tok");
define_id!(/** One line of the access log. */ EventId, "evt");
define_id!(/** Someone who says which user it is. */ IdentityProviderId, "idp");
define_id!(/** A sign-in under way. */ SignInId, "sgn");
define_id!(/** A user who is signed in on a device. */ UserSessionId, "usn");
define_id!(/** The authenticated state between one client and one connector. */ SessionId, "ses");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_a_round_trip() {
        let text = "usr_0193f0a2b7c87d34a1e2c3d4e5f60718";
        let id: UserId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::from_str::<UserId>(&format!("\"{text}\"")).unwrap(), id);
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let error = "grp_0193f0a2b7c87d34a1e2c3d4e5f60718".parse::<UserId>().unwrap_err();
        assert_eq!(error, IdError::Prefix { expected: "usr" });
    }

    #[test]
    fn upper_case_and_hyphens_are_refused() {
        for digits in ["0193F0A2B7C87D34A1E2C3D4E5F60718", "0193f0a2-b7c8-7d34-a1e2-c3d4e5f60718"] {
            assert!(format!("usr_{digits}").parse::<UserId>().is_err());
        }
    }
}

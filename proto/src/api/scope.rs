//! What one may do with the objects of a collection.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How a collection is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Lists and reads.
    Read,
    /// Reads, creates, replaces and deletes.
    Write,
}

impl Permission {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

macro_rules! define_collections {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// A kind of objects of the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Collection {
            $($(#[$doc])* $name,)+
        }

        impl Collection {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

define_collections! {
    /// The organisation's settings.
    Organisation = "organisation",
    /// People and service accounts.
    Users = "users",
    /// Sets of users, and who is in them.
    Groups = "groups",
    /// Places where connectors live.
    Sites = "sites",
    /// What is reached.
    Resources = "resources",
    /// Rules, and questions about what they decide.
    Policies = "policies",
    /// Laptops and plain WireGuard devices.
    Devices = "devices",
    /// What people decide of a device or a person that asks to be let in.
    Approvals = "approvals",
    /// Site agents.
    Connectors = "connectors",
    /// Tokens with which connectors join.
    ConnectorTokens = "connector-tokens",
    /// Keys with which devices join.
    EnrollmentKeys = "enrollment-keys",
    /// Where people sign in.
    IdentityProviders = "identity-providers",
    /// Sign-ins that hold.
    Sessions = "sessions",
    /// Tokens of the API.
    ApiTokens = "api-tokens",
    /// What was decided of flows.
    AccessEvents = "access-events",
    /// What was changed.
    AuditEvents = "audit-events",
}

/// A right, as `collection:read` or `collection:write`, such as `policies:read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// Of what.
    pub collection: Collection,
    /// To do what.
    pub permission: Permission,
}

/// Why a string is no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a collection and what to do with it, such as `policies:read` or `devices:write`")]
pub struct ScopeError;

impl Scope {
    /// The right to list and read.
    pub const fn read(collection: Collection) -> Self {
        Self { collection, permission: Permission::Read }
    }

    /// The right to read and to change.
    pub const fn write(collection: Collection) -> Self {
        Self { collection, permission: Permission::Write }
    }

    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        Collection::ALL.iter().flat_map(|collection| {
            Permission::ALL
                .into_iter()
                .map(|permission| Self { collection: *collection, permission })
        })
    }

    /// Whether whoever has this has `other` as well: who may write may read.
    pub fn includes(self, other: Self) -> bool {
        self.collection == other.collection && self.permission >= other.permission
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.collection.word(), self.permission.word())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Self::all().find(|scope| scope.to_string() == text).ok_or(ScopeError)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Scope {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(Self::all().map(|scope| scope.to_string())))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Scope {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_read_as_it_is_written() {
        assert_eq!(Scope::all().count(), 2 * Collection::ALL.len());
        for scope in Scope::all() {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        for text in ["", "policies", "policies:", "policies:admin", "Policies:read", "x:read"] {
            assert_eq!(text.parse::<Scope>(), Err(ScopeError), "{text}");
        }
    }

    #[test]
    fn who_may_write_may_read_and_not_the_other_way_round() {
        let (read, write) = (Scope::read(Collection::Users), Scope::write(Collection::Users));
        assert!(write.includes(read) && write.includes(write) && read.includes(read));
        assert!(!read.includes(write));
        assert!(!write.includes(Scope::read(Collection::Groups)));
    }
}

//! The vocabulary of the Cedar policies, and the schema that refuses wrong ones.

use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use cedar_policy::{
    EntityId, EntityTypeName, EntityUid, PolicySet, Schema, ValidationError, ValidationMode,
    Validator, pst,
};
use ipnet::{IpNet, Ipv4Net};

pub(crate) static ACTION: LazyLock<Kind> = LazyLock::new(|| Kind::new("Action"));
pub(crate) static CLOCK: LazyLock<Kind> = LazyLock::new(|| Kind::new("Clock"));
pub(crate) static DEVICE: LazyLock<Kind> = LazyLock::new(|| Kind::new("Device"));
pub(crate) static GROUP: LazyLock<Kind> = LazyLock::new(|| Kind::new("Group"));
pub(crate) static RESOURCE: LazyLock<Kind> = LazyLock::new(|| Kind::new("Resource"));
pub(crate) static USER: LazyLock<Kind> = LazyLock::new(|| Kind::new("User"));

/// The one action, as an id of [`ACTION`].
pub(crate) const CONNECT: &str = "connect";
/// The one action, as requests have it.
pub(crate) static CONNECT_ACTION: LazyLock<EntityUid> = LazyLock::new(|| ACTION.uid(CONNECT));
/// An attribute of a resource.
pub(crate) const TAGS: &str = "tags";

pub(crate) const POSTURE: &str = "posture";
pub(crate) const SOURCE: &str = "source";
pub(crate) const AUTHENTICATED_AGE: &str = "authenticated_age";
pub(crate) const AUTHENTICATION_METHODS: &str = "authentication_methods";
/// An attribute of the context, and the id of the entity.
pub(crate) const THE_CLOCK: &str = "clock";
pub(crate) const NOW: &str = "now";

/// A type of entity.
#[derive(Debug)]
pub(crate) struct Kind {
    in_requests: EntityTypeName,
    in_policies: pst::EntityType,
}

impl Kind {
    fn new(name: &'static str) -> Self {
        Self {
            in_requests: name.parse().expect("every name above is an identifier"),
            in_policies: pst::EntityType::from_name(
                pst::Name::unqualified(name).expect("every name above is an identifier"),
            ),
        }
    }

    /// The entity as requests have it.
    pub(crate) fn uid(&self, id: impl Display) -> EntityUid {
        EntityUid::from_type_name_and_id(self.in_requests.clone(), EntityId::new(id.to_string()))
    }

    /// The entity as policies have it.
    pub(crate) fn named(&self, id: impl Display) -> pst::EntityUID {
        pst::EntityUID { ty: self.in_policies.clone(), eid: id.to_string().into() }
    }
}

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let (schema, _warnings) =
        Schema::from_cedarschema_str(include_str!("schema.cedarschema")).expect("tests load it");
    Validator::new(schema)
});

pub(crate) fn schema() -> &'static Schema {
    VALIDATOR.schema()
}

/// The first thing in which `policies` violate the schema.
pub(crate) fn violation(policies: &PolicySet) -> Option<ValidationError> {
    VALIDATOR.validate(policies, ValidationMode::Strict).validation_errors().next().cloned()
}

/// An address as Cedar reads it. An IPv4 address inside IPv6, as sockets for both versions report
/// it, becomes plain.
pub(crate) fn address_literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => ipv6_literal(address),
    }
}

/// A network as Cedar reads it.
pub(crate) fn network_literal(network: IpNet) -> String {
    match canonical_network(network) {
        IpNet::V4(network) => network.to_string(),
        IpNet::V6(network) => {
            format!("{}/{}", ipv6_literal(network.addr()), network.prefix_len())
        }
    }
}

/// A network of IPv4 addresses inside IPv6 as a plain one, as [`address_literal`] has its members.
pub(crate) fn canonical_network(network: IpNet) -> IpNet {
    const MAPPED_PREFIX_LEN: u8 = 96;

    let IpNet::V6(inner) = network else {
        return network;
    };
    let plain = inner.addr().to_ipv4_mapped().and_then(|address| {
        let prefix_len = inner.prefix_len().checked_sub(MAPPED_PREFIX_LEN)?;
        Ipv4Net::new(address, prefix_len).ok()
    });
    plain.map_or(network, IpNet::V4)
}

/// Cedar refuses dotted quads inside IPv6, which the standard library writes.
fn ipv6_literal(address: Ipv6Addr) -> String {
    let [a, b, c, d, e, f, g, h] = address.segments();
    format!("{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}:{g:x}:{h:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violates(text: &str) -> bool {
        violation(&text.parse().unwrap()).is_some()
    }

    #[test]
    fn a_policy_within_the_schema_is_accepted() {
        assert!(!violates(
            r#"forbid (principal in Group::"g", action == Action::"connect", resource)
               when { context has source && context.source.isInRange(ip("10.0.0.0/8")) };"#
        ));
    }

    #[test]
    fn a_policy_outside_the_schema_is_refused() {
        for text in [
            r#"permit (principal, action == Action::"destroy", resource);"#,
            r#"permit (principal in Machine::"m", action, resource);"#,
            "permit (principal, action, resource) when { context.weather == 3 };",
            "permit (principal, action, resource) when { context.posture };",
            "permit (principal, action, resource) when { context.authenticated_age < 60 };",
            r#"permit (principal, action, resource)
               when { context has clock && context.clock.getTag("UTC") < 60 };"#,
            r#"permit (principal, action, resource) when { resource.tags == "db" };"#,
            r#"permit (principal, action, resource) when { context has source &&
               context.source.isInRange(ip("300.0.0.0/8")) };"#,
        ] {
            assert!(violates(text), "{text}");
        }
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_becomes_plain() {
        assert_eq!(address_literal("::ffff:192.0.2.7".parse().unwrap()), "192.0.2.7");
        assert_eq!(network_literal("::ffff:192.0.2.0/120".parse().unwrap()), "192.0.2.0/24");
        assert_eq!(network_literal("::ffff:0:0/95".parse().unwrap()), "0:0:0:0:0:ffff:0:0/95");
        assert_eq!(network_literal("::/0".parse().unwrap()), "0:0:0:0:0:0:0:0/0");
    }
}

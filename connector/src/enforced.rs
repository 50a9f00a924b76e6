//! What a connector enforces at this moment, and the one place where it decides.

use std::{net::IpAddr, sync::Arc};

use adit_policy::{
    Authorization, CompileError, Denial, Destination, Evaluator, Principal, Subject,
};
use adit_proto::{Bundle, Reason, Timestamp};
use ipnet::IpNet;

use crate::own_addresses::OwnAddresses;

/// A bundle with its policies compiled.
pub struct Enforced {
    bundle: Bundle,
    evaluator: Evaluator,
}

/// Whether there is something to enforce, and whether it may still be trusted.
#[derive(Clone, Default)]
pub enum Standing {
    /// No bundle yet: nothing is let through.
    #[default]
    Waiting,
    /// The newest bundle, confirmed by the control plane not too long ago.
    Live(Arc<Enforced>),
    /// The control plane has been silent for longer than the bundle holds: nothing is let through.
    Stale(Arc<Enforced>),
}

impl Standing {
    /// The bundle that may be acted upon.
    pub(crate) const fn live(&self) -> Option<&Arc<Enforced>> {
        match self {
            Self::Live(enforced) => Some(enforced),
            Self::Waiting => None,
            Self::Stale(_) => None,
        }
    }

    /// The newest bundle, stale or not.
    pub(crate) const fn newest(&self) -> Option<&Arc<Enforced>> {
        match self {
            Self::Live(enforced) => Some(enforced),
            Self::Stale(enforced) => Some(enforced),
            Self::Waiting => None,
        }
    }
}

impl Enforced {
    /// Compiles a bundle.
    ///
    /// # Errors
    ///
    /// [`CompileError`] names the policy or resource that cannot be compiled.
    pub fn try_new(bundle: Bundle) -> Result<Self, CompileError> {
        let evaluator = Evaluator::try_new(&bundle.policies, &bundle.resources)?;
        Ok(Self { bundle, evaluator })
    }

    pub(crate) const fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    pub(crate) const fn evaluator(&self) -> &Evaluator {
        &self.evaluator
    }

    /// Decides whether `subject` may open a flow to `destination`.
    pub(crate) fn decide(
        &self,
        subject: &Subject,
        destination: &Destination,
        own_addresses: &OwnAddresses,
        now: Timestamp,
    ) -> Result<Authorization, Denial> {
        let authorization = self.evaluator.evaluate(subject, destination, now)?;
        self.refuse_protected(authorization, destination, own_addresses)
    }

    /// Decides the same for one of whom many flows are decided.
    pub(crate) fn decide_for(
        &self,
        principal: &mut Principal,
        destination: &Destination,
        own_addresses: &OwnAddresses,
        now: Timestamp,
    ) -> Result<Authorization, Denial> {
        let authorization = principal.decide(&self.evaluator, destination, now)?;
        self.refuse_protected(authorization, destination, own_addresses)
    }

    /// On top of policy: the connector itself and the devices are no destinations, whatever prefix
    /// holds them, unless a resource names that very address.
    fn refuse_protected(
        &self,
        authorization: Authorization,
        destination: &Destination,
        own_addresses: &OwnAddresses,
    ) -> Result<Authorization, Denial> {
        let protected = own_addresses.contain(destination.address)
            || self.bundle.device_ranges.iter().any(|range| range.contains(&destination.address));
        if protected && !self.names_alone(destination) {
            return Err(Denial {
                reason: Reason::AddressReserved,
                resource_id: Some(authorization.resource_id()),
                policy_id: None,
            });
        }
        Ok(authorization)
    }

    fn names_alone(&self, destination: &Destination) -> bool {
        let lone = IpNet::from(destination.address);
        self.evaluator
            .resource_at(destination)
            .is_some_and(|resource| resource.addresses.contains(&lone))
    }
}

/// The destination of a flow, as policy sees it.
pub(crate) const fn destination_of(flow: &adit_proto::FlowTuple) -> Destination {
    Destination { address: flow.destination, port: flow.destination_port, protocol: flow.protocol }
}

/// An inner address alone, as a prefix.
pub(crate) fn lone_prefixes(addresses: &[IpAddr]) -> Vec<IpNet> {
    addresses.iter().copied().map(IpNet::from).collect()
}

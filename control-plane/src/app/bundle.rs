//! What a connector is told, made from what the store holds.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_proto::{
    Bundle, ConnectorId, OrganisationId, OrganisationKey, Revocation, SiteId, Timestamp, TokenType,
    WireguardDevice,
    api::{Policy, Resource, ResourceSelector},
};
use ipnet::IpNet;

use crate::{
    app::App,
    error::ApiError,
    store::{connectors, devices, organisation, policies, resources, revocations},
};

/// The longest that a credential may live (`OrganisationWrite::credential_lifetime_s`), twice over:
/// a revocation older than this voids nothing that has not expired.
const REVOCATION_RETENTION: Duration = Duration::from_secs(2 * 86_400);

/// A signed bundle and the sequence it was made at.
#[derive(Debug, Clone)]
pub(crate) struct SignedBundle {
    pub(crate) sequence: u64,
    pub(crate) token: Arc<str>,
}

/// The bundle of a connector at this moment. One that cannot be computed is an error, never an
/// empty bundle.
pub(crate) async fn current(
    app: &App,
    connector_id: ConnectorId,
) -> Result<SignedBundle, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let sequence = organisation::sequence(&mut *snapshot)
        .await?
        .ok_or_else(|| ApiError::internal(anyhow::anyhow!("there is no organisation")))?;
    if let Some(token) = app.live.bundles.find(connector_id, sequence) {
        return Ok(SignedBundle { sequence, token });
    }

    let now: Timestamp = SystemTime::now().into();
    let organisation = organisation::read(&mut snapshot).await?.object;
    let connector = connectors::find(&mut snapshot, connector_id)
        .await?
        .ok_or_else(ApiError::not_authenticated)?
        .connector;
    let oldest = now.saturating_sub(REVOCATION_RETENTION);
    let parts = BundleParts {
        organisation_id: organisation.id,
        connector_id,
        site_id: connector.site_id,
        sequence,
        max_offline_s: organisation.max_offline_s,
        device_ranges: organisation.device_ranges,
        organisation_keys: organisation.keys,
        resources: resources::of_site(&mut snapshot, connector.site_id).await?,
        policies: policies::enabled(&mut snapshot).await?,
        revocations: revocations::since(&mut snapshot, oldest).await?,
        wireguard_devices: devices::wireguard_devices(&mut snapshot).await?,
    };
    drop(snapshot);
    let bundle = parts.into_bundle(now);
    let token: Arc<str> = app.signer.sign_bundle(bundle).token().into();
    if token.len() > TokenType::Bundle.max_len() {
        return Err(ApiError::internal(anyhow::anyhow!(
            "bundle of {} bytes is longer than connectors accept",
            token.len()
        )));
    }
    app.live.bundles.insert(connector_id, sequence, Arc::clone(&token));
    Ok(SignedBundle { sequence, token })
}

/// Everything of one moment that concerns one connector.
#[derive(Debug)]
struct BundleParts {
    organisation_id: OrganisationId,
    connector_id: ConnectorId,
    site_id: SiteId,
    sequence: u64,
    max_offline_s: u64,
    device_ranges: Vec<IpNet>,
    organisation_keys: Vec<OrganisationKey>,
    /// Of the site.
    resources: Vec<Resource>,
    /// All that are enabled.
    policies: Vec<Policy>,
    /// All that are not older than [`REVOCATION_RETENTION`].
    revocations: Vec<Revocation>,
    /// Those that are approved and whose users are not disabled.
    wireguard_devices: Vec<WireguardDevice>,
}

impl BundleParts {
    /// Leaves out what cannot concern the connector.
    fn into_bundle(self, now: Timestamp) -> Bundle {
        let mut policies = self.policies;
        policies.retain(|policy| {
            self.resources.iter().any(|resource| selects(&policy.resources, resource))
        });
        Bundle {
            organisation_id: self.organisation_id,
            connector_id: self.connector_id,
            site_id: self.site_id,
            sequence: self.sequence,
            issued_at: now,
            max_offline_s: self.max_offline_s,
            device_ranges: self.device_ranges,
            organisation_keys: self.organisation_keys,
            resources: self.resources,
            policies,
            revocations: self.revocations,
            wireguard_devices: self.wireguard_devices,
        }
    }
}

fn selects(selector: &ResourceSelector, resource: &Resource) -> bool {
    let tags: BTreeSet<&String> = resource.tags.iter().collect();
    selector.all
        || selector.ids.contains(&resource.id)
        || selector.tags.iter().any(|tag| tags.contains(tag))
}

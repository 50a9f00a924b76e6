//! What a client is told, made from what the store holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use adit_policy::Evaluator;
use adit_proto::{
    ClientConfig, ConnectorOnClient, GroupId, ResourceOnClient, SiteId, SiteOnClient, Timestamp,
    api::{Connector, Device, Organisation, Resource, Site, User},
    sha256_base64url,
};
use sqlx::SqliteConnection;

use crate::{
    app::{App, evaluation},
    error::ApiError,
    store::{connectors, groups, organisation, sites, users},
};

/// The configuration of a device at this moment.
pub(crate) async fn current(
    app: &App,
    connection: &mut SqliteConnection,
    device: &Device,
) -> Result<ClientConfig, ApiError> {
    let policies = evaluation::current(app, connection).await?;
    let organisation = organisation::read(connection).await?.object;
    let user = users::find(connection, device.user_id)
        .await?
        .ok_or_else(ApiError::not_authenticated)?
        .object;
    let parts = ClientConfigParts {
        organisation: &organisation,
        device,
        user: &user,
        groups: &groups::of_user(connection, user.id).await?,
        sequence: policies.sequence,
        sites: &sites::all(connection).await?,
        connectors: &connectors::all(connection).await?,
    };
    Ok(parts.into_client_config(&policies.evaluator, SystemTime::now().into()))
}

/// Everything of one moment that a device may see.
#[derive(Debug)]
struct ClientConfigParts<'a> {
    organisation: &'a Organisation,
    device: &'a Device,
    user: &'a User,
    groups: &'a [GroupId],
    sequence: u64,
    /// All there are.
    sites: &'a [Site],
    /// All there are.
    connectors: &'a [Connector],
}

impl ClientConfigParts<'_> {
    /// Leaves out what no policy lets the device reach.
    fn into_client_config(self, evaluator: &Evaluator, now: Timestamp) -> ClientConfig {
        let mut resources: Vec<ResourceOnClient> = evaluator
            .visible_resources(self.user.id, self.groups, self.device.id)
            .into_iter()
            .map(resource_on_client)
            .collect();
        resources.sort_by_key(|resource| resource.id);
        let visible_sites: BTreeSet<SiteId> =
            resources.iter().map(|resource| resource.site_id).collect();

        let mut connectors: BTreeMap<SiteId, Vec<ConnectorOnClient>> = BTreeMap::new();
        for connector in self.connectors {
            connectors.entry(connector.site_id).or_default().push(connector_on_client(connector));
        }
        let mut sites: Vec<SiteOnClient> = self
            .sites
            .iter()
            .filter(|site| visible_sites.contains(&site.id))
            .map(|site| SiteOnClient {
                id: site.id,
                name: site.name.clone(),
                connectors: connectors.remove(&site.id).unwrap_or_default(),
            })
            .collect();
        sites.sort_by_key(|site| site.id);
        for site in &mut sites {
            site.connectors.sort_by_key(|connector| connector.id);
        }

        ClientConfig {
            organisation_id: self.organisation.id,
            organisation_name: self.organisation.name.clone(),
            device_id: self.device.id,
            device_name: self.device.name.clone(),
            user_id: self.user.id,
            user_name: self.user.name.clone(),
            sequence: self.sequence,
            issued_at: now,
            addresses: self.device.addresses.clone(),
            organisation_keys: self.organisation.keys.clone(),
            resources,
            sites,
        }
    }
}

/// Names the content of a configuration, so that it stays while nothing changes for this device:
/// when it was made and what changed for others are left out.
pub(crate) fn content_digest(config: &ClientConfig) -> String {
    let content = ClientConfig { sequence: 0, issued_at: Timestamp::default(), ..config.clone() };
    let json = serde_json::to_vec(&content).expect("a configuration is representable in JSON");
    sha256_base64url(&json)
}

fn resource_on_client(resource: &Resource) -> ResourceOnClient {
    ResourceOnClient {
        id: resource.id,
        name: resource.name.clone(),
        site_id: resource.site_id,
        addresses: resource.addresses.clone(),
        filters: resource.filters.clone(),
    }
}

fn connector_on_client(connector: &Connector) -> ConnectorOnClient {
    ConnectorOnClient {
        id: connector.id,
        name: connector.name.clone(),
        endpoints: connector.endpoints.clone(),
        pin: connector.pin,
        wireguard_public_key: connector.wireguard_public_key,
    }
}

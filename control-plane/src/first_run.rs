//! Who this control plane is. The first run makes the organisation, its keys and an API token.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use adit_proto::{
    OrganisationId,
    api::{ApiTokenWrite, Role},
};
use anyhow::{Context as _, bail};
use ipnet::{Ipv4Net, Ipv6Net};
use tracing::info;

use crate::{
    app::{api_tokens, random},
    data_dir::{DataDir, hostname},
    error::ApiError,
    signing::Signer,
    store::{
        ActorId, Store,
        organisation::{self, Origin, Settings},
    },
};

/// What is made once and then only read.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) organisation_id: OrganisationId,
    pub(crate) signer: Signer,
}

/// Where this machine is probably found.
pub(crate) fn default_url(address: SocketAddr) -> String {
    let port = address.port();
    if address.ip().is_unspecified() {
        let host = hostname().unwrap_or_else(|| "localhost".to_owned());
        format!("https://{host}:{port}")
    } else {
        format!("https://{address}")
    }
}

/// Reads the identity; at the first run makes it and says what to do next.
pub(crate) async fn identity(
    data_dir: &DataDir,
    store: &Store,
    organisation_name: &str,
    public_url: &str,
) -> anyhow::Result<Identity> {
    let mut snapshot = store.snapshot().await?;
    let held = organisation::find(&mut snapshot).await.context("failed to read the database")?;
    drop(snapshot);
    let key_file = data_dir.organisation_key();
    let Some(held) = held else {
        // A crash may have left the key of a first run that was never finished.
        let signer =
            if key_file.exists() { Signer::load(&key_file) } else { Signer::create(&key_file) }
                .with_context(|| format!("failed to make {}", key_file.display()))?;
        let organisation_id = make(data_dir, store, &signer, organisation_name).await?;
        greet(data_dir, public_url);
        return Ok(Identity { organisation_id, signer });
    };

    let signer = Signer::load(&key_file)
        .with_context(|| format!("failed to read {}", key_file.display()))?;
    if !held.object.keys.contains(&signer.organisation_key()) {
        bail!(
            "{} is not the key of this organisation; restore the one that belongs to the database",
            key_file.display()
        );
    }
    Ok(Identity { organisation_id: held.object.id, signer })
}

async fn make(
    data_dir: &DataDir,
    store: &Store,
    signer: &Signer,
    name: &str,
) -> anyhow::Result<OrganisationId> {
    let outward = |error: ApiError| match error.source {
        Some(source) => source.context(error.detail),
        None => anyhow::Error::msg(error.detail),
    };
    let mut change = store.begin_change(ActorId::ControlPlane).await?;
    let id = OrganisationId::from_uuid(random::new_uuid(change.now()).map_err(outward)?);
    let origin = Origin {
        id,
        ipv4_range: Ipv4Net::new_assert(Ipv4Addr::new(100, 80, 0, 0), 12),
        ipv6_range: draw_ipv6_range().context("failed to draw an address range")?,
        signing_key: signer.organisation_key(),
    };
    let settings = Settings {
        name: name.to_owned(),
        approve_devices: false,
        max_offline_s: 86_400,
        credential_lifetime_s: 3_600,
        session_lifetime_s: None,
    };
    organisation::insert(&mut change, &origin, &settings).await?;

    let write = ApiTokenWrite {
        name: "first".to_owned(),
        description: None,
        role: Role::Owner,
        scopes: None,
        lifetime_s: None,
    };
    let (_token, secret) = api_tokens::issue(&mut change, write).await.map_err(outward)?;
    // Before the commit: a token that nobody knows would lock everybody out.
    data_dir
        .write_secret(&data_dir.admin_token(), &format!("{}\n", secret.expose()))
        .context("failed to write the admin token; is the disk full?")?;
    let organisation = organisation::read(change.connection()).await?.object;
    change.commit("organisation.create", id, Some(&organisation)).await?;
    info!(organisation_id = %id, "Made the organisation");
    Ok(id)
}

/// A /48 of unique local addresses with a random global id (RFC 4193 §3.2).
fn draw_ipv6_range() -> anyhow::Result<Ipv6Net> {
    let mut octets = [0; 16];
    let (prefix, _) = octets.split_at_mut(6);
    getrandom::fill(prefix)?;
    octets[0] = 0xfd;
    Ok(Ipv6Net::new_assert(Ipv6Addr::from(octets), 48))
}

/// Whoever reads this has just installed a control plane: where it is, and the next command.
fn greet(data_dir: &DataDir, public_url: &str) {
    let token = data_dir.admin_token();
    let certificate = data_dir.certificate_file();
    let mut text = String::new();
    let _ = write!(
        text,
        "\nThe control plane is at {public_url}\n\
         An API token that may do everything is in {token}\n\n\
         Next, make a site, and a token with which its connector joins:\n\n\
         curl --cacert {certificate} -H \"Authorization: Bearer $(cat {token})\" \\\n\
         \x20 -H 'Content-Type: application/json' -d '{{\"name\":\"office\"}}' \\\n\
         \x20 {public_url}/v1/sites\n\n\
         The API describes itself at {public_url}/v1/openapi.json\n\
         Where clients and connectors find it under another name, say --public-url.\n\n",
        token = token.display(),
        certificate = certificate.display(),
    );
    // Nobody may be there to read it; the log says as much.
    let _ = io::stdout().write_all(text.as_bytes());
    info!(data_dir = %data_dir.path().display(), %public_url, "First run finished");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_unique_local_and_differ() {
        let (one, other) = (draw_ipv6_range().unwrap(), draw_ipv6_range().unwrap());
        assert_ne!(one, other);
        let ula: Ipv6Net = "fd00::/8".parse().unwrap();
        assert!(ula.contains(&one) && one.trunc() == one);
    }

    #[tokio::test]
    async fn a_second_run_is_the_same_organisation() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        let store = Store::open(&data_dir.database()).await.unwrap();
        let first = identity(&data_dir, &store, "Adit", "https://c.example").await.unwrap();
        let second = identity(&data_dir, &store, "Other", "https://c.example").await.unwrap();
        assert_eq!(first.organisation_id, second.organisation_id);
    }

    #[tokio::test]
    async fn a_foreign_organisation_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        let store = Store::open(&data_dir.database()).await.unwrap();
        identity(&data_dir, &store, "Adit", "https://c.example").await.unwrap();
        std::fs::remove_file(data_dir.organisation_key()).unwrap();
        Signer::create(&data_dir.organisation_key()).unwrap();
        let error = identity(&data_dir, &store, "Adit", "https://c.example").await.unwrap_err();
        assert!(error.to_string().contains("is not the key of this organisation"));
    }
}

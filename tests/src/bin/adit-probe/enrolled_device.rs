use std::{fs, path::PathBuf};

use adit_proto::{
    AssertionSubject, ClientConfig, DeviceId, JoinToken, OrganisationKey, Signed, TokenType,
    api::{ClientEnroll, ClientEnrolled, CredentialIssued},
};
use adit_tunnel::{ControlPlane, Fetched, KeyPair, WireguardSecret};
use anyhow::{Context as _, anyhow, bail};

#[derive(clap::Args)]
pub(crate) struct EnrolmentKey {
    /// A file that holds an enrolment key.
    #[arg(long)]
    key_file: PathBuf,
}

impl EnrolmentKey {
    pub(crate) fn token(&self) -> anyhow::Result<JoinToken> {
        let file = &self.key_file;
        fs::read_to_string(file)
            .with_context(|| format!("failed to read {}", file.display()))?
            .parse()
            .context("malformed enrolment key")
    }
}

/// A device that has joined as the client does, and asks for what the client asks for.
pub(crate) struct EnrolledDevice {
    pub(crate) id: DeviceId,
    organisation_keys: Vec<OrganisationKey>,
    control_plane: ControlPlane,
}

impl EnrolledDevice {
    pub(crate) async fn join(token: &JoinToken, name: &str, key: &KeyPair) -> anyhow::Result<Self> {
        let wireguard = WireguardSecret::try_generate().map_err(|error| anyhow!("{error}"))?;
        let control_plane = ControlPlane::try_new(token.url(), *token.pin())?;
        let enroll = ClientEnroll {
            secret: token.secret().to_owned().into(),
            name: name.to_owned(),
            device_key: key.spki_base64url(),
            wireguard_public_key: wireguard.public_key(),
        };
        let enrolled: ClientEnrolled = control_plane.post("/v1/client/enroll", &enroll).await?;
        let subject = AssertionSubject::Device(enrolled.device_id);

        Ok(Self {
            id: enrolled.device_id,
            organisation_keys: enrolled.organisation_keys,
            control_plane: control_plane.with_identity(subject, key.clone()),
        })
    }

    pub(crate) async fn credential(&self) -> anyhow::Result<String> {
        let issued: CredentialIssued =
            self.control_plane.post("/v1/client/credential", &()).await?;

        Ok(issued.credential)
    }

    pub(crate) async fn config(&self) -> anyhow::Result<ClientConfig> {
        match self.control_plane.fetch_signed("/v1/client/config", None).await? {
            Fetched::New { token, etag: _ } => {
                let signed =
                    Signed::verify(&token, TokenType::ClientConfig, &self.organisation_keys)?;
                Ok(signed.into_payload())
            }
            Fetched::Unchanged => bail!("nothing was fetched before"),
        }
    }
}

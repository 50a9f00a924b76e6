use std::{fs, path::PathBuf};

use adit_proto::ConnectorOnClient;
use adit_tunnel::KeyPair;
use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    enrolled_device::{EnrolledDevice, EnrolmentKey},
    event,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    enrolment_key: EnrolmentKey,
    /// Where to write `device-key.pem`, `certificate.pem` and `credential`.
    #[arg(long)]
    directory: PathBuf,
}

/// Enrols a device for a client that others wrote, and prints what that needs to know.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let token = args.enrolment_key.token()?;
    let directory = &args.directory;
    fs::create_dir_all(directory)
        .with_context(|| format!("failed to make {}", directory.display()))?;
    let key = KeyPair::load_or_create(&directory.join("device-key.pem"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let (device_id, credential, config) = runtime.block_on(async {
        let device = EnrolledDevice::join(&token, "peer", &key).await.context("failed to join")?;
        let credential = device.credential().await.context("no credential")?;
        let config = device.config().await.context("no configuration")?;
        anyhow::Ok((device.id, credential, config))
    })?;

    for (name, text) in
        [("certificate.pem", pem(&key.certificate())), ("credential", credential + "\n")]
    {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    let connectors = config.sites.iter().flat_map(|site| &site.connectors).map(describe);
    event::print(
        "enrolled",
        json!({
            "device_id": device_id,
            "addresses": config.addresses,
            "connectors": connectors.collect::<Vec<_>>(),
        }),
    );

    Ok(())
}

fn describe(connector: &ConnectorOnClient) -> Value {
    json!({ "name": connector.name, "endpoints": connector.endpoints, "pin": connector.pin })
}

/// Writes a certificate as RFC 7468 has it, in lines of 64 characters.
fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut rest = text.as_str();
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");

    pem
}

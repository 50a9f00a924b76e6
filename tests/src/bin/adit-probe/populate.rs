use std::{fs, net::SocketAddr, path::PathBuf};

use adit_tests::ApiConnection;
use anyhow::{Context as _, ensure};
use boringtun::x25519::{PublicKey, StaticSecret};
use serde_json::{Value, json};

use crate::{
    crowd::{Device, encode_key},
    event,
};

/// How many requests are on their way at a time.
const PIPELINE: usize = 50;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the control plane listens.
    control_plane: SocketAddr,
    /// Its data directory.
    #[arg(long)]
    data_dir: PathBuf,
    /// The site that gets resources.
    #[arg(long)]
    site: String,
    /// The user who gets policies and devices.
    #[arg(long)]
    user: String,
    /// How many policies to write, each for a resource of its own.
    #[arg(long, default_value_t = 0)]
    policies: usize,
    /// How many plain WireGuard devices to register.
    #[arg(long, default_value_t = 0)]
    devices: usize,
    /// Where to write the devices' keys and addresses.
    #[arg(long)]
    devices_file: Option<PathBuf>,
}

/// Fills a control plane.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut api = ApiConnection::open(args.control_plane, &args.data_dir)
        .context("failed to reach the control plane")?;
    let resources = (0..args.policies).map(|number| {
        let [high, low] = u16::try_from(number % 65_536).unwrap_or_default().to_be_bytes();
        json!({
            "name": format!("resource {number}"),
            "site_id": args.site,
            "addresses": [format!("172.{}.{high}.{low}/32", 16 + number / 65_536)],
        })
    });
    let resources = create(&mut api, "/v1/resources", resources.collect())?;
    let policies = resources.iter().enumerate().map(|(number, resource)| {
        json!({
            "name": format!("policy {number}"),
            "effect": "permit",
            "subjects": { "users": [args.user] },
            "resources": { "ids": [resource["id"]] },
        })
    });
    create(&mut api, "/v1/policies", policies.collect())?;

    let secrets: Vec<_> = (0..args.devices).map(|_| draw_key()).collect::<anyhow::Result<_>>()?;
    let devices = secrets.iter().enumerate().map(|(number, secret)| {
        json!({
            "name": format!("device {number}"),
            "user_id": args.user,
            "wireguard_public_key": encode_key(PublicKey::from(secret).as_bytes()),
        })
    });
    let devices = create(&mut api, "/v1/devices", devices.collect())?;
    if let Some(file) = &args.devices_file {
        let devices = devices.iter().zip(&secrets).map(|(answer, secret)| {
            Device::new(secret, &answer["addresses"]).map(|device| device.to_json())
        });
        let devices: Vec<Value> = devices.collect::<anyhow::Result<_>>()?;
        let text = serde_json::to_vec(&devices).context("failed to write JSON")?;
        fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))?;
    }
    event::print("populated", json!({ "policies": args.policies, "devices": devices.len() }));

    Ok(())
}

fn draw_key() -> anyhow::Result<StaticSecret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("failed to draw a key")?;

    Ok(StaticSecret::from(bytes))
}

/// Creates objects, and returns the answers in the same order.
fn create(api: &mut ApiConnection, path: &str, bodies: Vec<Value>) -> anyhow::Result<Vec<Value>> {
    let mut answers = Vec::with_capacity(bodies.len());
    for bodies in bodies.chunks(PIPELINE) {
        for body in bodies {
            api.send("POST", path, &[], Some(body))?;
        }
        for _ in bodies {
            let answer = api.receive()?;
            ensure!(answer.status < 300, "{path}: {answer:?}");
            answers.push(answer.body);
        }
    }

    Ok(answers)
}

use std::net::Ipv4Addr;

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use boringtun::x25519::StaticSecret;
use serde_json::{Value, json};

/// A plain WireGuard device.
pub(crate) struct Device {
    pub(super) secret: StaticSecret,
    pub(super) address: Ipv4Addr,
}

impl Device {
    /// Takes the IPv4 address of those that the control plane gave.
    pub(crate) fn new(secret: &StaticSecret, addresses: &Value) -> anyhow::Result<Self> {
        let addresses = addresses.as_array().context("a device has no addresses")?;
        let address = addresses.iter().find_map(|address| address.as_str()?.parse().ok());

        Ok(Self {
            secret: secret.clone(),
            address: address.context("a device has no IPv4 address")?,
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({ "secret": encode_key(self.secret.as_bytes()), "address": self.address })
    }

    pub(super) fn from_json(value: &Value) -> anyhow::Result<Self> {
        let text = |name: &str| value[name].as_str().with_context(|| format!("no {name}"));

        Ok(Self {
            secret: decode_key(text("secret")?)?,
            address: text("address")?.parse().context("malformed address")?,
        })
    }
}

pub(crate) fn encode_key(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

pub(crate) fn decode_key<T: From<[u8; 32]>>(text: &str) -> anyhow::Result<T> {
    let bytes = STANDARD.decode(text.trim()).context("malformed key")?;
    let bytes: [u8; 32] = bytes.as_slice().try_into().context("malformed key")?;

    Ok(bytes.into())
}

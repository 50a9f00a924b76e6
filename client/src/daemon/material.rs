//! Configuration and credential: what is needed to connect, verified.

use std::time::Duration;

use adit_proto::{
    ClientConfig, Credential, CredentialError, DeviceId, OrganisationKey, Pin, Signed, SignedError,
    Timestamp, TokenType,
};

/// A verified configuration, and a verified credential.
#[derive(Debug, Default)]
pub(crate) struct Material {
    config: Option<Signed<ClientConfig>>,
    credential: Option<HeldCredential>,
}

#[derive(Debug)]
struct HeldCredential {
    token: String,
    expires_at: Timestamp,
}

/// What has come of a new configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConfigOutcome {
    /// It says what is known.
    Unchanged,
    /// It says something new.
    Changed,
}

/// Why a configuration is not taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The organisation did not sign it.
    #[error("configuration is not the organisation's")]
    Signed(#[from] SignedError),
    /// It is for another device.
    #[error("configuration is for {0}, which is another device")]
    OtherDevice(DeviceId),
    /// It is older than the one at hand.
    #[error("configuration {offered} is older than {held}, which is at hand")]
    Older {
        /// The sequence number that came.
        offered: u64,
        /// The one at hand.
        held: u64,
    },
}

impl Material {
    pub(crate) fn config(&self) -> Option<&ClientConfig> {
        self.config.as_ref().map(Signed::payload)
    }

    /// The credential, while it is valid.
    pub(crate) fn credential(&self, now: Timestamp) -> Option<&str> {
        let held = self.credential.as_ref()?;
        (held.expires_at > now).then_some(held.token.as_str())
    }

    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.credential.as_ref().map(|held| held.expires_at)
    }

    /// Whether connecting is possible.
    pub(crate) fn is_complete(&self, now: Timestamp) -> bool {
        self.config.is_some() && self.credential(now).is_some()
    }

    /// Takes over a configuration, once it is verified.
    ///
    /// A configuration is older when both its number and its time say so: a control plane that was
    /// restored from a backup counts from a smaller number on.
    pub(crate) fn handle_config(
        &mut self,
        token: &str,
        device_id: DeviceId,
        trusted_keys: &[OrganisationKey],
    ) -> Result<ConfigOutcome, ConfigError> {
        let offered: Signed<ClientConfig> =
            Signed::verify(token, TokenType::ClientConfig, trusted_keys)?;
        let config = offered.payload();
        if config.device_id != device_id {
            return Err(ConfigError::OtherDevice(config.device_id));
        }
        if let Some(held) = self.config() {
            if config.sequence < held.sequence && config.issued_at <= held.issued_at {
                return Err(ConfigError::Older { offered: config.sequence, held: held.sequence });
            }
            if says_the_same(config, held) {
                self.config = Some(offered);
                return Ok(ConfigOutcome::Unchanged);
            }
        }
        self.config = Some(offered);
        Ok(ConfigOutcome::Changed)
    }

    /// Takes over a credential, once it is verified; returns how long it lives.
    pub(crate) fn handle_credential(
        &mut self,
        token: &str,
        trusted_keys: &[OrganisationKey],
        own_pin: &Pin,
        now: Timestamp,
    ) -> Result<Duration, CredentialError> {
        let credential = Credential::verify(token, trusted_keys, own_pin, now)?;
        let expires_at = credential.expires_at.0;
        self.credential = Some(HeldCredential { token: token.to_owned(), expires_at });
        Ok(expires_at.saturating_duration_since(now))
    }

    pub(crate) fn forget_credential(&mut self) {
        self.credential = None;
    }

    /// The keys to trust from now on: those that the configuration announces, as long as it is
    /// itself signed by one of them.
    pub(crate) fn announced_keys(&self) -> Option<&[OrganisationKey]> {
        let config = self.config.as_ref()?;
        let keys = &config.payload().organisation_keys;
        Signed::<ClientConfig>::verify(config.token(), TokenType::ClientConfig, keys).ok()?;
        Some(keys)
    }

    pub(crate) fn config_token(&self) -> Option<&str> {
        self.config.as_ref().map(Signed::token)
    }
}

/// Number and time aside.
fn says_the_same(one: &ClientConfig, other: &ClientConfig) -> bool {
    let other = ClientConfig { sequence: one.sequence, issued_at: one.issued_at, ..other.clone() };
    *one == other
}

#[cfg(test)]
mod tests {
    use adit_proto::{OrganisationId, SigningKey, UserId};

    use super::*;

    fn device() -> DeviceId {
        "dev_00000000000000000000000000000001".parse().unwrap()
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn config(sequence: u64, keys: &[&SigningKey]) -> ClientConfig {
        ClientConfig {
            organisation_id: "org_00000000000000000000000000000001"
                .parse::<OrganisationId>()
                .unwrap(),
            organisation_name: "Example".to_owned(),
            device_id: device(),
            device_name: "laptop".to_owned(),
            user_id: "usr_00000000000000000000000000000001".parse::<UserId>().unwrap(),
            user_name: "Ada".to_owned(),
            sequence,
            issued_at: Timestamp::from_millis(i64::try_from(sequence).unwrap() * 1000),
            addresses: vec!["100.80.0.1".parse().unwrap()],
            organisation_keys: keys.iter().map(|key| key.organisation_key()).collect(),
            resources: Vec::new(),
            sites: Vec::new(),
        }
    }

    fn sign(config: ClientConfig, key: &SigningKey) -> String {
        Signed::sign(config, TokenType::ClientConfig, key).token().to_owned()
    }

    fn handle(material: &mut Material, token: &str) -> Result<ConfigOutcome, ConfigError> {
        material.handle_config(token, device(), &[key(1).organisation_key()])
    }

    #[test]
    fn a_configuration_of_the_organisation_is_taken_over() {
        let mut material = Material::default();
        let token = sign(config(1, &[&key(1)]), &key(1));
        assert_eq!(handle(&mut material, &token).unwrap(), ConfigOutcome::Changed);
        assert_eq!(material.config().unwrap().sequence, 1);
    }

    #[test]
    fn a_configuration_signed_by_another_key_is_refused() {
        let mut material = Material::default();
        let token = sign(config(1, &[&key(2)]), &key(2));
        assert!(matches!(
            handle(&mut material, &token),
            Err(ConfigError::Signed(SignedError::UnknownKey))
        ));
        assert!(material.config().is_none());
    }

    #[test]
    fn a_configuration_for_another_device_is_refused() {
        let mut material = Material::default();
        let other = ClientConfig {
            device_id: "dev_00000000000000000000000000000002".parse().unwrap(),
            ..config(1, &[&key(1)])
        };
        let token = sign(other, &key(1));
        assert!(matches!(handle(&mut material, &token), Err(ConfigError::OtherDevice(_))));
    }

    #[test]
    fn an_older_configuration_is_refused_and_the_newer_kept() {
        let mut material = Material::default();
        handle(&mut material, &sign(config(2, &[&key(1)]), &key(1))).unwrap();
        let older = sign(config(1, &[&key(1)]), &key(1));
        assert!(matches!(
            handle(&mut material, &older),
            Err(ConfigError::Older { offered: 1, held: 2 })
        ));
        assert_eq!(material.config().unwrap().sequence, 2);
    }

    #[test]
    fn a_control_plane_restored_from_a_backup_is_followed() {
        let mut material = Material::default();
        handle(&mut material, &sign(config(9, &[&key(1)]), &key(1))).unwrap();
        let restored = ClientConfig {
            issued_at: Timestamp::from_millis(20_000),
            user_name: "Grace".to_owned(),
            ..config(3, &[&key(1)])
        };
        let outcome = handle(&mut material, &sign(restored, &key(1))).unwrap();
        assert_eq!(outcome, ConfigOutcome::Changed);
    }

    #[test]
    fn a_new_number_alone_changes_nothing() {
        let mut material = Material::default();
        handle(&mut material, &sign(config(1, &[&key(1)]), &key(1))).unwrap();
        let next = sign(config(2, &[&key(1)]), &key(1));
        assert_eq!(handle(&mut material, &next).unwrap(), ConfigOutcome::Unchanged);
        assert_eq!(material.config().unwrap().sequence, 2);
    }

    #[test]
    fn announced_keys_are_trusted_only_if_the_signer_is_among_them() {
        let mut material = Material::default();
        handle(&mut material, &sign(config(1, &[&key(1), &key(2)]), &key(1))).unwrap();
        let expected = [key(1).organisation_key(), key(2).organisation_key()];
        assert_eq!(material.announced_keys(), Some(expected.as_slice()));

        handle(&mut material, &sign(config(2, &[&key(2)]), &key(1))).unwrap();
        assert_eq!(material.announced_keys(), None);
    }
}

//! The newest good bundle: in memory, and on disk for the next start.

use std::sync::Arc;

use adit_policy::CompileError;
use adit_proto::{Bundle, BundleError};
use tracing::{info, warn};

use crate::{
    enforced::Enforced,
    state_dir::{Membership, StateDir},
};

/// Keeps the newest good bundle and knows whose signature to trust.
pub(crate) struct BundleStore {
    state: StateDir,
    membership: Membership,
    held: Option<Arc<Enforced>>,
}

/// Why a bundle is refused; the one at hand stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleRefused {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("bundle {sequence} cannot be compiled")]
    Compile { sequence: u64, source: CompileError },
}

impl BundleStore {
    /// Starts from the last good bundle on disk, if there is one.
    pub(crate) fn open(state: StateDir, membership: Membership) -> Self {
        let mut store = Self { state, membership, held: None };
        match store.state.read_bundle() {
            Ok(Some(token)) => match store.verify(&token) {
                Ok(enforced) => {
                    let bundle = enforced.bundle();
                    info!(sequence = bundle.sequence, issued_at = %bundle.issued_at,
                        "Started from the bundle on disk");
                    store.held = Some(Arc::new(enforced));
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    warn!(error, "Bundle on disk is not usable; waiting for the control plane");
                }
            },
            Ok(None) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, "Bundle on disk cannot be read; waiting for the control plane");
            }
        }
        store
    }

    pub(crate) const fn held(&self) -> Option<&Arc<Enforced>> {
        self.held.as_ref()
    }

    pub(crate) const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Takes a bundle over from the control plane. It is to be enforced before [`Self::persist`]:
    /// no revocation waits for a disk.
    ///
    /// # Errors
    ///
    /// When it is unsigned, older, meant for another or cannot be compiled.
    pub(crate) fn accept(&mut self, token: &str) -> Result<Arc<Enforced>, BundleRefused> {
        let enforced = Arc::new(self.verify(token)?);
        self.held = Some(Arc::clone(&enforced));
        Ok(enforced)
    }

    /// Keeps the accepted bundle for the next start. A disk that is full keeps the one before.
    pub(crate) fn persist(&mut self, token: &str) {
        // The bundle first: it is signed by a key that the membership on disk names already.
        let mut result = self.state.write_bundle(token);
        if let Some(held) = &self.held
            && result.is_ok()
            && self.membership.organisation_keys != held.bundle().organisation_keys
        {
            self.membership.organisation_keys.clone_from(&held.bundle().organisation_keys);
            result = self.state.write_membership(&self.membership);
        }
        if let Err(error) = result {
            let error: &dyn std::error::Error = &error;
            warn!(
                error,
                "Failed to keep the bundle on disk; it is enforced until the next restart"
            );
        }
    }

    fn verify(&self, token: &str) -> Result<Enforced, BundleRefused> {
        let held = self.held.as_ref().map(|held| held.bundle());
        let bundle = Bundle::verify(
            token.trim_end(),
            held.map_or(&self.membership.organisation_keys, |held| &held.organisation_keys),
            self.membership.connector_id,
            held.map(|held| held.sequence),
        )?;
        let sequence = bundle.sequence;
        Enforced::try_new(bundle).map_err(|source| BundleRefused::Compile { sequence, source })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use adit_proto::{
        ConnectorId, OrganisationId, Pin, Signed, SignedError, SigningKey, SiteId, Timestamp,
        TokenType,
    };
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_good_bundle_survives_a_restart() {
        let world = World::new();
        world.open().keep(&bundle(7).sign(1));
        assert_eq!(world.open().held().unwrap().bundle().sequence, 7);
    }

    #[test]
    fn an_older_bundle_is_refused_and_the_good_one_kept() {
        let world = World::new();
        let mut store = world.open();
        store.keep(&bundle(7).sign(1));
        let refused = store.accept(&bundle(6).sign(1)).err().unwrap();
        assert!(matches!(refused, BundleRefused::Bundle(BundleError::Older { .. })));
        assert_eq!(store.held().unwrap().bundle().sequence, 7);
        drop(store);
        assert_eq!(world.open().held().unwrap().bundle().sequence, 7);
    }

    #[test]
    fn an_unsigned_or_foreign_bundle_is_refused() {
        let world = World::new();
        let mut store = world.open();
        store.keep(&bundle(7).sign(1));
        let foreign = store.accept(&bundle(8).sign(2)).err().unwrap();
        assert!(matches!(
            foreign,
            BundleRefused::Bundle(BundleError::Signed(SignedError::UnknownKey))
        ));
        for broken in ["", "x.y.z", "{}"] {
            assert!(store.accept(broken).is_err());
        }
        assert_eq!(store.held().unwrap().bundle().sequence, 7);
    }

    #[test]
    fn a_bundle_for_another_connector_is_refused() {
        let world = World::new();
        let other = ConnectorId::from_uuid(Uuid::from_u128(99));
        let stray = BundleToSign(Bundle { connector_id: other, ..bundle(7).0 });
        assert!(world.open().accept(&stray.sign(1)).is_err());
    }

    #[test]
    fn a_corrupt_file_is_as_none_until_the_control_plane_is_heard() {
        let world = World::new();
        world.open().keep(&bundle(7).sign(1));
        fs::write(world.directory.path().join("bundle.jws"), "garbage").unwrap();
        let mut store = world.open();
        assert!(store.held().is_none());
        store.keep(&bundle(8).sign(1));
        drop(store);
        assert_eq!(world.open().held().unwrap().bundle().sequence, 8);
    }

    #[test]
    fn an_announced_key_may_sign_the_next_bundle() {
        let world = World::new();
        let mut store = world.open();
        store.keep(&announcing(bundle(7), &[1, 2]).sign(1));
        store.keep(&announcing(bundle(8), &[2]).sign(2));
        let retired = store.accept(&announcing(bundle(9), &[1]).sign(1));
        assert!(retired.is_err(), "a retired key signs no more");
        drop(store);
        assert_eq!(world.open().held().unwrap().bundle().sequence, 8);
    }

    struct World {
        directory: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let world = Self { directory: tempfile::tempdir().unwrap() };
            let membership = Membership {
                url: "https://control.example:8443".to_owned(),
                pin: Pin::from_spki(b"control plane"),
                connector_id: ConnectorId::from_uuid(Uuid::nil()),
                site_id: SiteId::from_uuid(Uuid::nil()),
                organisation_id: OrganisationId::from_uuid(Uuid::nil()),
                organisation_keys: vec![key(1).organisation_key()],
            };
            world.state().write_membership(&membership).unwrap();
            world
        }

        fn state(&self) -> StateDir {
            StateDir::try_open(self.directory.path()).unwrap()
        }

        fn open(&self) -> BundleStore {
            let state = self.state();
            let membership = state.read_membership().unwrap().unwrap();
            BundleStore::open(state, membership)
        }
    }

    impl BundleStore {
        fn keep(&mut self, token: &str) {
            self.accept(token).unwrap();
            self.persist(token);
        }
    }

    struct BundleToSign(Bundle);

    impl BundleToSign {
        fn sign(self, seed: u8) -> String {
            Signed::sign(self.0, TokenType::Bundle, &key(seed)).token().to_owned()
        }
    }

    fn announcing(bundle: BundleToSign, seeds: &[u8]) -> BundleToSign {
        let organisation_keys = seeds.iter().map(|seed| key(*seed).organisation_key()).collect();
        BundleToSign(Bundle { organisation_keys, ..bundle.0 })
    }

    fn bundle(sequence: u64) -> BundleToSign {
        BundleToSign(Bundle {
            organisation_id: OrganisationId::from_uuid(Uuid::nil()),
            connector_id: ConnectorId::from_uuid(Uuid::nil()),
            site_id: SiteId::from_uuid(Uuid::nil()),
            sequence,
            issued_at: Timestamp::from_millis(0),
            max_offline_s: 3600,
            device_ranges: Vec::new(),
            organisation_keys: vec![key(1).organisation_key()],
            resources: Vec::new(),
            policies: Vec::new(),
            revocations: Vec::new(),
            wireguard_devices: Vec::new(),
        })
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }
}

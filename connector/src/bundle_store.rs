//! The newest good bundle: in memory, and on disk for the next start.

use std::sync::Arc;

use adit_policy::CompileError;
use adit_proto::{Bundle, BundleError, OrganisationKey};
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

    /// Takes a bundle over from the control plane.
    ///
    /// # Errors
    ///
    /// When it is unsigned, older, meant for another or cannot be compiled.
    pub(crate) fn accept(&mut self, token: &str) -> Result<Arc<Enforced>, BundleRefused> {
        let enforced = Arc::new(self.verify(token)?);
        self.held = Some(Arc::clone(&enforced));
        self.persist(token, &enforced.bundle().organisation_keys);
        Ok(enforced)
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

    /// A disk that is full keeps the old bundle; the new one is enforced all the same.
    fn persist(&mut self, token: &str, organisation_keys: &[OrganisationKey]) {
        // The bundle first: it is signed by a key that the membership on disk names already.
        let mut result = self.state.write_bundle(token);
        if result.is_ok() && self.membership.organisation_keys != organisation_keys {
            self.membership.organisation_keys = organisation_keys.to_vec();
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
}

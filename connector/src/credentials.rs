//! Whether a credential is one that the organisation signed for who shows it.

use std::time::SystemTime;

use adit_proto::{Credential, CredentialError, OrganisationKey, Pin, Reason};
use tokio::sync::watch;
use tracing::info;

use crate::enforced::Standing;

/// Verifies credentials by the keys of the newest bundle.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub(crate) standing: watch::Receiver<Standing>,
    /// Trusted until a bundle names the organisation's keys.
    pub(crate) organisation_keys: Vec<OrganisationKey>,
}

impl Verifier {
    /// Verifies what the holder of a key shows. Revocation is not looked at: that is admission's.
    pub(crate) fn verify(&self, token: &str, peer_pin: &Pin) -> Result<Credential, Reason> {
        let standing = self.standing.borrow();
        let keys = standing
            .newest()
            .map_or(&self.organisation_keys, |held| &held.bundle().organisation_keys);
        Credential::verify(token, keys, peer_pin, SystemTime::now().into()).map_err(|error| {
            let reason = match error {
                CredentialError::Expired { .. } => Reason::CredentialExpired,
                CredentialError::Signed(_)
                | CredentialError::WrongKey
                | CredentialError::NotYetValid { .. } => Reason::CredentialInvalid,
            };
            let error: &dyn std::error::Error = &error;
            info!(error, "Refused a credential");
            reason
        })
    }
}

//! Users who are at an identity provider at this moment.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use adit_proto::{IdentityProviderId, SignInId, Timestamp};
use subtle::ConstantTimeEq as _;

use crate::{app::random::secret_hash, open_id_connect::Expected};

/// How long a user may take at the provider.
pub(crate) const LIFETIME: Duration = Duration::from_mins(10);

/// As many as there may be sign-ins; beyond it, others wait.
const MAX_HELD: usize = 1000;

/// One user at a provider.
pub(crate) struct ProviderFlow {
    pub(crate) sign_in_id: SignInId,
    pub(crate) identity_provider_id: IdentityProviderId,
    /// What the answer must fit to.
    pub(crate) expected: Expected,
}

/// By `state`, each bound to the browser that began it. Each is taken once, so that a code that is
/// replayed meets nothing.
#[derive(Default)]
pub(crate) struct ProviderFlows {
    held: Mutex<BTreeMap<[u8; 32], Held>>,
}

struct Held {
    browser: [u8; 32],
    began_at: Timestamp,
    flow: ProviderFlow,
}

impl ProviderFlows {
    /// False: there are too many.
    pub(crate) fn insert(
        &self,
        state: &str,
        browser: &str,
        flow: ProviderFlow,
        now: Timestamp,
    ) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, held| held.began_at > now.saturating_sub(LIFETIME));
        if held.len() >= MAX_HELD {
            return false;
        }
        let browser = secret_hash(browser);
        held.insert(secret_hash(state), Held { browser, began_at: now, flow });
        true
    }

    /// What this browser began with this state.
    pub(crate) fn take(&self, state: &str, browser: &str, now: Timestamp) -> Option<ProviderFlow> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let found = held.remove(&secret_hash(state))?;
        let is_same: bool = found.browser.ct_eq(&secret_hash(browser)).into();
        let is_in_time = found.began_at > now.saturating_sub(LIFETIME);
        (is_same && is_in_time).then_some(found.flow)
    }
}

impl std::fmt::Debug for ProviderFlows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProviderFlows(..)")
    }
}

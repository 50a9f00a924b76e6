//! What is known only while the process runs.

mod bundle_cache;
mod evaluator_cache;
mod presence;
mod seen_assertions;
mod token_uses;

pub(crate) use bundle_cache::BundleCache;
pub(crate) use evaluator_cache::EvaluatorCache;
pub(crate) use presence::{OpenStream, Presence};
pub(crate) use seen_assertions::SeenAssertions;
pub(crate) use token_uses::TokenUses;

/// Open streams, signed bundles, compiled policies, assertions already used and tokens in use.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) presence: Presence,
    pub(crate) bundles: BundleCache,
    pub(crate) evaluators: EvaluatorCache,
    pub(crate) assertions: SeenAssertions,
    pub(crate) token_uses: TokenUses,
}

//! What is known only while the process runs.

mod bundle_cache;
mod evaluator_cache;
mod presence;
mod seen_assertions;

pub(crate) use bundle_cache::BundleCache;
pub(crate) use evaluator_cache::EvaluatorCache;
pub(crate) use presence::{OpenStream, Presence};
pub(crate) use seen_assertions::SeenAssertions;

/// Open streams, signed bundles, compiled policies and assertions already used.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) presence: Presence,
    pub(crate) bundles: BundleCache,
    pub(crate) evaluators: EvaluatorCache,
    pub(crate) assertions: SeenAssertions,
}

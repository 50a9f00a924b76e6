//! What is known only while the process runs.

mod bundle_cache;
mod code_tries;
mod evaluator_cache;
mod poll_pace;
mod presence;
mod provider_flows;
mod seen_assertions;
mod token_uses;

pub(crate) use bundle_cache::BundleCache;
pub(crate) use code_tries::CodeTries;
pub(crate) use evaluator_cache::EvaluatorCache;
pub(crate) use poll_pace::{INTERVAL, PollPace};
pub(crate) use presence::{OpenStream, Presence};
pub(crate) use provider_flows::{LIFETIME as PROVIDER_FLOW_LIFETIME, ProviderFlow, ProviderFlows};
pub(crate) use seen_assertions::SeenAssertions;
pub(crate) use token_uses::TokenUses;

/// Open streams, signed bundles, compiled policies, assertions already used, tokens in use, and who
/// tries what how often.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) presence: Presence,
    pub(crate) bundles: BundleCache,
    pub(crate) evaluators: EvaluatorCache,
    pub(crate) assertions: SeenAssertions,
    pub(crate) token_uses: TokenUses,
    pub(crate) poll_pace: PollPace,
    pub(crate) code_tries: CodeTries,
    pub(crate) provider_flows: ProviderFlows,
}

//! The one policy evaluator that every Adit program uses.
//!
//! An [`Evaluator`] is compiled once from the policies and resources of a bundle. The control plane
//! simulates with it, the connector enforces with it, and [`Evaluator::explain`] explains with it.
//!
//! 1. *Resource.* Address, protocol and port lead to one resource, outside Cedar: see
//!    [`ResourceMap`]. A [`reserved_address()`] is refused unless a resource names it alone.
//! 2. *Policy.* Each policy is one Cedar policy with the policy's id. A flow sees only those that
//!    can apply to its resource.
//! 3. *Verdict.* A forbid beats every permit and deny is the default. Cedar skips a policy whose
//!    evaluation fails, which would turn a failing forbid into none at all; so any failure denies.
//!
//! What is not known is held against the subject: a permit with source networks does not match a
//! device whose outer address is unknown, and a forbid with source networks does. The same goes for
//! the age of a sign-in that never was.
//!
//! The crate is pure: it opens no socket and reads no clock.

#![forbid(unsafe_code)]

mod compile;
mod evaluate;
mod evaluator;
mod explain;
mod reserved_address;
mod resource_map;
mod schema;
#[cfg(test)]
mod tests;
mod validate;

pub use compile::CompileError;
pub use evaluate::{Authorization, Denial, Destination, Subject};
pub use evaluator::Evaluator;
pub use reserved_address::reserved_address;
pub use resource_map::ResourceMap;
pub use validate::{InvalidPolicy, InvalidResource, validate_policy, validate_resource};

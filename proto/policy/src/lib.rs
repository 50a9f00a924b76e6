//! The one policy evaluator that every Adit program uses.
//!
//! An [`Evaluator`] is compiled once from the policies and resources of a bundle. The control plane
//! simulates with it, the connector enforces with it, and [`Evaluator::explain`] explains with it.
//!
//! 1. *Resource.* Address, protocol and port lead to one resource, outside Cedar: see
//!    [`ResourceMap`]. A [`reserved_address()`] is refused unless a resource names it alone.
//! 2. *Policy.* Each policy is one Cedar policy with the policy's id. A flow sees only those that
//!    name its subject and its resource: an index finds them, however many there are.
//! 3. *Verdict.* A forbid beats every permit and deny is the default. One policy is decisive, and
//!    Cedar is asked about it: nothing passes unless the index and Cedar agree. Cedar skips a
//!    policy whose evaluation fails, which would turn a failing forbid into none at all; so a
//!    failure denies.
//!
//! What is not known is held against the subject: a permit with source networks does not match a
//! device whose outer address is unknown, and a forbid with source networks does. The same goes for
//! the age of a sign-in that never was.
//!
//! The crate is pure: it opens no socket and reads no clock.

#![forbid(unsafe_code)]

mod access;
mod compile;
mod conditions;
mod evaluate;
mod evaluator;
mod explain;
mod places;
mod principal;
mod reserved_address;
mod resource_map;
mod schema;
mod subject_index;
#[cfg(test)]
pub(crate) mod tests;
mod time_window;
mod validate;

pub use access::{AccessSide, Reacher, access_difference};
pub use compile::CompileError;
pub use evaluate::{Authentication, Authorization, Denial, Destination, Subject};
pub use evaluator::Evaluator;
pub use principal::Principal;
pub use reserved_address::reserved_address;
pub use resource_map::ResourceMap;
pub use validate::{InvalidPolicy, InvalidResource, validate_policy, validate_resource};

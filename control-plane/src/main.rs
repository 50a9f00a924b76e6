//! The control plane: identities, resources and policies by a REST API, signed for those who
//! enforce them.

mod api;
mod app;
mod error;
mod store;

fn main() {}

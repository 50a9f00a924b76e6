//! End-to-end tests, one module per behaviour. One binary, because linking many is slow.

#[path = "e2e/flows.rs"]
mod flows;
#[path = "e2e/harness.rs"]
mod harness;

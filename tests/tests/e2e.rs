//! End-to-end tests, one module per behaviour. One binary, because linking many is slow.

#[path = "e2e/agreement.rs"]
mod agreement;
#[path = "e2e/api_conformance.rs"]
mod api_conformance;
#[path = "e2e/attacks.rs"]
mod attacks;
#[path = "e2e/bad_input.rs"]
mod bad_input;
#[path = "e2e/carriers.rs"]
mod carriers;
#[path = "e2e/connectors.rs"]
mod connectors;
#[path = "e2e/diagnosis.rs"]
mod diagnosis;
#[path = "e2e/durability.rs"]
mod durability;
#[path = "e2e/floods.rs"]
mod floods;
#[path = "e2e/flows.rs"]
mod flows;
#[path = "e2e/harness.rs"]
mod harness;
#[path = "e2e/known_networks.rs"]
mod known_networks;
#[path = "e2e/lanes.rs"]
mod lanes;
#[path = "e2e/masque.rs"]
mod masque;
#[path = "e2e/offloads.rs"]
mod offloads;
#[path = "e2e/path_mtu.rs"]
mod path_mtu;
#[path = "e2e/peers.rs"]
mod peers;
#[path = "e2e/policy.rs"]
mod policy;
#[path = "e2e/policy_files.rs"]
mod policy_files;
#[path = "e2e/restarts.rs"]
mod restarts;
#[path = "e2e/revocation.rs"]
mod revocation;
#[path = "e2e/sessions.rs"]
mod sessions;
#[path = "e2e/sign_in.rs"]
mod sign_in;
#[path = "e2e/transfers.rs"]
mod transfers;
#[path = "e2e/trouble.rs"]
mod trouble;

//! How permitted packets reach services: through this host's kernel.

mod kernel;
mod link;
mod nft;
mod sysctl;

pub(crate) use kernel::{KernelForwarding, KernelPath, SourceNat};

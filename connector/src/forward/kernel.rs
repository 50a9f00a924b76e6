//! A TUN device whose packets the kernel routes to services and back.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use adit_policy::Authorization;
use adit_tunnel::{Offloads, Run, TunDevice, TunError};
use anyhow::Context as _;
use ipnet::IpNet;
use tracing::{info, warn};

use super::{link, nft, sysctl};
use crate::forwarder::Reset;

/// Whether services see the connector's address or the device's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SourceNat {
    /// Services see the connector's address; nothing has to be routed back.
    On,
    /// Services see the device's address; their network routes the device ranges to the connector.
    Off,
}

/// The packets' side of the interface, which is there until all clones are dropped.
#[derive(Clone)]
pub(crate) struct KernelPath {
    tun: TunDevice,
}

impl KernelPath {
    pub(crate) fn try_open(
        interface: &str,
        mtu: u16,
        offloads: Offloads,
    ) -> Result<Self, TunError> {
        TunDevice::try_open(interface, mtu, offloads).map(|tun| Self { tun })
    }

    pub(crate) const fn mtu(&self) -> u16 {
        self.tun.mtu()
    }

    const fn index(&self) -> u32 {
        self.tun.index()
    }

    /// Hands a device's packets to the kernel, which routes them to the service.
    ///
    /// Demands the proof that their flow may pass.
    pub(crate) fn forward(
        &mut self,
        run: &mut Run<'_>,
        _proof: &Authorization,
    ) -> io::Result<bool> {
        self.tun.write_run(run)
    }

    /// Tells a service that its flow was cut.
    pub(crate) fn reset(&self, reset: &Reset) -> io::Result<bool> {
        self.tun.write_packet(reset.bytes())
    }

    /// Answers the service that sent a packet which does not fit.
    pub(crate) fn answer(&self, icmp_error: &[u8]) -> io::Result<bool> {
        self.tun.write_packet(icmp_error)
    }

    pub(crate) fn read_frame<'b>(&self, into: &'b mut [u8]) -> io::Result<Option<&'b mut [u8]>> {
        self.tun.read_frame(into)
    }
}

impl AsFd for KernelPath {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}

/// The kernel's side of the interface: routes, forwarding, source NAT.
pub(crate) struct KernelForwarding {
    interface: String,
    index: u32,
    mtu: u16,
    source_nat: SourceNat,
    device_ranges: Vec<IpNet>,
}

impl KernelForwarding {
    pub(crate) const fn new(interface: String, path: &KernelPath, source_nat: SourceNat) -> Self {
        let (index, mtu) = (path.index(), path.mtu());
        Self { interface, index, mtu, source_nat, device_ranges: Vec::new() }
    }

    /// Finds out early whether the host lets us forward.
    pub(crate) async fn check() -> anyhow::Result<()> {
        nft::run(nft::PROBE).await
    }

    /// Forwards for devices of these ranges. Does nothing when it does so already.
    pub(crate) async fn configure(&mut self, device_ranges: &[IpNet]) -> anyhow::Result<()> {
        if device_ranges == self.device_ranges {
            return Ok(());
        }
        sysctl::enable_forwarding(&self.interface, device_ranges)?;
        // Before the routes, so that no packet leaves with a device's address.
        let ruleset = nft::ruleset(&self.interface, self.mtu, self.source_nat, device_ranges);
        nft::run(&ruleset).await?;
        let added = device_ranges.iter().filter(|range| !self.device_ranges.contains(range));
        let removed = self.device_ranges.iter().filter(|range| !device_ranges.contains(range));
        link::configure(self.index, added.copied().collect(), removed.copied().collect())
            .await
            .with_context(|| format!("failed to set up interface {}", self.interface))?;
        self.device_ranges = device_ranges.to_vec();
        info!(interface = %self.interface, ?device_ranges, mtu = self.mtu, "Forwarding");
        Ok(())
    }

    /// Takes the nftables table away; the interface goes with the process.
    pub(crate) async fn remove(&self) {
        if self.device_ranges.is_empty() {
            return;
        }
        if let Err(error) = nft::run(&nft::removal(&self.interface)).await {
            warn!(error = format!("{error:#}"), "Failed to remove the nftables table");
        }
    }
}

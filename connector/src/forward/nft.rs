//! Source NAT and the size of TCP segments, through `nft`.

use std::{io, process::Stdio};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::SourceNat;

/// The table that a connector has to itself, one for each interface.
fn table(interface: &str) -> String {
    let name: String = interface
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '_' })
        .collect();
    format!("inet adit_{name}")
}

/// Puts the table in place in one transaction, whatever was there before.
///
/// Connection tracking is not flushed, and the table outlives the process, so connections survive a
/// restart. Meanwhile nothing for a device may take another way than the tunnel, such as the default
/// route, and at no time may a neighbour pose as a device.
pub(super) fn ruleset(
    interface: &str,
    mtu: u16,
    source_nat: SourceNat,
    device_ranges: &[IpNet],
) -> String {
    /// IP and TCP headers without options.
    const IPV4_HEADERS: u16 = 40;
    const IPV6_HEADERS: u16 = 60;

    let table = table(interface);
    let masquerade: String = match source_nat {
        SourceNat::Off => String::new(),
        SourceNat::On => device_ranges
            .iter()
            .map(|range| {
                let family = family(range);
                format!("    {family} saddr {range} oifname != \"{interface}\" masquerade\n")
            })
            .collect(),
    };
    let guard: String = device_ranges
        .iter()
        .map(|range| {
            let family = family(range);
            format!(
                "    {family} daddr {range} oifname != \"{interface}\" drop\n\
                 \x20   {family} saddr {range} iifname != \"{interface}\" drop\n"
            )
        })
        .collect();
    let segment_size: String = [("ipv4", mtu - IPV4_HEADERS), ("ipv6", mtu - IPV6_HEADERS)]
        .iter()
        .flat_map(|(family, size)| {
            ["iifname", "oifname"].map(|direction| {
                format!(
                    "    {direction} \"{interface}\" meta nfproto {family} tcp flags syn tcp \
                     option maxseg size set {size}\n"
                )
            })
        })
        .collect();
    format!(
        "add table {table}\n\
         delete table {table}\n\
         table {table} {{\n\
         \x20 chain forward {{\n\
         \x20   type filter hook forward priority mangle; policy accept;\n\
         \x20   iifname \"{interface}\" tcp flags syn tcp option maxseg size set rt mtu\n\
         {segment_size}\
         {guard}\
         \x20 }}\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat; policy accept;\n\
         {masquerade}\
         \x20 }}\n\
         }}\n"
    )
}

const fn family(range: &IpNet) -> &'static str {
    match range {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}

/// Takes the table away.
pub(super) fn removal(interface: &str) -> String {
    let table = table(interface);
    format!("add table {table}\ndelete table {table}\n")
}

/// Asks for nothing, to learn at start whether `nft` is there and may be used.
pub(super) const PROBE: &str = "list tables\n";

/// Hands a script to `nft`.
pub(super) async fn run(script: &str) -> anyhow::Result<()> {
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut nft = match spawned {
        Ok(nft) => nft,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("nft is missing; install the package nftables")
        }
        Err(error) => return Err(error).context("failed to run nft"),
    };
    let mut stdin = nft.stdin.take().context("nft has no standard input")?;
    // When nft ends early its message says more than the broken pipe.
    let _broken_pipe: io::Result<()> = stdin.write_all(script.as_bytes()).await;
    drop(stdin);
    let output = nft.wait_with_output().await.context("failed to wait for nft")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!(
            "nft refuses the rules, {}: {}; is the kernel built with nf_tables, and is this root?",
            output.status,
            message.lines().next().unwrap_or_default()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Vec<IpNet> {
        vec!["100.80.0.0/12".parse().unwrap(), "fd00:1::/48".parse().unwrap()]
    }

    #[test]
    fn device_ranges_are_masqueraded_and_take_no_other_way() {
        let script = ruleset("adit-conn0", 1420, SourceNat::On, &ranges());
        assert!(script.contains("ip saddr 100.80.0.0/12 oifname != \"adit-conn0\" masquerade"));
        assert!(script.contains("ip6 saddr fd00:1::/48 oifname != \"adit-conn0\" masquerade"));
        assert!(script.contains("ip daddr 100.80.0.0/12 oifname != \"adit-conn0\" drop"));
        assert!(script.starts_with("add table inet adit_adit_conn0\ndelete table"));
    }

    #[test]
    fn without_source_nat_nothing_is_masqueraded() {
        assert!(!ruleset("adit-conn0", 1420, SourceNat::Off, &ranges()).contains("masquerade"));
    }
}

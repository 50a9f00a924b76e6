//! How long a packet the TUN device takes.

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

/// What is left of the 1,500 bytes of nearly every path by QUIC over IPv4. WireGuard leaves 4 more;
/// over IPv6 each leaves 20 fewer, which the tunnel finds out.
pub(crate) const USUAL_MTU: u16 = 1_436;

/// Outer IPv4 and UDP headers, and what QUIC has around a packet.
const OVERHEAD: u32 = 20 + 8 + 36;

/// The MTU for a TUN device of this host: where a link takes jumbo frames, as much as fits into
/// them. Which of it a path takes the tunnel finds out, and senders are told.
///
/// Falls back on the usual MTU where the links cannot be listed.
pub async fn tun_mtu() -> u16 {
    match longest_link_mtu().await {
        Ok(longest) => mtu_within(longest),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "Failed to list the links, so jumbo frames are not used");
            USUAL_MTU
        }
    }
}

fn mtu_within(link_mtu: u32) -> u16 {
    /// Some virtual links take 65,535 bytes, which no path does.
    const JUMBO: u32 = 9_000;

    let fits = link_mtu.min(JUMBO).saturating_sub(OVERHEAD);
    u16::try_from(fits).unwrap_or(USUAL_MTU).max(USUAL_MTU)
}

async fn longest_link_mtu() -> anyhow::Result<u32> {
    let (connection, handle, _messages) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let links = handle.link().get().execute().try_collect::<Vec<_>>().await;
    connection.abort();
    Ok(links?.iter().filter(|link| leads_somewhere(link)).filter_map(mtu_of).max().unwrap_or(0))
}

/// Whether datagrams may leave by a link: it is up, and neither the loopback nor a tunnel.
fn leads_somewhere(link: &LinkMessage) -> bool {
    let is_kind_of_tunnel =
        |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Tun | InfoKind::Wireguard));
    let is_tunnel = link.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.iter().any(is_kind_of_tunnel))
    });
    let flags = link.header.flags;
    flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Loopback) && !is_tunnel
}

fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::Mtu(mtu) = attribute else { return None };
        Some(*mtu)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumbo_frames_are_used_and_small_links_left_to_the_tunnel() {
        let mtus = [0, 1_280, 1_500, 4_000, 9_000, 65_535].map(mtu_within);
        assert_eq!(mtus, [1_436, 1_436, 1_436, 3_936, 8_936, 8_936]);
    }
}

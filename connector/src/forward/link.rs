//! The interface and its routes, through netlink.

use adit_tunnel::TUN_QUEUE_LEN;
use anyhow::Context as _;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder, new_connection,
    packet_route::{
        link::LinkAttribute,
        route::{RouteMessage, RouteScope},
    },
};

/// Brings the interface up, then adds and removes routes through it.
pub(super) async fn configure(
    index: u32,
    added: Vec<IpNet>,
    removed: Vec<IpNet>,
) -> anyhow::Result<()> {
    let (connection, handle, _messages) = new_connection().context("failed to open netlink")?;
    let connection = tokio::spawn(connection);
    let result = apply(&handle, index, added, removed).await;
    connection.abort();
    result
}

async fn apply(
    handle: &Handle,
    index: u32,
    added: Vec<IpNet>,
    removed: Vec<IpNet>,
) -> anyhow::Result<()> {
    let up = LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::TxQueueLen(TUN_QUEUE_LEN))
        .up()
        .build();
    handle.link().set(up).execute().await.context("failed to bring it up")?;
    for range in added {
        let route = route(index, range)?;
        handle.route().add(route).execute().await.with_context(|| {
            format!("failed to add a route to {range}; see `ip route show {range}`")
        })?;
    }
    for range in removed {
        let route = route(index, range)?;
        handle
            .route()
            .del(route)
            .execute()
            .await
            .with_context(|| format!("failed to remove the route to {range}"))?;
    }
    Ok(())
}

fn route(index: u32, range: IpNet) -> anyhow::Result<RouteMessage> {
    let scope = match range {
        IpNet::V4(_) => RouteScope::Link,
        IpNet::V6(_) => RouteScope::Universe,
    };
    let builder = RouteMessageBuilder::<std::net::IpAddr>::new()
        .destination_prefix(range.network(), range.prefix_len())
        .with_context(|| format!("{range} cannot be routed"))?;
    Ok(builder.output_interface(index).scope(scope).build())
}

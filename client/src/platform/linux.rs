//! Linux: interface and routes by netlink, groups by the name service.

use std::{
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use adit_tunnel::TUN_QUEUE_LEN;
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use rtnetlink::{
    Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressFlags, AddressHeaderFlags},
        link::LinkAttribute,
        route::{
            RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
            RouteType, RouteVia,
        },
    },
};

use tokio::sync::mpsc;

use crate::daemon::{event::Event, routing::Route, task::Task};

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// No netlink socket.
    #[error("failed to open a netlink socket")]
    Socket(#[source] io::Error),
    /// A request failed.
    #[error("failed to {action}")]
    Request {
        /// What was asked.
        action: String,
        /// What the kernel says.
        source: io::Error,
    },
}

impl NetworkError {
    /// Whether the route or address is there already.
    pub(crate) fn is_already_there(&self) -> bool {
        self.os_error() == Some(libc::EEXIST)
    }

    /// Whether it was not there.
    pub(crate) fn is_not_there(&self) -> bool {
        matches!(self.os_error(), Some(libc::ESRCH | libc::ENOENT | libc::ENODEV))
    }

    fn os_error(&self) -> Option<i32> {
        match self {
            Self::Socket(source) => source.raw_os_error(),
            Self::Request { source, .. } => source.raw_os_error(),
        }
    }
}

/// Sends to `changed` whenever an interface, an address or a route is another than before, until
/// nobody listens; many changes at once are one or two.
pub(crate) fn watch_network(changed: mpsc::Sender<Event>) -> Result<Task, NetworkError> {
    /// Within which changes belong together.
    const SETTLE: Duration = Duration::from_millis(20);
    const GROUPS: &[MulticastGroup] = &[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];

    let (connection, _handle, mut messages) =
        rtnetlink::new_multicast_connection(GROUPS).map_err(NetworkError::Socket)?;
    Ok(Task::spawn(async move {
        let connection = Task::spawn(connection);
        while messages.recv().await.is_ok() {
            while messages.try_recv().is_ok() {}
            if changed.send(Event::NetworkChanged).await.is_err() {
                break;
            }
            tokio::time::sleep(SETTLE).await;
        }
        drop(connection);
    }))
}

/// Interfaces, addresses and routes of this network namespace.
#[derive(Debug)]
pub(crate) struct Network {
    handle: Handle,
    _connection: Task,
}

impl Network {
    pub(crate) fn try_new() -> Result<Self, NetworkError> {
        let (connection, handle, _messages) =
            rtnetlink::new_connection().map_err(NetworkError::Socket)?;
        Ok(Self { handle, _connection: Task::spawn(connection) })
    }

    /// Sets the length of a TUN device's queue, and brings it up.
    pub(crate) async fn bring_up(&self, interface: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(interface)
            .append_extra_attribute(LinkAttribute::TxQueueLen(TUN_QUEUE_LEN))
            .up()
            .build();
        self.handle
            .link()
            .change(message)
            .execute()
            .await
            .map_err(|error| failed("bring the interface up".to_owned(), error))
    }

    /// Gives the interface an address of its own, without a network around it.
    pub(crate) async fn add_address(
        &self,
        interface: u32,
        address: IpAddr,
    ) -> Result<(), NetworkError> {
        let length = IpNet::from(address).prefix_len();
        let mut request = self.handle.address().add(interface, address, length);
        if address.is_ipv6() {
            // Nobody else is on the link who could have it too.
            let header = &mut request.message_mut().header;
            header.flags |= AddressHeaderFlags::from_bits_retain(
                u8::try_from(AddressFlags::Nodad.bits()).unwrap_or_default(),
            );
        }
        request.execute().await.map_err(|error| failed(format!("add address {address}"), error))
    }

    /// Takes an address away from the interface.
    pub(crate) async fn remove_address(
        &self,
        interface: u32,
        address: IpAddr,
    ) -> Result<(), NetworkError> {
        let length = IpNet::from(address).prefix_len();
        let message = match address {
            IpAddr::V4(address) => rtnetlink::AddressMessageBuilder::<Ipv4Addr>::new()
                .index(interface)
                .address(address, length)
                .build(),
            IpAddr::V6(address) => rtnetlink::AddressMessageBuilder::<Ipv6Addr>::new()
                .index(interface)
                .address(address, length)
                .build(),
        };
        self.handle
            .address()
            .del(message)
            .execute()
            .await
            .map_err(|error| failed(format!("remove address {address}"), error))
    }

    /// The unicast routes of the main table, of both families.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>, NetworkError> {
        let mut routes = Vec::new();
        let questions = [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ];
        for question in questions {
            let mut answers = self.handle.route().get(question).execute();
            loop {
                match answers.try_next().await {
                    Ok(Some(message)) => routes.extend(to_route(&message)),
                    Ok(None) => break,
                    Err(error) => return Err(failed("list the routes".to_owned(), error)),
                }
            }
        }
        Ok(routes)
    }

    pub(crate) async fn add_route(&self, route: &Route) -> Result<(), NetworkError> {
        self.handle
            .route()
            .add(to_message(route))
            .execute()
            .await
            .map_err(|error| failed(format!("add route {}", route.destination), error))
    }

    pub(crate) async fn remove_route(&self, route: &Route) -> Result<(), NetworkError> {
        self.handle
            .route()
            .del(to_message(route))
            .execute()
            .await
            .map_err(|error| failed(format!("remove route {}", route.destination), error))
    }
}

/// The name of an interface, as people know it.
pub(crate) fn interface_name(index: u32) -> String {
    match nix::net::if_::if_indextoname(index) {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("interface {index}"),
    }
}

/// The name of this machine; empty when it has none.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The id of a group, if there is one of this name.
pub(crate) fn lookup_group(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// Whether a user belongs to a group, by their main group or any other.
pub(crate) fn is_member(uid: u32, main_gid: u32, gid: u32) -> bool {
    if main_gid == gid {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return false;
    };
    let Ok(name) = CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&Gid::from_raw(gid)))
}

fn failed(action: String, error: rtnetlink::Error) -> NetworkError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only one variant comes from the kernel")]
    let source = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    };
    NetworkError::Request { action, source }
}

fn to_message(route: &Route) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.destination.addr(), route.destination.prefix_len())
        .expect("an IpNet's length fits its family")
        .output_interface(route.interface)
        // 186 and above are free for daemons that do not register (rtnetlink(7)).
        .protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
    if let Some(gateway) = route.gateway {
        builder = match builder.clone().gateway(gateway) {
            Ok(with_gateway) => with_gateway,
            // An IPv4 next hop of an IPv6 route, which the kernel never lists.
            Err(_) => builder,
        };
        // A gateway that is itself reached by a host route only.
        builder = builder.onlink();
    } else if route.destination.addr().is_ipv4() {
        builder = builder.scope(RouteScope::Link);
    }
    if let Some(source) = route.source {
        builder = match builder.clone().pref_source(source) {
            Ok(with_source) => with_source,
            Err(_) => builder,
        };
    }
    if route.metric > 0 {
        builder = builder.priority(route.metric);
    }
    builder.build()
}

/// How routes made by Adit are marked in the kernel's table.
const ROUTE_PROTOCOL: u8 = 221;

fn to_route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut destination = if header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else if header.address_family == AddressFamily::Inet6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        return None;
    };
    let (mut gateway, mut interface, mut metric, mut source) = (None, None, 0, None);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel tells more than is needed")]
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(address) => destination = to_ip(address)?,
            RouteAttribute::Gateway(address) => gateway = to_ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::PrefSource(address) => source = to_ip(address),
            RouteAttribute::MultiPath(hops) => {
                // Any of several equal ways will do.
                let hop = hops.first()?;
                interface = Some(hop.interface_index);
                gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(address) => to_ip(address),
                    RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(Route { destination, gateway, interface: interface?, metric, source })
}

fn to_ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        return Some((*address).into());
    }
    if let RouteAddress::Inet6(address) = address {
        return Some((*address).into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_survives_the_kernels_form() {
        let route = Route {
            destination: "192.0.2.7/32".parse().unwrap(),
            gateway: Some("10.0.0.1".parse().unwrap()),
            interface: 3,
            metric: 50,
            source: Some("10.0.0.5".parse().unwrap()),
        };
        assert_eq!(to_route(&to_message(&route)), Some(route));
    }

    #[test]
    fn routes_of_other_tables_are_not_ours() {
        let route = Route {
            destination: "fd00::/64".parse().unwrap(),
            gateway: None,
            interface: 3,
            metric: 0,
            source: None,
        };
        let mut message = to_message(&route);
        assert_eq!(to_route(&message), Some(route));
        message.attributes.push(RouteAttribute::Table(100));
        assert_eq!(to_route(&message), None);
    }

    #[test]
    fn root_is_a_member_of_its_own_group() {
        assert!(is_member(0, 0, 0));
        assert!(!is_member(0, 0, 54_321));
    }
}

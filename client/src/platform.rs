//! What differs between operating systems, chosen once.

mod linux;

pub(crate) use linux::{
    Network, NetworkError, host_name, interface_name, is_member, lookup_group, watch_network,
};

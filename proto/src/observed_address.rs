//! Where a connector sees whoever asks it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The request path of [`ObservedAddress`] at a connector; the method is GET, on QUIC or on TCP,
/// and no credential is asked for.
pub const OBSERVED_ADDRESS_PATH: &str = "/v1/observed-address";

/// Longest answer in bytes.
pub const MAX_OBSERVED_ADDRESS_LEN: usize = 256;

/// The address from which a request came, as its connection's other end sees it: behind a network
/// address translator the translator's (the reflexive transport address of RFC 5780).
///
/// It tells the asker nothing about others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedAddress {
    /// Address and port.
    pub address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observed_address_is_short() {
        let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535";
        let observed = ObservedAddress { address: address.parse().unwrap() };
        assert!(serde_json::to_vec(&observed).unwrap().len() <= MAX_OBSERVED_ADDRESS_LEN);
    }

    #[test]
    fn an_observed_address_reads_as_documented() {
        let observed: ObservedAddress =
            serde_json::from_str(r#"{"address": "203.0.113.7:4321"}"#).unwrap();
        assert_eq!(observed.address, "203.0.113.7:4321".parse().unwrap());
    }
}

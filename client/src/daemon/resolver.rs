//! Names of endpoints.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Finds addresses of `host:port`, and remembers them for when the name service cannot be reached:
/// it may itself be behind the tunnel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver {
    known: Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>,
}

impl Resolver {
    pub(crate) async fn resolve(&self, endpoint: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = endpoint.parse() {
            return Ok(vec![address]);
        }
        let found = match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(endpoint)).await {
            Ok(found) => found.map(Iterator::collect::<Vec<_>>),
            Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                known.insert(endpoint.to_owned(), addresses.clone());
                Ok(addresses)
            }
            Ok(_) | Err(_) if known.contains_key(endpoint) => {
                Ok(known.get(endpoint).cloned().unwrap_or_default())
            }
            Ok(_) => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            Err(error) => Err(error),
        }
    }
}

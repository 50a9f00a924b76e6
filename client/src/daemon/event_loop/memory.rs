//! What is remembered of networks, and which of them this machine is in.

use adit_proto::ConnectorId;

use crate::{
    carrier::{Carrier, SessionCarrier},
    daemon::{
        known_networks::{KnownNetworks, NetworkId, Remembered},
        obstacle,
        store::Store,
    },
};

/// Which carriers worked where. What is not known is tried in the usual order.
pub(super) struct Memory {
    known: KnownNetworks,
    here: Option<NetworkId>,
}

impl Memory {
    pub(super) fn load(store: &Store) -> Self {
        let known = store.known_networks().unwrap_or_else(|error| {
            let error = obstacle::chain(&error);
            tracing::warn!(error, "Carriers of known networks are forgotten");
            KnownNetworks::default()
        });
        Self { known, here: None }
    }

    /// This machine is in this network, or in none.
    pub(super) fn handle_network(&mut self, network: Option<NetworkId>) {
        if self.here != network {
            let known = network.is_some_and(|network| self.known.contains(&network));
            let network = network.map(|network| network.to_string());
            tracing::debug!(?network, known, "This machine is in another network");
        }
        self.here = network;
    }

    /// What worked with a connector here.
    pub(super) fn remembered(&self, connector: ConnectorId) -> Remembered {
        let here = self.here.as_ref();
        here.map(|here| self.known.remembered(here, connector)).unwrap_or_default()
    }

    /// Packets go to a connector by this carrier.
    pub(super) fn note_carrier(&mut self, connector: ConnectorId, carrier: Carrier, store: &Store) {
        self.note(connector, |remembered| remembered.carrier = Some(carrier), store);
    }

    /// The session with a connector goes by this carrier.
    pub(super) fn note_session(
        &mut self,
        connector: ConnectorId,
        carrier: SessionCarrier,
        store: &Store,
    ) {
        self.note(connector, |remembered| remembered.session_carrier = Some(carrier), store);
    }

    fn note(
        &mut self,
        connector: ConnectorId,
        change: impl FnOnce(&mut Remembered),
        store: &Store,
    ) {
        let Some(here) = &self.here else { return };
        if self.known.note(here, connector, change)
            && let Err(error) = store.save_known_networks(&self.known)
        {
            tracing::warn!(error = obstacle::chain(&error), "Carriers cannot be remembered");
        }
    }
}

//! Devices as those see them who serve their requests.

use std::collections::HashMap;

use adit_proto::{DeviceId, Reason};
use tokio::sync::watch;

use crate::data_plane::DeviceOnConnector;

/// A device that is admitted, and what becomes of it.
#[derive(Debug, Clone)]
pub(crate) struct Member(watch::Receiver<State>);

#[derive(Debug, Clone)]
enum State {
    Admitted(Box<DeviceOnConnector>),
    Gone(Reason),
}

impl Member {
    /// The device at this moment, or why it is no longer admitted.
    pub(crate) fn device(&self) -> Result<DeviceOnConnector, Reason> {
        match &*self.0.borrow() {
            State::Admitted(device) => Ok((**device).clone()),
            State::Gone(reason) => Err(*reason),
        }
    }

    /// Returns when something of the device has changed.
    ///
    /// # Cancel safety
    ///
    /// No change is missed when the future is dropped.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The connector stops; flows end with it.
            std::future::pending::<()>().await;
        }
    }

    /// Returns why the device is no longer admitted, when it is so.
    pub(crate) async fn gone(&mut self) -> Reason {
        loop {
            if let Err(reason) = self.device() {
                return reason;
            }
            self.changed().await;
        }
    }
}

/// The devices that somebody follows.
#[derive(Default)]
pub(crate) struct Members(HashMap<DeviceId, watch::Sender<State>>);

impl Members {
    pub(super) fn follow(&mut self, device: DeviceOnConnector) -> Member {
        let device_id = device.subject.device_id;
        let sender = self
            .0
            .entry(device_id)
            .or_insert_with(|| watch::channel(State::Admitted(Box::new(device))).0);
        Member(sender.subscribe())
    }

    pub(super) fn update(&mut self, device: &DeviceOnConnector) {
        let device_id = device.subject.device_id;
        if let Some(sender) = self.0.get(&device_id) {
            if sender.receiver_count() == 0 {
                self.0.remove(&device_id);
            } else {
                sender.send_replace(State::Admitted(Box::new(device.clone())));
            }
        }
    }

    pub(super) fn remove(&mut self, device_id: DeviceId, reason: Reason) {
        if let Some(sender) = self.0.remove(&device_id) {
            sender.send_replace(State::Gone(reason));
        }
    }
}

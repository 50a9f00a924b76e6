//! How much of a connection may be on its way.
//!
//! What packets carry is controlled by the flows in them already, each of which answers losses by
//! the rules of its own sender; what else answers them punishes the flows twice. So nothing here
//! answers a loss as such. It bounds what waits on the path: to what was delivered within two of its
//! shortest round trips, and to less while routers mark packets or so many are lost that they are
//! told to. A connection that delivers nothing any more begins anew (RFC 9002 §7.6).
//!
//! Bytes of streams share the path with packets and so the bound. They are sent as a sender would
//! that goes by a model of the path (draft-ietf-ccwg-bbr), which is what a stream wants, too.

mod delivery;

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory},
};

use self::delivery::Delivery;

/// Makes a [`DeliveryControl`] for each path.
#[derive(Debug, Default)]
pub(super) struct DeliveryControlFactory;

impl ControllerFactory for DeliveryControlFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(DeliveryControl { delivery: Delivery::new(current_mtu, now), last_sent: 0 })
    }
}

/// Bounds what is on its way by what is delivered.
#[derive(Debug, Clone)]
struct DeliveryControl {
    delivery: Delivery,
    /// Number of the last packet.
    last_sent: u64,
}

impl Controller for DeliveryControl {
    fn on_sent(&mut self, _now: Instant, _bytes: u64, last_packet_number: u64) {
        self.last_sent = last_packet_number;
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        _app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        let round_trip = now.checked_duration_since(sent).unwrap_or(Duration::ZERO);
        self.delivery.handle_delivered(bytes, round_trip);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        _in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        let acked = largest_packet_num_acked.unwrap_or_default();
        self.delivery.handle_end_of_acks(acked, self.last_sent, app_limited, now);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        if is_persistent_congestion {
            self.delivery.begin_anew(now);
        } else if lost_bytes == 0 {
            self.delivery.handle_mark();
        } else {
            self.delivery.handle_lost(lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.delivery.set_mtu(new_mtu);
    }

    fn window(&self) -> u64 {
        self.delivery.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.delivery.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

//! One flow.

use std::{
    ops::AddAssign,
    time::{Duration, Instant},
};

use adit_policy::Authorization;
use adit_proto::{FlowTuple, Protocol, Timestamp};
use adit_tunnel::{Packet, TcpFlags};

use super::{DevicePlace, FlowKey, Slot};

/// Packets in one direction, and the bytes of them with all their headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// How many packets.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Volume {
    /// Of a lone packet.
    pub fn of(packet: &Packet<'_>) -> Self {
        Self { packets: 1, bytes: u64::try_from(packet.bytes().len()).unwrap_or(u64::MAX) }
    }
}

impl AddAssign for Volume {
    fn add_assign(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

/// One direction of a flow.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    pub(crate) volume: Volume,
    /// TCP: the sequence number behind the newest segment.
    pub(crate) next_sequence: Option<u32>,
}

/// What packets touch of a flow: two lines of cache, the first to find it and to see that it may
/// pass, the second to count. With 100,000 flows most of them are in no cache.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Flow {
    pub(super) key: FlowKey,
    /// The generation of policy and subject that the authorization was decided under.
    pub(crate) generation: u64,
    /// When the authorization ends.
    pub(crate) expires_at: Timestamp,
    pub(crate) device: DevicePlace,
    /// What it was worth when it was put into its queue.
    pub(super) queued_as: Worth,
    pub(super) reset: bool,
    device_finished: bool,
    service_finished: bool,

    pub(crate) last_seen: Instant,
    pub(crate) from_device: Direction,
    pub(crate) to_device: Direction,
}

/// What else is known of a flow.
#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) authorization: Authorization,
    pub(crate) started: Instant,
    /// The neighbours in its queue.
    pub(super) previous: Option<Slot>,
    pub(super) next: Option<Slot>,
    /// When it was last seen when it was put there.
    pub(super) queued_at: Instant,
}

/// What a flow is worth when another needs its place, from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    Finished,
    /// Nothing has come back yet, as it is with most flows of a scan.
    Opening,
    Open,
}

impl Flow {
    pub(super) fn new(
        tuple: &FlowTuple,
        device: DevicePlace,
        generation: u64,
        expires_at: Timestamp,
        now: Instant,
    ) -> Self {
        Self {
            key: FlowKey::new(tuple),
            generation,
            expires_at,
            device,
            queued_as: Worth::Opening,
            reset: false,
            device_finished: false,
            service_finished: false,
            last_seen: now,
            from_device: Direction::default(),
            to_device: Direction::default(),
        }
    }

    pub(crate) fn tuple(&self) -> FlowTuple {
        self.key.tuple()
    }

    /// Notes the flags of a TCP segment of this flow.
    pub(crate) const fn note_flags(&mut self, flags: TcpFlags, from_device: bool) {
        self.reset |= flags.rst();
        if from_device {
            self.device_finished |= flags.fin();
        } else {
            self.service_finished |= flags.fin();
        }
    }

    /// Whether both ends have said that they are done, or one has reset.
    pub(crate) const fn is_finished(&self) -> bool {
        self.reset || (self.device_finished && self.service_finished)
    }

    /// How long this flow may be silent.
    pub(crate) const fn idle_limit(&self) -> Duration {
        /// Until the last acknowledgements are through.
        const FINISHED: Duration = Duration::from_secs(10);
        /// No answer yet.
        const TCP_OPENING: Duration = Duration::from_secs(60);
        /// RFC 5382 §5: not less than 2 hours 4 minutes.
        const TCP: Duration = Duration::from_secs(7_440);
        /// RFC 4787 §4.3: not less than 2 minutes.
        const UDP: Duration = Duration::from_secs(180);
        /// RFC 5508 §3.2: not less than 60 seconds.
        const ICMP: Duration = Duration::from_secs(60);

        match (self.key.protocol(), self.worth()) {
            (Protocol::Tcp, Worth::Finished) => FINISHED,
            (Protocol::Tcp, Worth::Opening) => TCP_OPENING,
            (Protocol::Tcp, Worth::Open) => TCP,
            (Protocol::Udp, _) => UDP,
            (Protocol::Icmp, _) => ICMP,
        }
    }

    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_seen) >= self.idle_limit()
    }

    pub(super) const fn worth(&self) -> Worth {
        if self.is_finished() {
            Worth::Finished
        } else if self.to_device.volume.packets == 0 {
            Worth::Opening
        } else {
            Worth::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_touches_two_lines_of_cache() {
        assert_eq!(size_of::<Option<Flow>>(), 128);
        assert_eq!(std::mem::offset_of!(Flow, last_seen), 64);
    }
}

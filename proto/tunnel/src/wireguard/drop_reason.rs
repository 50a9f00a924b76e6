//! Every way in which a datagram or packet can end here.

use std::{fmt, ops::AddAssign};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident => $code:literal,)*) => {
        /// Why a datagram or packet was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason as it stands in metrics and logs.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// Not a message of WireGuard.
    Malformed => "malformed",
    /// Longer than any message.
    Oversize => "oversize",
    /// The receiver index belongs to no peer.
    IndexUnknown => "index-unknown",
    /// A handshake from a key that is no peer's.
    PeerUnknown => "peer-unknown",
    /// The first MAC of a handshake message is wrong: the sender does not know our key.
    MacInvalid => "mac-invalid",
    /// A handshake was answered by a cookie, because there are too many.
    UnderLoad => "under-load",
    /// More handshakes of one source, or of too many sources, than are answered.
    SourceTooBusy => "source-too-busy",
    /// A handshake so soon after another of the same peer that nobody in good faith starts one.
    PeerTooBusy => "peer-too-busy",
    /// More handshakes wait to be looked at than there is room for.
    HandshakeQueueFull => "handshake-queue-full",
    /// A handshake as old as one seen before.
    HandshakeReplayed => "handshake-replayed",
    /// A handshake message that fails to authenticate or that nobody waits for.
    HandshakeInvalid => "handshake-invalid",
    /// Data under keys that have expired or never were.
    SessionUnknown => "session-unknown",
    /// Data that fails to authenticate.
    AuthenticationFailed => "authentication-failed",
    /// Data with a counter seen before or too old to tell.
    CounterReplayed => "counter-replayed",
    /// Data with a counter past the protocol's limit.
    CounterExhausted => "counter-exhausted",
    /// What a peer sent is no IP packet.
    InnerMalformed => "inner-malformed",
    /// The inner source address belongs to another peer or to none.
    SourceSpoofed => "source-spoofed",
    /// The datagram met congestion, and the packet inside has no way to say so (RFC 6040).
    CongestionExperienced => "congestion-experienced",
    /// The peer was removed.
    PeerRemoved => "peer-removed",
    /// The peer has no endpoint yet.
    EndpointUnknown => "endpoint-unknown",
    /// An older packet made room in the queue of a handshake.
    QueueFull => "queue-full",
    /// The peer answered no handshake for as long as its packets may wait.
    HandshakeTimedOut => "handshake-timed-out",
    /// More control messages than are held until they are sent.
    TransmitQueueFull => "transmit-queue-full",
    /// The buffer for the result is too small.
    BufferTooSmall => "buffer-too-small",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// How often each [`DropReason`] occurred.
#[derive(Debug, Clone, Default)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|reason| (*reason, self.of(*reason)))
    }

    /// The count of one reason.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }

    pub(super) fn count(&mut self, reason: DropReason) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter += 1;
        }
    }
}

impl AddAssign<&Self> for DropCounters {
    fn add_assign(&mut self, others: &Self) {
        for (counter, other) in self.0.iter_mut().zip(others.0) {
            *counter += other;
        }
    }
}

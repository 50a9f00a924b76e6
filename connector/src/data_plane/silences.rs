//! Devices that were silent when something came for them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use adit_tunnel::PeerId;

/// Whoever was heard so lately can be reached: few NATs forget sooner.
const HEARD: Duration = Duration::from_millis(1_500);

/// A device is not asked again sooner than after this.
const PAUSE: Duration = Duration::from_millis(200);

/// Whom to ask to speak, and when: a NAT that has forgotten a device lets nothing through to it
/// before it has.
#[derive(Debug, Default)]
pub(super) struct Silences {
    asked: HashMap<PeerId, Instant>,
}

impl Silences {
    /// Whether a device that was last heard then may be out of reach.
    pub(super) fn is_silent(last_heard: Option<Instant>, now: Instant) -> bool {
        last_heard.is_some_and(|at| now.saturating_duration_since(at) >= HEARD)
    }

    /// Whether a silent device is to be asked at this moment.
    pub(super) fn ask(&mut self, peer: PeerId, now: Instant) -> bool {
        let is_due = self.asked.get(&peer).is_none_or(|asked| now >= *asked + PAUSE);
        if is_due {
            self.asked.insert(peer, now);
        }
        is_due
    }

    /// Forgets whom it asked long ago.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.asked.retain(|_peer, asked| now < *asked + PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::sample::peers;

    #[test]
    fn who_was_just_heard_is_not_silent() {
        let now = Instant::now();
        assert!(!Silences::is_silent(Some(now), now));
        assert!(!Silences::is_silent(Some(now), now + HEARD / 2));
        assert!(Silences::is_silent(Some(now), now + HEARD));
        assert!(!Silences::is_silent(None, now), "who was never heard is not asked");
    }

    #[test]
    fn who_is_silent_is_asked_now_and_then() {
        let ([peer, other], now) = (peers(), Instant::now());
        let mut silences = Silences::default();
        assert!(silences.ask(peer, now));
        assert!(!silences.ask(peer, now + PAUSE / 2));
        assert!(silences.ask(other, now + PAUSE / 2));
        silences.sweep(now + PAUSE);
        assert_eq!(silences.asked.len(), 1);
        assert!(silences.ask(peer, now + PAUSE));
    }
}

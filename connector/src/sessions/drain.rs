//! What is waited for before the connector stops.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use adit_proto::SessionId;

/// Within which a client has to say whether it moves; finding another connector takes it less.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// How often it is looked whether connections have ended.
pub(super) const COUNT_INTERVAL: Duration = Duration::from_millis(200);

/// Clients that move to other connectors, and their connections that are still open here: a state
/// machine without input and output.
#[derive(Debug)]
pub(super) struct Drain {
    answers_until: Instant,
    until: Instant,
    next_count: Instant,
    clients: HashMap<SessionId, Client>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It has not said yet what it does.
    Asked,
    /// Its new connections go elsewhere.
    Moved,
}

impl Drain {
    /// All of these were told. Connections have until the end of `grace`.
    pub(super) fn new(
        told: impl IntoIterator<Item = SessionId>,
        grace: Duration,
        now: Instant,
    ) -> Self {
        let clients = told.into_iter().map(|session_id| (session_id, Client::Asked)).collect();
        Self {
            answers_until: now + ANSWER_TIME.min(grace),
            until: now + grace,
            next_count: now,
            clients,
        }
    }

    /// Another one was told.
    pub(super) fn handle_told(&mut self, session_id: SessionId) {
        self.clients.insert(session_id, Client::Asked);
    }

    pub(super) fn handle_moved(&mut self, session_id: SessionId) {
        if let Some(client) = self.clients.get_mut(&session_id) {
            *client = Client::Moved;
        }
    }

    /// A client waits for us to come back, or its session or its connections have ended.
    pub(super) fn handle_done(&mut self, session_id: SessionId) {
        self.clients.remove(&session_id);
    }

    /// Those whose connections are to be counted, now and then.
    pub(super) fn poll_moved(&mut self, now: Instant) -> Vec<SessionId> {
        if now < self.next_count {
            return Vec::new();
        }
        self.next_count = now + COUNT_INTERVAL;
        let moved = self.clients.iter().filter(|(_id, client)| **client == Client::Moved);
        moved.map(|(session_id, _client)| *session_id).collect()
    }

    /// Whether nothing is waited for any more; `streams` are open beside the clients' connections.
    pub(super) fn is_over(&self, streams: usize, now: Instant) -> bool {
        let waits_for = |client: &Client| match client {
            Client::Asked => now < self.answers_until,
            Client::Moved => true,
        };
        now >= self.until || (streams == 0 && !self.clients.values().any(waits_for))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn session(number: u128) -> SessionId {
        SessionId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn without_clients_it_is_over_at_once() {
        let now = Instant::now();
        assert!(Drain::new([], GRACE, now).is_over(0, now));
        assert!(!Drain::new([], GRACE, now).is_over(1, now));
    }

    #[test]
    fn who_stays_is_not_waited_for_and_who_moves_is_until_its_connections_have_ended() {
        let now = Instant::now();
        let mut drain = Drain::new([session(1), session(2)], GRACE, now);
        drain.handle_done(session(1));
        drain.handle_moved(session(2));
        assert_eq!(drain.poll_moved(now), [session(2)]);
        assert_eq!(drain.poll_moved(now), []);
        assert_eq!(drain.poll_moved(now + COUNT_INTERVAL), [session(2)]);
        assert!(!drain.is_over(0, now + GRACE / 2));
        drain.handle_done(session(2));
        assert!(drain.is_over(0, now + GRACE / 2));
    }

    #[test]
    fn nobody_is_waited_for_longer_than_promised() {
        let now = Instant::now();
        let mut drain = Drain::new([session(1), session(2)], GRACE, now);
        drain.handle_moved(session(1));
        assert!(!drain.is_over(3, now + GRACE / 2));
        assert!(drain.is_over(3, now + GRACE));
        drain.handle_done(session(1));
        assert!(!drain.is_over(0, now + ANSWER_TIME / 2), "the second may still move");
        assert!(drain.is_over(0, now + ANSWER_TIME));
    }
}

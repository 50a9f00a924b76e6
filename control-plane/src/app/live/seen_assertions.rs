//! Assertions that changed something, so that none does so twice.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use adit_proto::{Timestamp, sha256_base64url};

/// Longer than the span in which an assertion is accepted: a minute either way of its time.
const MEMORY: Duration = Duration::from_secs(130);

/// Beyond this many the oldest is forgotten: only holders of enrolled keys come this far, and a
/// limit that refused would let one of them shut out all others.
const MAX_HELD: usize = 100_000;

/// Digests of what was signed. Not of the signature: ECDSA has two valid ones for each.
#[derive(Debug, Default)]
pub(crate) struct SeenAssertions {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    digests: BTreeSet<String>,
    oldest_first: VecDeque<(Timestamp, String)>,
}

impl SeenAssertions {
    /// Whether this verified assertion is seen for the first time.
    pub(crate) fn insert(&self, token: &str, now: Timestamp) -> bool {
        let signed = token.split_once('.').map_or(token, |(signed, _signature)| signed);
        let digest = sha256_base64url(signed.as_bytes());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.forget(now.saturating_sub(MEMORY));
        if !held.digests.insert(digest.clone()) {
            return false;
        }
        held.oldest_first.push_back((now, digest));
        true
    }
}

impl Held {
    fn forget(&mut self, before: Timestamp) {
        while let Some((at, digest)) = self.oldest_first.front() {
            if *at >= before && self.oldest_first.len() < MAX_HELD {
                break;
            }
            self.digests.remove(digest);
            self.oldest_first.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_counts_once_whatever_its_signature() {
        let seen = SeenAssertions::default();
        let now = Timestamp::from_millis(1_000_000);
        assert!(seen.insert("claims.signature", now));
        assert!(!seen.insert("claims.signature", now));
        assert!(!seen.insert("claims.another", now));
        assert!(seen.insert("others.signature", now));
    }

    #[test]
    fn the_memory_is_bounded() {
        let seen = SeenAssertions::default();
        let now = Timestamp::from_millis(1_000_000);
        for index in 0..MAX_HELD + 10 {
            assert!(seen.insert(&format!("{index}.s"), now));
        }
        assert!(seen.held.lock().unwrap().oldest_first.len() <= MAX_HELD);
        let later = now.saturating_add(MEMORY + Duration::from_millis(1));
        assert!(seen.insert("x.s", later));
        assert_eq!(seen.held.lock().unwrap().digests.len(), 1);
    }
}

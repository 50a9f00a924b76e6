//! The audit log as evidence: whoever holds its events, or once kept its head, can check it alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    OrganisationKey, Signed, SignedError, SigningKey, Timestamp, TokenType, api::AuditEvent,
    sha256_base64url,
};

/// The end of the audit log at one moment. Signed and kept elsewhere, it shows when the log was cut
/// or rewritten since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// The sequence of the last event.
    pub sequence: u64,
    /// The hash of the last event, which stands for all events before it as well.
    pub hash: String,
    /// When this was so.
    pub at: Timestamp,
}

impl AuditHead {
    /// Signs it.
    pub fn sign(self, key: &SigningKey) -> Signed<Self> {
        Signed::sign(self, TokenType::AuditHead, key)
    }

    /// Reads a signed head.
    ///
    /// # Errors
    ///
    /// See [`SignedError`].
    pub fn verify(token: &str, trusted_keys: &[OrganisationKey]) -> Result<Self, SignedError> {
        Signed::verify(token, TokenType::AuditHead, trusted_keys).map(Signed::into_payload)
    }
}

/// The hash of an event: SHA-256, base64url without padding, over the hash of the one before
/// (nothing for the first), a line feed, and the JSON array of sequence, at, actor, operation,
/// object_id and object without white space and with members in alphabetical order.
pub fn audit_hash(previous_hash: &str, event: &AuditEvent) -> String {
    let content = json!([
        event.sequence,
        event.at,
        event.actor,
        event.operation,
        event.object_id,
        event.object.as_ref().map(alphabetical)
    ]);
    sha256_base64url(format!("{previous_hash}\n{content}").as_bytes())
}

/// The same value with the members of its objects in alphabetical order.
fn alphabetical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> =
                members.iter().map(|(name, member)| (name.clone(), alphabetical(member))).collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(alphabetical).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// What is wrong with an audit log, and from which event on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// The event, or its hash, is another than what was written.
    #[error("event {sequence} was changed")]
    Changed {
        /// The first such event.
        sequence: u64,
    },
    /// The event is missing, and later ones are there.
    #[error("event {sequence} was removed")]
    Removed {
        /// The first such event.
        sequence: u64,
    },
    /// The event stands elsewhere than after the one before.
    #[error("event {sequence} is not in its place")]
    Reordered {
        /// The first such event.
        sequence: u64,
    },
    /// The head knows of the event, and the log ends before it.
    #[error("event {sequence} and whatever came after it were cut off")]
    Truncated {
        /// The first event that is missing.
        sequence: u64,
    },
    /// The chain is whole, and not the one that the head was signed for.
    #[error("the log was rewritten: event {sequence} or one before it is not what the head says")]
    Rewritten {
        /// The event that the head names.
        sequence: u64,
    },
}

/// What was found in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSpan {
    /// The sequence of the first event, zero when there is none.
    pub first: u64,
    /// The sequence of the last event, zero when there is none.
    pub last: u64,
    /// Whether the first event is known to follow from the one before it.
    pub anchored: bool,
}

/// Checks events in the order in which they stand, then [`AuditChain::finish`].
#[derive(Debug)]
pub struct AuditChain {
    heads: BTreeMap<u64, String>,
    may_begin_late: bool,
    span: AuditSpan,
    previous_hash: String,
    /// The event that was missing where it should have come.
    gap: Option<u64>,
}

impl AuditChain {
    /// A chain that begins with the first event, and reaches and agrees with each of the heads.
    pub fn from_first(heads: impl IntoIterator<Item = AuditHead>) -> Self {
        Self {
            heads: heads.into_iter().map(|head| (head.sequence, head.hash)).collect(),
            may_begin_late: false,
            span: AuditSpan { first: 0, last: 0, anchored: true },
            previous_hash: String::new(),
            gap: None,
        }
    }

    /// As [`Self::from_first`], for a part of the log that may begin with any event.
    pub fn from_any(heads: impl IntoIterator<Item = AuditHead>) -> Self {
        Self { may_begin_late: true, ..Self::from_first(heads) }
    }

    /// Checks the next event.
    ///
    /// # Errors
    ///
    /// See [`AuditFault`]. An event that is missing is told of once it turns up, or at the end.
    pub fn handle_event(&mut self, event: &AuditEvent) -> Result<(), AuditFault> {
        let sequence = event.sequence;
        if let Some(gap) = self.gap {
            return if sequence == gap { Err(AuditFault::Reordered { sequence }) } else { Ok(()) };
        }
        let begins_late = self.span.last == 0 && self.may_begin_late && sequence > 1;
        if begins_late {
            match self.heads.get(&(sequence - 1)) {
                Some(hash) => self.previous_hash.clone_from(hash),
                None => self.span.anchored = false,
            }
        } else {
            let expected = self.span.last + 1;
            if sequence < expected {
                return Err(AuditFault::Reordered { sequence });
            }
            if sequence > expected {
                self.gap = Some(expected);
                return Ok(());
            }
        }
        let is_link = self.span.anchored || self.span.last != 0;
        if is_link && event.hash != audit_hash(&self.previous_hash, event) {
            return Err(AuditFault::Changed { sequence });
        }
        if self.heads.get(&sequence).is_some_and(|hash| *hash != event.hash) {
            return Err(AuditFault::Rewritten { sequence });
        }
        if self.span.last == 0 {
            self.span.first = sequence;
        }
        self.span.last = sequence;
        self.previous_hash.clone_from(&event.hash);
        Ok(())
    }

    /// Says what was found, once there are no more events.
    ///
    /// # Errors
    ///
    /// See [`AuditFault`].
    pub fn finish(self) -> Result<AuditSpan, AuditFault> {
        if let Some(sequence) = self.gap {
            return Err(AuditFault::Removed { sequence });
        }
        match self.heads.last_key_value() {
            Some((sequence, _hash)) if *sequence > self.span.last => {
                Err(AuditFault::Truncated { sequence: self.span.last + 1 })
            }
            Some(_) | None => Ok(self.span),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(events: u64) -> Vec<AuditEvent> {
        let mut log: Vec<AuditEvent> = Vec::new();
        for sequence in 1..=events {
            let mut event = AuditEvent {
                sequence,
                at: Timestamp::from_millis(1000),
                actor: "control-plane".to_owned(),
                operation: "user.create".to_owned(),
                object_id: format!("usr_{sequence}"),
                object: Some(json!({ "b": 1, "a": [{ "d": 1, "c": 2 }] })),
                hash: String::new(),
            };
            event.hash = audit_hash(log.last().map_or("", |last| &last.hash), &event);
            log.push(event);
        }
        log
    }

    fn head(log: &[AuditEvent], sequence: u64) -> AuditHead {
        let event = log.iter().find(|event| event.sequence == sequence).unwrap();
        AuditHead { sequence, hash: event.hash.clone(), at: event.at }
    }

    fn check(mut chain: AuditChain, log: &[AuditEvent]) -> Result<AuditSpan, AuditFault> {
        for event in log {
            chain.handle_event(event)?;
        }
        chain.finish()
    }

    fn whole(log: &[AuditEvent]) -> Result<AuditSpan, AuditFault> {
        check(AuditChain::from_first([]), log)
    }

    #[test]
    fn an_untouched_log_is_whole() {
        let log = log(5);
        let heads = [head(&log, 3), head(&log, 5)];
        let span = AuditSpan { first: 1, last: 5, anchored: true };
        assert_eq!(check(AuditChain::from_first(heads), &log), Ok(span));
        assert_eq!(whole(&[]), Ok(AuditSpan { first: 0, last: 0, anchored: true }));
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let mut log = log(1);
        log[0].object = Some(json!({ "a": [{ "c": 2, "d": 1 }], "b": 1 }));
        assert!(whole(&log).is_ok());
    }

    #[test]
    fn the_first_changed_event_is_named() {
        let changes: [fn(&mut AuditEvent); 5] = [
            |event| event.at = Timestamp::from_millis(1001),
            |event| event.actor.push('x'),
            |event| event.operation.push('x'),
            |event| event.object = None,
            |event| event.hash.push('x'),
        ];
        for change in changes {
            let mut log = log(5);
            change(&mut log[2]);
            change(&mut log[3]);
            assert_eq!(whole(&log), Err(AuditFault::Changed { sequence: 3 }));
        }
    }

    #[test]
    fn the_first_removed_event_is_named() {
        let mut log = log(6);
        log.remove(4);
        log.remove(1);
        assert_eq!(whole(&log), Err(AuditFault::Removed { sequence: 2 }));
        log.remove(0);
        assert_eq!(whole(&log), Err(AuditFault::Removed { sequence: 1 }));
    }

    #[test]
    fn an_event_that_stands_elsewhere_is_named() {
        let mut later = log(5);
        later.swap(1, 3);
        assert_eq!(whole(&later), Err(AuditFault::Reordered { sequence: 2 }));
        let mut twice = log(5);
        twice.insert(3, twice[1].clone());
        assert_eq!(whole(&twice), Err(AuditFault::Reordered { sequence: 2 }));
    }

    #[test]
    fn a_log_that_ends_before_the_head_was_cut() {
        let log = log(5);
        let chain = || AuditChain::from_first([head(&log, 2), head(&log, 5)]);
        assert_eq!(check(chain(), &log[..3]), Err(AuditFault::Truncated { sequence: 4 }));
        assert_eq!(check(chain(), &[]), Err(AuditFault::Truncated { sequence: 1 }));
        assert!(whole(&log[..3]).is_ok());
    }

    #[test]
    fn a_log_that_was_written_anew_is_not_the_one_of_the_head() {
        let held = head(&log(5), 4);
        let mut forged = log(5);
        forged[1].actor = "another".to_owned();
        for index in 1..5 {
            forged[index].hash = audit_hash(&forged[index - 1].hash, &forged[index]);
        }
        assert!(whole(&forged).is_ok());
        let found = check(AuditChain::from_first([held]), &forged);
        assert_eq!(found, Err(AuditFault::Rewritten { sequence: 4 }));
    }

    #[test]
    fn a_part_is_anchored_by_the_head_before_it() {
        let mut log = log(5);
        let held = head(&log, 2);
        let part = |chain: AuditChain, log: &[AuditEvent]| check(chain, &log[2..]);
        let found = part(AuditChain::from_any([]), &log);
        assert_eq!(found, Ok(AuditSpan { first: 3, last: 5, anchored: false }));
        let found = part(AuditChain::from_any([held.clone()]), &log);
        assert_eq!(found, Ok(AuditSpan { first: 3, last: 5, anchored: true }));
        assert_eq!(
            part(AuditChain::from_first([]), &log),
            Err(AuditFault::Removed { sequence: 1 })
        );
        log[2].actor.push('x');
        let found = part(AuditChain::from_any([held]), &log);
        assert_eq!(found, Err(AuditFault::Changed { sequence: 3 }));
    }

    #[test]
    fn a_head_is_read_with_the_key_that_signed_it_and_no_other() {
        let key = SigningKey::from_seed(&[1; 32]);
        let head = head(&log(2), 2);
        let signed = head.clone().sign(&key);
        assert_eq!(AuditHead::verify(signed.token(), &[key.organisation_key()]).unwrap(), head);
        let other = SigningKey::from_seed(&[2; 32]).organisation_key();
        assert!(AuditHead::verify(signed.token(), &[other]).is_err());
    }
}

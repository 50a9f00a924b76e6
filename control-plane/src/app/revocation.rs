//! Voiding what was issued.
//!
//! A credential is void when it was issued at or before an instant. The instant is never earlier
//! than the newest credential, so that a clock which went back lets none survive; and the next
//! credential is issued later than the instant (see [`next_issue`]), so that it works at once.

use std::time::Duration;

use adit_proto::{Revocation, RevokedSubject, Timestamp, UserId};

use crate::store::{Change, StoreError, devices, devices::DeviceRecord, revocations};

/// Voids every credential of a device.
pub(crate) async fn revoke_device(
    change: &mut Change,
    record: &DeviceRecord,
) -> Result<(), StoreError> {
    let subject = RevokedSubject::Device(record.device.id);
    let not_before = not_before(change.now(), record.credential_issued_at);
    revocations::upsert(change, Revocation { subject, not_before }).await
}

/// Voids every credential of a user's devices.
///
/// A credential carries the user's groups, so this is also for a user who leaves a group. Called
/// before the user's devices are deleted, if they are.
pub(crate) async fn revoke_user(change: &mut Change, user_id: UserId) -> Result<(), StoreError> {
    let newest = devices::last_credential_of_user(change.connection(), user_id).await?;
    let subject = RevokedSubject::User(user_id);
    let not_before = not_before(change.now(), newest);
    revocations::upsert(change, Revocation { subject, not_before }).await
}

/// When a credential asked for now is issued.
pub(crate) fn next_issue(now: Timestamp, not_before: Option<Timestamp>) -> Timestamp {
    match not_before {
        Some(void) => now.max(void.saturating_add(Duration::from_millis(1))),
        None => now,
    }
}

fn not_before(now: Timestamp, newest_credential: Option<Timestamp>) -> Timestamp {
    newest_credential.map_or(now, |newest| now.max(newest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_clock_that_went_back_lets_no_credential_survive() {
        assert_eq!(not_before(at(100), Some(at(500))), at(500));
    }

    #[test]
    fn the_next_credential_is_not_void() {
        let void = not_before(at(100), Some(at(500)));
        assert!(next_issue(at(100), Some(void)) > void);
        assert!(next_issue(at(500), Some(void)) > void);
        assert_eq!(next_issue(at(900), Some(void)), at(900));
    }
}

//! Ids and secrets.

use adit_proto::Timestamp;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::ApiError;

/// A UUID of version 7 (RFC 9562 §5.7), so that ids sort by age.
pub(crate) fn new_uuid(now: Timestamp) -> Result<Uuid, ApiError> {
    let mut random = [0; 10];
    fill(&mut random)?;
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    Ok(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

/// 32 random bytes as base64url without padding.
pub(crate) fn new_secret() -> Result<Zeroizing<String>, ApiError> {
    let mut bytes = Zeroizing::new([0; 32]);
    fill(&mut *bytes)?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

/// How a secret is stored. It has 256 bits of randomness, so one round of a plain hash does.
pub(crate) fn secret_hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Random bytes.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), ApiError> {
    getrandom::fill(bytes).map_err(ApiError::internal)
}

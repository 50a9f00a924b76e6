//! Joining is one string: where the control plane is, whose certificate it shows, and a secret.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::Pin;

/// Who may join with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinTokenKind {
    /// A connector: `adit_conn_…`.
    Connector,
    /// A device: `adit_enroll_…`.
    Enrollment,
}

impl JoinTokenKind {
    /// How such a token begins.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Connector => "adit_conn_",
            Self::Enrollment => "adit_enroll_",
        }
    }
}

/// A parsed connector token or enrolment key. Wiped from memory when dropped.
#[derive(Clone)]
pub struct JoinToken {
    kind: JoinTokenKind,
    url: String,
    pin: Pin,
    secret: Zeroizing<String>,
}

/// Why a string is not a token to join with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// Neither prefix fits.
    #[error("expected a token that begins with `adit_conn_` or `adit_enroll_`")]
    Prefix,
    /// What follows the prefix was cut or changed.
    #[error("the token is damaged; copy all of it again")]
    Damaged,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    url: String,
    pin: Pin,
    secret: String,
}

/// Longest token that is looked at, in bytes.
const MAX_LEN: usize = 2048;

impl JoinToken {
    /// A token for the control plane at `url` (`https://host:port`, no trailing slash).
    pub fn new(kind: JoinTokenKind, url: String, pin: Pin, secret: String) -> Self {
        Self { kind, url, pin, secret: Zeroizing::new(secret) }
    }

    /// Who may join with it.
    pub const fn kind(&self) -> JoinTokenKind {
        self.kind
    }

    /// Where the control plane is: `https://host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The pin of the control plane's certificate.
    pub const fn pin(&self) -> &Pin {
        &self.pin
    }

    /// What is consumed by the join.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The whole string, to be handed to the one who joins.
    ///
    /// # Panics
    ///
    /// Never: the content is always representable in JSON.
    pub fn to_token(&self) -> String {
        let content =
            Content { url: self.url.clone(), pin: self.pin, secret: self.secret.to_string() };
        let json = serde_json::to_vec(&content).expect("strings are representable in JSON");
        format!("{}{}", self.kind.prefix(), URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let text = text.trim();
        let (kind, rest) = [JoinTokenKind::Connector, JoinTokenKind::Enrollment]
            .into_iter()
            .find_map(|kind| text.strip_prefix(kind.prefix()).map(|rest| (kind, rest)))
            .ok_or(JoinTokenError::Prefix)?;
        if rest.len() > MAX_LEN {
            return Err(JoinTokenError::Damaged);
        }
        let json = URL_SAFE_NO_PAD.decode(rest).map_err(|_error| JoinTokenError::Damaged)?;
        let content: Content =
            serde_json::from_slice(&json).map_err(|_error| JoinTokenError::Damaged)?;
        if !content.url.starts_with("https://") {
            return Err(JoinTokenError::Damaged);
        }
        Ok(Self::new(kind, content.url, content.pin, content.secret))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("kind", &self.kind)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::new(
            JoinTokenKind::Connector,
            "https://control.example:8443".to_owned(),
            Pin::from_spki(b"key"),
            "s3cret".to_owned(),
        )
    }

    #[test]
    fn a_token_says_where_to_join_and_by_which_pin() {
        let parsed: JoinToken = format!(" {}\n", token().to_token()).parse().unwrap();
        assert_eq!(parsed.url(), "https://control.example:8443");
        assert_eq!(parsed.pin(), token().pin());
        assert_eq!(parsed.secret(), "s3cret");
    }

    #[test]
    fn a_cut_token_is_refused() {
        let whole = token().to_token();
        for len in 0..whole.len() {
            assert!(whole[..len].parse::<JoinToken>().is_err(), "cut at {len}");
        }
    }

    #[test]
    fn the_secret_is_not_in_debug_output() {
        assert!(!format!("{:?}", token()).contains("s3cret"));
    }
}

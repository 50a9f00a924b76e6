//! From the bytes of a stream to its capsules.

use bytes::Bytes;

use crate::{
    http3::Pieces,
    masque::capsule::{
        ADDRESS_ASSIGN, ADDRESS_REQUEST, Capsule, CapsuleError, DATAGRAM, ROUTE_ADVERTISEMENT,
    },
};

#[cfg(test)]
mod tests;

/// Longest payload of a capsule that is understood, in bytes: room for the longest packet of IP, and
/// for thousands of routes.
pub const MAX_CAPSULE_LEN: usize = 128 << 10;

/// Cuts a stream into capsules, whatever the pieces it arrives in (RFC 9297 §3.2).
///
/// [`push`](Self::push) what arrives, then [`poll`](Self::poll) until there is nothing more. When
/// the stream has ended, [`finish`](Self::finish) tells whether it ended at a capsule's end.
///
/// Capsules of unknown types are skipped and not kept, as RFC 9297 §3.2 demands.
#[derive(Debug, Default)]
pub struct CapsuleDecoder {
    pieces: Pieces,
    state: State,
    failure: Option<CapsuleError>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Between,
    InWhole {
        capsule_type: u64,
        len: usize,
    },
    InSkipped {
        left: u64,
    },
}

impl CapsuleDecoder {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what arrived.
    pub fn push(&mut self, bytes: Bytes) {
        if self.failure.is_none() {
            self.pieces.push(bytes);
        }
    }

    /// The next capsule, or none until more has arrived.
    ///
    /// # Errors
    ///
    /// When the peer broke the protocol; from then on, always the same.
    pub fn poll(&mut self) -> Result<Option<Capsule>, CapsuleError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let polled = self.try_poll();
        if let Err(error) = &polled {
            self.pieces = Pieces::default();
            self.failure = Some(error.clone());
        }
        polled
    }

    /// Tells whether the stream may end here. To be asked when [`poll`](Self::poll) gives nothing
    /// more.
    ///
    /// # Errors
    ///
    /// When the decoder has failed already, or the stream ended inside a capsule.
    pub fn finish(&self) -> Result<(), CapsuleError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if matches!(self.state, State::Between) && self.pieces.is_empty() {
            Ok(())
        } else {
            Err(CapsuleError::Truncated)
        }
    }

    fn try_poll(&mut self) -> Result<Option<Capsule>, CapsuleError> {
        loop {
            match self.state {
                State::Between => {
                    let Some((capsule_type, len)) = self.pieces.take_header() else {
                        return Ok(None);
                    };
                    self.state = State::try_enter(capsule_type, len)?;
                }
                State::InWhole { capsule_type, len } => {
                    let Some(payload) = self.pieces.take_exactly(len) else { return Ok(None) };
                    self.state = State::Between;
                    return Capsule::try_from_payload(capsule_type, payload).map(Some);
                }
                State::InSkipped { left: 0 } => self.state = State::Between,
                State::InSkipped { left } => {
                    let Some(piece) = self.pieces.take_up_to(left) else { return Ok(None) };
                    self.state = State::InSkipped { left: left - piece.len() as u64 };
                }
            }
        }
    }
}

impl State {
    fn try_enter(capsule_type: u64, len: u64) -> Result<Self, CapsuleError> {
        match capsule_type {
            DATAGRAM | ADDRESS_ASSIGN | ADDRESS_REQUEST | ROUTE_ADVERTISEMENT => {
                match usize::try_from(len) {
                    Ok(len) if len <= MAX_CAPSULE_LEN => Ok(Self::InWhole { capsule_type, len }),
                    Ok(_) | Err(_) => Err(CapsuleError::TooLong { len }),
                }
            }
            _ => Ok(Self::InSkipped { left: len }),
        }
    }
}

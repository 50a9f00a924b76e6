//! From the bytes of a stream to its frames.

use bytes::Bytes;

use crate::http3::{
    error::Http3Error,
    field_section::MAX_FIELD_SECTION_LEN,
    frame::{CANCEL_PUSH, DATA, Frame, GOAWAY, HEADERS, MAX_PUSH_ID, PUSH_PROMISE, SETTINGS},
    pieces::Pieces,
    settings::Settings,
    varint::decode_varint,
};

#[cfg(test)]
mod tests;

/// Longest frame of a control stream, in bytes: room for more than sixty settings of any size.
const MAX_CONTROL_FRAME_LEN: usize = 1 << 10;

/// Cuts a stream into frames, whatever the pieces it arrives in (RFC 9114 §7.1); for request
/// streams and control streams.
///
/// [`push`](Self::push) what arrives, then [`poll`](Self::poll) until there is nothing more. When
/// the stream has ended, [`finish`](Self::finish) tells whether it ended at a frame's end.
///
/// Frames of unknown types are skipped and not kept. Of the others, the payload of DATA frames is
/// passed on as it arrives; what must be whole has a limit. DATA frames without payload are not
/// seen.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    pieces: Pieces,
    state: State,
    failure: Option<Http3Error>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Between,
    InWhole {
        frame_type: u64,
        len: usize,
    },
    InData {
        left: u64,
    },
    InSkipped {
        left: u64,
    },
}

impl FrameDecoder {
    /// At the start of a stream, behind its type if it has one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what arrived.
    pub fn push(&mut self, bytes: Bytes) {
        if self.failure.is_none() {
            self.pieces.push(bytes);
        }
    }

    /// The next frame, or none until more has arrived.
    ///
    /// # Errors
    ///
    /// When the peer broke the protocol; from then on, always the same.
    pub fn poll(&mut self) -> Result<Option<Frame>, Http3Error> {
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
    /// When the decoder has failed already, or the stream ended inside a frame.
    pub fn finish(&self) -> Result<(), Http3Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if matches!(self.state, State::Between) && self.pieces.is_empty() {
            Ok(())
        } else {
            Err(Http3Error::FrameTruncated)
        }
    }

    fn try_poll(&mut self) -> Result<Option<Frame>, Http3Error> {
        loop {
            match self.state {
                State::Between => {
                    let Some((frame_type, len)) = self.pieces.take_header() else {
                        return Ok(None);
                    };
                    self.state = State::try_enter(frame_type, len)?;
                    if frame_type == PUSH_PROMISE {
                        return Ok(Some(Frame::PushPromise));
                    }
                }
                State::InWhole { frame_type, len } => {
                    let Some(payload) = self.pieces.take_exactly(len) else { return Ok(None) };
                    self.state = State::Between;
                    return whole_frame(frame_type, payload).map(Some);
                }
                State::InData { left: 0 } | State::InSkipped { left: 0 } => {
                    self.state = State::Between;
                }
                State::InData { left } => {
                    let Some(piece) = self.pieces.take_up_to(left) else { return Ok(None) };
                    let left = left - piece.len() as u64;
                    self.state = if left == 0 { State::Between } else { State::InData { left } };
                    return Ok(Some(Frame::Data(piece)));
                }
                State::InSkipped { left } => {
                    let Some(piece) = self.pieces.take_up_to(left) else { return Ok(None) };
                    self.state = State::InSkipped { left: left - piece.len() as u64 };
                }
            }
        }
    }
}

impl State {
    fn try_enter(frame_type: u64, len: u64) -> Result<Self, Http3Error> {
        let whole = |max_len, error| match usize::try_from(len) {
            Ok(len) if len <= max_len => Ok(Self::InWhole { frame_type, len }),
            Ok(_) | Err(_) => Err(error),
        };
        match frame_type {
            DATA => Ok(Self::InData { left: len }),
            HEADERS => whole(MAX_FIELD_SECTION_LEN, Http3Error::FieldSectionTooLong),
            SETTINGS => whole(MAX_CONTROL_FRAME_LEN, Http3Error::FrameTooLong { frame_type }),
            // One integer.
            CANCEL_PUSH | GOAWAY | MAX_PUSH_ID => whole(8, Http3Error::FramePayload { frame_type }),
            0x02 | 0x06 | 0x08 | 0x09 => Err(Http3Error::FrameReserved { frame_type }),
            _ => Ok(Self::InSkipped { left: len }),
        }
    }
}

fn whole_frame(frame_type: u64, payload: Bytes) -> Result<Frame, Http3Error> {
    let integer = || match decode_varint(&payload) {
        Some((value, len)) if len == payload.len() => Ok(value),
        Some(_) | None => Err(Http3Error::FramePayload { frame_type }),
    };
    match frame_type {
        HEADERS => Ok(Frame::Headers(payload)),
        SETTINGS => Settings::decode(&payload).map(Frame::Settings),
        CANCEL_PUSH => integer().map(|_id| Frame::CancelPush),
        GOAWAY => integer().map(Frame::GoAway),
        _ => integer().map(Frame::MaxPushId),
    }
}

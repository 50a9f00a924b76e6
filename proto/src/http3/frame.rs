//! Frames of request streams and of control streams.

use std::fmt;

use bytes::Bytes;

use crate::http3::{
    field::Field, field_section::encode_fields, settings::Settings, varint::encode_varint,
};

pub(super) const DATA: u64 = 0x00;
pub(super) const HEADERS: u64 = 0x01;
pub(super) const CANCEL_PUSH: u64 = 0x03;
pub(super) const SETTINGS: u64 = 0x04;
pub(super) const PUSH_PROMISE: u64 = 0x05;
pub(super) const GOAWAY: u64 = 0x07;
pub(super) const MAX_PUSH_ID: u64 = 0x0d;

/// A frame, or a part of one (RFC 9114 §7.2). Of what it carries, `Debug` shows but the length.
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// A whole field section, still encoded (RFC 9114 §7.2.2).
    Headers(Bytes),
    /// A piece of the payload of a DATA frame, as it arrived; never empty (RFC 9114 §7.2.1).
    Data(Bytes),
    /// The peer's settings (RFC 9114 §7.2.4).
    Settings(Settings),
    /// The peer winds down: the id of a stream or of a push (RFC 9114 §7.2.6).
    GoAway(u64),
    /// A push is not wanted (RFC 9114 §7.2.3). Unexpected where pushes are not used.
    CancelPush,
    /// How far pushes may go (RFC 9114 §7.2.7). Unexpected from a server.
    MaxPushId(u64),
    /// A push is announced (RFC 9114 §7.2.5). Unexpected where pushes are not used.
    PushPromise,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headers(section) => write!(f, "Headers({} bytes)", section.len()),
            Self::Data(piece) => write!(f, "Data({} bytes)", piece.len()),
            Self::Settings(settings) => f.debug_tuple("Settings").field(settings).finish(),
            Self::GoAway(id) => write!(f, "GoAway({id})"),
            Self::CancelPush => f.write_str("CancelPush"),
            Self::MaxPushId(id) => write!(f, "MaxPushId({id})"),
            Self::PushPromise => f.write_str("PushPromise"),
        }
    }
}

/// Appends a whole HEADERS frame (RFC 9114 §7.2.2).
pub fn encode_headers(fields: &[Field], out: &mut Vec<u8>) {
    let section = encode_fields(fields);
    encode_varint(HEADERS, out);
    encode_varint(section.len() as u64, out);
    out.extend_from_slice(&section);
}

/// Appends type and length of a DATA frame, behind which a payload of `len` bytes must follow
/// (RFC 9114 §7.2.1).
pub fn encode_data_header(len: usize, out: &mut Vec<u8>) {
    encode_varint(DATA, out);
    encode_varint(len as u64, out);
}

/// Appends a whole GOAWAY frame (RFC 9114 §7.2.6).
pub fn encode_goaway(id: u64, out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    encode_varint(id, &mut payload);
    encode_varint(GOAWAY, out);
    encode_varint(payload.len() as u64, out);
    out.extend_from_slice(&payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_in_debug_output() {
        let section = encode_fields(&[Field::new("authorization", "s3cret")]);
        assert_eq!(format!("{:?}", Frame::Headers(section.into())), "Headers(11 bytes)");
    }
}

//! What a peer can get wrong.

use crate::http3::code::Http3Code;

/// Why what a peer sent is not HTTP/3, or not a well-formed message of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Http3Error {
    /// The stream ended inside a frame (RFC 9114 §7.1).
    #[error("stream ended inside a frame")]
    FrameTruncated,
    /// A frame's payload ends early, or goes on behind its last field (RFC 9114 §7.1).
    #[error("payload of a frame of type {frame_type:#x} is not of the expected shape")]
    FramePayload {
        /// The type of the frame.
        frame_type: u64,
    },
    /// The type belongs to HTTP/2 alone (RFC 9114 §7.2.8).
    #[error("frame type {frame_type:#x} is reserved")]
    FrameReserved {
        /// The type of the frame.
        frame_type: u64,
    },
    /// A frame that must be kept whole is longer than any reasonable one.
    #[error("frame of type {frame_type:#x} is too long")]
    FrameTooLong {
        /// The type of the frame.
        frame_type: u64,
    },
    /// The same setting occurs twice (RFC 9114 §7.2.4).
    #[error("setting {setting:#x} occurs twice")]
    SettingTwice {
        /// The identifier of the setting.
        setting: u64,
    },
    /// The setting belongs to HTTP/2 alone (RFC 9114 §7.2.4.1).
    #[error("setting {setting:#x} is reserved")]
    SettingReserved {
        /// The identifier of the setting.
        setting: u64,
    },
    /// The value is none the setting can have (RFC 9220 §3, RFC 9297 §2.1.1).
    #[error("setting {setting:#x} has an invalid value")]
    SettingValue {
        /// The identifier of the setting.
        setting: u64,
    },
    /// A field section is longer than [`MAX_FIELD_SECTION_LEN`](super::MAX_FIELD_SECTION_LEN), as
    /// sent or as RFC 9114 §4.2.2 counts it.
    #[error("field section is too long")]
    FieldSectionTooLong,
    /// A message has more fields than [`MAX_FIELDS`](super::MAX_FIELDS).
    #[error("message has too many fields")]
    TooManyFields,
    /// A field section ends early or is not laid out as RFC 9204 §4.5 demands.
    #[error("field section is malformed")]
    FieldSection,
    /// A field section refers to a table entry that does not exist (RFC 9204 §3.1, §3.2.3).
    #[error("field section refers to a table entry that does not exist")]
    FieldReference,
    /// A string is not the Huffman code of any (RFC 7541 §5.2).
    #[error("string is not rightly encoded")]
    Huffman,
    /// A field's name is empty, has upper-case letters or is no token (RFC 9114 §4.2).
    #[error("field has an invalid name")]
    FieldName,
    /// A field's value has a control character or is not UTF-8 (RFC 9114 §10.3).
    #[error("field has an invalid value")]
    FieldValue,
    /// The field is about a connection of HTTP/1.1 (RFC 9114 §4.2).
    #[error("field is specific to a connection")]
    ConnectionField,
    /// A pseudo-header field stands behind a header field (RFC 9114 §4.3).
    #[error("pseudo-header field behind a header field")]
    PseudoFieldMisplaced,
    /// A pseudo-header field is not one that this kind of message has (RFC 9114 §4.3).
    #[error("pseudo-header field is not known")]
    PseudoFieldUnknown,
    /// A pseudo-header field occurs twice (RFC 9114 §4.3).
    #[error("pseudo-header field `{name}` occurs twice")]
    PseudoFieldTwice {
        /// Its name.
        name: &'static str,
    },
    /// A pseudo-header field that this message must have is missing (RFC 9114 §4.3.1, §4.3.2).
    #[error("pseudo-header field `{name}` is missing")]
    PseudoFieldMissing {
        /// Its name.
        name: &'static str,
    },
    /// A pseudo-header field is one that this message must not have (RFC 9114 §4.4, RFC 8441 §4).
    #[error("pseudo-header field `{name}` must not occur in this message")]
    PseudoFieldForbidden {
        /// Its name.
        name: &'static str,
    },
    /// A pseudo-header field has a value that it cannot have (RFC 9114 §4.3.1, §4.3.2).
    #[error("pseudo-header field `{name}` has an invalid value")]
    PseudoFieldValue {
        /// Its name.
        name: &'static str,
    },
    /// `:authority` and `host` differ (RFC 9114 §4.3.1).
    #[error("authority and host differ")]
    HostDiffers,
}

impl Http3Error {
    /// The code to reset the stream or to close the connection with.
    pub const fn code(&self) -> Http3Code {
        match self {
            Self::FrameTruncated | Self::FramePayload { .. } => Http3Code::FrameError,
            Self::FrameReserved { .. } => Http3Code::FrameUnexpected,
            Self::FrameTooLong { .. } | Self::FieldSectionTooLong | Self::TooManyFields => {
                Http3Code::ExcessiveLoad
            }
            Self::SettingTwice { .. }
            | Self::SettingReserved { .. }
            | Self::SettingValue { .. } => Http3Code::SettingsError,
            Self::FieldSection | Self::FieldReference | Self::Huffman => {
                Http3Code::QpackDecompressionFailed
            }
            Self::FieldName
            | Self::FieldValue
            | Self::ConnectionField
            | Self::PseudoFieldMisplaced
            | Self::PseudoFieldUnknown
            | Self::PseudoFieldTwice { .. }
            | Self::PseudoFieldMissing { .. }
            | Self::PseudoFieldForbidden { .. }
            | Self::PseudoFieldValue { .. }
            | Self::HostDiffers => Http3Code::MessageError,
        }
    }

    /// Whether only the stream is at fault: a message is malformed (RFC 9114 §4.1.2) or too long.
    /// The connection is at fault else.
    pub const fn is_of_stream(&self) -> bool {
        matches!(self, Self::FieldSectionTooLong | Self::TooManyFields)
            || matches!(self.code(), Http3Code::MessageError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_message_is_a_fault_of_its_stream_alone() {
        assert!(Http3Error::FieldName.is_of_stream());
        assert!(Http3Error::FieldSectionTooLong.is_of_stream());
    }

    #[test]
    fn what_breaks_framing_or_compression_is_a_fault_of_the_connection() {
        assert!(!Http3Error::FrameTruncated.is_of_stream());
        assert!(!Http3Error::FieldSection.is_of_stream());
        assert!(!Http3Error::FrameTooLong { frame_type: 4 }.is_of_stream());
    }
}

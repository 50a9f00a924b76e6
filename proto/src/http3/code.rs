//! The codes with which a stream is reset or a connection closed.

/// An error code of HTTP/3 (RFC 9114 §8.1), of QPACK (RFC 9204 §6) or of HTTP datagrams (RFC 9297
/// §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http3Code {
    /// Nothing went wrong.
    NoError,
    /// The peer broke the protocol in a way that no other code tells.
    GeneralProtocolError,
    /// Something went wrong here.
    InternalError,
    /// The peer opened a stream that is not accepted.
    StreamCreationError,
    /// A stream without which the connection cannot go on was closed.
    ClosedCriticalStream,
    /// A frame came where it must not.
    FrameUnexpected,
    /// A frame is not laid out as its type demands.
    FrameError,
    /// The peer asks for more work than is reasonable.
    ExcessiveLoad,
    /// An id was used out of order or beyond its limit.
    IdError,
    /// The peer's settings are invalid.
    SettingsError,
    /// The control stream did not begin with settings.
    MissingSettings,
    /// The request was refused before anything was done for it.
    RequestRejected,
    /// The request or its response is not wanted any more.
    RequestCancelled,
    /// The client's stream ended before its request was whole.
    RequestIncomplete,
    /// A message is malformed.
    MessageError,
    /// The connection made for a CONNECT request was reset or closed abnormally.
    ConnectError,
    /// The request is to be tried over HTTP/1.1.
    VersionFallback,
    /// A datagram is malformed.
    DatagramError,
    /// A field section could not be understood.
    QpackDecompressionFailed,
    /// An instruction on the peer's encoder stream could not be understood.
    QpackEncoderStreamError,
    /// An instruction on the peer's decoder stream could not be understood.
    QpackDecoderStreamError,
}

impl Http3Code {
    /// As it stands on the wire.
    pub const fn code(self) -> u64 {
        match self {
            Self::DatagramError => 0x33,
            Self::NoError => 0x100,
            Self::GeneralProtocolError => 0x101,
            Self::InternalError => 0x102,
            Self::StreamCreationError => 0x103,
            Self::ClosedCriticalStream => 0x104,
            Self::FrameUnexpected => 0x105,
            Self::FrameError => 0x106,
            Self::ExcessiveLoad => 0x107,
            Self::IdError => 0x108,
            Self::SettingsError => 0x109,
            Self::MissingSettings => 0x10a,
            Self::RequestRejected => 0x10b,
            Self::RequestCancelled => 0x10c,
            Self::RequestIncomplete => 0x10d,
            Self::MessageError => 0x10e,
            Self::ConnectError => 0x10f,
            Self::VersionFallback => 0x110,
            Self::QpackDecompressionFailed => 0x200,
            Self::QpackEncoderStreamError => 0x201,
            Self::QpackDecoderStreamError => 0x202,
        }
    }
}

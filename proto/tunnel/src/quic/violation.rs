//! How a peer can break HTTP/3.

use adit_proto::http3::{Http3Code, Http3Error};

/// What a peer did that it must not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Violation {
    #[error("malformed HTTP/3")]
    Malformed(#[from] Http3Error),
    /// RFC 9114 §6.2.1.
    #[error("a stream that must stay open was closed")]
    ClosedCriticalStream,
    /// RFC 9114 §6.2.
    #[error("a stream of a kind that must not be opened, or not twice")]
    StreamCreation,
    /// RFC 9114 §6.2.1.
    #[error("the control stream does not begin with settings")]
    MissingSettings,
    /// RFC 9114 §7.2.
    #[error("a frame where it must not be")]
    FrameUnexpected,
    /// RFC 9114 §4.1.
    #[error("a request ended before its head")]
    RequestIncomplete,
    /// RFC 9297 §2.1.
    #[error("a datagram that names no request")]
    Datagram,
}

impl Violation {
    /// What the peer is told.
    pub(super) fn code(&self) -> Http3Code {
        match self {
            Self::Malformed(error) => error.code(),
            Self::ClosedCriticalStream => Http3Code::ClosedCriticalStream,
            Self::StreamCreation => Http3Code::StreamCreationError,
            Self::MissingSettings => Http3Code::MissingSettings,
            Self::FrameUnexpected => Http3Code::FrameUnexpected,
            Self::RequestIncomplete => Http3Code::RequestIncomplete,
            Self::Datagram => Http3Code::DatagramError,
        }
    }

    /// Whether only the stream ends, and the connection goes on.
    pub(super) fn is_of_stream(&self) -> bool {
        match self {
            Self::Malformed(error) => error.is_of_stream(),
            Self::RequestIncomplete => true,
            Self::ClosedCriticalStream
            | Self::StreamCreation
            | Self::MissingSettings
            | Self::FrameUnexpected
            | Self::Datagram => false,
        }
    }
}

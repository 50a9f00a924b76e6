//! A connection to a connector, whichever carries it.

use adit_proto::http3::RequestHead;

use super::Answer;
use crate::{
    http2::{Http2Connection, Http2Error},
    quic::{QuicConnection, QuicError},
};

/// A connection on which requests can be made.
#[derive(Debug)]
pub enum HttpConnection {
    /// HTTP/3.
    Quic(QuicConnection),
    /// HTTP/2 on TCP.
    Http2(Http2Connection),
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Over QUIC.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(#[from] Http2Error),
}

impl HttpConnection {
    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; an answer of any status is none.
    pub async fn request(&self, head: RequestHead) -> Result<Answer, RequestError> {
        let answer = match self {
            Self::Quic(connection) => connection.request(head).await?,
            Self::Http2(connection) => connection.request(head).await?,
        };
        Ok(answer)
    }
}

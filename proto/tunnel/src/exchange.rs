//! A request, its answer and what follows them in both directions, whichever version of HTTP
//! carries it (RFC 9110 §9.3.6, 9297).
//!
//! ```text
//! IncomingRequest ─ respond ─▶ Body ─┬─▶ ByteStream      classic CONNECT
//! HttpConnection ── request ─▶ Body ─┴─▶ CapsuleStream   CONNECT-IP, CONNECT-UDP
//! ```
//!
//! [`splice()`] joins a byte stream with TCP.

mod body;
mod byte_stream;
mod capsule_stream;
mod connection_handle;
mod http_connection;
mod incoming_request;
mod splice;

pub use self::{
    body::{Answer, Body},
    byte_stream::ByteStream,
    capsule_stream::{CapsuleStream, CapsuleStreamError},
    http_connection::{HttpConnection, RequestError},
    incoming_request::IncomingRequest,
    splice::{SpliceCounters, splice},
};

pub(crate) use self::connection_handle::ConnectionHandle;

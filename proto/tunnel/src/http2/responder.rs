//! Where the answer to a request goes.

use adit_proto::http3::ResponseHead;
use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};

use super::{Handle, Http2Stream, Shared, head::response_of};
use crate::Body;

/// The stream of a request that has no answer yet.
#[derive(Debug)]
pub(crate) struct Http2Responder(Option<Unanswered>);

#[derive(Debug)]
struct Unanswered {
    sending: SendResponse<Bytes>,
    receiving: RecvStream,
    handle: Handle,
}

impl Http2Responder {
    pub(super) const fn new(
        sending: SendResponse<Bytes>,
        receiving: RecvStream,
        handle: Handle,
    ) -> Self {
        Self(Some(Unanswered { sending, receiving, handle }))
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.0.as_ref().expect("it is consumed when it answers").handle.shared()
    }

    pub(crate) fn respond(mut self, head: &ResponseHead) -> Body {
        let Unanswered { mut sending, receiving, handle } =
            self.0.take().expect("it is consumed, so nobody has answered");
        // Fails only when the peer has broken the stream off, as whoever uses it finds out.
        let sending = sending.send_response(response_of(head), false).ok();
        Body::over_http2(Http2Stream::new(sending, receiving, handle))
    }
}

impl Drop for Http2Responder {
    fn drop(&mut self) {
        if let Some(unanswered) = &mut self.0 {
            unanswered.sending.send_reset(Reason::REFUSED_STREAM);
        }
    }
}

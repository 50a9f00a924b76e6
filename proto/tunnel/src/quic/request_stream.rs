//! One request and its answer: frames on the side of the connection, a pipe on that of the task.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker as TaskWaker},
};

use adit_proto::http3::{
    Frame, FrameDecoder, Http3Code, RequestHead, ResponseHead, decode_fields, encode_data_header,
    encode_headers,
};
use bytes::Bytes;
use quinn_proto::{Connection, ReadError, StreamId, VarInt, WriteError};

use super::{
    QuicError, QuicStreamId,
    mailbox::{Mailbox, PipeWaker, Reply, TaskPipe, answered},
    violation::Violation,
};

/// A stream of both directions.
pub(super) struct RequestStream {
    id: StreamId,
    name: QuicStreamId,
    waker: TaskWaker,
    decoder: FrameDecoder,
    stage: Stage,
    /// Of the body, on the way to the task.
    inbound: Bytes,
    /// Frames on the way to the peer.
    outbound: Bytes,
    /// Of the task's body, behind the frames.
    outbound_body: Bytes,
    /// Capsules that do not come from the task.
    capsules: VecDeque<Bytes>,
    /// The peer has ended its direction, and the decoder has all of it.
    has_come: bool,
    receives: bool,
    sends: bool,
    /// The task has ended its direction; the end is to be said once all is sent.
    is_ending: bool,
}

enum Stage {
    /// A client's: its answer is awaited.
    Asked(Reply),
    /// A server's: its head is not there yet.
    Opened,
    /// A server's: a task is to answer.
    HandedOver,
    Open(TaskPipe),
    /// Nobody is interested any more.
    Abandoned,
}

/// What a stream has for its connection.
pub(super) enum Progress {
    Nothing,
    Request(RequestHead),
}

/// Bytes that are taken from the peer at one time.
const READ_LEN: usize = 64 << 10;

/// Packets that are too long for datagrams wait no longer than this, in bytes.
const MAX_CAPSULES_LEN: usize = 64 << 10;

impl RequestStream {
    pub(super) fn incoming(id: StreamId, name: QuicStreamId, mailbox: Arc<Mailbox>) -> Self {
        Self::new(id, name, mailbox, Stage::Opened, Bytes::new())
    }

    pub(super) fn outgoing(
        id: StreamId,
        name: QuicStreamId,
        mailbox: Arc<Mailbox>,
        head: &RequestHead,
        reply: Reply,
    ) -> Self {
        let mut headers = Vec::new();
        encode_headers(&head.fields(), &mut headers);
        Self::new(id, name, mailbox, Stage::Asked(reply), headers.into())
    }

    fn new(
        id: StreamId,
        name: QuicStreamId,
        mailbox: Arc<Mailbox>,
        stage: Stage,
        outbound: Bytes,
    ) -> Self {
        let waker = PipeWaker { stream: name, mailbox };
        Self {
            id,
            name,
            waker: TaskWaker::from(Arc::new(waker)),
            decoder: FrameDecoder::new(),
            stage,
            inbound: Bytes::new(),
            outbound,
            outbound_body: Bytes::new(),
            capsules: VecDeque::new(),
            has_come: false,
            receives: true,
            sends: true,
            is_ending: false,
        }
    }

    /// Whether both directions have ended.
    pub(super) const fn is_over(&self) -> bool {
        !self.receives && !self.sends
    }

    /// Sends the head of the answer.
    pub(super) fn respond(&mut self, head: &ResponseHead, pipe: TaskPipe) {
        if let Stage::HandedOver = self.stage {
            let mut headers = Vec::new();
            encode_headers(&head.fields(), &mut headers);
            self.outbound = headers.into();
            self.stage = Stage::Open(pipe);
            if !self.receives {
                self.end_inbound();
            }
        }
    }

    /// Sends a capsule beside those of the task. False: too many wait.
    pub(super) fn send_capsule(&mut self, capsule: Bytes) -> bool {
        let waiting: usize = self.capsules.iter().map(Bytes::len).sum();
        let has_room = matches!(self.stage, Stage::Open(_)) && waiting < MAX_CAPSULES_LEN;
        if has_room {
            self.capsules.push_back(capsule);
        }
        has_room
    }

    /// Whether capsules wait that nothing else moves.
    pub(super) fn has_capsules(&self) -> bool {
        !self.capsules.is_empty()
    }

    /// Gives a datagram of this request to its task.
    pub(super) fn handle_datagram(&self, payload: Bytes) {
        if let Stage::Open(TaskPipe { datagrams, .. }) = &self.stage {
            // Datagrams may be lost.
            let _ = datagrams.try_send(payload);
        }
    }

    /// The peer takes nothing any more.
    pub(super) fn handle_stopped(&mut self, quic: &mut Connection) {
        self.reset(quic, Http3Code::RequestCancelled);
    }

    /// Breaks both directions off.
    pub(super) fn abandon(&mut self, quic: &mut Connection, code: Http3Code) {
        self.fail(QuicError::Reset);
        self.stop(quic, code);
        self.reset(quic, code);
    }

    /// The connection is lost.
    pub(super) fn fail(&mut self, error: QuicError) {
        if let Stage::Open(pipe) = &self.stage
            && self.receives
        {
            pipe.bytes.breakage.note_peer();
        }
        if let Stage::Asked(reply) = std::mem::replace(&mut self.stage, Stage::Abandoned) {
            // Whoever asked may have gone.
            let _ = reply.send(Err(error));
        }
    }

    /// Moves what can move.
    pub(super) fn turn(&mut self, quic: &mut Connection) -> Result<Progress, Violation> {
        let progress = self.receive(quic);
        if let Stage::Open(pipe) = &mut self.stage {
            pipe.bytes.to_task.flush();
        }
        let progress = progress?;
        // Behind, since with an answer that came in the body of the task may follow.
        self.send(quic);
        Ok(progress)
    }

    fn receive(&mut self, quic: &mut Connection) -> Result<Progress, Violation> {
        while self.receives {
            if !self.hand_on(quic) {
                break;
            }
            let frame = match self.decoder.poll()? {
                Some(frame) => frame,
                None if self.has_come => {
                    self.decoder.finish()?;
                    self.handle_end()?;
                    break;
                }
                None => match self.read(quic) {
                    Read::Some => continue,
                    Read::Blocked => break,
                    Read::Reset => {
                        self.fail(QuicError::Reset);
                        self.receives = false;
                        self.reset(quic, Http3Code::RequestCancelled);
                        break;
                    }
                },
            };
            match (frame, &self.stage) {
                (Frame::Headers(section), Stage::Opened) => {
                    let head = RequestHead::try_from_fields(decode_fields(&section)?)?;
                    self.stage = Stage::HandedOver;
                    return Ok(Progress::Request(head));
                }
                (Frame::Headers(section), Stage::Asked(_)) => {
                    let head = ResponseHead::try_from_fields(decode_fields(&section)?)?;
                    // Informational answers come before the true one.
                    if head.status >= 200 {
                        self.handle_answer(head);
                    }
                }
                (Frame::Headers(_), Stage::Open(_) | Stage::HandedOver | Stage::Abandoned) => {
                    // Trailers, in which nothing is of interest.
                }
                (Frame::Data(bytes), Stage::Open(_) | Stage::HandedOver | Stage::Abandoned) => {
                    self.inbound = bytes
                }
                (Frame::Data(_), Stage::Opened | Stage::Asked(_)) => {
                    return Err(Violation::FrameUnexpected);
                }
                (
                    Frame::Settings(_)
                    | Frame::GoAway(_)
                    | Frame::CancelPush
                    | Frame::MaxPushId(_)
                    | Frame::PushPromise,
                    _,
                ) => return Err(Violation::FrameUnexpected),
            }
        }
        Ok(Progress::Nothing)
    }

    fn handle_answer(&mut self, head: ResponseHead) {
        let (ends, pipe) = answered(self.name, head);
        if let Stage::Asked(reply) = std::mem::replace(&mut self.stage, Stage::Open(pipe)) {
            // Whoever asked may have gone; the pipe then says so.
            let _ = reply.send(Ok(ends));
        }
    }

    fn handle_end(&mut self) -> Result<(), Violation> {
        self.receives = false;
        match self.stage {
            Stage::Open(_) => self.end_inbound(),
            Stage::Opened => return Err(Violation::RequestIncomplete),
            Stage::Asked(_) => self.fail(QuicError::Reset),
            // Whoever answers is told when the pipe is there.
            Stage::HandedOver => {}
            Stage::Abandoned => {}
        }
        Ok(())
    }

    /// Lets the task know that no more comes.
    fn end_inbound(&mut self) {
        if let Stage::Open(TaskPipe { bytes, .. }) = &mut self.stage {
            bytes.to_task.end();
        }
    }

    /// Gives the task what is for it; false: it has no room.
    fn hand_on(&mut self, quic: &mut Connection) -> bool {
        while !self.inbound.is_empty() {
            match &mut self.stage {
                Stage::Open(TaskPipe { bytes, .. }) => {
                    let mut context = Context::from_waker(&self.waker);
                    match bytes.to_task.poll_room(&mut context) {
                        Poll::Ready(Ok(room)) => {
                            let len = room.min(self.inbound.len());
                            bytes.to_task.push(self.inbound.split_to(len));
                        }
                        Poll::Ready(Err(_gone)) => {
                            self.inbound.clear();
                            self.stop(quic, Http3Code::NoError);
                            return false;
                        }
                        Poll::Pending => return false,
                    }
                }
                Stage::Asked(_) | Stage::Opened | Stage::HandedOver => return false,
                Stage::Abandoned => self.inbound.clear(),
            }
        }
        true
    }

    /// Gives the decoder what is there.
    fn read(&mut self, quic: &mut Connection) -> Read {
        let mut stream = quic.recv_stream(self.id);
        let Ok(mut chunks) = stream.read(true) else { return Read::Reset };
        let mut room = READ_LEN;
        let read = loop {
            match chunks.next(room) {
                Ok(Some(chunk)) => {
                    room = room.saturating_sub(chunk.bytes.len());
                    self.decoder.push(chunk.bytes);
                    if room == 0 {
                        break Read::Some;
                    }
                }
                Ok(None) => {
                    self.has_come = true;
                    break Read::Some;
                }
                Err(ReadError::Blocked) if room < READ_LEN => break Read::Some,
                Err(ReadError::Blocked) => break Read::Blocked,
                Err(ReadError::Reset(_)) => break Read::Reset,
            }
        };
        let _transmits_anyway = chunks.finalize();
        read
    }

    fn send(&mut self, quic: &mut Connection) {
        while self.sends {
            match self.write(quic) {
                Written::All => {}
                Written::Blocked => return,
                Written::Stopped => {
                    self.reset(quic, Http3Code::RequestCancelled);
                    return;
                }
            }
            if self.is_ending {
                self.sends = false;
                // A stream that was stopped has ended already.
                let _ = quic.send_stream(self.id).finish();
                return;
            }
            let Stage::Open(TaskPipe { bytes, .. }) = &mut self.stage else {
                if matches!(self.stage, Stage::Abandoned) {
                    self.reset(quic, Http3Code::RequestCancelled);
                }
                return;
            };
            if let Some(capsule) = self.capsules.pop_front() {
                self.outbound = data_header(capsule.len());
                self.outbound_body = capsule;
                continue;
            }
            let mut context = Context::from_waker(&self.waker);
            match bytes.from_task.poll_next(&mut context) {
                Poll::Ready(Some(piece)) => {
                    self.outbound = data_header(piece.len());
                    self.outbound_body = piece;
                }
                Poll::Ready(None) => {
                    if let Some(code) = bytes.breakage.by_task() {
                        self.stop(quic, code);
                        self.reset(quic, code);
                        return;
                    }
                    self.is_ending = true;
                }
                Poll::Pending => return,
            }
        }
    }

    fn write(&mut self, quic: &mut Connection) -> Written {
        while !(self.outbound.is_empty() && self.outbound_body.is_empty()) {
            let mut chunks = [self.outbound.clone(), self.outbound_body.clone()];
            let written = quic.send_stream(self.id).write_chunks(&mut chunks);
            match written {
                Ok(written) => {
                    let of_header = written.bytes.min(self.outbound.len());
                    drop(self.outbound.split_to(of_header));
                    drop(self.outbound_body.split_to(written.bytes - of_header));
                }
                Err(WriteError::Blocked) => return Written::Blocked,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return Written::Stopped,
            }
        }
        Written::All
    }

    fn stop(&mut self, quic: &mut Connection, code: Http3Code) {
        if std::mem::replace(&mut self.receives, false) {
            // A stream that has ended needs no stopping.
            let _ = quic.recv_stream(self.id).stop(var_int(code));
        }
    }

    fn reset(&mut self, quic: &mut Connection, code: Http3Code) {
        self.outbound.clear();
        self.outbound_body.clear();
        if std::mem::replace(&mut self.sends, false) {
            // A stream that has ended needs no reset.
            let _ = quic.send_stream(self.id).reset(var_int(code));
        }
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        self.fail(QuicError::Closed);
    }
}

enum Read {
    Some,
    Blocked,
    Reset,
}

enum Written {
    All,
    Blocked,
    Stopped,
}

fn data_header(len: usize) -> Bytes {
    let mut header = Vec::new();
    encode_data_header(len, &mut header);
    header.into()
}

pub(super) fn var_int(code: Http3Code) -> VarInt {
    VarInt::from_u64(code.code()).unwrap_or_default()
}

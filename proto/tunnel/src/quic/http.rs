//! What HTTP/3 does beside requests: settings, and the streams of one direction (RFC 9114 §6.2).

use std::collections::HashMap;

use adit_proto::http3::{
    Frame, FrameDecoder, Http3Code, Settings, StreamType, decode_varint, encode_varint,
};
use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, Dir, ReadError, StreamId};

use super::{request_stream::var_int, violation::Violation};

/// The streams of one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Http {
    incoming: HashMap<StreamId, Incoming>,
    has_control: bool,
    settings: Option<Settings>,
    goes_away: bool,
    /// What the control stream has not taken yet.
    unsent: Bytes,
    control: Option<StreamId>,
}

/// A stream of one direction from the peer.
#[derive(Debug)]
enum Incoming {
    /// Its type is not there yet.
    Unknown(BytesMut),
    Control(FrameDecoder),
    /// Instructions about a dynamic table that we do not have.
    Ignored,
}

impl Http {
    /// Opens the control stream.
    pub(super) fn start(&mut self, quic: &mut Connection) {
        let mut bytes = Vec::new();
        encode_varint(StreamType::Control.code(), &mut bytes);
        let settings =
            Settings { enable_connect_protocol: true, datagrams: true, ..Settings::default() };
        settings.encode(&mut bytes);
        self.unsent = bytes.into();
        self.control = quic.streams().open(Dir::Uni);
        self.flush(quic);
    }

    /// Goes on sending what had no room.
    pub(super) fn flush(&mut self, quic: &mut Connection) {
        let Some(control) = self.control else {
            // The peer allows streams later, or never.
            if !self.unsent.is_empty() {
                self.control = quic.streams().open(Dir::Uni);
                if self.control.is_some() {
                    self.flush(quic);
                }
            }
            return;
        };
        while !self.unsent.is_empty() {
            match quic.send_stream(control).write(&self.unsent) {
                Ok(len) => drop(self.unsent.split_to(len)),
                Err(_blocked_or_gone) => return,
            }
        }
    }

    /// What the peer has said of itself; none yet.
    pub(super) const fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// Whether the peer takes no new requests.
    pub(super) const fn goes_away(&self) -> bool {
        self.goes_away
    }

    pub(super) fn accept(&mut self, quic: &mut Connection) -> Result<(), Violation> {
        while let Some(id) = quic.streams().accept(Dir::Uni) {
            self.incoming.insert(id, Incoming::Unknown(BytesMut::new()));
            self.read(quic, id)?;
        }
        Ok(())
    }

    /// Reads what has come on a stream of one direction.
    pub(super) fn read(&mut self, quic: &mut Connection, id: StreamId) -> Result<(), Violation> {
        let mut stream = quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return Ok(()) };
        let mut pieces = Vec::new();
        let end = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => pieces.push(chunk.bytes),
                Ok(None) | Err(ReadError::Reset(_)) => break true,
                Err(ReadError::Blocked) => break false,
            }
        };
        let _transmits_anyway = chunks.finalize();
        let mut refused = false;
        for piece in pieces {
            refused |= self.handle_piece(id, piece)? == Taken::Refused;
        }
        if refused && !end {
            let code = var_int(Http3Code::StreamCreationError);
            // A stream that is gone needs no stopping.
            let _ = quic.recv_stream(id).stop(code);
        }
        if (end || refused)
            && let Some(Incoming::Control(_)) = self.incoming.remove(&id)
        {
            return Err(Violation::ClosedCriticalStream);
        }
        Ok(())
    }

    fn handle_piece(&mut self, id: StreamId, mut piece: Bytes) -> Result<Taken, Violation> {
        let Some(incoming) = self.incoming.get_mut(&id) else { return Ok(Taken::All) };
        if let Incoming::Unknown(start) = incoming {
            start.extend_from_slice(&piece);
            let Some((code, len)) = decode_varint(start) else { return Ok(Taken::All) };
            piece = std::mem::take(start).freeze().split_off(len);
            *incoming = match StreamType::from_code(code) {
                StreamType::Control if self.has_control => {
                    return Err(Violation::StreamCreation);
                }
                StreamType::Control => {
                    self.has_control = true;
                    Incoming::Control(FrameDecoder::new())
                }
                StreamType::QpackEncoder | StreamType::QpackDecoder => Incoming::Ignored,
                // Nobody pushes to whoever allowed no push, and a client to nobody.
                StreamType::Push => return Err(Violation::StreamCreation),
                StreamType::Unknown(_) => return Ok(Taken::Refused),
            };
        }
        if let Incoming::Control(decoder) = incoming {
            decoder.push(piece);
            while let Some(frame) = decoder.poll()? {
                match (frame, self.settings) {
                    (Frame::Settings(settings), None) => self.settings = Some(settings),
                    (_, None) => return Err(Violation::MissingSettings),
                    (Frame::GoAway(_), Some(_)) => self.goes_away = true,
                    (Frame::CancelPush | Frame::MaxPushId(_), Some(_)) => {}
                    (
                        Frame::Settings(_)
                        | Frame::Headers(_)
                        | Frame::Data(_)
                        | Frame::PushPromise,
                        Some(_),
                    ) => return Err(Violation::FrameUnexpected),
                }
            }
        }
        Ok(Taken::All)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    /// The stream is of a kind that is not known.
    Refused,
}

//! HTTP/3 (RFC 9114) without a transport: frames, settings, field sections and message heads.
//!
//! Field sections are those of QPACK (RFC 9204) with the static table alone: neither side lets the
//! other have a dynamic table, so that no section ever waits for another stream. Extended CONNECT
//! (RFC 9220) and datagrams (RFC 9297) are understood.
//!
//! A [`FrameDecoder`] takes what a stream gives, in any pieces, and gives [`Frame`]s. Whether a
//! frame is welcome at that place is for the owner of the stream to say.

mod code;
mod error;
mod field;
mod field_section;
mod frame;
mod frame_decoder;
mod huffman;
mod pieces;
mod prefix_integer;
mod pseudo_fields;
mod request_head;
mod response_head;
mod settings;
mod static_table;
mod stream_type;
mod varint;

pub use self::{
    code::Http3Code,
    error::Http3Error,
    field::Field,
    field_section::{MAX_FIELD_SECTION_LEN, MAX_FIELDS, decode_fields, encode_fields},
    frame::{Frame, encode_data_header, encode_goaway, encode_headers},
    frame_decoder::FrameDecoder,
    request_head::RequestHead,
    response_head::ResponseHead,
    settings::Settings,
    stream_type::StreamType,
    varint::{MAX_VARINT, decode_varint, encode_varint, varint_len},
};

pub(crate) use self::pieces::Pieces;

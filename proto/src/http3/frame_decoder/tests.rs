use proptest::prelude::*;

use super::*;
use crate::http3::{
    code::Http3Code,
    field::Field,
    frame::{encode_data_header, encode_goaway, encode_headers},
    varint::{MAX_VARINT, encode_varint},
};

/// What comes of a stream whose pieces have lengths that repeat; adjacent data joined.
fn decoded(stream: &[u8], piece_lens: &[usize]) -> (Vec<Frame>, Result<(), Http3Error>) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    let mut rest = stream;
    for len in piece_lens.iter().cycle() {
        let (piece, behind) = rest.split_at((*len).min(rest.len()));
        rest = behind;
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match (decoder.poll(), frames.last_mut()) {
                (Ok(Some(Frame::Data(data))), Some(Frame::Data(before))) => {
                    assert!(!data.is_empty());
                    *before = [before.as_ref(), data.as_ref()].concat().into();
                }
                (Ok(Some(frame)), _) => frames.push(frame),
                (Ok(None), _) => break,
                (Err(error), _) => return (frames, Err(error)),
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    (frames, decoder.finish())
}

fn frame(frame_type: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = header(frame_type, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

fn header(frame_type: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(frame_type, &mut out);
    encode_varint(len, &mut out);
    out
}

fn error_of(stream: &[u8]) -> Http3Error {
    decoded(stream, &[stream.len()]).1.expect_err("the stream is malformed")
}

#[test]
fn a_request_with_a_body_is_cut_into_its_frames() {
    let mut stream = Vec::new();
    encode_headers(&[Field::new(":method", "CONNECT")], &mut stream);
    encode_data_header(5, &mut stream);
    stream.extend_from_slice(b"hello");
    encode_data_header(0, &mut stream);
    for len in 1..stream.len() {
        let (frames, end) = decoded(&stream, &[len]);
        assert_eq!(
            frames,
            [
                Frame::Headers(Bytes::from_static(&[0, 0, 0xcf])),
                Frame::Data(Bytes::from_static(b"hello")),
            ]
        );
        assert_eq!(end, Ok(()));
    }
}

#[test]
fn a_control_stream_is_cut_into_its_frames() {
    let settings = Settings { datagrams: true, ..Settings::default() };
    let mut stream = Vec::new();
    settings.encode(&mut stream);
    encode_goaway(4, &mut stream);
    stream.extend(frame(MAX_PUSH_ID, &[7]));
    stream.extend(frame(CANCEL_PUSH, &[7]));
    stream.extend(frame(PUSH_PROMISE, &[7; 100]));
    let (frames, end) = decoded(&stream, &[3]);
    assert_eq!(
        frames,
        [
            Frame::Settings(settings),
            Frame::GoAway(4),
            Frame::MaxPushId(7),
            Frame::CancelPush,
            Frame::PushPromise,
        ]
    );
    assert_eq!(end, Ok(()));
}

#[test]
fn data_is_passed_on_as_it_arrives_and_not_copied() {
    let mut decoder = FrameDecoder::new();
    decoder.push(header(DATA, 10).into());
    assert_eq!(decoder.poll(), Ok(None));
    let piece = Bytes::from(vec![1; 4]);
    decoder.push(piece.clone());
    let Ok(Some(Frame::Data(data))) = decoder.poll() else { panic!("no data") };
    assert_eq!((data.as_ptr(), data.len()), (piece.as_ptr(), 4));
    assert_eq!(decoder.finish(), Err(Http3Error::FrameTruncated));
}

#[test]
fn unknown_frames_are_skipped_whatever_their_length() {
    let mut decoder = FrameDecoder::new();
    decoder.push(frame(0x21, &[9; 1000]).into());
    decoder.push(header(0x40, MAX_VARINT).into());
    for _piece in 0..100 {
        decoder.push(Bytes::from_static(&[0; 1 << 10]));
        assert_eq!(decoder.poll(), Ok(None));
        assert!(decoder.pieces.is_empty());
    }
}

#[test]
fn frames_of_http2_are_unexpected() {
    for frame_type in [0x02, 0x06, 0x08, 0x09] {
        assert_eq!(error_of(&header(frame_type, 0)).code(), Http3Code::FrameUnexpected);
    }
}

#[test]
fn what_must_be_whole_has_a_limit_that_is_seen_before_it_arrives() {
    let fits = decoded(&frame(HEADERS, &[0; MAX_FIELD_SECTION_LEN]), &[1000]);
    assert_eq!(fits.1, Ok(()));
    let headers = header(HEADERS, MAX_FIELD_SECTION_LEN as u64 + 1);
    assert_eq!(error_of(&headers).code(), Http3Code::ExcessiveLoad);
    let settings = header(SETTINGS, MAX_VARINT);
    assert_eq!(error_of(&settings).code(), Http3Code::ExcessiveLoad);
    assert_eq!(error_of(&header(GOAWAY, 9)).code(), Http3Code::FrameError);
}

#[test]
fn an_integer_fills_its_frame() {
    for payload in [[].as_slice(), &[0x40], &[1, 2]] {
        assert_eq!(error_of(&frame(GOAWAY, payload)).code(), Http3Code::FrameError);
    }
}

#[test]
fn a_stream_must_not_end_inside_a_frame() {
    let whole = frame(HEADERS, &[0, 0]);
    for len in 1..whole.len() {
        assert_eq!(error_of(&whole[..len]), Http3Error::FrameTruncated);
    }
    assert_eq!(error_of(&frame(0x21, &[0; 9])[..5]), Http3Error::FrameTruncated);
}

#[test]
fn a_decoder_that_failed_stays_so() {
    let mut decoder = FrameDecoder::new();
    decoder.push(header(0x02, 0).into());
    let error = decoder.poll().unwrap_err();
    decoder.push(frame(GOAWAY, &[0]).into());
    assert_eq!(decoder.poll(), Err(error.clone()));
    assert_eq!(decoder.finish(), Err(error));
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let frame_type = proptest::sample::select(vec![
        DATA,
        DATA,
        HEADERS,
        CANCEL_PUSH,
        SETTINGS,
        PUSH_PROMISE,
        GOAWAY,
        MAX_PUSH_ID,
        0x21,
    ]);
    let payload = prop_oneof![Just(vec![7]), any::<Vec<u8>>()];
    let frames = proptest::collection::vec(
        (frame_type, payload).prop_map(|(frame_type, payload)| frame(frame_type, &payload)),
        0..6,
    );
    (frames, prop_oneof![Just(Vec::new()), any::<Vec<u8>>()])
        .prop_map(|(frames, behind)| [frames.concat(), behind].concat())
}

proptest! {
    #[test]
    fn a_stream_gives_the_same_frames_whatever_its_pieces(
        stream in stream(),
        piece_lens in proptest::collection::vec(1_usize..40, 1..8),
    ) {
        let whole = decoded(&stream, &[stream.len().max(1)]);
        prop_assert_eq!(decoded(&stream, &piece_lens), whole.clone());
        prop_assert_eq!(decoded(&stream, &[1]), whole);
    }
}

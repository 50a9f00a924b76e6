use proptest::prelude::*;
use tun_rs::{VirtioNetHdr, gso_split};

use super::*;
use crate::{
    Packet,
    offload::sample::{ACK, CWR, ECE, FIN, PSH, Sample, Transport, noise},
};

#[test]
fn a_lone_packet_passes_unchanged() {
    for sample in [Sample::tcp(true, 100), Sample::udp(false, 1), Sample::tcp(false, 0)] {
        let bytes = sample.bytes();
        let mut frame = [&[0; VirtioHeader::LEN], &bytes[..]].concat();
        let frame = Frame::try_parse(&mut frame).unwrap();
        assert_eq!((frame.packet_count(), frame.wire_bytes()), (1, bytes.len() as u64));
        assert_eq!(frame.max_packet_len(), bytes.len());
        assert_eq!(frame.packet(), bytes);
        assert_eq!(split(frame), [bytes]);
    }
}

#[test]
fn the_checksum_of_a_lone_packet_is_completed() {
    for is_ipv4 in [true, false] {
        for sample in [Sample::tcp(is_ipv4, 333), Sample::udp(is_ipv4, 1200)] {
            assert_eq!(split(Frame::try_parse(&mut sample.frame(None)).unwrap()), [sample.bytes()]);
        }
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_written_as_ones() {
    let with_checksum_zero = |payload_len: usize| {
        let mut sample = Sample::udp(true, payload_len);
        sample.payload[..2].fill(0);
        let checksum = [26, 27].map(|at: usize| sample.bytes()[at]);
        sample.payload[..2].copy_from_slice(&checksum);
        assert_eq!(sample.bytes()[26..28], [0xff, 0xff], "the sample is not what it is to be");
        sample
    };
    let sample = with_checksum_zero(40);
    assert_eq!(split(Frame::try_parse(&mut sample.frame(None)).unwrap()), [sample.bytes()]);

    let mut super_packet = sample.clone();
    super_packet.payload.push(1);
    let mut frame = super_packet.frame(Some(40));
    assert_eq!(split(Frame::try_parse(&mut frame).unwrap())[0], sample.bytes());
}

#[test]
fn each_segment_is_what_the_sender_would_have_sent() {
    for is_ipv4 in [true, false] {
        for sample in [Sample::tcp(is_ipv4, 5000), Sample::udp(is_ipv4, 5000)] {
            let mut bytes = sample.frame(Some(1200));
            let frame = Frame::try_parse(&mut bytes).unwrap();
            let expected = naive_split(&sample, 1200);
            assert_eq!(frame.packet_count(), 5);
            assert_eq!(frame.max_packet_len(), expected[0].len());
            assert_eq!(
                frame.wire_bytes(),
                expected.iter().map(|packet| packet.len() as u64).sum::<u64>()
            );
            assert_eq!(split(frame), expected);
        }
    }
}

#[test]
fn fin_and_push_are_on_the_last_segment_and_cwr_on_the_first() {
    let mut sample = Sample::tcp(true, 300);
    sample.as_tcp().flags = ACK | PSH | FIN | ECE | CWR;
    let mut frame = sample.frame(Some(100));
    frame[1] |= VirtioHeader::GSO_ECN;
    let flags: Vec<u8> =
        split(Frame::try_parse(&mut frame).unwrap()).iter().map(|packet| packet[33]).collect();
    assert_eq!(flags, [ACK | ECE | CWR, ACK | ECE, ACK | ECE | PSH | FIN]);
}

#[test]
fn identification_and_sequence_number_count_on_past_their_ends() {
    let mut sample = Sample::tcp(true, 300);
    sample.id = u16::MAX;
    sample.as_tcp().sequence = u32::MAX - 150;
    let packets = split(Frame::try_parse(&mut sample.frame(Some(100))).unwrap());
    let ids: Vec<&[u8]> = packets.iter().map(|packet| &packet[4..6]).collect();
    assert_eq!(ids, [[0xff, 0xff], [0, 0], [0, 1]]);
    assert_eq!(packets[2][24..28], 49_u32.to_be_bytes());
}

#[test]
fn segments_shorter_than_their_headers_are_whole_packets() {
    for is_ipv4 in [true, false] {
        for sample in [Sample::tcp(is_ipv4, 50), Sample::udp(is_ipv4, 50)] {
            for size in [1, 3, 7, 49, 50, 51] {
                let packets = split(Frame::try_parse(&mut sample.frame(Some(size))).unwrap());
                assert_eq!(packets, naive_split(&sample, size.into()), "{size}");
            }
        }
    }
}

#[test]
fn what_becomes_of_a_segment_does_no_harm_to_the_next() {
    let sample = Sample::tcp(true, 1000);
    let mut bytes = sample.frame(Some(10));
    let mut segments = Frame::try_parse(&mut bytes).unwrap().segments();
    for expected in naive_split(&sample, 10) {
        let segment = segments.next().unwrap();
        assert_eq!(segment, expected);
        segment.fill(0xee);
    }
    assert_eq!(segments.next(), None);
    assert_eq!(segments.next(), None);
}

#[test]
fn the_header_length_is_taken_from_the_headers_themselves() {
    let mut sample = Sample::tcp(true, 3000);
    sample.as_tcp().options = vec![1; 12];
    for wrong in [0, 40, 66, u16::MAX] {
        let mut frame = sample.frame(Some(1000));
        frame[2..4].copy_from_slice(&wrong.to_ne_bytes());
        assert_eq!(split(Frame::try_parse(&mut frame).unwrap()), naive_split(&sample, 1000));
    }
}

#[test]
fn options_and_extension_headers_are_on_every_segment() {
    let mut ipv4 = Sample::tcp(true, 250);
    ipv4.ip_options = vec![1; 40];
    ipv4.as_tcp().options = vec![1; 40];
    let mut ipv6 = Sample::udp(false, 250);
    ipv6.ip_options = extension(24);
    for sample in [ipv4, ipv6] {
        let packets = split(Frame::try_parse(&mut sample.frame(Some(100))).unwrap());
        assert_eq!(packets, naive_split(&sample, 100));
    }
}

#[test]
fn a_super_packet_of_one_segment_or_none_is_one_packet() {
    for payload_len in [0, 1, 100] {
        let sample = Sample::tcp(true, payload_len);
        let mut bytes = sample.frame(Some(100));
        let frame = Frame::try_parse(&mut bytes).unwrap();
        assert_eq!((frame.packet_count(), frame.wire_bytes()), (1, 40 + payload_len as u64));
        assert_eq!(split(frame), [sample.bytes()]);
    }
}

#[test]
fn bytes_behind_a_super_packet_are_no_part_of_it() {
    let sample = Sample::tcp(false, 250);
    let mut bytes = sample.frame(Some(100));
    bytes.extend_from_slice(&[9; 30]);
    assert_eq!(split(Frame::try_parse(&mut bytes).unwrap()), naive_split(&sample, 100));
}

#[test]
fn the_congestion_bits_are_read_from_either_version() {
    for is_ipv4 in [true, false] {
        for ecn in 0..4 {
            let mut sample = Sample::tcp(is_ipv4, 300);
            sample.tos = 0xb8 | ecn;
            for size in [None, Some(100)] {
                assert_eq!(Frame::try_parse(&mut sample.frame(size)).unwrap().ecn(), ecn);
            }
        }
    }
}

#[test]
fn a_frame_that_contradicts_itself_is_refused() {
    let damaged = |damage: fn(&mut VirtioHeader)| {
        let mut bytes = Sample::tcp(true, 300).frame(Some(100));
        let (header, _packet) = bytes.split_first_chunk_mut().unwrap();
        let mut parsed = VirtioHeader::decode(header);
        damage(&mut parsed);
        *header = parsed.encode();
        Frame::try_parse(&mut bytes).map(split)
    };
    assert!(damaged(|_| {}).is_ok());
    assert_eq!(damaged(|header| header.gso_size = 0), Err(FrameError::SegmentSize));
    assert_eq!(damaged(|header| header.flags = 0), Err(FrameError::Checksum));
    assert_eq!(damaged(|header| header.csum_start = 24), Err(FrameError::TransportHeader));
    assert_eq!(damaged(|header| header.csum_offset = 6), Err(FrameError::TransportHeader));
    for gso_type in [2, 3, 4, 6, 0x80, 0x82, 0xff] {
        let mut bytes = Sample::tcp(true, 300).frame(Some(100));
        bytes[1] = gso_type;
        assert_eq!(refused(&mut bytes), FrameError::GsoType, "{gso_type}");
    }
    let mut bytes = Sample::udp(true, 300).frame(Some(100));
    bytes[1] |= VirtioHeader::GSO_ECN;
    assert_eq!(refused(&mut bytes), FrameError::GsoType);
    let mut bytes = Sample::udp(true, 300).frame(Some(100));
    bytes[1] = VirtioHeader::GSO_TCPV4;
    assert_eq!(refused(&mut bytes), FrameError::TransportHeader);
}

#[test]
fn a_transport_header_elsewhere_than_the_virtio_header_says_is_refused() {
    let mut sample = Sample::tcp(false, 300);
    sample.ip_options = extension(8);
    let mut bytes = sample.frame(Some(100));
    bytes[6..8].copy_from_slice(&40_u16.to_ne_bytes());
    assert_eq!(refused(&mut bytes), FrameError::TransportHeader);
}

#[test]
fn a_super_packet_whose_headers_are_cut_short_is_refused() {
    for sample in [Sample::tcp(true, 0), Sample::tcp(false, 0), Sample::udp(true, 0)] {
        let bytes = sample.frame(Some(100));
        for len in 0..bytes.len() {
            refused(&mut bytes[..len].to_vec());
        }
    }
    let sample = Sample::tcp(true, 0);
    for words in (0..16).filter(|words| *words != 5) {
        let mut bytes = sample.frame(Some(100));
        bytes[VirtioHeader::LEN + 32] = words << 4;
        assert_eq!(refused(&mut bytes), FrameError::TransportHeader, "{words}");
    }
}

#[test]
fn a_fragment_is_no_super_packet() {
    let mut sample = Sample::tcp(true, 300);
    sample.fragment = 0x2000;
    assert_eq!(refused(&mut sample.frame(Some(100))), FrameError::TransportHeader);
    sample.fragment = 1;
    assert_eq!(refused(&mut sample.frame(Some(100))), FrameError::Packet(PacketError::Fragment));
}

#[test]
fn headers_longer_than_any_real_ones_are_refused() {
    let mut sample = Sample::tcp(false, 300);
    sample.ip_options = extension(160);
    assert_eq!(refused(&mut sample.frame(Some(100))), FrameError::HeaderLength);
}

#[test]
fn a_checksum_outside_a_lone_packet_is_refused() {
    for (start, offset) in [(20, 1000), (1000, 16), (u16::MAX, u16::MAX), (40, 19), (60, 0)] {
        let mut bytes = Sample::tcp(true, 20).frame(None);
        bytes[6..8].copy_from_slice(&start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&offset.to_ne_bytes());
        assert_eq!(refused(&mut bytes), FrameError::Checksum, "{start} {offset}");
    }
}

proptest! {
    #[test]
    fn any_super_packet_is_split_as_a_naive_splitter_and_another_program_do(
        (sample, size) in any_super_packet(),
        wrong_header_len in any::<u16>(),
    ) {
        let bytes = sample.frame(Some(size));
        let expected = naive_split(&sample, size.into());

        let mut frame = bytes.clone();
        frame[2..4].copy_from_slice(&wrong_header_len.to_ne_bytes());
        let frame = Frame::try_parse(&mut frame).unwrap();
        let packet = Packet::try_parse(frame.packet()).unwrap();
        prop_assert_eq!(packet.bytes().len(), sample.header_len() + sample.payload.len());
        prop_assert_eq!(packet.flow(), Packet::try_parse(&expected[0]).unwrap().flow());
        prop_assert_eq!(frame.packet_count() as usize, expected.len());
        prop_assert_eq!(frame.wire_bytes() as usize, expected.iter().map(Vec::len).sum::<usize>());
        prop_assert_eq!(frame.max_packet_len(), expected[0].len());
        prop_assert_eq!(frame.ecn(), sample.tos & 3);
        // Not `prop_assert_eq`, which would print megabytes.
        prop_assert!(split(frame) == expected, "differs from the naive splitter");

        prop_assert!(tun_rs_split(&bytes, sample.is_ipv4) == expected, "differs from tun-rs");
    }

    #[test]
    fn no_damage_to_a_frame_makes_the_splitter_panic(
        (sample, size) in any_super_packet(),
        damage in prop::collection::vec((0..120_usize, any::<u8>()), 1..6),
        len in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = sample.frame(Some(size));
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if is_cut {
            bytes.truncate(len.index(bytes.len()));
        }
        if let Ok(frame) = Frame::try_parse(&mut bytes) {
            let (count, wire_bytes) = (frame.packet_count(), frame.wire_bytes());
            let max_len = frame.max_packet_len();
            let packets = split(frame);
            prop_assert_eq!(packets.len(), count as usize);
            prop_assert_eq!(packets.iter().map(|packet| packet.len() as u64).sum::<u64>(), wire_bytes);
            prop_assert_eq!(packets.iter().map(Vec::len).max(), Some(max_len));
        }
    }
}

/// A super-packet and the size of its segments.
fn any_super_packet() -> impl Strategy<Value = (Sample, u16)> {
    let payload_len = prop_oneof![1..200_usize, 1..65_000_usize];
    let size = prop_oneof![1..100_u16, 500..1500_u16, any::<u16>()];
    let ip = (any::<bool>(), any::<(u8, u8, bool, u16, u16)>(), 0..4_usize);
    let tcp = (any::<[u32; 2]>(), any::<(u8, u16, u16)>(), 0..=10_usize);
    (payload_len, size, ip, any::<bool>(), tcp, any::<u64>()).prop_map(
        |(payload_len, size, (is_ipv4, fields, options), is_tcp, tcp, seed)| {
            let mut sample = if is_tcp { Sample::tcp(is_ipv4, 0) } else { Sample::udp(is_ipv4, 0) };
            let may_be_fragmented;
            (sample.tos, sample.ttl, may_be_fragmented, sample.id, sample.flow_label) = fields;
            if may_be_fragmented {
                sample.fragment = 0;
            }
            sample.ip_options = match (is_ipv4, options) {
                (_, 0) => Vec::new(),
                (true, words) => vec![1; 4 * words],
                (false, words) => extension(8 * words),
            };
            if let Transport::Tcp(header) = &mut sample.transport {
                let options;
                (
                    [header.sequence, header.acknowledgment],
                    (header.flags, header.window, _),
                    options,
                ) = tcp;
                header.urgent = tcp.1.2;
                header.options = noise(4 * options, seed ^ 1);
            }
            // Few segments of very few bytes, or the naive splitter takes most of the time.
            let payload_len = payload_len.min(usize::from(size) * 200);
            sample.payload = noise(payload_len, seed);
            (sample, size.max(1))
        },
    )
}

/// An extension header of `len` bytes, without its first.
fn extension(len: usize) -> Vec<u8> {
    let mut extension = vec![0; len - 1];
    extension[0] = (len / 8 - 1) as u8;
    // One option of padding (RFC 8200 §4.2).
    extension[1] = 1;
    extension[2] = (len - 4) as u8;
    extension
}

fn naive_split(sample: &Sample, size: usize) -> Vec<Vec<u8>> {
    let count = sample.payload.len().div_ceil(size);
    let packet = |(index, payload): (usize, &[u8])| {
        let mut packet = sample.clone();
        packet.payload = payload.to_vec();
        packet.id = sample.id.wrapping_add(index as u16);
        if let Transport::Tcp(tcp) = &mut packet.transport {
            tcp.sequence = tcp.sequence.wrapping_add((index * size) as u32);
            if index > 0 {
                tcp.flags &= !CWR;
            }
            if index + 1 < count {
                tcp.flags &= !(FIN | PSH);
            }
        }
        packet.bytes()
    };
    sample.payload.chunks(size).enumerate().map(packet).collect()
}

fn tun_rs_split(frame: &[u8], is_ipv4: bool) -> Vec<Vec<u8>> {
    let header = VirtioNetHdr::decode(frame).unwrap();
    let mut packet = frame[VirtioHeader::LEN..].to_vec();
    let room = usize::from(header.hdr_len) + usize::from(header.gso_size);
    let mut packets = vec![vec![0; room.min(packet.len())]; 200];
    let mut lens = vec![0; packets.len()];
    let count = gso_split(&mut packet, header, &mut packets, &mut lens, 0, !is_ipv4).unwrap();
    packets.truncate(count);
    for (packet, len) in packets.iter_mut().zip(lens) {
        packet.truncate(len);
    }
    packets
}

fn split(frame: Frame<'_>) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut segments = frame.segments();
    while let Some(segment) = segments.next() {
        packets.push(segment.to_vec());
    }
    packets
}

fn refused(frame: &mut [u8]) -> FrameError {
    Frame::try_parse(frame).expect_err("accepted")
}

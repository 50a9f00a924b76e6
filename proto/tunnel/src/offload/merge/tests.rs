mod arrival;

use proptest::prelude::*;
use tun_rs::GROTable;

use self::arrival::{Arrival, any_step, arrivals, naive_runs};
use super::*;
use crate::{
    Frame, Packet,
    offload::sample::{
        ACK, CWR, DO_NOT_FRAGMENT, ECE, FIN, PSH, RST, SYN, Sample, Transport, URG, add_up, noise,
    },
};

#[test]
fn a_bulk_transfer_of_45_segments_is_one_run() {
    for is_ipv4 in [true, false] {
        for first in [Sample::tcp(is_ipv4, 1380), Sample::udp(is_ipv4, 1380)] {
            let packets = bytes_of(&flow(&first, 45));
            assert_eq!(run_lens(&packets), [45]);
            assert_eq!(there_and_back(&packets), packets);
        }
    }
}

#[test]
fn the_frame_of_a_run_is_what_the_kernel_completes() {
    let packets = flow(&Sample::tcp(true, 1000), 3);
    let mut merger = merged(&bytes_of(&packets));
    let run = merger.take().unwrap();
    let mut whole = packets[0].clone();
    whole.payload = packets.iter().flat_map(|packet| packet.payload.clone()).collect();
    assert_eq!(run.frame(), whole.frame(Some(1000)));
    assert_eq!(run.packet(), &whole.frame(Some(1000))[VirtioHeader::LEN..]);
    assert_eq!((run.packet_count(), run.wire_bytes()), (3, 3 * 1040));
    assert_eq!(Packet::try_parse(run.packet()).unwrap().payload_len(), 3000);
}

#[test]
fn a_lone_packet_keeps_its_bytes_behind_an_empty_virtio_header() {
    let mut wrong = Sample::udp(true, 100).bytes();
    wrong[26] ^= 1;
    for packet in [Sample::tcp(true, 100).bytes(), wrong, vec![0], vec![0x45; 30], vec![0xff; 99]] {
        let mut merger = merged(&[&packet]);
        let run = merger.take().unwrap();
        assert_eq!(run.frame(), [&[0; VirtioHeader::LEN], &packet[..]].concat());
        assert_eq!((run.packet_count(), run.wire_bytes()), (1, packet.len() as u64));
        assert!(merger.take().is_none());
    }
}

#[test]
fn padding_is_cut_off() {
    for is_ipv4 in [true, false] {
        let padded = |sample: &Sample| [sample.bytes(), vec![0; 15]].concat();
        let first = Sample::tcp(is_ipv4, 100);
        let echo = Sample { transport: Transport::Echo, ..first.clone() };
        for packet in [&first, &echo] {
            assert_eq!(there_and_back(&[padded(packet)]), [packet.bytes()]);
        }
        let packets = [padded(&first), padded(&first.next(100))];
        assert_eq!(run_lens(&packets), [2]);
        assert_eq!(there_and_back(&packets), bytes_of(&[first.clone(), first.next(100)]));
    }
}

type Alteration = (&'static str, fn(&mut Sample));

#[test]
fn any_difference_in_the_headers_begins_another_run() {
    let ip: [Alteration; 7] = [
        ("source", |sample| sample.addresses[0] = 9),
        ("destination", |sample| sample.addresses[1] = 9),
        ("source port", |sample| sample.ports[0] ^= 1),
        ("destination port", |sample| sample.ports[1] ^= 1),
        ("type of service", |sample| sample.tos ^= 0x20),
        ("congestion bits", |sample| sample.tos ^= 0x03),
        ("time to live", |sample| sample.ttl -= 1),
    ];
    let ipv4: [Alteration; 4] = [
        ("do not fragment", |sample| sample.fragment ^= DO_NOT_FRAGMENT),
        ("a fragment", |sample| sample.fragment |= 0x2000),
        ("reserved bit", |sample| sample.fragment |= 0x8000),
        ("options of ip", |sample| sample.ip_options = vec![1; 4]),
    ];
    let tcp: [Alteration; 7] = [
        ("acknowledgment", |sample| sample.as_tcp().acknowledgment ^= 0x0100_0000),
        ("window", |sample| sample.as_tcp().window += 1),
        ("urgent pointer", |sample| sample.as_tcp().urgent += 1),
        ("options", |sample| sample.as_tcp().options = vec![1; 4]),
        ("gap", |sample| sample.as_tcp().sequence += 1),
        ("overlap", |sample| sample.as_tcp().sequence -= 1),
        ("repetition", |sample| sample.as_tcp().sequence -= 100),
    ];
    for is_ipv4 in [true, false] {
        for first in [Sample::tcp(is_ipv4, 100), Sample::udp(is_ipv4, 100)] {
            let mut changes = ip.to_vec();
            if is_ipv4 {
                changes.extend_from_slice(&ipv4);
            } else {
                changes.push(("flow label", |sample| sample.flow_label ^= 1));
            }
            if first.is_tcp() {
                changes.extend_from_slice(&tcp);
            }
            assert_eq!(run_lens(&bytes_of(&flow(&first, 2))), [2]);
            for (name, change) in changes {
                let mut packets = flow(&first, 2);
                change(&mut packets[1]);
                let packets = bytes_of(&packets);
                assert_eq!(run_lens(&packets), [1, 1], "{name}");
                assert_eq!(there_and_back(&packets), packets, "{name}");
            }
        }
    }
}

#[test]
fn fragments_do_not_merge_even_with_each_other() {
    for fragment in [0x2000, 0x0001, 0x8000, 0xc000] {
        let first = Sample { fragment, ..Sample::tcp(true, 100) };
        let packets = bytes_of(&flow(&first, 2));
        assert_eq!(run_lens(&packets), [1, 1], "{fragment:#x}");
        assert_eq!(there_and_back(&packets), packets);
    }
}

#[test]
fn options_of_the_same_length_must_be_the_same() {
    let mut first = Sample::tcp(true, 100);
    first.as_tcp().options = vec![1; 12];
    let mut packets = flow(&first, 3);
    assert_eq!(run_lens(&bytes_of(&packets)), [3]);
    packets[2].as_tcp().options[11] = 0;
    assert_eq!(run_lens(&bytes_of(&packets)), [2, 1]);
}

#[test]
fn only_segments_with_nothing_but_ack_and_push_merge() {
    for flags in [0, PSH, SYN, SYN | ACK, RST | ACK, FIN | ACK, URG | ACK, ECE | ACK, CWR | ACK] {
        for is_at_first in [true, false] {
            let mut packets = flow(&Sample::tcp(true, 100), 2);
            let changed = if is_at_first { 0 } else { 1 };
            packets[changed].as_tcp().flags = flags;
            assert_eq!(run_lens(&bytes_of(&packets)), [1, 1], "{flags:#x}");
        }
    }
    let mut packets = flow(&Sample::tcp(true, 100), 2);
    packets.iter_mut().for_each(|packet| packet.as_tcp().reserved = 1);
    assert_eq!(run_lens(&bytes_of(&packets)), [1, 1], "reserved bit");
}

#[test]
fn push_ends_a_run() {
    let mut packets = flow(&Sample::tcp(true, 100), 6);
    packets[2].as_tcp().flags |= PSH;
    packets[3].as_tcp().flags |= PSH;
    let packets = bytes_of(&packets);
    assert_eq!(run_lens(&packets), [3, 1, 2]);
    assert_eq!(there_and_back(&packets), packets);
}

#[test]
fn a_smaller_packet_ends_a_run_and_a_larger_one_begins_another() {
    for first in [Sample::tcp(true, 100), Sample::udp(false, 100)] {
        let packets = sizes(&first, &[100, 100, 99, 99, 99, 100, 100]);
        assert_eq!(run_lens(&bytes_of(&packets)), [3, 2, 2]);
        assert_eq!(run_lens(&bytes_of(&sizes(&first, &[100, 40, 30]))), [2, 1]);
    }
}

#[test]
fn a_packet_without_payload_never_merges() {
    for first in [Sample::tcp(true, 100), Sample::udp(true, 100)] {
        assert_eq!(run_lens(&bytes_of(&sizes(&first, &[100, 0, 100]))), [1, 1, 1]);
        assert_eq!(run_lens(&bytes_of(&sizes(&first, &[0, 0]))), [1, 1]);
    }
}

#[test]
fn the_identification_must_count_up_unless_fragments_are_forbidden() {
    for first in [Sample::tcp(true, 100), Sample::udp(true, 100)] {
        let mut packets = flow(&first, 3);
        packets[1].id = 0;
        packets[2].id = 0;
        assert_eq!(run_lens(&bytes_of(&packets)), [3]);

        packets.iter_mut().for_each(|packet| packet.fragment = 0);
        assert_eq!(run_lens(&bytes_of(&packets)), [1, 1, 1]);

        let first = Sample { fragment: 0, id: u16::MAX, ..first };
        let packets = bytes_of(&flow(&first, 3));
        assert_eq!(run_lens(&packets), [3]);
        assert_eq!(there_and_back(&packets), packets);
    }
}

#[test]
fn sequence_numbers_go_on_past_their_end() {
    let mut first = Sample::tcp(false, 100);
    first.as_tcp().sequence = u32::MAX - 120;
    let packets = bytes_of(&flow(&first, 4));
    assert_eq!(run_lens(&packets), [4]);
    assert_eq!(there_and_back(&packets), packets);
}

#[test]
fn a_packet_with_a_wrong_checksum_goes_on_alone_and_unchanged() {
    for is_ipv4 in [true, false] {
        for first in [Sample::tcp(is_ipv4, 100), Sample::udp(is_ipv4, 100)] {
            let checksum_at = first.checksum_at();
            let last = first.bytes().len() - 1;
            let damages =
                if is_ipv4 { vec![checksum_at, last, 10] } else { vec![checksum_at, last] };
            for at in damages {
                for (damaged, lens) in [(0, vec![1, 3]), (1, vec![1, 1, 2]), (3, vec![3, 1])] {
                    let mut packets = bytes_of(&flow(&first, 4));
                    packets[damaged][at] ^= 0x10;
                    assert_eq!(run_lens(&packets), lens, "{damaged} {at}");
                    assert_eq!(there_and_back(&packets), packets);
                }
            }
        }
    }
}

#[test]
fn a_checksum_of_zero_written_the_other_way_is_kept() {
    let mut first = Sample::tcp(true, 100);
    first.payload[..2].fill(0);
    let checksum = [36, 37].map(|at: usize| first.bytes()[at]);
    first.payload[..2].copy_from_slice(&checksum);
    let mut packets = bytes_of(&[first.clone(), first.next(100)]);
    assert_eq!(packets[0][36..38], [0, 0], "the sample is not what it is to be");
    assert_eq!(run_lens(&packets), [2]);
    assert_eq!(there_and_back(&packets), packets);
    packets[0][36..38].fill(0xff);
    assert_eq!(run_lens(&packets), [1, 1]);
    assert_eq!(there_and_back(&packets), packets);
}

#[test]
fn an_ip_checksum_of_zero_written_the_other_way_is_kept() {
    let samples = (0..=u16::MAX).map(|id| Sample { id, ..Sample::udp(true, 100) });
    let mut samples = samples.skip_while(|sample| sample.bytes()[10..12] != [0, 0]);
    let first = samples.next().unwrap();
    let mut packets = bytes_of(&flow(&first, 2));
    assert_eq!(run_lens(&packets), [2]);
    packets[0][10..12].fill(0xff);
    assert_eq!(run_lens(&packets), [1, 1]);
    assert_eq!(there_and_back(&packets), packets);
}

#[test]
fn datagrams_without_a_checksum_do_not_merge() {
    let mut first = Sample::udp(true, 100);
    first.transport = Transport::Udp { has_checksum: false };
    let packets = bytes_of(&flow(&first, 2));
    assert_eq!(run_lens(&packets), [1, 1]);
    assert_eq!(there_and_back(&packets), packets);

    // Nor if zero is what the words add up to.
    let mut first = Sample::udp(true, 100);
    first.payload[..2].fill(0);
    let checksum = [26, 27].map(|at: usize| first.bytes()[at]);
    first.payload[..2].copy_from_slice(&checksum);
    let mut packets = bytes_of(&[first.clone(), first.next(100)]);
    assert_eq!(packets[0][26..28], [0xff, 0xff], "the sample is not what it is to be");
    assert_eq!(run_lens(&packets), [2]);
    packets[0][26..28].fill(0);
    assert_eq!(run_lens(&packets), [1, 1]);
    assert_eq!(there_and_back(&packets), packets);
}

#[test]
fn a_datagram_shorter_than_its_packet_does_not_merge() {
    let mut packets = bytes_of(&flow(&Sample::udp(true, 100), 2));
    for packet in &mut packets {
        // One less here and one more there: the sum over all stays right.
        packet[25] -= 1;
        let checksum = u16::from_be_bytes([packet[26], packet[27]]) + 1;
        packet[26..28].copy_from_slice(&checksum.to_be_bytes());
    }
    assert_eq!(run_lens(&packets), [1, 1]);
    assert_eq!(there_and_back(&packets), packets);
}

#[test]
fn at_most_64_datagrams_are_one_run_and_any_number_of_segments() {
    let packets = bytes_of(&flow(&Sample::udp(true, 10), 130));
    assert_eq!(run_lens(&packets), [64, 64, 2]);
    assert_eq!(there_and_back(&packets), packets);
    let packets = bytes_of(&flow(&Sample::tcp(true, 10), 130));
    assert_eq!(run_lens(&packets), [130]);
    assert_eq!(there_and_back(&packets), packets);
}

#[test]
fn a_run_is_no_longer_than_a_packet_can_be() {
    for (is_ipv4, header_len) in [(true, 40), (false, 60)] {
        let payload_len = (MAX_PACKET_LEN - header_len) / 5;
        let packets = bytes_of(&flow(&Sample::tcp(is_ipv4, payload_len), 7));
        assert_eq!(run_lens(&packets), [5, 2]);
        assert_eq!(there_and_back(&packets), packets);
        let packets = bytes_of(&flow(&Sample::tcp(is_ipv4, payload_len + 1), 7));
        assert_eq!(run_lens(&packets), [4, 3]);
    }
    // Four of these would be one byte too many.
    let packets = bytes_of(&flow(&Sample::tcp(true, (65_536 - 40) / 4), 6));
    assert_eq!(run_lens(&packets), [3, 3]);
}

#[test]
fn a_run_that_was_taken_is_not_continued() {
    let packets = bytes_of(&flow(&Sample::tcp(true, 100), 3));
    let mut merger = merged(&packets[..2]);
    assert_eq!(merger.take().map(|run| run.packet_count()), Some(2));
    put(&mut merger, &packets[2]);
    assert!(!merger.try_extend(packets[2].len()));
    assert!(merger.take().is_none());
}

#[test]
fn the_packet_in_the_slot_survives_the_taking_of_the_run() {
    let packets = [Sample::tcp(true, 1000).bytes(), Sample::udp(false, 1300).bytes()];
    let mut merger = merged(&packets[..1]);
    put(&mut merger, &packets[1]);
    assert!(!merger.try_extend(packets[1].len()));
    assert_eq!(merger.take().unwrap().packet(), packets[0]);
    assert_eq!(merger.slot()[..packets[1].len()], packets[1]);
    merger.begin(packets[1].len());
    assert_eq!(merger.take().unwrap().packet(), packets[1]);
}

#[test]
fn the_slot_always_has_room_for_any_datagram() {
    let packets = [1, 20_000, 25_000, 65_507, 1, 1, 32_700, 65_507, 9000]
        .map(|payload_len| Sample { transport: Transport::Echo, ..Sample::udp(true, payload_len) })
        .map(|sample| sample.bytes());
    let mut merger = Merger::new();
    let mut last: Option<&Vec<u8>> = None;
    for packet in packets.iter().cycle().take(1000) {
        assert!(merger.slot().len() >= MAX_PACKET_LEN + 32);
        put(&mut merger, packet);
        assert!(!merger.try_extend(packet.len()));
        assert!(merger.take().map(|run| run.packet().to_vec()).as_ref() == last);
        assert!(merger.slot().starts_with(packet));
        merger.begin(packet.len());
        last = Some(packet);
    }
}

#[test]
fn lengths_that_cannot_be_are_survived() {
    let mut merger = Merger::new();
    for len in [0, 1, 19, 65_535, 65_600, usize::MAX] {
        for byte in [0x00, 0x45, 0x60] {
            merger.slot().fill(byte);
            assert!(!merger.try_extend(len));
            merger.begin(len);
            assert!(!merger.try_extend(len));
            let run = merger.take().unwrap();
            assert!(run.packet().len() <= len.min(MAX_PACKET_LEN));
        }
    }
}

proptest! {
    #[test]
    fn runs_are_as_the_rules_say_and_split_into_the_packets_that_arrived(
        steps in prop::collection::vec(any_step(), 1..120),
        flush in prop::collection::vec(prop::bool::weighted(0.02), 120),
    ) {
        let arrivals = arrivals(&steps);
        let packets: Vec<Vec<u8>> = arrivals.iter().map(Arrival::wire_bytes).collect();
        let mut merger = Merger::new();
        let mut merged = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            let is_flushed = flush[index];
            put(&mut merger, packet);
            if is_flushed || !merger.try_extend(packet.len()) {
                merged.extend(taken(&mut merger));
                merger.begin(packet.len());
            }
        }
        merged.extend(taken(&mut merger));

        let expected_lens = naive_runs(&arrivals, &flush);
        let lens: Vec<usize> = merged.iter().map(Vec::len).collect();
        prop_assert_eq!(&lens, &expected_lens);
        let mut expected = arrivals.iter().map(Arrival::bytes);
        for run in merged {
            for (place, packet) in (0_u16..).zip(&run) {
                let mut expected = expected.next().unwrap();
                let is_atomic = packet[0] == 0x45 && packet[6] & 0x40 != 0;
                if run.len() > 1 && is_atomic {
                    let first_id = u16::from_be_bytes([run[0][4], run[0][5]]);
                    write_id(&mut expected, first_id.wrapping_add(place));
                }
                prop_assert_eq!(packet, &expected);
            }
        }
    }

    #[test]
    fn another_program_merges_an_orderly_flow_into_the_same_frames(
        first in prop_oneof![Just(true), Just(false)].prop_flat_map(|is_ipv4| {
            prop_oneof![Just(Sample::tcp(is_ipv4, 0)), Just(Sample::udp(is_ipv4, 0))]
        }),
        size in prop_oneof![1..60_usize, 1200..1500_usize, 10_000..20_000_usize],
        steps in prop::collection::vec((0..20_u8, any::<prop::sample::Index>()), 1..60),
        options in 0..4_usize,
    ) {
        let mut first = first;
        if let Transport::Tcp(tcp) = &mut first.transport {
            tcp.options = noise(4 * options, 3);
        }
        let mut packets: Vec<Sample> = Vec::new();
        for (kind, len) in steps {
            let len = if kind == 0 { 1 + len.index(size) } else { size };
            let mut packet = match packets.last() {
                Some(last) => last.next(len),
                None => Sample { payload: noise(len, 5), ..first.clone() },
            };
            if let Transport::Tcp(tcp) = &mut packet.transport {
                tcp.flags = if kind == 1 { ACK | PSH } else { ACK };
            }
            packets.push(packet);
        }
        let packets = bytes_of(&packets);
        prop_assert!(frames(&packets) == tun_rs_frames(&packets), "differs from tun-rs");
    }

    #[test]
    fn no_bytes_make_the_merger_panic_or_change_a_packet(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..20),
        first_bytes in prop::collection::vec(prop_oneof![Just(0x45), Just(0x60), any::<u8>()], 20),
    ) {
        let mut packets = packets;
        for (packet, first_byte) in packets.iter_mut().zip(first_bytes) {
            if let Some(first) = packet.first_mut() {
                *first = first_byte;
            }
        }
        let given_back: Vec<u8> = there_and_back(&packets).concat();
        let unpadded = packets.iter().flat_map(|packet| &packet[..unpadded_len(packet)]);
        prop_assert!(given_back.iter().eq(unpadded));
    }
}

fn write_id(packet: &mut [u8], id: u16) {
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[10..12].fill(0);
    let checksum = !add_up(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn flow(first: &Sample, count: usize) -> Vec<Sample> {
    sizes(first, &vec![first.payload.len(); count])
}

fn sizes(first: &Sample, sizes: &[usize]) -> Vec<Sample> {
    let mut packets = vec![Sample { payload: noise(sizes[0], 1), ..first.clone() }];
    for size in &sizes[1..] {
        packets.push(packets[packets.len() - 1].next(*size));
    }
    packets
}

fn bytes_of(packets: &[Sample]) -> Vec<Vec<u8>> {
    packets.iter().map(Sample::bytes).collect()
}

fn put(merger: &mut Merger, packet: &[u8]) {
    merger.slot()[..packet.len()].copy_from_slice(packet);
}

/// A merger with these packets as its only run.
fn merged(packets: &[impl AsRef<[u8]>]) -> Merger {
    let mut merger = Merger::new();
    for packet in packets {
        let packet = packet.as_ref();
        put(&mut merger, packet);
        if !merger.try_extend(packet.len()) {
            assert!(merger.take().is_none(), "not one run");
            merger.begin(packet.len());
        }
    }
    merger
}

/// The packets of the present run, split again.
fn taken(merger: &mut Merger) -> Option<Vec<Vec<u8>>> {
    let mut run = merger.take()?;
    let (count, wire_bytes) = (run.packet_count(), run.wire_bytes());
    let frame = Frame::try_parse(run.frame_mut()).unwrap();
    assert_eq!((frame.packet_count(), frame.wire_bytes()), (count, wire_bytes));
    let mut segments = frame.segments();
    let mut packets = Vec::new();
    while let Some(packet) = segments.next() {
        packets.push(packet.to_vec());
    }
    assert_eq!(packets.len(), count as usize);
    Some(packets)
}

fn each_run<T>(packets: &[Vec<u8>], mut take: impl FnMut(&mut Merger) -> Option<T>) -> Vec<T> {
    let mut merger = Merger::new();
    let mut runs = Vec::new();
    for packet in packets {
        put(&mut merger, packet);
        if !merger.try_extend(packet.len()) {
            runs.extend(take(&mut merger));
            merger.begin(packet.len());
        }
    }
    runs.extend(take(&mut merger));
    runs
}

fn run_lens(packets: &[Vec<u8>]) -> Vec<u32> {
    each_run(packets, |merger| merger.take().map(|run| run.packet_count()))
}

fn there_and_back(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    each_run(packets, taken).concat()
}

fn frames(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    each_run(packets, |merger| merger.take().map(|run| run.frame().to_vec()))
}

fn tun_rs_frames(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    // What was merged into a packet before it is left behind with this in place of its header.
    const LEFT_BEHIND: [u8; VirtioHeader::LEN] = [0xaa; VirtioHeader::LEN];
    let mut buffers: Vec<Vec<u8>> = packets
        .iter()
        .map(|packet| {
            let mut buffer = Vec::with_capacity(2 * VirtioHeader::LEN + MAX_PACKET_LEN);
            buffer.extend_from_slice(&LEFT_BEHIND);
            buffer.extend_from_slice(packet);
            buffer
        })
        .collect();
    GROTable::new().apply_gro(&mut buffers, VirtioHeader::LEN, true).unwrap();
    buffers.retain(|buffer| !buffer.starts_with(&LEFT_BEHIND));
    buffers
}

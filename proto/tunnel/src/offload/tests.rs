use super::*;
use crate::packet::sample;

const LAPTOP: &str = "100.80.0.1";
const SERVICE: &str = "10.9.0.2";

#[test]
fn a_bulk_transfer_becomes_one_super_packet_and_its_packets_again() {
    let packets: Vec<Vec<u8>> = (0..45)
        .map(|index| {
            let payload = [index as u8; 1380];
            let sequence = 1000_u32.wrapping_add(1380 * index);
            sample::tcp(LAPTOP, SERVICE, (4000, 443), (sequence, 7, 0x10), &payload)
        })
        .collect();
    let mut merger = Merger::new();
    for packet in &packets {
        merger.slot()[..packet.len()].copy_from_slice(packet);
        if !merger.try_extend(packet.len()) {
            assert!(merger.take().is_none());
            merger.begin(packet.len());
        }
    }
    let mut run = merger.take().unwrap();
    assert_eq!(run.packet_count(), 45);
    let frame = Frame::try_parse(run.frame_mut()).unwrap();
    assert_eq!(frame.packet_count(), 45);
    let mut segments = frame.segments();
    for (index, packet) in (0_u16..).zip(&packets) {
        let segment = segments.next().unwrap();
        segment[4..6].copy_from_slice(&[0, 0]);
        segment[10..12].copy_from_slice(&packet[10..12]);
        assert_eq!(segment, packet, "{index}");
    }
    assert!(segments.next().is_none());
}

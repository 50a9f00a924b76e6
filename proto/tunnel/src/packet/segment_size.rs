//! The maximum segment size that the ends of a TCP connection agree on (RFC 9293 §3.7.1).

use super::{
    ecn::updated,
    ip::{IpHeader, TCP},
};

/// Lowers the segment size that a SYN offers so that whole packets are no longer than
/// `max_packet_len`; leaves every other packet alone.
pub(crate) fn clamp_segment_size(packet: &mut [u8], max_packet_len: usize) {
    let _no_syn: Option<()> = try_clamp(packet, max_packet_len);
}

fn try_clamp(packet: &mut [u8], max_packet_len: usize) -> Option<()> {
    const HEADER_LEN: usize = 20;
    const SYN: u8 = 0x02;
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const SEGMENT_SIZE: u8 = 2;

    let header = IpHeader::try_parse(packet).ok()?;
    if header.protocol != TCP {
        return None;
    }
    let segment = packet.get_mut(header.header_len..header.total_len)?;
    if segment.get(13)? & SYN == 0 {
        return None;
    }
    let tcp_len = usize::from(segment.get(12)? >> 4) * 4;
    let largest = max_packet_len.saturating_sub(header.header_len + HEADER_LEN);
    let largest = u16::try_from(largest).unwrap_or(u16::MAX);

    let mut at = HEADER_LEN;
    loop {
        let option = segment.get(at..tcp_len)?;
        match *option {
            [] | [END, ..] => return None,
            [NO_OPERATION, ..] => at += 1,
            [SEGMENT_SIZE, 4, high, low, ..] => {
                if u16::from_be_bytes([high, low]) <= largest {
                    return None;
                }
                break;
            }
            [_kind, len, ..] if len >= 2 => at += usize::from(len),
            [_kind, ..] => return None,
        }
    }
    // The option may stand at an odd place, so the checksum follows word by word.
    for (place, byte) in (at + 2..).zip(largest.to_be_bytes()) {
        let word = place & !1;
        let before = *segment.get(word..)?.first_chunk()?;
        *segment.get_mut(place)? = byte;
        let after = *segment.get(word..)?.first_chunk()?;
        let sum: &mut [u8; 2] = segment.get_mut(16..)?.first_chunk_mut()?;
        *sum = updated(*sum, before, after);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{ip::TCP, sample};

    fn syn(source: &str, destination: &str, options: &[u8]) -> Vec<u8> {
        let offset = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        let mut body = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, offset, 2, 0xff, 0xff];
        body.extend_from_slice(&[0, 0, 0, 0]);
        body.extend_from_slice(options);
        sample::packet(source, destination, TCP, body)
    }

    #[test]
    fn a_syn_offers_no_more_than_fits_and_keeps_a_valid_checksum() {
        for (ends, headers) in
            [(("192.0.2.1", "192.0.2.2"), 40), (("2001:db8::1", "2001:db8::2"), 60)]
        {
            for (options, len) in [([2, 4, 0x05, 0xb4], 1_300), ([2, 4, 0x05, 0xb4], 1_281)] {
                let mut packet = syn(ends.0, ends.1, &options);
                clamp_segment_size(&mut packet, len);
                let [high, low] = u16::try_from(len - headers).unwrap().to_be_bytes();
                assert_eq!(packet, syn(ends.0, ends.1, &[2, 4, high, low]), "{ends:?} {len}");
            }
        }
    }

    #[test]
    fn an_option_at_an_odd_place_is_found() {
        let mut packet = syn("192.0.2.1", "192.0.2.2", &[1, 2, 4, 0x05, 0xb4, 1, 1, 0]);
        clamp_segment_size(&mut packet, 1_240);
        assert_eq!(packet, syn("192.0.2.1", "192.0.2.2", &[1, 2, 4, 0x04, 0xb0, 1, 1, 0]));
    }

    #[test]
    fn what_fits_or_is_no_syn_stays_as_it_is() {
        let small = syn("192.0.2.1", "192.0.2.2", &[2, 4, 0x02, 0x18]);
        let mut data = syn("192.0.2.1", "192.0.2.2", &[2, 4, 0x05, 0xb4]);
        data[33] = 0x10;
        let broken = [[2, 0, 0, 0], [2, 60, 0, 0], [9, 1, 0, 0], [3, 3, 2, 4]];
        let broken = broken.map(|options| syn("192.0.2.1", "192.0.2.2", &options));
        let udp = sample::udp("192.0.2.1", "192.0.2.2", (1, 2), &[2; 40]);
        for before in [small, data, udp, vec![], vec![0x45; 20]].into_iter().chain(broken) {
            let mut packet = before.clone();
            clamp_segment_size(&mut packet, 1_200);
            assert_eq!(packet, before);
        }
    }
}

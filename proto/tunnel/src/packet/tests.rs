use std::net::IpAddr;

use adit_proto::{FlowTuple, Protocol};
use proptest::prelude::*;

use super::{
    ip::{ICMP, ICMPV6, TCP},
    *,
};

const LAPTOP: &str = "100.80.0.1";
const SERVICE: &str = "10.9.0.2";
const LAPTOP_6: &str = "fd00::1";
const SERVICE_6: &str = "2001:db8::2";

fn flow(protocol: Protocol, ends: (&str, &str), ports: (u16, u16)) -> FlowTuple {
    FlowTuple {
        protocol,
        source: ends.0.parse().unwrap(),
        source_port: ports.0,
        destination: ends.1.parse().unwrap(),
        destination_port: ports.1,
    }
}

#[test]
fn a_udp_packet_names_its_flow() {
    for ends in [(LAPTOP, SERVICE), (LAPTOP_6, SERVICE_6)] {
        let bytes = sample::udp(ends.0, ends.1, (4000, 53), b"query");
        let packet = Packet::try_parse(&bytes).unwrap();
        assert_eq!(packet.flow(), Some(flow(Protocol::Udp, ends, (4000, 53))));
        assert_eq!(packet.transport(), Transport::Udp);
        assert_eq!(packet.payload_len(), 5);
    }
}

#[test]
fn a_tcp_packet_shows_its_flags() {
    for (flags, is_initial) in [(0x02, true), (0x12, false), (0x10, false), (0x06, false)] {
        let bytes = sample::tcp(LAPTOP, SERVICE, (4000, 443), (1, 2, flags), b"");
        let packet = Packet::try_parse(&bytes).unwrap();
        assert_eq!(packet.tcp_flags().unwrap().is_initial(), is_initial);
        assert_eq!(packet.flow(), Some(flow(Protocol::Tcp, (LAPTOP, SERVICE), (4000, 443))));
    }
}

#[test]
fn an_echo_reply_is_its_request_reversed() {
    for ends in [(LAPTOP, SERVICE), (LAPTOP_6, SERVICE_6)] {
        let request = sample::echo(ends.0, ends.1, true, 77);
        let reply = sample::echo(ends.1, ends.0, false, 77);
        let request = Packet::try_parse(&request).unwrap();
        let reply = Packet::try_parse(&reply).unwrap();
        assert_eq!(request.transport(), Transport::IcmpEchoRequest);
        assert_eq!(reply.transport(), Transport::IcmpEchoReply);
        assert_eq!(request.flow(), Some(flow(Protocol::Icmp, ends, (77, 77))));
        assert_eq!(reply.flow(), request.flow().map(FlowTuple::reversed));
    }
}

#[test]
fn padding_is_no_part_of_a_packet() {
    let mut bytes = sample::udp(LAPTOP, SERVICE, (1, 2), b"abc");
    let len = bytes.len();
    bytes.extend_from_slice(&[0xff; 16]);
    assert_eq!(Packet::try_parse(&bytes).unwrap().bytes().len(), len);
}

#[test]
fn a_packet_that_is_cut_anywhere_is_refused() {
    for ends in [(LAPTOP, SERVICE), (LAPTOP_6, SERVICE_6)] {
        let bytes = sample::tcp(ends.0, ends.1, (1, 2), (0, 0, 0x10), b"abc");
        for len in 0..bytes.len() {
            assert!(Packet::try_parse(&bytes[..len]).is_err(), "{len}");
        }
    }
}

#[test]
fn a_length_inside_the_header_is_refused() {
    let mut bytes = sample::udp(LAPTOP, SERVICE, (1, 2), b"abc");
    bytes[2..4].copy_from_slice(&10_u16.to_be_bytes());
    assert_eq!(Packet::try_parse(&bytes).unwrap_err(), PacketError::HeaderLength);
    bytes[0] = 0x44;
    assert_eq!(Packet::try_parse(&bytes).unwrap_err(), PacketError::HeaderLength);
}

#[test]
fn only_the_first_fragment_names_ports() {
    let mut bytes = sample::udp(LAPTOP, SERVICE, (1, 2), &[0; 64]);
    bytes[6] = 0x20;
    assert!(Packet::try_parse(&bytes).unwrap().is_first_fragment());
    bytes[7] = 1;
    assert_eq!(Packet::try_parse(&bytes).unwrap_err(), PacketError::Fragment);

    let fragment = |offset_and_more: u16| {
        let [high, low] = offset_and_more.to_be_bytes();
        let udp = sample::udp(LAPTOP_6, SERVICE_6, (1, 2), &[0; 64]);
        with_extension(&udp, 44, &[17, 0, high, low, 0, 0, 0, 9])
    };
    assert!(Packet::try_parse(&fragment(1)).unwrap().is_first_fragment());
    assert!(!Packet::try_parse(&fragment(0)).unwrap().is_first_fragment());
    assert_eq!(Packet::try_parse(&fragment(8)).unwrap_err(), PacketError::Fragment);
}

#[test]
fn extension_headers_are_walked_to_the_transport() {
    let udp = sample::udp(LAPTOP_6, SERVICE_6, (1, 2), b"abc");
    let options = with_extension(&udp, 60, &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let hop_by_hop = with_extension(&options, 0, &[60, 0, 1, 4, 0, 0, 0, 0]);
    let packet = Packet::try_parse(&hop_by_hop).unwrap();
    assert_eq!(packet.flow(), Some(flow(Protocol::Udp, (LAPTOP_6, SERVICE_6), (1, 2))));
    assert_eq!(packet.payload_len(), 3);
}

#[test]
fn endless_or_misplaced_extension_headers_are_refused() {
    let mut endless = sample::udp(LAPTOP_6, SERVICE_6, (1, 2), b"abc");
    endless = with_extension(&endless, 60, &[17, 0, 1, 4, 0, 0, 0, 0]);
    for _ in 0..8 {
        endless = with_extension(&endless, 60, &[60, 0, 1, 4, 0, 0, 0, 0]);
    }
    assert_eq!(Packet::try_parse(&endless).unwrap_err(), PacketError::ExtensionHeaders);

    let udp = sample::udp(LAPTOP_6, SERVICE_6, (1, 2), b"abc");
    let late = with_extension(&udp, 0, &[17, 0, 1, 4, 0, 0, 0, 0]);
    let late = with_extension(&late, 60, &[0, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(Packet::try_parse(&late).unwrap_err(), PacketError::ExtensionHeaders);
}

#[test]
fn a_source_route_is_refused() {
    let udp = sample::udp(LAPTOP_6, SERVICE_6, (1, 2), b"abc");
    let mut routing = vec![17, 2, 0, 1, 0, 0, 0, 0];
    routing.extend_from_slice(&[0; 16]);
    let routed = with_extension(&udp, 43, &routing);
    assert_eq!(Packet::try_parse(&routed).unwrap_err(), PacketError::SourceRoute);

    for kind in [131, 137] {
        let mut bytes = sample::udp(LAPTOP, SERVICE, (1, 2), b"abc");
        bytes.splice(20..20, [1, kind, 7, 4, 10, 0, 0, 9]);
        bytes[0] = 0x47;
        let len = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        assert_eq!(Packet::try_parse(&bytes).unwrap_err(), PacketError::SourceRoute);
    }
}

#[test]
fn icmp_of_the_other_version_is_unsupported() {
    let bytes = sample::packet(LAPTOP, SERVICE, ICMPV6, vec![128, 0, 0, 0, 0, 1, 0, 1]);
    let protocol = Packet::try_parse(&bytes).unwrap().transport();
    assert_eq!(protocol, Transport::Unsupported { protocol: ICMPV6 });
    let bytes = sample::packet(LAPTOP_6, SERVICE_6, ICMP, vec![8, 0, 0, 0, 0, 1, 0, 1]);
    let protocol = Packet::try_parse(&bytes).unwrap().transport();
    assert_eq!(protocol, Transport::Unsupported { protocol: ICMP });
}

#[test]
fn a_redirect_is_no_error_to_carry() {
    let quoted = sample::udp(LAPTOP, SERVICE, (1, 2), b"abc");
    let mut body = vec![5, 1, 0, 0, 10, 0, 0, 9];
    body.extend_from_slice(&quoted);
    let bytes = sample::packet(SERVICE, LAPTOP, ICMP, body);
    let packet = Packet::try_parse(&bytes).unwrap();
    assert_eq!(packet.transport(), Transport::Unsupported { protocol: ICMP });
    assert_eq!(refuse(&packet, Refusal::Prohibited, None), None);
}

#[test]
fn an_icmp_error_belongs_to_the_flow_it_quotes() {
    for ends in [(LAPTOP, SERVICE), (LAPTOP_6, SERVICE_6)] {
        for request in [
            sample::udp(ends.0, ends.1, (9, 53), &[7; 1500]),
            sample::echo(ends.0, ends.1, true, 99),
        ] {
            let request = Packet::try_parse(&request).unwrap();
            let error = refuse(&request, Refusal::Prohibited, None).unwrap();
            let error = Packet::try_parse(&error).unwrap();
            assert_eq!(error.transport(), Transport::IcmpError);
            assert_eq!(error.flow(), None);
            assert_eq!(error.related_flow(), request.flow());
        }
    }
}

#[test]
fn an_icmp_error_to_somebody_else_belongs_to_no_flow() {
    let quoted = sample::udp(LAPTOP, SERVICE, (9, 53), b"abc");
    let mut body = vec![3, 1, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&quoted);
    let bytes = sample::packet(SERVICE, "100.80.0.2", ICMP, body);
    assert_eq!(Packet::try_parse(&bytes).unwrap().related_flow(), None);
}

#[test]
fn a_syn_is_reset_as_rfc_9293_says() {
    let syn = sample::tcp(LAPTOP, SERVICE, (4000, 443), (u32::MAX, 0, 0x02), b"");
    let reset = refuse(&Packet::try_parse(&syn).unwrap(), Refusal::Prohibited, None).unwrap();
    let packet = Packet::try_parse(&reset).unwrap();
    assert_eq!(packet.flow(), Some(flow(Protocol::Tcp, (SERVICE, LAPTOP), (443, 4000))));
    assert_eq!(sequence_numbers(&reset), (0, 0));
    let flags = packet.tcp_flags().unwrap();
    assert!(flags.rst() && flags.ack());

    let data = sample::tcp(LAPTOP, SERVICE, (4000, 443), (5, 0, 0x01), b"abc");
    let reset = refuse(&Packet::try_parse(&data).unwrap(), Refusal::Prohibited, None).unwrap();
    assert_eq!(sequence_numbers(&reset), (0, 9));
}

#[test]
fn an_established_connection_is_reset_at_its_acknowledgment() {
    let data = sample::tcp(LAPTOP_6, SERVICE_6, (4000, 443), (7, 99, 0x18), b"abc");
    let reset = refuse(&Packet::try_parse(&data).unwrap(), Refusal::Prohibited, None).unwrap();
    let flags = Packet::try_parse(&reset).unwrap().tcp_flags().unwrap();
    assert!(flags.rst() && !flags.ack());
    assert_eq!(u32::from_be_bytes(reset[44..48].try_into().unwrap()), 99);
}

#[test]
fn resets_errors_and_packets_to_many_are_not_answered() {
    let error = {
        let udp = sample::udp(LAPTOP, SERVICE, (1, 2), b"abc");
        refuse(&Packet::try_parse(&udp).unwrap(), Refusal::Prohibited, None).unwrap()
    };
    for bytes in [
        sample::tcp(LAPTOP, SERVICE, (1, 2), (1, 1, 0x04), b""),
        sample::tcp(LAPTOP, SERVICE, (1, 2), (1, 1, 0x14), b""),
        error,
        sample::udp(LAPTOP, "224.0.0.251", (1, 2), b"abc"),
        sample::udp(LAPTOP, "255.255.255.255", (1, 2), b"abc"),
        sample::udp("0.0.0.0", SERVICE, (1, 2), b"abc"),
        sample::udp(LAPTOP_6, "ff02::fb", (1, 2), b"abc"),
        sample::tcp(LAPTOP, "224.0.0.1", (1, 2), (1, 0, 0x02), b""),
    ] {
        let packet = Packet::try_parse(&bytes).unwrap();
        assert_eq!(refuse(&packet, Refusal::Prohibited, None), None, "{packet:?}");
    }
}

#[test]
fn a_packet_too_big_is_told_the_mtu() {
    for (ends, kind, max_len) in
        [((LAPTOP, SERVICE), [3, 4], 576), ((LAPTOP_6, SERVICE_6), [2, 0], 1280)]
    {
        let bytes = sample::tcp(ends.0, ends.1, (1, 2), (1, 1, 0x10), &[0; 1400]);
        let packet = Packet::try_parse(&bytes).unwrap();
        let from: IpAddr =
            if max_len == 576 { "192.0.2.9" } else { "2001:db8::9" }.parse().unwrap();
        let answer = refuse(&packet, Refusal::TooBig { mtu: 1280 }, Some(from)).unwrap();
        assert_eq!(answer.len(), max_len);
        let parsed = Packet::try_parse(&answer).unwrap();
        assert_eq!(parsed.source(), from);
        let body = parsed.body().unwrap();
        assert_eq!(body[..2], kind);
        assert_eq!(body[6..8], 1280_u16.to_be_bytes());
        assert_eq!(parsed.related_flow(), packet.flow());
    }
}

#[test]
fn an_answer_from_an_address_of_the_other_version_comes_from_the_destination() {
    let bytes = sample::udp(LAPTOP, SERVICE, (1, 2), b"abc");
    let packet = Packet::try_parse(&bytes).unwrap();
    let answer = refuse(&packet, Refusal::Prohibited, Some("fd00::9".parse().unwrap())).unwrap();
    assert_eq!(Packet::try_parse(&answer).unwrap().source(), packet.destination());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn no_damage_to_a_packet_makes_the_parser_panic(
        base in any_packet(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        len in any::<prop::sample::Index>(),
    ) {
        let mut bytes = base;
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let len = len.index(bytes.len() + 1);
        exercise(&bytes);
        exercise(&bytes[..len]);
    }

    #[test]
    fn every_answer_has_right_checksums_and_goes_back(base in any_packet(), mtu in any::<u16>()) {
        let packet = Packet::try_parse(&base).unwrap();
        for refusal in [Refusal::Prohibited, Refusal::TooBig { mtu }] {
            if let Some(answer) = refuse(&packet, refusal, None) {
                prop_assert!(has_right_checksums(&answer));
                let answer = Packet::try_parse(&answer).unwrap();
                prop_assert_eq!(answer.destination(), packet.source());
                prop_assert_eq!(answer.source(), packet.destination());
            }
        }
    }
}

fn exercise(bytes: &[u8]) {
    let Ok(packet) = Packet::try_parse(bytes) else { return };
    assert!(packet.bytes().len() <= bytes.len());
    assert!(packet.payload_len() <= packet.bytes().len());
    let _ = (packet.flow(), packet.related_flow(), packet.tcp_flags());
    for refusal in [Refusal::Prohibited, Refusal::TooBig { mtu: 1280 }] {
        if let Some(answer) = refuse(&packet, refusal, None) {
            assert!(has_right_checksums(&answer));
        }
    }
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let ends = prop_oneof![Just((LAPTOP, SERVICE)), Just((LAPTOP_6, SERVICE_6))];
    let payload = prop::collection::vec(any::<u8>(), 0..1500);
    (ends, 0..4_u8, any::<(u16, u16)>(), any::<(u32, u32, u8)>(), payload).prop_map(
        |(ends, kind, ports, numbers, payload)| match kind {
            0 => sample::udp(ends.0, ends.1, ports, &payload),
            1 => sample::tcp(ends.0, ends.1, ports, numbers, &payload),
            2 => sample::echo(ends.0, ends.1, ports.0 % 2 == 0, ports.1),
            _ => {
                let udp = sample::udp(ends.1, ends.0, ports, &payload);
                refuse(&Packet::try_parse(&udp).unwrap(), Refusal::Prohibited, None).unwrap()
            }
        },
    )
}

/// Adds up words one by one with end-around carry, unlike the code under test.
fn has_right_checksums(bytes: &[u8]) -> bool {
    fn add_up(bytes: &[u8]) -> u16 {
        let mut sum = 0_u16;
        for pair in bytes.chunks(2) {
            let word = u16::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u16::from);
            let (next, carry) = sum.overflowing_add(word);
            sum = next + u16::from(carry);
        }
        sum
    }
    let is_ipv4 = bytes[0] >> 4 == 4;
    if is_ipv4 && add_up(&bytes[..20]) != 0xffff {
        return false;
    }
    let (addresses, protocol, body) = if is_ipv4 {
        (&bytes[12..20], bytes[9], &bytes[20..])
    } else {
        (&bytes[8..40], bytes[6], &bytes[40..])
    };
    let mut covered = Vec::new();
    if protocol == TCP || protocol == ICMPV6 {
        covered.extend_from_slice(addresses);
        covered.extend_from_slice(&[0, protocol]);
        covered.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    }
    covered.extend_from_slice(body);
    add_up(&covered) == 0xffff
}

/// Puts an extension header that begins with its own next header behind the IPv6 header.
fn with_extension(packet: &[u8], kind: u8, extension: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    bytes.splice(40..40, extension.iter().copied());
    bytes[6] = kind;
    let len = u16::try_from(bytes.len() - 40).unwrap();
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// Of a TCP packet over IPv4 without options.
fn sequence_numbers(packet: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
    (number(24), number(28))
}

#[test]
fn the_destination_is_where_the_header_has_it() {
    let mut packet = [0; 40];
    packet[0] = 0x45;
    packet[16..20].copy_from_slice(&[10, 9, 0, 2]);
    assert_eq!(Packet::destination_of(&packet), Some("10.9.0.2".parse().unwrap()));

    packet[0] = 0x60;
    packet[39] = 1;
    packet[24..39].fill(0);
    assert_eq!(Packet::destination_of(&packet), Some("::1".parse().unwrap()));
}

#[test]
fn a_packet_cut_short_goes_nowhere() {
    for packet in [&[][..], &[0x45; 19], &[0x60; 39], &[0x00; 40]] {
        assert_eq!(Packet::destination_of(packet), None);
    }
}

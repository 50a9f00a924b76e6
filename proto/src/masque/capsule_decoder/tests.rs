use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::{
    http3::{MAX_VARINT, encode_varint},
    masque::{AddressRange, AssignedAddress, RequestedAddress, encode_datagram_capsule_header},
};

/// What comes of a stream whose pieces have lengths that repeat.
fn decoded(stream: &[u8], piece_lens: &[usize]) -> (Vec<Capsule>, Result<(), CapsuleError>) {
    let mut decoder = CapsuleDecoder::new();
    let mut capsules = Vec::new();
    let mut rest = stream;
    for len in piece_lens.iter().cycle() {
        let (piece, behind) = rest.split_at((*len).min(rest.len()));
        rest = behind;
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.poll() {
                Ok(Some(capsule)) => capsules.push(capsule),
                Ok(None) => break,
                Err(error) => return (capsules, Err(error)),
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    (capsules, decoder.finish())
}

fn encoded(capsules: &[Capsule]) -> Vec<u8> {
    let mut out = Vec::new();
    for capsule in capsules {
        capsule.encode(&mut out);
    }
    out
}

fn header(capsule_type: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(capsule_type, &mut out);
    encode_varint(len, &mut out);
    out
}

fn error_of(capsule_type: u64, payload: &[u8]) -> CapsuleError {
    let mut stream = header(capsule_type, payload.len() as u64);
    stream.extend_from_slice(payload);
    decoded(&stream, &[stream.len()]).1.expect_err("the capsule is malformed")
}

fn range(first: &str, last: &str, protocol: u8) -> AddressRange {
    AddressRange { first: first.parse().unwrap(), last: last.parse().unwrap(), protocol }
}

fn is_accepted(ranges: &[AddressRange]) -> bool {
    let stream = encoded(&[Capsule::RouteAdvertisement(ranges.to_vec())]);
    decoded(&stream, &[stream.len()]).1.is_ok()
}

#[test]
fn an_assignment_is_laid_out_as_the_rfc_has_it() {
    let prefix = "192.0.2.0/24".parse().unwrap();
    let assigned = Capsule::AddressAssign(vec![AssignedAddress { request_id: 1, prefix }]);
    assert_eq!(encoded(&[assigned]), [1, 7, 1, 4, 192, 0, 2, 0, 24]);
}

#[test]
fn an_advertisement_is_laid_out_as_the_rfc_has_it() {
    let advertised = Capsule::RouteAdvertisement(vec![range("10.0.0.1", "10.0.0.9", 6)]);
    assert_eq!(encoded(&[advertised]), [3, 10, 4, 10, 0, 0, 1, 10, 0, 0, 9, 6]);
}

#[test]
fn a_datagram_may_be_written_in_two_steps() {
    let mut stream = Vec::new();
    encode_datagram_capsule_header(3, &mut stream);
    stream.extend_from_slice(b"\0ab");
    assert_eq!(stream, encoded(&[Capsule::Datagram(Bytes::from_static(b"\0ab"))]));
}

#[test]
fn bits_beyond_a_prefix_are_refused_and_never_sent() {
    assert_eq!(error_of(ADDRESS_ASSIGN, &[0, 4, 192, 0, 2, 1, 24]), CapsuleError::Prefix);
    let prefix = "192.0.2.1/24".parse().unwrap();
    let assigned = Capsule::AddressAssign(vec![AssignedAddress { request_id: 0, prefix }]);
    let stream = encoded(&[assigned]);
    assert_eq!(decoded(&stream, &[stream.len()]).1, Ok(()));
}

#[test]
fn a_prefix_is_no_longer_than_its_address() {
    assert_eq!(error_of(ADDRESS_ASSIGN, &[0, 4, 192, 0, 2, 1, 33]), CapsuleError::Prefix);
}

#[test]
fn a_cut_address_is_refused() {
    assert_eq!(error_of(ADDRESS_ASSIGN, &[0, 4, 192, 0, 2]), CapsuleError::Payload);
    assert_eq!(error_of(ADDRESS_ASSIGN, &[0, 6, 192, 0, 2, 1, 32]), CapsuleError::Payload);
    assert_eq!(error_of(ADDRESS_REQUEST, &[0x40]), CapsuleError::Payload);
    assert_eq!(error_of(ROUTE_ADVERTISEMENT, &[4, 0, 0, 0, 0]), CapsuleError::Payload);
}

#[test]
fn other_versions_of_ip_are_refused() {
    assert_eq!(error_of(ADDRESS_ASSIGN, &[0, 5, 1, 2, 3, 4, 32]), CapsuleError::IpVersion);
}

#[test]
fn a_request_for_addresses_asks_for_some_and_has_an_id() {
    assert_eq!(error_of(ADDRESS_REQUEST, &[]), CapsuleError::RequestEmpty);
    let payload = [0, 4, 0, 0, 0, 0, 32];
    assert_eq!(error_of(ADDRESS_REQUEST, &payload), CapsuleError::RequestIdZero);
}

#[test]
fn all_addresses_and_routes_can_be_withdrawn() {
    let capsules =
        vec![Capsule::AddressAssign(Vec::new()), Capsule::RouteAdvertisement(Vec::new())];
    assert_eq!(decoded(&encoded(&capsules), &[1]), (capsules, Ok(())));
}

#[test]
fn ranges_are_in_order_and_do_not_overlap() {
    let v4 = range("10.0.0.0", "10.0.0.255", 0);
    assert!(is_accepted(&[v4, range("10.0.1.0", "10.0.1.0", 0), range("::", "::1", 0)]));
    assert!(is_accepted(&[range("10.9.0.0", "10.9.0.1", 6), range("10.0.0.0", "10.0.0.1", 17)]));
    assert!(!is_accepted(&[range("::", "::1", 0), v4]));
    assert!(!is_accepted(&[v4, range("10.0.0.255", "10.0.1.0", 0)]));
    assert!(!is_accepted(&[range("10.0.0.0", "10.0.0.1", 17), range("10.0.0.2", "10.0.0.3", 6)]));
    assert!(!is_accepted(&[range("10.0.0.1", "10.0.0.0", 0)]));
}

#[test]
fn sorted_ranges_are_in_the_order_of_an_advertisement() {
    let mut ranges = [
        range("::", "::1", 0),
        range("10.0.1.0", "10.0.1.9", 17),
        range("10.0.2.0", "10.0.2.9", 6),
        range("10.0.0.0", "10.0.0.9", 17),
    ];
    assert!(!is_accepted(&ranges));
    ranges.sort_unstable();
    assert!(is_accepted(&ranges));
}

#[test]
fn unknown_capsules_are_skipped_whatever_their_length() {
    let mut decoder = CapsuleDecoder::new();
    decoder.push(header(0x17, 0).into());
    decoder.push(header(0x40, MAX_VARINT).into());
    for _piece in 0..100 {
        decoder.push(Bytes::from_static(&[0; 1 << 10]));
        assert_eq!(decoder.poll(), Ok(None));
        assert!(decoder.pieces.is_empty());
    }
    assert_eq!(decoder.finish(), Err(CapsuleError::Truncated));
}

#[test]
fn a_known_capsule_has_a_limit_that_is_seen_before_it_arrives() {
    let longest = Capsule::Datagram(vec![0; MAX_CAPSULE_LEN].into());
    let (capsules, end) = decoded(&encoded(std::slice::from_ref(&longest)), &[1000]);
    assert_eq!((capsules, end), (vec![longest], Ok(())));
    let len = MAX_CAPSULE_LEN as u64 + 1;
    let stream = header(DATAGRAM, len);
    assert_eq!(decoded(&stream, &[stream.len()]).1, Err(CapsuleError::TooLong { len }));
}

#[test]
fn a_datagram_within_one_piece_is_not_copied() {
    let stream = Bytes::from(encoded(&[Capsule::Datagram(vec![1; 9].into())]));
    let mut decoder = CapsuleDecoder::new();
    decoder.push(stream.clone());
    let Ok(Some(Capsule::Datagram(payload))) = decoder.poll() else { panic!("no datagram") };
    assert_eq!(payload.as_ptr(), stream[2..].as_ptr());
}

#[test]
fn a_decoder_that_failed_stays_so() {
    let mut decoder = CapsuleDecoder::new();
    decoder.push(header(ADDRESS_REQUEST, 0).into());
    assert_eq!(decoder.poll(), Err(CapsuleError::RequestEmpty));
    decoder.push(encoded(&[Capsule::AddressAssign(Vec::new())]).into());
    assert_eq!(decoder.poll(), Err(CapsuleError::RequestEmpty));
    assert_eq!(decoder.finish(), Err(CapsuleError::RequestEmpty));
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0_u8..=128).prop_map(|(address, len)| {
        let len = if address.is_ipv4() { len % 33 } else { len };
        IpNet::new(address, len).unwrap().trunc()
    })
}

/// Ranges made of distinct addresses in order, two for each.
fn ranges() -> impl Strategy<Value = Vec<AddressRange>> {
    (proptest::collection::btree_set(any::<IpAddr>(), 0..8), any::<u8>()).prop_map(
        |(addresses, protocol)| {
            let addresses: Vec<IpAddr> = addresses.into_iter().collect();
            addresses
                .chunks_exact(2)
                .filter(|pair| pair[0].is_ipv4() == pair[1].is_ipv4())
                .map(|pair| AddressRange { first: pair[0], last: pair[1], protocol })
                .collect()
        },
    )
}

fn capsule() -> impl Strategy<Value = Capsule> {
    let request_id = 1..=MAX_VARINT;
    let assigned = (0..=MAX_VARINT, prefix())
        .prop_map(|(request_id, prefix)| AssignedAddress { request_id, prefix });
    let requested = (request_id, prefix())
        .prop_map(|(request_id, prefix)| RequestedAddress { request_id, prefix });
    prop_oneof![
        any::<Vec<u8>>().prop_map(|payload| Capsule::Datagram(payload.into())),
        proptest::collection::vec(assigned, 0..4).prop_map(Capsule::AddressAssign),
        proptest::collection::vec(requested, 1..4).prop_map(Capsule::AddressRequest),
        ranges().prop_map(Capsule::RouteAdvertisement),
    ]
}

proptest! {
    #[test]
    fn capsules_survive_a_round_trip_in_any_pieces(
        capsules in proptest::collection::vec(capsule(), 0..6),
        piece_lens in proptest::collection::vec(1_usize..40, 1..8),
    ) {
        prop_assert_eq!(decoded(&encoded(&capsules), &piece_lens), (capsules, Ok(())));
    }

    #[test]
    fn a_stream_gives_the_same_capsules_whatever_its_pieces(
        capsules in proptest::collection::vec(capsule(), 0..4),
        place in any::<proptest::sample::Index>(),
        inserted in proptest::collection::vec(0_u8..=8, 0..20),
        piece_lens in proptest::collection::vec(1_usize..40, 1..8),
    ) {
        let mut stream = encoded(&capsules);
        let place = place.index(stream.len() + 1);
        stream.splice(place..place, inserted);
        let whole = decoded(&stream, &[stream.len().max(1)]);
        prop_assert_eq!(decoded(&stream, &piece_lens), whole.clone());
        prop_assert_eq!(decoded(&stream, &[1]), whole);
    }

    #[test]
    fn any_stream_is_survived(stream: Vec<u8>) {
        drop(decoded(&stream, &[stream.len().max(1)]));
    }
}

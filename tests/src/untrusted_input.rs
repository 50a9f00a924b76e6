//! What strangers can send, each kind fed to everything that reads it. A fuzzer calls these with
//! inputs of its own making, the tests with the committed corpus. Each must return, whatever comes.

mod train;

use std::{
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use adit_policy::{Destination, Evaluator, validate_policy, validate_resource};
use adit_proto::{
    Assertion, Bundle, ClientConfig, ClientMessage, ConnectorMessage, Credential, JoinToken, Pin,
    PortRange, Protocol, Signed, SigningKey, Timestamp, TokenType, api,
    http3::{
        Frame as Http3Frame, FrameDecoder, Http3Error, RequestHead, ResponseHead, decode_fields,
        encode_fields,
    },
    masque::{Capsule, CapsuleDecoder, CapsuleError, ProxyRequest},
};
use adit_tunnel::{
    Endpoint, Frame, Merger, Packet, PeerConfig, Received, Refusal, Sealed, Tunnel,
    WireguardSecret, refuse,
};
use serde::{Serialize, de::DeserializeOwned};

use self::train::Train;

/// Gives input to everything that reads its kind.
pub type Feed = fn(&[u8]);

/// The kinds of input, each with the name of its fuzz target and of its corpus.
pub const KINDS: [(&str, Feed); 9] = [
    ("outer_datagram", outer_datagram),
    ("inner_packet", inner_packet),
    ("split", split),
    ("merge", merge),
    ("credential", credential),
    ("bundle", bundle),
    ("rest_body", rest_body),
    ("http3_stream", http3_stream),
    ("capsule_stream", capsule_stream),
];

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_seed(&[7; 32]));

/// A datagram that reaches a WireGuard socket: to a responder with one live peer, from a stranger
/// and from the peer's own address.
pub fn outer_datagram(bytes: &[u8]) {
    let start = Instant::now();
    let here: SocketAddr = "192.0.2.1:443".parse().expect("a literal address");
    let there: SocketAddr = "192.0.2.2:443".parse().expect("a literal address");
    let secret = |text: &str| text.parse::<WireguardSecret>().expect("a literal key");
    let client_secret = secret("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
    let connector_secret = secret("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=");
    let mut client = Tunnel::new(client_secret.clone(), 1420, start);
    let mut connector = Tunnel::new(connector_secret.clone(), 1420, start);
    let everything = || vec!["0.0.0.0/0".parse().expect("a literal prefix")];
    let peer = |secret: &WireguardSecret, endpoint| PeerConfig {
        public_key: secret.public_key(),
        allowed_ips: everything(),
        endpoint,
        keepalive: None,
    };
    let connector_peer =
        client.upsert(peer(&connector_secret, Some(there)), start).expect("the first peer");
    connector.upsert(peer(&client_secret, None), start).expect("the first peer");

    let mut buffer = vec![0; Tunnel::BUFFER_LEN];
    client.initiate_handshake(connector_peer, start);
    for _round in 0..2 {
        while let Some(transmit) = client.poll_transmit() {
            connector.handle_datagram(here.into(), &transmit.bytes, &mut buffer, start);
        }
        while let Some(transmit) = connector.poll_transmit() {
            client.handle_datagram(there.into(), &transmit.bytes, &mut buffer, start);
        }
    }

    // Once as it is, and once behind the header of a live session, whose index none could guess.
    let mut sealed = vec![0; Tunnel::BUFFER_LEN];
    let mut behind_live_header = bytes.to_vec();
    if let Sealed::Datagram { bytes: datagram, .. } =
        client.seal(connector_peer, &[], &mut sealed, start)
    {
        behind_live_header.splice(0..0, datagram.iter().take(8).copied());
    }
    for datagram in [bytes, &behind_live_header] {
        for from in [Endpoint::from(here), Endpoint::from(there)] {
            let received = connector.handle_datagram(from, datagram, &mut buffer, start);
            assert!(
                !matches!(received, Received::Packet { .. }),
                "a datagram that no key sealed was opened"
            );
            while connector.poll_transmit().is_some() {}
        }
    }
    connector.handle_timeout(start + Duration::from_secs(1));
}

/// A packet that leaves the tunnel.
pub fn inner_packet(bytes: &[u8]) {
    let Ok(packet) = Packet::try_parse(bytes) else { return };
    assert!(packet.bytes().len() <= bytes.len());
    if let Some(flow) = packet.flow() {
        assert_eq!(flow.reversed().reversed(), flow);
    }
    let _embedded = packet.related_flow();
    for refusal in [Refusal::Prohibited, Refusal::TooBig { mtu: 1280 }] {
        if let Some(answer) = refuse(&packet, refusal, None) {
            let answer = Packet::try_parse(&answer).expect("our own answer is a packet");
            assert_eq!(answer.destination(), packet.source());
        }
    }
}

/// What a TUN device with offloads gives: its packets are those of one flow and carry every byte.
pub fn split(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let Ok(frame) = Frame::try_parse(&mut bytes) else { return };
    let whole = frame.packet().to_vec();
    let whole_flow = Packet::try_parse(&whole).map(|packet| packet.flow());
    let (count, wire_bytes) = (frame.packet_count(), frame.wire_bytes());
    let (ecn, max_len) = (frame.ecn(), frame.max_packet_len());
    assert!(ecn < 4);
    let header_len = match u64::from(count) {
        0 => panic!("a frame of no packets"),
        1 => 0,
        count => usize::try_from((wire_bytes - whole.len() as u64) / (count - 1)).expect("short"),
    };

    let mut segments = frame.segments();
    let (mut split_count, mut split_bytes, mut longest) = (0, 0, 0);
    let mut carried = whole.get(..header_len).expect("headers of its own").to_vec();
    while let Some(segment) = segments.next() {
        split_count += 1;
        split_bytes += segment.len() as u64;
        longest = longest.max(segment.len());
        carried.extend_from_slice(&segment[header_len..]);
        if count > 1
            && let Ok(whole_flow) = whole_flow
        {
            let packet = Packet::try_parse(segment).expect("a segment is a packet");
            assert_eq!((packet.flow(), packet.bytes().len()), (whole_flow, segment.len()));
        }
    }
    assert_eq!((split_count, split_bytes, longest), (count, wire_bytes, max_len));
    if count > 1 {
        assert_eq!(carried, whole, "payload got lost");
    }
}

/// Packets that leave the tunnel and merge: what is made of them splits into the same packets.
pub fn merge(bytes: &[u8]) {
    let mut merger = Merger::new();
    let mut waiting = Vec::new();
    for arrival in Train::new(bytes) {
        let len = arrival.packet.len();
        merger.slot()[..len].copy_from_slice(&arrival.packet);
        if arrival.is_late || !merger.try_extend(len) {
            assert_is_taken(&mut merger, &mut waiting);
            assert_eq!(merger.slot()[..len], arrival.packet, "the slot changed");
            merger.begin(len);
        }
        waiting.push(arrival.packet);
    }
    assert_is_taken(&mut merger, &mut waiting);
}

/// Takes the present run, which consists of the packets that wait.
fn assert_is_taken(merger: &mut Merger, waiting: &mut Vec<Vec<u8>>) {
    let Some(mut run) = merger.take() else {
        assert!(waiting.is_empty(), "packets got lost");
        return;
    };
    assert_eq!(run.packet_count() as usize, waiting.len());
    let is_merged = waiting.len() > 1;
    let flow = Packet::try_parse(run.packet()).map(|packet| packet.flow());
    let mut segments = Frame::try_parse(run.frame_mut()).expect("a run is a frame").segments();
    for arrived in waiting.drain(..) {
        let segment = segments.next().expect("as many packets as arrived");
        let mut expected = match Packet::try_parse(&arrived) {
            Ok(packet) => {
                assert_eq!(Ok(packet.flow()), flow, "merged from several flows");
                packet.bytes().to_vec()
            }
            // It goes on as it is, but perhaps without what its length says is padding.
            Err(_) => arrived.get(..segment.len()).expect("nothing is added").to_vec(),
        };
        // The identification of a packet that must not be fragmented means nothing (RFC 6864).
        if is_merged && expected[0] == 0x45 && expected[6] & 0x40 != 0 {
            for place in [4..6, 10..12] {
                expected[place.clone()].fill(0);
                segment[place].fill(0);
            }
        }
        assert_eq!(segment, expected);
    }
    assert_eq!(segments.next(), None);
}

/// A device's credential, an assertion or a token to join with: as sent, and rightly signed around
/// a hostile payload.
pub fn credential(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let now = Timestamp::from_millis(1_767_225_600_000);
    let pin = Pin::from_spki(b"device");
    let keys = [KEY.organisation_key()];

    assert!(
        Credential::verify(&text, &keys, &pin, now).is_err(),
        "a forged credential is accepted"
    );
    drop(Assertion::unverified_subject(&text));
    drop(Assertion::verify(&text, bytes, "GET", "/", b"", now));
    drop(text.parse::<JoinToken>());
    drop(text.parse::<PortRange>());
    drop(text.parse::<Timestamp>());

    if let Ok(payload) = serde_json::from_slice::<serde_json::Value>(bytes) {
        let signed = Signed::sign(payload, TokenType::Credential, &KEY);
        drop(Credential::verify(signed.token(), &keys, &pin, now));
    }
}

/// A connector's bundle or a client's configuration: as sent, and rightly signed around a hostile
/// payload, then compiled and asked.
pub fn bundle(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let keys = [KEY.organisation_key()];
    let connector_id = "conn_00000000000000000000000000000001".parse().expect("a literal id");
    assert!(
        Bundle::verify(&text, &keys, connector_id, None).is_err(),
        "a forged bundle is accepted"
    );

    let Ok(payload) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let signed = Signed::sign(payload.clone(), TokenType::Bundle, &KEY);
    if let Ok(bundle) = Bundle::verify(signed.token(), &keys, connector_id, None)
        && let Ok(evaluator) = Evaluator::try_new(&bundle.policies, &bundle.resources)
    {
        let first = bundle.resources.first().and_then(|resource| resource.addresses.first());
        let address = first.map_or([10, 9, 0, 2].into(), ipnet::IpNet::addr);
        evaluator.resource_at(&Destination { address, port: 80, protocol: Protocol::Tcp });
    }
    let signed = Signed::sign(payload, TokenType::ClientConfig, &KEY);
    drop(Signed::<ClientConfig>::verify(signed.token(), TokenType::ClientConfig, &keys));
}

/// A body of the REST API or a line of the session channel. What is understood survives a round
/// trip.
pub fn rest_body(bytes: &[u8]) {
    if let Some(policy) = understood::<api::PolicyWrite>(bytes) {
        drop(validate_policy(&policy));
    }
    if let Some(resource) = understood::<api::ResourceWrite>(bytes) {
        drop(validate_resource(&resource));
    }
    understood::<api::UserWrite>(bytes);
    understood::<api::GroupWrite>(bytes);
    understood::<api::SiteWrite>(bytes);
    understood::<api::OrganisationWrite>(bytes);
    understood::<api::ConnectorWrite>(bytes);
    understood::<api::ConnectorTokenWrite>(bytes);
    understood::<api::ConnectorEnroll>(bytes);
    understood::<api::ConnectorReport>(bytes);
    understood::<api::ClientEnroll>(bytes);
    understood::<api::WireguardDeviceWrite>(bytes);
    understood::<api::EnrollmentKeyWrite>(bytes);
    understood::<api::ApiTokenWrite>(bytes);
    understood::<api::ExplainRequest>(bytes);
    understood::<api::AccessEventBatch>(bytes);
    understood::<ClientMessage>(bytes);
    understood::<ConnectorMessage>(bytes);
}

fn understood<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("what was read can be written"), written);
    Some(value)
}

/// A request stream or a control stream of HTTP/3: its frames are the same whatever its pieces, and
/// what is understood of their fields survives a round trip. Also a field section alone.
pub fn http3_stream(bytes: &[u8]) {
    let (frames, end) = frames_of(bytes, bytes.len());
    for piece_len in [1, 2, 7] {
        assert_eq!(frames_of(bytes, piece_len), (frames.clone(), end.clone()));
    }
    for frame in frames {
        if let Http3Frame::Headers(section) = frame {
            field_section(&section);
        }
    }
    field_section(bytes);
}

/// The frames of a stream that arrives in pieces of one length, adjacent data joined; and how it
/// ends.
fn frames_of(stream: &[u8], piece_len: usize) -> (Vec<Http3Frame>, Result<(), Http3Error>) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for piece in stream.chunks(piece_len.max(1)) {
        decoder.push(piece.to_vec().into());
        loop {
            match (decoder.poll(), frames.last_mut()) {
                (Ok(Some(Http3Frame::Data(data))), Some(Http3Frame::Data(before))) => {
                    assert!(!data.is_empty(), "a piece of data is empty");
                    *before = [before.as_ref(), data.as_ref()].concat().into();
                }
                (Ok(Some(frame)), _) => frames.push(frame),
                (Ok(None), _) => break,
                (Err(error), _) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.finish())
}

fn field_section(section: &[u8]) {
    let Ok(fields) = decode_fields(section) else { return };
    let again = decode_fields(&encode_fields(&fields));
    assert_eq!(again.as_ref(), Ok(&fields), "fields changed");
    if let Ok(head) = RequestHead::try_from_fields(fields.clone()) {
        assert_eq!(RequestHead::try_from_fields(head.fields()).as_ref(), Ok(&head));
        if let Ok(request) = ProxyRequest::try_from_head(&head) {
            let own_head = request.head("connector.example");
            assert_eq!(ProxyRequest::try_from_head(&own_head), Ok(request));
        }
    }
    if let Ok(head) = ResponseHead::try_from_fields(fields) {
        assert_eq!(ResponseHead::try_from_fields(head.fields()), Ok(head));
    }
}

/// The stream of a request that was accepted: its capsules are the same whatever its pieces, and
/// survive a round trip.
pub fn capsule_stream(bytes: &[u8]) {
    let (capsules, end) = capsules_of(bytes, bytes.len());
    for piece_len in [1, 2, 7] {
        assert_eq!(capsules_of(bytes, piece_len), (capsules.clone(), end.clone()));
    }
    let mut written = Vec::new();
    for capsule in &capsules {
        capsule.encode(&mut written);
    }
    assert_eq!(capsules_of(&written, written.len()), (capsules, Ok(())));
}

/// The capsules of a stream that arrives in pieces of one length, and how it ends.
fn capsules_of(stream: &[u8], piece_len: usize) -> (Vec<Capsule>, Result<(), CapsuleError>) {
    let mut decoder = CapsuleDecoder::new();
    let mut capsules = Vec::new();
    for piece in stream.chunks(piece_len.max(1)) {
        decoder.push(piece.to_vec().into());
        loop {
            match decoder.poll() {
                Ok(Some(capsule)) => capsules.push(capsule),
                Ok(None) => break,
                Err(error) => return (capsules, Err(error)),
            }
        }
    }
    (capsules, decoder.finish())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_corpus_of_every_kind_of_untrusted_input_is_survived() {
        for (kind, feed) in KINDS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(kind);
            let mut fed = 0;
            for entry in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{corpus:?}: {error}"))
            {
                feed(&fs::read(entry.unwrap().path()).unwrap());
                fed += 1;
            }
            assert!(fed >= 5, "the corpus of {kind} holds only {fed} inputs");
        }
    }
}

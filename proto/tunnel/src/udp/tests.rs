use std::{
    net::SocketAddr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use super::*;
use crate::Waiter;

#[test]
fn datagrams_arrive_in_order_with_their_sender() {
    let receiver = bind("127.0.0.1:0");
    let sender = bind("127.0.0.1:0");
    let sent: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; usize::from(n) * 13 + 1]).collect();
    for datagram in &sent {
        assert_eq!(sender.send(receiver.local_address().into(), datagram), SendOutcome::Sent);
    }
    let received = receive(&receiver, sent.len());
    assert_eq!(
        received.iter().map(|(_from, bytes)| bytes).collect::<Vec<_>>(),
        sent.iter().collect::<Vec<_>>()
    );
    assert!(received.iter().all(|(from, _bytes)| from.remote() == sender.local_address()));
}

#[test]
fn an_empty_datagram_does_not_stop_the_reader() {
    let receiver = bind("127.0.0.1:0");
    let sender = bind("127.0.0.1:0");
    for datagram in [&b"a"[..], b"", b"", b"b"] {
        assert_eq!(sender.send(receiver.local_address().into(), datagram), SendOutcome::Sent);
    }
    let lengths: Vec<usize> =
        receive(&receiver, 4).iter().map(|(_from, bytes)| bytes.len()).collect();
    assert_eq!(lengths, [1, 0, 0, 1]);
}

#[test]
fn a_port_that_nobody_listens_on_does_not_stop_the_reader() {
    let socket = bind("127.0.0.1:0");
    let closed = bind("127.0.0.1:0").local_address();
    let peer = bind("127.0.0.1:0");
    for _ in 0..100 {
        socket.send(closed.into(), b"nobody");
    }
    peer.send(socket.local_address().into(), b"somebody");
    assert_eq!(receive(&socket, 1)[0].1, b"somebody");
}

#[test]
fn an_unspecified_ipv6_address_serves_both_versions_and_answers_from_the_address_asked() {
    let server = bind("[::]:0");
    let port = server.local_address().port();
    for (client, asked) in [("127.0.0.1:0", "127.0.0.2"), ("[::1]:0", "::1")] {
        let client = bind(client);
        let asked = SocketAddr::new(asked.parse().unwrap(), port);
        client.send(asked.into(), b"question");
        let (from, _bytes) = receive(&server, 1).remove(0);
        assert_eq!(from, Endpoint::new(client.local_address(), Some(asked.ip())));
        assert_eq!(server.send(from, b"answer"), SendOutcome::Sent);
        assert_eq!(receive(&client, 1)[0].0, asked.into());
    }
}

#[test]
fn a_local_address_that_is_gone_does_not_stop_the_answer() {
    let server = bind("[::]:0");
    let client = bind("127.0.0.1:0");
    let gone = Endpoint::new(client.local_address(), Some("192.0.2.77".parse().unwrap()));
    assert_eq!(server.send(gone, b"answer"), SendOutcome::Sent);
    assert_eq!(receive(&client, 1)[0].1, b"answer");
}

#[test]
fn a_datagram_longer_than_the_path_is_told_to_be_too_big() {
    let socket = bind("0.0.0.0:0");
    let to = "127.0.0.1:9".parse::<SocketAddr>().unwrap();
    assert_eq!(socket.send(to.into(), &[0; 65_508]), SendOutcome::TooBig);
}

#[test]
fn a_port_in_use_is_named() {
    let first = bind("127.0.0.1:0");
    let error = UdpSocket::try_bind(first.local_address(), Offloads::ALL).unwrap_err();
    assert!(matches!(error, UdpError::InUse { .. }));
    assert!(error.to_string().contains(&first.local_address().port().to_string()));
}

#[test]
fn an_address_of_another_host_is_refused() {
    let error = UdpSocket::try_bind("192.0.2.1:0".parse().unwrap(), Offloads::ALL).unwrap_err();
    assert!(matches!(error, UdpError::NotLocal { .. }));
}

fn bind(address: &str) -> UdpSocket {
    UdpSocket::try_bind(address.parse().unwrap(), Offloads::ALL).unwrap()
}

fn receive(socket: &UdpSocket, count: usize) -> Vec<(Endpoint, Vec<u8>)> {
    let (waiter, _waker) = Waiter::try_new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut batch = ReceiveBatch::new();
    let mut received = Vec::new();
    while received.len() < count {
        let now = Instant::now();
        assert!(now < deadline, "{} of {count} datagrams", received.len());
        waiter.wait(None, Some(socket.as_fd()), Some(deadline), now).unwrap();
        while socket.receive(&mut batch).unwrap() {
            received
                .extend(batch.datagrams().map(|datagram| (datagram.from, datagram.bytes.to_vec())));
        }
    }
    received
}

#[test]
#[expect(unsafe_code, reason = "no crate has this option")]
fn a_train_that_the_network_refuses_goes_out_one_by_one() {
    use std::os::fd::AsRawFd as _;

    let receiver = bind("127.0.0.1:0");
    let mut sender = bind("127.0.0.1:0");
    // The kernel cuts no trains without checksums.
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap();
    // SAFETY: the descriptor is open, and the value lives as long as the call.
    let result = unsafe {
        let value = std::ptr::from_ref(&on).cast();
        libc::setsockopt(
            sender.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            value,
            len,
        )
    };
    assert_eq!(result, 0);

    for _ in 0..2 {
        let mut train = train_to(&receiver, &[b"first", b"secon", b"th"]);
        assert_eq!(sender.send_train(&mut train), SendOutcome::Sent);
        let received = receive(&receiver, 3);
        let bytes: Vec<&[u8]> = received.iter().map(|(_from, bytes)| &**bytes).collect();
        assert_eq!(bytes, [&b"first"[..], b"secon", b"th"]);
    }
    assert_eq!(sender.max_segments, 1);
}

#[test]
fn a_train_arrives_as_its_datagrams_with_their_marks() {
    let receiver = bind("127.0.0.1:0");
    let mut sender = bind("127.0.0.1:0");
    let mut train = train_to(&receiver, &[&[1; 1452], &[2; 1452], &[3; 1452], &[4; 7]]);
    assert_eq!(sender.send_train(&mut train), SendOutcome::Sent);
    let received = receive(&receiver, 4);
    let lengths: Vec<usize> = received.iter().map(|(_from, bytes)| bytes.len()).collect();
    assert_eq!(lengths, [1452, 1452, 1452, 7]);
    assert!(
        received.iter().zip(1..).all(|((_from, bytes), fill)| bytes.iter().all(|b| *b == fill))
    );
}

fn train_to(receiver: &UdpSocket, datagrams: &[&[u8]]) -> Train {
    let mut train = Train::new();
    let to = Endpoint::from(receiver.local_address());
    let heading =
        Heading { peer: crate::PeerId::sample(), to, ecn: Ecn::NotCapable, may_be_cut: false };
    for datagram in datagrams {
        train.slot()[..datagram.len()].copy_from_slice(datagram);
        if !train.try_append(heading, datagram.len()) {
            train.begin(heading, datagram.len());
        }
    }
    train
}

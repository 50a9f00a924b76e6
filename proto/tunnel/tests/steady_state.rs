//! What the data path costs once a session is established: no allocation.

#![expect(unsafe_code, reason = "a global allocator cannot be written without")]
#![expect(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    net::SocketAddr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use adit_tunnel::{
    Frame, Inbound, Offloads, Opened, Outbound, PeerConfig, PeerId, ReceiveBatch, Tunnel,
    UdpSocket, VirtioHeader, Waiter, WireguardSecret,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every call on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LAPTOP: [u8; 4] = [100, 80, 0, 1];
const SERVICE: [u8; 4] = [10, 9, 0, 2];
const SEGMENTS: usize = 40;
const SEGMENT_PAYLOAD: usize = 1380;

/// One end: a tunnel with one peer behind a socket on loopback.
struct End {
    tunnel: Tunnel,
    udp: UdpSocket,
    peer: Option<PeerId>,
    inbound: Inbound,
    outbound: Outbound,
    batch: ReceiveBatch,
}

impl End {
    fn new(secret: WireguardSecret, now: Instant) -> Self {
        Self {
            tunnel: Tunnel::new(secret, 1420, now),
            udp: UdpSocket::try_bind("127.0.0.1:0".parse().unwrap(), Offloads::ALL).unwrap(),
            peer: None,
            inbound: Inbound::new(),
            outbound: Outbound::new(),
            batch: ReceiveBatch::new(),
        }
    }

    fn know(&mut self, other: &Self, endpoint: Option<SocketAddr>, address: [u8; 4]) {
        let config = PeerConfig {
            public_key: other.tunnel.public_key(),
            allowed_ips: vec![std::net::IpAddr::from(address).into()],
            endpoint,
            keepalive: None,
        };
        self.peer = Some(self.tunnel.upsert(config, Instant::now()).unwrap());
    }

    /// Receives until there are `expected` packets, and returns how many runs they made.
    fn receive(&mut self, expected: u32, waiter: &Waiter) -> u32 {
        let (mut packets, mut runs) = (0, 0);
        let give_up_at = Instant::now() + Duration::from_secs(20);
        while packets < expected {
            let now = Instant::now();
            assert!(now < give_up_at, "{packets} of {expected} packets");
            waiter.wait(None, Some(self.udp.as_fd()), Some(give_up_at), now).unwrap();
            while self.udp.receive(&mut self.batch).unwrap() {
                for datagram in self.batch.datagrams() {
                    let opened = self.inbound.open(&mut self.tunnel, &datagram, now);
                    assert!(matches!(opened, Opened::Kept), "{opened:?}");
                    while let Some((_peer, run)) = self.inbound.poll_run() {
                        packets += run.packet_count();
                        runs += 1;
                    }
                }
                if let Some((_peer, run)) = self.inbound.finish() {
                    packets += run.packet_count();
                    runs += 1;
                }
                self.transmit();
            }
        }
        runs
    }

    fn transmit(&mut self) {
        while self.tunnel.poll_event().is_some() {}
        while let Some(transmit) = self.tunnel.poll_transmit() {
            self.udp.send(transmit.to, &transmit.bytes);
        }
    }

    fn send(&mut self, frame: &mut [u8]) {
        let frame = Frame::try_parse(frame).unwrap();
        let Self { tunnel, udp, outbound, peer, .. } = self;
        outbound.seal_frame(tunnel, udp, peer.unwrap(), frame, Instant::now());
        outbound.flush(tunnel, udp, Instant::now());
        self.transmit();
    }
}

/// A super-packet as the kernel hands it over, whose checksum is still to be completed.
fn super_frame(sequence: u32) -> Vec<u8> {
    let header = VirtioHeader {
        flags: VirtioHeader::NEEDS_CHECKSUM,
        gso_type: VirtioHeader::GSO_TCPV4,
        hdr_len: 40,
        gso_size: u16::try_from(SEGMENT_PAYLOAD).unwrap(),
        csum_start: 20,
        csum_offset: 16,
    };
    let mut frame = header.encode().to_vec();
    let len = u16::try_from(40 + SEGMENTS * SEGMENT_PAYLOAD).unwrap();
    let [high, low] = len.to_be_bytes();
    frame.extend_from_slice(&[0x45, 0, high, low, 0, 7, 0x40, 0, 64, 6, 0, 0]);
    frame.extend_from_slice(&LAPTOP);
    frame.extend_from_slice(&SERVICE);
    frame.extend_from_slice(&[0x9c, 0x40, 0, 80]);
    frame.extend_from_slice(&sequence.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(VirtioHeader::LEN + usize::from(len), 0xad);
    frame
}

#[test]
fn an_established_session_carries_packets_without_allocating() {
    let now = Instant::now();
    let (waiter, _waker) = Waiter::try_new().unwrap();
    let mut laptop = End::new(WireguardSecret::try_generate().unwrap(), now);
    let mut connector = End::new(WireguardSecret::try_generate().unwrap(), now);
    laptop.know(&connector, Some(connector.udp.local_address()), SERVICE);
    connector.know(&laptop, None, LAPTOP);
    let frames: Vec<Vec<u8>> = (0..64_u32).map(|number| super_frame(number * 65_536)).collect();
    let packets = u32::try_from(SEGMENTS).unwrap();

    // The handshake: the first frame waits for it.
    let (mut frame, mut runs) = (frames[0].clone(), 0);
    laptop.send(&mut frame);
    connector.receive_handshake(&waiter);
    laptop.receive_handshake(&waiter);
    runs += connector.receive(packets, &waiter);
    assert!(runs > 0);

    let mut copies: Vec<Vec<u8>> = frames.clone();
    let before = ALLOCATIONS.with(Cell::get);
    let mut runs = 0;
    for frame in &mut copies {
        laptop.send(frame);
        runs += connector.receive(packets, &waiter);
    }
    let allocations = ALLOCATIONS.with(Cell::get) - before;

    assert_eq!(allocations, 0, "for {} packets", copies.len() * SEGMENTS);
    // Not a test of the kernel's batches, but without any merging this is the path of a trickle.
    assert!(runs <= 2 * 64, "{runs} runs for 64 super-packets");
}

impl End {
    /// Takes handshake messages until one has come.
    fn receive_handshake(&mut self, waiter: &Waiter) {
        let now = Instant::now();
        let deadline = now + Duration::from_secs(20);
        let ready = waiter.wait(None, Some(self.udp.as_fd()), Some(deadline), now).unwrap();
        assert!(ready.udp, "no handshake message came");
        assert!(self.udp.receive(&mut self.batch).unwrap());
        for datagram in self.batch.datagrams() {
            let opened = self.inbound.open(&mut self.tunnel, &datagram, Instant::now());
            assert!(matches!(opened, Opened::Kept), "{opened:?}");
        }
        self.transmit();
    }
}

//! Packets for the tests of splitting and merging, laid out word by word: none of the code under
//! test takes part.

use super::VirtioHeader;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
pub(super) const ECE: u8 = 0x40;
pub(super) const CWR: u8 = 0x80;

/// What a packet is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) is_ipv4: bool,
    /// The last byte of each address.
    pub(super) addresses: [u8; 2],
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// Flags and offset of the fragment of IPv4.
    pub(super) fragment: u16,
    pub(super) id: u16,
    pub(super) flow_label: u16,
    /// Options of IPv4, or one extension header of IPv6 without its first byte.
    pub(super) ip_options: Vec<u8>,
    pub(super) ports: [u16; 2],
    pub(super) transport: Transport,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp(Tcp),
    Udp { has_checksum: bool },
    Echo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) sequence: u32,
    pub(super) acknowledgment: u32,
    /// The four bits beside the length of the header.
    pub(super) reserved: u8,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<u8>,
}

pub(super) const DO_NOT_FRAGMENT: u16 = 0x4000;

impl Sample {
    pub(super) fn tcp(is_ipv4: bool, payload_len: usize) -> Self {
        Self {
            is_ipv4,
            addresses: [1, 2],
            tos: 0,
            ttl: 64,
            fragment: DO_NOT_FRAGMENT,
            id: 7,
            flow_label: 0x1234,
            ip_options: Vec::new(),
            ports: [4000, 443],
            transport: Transport::Tcp(Tcp {
                sequence: 1000,
                acknowledgment: 5,
                reserved: 0,
                flags: ACK,
                window: 512,
                urgent: 0,
                options: Vec::new(),
            }),
            payload: noise(payload_len, 1),
        }
    }

    pub(super) fn udp(is_ipv4: bool, payload_len: usize) -> Self {
        let transport = Transport::Udp { has_checksum: true };
        Self { transport, ..Self::tcp(is_ipv4, payload_len) }
    }

    pub(super) fn as_tcp(&mut self) -> &mut Tcp {
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp,
            Transport::Udp { .. } | Transport::Echo => panic!("not TCP"),
        }
    }

    /// The packet that its sender sends next in the same flow.
    pub(super) fn next(&self, payload_len: usize) -> Self {
        let mut next = self.clone();
        next.id = self.id.wrapping_add(1);
        if let Transport::Tcp(tcp) = &mut next.transport {
            tcp.sequence = tcp.sequence.wrapping_add(self.payload.len() as u32);
        }
        next.payload = noise(payload_len, u64::from(next.id) + 2);
        next
    }

    pub(super) fn is_tcp(&self) -> bool {
        matches!(self.transport, Transport::Tcp(_))
    }

    /// Where the header of TCP or UDP begins.
    pub(super) fn transport_at(&self) -> usize {
        let extension = if self.is_ipv4 || self.ip_options.is_empty() { 0 } else { 1 };
        self.ip_header().len() + self.ip_options.len() + extension
    }

    pub(super) fn header_len(&self) -> usize {
        self.transport_at() + self.transport_header().len()
    }

    pub(super) fn checksum_at(&self) -> usize {
        self.transport_at()
            + match self.transport {
                Transport::Tcp(_) => 16,
                Transport::Udp { .. } => 6,
                Transport::Echo => 2,
            }
    }

    /// The whole packet with its checksums.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.without_transport_checksum();
        let body = &bytes[self.transport_at()..];
        let covered = match self.transport {
            Transport::Echo if self.is_ipv4 => body.to_vec(),
            Transport::Tcp(_) | Transport::Udp { .. } | Transport::Echo => {
                [&self.pseudo_header(body.len()), body].concat()
            }
        };
        let checksum = match (&self.transport, !add_up(&covered)) {
            (Transport::Udp { has_checksum: false }, _) => 0,
            (Transport::Udp { .. }, 0) => 0xffff,
            (_, checksum) => checksum,
        };
        let at = self.checksum_at();
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// As the kernel hands it out where the checksum is left to the device, and cut into
    /// `segment_size` if that is some.
    pub(super) fn frame(&self, segment_size: Option<u16>) -> Vec<u8> {
        let mut bytes = self.without_transport_checksum();
        let at = self.checksum_at();
        let partial = add_up(&self.pseudo_header(bytes.len() - self.transport_at()));
        bytes[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        let header = VirtioHeader {
            flags: VirtioHeader::NEEDS_CHECKSUM,
            gso_type: match (segment_size, self.is_tcp(), self.is_ipv4) {
                (None, _, _) => VirtioHeader::GSO_NONE,
                (Some(_), true, true) => VirtioHeader::GSO_TCPV4,
                (Some(_), true, false) => VirtioHeader::GSO_TCPV6,
                (Some(_), false, _) => VirtioHeader::GSO_UDP_L4,
            },
            hdr_len: self.header_len() as u16,
            gso_size: segment_size.unwrap_or(0),
            csum_start: self.transport_at() as u16,
            csum_offset: (at - self.transport_at()) as u16,
        };
        [&header.encode(), &bytes[..]].concat()
    }

    fn without_transport_checksum(&self) -> Vec<u8> {
        let transport = self.transport_header();
        let mut bytes = self.ip_header();
        let protocol = if self.is_ipv4 { bytes[9] } else { bytes[6] };
        if !self.is_ipv4 && !self.ip_options.is_empty() {
            const DESTINATION_OPTIONS: u8 = 60;
            bytes[6] = DESTINATION_OPTIONS;
            bytes.push(protocol);
        }
        bytes.extend_from_slice(&self.ip_options);
        let header_len = bytes.len();
        bytes.extend_from_slice(&transport);
        bytes.extend_from_slice(&self.payload);
        if self.is_ipv4 {
            let total_len = u16::try_from(bytes.len()).unwrap();
            bytes[0] |= (header_len / 4) as u8;
            bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
            let checksum = !add_up(&bytes[..header_len]);
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let payload_len = u16::try_from(bytes.len() - 40).unwrap();
            bytes[4..6].copy_from_slice(&payload_len.to_be_bytes());
        }
        bytes
    }

    /// Without lengths and checksums.
    fn ip_header(&self) -> Vec<u8> {
        let protocol = match (&self.transport, self.is_ipv4) {
            (Transport::Tcp(_), _) => 6,
            (Transport::Udp { .. }, _) => 17,
            (Transport::Echo, true) => 1,
            (Transport::Echo, false) => 58,
        };
        if self.is_ipv4 {
            let mut header = vec![0x40, self.tos, 0, 0];
            header.extend_from_slice(&self.id.to_be_bytes());
            header.extend_from_slice(&self.fragment.to_be_bytes());
            header.extend_from_slice(&[self.ttl, protocol, 0, 0]);
            header.extend_from_slice(&[100, 80, 0, self.addresses[0], 10, 9, 0, self.addresses[1]]);
            header
        } else {
            let [label_high, label_low] = self.flow_label.to_be_bytes();
            let mut header = vec![0x60 | self.tos >> 4, self.tos << 4, label_high, label_low];
            header.extend_from_slice(&[0, 0, protocol, self.ttl]);
            for address in self.addresses {
                header
                    .extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, address]);
            }
            header
        }
    }

    /// Without a checksum.
    fn transport_header(&self) -> Vec<u8> {
        let mut header = self.ports.map(u16::to_be_bytes).concat();
        match &self.transport {
            Transport::Tcp(tcp) => {
                let words = 5 + (tcp.options.len() / 4) as u8;
                header.extend_from_slice(&tcp.sequence.to_be_bytes());
                header.extend_from_slice(&tcp.acknowledgment.to_be_bytes());
                header.extend_from_slice(&[words << 4 | tcp.reserved, tcp.flags]);
                header.extend_from_slice(&tcp.window.to_be_bytes());
                header.extend_from_slice(&[0, 0]);
                header.extend_from_slice(&tcp.urgent.to_be_bytes());
                header.extend_from_slice(&tcp.options);
                header
            }
            Transport::Udp { .. } => {
                header.extend_from_slice(&(8 + self.payload.len() as u16).to_be_bytes());
                header.extend_from_slice(&[0, 0]);
                header
            }
            Transport::Echo => {
                let kind = if self.is_ipv4 { 8 } else { 128 };
                vec![kind, 0, 0, 0, 0, 7, 0, 1]
            }
        }
    }

    fn pseudo_header(&self, len: usize) -> Vec<u8> {
        let header = self.ip_header();
        let (addresses, protocol) =
            if self.is_ipv4 { (&header[12..20], header[9]) } else { (&header[8..40], header[6]) };
        let len = u16::try_from(len).unwrap();
        [addresses, &[0, protocol], &len.to_be_bytes()].concat()
    }
}

/// Bytes that look like nothing in particular.
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

/// Adds up words one by one with end-around carry.
pub(super) fn add_up(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0_u16, |sum, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

//! The header before each packet of a TUN device that was opened with `IFF_VNET_HDR`: `struct
//! virtio_net_hdr` of Linux (virtio 1.3 §5.1.6, but in the byte order of this machine).

/// What the kernel still has to do to a packet, or leaves to whoever reads it.
///
/// The header of a finished packet is all zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// Bits, of which [`Self::NEEDS_CHECKSUM`] matters here.
    pub flags: u8,
    /// [`Self::GSO_NONE`], or what the packet is to be cut into.
    pub gso_type: u8,
    /// How many bytes of headers each packet has. The kernel's value is wrong for packets that it
    /// forwards.
    pub hdr_len: u16,
    /// How many bytes of payload each packet has, but for the last, which may have fewer.
    pub gso_size: u16,
    /// From which byte on the checksum is missing: where the header of TCP or UDP begins.
    pub csum_start: u16,
    /// How many bytes behind `csum_start` the checksum is. It holds the sum of the pseudo-header.
    pub csum_offset: u16,
}

impl VirtioHeader {
    /// How many bytes it occupies.
    pub const LEN: usize = 10;

    /// In `flags`: the checksum is to be completed.
    pub const NEEDS_CHECKSUM: u8 = 1;

    /// In `gso_type`: one packet, whole as it is.
    pub const GSO_NONE: u8 = 0;
    /// In `gso_type`: segments of TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// In `gso_type`: segments of TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// In `gso_type`: datagrams of UDP.
    pub const GSO_UDP_L4: u8 = 5;
    /// In `gso_type`, beside a TCP one: the first segment may say *congestion window reduced*.
    pub const GSO_ECN: u8 = 0x80;

    /// Reads one.
    pub const fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let [flags, gso_type, fields @ ..] = *bytes;
        let [h0, h1, g0, g1, s0, s1, o0, o1] = fields;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Writes it.
    pub const fn encode(&self) -> [u8; Self::LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// Whether the checksum is to be completed.
    pub const fn needs_checksum(&self) -> bool {
        self.flags & Self::NEEDS_CHECKSUM != 0
    }
}

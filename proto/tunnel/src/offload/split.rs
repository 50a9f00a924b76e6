//! From the TUN device to the network: one super-packet becomes many packets.

#[cfg(test)]
mod tests;

use super::{Protocol, VirtioHeader, address_sum, is_ipv4};
use crate::{
    PacketError, TcpFlags,
    packet::{IPV6_HEADER_LEN, IPV6_MINIMUM_MTU, IpHeader, Sum, TCP_HEADER_LEN, UDP_HEADER_LEN},
};

/// Why what a TUN device gave cannot be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameError {
    /// No room for a virtio header.
    #[error("frame is shorter than a virtio header")]
    Truncated,
    /// The checksum to be completed is not in the packet, or a super-packet has none.
    #[error("checksum to be completed is not in the packet")]
    Checksum,
    /// A kind of super-packet that is not asked for or that its IP version contradicts.
    #[error("gso type is unknown or of the other ip version")]
    GsoType,
    /// Segments of no bytes.
    #[error("segment size is zero")]
    SegmentSize,
    /// The super-packet is no IP packet.
    #[error("super-packet is no ip packet")]
    Packet(#[source] PacketError),
    /// The TCP or UDP header of a super-packet is cut short or not where the virtio header says.
    #[error("transport header is cut short or not where the virtio header says")]
    TransportHeader,
    /// More headers than a real packet has.
    #[error("headers of the super-packet are too long")]
    HeaderLength,
}

/// What one read of the TUN device gave: a packet, or many in the shape of one.
#[derive(Debug)]
pub struct Frame<'a> {
    packet: &'a mut [u8],
    cut: Option<Cut>,
}

/// Where to cut a super-packet.
#[derive(Debug, Clone, Copy)]
struct Cut {
    protocol: Protocol,
    transport_at: usize,
    header_len: usize,
    segment_size: usize,
}

impl<'a> Frame<'a> {
    /// Reads a virtio header and the packet behind it. The checksum of a lone packet is completed;
    /// its headers are not looked at.
    ///
    /// # Errors
    ///
    /// [`FrameError`] names what is wrong with the frame.
    pub fn try_parse(frame: &'a mut [u8]) -> Result<Self, FrameError> {
        let (header, packet) = frame.split_first_chunk_mut().ok_or(FrameError::Truncated)?;
        let header = VirtioHeader::decode(header);
        if header.gso_type == VirtioHeader::GSO_NONE {
            if header.needs_checksum() {
                complete_checksum(&header, packet)?;
            }
            return Ok(Self { packet, cut: None });
        }
        let ip = IpHeader::try_parse(packet).map_err(FrameError::Packet)?;
        let cut = Cut::try_new(&header, &ip, packet)?;
        let packet = packet.get_mut(..ip.total_len).ok_or(FrameError::TransportHeader)?;
        Ok(Self { packet, cut: Some(cut) })
    }

    /// The whole packet: of a super-packet, its lengths are those of the whole and its checksum is
    /// not complete.
    pub const fn packet(&self) -> &[u8] {
        self.packet
    }

    /// How many packets it stands for.
    pub fn packet_count(&self) -> u32 {
        let segments = self.cut.map_or(1, |cut| self.payload_len(&cut).div_ceil(cut.segment_size));
        u32::try_from(segments.max(1)).unwrap_or(u32::MAX)
    }

    /// The sum of the lengths of the IP packets that it stands for.
    pub fn wire_bytes(&self) -> u64 {
        let repeated = self.cut.map_or(0, |cut| cut.header_len) as u64;
        self.packet.len() as u64 + repeated * u64::from(self.packet_count() - 1)
    }

    /// The length of the longest IP packet that it stands for.
    pub fn max_packet_len(&self) -> usize {
        self.cut.map_or(self.packet.len(), |cut| {
            cut.header_len + self.payload_len(&cut).min(cut.segment_size)
        })
    }

    /// Whether its packets can be carried over a path that takes so much in one piece: they are no
    /// longer, or their sender does not care, or no sender has to cut them (RFC 8200 §5).
    pub fn fits(&self, max_packet_len: usize) -> bool {
        const DONT_FRAGMENT: u8 = 0x40;

        let len = self.max_packet_len();
        let may_be_cut = match &*self.packet {
            [first, _, _, _, _, _, flags, ..] if first >> 4 == 4 => flags & DONT_FRAGMENT == 0,
            _ => len <= IPV6_MINIMUM_MTU,
        };
        len <= max_packet_len || may_be_cut
    }

    /// The field for explicit congestion notification (RFC 3168 §5), the same in all its packets.
    pub fn ecn(&self) -> u8 {
        match &*self.packet {
            [first, second, ..] if first >> 4 == 4 => second & 0b11,
            [first, second, ..] if first >> 4 == 6 => second >> 4 & 0b11,
            _ => 0,
        }
    }

    /// Its packets, one after another.
    pub fn segments(self) -> Segments<'a> {
        let state = match self.cut {
            Some(cut) => State::Cutting {
                next_at: cut.header_len,
                template: Template::new(cut, self.packet),
            },
            None => State::Lone,
        };
        Segments { packet: self.packet, state }
    }

    fn payload_len(&self, cut: &Cut) -> usize {
        self.packet.len() - cut.header_len
    }
}

impl Cut {
    fn try_new(header: &VirtioHeader, ip: &IpHeader, packet: &[u8]) -> Result<Self, FrameError> {
        let protocol = match (header.gso_type & !VirtioHeader::GSO_ECN, is_ipv4(packet)) {
            (VirtioHeader::GSO_TCPV4, true) | (VirtioHeader::GSO_TCPV6, false) => Protocol::Tcp,
            (VirtioHeader::GSO_UDP_L4, _) if header.gso_type == VirtioHeader::GSO_UDP_L4 => {
                Protocol::Udp
            }
            _ => return Err(FrameError::GsoType),
        };
        if header.gso_size == 0 {
            return Err(FrameError::SegmentSize);
        }
        if !header.needs_checksum() {
            return Err(FrameError::Checksum);
        }
        let transport_at = ip.header_len;
        if ip.protocol != protocol.number()
            || ip.more_fragments
            || usize::from(header.csum_start) != transport_at
            || usize::from(header.csum_offset) != protocol.checksum_offset()
        {
            return Err(FrameError::TransportHeader);
        }
        let transport = packet.get(transport_at..ip.total_len).unwrap_or_default();
        // The kernel's `hdr_len` is wrong on packets that it forwards.
        let (min_len, transport_header_len) = match protocol {
            Protocol::Tcp => {
                let words = transport.get(12).ok_or(FrameError::TransportHeader)? >> 4;
                (TCP_HEADER_LEN, usize::from(words) * 4)
            }
            Protocol::Udp => (UDP_HEADER_LEN, UDP_HEADER_LEN),
        };
        if !(min_len..=transport.len()).contains(&transport_header_len) {
            return Err(FrameError::TransportHeader);
        }
        let header_len = transport_at + transport_header_len;
        if header_len > MAX_HEADER_LEN {
            return Err(FrameError::HeaderLength);
        }
        Ok(Self { protocol, transport_at, header_len, segment_size: usize::from(header.gso_size) })
    }
}

/// The packets of a frame, each whole and with its checksums, in the frame's own bytes.
///
/// The headers of a packet overwrite the end of the one before it: each must have been used up
/// before the next is asked for.
#[derive(Debug)]
pub struct Segments<'a> {
    packet: &'a mut [u8],
    state: State,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one frame")]
enum State {
    Lone,
    /// The payload of the next segment begins at `next_at`.
    Cutting {
        next_at: usize,
        template: Template,
    },
    Done,
}

impl Segments<'_> {
    /// The next packet.
    #[expect(clippy::should_implement_trait, reason = "what it gives borrows from it")]
    pub fn next(&mut self) -> Option<&mut [u8]> {
        match &mut self.state {
            State::Lone => {
                self.state = State::Done;
                Some(self.packet)
            }
            State::Cutting { next_at, template } => {
                let Cut { header_len, segment_size, .. } = template.cut;
                let payload_at = *next_at;
                let end = (payload_at + segment_size).min(self.packet.len());
                let is_last = end == self.packet.len();
                let segment = self.packet.get_mut(payload_at - header_len..end)?;
                template.stamp(segment, is_last);
                if is_last {
                    self.state = State::Done;
                } else {
                    *next_at = end;
                }
                Some(segment)
            }
            State::Done => None,
        }
    }
}

/// Two headers with all options, and some extensions of IPv6.
const MAX_HEADER_LEN: usize = 192;

/// The headers of all segments, and what differs between them.
#[derive(Debug)]
struct Template {
    cut: Cut,
    /// Lengths, identification, sequence number, flags and checksums are zero.
    headers: [u8; MAX_HEADER_LEN],
    ip_sum: Sum,
    /// Over the addresses and the protocol, too.
    transport_sum: Sum,
    is_ipv4: bool,
    next_id: u16,
    next_sequence: u32,
    flags: u8,
}

impl Template {
    fn new(cut: Cut, packet: &[u8]) -> Self {
        let mut headers = [0; MAX_HEADER_LEN];
        let used = &mut headers[..cut.header_len];
        used.copy_from_slice(&packet[..cut.header_len]);
        let (ip, transport) = used.split_at_mut(cut.transport_at);

        let is_ipv4 = is_ipv4(ip);
        let mut next_id = 0;
        if is_ipv4 {
            next_id = u16::from_be_bytes([ip[4], ip[5]]);
            ip[2..6].fill(0);
            ip[10..12].fill(0);
        } else {
            ip[4..6].fill(0);
        }
        let (mut next_sequence, mut flags) = (0, 0);
        match cut.protocol {
            Protocol::Tcp => {
                let sequence = [transport[4], transport[5], transport[6], transport[7]];
                next_sequence = u32::from_be_bytes(sequence);
                flags = transport[13];
                transport[4..8].fill(0);
                transport[13] = 0;
                transport[16..18].fill(0);
            }
            Protocol::Udp => transport[4..8].fill(0),
        }
        Self {
            cut,
            ip_sum: Sum::of(ip),
            transport_sum: Sum::pseudo_header(address_sum(ip), cut.protocol.number(), 0)
                + Sum::of(transport),
            headers,
            is_ipv4,
            next_id,
            next_sequence,
            flags,
        }
    }

    /// Writes the headers of the next segment before its payload.
    fn stamp(&mut self, segment: &mut [u8], is_last: bool) {
        let Cut { protocol, transport_at, header_len, .. } = self.cut;
        let total_len = segment.len();
        let (headers, payload) = segment.split_at_mut(header_len);
        headers.copy_from_slice(&self.headers[..header_len]);
        let (ip, transport) = headers.split_at_mut(transport_at);
        let length = |len: usize| u16::try_from(len).expect("the whole packet's length fits");

        if self.is_ipv4 {
            let total_len = length(total_len);
            ip[2..4].copy_from_slice(&total_len.to_be_bytes());
            ip[4..6].copy_from_slice(&self.next_id.to_be_bytes());
            let sum = self.ip_sum + Sum::word(total_len) + Sum::word(self.next_id);
            ip[10..12].copy_from_slice(&sum.checksum());
            self.next_id = self.next_id.wrapping_add(1);
        } else {
            ip[4..6].copy_from_slice(&length(total_len - IPV6_HEADER_LEN).to_be_bytes());
        }

        let transport_len = length(total_len - transport_at);
        let sum = self.transport_sum + Sum::word(transport_len) + Sum::of(payload);
        match protocol {
            Protocol::Tcp => {
                let sequence = self.next_sequence.to_be_bytes();
                let flags = if is_last {
                    self.flags
                } else {
                    self.flags & !(TcpFlags::FIN | TcpFlags::PSH)
                };
                transport[4..8].copy_from_slice(&sequence);
                transport[13] = flags;
                let sum = sum + Sum::of(&sequence) + Sum::word(u16::from(flags));
                transport[16..18].copy_from_slice(&sum.checksum());
                self.next_sequence = self.next_sequence.wrapping_add(sequence_space(payload));
                self.flags &= !TcpFlags::CWR;
            }
            Protocol::Udp => {
                transport[4..6].copy_from_slice(&transport_len.to_be_bytes());
                let sum = sum + Sum::word(transport_len);
                transport[6..8].copy_from_slice(&present(sum.checksum()));
            }
        }
    }
}

fn sequence_space(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).expect("the whole packet's length fits")
}

/// A checksum of UDP that says that there is one (RFC 768).
const fn present(checksum: [u8; 2]) -> [u8; 2] {
    match checksum {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    }
}

fn complete_checksum(header: &VirtioHeader, packet: &mut [u8]) -> Result<(), FrameError> {
    let offset = usize::from(header.csum_offset);
    let covered = packet.get_mut(usize::from(header.csum_start)..).ok_or(FrameError::Checksum)?;
    // The place of the checksum holds the sum of the pseudo-header, so it is added with the rest.
    let checksum = Sum::of(covered).checksum();
    let place = covered.get_mut(offset..offset + 2).ok_or(FrameError::Checksum)?;
    place.copy_from_slice(&present(checksum));
    Ok(())
}

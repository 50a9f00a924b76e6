//! From the network to the TUN device: packets of one flow, one after another, become one.

#[cfg(test)]
mod tests;

use std::ops::Range;

use super::{Protocol, VirtioHeader, address_sum};
use crate::{
    MAX_PACKET_LEN, TcpFlags,
    packet::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Sum, TCP, TCP_HEADER_LEN, UDP, UDP_HEADER_LEN},
};

/// Makes runs of packets that arrive in order.
///
/// Each packet is opened into [`slot`](Self::slot). If [`try_extend`](Self::try_extend) says that
/// it does not continue the present run, that run is [taken](Self::take) and written, and the
/// packet [begins](Self::begin) another. What waits when no more packets are at hand is taken, too:
/// nothing waits for packets to come. A run is of one owner: who owns the packets, and that the run
/// is taken before a packet of another owner is let in, is up to the caller.
#[derive(Debug)]
pub struct Merger {
    buffer: Box<[u8]>,
    /// INVARIANT: at most `MAX_BEGIN_AT + MAX_PACKET_LEN + VirtioHeader::LEN`.
    slot_at: usize,
    run: Option<Growth>,
}

/// A run that may grow.
#[derive(Debug)]
struct Growth {
    /// Where its packet begins; there is room for a virtio header before it.
    at: usize,
    len: usize,
    packet_count: u32,
    wire_bytes: u64,
    /// Of the first packet; none if it is of a kind that never merges.
    shape: Option<Shape>,
    /// Whether anything may follow.
    is_open: bool,
    is_first_verified: bool,
}

/// What the headers of a packet that may be part of a run say.
#[derive(Debug, Clone, Copy)]
struct Shape {
    protocol: Protocol,
    is_ipv4: bool,
    transport_at: usize,
    header_len: usize,
    total_len: usize,
    /// The identification, where it means anything: not where fragments are forbidden (RFC 6864
    /// §4.1).
    id: Option<u16>,
    /// The sequence number of TCP.
    sequence: Option<u32>,
    /// Whether the sender wants what is there to be delivered.
    is_push: bool,
}

/// A WireGuard implementation wants this much more room than the packet.
const OVERHEAD: usize = 32;

/// A run that would begin further on is moved to the start of the buffer. Chosen so that small
/// packets which do not merge move once in hundreds, and the buffer stays in the cache of a core.
const MAX_BEGIN_AT: usize = 32_768;

const BUFFER_LEN: usize =
    MAX_BEGIN_AT + MAX_PACKET_LEN + VirtioHeader::LEN + MAX_PACKET_LEN + OVERHEAD;

/// As many datagrams as every kernel with UDP segmentation takes in one.
const MAX_DATAGRAMS: u32 = 64;

impl Default for Merger {
    fn default() -> Self {
        Self::new()
    }
}

impl Merger {
    /// Allocates all that it will ever need.
    pub fn new() -> Self {
        let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        Self { buffer, slot_at: VirtioHeader::LEN, run: None }
    }

    /// Room for the next packet, at least 65,535 + 32 bytes.
    pub fn slot(&mut self) -> &mut [u8] {
        &mut self.buffer[self.slot_at..]
    }

    /// Makes the packet of `len` bytes in the slot part of the present run, if it continues it.
    /// False: it does not, and stays where it is.
    pub fn try_extend(&mut self, len: usize) -> bool {
        let Some(run) = self.run.as_mut().filter(|run| run.is_open) else { return false };
        let Some(first) = run.shape else { return false };
        let (before, slot) = self.buffer.split_at_mut(self.slot_at);
        let present = &before[run.at..run.at + run.len];
        let Some(packet) = slot.get(..len) else { return false };
        let Some(next) = Shape::try_parse(packet) else { return false };
        if !first.has_same_headers(&next, present, packet) || !run.is_continued_by(&first, &next) {
            return false;
        }
        if !run.is_first_verified {
            run.is_first_verified = true;
            run.is_open = first.has_right_checksums(present);
            if !run.is_open {
                return false;
            }
        }
        if !next.has_right_checksums(packet) {
            return false;
        }

        let end = run.at + run.len;
        let payload = self.slot_at + next.header_len..self.slot_at + next.total_len;
        run.len += payload.len();
        run.packet_count += 1;
        run.wire_bytes += next.total_len as u64;
        run.is_open = !next.is_push
            && next.total_len == first.total_len
            && (first.protocol == Protocol::Tcp || run.packet_count < MAX_DATAGRAMS);
        self.slot_at = end + payload.len() + VirtioHeader::LEN;
        self.buffer.copy_within(payload, end);
        if next.is_push {
            self.buffer[run.at + first.transport_at + 13] |= TcpFlags::PSH;
        }
        true
    }

    /// Finishes the present run, if there is one. A packet in the slot stays where it is.
    pub fn take(&mut self) -> Option<Run<'_>> {
        let run = self.run.take()?;
        let frame = &mut self.buffer[run.at - VirtioHeader::LEN..run.at + run.len];
        let (header, packet) = frame.split_first_chunk_mut()?;
        *header = match run.shape {
            Some(shape) if run.packet_count > 1 => shape.finish(packet).encode(),
            _ => VirtioHeader::default().encode(),
        };
        Some(Run { frame, packet_count: run.packet_count, wire_bytes: run.wire_bytes })
    }

    /// Begins a run with the packet of `len` bytes in the slot. What follows the packet is cut off.
    ///
    /// Comes after [`take`](Self::take): a run that was not taken is lost.
    pub fn begin(&mut self, len: usize) {
        let packet = self.slot();
        let len = len.min(packet.len()).min(MAX_PACKET_LEN);
        let packet = &packet[..len];
        let shape = Shape::try_parse(packet);
        let len = shape.map_or_else(|| unpadded_len(packet), |shape| shape.total_len);

        let mut at = self.slot_at;
        if at > MAX_BEGIN_AT {
            self.buffer.copy_within(at..at + len, VirtioHeader::LEN);
            at = VirtioHeader::LEN;
        }
        self.slot_at = at + len + VirtioHeader::LEN;
        self.run = Some(Growth {
            at,
            len,
            packet_count: 1,
            wire_bytes: len as u64,
            shape,
            is_open: shape.is_some_and(|shape| !shape.is_push),
            is_first_verified: false,
        });
    }
}

impl Growth {
    /// Whether a packet with the shape `next` may come right after what is there, as far as its
    /// place in the flow tells.
    fn is_continued_by(&self, first: &Shape, next: &Shape) -> bool {
        let payload_len = self.len - first.header_len;
        let id = first.id.map(|id| id.wrapping_add(self.packet_count as u16));
        let sequence = first.sequence.map(|sequence| sequence.wrapping_add(payload_len as u32));
        next.id == id
            && next.sequence == sequence
            && next.total_len <= first.total_len
            && self.len + (next.total_len - next.header_len) <= MAX_PACKET_LEN
    }
}

impl Shape {
    /// None for a packet that must reach the TUN device as it is.
    fn try_parse(packet: &[u8]) -> Option<Self> {
        let (is_ipv4, protocol, transport_at, total_len, id) = match packet.first()? {
            0x45 => {
                let fixed: &[u8; IPV4_HEADER_LEN] = packet.first_chunk()?;
                let id = match [fixed[6], fixed[7]] {
                    [0x00, 0x00] => Some(u16::from_be_bytes([fixed[4], fixed[5]])),
                    [0x40, 0x00] => None,
                    _ => return None,
                };
                (
                    true,
                    fixed[9],
                    IPV4_HEADER_LEN,
                    u16::from_be_bytes([fixed[2], fixed[3]]).into(),
                    id,
                )
            }
            0x60..=0x6f => {
                let fixed: &[u8; IPV6_HEADER_LEN] = packet.first_chunk()?;
                let payload_len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
                (false, fixed[6], IPV6_HEADER_LEN, IPV6_HEADER_LEN + payload_len, None)
            }
            _ => return None,
        };
        let transport = packet.get(transport_at..total_len)?;
        let shape = |protocol, transport_header_len, sequence, is_push| Self {
            protocol,
            is_ipv4,
            transport_at,
            header_len: transport_at + transport_header_len,
            total_len,
            id,
            sequence,
            is_push,
        };
        let shape = match protocol {
            TCP => {
                const ACK: u8 = TcpFlags::ACK;
                const ACK_PUSH: u8 = TcpFlags::ACK | TcpFlags::PSH;

                let fixed: &[u8; TCP_HEADER_LEN] = transport.first_chunk()?;
                let header_len = usize::from(fixed[12] >> 4) * 4;
                let has_only_ack = fixed[12] & 0x0f == 0 && matches!(fixed[13], ACK | ACK_PUSH);
                if header_len < TCP_HEADER_LEN || !has_only_ack {
                    return None;
                }
                let sequence = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
                shape(Protocol::Tcp, header_len, Some(sequence), fixed[13] == ACK_PUSH)
            }
            UDP => {
                let fixed: &[u8; UDP_HEADER_LEN] = transport.first_chunk()?;
                let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
                let has_checksum = [fixed[6], fixed[7]] != [0, 0];
                if len != transport.len() || !has_checksum {
                    return None;
                }
                shape(Protocol::Udp, UDP_HEADER_LEN, None, false)
            }
            _ => return None,
        };
        (shape.total_len > shape.header_len).then_some(shape)
    }

    /// Whether two packets differ in nothing but lengths, checksums, identification, sequence
    /// number and push flag.
    ///
    /// Linux, too, merges TCP segments only if acknowledgment number, window and options are the
    /// same (`tcp_gro_receive`): to the receiver each is an answer in itself.
    fn has_same_headers(&self, other: &Self, packet: &[u8], other_packet: &[u8]) -> bool {
        if (self.protocol, self.is_ipv4, self.header_len)
            != (other.protocol, other.is_ipv4, other.header_len)
        {
            return false;
        }
        let is_same = |range: Range<usize>| packet[range.clone()] == other_packet[range];
        let transport_at = self.transport_at;
        let has_same_ip_header = if self.is_ipv4 {
            is_same(0..2) && is_same(6..10) && is_same(12..20)
        } else {
            is_same(0..4) && is_same(6..40)
        };
        has_same_ip_header
            && is_same(transport_at..transport_at + 4)
            && match self.protocol {
                Protocol::Tcp => {
                    is_same(transport_at + 8..transport_at + 13)
                        && is_same(transport_at + 14..transport_at + 16)
                        && is_same(transport_at + 18..self.header_len)
                }
                Protocol::Udp => true,
            }
    }

    /// Whether the checksums are right, and just as [`Frame`](super::Frame) would write them: of
    /// the two ways to write zero only one is.
    fn has_right_checksums(&self, packet: &[u8]) -> bool {
        let (ip, transport) = packet[..self.total_len].split_at(self.transport_at);
        let is_ip_right = !self.is_ipv4 || (Sum::of(ip).is_right() && ip[10..12] != [0xff, 0xff]);
        is_ip_right
            && (self.protocol == Protocol::Udp || transport[16..18] != [0xff, 0xff])
            && (self.pseudo_header(ip, transport) + Sum::of(transport)).is_right()
    }

    fn pseudo_header(&self, ip: &[u8], transport: &[u8]) -> Sum {
        let len = length(transport.len());
        Sum::pseudo_header(address_sum(ip), self.protocol.number(), len)
    }

    /// Makes the headers of the first packet those of all.
    fn finish(&self, packet: &mut [u8]) -> VirtioHeader {
        let total_len = length(packet.len());
        let (ip, transport) = packet.split_at_mut(self.transport_at);
        let transport_len = length(transport.len());
        if self.is_ipv4 {
            ip[2..4].copy_from_slice(&total_len.to_be_bytes());
            ip[10..12].fill(0);
            let checksum = Sum::of(ip).checksum();
            ip[10..12].copy_from_slice(&checksum);
        } else {
            ip[4..6].copy_from_slice(&transport_len.to_be_bytes());
        }
        if self.protocol == Protocol::Udp {
            transport[4..6].copy_from_slice(&transport_len.to_be_bytes());
        }
        let checksum_at = self.protocol.checksum_offset();
        let partial = self.pseudo_header(ip, transport).partial();
        transport[checksum_at..checksum_at + 2].copy_from_slice(&partial);

        VirtioHeader {
            flags: VirtioHeader::NEEDS_CHECKSUM,
            gso_type: match (self.protocol, self.is_ipv4) {
                (Protocol::Tcp, true) => VirtioHeader::GSO_TCPV4,
                (Protocol::Tcp, false) => VirtioHeader::GSO_TCPV6,
                (Protocol::Udp, _) => VirtioHeader::GSO_UDP_L4,
            },
            hdr_len: length(self.header_len),
            gso_size: length(self.total_len - self.header_len),
            csum_start: length(self.transport_at),
            csum_offset: length(checksum_at),
        }
    }
}

/// The length that the IP header gives, if it can be true, else all.
fn unpadded_len(packet: &[u8]) -> usize {
    let len = match packet {
        [first, _, high, low, ..] if first >> 4 == 4 => {
            usize::from(u16::from_be_bytes([*high, *low]))
        }
        [first, _, _, _, high, low, ..] if first >> 4 == 6 => {
            IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => packet.len(),
    };
    if (IPV4_HEADER_LEN..packet.len()).contains(&len) { len } else { packet.len() }
}

fn length(len: usize) -> u16 {
    u16::try_from(len).expect("a run is no longer than a packet can be")
}

/// Packets that arrived one after another, in the shape of one.
#[derive(Debug)]
pub struct Run<'a> {
    frame: &'a mut [u8],
    packet_count: u32,
    wire_bytes: u64,
}

impl Run<'_> {
    /// A virtio header and the packet, for one write to the TUN device.
    pub const fn frame(&self) -> &[u8] {
        self.frame
    }

    /// The same for [`Frame::try_parse`](super::Frame::try_parse), which gives the single packets
    /// back where the TUN device does not take all at once.
    pub const fn frame_mut(&mut self) -> &mut [u8] {
        self.frame
    }

    /// The packet: of many, its lengths are those of the whole and its checksum is not complete.
    pub fn packet(&self) -> &[u8] {
        &self.frame[VirtioHeader::LEN..]
    }

    /// Whether it is UDP that was merged.
    pub fn is_merged_udp(&self) -> bool {
        self.frame.get(1) == Some(&VirtioHeader::GSO_UDP_L4)
    }

    /// How many packets arrived.
    pub const fn packet_count(&self) -> u32 {
        self.packet_count
    }

    /// The sum of the lengths of the IP packets that arrived.
    pub const fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }
}

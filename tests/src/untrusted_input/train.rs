//! Packets that come out of a tunnel one after another, as a fuzzer writes them down.

/// Reads packets from records. A record is a byte of flags, a length in one byte and as many bytes:
/// a packet, or changes to the one that would follow the packet before.
pub(super) struct Train<'a> {
    records: &'a [u8],
    last: Vec<u8>,
}

/// One packet of a train.
pub(super) struct Arrival {
    pub(super) packet: Vec<u8>,
    /// Whether nothing more was at hand before it.
    pub(super) is_late: bool,
}

const IS_LATE: u8 = 1;
const FOLLOWS: u8 = 2;
const HAS_RIGHT_CHECKSUMS: u8 = 4;

impl<'a> Train<'a> {
    pub(super) const fn new(records: &'a [u8]) -> Self {
        Self { records, last: Vec::new() }
    }
}

impl Iterator for Train<'_> {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let [flags, len, rest @ ..] = self.records else { return None };
        let (bytes, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        self.records = rest;
        if flags & FOLLOWS == 0 {
            self.last = bytes.to_vec();
        } else {
            count_on(&mut self.last);
            for change in bytes.chunks_exact(2) {
                if let Some(byte) = self.last.get_mut(usize::from(change[0])) {
                    *byte ^= change[1];
                }
            }
        }
        if flags & HAS_RIGHT_CHECKSUMS != 0 {
            repair(&mut self.last);
        }
        Some(Arrival { packet: self.last.clone(), is_late: flags & IS_LATE != 0 })
    }
}

/// Makes a packet the next of its flow, if it is TCP or UDP without options of IP.
fn count_on(packet: &mut [u8]) {
    let len = packet.len();
    let (transport_at, protocol) = match packet {
        [0x45, _, _, _, high, low, ..] => {
            let id = u16::from_be_bytes([*high, *low]).wrapping_add(1);
            [*high, *low] = id.to_be_bytes();
            (20, packet.get(9).copied())
        }
        _ => (40, packet.get(6).copied()),
    };
    if protocol != Some(6) {
        return;
    }
    let Some(transport) = packet.get_mut(transport_at..) else { return };
    if let [_, _, _, _, a, b, c, d, _, _, _, _, words, ..] = transport {
        let payload_len = len - (transport_at + usize::from(*words >> 4) * 4).min(len);
        let sequence = u32::from_be_bytes([*a, *b, *c, *d]).wrapping_add(payload_len as u32);
        [*a, *b, *c, *d] = sequence.to_be_bytes();
    }
}

/// Writes the checksums that the rest of the packet asks for.
fn repair(packet: &mut [u8]) {
    let (transport_at, protocol, addresses) = match packet {
        [0x45, ..] if packet.len() >= 20 => {
            packet[10..12].fill(0);
            let checksum = !add_up(&packet[..20]);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            (20, packet[9], packet[12..20].to_vec())
        }
        [0x60..=0x6f, ..] if packet.len() >= 40 => (40, packet[6], packet[8..40].to_vec()),
        _ => return,
    };
    let total_len = match packet[0] {
        0x45 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        _ => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
    };
    let Some(transport) = packet.get_mut(transport_at..total_len) else { return };
    let place = match protocol {
        6 => 16..18,
        17 => 6..8,
        _ => return,
    };
    if transport.len() < place.end {
        return;
    }
    transport[place.clone()].fill(0);
    let len = (transport.len() as u16).to_be_bytes();
    let covered = [&addresses, &[0, protocol][..], &len, transport].concat();
    let checksum = match (protocol, !add_up(&covered)) {
        (17, 0) => 0xffff,
        (_, checksum) => checksum,
    };
    transport[place].copy_from_slice(&checksum.to_be_bytes());
}

/// Adds up words with end-around carry (RFC 1071).
fn add_up(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0_u16, |sum, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

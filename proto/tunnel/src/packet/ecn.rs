//! Explicit congestion notification of a packet inside a tunnel and of the datagram around it
//! (RFC 6040).

/// The two bits that tell of congestion (RFC 3168 §5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ecn {
    /// The sender does not understand them.
    #[default]
    NotCapable,
    /// ECT(1).
    Capable1,
    /// ECT(0).
    Capable0,
    /// Congestion experienced.
    Experienced,
}

impl Ecn {
    /// Reads the lower two bits.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0b00 => Self::NotCapable,
            0b01 => Self::Capable1,
            0b10 => Self::Capable0,
            _ => Self::Experienced,
        }
    }

    /// The two bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotCapable => 0b00,
            Self::Capable1 => 0b01,
            Self::Capable0 => 0b10,
            Self::Experienced => 0b11,
        }
    }

    /// What an IP packet says; nothing if it is none.
    pub fn of(packet: &[u8]) -> Self {
        match packet.first_chunk() {
            Some(&[first, second]) if first >> 4 == 4 => Self::from_bits(second),
            Some(&[first, second]) if first >> 4 == 6 => Self::from_bits(second >> 4),
            Some(_) => Self::NotCapable,
            None => Self::NotCapable,
        }
    }

    /// What the packet inside says once it leaves the tunnel, by figure 4 of RFC 6040; none if it
    /// is to be dropped, because it met congestion that its sender cannot be told of otherwise.
    const fn decapsulated(outer: Self, inner: Self) -> Option<Self> {
        match (outer, inner) {
            (Self::Experienced, Self::NotCapable) => None,
            (_, Self::NotCapable) => Some(Self::NotCapable),
            (_, Self::Experienced) => Some(Self::Experienced),
            (Self::Experienced, _) => Some(Self::Experienced),
            (Self::Capable1, _) => Some(Self::Capable1),
            (_, inner) => Some(inner),
        }
    }
}

/// Carries the marks that a datagram got on its way over to the packet from inside it.
///
/// False: the packet is to be dropped.
#[must_use]
pub(crate) fn decapsulate_ecn(outer: Ecn, packet: &mut [u8]) -> bool {
    let inner = Ecn::of(packet);
    let Some(ecn) = Ecn::decapsulated(outer, inner) else { return false };
    if ecn != inner {
        mark(packet, ecn);
    }
    true
}

fn mark(packet: &mut [u8], ecn: Ecn) {
    let Some([first, second]) = packet.first_chunk_mut() else { return };
    if *first >> 4 == 6 {
        *second = (*second & !0x30) | (ecn.bits() << 4);
        return;
    }
    let before = [*first, *second];
    *second = (*second & !0b11) | ecn.bits();
    let after = [*first, *second];
    if let Some([high, low]) = packet.get_mut(10..12).and_then(|sum| sum.first_chunk_mut()) {
        [*high, *low] = updated([*high, *low], before, after);
    }
}

/// A checksum over words of which one was `before` and is `after` (RFC 1624 §3).
pub(super) fn updated(sum: [u8; 2], before: [u8; 2], after: [u8; 2]) -> [u8; 2] {
    let [sum, before, after] = [sum, before, after].map(|word| u32::from(u16::from_be_bytes(word)));
    let total = (!sum & 0xffff) + (!before & 0xffff) + after;
    // Three 16-bit words have at most two carries.
    let folded = (total & 0xffff) + (total >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [_, _, high, low] = (!folded).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Sum, sample};

    const ALL: [Ecn; 4] = [Ecn::NotCapable, Ecn::Capable1, Ecn::Capable0, Ecn::Experienced];

    #[test]
    fn marks_leave_the_tunnel_as_rfc_6040_has_them() {
        use Ecn::{Capable0, Capable1, Experienced, NotCapable};
        // Rows: inner; columns: outer.
        for (inner, results) in [
            (NotCapable, [Some(NotCapable), Some(NotCapable), Some(NotCapable), None]),
            (Capable0, [Some(Capable0), Some(Capable1), Some(Capable0), Some(Experienced)]),
            (Capable1, [Some(Capable1), Some(Capable1), Some(Capable1), Some(Experienced)]),
            (Experienced, [Some(Experienced); 4]),
        ] {
            assert_eq!(ALL.map(|outer| Ecn::decapsulated(outer, inner)), results, "{inner:?}");
        }
    }

    #[test]
    fn a_marked_packet_keeps_a_valid_header() {
        for (source, destination) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let mut packet = sample::udp(source, destination, (1, 2), b"payload");
            mark(&mut packet, Ecn::Capable0);
            assert!(decapsulate_ecn(Ecn::Experienced, &mut packet));
            assert_eq!(Ecn::of(&packet), Ecn::Experienced);
            if source.parse::<std::net::Ipv4Addr>().is_ok() {
                assert!(Sum::of(&packet[..20]).is_right());
            }
        }
    }

    #[test]
    fn congestion_that_a_sender_cannot_hear_of_drops_its_packet() {
        let mut packet = sample::udp("192.0.2.1", "192.0.2.2", (1, 2), b"payload");
        assert!(!decapsulate_ecn(Ecn::Experienced, &mut packet));
        assert!(decapsulate_ecn(Ecn::Capable0, &mut packet));
        assert_eq!(Ecn::of(&packet), Ecn::NotCapable);
    }

    #[test]
    fn bytes_that_are_no_packet_stay_as_they_are() {
        for mut bytes in [vec![], vec![0x45], vec![0x45, 2], vec![0xff; 40]] {
            let before = bytes.clone();
            let _passes = decapsulate_ecn(Ecn::Capable0, &mut bytes);
            assert_eq!(bytes, before);
        }
    }
}

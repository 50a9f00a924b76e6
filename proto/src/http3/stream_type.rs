//! What a unidirectional stream is for.

/// What the first integer of a unidirectional stream says (RFC 9114 §6.2, RFC 9204 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamType {
    /// Settings and what else is about the connection.
    Control,
    /// A response without a request.
    Push,
    /// Instructions to fill the dynamic table.
    QpackEncoder,
    /// Acknowledgements of such.
    QpackDecoder,
    /// Anything else; to be ignored.
    Unknown(u64),
}

impl StreamType {
    /// From its form on the wire.
    pub const fn from_code(code: u64) -> Self {
        match code {
            0x00 => Self::Control,
            0x01 => Self::Push,
            0x02 => Self::QpackEncoder,
            0x03 => Self::QpackDecoder,
            other => Self::Unknown(other),
        }
    }

    /// As it stands on the wire.
    pub const fn code(self) -> u64 {
        match self {
            Self::Control => 0x00,
            Self::Push => 0x01,
            Self::QpackEncoder => 0x02,
            Self::QpackDecoder => 0x03,
            Self::Unknown(other) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_a_round_trip() {
        for code in 0..70 {
            assert_eq!(StreamType::from_code(code).code(), code);
        }
    }
}

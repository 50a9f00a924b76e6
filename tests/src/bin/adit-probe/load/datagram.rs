/// Bytes that every datagram begins with; the rest of it is padding.
pub(crate) const HEADER_LEN: usize = 16;

/// What a datagram asks the server for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To be counted.
    Load,
    /// To say how many of this trial were counted.
    Report,
    /// To come back at once.
    Echo,
}

/// The beginning of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Which trial it belongs to, so that stragglers of the one before do not count.
    pub(crate) trial: u32,
    /// The number of the datagram, a count, or a time.
    pub(crate) value: u64,
}

impl Header {
    /// Writes itself to the beginning of `datagram`, which has at least [`HEADER_LEN`] bytes.
    pub(crate) fn write(self, datagram: &mut [u8]) {
        let kind: u32 = match self.kind {
            Kind::Load => 1,
            Kind::Report => 2,
            Kind::Echo => 3,
        };
        datagram[..4].copy_from_slice(&kind.to_be_bytes());
        datagram[4..8].copy_from_slice(&self.trial.to_be_bytes());
        datagram[8..16].copy_from_slice(&self.value.to_be_bytes());
    }

    /// Reads the beginning of a datagram, unless it is not one of these.
    pub(crate) fn read(datagram: &[u8]) -> Option<Self> {
        let (kind, rest) = datagram.split_first_chunk()?;
        let (trial, rest) = rest.split_first_chunk()?;
        let (value, _) = rest.split_first_chunk()?;
        let kind = match u32::from_be_bytes(*kind) {
            1 => Kind::Load,
            2 => Kind::Report,
            3 => Kind::Echo,
            _ => return None,
        };

        Some(Self { kind, trial: u32::from_be_bytes(*trial), value: u64::from_be_bytes(*value) })
    }
}
